//! Figures for people and for programs.

use std::time::Duration;

/// Where figures go.
pub(crate) struct Report {
    /// One JSON object for each line instead of tables.
    pub(crate) json: bool,
}

impl Report {
    pub(crate) fn handshake_head(&self) {
        if !self.json {
            println!("{:<34} {:>10} {:>10} {:>12}   of which µs", "suite", "end", "µs", "per second");
        }
    }

    /// A handshake of one end: the whole in microseconds, and its parts.
    pub(crate) fn handshake(&self, suite: &str, end: &str, whole: f64, parts: &[(&str, f64)]) {
        let rate = 1e6 / whole;
        if self.json {
            let parts: Vec<String> = parts.iter().map(|(name, time)| format!("\"{name}\":{time:.2}")).collect();
            let parts = parts.join(",");
            println!(
                "{{\"suite\":\"{suite}\",\"end\":\"{end}\",\"us\":{whole:.2},\"per_second\":{rate:.0},\"parts\":{{{parts}}}}}"
            );
            return;
        }
        let parts: Vec<String> =
            parts.iter().filter(|(_, time)| *time > 0.0).map(|(name, time)| format!("{name} {time:.1}")).collect();
        println!("{suite:<34} {end:>10} {whole:>10.1} {rate:>12.0}   {}", parts.join(", "));
    }

    /// Octets for each SA: the responder's, the initiator's.
    pub(crate) fn memory(&self, shape: &str, sas: u32, octets: [f64; 2]) {
        let [responder, initiator] = octets;
        if self.json {
            println!(
                "{{\"shape\":\"{shape}\",\"sas\":{sas},\"octets_per_sa\":{{\"responder\":{responder:.0},\"initiator\":{initiator:.0}}}}}"
            );
        } else {
            println!(
                "\nmemory, {shape}: {sas} IKE SAs with one Child SA each take {:.1} KiB each as responder, {:.1} KiB as initiator",
                responder / 1024.0,
                initiator / 1024.0
            );
        }
    }

    pub(crate) fn scale_head(&self, shape: &str, few: u32, many: u32) {
        if !self.json {
            println!("\n{:<38} {:>10} {:>10} {:>8}", format!("{shape}, µs among"), few, many, "ratio");
        }
    }

    /// An operation in microseconds among few SAs and among many.
    pub(crate) fn scale(&self, shape: &str, operation: &str, few: f64, many: f64) {
        let ratio = many / few;
        if self.json {
            println!(
                "{{\"shape\":\"{shape}\",\"operation\":\"{operation}\",\"us_few\":{few:.2},\"us_many\":{many:.2},\"ratio\":{ratio:.2}}}"
            );
        } else {
            println!("{operation:<38} {few:>10.2} {many:>10.2} {ratio:>8.2}");
        }
    }
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

pub(crate) fn lower_quartile(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 4).copied().unwrap_or_default()
}
