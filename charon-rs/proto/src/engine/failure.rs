//! What can go wrong with a message, and the one place that decides what the peer learns of it (RFC 7296 §2.21).

use std::net::SocketAddr;

use espdp_api::{EspSpi, IpsecProtocol};

use super::redirect::MAX_REDIRECTS;
use crate::config::{Childless, Connection, LocalMethod};
use crate::describe::describe_group;
use crate::io::{ConfigKey, Cure, Failure, FailureCode, IkeSaId, ProofRefusal};
use crate::proposal::{Algorithm, IkeProposal, KeyExchangeGroup};
use crate::rules::Violation;
use crate::wire::{ExchangeType, Notify, NotifyType, WireError};

/// Why a request of the peer, or a response to one of ours, led to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The peer's octets are no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The peer's message lacks something or has too much of it.
    #[error(transparent)]
    Form(#[from] Violation),
    /// The peer began an exchange that has no place here.
    #[error("{0} has no place here")]
    Misplaced(ExchangeType),
    /// The peer answered with something that we had not offered.
    #[error("{0}")]
    NotOffered(String),
    /// The peer and we have nothing in common, or the peer is not who it should be.
    #[error("{}", .0.what)]
    Incompatible(Box<Incompatible>),
    /// The peer wants another key exchange group, or we do.
    #[error("key exchange group {group} is wanted")]
    WrongGroup {
        /// The number of the group.
        group: u16,
    },
    /// It will do later (RFC 7296 §2.25).
    #[error("the SAs are being changed just now")]
    NotNow,
    /// The Child SA to be rekeyed is not there.
    #[error("there is no Child SA with the peer's SPI {1}")]
    NoSuchChild(IpsecProtocol, EspSpi),
    /// The peer goes on with something that was not begun, or is given up (RFC 9370 §2.2.4).
    #[error("there is nothing unfinished that IKE_FOLLOWUP_KE could go on with")]
    NothingUnfinished,
    /// The peer wants yet another SA for a single worker of this child (RFC 9611).
    #[error("the peer wants more SAs for single workers of child `{0}` than anybody needs")]
    TooManyQueues(String),
    /// The peer refused.
    #[error("the peer refused: {0}")]
    Refused(NotifyType),
    /// Something here failed.
    #[error("{0}")]
    Local(String),
}

/// What two sides disagree about, for people, and what the peer is told of it.
#[derive(Clone, Debug)]
pub(super) struct Incompatible {
    pub(super) code: FailureCode,
    pub(super) notify: NotifyType,
    pub(super) what: String,
    pub(super) ours: Vec<String>,
    pub(super) theirs: Vec<String>,
    pub(super) hint: Option<String>,
    /// What in the configuration decides, if it is not what usually does for the code.
    pub(super) cure: Option<Cure>,
}

/// AH covers the addresses that a NAT changes (RFC 3715 §2.1), and RFC 3948 puts ESP alone in UDP.
pub(super) fn ah_through_nat(child: &str) -> Trouble {
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::ChildNoProposal,
        notify: NotifyType::NoProposalChosen,
        what: format!("child `{child}` is to have AH, which cannot pass the NAT between the peer and us"),
        ours: Vec::new(),
        theirs: Vec::new(),
        hint: Some("let both sides use `esp` instead of `ah`, for example `esp = \"null-sha256\"`".to_owned()),
        cure: None,
    }))
}

/// How far the sender of a message is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Not at all: IKE_SA_INIT.
    None,
    /// It is the one that exchanged keys with us, whoever that is: IKE_AUTH.
    Keyed,
    /// It proved its identity.
    Authenticated,
}

/// What is done about a request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Nothing is sent.
    Silence,
    /// The notification is the answer.
    Answer(Notify),
    /// The notification is the answer, and the SA ends with it.
    AnswerAndClose(Notify),
}

