//! What all SAs of an engine share: the way out, randomness, configuration, numbers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use espdp_api::{Command as DataplaneCommand, EspSpi, IkePath, PolicyId};

use super::child::InstallStep;
use super::connections::Connections;
use super::contacts::Contacts;
use super::ike_sa::FollowUp;
use super::leases::Leases;
use super::policies::{Departure, Member, Policies, Stage};
use super::reconcile::{Reconciler, Waits};
use super::secrets::Secrets;
use super::tickets::Tickets;
use super::window::Unanswered;
use crate::config::SharedSecret;

use crate::describe::describe;
use crate::io::{
    Ask, AskId, ChildSaId, Failure, IkeSaId, IkeSpi, MessageTrace, Notice, Output, PlainText, RemarkLevel, Repetition,
    Ticket,
};
use crate::wire::{ExchangeType, Fragment, Header, Payload, encode_message, fragment_summary, summary};
use crate::{SecureRandom, Settings};

/// Everything that an SA needs and does not own.
pub(super) struct Context {
    pub(super) settings: Settings,
    /// Whether messages are wanted in plain text.
    pub(super) exports_plain_text: bool,
    pub(super) random: Box<dyn SecureRandom + Send>,
    pub(super) connections: Connections,
    pub(super) contacts: Contacts,
    pub(super) secrets: Secrets,
    /// Post-quantum pre-shared keys (RFC 8784), by name.
    pub(super) ppks: BTreeMap<String, SharedSecret>,
    pub(super) policies: Policies,
    pub(super) leases: Leases,
    pub(super) reconciler: Reconciler,
    /// The addresses of this host, once somebody has told.
    host_addresses: Option<BTreeSet<IpAddr>>,
    tickets: Tickets,
    outputs: VecDeque<Output>,
    asks: BTreeMap<AskId, Asker>,
    follow_ups: VecDeque<FollowUp>,
    next_ask: u64,
    next_ike_sa: u32,
    next_child_sa: u32,
    /// Our SPIs that are in use, so that none is given twice (R7296-2.6-1).
    ike_spis: BTreeSet<IkeSpi>,
}

/// Who waits for an answer, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// Nobody: a refusal is worth a line in the log.
    Nobody(&'static str),
    /// An SA that is being set up wants the address to send from.
    LocalAddress(IkeSpi),
    /// An SA that is being set up wants the addresses of its peer.
    PeerAddresses(IkeSpi),
    /// An SA that is being set up wants our proof.
    Signature(IkeSpi),
    /// An SA that is being set up wants to know whether the peer's proof is true.
    Judgement(IkeSpi),
    /// An established SA wants the address from which its peer is reached at `remote`: for now, or in case the peer goes on
    /// not to answer.
    WayToPeer { spi: IkeSpi, remote: IpAddr, detour: bool },
    /// An established SA wants to know what the names of its peer mean now, for it does not answer.
    MorePeerAddresses(IkeSpi),
    /// An SA wants an SPI for a child that it is going to offer.
    SpiToOffer(IkeSpi),
    /// An SA wants an SPI for a child that its peer asked for.
    SpiToAnswer(IkeSpi),
    /// A half of a child is being installed.
    Install(IkeSpi, ChildSaId, InstallStep),
}

impl Context {
    pub(super) fn new(settings: Settings, random: Box<dyn SecureRandom + Send>) -> Self {
        Self {
            settings,
            exports_plain_text: false,
            random,
            connections: Connections::default(),
            contacts: Contacts::default(),
            secrets: Secrets::default(),
            ppks: BTreeMap::new(),
            policies: Policies::default(),
            leases: Leases::default(),
            reconciler: Reconciler::default(),
            host_addresses: None,
            tickets: Tickets::default(),
            outputs: VecDeque::new(),
            asks: BTreeMap::new(),
            follow_ups: VecDeque::new(),
            next_ask: 1,
            next_ike_sa: 1,
            next_child_sa: 1,
            ike_spis: BTreeSet::new(),
        }
    }

    pub(super) fn pop_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Has something done after the SA at hand has done its part, for it may concern another one.
    pub(super) fn follow_up(&mut self, follow_up: FollowUp) {
        self.follow_ups.push_back(follow_up);
    }

    pub(super) fn pop_follow_up(&mut self) -> Option<FollowUp> {
        self.follow_ups.pop_front()
    }

    // Numbers and randomness.

    pub(super) fn new_ike_sa_id(&mut self) -> IkeSaId {
        let id = IkeSaId(self.next_ike_sa);
        self.next_ike_sa = self.next_ike_sa.wrapping_add(1);
        id
    }

    pub(super) fn new_child_sa_id(&mut self) -> ChildSaId {
        let id = ChildSaId(self.next_child_sa);
        self.next_child_sa = self.next_child_sa.wrapping_add(1);
        id
    }

