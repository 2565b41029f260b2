//! What became of an IKE SA in a capture, and why.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ike_proto::describe_group;
use ike_proto::io::FailureCode;
use ike_proto::proposal::{describe_proposal, describe_transform};
use ike_proto::wire::{ExchangeType, MessageKind, Notify, NotifyType, Payload, Role, TransformType, WireProposal};
use pki::time::UnixTime;

use super::conversation::{Conversation, Step, certificates};
use crate::credentials::names;

/// ESP packets from one address to another.
pub(super) type Esp = BTreeMap<(IpAddr, IpAddr), u64>;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `None` when all went well, or nothing can be told.
    pub(super) code: Option<FailureCode>,
    pub(super) what: String,
    /// What the initiator has or wants.
    pub(super) initiator: Vec<String>,
    /// What the responder has or wants.
    pub(super) responder: Vec<String>,
    pub(super) hint: Option<String>,
}

/// Judges one SA; `others` may know what its two ends accept, `esp` whether packets flow.
pub(super) fn judge(conversation: &Conversation, others: &[Conversation], esp: &Esp) -> Verdict {
    let stages = [init, keys_exchanged, authenticated, later];
    let found = stages.iter().find_map(|stage| stage(conversation, others));
    found.unwrap_or_else(|| up(conversation, esp))
}

fn failed(code: FailureCode, what: impl Into<String>, hint: impl Into<String>) -> Verdict {
    let (initiator, responder) = (Vec::new(), Vec::new());
    Verdict { code: Some(code), what: what.into(), initiator, responder, hint: Some(hint.into()) }
}

/// IKE_SA_INIT: answered and agreed on, or not.
fn init(conversation: &Conversation, others: &[Conversation]) -> Option<Verdict> {
    let answers: Vec<&Step> = conversation.of(ExchangeType::IkeSaInit, MessageKind::Response).collect();
    let requests: Vec<&Step> = conversation.of(ExchangeType::IkeSaInit, MessageKind::Request).collect();
    let last = requests.last()?;
    let offers = requests.iter().flat_map(|step| proposals_of(step)).collect::<Vec<_>>();
    if answers.iter().any(|step| !proposals_of(step).is_empty()) {
        return None;
    }
    let refusal = answers.iter().rev().find_map(|step| error_in(step));
    let Some(refusal) = refusal else {
        return Some(unanswered_init(conversation, last, &answers));
    };
    let offered: Vec<String> = proposals_of(last).iter().map(describe_proposal).collect();
    let mut verdict = if let Some(group) = refusal.wanted_group() {
        let wanted = describe_group(group);
        Verdict {
            responder: vec![format!("wants key exchange {wanted}")],
            ..failed(
                FailureCode::KeGroupRefused,
                format!("the responder wants key exchange {wanted}, and the initiator did not come back with it"),
                format!("let the initiator's `ike` have {wanted}, or the responder's one of those that are offered"),
            )
        }
    } else if refusal.kind == NotifyType::NoProposalChosen {
        let known = accepted_by(conversation.responder.ip(), others);
        let nearest = nearest(&offers, &known);
        let what = match &nearest {
            Some(nearest) => format!("the responder accepts none of the proposals; {nearest}"),
            None => "the responder accepts none of the proposals, or has no connection for these addresses".to_owned(),
        };
        Verdict {
            responder: known.iter().map(describe_proposal).collect(),
            ..failed(
                FailureCode::IkeNoProposal,
                what,
                "compare the offer with `ike` (proposals) of the responder; its log knows which it has",
            )
        }
    } else {
        failed(FailureCode::PeerRefused, format!("the responder refuses: {}", refusal.kind), "its log knows why")
    };
    verdict.initiator = offered;
    Some(verdict)
}

/// No answer, or one that only asks for a cookie.
fn unanswered_init(conversation: &Conversation, last: &Step, answers: &[&Step]) -> Verdict {
    let responder = conversation.responder;
    if let Some(cookie) = answers.last().filter(|answer| answer.at >= last.last) {
        let asks = notifies(cookie).any(|notify| notify.kind == NotifyType::Cookie);
        let what = if asks {
            "the responder wants a cookie, and the initiator did not come back with it"
        } else {
            "the responder answered, and the initiator did not go on"
        };
        return failed(FailureCode::PeerGaveUp, what, "the answer may not reach the initiator: capture there");
    }
    Verdict {
        initiator: vec![format!("sent {} time(s) until {}", last.again + 1, since(conversation, last.last))],
        responder: vec!["nothing".to_owned()],
        ..failed(
            FailureCode::PeerSilent,
            format!("{} does not answer on UDP port {}", responder.ip(), responder.port()),
            format!(
                "is the address right, is UDP {} open, and does an IKE daemon listen there with a connection for {}? If this \
                 was captured at the responder, its daemon dropped the request: its log knows why",
                responder.port(),
                conversation.initiator.ip()
            ),
        )
    }
}