impl Trouble {
    /// What the sender of a request learns, and whether the SA outlives it.
    pub(super) fn reaction(&self, trust: Trust) -> Reaction {
        let answer = |kind| Reaction::Answer(Notify::new(kind));
        match (self, trust) {
            // R7296-2.5-4. Only here and below the peer is told the truth before it is authenticated.
            (Self::Wire(WireError::UnsupportedCritical { payload, .. }), _) => {
                let notify = Notify::with_data(NotifyType::UnsupportedCriticalPayload, vec![*payload]);
                // R7296-2.21.2-1: in IKE_AUTH this ends the SA as well.
                if trust == Trust::Keyed { Reaction::AnswerAndClose(notify) } else { Reaction::Answer(notify) }
            }
            (Self::Wire(_) | Self::Form(_) | Self::NotOffered(_) | Self::Misplaced(_), Trust::None) => {
                Reaction::Silence
            }
            // RFC 7296 §2.21.3: INVALID_SYNTAX is fatal in both peers.
            (Self::Wire(_) | Self::Form(_) | Self::NotOffered(_) | Self::Misplaced(_), _) => {
                Reaction::AnswerAndClose(Notify::new(NotifyType::InvalidSyntax))
            }
            (Self::WrongGroup { group }, _) => Reaction::Answer(Notify::invalid_ke(*group)),
            (Self::Incompatible(reason), Trust::Keyed)
                if matches!(reason.notify, NotifyType::AuthenticationFailed | NotifyType::InvalidSyntax) =>
            {
                Reaction::AnswerAndClose(Notify::new(reason.notify))
            }
            (Self::Incompatible(reason), _) => answer(reason.notify),
            (Self::NotNow, Trust::Authenticated) => answer(NotifyType::TemporaryFailure),
            (Self::NothingUnfinished, Trust::Authenticated) => answer(NotifyType::StateNotFound),
            (Self::TooManyQueues(_), _) => answer(NotifyType::TsMaxQueue),
            (Self::NoSuchChild(protocol, spi), _) => {
                Reaction::Answer(Notify::about_child(NotifyType::ChildSaNotFound, *protocol, *spi))
            }
            (Self::Local(_) | Self::Refused(_), Trust::Authenticated) => answer(NotifyType::TemporaryFailure),
            (Self::Local(_) | Self::Refused(_), Trust::Keyed) => {
                Reaction::AnswerAndClose(Notify::new(NotifyType::AuthenticationFailed))
            }
            (Self::NotNow | Self::NothingUnfinished | Self::Local(_) | Self::Refused(_), _) => Reaction::Silence,
        }
    }

