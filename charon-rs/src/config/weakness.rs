//! Algorithms that are allowed and that nobody should use without a reason.

use espdp_api::{EspCipher, EspIntegrity};
use ike_proto::proposal::{EspProposal, IkeIntegrity, IkeProposal, Prf};

/// What is weak about an IKE proposal.
pub(super) fn of_ike(proposal: &IkeProposal) -> Option<String> {
    let sha1 = proposal.integrity.contains(&IkeIntegrity::HmacSha1_96) || proposal.prfs.contains(&Prf::HmacSha1);
    sha1.then(|| format!("`{proposal}` has SHA-1, which is for old peers only"))
}

/// What is weak about an ESP proposal.
pub(super) fn of_esp(proposal: &EspProposal) -> Option<String> {
    let in_clear = |cipher: &EspCipher| matches!(cipher, EspCipher::Null | EspCipher::AesGmac { .. });
    if proposal.ciphers.iter().any(in_clear) {
        return Some(format!("`{proposal}` does not encrypt: everybody on the way can read the traffic"));
    }
    let sha1 = proposal.integrity.contains(&EspIntegrity::HmacSha1_96);
    sha1.then(|| format!("`{proposal}` has SHA-1, which is for old peers only"))
}
