//! What an administrator may know of the engines.

use esp_engines::gcm::Engine;
use esp_engines::{cbc_hmac, chacha20poly1305};
use espdp_api::CryptoEngine;

/// Who computes what, and whose answers were wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CryptoReport {
    /// The engine for AES-GCM with ICVs of 16 octets, or `library`.
    pub aes_gcm: &'static str,
    /// The same for AES-CBC with HMAC-SHA2-256.
    pub aes_cbc_sha256: &'static str,
    /// The same for ChaCha20-Poly1305.
    pub chacha20poly1305: &'static str,
    /// Engines that are not used because they computed wrong answers on this processor; somebody should be told.
    pub wrong: Vec<&'static str>,
}

impl CryptoReport {
    /// What `choice` comes to on this processor. Where engines are allowed, they compute known answers the first time.
    #[must_use]
    pub fn new(choice: CryptoEngine) -> Self {
        match choice {
            CryptoEngine::Auto => {
                let detected = Engine::detect();
                let (cbc_hmac, chacha) = (cbc_hmac::Engine::detect(), chacha20poly1305::Engine::detect());
                let wrong = detected.wrong.iter().map(|engine| engine.name());
                let wrong = wrong.chain(cbc_hmac.wrong.map(cbc_hmac::Engine::name));
                Self {
                    aes_gcm: detected.engine.map_or(LIBRARY, Engine::name),
                    aes_cbc_sha256: cbc_hmac.engine.map_or(LIBRARY, cbc_hmac::Engine::name),
                    chacha20poly1305: chacha.engine.map_or(LIBRARY, chacha20poly1305::Engine::name),
                    wrong: wrong.chain(chacha.wrong.map(chacha20poly1305::Engine::name)).collect(),
                }
            }
            CryptoEngine::Library => {
                Self { aes_gcm: LIBRARY, aes_cbc_sha256: LIBRARY, chacha20poly1305: LIBRARY, wrong: Vec::new() }
            }
        }
    }
}

const LIBRARY: &str = "library";
