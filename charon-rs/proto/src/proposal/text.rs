//! Proposals as text, in strongSwan's notation: `aes256gcm16-prfsha384-ecp384`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use espdp_api::{EspCipher, EspIntegrity, IpsecProtocol};

use super::additional::{each_round, round_keywords};
use super::algorithm::{Algorithm, SequenceNumbers};
use super::keyword::{Word, find_word, nearest_keyword, why_not};
use super::{EspProposal, IkeCipher, IkeIntegrity, IkeProposal, KeyExchangeGroup, Prf, Rounds};
use crate::wire::{AdditionalRound, Protocol, TransformType};

/// Reads a list of IKE proposals, separated by commas: `aes256gcm16-prfsha384-ecp384, aes128-sha256-modp3072`. The word
/// `default` stands for [`super::default_ike_proposals`]. A `!` at the end, which once meant "and no others", changes nothing:
/// there never are others.
///
/// # Errors
/// A [`ProposalError`]: where in the text, and what.
pub fn parse_ike_list(text: &str) -> Result<Vec<IkeProposal>, ProposalError> {
    parse_list(text, Protocol::Ike, super::default_ike_proposals, Parts::into_ike)
}

/// Reads a list of ESP proposals, as [`parse_ike_list`] does. `default` stands for [`super::default_esp_proposals`].
///
/// # Errors
/// A [`ProposalError`]: where in the text, and what.
pub fn parse_esp_list(text: &str) -> Result<Vec<EspProposal>, ProposalError> {
    parse_list(text, Protocol::Esp, super::default_esp_proposals, Parts::into_esp)
}

/// Reads a list of AH proposals, as [`parse_ike_list`] does: `sha256`, `sha512-ecp256-esn`. `default` stands for
/// [`super::default_ah_proposals`].
///
/// # Errors
/// A [`ProposalError`]: where in the text, and what.
pub fn parse_ah_list(text: &str) -> Result<Vec<EspProposal>, ProposalError> {
    parse_list(text, Protocol::Ah, super::default_ah_proposals, Parts::into_ah)
}

/// Why a text is no proposal, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ProposalError {
    /// Which octets of the text are to blame.
    pub span: Range<usize>,
    /// Why.
    pub problem: ProposalProblem,
}

/// Why a text is no proposal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposalProblem {
    /// Nothing where a proposal or an algorithm should be.
    #[error("an algorithm is missing here; a proposal looks like `{example}`")]
    Empty {
        /// What it could be.
        example: &'static str,
    },
    /// No word that anybody knows.
    #[error("`{keyword}` is no algorithm; the nearest name is `{nearest}`")]
    Unknown {
        /// What is written.
        keyword: String,
        /// The nearest right one.
        nearest: String,
    },
    /// A known algorithm that is missing here.
    #[error("`{keyword}` is not supported: {why}")]
    Unsupported {
        /// What is written.
        keyword: String,
        /// Why it is not.
        why: &'static str,
    },
    /// An algorithm that has no place in this kind of proposal.
    #[error("`{keyword}` is not for {protocol} proposals")]
    Misplaced {
        /// What is written.
        keyword: String,
        /// The kind of proposal.
        protocol: Protocol,
    },
    /// A type of algorithm that a proposal must have.
    #[error("the proposal names no {kind} algorithm: add one, for example `{example}`")]
    Missing {
        /// What is missing.
        kind: TransformType,
        /// What could be added.
        example: &'static str,
    },
    /// Ciphers with and without integrity in one proposal.
    #[error("`{aead}` protects integrity and `{other}` does not: make them two proposals, separated by a comma")]
    Mixed {
        /// One that does.
        aead: &'static str,
        /// One that does not.
        other: &'static str,
    },
}

impl FromStr for IkeProposal {
    type Err = ProposalError;

    /// Reads one proposal. Several algorithms of one type are alternatives. Without a PRF, those of the integrity
    /// algorithms are meant; next to an AEAD, that is all that integrity algorithms mean.
    fn from_str(text: &str) -> Result<Self, ProposalError> {
        parse_one(text, 0, Protocol::Ike)?.into_ike()
    }
}

impl FromStr for EspProposal {
    type Err = ProposalError;