/// The next request, IKE_INTERMEDIATE or IKE_AUTH, is sent and answered, or not.
fn keys_exchanged(conversation: &Conversation, _: &[Conversation]) -> Option<Verdict> {
    let is_next = |step: &&Step| matches!(step.header.exchange, ExchangeType::IkeAuth | ExchangeType::IkeIntermediate);
    let requests: Vec<&Step> =
        conversation.steps.iter().filter(is_next).filter(|step| step.header.kind == MessageKind::Request).collect();
    let Some(last) = requests.iter().max_by_key(|step| step.header.message_id) else {
        return began_with_init(conversation).then(|| {
            failed(
                FailureCode::PeerGaveUp,
                "IKE_SA_INIT was answered, and the initiator did not go on",
                "the answer may not reach the initiator, or it does not like it: its log knows",
            )
        });
    };
    let is_answer = |step: &&Step| {
        step.header.kind == MessageKind::Response && step.header.message_id == last.header.message_id && is_next(step)
    };
    if conversation.steps.iter().any(|step| is_answer(&step)) {
        return None;
    }
    let parts: Vec<&&Step> = requests.iter().filter(|step| step.header.message_id == last.header.message_id).collect();
    let longest = parts.iter().map(|step| step.octets).max().unwrap_or_default();
    let port = last.destination.port();
    let exchange = last.header.exchange;
    let verdict = if longest > SURELY_WHOLE || parts.iter().any(|step| step.was_fragmented) {
        failed(
            FailureCode::LargeMessageLost,
            format!(
                "{exchange}, {longest} octets, is not answered, and IKE_SA_INIT was: packets of its size may get lost"
            ),
            "let both ends fragment IKE messages (`fragmentation = \"yes\"`, a smaller `fragmentsize`), or find what drops IP \
             fragments",
        )
    } else if port != conversation.responder.port() {
        failed(
            FailureCode::NatPortSilent,
            format!(
                "{exchange} on UDP port {port} is not answered, and IKE_SA_INIT on port {} was",
                conversation.responder.port()
            ),
            format!("is UDP {port} open between both ends?"),
        )
    } else {
        failed(
            FailureCode::PeerSilent,
            format!("{exchange} is not answered, and IKE_SA_INIT was"),
            "the responder drops it, for it cannot decrypt it, or packets get lost: its log knows",
        )
    };
    let sent = format!("sent {} time(s), {longest} octets at most", last.again + 1);
    Some(Verdict { initiator: vec![sent], responder: vec!["nothing".to_owned()], ..verdict })
}

/// IKE_AUTH is answered: what the answer says, or what its length tells.
fn authenticated(conversation: &Conversation, _: &[Conversation]) -> Option<Verdict> {
    let answers: Vec<&Step> = conversation.of(ExchangeType::IkeAuth, MessageKind::Response).collect();
    let last = answers.iter().max_by_key(|step| step.header.message_id)?;
    let readable: Vec<&&Step> = answers.iter().filter(|step| step.payloads.is_some()).collect();
    if readable.is_empty() {
        return guess(conversation, last);
    }
    let said = |role: Role| told_by(conversation, role);
    let refusal = readable.iter().rev().find_map(|step| error_in(step));
    let of_initiator = conversation.of(ExchangeType::Informational, MessageKind::Request).find_map(|step| {
        error_in(step).filter(|notify| {
            notify.kind == NotifyType::AuthenticationFailed && step.header.sender == Role::OriginalInitiator
        })
    });
    let (code, what, hint) = if let Some(notify) = refusal {
        let (code, what, hint) = explain_refusal(notify.kind);
        (code, format!("the responder refuses: {what}"), hint)
    } else if of_initiator.is_some() {
        let what = "the initiator refuses the responder's proof or identity".to_owned();
        (
            FailureCode::AuthRefusedByPeer,
            what,
            "its log knows the reason; compare `rightid` there with IDr, the key, the CAs",
        )
    } else {
        return None;
    };
    let mut verdict = Verdict {
        initiator: said(Role::OriginalInitiator),
        responder: said(Role::OriginalResponder),
        ..failed(code, what, hint)
    };
    if code == FailureCode::AuthRefusedByPeer {
        let suspects = suspects(conversation);
        if let Some((code, why)) = suspects.into_iter().next() {
            verdict.code = Some(code);
            verdict.what = format!("{}; {why}", verdict.what);
        }
    }
    Some(verdict)
}

