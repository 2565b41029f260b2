//! Notices of the engine as lines for people, in strongSwan's wording where it has one: scripts look for it.

use std::net::SocketAddr;

use ike_proto::io::{
    ChildSaReport, DownReason, Failure, IkeSaId, IkeSaReport, MessageTrace, Notice, RemarkLevel, Repetition,
};

/// A line before it has a number and a time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The connection, if it is about one.
    pub(crate) connection: Option<String>,
    /// The IKE SA, if it is about one.
    pub(crate) ike_sa: Option<IkeSaId>,
    /// strongSwan's name for the part of the daemon.
    pub(crate) group: &'static str,
    /// 0 for what changes the state of an SA, 1 for the steps to it, 2 for details.
    pub(crate) level: u8,
    /// What happened.
    pub(crate) text: String,
}

/// The lines for a notice; none for those that are for programs only.
#[expect(clippy::wildcard_enum_match_arm, reason = "most notices are of no interest here, and so are future ones")]
pub(crate) fn lines(notice: &Notice) -> Vec<Line> {
    match notice {
        Notice::IkeUp(sa) => {
            vec![of_sa(sa, "IKE", 0, format!("IKE_SA {} established between {}", sa_name(sa), ends(sa)))]
        }
        Notice::IkeDown { sa, reason } => {
            vec![of_sa(sa, "IKE", 0, format!("IKE_SA {} deleted: {}", sa_name(sa), because(reason)))]
        }
        Notice::IkeRekeyed { sa, .. } => {
            vec![of_sa(sa, "IKE", 0, format!("IKE_SA {} rekeyed between {}", sa_name(sa), ends(sa)))]
        }
        Notice::IkeMoved { sa, path } => {
            let ends = [("local", sa.path.local, path.local), ("remote", sa.path.remote, path.remote)];
            let moved = ends.into_iter().filter(|(_, before, after)| before != after);
            let text =
                |(end, before, after)| format!("{end} endpoint changed from {} to {}", host(before), host(after));
            moved.map(|moved| of_sa(sa, "IKE", 1, text(moved))).collect()
        }
        Notice::ChildUp { sa, child } => {
            vec![of_sa(sa, "IKE", 0, format!("CHILD_SA {} established with {}", child_name(child), spis_and_ts(child)))]
        }
        Notice::ChildDown { sa, child, reason } => {
            let text =
                format!("CHILD_SA {} closed with {}: {}", child_name(child), spis_and_ts(child), because(reason));
            vec![of_sa(sa, "IKE", 0, text)]
        }
        Notice::ChildRekeyed { sa, old, new } => {
            let text = format!("CHILD_SA {} rekeyed as {} with {}", child_name(old), child_name(new), spis_and_ts(new));
            vec![of_sa(sa, "IKE", 0, text)]
        }
        Notice::Failure(failure) => failure_lines(failure),
        Notice::Abandoned(failure) => {
            let text = format!("{}: {}", failure.code.name(), failure.what);
            vec![Line { connection: failure.connection.clone(), ike_sa: failure.ike_sa, group: "IKE", level: 2, text }]
        }
        Notice::Message(trace) => message_lines(trace),
        Notice::Repetition(repetition) => vec![repetition_line(repetition)],
        Notice::Remark { connection, level, text } => {
            let level = match level {
                RemarkLevel::Warn => 0,
                RemarkLevel::Info => 1,
                RemarkLevel::Debug => 2,
            };
            vec![Line { connection: connection.clone(), ike_sa: None, group: "IKE", level, text: text.clone() }]
        }
        _ => Vec::new(),
    }
}

/// Why an SA went down, for the end of a sentence.
pub(crate) fn because(reason: &DownReason) -> &'static str {
    match reason {
        DownReason::Command => "on command",
        DownReason::PeerDeleted => "the peer deleted it",
        DownReason::PeerDead => "the peer does not answer",
        DownReason::Expired => "its lifetime is over",
        DownReason::Replaced => "a newer one replaced it",
        DownReason::Failed => "it failed",
        _ => "for another reason",
    }
}

fn of_sa(sa: &IkeSaReport, group: &'static str, level: u8, text: String) -> Line {
    Line { connection: Some(sa.connection.clone()), ike_sa: Some(sa.id), group, level, text }
}

fn sa_name(sa: &IkeSaReport) -> String {
    format!("{}[{}]", sa.connection, sa.id.0)
}

fn child_name(child: &ChildSaReport) -> String {
    format!("{}{{{}}}", child.name, child.id.0)
}

fn host(address: SocketAddr) -> String {
    format!("{}[{}]", address.ip(), address.port())
}