    /// Reads one proposal. Several algorithms of one type are alternatives. Without `esn` and `noesn`, the latter is
    /// meant. Integrity algorithms next to an AEAD mean nothing.
    fn from_str(text: &str) -> Result<Self, ProposalError> {
        parse_one(text, 0, Protocol::Esp)?.into_esp()
    }
}

impl fmt::Display for IkeProposal {
    /// Writes it as [`Self::from_str`] reads it, without what follows from the rest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ciphers, integrity, prfs, groups, additional } = self;
        let implied = derived_prfs(integrity);
        let prfs = if *prfs == implied { &[] } else { prfs.as_slice() };
        let words = [keywords(ciphers), keywords(integrity), keywords(prfs), keywords(groups)];
        write_words(f, [words.concat(), round_keywords(additional)])
    }
}

impl fmt::Display for EspProposal {
    /// Writes it as [`Self::from_str`] reads it, without what follows from the rest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol: _, ciphers, integrity, groups, additional, extended_sequence_numbers } = self;
        let numbers: Vec<_> = extended_sequence_numbers.iter().copied().map(SequenceNumbers::from).collect();
        let numbers = if numbers == [SequenceNumbers::Short] { &[] } else { numbers.as_slice() };
        let words = [keywords(ciphers), keywords(integrity), keywords(groups)];
        write_words(f, [words.concat(), round_keywords(additional), keywords(numbers)])
    }
}

/// The words of one proposal, sorted by what they decide.
#[derive(Default)]
struct Parts {
    span: Range<usize>,
    ciphers: Vec<EspCipher>,
    integrity: Vec<EspIntegrity>,
    prfs: Vec<Prf>,
    groups: Vec<KeyExchangeGroup>,
    additional: Rounds,
    sequence_numbers: Vec<bool>,
}

const IKE_EXAMPLE: &str = "aes256gcm16-prfsha384-ecp384";
const ESP_EXAMPLE: &str = "aes256gcm16-ecp384";
const AH_EXAMPLE: &str = "sha256";

fn parse_list<P>(
    text: &str,
    protocol: Protocol,
    defaults: fn() -> Vec<P>,
    finish: fn(Parts) -> Result<P, ProposalError>,
) -> Result<Vec<P>, ProposalError> {
    let list = text.trim_end().strip_suffix('!').unwrap_or(text);
    let mut proposals = Vec::new();
    let mut start = 0usize;
    for segment in list.split(',') {
        let indent = segment.len().saturating_sub(segment.trim_start().len());
        let offset = start.saturating_add(indent);
        match segment.trim() {
            "default" => proposals.extend(defaults()),
            proposal => proposals.push(finish(parse_one(proposal, offset, protocol)?)?),
        }
        start = start.saturating_add(segment.len()).saturating_add(1);
    }
    Ok(proposals)
}

/// Reads the words of one proposal, which stands at `offset` of a longer text.
fn parse_one(text: &str, offset: usize, protocol: Protocol) -> Result<Parts, ProposalError> {
    let end = offset.saturating_add(text.len());
    let mut parts = Parts { span: offset..end, ..Parts::default() };
    let mut start = offset;
    for keyword in text.split('-') {
        let end = start.saturating_add(keyword.len());
        let at = |problem| ProposalError { span: start..end, problem };
        let word = parse_word(keyword, protocol).map_err(at)?;
        let fits = match word {
            Word::Cipher(cipher) => {
                push_new(&mut parts.ciphers, cipher);
                protocol == Protocol::Esp || (protocol == Protocol::Ike && ike_cipher(cipher).is_some())
            }
            Word::Integrity(integrity) => {
                push_new(&mut parts.integrity, integrity);
                protocol != Protocol::Ike || ike_integrity(integrity).is_some()
            }
            Word::Prf(prf) => push_new(&mut parts.prfs, prf) && protocol == Protocol::Ike,
            Word::Group(group) => push_new(&mut parts.groups, group),
            Word::Additional(round, group) => {
                let mut rounds = AdditionalRound::ALL.into_iter().zip(&mut parts.additional);
                rounds.find(|(its, _)| *its == round).is_some_and(|(_, groups)| push_new(groups, group))
            }
            Word::SequenceNumbers(extended) => {
                push_new(&mut parts.sequence_numbers, extended) && protocol != Protocol::Ike
            }
        };
        if !fits {
            return Err(at(ProposalProblem::Misplaced { keyword: keyword.to_owned(), protocol }));
        }
        start = end.saturating_add(1);
    }
    Ok(parts)
}

