//! What the AUTH payload is made over, and the AUTH payload for pre-shared keys (RFC 7296 §2.15).

use espdp_api::Secret;
use subtle::ConstantTimeEq;

use crate::proposal::Prf;

/// What one end signs, and the other end checks: the signer's own first message, the other end's nonce, and the signer's
/// identity under a key that only the two know.
///
/// ```text
/// InitiatorSignedOctets = RealMessage1 | NonceRData | prf(SK_pi, RestOfInitIDPayload)
/// ResponderSignedOctets = RealMessage2 | NonceIData | prf(SK_pr, RestOfRespIDPayload)
/// ```
#[derive(Clone, Copy)]
pub struct SignedOctets<'a> {
    /// The signer's IKE_SA_INIT message as it was on the wire, from the first octet of the header to the end of the last
    /// payload, without non-ESP marker. The one that led to the SA: with cookie or other group, the last of them.
    pub message: &'a [u8],
    /// The data of the other end's Nonce payload.
    pub peer_nonce: &'a [u8],
    /// SK_pi if the initiator signs, SK_pr if the responder does.
    pub sk_p: &'a Secret<Vec<u8>>,
    /// The signer's Identification payload without its generic header: type, three reserved octets as they were sent, data.
    pub id_body: &'a [u8],
}

impl SignedOctets<'_> {
    /// The octets themselves. Whoever signs them may see them: of the key only a PRF's output is in them.
    #[must_use]
    pub fn concatenated(&self, prf: Prf) -> Vec<u8> {
        let identity = prf.compute(self.sk_p.expose(), &[self.id_body]);
        [self.message, self.peer_nonce, identity.expose()].concat()
    }
}

/// AUTH data of method 2, Shared Key Message Integrity Code:
/// `prf(prf(PSK, "Key Pad for IKEv2"), SignedOctets)`. The key may have any length; no NUL belongs to the pad
/// (R7296-2.15-1).
#[must_use]
pub fn psk_auth(prf: Prf, psk: &[u8], signed: &[u8]) -> Secret<Vec<u8>> {
    let key = prf.compute(psk, &[KEY_PAD]);
    prf.compute(key.expose(), &[signed])
}

/// Whether `received` is the AUTH data that belongs to this key and these octets (R7296-1.2-2). The comparison takes the
/// same time wherever they differ.
#[must_use]
pub fn verify_psk_auth(prf: Prf, psk: &[u8], signed: &[u8], received: &[u8]) -> bool {
    psk_auth(prf, psk, signed).expose().as_slice().ct_eq(received).into()
}

/// Whether AUTH data that did not fit `psk` fits the key without the white space at its end: a hint for the local log that
/// a newline or a blank slipped into our copy of the key. It never makes the peer authentic.
#[must_use]
pub fn fits_without_trailing_whitespace(prf: Prf, psk: &[u8], signed: &[u8], received: &[u8]) -> bool {
    let trimmed = psk.trim_ascii_end();
    trimmed.len() < psk.len() && verify_psk_auth(prf, trimmed, signed, received)
}

/// Seventeen ASCII characters, without a NUL at the end.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Vector;

    #[test]
    fn auth_data_is_that_of_a_real_exchange() {
        let exchange = Exchange::load();
        assert_eq!(psk_auth(Prf::HmacSha1, &exchange.psk, &exchange.signed()).expose(), &exchange.auth);
        assert!(verify_psk_auth(Prf::HmacSha1, &exchange.psk, &exchange.signed(), &exchange.auth));
    }

    /// R7296-1.2-2.
    #[test]
    fn auth_data_fits_nothing_else() {
        let exchange = Exchange::load();
        let fits =
            |exchange: &Exchange| verify_psk_auth(Prf::HmacSha1, &exchange.psk, &exchange.signed(), &exchange.auth);
        assert!(fits(&exchange));
        let parts: [fn(&mut Exchange) -> &mut Vec<u8>; 6] = [
            |exchange| &mut exchange.psk,
            |exchange| &mut exchange.message,
            |exchange| &mut exchange.peer_nonce,
            |exchange| exchange.sk_p.expose_mut(),
            |exchange| &mut exchange.id_body,
            |exchange| &mut exchange.auth,
        ];
        for part in parts {
            for index in 0..part(&mut Exchange::load()).len() {
                let mut changed = Exchange::load();
                part(&mut changed)[index] ^= 1;
                assert!(!fits(&changed));
            }
            let mut longer = Exchange::load();
            part(&mut longer).push(1);
            assert!(!fits(&longer));
        }
        let shorter = [&exchange.auth[..19], &[][..]];
        assert!(!shorter.iter().any(|auth| verify_psk_auth(Prf::HmacSha1, &exchange.psk, &exchange.signed(), auth)));
    }

    /// R7296-2.15-1.
    #[test]
    fn keys_of_any_length_work_and_no_nul_is_added() {
        let exchange = Exchange::load();
        let auth = |psk: &[u8]| psk_auth(Prf::HmacSha2_256, psk, &exchange.signed()).expose().clone();
        for len in [0, 1, 63, 64, 65, 256] {
            let key = vec![0x5a; len];
            let longer = [&key[..], &[0x5a]].concat();
            assert!(verify_psk_auth(Prf::HmacSha2_256, &key, &exchange.signed(), &auth(&key)));
            assert_ne!(auth(&key), auth(&longer));
        }
    }

    #[test]
    fn a_newline_at_the_end_of_our_key_is_found_out() {
        let exchange = Exchange::load();
        let fits =
            |psk: &[u8]| fits_without_trailing_whitespace(Prf::HmacSha1, psk, &exchange.signed(), &exchange.auth);
        let typed = |tail: &str| [&exchange.psk, tail.as_bytes()].concat();
        assert!(["\n", "\r\n", " ", " \t \n"].iter().all(|tail| fits(&typed(tail))));
        assert!(!fits(&exchange.psk), "the right key needs no hint");
        assert!(!fits(&typed("x\n")) && !fits(b"\n") && !fits(b""));
    }

    struct Exchange {
        psk: Vec<u8>,
        message: Vec<u8>,
        peer_nonce: Vec<u8>,
        sk_p: Secret<Vec<u8>>,
        id_body: Vec<u8>,
        auth: Vec<u8>,
    }

    impl Exchange {
        fn load() -> Self {
            let cases = Vector::parse(include_str!("../../../../tests/vectors/psk-auth.txt"));
            let case = cases.first().unwrap();
            Self {
                psk: case.octets("psk"),
                message: case.octets("message"),
                peer_nonce: case.octets("peer_nonce"),
                sk_p: case.octets("sk_p").into(),
                id_body: case.octets("id_body"),
                auth: case.octets("auth"),
            }
        }

        fn signed(&self) -> Vec<u8> {
            let signed = SignedOctets {
                message: &self.message,
                peer_nonce: &self.peer_nonce,
                sk_p: &self.sk_p,
                id_body: &self.id_body,
            };
            signed.concatenated(Prf::HmacSha1)
        }
    }
}
