//! Name constraints (RFC 5280 §4.2.1.10).

use crate::certificate::{Certificate, NameConstraints, Subtree};
use crate::general_name::GeneralName;

use super::PathError;

/// What the CAs so far allow. Each of them must be content; that is the intersection of what they permit and the union of
/// what they exclude.
#[derive(Default)]
pub(super) struct NameState {
    authorities: Vec<(String, NameConstraints)>,
}

/// How a name lies to a subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Inside,
    Outside,
    /// Names of other kinds; the subtree says nothing about them.
    OtherKind,
    /// The same kind, but nothing that we can compare.
    Unknown,
}

/// For what the comparison is made: in doubt a name is excluded and is not permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Permit,
    Exclude,
}

impl NameState {
    pub(super) fn constrain(&mut self, authority: &Certificate, constraints: &NameConstraints) {
        self.authorities.push((authority.subject().to_string(), constraints.clone()));
    }

    /// RFC 5280 §6.1.3 (b) and (c).
    pub(super) fn check(&self, link: &Certificate) -> Result<(), PathError> {
        if self.authorities.is_empty() {
            return Ok(());
        }
        let names = names_of(link);
        let count = |(_, all): &(String, NameConstraints)| all.permitted.len().saturating_add(all.excluded.len());
        let subtrees = self.authorities.iter().map(count).fold(0, usize::saturating_add);
        if names.len().saturating_mul(subtrees) > MAX_COMPARISONS {
            return Err(PathError::TooManyNames { subject: link.subject().to_string() });
        }
        self.authorities.iter().try_for_each(|(authority, constraints)| {
            names.iter().try_for_each(|name| check(link, name, authority, constraints))
        })
    }
}

fn check(
    link: &Certificate,
    name: &GeneralName,
    authority: &str,
    constraints: &NameConstraints,
) -> Result<(), PathError> {
    let (subject, authority) = (|| link.subject().to_string(), || authority.to_owned());
    let unsupported =
        || PathError::NameUnsupported { subject: subject(), name: name.to_string(), authority: authority() };
    for excluded in &constraints.excluded {
        match fit(name, excluded, Purpose::Exclude) {
            Fit::Outside | Fit::OtherKind => {}
            Fit::Unknown => return Err(unsupported()),
            Fit::Inside => {
                let (name, excluded) = (name.to_string(), excluded.to_string());
                return Err(PathError::NameExcluded { subject: subject(), name, authority: authority(), excluded });
            }
        }
    }
    let fits: Vec<Fit> = constraints.permitted.iter().map(|subtree| fit(name, subtree, Purpose::Permit)).collect();
    if fits.contains(&Fit::Inside) || fits.iter().all(|fit| *fit == Fit::OtherKind) {
        Ok(())
    } else if fits.contains(&Fit::Unknown) {
        Err(unsupported())
    } else {
        Err(PathError::NameNotPermitted { subject: subject(), name: name.to_string(), authority: authority() })
    }
}

/// All names of a certificate: the subject if there is one, the alternative names, and mail addresses in the subject when
/// there are none among the alternative names.
fn names_of(link: &Certificate) -> Vec<GeneralName> {
    let alternatives = link.alternative_names();
    let mut names = alternatives.to_vec();
    if !link.subject().is_empty() {
        names.push(GeneralName::Directory(link.subject().clone()));
    }
    if !alternatives.iter().any(|name| matches!(name, GeneralName::Email(_))) {
        names.extend(link.subject().email_addresses().into_iter().map(GeneralName::Email));
    }
    names
}

fn fit(name: &GeneralName, subtree: &Subtree, purpose: Purpose) -> Fit {
    let inside = match (name, subtree) {
        (GeneralName::Dns(name), Subtree::Name(GeneralName::Dns(base))) => dns_within(name, base, purpose),
        (GeneralName::Email(name), Subtree::Name(GeneralName::Email(base))) => match name.rsplit_once('@') {
            Some((mailbox, host)) => email_within(mailbox, host, base, purpose),
            None => return Fit::Unknown,
        },
        (GeneralName::Uri(name), Subtree::Name(GeneralName::Uri(base))) => match host_of(name) {
            Some(host) => host_within(host, base),
            None => return Fit::Unknown,
        },
        (GeneralName::Directory(name), Subtree::Name(GeneralName::Directory(base))) => name.is_under(base),
        (GeneralName::Ip(address), Subtree::Ip(subnet)) => subnet.contains(*address),
        (GeneralName::Other(kind), Subtree::Name(GeneralName::Other(base))) if kind == base => return Fit::Unknown,
        _ => return Fit::OtherKind,
    };
    if inside { Fit::Inside } else { Fit::Outside }
}

/// A host within a domain: the domain itself or labels in front of it; below a base with a dot in front only those with
/// labels. Case and a dot at the end do not count.
fn dns_within(name: &str, base: &str, purpose: Purpose) -> bool {
    let (name, base) = (name.strip_suffix('.').unwrap_or(name), base.strip_suffix('.').unwrap_or(base));
    // `*.example.org` stands for hosts some of which may be excluded.
    if let (Purpose::Exclude, Some(wild)) = (purpose, name.strip_prefix('*'))
        && ends_with(base, wild)
    {
        return true;
    }
    below(name, base) || host_within(name, base)
}

