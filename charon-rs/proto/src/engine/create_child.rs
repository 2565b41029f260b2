//! Agreeing on Child SAs: what we offer, how we answer, and what comes of it (RFC 7296 §1.2, §1.3.1, §1.3.3, §2.9).

use std::sync::Arc;

use espdp_api::{
    AddressRange, EspSpi, IpsecProtocol, Mode, PacketSummary, PaddingPolicy, PolicyId, PortRange, Secret,
    TrafficSelector,
};

use super::child::{AgreedChild, ChildSa, Maker};
use super::context::Context;
use super::failure::{Incompatible, Trouble, ah_through_nat, hint_for_refusal};
use super::negotiate::esp_incompatible;
use super::resources::{Resource, is_like};
use super::session::Session;
use super::task::ChildWish;
use super::virtual_addresses::Hosts;
use crate::config::{Child, ChildSelector, Connection};
use crate::crypto::key_exchange::{KeyExchange, respond};
use crate::crypto::schedule::{ChildExchange, ChildKeys};
use crate::io::{ChildSaId, ConfigKey, Cure, FailureCode};
use crate::proposal::{
    EspAgreement, EspProposal, EspSuite, KeyExchangeGroup, check_esp_answer, esp_offer, negotiate_esp, without_groups,
};
use crate::rules::Body;
use crate::selectors::{is_narrowed, narrow};
use crate::wire::{KeyExchange as KeyExchangePayload, Notify, NotifyType, Payload};

/// A Child SA that is to be replaced.
#[derive(Clone, Debug)]
pub(super) struct Replaced {
    pub(super) id: ChildSaId,
    pub(super) policy: PolicyId,
    /// The SPI on which we receive.
    pub(super) spi_in: EspSpi,
    suite: EspSuite,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    resource: Resource,
}

impl Replaced {
    pub(super) fn new(old: &ChildSa) -> Self {
        Self {
            id: old.id,
            policy: old.policy,
            spi_in: old.spi_in,
            suite: old.suite,
            local: old.local.clone(),
            remote: old.remote.clone(),
            resource: old.resource,
        }
    }
}

/// What two peers agreed on for a Child SA whose keys are still to be made.
#[derive(Debug)]
pub(super) struct ChildTerms {
    pub(super) child: Arc<Child>,
    pub(super) spi_in: EspSpi,
    pub(super) spi_out: EspSpi,
    pub(super) suite: EspSuite,
    pub(super) nonces: [Vec<u8>; 2],
    /// The Child SA that it replaces, with its policy.
    pub(super) replaces: Option<(ChildSaId, PolicyId)>,
    maker: Maker,
    mode: Mode,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    /// Both ends want fragments of packets but the first to travel in it.
    later_fragments: bool,
    /// How packets are filled up.
    padding: PaddingPolicy,
    resource: Resource,
    shared_secret: Option<Secret<Vec<u8>>>,
}

impl ChildTerms {
    /// Makes the keys, also of the secrets of additional key exchanges (RFC 9370 §2.2.4).
    pub(super) fn into_agreed(self, session: &Session, more_secrets: &[Secret<Vec<u8>>]) -> AgreedChild {
        let [initiator_nonce, responder_nonce] = &self.nonces;
        let shared_secret = self.shared_secret.as_ref();
        let exchange = ChildExchange { shared_secret, more_secrets, initiator_nonce, responder_nonce };
        let keys = ChildKeys::derive(session.suite.prf, &session.keys.sk_d, self.suite.algorithms, &exchange);
        let (keys_in, keys_out) = match self.maker {
            Maker::We => (keys.responder_to_initiator, keys.initiator_to_responder),
            Maker::Peer => (keys.initiator_to_responder, keys.responder_to_initiator),
        };
        AgreedChild {
            child: self.child,
            spi_in: self.spi_in,
            spi_out: self.spi_out,
            suite: self.suite,
            mode: self.mode,
            local: self.local,
            remote: self.remote,
            later_fragments: self.later_fragments,
            padding: self.padding,
            resource: self.resource,
            keys_in,
            keys_out,
            nonces: self.nonces,
            maker: self.maker,
            replaces: self.replaces,
        }
    }
}

