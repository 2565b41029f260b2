//! The AUTH payload for pre-shared keys (RFC 7296 §2.15).

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

/// AUTH data of method 2, Shared Key Message Integrity Code:
/// `prf(prf(PSK, "Key Pad for IKEv2"), SignedOctets)`. The key may have any length; no NUL belongs to the pad
/// (R7296-2.15-1).
#[must_use]
pub fn psk_auth(prf: Prf, psk: &[u8], signed: &SignedOctets<'_>) -> Secret<Vec<u8>> {
    let key = prf.compute(psk, &[KEY_PAD]);
    let identity = prf.compute(signed.sk_p.expose(), &[signed.id_body]);
    prf.compute(key.expose(), &[signed.message, signed.peer_nonce, identity.expose()])
}

/// Whether `received` is the AUTH data that belongs to this key and these octets (R7296-1.2-2). The comparison takes the
/// same time wherever they differ.
#[must_use]
pub fn verify_psk_auth(prf: Prf, psk: &[u8], signed: &SignedOctets<'_>, received: &[u8]) -> bool {
    psk_auth(prf, psk, signed).expose().as_slice().ct_eq(received).into()
}

/// Whether AUTH data that did not fit `psk` fits the key without the white space at its end: a hint for the local log that
/// a newline or a blank slipped into our copy of the key. It never makes the peer authentic.
#[must_use]
pub fn fits_without_trailing_whitespace(prf: Prf, psk: &[u8], signed: &SignedOctets<'_>, received: &[u8]) -> bool {
    let trimmed = psk.trim_ascii_end();
    trimmed.len() < psk.len() && verify_psk_auth(prf, trimmed, signed, received)
}

/// Seventeen ASCII characters, without a NUL at the end.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";
