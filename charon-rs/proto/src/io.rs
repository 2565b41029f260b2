//! What goes into the engine and what comes out.

mod failure;

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use espdp_api::{EspAlgorithms, EspSpi, IkePath, IpsecProtocol, Mode, OuterPath, PolicyId, Secret, TrafficSelector};

use crate::config::{Connection, CredentialName, Gateway, Pool, SharedSecret, TrustName};
use crate::identity::Identity;

pub use failure::{ConfigKey, Cure, Failure, FailureCode};

/// Pairs an [`Answer`] with the [`Ask`] it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// Pairs the end of an undertaking with the command that began it; chosen by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Numbers IKE SAs for people, from 1 (`uniqueid`). A rekeyed SA keeps the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IkeSaId(pub u32);

/// Numbers Child SAs for people, from 1 (`uniqueid`). Each rekeying takes a new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChildSaId(pub u32);

/// The SPI of an IKE SA: eight octets, never all zero for an SA that exists (RFC 7296 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct IkeSpi(pub [u8; 8]);

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the shell must do, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send an IKE message.
    Transmit {
        /// From where to where.
        path: IkePath,
        /// The message, without non-ESP marker.
        message: Vec<u8>,
    },
    /// Send a NAT keepalive (RFC 3948 §2.3).
    Keepalive(IkePath),
    /// Do something slow or outside and report with [`crate::Engine::handle_answer`].
    Ask(AskId, Ask),
    /// Tell whoever listens.
    Notice(Notice),
}

/// Work that the engine cannot do itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ask {
    /// A command for the dataplane.
    Dataplane(espdp_api::Command),
    /// The addresses of a host name.
    Resolve(String),
    /// Our proof by a private key.
    Sign(Box<SignRequest>),
    /// A judgement of the peer's proof.
    Verify(Box<VerifyRequest>),
}

/// A proof of who we are that the shell makes with a private key (RFC 7296 §2.15, RFC 7427).
#[derive(Clone, Debug)]
pub struct SignRequest {
    /// The key.
    pub credential: CredentialName,
    /// Who we say we are.
    pub identity: Identity,
    /// What is signed: InitiatorSignedOctets or ResponderSignedOctets.
    pub octets: Vec<u8>,
    /// The numbers of the hashes that the peer takes in signatures of method 14 (RFC 7427 §4); `None` if it did not say,
    /// and the methods of RFC 7296 are all it knows.
    pub peer_hashes: Option<Vec<u16>>,
    /// What the peer sent in CERTREQ payloads; certificates of CAs that it does not know help it little.
    pub requested: Vec<CertificateRequest>,
    /// Whether certificates are to go with the proof.
    pub with_certificates: bool,
}

/// Our proof.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The number of the method (RFC 7296 §3.8): 14, or one of 1, 9, 10 and 11 for old peers.
    pub method: u8,
    /// The Authentication Data.
    pub data: Vec<u8>,
    /// What goes into CERT payloads, the certificate of the key first.
    pub certificates: Vec<CertificateData>,
}

/// A peer's proof for the shell to judge.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// The connection, for the log.
    pub connection: String,
    /// What is demanded.
    pub trust: TrustName,
    /// Who the peer says it is.
    pub identity: Identity,
    /// What it must have signed.
    pub octets: Vec<u8>,
    /// The number of the method (RFC 7296 §3.8).
    pub method: u8,
    /// The Authentication Data.
    pub data: Vec<u8>,
    /// What it sent in CERT payloads, the one of the signer first (R7296-1.2-3).
    pub certificates: Vec<CertificateData>,
}

/// The peer is who it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What convinced the shell, for the log: `ECDSA with SHA-256, certificate "CN=sun", CA "CN=root"`.
    pub evidence: String,
}

/// Why a proof was refused, or why there is none of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofRefusal {
    /// A stable code.
    pub code: FailureCode,
    /// What happened, as a sentence.
    pub what: String,
    /// What we have or want, one line for each item.
    pub ours: Vec<String>,
    /// What the peer has or wants, one line for each item.
    pub theirs: Vec<String>,
    /// The way out.
    pub hint: Option<String>,
}

/// The body of a CERT payload (RFC 7296 §3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateData {
    /// Cert Encoding: 4 for an X.509 certificate, 14 for an OCSP answer, 15 for a raw public key (RFC 7670).
    pub encoding: u8,
    /// Certificate Data.
    pub data: Vec<u8>,
}

