//! The file of a capture, in a place that somebody else named.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fchmod, openat, openat2};
use rustix::io::Errno;

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoFile {
    #[error("`{}` is no file with its whole path: it begins with `/` and ends with a name", .0.display())]
    Path(PathBuf),
    #[error("a part of `{}` is a symbolic link, which somebody may have put there{}", path.display(), meant(real.as_deref()))]
    Link { path: PathBuf, real: Option<PathBuf> },
    #[error("`{}` is there, and no file that belongs to the daemon's user alone", .0.display())]
    NotOurs(PathBuf),
    #[error("`{}` is there, and no capture: --force writes over it", .0.display())]
    NoCapture(PathBuf),
    #[error("`{}` cannot be written: {source}", path.display())]
    System { path: PathBuf, source: io::Error },
}

fn meant(real: Option<&Path>) -> String {
    real.map(|real| format!("; if it is meant, say `{}`", real.display())).unwrap_or_default()
}

/// Opens a file for the owner alone, and makes it if it is not there. What is there already may be written over only if it is an
/// older capture, or `force` says so, and is still in it; links are not followed anywhere.
///
/// # Errors
/// [`NoFile`].
pub(crate) fn open(path: &Path, force: bool) -> Result<File, NoFile> {
    let system = |errno: Errno| NoFile::System { path: path.to_owned(), source: errno.into() };
    let no_path = || NoFile::Path(path.to_owned());
    let (folder, name) = (path.parent().ok_or_else(no_path)?, path.file_name().ok_or_else(no_path)?);
    if !path.is_absolute() {
        return Err(no_path());
    }
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let folder_fd = match openat2(CWD, folder, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(folder) => folder,
        Err(Errno::LOOP) => {
            let real = folder.canonicalize().ok().map(|folder| folder.join(name));
            return Err(NoFile::Link { path: path.to_owned(), real });
        }
        Err(errno) => return Err(system(errno)),
    };
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let owner_alone = Mode::RUSR | Mode::WUSR;
    match openat(&folder_fd, name, flags | OFlags::CREATE | OFlags::EXCL, owner_alone) {
        Ok(file) => Ok(file.into()),
        // Not to wait for the other end of a pipe.
        Err(Errno::EXIST) => open_older(&folder_fd, name, flags | OFlags::NONBLOCK, path, force),
        Err(errno) => Err(system(errno)),
    }
}

fn open_older(folder: &OwnedFd, name: &OsStr, flags: OFlags, path: &Path, force: bool) -> Result<File, NoFile> {
    let system = |source: io::Error| NoFile::System { path: path.to_owned(), source };
    let mut file: File = match openat(folder, name, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(Errno::LOOP) => return Err(NoFile::Link { path: path.to_owned(), real: None }),
        Err(errno) => return Err(system(errno.into())),
    };
    let found = file.metadata().map_err(system)?;
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() || found.nlink() != 1 {
        return Err(NoFile::NotOurs(path.to_owned()));
    }
    let mut start = Vec::new();
    (&mut file).take(PCAPNG.len() as u64).read_to_end(&mut start).map_err(system)?;
    if !force && !start.is_empty() && start != PCAPNG {
        return Err(NoFile::NoCapture(path.to_owned()));
    }
    fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(|errno| system(errno.into()))?;
    file.rewind().map_err(system)?;
    Ok(file)
}

/// What every pcapng file begins with, in either byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_for_the_owner_alone_and_an_older_capture_makes_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcapng");
        open(&path, false).unwrap().write_all(&[&PCAPNG[..], b"old"].concat()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let mut again = open(&path, false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [&PCAPNG[..], b"old"].concat(), "nobody has begun to write");
        again.write_all(b"new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_capture_is_written_over_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        fs::write(&path, "root:x:0:0").unwrap();
        assert!(matches!(open(&path, false), Err(NoFile::NoCapture(_))));
        assert_eq!(fs::read(&path).unwrap(), b"root:x:0:0");
        assert!(open(&path, true).is_ok());
    }

    #[test]
    fn links_are_followed_nowhere_and_files_with_two_names_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [target, link, twin] = ["target", "link", "twin"].map(|name| folder.path().join(name));
        fs::write(&target, "").unwrap();
        symlink(&target, &link).unwrap();
        assert!(matches!(open(&link, true), Err(NoFile::Link { .. })));
        let real = folder.path().join("real");
        fs::create_dir(&real).unwrap();
        symlink(&real, folder.path().join("way")).unwrap();
        let error = open(&folder.path().join("way/x"), false).unwrap_err().to_string();
        assert!(error.ends_with("real/x`"), "{error}");
        fs::hard_link(&target, &twin).unwrap();
        assert!(matches!(open(&twin, true), Err(NoFile::NotOurs(_))));
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(open(&pipe, true), Err(NoFile::NotOurs(_))));
        for no_file in ["relative", "/", "/nowhere/at/all"] {
            assert!(open(Path::new(no_file), true).is_err(), "{no_file}");
        }
    }
}