/// What can be told of IKE_AUTH without keys: an answer with nothing but a notification is short.
fn guess(conversation: &Conversation, last: &Step) -> Option<Verdict> {
    if last.octets > ONE_NOTIFICATION {
        return None;
    }
    let what = format!(
        "the answer to IKE_AUTH has {} octets, room for an error notification only: authentication was refused, most likely",
        last.octets
    );
    let hint = "give the keys with --keys to see inside; the responder's log knows the reason: the pre-shared key, an identity, a \
                certificate";
    Some(Verdict {
        initiator: told_by(conversation, Role::OriginalInitiator),
        ..failed(FailureCode::AuthRefusedByPeer, what, hint)
    })
}

/// Exchanges of an SA that is up: a refused child or rekeying.
fn later(conversation: &Conversation, _: &[Conversation]) -> Option<Verdict> {
    let answers = conversation.of(ExchangeType::CreateChildSa, MessageKind::Response);
    let (answer, notify) = answers.filter_map(|step| Some((step, error_in(step)?))).last()?;
    let request = conversation
        .of(ExchangeType::CreateChildSa, MessageKind::Request)
        .find(|step| step.header.message_id == answer.header.message_id && step.header.sender != answer.header.sender);
    let (code, what, hint) = explain_refusal(notify.kind);
    let rekeys = request.is_some_and(|step| notifies(step).any(|notify| notify.kind == NotifyType::RekeySa));
    let (what, hint) = if rekeys && code == FailureCode::ChildNoProposal {
        (
            format!("a Child SA was to be replaced: {what}"),
            "the first Child SA is made without a key exchange of its own, so a group on one side only (PFS) shows at the first \
             rekeying: give `esp` the same groups on both sides",
        )
    } else {
        (what.to_owned(), hint)
    };
    let initiator = request.map(|step| step.details.clone()).unwrap_or_default();
    Some(Verdict { initiator, responder: answer.details.clone(), ..failed(code, what, hint) })
}

fn up(conversation: &Conversation, esp: &Esp) -> Verdict {
    let (initiator, responder) = (conversation.initiator.ip(), conversation.responder.ip());
    let count = |from, to| esp.get(&(from, to)).copied().unwrap_or_default();
    let (there, back) = (count(initiator, responder), count(responder, initiator));
    let (what, hint) = match (began_with_init(conversation), there, back) {
        (false, ..) => ("the capture begins after the IKE SA was set up".to_owned(), None),
        (true, 0, 0) => ("the IKE SA came up, as far as can be seen; there are no ESP packets".to_owned(), None),
        (true, there, back) if there == 0 || back == 0 => (
            format!("the IKE SA came up, but ESP goes one way only: {there} packets there, {back} back"),
            Some(
                "ESP (IP protocol 50, or UDP 4500) may be dropped on the way, or one end sends its packets past the tunnel: look \
                 at its routes and firewall"
                    .to_owned(),
            ),
        ),
        (true, there, back) => (format!("the IKE SA came up; ESP: {there} packets there, {back} back"), None),
    };
    Verdict { code: None, what, initiator: Vec::new(), responder: Vec::new(), hint }
}

fn began_with_init(conversation: &Conversation) -> bool {
    conversation.of(ExchangeType::IkeSaInit, MessageKind::Request).next().is_some()
}

/// The code for an error notification that came in IKE_AUTH or CREATE_CHILD_SA.
fn explain_refusal(kind: NotifyType) -> (FailureCode, &'static str, &'static str) {
    if kind == NotifyType::AuthenticationFailed {
        (
            FailureCode::AuthRefusedByPeer,
            "authentication failed",
            "its log knows the reason: the pre-shared key, an identity (`leftid`, `rightid`), a certificate or its CA",
        )
    } else if kind == NotifyType::NoProposalChosen {
        (
            FailureCode::ChildNoProposal,
            "no ESP proposal in common",
            "compare `esp` (esp_proposals) of both ends: key lengths, integrity beside an AEAD, extended sequence numbers, groups",
        )
    } else if kind == NotifyType::TsUnacceptable {
        (
            FailureCode::TsUnacceptable,
            "no traffic selectors in common",
            "compare TSi and TSr with `rightsubnet` and `leftsubnet` (remote_ts, local_ts) of the responder, in this order",
        )
    } else {
        (
            FailureCode::PeerRefused,
            "an error that says it all by its name",
            "the log of the end that refuses knows more",
        )
    }
}

