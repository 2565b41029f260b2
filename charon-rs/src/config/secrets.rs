//! `ipsec.secrets.toml`: pre-shared keys, post-quantum ones among them. No octet of a secret gets into a message, nor a line of the file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use espdp_api::Secret;
use ike_proto::config::{Connection, SecretKind, SharedSecret};
use ike_proto::identity::Identity;
use toml::de::{DeString, DeTable, DeValue};
use zeroize::{Zeroize, Zeroizing};

use super::item::{Complaints, Item, collect};
use super::key_secrets::{self, Kind};
use super::keys::{Key, Section, names, unknown_key};
use super::places::Places;
use super::problem::{Problem, Report, Severity};
use super::sa_secrets::{self, SaKeys};
use super::source::{Complaint, Source};
use super::values::identity;
use crate::credentials::Layer;

/// `[secret.NAME]` while it is read.
#[derive(Default)]
pub(super) struct SecretDraft {
    key: Option<Secret<Vec<u8>>>,
    /// Where `psk` and `file` stand.
    spans: Vec<Range<usize>>,
    file: Option<PathBuf>,
    owners: Vec<Identity>,
    /// Things to know about the secret.
    warnings: Vec<Complaint>,
}

/// The keys of `[secret.NAME]`.
pub(super) const SECRET_KEYS: &[Key<SecretDraft>] = &[PSK, FILE, OWNERS];

/// The keys of `[ppk.NAME]`.
pub(super) const PPK_KEYS: &[Key<SecretDraft>] = &[PSK, FILE, PPK_ID];

const PSK: Key<SecretDraft> = Key {
    name: "psk",
    also_called: &[],
    takes: "text, `0x` and hexadecimal, or `0s` and base64",
    default: "the content of `file`",
    doc: "The pre-shared key.",
    set: |draft, item| {
        draft.spans.push(item.span());
        draft.key = Some(psk(item, &mut draft.warnings)?);
        Ok(())
    },
};

const FILE: Key<SecretDraft> = Key {
    name: "file",
    also_called: &[],
    takes: "path",
    default: "`psk` says the key",
    doc: "A file that holds nothing but the pre-shared key, as it is, one newline at its end excepted. Relative to the \
          folder of the secrets file. Nobody but its owner may be able to read it.",
    set: |draft, item| {
        draft.spans.push(item.span());
        draft.file = Some(PathBuf::from(item.text("a path")?.as_str()));
        Ok(())
    },
};

const OWNERS: Key<SecretDraft> = Key {
    name: "for",
    also_called: &["owners"],
    takes: "identity, or a list",
    default: "everybody",
    doc: "Whose it is: with one identity it is for that one with anybody, with more it is for any two of them. The most \
          particular secret is used.",
    set: |draft, item| {
        draft.owners = owners(item)?;
        Ok(())
    },
};

const PPK_ID: Key<SecretDraft> = Key {
    name: "id",
    also_called: &[],
    takes: "identifier",
    default: "the name of the table",
    doc: "By this both ends name the key (RFC 8784), as `ppk_id` of a connection does.",
    set: |draft, item| {
        draft.owners = vec![Identity::KeyId(item.text("an identifier")?.as_str().as_bytes().to_vec())];
        Ok(())
    },
};

/// What a secrets file holds besides private keys.
#[derive(Default)]
pub(super) struct SecretFile {
    /// Pre-shared keys.
    pub(super) secrets: Vec<SharedSecret>,
    /// The keys of SAs, by their names.
    pub(super) sa_keys: BTreeMap<String, SaKeys>,
}

/// Reads a secrets file; private keys go into `layer`.
pub(super) fn load(path: &Path, layer: &mut Layer, places: &mut Places, report: &mut Report) -> SecretFile {
    let text = match read(path) {
        Ok(octets) => octets,
        Err(error) => {
            report.add(problem(path, &error));
            return SecretFile::default();
        }
    };
    let Ok(text) = std::str::from_utf8(&text) else {
        report.add(problem(path, &SecretFileError::NotUtf8));
        return SecretFile::default();
    };
    let source = Source::confidential(path, Zeroizing::new(text.to_owned()));
    let mut root = source.parse(report);
    let read = read_tables(&source, &root, layer, report);
    places.add_secrets(&source, &secret_places(&root));
    wipe_table(&mut root);
    read
}

/// Whether some secret can be used between the two ends of a connection, as far as the configuration tells who they are.
pub(super) fn is_there_one(connection: &Connection, secrets: &[SharedSecret]) -> bool {
    let ours = |owner: &Identity| match &connection.local.identity {
        Some(identity) => identity.same_as(owner),
        None if connection.local_addresses.is_empty() => matches!(owner, Identity::Ipv4(_) | Identity::Ipv6(_)),
        None => connection.local_addresses.iter().any(|address| identity::of_address(*address) == *owner),
    };
    let theirs = |owner: &Identity| connection.remote.identity.matches(owner);
    secrets.iter().filter(|secret| secret.kind == SecretKind::Ike).any(|secret| match secret.owners.as_slice() {
        [] => true,
        [owner] => ours(owner) || theirs(owner),
        owners => owners.iter().any(ours) && owners.iter().any(theirs),
    })
}