/// The body of a CERTREQ payload (RFC 7296 §3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// Cert Encoding, as in [`CertificateData`].
    pub encoding: u8,
    /// Certification Authority: for X.509 certificates any number of [`crate::config::AuthorityHash`]es.
    pub authorities: Vec<u8>,
}

/// What came of an [`Ask`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// From the dataplane.
    Dataplane(espdp_api::Outcome),
    /// From the resolver; empty when the name has no address or could not be resolved.
    Addresses(Vec<IpAddr>),
    /// Our proof, or why there is none.
    Signed(Result<Signed, Box<ProofRefusal>>),
    /// What the shell thinks of the peer's proof.
    Verified(Result<Verified, Box<ProofRefusal>>),
}

/// What somebody wants the engine to do.
#[derive(Debug)]
pub enum Command {
    /// Adds a connection, or replaces the one of this name. SAs that exist, and those that replace them, go on with what
    /// was negotiated, and the IKE SAs with the timers that they have. New Child SAs are those of the new configuration,
    /// over the IKE SAs that exist, too, as long as those have an identity and a way to authenticate that it accepts.
    /// Start and trap actions are carried out.
    SetConnection(Box<Connection>),
    /// Forgets a connection: its SAs are deleted, its policies go.
    RemoveConnection(String),
    /// Adds a secret, or replaces the one of this name.
    SetSecret(SharedSecret),
    /// Forgets a secret.
    RemoveSecret(String),
    /// Adds a pool of virtual addresses, or replaces the one of this name. Peers keep the addresses that they have.
    SetPool(Pool),
    /// Forgets a pool. Peers keep the addresses that they have.
    RemovePool(String),
    /// Brings a connection or one of its children up. Settled at once when it is up already.
    Initiate {
        /// For the answer, [`Notice::Settled`].
        ticket: Ticket,
        /// Which connection; `None` finds it by the child.
        connection: Option<String>,
        /// Which child; `None` means the IKE SA with all the connection's children.
        child: Option<String>,
    },
    /// Sets the policy of a child, whose packets then bring it up. Settled at once.
    Install {
        /// For the answer.
        ticket: Ticket,
        /// Which connection; `None` finds it by the child.
        connection: Option<String>,
        /// Which child.
        child: String,
    },
    /// Has the policy of a child bring it up no more; SAs stay. Settled at once.
    Uninstall {
        /// For the answer.
        ticket: Ticket,
        /// Which connection; `None` finds it by the child.
        connection: Option<String>,
        /// Which child.
        child: String,
    },
    /// Takes SAs down here and now. The peers are told once, and nobody waits for their answers.
    TerminateAtOnce {
        /// For the answer.
        ticket: Ticket,
        /// What exactly.
        target: Target,
    },
    /// Takes SAs down. Settled when the peers have agreed, or have not answered for a while and all is gone here.
    Terminate {
        /// For the answer.
        ticket: Ticket,
        /// What exactly.
        target: Target,
    },
    /// Rekeys SAs now.
    Rekey {
        /// For the answer.
        ticket: Ticket,
        /// What exactly.
        target: Target,
    },
    /// Makes IKE SAs anew with their children, with a new authentication. For a child, the IKE SA that it belongs to.
    Reauthenticate {
        /// For the answer, when the old ones are on their way out.
        ticket: Ticket,
        /// What exactly.
        target: Target,
    },
    /// Tells the peers of IKE SAs to go to another gateway (RFC 5685). Settled when they have heard it.
    Redirect {
        /// For the answer.
        ticket: Ticket,
        /// What exactly.
        target: Target,
        /// Where to.
        gateway: Gateway,
    },
    /// Deletes everything, then raises [`Notice::ShutDown`]. Peers that do not answer are not waited for longer than `grace`.
    ShutDown {
        /// How long to wait for the peers.
        grace: Duration,
    },
}

/// Which SAs a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All IKE SAs of a connection.
    Connection(String),
    /// All Child SAs of this name, in `connection` if given.
    Child {
        /// The connection.
        connection: Option<String>,
        /// The child.
        child: String,
    },
    /// One IKE SA.
    IkeSa(IkeSaId),
    /// One Child SA.
    ChildSa(ChildSaId),
}

