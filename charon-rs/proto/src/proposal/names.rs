//! What a peer's transforms are called, also those that are not supported here.

use espdp_api::{EspCipher, EspIntegrity};

use super::algorithm::{Algorithm, SequenceNumbers};
use super::{KeyExchangeGroup, Prf};
use crate::wire::{Attribute, AttributeValue, TransformType, WireProposal, WireTransform};

/// A proposal as strongSwan's logs show it: `ESP:AES_CBC_256/HMAC_SHA2_256_128/NO_EXT_SEQ`.
#[must_use]
pub fn describe_proposal(proposal: &WireProposal) -> String {
    let transforms: Vec<_> = proposal.transforms.iter().map(describe_transform).collect();
    format!("{}:{}", proposal.protocol, transforms.join("/"))
}

/// A transform as strongSwan's logs show it: `AES_CBC_256`. Numbers that have no name here are shown as such, and so are
/// attributes that nobody expects.
#[must_use]
pub fn describe_transform(transform: &WireTransform) -> String {
    let WireTransform { kind, id, attributes } = transform;
    let mut text = match (*kind, name(*kind, *id)) {
        (TransformType::AdditionalKeyExchange(_), _) => {
            let method = name(TransformType::KeyExchange, *id).map_or_else(|| id.to_string(), str::to_owned);
            format!("{}_{method}", prefix(*kind))
        }
        (_, Some(name)) => name.to_owned(),
        (_, None) => format!("{}_{id}", prefix(*kind)),
    };
    for Attribute { kind, value } in attributes {
        text += &match (*kind, value) {
            (Attribute::KEY_LENGTH, AttributeValue::Short(bits)) => format!("_{bits}"),
            (kind, AttributeValue::Short(value)) => format!("(attribute {kind}: {value})"),
            (kind, AttributeValue::Long(octets)) => format!("(attribute {kind}: {} octets)", octets.len()),
        };
    }
    text
}

fn name(kind: TransformType, id: u16) -> Option<&'static str> {
    let ours = match kind {
        TransformType::Encryption => named::<EspCipher>(id),
        TransformType::PseudoRandomFunction => named::<Prf>(id),
        TransformType::Integrity => named::<EspIntegrity>(id),
        TransformType::KeyExchange => named::<KeyExchangeGroup>(id),
        TransformType::SequenceNumbers => named::<SequenceNumbers>(id),
        TransformType::AdditionalKeyExchange(_) => return None,
        TransformType::Other(_) => None,
    };
    let foreign = || FOREIGN.iter().find(|(its_kind, its_id, _)| (*its_kind, *its_id) == (kind, id));
    ours.or_else(|| foreign().map(|(_, _, name)| *name))
}

fn named<A: Algorithm>(id: u16) -> Option<&'static str> {
    A::ALL.iter().find(|algorithm| algorithm.id() == id).map(|algorithm| algorithm.name())
}

fn prefix(kind: TransformType) -> String {
    match kind {
        TransformType::Encryption => "ENCR".to_owned(),
        TransformType::PseudoRandomFunction => "PRF".to_owned(),
        TransformType::Integrity => "INTEG".to_owned(),
        TransformType::KeyExchange => "KE".to_owned(),
        TransformType::SequenceNumbers => "ESN".to_owned(),
        TransformType::AdditionalKeyExchange(round) => format!("KE{}", round.number()),
        TransformType::Other(number) => format!("TYPE{number}"),
    }
}

/// Assigned numbers that are not supported here, so that a peer's offer can be read.
const FOREIGN: &[(TransformType, u16, &str)] = {
    use TransformType::{Encryption, Integrity, KeyExchange, PseudoRandomFunction};
    &[
        (Encryption, 2, "DES_CBC"),
        (Encryption, 3, "3DES_CBC"),
        (Encryption, 6, "CAST_CBC"),
        (Encryption, 7, "BLOWFISH_CBC"),
        (Encryption, 23, "CAMELLIA_CBC"),
        (Encryption, 24, "CAMELLIA_CTR"),
        (Encryption, 25, "CAMELLIA_CCM_8"),
        (Encryption, 26, "CAMELLIA_CCM_12"),
        (Encryption, 27, "CAMELLIA_CCM_16"),
        (Encryption, 29, "AES_CCM_8_IIV"),
        (Encryption, 30, "AES_GCM_16_IIV"),
        (Encryption, 31, "CHACHA20_POLY1305_IIV"),
        (PseudoRandomFunction, 1, "PRF_HMAC_MD5"),
        (PseudoRandomFunction, 4, "PRF_AES128_XCBC"),
        (PseudoRandomFunction, 8, "PRF_AES128_CMAC"),
        (Integrity, 0, "NONE"),
        (Integrity, 1, "HMAC_MD5_96"),
        (Integrity, 5, "AES_XCBC_96"),
        (Integrity, 6, "HMAC_MD5_128"),
        (Integrity, 7, "HMAC_SHA1_160"),
        (Integrity, 9, "AES_128_GMAC"),
        (Integrity, 10, "AES_192_GMAC"),
        (Integrity, 11, "AES_256_GMAC"),
        (KeyExchange, 0, "NONE"),
        (KeyExchange, 1, "MODP_768"),
        (KeyExchange, 2, "MODP_1024"),
        (KeyExchange, 5, "MODP_1536"),
        (KeyExchange, 17, "MODP_6144"),
        (KeyExchange, 18, "MODP_8192"),
        (KeyExchange, 22, "MODP_1024_160"),
        (KeyExchange, 23, "MODP_2048_224"),
        (KeyExchange, 24, "MODP_2048_256"),
        (KeyExchange, 25, "ECP_192"),
        (KeyExchange, 26, "ECP_224"),
        (KeyExchange, 27, "ECP_224_BP"),
        (KeyExchange, 28, "ECP_256_BP"),
        (KeyExchange, 29, "ECP_384_BP"),
        (KeyExchange, 30, "ECP_512_BP"),
        (KeyExchange, 32, "CURVE_448"),
    ]
};