fn parse_word(keyword: &str, protocol: Protocol) -> Result<Word, ProposalProblem> {
    let lower = keyword.to_ascii_lowercase();
    if lower.is_empty() {
        let example = match protocol {
            Protocol::Ike => IKE_EXAMPLE,
            Protocol::Ah => AH_EXAMPLE,
            Protocol::Esp | Protocol::Other(_) => ESP_EXAMPLE,
        };
        return Err(ProposalProblem::Empty { example });
    }
    if let Some(word) = find_word(&lower) {
        return Ok(word);
    }
    let keyword = keyword.to_owned();
    Err(match why_not(&lower) {
        Some(why) => ProposalProblem::Unsupported { keyword, why },
        None => ProposalProblem::Unknown { keyword, nearest: nearest_keyword(&lower) },
    })
}

impl Parts {
    fn into_ike(self) -> Result<IkeProposal, ProposalError> {
        let aead = self.check_ciphers()?;
        let ciphers = self.ciphers.iter().filter_map(|&cipher| ike_cipher(cipher)).collect();
        let integrity: Vec<_> = self.integrity.iter().filter_map(|&integrity| ike_integrity(integrity)).collect();
        let prfs = if self.prfs.is_empty() { derived_prfs(&integrity) } else { self.prfs.clone() };
        if prfs.is_empty() {
            return Err(self.missing(TransformType::PseudoRandomFunction, "prfsha256"));
        }
        if self.groups.is_empty() {
            return Err(self.missing(TransformType::KeyExchange, "x25519"));
        }
        let integrity = if aead { Vec::new() } else { integrity };
        Ok(IkeProposal { ciphers, integrity, prfs, groups: self.groups, additional: self.additional })
    }

    fn into_esp(self) -> Result<EspProposal, ProposalError> {
        let aead = self.check_ciphers()?;
        let integrity = if aead { Vec::new() } else { self.integrity.clone() };
        self.into_child(IpsecProtocol::Esp, integrity)
    }

    fn into_ah(self) -> Result<EspProposal, ProposalError> {
        if self.integrity.is_empty() {
            return Err(self.missing(TransformType::Integrity, "sha256"));
        }
        let integrity = self.integrity.clone();
        self.into_child(IpsecProtocol::Ah, integrity)
    }

    fn into_child(self, protocol: IpsecProtocol, integrity: Vec<EspIntegrity>) -> Result<EspProposal, ProposalError> {
        let extended_sequence_numbers =
            if self.sequence_numbers.is_empty() { vec![false] } else { self.sequence_numbers.clone() };
        // RFC 9370 §2.2.4: additional key exchanges follow one in CREATE_CHILD_SA itself.
        if self.groups.is_empty() && each_round(&self.additional).any(|(_, groups)| !groups.is_empty()) {
            return Err(self.missing(TransformType::KeyExchange, "x25519"));
        }
        let Self { ciphers, groups, additional, .. } = self;
        Ok(EspProposal { protocol, ciphers, integrity, groups, additional, extended_sequence_numbers })
    }

    /// Whether all ciphers are AEADs. It is an error when some are and some are not (RFC 7296 §3.3), and when integrity
    /// is left to nobody (RFC 4303 §3.2, R7296-5-1).
    fn check_ciphers(&self) -> Result<bool, ProposalError> {
        let aead = self.ciphers.iter().find(|cipher| cipher.is_aead());
        let other = self.ciphers.iter().find(|cipher| !cipher.is_aead());
        match (aead, other) {
            (None, None) => Err(self.missing(TransformType::Encryption, "aes256gcm16")),
            (Some(aead), Some(other)) => {
                let problem = ProposalProblem::Mixed { aead: aead.keyword(), other: other.keyword() };
                Err(ProposalError { span: self.span.clone(), problem })
            }
            (None, Some(_)) if self.integrity.is_empty() => Err(self.missing(TransformType::Integrity, "sha256")),
            (aead, _) => Ok(aead.is_some()),
        }
    }

