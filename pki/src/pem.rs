//! PEM: DER in base64 between two lines that say what it is (RFC 7468).
//!
//! Files hold several blocks, text around them, lines of any length and Windows line ends; all that is read. What is
//! written is strict.

use der::pem::{Base64Decoder, LineEnding, encode_string};
use zeroize::{Zeroize, Zeroizing};

/// What stands between `-----BEGIN label-----` and `-----END label-----`.
pub struct PemBlock {
    /// `CERTIFICATE`, `PRIVATE KEY` and so on.
    pub label: String,
    /// What the base64 means; wiped when dropped, for it can be a key.
    pub der: Zeroizing<Vec<u8>>,
}

/// Why a text holds no PEM block that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// There is no `-----BEGIN`.
    #[error("there is no PEM block")]
    Nothing,
    /// A block does not end, or ends with another label.
    #[error("the PEM block `{0}` has no end")]
    NoEnd(String),
    /// The octets between are no base64.
    #[error("the PEM block `{0}` is no base64")]
    NotBase64(String),
    /// A key encrypted in OpenSSL's old way, with a key made by one round of MD5.
    #[error(
        "the PEM block `{0}` is encrypted in the old way (Proc-Type); convert it with `openssl pkcs8 -topk8 -in FILE`"
    )]
    OldEncryption(String),
}

/// Whether the octets look like PEM rather than DER.
#[must_use]
pub fn is_pem(octets: &[u8]) -> bool {
    octets.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes())
}

/// All blocks in `text`.
///
/// # Errors
/// [`PemError`] when there is none or one is broken.
pub fn parse(text: &[u8]) -> Result<Vec<PemBlock>, PemError> {
    let text = String::from_utf8_lossy(text);
    let mut blocks = Vec::new();
    let mut rest = text.as_ref();
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (label, body) = after.split_once(DASHES).ok_or_else(|| PemError::NoEnd(String::new()))?;
        let no_end = || PemError::NoEnd(shortened(label));
        let (body, after) = body.split_once(END).ok_or_else(no_end)?;
        rest = after.strip_prefix(label).and_then(|after| after.strip_prefix(DASHES)).ok_or_else(no_end)?;
        blocks.push(PemBlock { label: label.to_owned(), der: decode(body, label)? });
    }
    if blocks.is_empty() { Err(PemError::Nothing) } else { Ok(blocks) }
}

/// A block with lines of 64 characters.
///
/// # Panics
/// For a label that is not of printable ASCII.
#[must_use]
#[expect(clippy::expect_used, reason = "labels are written in the source; other errors there are none")]
pub fn encode(label: &'static str, der: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(encode_string(label, LineEnding::LF, der).expect("the label is right"))
}

fn decode(body: &str, label: &str) -> Result<Zeroizing<Vec<u8>>, PemError> {
    if body.contains("Proc-Type:") {
        return Err(PemError::OldEncryption(shortened(label)));
    }
    let mut base64: Zeroizing<Vec<u8>> =
        Zeroizing::new(body.bytes().filter(|octet| !octet.is_ascii_whitespace()).collect());
    let mut der = Zeroizing::new(Vec::with_capacity(base64.len()));
    let decoded = Base64Decoder::new(&base64).and_then(|mut decoder| decoder.decode_to_end(&mut der).map(|_| ()));
    base64.zeroize();
    decoded.map(|()| der).map_err(|_| PemError::NotBase64(shortened(label)))
}

/// A label as it may stand in a message.
fn shortened(label: &str) -> String {
    label.chars().filter(|c| !c.is_control()).take(MAX_LABEL).collect()
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// No label that means anything is longer.
const MAX_LABEL: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for len in [1, 2, 3, 47, 48, 49, 200] {
            let der: Vec<u8> = (0..len).collect();
            let text = encode("CERTIFICATE", &der);
            assert!(is_pem(text.as_bytes()) && text.lines().all(|line| line.len() <= 64), "{text:?}");
            let blocks = parse(text.as_bytes()).unwrap();
            assert_eq!((blocks[0].label.as_str(), &*blocks[0].der), ("CERTIFICATE", &der));
        }
    }

    #[test]
    fn text_around_windows_line_ends_and_odd_lines_do_not_matter() {
        let text = "subject=C=CH\r\n-----BEGIN A-----\r\nAA\r\nEC\r\n-----END A-----\r\nmore\n-----BEGIN B-----\nAw==\n-----END B-----";
        let blocks = parse(text.as_bytes()).unwrap();
        assert_eq!((blocks[0].label.as_str(), blocks[0].der.as_slice()), ("A", &[0, 1, 2][..]));
        assert_eq!((blocks[1].label.as_str(), blocks[1].der.as_slice()), ("B", &[3][..]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, error) in [
            ("MIIB", PemError::Nothing),
            ("-----BEGIN A-----\nAAEC\n", PemError::NoEnd("A".into())),
            ("-----BEGIN A-----\nAAEC\n-----END B-----", PemError::NoEnd("A".into())),
            ("-----BEGIN A-----\nA*EC\n-----END A-----", PemError::NotBase64("A".into())),
            ("-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nAAEC\n-----END A-----", PemError::OldEncryption("A".into())),
        ] {
            assert_eq!(parse(text.as_bytes()).err(), Some(error), "{text:?}");
        }
        assert!(!is_pem(b"\x30\x82"));
    }
}