/// Why the engine wants to be woken; names the cause of a busy loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TimerKind {
    /// A request is due again.
    Retransmit,
    /// The peer was silent; time to probe.
    DeadPeerDetection,
    /// A NAT keepalive is due.
    Keepalive,
    /// A Child SA is to be rekeyed.
    RekeyChild,
    /// An IKE SA is to be rekeyed.
    RekeyIke,
    /// The peer of an IKE SA is to be authenticated anew.
    Reauthenticate,
    /// Somebody has waited long enough for a deletion.
    Patience,
    /// A lifetime ends.
    Expire,
    /// An old inbound SA has drained.
    Drain,
    /// A half-open SA has waited long enough.
    HalfOpen,
    /// Fragments of a message have waited for the others long enough.
    Reassembly,
    /// A task that was put off is due again.
    RetryTask,
    /// A connection that should be up is tried again.
    Reconnect,
    /// The cookie secret changes.
    CookieSecret,
    /// Shutting down has taken long enough.
    ShutDown,
}

/// What happened, for logs, events and people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// An IKE SA is established.
    IkeUp(Box<IkeSaReport>),
    /// An IKE SA is gone.
    IkeDown {
        /// As it was last.
        sa: Box<IkeSaReport>,
        /// Why.
        reason: DownReason,
    },
    /// An IKE SA was replaced by a new one.
    IkeRekeyed {
        /// The SPIs (initiator's, responder's) of the old one.
        old: (IkeSpi, IkeSpi),
        /// The new one.
        sa: Box<IkeSaReport>,
    },
    /// An IKE SA goes over to another path: an end has moved, or a NAT in front of it.
    IkeMoved {
        /// As it was before.
        sa: Box<IkeSaReport>,
        /// Where its messages go from now on.
        path: IkePath,
    },
    /// A Child SA is installed in both directions.
    ChildUp {
        /// Its IKE SA.
        sa: Box<IkeSaReport>,
        /// Itself.
        child: Box<ChildSaReport>,
    },
    /// A Child SA is gone.
    ChildDown {
        /// Its IKE SA.
        sa: Box<IkeSaReport>,
        /// As it was last.
        child: Box<ChildSaReport>,
        /// Why.
        reason: DownReason,
    },
    /// A Child SA was replaced.
    ChildRekeyed {
        /// Its IKE SA.
        sa: Box<IkeSaReport>,
        /// The old one.
        old: Box<ChildSaReport>,
        /// The new one.
        new: Box<ChildSaReport>,
    },
    /// An undertaking failed, or a peer was refused.
    Failure(Box<Failure>),
    /// A peer began something and did not go on. Strangers can do that as often as they like, so it is worth a line only to
    /// those who ask.
    Abandoned(Box<Failure>),
    /// A message went out or came in, for the journal.
    Message(MessageTrace),
    /// A message went out or came in once more.
    Repetition(Repetition),
    /// Something else worth a line in the log.
    Remark {
        /// The connection, if known.
        connection: Option<String>,
        /// How important.
        level: RemarkLevel,
        /// A sentence.
        text: String,
    },
    /// What a command set out to do is done.
    Settled {
        /// Whose.
        ticket: Ticket,
        /// With which result; the text of an error is for people.
        result: Result<SettledCount, String>,
    },
    /// The keys of an IKE SA, for Wireshark. Only when [`crate::Settings::export_keys`] is on.
    IkeKeys(Box<IkeKeyExport>),
    /// The keys of a Child SA, for Wireshark. Only when [`crate::Settings::export_keys`] is on.
    ChildKeys(Box<ChildKeyExport>),
    /// A message in plain text, for those who look on. Only as long as [`crate::Engine::export_plain_text`] is on.
    PlainText(PlainText),
    /// Everything is deleted; the engine can be dropped.
    ShutDown,
}

/// How important a remark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemarkLevel {
    /// Off the happy path.
    Debug,
    /// Worth knowing.
    Info,
    /// Worth waking somebody.
    Warn,
}

/// How many SAs a command took hold of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledCount {
    /// SAs that matched.
    pub matches: u32,
    /// SAs for which it worked.
    pub done: u32,
}

/// Why an SA went down.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// Somebody here wanted it.
    Command,
    /// The peer deleted it.
    PeerDeleted,
    /// The peer does not answer.
    PeerDead,
    /// Its lifetime is over.
    Expired,
    /// A newer one with the same peer replaced it.
    Replaced,
    /// It failed; the failure was reported.
    Failed,
}

