//! Failures as people and scripts see them.

use std::net::SocketAddr;

use super::IkeSaId;

/// What went wrong, with both sides' view where there are two.
#[derive(Clone, Debug)]
pub struct Failure {
    /// A stable code.
    pub code: FailureCode,
    /// The IKE SA, or the attempt at one, that it happened to.
    pub ike_sa: Option<IkeSaId>,
    /// The connection, if it is known.
    pub connection: Option<String>,
    /// The child, if it is about one.
    pub child: Option<String>,
    /// The peer.
    pub peer: Option<SocketAddr>,
    /// What happened, as a sentence.
    pub what: String,
    /// What we have or want, one line for each item.
    pub ours: Vec<String>,
    /// What the peer has or wants, one line for each item.
    pub theirs: Vec<String>,
    /// The way out: which key of the configuration decides, and the nearest value that would do.
    pub hint: Option<String>,
    /// What in the configuration decides, if it is not what usually does for this code ([`FailureCode::deciding_key`]).
    pub cure: Option<Cure>,
}

impl Failure {
    /// What in the configuration decides.
    #[must_use]
    pub fn deciding_key(&self) -> Option<ConfigKey> {
        self.cure.as_ref().map(|cure| cure.key).or_else(|| self.code.deciding_key())
    }
}

/// What in the configuration decides, and what would have been right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cure {
    /// The key.
    pub key: ConfigKey,
    /// The value that would do, as the configuration has it: items are separated by commas. `None` where only people can
    /// know it.
    pub value: Option<String>,
    /// The name of the one that is meant, where there are several such as secrets.
    pub of: Option<String>,
}

impl Cure {
    /// A key that is there once for each connection or child.
    #[must_use]
    pub fn new(key: ConfigKey, value: Option<String>) -> Self {
        Self { key, value, of: None }
    }
}

/// A part of the configuration that can be the cause of a failure. Each front end has its own names for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConfigKey {
    /// Our addresses.
    LocalAddresses,
    /// The peer's addresses.
    RemoteAddresses,
    /// The port of the peer's IKE daemon.
    RemotePort,
    /// Proposals for the IKE SA.
    IkeProposals,
    /// Proposals for Child SAs.
    ChildProposals,
    /// What of our side is protected.
    LocalSelectors,
    /// What of the peer's side is protected.
    RemoteSelectors,
    /// Tunnel or transport mode.
    Mode,
    /// How we authenticate ourselves.
    LocalAuth,
    /// How the peer must authenticate itself.
    RemoteAuth,
    /// Our identity.
    LocalIdentity,
    /// The peer's identity.
    RemoteIdentity,
    /// A pre-shared key.
    Secret,
    /// Our certificate and its private key.
    LocalCertificate,
    /// The peer's certificate or public key.
    RemoteCertificate,
    /// The CAs that are trusted.
    Authorities,
    /// The CA that the peer's certificate must be from.
    RemoteAuthority,
    /// The certificate policies that the peer's chain must have.
    CertificatePolicies,
    /// Whether it must be known that certificates are not revoked.
    Revocation,
    /// IKE SAs without Child SA.
    Childless,
    /// The post-quantum pre-shared key.
    Ppk,
    /// Whether redirections are followed.
    Redirect,
    /// Several IKE SAs with one peer.
    Uniqueness,
    /// Whether ESP is put into UDP.
    Encapsulation,
    /// Fragmentation of IKE messages.
    Fragmentation,
    /// The longest packet with a fragment of an IKE message.
    FragmentSize,
    /// The virtual addresses that we ask for.
    VirtualAddresses,
    /// The pools that peers get virtual addresses from.
    Pools,
}

