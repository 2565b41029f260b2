//! What an administrator may know of the engines.

use esp_engines::gcm::Engine;
use esp_engines::{cbc_hmac, chacha20poly1305};
use espdp_api::CryptoEngine;

/// Who computes what, and whose answers were wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CryptoReport {
    /// The engine for AES-GCM with ICVs of 16 octets, or `library`.
    pub aes_gcm: &'static str,
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
                let cbc_hmac = cbc_hmac::Engine::detect().wrong.map(cbc_hmac::Engine::name);
                let chacha = chacha20poly1305::Engine::detect().wrong.map(chacha20poly1305::Engine::name);
                let gcm = detected.wrong.iter().map(|engine| engine.name());
                Self {
                    aes_gcm: detected.engine.map_or(LIBRARY, Engine::name),
                    wrong: gcm.chain(cbc_hmac).chain(chacha).collect(),
                }
            }
            CryptoEngine::Library => Self { aes_gcm: LIBRARY, wrong: Vec::new() },
        }
    }
}

const LIBRARY: &str = "library";
