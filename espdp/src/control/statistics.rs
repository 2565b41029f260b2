//! What the workers counted and traced, put together.

use std::time::Instant;

use espdp_api::{Done, DropCount, InterfaceReport, Outcome, TraceFilter};
use espdp_core::InterfaceCounters;

use super::Control;

impl Control {
    pub(super) async fn statistics(&self) -> Outcome {
        let ids: Vec<_> = self.book.interfaces.values().map(|own| own.id).collect();
        let count = move |worker: &mut crate::worker::Worker| {
            let interfaces: Vec<_> = ids.iter().map(|id| worker.core.interface_counters(*id)).collect();
            (worker.core.statistics(Instant::now()), interfaces, worker.drops())
        };
        let (mut sas, mut drops) = (Vec::new(), Vec::new());
        let mut totals = vec![InterfaceCounters::default(); self.book.interfaces.len()];
        for (its_sas, interfaces, its_drops) in self.ask_all(count).await? {
            sas.extend(its_sas);
            its_drops.into_iter().for_each(|count| add(&mut drops, count));
            totals.iter_mut().zip(interfaces).for_each(|(total, counters)| total.add(counters));
        }
        let report = |(own, counters): (&super::book::Interface, InterfaceCounters)| InterfaceReport {
            name: own.spec.name.clone(),
            mtu: own.mtu,
            packets_out: counters.packets_out,
            bytes_out: counters.bytes_out,
            packets_in: counters.packets_in,
            bytes_in: counters.bytes_in,
        };
        let interfaces = self.book.interfaces.values().zip(totals).map(report).collect();
        Ok(Done::Statistics { sas, interfaces, drops })
    }

    /// Has each worker trace so many packets; the first ones of all count.
    pub(super) async fn trace(&mut self, packets: usize, filter: TraceFilter) -> Outcome {
        let now = Instant::now();
        self.traced = packets;
        self.ask_all(move |worker| worker.core.trace(now, packets, filter.clone())).await?;
        Ok(Done::Ok)
    }

    pub(super) async fn read_traces(&self) -> Outcome {
        let mut traces = self.ask_all(|worker| worker.core.traces().to_vec()).await?.concat();
        traces.sort_by_key(|trace| trace.at);
        traces.truncate(self.traced);
        Ok(Done::Traces(traces))
    }
}

/// Adds a count to those of the other workers.
fn add(counts: &mut Vec<DropCount>, more: DropCount) {
    match counts.iter_mut().find(|count| count.reason == more.reason) {
        Some(count) => count.packets = count.packets.saturating_add(more.packets),
        None => counts.push(more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_all_workers_are_added_by_reason() {
        let count = |reason: &str, packets| DropCount { reason: reason.to_owned(), packets };
        let mut all = Vec::new();
        [count("replay", 2), count("no_sa", 1), count("replay", 3)].into_iter().for_each(|more| add(&mut all, more));
        assert_eq!(all, [count("replay", 5), count("no_sa", 1)]);
    }
}
