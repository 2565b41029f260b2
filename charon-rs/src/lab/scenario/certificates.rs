//! A CA for the duration of a scenario, and a certificate for each of its gateways, as `pki quick` makes them.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use pki::certificate::{Certificate, KeyPurpose};
use pki::issue::{CaTemplate, Issuer, Template, random_serial};
use pki::key::{KeyFormat, KeyType, PrivateKey};
use pki::signature::{RsaPadding, SignatureScheme};
use pki::time::UnixTime;
use rand_core::UnwrapErr;

use crate::lab::setup::write_private;

/// A CA that lives as long as this value.
pub(super) struct Authority {
    certificate: Certificate,
    key: PrivateKey,
    now: UnixTime,
}

impl Authority {
    /// Makes a new one.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(super) fn new() -> Result<Self> {
        let now = UnixTime::from(SystemTime::now());
        let key = PrivateKey::generate(KEY, &mut rng())?;
        let mut template = Template::new(NAME.parse()?, random_serial(&mut rng()), now, now.plus_days(DAYS));
        template.ca = Some(CaTemplate { path_len: Some(0) });
        let certificate = template.self_signed(&key, scheme(), &mut rng())?;
        Ok(Self { certificate, key, now })
    }

    /// Puts into `folder`, where a gateway's configuration will be, a key and a certificate for `name`, and the CA.
    ///
    /// # Errors
    /// When files cannot be written.
    pub(super) fn equip(&self, folder: &Path, name: &str) -> Result<()> {
        let issuer = Issuer::new(&self.certificate, &self.key, scheme())?;
        let key = PrivateKey::generate(KEY, &mut rng())?;
        let subject = format!("CN={name}").parse()?;
        let mut template = Template::new(subject, random_serial(&mut rng()), self.now, self.now.plus_days(DAYS));
        template.alternative_names = vec![name.parse()?];
        template.purposes = vec![KeyPurpose::ServerAuth, KeyPurpose::ClientAuth];
        let certificate = issuer.issue(&template, key.public_key(), &mut rng())?;
        for kind in ["certs", "private", "cacerts"] {
            DirBuilder::new().mode(0o700).create(folder.join(kind))?;
        }
        fs::write(folder.join("certs").join(format!("{name}.pem")), certificate.to_pem())?;
        fs::write(folder.join("cacerts/ca.pem"), self.certificate.to_pem())?;
        write_private(&folder.join("private"), &format!("{name}.pem"), &key.to_pem(KeyFormat::Pkcs8))?;
        Ok(())
    }
}

fn rng() -> impl rand_core::CryptoRng {
    UnwrapErr(getrandom::SysRng)
}

fn scheme() -> SignatureScheme {
    SignatureScheme::natural(KEY, RsaPadding::Pkcs1)
}

const KEY: KeyType = KeyType::Ed25519;
const NAME: &str = "O=charon-rs lab, CN=Lab CA";
const DAYS: u32 = 1;
