//! The words of proposal texts.

use espdp_api::{EspCipher, EspIntegrity};

use super::additional::NONE_WORD;
use super::algorithm::{Algorithm, SequenceNumbers};
use super::{KeyExchangeGroup, Prf};
use crate::wire::AdditionalRound;

/// What a word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Cipher(EspCipher),
    Integrity(EspIntegrity),
    Prf(Prf),
    Group(KeyExchangeGroup),
    Additional(AdditionalRound, Option<KeyExchangeGroup>),
    SequenceNumbers(bool),
}

/// The meaning of a word in lower case.
pub(super) fn find_word(keyword: &str) -> Option<Word> {
    if let Some((round, method)) = split_round(keyword) {
        return match find_word(method) {
            Some(Word::Group(group)) => Some(Word::Additional(round, Some(group))),
            _ => (method == NONE_WORD).then_some(Word::Additional(round, None)),
        };
    }
    let keyword = ALIASES.iter().find(|(alias, _)| *alias == keyword).map_or(keyword, |(_, canonical)| canonical);
    words().find(|(canonical, _)| *canonical == keyword).map(|(_, word)| word)
}

/// Why a word in lower case, though it is one of strongSwan's, means nothing here.
pub(super) fn why_not(keyword: &str) -> Option<&'static str> {
    let keyword = split_round(keyword).map_or(keyword, |(_, method)| method);
    if WEAK.contains(&keyword) {
        return Some("it is too weak (RFC 8221, RFC 8247)");
    }
    UNSUPPORTED.contains(&keyword).then_some("nothing here implements it")
}

/// The word that is most like `keyword`.
pub(super) fn nearest_keyword(keyword: &str) -> String {
    if let Some((round, method)) = split_round(keyword) {
        let methods = KeyExchangeGroup::ALL.iter().map(|group| group.keyword()).chain([NONE_WORD]);
        let nearest = methods.min_by_key(|known| strsim::damerau_levenshtein(known, method)).unwrap_or(NONE_WORD);
        return format!("ke{}_{nearest}", round.number());
    }
    let canonical = words().map(|(canonical, _)| canonical);
    let all = canonical.chain(ALIASES.iter().map(|(alias, _)| *alias));
    all.min_by_key(|known| strsim::damerau_levenshtein(known, keyword)).unwrap_or("aes256gcm16").to_owned()
}

/// The round and the method of an additional key exchange (RFC 9370): `ke1_mlkem768`.
fn split_round(keyword: &str) -> Option<(AdditionalRound, &str)> {
    let (number, method) = keyword.strip_prefix("ke")?.split_once('_')?;
    let round = AdditionalRound::ALL.into_iter().find(|round| round.number().to_string() == number)?;
    Some((round, method))
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
    ("aes128gcm64", "aes128gcm8"),
    ("aes128gcm96", "aes128gcm12"),
    ("aes128ccm64", "aes128ccm8"),
    ("aes128ccm96", "aes128ccm12"),
    ("aes128ccm128", "aes128ccm16"),
    ("aes128ccm", "aes128ccm16"),
    ("aes192gcm64", "aes192gcm8"),
    ("aes192gcm96", "aes192gcm12"),
    ("aes192ccm64", "aes192ccm8"),
    ("aes192ccm96", "aes192ccm12"),
    ("aes192ccm128", "aes192ccm16"),
    ("aes192ccm", "aes192ccm16"),
    ("aes256gcm64", "aes256gcm8"),
    ("aes256gcm96", "aes256gcm12"),
    ("aes256ccm64", "aes256ccm8"),
    ("aes256ccm96", "aes256ccm12"),
    ("aes256ccm128", "aes256ccm16"),
    ("aes256ccm", "aes256ccm16"),
    ("sha", "sha1"),
    ("sha2_256", "sha256"),
    ("sha2_384", "sha384"),
    ("sha2_512", "sha512"),
    ("curve25519", "x25519"),
];

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
    "camellia",
    "camellia128",
    "camellia192",
    "camellia256",
    "chacha20poly1305compat",
    "sha1_160",
    "sha256_96",
    "aesxcbc",
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
