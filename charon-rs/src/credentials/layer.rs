//! What one front end told: keys, certificates, CRLs, and what connections say about them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ike_proto::config::{CredentialName, TrustName};
use pki::certificate::Certificate;
use pki::crl::Crl;
use pki::key::{KeyId, PrivateKey, PublicKey};

use super::demand::{Demand, Signer};

/// Keys, certificates, CRLs, and what connections say about them. A copy shares the content.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// Private keys by the identifiers of their public halves.
    pub keys: BTreeMap<KeyId, OwnKey>,
    /// Certificates of ours and of peers.
    pub certificates: Vec<Certificate>,
    /// CA certificates that are needed on the way to a trusted one, and not trusted themselves.
    pub intermediates: Vec<Certificate>,
    /// CA certificates that are trusted.
    pub authorities: Vec<Certificate>,
    /// Where to ask about certificates of a CA, besides where they say it themselves, by the CA's name in the configuration.
    pub places: BTreeMap<String, Places>,
    /// CRLs; nothing is believed of them yet.
    pub crls: Vec<Arc<Crl>>,
    /// What connections sign with.
    pub signers: BTreeMap<CredentialName, Arc<Signer>>,
    /// What connections demand of their peers.
    pub demands: BTreeMap<TrustName, Arc<Demand>>,
}

/// Where to ask about the certificates of a CA.
#[derive(Clone, Debug)]
pub struct Places {
    /// The CA.
    pub authority: Certificate,
    /// Where CRLs are.
    pub crl_uris: Vec<String>,
    /// Where OCSP responders are.
    pub ocsp_uris: Vec<String>,
}

/// A private key of ours; `Debug` shows its public half.
#[derive(Clone)]
pub struct OwnKey(Arc<PrivateKey>);

impl Layer {
    /// Adds a private key.
    pub fn add_key(&mut self, key: PrivateKey) -> KeyId {
        let id = key.public_key().key_id();
        self.keys.insert(id, OwnKey(Arc::new(key)));
        id
    }

    /// Adds a certificate where it belongs: a CA's to the intermediates, others to the certificates.
    pub fn add_certificate(&mut self, certificate: Certificate) {
        let place = if certificate.is_ca() { &mut self.intermediates } else { &mut self.certificates };
        if !place.contains(&certificate) {
            place.push(certificate);
        }
    }

    /// Adds a CA that is trusted.
    pub fn add_authority(&mut self, certificate: Certificate) {
        if !self.authorities.contains(&certificate) {
            self.authorities.push(certificate);
        }
    }

    /// Adds everything of another one.
    pub fn merge(&mut self, other: Self) {
        let Self { keys, certificates, intermediates, authorities, places, crls, signers, demands } = other;
        self.keys.extend(keys);
        certificates.into_iter().chain(intermediates).for_each(|certificate| self.add_certificate(certificate));
        authorities.into_iter().for_each(|authority| self.add_authority(authority));
        self.places.extend(places);
        self.crls.extend(crls);
        self.signers.extend(signers);
        self.demands.extend(demands);
    }

    /// Adds what a connection signs with, and names it.
    pub fn add_signer(&mut self, signer: Signer) -> CredentialName {
        let name = signer.name();
        self.signers.insert(name.clone(), Arc::new(signer));
        name
    }

    /// Adds what a connection demands, and names it.
    pub fn add_demand(&mut self, demand: Demand) -> TrustName {
        let name = demand.name();
        self.demands.insert(name.clone(), Arc::new(demand));
        name
    }

    /// The private key that belongs to a public one.
    #[must_use]
    pub fn key_of(&self, public: &PublicKey) -> Option<&OwnKey> {
        self.keys.get(&public.key_id()).filter(|key| key.private().public_key() == public)
    }
}

impl OwnKey {
    /// The key.
    #[must_use]
    pub fn private(&self) -> &PrivateKey {
        &self.0
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnKey({:?})", self.0.public_key())
    }
}
