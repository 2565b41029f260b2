//! Which keys and hashes are strong enough.

use std::fmt;
use std::str::FromStr;

use crate::hash::HashAlgorithm;
use crate::key::KeyType;
use crate::signature::SignatureScheme;

/// Which keys and signatures are accepted.
///
/// As text: kinds of keys, each with the least size, and hashes, all joined by `-`, as strongSwan writes it:
/// `rsa-3072-ecdsa-256-sha256-sha384`, `ed25519`, `rsa/pss-sha256`, `pubkey-sha512`. Naming a kind allows just the kinds that
/// are named (`pubkey` means all). Hashes belong to the kinds in front of them; without any all but SHA-1 are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strength {
    /// What is allowed; empty for everything.
    rules: Vec<Rule>,
}

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with any padding.
    Rsa,
    /// RSA, signatures with PSS only.
    RsaPss,
    /// ECDSA.
    Ecdsa,
    /// Ed25519.
    Ed25519,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// `None`: all kinds.
    kind: Option<KeyKind>,
    min_bits: u32,
    /// Empty: all but SHA-1.
    hashes: Vec<HashAlgorithm>,
}

/// Why a text says nothing about strength.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StrengthTextError {
    /// A word that is neither a kind of key, a size nor a hash.
    #[error("`{word}` in `{text}` is neither a kind of key (pubkey, rsa, rsa/pss, ecdsa, ed25519), a size nor a hash")]
    Word {
        /// The word.
        word: String,
        /// All of it.
        text: String,
    },
    /// A size or hash with nothing that it belongs to.
    #[error("`{word}` in `{text}` must stand behind a kind of key")]
    Order {
        /// The word.
        word: String,
        /// All of it.
        text: String,
    },
}

impl Default for Strength {
    /// RSA from 2048 bits, all other kinds, all hashes but SHA-1.
    fn default() -> Self {
        Self { rules: Vec::new() }
    }
}

impl Strength {
    /// Everything that can be verified at all, SHA-1 and RSA with 1024 bits too.
    #[must_use]
    pub fn weakest() -> Self {
        Self { rules: vec![Rule { kind: None, min_bits: 1, hashes: HashAlgorithm::ALL.to_vec() }] }
    }

    /// Whether a key is strong enough.
    ///
    /// # Errors
    /// What is allowed, as text.
    pub fn check_key(&self, key: KeyType) -> Result<(), String> {
        let fits = |rule: &Rule| rule.fits(key) && key.bits() >= rule.min_bits_of(key);
        if self.effective().iter().any(fits) { Ok(()) } else { Err(self.to_string()) }
    }

    /// Whether signatures of this kind are strong enough.
    ///
    /// # Errors
    /// What is allowed, as text.
    pub fn check_signature(&self, scheme: SignatureScheme) -> Result<(), String> {
        let hash_fits = |rule: &Rule| match scheme.hash() {
            Some(HashAlgorithm::Sha1) => rule.hashes.contains(&HashAlgorithm::Sha1),
            Some(hash) => rule.hashes.is_empty() || rule.hashes.contains(&hash),
            None => true,
        };
        let fits = |rule: &Rule| rule.fits_scheme(scheme) && hash_fits(rule);
        if self.effective().iter().any(fits) { Ok(()) } else { Err(self.to_string()) }
    }

    fn effective(&self) -> Vec<Rule> {
        if self.rules.is_empty() {
            vec![Rule { kind: None, min_bits: 0, hashes: Vec::new() }]
        } else {
            self.rules.clone()
        }
    }
}

impl Rule {
    fn fits(&self, key: KeyType) -> bool {
        match (self.kind, key) {
            (None, _) => true,
            (Some(kind), KeyType::Rsa { .. }) => matches!(kind, KeyKind::Rsa | KeyKind::RsaPss),
            (Some(kind), KeyType::Ecdsa(_)) => kind == KeyKind::Ecdsa,
            (Some(kind), KeyType::Ed25519) => kind == KeyKind::Ed25519,
        }
    }

