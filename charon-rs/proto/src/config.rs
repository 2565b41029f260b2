//! Connections and their children: the one model that every configuration front end fills.

mod change;
mod pool;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use espdp_api::{
    AddressRange, InterfaceName, Mode, PacketShape, PortRange, Routes, Secret, TrafficLimit, TrafficSelector,
};

use crate::identity::{Identity, IdentityPattern};
use crate::proposal::{EspProposal, IkeProposal, default_ike_proposals};
use crate::wire::ConfigurationAttribute;

pub use self::change::Effect;
pub use self::pool::Pool;
pub(crate) use self::pool::{address_at, last_offset};

/// How to reach, authenticate and protect one peer (or, with wildcards, a class of peers).
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Its name, unique.
    pub name: String,
    /// Our addresses in order of preference; empty means whatever the route to the peer says.
    pub local_addresses: Vec<IpAddr>,
    /// Where the peer may be.
    pub remote_addresses: Vec<RemoteAddress>,
    /// Our port for IKE_SA_INIT, usually 500.
    pub local_port: u16,
    /// The peer's port for IKE_SA_INIT, usually 500.
    pub remote_port: u16,
    /// How we authenticate ourselves, in the first round.
    pub local: LocalAuth,
    /// How we authenticate ourselves in the rounds after the first (RFC 4739), in order.
    pub more_local: Vec<LocalAuth>,
    /// How the peer must authenticate itself, in the first round.
    pub remote: RemoteAuth,
    /// How the peer must authenticate itself in the rounds after the first (RFC 4739), in order.
    pub more_remote: Vec<RemoteAuth>,
    /// When our certificates go with IKE_AUTH.
    pub send_certificates: SendCertificates,
    /// Whether we tell the peer which CAs we know (CERTREQ).
    pub send_certificate_requests: bool,
    /// IKE proposals in order of preference; never empty.
    pub ike_proposals: Vec<IkeProposal>,
    /// When the IKE SA is rekeyed and when it ends.
    pub ike_lifetime: Lifetime,
    /// Dead peer detection; `None` turns it off.
    pub dpd: Option<Dpd>,
    /// How requests are retransmitted.
    pub retransmission: Retransmission,
    /// After how long the IKE SA is made anew, with a new authentication; `None` never. The jitter is that of
    /// `ike_lifetime`.
    pub reauth_after: Option<Duration>,
    /// Whether ESP travels in UDP.
    pub encapsulation: UdpEncapsulation,
    /// Whether large messages are sent in fragments (RFC 7383).
    pub fragmentation: Fragmentation,
    /// The largest IP packet that carries a fragment, in octets, IP and UDP headers included.
    pub fragment_size: u16,
    /// Whether both ends may change their addresses (RFC 4555).
    pub mobike: bool,
    /// What becomes of older IKE SAs of the same two identities.
    pub uniqueness: Uniqueness,
    /// Whether an IKE SA may come up without a Child SA (RFC 6023).
    pub childless: Childless,
    /// The post-quantum pre-shared key that is mixed into the keys (RFC 8784).
    pub ppk: Option<PpkUse>,
    /// Whether the peer may send us elsewhere (RFC 5685).
    pub follow_redirects: bool,
    /// Where we send peers that can be redirected (RFC 5685).
    pub redirect: Option<Redirect>,
    /// The virtual addresses that we ask the peer for (RFC 7296 §2.19), an unspecified one for any of its family. Empty: none.
    pub virtual_addresses: Vec<IpAddr>,
    /// The names of the pools from which the peer gets virtual addresses, which it then must ask for. Empty: it gets none.
    pub pools: Vec<String>,
    /// What the peer is told with its address, before what its pool says.
    pub pool_attributes: Vec<ConfigurationAttribute>,
    /// The Child SAs of the connection. The first goes with IKE_AUTH when no other is asked for.
    pub children: Vec<Child>,
}