/// A child that was offered to the peer.
#[derive(Debug)]
pub(super) struct ChildOffer {
    pub(super) wish: ChildWish,
    /// Our SPI, reserved in the dataplane.
    pub(super) spi: EspSpi,
    pub(super) replaces: Option<Replaced>,
    /// SPIs of the peer that it deleted before its answer came: the one that the answer names may be among them.
    pub(super) deleted: Vec<EspSpi>,
    proposals: Vec<EspProposal>,
    /// Our nonce; `None` in IKE_AUTH, where those of IKE_SA_INIT count.
    nonce: Option<Vec<u8>>,
    key_exchange: Option<KeyExchange>,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
}

impl ChildOffer {
    /// The child that goes with IKE_AUTH.
    pub(super) fn in_ike_auth(session: &Session, wish: ChildWish, spi: EspSpi) -> Self {
        let proposals = without_groups(&wish.child.esp_proposals);
        let (local, remote) = wanted_selectors(session, &wish);
        let (replaces, deleted, nonce, key_exchange) = (None, Vec::new(), None, None);
        Self { wish, spi, replaces, deleted, proposals, nonce, key_exchange, local, remote }
    }

    /// A child that gets a CREATE_CHILD_SA exchange of its own.
    pub(super) fn new(
        cx: &mut Context,
        session: &Session,
        wish: ChildWish,
        spi: EspSpi,
        replaces: Option<Replaced>,
    ) -> Self {
        let proposals = wish.child.esp_proposals.clone();
        let groups = || proposals.iter().flat_map(|proposal| proposal.groups.iter().copied());
        let wanted = wish.group.and_then(|wanted| groups().find(|&group| group as u16 == wanted));
        let key_exchange =
            wanted.or_else(|| groups().next()).map(|group| KeyExchange::generate(group, &mut *cx.random));
        // RFC 7296 §2.8: what replaces an SA has the selectors of that SA.
        let (local, remote) = match (&replaces, &wish.sibling) {
            (Some(old), _) => (old.local.clone(), old.remote.clone()),
            (None, Some(first)) => (first.local.clone(), first.remote.clone()),
            (None, None) => wanted_selectors(session, &wish),
        };
        let nonce = Some(cx.new_nonce());
        Self { wish, spi, replaces, deleted: Vec::new(), proposals, nonce, key_exchange, local, remote }
    }

    /// The payloads of the offer.
    pub(super) fn payloads(&self) -> Vec<Payload> {
        let mut payloads = Vec::new();
        if let Some(old) = &self.replaces {
            // R7296-1.3.3-1.
            let (protocol, spi) = (old.suite.protocol, old.spi_in);
            payloads.push(Payload::Notify(Notify::about_child(NotifyType::RekeySa, protocol, spi)));
        }
        if self.wish.child.mode == Mode::Transport {
            payloads.push(Payload::Notify(Notify::new(NotifyType::UseTransportMode)));
        }
        if wants_later_fragments(&self.wish.child) {
            payloads.push(Payload::Notify(Notify::new(NotifyType::NonFirstFragmentsAlso)));
        }
        payloads.extend(self.offered_resource().notify().map(Payload::Notify));
        payloads.push(Payload::SecurityAssociation(esp_offer(&self.proposals, self.spi)));
        payloads.extend(self.nonce.iter().cloned().map(Payload::Nonce));
        payloads.extend(self.key_exchange.as_ref().map(|ours| {
            Payload::KeyExchange(KeyExchangePayload { group: ours.group() as u16, data: ours.public().to_vec() })
        }));
        payloads.push(Payload::SelectorsInitiator(self.local.clone()));
        payloads.push(Payload::SelectorsResponder(self.remote.clone()));
        payloads
    }

    /// Whose packets it is to carry. RFC 9611 §3: what replaces an SA is for the same ones, and need not say so.
    fn offered_resource(&self) -> Resource {
        match (&self.replaces, &self.wish.sibling) {
            (Some(_), _) => Resource::Unsaid,
            (None, Some(sibling)) => Resource::One(sibling.worker),
            (None, None) if self.wish.child.per_resource => Resource::Any,
            (None, None) => Resource::Unsaid,
        }
    }

    /// Whose packets it will carry; those of the SA that it replaces, if there is one (R9611-3-4).
    fn agreed_resource(
        &self,
        terms: (&EspSuite, &[TrafficSelector], &[TrafficSelector]),
        body: &Body,
    ) -> Result<Resource, Trouble> {
        let (suite, local, remote) = terms;
        let is_known = body.has_notify(NotifyType::SaResourceInfo);
        match (&self.replaces, &self.wish.sibling) {
            (Some(old), _) => Ok(old.resource),
            (None, Some(first)) if is_known && first.is_like(suite, local, remote) => Ok(Resource::One(first.worker)),
            (None, Some(_)) => {
                Err(Trouble::NotOffered("the SA for a single worker is unlike the first one".to_owned()))
            }
            (None, None) => Ok(Resource::of_first(&self.wish.child, body)),
        }
    }

