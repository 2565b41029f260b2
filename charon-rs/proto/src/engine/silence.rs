//! Peers that do not answer: what their silence tells about the network between us.

use espdp_api::IkePath;

use super::failure::{Incompatible, Trouble};
use super::window::Unanswered;
use crate::config::Connection;
use crate::io::{ConfigKey, Cure, FailureCode};
use crate::wire::{ExchangeType, NotifyType};

impl Trouble {
    /// The peer does not answer `unanswered`, which went along `path`.
    pub(super) fn silent_peer(connection: &Connection, path: IkePath, unanswered: Unanswered) -> Self {
        let (peer, port) = (path.remote.ip(), path.remote.port());
        let Unanswered { exchange, repetitions, octets, longest, .. } = unanswered;
        let sent = format!("{exchange}, {octets} octets, sent {} times", repetitions + 1);
        if exchange == ExchangeType::IkeSaInit {
            return silence(
                FailureCode::PeerSilent,
                format!("{peer} does not answer on UDP port {port}, not even after {repetitions} repetitions"),
                vec![format!("{sent} from {} to {}", path.local, path.remote)],
                format!(
                    "is {peer} the right address, is UDP {port} to it open, and does an IKE daemon listen there that has a \
                     connection for us?"
                ),
                None,
            );
        }
        let ours = vec![format!("{sent}, the longest datagram has {longest} octets")];
        let got_through = "and answered IKE_SA_INIT before";
        if longest > SURELY_WHOLE {
            return silence(
                FailureCode::LargeMessageLost,
                format!("{peer} does not answer {exchange}, which is large, {got_through}: packets of its size get lost"),
                ours,
                "let both ends fragment (`fragmentation = \"yes\"`) into smaller packets, or find what drops IP fragments"
                    .to_owned(),
                Some(Cure::new(ConfigKey::FragmentSize, Some(SAFE_FRAGMENT.to_owned()))),
            );
        }
        if port != connection.remote_port {
            return silence(
                FailureCode::NatPortSilent,
                format!(
                    "{peer} does not answer {exchange} on UDP port {port}, {got_through} on port {}",
                    connection.remote_port
                ),
                ours,
                format!(
                    "IKE goes on at UDP {port} behind a NAT or with MOBIKE: is it open in the firewalls of both ends?"
                ),
                None,
            );
        }
        silence(
            FailureCode::PeerSilent,
            format!("{peer} does not answer {exchange} on UDP port {port}, {got_through}"),
            ours,
            "does the peer drop what it does not like? Its log knows; or packets get lost on the way".to_owned(),
            None,
        )
    }

    /// A peer began an IKE SA from `source` and then we heard no more of it; `path` is where it was last.
    pub(super) fn peer_gave_up(source: IkePath, path: IkePath) -> Self {
        silence(
            FailureCode::PeerGaveUp,
            format!("{} did not go on after IKE_SA_INIT", source.remote),
            vec![format!("answered from {} to {}", path.local, path.remote)],
            "either our answer does not reach the peer (its firewall, UDP 4500 behind a NAT), or the peer does not like it: its \
             log knows"
                .to_owned(),
            None,
        )
    }
}

fn silence(code: FailureCode, what: String, ours: Vec<String>, hint: String, cure: Option<Cure>) -> Trouble {
    let (notify, theirs) = (NotifyType::TemporaryFailure, vec!["nothing".to_owned()]);
    Trouble::Incompatible(Box::new(Incompatible { code, notify, what, ours, theirs, hint: Some(hint), cure }))
}

/// IKE messages of so many octets fit into every packet that IPv6 networks must carry (RFC 8200 §5), with all headers.
const SURELY_WHOLE: usize = 1200;

/// What RFC 7383 §2.5.1 recommends where the path is not known, for IPv4: 576 octets.
const SAFE_FRAGMENT: &str = "576";

#[cfg(test)]
mod tests {
    use super::super::failure::About;
    use super::*;

    fn code(exchange: ExchangeType, port: u16, longest: usize) -> FailureCode {
        let path =
            IkePath { local: "192.0.2.1:500".parse().unwrap(), remote: format!("192.0.2.2:{port}").parse().unwrap() };
        let unanswered = Unanswered { exchange, message_id: 1, repetitions: 5, octets: 2 * longest, longest };
        let failure = Trouble::silent_peer(&Connection::new("net"), path, unanswered).into_failure(About::default());
        assert!(failure.what.contains("192.0.2.2") && failure.hint.is_some(), "{failure:?}");
        failure.code
    }

    #[test]
    fn what_got_through_before_tells_what_does_not_get_through_now() {
        assert_eq!(code(ExchangeType::IkeSaInit, 500, 300), FailureCode::PeerSilent);
        assert_eq!(code(ExchangeType::IkeSaInit, 500, 1400), FailureCode::PeerSilent, "nothing got through before");
        assert_eq!(code(ExchangeType::IkeAuth, 500, 300), FailureCode::PeerSilent);
        assert_eq!(code(ExchangeType::IkeAuth, 4500, 300), FailureCode::NatPortSilent);
        assert_eq!(code(ExchangeType::IkeAuth, 500, 1400), FailureCode::LargeMessageLost);
        assert_eq!(code(ExchangeType::IkeAuth, 4500, 1400), FailureCode::LargeMessageLost);
        assert_eq!(code(ExchangeType::IkeIntermediate, 4500, 1400), FailureCode::LargeMessageLost);
    }
}
