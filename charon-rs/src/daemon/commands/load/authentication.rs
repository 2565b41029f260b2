//! The sections `local…` and `remote…` of a connection of `swanctl.conf`: rounds of authentication.

use ike_proto::config::{Connection, LocalAuth, LocalMethod, RemoteAuth, RemoteMethod, SendCertificates, Trust};
use ike_proto::identity::IdentityPattern;
use pki::certificate::Certificate;
use pki::dn::DistinguishedName;
use pki::key::PublicKey;
use pki::path::Authority;
use pki::revocation::Policy;

use super::keys::Keys;
use crate::config::values::identity;
use crate::credentials::{Constraints, Demand, Layer, Signer, names};
use crate::vici::Message;

/// What `auth` says.
enum Method {
    Psk,
    Signature(Constraints),
}

/// Takes the keys about authentication out of `keys`; what signatures need goes into `layer`.
///
/// # Errors
/// What is wrong with them, as strongSwan says it.
pub(super) fn read(keys: &mut Keys<'_>, connection: &mut Connection, layer: &mut Layer) -> Result<(), String> {
    let local = rounds(keys.sections("local"))?;
    let mut local = local.into_iter().map(|section| read_local(section, layer)).collect::<Result<Vec<_>, _>>()?;
    if !local.is_empty() {
        connection.local = local.remove(0);
        connection.more_local = local;
    }
    let remote = rounds(keys.sections("remote"))?;
    let mut remote = remote.into_iter().map(|section| read_remote(section, layer)).collect::<Result<Vec<_>, _>>()?;
    if !remote.is_empty() {
        connection.remote = remote.remove(0);
        connection.more_remote = remote;
    }
    connection.send_certificate_requests = keys.switch("send_certreq")?.unwrap_or(true);
    connection.send_certificates = match keys.text("send_cert")? {
        None | Some("ifasked") => SendCertificates::IfAsked,
        Some("always") => SendCertificates::Always,
        Some("never") => SendCertificates::Never,
        Some(other) => return Err(format!("invalid value for: send_cert: {other}")),
    };
    Ok(())
}

/// Sections in the order of their `round`, else in that of the message.
fn rounds(sections: Vec<&Message>) -> Result<Vec<&Message>, String> {
    let mut numbered = Vec::new();
    for section in sections {
        numbered.push((Keys::of(section).number::<u32>("round")?.unwrap_or(0), section));
    }
    numbered.sort_by_key(|(round, _)| *round);
    Ok(numbered.into_iter().map(|(_, section)| section).collect())
}

fn read_local(section: &Message, layer: &mut Layer) -> Result<LocalAuth, String> {
    let mut keys = Keys::of(section);
    let method = read_method(&mut keys)?;
    // `%any` is "our address", as leaving it out.
    let id = keys.text("id")?.filter(|id| *id != "%any").map(identity::identity).transpose();
    let identity = id.map_err(|error| format!("invalid value for: id: {error}"))?;
    let mut certificates = certificates(&mut keys, section, "certs", "cert")?.into_iter();
    let raw = public_keys(&mut keys, "pubkeys")?.into_iter().next();
    keys.done()?;
    let Method::Signature(constraints) = method else {
        return Ok(LocalAuth { identity, method: LocalMethod::PreSharedKey });
    };
    let mut signer = Signer { certificates: Vec::new(), raw, schemes: constraints.signature };
    // Each is a whole file, whose first certificate is ours; a CA among them goes along with ours.
    for certificate in certificates.by_ref() {
        if certificate.is_ca() { layer.add_certificate(certificate) } else { signer.certificates.push(certificate) }
    }
    let identity = identity.or_else(|| signer.certificates.first().and_then(names::first));
    Ok(LocalAuth { identity, method: LocalMethod::Signature(layer.add_signer(signer)) })
}

fn read_remote(section: &Message, layer: &mut Layer) -> Result<RemoteAuth, String> {
    let mut keys = Keys::of(section);
    let method = read_method(&mut keys)?;
    let identity = keys.value("id", identity::pattern)?;
    let authorities = certificates(&mut keys, section, "cacerts", "cacert")?.into_iter();
    let mut demand = Demand {
        certificates: certificates(&mut keys, section, "certs", "cert")?,
        keys: public_keys(&mut keys, "pubkeys")?,
        authorities: authorities.map(|authority| Authority::Certificate(Box::new(authority))).collect(),
        policies: keys.list("cert_policy", str::parse)?.unwrap_or_default(),
        revocation: match keys.text("revocation")? {
            None | Some("relaxed") => Policy::Relaxed,
            Some("ifuri") => Policy::IfUri,
            Some("strict") => Policy::Strict,
            Some(other) => return Err(format!("invalid value for: revocation: {other}")),
        },
        ..Demand::default()
    };
    if let Some(name) = keys.value("ca_id", |text| text.parse::<DistinguishedName>())? {
        demand.authorities.push(Authority::Named(name));
    }
    keys.done()?;
    let Method::Signature(constraints) = method else {
        let identity = identity.unwrap_or(IdentityPattern::Any);
        return Ok(RemoteAuth { identity, method: RemoteMethod::PreSharedKey });
    };
    demand.constraints = constraints;
    let pinned = demand.certificates.first().and_then(names::first).map(IdentityPattern::Exactly);
    let ocsp = demand.revocation != Policy::Relaxed;
    let trust = Trust { name: layer.add_demand(demand), authorities: Vec::new(), ocsp };
    let identity = identity.or(pinned).unwrap_or(IdentityPattern::Any);
    Ok(RemoteAuth { identity, method: RemoteMethod::Signature(trust) })
}

