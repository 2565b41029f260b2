//! From drafts to rounds of authentication, and what certificates and keys must have in common with them.

use std::ops::Range;

use ike_proto::config::{Connection, LocalAuth, LocalMethod, RemoteAuth, RemoteMethod, Trust};
use ike_proto::identity::{Identity, IdentityPattern};
use pki::certificate::Certificate;
use pki::dn::DistinguishedName;
use pki::path::Authority;
use pki::revocation::Policy;
use pki::time::UnixTime;

use super::auth_keys::{AuthDraft, LeftDraft, Method, RightDraft};
use super::build::Builder;
use super::item::At;
use super::material::{CERTIFICATES, FileError};
use super::source::Complaint;
use crate::credentials::{Constraints, Demand, Signer, names};

/// What holds for all rounds of the peer.
struct Common<'a> {
    auth: &'a AuthDraft,
    /// Who the peer must be when nothing says it.
    peer: IdentityPattern,
}

impl Builder<'_> {
    /// Fills in how both ends of `connection` authenticate; `peer` is who the peer must be when `rightid` does not say.
    pub(super) fn authenticate(&mut self, draft: &AuthDraft, peer: IdentityPattern, connection: &mut Connection) {
        let we_sign = signs(&draft.left.auth, draft.left.names_material());
        connection.local = self.local(&draft.left, we_sign, None);
        if draft.left2.is_there() {
            let signs = signs(&draft.left2.auth, draft.left2.names_material());
            let identity = connection.local.identity.clone();
            connection.more_local.push(self.local(&draft.left2, signs, identity));
        }
        let common = Common { auth: draft, peer };
        let they_sign = signs(&draft.right.auth, draft.right.names_material() || we_sign);
        connection.remote = self.remote(&draft.right, they_sign, &common);
        if draft.right2.is_there() {
            let signs = signs(&draft.right2.auth, draft.right2.names_material());
            let common = Common { auth: draft, peer: IdentityPattern::Any };
            connection.more_remote.push(self.remote(&draft.right2, signs, &common));
        }
        if let Some(when) = draft.send_certificates {
            connection.send_certificates = when;
        }
        connection.send_certificate_requests = draft.send_requests.unwrap_or(true);
    }

    fn local(&mut self, draft: &LeftDraft, signs: bool, default: Option<Identity>) -> LocalAuth {
        let mut identity = draft.identity.as_ref().map(|id| id.value.clone()).or(default);
        if !signs {
            self.refuse_material(draft.certificates.first().or(draft.key.as_ref()).or(draft.raw.as_ref()), "leftauth");
            return LocalAuth { identity, method: LocalMethod::PreSharedKey };
        }
        let constraints = constraints(draft.auth.as_ref());
        if let Some(key) = &draft.key
            && let Err(error) = self.material.add_key(&key.value)
        {
            self.file_error(key, "private key", &error);
        }
        for authority in &draft.authorities {
            match self.material.certificates(&authority.value, "cacerts") {
                Ok(found) => found.into_iter().for_each(|ca| self.material.layer.add_certificate(ca)),
                Err(error) => self.file_error(authority, "certificate", &error),
            }
        }
        let mut certificates = Vec::new();
        for file in &draft.certificates {
            if let Some(own) = self.own_certificate(file) {
                certificates.push((file, own));
            }
        }
        identity = identity.or_else(|| certificates.first().and_then(|(_, own)| names::first(own)));
        for (file, own) in &certificates {
            self.check_own(file, own, identity.as_ref());
        }
        let raw = draft.raw.as_ref().and_then(|file| self.own_raw_key(file));
        let named = draft.names_material();
        let certificates: Vec<Certificate> = certificates.into_iter().map(|(_, own)| own).collect();
        if !named {
            self.check_search(draft, identity.as_ref());
        }
        let signer = Signer { certificates, raw, schemes: constraints.signature };
        LocalAuth { identity, method: LocalMethod::Signature(self.material.layer.add_signer(signer)) }
    }

    /// A certificate of ours, if it is one with a key; the CAs in the same file go along.
    fn own_certificate(&mut self, file: &At<String>) -> Option<Certificate> {
        let found = match self.material.certificates(&file.value, CERTIFICATES) {
            Ok(found) => found,
            Err(error) => {
                self.file_error(file, "certificate", &error);
                return None;
            }
        };
        let mut found = found.into_iter();
        let own = found.next()?;
        found.for_each(|above| self.material.layer.add_certificate(above));
        let key = match own.public_key() {
            Ok(key) => key,
            Err(why) => {
                let message = format!("the key of `{}` cannot be used: {why}", own.subject());
                self.error(Complaint::new(file.span.clone(), message));
                return None;
            }
        };
        if self.material.layer.key_of(key).is_none() {
            let message = format!("there is no private key for the certificate of `{}`", own.subject());
            let places = self.material.key_places();
            self.error(Complaint::new(file.span.clone(), message).expected(places));
            return None;
        }
        Some(own)
    }

    /// What the peer will not like about a certificate of ours.
    fn check_own(&mut self, file: &At<String>, own: &Certificate, identity: Option<&Identity>) {
        let now = UnixTime::from(std::time::SystemTime::now());
        if now > own.not_after() {
            self.warning(&file.span, format!("our certificate expired at {}", own.not_after()));
        } else if now < own.not_before() {
            self.warning(&file.span, format!("our certificate is not valid before {}", own.not_before()));
        }
        if let Some(identity) = identity
            && !names::has(own, identity)
        {
            let names = names::of(own).join("`, `");
            self.warning(
                &file.span,
                format!(
                    "leftid `{identity}` is no name of this certificate, so peers will refuse it; it has `{names}`"
                ),
            );
        }
    }

    fn own_raw_key(&mut self, file: &At<String>) -> Option<pki::key::PublicKey> {
        let key = match self.material.public_key(&file.value) {
            Ok(key) => key,
            Err(error) => {
                self.file_error(file, "public key", &error);
                return None;
            }
        };
        if self.material.layer.key_of(&key).is_none() {
            let places = self.material.key_places();
            self.error(
                Complaint::new(file.span.clone(), "there is no private key for this public key").expected(places),
            );
            return None;
        }
        Some(key)
    }

    /// Without `leftcert` there must be a certificate of our identity, with its key, from elsewhere.
    fn check_search(&mut self, draft: &LeftDraft, identity: Option<&Identity>) {
        let span = draft.auth.as_ref().map_or(0..0, |auth| auth.span.clone());
        let Some(identity) = identity else {
            let complaint = Complaint::new(span, "we have no certificate to authenticate with");
            self.error(complaint.expected("expected `leftcert`, or `leftid` and a [pkcs12.NAME] that has it"));
            return;
        };
        let layer = &self.material.layer;
        let has_key = |own: &Certificate| own.public_key().is_ok_and(|key| layer.key_of(key).is_some());
        if !layer.certificates.iter().any(|own| names::has(own, identity) && has_key(own)) {
            let message = format!("there is no certificate with a private key for `{identity}`");
            let places = self.material.key_places();
            self.error(Complaint::new(span, message).expected(format!("expected `leftcert`; {places}")));
        }
    }

    fn remote(&mut self, draft: &RightDraft, signs: bool, common: &Common<'_>) -> RemoteAuth {
        let identity = draft.identity.as_ref().map(|id| id.value.clone());
        if !signs {
            let named = draft.certificates.first().or(draft.raw.first()).or(draft.authorities.first());
            self.refuse_material(named, "rightauth");
            let identity = identity.unwrap_or_else(|| common.peer.clone());
            return RemoteAuth { identity, method: RemoteMethod::PreSharedKey };
        }
        let mut demand = Demand {
            constraints: constraints(draft.auth.as_ref()),
            policies: common.auth.policies.clone(),
            revocation: common.auth.revocation.unwrap_or_default(),
            ..Demand::default()
        };
        for file in &draft.certificates {
            match self.material.certificates(&file.value, CERTIFICATES) {
                // What follows in the file are the CAs above.
                Ok(found) => demand.certificates.extend(found.into_iter().take(1)),
                Err(error) => self.file_error(file, "certificate", &error),
            }
        }
        for file in &draft.raw {
            match self.material.public_key(&file.value) {
                Ok(key) => demand.keys.push(key),
                Err(error) => self.file_error(file, "public key", &error),
            }
        }
        for authority in &draft.authorities {
            demand.authorities.extend(self.authority(authority));
        }
        let pinned = demand.certificates.first().and_then(names::first).map(IdentityPattern::Exactly);
        let identity = identity.or(pinned).unwrap_or_else(|| common.peer.clone());
        self.check_trust(draft, &demand);
        let ocsp = demand.revocation != Policy::Relaxed;
        let trust = Trust { name: self.material.layer.add_demand(demand), authorities: Vec::new(), ocsp };
        RemoteAuth { identity, method: RemoteMethod::Signature(trust) }
    }

    /// A CA by its name, or by its file.
    fn authority(&mut self, written: &At<String>) -> Vec<Authority> {
        if written.value.contains('=') {
            return match written.value.parse::<DistinguishedName>() {
                Ok(name) => {
                    let known = self.material.layer.authorities.iter().chain(&self.material.layer.intermediates);
                    if !known.into_iter().any(|ca| ca.subject().same_as(&name)) {
                        let message = format!("no CA in `cacerts` is called `{name}`");
                        self.warning(&written.span, message);
                    }
                    vec![Authority::Named(name)]
                }
                Err(error) => {
                    let complaint = Complaint::new(written.span.clone(), error.to_string());
                    self.error(
                        complaint.expected("expected a distinguished name such as \"C=CH, CN=root\", or a file"),
                    );
                    Vec::new()
                }
            };
        }
        match self.material.certificates(&written.value, "cacerts") {
            Ok(found) => found.into_iter().map(|ca| Authority::Certificate(Box::new(ca))).collect(),
            Err(error) => {
                self.file_error(written, "certificate", &error);
                Vec::new()
            }
        }
    }

    /// Somebody must vouch for the peer.
    fn check_trust(&mut self, draft: &RightDraft, demand: &Demand) {
        let trusts = !demand.certificates.is_empty() || !demand.keys.is_empty() || !demand.authorities.is_empty();
        if trusts || draft.names_material() || !self.material.layer.authorities.is_empty() {
            return;
        }
        let span: Range<usize> = draft.auth.as_ref().map_or(0..0, |auth| auth.span.clone());
        let message = "no CA is trusted, so no certificate of the peer will be accepted";
        self.report.add(self.source.warning(
            Complaint::new(span, message).expected("expected CA certificates in the folder `cacerts`, or `rightcert`"),
        ));
    }

    fn refuse_material(&mut self, named: Option<&At<String>>, key: &str) {
        if let Some(named) = named {
            let complaint = Complaint::new(named.span.clone(), "pre-shared keys need no certificates or keys");
            self.error(complaint.expected(format!("expected {key} = \"pubkey\", or no such file")));
        }
    }

    fn file_error(&mut self, written: &At<String>, what: &str, error: &FileError) {
        let message = format!("`{}` gives no {what}", written.value);
        self.error(Complaint::new(written.span.clone(), message).expected(error.to_string()));
    }
}

/// Whether a round is by signature: as it says, else if something is named that signatures need.
fn signs(auth: &Option<At<Method>>, names_material: bool) -> bool {
    match auth.as_ref().map(|auth| &auth.value) {
        Some(Method::Psk) => false,
        Some(Method::Signature(_)) => true,
        None => names_material,
    }
}

fn constraints(auth: Option<&At<Method>>) -> Constraints {
    match auth.map(|auth| &auth.value) {
        Some(Method::Signature(constraints)) => constraints.clone(),
        Some(Method::Psk) | None => Constraints::default(),
    }
}
