//! strongSwan's configuration files in the words of ours: `charonctl import`.
//!
//! | module | what lives there |
//! |---|---|
//! | `conf` | the syntax of swanctl.conf |
//! | `swanctl` | connections and secrets of swanctl.conf, by the tables of its keys |
//! | `ipsec` | ipsec.conf and ipsec.secrets |
//! | `text` | TOML as people write it |

mod conf;
mod ipsec;
mod swanctl;
mod text;

use std::path::Path;

/// What a file became.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Imported {
    /// `ipsec.toml`.
    pub(crate) config: String,
    /// `ipsec.secrets.toml`.
    pub(crate) secrets: String,
    /// What could not be translated, in the order of the file.
    pub(crate) left_out: Vec<LeftOut>,
}

/// Something that could not be translated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeftOut {
    /// Its line, from 1.
    pub(crate) line: usize,
    /// What it is, and why.
    pub(crate) why: String,
}

/// Translates the text of `file`, whose name or content tells what it is; `folder` is where its certificates and keys are.
pub(crate) fn import(file: &Path, folder: &Path, text: &str) -> Imported {
    let is_secrets = file.extension().is_some_and(|extension| extension == "secrets");
    let begins = |word: &str| text.lines().any(|line| line.starts_with(word));
    let mut imported = if is_secrets {
        ipsec::secrets(text, folder)
    } else if begins("conn ") || begins("config setup") || begins("ca ") {
        ipsec::config(text)
    } else {
        swanctl::import(text, folder)
    };
    imported.left_out.sort();
    imported
}