fn read_method(keys: &mut Keys<'_>) -> Result<Method, String> {
    keys.number::<u32>("round")?;
    match keys.text("auth")? {
        Some("psk") => Ok(Method::Psk),
        Some(eap) if eap.starts_with("eap") || eap.starts_with("xauth") => {
            Err(format!("invalid value for: auth: {eap} is not supported"))
        }
        // strongSwan takes public keys when nothing is said.
        None => Ok(Method::Signature(Constraints::default())),
        Some(text) => text.parse().map(Method::Signature).map_err(|error| format!("invalid value for: auth: {error}")),
    }
}

/// The certificates of a list, and those of the sections that begin with `prefix`, whose files are read by nobody but swanctl.
fn certificates(keys: &mut Keys<'_>, section: &Message, list: &str, prefix: &str) -> Result<Vec<Certificate>, String> {
    if section.sections().any(|(name, _)| name.starts_with(prefix)) {
        return Err(format!("{prefix} sections (files of the daemon, tokens) are not supported: use {list}"));
    }
    let mut found = Vec::new();
    for octets in keys.octets(list)? {
        let error = |error| format!("invalid value for: {list}: {error}");
        found.extend(Certificate::load(octets).map_err(error)?);
    }
    Ok(found)
}

fn public_keys(keys: &mut Keys<'_>, list: &str) -> Result<Vec<PublicKey>, String> {
    let read = |octets: &[u8]| {
        let block = pki::pem::parse(octets).ok().and_then(|blocks| blocks.into_iter().next());
        let der = block.as_ref().map_or(octets, |block| block.der.as_slice());
        PublicKey::from_spki_der(der).map_err(|error| format!("invalid value for: {list}: {error}"))
    };
    keys.octets(list)?.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::testing::Entity;
    use ike_proto::identity::Identity;

    fn with_list(section: Message, name: &str, items: &[&[u8]]) -> Message {
        let mut section = section;
        section.put_octets_list(name, items.iter().map(|item| item.to_vec()).collect());
        section
    }

    fn read_conn(section: &Message) -> Result<(Connection, Layer), String> {
        let (mut connection, mut layer) = (Connection::new("gw"), Layer::default());
        read(&mut Keys::of(section), &mut connection, &mut layer)?;
        Ok((connection, layer))
    }

    #[test]
    fn certificates_of_swanctl_become_signers_and_demands() {
        let root = Entity::root("root");
        let moon = root.gateway("moon", |_| {});
        let local = with_list(Message::new(), "certs", &[moon.certificate.der()]);
        let remote = with_list(Message::new().with("id", "sun.example.org"), "cacerts", &[root.certificate.der()])
            .with("auth", "ecdsa-256-sha256-ike:pubkey-sha384")
            .with("revocation", "strict");
        let section = Message::new().with_section("local", local).with_section("remote", remote);
        let (connection, layer) = read_conn(&section).unwrap();
        let LocalMethod::Signature(name) = &connection.local.method else { panic!("a signature") };
        assert_eq!(layer.signers[name].certificates.first(), Some(&moon.certificate));
        let Some(Identity::Dn { text, .. }) = &connection.local.identity else { panic!("a DN") };
        assert_eq!(text, "CN=moon");
        let RemoteMethod::Signature(trust) = &connection.remote.method else { panic!("a signature") };
        let demand = &layer.demands[&trust.name];
        assert_eq!((demand.revocation, demand.authorities.len(), trust.ocsp), (Policy::Strict, 1, true));
        assert_eq!(demand.constraints.signature.to_string(), "pubkey-sha384");
    }

    #[test]
    fn rounds_are_in_the_order_of_their_numbers() {
        let round = |number: u32, auth: &str| Message::new().with("round", number).with("auth", auth);
        let section =
            Message::new().with_section("local-b", round(2, "psk")).with_section("local-a", round(1, "pubkey"));
        let (connection, _) = read_conn(&section).unwrap();
        assert!(matches!(connection.local.method, LocalMethod::Signature(_)));
        assert_eq!(connection.more_local.len(), 1);
        assert_eq!(connection.more_local.first().map(|round| &round.method), Some(&LocalMethod::PreSharedKey));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (section, wanted) in [
            (Message::new().with("auth", "eap-mschapv2"), "invalid value for: auth: eap-mschapv2 is not supported"),
            (Message::new().with("auth", "rsa-foo"), "invalid value for: auth: "),
            (with_list(Message::new(), "certs", &[b"junk"]), "invalid value for: certs: "),
            (with_list(Message::new(), "pubkeys", &[b"junk"]), "invalid value for: pubkeys: "),
            (Message::new().with_section("cert1", Message::new().with("handle", "1")), "cert sections"),
            (Message::new().with("nonsense", "1"), "unknown option: nonsense"),
        ] {
            let error = read_conn(&Message::new().with_section("local", section)).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
