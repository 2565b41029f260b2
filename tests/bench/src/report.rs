//! Samples of several rounds, as a table or as JSON.

use serde_json::{Map, Value, json};

use crate::Mode;
use crate::load::Figures;

/// What one mode showed.
pub(crate) struct Report {
    mode: Mode,
    /// By gateway, in the order of the first round.
    rows: Vec<(String, Vec<Figures>)>,
}

impl Report {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, rows: Vec::new() }
    }

    /// Adds what one round showed, and says it at once.
    pub(crate) fn add(&mut self, round: usize, name: &str, figures: Figures) {
        let said: Vec<_> = figures.iter().map(|(figure, value)| format!("{value:.3} {figure}")).collect();
        eprintln!("{}, round {round}: {name}: {}", self.mode.title(), said.join(", "));
        match self.rows.iter_mut().find(|(row, _)| row == name) {
            Some((_, samples)) => samples.push(figures),
            None => self.rows.push((name.to_owned(), vec![figures])),
        }
    }

    /// Prints medians, and how the first row compares with each.
    pub(crate) fn print(&self, as_json: bool) {
        let Some((_, first)) = self.rows.first() else { return };
        let columns: Vec<&str> = first.iter().flatten().map(|(figure, _)| *figure).collect();
        let columns: Vec<&str> =
            columns.iter().enumerate().filter(|(at, name)| !columns[..*at].contains(name)).map(|(_, n)| *n).collect();
        if as_json {
            for (name, samples) in &self.rows {
                let mut row = Map::new();
                row.insert("mode".to_owned(), json!(self.mode.title()));
                row.insert("gateways".to_owned(), json!(name));
                for column in &columns {
                    let ratio = median(samples, column) / median(first, column);
                    row.insert((*column).to_owned(), number(median(samples, column)));
                    row.insert(format!("{column}, to the first"), number(ratio));
                }
                println!("{}", Value::Object(row));
            }
            return;
        }
        println!("\n| {} | {} |", self.mode.title(), columns.join(" | "));
        println!("|---|{}", "---|".repeat(columns.len()));
        for (name, samples) in &self.rows {
            let cell = |column: &&str| {
                let value = median(samples, column);
                if value.is_nan() {
                    return "–".to_owned();
                }
                format!("{value:.2} (× {:.2})", value / median(first, column))
            };
            println!("| {name} | {} |", columns.iter().map(cell).collect::<Vec<_>>().join(" | "));
        }
    }
}

/// The median of one figure; not a number where nobody measured it.
fn median(samples: &[Figures], figure: &str) -> f64 {
    let mut values: Vec<f64> =
        samples.iter().flatten().filter(|(name, _)| *name == figure).map(|(_, value)| *value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_leaves_out_rounds_that_did_not_measure() {
        let samples = [vec![("a", 3.0)], vec![("b", 9.0)], vec![("a", 1.0), ("b", 7.0)], vec![("a", 2.0)]];
        assert!((median(&samples, "a") - 2.0).abs() < f64::EPSILON);
        assert!(median(&samples, "c").is_nan());
        assert_eq!(number(f64::NAN), Value::Null);
    }
}
