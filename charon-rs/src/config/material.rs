//! Files with certificates, keys and CRLs: where they are looked for, and what is wrong with them.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pki::certificate::{Certificate, CertificateError};
use pki::crl::{Crl, CrlError};
use pki::key::{KeyError, KeyFileError, PrivateKey, PublicKey};
use pki::pkcs12::{Container, ContainerError};
use zeroize::Zeroizing;

use super::problem::{Problem, Report, Severity};
use crate::credentials::Layer;

/// The folders beside the configuration that are read as a whole.
const PRIVATE: &str = "private";

/// Where certificates are looked for besides.
pub(super) const CERTIFICATES: &str = "certs";

/// A file larger than this is none of ours: the largest CRLs have some MiB.
const MAX_FILE: u64 = 64 << 20;

/// Files of one folder that are read.
const MAX_FILES: usize = 4096;

/// What was read of the files around a configuration.
pub(super) struct Material {
    /// The folder of `ipsec.toml`.
    folder: PathBuf,
    pub(super) layer: Layer,
    /// Keys in the folder `private` that need a passphrase.
    sealed: Vec<PathBuf>,
    /// Certificates that were read, so that each problem is reported once.
    read: BTreeMap<PathBuf, Vec<Certificate>>,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It is nowhere.
    #[error("there is no such file; looked at {}", list(.0))]
    Nowhere(Vec<PathBuf>),
    /// It cannot be read.
    #[error("{file}: {why}", file = .0.display(), why = .1)]
    Io(PathBuf, io::Error),
    /// A folder or a device.
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    /// Larger than anything useful.
    #[error("{} is larger than {} MiB", .0.display(), MAX_FILE >> 20)]
    TooLarge(PathBuf),
    /// Others can read the private key.
    #[error("{file}: others can read the private key (mode {mode:04o}); chmod 600 {file}", file = .0.display(), mode = .1)]
    Exposed(PathBuf, u32),
    /// No certificate.
    #[error("{}: {}", .0.display(), .1)]
    Certificate(PathBuf, CertificateError),
    /// No private key.
    #[error("{}: {}", .0.display(), .1)]
    Key(PathBuf, KeyFileError),
    /// No PKCS#12 container.
    #[error("{}: {}", .0.display(), .1)]
    Container(PathBuf, ContainerError),
    /// No public key.
    #[error("{}: {}", .0.display(), .1)]
    PublicKey(PathBuf, KeyError),
    /// No CRL.
    #[error("{}: {}", .0.display(), .1)]
    Crl(PathBuf, CrlError),
}

impl Material {
    /// What lies around the configuration file `config`, on top of what the secrets file gave.
    pub(super) fn around(config: &Path, layer: Layer, report: &mut Report) -> Self {
        let folder = config.parent().unwrap_or(Path::new("")).to_owned();
        let mut material = Self { folder, layer, sealed: Vec::new(), read: BTreeMap::new() };
        let private = material.folder.join(PRIVATE);
        if private.is_dir() {
            for file in files_in(&private, report) {
                match private_key(&file, None) {
                    Ok(key) => {
                        material.layer.add_key(key);
                    }
                    Err(FileError::Key(file, KeyFileError::PassphraseNeeded)) => material.sealed.push(file),
                    Err(error) => report.add(problem(&file, &error)),
                }
            }
        }
        material
    }

    /// Trusts the CAs of `places`, files or folders; without any, those of the folder `cacerts`.
    pub(super) fn trust(&mut self, places: Option<&[String]>, report: &mut Report) {
        for file in self.all_files(places, "cacerts", report) {
            match self.certificates_of(&file) {
                Ok(certificates) => {
                    for certificate in certificates {
                        if !certificate.is_ca() && certificate.version() == 3 {
                            let message = format!("`{}` is not the certificate of a CA", certificate.subject());
                            report.add(Problem { severity: Severity::Warning, ..said(&file, message) });
                        }
                        self.layer.add_authority(certificate);
                    }
                }
                Err(error) => report.add(problem(&file, &error)),
            }
        }
    }

    /// Takes the CRLs of `places`, files or folders; without any, those of the folder `crls`.
    pub(super) fn take_crls(&mut self, places: Option<&[String]>, report: &mut Report) {
        for file in self.all_files(places, "crls", report) {
            let crl =
                read(&file).and_then(|octets| Crl::load(&octets).map_err(|why| FileError::Crl(file.clone(), why)));
            match crl {
                Ok(crl) => self.layer.crls.push(Arc::new(crl)),
                Err(error) => report.add(problem(&file, &error)),
            }
        }
    }

    /// The certificates of the file that the configuration calls `name`.
    ///
    /// # Errors
    /// [`FileError`]
    pub(super) fn certificates(&mut self, name: &str, folder: &str) -> Result<Vec<Certificate>, FileError> {
        let file = self.find(name, &[folder])?;
        self.certificates_of(&file)
    }

    /// Adds the private key of the file that the configuration calls `name`.
    ///
    /// # Errors
    /// [`FileError`]
    pub(super) fn add_key(&mut self, name: &str) -> Result<(), FileError> {
        let key = private_key(&self.find(name, &[PRIVATE])?, None)?;
        self.layer.add_key(key);
        Ok(())
    }