impl Connection {
    /// A connection with anybody, by pre-shared key, without children; everything else is as most networks want it.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            local_addresses: Vec::new(),
            remote_addresses: Vec::new(),
            local_port: 500,
            remote_port: 500,
            local: LocalAuth { identity: None, method: LocalMethod::PreSharedKey },
            more_local: Vec::new(),
            remote: RemoteAuth { identity: IdentityPattern::Any, method: RemoteMethod::PreSharedKey },
            more_remote: Vec::new(),
            send_certificates: SendCertificates::IfAsked,
            send_certificate_requests: true,
            ike_proposals: default_ike_proposals(),
            ike_lifetime: Lifetime { rekey_after: None, jitter: Duration::ZERO, expire_after: None },
            reauth_after: None,
            dpd: None,
            retransmission: Retransmission {
                first: Duration::from_secs(4),
                factor: 1.8,
                tries: 5,
                longest: Duration::MAX,
            },
            encapsulation: UdpEncapsulation::Detect,
            fragmentation: Fragmentation::Offer,
            fragment_size: 1280,
            mobike: true,
            uniqueness: Uniqueness::No,
            childless: Childless::Allow,
            ppk: None,
            follow_redirects: true,
            redirect: None,
            virtual_addresses: Vec::new(),
            pools: Vec::new(),
            pool_attributes: Vec::new(),
            children: Vec::new(),
        }
    }
}

impl Connection {
    /// How we authenticate ourselves, round by round.
    pub fn local_rounds(&self) -> impl Iterator<Item = &LocalAuth> {
        std::iter::once(&self.local).chain(&self.more_local)
    }

    /// How the peer must authenticate itself, round by round.
    pub fn remote_rounds(&self) -> impl Iterator<Item = &RemoteAuth> {
        std::iter::once(&self.remote).chain(&self.more_remote)
    }

    /// Whether one of the two ends authenticates itself more than once (RFC 4739).
    #[must_use]
    pub fn has_several_rounds(&self) -> bool {
        self.has_round(1)
    }

    /// Whether one of the two ends authenticates itself in round number `round`, from 0.
    #[must_use]
    pub fn has_round(&self, round: usize) -> bool {
        round <= self.more_local.len().max(self.more_remote.len())
    }
}

/// Where peers are sent instead of being served (RFC 5685).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The other gateway.
    pub to: Gateway,
    /// When they are told.
    pub at: RedirectAt,
}

/// Another gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// By its address.
    Address(IpAddr),
    /// By its host name.
    Name(String),
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// When a peer is told to go elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectAt {
    /// At once, before it is known who it is; this costs us least.
    Init,
    /// When it has proved who it is.
    Auth,
}

/// Where a peer may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteAddress {
    /// One address.
    Address(IpAddr),
    /// Anywhere in a range; for responders.
    Range(AddressRange),
    /// A name, resolved anew for each attempt.
    Name(String),
    /// Anywhere; for responders.
    Any,
}

/// How we authenticate in one round.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalAuth {
    /// Our identity; `None` means our address.
    pub identity: Option<Identity>,
    /// The method.
    pub method: LocalMethod,
}

/// How the peer must authenticate in one round.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteAuth {
    /// Which identities are accepted.
    pub identity: IdentityPattern,
    /// The method.
    pub method: RemoteMethod,
}

/// A way to prove who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalMethod {
    /// A pre-shared key (RFC 7296 §2.15), found in the engine's secrets by the two identities.
    PreSharedKey,
    /// A signature (RFC 7427) by a private key that the shell has.
    Signature(CredentialName),
}

/// A way for the peer to prove who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteMethod {
    /// A pre-shared key (RFC 7296 §2.15), found in the engine's secrets by the two identities.
    PreSharedKey,
    /// A signature, with a certificate or a raw public key, which the shell judges.
    Signature(Trust),
}

/// Names a private key and what belongs to it, in the shell. Two names are equal if and only if they mean the same key,
/// certificates and options.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialName(pub String);

/// Names what the shell demands of a peer's signature: its CAs, revocation policy, strength. Two names are equal if and
/// only if they demand the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustName(pub String);

/// What is demanded of a peer's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Names it for the shell.
    pub name: TrustName,
    /// The CAs to ask certificates of (CERTREQ).
    pub authorities: Vec<AuthorityHash>,
    /// Whether the peer is asked for OCSP answers about its certificates (RFC 4806).
    pub ocsp: bool,
}

/// A CA as CERTREQ names it: the SHA-1 hash of its SubjectPublicKeyInfo (RFC 7296 §3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityHash(pub [u8; 20]);

/// When certificates of ours go with IKE_AUTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendCertificates {
    /// Always.
    Always,
    /// If the peer sent a CERTREQ.
    IfAsked,
    /// Never: the peer has them.
    Never,
}