    /// The protocol of the SA: all proposals of a child have the same.
    pub(super) fn protocol(&self) -> IpsecProtocol {
        self.proposals.first().map_or(IpsecProtocol::Esp, |proposal| proposal.protocol)
    }

    /// Whether the peer may be asked again with this group.
    pub(super) fn may_use_group(&self, wanted: u16) -> bool {
        let current = self.key_exchange.as_ref().map(|ours| ours.group() as u16);
        let offered = self.proposals.iter().flat_map(|proposal| &proposal.groups).any(|&group| group as u16 == wanted);
        offered && current != Some(wanted)
    }

    /// What comes of the peer's answer.
    pub(super) fn accept(&self, session: &Session, body: &Body) -> Result<ChildTerms, Trouble> {
        if self.protocol() == IpsecProtocol::Ah && session.is_through_nat() {
            return Err(ah_through_nat(&self.wish.child.name));
        }
        if let Some(error) = body.error() {
            return Err(match (error.kind, error.wanted_group()) {
                (_, Some(group)) => Trouble::WrongGroup { group },
                (NotifyType::TemporaryFailure, _) => Trouble::NotNow,
                (NotifyType::ChildSaNotFound, _) => {
                    Trouble::NoSuchChild(self.protocol(), self.replaces.as_ref().map_or(self.spi, |old| old.spi_in))
                }
                (kind, _) => self.refused(kind),
            });
        }
        let agreement = check_esp_answer(&self.proposals, body.proposals()?)
            .map_err(|error| Trouble::NotOffered(error.to_string()))?;
        let mode = self.agreed_mode(body)?;
        let nonces = match &self.nonce {
            Some(nonce) => [nonce.clone(), body.nonce()?.to_vec()],
            None => [session.nonce_i.clone(), session.nonce_r.clone()],
        };
        let shared_secret = match (agreement.suite.group, &self.key_exchange) {
            (Some(group), Some(ours)) => {
                let theirs = body.key_exchange()?;
                if group != ours.group() || theirs.group != group as u16 {
                    return Err(Trouble::NotOffered(format!("the answer is for group {}", theirs.group)));
                }
                Some(ours.agree(&theirs.data).map_err(|error| Trouble::NotOffered(error.to_string()))?)
            }
            (None, _) => None,
            (Some(_), None) => return Err(Trouble::NotOffered("the answer has a group".to_owned())),
        };
        let (local, remote) = self.agreed_selectors(session, mode, body)?;
        let resource = self.agreed_resource((&agreement.suite, &local, &remote), body)?;
        Ok(ChildTerms {
            child: self.wish.child.clone(),
            spi_in: self.spi,
            spi_out: agreement.peer_spi,
            suite: agreement.suite,
            nonces,
            replaces: self.replaces.as_ref().map(|old| (old.id, old.policy)),
            maker: Maker::We,
            mode,
            local,
            remote,
            later_fragments: agree_on_later_fragments(&self.wish.child, body),
            padding: padding_for(&self.wish.child, body),
            resource,
            shared_secret,
        })
    }

    /// The peer refused; it gives no reason, but what we offered tells where to look.
    pub(super) fn refused(&self, kind: NotifyType) -> Trouble {
        let selectors = || {
            let sides = [("leftsubnet", &self.local), ("rightsubnet", &self.remote)];
            sides.map(|(side, selectors)| format!("{side} {}", listed(selectors))).to_vec()
        };
        let (code, ours) = if kind == NotifyType::NoProposalChosen {
            let proposals = self.proposals.iter().map(ToString::to_string);
            (FailureCode::ChildNoProposal, proposals.collect())
        } else if kind == NotifyType::TsUnacceptable {
            (FailureCode::TsUnacceptable, selectors())
        } else if kind == NotifyType::FailedCpRequired {
            (FailureCode::AddressNotAskedFor, vec!["no request for a virtual address".to_owned()])
        } else {
            return Trouble::Refused(kind);
        };
        Trouble::Incompatible(Box::new(Incompatible {
            code,
            notify: kind,
            what: format!("the peer refused child `{}`: {kind}", self.wish.child.name),
            ours,
            theirs: vec![kind.to_string()],
            hint: match self.wish.child.mode {
                _ if self.replaces.is_some() && kind == NotifyType::NoProposalChosen => Some(PFS_HINT),
                Mode::Transport => Some(NO_TRANSPORT_HINT),
                Mode::Tunnel => hint_for_refusal(kind),
            }
            .map(str::to_owned),
            cure: (kind == NotifyType::FailedCpRequired)
                .then(|| Cure::new(ConfigKey::VirtualAddresses, Some("%config".to_owned()))),
        }))
    }

