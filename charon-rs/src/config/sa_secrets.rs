//! `[sa.NAME]` of the secrets file: the keys of SAs that nobody negotiates.

use std::collections::BTreeMap;

use espdp_api::Secret;

use super::item::Item;
use super::keys::{Key, Section, names, unknown_key};
use super::problem::Report;
use super::source::Complaint;

/// The keys of one SA, as long as they were written.
#[derive(Clone, Debug, Default)]
pub(super) struct SaKeys {
    /// The key of the cipher; empty without one.
    pub(super) encryption: Secret<Vec<u8>>,
    /// The key of the integrity transform.
    pub(super) integrity: Secret<Vec<u8>>,
}

/// The keys of `[sa.NAME]` in the secrets file.
pub(super) const SA_SECRET_KEYS: &[Key<SaKeys>] = &[
    Key {
        name: "encryption_key",
        also_called: &["enc"],
        takes: "hexadecimal, with or without `0x`",
        default: "none, for the cipher `null`",
        doc: "The key of the cipher.",
        set: |draft, item| {
            draft.encryption = key(item)?;
            Ok(())
        },
    },
    Key {
        name: "integrity_key",
        also_called: &["auth"],
        takes: "hexadecimal, with or without `0x`",
        default: "none: it must be given",
        doc: "The key of the integrity algorithm.",
        set: |draft, item| {
            draft.integrity = key(item)?;
            Ok(())
        },
    },
];

/// Reads the tables `[sa.NAME]`.
pub(super) fn read(sections: &[Section<'_>], report: &mut Report) -> BTreeMap<String, SaKeys> {
    let mut all = BTreeMap::new();
    for section in sections {
        let mut keys = SaKeys::default();
        for entry in section.apply(SA_SECRET_KEYS, &mut keys, report) {
            let mut complaint = unknown_key(entry, "[sa.NAME]", &[], names(SA_SECRET_KEYS), None);
            complaint.message = "unknown key".to_owned();
            report.add(section.source.error(complaint));
        }
        all.insert(section.name.to_owned(), keys);
    }
    all
}

fn key(item: Item<'_>) -> Result<Secret<Vec<u8>>, Complaint> {
    const WANTED: &str = "an even number of hexadecimal digits in quotes";
    let text = item.text(WANTED)?;
    let digits = text.as_str().strip_prefix("0x").unwrap_or(text.as_str());
    let octets = base16ct::mixed::decode_vec(digits)
        .map_err(|_| Complaint::new(item.span(), "this is not hexadecimal").expected(format!("expected {WANTED}")))?;
    Ok(Secret::new(octets))
}