/// A mailbox; or all of a host; or, with a dot in front, all of the hosts below a domain.
fn email_within(mailbox: &str, host: &str, base: &str, purpose: Purpose) -> bool {
    match base.rsplit_once('@') {
        Some((only, at)) => {
            // RFC 5280 §7.5: in front of the @ case counts; but nobody should get out of an exclusion by it.
            let same = match purpose {
                Purpose::Permit => only == mailbox,
                Purpose::Exclude => only.eq_ignore_ascii_case(mailbox),
            };
            same && at.eq_ignore_ascii_case(host)
        }
        None => host_within(host, base),
    }
}

/// Just this host; or, with a dot in front, the hosts below a domain (RFC 5280 §4.2.1.10 for mail and URIs).
fn host_within(host: &str, base: &str) -> bool {
    base.is_empty() || if base.starts_with('.') { below(host, base) } else { host.eq_ignore_ascii_case(base) }
}

/// Whether there are labels in front of `base`.
fn below(name: &str, base: &str) -> bool {
    let base = base.strip_prefix('.').unwrap_or(base);
    front(name, base).and_then(|front| front.strip_suffix('.')).is_some_and(|labels| !labels.is_empty())
}

fn ends_with(name: &str, tail: &str) -> bool {
    front(name, tail).is_some()
}

/// What stands in front of `tail`, if `name` ends with it in whatever case.
fn front<'a>(name: &'a str, tail: &str) -> Option<&'a str> {
    let (front, end) = name.split_at_checked(name.len().checked_sub(tail.len())?)?;
    end.eq_ignore_ascii_case(tail).then_some(front)
}

/// The host of a URI if it is a name (RFC 3986 §3.2): constraints cannot say anything about addresses.
fn host_of(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let is_name = !host.is_empty() && !host.contains(['[', ']']) && host.parse::<std::net::Ipv4Addr>().is_err();
    is_name.then_some(host)
}

/// Names times constraints: what an honest certificate has is far below.
const MAX_COMPARISONS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_their_subtrees() {
        use Fit::{Inside, Outside, Unknown};
        for (name, base, expected) in [
            ("dns:example.org", "dns:example.org", Inside),
            ("dns:Moon.EXAMPLE.org", "dns:example.ORG", Inside),
            ("dns:a.b.example.org.", "dns:example.org", Inside),
            ("dns:badexample.org", "dns:example.org", Outside),
            ("dns:example.org", "dns:.example.org", Outside),
            ("dns:moon.example.org", "dns:.example.org", Inside),
            ("dns:.example.org", "dns:.example.org", Outside),
            ("dns:org", "dns:example.org", Outside),
            ("email:a@example.org", "email:example.org", Inside),
            ("email:a@EXAMPLE.org", "email:example.org", Inside),
            ("email:a@mail.example.org", "email:example.org", Outside),
            ("email:a@mail.example.org", "email:.example.org", Inside),
            ("email:a@example.org", "email:.example.org", Outside),
            ("email:a@example.org", "email:a@Example.org", Inside),
            ("email:A@example.org", "email:a@example.org", Outside),
            ("email:\"x@y\"@example.org", "email:example.org", Inside),
            ("email:nobody", "email:example.org", Unknown),
            ("uri:https://u@Moon.example.org:8443/p?q#f", "uri:moon.example.org", Inside),
            ("uri:https://moon.example.org/@evil.org", "uri:.example.org", Inside),
            ("uri:https://evil.org/moon.example.org", "uri:.example.org", Outside),
            ("uri:https://moon.example.org", "uri:example.org", Outside),
            ("uri:https://192.0.2.1/", "uri:example.org", Unknown),
            ("uri:https://[2001:db8::1]/", "uri:example.org", Unknown),
            ("uri:urn:oid:1.2.3", "uri:example.org", Unknown),
            ("dn:C=CH, O=strongSwan, CN=moon", "dn:C=ch, O=STRONGSWAN", Inside),
            ("dn:C=CH, O=strongSwan", "dn:C=CH, O=strongSwan, CN=moon", Outside),
            ("dn:O=strongSwan, C=CH", "dn:C=CH", Outside),
            ("dns:example.org", "email:example.org", Fit::OtherKind),
        ] {
            let (name, base): (GeneralName, GeneralName) = (name.parse().unwrap(), base.parse().unwrap());
            assert_eq!(fit(&name, &Subtree::Name(base.clone()), Purpose::Permit), expected, "{name} in {base}");
        }
    }

    #[test]
    fn in_doubt_a_name_is_excluded() {
        for (name, base) in [
            ("email:ADMIN@example.org", "email:admin@example.org"),
            ("dns:*.example.org", "dns:secret.example.org"),
            ("dns:*.EXAMPLE.org", "dns:example.org"),
        ] {
            let (name, base): (GeneralName, GeneralName) = (name.parse().unwrap(), base.parse().unwrap());
            assert_eq!(fit(&name, &Subtree::Name(base.clone()), Purpose::Exclude), Fit::Inside, "{name} in {base}");
        }
    }
}