    /// The public key of the file that the configuration calls `name`; of a certificate, the one in it.
    ///
    /// # Errors
    /// [`FileError`]
    pub(super) fn public_key(&self, name: &str) -> Result<PublicKey, FileError> {
        let file = self.find(name, &["pubkey", CERTIFICATES])?;
        let octets = read(&file)?;
        let block = pki::pem::parse(&octets).ok().and_then(|blocks| blocks.into_iter().next());
        let (der, is_certificate) = match &block {
            Some(block) => (block.der.as_slice(), block.label.ends_with("CERTIFICATE")),
            None => (octets.as_slice(), false),
        };
        let key = if is_certificate {
            let certificate = Certificate::from_der(der).map_err(|why| FileError::Certificate(file.clone(), why))?;
            certificate.public_key().cloned().map_err(Clone::clone)
        } else {
            PublicKey::from_spki_der(der)
        };
        key.map_err(|why| FileError::PublicKey(file, why))
    }

    /// Where private keys were looked for, for people.
    pub(super) fn key_places(&self) -> String {
        let mut places = format!(
            "looked at [key.NAME] and [pkcs12.NAME] of the secrets file, and at the files in {}",
            self.folder.join(PRIVATE).display()
        );
        if !self.sealed.is_empty() {
            let hint = format!("; {} needs a passphrase: name it in [key.NAME]", list(&self.sealed));
            places.push_str(&hint);
        }
        places
    }

    fn certificates_of(&mut self, file: &Path) -> Result<Vec<Certificate>, FileError> {
        if let Some(known) = self.read.get(file) {
            return Ok(known.clone());
        }
        let octets = read(file)?;
        let found = Certificate::load(&octets).map_err(|why| FileError::Certificate(file.to_owned(), why))?;
        self.read.insert(file.to_owned(), found.clone());
        Ok(found)
    }

    /// The files of `places`; without any, those of the folder `default` if it is there.
    fn all_files(&self, places: Option<&[String]>, default: &str, report: &mut Report) -> Vec<PathBuf> {
        let places: Vec<PathBuf> = match places {
            Some(places) => places.iter().map(|place| self.folder.join(place)).collect(),
            None => Some(self.folder.join(default)).filter(|folder| folder.is_dir()).into_iter().collect(),
        };
        let mut files = Vec::new();
        for place in places {
            if place.is_dir() {
                files.extend(files_in(&place, report));
            } else {
                files.push(place);
            }
        }
        files
    }

    /// The file that is called `name`, in one of `folders` beside the configuration, or beside it.
    fn find(&self, name: &str, folders: &[&str]) -> Result<PathBuf, FileError> {
        let mut places: Vec<PathBuf> = folders.iter().map(|folder| self.folder.join(folder).join(name)).collect();
        places.push(self.folder.join(name));
        places.dedup(); // of an absolute path there is but one
        places.iter().find(|place| place.exists()).cloned().ok_or(FileError::Nowhere(places))
    }
}

/// The files of a folder in the order of their names; hidden ones and folders in it are passed over.
fn files_in(folder: &Path, report: &mut Report) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = entries.unwrap_or_else(|why| {
        report.add(problem(folder, &FileError::Io(folder.to_owned(), why)));
        Vec::new()
    });
    let hidden = |path: &Path| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let paths = entries.into_iter().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = paths.filter(|path| !hidden(path) && path.is_file()).collect();
    files.sort_unstable();
    if files.len() > MAX_FILES {
        report.add(said(folder, format!("there are {} files; at most {MAX_FILES} are read", files.len())));
        files.truncate(MAX_FILES);
    }
    files
}

/// Reads a private key that nobody but its owner can read.
///
/// # Errors
/// [`FileError`]
pub(super) fn private_key(file: &Path, passphrase: Option<&str>) -> Result<PrivateKey, FileError> {
    let octets = read_private(file)?;
    PrivateKey::load(&octets, passphrase).map_err(|why| FileError::Key(file.to_owned(), why))
}

/// Reads a PKCS#12 container that nobody but its owner can read.
///
/// # Errors
/// [`FileError`]
pub(super) fn container(file: &Path, passphrase: &str) -> Result<Container, FileError> {
    let octets = read_private(file)?;
    Container::from_der(&octets, passphrase).map_err(|why| FileError::Container(file.to_owned(), why))
}

/// `error` as a problem of `file`.
pub(super) fn problem(file: &Path, error: &FileError) -> Problem {
    let message = error.to_string();
    let prefix = format!("{}: ", file.display());
    said(file, message.strip_prefix(&prefix).unwrap_or(&message).to_owned())
}

fn said(file: &Path, message: String) -> Problem {
    Problem { file: file.to_owned(), place: None, severity: Severity::Error, message, expected: None, nearest: None }
}

fn read_private(file: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let mode = std::fs::metadata(file).map_err(|why| FileError::Io(file.to_owned(), why))?.mode();
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed(file.to_owned(), mode & 0o7777));
    }
    read(file)
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |why: io::Error| FileError::Io(file.to_owned(), why);
    let metadata = std::fs::metadata(file).map_err(failed)?;
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Err(FileError::NotAFile(file.to_owned()));
    }
    let size = usize::try_from(metadata.len()).ok().filter(|_| metadata.len() <= MAX_FILE);
    let size = size.ok_or_else(|| FileError::TooLarge(file.to_owned()))?;
    let mut octets = Zeroizing::new(Vec::with_capacity(size + 1));
    std::fs::File::open(file).map_err(failed)?.take(MAX_FILE).read_to_end(&mut octets).map_err(failed)?;
    Ok(octets)
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