    /// R7296-1.3.1-1: transport mode only if both want it; a tunnel is not what was asked for then.
    fn agreed_mode(&self, body: &Body) -> Result<Mode, Trouble> {
        match (self.wish.child.mode, body.has_notify(NotifyType::UseTransportMode)) {
            (Mode::Tunnel, false) => Ok(Mode::Tunnel),
            (Mode::Transport, true) => Ok(Mode::Transport),
            (Mode::Tunnel, true) => Err(Trouble::NotOffered("the peer answered with transport mode".to_owned())),
            (Mode::Transport, false) => Err(mode_refused(&self.wish.child)),
        }
    }

    /// The selectors of the answer, which must be part of what was offered (RFC 7296 §2.9).
    fn agreed_selectors(
        &self,
        session: &Session,
        mode: Mode,
        body: &Body,
    ) -> Result<(Vec<TrafficSelector>, Vec<TrafficSelector>), Trouble> {
        let (mut local, mut remote) = (body.selectors_initiator()?.to_vec(), body.selectors_responder()?.to_vec());
        if mode == Mode::Transport {
            // RFC 7296 §2.23.1: the peer answers with the addresses that it sees.
            session.nat.show_hosts(session.path, &mut local, &mut remote);
        }
        if self.replaces.is_none() && !session.virtual_addresses.ours.is_empty() {
            // What was offered is all addresses, of which we have been given this one (RFC 7296 §2.19).
            let (ours, _) = configured_selectors(&session.hosts(), &self.wish.child);
            local = narrow(&ours, &local);
        }
        if let Some(old) = &self.replaces
            && !covers_old(session, mode, old, (&local, &remote))
        {
            return Err(Trouble::NotOffered(
                "the peer's selectors are narrower than those of the replaced SA".to_owned(),
            ));
        }
        let is_part = is_narrowed(&local, &self.local) && is_narrowed(&remote, &self.remote);
        if is_part && share_a_family(&local, &remote) && has_few_routes(&self.wish.child, &remote) {
            return Ok((local, remote));
        }
        Err(Trouble::NotOffered(format!("the peer's selectors {local:?} === {remote:?} are not part of our offer")))
    }
}

/// How we answer a peer that wants a child, before the dataplane has given an SPI for it.
#[derive(Debug)]
pub(super) struct ChildAnswer {
    pub(super) child: Arc<Child>,
    pub(super) replaces: Option<Replaced>,
    agreement: EspAgreement,
    mode: Mode,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    /// Theirs and ours.
    pub(super) nonces: [Vec<u8>; 2],
    /// Our nonce is in the answer: in all exchanges but IKE_AUTH.
    answers_nonce: bool,
    key_exchange: Option<(KeyExchangePayload, Secret<Vec<u8>>)>,
    later_fragments: bool,
    padding: PaddingPolicy,
    /// Whose packets it will carry.
    pub(super) resource: Resource,
    /// Another child is for the rest of what the peer wants.
    additional: bool,
}

/// The exchange in which a peer wants a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    IkeAuth,
    CreateChildSa,
}