/// Whether ESP travels in UDP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpEncapsulation {
    /// If there is a NAT on the way.
    Detect,
    /// Always: we pretend that there is a NAT.
    Force,
    /// If there is a NAT, and between two of us that both say so also without one: the kernel segments and joins UDP, but not ESP.
    Auto,
    /// Never: we do not look for NATs.
    Refuse,
}

/// Whether large messages are sent in fragments (RFC 7383).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    /// If the peer can, too.
    Offer,
    /// If the peer can, too, and then all messages are sent that way, also small ones.
    Force,
    /// We understand fragments and send none.
    Accept,
    /// Never.
    Never,
}

/// What becomes of older IKE SAs of the same two identities when another one is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uniqueness {
    /// They stay, even if the peer says that it knows nothing of them (INITIAL_CONTACT).
    Never,
    /// They stay, unless the peer says that it knows nothing of them.
    No,
    /// The newest stays.
    Replace,
    /// The oldest stays.
    Keep,
}

/// Whether an IKE SA may come up without a Child SA (RFC 6023).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Childless {
    /// As a responder, yes; as an initiator only if there is no child.
    Allow,
    /// As an initiator always, if the peer can: all Child SAs come by CREATE_CHILD_SA, with keys of their own.
    Prefer,
    /// Only without: peers that cannot are refused.
    Force,
    /// Never.
    Never,
}

/// How a post-quantum pre-shared key is used (RFC 8784).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PpkUse {
    /// Which one; for responders `None` takes whichever the peer names.
    pub id: Option<Vec<u8>>,
    /// Whether the SA fails without.
    pub required: bool,
}

impl PpkUse {
    /// What a configuration means that names a key, demands one, or neither.
    #[must_use]
    pub fn wanted(id: Option<String>, required: Option<bool>) -> Option<Self> {
        let required = required.unwrap_or(false);
        (id.is_some() || required).then(|| Self { id: id.map(String::into_bytes), required })
    }
}

/// A pre-shared key and whose it is.
#[derive(Clone, Debug)]
pub struct SharedSecret {
    /// Names it for replacement; unique.
    pub name: String,
    /// What it is for.
    pub kind: SecretKind,
    /// The identities it is for: none means everybody, one means any pair with that one, more mean any pair among them.
    /// For a post-quantum key they are its identifiers, of which each one means it.
    pub owners: Vec<Identity>,
    /// The key, up to any length, no NUL added.
    pub secret: Secret<Vec<u8>>,
}

/// What a pre-shared key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// It proves identities (RFC 7296 §2.15).
    Ike,
    /// It is mixed into the keys (RFC 8784).
    Ppk,
}

/// When to replace an SA and when to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Rekey after this long; `None` never.
    pub rekey_after: Option<Duration>,
    /// Up to this much sooner, drawn anew for each SA, so that two ends do not rekey at once.
    pub jitter: Duration,
    /// End the SA after this long if it was not replaced; `None` never.
    pub expire_after: Option<Duration>,
}

/// Dead peer detection (RFC 7296 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dpd {
    /// Probe when nothing came from the peer for this long.
    pub delay: Duration,
    /// What to do about a dead peer.
    pub action: DpdAction,
}

/// What to do about a dead peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpdAction {
    /// Remove the SAs.
    Clear,
    /// Remove the SAs and keep the policies, so that the next packet brings the tunnel back.
    Hold,
    /// Set the connection up anew at once, and keep trying.
    Restart,
}

/// When requests are sent again (RFC 7296 §2.1): after `first`, then each time `factor` later than before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retransmission {
    /// Until the first repetition.
    pub first: Duration,
    /// By how much each wait is longer than the one before; at least 1.
    pub factor: f64,
    /// Repetitions before the peer is given up.
    pub tries: u32,
    /// No wait is longer than this.
    pub longest: Duration,
}