    fn fits_scheme(&self, scheme: SignatureScheme) -> bool {
        match (self.kind, scheme) {
            (None, _) => true,
            (Some(kind), SignatureScheme::RsaPkcs1(_)) => kind == KeyKind::Rsa,
            (Some(kind), SignatureScheme::RsaPss { .. }) => matches!(kind, KeyKind::Rsa | KeyKind::RsaPss),
            (Some(kind), SignatureScheme::Ecdsa(_)) => kind == KeyKind::Ecdsa,
            (Some(kind), SignatureScheme::Ed25519) => kind == KeyKind::Ed25519,
        }
    }

    /// Without a size RSA has the one below which it is known to be weak.
    fn min_bits_of(&self, key: KeyType) -> u32 {
        match (self.min_bits, key) {
            (0, KeyType::Rsa { .. }) => DEFAULT_RSA_BITS,
            (bits, _) => bits,
        }
    }
}

impl FromStr for Strength {
    type Err = StrengthTextError;

    fn from_str(text: &str) -> Result<Self, StrengthTextError> {
        let mut rules: Vec<Rule> = Vec::new();
        // The rules that the next hash belongs to: those after the last hash.
        let (mut open_from, mut in_hashes) = (0, false);
        for word in text.split('-') {
            let order = || StrengthTextError::Order { word: word.to_owned(), text: text.to_owned() };
            if let Some(kind) = kind_called(word) {
                open_from = if in_hashes { rules.len() } else { open_from };
                in_hashes = false;
                rules.push(Rule { kind, min_bits: 0, hashes: Vec::new() });
            } else if let Ok(bits) = word.parse() {
                rules.last_mut().filter(|rule| rule.min_bits == 0 && !in_hashes).ok_or_else(order)?.min_bits = bits;
            } else if let Ok(hash) = word.parse() {
                let open = rules.get_mut(open_from..).filter(|open| !open.is_empty()).ok_or_else(order)?;
                open.iter_mut().for_each(|rule| rule.hashes.push(hash));
                in_hashes = true;
            } else {
                return Err(StrengthTextError::Word { word: word.to_owned(), text: text.to_owned() });
            }
        }
        Ok(Self { rules })
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rules.is_empty() {
            return write!(f, "rsa-{DEFAULT_RSA_BITS}-ecdsa-ed25519-sha256-sha384-sha512");
        }
        for (index, rule) in self.rules.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "-" })?;
            f.write_str(match rule.kind {
                None => "pubkey",
                Some(KeyKind::Rsa) => "rsa",
                Some(KeyKind::RsaPss) => "rsa/pss",
                Some(KeyKind::Ecdsa) => "ecdsa",
                Some(KeyKind::Ed25519) => "ed25519",
            })?;
            if rule.min_bits > 0 {
                write!(f, "-{}", rule.min_bits)?;
            }
            // Hashes that the next kind has too are written once.
            if self.rules.get(index.saturating_add(1)).is_none_or(|next| next.hashes != rule.hashes) {
                rule.hashes
                    .iter()
                    .try_for_each(|hash| write!(f, "-{}", hash.to_string().to_lowercase().replace("sha-", "sha")))?;
            }
        }
        Ok(())
    }
}

fn kind_called(word: &str) -> Option<Option<KeyKind>> {
    match word.to_ascii_lowercase().as_str() {
        "pubkey" => Some(None),
        "rsa" => Some(Some(KeyKind::Rsa)),
        "rsa/pss" => Some(Some(KeyKind::RsaPss)),
        "ecdsa" => Some(Some(KeyKind::Ecdsa)),
        "ed25519" => Some(Some(KeyKind::Ed25519)),
        _ => None,
    }
}

