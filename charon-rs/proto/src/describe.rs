//! What a message says about proposals, identities and selectors, in lines for people: what explains why two ends do not agree.

use crate::io::CertificateData;
use crate::proposal::{describe_proposal, describe_transform};
use crate::wire::{ConfigurationAttribute, Delete, Notify, NotifyType, Payload, TransformType, WireTransform};

/// The lines for these payloads, in their order. Nothing in them is secret, and what comes from a peer is escaped.
#[must_use]
pub fn describe(payloads: &[Payload]) -> Vec<String> {
    let mut lines: Vec<String> = payloads.iter().flat_map(lines_of).take(MAX_LINES + 1).collect();
    if lines.len() > MAX_LINES {
        lines.truncate(MAX_LINES);
        lines.push("and more".to_owned());
    }
    lines.iter_mut().for_each(shorten);
    lines
}

/// The name of a key exchange method: `CURVE_25519`.
#[must_use]
pub fn describe_group(group: u16) -> String {
    describe_transform(&WireTransform { kind: TransformType::KeyExchange, id: group, attributes: Vec::new() })
}

fn lines_of(payload: &Payload) -> Vec<String> {
    let listed = |selectors: &[espdp_api::TrafficSelector]| {
        selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let identity = |identification: &crate::wire::Identification| {
        identification.identity().map_or_else(|| "of an unknown type".to_owned(), ToString::to_string)
    };
    match payload {
        Payload::SecurityAssociation(proposals) => {
            proposals.iter().map(|proposal| format!("proposal {}", describe_proposal(proposal))).collect()
        }
        Payload::KeyExchange(exchange) => vec![format!("key exchange {}", describe_group(exchange.group))],
        Payload::IdInitiator(identification) => vec![format!("IDi {}", identity(identification))],
        Payload::IdResponder(identification) => vec![format!("IDr {}", identity(identification))],
        Payload::Certificate(certificate) => vec![certificate_line(certificate)],
        Payload::Authentication(authentication) => vec![format!("AUTH by {}", authentication.method)],
        Payload::SelectorsInitiator(selectors) => vec![format!("TSi {}", listed(selectors))],
        Payload::SelectorsResponder(selectors) => vec![format!("TSr {}", listed(selectors))],
        Payload::Delete(delete) => vec![delete_line(delete)],
        Payload::Configuration(configuration) => configuration.attributes.iter().filter_map(attribute_line).collect(),
        Payload::Notify(notify) => notify_line(notify).into_iter().collect(),
        Payload::CertificateRequest(_) | Payload::Nonce(_) | Payload::VendorId(_) | Payload::Opaque { .. } => {
            Vec::new()
        }
    }
}

/// What is asked for or given; what nobody here knows is left out.
fn attribute_line(attribute: &ConfigurationAttribute) -> Option<String> {
    let line =
        |what: &str, value: Option<String>| Some(format!("{what} {}", value.unwrap_or_else(|| "any".to_owned())));
    match attribute {
        ConfigurationAttribute::Ip4Address(address) => line("virtual IPv4 address", address.map(|ip| ip.to_string())),
        ConfigurationAttribute::Ip6Address(address) => {
            line("virtual IPv6 address", address.map(|(ip, bits)| format!("{ip}/{bits}")))
        }
        ConfigurationAttribute::Ip4Dns(address) => line("name server for IPv4", address.map(|ip| ip.to_string())),
        ConfigurationAttribute::Ip6Dns(address) => line("name server for IPv6", address.map(|ip| ip.to_string())),
        ConfigurationAttribute::DnsDomain(name) => line("domain", name.clone()),
        ConfigurationAttribute::Other { .. } => None,
    }
}

fn certificate_line(certificate: &CertificateData) -> String {
    let kind = match certificate.encoding {
        4 => "X.509 certificate",
        7 => "CRL",
        14 => "OCSP answer",
        15 => "raw public key",
        _ => "CERT of another kind",
    };
    format!("{kind}, {} octets", certificate.data.len())
}

fn delete_line(delete: &Delete) -> String {
    match delete {
        Delete::IkeSa => "deletes the IKE SA".to_owned(),
        Delete::Esp(spis) | Delete::Ah(spis) => format!("deletes {} Child SA(s)", spis.len()),
    }
}

/// What the name of the notification does not say.
fn notify_line(notify: &Notify) -> Option<String> {
    if let Some(group) = notify.wanted_group() {
        return Some(format!("wants key exchange {}", describe_group(group)));
    }
    if notify.kind.is_error() {
        return Some(format!("refuses: {}", notify.kind));
    }
    if notify.kind == NotifyType::UseTransportMode {
        Some("wants transport mode".to_owned())
    } else if notify.kind == NotifyType::Cookie {
        Some(format!("cookie of {} octets", notify.data.len()))
    } else if notify.kind == NotifyType::RekeySa {
        Some("replaces a Child SA".to_owned())
    } else {
        None
    }
}

fn shorten(line: &mut String) {
    if let Some((at, _)) = line.char_indices().nth(MAX_CHARS) {
        line.truncate(at);
        line.push_str("...");
    }
}

/// Lines for one message: strangers send as many payloads as fit.
const MAX_LINES: usize = 24;

/// Characters of one line: a proposal of every algorithm there is has about 300.
const MAX_CHARS: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::proposal::{default_ike_proposals, ike_offer};
    use crate::wire::{Authentication, AuthenticationMethod, Identification};

    #[test]
    fn what_two_ends_can_disagree_about_is_told() {
        let sun = Identification::new(Identity::Fqdn("sun.example".to_owned()));
        let payloads = [
            Payload::IdResponder(sun),
            Payload::Authentication(Authentication { method: AuthenticationMethod::SharedKey, data: vec![1; 32] }),
            Payload::Notify(Notify::invalid_ke(31)),
            Payload::Notify(Notify::new(NotifyType::AuthenticationFailed)),
            Payload::Notify(Notify::new(NotifyType::MobikeSupported)),
            Payload::Nonce(vec![1; 32]),
        ];
        let lines = describe(&payloads);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[0], "IDr sun.example");
        assert!(lines[1].starts_with("AUTH by ") && !lines[1].contains("01"), "{lines:?}");
        assert_eq!(lines[2], "wants key exchange CURVE_25519");
        assert!(lines[3].starts_with("refuses: "), "{lines:?}");
    }

    #[test]
    fn a_stranger_cannot_make_us_write_books_nor_control_a_terminal() {
        let offer = Payload::SecurityAssociation(ike_offer(&default_ike_proposals(), None));
        let lines = describe(&vec![offer; 100]);
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert!(lines.iter().all(|line| line.chars().count() <= MAX_CHARS + 3));
        let rude = Identification::new(Identity::Fqdn("a\u{1b}[2Jb\nc".to_owned()));
        let line = describe(&[Payload::IdInitiator(rude)]).concat();
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
    }
}