impl ChildAnswer {
    /// Finds the configured child that fits best what the peer wants, or fits the one that is replaced.
    pub(super) fn negotiate(
        cx: &mut Context,
        session: &Session,
        body: &Body,
        occasion: Occasion,
        replaces: Option<(Replaced, Arc<Child>)>,
    ) -> Result<Self, Trouble> {
        let mut candidates: Vec<Arc<Child>> = match &replaces {
            Some((_, child)) => vec![child.clone()],
            None => session.connection.children.iter().cloned().map(Arc::new).collect(),
        };
        // Where selectors overlap, the child that the peer asks for as a whole is meant, not one that has more.
        candidates.sort_by_key(|child| !is_asked_for_as_a_whole(session, child, body));
        let replaces = replaces.map(|(old, _)| old);
        let mut first_trouble = None;
        for child in candidates {
            match Self::try_child(cx, session, body, occasion, (&child, replaces.as_ref())) {
                Ok(answer) => {
                    let additional = replaces.is_none() && answer.leaves_more(session, body);
                    return Ok(Self { additional, ..answer });
                }
                // Selectors that do not match only mean that another child is wanted: any other trouble says more.
                Err(trouble) if first_trouble.is_none() || !trouble.is_about_selectors() => {
                    let replaceable = first_trouble.as_ref().is_none_or(Trouble::is_about_selectors);
                    first_trouble = if replaceable { Some(trouble) } else { first_trouble };
                }
                Err(_) => {}
            }
        }
        Err(first_trouble.unwrap_or_else(|| no_children(&session.connection)))
    }

    fn try_child(
        cx: &mut Context,
        session: &Session,
        body: &Body,
        occasion: Occasion,
        (child, replaces): (&Arc<Child>, Option<&Replaced>),
    ) -> Result<Self, Trouble> {
        let wants_transport = body.has_notify(NotifyType::UseTransportMode);
        let mode = match child.mode {
            Mode::Transport if !wants_transport => return Err(mode_refused(child)),
            Mode::Transport => Mode::Transport,
            Mode::Tunnel => Mode::Tunnel,
        };
        let (local, remote) = answered_selectors(session, &session.hosts(), (child, mode), body)?;
        if let Some(old) = replaces
            && !covers_old(session, mode, old, (&local, &remote))
        {
            return Err(narrower_than_old(old, (&local, &remote)));
        }
        let agreement = agree_on_esp(session, child, body, occasion, replaces)?;
        let nonce = match occasion {
            Occasion::IkeAuth => None,
            Occasion::CreateChildSa => Some(body.nonce()?.to_vec()),
        };
        let key_exchange = match agreement.suite.group {
            Some(group) => Some(answer_key_exchange(cx, group, body)?),
            None => None,
        };
        let answers_nonce = nonce.is_some();
        let nonces = match nonce {
            Some(nonce) => [nonce, cx.new_nonce()],
            None => [session.nonce_i.clone(), session.nonce_r.clone()],
        };
        let (child, replaces) = (child.clone(), replaces.cloned());
        let (later_fragments, additional) = (agree_on_later_fragments(&child, body), false);
        let padding = padding_for(&child, body);
        let resource = match &replaces {
            Some(old) => old.resource,
            None => Resource::of_first(&child, body),
        };
        Ok(Self {
            child,
            replaces,
            agreement,
            mode,
            local,
            remote,
            nonces,
            answers_nonce,
            key_exchange,
            later_fragments,
            padding,
            resource,
            additional,
        })
    }

    /// Whether another child is for the rest of what the peer wants (RFC 7296 §2.9).
    fn leaves_more(&self, session: &Session, body: &Body) -> bool {
        let hosts = session.hosts();
        let others = session.connection.children.iter().filter(|other| other.name != self.child.name);
        let is_new = |found: &[TrafficSelector], have: &[TrafficSelector]| {
            found.iter().any(|selector| !have.iter().any(|known| known.covers(selector)))
        };
        let mut found = others.filter_map(|other| answered_selectors(session, &hosts, (other, other.mode), body).ok());
        found.any(|(local, remote)| is_new(&local, &self.local) || is_new(&remote, &self.remote))
    }

    /// R9611-3-1: whether all but the keys would be as in another SA.
    pub(super) fn is_like(&self, other: &ChildSa) -> bool {
        is_like(&self.agreement.suite, &other.suite)
            && (self.mode, &self.local, &self.remote) == (other.mode, &other.local, &other.remote)
    }

    /// Whether key exchanges follow in IKE_FOLLOWUP_KE.
    pub(super) fn has_more_rounds(&self) -> bool {
        !self.agreement.suite.additional.is_empty()
    }

