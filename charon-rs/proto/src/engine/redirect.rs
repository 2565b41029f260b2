//! Being sent to another gateway, and sending peers there (RFC 5685).
//!
//! Who is redirected keeps to its connection: the new gateway must prove that it is the peer that the connection is for
//! (RFC 5685 §3).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Engine;
use super::context::Context;
use super::established::Established;
use super::initiator::{Attempt, Locating};
use super::task::{Queued, Task};
use crate::config::{Connection, Gateway, RedirectAt};
use crate::io::{IkeSpi, RemarkLevel, Target, Ticket};
use crate::rules::Body;
use crate::wire::{Notify, NotifyType, Role};

/// How often an attempt, or the IKE SA that came of it, was redirected.
#[derive(Clone, Debug, Default)]
pub(super) struct Redirections {
    /// The gateway that sent us elsewhere last.
    from: Option<IpAddr>,
    times: VecDeque<Instant>,
}

impl Redirections {
    /// Notes that a gateway sends us elsewhere. RFC 5685 §7: not more than a few times in a while, for gateways may send us
    /// in circles (R5685-3-2).
    pub(super) fn follow(&mut self, now: Instant, from: IpAddr) -> bool {
        self.times.retain(|at| now.saturating_duration_since(*at) < LOOP_DETECT_PERIOD);
        if self.times.len() >= MAX_REDIRECTS {
            return false;
        }
        self.times.push_back(now);
        self.from = Some(from);
        true
    }

    /// What an IKE_SA_INIT request says: that we let ourselves be redirected, or by whom we were (R5685-3-2).
    pub(super) fn announcement(&self, connection: &Connection) -> Option<Notify> {
        match self.from {
            Some(from) => Some(Notify::with_data(NotifyType::RedirectedFrom, encode(&Gateway::Address(from), &[]))),
            None if connection.follow_redirects => Some(Notify::new(NotifyType::RedirectSupported)),
            None => None,
        }
    }
}

/// Whether a notification says that its sender can be redirected.
pub(super) fn announces_redirect(kind: NotifyType) -> bool {
    matches!(kind, NotifyType::RedirectSupported | NotifyType::RedirectedFrom)
}

/// Where an IKE_SA_INIT response redirects us. It proves by our nonce that whoever sent it saw our request (R5685-3-1).
pub(super) fn redirected_in_init(notify: &Notify, our_nonce: &[u8]) -> Option<Gateway> {
    let (gateway, nonce) = decode(&notify.data)?;
    (nonce == our_nonce).then_some(gateway)
}

/// Where a protected message redirects us, if the connection allows it.
pub(super) fn redirected_in(connection: &Connection, body: &Body) -> Option<Gateway> {
    let notify = body.notify(NotifyType::Redirect).filter(|_| connection.follow_redirects)?;
    decode(&notify.data).map(|(gateway, _)| gateway)
}

/// The answer to an IKE_SA_INIT request of a peer that is to go elsewhere and can.
pub(super) fn redirect_in_init(connection: &Connection, body: &Body) -> Option<Notify> {
    let redirect = connection.redirect.as_ref().filter(|redirect| redirect.at == RedirectAt::Init)?;
    body.notifies().find(|notify| announces_redirect(notify.kind))?;
    let nonce = body.nonce().ok()?;
    Some(Notify::with_data(NotifyType::Redirect, encode(&redirect.to, nonce)))
}

/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | GW Ident Type |  GW Ident Len |                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               ~
/// ~                   New Responder GW Identity                   ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                        Nonce Data                             ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
/// RFC 5685 §9.2; types 1 (IPv4), 2 (IPv6) and 3 (FQDN). The nonce is there in IKE_SA_INIT only.
fn encode(gateway: &Gateway, nonce: &[u8]) -> Vec<u8> {
    let (kind, identity) = match gateway {
        Gateway::Address(IpAddr::V4(address)) => (1, address.octets().to_vec()),
        Gateway::Address(IpAddr::V6(address)) => (2, address.octets().to_vec()),
        Gateway::Name(name) => (3, name.bytes().take(usize::from(u8::MAX)).collect()),
    };
    let length = u8::try_from(identity.len()).unwrap_or(u8::MAX);
    [&[kind, length], identity.as_slice(), nonce].concat()
}

fn decode(data: &[u8]) -> Option<(Gateway, &[u8])> {
    let (&[kind, length], rest) = data.split_first_chunk()?;
    let (identity, nonce) = rest.split_at_checked(usize::from(length))?;
    let gateway = match kind {
        1 => Gateway::Address(<[u8; 4]>::try_from(identity).ok()?.into()),
        2 => Gateway::Address(<[u8; 16]>::try_from(identity).ok()?.into()),
        3 => Gateway::Name(std::str::from_utf8(identity).ok().filter(|name| is_host_name(name))?.to_owned()),
        _ => return None,
    };
    Some((gateway, nonce))
}

