//! What is offered and accepted when nobody says otherwise.

use espdp_api::{EspCipher, EspIntegrity, IpsecProtocol};

use super::{EspProposal, IkeCipher, IkeIntegrity, IkeProposal, KeyExchangeGroup, Prf, Rounds};

/// The default proposals for IKE SAs: what RFC 8247 recommends or allows without reserve, AEADs first. 3072-bit MODP is
/// there for peers without elliptic curves, 2048 bits for old ones. The very first wants ML-KEM after one of these, in an
/// exchange of its own, so that IKE_SA_INIT stays small; peers that do not know that take one of the others.
#[must_use]
pub fn default_ike_proposals() -> Vec<IkeProposal> {
    let prfs = vec![Prf::HmacSha2_256, Prf::HmacSha2_384, Prf::HmacSha2_512];
    let groups = vec![
        KeyExchangeGroup::Curve25519,
        KeyExchangeGroup::Ecp256,
        KeyExchangeGroup::Ecp384,
        KeyExchangeGroup::Ecp521,
        KeyExchangeGroup::Modp3072,
        KeyExchangeGroup::Modp4096,
        KeyExchangeGroup::Modp2048,
    ];
    let aead = IkeProposal {
        ciphers: vec![
            IkeCipher::AesGcm16 { key_bits: 256 },
            IkeCipher::AesGcm16 { key_bits: 128 },
            IkeCipher::ChaCha20Poly1305,
        ],
        integrity: Vec::new(),
        prfs,
        groups,
        additional: Rounds::default(),
    };
    let cbc = IkeProposal {
        ciphers: vec![IkeCipher::AesCbc { key_bits: 256 }, IkeCipher::AesCbc { key_bits: 128 }],
        integrity: vec![IkeIntegrity::HmacSha2_256_128, IkeIntegrity::HmacSha2_384_192, IkeIntegrity::HmacSha2_512_256],
        ..aead.clone()
    };
    let mut hybrid = aead.clone();
    let [first_round, ..] = &mut hybrid.additional;
    *first_round = vec![Some(KeyExchangeGroup::MlKem768), Some(KeyExchangeGroup::MlKem1024)];
    vec![hybrid, aead, cbc]
}

/// The default proposals for Child SAs, after RFC 8221, without PFS. Short sequence numbers stand first: a peer may take
/// the first it knows by name and only then find that it cannot do extended ones.
#[must_use]
pub fn default_esp_proposals() -> Vec<EspProposal> {
    let aead = EspProposal {
        protocol: IpsecProtocol::Esp,
        ciphers: vec![
            EspCipher::AesGcm16 { key_bits: 256 },
            EspCipher::AesGcm16 { key_bits: 128 },
            EspCipher::ChaCha20Poly1305,
        ],
        integrity: Vec::new(),
        groups: Vec::new(),
        additional: Rounds::default(),
        extended_sequence_numbers: vec![false, true],
    };
    let cbc = EspProposal {
        ciphers: vec![EspCipher::AesCbc { key_bits: 256 }, EspCipher::AesCbc { key_bits: 128 }],
        integrity: vec![EspIntegrity::HmacSha2_256_128, EspIntegrity::HmacSha2_384_192, EspIntegrity::HmacSha2_512_256],
        ..aead.clone()
    };
    vec![aead, cbc]
}

/// The default proposals for Child SAs of AH, after RFC 8221 §6.
#[must_use]
pub fn default_ah_proposals() -> Vec<EspProposal> {
    vec![EspProposal {
        protocol: IpsecProtocol::Ah,
        ciphers: Vec::new(),
        integrity: vec![EspIntegrity::HmacSha2_256_128, EspIntegrity::HmacSha2_384_192, EspIntegrity::HmacSha2_512_256],
        groups: Vec::new(),
        additional: Rounds::default(),
        extended_sequence_numbers: vec![false, true],
    }]
}
