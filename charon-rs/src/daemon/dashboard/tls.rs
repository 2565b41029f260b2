//! The certificate of the dashboard, and those of its clients.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use getrandom::SysRng;
use pki::issue::{Template, random_serial};
use pki::key::{Curve, KeyFormat, KeyType, PrivateKey};
use pki::signature::{RsaPadding, SignatureScheme};
use pki::time::UnixTime;
use rand_core::UnwrapErr;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::config::DashboardConfig;

/// What TLS connections are accepted with.
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    /// SHA-256 of the certificate, for people to compare.
    pub(super) fingerprint: String,
}

/// How long a certificate lives that is made at each start.
const DAYS: u32 = 397;

/// Reads the certificate, or makes one.
///
/// # Errors
/// When a file cannot be used.
pub(super) fn acceptor(config: &DashboardConfig) -> Result<Tls> {
    let (chain, key) = match &config.certificate {
        Some((certificate, key)) => (
            read_chain(certificate)?,
            PrivateKeyDer::from_pem_file(key).with_context(|| format!("dashboard_key {}", key.display()))?,
        ),
        None => made()?,
    };
    let fingerprint = chain.first().map(|certificate| fingerprint(certificate)).unwrap_or_default();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?;
    let builder = match &config.client_authority {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            for certificate in read_chain(authority)? {
                roots.add(certificate).with_context(|| format!("dashboard_client_ca {}", authority.display()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
            builder.with_client_cert_verifier(verifier.build().context("dashboard_client_ca")?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(chain, key).context("dashboard_cert and dashboard_key")?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(server)), fingerprint })
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let shown = file.display();
    let chain = CertificateDer::pem_file_iter(file).with_context(|| format!("the certificate {shown}"))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().with_context(|| format!("the certificate {shown}"))?;
    anyhow::ensure!(!chain.is_empty(), "there is no certificate in {shown}");
    Ok(chain)
}

/// A certificate that nobody vouches for; its fingerprint is in the log.
fn made() -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let rng = &mut UnwrapErr(SysRng);
    let key = PrivateKey::generate(KeyType::Ecdsa(Curve::P256), rng)?;
    let now = UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    let mut template = Template::new("CN=charon-rs dashboard".parse()?, random_serial(rng), now, now.plus_days(DAYS));
    template.alternative_names = vec!["localhost".parse()?, "127.0.0.1".parse()?, "::1".parse()?];
    let scheme = SignatureScheme::natural(key.key_type(), RsaPadding::Pkcs1);
    let certificate = template.self_signed(&key, scheme, rng)?;
    let der = key.to_der(KeyFormat::Pkcs8);
    Ok((vec![CertificateDer::from(certificate.der().to_vec())], PrivatePkcs8KeyDer::from(der.to_vec()).into()))
}

fn fingerprint(certificate: &[u8]) -> String {
    let octets: Vec<String> = Sha256::digest(certificate).iter().map(|octet| format!("{octet:02X}")).collect();
    octets.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_made_at_the_start_is_good_for_tls() {
        let config = DashboardConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            token_file: "token".into(),
            certificate: None,
            client_authority: None,
        };
        let tls = acceptor(&config).unwrap();
        assert_eq!(tls.fingerprint.len(), 32 * 3 - 1);
        assert_ne!(tls.fingerprint, acceptor(&config).unwrap().fingerprint, "each start has its own key");
    }
}