macro_rules! failure_codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal;)*) => {
        /// Stable names of failures, for scripts and documentation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum FailureCode {
            $($(#[doc = $doc])* #[doc = ""] #[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl FailureCode {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable name, for example `IKE_NO_PROPOSAL`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

failure_codes! {
    /// No connection is configured for the addresses of an incoming IKE_SA_INIT.
    IkeNoConnection = "IKE_NO_CONNECTION";
    /// No IKE proposal in common.
    IkeNoProposal = "IKE_NO_PROPOSAL";
    /// No ESP proposal in common.
    ChildNoProposal = "CHILD_NO_PROPOSAL";
    /// No traffic selectors in common.
    TsUnacceptable = "TS_UNACCEPTABLE";
    /// The peer's key exchange group is not one of ours.
    KeGroupRefused = "KE_GROUP_REFUSED";
    /// One side wants an IKE SA without a Child SA (RFC 6023), the other one cannot or must not.
    ChildlessRefused = "CHILDLESS_REFUSED";
    /// The peer's MAC does not fit our pre-shared key.
    AuthPskMismatch = "AUTH_PSK_MISMATCH";
    /// There is no pre-shared key for the two identities.
    AuthNoPsk = "AUTH_NO_PSK";
    /// The peer's identity is none that a connection accepts.
    AuthIdRefused = "AUTH_ID_REFUSED";
    /// Gateways sent us elsewhere again and again (RFC 5685 §7).
    RedirectLoop = "REDIRECT_LOOP";
    /// There is an IKE SA with the peer, and the oldest is to stay.
    PeerNotUnique = "PEER_NOT_UNIQUE";
    /// The peer uses an authentication method that the connection does not accept.
    AuthMethodRefused = "AUTH_METHOD_REFUSED";
    /// The peer says that authentication failed.
    AuthRefusedByPeer = "AUTH_REFUSED_BY_PEER";
    /// The peer authenticates itself in fewer rounds than the connection demands (RFC 4739).
    AuthRoundMissing = "AUTH_ROUND_MISSING";
    /// The peer authenticates itself in more rounds than the connection has (RFC 4739).
    AuthRoundUnexpected = "AUTH_ROUND_UNEXPECTED";
    /// The connection has several rounds, and the peer does not do that (RFC 4739).
    AuthRoundsUnsupported = "AUTH_ROUNDS_UNSUPPORTED";
    /// Our signature, or the judgement of the peer's, did not come in time.
    AuthTimeout = "AUTH_TIMEOUT";
    /// There is no private key to authenticate ourselves with.
    AuthNoPrivateKey = "AUTH_NO_PRIVATE_KEY";
    /// Our private key could not sign.
    AuthSigningFailed = "AUTH_SIGNING_FAILED";
    /// Our private key makes no signature that the peer says it takes (RFC 7427 §4).
    AuthNoCommonHash = "AUTH_NO_COMMON_HASH";
    /// The peer's signature is not of its key and what it should have signed.
    AuthSignatureWrong = "AUTH_SIGNATURE_WRONG";
    /// A signature, the peer's or one in its chain, is made in a way that the connection does not accept.
    AuthAlgorithmRefused = "AUTH_ALGORITHM_REFUSED";
    /// A key, the peer's or one in its chain, is too weak for the connection.
    AuthKeyTooWeak = "AUTH_KEY_TOO_WEAK";
    /// One side demands a post-quantum pre-shared key that the other one does not use (RFC 8784).
    AuthPpkRefused = "AUTH_PPK_REFUSED";
    /// The peer sent no certificate, and we have none of it.
    AuthNoCertificate = "AUTH_NO_CERTIFICATE";
    /// The peer's certificate or public key is not the one that is configured.
    AuthCertificateNotPinned = "AUTH_CERT_NOT_PINNED";
    /// The peer sent more certificates than we take.
    AuthCertificateLimit = "AUTH_CERT_LIMIT";
    /// The peer's certificate, or one in its chain, cannot be read.
    AuthCertificateMalformed = "AUTH_CERT_MALFORMED";
    /// The peer's certificate does not name the identity that the peer claims.
    AuthIdNotInCertificate = "AUTH_ID_NOT_IN_CERT";
    /// No CA that we trust is above the peer's certificate.
    AuthNoCa = "AUTH_NO_CA";
    /// The peer's certificate is valid, but comes from none of the CAs of the connection.
    AuthCaRefused = "AUTH_CA_REFUSED";
    /// A signature in the peer's chain is wrong, an issuer is no CA, or the chain is too long.
    AuthChainWrong = "AUTH_CHAIN_WRONG";
    /// A certificate in the peer's chain has expired.
    AuthCertificateExpired = "AUTH_CERT_EXPIRED";
    /// A certificate in the peer's chain is not valid yet; the clock may be wrong.
    AuthCertificateNotYetValid = "AUTH_CERT_NOT_YET_VALID";
    /// A certificate in the peer's chain is revoked.
    AuthCertificateRevoked = "AUTH_CERT_REVOKED";
    /// Whether a certificate is revoked is not known: no CRL or OCSP answer could be had.
    AuthCrlUnavailable = "AUTH_CRL_UNAVAILABLE";
    /// Whether a certificate is revoked is not known: all CRLs and OCSP answers are out of date.
    AuthCrlStale = "AUTH_CRL_STALE";
    /// A certificate in the peer's chain is made for something else (key usage, extended key usage).
    AuthKeyUsage = "AUTH_KEY_USAGE";
    /// A CA in the peer's chain must not certify the name (name constraints).
    AuthNameConstraints = "AUTH_NAME_CONSTRAINTS";
    /// The certificate policies that the connection demands are not those of the peer's chain.
    AuthPolicy = "AUTH_CERT_POLICY";
    /// A certificate in the peer's chain has a critical extension that we do not know.
    AuthCriticalExtension = "AUTH_CRITICAL_EXTENSION";
    /// The peer asked for a virtual address, and all addresses of the pools are in use.
    PoolExhausted = "CP_POOL_EXHAUSTED";
    /// The peer asked for a virtual address, and the connection has no pool for it.
    NoPool = "CP_NO_POOL";
    /// The connection gives the peer a virtual address, and the peer did not ask for one; or the other way round.
    AddressNotAskedFor = "CP_REQUIRED";
    /// We asked for a virtual address, and the peer gave us none.
    AddressRefused = "CP_ADDRESS_REFUSED";
    /// The peer does not answer.
    PeerSilent = "PEER_SILENT";
    /// The peer answered on its IKE port and is silent on the NAT-T port: somebody lets only the first one through.
    NatPortSilent = "NAT_PORT_SILENT";
    /// Short messages got through and a long one is not answered: packets of its size, or fragments, get lost.
    LargeMessageLost = "LARGE_MESSAGE_LOST";
    /// A peer began and did not go on: it did not get our answer, or did not like it.
    PeerGaveUp = "PEER_GAVE_UP";
    /// There is no way to the peer from here: no route, or no address of ours.
    NoRoute = "NO_ROUTE";
    /// The peer sent something that breaks the RFC.
    PeerMisbehaved = "PEER_MISBEHAVED";
    /// The peer refused with an error notification.
    PeerRefused = "PEER_REFUSED";
    /// The dataplane or something else here failed.
    Local = "LOCAL_FAILURE";
    /// The host name of the peer has no address.
    NoAddress = "NO_ADDRESS";
}

impl FailureCode {
    /// What in the configuration usually decides.
    #[must_use]
    pub fn deciding_key(self) -> Option<ConfigKey> {
        Some(match self {
            Self::IkeNoConnection | Self::NoAddress | Self::PeerSilent => ConfigKey::RemoteAddresses,
            Self::NoRoute => ConfigKey::LocalAddresses,
            Self::IkeNoProposal | Self::KeGroupRefused => ConfigKey::IkeProposals,
            Self::ChildNoProposal => ConfigKey::ChildProposals,
            Self::TsUnacceptable => ConfigKey::RemoteSelectors,
            Self::ChildlessRefused => ConfigKey::Childless,
            Self::AuthPskMismatch | Self::AuthNoPsk => ConfigKey::Secret,
            Self::AuthIdRefused | Self::AuthIdNotInCertificate => ConfigKey::RemoteIdentity,
            Self::RedirectLoop => ConfigKey::Redirect,
            Self::PeerNotUnique => ConfigKey::Uniqueness,
            Self::AuthMethodRefused
            | Self::AuthRoundMissing
            | Self::AuthRoundUnexpected
            | Self::AuthAlgorithmRefused
            | Self::AuthKeyTooWeak => ConfigKey::RemoteAuth,
            Self::AuthRefusedByPeer => ConfigKey::LocalIdentity,
            Self::AuthRoundsUnsupported | Self::AuthNoCommonHash => ConfigKey::LocalAuth,
            Self::AuthNoPrivateKey | Self::AuthSigningFailed => ConfigKey::LocalCertificate,
            Self::AuthPpkRefused => ConfigKey::Ppk,
            Self::AuthNoCertificate | Self::AuthCertificateNotPinned | Self::AuthSignatureWrong => {
                ConfigKey::RemoteCertificate
            }
            Self::AuthNoCa | Self::AuthChainWrong => ConfigKey::Authorities,
            Self::AuthCaRefused => ConfigKey::RemoteAuthority,
            Self::AuthPolicy => ConfigKey::CertificatePolicies,
            Self::AuthCertificateRevoked | Self::AuthCrlUnavailable | Self::AuthCrlStale => ConfigKey::Revocation,
            Self::NatPortSilent => ConfigKey::Encapsulation,
            Self::LargeMessageLost => ConfigKey::FragmentSize,
            Self::PoolExhausted | Self::NoPool | Self::AddressNotAskedFor => ConfigKey::Pools,
            Self::AddressRefused => ConfigKey::VirtualAddresses,
            // The peer's certificate or software, our clock or our machine.
            Self::AuthTimeout
            | Self::AuthCertificateLimit
            | Self::AuthCertificateMalformed
            | Self::AuthCertificateExpired
            | Self::AuthCertificateNotYetValid
            | Self::AuthKeyUsage
            | Self::AuthNameConstraints
            | Self::AuthCriticalExtension
            | Self::PeerGaveUp
            | Self::PeerMisbehaved
            | Self::PeerRefused
            | Self::Local => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = FailureCode::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), FailureCode::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|octet| octet.is_ascii_uppercase() || octet == b'_')));
    }
}