const DEFAULT_RSA_BITS: u32 = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Curve;

    const RSA_2048: KeyType = KeyType::Rsa { bits: 2048 };
    const RSA_3072: KeyType = KeyType::Rsa { bits: 3072 };

    fn strength(text: &str) -> Strength {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn kinds_and_sizes_of_keys_are_checked() {
        let wanted = strength("rsa-3072-ecdsa-256-sha256");
        assert_eq!(wanted.check_key(RSA_3072), Ok(()));
        assert_eq!(wanted.check_key(RSA_2048), Err("rsa-3072-ecdsa-256-sha256".to_owned()));
        assert_eq!(wanted.check_key(KeyType::Ecdsa(Curve::P256)), Ok(()));
        assert!(wanted.check_key(KeyType::Ed25519).is_err());
        assert!(strength("ecdsa-384").check_key(KeyType::Ecdsa(Curve::P256)).is_err());
        assert_eq!(strength("pubkey-sha512").check_key(KeyType::Ed25519), Ok(()));
    }

    #[test]
    fn hashes_belong_to_the_kinds_in_front_of_them() {
        let wanted = strength("rsa-3072-ecdsa-256-sha256-ed25519");
        assert_eq!(wanted.check_signature(SignatureScheme::RsaPkcs1(HashAlgorithm::Sha256)), Ok(()));
        assert_eq!(wanted.check_signature(SignatureScheme::pss(HashAlgorithm::Sha256)), Ok(()));
        assert!(wanted.check_signature(SignatureScheme::Ecdsa(HashAlgorithm::Sha512)).is_err());
        assert_eq!(wanted.check_signature(SignatureScheme::Ed25519), Ok(()));
        let apart = strength("rsa-sha512-ecdsa-sha256");
        assert!(apart.check_signature(SignatureScheme::RsaPkcs1(HashAlgorithm::Sha256)).is_err());
        assert!(apart.check_signature(SignatureScheme::Ecdsa(HashAlgorithm::Sha256)).is_ok());
        let pss = strength("rsa/pss-sha256");
        assert!(pss.check_signature(SignatureScheme::RsaPkcs1(HashAlgorithm::Sha256)).is_err());
        assert!(pss.check_signature(SignatureScheme::pss(HashAlgorithm::Sha256)).is_ok());
        assert!(pss.check_key(RSA_2048).is_ok() && pss.check_key(KeyType::Rsa { bits: 1024 }).is_err());
    }

    #[test]
    fn sha1_and_short_rsa_keys_count_only_when_they_are_named() {
        let sha1 = SignatureScheme::RsaPkcs1(HashAlgorithm::Sha1);
        assert!(Strength::default().check_signature(sha1).is_err() && strength("rsa").check_signature(sha1).is_err());
        assert!(
            strength("rsa-sha1").check_signature(sha1).is_ok() && Strength::weakest().check_signature(sha1).is_ok()
        );
        assert!(Strength::default().check_key(KeyType::Rsa { bits: 2047 }).is_err());
        assert!(strength("rsa-1024").check_key(KeyType::Rsa { bits: 1024 }).is_ok());
    }

    #[test]
    fn strength_prints_as_it_reads() {
        for text in ["rsa-3072-ecdsa-256-sha256-sha384", "ed25519", "rsa/pss-sha256-ecdsa-384-sha384", "pubkey-sha1"] {
            assert_eq!(strength(text).to_string(), text);
        }
        assert_eq!(Strength::default().to_string(), "rsa-2048-ecdsa-ed25519-sha256-sha384-sha512");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [("rsa-3072-md5", "md5"), ("", ""), ("dsa", "dsa"), ("rsa-sha256x", "sha256x")] {
            let error = StrengthTextError::Word { word: word.to_owned(), text: text.to_owned() };
            assert_eq!(text.parse::<Strength>(), Err(error));
        }
        for (text, word) in [("3072-rsa", "3072"), ("sha256", "sha256"), ("rsa-2048-3072", "3072")] {
            let error = StrengthTextError::Order { word: word.to_owned(), text: text.to_owned() };
            assert_eq!(text.parse::<Strength>(), Err(error));
        }
    }
}