    fn missing(&self, kind: TransformType, example: &'static str) -> ProposalError {
        ProposalError { span: self.span.clone(), problem: ProposalProblem::Missing { kind, example } }
    }
}

/// The PRFs that integrity algorithms imply.
fn derived_prfs(integrity: &[IkeIntegrity]) -> Vec<Prf> {
    integrity.iter().map(|integrity| integrity.matching_prf()).collect()
}

fn ike_cipher(cipher: EspCipher) -> Option<IkeCipher> {
    IkeCipher::ALL.iter().copied().find(|&ike| EspCipher::from(ike) == cipher)
}

fn ike_integrity(integrity: EspIntegrity) -> Option<IkeIntegrity> {
    IkeIntegrity::ALL.iter().copied().find(|&ike| EspIntegrity::from(ike) == integrity)
}

/// Adds what is not there yet; says `true`, for chains of conditions.
fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) -> bool {
    if !list.contains(&item) {
        list.push(item);
    }
    true
}

fn keywords<A: Algorithm>(algorithms: &[A]) -> Vec<String> {
    algorithms.iter().map(|algorithm| algorithm.keyword().to_owned()).collect()
}

fn write_words<const PARTS: usize>(f: &mut fmt::Formatter<'_>, words: [Vec<String>; PARTS]) -> fmt::Result {
    f.write_str(&words.concat().join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ike(text: &str) -> IkeProposal {
        text.parse().unwrap()
    }

    fn esp(text: &str) -> EspProposal {
        text.parse().unwrap()
    }

    fn ike_error(text: &str) -> (Range<usize>, String) {
        let error = parse_ike_list(text).unwrap_err();
        (error.span.clone(), error.to_string())
    }

    #[test]
    fn an_aead_proposal_is_read() {
        let proposal = ike("aes256gcm16-prfsha384-ecp384");
        assert_eq!(proposal.ciphers, [IkeCipher::AesGcm16 { key_bits: 256 }]);
        assert_eq!((proposal.integrity.len(), proposal.prfs), (0, vec![Prf::HmacSha2_384]));
        assert_eq!(proposal.groups, [KeyExchangeGroup::Ecp384]);
    }

    #[test]
    fn without_a_prf_that_of_the_integrity_algorithm_is_meant() {
        let proposal = ike("aes128-sha256-sha512-modp3072");
        assert_eq!(proposal.prfs, [Prf::HmacSha2_256, Prf::HmacSha2_512]);
        assert_eq!(ike("aes256gcm16-sha384-ecp384"), ike("aes256gcm16-prfsha384-ecp384"));
        assert_eq!(ike("aes128-sha256-prfsha512-modp3072").prfs, [Prf::HmacSha2_512]);
    }

    #[test]
    fn alternatives_keep_their_order_and_repetitions_count_once() {
        let proposal = esp("aes256-aes128-aes256-sha512-sha256-modp2048-ecp256");
        assert_eq!(proposal.ciphers, [EspCipher::AesCbc { key_bits: 256 }, EspCipher::AesCbc { key_bits: 128 }]);
        assert_eq!(proposal.integrity, [EspIntegrity::HmacSha2_512_256, EspIntegrity::HmacSha2_256_128]);
        assert_eq!(proposal.groups, [KeyExchangeGroup::Modp2048, KeyExchangeGroup::Ecp256]);
    }

    #[test]
    fn sequence_numbers_are_short_unless_the_text_says_otherwise() {
        assert_eq!(esp("aes128gcm16").extended_sequence_numbers, [false]);
        assert_eq!(esp("aes128gcm16-esn").extended_sequence_numbers, [true]);
        assert_eq!(esp("aes128gcm16-esn-noesn").extended_sequence_numbers, [true, false]);
    }

    #[test]
    fn additional_key_exchanges_are_read_round_by_round() {
        use KeyExchangeGroup::{Ecp384, MlKem768, MlKem1024};
        let text = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_mlkem1024-ke3_ecp384-ke3_none";
        let proposal = ike(text);
        let mut rounds = Rounds::default();
        rounds[0] = vec![Some(MlKem768), Some(MlKem1024)];
        rounds[2] = vec![Some(Ecp384), None];
        assert_eq!(proposal.additional, rounds);
        assert_eq!(proposal.to_string(), text);
        assert_eq!(esp("aes256gcm16-ke1_mlkem768-x25519-esn").to_string(), "aes256gcm16-x25519-ke1_mlkem768-esn");
    }

    #[test]
    fn additional_key_exchanges_have_names_and_places_to_be_wrong() {
        let text = "aes256gcm16-prfsha384-x25519-ke1_mlkem786";
        let nearest = "`ke1_mlkem786` is no algorithm; the nearest name is `ke1_mlkem768`";
        assert_eq!(ike_error(text), (29..41, nearest.to_owned()));
        assert_eq!(ike_error("aes256gcm16-prfsha384-x25519-ke8_mlkem768").0, 29..41);
        assert_eq!(ike_error("aes256gcm16-prfsha384-x25519-ke1_sha256").0, 29..39);
        assert_eq!(ike_error("aes256gcm16-prfsha384-x25519-ke1_ke2_mlkem768").0, 29..45);
        let problem = "aes256gcm16-ke1_mlkem768".parse::<EspProposal>().unwrap_err().problem;
        assert_eq!(problem, ProposalProblem::Missing { kind: TransformType::KeyExchange, example: "x25519" });
    }

    #[test]
    fn other_spellings_mean_the_same() {
        for (alias, canonical) in [
            ("aes256gcm128-prfsha256-curve25519", "aes256gcm16-prfsha256-x25519"),
            ("AES256GCM-PRFSHA256-X25519", "aes256gcm16-prfsha256-x25519"),
            ("aes-sha2_256-modp2048", "aes128-sha256-modp2048"),
            ("aes256-sha-modp2048", "aes256-sha1-modp2048"),
        ] {
            assert_eq!(ike(alias), ike(canonical));
        }
        assert_eq!(ike("aes256-sha1-modp2048").to_string(), "aes256-sha1-modp2048");
    }

    #[test]
    fn every_cipher_and_integrity_algorithm_of_esp_is_written_as_it_is_read() {
        for cipher in EspCipher::ALL {
            let integrity = if cipher.is_aead() { "" } else { "-aescmac" };
            let text = format!("{}{integrity}", cipher.keyword());
            assert_eq!(esp(&text).ciphers, [*cipher]);
            assert_eq!(esp(&text).to_string(), text);
        }
        assert_eq!(esp("aes256ccm64").ciphers, [EspCipher::AesCcm8 { key_bits: 256 }]);
        assert_eq!(esp("aes128gcm96").ciphers, [EspCipher::AesGcm12 { key_bits: 128 }]);
        for integrity in EspIntegrity::ALL {
            assert_eq!(esp(&format!("aes128ctr-{}", integrity.keyword())).integrity, [*integrity]);
        }
    }

    /// R7296-3.3.3-1.
    #[test]
    fn proposals_of_ah_name_integrity_and_no_cipher() {
        let list = parse_ah_list("sha512-sha256-x25519-esn, default").unwrap();
        assert_eq!(list[0].integrity, [EspIntegrity::HmacSha2_512_256, EspIntegrity::HmacSha2_256_128]);
        assert_eq!((list[0].protocol, list[0].ciphers.len()), (IpsecProtocol::Ah, 0));
        assert_eq!(list[0].to_string(), "sha512-sha256-x25519-esn");
        assert_eq!(list[1..], super::super::default_ah_proposals());
        let error = parse_ah_list("aes128-sha256").unwrap_err();
        assert_eq!((error.span.clone(), error.to_string()), (0..6, "`aes128` is not for AH proposals".to_owned()));
        let problem = parse_ah_list("x25519").unwrap_err().problem;
        assert_eq!(problem, ProposalProblem::Missing { kind: TransformType::Integrity, example: "sha256" });
        assert!(parse_ah_list(" ").unwrap_err().to_string().contains("`sha256`"));
    }

    #[test]
    fn lists_may_have_spaces_and_an_exclamation_mark() {
        let list = parse_ike_list(" aes128-sha256-modp3072 , aes256gcm16-prfsha384-ecp384! ").unwrap();
        assert_eq!(list, [ike("aes128-sha256-modp3072"), ike("aes256gcm16-prfsha384-ecp384")]);
    }

    #[test]
    fn default_stands_for_the_defaults() {
        let list = parse_esp_list("aes256gcm16-esn, default").unwrap();
        assert_eq!(list[1..], super::super::default_esp_proposals());
    }

    #[test]
    fn an_unknown_word_is_shown_with_its_place_and_the_nearest_one() {
        assert_eq!(
            ike_error("aes128-sha256-x25519, aes256-sah256-modp2048"),
            (29..35, "`sah256` is no algorithm; the nearest name is `sha256`".to_owned())
        );
        assert_eq!(
            ike_error("aes256gcm61-prfsha256-ecp256").1,
            "`aes256gcm61` is no algorithm; the nearest name is `aes256gcm16`"
        );
        assert_eq!(ike_error("aes256-sha256-ecp-256").0, 14..17);
    }

    #[test]
    fn known_algorithms_that_are_missing_here_are_named_as_such() {
        for (text, part) in [
            ("3des-sha1-modp1024", "`3des` is not supported: it is too weak"),
            ("aes128-md5-modp2048", "`md5` is not supported: it is too weak"),
            ("aes128-sha256-modp1024", "`modp1024` is not supported: it is too weak"),
            ("aes128-sha256-x25519-ke1_modp1024", "`ke1_modp1024` is not supported: it is too weak"),
            ("aes128-sha256-x25519-ke2_x448", "`ke2_x448` is not supported: nothing here"),
            ("aes128-aesxcbc-x25519", "`aesxcbc` is not supported: nothing here"),
        ] {
            assert!(ike_error(text).1.starts_with(part), "{}", ike_error(text).1);
        }
    }

    #[test]
    fn words_have_their_place() {
        assert_eq!(ike_error("aes128-sha256-modp2048-esn"), (23..26, "`esn` is not for IKE proposals".to_owned()));
        assert_eq!(ike_error("null-sha256-modp2048").0, 0..4);
        assert_eq!(ike_error("aes128ccm16-prfsha256-x25519").1, "`aes128ccm16` is not for IKE proposals");
        assert_eq!(ike_error("aes128-aescmac-x25519").0, 7..14);
        let error = parse_esp_list("aes128gcm16-prfsha256").unwrap_err();
        assert_eq!(
            (error.span.clone(), error.to_string()),
            (12..21, "`prfsha256` is not for ESP proposals".to_owned())
        );
    }

    #[test]
    fn what_a_proposal_must_have_is_asked_for() {
        let missing = |text: &str| {
            let problem = text.parse::<IkeProposal>().unwrap_err().problem;
            let ProposalProblem::Missing { kind, .. } = problem else { panic!("{problem}") };
            kind
        };
        assert_eq!(missing("sha256-modp2048"), TransformType::Encryption);
        assert_eq!(missing("aes128-prfsha256-modp2048"), TransformType::Integrity);
        assert_eq!(missing("aes256gcm16-modp2048"), TransformType::PseudoRandomFunction);
        assert_eq!(missing("aes128-sha256"), TransformType::KeyExchange);
        for unprotected in ["aes128", "null", "null-aes256-ecp256"] {
            let problem = unprotected.parse::<EspProposal>().unwrap_err().problem;
            assert_eq!(problem, ProposalProblem::Missing { kind: TransformType::Integrity, example: "sha256" });
        }
    }

    #[test]
    fn ciphers_with_and_without_integrity_do_not_mix() {
        let problem = "aes256gcm16-aes256-sha256".parse::<EspProposal>().unwrap_err().problem;
        assert_eq!(problem, ProposalProblem::Mixed { aead: "aes256gcm16", other: "aes256" });
    }

    #[test]
    fn empty_texts_and_empty_words_are_refused() {
        assert_eq!(ike_error("").0, 0..0);
        assert_eq!(ike_error("aes128-sha256-x25519,").0, 21..21);
        assert_eq!(ike_error("aes128--sha256-x25519").0, 7..7);
        assert_eq!(ike_error("!").0, 0..0);
        assert!(ike_error(" ").1.contains("aes256gcm16-prfsha384-ecp384"));
    }
}
