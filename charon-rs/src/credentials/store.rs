//! Everything that is known, wherever it was told.

use std::sync::Arc;

use ike_proto::config::{AuthorityHash, Connection, CredentialName, RemoteMethod, Trust, TrustName};
use pki::certificate::Certificate;
use pki::crl::Crl;
use pki::key::PublicKey;
use pki::path::Authority;

use super::demand::{Demand, Signer};
use super::layer::{Layer, OwnKey, Places};

/// All layers together. A copy shares the content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    file: Layer,
    socket: Layer,
    /// The trusted CAs of both.
    anchors: Arc<Vec<Certificate>>,
}

impl Store {
    /// Replaces what the files say.
    pub(crate) fn set_file(&mut self, layer: Layer) {
        self.file = layer;
        self.join();
    }

    /// Changes what was told over the control socket.
    pub(crate) fn change_socket<T>(&mut self, change: impl FnOnce(&mut Layer) -> T) -> T {
        let result = change(&mut self.socket);
        self.join();
        result
    }

    /// What was told over the control socket.
    pub(crate) fn socket(&self) -> &Layer {
        &self.socket
    }

    /// Whether we have the private key of a certificate.
    pub(crate) fn has_key(&self, certificate: &Certificate) -> bool {
        certificate.public_key().is_ok_and(|key| self.key_of(key).is_some())
    }

    /// Where to ask about certificates, by the names of the CAs.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&String, &Places)> {
        self.layers().flat_map(|layer| &layer.places)
    }

    /// The trusted CAs.
    pub(crate) fn anchors(&self) -> &Arc<Vec<Certificate>> {
        &self.anchors
    }

    /// What a connection signs with.
    pub(crate) fn signer(&self, name: &CredentialName) -> Option<&Signer> {
        self.layers().find_map(|layer| layer.signers.get(name)).map(AsRef::as_ref)
    }

    /// What a connection demands.
    pub(crate) fn demand(&self, name: &TrustName) -> Option<&Arc<Demand>> {
        self.layers().find_map(|layer| layer.demands.get(name))
    }

    /// Our private key that belongs to a public one.
    pub(super) fn key_of(&self, public: &PublicKey) -> Option<&OwnKey> {
        self.layers().find_map(|layer| layer.key_of(public))
    }

    /// Certificates of ours and of peers.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.layers().flat_map(|layer| &layer.certificates)
    }

    /// CA certificates that are not trusted themselves.
    pub(crate) fn intermediates(&self) -> impl Iterator<Item = &Certificate> {
        self.layers().flat_map(|layer| &layer.intermediates)
    }

    /// Where to ask about certificates of a CA, besides where they say it themselves.
    pub(super) fn places_of(&self, issuer: &Certificate) -> impl Iterator<Item = &Places> {
        self.places().map(|(_, places)| places).filter(move |places| places.authority == *issuer)
    }

    /// CRLs of files.
    pub(crate) fn crls(&self) -> impl Iterator<Item = &Arc<Crl>> {
        self.layers().flat_map(|layer| &layer.crls)
    }

    /// Tells a connection the CAs that it asks certificates of, as far as they are known now.
    pub(crate) fn complete(&self, connection: &mut Connection) {
        let rounds = std::iter::once(&mut connection.remote).chain(&mut connection.more_remote);
        for round in rounds {
            if let RemoteMethod::Signature(trust) = &mut round.method {
                trust.authorities = self.authorities_of(trust);
            }
        }
    }

    fn authorities_of(&self, trust: &Trust) -> Vec<AuthorityHash> {
        let Some(demand) = self.demand(&trust.name) else { return Vec::new() };
        let own = demand.anchors();
        let named = self.anchors.iter().chain(self.intermediates()).filter(|certificate| {
            demand.authorities.iter().any(|authority| match authority {
                Authority::Named(name) => name.same_as(certificate.subject()),
                Authority::Certificate(_) => false,
            })
        });
        let mut hashes: Vec<AuthorityHash> = if demand.authorities.is_empty() {
            self.anchors.iter().map(hash).collect()
        } else {
            own.chain(named).map(hash).collect()
        };
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        [&self.file, &self.socket].into_iter()
    }

    fn join(&mut self) {
        let mut anchors: Vec<Certificate> = Vec::new();
        for certificate in self.layers().flat_map(|layer| &layer.authorities) {
            if !anchors.contains(certificate) {
                anchors.push(certificate.clone());
            }
        }
        self.anchors = Arc::new(anchors);
    }
}

fn hash(certificate: &Certificate) -> AuthorityHash {
    AuthorityHash(certificate.spki_id().0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::testing::Entity;

    #[test]
    fn a_connection_asks_for_certificates_of_the_cas_it_wants() {
        let (alpha, beta) = (Entity::root("alpha").certificate, Entity::root("beta").certificate);
        let mut store = Store::default();
        let mut layer = Layer { authorities: vec![alpha.clone(), beta.clone()], ..Layer::default() };
        let any = layer.add_demand(Demand::default());
        let named = Authority::Named(alpha.subject().clone());
        let one = layer.add_demand(Demand { authorities: vec![named], ..Demand::default() });
        store.set_file(layer);
        let asked = |name: TrustName| {
            let mut connection = Connection::new("net");
            connection.remote.method = RemoteMethod::Signature(Trust { name, authorities: Vec::new(), ocsp: false });
            store.complete(&mut connection);
            match connection.remote.method {
                RemoteMethod::Signature(trust) => trust.authorities,
                RemoteMethod::PreSharedKey | _ => Vec::new(),
            }
        };
        assert_eq!(asked(one), [hash(&alpha)]);
        assert_eq!(asked(any).len(), 2);
        assert!(asked(TrustName("nobody's".into())).is_empty());
    }

    #[test]
    fn what_both_front_ends_trust_counts_once() {
        let alpha = Entity::root("alpha").certificate;
        let mut store = Store::default();
        store.set_file(Layer { authorities: vec![alpha.clone()], ..Layer::default() });
        store.change_socket(|layer| layer.add_authority(alpha));
        assert_eq!(store.anchors().len(), 1);
        store.set_file(Layer::default());
        assert_eq!(store.anchors().len(), 1, "the socket still trusts it");
    }
}