fn read_tables(source: &Source, root: &DeTable<'_>, layer: &mut Layer, report: &mut Report) -> SecretFile {
    let root = Section::new(source, "", 0..0, root);
    let SecretFile { mut secrets, mut sa_keys } = SecretFile::default();
    for entry in &root.entries {
        let DeValue::Table(table) = entry.value.get_ref() else {
            report.add(
                source.error(
                    Complaint::new(entry.span.clone(), "a key outside of a table")
                        .expected("expected [secret.NAME], [ppk.NAME], [key.NAME], [pkcs12.NAME] or [sa.NAME] tables"),
                ),
            );
            continue;
        };
        let tables = Section::new(source, entry.name, entry.span.clone(), table);
        if let Some(kind) = Kind::called(entry.name) {
            for section in tables.tables(kind.form(), report) {
                key_secrets::read(&section, kind, layer, report);
            }
        } else if entry.name == "secret" {
            for section in tables.tables("[secret.NAME]", report) {
                secrets.extend(secret(&section, SecretKind::Ike, report));
            }
        } else if entry.name == "ppk" {
            for section in tables.tables("[ppk.NAME]", report) {
                secrets.extend(secret(&section, SecretKind::Ppk, report));
            }
        } else if entry.name == "sa" {
            sa_keys = sa_secrets::read(&tables.tables("[sa.NAME]", report), report);
        } else {
            let complaint = Complaint::new(entry.span.clone(), "unknown table")
                .expected("expected [secret.NAME], [ppk.NAME], [key.NAME], [pkcs12.NAME] or [sa.NAME]");
            report.add(source.error(complaint.nearest(entry.name, ["secret", "ppk", "key", "pkcs12", "sa"])));
        }
    }
    SecretFile { secrets, sa_keys }
}

/// Where the keys of `[secret.NAME]` and `[ppk.NAME]` stand.
fn secret_places(root: &DeTable<'_>) -> Vec<(String, Range<usize>)> {
    let key_of = |name: &str, span: &Range<usize>, table: &DeTable<'_>| {
        let key = table.iter().find(|(key, _)| matches!(key.get_ref().as_ref(), "psk" | "file"));
        (name.to_owned(), key.map_or_else(|| span.clone(), |(key, _)| key.span()))
    };
    let kinds = root.iter().filter(|(kind, _)| matches!(kind.get_ref().as_ref(), "secret" | "ppk"));
    let secrets = kinds.filter_map(|(_, named)| named.get_ref().as_table()).flat_map(DeTable::iter);
    secrets
        .filter_map(|(name, secret)| Some(key_of(name.get_ref(), &name.span(), secret.get_ref().as_table()?)))
        .collect()
}

fn secret(section: &Section<'_>, kind: SecretKind, report: &mut Report) -> Option<SharedSecret> {
    let mut draft = SecretDraft::default();
    let (keys, form) = match kind {
        SecretKind::Ike => (SECRET_KEYS, "[secret.NAME]"),
        SecretKind::Ppk => (PPK_KEYS, "[ppk.NAME]"),
    };
    for entry in section.apply(keys, &mut draft, report) {
        let mut complaint = unknown_key(entry, form, &[], names(keys), None);
        complaint.message = "unknown key".to_owned();
        report.add(section.source.error(complaint));
    }
    if let [_, second] = draft.spans.as_slice() {
        let complaint = Complaint::new(second.clone(), "the secret is given by `psk` and by `file`");
        report.add(section.source.error(complaint.expected("expected one of them")));
        return None;
    }
    if let Some(file) = &draft.file {
        let path = section.source.path().parent().unwrap_or(Path::new("")).join(file);
        match read(&path) {
            Ok(octets) => draft.key = Some(from_file(&path, octets, report)?),
            Err(error) => {
                report.add(problem(&path, &error));
                return None;
            }
        }
    }
    for warning in draft.warnings {
        report.add(section.source.warning(warning));
    }
    if draft.spans.is_empty() {
        let complaint = Complaint::new(section.span.clone(), format!("secret `{}` has no key", section.name));
        report.add(section.source.error(complaint.expected("expected `psk` or `file`")));
    }
    let (name, owners) = match kind {
        SecretKind::Ike => (section.name.to_owned(), draft.owners),
        SecretKind::Ppk if draft.owners.is_empty() => {
            (format!("ppk {}", section.name), vec![Identity::KeyId(section.name.as_bytes().to_vec())])
        }
        SecretKind::Ppk => (format!("ppk {}", section.name), draft.owners),
    };
    Some(SharedSecret { name, kind, owners, secret: draft.key? })
}