    /// Whether this is worth telling somebody: what will sort itself out is not.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::NotNow
                | Self::NothingUnfinished
                | Self::NoSuchChild(..)
                | Self::WrongGroup { .. }
                | Self::TooManyQueues(_)
        )
    }

    /// Whether the two sides differ only in what traffic they want to protect.
    pub(super) fn is_about_selectors(&self) -> bool {
        matches!(self, Self::Incompatible(reason) if reason.code == FailureCode::TsUnacceptable)
    }

    /// Gateways send us from one to the other.
    pub(super) fn redirected_too_often() -> Self {
        Self::Incompatible(Box::new(Incompatible {
            code: FailureCode::RedirectLoop,
            notify: NotifyType::TemporaryFailure,
            what: format!("we were redirected more than {MAX_REDIRECTS} times within five minutes"),
            ours: Vec::new(),
            theirs: Vec::new(),
            hint: Some(
                "gateways that redirect to each other go in circles; or refuse with `redirect = false`".to_owned(),
            ),
            cure: None,
        }))
    }

    /// The shell refused the peer's proof, or makes none of ours.
    pub(super) fn proof_refused(refusal: ProofRefusal) -> Self {
        let ProofRefusal { code, what, ours, theirs, hint } = refusal;
        let notify = NotifyType::AuthenticationFailed;
        Self::Incompatible(Box::new(Incompatible { code, notify, what, ours, theirs, hint, cure: None }))
    }

    /// The shell was asked for something, and does not answer.
    pub(super) fn shell_is_silent(asked_for: &str) -> Self {
        Self::Incompatible(Box::new(Incompatible {
            code: FailureCode::AuthTimeout,
            notify: NotifyType::AuthenticationFailed,
            what: format!("the {asked_for} did not come in time"),
            ours: Vec::new(),
            theirs: Vec::new(),
            hint: Some(
                "does something that is asked for CRLs or OCSP answers, or a key in a token, not answer?".to_owned(),
            ),
            cure: None,
        }))
    }

    /// We have several rounds of authentication, and the peer does not know that there can be (RFC 4739).
    pub(super) fn rounds_unsupported(connection: &Connection) -> Self {
        Self::Incompatible(Box::new(Incompatible {
            code: FailureCode::AuthRoundsUnsupported,
            notify: NotifyType::AuthenticationFailed,
            what: format!("connection `{}` has several rounds of authentication, the peer does one", connection.name),
            ours: vec![format!(
                "{} of ours, {} of the peer's",
                connection.local_rounds().count(),
                connection.remote_rounds().count()
            )],
            theirs: vec!["no MULTIPLE_AUTH_SUPPORTED".to_owned()],
            hint: Some("leave one round on both sides, or use a peer that does RFC 4739".to_owned()),
            cure: None,
        }))
    }

    /// One side wants an IKE SA without Child SA and the other does not (RFC 6023).
    pub(super) fn childless_refused(connection: &Connection, theirs: &str) -> Self {
        Self::Incompatible(Box::new(Incompatible {
            code: FailureCode::ChildlessRefused,
            // RFC 6023 §3: as if nobody had heard of it.
            notify: NotifyType::InvalidSyntax,
            what: format!("connection `{}`: {theirs}", connection.name),
            ours: vec![format!(
                "childless = {}",
                match connection.childless {
                    Childless::Allow => "allow",
                    Childless::Prefer => "prefer",
                    Childless::Force => "force",
                    Childless::Never => "never",
                }
            )],
            theirs: vec![theirs.to_owned()],
            hint: Some("`childless` must be compatible on both sides".to_owned()),
            cure: None,
        }))
    }

    /// The peer, or somebody in its name, refused IKE_SA_INIT.
    pub(super) fn refused_in_init(notify: &Notify, connection: &Connection) -> Self {
        let kind = notify.kind;
        let code = if kind == NotifyType::NoProposalChosen {
            FailureCode::IkeNoProposal
        } else if kind == NotifyType::InvalidKePayload {
            FailureCode::KeGroupRefused
        } else {
            code_of_refusal(kind)
        };
        let wanted = notify.wanted_group();
        let theirs = match wanted {
            Some(group) => format!("{kind}: wants key exchange {}", describe_group(group)),
            None => kind.to_string(),
        };
        let value = wanted.and_then(|group| with_group(connection, group));
        Self::Incompatible(Box::new(Incompatible {
            code,
            notify: kind,
            what: format!("the peer refused IKE_SA_INIT: {kind}"),
            ours: connection.ike_proposals.iter().map(ToString::to_string).collect(),
            theirs: vec![theirs],
            hint: hint_for_refusal(kind).map(str::to_owned),
            cure: value.map(|value| Cure::new(ConfigKey::IkeProposals, Some(value))),
        }))
    }

    /// The failure for people.
    pub(super) fn into_failure(self, about: About<'_>) -> Failure {
        let what = self.to_string();
        let (code, ours, theirs, hint, cure) = match self {
            Self::Wire(_) | Self::Form(_) | Self::Misplaced(_) | Self::NotOffered(_) => {
                (FailureCode::PeerMisbehaved, Vec::new(), Vec::new(), None, None)
            }
            Self::Incompatible(reason) => (reason.code, reason.ours, reason.theirs, reason.hint, reason.cure),
            Self::WrongGroup { .. } => (FailureCode::KeGroupRefused, Vec::new(), Vec::new(), None, None),
            Self::NotNow
            | Self::NothingUnfinished
            | Self::NoSuchChild(..)
            | Self::TooManyQueues(_)
            | Self::Local(_) => (FailureCode::Local, Vec::new(), Vec::new(), None, None),
            Self::Refused(kind) => {
                let theirs = vec![kind.to_string()];
                let refused = about.connection.filter(|_| kind == NotifyType::AuthenticationFailed);
                let ours = refused.map_or_else(Vec::new, what_we_say);
                let by_secret = |connection: &&Connection| connection.local.method == LocalMethod::PreSharedKey;
                let cure = refused.filter(by_secret).map(|_| Cure::new(ConfigKey::Secret, None));
                (code_of_refusal(kind), ours, theirs, hint_for_refusal(kind).map(str::to_owned), cure)
            }
        };
        Failure {
            code,
            ike_sa: about.ike_sa,
            connection: about.connection.map(|connection| connection.name.clone()),
            child: about.child.map(str::to_owned),
            peer: about.peer,
            what,
            ours,
            theirs,
            hint,
            cure,
        }
    }
}

/// As many of these lines as somebody reads, and how many more there are. Strangers cause failures at will.
pub(super) fn abridged(mut lines: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let mut first: Vec<String> = lines.by_ref().take(MAX_LINES).collect();
    if lines.len() > 0 {
        first.push(format!("and {} more", lines.len()));
    }
    first
}

/// What a failure is about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About<'a> {
    pub(super) ike_sa: Option<IkeSaId>,
    pub(super) connection: Option<&'a Connection>,
    pub(super) child: Option<&'a str>,
    pub(super) peer: Option<SocketAddr>,
}