    /// With our SPI the answer is complete: what was agreed on, and the payloads that say so.
    pub(super) fn complete(mut self, spi: EspSpi) -> (ChildTerms, Vec<Payload>) {
        self.agreement.answer.spi = spi.to_wire().to_vec();
        let mut payloads = Vec::new();
        if self.mode == Mode::Transport {
            payloads.push(Payload::Notify(Notify::new(NotifyType::UseTransportMode)));
        }
        if self.later_fragments {
            payloads.push(Payload::Notify(Notify::new(NotifyType::NonFirstFragmentsAlso)));
        }
        if self.replaces.is_none() {
            payloads.extend(self.resource.notify().map(Payload::Notify));
        }
        payloads.push(Payload::SecurityAssociation(vec![self.agreement.answer]));
        if self.answers_nonce {
            payloads.push(Payload::Nonce(self.nonces[1].clone()));
        }
        let (payload, shared_secret) = self.key_exchange.unzip();
        payloads.extend(payload.map(Payload::KeyExchange));
        payloads.push(Payload::SelectorsInitiator(self.remote.clone()));
        payloads.push(Payload::SelectorsResponder(self.local.clone()));
        let possible = self.additional.then(|| Notify::new(NotifyType::AdditionalTsPossible));
        payloads.extend(possible.map(Payload::Notify));
        let terms = ChildTerms {
            child: self.child,
            spi_in: spi,
            spi_out: self.agreement.peer_spi,
            suite: self.agreement.suite,
            nonces: self.nonces,
            replaces: self.replaces.map(|old| (old.id, old.policy)),
            maker: Maker::Peer,
            mode: self.mode,
            local: self.local,
            remote: self.remote,
            later_fragments: self.later_fragments,
            padding: self.padding,
            resource: self.resource,
            shared_secret,
        };
        (terms, payloads)
    }
}

/// Whether we want fragments of packets but the first to travel in a child (RFC 4301 §7.3).
fn wants_later_fragments(child: &Child) -> bool {
    child.later_fragments && child.mode == Mode::Tunnel
}

/// R4301-7.3-1: they do if both ends say so.
fn agree_on_later_fragments(child: &Child, theirs: &Body) -> bool {
    wants_later_fragments(child) && theirs.has_notify(NotifyType::NonFirstFragmentsAlso)
}

/// How packets to the peer are filled up: not at all if it cannot cut that off (RFC 7296 §1.3.1).
fn padding_for(child: &Child, theirs: &Body) -> PaddingPolicy {
    if theirs.has_notify(NotifyType::EspTfcPaddingNotSupported) { PaddingPolicy::None } else { child.shape.padding }
}

fn agree_on_esp(
    session: &Session,
    child: &Child,
    body: &Body,
    occasion: Occasion,
    replaces: Option<&Replaced>,
) -> Result<EspAgreement, Trouble> {
    let theirs = body.proposals()?;
    let is_ah = child.esp_proposals.iter().any(|proposal| proposal.protocol == IpsecProtocol::Ah);
    if is_ah && session.is_through_nat() {
        return Err(ah_through_nat(&child.name));
    }
    let stripped = without_groups(&child.esp_proposals);
    let agreement = match occasion {
        Occasion::IkeAuth => negotiate_esp(&stripped, theirs),
        Occasion::CreateChildSa => negotiate_esp(&child.esp_proposals, theirs).or_else(|mismatch| {
            // An SA that had no key exchange of its own may be replaced by one that has none either: some peers can
            // do no better.
            let had_none = replaces.is_some_and(|old| old.suite.group.is_none());
            if had_none { negotiate_esp(&stripped, theirs).map_err(|_| mismatch) } else { Err(mismatch) }
        }),
    };
    agreement.map_err(|mismatch| Trouble::Incompatible(Box::new(esp_incompatible(&mismatch, &child.name))))
}

/// Our half of the key exchange, and the secret. RFC 7296 §1.3: a public value of another group than the chosen one is
/// refused with the name of the right one (R7296-3.4-2).
fn answer_key_exchange(
    cx: &mut Context,
    group: KeyExchangeGroup,
    body: &Body,
) -> Result<(KeyExchangePayload, Secret<Vec<u8>>), Trouble> {
    let wanted = group as u16;
    let theirs = body.key_exchange().ok().filter(|theirs| theirs.group == wanted);
    let theirs = theirs.ok_or(Trouble::WrongGroup { group: wanted })?;
    let (public, secret) =
        respond(group, &theirs.data, &mut *cx.random).map_err(|error| Trouble::NotOffered(error.to_string()))?;
    Ok((KeyExchangePayload { group: wanted, data: public }, secret))
}