    /// A nonce. RFC 7296 §2.10 wants at least half the length of the PRF's key; 32 octets do for all of them
    /// (R7296-2.10-1).
    pub(super) fn new_nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; NONCE_OCTETS];
        self.random.fill_public(&mut nonce);
        nonce
    }

    /// A random SPI for an IKE SA: not zero, and not in use until it is released.
    pub(super) fn new_ike_spi(&mut self) -> IkeSpi {
        let mut spi = IkeSpi::default();
        while spi == IkeSpi::default() || !self.ike_spis.insert(spi) {
            self.random.fill_public(&mut spi.0);
        }
        spi
    }

    pub(super) fn has_ike_spi(&self, spi: IkeSpi) -> bool {
        self.ike_spis.contains(&spi)
    }

    pub(super) fn release_ike_spi(&mut self, spi: IkeSpi) {
        self.ike_spis.remove(&spi);
    }

    /// A random number between 0 and 1.
    pub(super) fn random_fraction(&mut self) -> f64 {
        let mut octets = [0; 4];
        self.random.fill_public(&mut octets);
        f64::from(u32::from_be_bytes(octets)) / f64::from(u32::MAX)
    }

    /// A random time between zero and `longest`.
    pub(super) fn random_duration(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.random_fraction())
    }

    // Outputs.

    pub(super) fn transmit(&mut self, path: IkePath, message: Vec<u8>) {
        self.outputs.push_back(Output::Transmit { path, message });
    }

    pub(super) fn keepalive(&mut self, path: IkePath) {
        self.outputs.push_back(Output::Keepalive(path));
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notice(notice));
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.notice(Notice::Failure(Box::new(failure)));
    }

    pub(super) fn remark(&mut self, connection: Option<&str>, level: RemarkLevel, text: impl Into<String>) {
        self.notice(Notice::Remark { connection: connection.map(str::to_owned), level, text: text.into() });
    }

    /// Writes a message into the journal.
    pub(super) fn trace(&mut self, owner: Option<(&str, IkeSaId)>, sent: Sent, header: &Header, payloads: &[Payload]) {
        let summary = match sent.fragments {
            None => summary(header, payloads),
            Some(fragments) => format!("{} in {fragments} fragments", summary(header, payloads)),
        };
        let explains =
            matches!(header.exchange, ExchangeType::IkeSaInit | ExchangeType::IkeAuth | ExchangeType::CreateChildSa);
        let details = if explains { describe(payloads) } else { Vec::new() };
        if self.exports_plain_text {
            self.export_plain_text(owner, &sent, header, payloads);
        }
        self.journal(owner, sent, summary, details);
    }

    #[cold]
    fn export_plain_text(
        &mut self,
        owner: Option<(&str, IkeSaId)>,
        sent: &Sent,
        header: &Header,
        payloads: &[Payload],
    ) {
        let connection = owner.map(|(connection, _)| connection.to_owned());
        match encode_message(header, payloads) {
            Ok(message) => {
                self.notice(Notice::PlainText(PlainText { connection, path: sent.path, sent: sent.by_us, message }));
            }
            // In fragments it may be longer than any one message.
            Err(error) => self.remark(
                connection.as_deref(),
                RemarkLevel::Debug,
                format!("a message cannot be shown in plain text: {error}"),
            ),
        }
    }

    /// Writes down that a message went or came again.
    pub(super) fn repeated(
        &mut self,
        (connection, ike_sa): (&str, IkeSaId),
        (path, sent): (IkePath, bool),
        message: Unanswered,
    ) {
        let Unanswered { exchange, message_id, octets, repetitions: count, .. } = message;
        let connection = connection.to_owned();
        self.notice(Notice::Repetition(Repetition {
            connection,
            ike_sa,
            path,
            sent,
            exchange,
            message_id,
            octets,
            count,
        }));
    }

    /// Writes a fragment of a message that is not complete into the journal.
    pub(super) fn trace_fragment(
        &mut self,
        owner: Option<(&str, IkeSaId)>,
        sent: Sent,
        header: &Header,
        fragment: Fragment,
    ) {
        self.journal(owner, sent, fragment_summary(header, fragment), Vec::new());
    }

    fn journal(&mut self, owner: Option<(&str, IkeSaId)>, sent: Sent, summary: String, details: Vec<String>) {
        self.notice(Notice::Message(MessageTrace {
            connection: owner.map(|(connection, _)| connection.to_owned()),
            ike_sa: owner.map(|(_, id)| id),
            path: sent.path,
            sent: sent.by_us,
            summary,
            details,
            octets: sent.octets,
        }));
    }

    pub(super) fn ask(&mut self, asker: Asker, ask: Ask) {
        let id = AskId(self.next_ask);
        self.next_ask += 1;
        self.asks.insert(id, asker);
        self.outputs.push_back(Output::Ask(id, ask));
    }

    /// Sends the dataplane a command whose outcome changes nothing here.
    pub(super) fn command(&mut self, what: &'static str, command: DataplaneCommand) {
        self.ask(Asker::Nobody(what), Ask::Dataplane(command));
    }

    pub(super) fn release_spi(&mut self, spi: EspSpi) {
        self.command("release an SPI", DataplaneCommand::ReleaseSpi(spi));
    }

    /// Who asked; each answer is taken once.
    pub(super) fn answered(&mut self, id: AskId) -> Option<Asker> {
        self.asks.remove(&id)
    }

    // The network.

    pub(super) fn set_host_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.host_addresses = Some(addresses.into_iter().collect());
    }

    /// Whether this host has an address now. As long as nobody has told, it may have any.
    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.host_addresses.as_ref().is_none_or(|addresses| addresses.contains(&address))
    }

    // Tickets.

    /// Opens a ticket; see [`Tickets::open`].
    pub(super) fn open_ticket(&mut self, ticket: Ticket, parts: usize, none: &str) {
        let parts = u32::try_from(parts).unwrap_or(u32::MAX);
        let notice = self.tickets.open(ticket, parts, none);
        self.outputs.extend(notice.map(Output::Notice));
    }

    /// Notes how a part of each of these undertakings ended.
    pub(super) fn settle(&mut self, tickets: impl IntoIterator<Item = Ticket>, result: &Result<(), String>) {
        for ticket in tickets {
            let notice = self.tickets.part_ended(ticket, result);
            self.outputs.extend(notice.map(Output::Notice));
        }
    }

    /// Settles what is still open when the engine ends.
    pub(super) fn settle_all(&mut self, why: &str) {
        let notices = self.tickets.abandon_all(why);
        self.outputs.extend(notices.into_iter().map(Output::Notice));
    }

    // Who should be up.

    /// Has the reconciler look at a connection after a while.
    pub(super) fn reconnect_later(&mut self, now: Instant, connection: &str) {
        let waits = Waits { first: self.settings.reconnect_first, longest: self.settings.reconnect_longest };
        let random = self.random_fraction();
        self.reconciler.later(now, connection, waits, random);
    }

    /// A child leaves its policy, which goes with the last one; a trap goes back to waiting.
    pub(super) fn leave_policy(&mut self, policy: PolicyId, child: ChildSaId) {
        let Departure { command, drained } = self.policies.leave(policy, child);
        if let Some(command) = command {
            self.command("give a policy up", command);
        }
        for (owner, child) in drained {
            self.follow_up(FollowUp::Drained { owner, child });
        }
    }

    /// Has a child send for its policy.
    pub(super) fn activate(&mut self, policy: PolicyId, child: ChildSaId, spi: EspSpi) {
        self.policies.set_sender(policy, child);
        self.command("send on another SA", DataplaneCommand::Activate { policy, spi });
    }

    /// The child that sends for its policy is about to go: another one sends from now on, so that no packet is lost. Returns
    /// whether that made a difference.
    pub(super) fn pass_on_sending(&mut self, policy: PolicyId, child: ChildSaId) -> bool {
        let next = self.policies.next_sender(policy, child).filter(|_| self.policies.is_sender(policy, child));
        next.inspect(|next| self.have_send(policy, *next)).is_some()
    }

    /// The same before the peer knows, and so only if it is ready to receive on another one.
    pub(super) fn pass_on_sending_early(&mut self, policy: PolicyId, child: ChildSaId) {
        if !self.policies.is_sender(policy, child) {
            return;
        }
        if let Some(next) = self.policies.next_sender(policy, child).filter(|(_, member)| member.stage == Stage::Ready)
        {
            self.have_send(policy, next);
        }
    }

    fn have_send(&mut self, policy: PolicyId, (child, member): (ChildSaId, Member)) {
        self.activate(policy, child, member.spi_out);
        self.follow_up(FollowUp::Sends { owner: member.owner, child });
    }
}

/// Where a message went or came from, for the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) path: IkePath,
    pub(super) by_us: bool,
    pub(super) octets: usize,
    /// How many fragments it has, if it is fragmented.
    pub(super) fragments: Option<u16>,
}

const NONCE_OCTETS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives every number twice.
    struct Stutter(u8);

    impl SecureRandom for Stutter {
        fn fill_public(&mut self, buffer: &mut [u8]) {
            buffer.fill(self.0 / 2);
            self.0 += 1;
        }

        fn fill_secret(&mut self, buffer: &mut [u8]) {
            self.fill_public(buffer);
        }
    }

    /// R7296-2.6-1.
    #[test]
    fn spis_are_never_zero_and_never_given_twice_while_in_use() {
        let mut cx = Context::new(Settings::default(), Box::new(Stutter(0)));
        let first = cx.new_ike_spi();
        assert_eq!((first, cx.new_ike_spi()), (IkeSpi([1; 8]), IkeSpi([2; 8])));
        cx.release_ike_spi(IkeSpi([2; 8]));
        assert_eq!(cx.new_ike_spi(), IkeSpi([2; 8]), "it is free again, and the source stutters");
    }
}
