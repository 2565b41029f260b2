//! The key schedule: from a shared secret to the keys of IKE and Child SAs (RFC 7296 §2.14, §2.17, §2.18).
//!
//! *Initiator* and *responder* are always those of the exchange that made the keys: IKE_SA_INIT and IKE_AUTH for the first
//! SAs, afterwards whoever sent the CREATE_CHILD_SA request. When the original responder rekeys the IKE SA, it is the
//! initiator of the new one and uses `sk_ei` to send; when it rekeys a Child SA, it sends with the keys of
//! [`ChildKeys::initiator_to_responder`].

use espdp_api::{EspAlgorithms, Secret};

use crate::io::IkeSpi;
use crate::proposal::{IkeCipher, IkeIntegrity, IkeSuite, Prf};

/// What an exchange brings to the keys of an IKE SA.
#[derive(Clone, Copy, Debug)]
pub struct IkeExchange<'a> {
    /// The shared secret of the key exchange, g^ir, as [`super::key_exchange::KeyExchange::agree`] returns it.
    pub shared_secret: &'a Secret<Vec<u8>>,
    /// The initiator's nonce, without payload header.
    pub initiator_nonce: &'a [u8],
    /// The responder's nonce.
    pub responder_nonce: &'a [u8],
    /// The initiator's SPI of the SA that the keys are for: the new one in a rekeying.
    pub initiator_spi: IkeSpi,
    /// The responder's SPI of that SA.
    pub responder_spi: IkeSpi,
}

/// The keys of an IKE SA.
#[derive(Clone, Debug)]
pub struct IkeKeys {
    /// Key for Child SAs and for the SA that replaces this one.
    pub sk_d: Secret<Vec<u8>>,
    /// Integrity key of what the initiator sends; empty for AEADs.
    pub sk_ai: Secret<Vec<u8>>,
    /// Integrity key of what the responder sends; empty for AEADs.
    pub sk_ar: Secret<Vec<u8>>,
    /// Encryption key of what the initiator sends, followed by the salt of AEADs.
    pub sk_ei: Secret<Vec<u8>>,
    /// Encryption key of what the responder sends, followed by the salt of AEADs.
    pub sk_er: Secret<Vec<u8>>,
    /// Key of the initiator's AUTH payload.
    pub sk_pi: Secret<Vec<u8>>,
    /// Key of the responder's AUTH payload.
    pub sk_pr: Secret<Vec<u8>>,
}

impl IkeKeys {
    /// The keys that IKE_SA_INIT makes: `SKEYSEED = prf(Ni | Nr, g^ir)` (RFC 7296 §2.14). With HMACs as PRFs the nonces go
    /// in whole.
    #[must_use]
    pub fn first(suite: IkeSuite, exchange: &IkeExchange<'_>) -> Self {
        let nonces = [exchange.initiator_nonce, exchange.responder_nonce].concat();
        let skeyseed = suite.prf.compute(&nonces, &[exchange.shared_secret.expose()]);
        Self::from_skeyseed(suite, &skeyseed, exchange)
    }

    /// The keys of the SA that replaces another: `SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)` with the PRF of the old
    /// SA, all else with the PRF of the new `suite` (RFC 7296 §2.18, R7296-2.18-2).
    #[must_use]
    pub fn rekeyed(suite: IkeSuite, old_prf: Prf, old_sk_d: &Secret<Vec<u8>>, exchange: &IkeExchange<'_>) -> Self {
        let skeyseed = old_prf.compute(
            old_sk_d.expose(),
            &[exchange.shared_secret.expose(), exchange.initiator_nonce, exchange.responder_nonce],
        );
        Self::from_skeyseed(suite, &skeyseed, exchange)
    }

    /// `{SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr)`.
    fn from_skeyseed(suite: IkeSuite, skeyseed: &Secret<Vec<u8>>, exchange: &IkeExchange<'_>) -> Self {
        // R7296-2.14-1: SK_d, SK_pi and SK_pr are as long as the PRF likes its keys.
        let prf_key = suite.prf.key_len();
        let integrity = suite.integrity.map_or(0, IkeIntegrity::key_len);
        let encryption = suite.cipher.keymat_len();
        let seed: [&[u8]; 4] =
            [exchange.initiator_nonce, exchange.responder_nonce, &exchange.initiator_spi.0, &exchange.responder_spi.0];
        let total = 3 * prf_key + 2 * (integrity + encryption);
        let stream = suite.prf.expand(skeyseed.expose(), &seed, total);
        let mut keys = KeyStream(stream.expose());
        Self {
            sk_d: keys.take(prf_key),
            sk_ai: keys.take(integrity),
            sk_ar: keys.take(integrity),
            sk_ei: keys.take(encryption),
            sk_er: keys.take(encryption),
            sk_pi: keys.take(prf_key),
            sk_pr: keys.take(prf_key),
        }
    }
}