/// What the configuration allows of the selectors that the peer wants (RFC 7296 §2.9): ours and theirs, as seen from
/// here.
fn answered_selectors(
    session: &Session,
    hosts: &Hosts,
    (child, mode): (&Child, Mode),
    body: &Body,
) -> Result<(Vec<TrafficSelector>, Vec<TrafficSelector>), Trouble> {
    let (mut for_us, mut for_them) = (body.selectors_responder()?.to_vec(), body.selectors_initiator()?.to_vec());
    if mode == Mode::Transport {
        // R7296-2.23-1: behind NATs the peers know other addresses than those that we see.
        session.nat.show_hosts(session.path, &mut for_us, &mut for_them);
    }
    let (our_local, our_remote) = configured_selectors(hosts, child);
    let (local, remote) = (narrow(&our_local, &for_us), narrow(&our_remote, &for_them));
    if share_a_family(&local, &remote) && has_few_routes(child, &remote) {
        return Ok((local, remote));
    }
    let lines = |side: &str, selectors: &[TrafficSelector]| format!("{side} {}", listed(selectors));
    let wider = |key, ours: &[TrafficSelector], theirs: &[TrafficSelector]| {
        let all = ours.iter().chain(theirs.iter().filter(|selector| !ours.contains(selector)));
        Some(Cure::new(key, Some(all.map(ToString::to_string).collect::<Vec<_>>().join(","))))
    };
    let cure = if local.is_empty() {
        wider(ConfigKey::LocalSelectors, &our_local, &for_us)
    } else if remote.is_empty() {
        wider(ConfigKey::RemoteSelectors, &our_remote, &for_them)
    } else {
        None
    };
    Err(Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::TsUnacceptable,
        notify: NotifyType::TsUnacceptable,
        what: format!("no traffic selectors in common with child `{}`{}", child.name, swapped(&our_local, &for_them)),
        ours: vec![lines("leftsubnet", &our_local), lines("rightsubnet", &our_remote)],
        theirs: vec![lines("for our side", &for_us), lines("for the peer's side", &for_them)],
        hint: Some(if local.is_empty() {
            format!("`leftsubnet` would have to include some of {}", listed(&for_us))
        } else if remote.is_empty() {
            format!("`rightsubnet` would have to include some of {}", listed(&for_them))
        } else if has_few_routes(child, &remote) {
            "what is left on both sides has no address family in common".to_owned()
        } else {
            format!("what is left would need more than {MAX_ROUTES} routes: let the peer ask for whole networks")
        }),
        cure,
    })))
}

/// That the peer wants for its side what we have on ours, for the end of a sentence: one of the two has the sides the wrong way
/// round.
fn swapped(ours: &[TrafficSelector], for_them: &[TrafficSelector]) -> &'static str {
    if narrow(ours, for_them).is_empty() { "" } else { ": the peer has on its side what is on ours" }
}

/// Whether a connection has a child for what the peer wants.
pub(super) fn has_child_for(session: &Session, connection: &Connection, body: &Body) -> bool {
    let hosts = session.hosts_to_be(connection);
    connection.children.iter().any(|child| answered_selectors(session, &hosts, (child, child.mode), body).is_ok())
}

/// Whether nothing of the child's selectors would be narrowed away.
fn is_asked_for_as_a_whole(session: &Session, child: &Child, body: &Body) -> bool {
    let (local, remote) = configured_selectors(&session.hosts(), child);
    body.selectors_responder().is_ok_and(|theirs| is_narrowed(&local, theirs))
        && body.selectors_initiator().is_ok_and(|theirs| is_narrowed(&remote, theirs))
}

/// Whether there can be packets from one side to the other at all.
fn share_a_family(local: &[TrafficSelector], remote: &[TrafficSelector]) -> bool {
    let has = |side: &[TrafficSelector], v4: bool| side.iter().any(|ts| ts.addresses.start().is_ipv4() == v4);
    [true, false].into_iter().any(|v4| has(local, v4) && has(remote, v4))
}

/// RFC 7296 §2.9.2: what replaces an SA is never narrower (R7296-2.9.2-1). Behind NATs, transport mode has the address
/// that is seen now.
fn covers_old(
    session: &Session,
    mode: Mode,
    old: &Replaced,
    (local, remote): (&[TrafficSelector], &[TrafficSelector]),
) -> bool {
    let follows_nat = mode == Mode::Transport && session.nat.encapsulates();
    follows_nat || (is_narrowed(&old.local, local) && is_narrowed(&old.remote, remote))
}

