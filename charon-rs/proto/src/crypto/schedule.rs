//! The key schedule: from shared secrets to the keys of IKE and Child SAs (RFC 7296 §2.14, §2.17, §2.18), with additional
//! key exchanges (RFC 9370 §2.2) and post-quantum pre-shared keys (RFC 8784 §3).
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
    /// The shared secret of the key exchange, g^ir, as [`super::key_exchange::KeyExchange::agree`] returns it. For
    /// [`IkeKeys::next`] that of the additional key exchange.
    pub shared_secret: &'a Secret<Vec<u8>>,
    /// The secrets of the IKE_FOLLOWUP_KE exchanges of a rekeying, in their order; none in IKE_SA_INIT.
    pub more_secrets: &'a [Secret<Vec<u8>>],
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
        Self::from_skeyseed(suite, &first_skeyseed(suite.prf, exchange), exchange)
    }

    /// The keys of the SA that replaces another: `SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr [| SK(1) | ... | SK(n)])`
    /// with the PRF of the old SA, all else with the PRF of the new `suite` (RFC 7296 §2.18, R7296-2.18-2; RFC 9370 §2.2.4).
    #[must_use]
    pub fn rekeyed(suite: IkeSuite, old_prf: Prf, old_sk_d: &Secret<Vec<u8>>, exchange: &IkeExchange<'_>) -> Self {
        Self::from_skeyseed(suite, &rekeyed_skeyseed(old_prf, old_sk_d, exchange), exchange)
    }

    /// The keys after an IKE_INTERMEDIATE exchange with an additional key exchange: `SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni
    /// | Nr)`, with the nonces and SPIs of IKE_SA_INIT (RFC 9370 §2.2.2).
    #[must_use]
    pub fn next(&self, suite: IkeSuite, exchange: &IkeExchange<'_>) -> Self {
        Self::rekeyed(suite, suite.prf, &self.sk_d, exchange)
    }

    /// The same keys with a post-quantum pre-shared key mixed into those that later keys and proofs of identity come from:
    /// `SK_x = prf+(PPK, SK_x')` for SK_d, SK_pi and SK_pr (RFC 8784 §3). What replaces the SA inherits it by SK_d, so that
    /// it is done once (R8784-3-3).
    #[must_use]
    pub fn with_ppk(&self, prf: Prf, ppk: &Secret<Vec<u8>>) -> Self {
        let mix = |key: &Secret<Vec<u8>>| prf.expand(ppk.expose(), &[key.expose()], prf.key_len());
        Self { sk_d: mix(&self.sk_d), sk_pi: mix(&self.sk_pi), sk_pr: mix(&self.sk_pr), ..self.clone() }
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

fn first_skeyseed(prf: Prf, exchange: &IkeExchange<'_>) -> Secret<Vec<u8>> {
    let nonces = [exchange.initiator_nonce, exchange.responder_nonce].concat();
    prf.compute(&nonces, &[exchange.shared_secret.expose()])
}

fn rekeyed_skeyseed(old_prf: Prf, old_sk_d: &Secret<Vec<u8>>, exchange: &IkeExchange<'_>) -> Secret<Vec<u8>> {
    let mut data = vec![exchange.shared_secret.expose().as_slice(), exchange.initiator_nonce, exchange.responder_nonce];
    data.extend(exchange.more_secrets.iter().map(|secret| secret.expose().as_slice()));
    old_prf.compute(old_sk_d.expose(), &data)
}

/// What an exchange brings to the keys of a Child SA.
#[derive(Clone, Copy, Debug)]
pub struct ChildExchange<'a> {
    /// The shared secret of a key exchange of its own (PFS); `None` if the keys come from SK_d and nonces alone.
    pub shared_secret: Option<&'a Secret<Vec<u8>>>,
    /// The secrets of the IKE_FOLLOWUP_KE exchanges, in their order.
    pub more_secrets: &'a [Secret<Vec<u8>>],
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
    /// `KEYMAT = prf+(SK_d, [g^ir (new) |] Ni | Nr [| SK(1) | ... | SK(n)])`, with the PRF and SK_d of the IKE SA that the
    /// exchange runs in. The initiator's sending half comes first, encryption before integrity (RFC 7296 §2.17,
    /// R7296-2.17-1; RFC 9370 §2.2.4).
    #[must_use]
    pub fn derive(prf: Prf, sk_d: &Secret<Vec<u8>>, algorithms: EspAlgorithms, exchange: &ChildExchange<'_>) -> Self {
        let shared_secret = exchange.shared_secret.map_or(&[][..], |secret| secret.expose());
        let mut seed = vec![shared_secret, exchange.initiator_nonce, exchange.responder_nonce];
        seed.extend(exchange.more_secrets.iter().map(|secret| secret.expose().as_slice()));
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

#[cfg(test)]
mod tests {
    use espdp_api::{EspCipher, EspIntegrity};

    use super::*;
    use crate::proposal::{AdditionalGroups, KeyExchangeGroup};
    use crate::testing::Vector;

    #[test]
    fn ike_keys_are_those_of_the_nist_samples() {
        for sample in Sample::all() {
            let keys = IkeKeys::first(sample.suite, &sample.exchange());
            assert_eq!(first_skeyseed(sample.suite.prf, &sample.exchange()).expose(), &sample.case.octets("skeyseed"));
            // R7296-2.14-1: seven keys, those for the PRF as long as its output.
            let prf_key = sample.suite.prf.output_len();
            let lengths = [&keys.sk_d, &keys.sk_ai, &keys.sk_ar, &keys.sk_ei, &keys.sk_er, &keys.sk_pi, &keys.sk_pr]
                .map(|key| key.expose().len());
            assert_eq!(lengths, [prf_key, 20, 20, 16, 16, prf_key, prf_key]);
            let dkm = sample.case.octets("dkm");
            assert_eq!(&in_order(&keys)[..dkm.len()], dkm);
        }
    }

    #[test]
    fn skeyseed_of_a_rekeying_is_that_of_the_nist_samples() {
        for sample in Sample::all() {
            let old = IkeKeys::first(sample.suite, &sample.exchange());
            let new = IkeExchange { shared_secret: &sample.case.octets("girnew").into(), ..sample.exchange() };
            let skeyseed = rekeyed_skeyseed(sample.suite.prf, &old.sk_d, &new);
            assert_eq!(skeyseed.expose(), &sample.case.octets("skeyseed_rekey"));
        }
    }

    /// R7296-2.18-2.
    #[test]
    fn rekeying_to_another_prf_starts_with_the_old_one_and_goes_on_with_the_new_one() {
        let sample = &Sample::all()[1];
        let old = IkeKeys::first(sample.suite, &sample.exchange());
        let suite = IkeSuite { prf: Prf::HmacSha2_384, ..sample.suite };
        let keys = IkeKeys::rekeyed(suite, sample.suite.prf, &old.sk_d, &sample.exchange());
        let skeyseed = rekeyed_skeyseed(Prf::HmacSha2_256, &old.sk_d, &sample.exchange());
        let seed = ["ni", "nr", "spii", "spir"].map(|name| sample.case.octets(name)).concat();
        let stream = Prf::HmacSha2_384.expand(skeyseed.expose(), &[&seed], 3 * 48 + 2 * (20 + 16));
        assert_eq!(&in_order(&keys), stream.expose());
    }

    /// RFC 9370 §2.2.2: a key exchange in IKE_INTERMEDIATE starts from SK_d and keeps nonces and SPIs.
    #[test]
    fn keys_after_an_additional_key_exchange_come_from_those_before_and_its_secret() {
        let sample = &Sample::all()[1];
        let (prf, before) = (sample.suite.prf, IkeKeys::first(sample.suite, &sample.exchange()));
        let secret = Secret::new(vec![7; 32]);
        let next = IkeExchange { shared_secret: &secret, ..sample.exchange() };
        let keys = before.next(sample.suite, &next);
        let nonces = ["ni", "nr"].map(|name| sample.case.octets(name)).concat();
        let skeyseed = prf.compute(before.sk_d.expose(), &[&[7; 32], &nonces]);
        let seed = [nonces, ["spii", "spir"].map(|name| sample.case.octets(name)).concat()].concat();
        let stream = prf.expand(skeyseed.expose(), &[&seed], 3 * 32 + 2 * (20 + 16));
        assert_eq!(&in_order(&keys), stream.expose());
    }

    /// RFC 9370 §2.2.4: the first secret stands before the nonces, the others behind them.
    #[test]
    fn secrets_of_followup_exchanges_stand_behind_the_nonces() {
        let sample = &Sample::all()[1];
        let (prf, old) = (sample.suite.prf, IkeKeys::first(sample.suite, &sample.exchange()));
        let more = [Secret::new(vec![7; 32]), Secret::new(vec![8; 20])];
        let data = [&sample.case.octets("gir")[..], &sample.nonces.concat(), &[7; 32], &[8; 20]].concat();
        let exchange = IkeExchange { more_secrets: &more, ..sample.exchange() };
        assert_eq!(
            rekeyed_skeyseed(prf, &old.sk_d, &exchange).expose(),
            prf.compute(old.sk_d.expose(), &[&data]).expose()
        );
        let algorithms = EspAlgorithms {
            cipher: EspCipher::ChaCha20Poly1305,
            integrity: EspIntegrity::None,
            extended_sequence_numbers: false,
        };
        let exchange = ChildExchange {
            shared_secret: Some(&sample.shared_secret),
            more_secrets: &more,
            initiator_nonce: &sample.nonces[0],
            responder_nonce: &sample.nonces[1],
        };
        let keys = ChildKeys::derive(prf, &old.sk_d, algorithms, &exchange);
        let stream = prf.expand(old.sk_d.expose(), &[&data], 72);
        assert_eq!(keys.initiator_to_responder.encryption_key.expose(), &stream.expose()[..36]);
        assert_eq!(keys.responder_to_initiator.encryption_key.expose(), &stream.expose()[36..]);
    }

    /// RFC 8784 §3: SK_d, SK_pi and SK_pr, and no other key.
    #[test]
    fn a_ppk_goes_into_the_keys_that_others_come_from() {
        let sample = &Sample::all()[2];
        let (prf, before) = (sample.suite.prf, IkeKeys::first(sample.suite, &sample.exchange()));
        let ppk = Secret::new(b"quantum".to_vec());
        let keys = before.with_ppk(prf, &ppk);
        for (old, new) in [(&before.sk_d, &keys.sk_d), (&before.sk_pi, &keys.sk_pi), (&before.sk_pr, &keys.sk_pr)] {
            // One block of prf+ is as long as the key: prf(PPK, SK_x' | 1).
            assert_eq!(new.expose(), prf.compute(b"quantum", &[old.expose(), &[1]]).expose());
        }
        let untouched =
            |keys: &IkeKeys| [&keys.sk_ai, &keys.sk_ar, &keys.sk_ei, &keys.sk_er].map(|key| key.expose().clone());
        assert_eq!(untouched(&keys), untouched(&before));
    }

    /// R5282-7.1-1, RFC 7634 §3.
    #[test]
    fn aead_suites_have_salts_and_no_integrity_keys() {
        let sample = &Sample::all()[0];
        for (cipher, len) in [
            (IkeCipher::AesGcm16 { key_bits: 128 }, 20),
            (IkeCipher::AesGcm16 { key_bits: 192 }, 28),
            (IkeCipher::AesGcm16 { key_bits: 256 }, 36),
            (IkeCipher::ChaCha20Poly1305, 36),
        ] {
            let suite = IkeSuite { cipher, integrity: None, ..sample.suite };
            let keys = IkeKeys::first(suite, &sample.exchange());
            assert_eq!((keys.sk_ai.expose().len(), keys.sk_ar.expose().len()), (0, 0));
            assert_eq!((keys.sk_ei.expose().len(), keys.sk_er.expose().len()), (len, len));
        }
    }

    /// R7296-2.17-1.
    #[test]
    fn child_keys_go_initiator_first_and_encryption_first() {
        let sample = &Sample::all()[0];
        let old = IkeKeys::first(sample.suite, &sample.exchange());
        let algorithms = EspAlgorithms {
            cipher: EspCipher::AesCbc { key_bits: 128 },
            integrity: EspIntegrity::HmacSha2_384_192,
            extended_sequence_numbers: true,
        };
        for (secret, expected) in [(None, "child_dkm"), (Some("girnew"), "child_dkm_dh")] {
            let secret = secret.map(|name| Secret::new(sample.case.octets(name)));
            let exchange = ChildExchange {
                shared_secret: secret.as_ref(),
                more_secrets: &[],
                initiator_nonce: &sample.nonces[0],
                responder_nonce: &sample.nonces[1],
            };
            let keys = ChildKeys::derive(sample.suite.prf, &old.sk_d, algorithms, &exchange);
            let stream = sample.case.octets(expected);
            assert_eq!(keys.initiator_to_responder.encryption_key.expose(), &stream[..16]);
            assert_eq!(keys.initiator_to_responder.integrity_key.expose(), &stream[16..64]);
            assert_eq!(keys.responder_to_initiator.encryption_key.expose(), &stream[64..80]);
            assert_eq!(keys.responder_to_initiator.integrity_key.expose(), &stream[80..128]);
        }
    }

    /// R4106-8.1-1.
    #[test]
    fn child_keys_of_aeads_end_with_the_salt() {
        let sample = &Sample::all()[0];
        let old = IkeKeys::first(sample.suite, &sample.exchange());
        let algorithms = EspAlgorithms {
            cipher: EspCipher::AesGcm16 { key_bits: 256 },
            integrity: EspIntegrity::None,
            extended_sequence_numbers: true,
        };
        let exchange = ChildExchange {
            shared_secret: None,
            more_secrets: &[],
            initiator_nonce: &sample.nonces[0],
            responder_nonce: &sample.nonces[1],
        };
        let keys = ChildKeys::derive(sample.suite.prf, &old.sk_d, algorithms, &exchange);
        let stream = sample.case.octets("child_dkm");
        assert_eq!(keys.initiator_to_responder.encryption_key.expose(), &stream[..36]);
        assert_eq!(keys.responder_to_initiator.encryption_key.expose(), &stream[36..72]);
        assert!(keys.initiator_to_responder.integrity_key.expose().is_empty());
    }

    /// A sample of NIST with a suite whose keys are about as long as the stream that the sample gives.
    struct Sample {
        case: Vector<'static>,
        suite: IkeSuite,
        shared_secret: Secret<Vec<u8>>,
        nonces: [Vec<u8>; 2],
        spis: [IkeSpi; 2],
    }

    impl Sample {
        fn all() -> Vec<Self> {
            let cases = Vector::parse(include_str!("../../../../tests/vectors/ikev2-kdf.txt"));
            assert_eq!(cases.len(), 3);
            cases.into_iter().map(Self::new).collect()
        }

        fn new(case: Vector<'static>) -> Self {
            let prf = match case.text("prf") {
                Some("HMAC-SHA-1") => Prf::HmacSha1,
                Some("HMAC-SHA-256") => Prf::HmacSha2_256,
                Some("HMAC-SHA-384") => Prf::HmacSha2_384,
                other => panic!("no PRF {other:?}"),
            };
            let suite = IkeSuite {
                cipher: IkeCipher::AesCbc { key_bits: 128 },
                integrity: Some(IkeIntegrity::HmacSha1_96),
                prf,
                group: KeyExchangeGroup::Modp2048,
                additional: AdditionalGroups::default(),
            };
            Self {
                suite,
                shared_secret: case.octets("gir").into(),
                nonces: ["ni", "nr"].map(|name| case.octets(name)),
                spis: ["spii", "spir"].map(|name| IkeSpi(case.octets(name).try_into().unwrap())),
                case,
            }
        }

        fn exchange(&self) -> IkeExchange<'_> {
            IkeExchange {
                shared_secret: &self.shared_secret,
                more_secrets: &[],
                initiator_nonce: &self.nonces[0],
                responder_nonce: &self.nonces[1],
                initiator_spi: self.spis[0],
                responder_spi: self.spis[1],
            }
        }
    }

    fn in_order(keys: &IkeKeys) -> Vec<u8> {
        [&keys.sk_d, &keys.sk_ai, &keys.sk_ar, &keys.sk_ei, &keys.sk_er, &keys.sk_pi, &keys.sk_pr]
            .map(|key| key.expose().as_slice())
            .concat()
    }
}
