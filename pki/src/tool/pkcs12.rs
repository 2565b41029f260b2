//! `pkcs12`: containers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args as Arguments;
use pki::key::KeyFormat;
use pki::pem;
use pki::pkcs12::Container;

use super::files::{self, Input, Output};
use super::rng;

#[derive(Arguments)]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    /// List what is in the container
    #[arg(long, short = 'l')]
    list: bool,
    /// Write the item with this number of the list
    #[arg(long, short = 'e', value_name = "NUMBER")]
    export: Option<usize>,
    /// Make a container with this private key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["list", "export", "file"])]
    key: Option<PathBuf>,
    /// Certificates for the new container, that of the key first; can be repeated
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let passphrase = args.input.passphrase.read()?.context("--passphrase-file is missing")?;
    if let Some(file) = &args.key {
        return make(args, file, &passphrase);
    }
    let container = Container::from_der(&args.input.read()?, &passphrase).with_context(|| args.input.name())?;
    match args.export {
        None => list(&container),
        Some(number) => export(args, &container, number)?,
    }
    Ok(())
}

fn make(args: &Args, file: &Path, passphrase: &str) -> Result<()> {
    let key = args.input.passphrase.private_key(file)?;
    let mut container = Container { keys: vec![key], certificates: Vec::new() };
    for file in &args.cert {
        container.certificates.extend(files::certificates(file)?);
    }
    if !args.cert.is_empty() && container.end_entity().is_none() {
        bail!("none of the certificates belongs to the key");
    }
    let der = container.to_der(passphrase, &mut rng())?;
    args.output.write(&der, &pem::encode("PKCS12", &der))
}

fn list(container: &Container) {
    println!("Certificates ({}):", container.certificates.len());
    for (number, certificate) in container.certificates.iter().enumerate() {
        println!("{:>4}: \"{}\"", number + 1, certificate.subject());
    }
    println!("Private keys ({}):", container.keys.len());
    for (number, key) in container.keys.iter().enumerate() {
        println!("{:>4}: {} {}", number + 1 + container.certificates.len(), key.key_type(), key.public_key().key_id());
    }
}

/// Certificates have the first numbers, keys those after.
fn export(args: &Args, container: &Container, number: usize) -> Result<()> {
    let index = number.checked_sub(1).context("numbers start at 1")?;
    if let Some(certificate) = container.certificates.get(index) {
        return args.output.write(certificate.der(), &certificate.to_pem());
    }
    let key = index.checked_sub(container.certificates.len()).and_then(|index| container.keys.get(index));
    let key = key.with_context(|| format!("there is no item {number}"))?;
    args.output.write(&key.to_der(KeyFormat::Pkcs8), &key.to_pem(KeyFormat::Pkcs8))
}