/// One message of an exchange, for the journal: `IKE_AUTH request 1 [ IDi AUTH SA TSi TSr ]`.
#[derive(Clone, Debug)]
pub struct MessageTrace {
    /// The connection, if known.
    pub connection: Option<String>,
    /// The IKE SA, if known.
    pub ike_sa: Option<IkeSaId>,
    /// The addresses.
    pub path: IkePath,
    /// `true` when we sent it.
    pub sent: bool,
    /// A one-line summary as in the example.
    pub summary: String,
    /// What it says about proposals, identities and selectors, see [`crate::describe()`]; nothing of exchanges that are about
    /// other things.
    pub details: Vec<String>,
    /// Octets on the wire without marker.
    pub octets: usize,
}

/// A message as if nobody had encrypted or fragmented it: what was inside its Encrypted payload stands right behind its header. It
/// tells identities, certificates and proofs, but no keys.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainText {
    /// The connection, if known.
    pub connection: Option<String>,
    /// The addresses.
    pub path: IkePath,
    /// `true` when we sent it.
    pub sent: bool,
    /// From the IKE header on, without marker.
    pub message: Vec<u8>,
}

/// Says how long it is, and not what it says.
impl fmt::Debug for PlainText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, path, sent, message } = self;
        let mut all = f.debug_struct("PlainText");
        all.field("connection", connection).field("path", path).field("sent", sent);
        all.field("octets", &message.len()).finish_non_exhaustive()
    }
}

/// A message that nobody answered, or whose answer got lost, went out or came in again.
#[derive(Clone, Debug)]
pub struct Repetition {
    /// The connection.
    pub connection: String,
    /// The IKE SA.
    pub ike_sa: IkeSaId,
    /// The addresses.
    pub path: IkePath,
    /// `true` when we sent it.
    pub sent: bool,
    /// The exchange.
    pub exchange: crate::wire::ExchangeType,
    /// The message ID.
    pub message_id: u32,
    /// Octets on the wire without marker.
    pub octets: usize,
    /// How often it was sent again, this time included; 0 when the peer sent it.
    pub count: u32,
}

/// An IKE SA as people see it.
#[derive(Clone, Debug)]
pub struct IkeSaReport {
    /// Its number.
    pub id: IkeSaId,
    /// Its connection.
    pub connection: String,
    /// Its state.
    pub state: IkeState,
    /// Addresses and ports now in use.
    pub path: IkePath,
    /// Our identity, once known.
    pub local_id: Option<String>,
    /// The peer's identity, once authenticated.
    pub remote_id: Option<String>,
    /// Whether we are the original initiator of this SA.
    pub initiator: bool,
    /// The initiator's SPI.
    pub initiator_spi: IkeSpi,
    /// The responder's SPI, zero while unknown.
    pub responder_spi: IkeSpi,
    /// The chosen suite; `None` before it is.
    pub proposal: Option<crate::proposal::IkeSuite>,
    /// The initiator's nonce.
    pub nonce_i: Vec<u8>,
    /// The responder's nonce.
    pub nonce_r: Vec<u8>,
    /// A NAT is in front of us.
    pub nat_local: bool,
    /// A NAT is in front of the peer.
    pub nat_remote: bool,
    /// We pretend to be behind a NAT.
    pub nat_fake: bool,
    /// The virtual addresses that the peer gave us.
    pub local_virtual: Vec<IpAddr>,
    /// The virtual addresses that we gave the peer.
    pub remote_virtual: Vec<IpAddr>,
    /// The name servers that the peer told us of.
    pub name_servers: Vec<IpAddr>,
    /// The domains for which those are to be asked (RFC 8598); empty: for all.
    pub domains: Vec<String>,
    /// When it was established.
    pub established: Option<Instant>,
    /// When it will be rekeyed.
    pub rekey_at: Option<Instant>,
    /// When it will be made anew, with a new authentication.
    pub reauth_at: Option<Instant>,
    /// When it will end.
    pub expires_at: Option<Instant>,
    /// Names of queued and running tasks.
    pub tasks: Vec<String>,
    /// Its Child SAs.
    pub children: Vec<ChildSaReport>,
}

