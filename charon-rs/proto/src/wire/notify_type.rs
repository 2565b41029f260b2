//! Types of notifications (RFC 7296 §3.10.1 and IANA's registry).

use std::fmt;

macro_rules! notify_types {
    ($($variant:ident = $number:literal, $name:literal, $short:literal, $reference:literal;)*) => {
        /// What a notification says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum NotifyType {
            $(
                #[doc = concat!("`", $name, "`, ", stringify!($number), " (", $reference, ").")]
                $variant,
            )*
            /// Any other number.
            Other(u16),
        }

        impl NotifyType {
            /// The type with this number.
            #[must_use]
            pub fn from_number(number: u16) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    other => Self::Other(other),
                }
            }

            /// The number of this type.
            #[must_use]
            pub fn number(self) -> u16 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Other(number) => number,
                }
            }

            fn names(self) -> Option<(&'static str, &'static str)> {
                match self {
                    $(Self::$variant => Some(($name, $short)),)*
                    Self::Other(_) => None,
                }
            }
        }

        #[cfg(test)]
        const NAMED: &[(NotifyType, u16)] = &[$((NotifyType::$variant, $number)),*];
    };
}

notify_types! {
    UnsupportedCriticalPayload = 1, "UNSUPPORTED_CRITICAL_PAYLOAD", "CRIT", "RFC 7296 §2.5";
    InvalidIkeSpi = 4, "INVALID_IKE_SPI", "INVAL_IKE_SPI", "RFC 7296 §2.21";
    InvalidMajorVersion = 5, "INVALID_MAJOR_VERSION", "INVAL_MAJOR", "RFC 7296 §2.5";
    InvalidSyntax = 7, "INVALID_SYNTAX", "INVAL_SYN", "RFC 7296 §3.10.1";
    InvalidMessageId = 9, "INVALID_MESSAGE_ID", "INVAL_MID", "RFC 7296 §2.3";
    InvalidSpi = 11, "INVALID_SPI", "INVAL_SPI", "RFC 7296 §1.5";
    NoProposalChosen = 14, "NO_PROPOSAL_CHOSEN", "NO_PROP", "RFC 7296 §2.7";
    InvalidKePayload = 17, "INVALID_KE_PAYLOAD", "INVAL_KE", "RFC 7296 §1.2";
    AuthenticationFailed = 24, "AUTHENTICATION_FAILED", "AUTH_FAILED", "RFC 7296 §2.21.2";
    SinglePairRequired = 34, "SINGLE_PAIR_REQUIRED", "SINGLE_PAIR", "RFC 7296 §2.9";
    NoAdditionalSas = 35, "NO_ADDITIONAL_SAS", "NO_ADD_SAS", "RFC 7296 §1.3";
    InternalAddressFailure = 36, "INTERNAL_ADDRESS_FAILURE", "INT_ADDR_FAIL", "RFC 7296 §3.15.4";
    FailedCpRequired = 37, "FAILED_CP_REQUIRED", "FAIL_CP_REQ", "RFC 7296 §2.19";
    TsUnacceptable = 38, "TS_UNACCEPTABLE", "TS_UNACCEPT", "RFC 7296 §2.9";
    InvalidSelectors = 39, "INVALID_SELECTORS", "INVAL_SEL", "RFC 7296 §3.10.1";
    UnacceptableAddresses = 40, "UNACCEPTABLE_ADDRESSES", "UNACCEPT_ADDR", "RFC 4555";
    UnexpectedNatDetected = 41, "UNEXPECTED_NAT_DETECTED", "UNEXPECT_NAT", "RFC 4555";
    TemporaryFailure = 43, "TEMPORARY_FAILURE", "TEMP_FAIL", "RFC 7296 §2.25";
    ChildSaNotFound = 44, "CHILD_SA_NOT_FOUND", "NO_CHILD_SA", "RFC 7296 §2.25";
    InvalidGroupId = 45, "INVALID_GROUP_ID", "INVAL_GROUP_ID", "RFC 9838";
    AuthorizationFailed = 46, "AUTHORIZATION_FAILED", "AUTHZ_FAILED", "RFC 9838";
    StateNotFound = 47, "STATE_NOT_FOUND", "NO_STATE", "RFC 9370";
    TsMaxQueue = 48, "TS_MAX_QUEUE", "TS_MAX_QUEUE", "RFC 9611";
    InitialContact = 16384, "INITIAL_CONTACT", "INIT_CONTACT", "RFC 7296 §2.4";
    SetWindowSize = 16385, "SET_WINDOW_SIZE", "SET_WINSIZE", "RFC 7296 §2.3";
    AdditionalTsPossible = 16386, "ADDITIONAL_TS_POSSIBLE", "ADD_TS_POSS", "RFC 7296 §2.9";
    IpcompSupported = 16387, "IPCOMP_SUPPORTED", "IPCOMP_SUP", "RFC 7296 §2.22";
    NatDetectionSourceIp = 16388, "NAT_DETECTION_SOURCE_IP", "NATD_S_IP", "RFC 7296 §2.23";
    NatDetectionDestinationIp = 16389, "NAT_DETECTION_DESTINATION_IP", "NATD_D_IP", "RFC 7296 §2.23";
    Cookie = 16390, "COOKIE", "COOKIE", "RFC 7296 §2.6";
    UseTransportMode = 16391, "USE_TRANSPORT_MODE", "USE_TRANSP", "RFC 7296 §1.3.1";
    HttpCertLookupSupported = 16392, "HTTP_CERT_LOOKUP_SUPPORTED", "HTTP_CERT_LOOK", "RFC 7296 §3.6";
    RekeySa = 16393, "REKEY_SA", "REKEY_SA", "RFC 7296 §1.3.3";
    EspTfcPaddingNotSupported = 16394, "ESP_TFC_PADDING_NOT_SUPPORTED", "ESP_TFC_PAD_N", "RFC 7296 §1.3.1";
    NonFirstFragmentsAlso = 16395, "NON_FIRST_FRAGMENTS_ALSO", "NON_FIRST_FRAG", "RFC 7296 §1.3.1";
    MobikeSupported = 16396, "MOBIKE_SUPPORTED", "MOBIKE_SUP", "RFC 4555";
    AdditionalIp4Address = 16397, "ADDITIONAL_IP4_ADDRESS", "ADD_4_ADDR", "RFC 4555";
    AdditionalIp6Address = 16398, "ADDITIONAL_IP6_ADDRESS", "ADD_6_ADDR", "RFC 4555";
    NoAdditionalAddresses = 16399, "NO_ADDITIONAL_ADDRESSES", "NO_ADD_ADDR", "RFC 4555";
    UpdateSaAddresses = 16400, "UPDATE_SA_ADDRESSES", "UPD_SA_ADDR", "RFC 4555";
    Cookie2 = 16401, "COOKIE2", "COOKIE2", "RFC 4555";
    NoNatsAllowed = 16402, "NO_NATS_ALLOWED", "NO_NATS", "RFC 4555";
    AuthLifetime = 16403, "AUTH_LIFETIME", "AUTH_LFT", "RFC 4478";
    MultipleAuthSupported = 16404, "MULTIPLE_AUTH_SUPPORTED", "MULT_AUTH", "RFC 4739";
    AnotherAuthFollows = 16405, "ANOTHER_AUTH_FOLLOWS", "AUTH_FOLLOWS", "RFC 4739";
    RedirectSupported = 16406, "REDIRECT_SUPPORTED", "REDIR_SUP", "RFC 5685";
    Redirect = 16407, "REDIRECT", "REDIR", "RFC 5685";
    RedirectedFrom = 16408, "REDIRECTED_FROM", "REDIR_FROM", "RFC 5685";
    TicketLtOpaque = 16409, "TICKET_LT_OPAQUE", "TKT_LT_OPAK", "RFC 5723";
    TicketRequest = 16410, "TICKET_REQUEST", "TKT_REQ", "RFC 5723";
    TicketAck = 16411, "TICKET_ACK", "TKT_ACK", "RFC 5723";
    TicketNack = 16412, "TICKET_NACK", "TKT_NACK", "RFC 5723";
    TicketOpaque = 16413, "TICKET_OPAQUE", "TKT_OPAK", "RFC 5723";
    LinkId = 16414, "LINK_ID", "LINK_ID", "RFC 5739";
    UseWespMode = 16415, "USE_WESP_MODE", "WESP_MODE", "RFC 5840";
    RohcSupported = 16416, "ROHC_SUPPORTED", "ROHC_SUP", "RFC 5857";
    EapOnlyAuthentication = 16417, "EAP_ONLY_AUTHENTICATION", "EAP_ONLY", "RFC 5998";
    ChildlessIkev2Supported = 16418, "CHILDLESS_IKEV2_SUPPORTED", "CHDLESS_SUP", "RFC 6023";
    QuickCrashDetection = 16419, "QUICK_CRASH_DETECTION", "CRASH_DET", "RFC 6290";
    MessageIdSyncSupported = 16420, "IKEV2_MESSAGE_ID_SYNC_SUPPORTED", "MSG_ID_SYN_SUP", "RFC 6311";
    ReplayCounterSyncSupported = 16421, "IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED", "RPL_CTR_SYN_SUP", "RFC 6311";
    MessageIdSync = 16422, "IKEV2_MESSAGE_ID_SYNC", "MSG_ID_SYN", "RFC 6311";
    ReplayCounterSync = 16423, "IPSEC_REPLAY_COUNTER_SYNC", "RPL_CTR_SYN", "RFC 6311";
    SecurePasswordMethods = 16424, "SECURE_PASSWORD_METHODS", "SEC_PASSWD", "RFC 6467";
    PskPersist = 16425, "PSK_PERSIST", "PSK_PST", "RFC 6631";
    PskConfirm = 16426, "PSK_CONFIRM", "PSK_CFM", "RFC 6631";
    ErxSupported = 16427, "ERX_SUPPORTED", "ERX_SUP", "RFC 6867";
    IfomCapability = 16428, "IFOM_CAPABILITY", "IFOM_CAP", "3GPP TS 24.303";
    SenderRequestId = 16429, "SENDER_REQUEST_ID", "SENDER_REQ_ID", "draft-yeung-g-ikev2";
    FragmentationSupported = 16430, "IKEV2_FRAGMENTATION_SUPPORTED", "FRAG_SUP", "RFC 7383";
    SignatureHashAlgorithms = 16431, "SIGNATURE_HASH_ALGORITHMS", "HASH_ALG", "RFC 7427";
    CloneIkeSaSupported = 16432, "CLONE_IKE_SA_SUPPORTED", "CLONE_SUP", "RFC 7791";
    CloneIkeSa = 16433, "CLONE_IKE_SA", "CLONE", "RFC 7791";
    Puzzle = 16434, "PUZZLE", "PUZZLE", "RFC 8019";
    UsePpk = 16435, "USE_PPK", "USE_PPK", "RFC 8784";
    PpkIdentity = 16436, "PPK_IDENTITY", "PPK_ID", "RFC 8784";
    NoPpkAuth = 16437, "NO_PPK_AUTH", "NO_PPK", "RFC 8784";
    IntermediateExchangeSupported = 16438, "INTERMEDIATE_EXCHANGE_SUPPORTED", "INT_SUP", "RFC 9242";
    Ip4Allowed = 16439, "IP4_ALLOWED", "IP4_ALLOWED", "RFC 8983";
    Ip6Allowed = 16440, "IP6_ALLOWED", "IP6_ALLOWED", "RFC 8983";
    AdditionalKeyExchange = 16441, "ADDITIONAL_KEY_EXCHANGE", "ADD_KE", "RFC 9370";
    UseAggfrag = 16442, "USE_AGGFRAG", "AGGFRAG", "RFC 9347";
    SupportedAuthMethods = 16443, "SUPPORTED_AUTH_METHODS", "AUTH_METHODS", "RFC 9593";
    SaResourceInfo = 16444, "SA_RESOURCE_INFO", "SA_RES_INFO", "RFC 9611";
    UsePpkInt = 16445, "USE_PPK_INT", "USE_PPK_INT", "RFC 9867";
    PpkIdentityKey = 16446, "PPK_IDENTITY_KEY", "PPK_ID_KEY", "RFC 9867";
}

impl NotifyType {
    /// Whether it reports an error: a request that is answered with an error, known or not, has failed. In a request
    /// unknown ones are ignored, and so are unknown types that are no errors, everywhere (RFC 7296 §3.10.1).
    #[must_use]
    pub fn is_error(self) -> bool {
        self.number() < 16384
    }

    /// The name as in strongSwan's logs, for one-line summaries: `N(NATD_S_IP)` is made of it.
    #[must_use]
    pub fn short_name(self) -> Option<&'static str> {
        self.names().map(|(_, short)| short)
    }
}

impl fmt::Display for NotifyType {
    /// IANA's name, or `notify 12345`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names() {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "notify {}", self.number()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        for number in 0..=u16::MAX {
            assert_eq!(NotifyType::from_number(number).number(), number);
        }
        for &(kind, number) in NAMED {
            assert_eq!((NotifyType::from_number(number), kind.number()), (kind, number));
        }
    }

    #[test]
    fn errors_are_those_below_16384() {
        assert!(NotifyType::ChildSaNotFound.is_error());
        assert!(NotifyType::Other(16383).is_error());
        assert!(!NotifyType::InitialContact.is_error());
        assert!(!NotifyType::Other(40960).is_error());
    }
}