/// A secret from a file of its own: one newline at its end was put there by an editor.
fn from_file(path: &Path, mut octets: Zeroizing<Vec<u8>>, report: &mut Report) -> Option<Secret<Vec<u8>>> {
    let whole = octets.len();
    for newline in [b'\n', b'\r'] {
        if octets.last() == Some(&newline) && octets.len() + 2 > whole {
            octets.pop();
        }
    }
    if octets.is_empty() {
        report.add(problem(path, &SecretFileError::Empty));
        return None;
    }
    if octets.len() < whole {
        report.add(Problem {
            severity: Severity::Warning,
            expected: Some("expected if an editor put it there; `printf %s` writes none".to_owned()),
            ..problem(path, &SecretFileError::Newline)
        });
    }
    Some(Secret::new(std::mem::take(&mut *octets)))
}

fn psk(item: Item<'_>, warnings: &mut Vec<Complaint>) -> Result<Secret<Vec<u8>>, Complaint> {
    let text = item.text("a pre-shared key in quotes")?;
    let wrong = |message: &str, expected: &str| Complaint::new(item.span(), message).expected(expected);
    let octets = if let Some(hex) = text.as_str().strip_prefix("0x") {
        base16ct::mixed::decode_vec(hex).map_err(|_| {
            wrong("this is not hexadecimal", "expected an even number of digits 0 to 9, a to f after 0x")
        })?
    } else if let Some(base64) = text.as_str().strip_prefix("0s") {
        decode_base64(base64).ok_or_else(|| wrong("this is not base64", "expected base64 after 0s"))?
    } else {
        if text.as_str().trim() != text.as_str() {
            warnings.push(Complaint::new(item.span(), "the key starts or ends with white space, which is part of it"));
        }
        text.as_str().as_bytes().to_vec()
    };
    if octets.is_empty() {
        return Err(wrong("an empty key", "expected a pre-shared key"));
    }
    Ok(Secret::new(octets))
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64ct::{Base64, Base64Unpadded, Encoding};
    Base64::decode_vec(text).or_else(|_| Base64Unpadded::decode_vec(text)).ok()
}

fn owners(item: Item<'_>) -> Result<Vec<Identity>, Complaints> {
    collect(item.strings("an identity")?.iter().map(|text| {
        identity::identity(text.as_str()).map_err(|_| {
            // The text may be a secret in the wrong place.
            text.complain("this is no identity").expected(
                "expected an address, a host name, user@host, a distinguished name, @#hexadecimal, or keyid:text",
            )
        })
    }))
}

/// Why a file of secrets was not read.
#[derive(Debug, thiserror::Error)]
enum SecretFileError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("this is not a file")]
    NotAFile,
    #[error("others can read the secrets (mode {mode:04o})")]
    Exposed { mode: u32 },
    #[error("this is not UTF-8")]
    NotUtf8,
    #[error("the file is empty")]
    Empty,
    #[error("the newline at the end does not count as part of the secret")]
    Newline,
}

/// Reads a file that only its owner can read.
///
/// # Errors
/// When it cannot be read, or others can.
pub(crate) fn read_private_file(path: &Path) -> io::Result<Secret<String>> {
    let octets = read(path).map_err(io::Error::other)?;
    let text = std::str::from_utf8(&octets).map_err(io::Error::other)?;
    Ok(Secret::new(text.to_owned()))
}

/// Reads a file that only its owner can read. The mode is that of what was opened, whatever links lead to it.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(SecretFileError::NotAFile);
    }
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.mode() & 0o077 != 0 {
        return Err(SecretFileError::Exposed { mode: metadata.mode() & 0o7777 });
    }
    let size = usize::try_from(metadata.len()).unwrap_or(0);
    let mut octets = Zeroizing::new(Vec::with_capacity(size + 1));
    file.read_to_end(&mut octets)?;
    Ok(octets)
}

fn problem(path: &Path, error: &SecretFileError) -> Problem {
    let expected = match error {
        SecretFileError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            Some("expected the file of the pre-shared keys here".to_owned())
        }
        SecretFileError::Exposed { .. } => Some(format!("expected mode 0600: chmod 600 {}", path.display())),
        SecretFileError::Io(_)
        | SecretFileError::NotAFile
        | SecretFileError::NotUtf8
        | SecretFileError::Empty
        | SecretFileError::Newline => None,
    };
    Problem {
        file: path.to_owned(),
        place: None,
        severity: Severity::Error,
        message: error.to_string(),
        expected,
        nearest: None,
    }
}

/// Strings with escapes are copies of their own, which are wiped here.
fn wipe_table(table: &mut DeTable<'_>) {
    for (_, value) in table.iter_mut() {
        wipe(value.get_mut());
    }
}

fn wipe(value: &mut DeValue<'_>) {
    match value {
        DeValue::String(DeString::Owned(text)) => text.zeroize(),
        DeValue::Array(values) => values.iter_mut().for_each(|value| wipe(value.get_mut())),
        DeValue::Table(table) => wipe_table(table),
        DeValue::String(DeString::Borrowed(_))
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
}