/// A Child SA to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its name, unique in the connection.
    pub name: String,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// What we protect on our side; never empty.
    pub local_selectors: Vec<ChildSelector>,
    /// What we protect on the peer's side; never empty.
    pub remote_selectors: Vec<ChildSelector>,
    /// ESP proposals in order of preference; never empty.
    pub esp_proposals: Vec<EspProposal>,
    /// When it is rekeyed and when it ends.
    pub lifetime: Lifetime,
    /// Traffic after which it is rekeyed.
    pub rekey_after_traffic: TrafficLimit,
    /// Traffic after which it ends.
    pub expire_after_traffic: TrafficLimit,
    /// Replay window in packets.
    pub replay_window: u32,
    /// The interface its traffic goes through.
    pub interface: InterfaceName,
    /// The place of its policies among others: the lowest number is asked first.
    pub priority: u32,
    /// The routes that come and go with it.
    pub routes: Routes,
    /// Whether fragments of a packet but the first may travel in it although it is for certain ports, if the peer agrees.
    /// In tunnel mode (RFC 4301 §7.3).
    pub later_fragments: bool,
    /// Whether there is an SA of its own for each worker of the dataplane, if the peer knows what that is (RFC 9611).
    pub per_resource: bool,
    /// How its packets are shaped.
    pub shape: PacketShape,
    /// What happens when the connection is loaded.
    pub start: StartAction,
    /// The program that the shell runs when it comes up and goes down, with its arguments; empty: none. The engine does not look at it.
    pub updown: Vec<String>,
    /// What happens when the peer deletes it, unless it is to be up always.
    pub close: CloseAction,
    /// What to do about it when the peer is dead; `None` leaves that to the connection.
    pub dpd: Option<DpdAction>,
}

/// One side of what a child protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildSelector {
    /// Packets from or to these addresses.
    Fixed(TrafficSelector),
    /// Packets from or to the host on this side (strongSwan's `dynamic`): its virtual addresses if it has any, else the address
    /// of the IKE SA.
    Dynamic {
        /// The IP protocol number, 0 for any.
        protocol: u8,
        /// The ports, or ICMP type and code.
        ports: PortRange,
    },
}

impl ChildSelector {
    /// Everything from or to the address of the IKE SA.
    pub const HOST: Self = Self::Dynamic { protocol: 0, ports: PortRange::ANY };

    /// What it selects where the IKE SA has the address `host`.
    #[must_use]
    pub fn at(&self, host: IpAddr) -> TrafficSelector {
        self.within(AddressRange::single(host))
    }

    /// What it selects where the host has an address of `hosts`.
    #[must_use]
    pub fn within(&self, hosts: AddressRange) -> TrafficSelector {
        match *self {
            Self::Fixed(selector) => selector,
            Self::Dynamic { protocol, ports } => TrafficSelector { addresses: hosts, protocol, ports },
        }
    }

    /// What it selects wherever the IKE SA is; `None` if that depends on its address.
    #[must_use]
    pub fn fixed(&self) -> Option<TrafficSelector> {
        match self {
            Self::Fixed(selector) => Some(*selector),
            Self::Dynamic { .. } => None,
        }
    }
}

impl From<TrafficSelector> for ChildSelector {
    fn from(selector: TrafficSelector) -> Self {
        Self::Fixed(selector)
    }
}

/// As strongSwan prints it: `10.1.0.0/16[tcp/443]`, `dynamic` or `dynamic[udp]`.
impl fmt::Display for ChildSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(selector) => selector.fmt(f),
            Self::Dynamic { .. } => {
                let written = self.at(IpAddr::from([0, 0, 0, 0])).to_string();
                write!(f, "dynamic{}", written.find('[').and_then(|at| written.get(at..)).unwrap_or_default())
            }
        }
    }
}

/// What happens to a child when its connection is loaded (`auto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAction {
    /// Nothing: it waits for the peer or for a command.
    None,
    /// Its policy is set; the first packet brings it up.
    Trap,
    /// It is brought up, and brought up again whenever it falls.
    Start,
    /// It is brought up; when it falls later, it stays down.
    Once {
        /// Whether its policy is set, too, so that packets bring it up again.
        trap: bool,
    },
}

impl StartAction {
    /// Whether its policy is set when the connection is loaded.
    #[must_use]
    pub fn traps(self) -> bool {
        matches!(self, Self::Trap | Self::Once { trap: true })
    }

    /// Whether it is brought up when the connection is loaded.
    #[must_use]
    pub fn initiates(self) -> bool {
        matches!(self, Self::Start | Self::Once { .. })
    }
}

/// What happens to a child that the peer deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CloseAction {
    /// Nothing.
    #[default]
    None,
    /// Its policy waits for a packet that brings it up again.
    Trap,
    /// It is brought up again.
    Start,
}
