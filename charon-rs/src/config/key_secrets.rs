//! `[key.NAME]` and `[pkcs12.NAME]` of the secrets file: private keys and their passphrases.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::item::Item;
use super::keys::{Key, Section, names, unknown_key};
use super::material::{self, FileError};
use super::problem::Report;
use super::source::Complaint;
use crate::credentials::Layer;

/// `[key.NAME]` or `[pkcs12.NAME]` while it is read.
#[derive(Default)]
pub(super) struct KeyDraft {
    file: Option<PathBuf>,
    passphrase: Option<Zeroizing<String>>,
}

/// The keys of `[key.NAME]` and `[pkcs12.NAME]`.
pub(super) const KEY_KEYS: &[Key<KeyDraft>] = &[
    Key {
        name: "file",
        also_called: &[],
        takes: "path",
        default: "none: it must be given",
        doc: "The file, PEM or DER. Relative to the folder of the secrets file, or to `private` in it. Nobody but its owner \
              may be able to read it.",
        set: |draft, item| {
            draft.file = Some(path(item)?);
            Ok(())
        },
    },
    Key {
        name: "passphrase",
        also_called: &["secret"],
        takes: "text",
        default: "none: the file is not encrypted",
        doc: "What the file is encrypted with.",
        set: |draft, item| {
            draft.passphrase = Some(Zeroizing::new(item.text("a passphrase in quotes")?.as_str().to_owned()));
            Ok(())
        },
    },
];

/// What a table is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A private key.
    Key,
    /// A container with keys and certificates.
    Pkcs12,
}

impl Kind {
    /// The kind of the tables `[name.NAME]`.
    pub(super) fn called(name: &str) -> Option<Self> {
        match name {
            "key" => Some(Self::Key),
            "pkcs12" => Some(Self::Pkcs12),
            _ => None,
        }
    }

    /// What a table of this kind looks like.
    pub(super) fn form(self) -> &'static str {
        match self {
            Self::Key => "[key.NAME]",
            Self::Pkcs12 => "[pkcs12.NAME]",
        }
    }
}

/// Reads a table and the file that it names.
pub(super) fn read(section: &Section<'_>, kind: Kind, layer: &mut Layer, report: &mut Report) {
    let mut draft = KeyDraft::default();
    for entry in section.apply(KEY_KEYS, &mut draft, report) {
        let mut complaint = unknown_key(entry, kind.form(), &[], names(KEY_KEYS), None);
        complaint.message = "unknown key".to_owned();
        report.add(section.source.error(complaint));
    }
    let Some(file) = &draft.file else {
        let complaint = Complaint::new(section.span.clone(), format!("`{}` has no file", section.name));
        report.add(section.source.error(complaint.expected("expected `file`")));
        return;
    };
    let folder = section.source.path().parent().unwrap_or(Path::new(""));
    let places = [folder.join("private").join(file), folder.join(file)];
    let file = places.iter().find(|place| place.exists()).unwrap_or(&places[1]);
    if let Err(error) = load(file, kind, &draft, layer) {
        report.add(material::problem(file, &error));
    }
}

fn load(file: &Path, kind: Kind, draft: &KeyDraft, layer: &mut Layer) -> Result<(), FileError> {
    let passphrase = draft.passphrase.as_ref().map(|passphrase| passphrase.as_str());
    match kind {
        Kind::Key => {
            layer.add_key(material::private_key(file, passphrase)?);
        }
        Kind::Pkcs12 => {
            let container = material::container(file, passphrase.unwrap_or_default())?;
            for key in container.keys {
                layer.add_key(key);
            }
            container.certificates.into_iter().for_each(|certificate| layer.add_certificate(certificate));
        }
    }
    Ok(())
}

fn path(item: Item<'_>) -> Result<PathBuf, Complaint> {
    let text = item.text("a path")?;
    if text.is_empty() {
        return Err(text.complain("an empty path").expected("expected a path"));
    }
    Ok(PathBuf::from(text.as_str()))
}
