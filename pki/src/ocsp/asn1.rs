//! The structures of RFC 6960 §4.

use der::asn1::{Any, GeneralizedTime, Null, ObjectIdentifier, OctetString};
use der::{Choice, Sequence};
use x509_cert::ext::Extensions;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber as EncodedSerial;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::certificate::SerialNumber;
use crate::dn::DistinguishedName;
use crate::hash::HashAlgorithm;

/// `OCSPRequest` without the signature that nobody asks for.
#[derive(Sequence)]
pub(super) struct OcspRequest {
    pub(super) tbs: TbsRequest,
}

#[derive(Sequence)]
pub(super) struct TbsRequest {
    pub(super) requests: Vec<OneRequest>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Extensions>,
}

#[derive(Sequence)]
pub(super) struct OneRequest {
    pub(super) id: CertId,
}

/// ```text
/// CertID ::= SEQUENCE {
///     hashAlgorithm  AlgorithmIdentifier,
///     issuerNameHash OCTET STRING,       of the issuer's name
///     issuerKeyHash  OCTET STRING,       of the octets of the issuer's key
///     serialNumber   INTEGER }
/// ```
#[derive(Clone, Sequence)]
pub(super) struct CertId {
    pub(super) hash: AlgorithmIdentifierOwned,
    pub(super) issuer_name: OctetString,
    pub(super) issuer_key: OctetString,
    pub(super) serial: EncodedSerial,
}

impl CertId {
    pub(super) fn of(
        hash: HashAlgorithm,
        issuer: &DistinguishedName,
        issuer_key: &[u8],
        serial: &SerialNumber,
    ) -> der::Result<Self> {
        Ok(Self {
            hash: AlgorithmIdentifierOwned { oid: hash.oid(), parameters: Some(Any::null()) },
            issuer_name: OctetString::new(hash.digest(issuer.der()))?,
            issuer_key: OctetString::new(hash.digest(issuer_key))?,
            serial: serial.encoded()?,
        })
    }

    /// Whether both name the same certificate; parameters of the hash do not matter.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.hash.oid == other.hash.oid
            && self.issuer_name == other.issuer_name
            && self.issuer_key == other.issuer_key
            && self.serial == other.serial
    }
}

#[derive(Sequence)]
pub(super) struct OcspResponse {
    /// ENUMERATED
    pub(super) status: Any,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) bytes: Option<ResponseBytes>,
}

#[derive(Sequence)]
pub(super) struct ResponseBytes {
    pub(super) kind: ObjectIdentifier,
    pub(super) response: OctetString,
}

/// ```text
/// ResponseData ::= SEQUENCE {
///     version            [0] INTEGER DEFAULT v1,
///     responderID            CHOICE { byName [1] Name, byKey [2] OCTET STRING },
///     producedAt             GeneralizedTime,
///     responses              SEQUENCE OF SingleResponse,
///     responseExtensions [1] Extensions OPTIONAL }
/// ```
#[derive(Clone, Sequence)]
pub(super) struct ResponseData {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", default = "version_1")]
    pub(super) version: u8,
    pub(super) responder: ResponderId,
    pub(super) produced_at: GeneralizedTime,
    pub(super) responses: Vec<SingleResponse>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Extensions>,
}

fn version_1() -> u8 {
    0
}

#[derive(Clone, Choice)]
pub(super) enum ResponderId {
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true")]
    Name(Name),
    /// SHA-1 of the octets of the key.
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", constructed = "true")]
    Key(OctetString),
}

#[derive(Clone, Sequence)]
pub(super) struct SingleResponse {
    pub(super) id: CertId,
    pub(super) status: CertStatus,
    pub(super) this_update: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Extensions>,
}

#[derive(Clone, Choice)]
pub(super) enum CertStatus {
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    Good(Null),
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Revoked(RevokedInfo),
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT")]
    Unknown(Null),
}

#[derive(Clone, Sequence)]
pub(super) struct RevokedInfo {
    pub(super) time: GeneralizedTime,
    /// ENUMERATED
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) reason: Option<Any>,
}
