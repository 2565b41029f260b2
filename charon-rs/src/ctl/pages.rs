//! Man pages and completions, made from the command lines themselves so that they are never out of date.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use super::Cli;
use crate::daemon::Options;

/// Writes `man/` and `completions/` into `folder`: pages for `charon-rs`, `charonctl` and each of its commands.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn write(folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    std::fs::create_dir_all(&man)?;
    std::fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(Cli::command(), &man)?;
    clap_mangen::generate_to(Options::command(), &man)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Options::command(), "charon-rs", &completions)?;
    }
    // Those of charonctl call it, which knows the names of the day.
    let scripts: [(&str, &dyn EnvCompleter); 3] =
        [("charonctl.bash", &Bash), ("charonctl.fish", &Fish), ("_charonctl", &Zsh)];
    for (file, shell) in scripts {
        let mut script = Vec::new();
        shell.write_registration("COMPLETE", "charonctl", "charonctl", "charonctl", &mut script)?;
        std::fs::write(completions.join(file), script)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page_and_both_programs_have_completions() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).unwrap();
        for file in ["charonctl.bash", "charonctl.fish", "_charonctl"] {
            assert!(read(&format!("completions/{file}")).contains("COMPLETE"), "{file}");
        }
        assert!(read("completions/charon-rs.bash").contains("socket-group"));
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert!(read(&format!("man/charonctl-{name}.1")).contains(name));
        }
        assert!(read("man/charon-rs.1").contains("socket\\-group"));
    }
}
