//! The words of proposal texts.

use espdp_api::EspCipher;

use super::algorithm::{Algorithm, SequenceNumbers};
use super::{IkeIntegrity, KeyExchangeGroup, Prf};

/// What a word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Cipher(EspCipher),
    Integrity(IkeIntegrity),
    Prf(Prf),
    Group(KeyExchangeGroup),
    SequenceNumbers(bool),
}

/// The meaning of a word in lower case.
pub(super) fn find_word(keyword: &str) -> Option<Word> {
    let keyword = ALIASES.iter().find(|(alias, _)| *alias == keyword).map_or(keyword, |(_, canonical)| canonical);
    words().find(|(canonical, _)| *canonical == keyword).map(|(_, word)| word)
}

/// Why a word in lower case, though it is one of strongSwan's, means nothing here.
pub(super) fn why_not(keyword: &str) -> Option<&'static str> {
    let additional = keyword.split_once('_').is_some_and(|(first, _)| ADDITIONAL.contains(&first));
    if additional {
        return Some("post-quantum key exchange is not there yet");
    }
    if WEAK.contains(&keyword) {
        return Some("it is too weak (RFC 8221, RFC 8247)");
    }
    UNSUPPORTED.contains(&keyword).then_some("nothing here implements it")
}

/// The word that is most like `keyword`.
pub(super) fn nearest_keyword(keyword: &str) -> &'static str {
    let canonical = words().map(|(canonical, _)| canonical);
    let all = canonical.chain(ALIASES.iter().map(|(alias, _)| *alias));
    all.min_by_key(|known| strsim::damerau_levenshtein(known, keyword)).unwrap_or("aes256gcm16")
}

fn words() -> impl Iterator<Item = (&'static str, Word)> {
    fn of<A: Algorithm>(word: fn(A) -> Word) -> impl Iterator<Item = (&'static str, Word)> {
        A::ALL.iter().map(move |&algorithm| (algorithm.keyword(), word(algorithm)))
    }
    of(Word::Cipher)
        .chain(of(Word::Integrity))
        .chain(of(Word::Prf))
        .chain(of(Word::Group))
        .chain(of(|numbers: SequenceNumbers| Word::SequenceNumbers(numbers.into())))
}

/// Other spellings that strongSwan has.
const ALIASES: &[(&str, &str)] = &[
    ("aes", "aes128"),
    ("aes128gcm", "aes128gcm16"),
    ("aes192gcm", "aes192gcm16"),
    ("aes256gcm", "aes256gcm16"),
    ("aes128gcm128", "aes128gcm16"),
    ("aes192gcm128", "aes192gcm16"),
    ("aes256gcm128", "aes256gcm16"),
    ("sha", "sha1"),
    ("sha2_256", "sha256"),
    ("sha2_384", "sha384"),
    ("sha2_512", "sha512"),
    ("curve25519", "x25519"),
];

/// Prefixes of additional key exchanges (RFC 9370).
const ADDITIONAL: &[&str] = &["ke1", "ke2", "ke3", "ke4", "ke5", "ke6", "ke7"];

const WEAK: &[&str] = &[
    "des",
    "3des",
    "blowfish",
    "blowfish128",
    "blowfish192",
    "blowfish256",
    "cast128",
    "md5",
    "md5_128",
    "prfmd5",
    "modp768",
    "modp1024",
    "modp1536",
    "modp1024s160",
    "modp2048s224",
    "modp2048s256",
    "ecp192",
];

const UNSUPPORTED: &[&str] = &[
    "aes128ctr",
    "aes192ctr",
    "aes256ctr",
    "aes128ccm8",
    "aes128ccm12",
    "aes128ccm16",
    "aes192ccm8",
    "aes192ccm12",
    "aes192ccm16",
    "aes256ccm8",
    "aes256ccm12",
    "aes256ccm16",
    "aes128gcm8",
    "aes128gcm12",
    "aes192gcm8",
    "aes192gcm12",
    "aes256gcm8",
    "aes256gcm12",
    "aes128gmac",
    "aes192gmac",
    "aes256gmac",
    "camellia",
    "camellia128",
    "camellia192",
    "camellia256",
    "chacha20poly1305compat",
    "sha1_160",
    "sha256_96",
    "aesxcbc",
    "aescmac",
    "prfaesxcbc",
    "prfaescmac",
    "modp6144",
    "modp8192",
    "modpnone",
    "ecp224",
    "ecp224bp",
    "ecp256bp",
    "ecp384bp",
    "ecp512bp",
    "x448",
    "curve448",
];