/// What an exchange brings to the keys of a Child SA.
#[derive(Clone, Copy, Debug)]
pub struct ChildExchange<'a> {
    /// The shared secret of a key exchange of its own (PFS); `None` if the keys come from SK_d and nonces alone.
    pub shared_secret: Option<&'a Secret<Vec<u8>>>,
    /// The initiator's nonce: that of IKE_SA_INIT for the first Child SA, else that of the CREATE_CHILD_SA exchange.
    pub initiator_nonce: &'a [u8],
    /// The responder's nonce.
    pub responder_nonce: &'a [u8],
}

/// The keys of both halves of a Child SA.
#[derive(Clone, Debug)]
pub struct ChildKeys {
    /// For what the exchange's initiator sends.
    pub initiator_to_responder: DirectionKeys,
    /// For what the exchange's responder sends.
    pub responder_to_initiator: DirectionKeys,
}

/// The keys of one half of a Child SA, as [`espdp_api::SaSpec`] wants them.
#[derive(Clone, Debug)]
pub struct DirectionKeys {
    /// Cipher key, followed by the salt of AEADs.
    pub encryption_key: Secret<Vec<u8>>,
    /// Integrity key; empty for AEADs.
    pub integrity_key: Secret<Vec<u8>>,
}

impl ChildKeys {
    /// `KEYMAT = prf+(SK_d, [g^ir (new) |] Ni | Nr)`, with the PRF and SK_d of the IKE SA that the exchange runs in. The
    /// initiator's sending half comes first, encryption before integrity (RFC 7296 §2.17, R7296-2.17-1).
    #[must_use]
    pub fn derive(prf: Prf, sk_d: &Secret<Vec<u8>>, algorithms: EspAlgorithms, exchange: &ChildExchange<'_>) -> Self {
        let shared_secret = exchange.shared_secret.map_or(&[][..], |secret| secret.expose());
        let seed = [shared_secret, exchange.initiator_nonce, exchange.responder_nonce];
        let stream = prf.expand(sk_d.expose(), &seed, 2 * algorithms.keymat_len());
        let mut keys = KeyStream(stream.expose());
        let mut direction = || DirectionKeys {
            // R4106-8.1-1: the salt follows the key.
            encryption_key: keys.take(algorithms.cipher.key_len() + algorithms.cipher.salt_len()),
            integrity_key: keys.take(algorithms.integrity.key_len()),
        };
        Self { initiator_to_responder: direction(), responder_to_initiator: direction() }
    }
}

/// What is left of the output of prf+.
struct KeyStream<'a>(&'a [u8]);

impl KeyStream<'_> {
    /// The next key. The stream was made as long as all keys together.
    fn take(&mut self, len: usize) -> Secret<Vec<u8>> {
        let (key, rest) = self.0.split_at(len);
        self.0 = rest;
        Secret::new(key.to_vec())
    }
}

impl IkeCipher {
    /// Octets of SK_ei and SK_er: the key and, for AEADs, a salt of 4 octets (RFC 5282 §7.1, RFC 7634 §3, R5282-7.1-1).
    #[must_use]
    pub fn keymat_len(self) -> usize {
        match self {
            Self::AesGcm16 { key_bits } => usize::from(key_bits / 8) + 4,
            Self::AesCbc { key_bits } => usize::from(key_bits / 8),
            Self::ChaCha20Poly1305 => 32 + 4,
        }
    }
}

impl IkeIntegrity {
    /// Octets of SK_ai and SK_ar (RFC 2404 §3, RFC 4868 §2.1.1).
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::HmacSha1_96 => 20,
            Self::HmacSha2_256_128 => 32,
            Self::HmacSha2_384_192 => 48,
            Self::HmacSha2_512_256 => 64,
        }
    }

    /// Octets of the ICV on the wire.
    #[must_use]
    pub fn icv_len(self) -> usize {
        match self {
            Self::HmacSha1_96 => 12,
            Self::HmacSha2_256_128 => 16,
            Self::HmacSha2_384_192 => 24,
            Self::HmacSha2_512_256 => 32,
        }
    }
}