/// Our first proposal with another group, if we know that one.
fn with_group(connection: &Connection, number: u16) -> Option<String> {
    let group = *KeyExchangeGroup::ALL.iter().find(|group| group.id() == number)?;
    let first = connection.ike_proposals.first()?;
    let mut proposals = vec![IkeProposal { groups: vec![group], ..first.clone() }];
    proposals.extend(connection.ike_proposals.iter().cloned());
    Some(proposals.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

/// Who we say that we are and whom we want to talk to, when a peer does not say what it dislikes.
fn what_we_say(connection: &Connection) -> Vec<String> {
    let local = connection.local.identity.as_ref().map_or_else(|| "our address".to_owned(), ToString::to_string);
    let by = match connection.local.method {
        LocalMethod::PreSharedKey => "pre-shared key",
        LocalMethod::Signature(_) => "signature",
    };
    vec![format!("we are `{local}`, by {by}"), format!("the peer is to be `{}`", connection.remote.identity)]
}

/// The code for a refusal by the peer.
fn code_of_refusal(kind: NotifyType) -> FailureCode {
    if kind == NotifyType::AuthenticationFailed { FailureCode::AuthRefusedByPeer } else { FailureCode::PeerRefused }
}

/// The usual causes of a refusal that comes without a reason.
pub(super) fn hint_for_refusal(kind: NotifyType) -> Option<&'static str> {
    HINTS.iter().find(|(refusal, _)| *refusal == kind).map(|(_, hint)| *hint)
}

const MAX_LINES: usize = 16;

const HINTS: [(NotifyType, &str); 5] = [
    (
        NotifyType::NoProposalChosen,
        "compare `ike` and `esp` with the peer's proposals: key lengths, a PFS group in `esp` on one side only, integrity \
         beside an AEAD, extended sequence numbers; or the peer has no connection for our address",
    ),
    (
        NotifyType::TsUnacceptable,
        "compare `leftsubnet` and `rightsubnet` with the peer's, in opposite order, and `type`",
    ),
    (
        NotifyType::AuthenticationFailed,
        "the peer's log knows the reason: usually another pre-shared key, a certificate whose CA it does not trust, or a `leftid` \
         that it does not expect",
    ),
    (NotifyType::FailedCpRequired, "the peer has us ask for a virtual address: `leftsourceip = \"%config\"`"),
    (NotifyType::InvalidKePayload, "name a group in `ike` or `esp` that the peer accepts"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PayloadType;

    fn incompatible(notify: NotifyType) -> Trouble {
        Trouble::Incompatible(Box::new(Incompatible {
            code: FailureCode::AuthNoPsk,
            notify,
            what: "test".into(),
            ours: Vec::new(),
            theirs: Vec::new(),
            hint: None,
            cure: None,
        }))
    }

    #[test]
    fn strangers_learn_next_to_nothing() {
        let missing = Trouble::Form(Violation::Missing { form: "test", payload: PayloadType::Nonce });
        assert_eq!(missing.reaction(Trust::None), Reaction::Silence);
        assert_eq!(Trouble::Local("full".into()).reaction(Trust::None), Reaction::Silence);
        assert_eq!(
            incompatible(NotifyType::NoProposalChosen).reaction(Trust::None),
            Reaction::Answer(Notify::new(NotifyType::NoProposalChosen))
        );
    }

    #[test]
    fn malformed_requests_end_the_sa_and_unknown_critical_payloads_only_the_request() {
        let missing = Trouble::Form(Violation::Missing { form: "test", payload: PayloadType::Nonce });
        let syntax = Reaction::AnswerAndClose(Notify::new(NotifyType::InvalidSyntax));
        assert_eq!(missing.reaction(Trust::Authenticated), syntax);
        assert_eq!(missing.reaction(Trust::Keyed), syntax);
        let critical = Trouble::Wire(WireError::UnsupportedCritical { payload: 200, offset: 0 });
        let notify = Notify::with_data(NotifyType::UnsupportedCriticalPayload, vec![200]);
        assert_eq!(critical.reaction(Trust::Authenticated), Reaction::Answer(notify.clone()));
        assert_eq!(critical.reaction(Trust::Keyed), Reaction::AnswerAndClose(notify));
    }

    #[test]
    fn a_failed_authentication_ends_the_sa_and_a_failed_child_does_not() {
        assert_eq!(
            incompatible(NotifyType::AuthenticationFailed).reaction(Trust::Keyed),
            Reaction::AnswerAndClose(Notify::new(NotifyType::AuthenticationFailed))
        );
        assert_eq!(
            incompatible(NotifyType::TsUnacceptable).reaction(Trust::Keyed),
            Reaction::Answer(Notify::new(NotifyType::TsUnacceptable))
        );
    }
}
