//! Reading and writing files.

use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use pki::certificate::Certificate;
use pki::crl::Crl;
use pki::key::PrivateKey;
use zeroize::Zeroizing;

/// Where something is read from.
#[derive(Args)]
pub(crate) struct Input {
    /// File to read; without it standard input
    #[arg(long = "in", short = 'i', value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
}

/// What opens encrypted keys.
#[derive(Args)]
pub(crate) struct Passphrase {
    /// File whose first line is the passphrase of encrypted keys
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// How something is written.
#[derive(Args)]
pub(crate) struct Output {
    /// Encoding of what is written; by default der, on a terminal pem
    #[arg(long, short = 'f', value_name = "der|pem")]
    outform: Option<Encoding>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    Der,
    Pem,
}

impl Input {
    pub(crate) fn read(&self) -> Result<Zeroizing<Vec<u8>>> {
        read(self.file.as_deref())
    }

    /// How the input is called in messages.
    pub(crate) fn name(&self) -> String {
        self.file.as_ref().map_or_else(|| "standard input".to_owned(), |file| file.display().to_string())
    }

    pub(crate) fn private_key(&self) -> Result<PrivateKey> {
        let octets = self.read()?;
        PrivateKey::load(&octets, self.passphrase.read()?.as_deref().map(String::as_str)).with_context(|| self.name())
    }
}

impl Passphrase {
    pub(crate) fn read(&self) -> Result<Option<Zeroizing<String>>> {
        let Some(file) = &self.passphrase_file else { return Ok(None) };
        let text = Zeroizing::new(fs::read_to_string(file).with_context(|| file.display().to_string())?);
        Ok(Some(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())))
    }

    pub(crate) fn private_key(&self, file: &Path) -> Result<PrivateKey> {
        let octets = read(Some(file))?;
        let passphrase = self.read()?;
        PrivateKey::load(&octets, passphrase.as_deref().map(String::as_str)).with_context(|| file.display().to_string())
    }
}

impl Output {
    /// Writes to standard output.
    pub(crate) fn write(&self, der: &[u8], pem: &str) -> Result<()> {
        let mut output = std::io::stdout().lock();
        let encoding = self.outform.unwrap_or(if output.is_terminal() { Encoding::Pem } else { Encoding::Der });
        let octets = if encoding == Encoding::Pem { pem.as_bytes() } else { der };
        output.write_all(octets).and_then(|()| output.flush()).context("standard output")
    }
}

pub(crate) fn read(file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>> {
    let mut octets = Zeroizing::new(Vec::new());
    match file {
        Some(file) => {
            let opened = fs::File::open(file).with_context(|| file.display().to_string())?;
            opened.take(MAX_FILE).read_to_end(&mut octets).with_context(|| file.display().to_string())?;
        }
        None => {
            std::io::stdin().lock().take(MAX_FILE).read_to_end(&mut octets).context("standard input")?;
        }
    }
    Ok(octets)
}

pub(crate) fn certificates(file: &Path) -> Result<Vec<Certificate>> {
    Certificate::load(&read(Some(file))?).with_context(|| file.display().to_string())
}

/// The first certificate in a file.
pub(crate) fn certificate(file: &Path) -> Result<Certificate> {
    certificates(file)?.into_iter().next().with_context(|| format!("{}: no certificate", file.display()))
}

pub(crate) fn crl(file: &Path) -> Result<Crl> {
    Crl::load(&read(Some(file))?).with_context(|| file.display().to_string())
}

/// Writes a new file, which nobody but its owner can read if it is `private`. What exists stays.
pub(crate) fn create(file: &Path, octets: &[u8], private: bool) -> Result<()> {
    let mode = if private { 0o600 } else { 0o644 };
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    let mut opened = opened.with_context(|| format!("cannot create {}", file.display()))?;
    opened
        .write_all(octets)
        .and_then(|()| opened.sync_all())
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Makes a folder and those above it.
pub(crate) fn create_folder(folder: &Path, private: bool) -> Result<()> {
    let mode = if private { 0o700 } else { 0o755 };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    if !folder.is_dir() {
        bail!("{} is no folder", folder.display());
    }
    Ok(())
}

/// No key, certificate or CRL is larger.
const MAX_FILE: u64 = 256 << 20;
