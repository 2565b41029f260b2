//! Reads the tables `[nat.NAME]`, `[filter.NAME]` and `[route.NAME]`.

use espdp_api::HostSpec;

use super::host_keys::{FILTER_KEYS, NAT_KEYS, ROUTE_KEYS, Route, RuleDraft};
use super::keys::{Key, Section, names, unknown_key};
use super::problem::Report;
use super::source::Complaint;

/// Reads them into `host`; `sections` gives the tables of a kind in the order of the file.
pub(super) fn read<'a>(
    host: &mut HostSpec,
    report: &mut Report,
    sections: impl Fn(&str, &str, &mut Report) -> Vec<Section<'a>>,
) {
    for section in sections("nat", "tables [nat.NAME]", report) {
        let draft = draft(&section, "[nat.NAME]", NAT_KEYS, report);
        host.nat.extend(good(&section, draft.nat(section.name, section.span.clone()), report));
    }
    for section in sections("filter", "tables [filter.NAME]", report) {
        let draft = draft(&section, "[filter.NAME]", FILTER_KEYS, report);
        host.filter.extend(good(&section, draft.filter(section.name, section.span.clone()), report));
    }
    for section in sections("route", "tables [route.NAME]", report) {
        let draft = draft(&section, "[route.NAME]", ROUTE_KEYS, report);
        match good(&section, draft.route(section.name, section.span.clone()), report) {
            Some(Route::Static(routes)) => host.routes.extend(routes),
            Some(Route::Steering(rule)) => host.steering.push(rule),
            None => {}
        }
    }
}

/// Where a key belongs, if it is one of these tables.
pub(super) fn place_of(name: &str) -> Option<&'static str> {
    [("[nat.NAME]", NAT_KEYS), ("[filter.NAME]", FILTER_KEYS), ("[route.NAME]", ROUTE_KEYS)]
        .into_iter()
        .find(|(_, keys)| Key::find(keys, name).is_some())
        .map(|(place, _)| place)
}

fn draft(section: &Section<'_>, place: &str, keys: &'static [Key<RuleDraft>], report: &mut Report) -> RuleDraft {
    let mut draft = RuleDraft::default();
    for entry in section.apply(keys, &mut draft, report) {
        let complaint = unknown_key(entry, place, &[], names(keys), super::place_of(entry.name));
        report.add(section.source.error(complaint));
    }
    draft
}

fn good<T>(section: &Section<'_>, result: Result<T, Complaint>, report: &mut Report) -> Option<T> {
    result.map_err(|complaint| report.add(section.source.error(complaint))).ok()
}