/// What is wrong with what was sent, at the time of the capture, as far as that can be seen.
fn suspects(conversation: &Conversation) -> Vec<(FailureCode, String)> {
    let mut found = Vec::new();
    let now = UnixTime(conversation.began.as_secs());
    for step in &conversation.steps {
        let payloads = step.payloads.as_deref().unwrap_or_default();
        let certificates = certificates(payloads);
        let Some(own) = certificates.first() else { continue };
        let subject = own.subject();
        if own.not_after() < now {
            found.push((FailureCode::AuthCertificateExpired, format!("`{subject}` expired at {}", own.not_after())));
        }
        if own.not_before() > now {
            let why = format!("`{subject}` is valid from {} only", own.not_before());
            found.push((FailureCode::AuthCertificateNotYetValid, why));
        }
        let identity = payloads.iter().find_map(|payload| match (payload, step.header.sender) {
            (Payload::IdInitiator(id), Role::OriginalInitiator)
            | (Payload::IdResponder(id), Role::OriginalResponder) => id.identity(),
            _ => None,
        });
        if let Some(identity) = identity.filter(|identity| !names::has(own, identity)) {
            found.push((FailureCode::AuthIdNotInCertificate, format!("`{identity}` is no name of `{subject}`")));
        }
    }
    found
}

/// What one end said about itself and what it wants in IKE_AUTH.
fn told_by(conversation: &Conversation, role: Role) -> Vec<String> {
    let of_role = |step: &&Step| step.header.exchange == ExchangeType::IkeAuth && step.header.sender == role;
    conversation.steps.iter().filter(of_role).flat_map(|step| step.details.iter().cloned()).collect()
}

fn notifies(step: &Step) -> impl Iterator<Item = &Notify> {
    let payloads = step.payloads.iter().flatten();
    payloads.filter_map(|payload| if let Payload::Notify(notify) = payload { Some(notify) } else { None })
}

fn error_in(step: &Step) -> Option<&Notify> {
    notifies(step).find(|notify| notify.kind.is_error())
}

fn proposals_of(step: &Step) -> Vec<WireProposal> {
    let proposals = step.payloads.iter().flatten().filter_map(|payload| {
        if let Payload::SecurityAssociation(proposals) = payload { Some(proposals) } else { None }
    });
    proposals.flatten().cloned().collect()
}

/// What an end offered or chose for IKE SAs elsewhere in the capture.
fn accepted_by(end: IpAddr, others: &[Conversation]) -> Vec<WireProposal> {
    let mut known = Vec::new();
    for conversation in others {
        let sent_init = |step: &&Step| step.header.exchange == ExchangeType::IkeSaInit && step.source.ip() == end;
        for proposal in conversation.steps.iter().filter(sent_init).flat_map(proposals_of) {
            if known.len() < MAX_KNOWN
                && !known.iter().any(|other: &WireProposal| other.transforms == proposal.transforms)
            {
                known.push(proposal);
            }
        }
    }
    known
}

/// What the two proposals that come nearest to each other differ in.
fn nearest(offers: &[WireProposal], known: &[WireProposal]) -> Option<String> {
    let pairs = offers.iter().flat_map(|offer| known.iter().map(move |known| differences(offer, known)));
    let nearest = pairs.min_by_key(Vec::len)?;
    if nearest.is_empty() {
        return Some("yet elsewhere in this capture it has one of them: is it the same connection?".to_owned());
    }
    Some(format!("nearest to what it has elsewhere in this capture: {}", nearest.join("; ")))
}

fn differences(offer: &WireProposal, known: &WireProposal) -> Vec<String> {
    let kinds = [
        TransformType::Encryption,
        TransformType::PseudoRandomFunction,
        TransformType::Integrity,
        TransformType::KeyExchange,
    ];
    let of = |proposal: &WireProposal, kind| {
        let transforms = proposal.transforms.iter().filter(|transform| transform.kind == kind);
        transforms.map(describe_transform).collect::<Vec<_>>()
    };
    let differ = |kind: &TransformType| {
        let (offered, wanted) = (of(offer, *kind), of(known, *kind));
        let agree = offered.iter().any(|name| wanted.contains(name)) || offered.is_empty() && wanted.is_empty();
        let list = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        (!agree).then(|| format!("for {kind}, {} is offered, it has {}", list(&offered), list(&wanted)))
    };
    kinds.iter().filter_map(differ).collect()
}

fn since(conversation: &Conversation, at: Duration) -> String {
    format!("{:.3} s", at.saturating_sub(conversation.began).as_secs_f64())
}

/// IKE messages of so many octets fit into every packet that IPv6 networks must carry (RFC 8200 §5), with all headers.
const SURELY_WHOLE: usize = 1200;

/// Octets of a protected message with one notification without data, whatever the algorithms: AES-GCM 65, AES-CBC with
/// HMAC-SHA2-512 96. The shortest answer that accepts, with a pre-shared key, has more than 150.
const ONE_NOTIFICATION: usize = 112;

/// Proposals of one end that are compared.
const MAX_KNOWN: usize = 32;