/// A pool of virtual addresses as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolReport {
    /// The pool.
    pub pool: Pool,
    /// Addresses that peers have or have had, in their order.
    pub leases: Vec<LeaseReport>,
}

impl PoolReport {
    /// How many addresses are in use.
    #[must_use]
    pub fn online(&self) -> usize {
        self.leases.iter().filter(|lease| lease.online).count()
    }
}

/// Whose a virtual address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseReport {
    /// The address.
    pub address: IpAddr,
    /// The peer's identity.
    pub identity: String,
    /// Whether an IKE SA uses it; otherwise it is kept for the peer as long as nobody else needs it.
    pub online: bool,
}

/// The state of an IKE SA, with strongSwan's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IkeState {
    /// `CREATED`
    Created,
    /// `CONNECTING`
    Connecting,
    /// `ESTABLISHED`
    Established,
    /// `REKEYING`
    Rekeying,
    /// `REKEYED`
    Rekeyed,
    /// `DELETING`
    Deleting,
}

/// A Child SA as people see it.
#[derive(Clone, Debug)]
pub struct ChildSaReport {
    /// Its number.
    pub id: ChildSaId,
    /// Its name in the configuration.
    pub name: String,
    /// Its policy, which stays over rekeyings (`reqid`).
    pub policy: PolicyId,
    /// Its state.
    pub state: ChildState,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Our SPI.
    pub spi_in: EspSpi,
    /// The peer's SPI; `None` while only the inbound half exists.
    pub spi_out: Option<EspSpi>,
    /// ESP or AH.
    pub protocol: IpsecProtocol,
    /// Ciphers.
    pub algorithms: EspAlgorithms,
    /// The key exchange group of PFS, if there was one.
    pub pfs_group: Option<crate::proposal::KeyExchangeGroup>,
    /// The additional key exchanges of PFS (RFC 9370).
    pub additional: crate::proposal::AdditionalGroups,
    /// Outer addresses.
    pub path: OuterPath,
    /// Our side's selectors.
    pub local: Vec<TrafficSelector>,
    /// The peer's side's selectors.
    pub remote: Vec<TrafficSelector>,
    /// When it was installed.
    pub installed: Instant,
    /// When it will be rekeyed.
    pub rekey_at: Option<Instant>,
    /// When it will end.
    pub expires_at: Option<Instant>,
}

/// The state of a Child SA, with strongSwan's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildState {
    /// `INSTALLING`
    Installing,
    /// `INSTALLED`
    Installed,
    /// `REKEYING`
    Rekeying,
    /// `REKEYED`: replaced; its inbound half drains.
    Rekeyed,
    /// `DELETING`
    Deleting,
}

/// Keys of an IKE SA. Where additional key exchanges change them while the SA is set up, they are the last ones: those of
/// IKE_AUTH and all that follows, not those of the IKE_INTERMEDIATE messages before (RFC 9242 §3.3.1).
#[derive(Clone, Debug)]
pub struct IkeKeyExport {
    /// The initiator's SPI.
    pub initiator_spi: IkeSpi,
    /// The responder's SPI.
    pub responder_spi: IkeSpi,
    /// The chosen suite.
    pub suite: crate::proposal::IkeSuite,
    /// SK_ei with salt.
    pub sk_ei: Secret<Vec<u8>>,
    /// SK_er with salt.
    pub sk_er: Secret<Vec<u8>>,
    /// SK_ai, empty for AEADs.
    pub sk_ai: Secret<Vec<u8>>,
    /// SK_ar, empty for AEADs.
    pub sk_ar: Secret<Vec<u8>>,
}

/// Keys of both halves of a Child SA.
#[derive(Clone, Debug)]
pub struct ChildKeyExport {
    /// Addresses.
    pub path: OuterPath,
    /// Ciphers.
    pub algorithms: EspAlgorithms,
    /// Our SPI.
    pub spi_in: EspSpi,
    /// The peer's SPI.
    pub spi_out: EspSpi,
    /// Key and salt of what the peer sends.
    pub encryption_in: Secret<Vec<u8>>,
    /// Integrity key of what the peer sends.
    pub integrity_in: Secret<Vec<u8>>,
    /// Key and salt of what we send.
    pub encryption_out: Secret<Vec<u8>>,
    /// Integrity key of what we send.
    pub integrity_out: Secret<Vec<u8>>,
}
