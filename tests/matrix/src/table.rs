//! The matrix for people.

use std::fmt::Write;

use toml::Spanned;

use crate::file::{Matrix, Status};

/// The matrix as text: for each rule its level, what it says, where it is kept and where it is shown; then the hostile
/// inputs; then how many of what there are.
#[must_use]
pub fn print(matrix: &Matrix) -> String {
    let mut text = String::new();
    let mut rules: Vec<_> = matrix.rule.iter().collect();
    rules.sort_by_cached_key(|(id, _)| numbers(id.get_ref()));
    for (id, rule) in rules {
        let Ok(()) = writeln!(text, "{:<15} {:<10} {}", id.get_ref(), rule.level.name(), rule.says) else { break };
        entry(&mut text, &rule.code, "kept by");
        entry(&mut text, &rule.tests, "shown by");
        exception(&mut text, rule.status, rule.reason.as_deref());
    }
    text.push_str("\nHostile inputs\n");
    for (name, hostile) in &matrix.hostile {
        let Ok(()) = writeln!(text, "{} - {}", name.get_ref(), hostile.input) else { break };
        entry(&mut text, &hostile.tests, "tested by");
        exception(&mut text, hostile.status, hostile.reason.as_deref());
    }
    text + &summary(matrix)
}

fn entry(text: &mut String, citations: &[Spanned<String>], what: &str) {
    for citation in citations {
        text.push_str(&format!("    {what:<9} {}\n", citation.get_ref()));
    }
}

fn exception(text: &mut String, status: Option<Status>, reason: Option<&str>) {
    if let (Some(status), Some(reason)) = (status, reason) {
        text.push_str(&format!("    {}: {reason}\n", status.name()));
    }
}

fn summary(matrix: &Matrix) -> String {
    let count = |statuses: &[Option<Status>], wanted| statuses.iter().filter(|status| **status == wanted).count();
    let line = |what: &str, statuses: Vec<Option<Status>>| {
        let of = |status| count(&statuses, Some(status));
        format!(
            "{} {what}: {} shown, {} not built, {} not applicable, {} open\n",
            statuses.len(),
            count(&statuses, None),
            of(Status::NotBuilt),
            of(Status::NotApplicable),
            of(Status::Open),
        )
    };
    let rules = matrix.rule.values().map(|rule| rule.status).collect();
    let hostile = matrix.hostile.values().map(|hostile| hostile.status).collect();
    format!("\n{}{}", line("rules", rules), line("hostile inputs", hostile))
}

/// An id as numbers, so that §2.10 comes after §2.9.
fn numbers(id: &str) -> Vec<u32> {
    id.split(|letter: char| !letter.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}