fn narrower_than_old(old: &Replaced, (local, remote): (&[TrafficSelector], &[TrafficSelector])) -> Trouble {
    let lines =
        |local, remote| vec![format!("leftsubnet {}", listed(local)), format!("rightsubnet {}", listed(remote))];
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::TsUnacceptable,
        notify: NotifyType::TsUnacceptable,
        what: "the peer replaces an SA by a narrower one".to_owned(),
        ours: lines(&old.local, &old.remote),
        theirs: lines(local, remote),
        hint: Some("where the selectors have changed, take the SA down and up again".to_owned()),
        cure: None,
    }))
}

/// Whether the routes that the selectors want are not more than anybody needs: a range that no prefix fits is worth
/// hundreds.
fn has_few_routes(child: &Child, remote: &[TrafficSelector]) -> bool {
    child.routes.towards(remote).len() <= MAX_ROUTES
}

fn listed(selectors: &[TrafficSelector]) -> String {
    selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What we want: the packet that waits first, so that it is not narrowed away (RFC 7296 §2.9), then all that is configured.
fn wanted_selectors(session: &Session, wish: &ChildWish) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let (mut local, mut remote) = configured_selectors(&session.hosts(), &wish.child);
    if let Some(packet) = &wish.packet {
        let (ours, theirs) = selectors_of_packet(packet);
        if local.iter().any(|ts| ts.covers(&ours)) && remote.iter().any(|ts| ts.covers(&theirs)) {
            local.insert(0, ours);
            remote.insert(0, theirs);
        }
    }
    if wish.child.mode == Mode::Transport {
        session.nat.narrow_to_hosts(session.path, &mut local, &mut remote);
    }
    (local, remote)
}

fn selectors_of_packet(packet: &PacketSummary) -> (TrafficSelector, TrafficSelector) {
    let side = |address, port: Option<u16>| TrafficSelector {
        addresses: AddressRange::single(address),
        protocol: packet.protocol,
        ports: port.map_or(PortRange::ANY, |port| PortRange { start: port, end: port }),
    };
    (side(packet.source, packet.source_port), side(packet.destination, packet.destination_port))
}

/// The selectors of the configuration, with the addresses of the hosts where those are meant.
fn configured_selectors(hosts: &Hosts, child: &Child) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let at = |selectors: &[ChildSelector], hosts: &[AddressRange]| {
        let mut found: Vec<TrafficSelector> = Vec::new();
        for selector in selectors.iter().flat_map(|selector| hosts.iter().map(|range| selector.within(*range))) {
            // What is fixed is the same for each of the hosts.
            if !found.contains(&selector) {
                found.push(selector);
            }
        }
        found
    };
    (at(&child.local_selectors, &hosts.local), at(&child.remote_selectors, &hosts.remote))
}

/// The connection is for an IKE SA alone.
fn no_children(connection: &Connection) -> Trouble {
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::TsUnacceptable,
        notify: NotifyType::TsUnacceptable,
        what: format!("connection `{}` has no children", connection.name),
        ours: Vec::new(),
        theirs: vec!["wants a Child SA".to_owned()],
        hint: Some("add a child, or have the peer want none".to_owned()),
        cure: None,
    }))
}

fn mode_refused(child: &Child) -> Trouble {
    Trouble::Incompatible(Box::new(Incompatible {
        code: FailureCode::PeerRefused,
        notify: NotifyType::NoProposalChosen,
        what: format!("child `{}` is for transport mode, the peer wants a tunnel", child.name),
        ours: vec!["transport mode".to_owned()],
        theirs: vec!["tunnel mode".to_owned()],
        hint: Some("set `type` to the same value on both sides".to_owned()),
        cure: Some(Cure::new(ConfigKey::Mode, Some("tunnel".to_owned()))),
    }))
}

/// Routes of one child.
const MAX_ROUTES: usize = 1024;

/// RFC 7296 §1.2: with IKE_AUTH there is no key exchange of its own for the Child SA.
const PFS_HINT: &str = "the first Child SA is made without a key exchange of its own, so a group in `esp` on one side only (PFS) \
     shows at the first rekeying: give `esp` the same groups on both sides";

/// A peer that protects only tunnels refuses all else with any of the notifies.
const NO_TRANSPORT_HINT: &str = "does the peer do transport mode? `type = \"tunnel\"` is what every peer does; or compare `esp` and \
     the selectors with the peer's";