fn ends(sa: &IkeSaReport) -> String {
    let id = |id: &Option<String>| id.clone().unwrap_or_else(|| "%any".to_owned());
    format!("{}[{}]...{}[{}]", sa.path.local.ip(), id(&sa.local_id), sa.path.remote.ip(), id(&sa.remote_id))
}

fn spis_and_ts(child: &ChildSaReport) -> String {
    let joined = |selectors: &[espdp_api::TrafficSelector]| {
        selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let spi_out = child.spi_out.map_or_else(|| "00000000".to_owned(), |spi| spi.to_string());
    let (local, remote) = (joined(&child.local), joined(&child.remote));
    format!("SPIs {}_i {spi_out}_o and TS {local} === {remote}", child.spi_in)
}

fn failure_lines(failure: &Failure) -> Vec<Line> {
    let mut texts = vec![format!("{}: {}", failure.code.name(), failure.what)];
    texts.extend(failure.ours.iter().map(|item| format!("  ours:   {item}")));
    texts.extend(failure.theirs.iter().map(|item| format!("  theirs: {item}")));
    texts.extend(failure.hint.iter().map(|hint| format!("  hint:   {hint}")));
    let line = |text| Line { connection: failure.connection.clone(), ike_sa: None, group: "IKE", level: 0, text };
    texts.into_iter().map(line).collect()
}

fn repetition_line(repetition: &Repetition) -> Line {
    let Repetition { connection, ike_sa, message_id, count, .. } = repetition;
    let text = if repetition.sent {
        format!("retransmit {count} of request with message ID {message_id}")
    } else {
        format!("received retransmit of request with ID {message_id}, retransmitting response")
    };
    Line { connection: Some(connection.clone()), ike_sa: Some(*ike_sa), group: "IKE", level: 1, text }
}

fn message_lines(trace: &MessageTrace) -> Vec<Line> {
    let line = |group, text| Line { connection: trace.connection.clone(), ike_sa: trace.ike_sa, group, level: 1, text };
    let ends = |from: std::net::SocketAddr, to: std::net::SocketAddr| {
        format!("from {}[{}] to {}[{}] ({} bytes)", from.ip(), from.port(), to.ip(), to.port(), trace.octets)
    };
    if trace.sent {
        vec![
            line("ENC", format!("generating {}", trace.summary)),
            line("NET", format!("sending packet: {}", ends(trace.path.local, trace.path.remote))),
        ]
    } else {
        vec![
            line("NET", format!("received packet: {}", ends(trace.path.remote, trace.path.local))),
            line("ENC", format!("parsed {}", trace.summary)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing;

    fn texts(notice: &Notice) -> Vec<String> {
        lines(notice).into_iter().map(|line| format!("[{}] {}", line.group, line.text)).collect()
    }

    #[test]
    fn lines_read_as_those_of_strongswan() {
        let sa = Box::new(testing::ike_sa());
        let child = Box::new(sa.children.first().unwrap().clone());
        assert_eq!(
            texts(&Notice::IkeUp(sa.clone())),
            [
                "[IKE] IKE_SA net[1] established between 192.168.0.1[moon.strongswan.org]...192.168.0.2[sun.strongswan.org]"
            ]
        );
        assert_eq!(
            texts(&Notice::ChildUp { sa, child }),
            ["[IKE] CHILD_SA net{1} established with SPIs bc721029_i 61d75315_o and TS 10.1.0.0/24 === 10.2.0.0/24"]
        );
        let elsewhere = espdp_api::IkePath { remote: "192.168.0.3:4500".parse().unwrap(), ..testing::ike_sa().path };
        assert_eq!(
            texts(&Notice::IkeMoved { sa: Box::new(testing::ike_sa()), path: elsewhere }),
            ["[IKE] remote endpoint changed from 192.168.0.2[4500] to 192.168.0.3[4500]"]
        );
        assert_eq!(
            texts(&Notice::Message(testing::message(Some("net"), true, "IKE_SA_INIT request 0 [ SA KE No ]"))),
            [
                "[ENC] generating IKE_SA_INIT request 0 [ SA KE No ]",
                "[NET] sending packet: from 192.168.0.1[500] to 192.168.0.2[500] (264 bytes)",
            ]
        );
    }

    #[test]
    fn a_failure_shows_both_sides_and_the_way_out() {
        assert_eq!(
            texts(&Notice::Failure(Box::new(testing::failure(Some("net"), None)))),
            [
                "[IKE] IKE_NO_PROPOSAL: no IKE proposal in common",
                "[IKE]   ours:   aes256gcm16-prfsha256-ecp256",
                "[IKE]   theirs: aes256gcm16-prfsha256-modp2048",
                "[IKE]   hint:   set ike = \"aes256gcm16-prfsha256-modp2048\"",
            ]
        );
    }
}