/// What comes from outside goes to the resolver only if it looks like a name.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() < 64
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    name.strip_suffix('.').unwrap_or(name).split('.').all(is_label)
}

impl Established {
    /// The gateway wants us elsewhere. Only who set the SA up is redirected (RFC 5685 §5).
    pub(super) fn redirected(&self, body: &Body) -> Option<Gateway> {
        let is_client = self.origin.role == Role::OriginalInitiator && self.is_in_use();
        redirected_in(&self.session.connection, body).filter(|_| is_client)
    }

    /// What an authenticated peer is told that is to go elsewhere and can.
    pub(super) fn redirect_in_auth(&self) -> Option<Notify> {
        let redirect = self.session.connection.redirect.as_ref().filter(|redirect| redirect.at == RedirectAt::Auth)?;
        self.session.extensions.redirect.then(|| redirect_notify(&redirect.to))
    }

    /// A peer that was redirected deletes the SA; if it does not, we do not wait for long.
    pub(super) fn await_departure(&mut self, now: Instant) {
        let until = now + DEPARTURE;
        let sooner = |at: Option<Instant>| Some(at.map_or(until, |at| at.min(until)));
        self.expires_at = sooner(self.expires_at);
        // That is what an SA goes by which takes this one's place.
        self.origin.ends_at = sooner(self.origin.ends_at);
        self.rekey_at = None;
    }
}

/// The notification in a protected message.
pub(super) fn redirect_notify(gateway: &Gateway) -> Notify {
    Notify::with_data(NotifyType::Redirect, encode(gateway, &[]))
}

impl Engine {
    /// An attempt was sent elsewhere when the responder was known already.
    pub(super) fn begin_elsewhere(&mut self, now: Instant, mut attempt: Attempt, gateway: Gateway) {
        let spi = self.cx.new_ike_spi();
        attempt.spi = spi;
        match Locating::elsewhere(&mut self.cx, now, attempt, gateway) {
            Some(sa) => self.keep(spi, sa),
            None => self.forget(spi),
        }
    }

    /// Sends the peers of IKE SAs to another gateway.
    pub(super) fn redirect(&mut self, now: Instant, ticket: Ticket, target: &Target, gateway: &Gateway) {
        let spis: Vec<IkeSpi> = self.find_ike_sas(target);
        self.cx.open_ticket(ticket, spis.len(), "no SA matches");
        for spi in spis {
            let queued = Queued::new(Task::Redirect(gateway.clone())).with_ticket(ticket);
            self.with_established(spi, |sa, cx| match sa.session.extensions.redirect {
                true => sa.queue(cx, now, queued),
                false => cx.settle([ticket], &Err("the peer did not say that it can be redirected".to_owned())),
            });
        }
    }
}

/// Says where we are sent.
pub(super) fn remark_redirection(cx: &mut Context, connection: &Connection, from: IpAddr, gateway: &Gateway) {
    let text = format!("{from} redirects us to {gateway}");
    cx.remark(Some(&connection.name), RemarkLevel::Info, text);
}

/// RFC 5685 §7: MAX_REDIRECTS.
pub(super) const MAX_REDIRECTS: usize = 5;

/// RFC 5685 §7: REDIRECT_LOOP_DETECT_PERIOD.
const LOOP_DETECT_PERIOD: Duration = Duration::from_secs(300);

/// Time for a peer to set everything up with the other gateway.
const DEPARTURE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_of_all_kinds_survive_the_way() {
        let gateways = [
            Gateway::Address("192.0.2.3".parse().unwrap()),
            Gateway::Address("2001:db8::3".parse().unwrap()),
            Gateway::Name("gw3.example.org".to_owned()),
        ];
        for gateway in gateways {
            let data = encode(&gateway, &[7; 32]);
            assert_eq!(decode(&data), Some((gateway, &[7; 32][..])));
        }
    }

    /// R5685-3-1.
    #[test]
    fn what_is_malformed_or_has_another_nonce_redirects_nobody() {
        let bad: [&[u8]; 8] = [
            &[],
            &[1],
            &[1, 4, 192, 0, 2],
            &[1, 3, 192, 0, 2],
            &[2, 4, 192, 0, 2, 3],
            &[3, 0],
            &[3, 3, b'a', b' ', b'b'],
            &[9, 4, 192, 0, 2, 3],
        ];
        for data in bad {
            assert_eq!(decode(data), None, "{data:?}");
        }
        let notify =
            Notify::with_data(NotifyType::Redirect, encode(&Gateway::Address("192.0.2.3".parse().unwrap()), &[1; 32]));
        assert!(redirected_in_init(&notify, &[1; 32]).is_some());
        assert_eq!(redirected_in_init(&notify, &[2; 32]), None);
        assert_eq!(redirected_in_init(&notify, &[]), None);
    }
}
