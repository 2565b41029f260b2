//! Whether traffic really crossed, and encrypted: judged by what was seen on the wire, not by what the daemons say.

use std::borrow::Cow;

use serde::Serialize;

use super::ping::PingReport;
use super::sas::{ChildSa, IkeSa};
use super::tally::{EspFlow, Tally};
use super::transfer::TransferReport;

/// Everything that is known when a run is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence<'a> {
    /// The SAs of the initiator's daemon.
    pub(super) initiator: &'a [IkeSa],
    /// The SAs of the responder's daemon.
    pub(super) responder: &'a [IkeSa],
    /// The echo requests.
    pub(super) pings: &'a [PingReport],
    /// The transfer.
    pub(super) transfer: &'a TransferReport,
    /// What was on the wire between the gateways.
    pub(super) wire: &'a Tally,
}

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What must hold.
    pub(super) name: Cow<'static, str>,
    /// Whether it does.
    pub(super) passed: bool,
    /// What was found.
    pub(super) found: String,
}

/// Judges a run.
pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let mut checks = vec![pings(evidence.pings), transfer(evidence.transfer), nothing_in_clear(evidence.wire)];
    let (Some((ike, child)), Some((peer_ike, peer_child))) = (only(evidence.initiator), only(evidence.responder))
    else {
        let count = |sas: &[IkeSa]| sas.iter().map(|sa| sa.children.len()).sum::<usize>();
        let found = format!("initiator {}, responder {}", count(evidence.initiator), count(evidence.responder));
        checks.push(Check { name: ONE_CHILD.into(), passed: false, found });
        return checks;
    };
    checks.push(same_sas(ike, child, peer_ike, peer_child));
    for (name, sa, sender, receiver) in [(FORWARD, ike, child, peer_child), (BACKWARD, peer_ike, peer_child, child)] {
        let flow = sa.local_address().and_then(|address| evidence.wire.flow(address, sender.spi_out));
        checks.push(on_the_wire(name.0, sender, flow));
        checks.push(counters(name.1, sender, receiver, flow));
    }
    checks.push(payload_was_inside(peer_child, evidence.transfer));
    checks
}

/// The one IKE SA and the one Child SA that a run makes.
fn only(sas: &[IkeSa]) -> Option<(&IkeSa, &ChildSa)> {
    let mut all = sas.iter().flat_map(|sa| sa.children.iter().map(move |child| (sa, child)));
    all.next().filter(|_| all.next().is_none())
}

fn pings(pings: &[PingReport]) -> Check {
    let answered = |ping: &PingReport| format!("{} {}/{}", ping.destination, ping.received, ping.sent);
    let passed = !pings.is_empty() && pings.iter().all(|ping| ping.sent > 0 && ping.received == ping.sent);
    Check {
        name: "every echo request is answered".into(),
        passed,
        found: pings.iter().map(answered).collect::<Vec<_>>().join(", "),
    }
}

fn transfer(transfer: &TransferReport) -> Check {
    let passed = transfer.failure.is_none() && transfer.octets > 0;
    let found = transfer.failure.clone().unwrap_or_else(|| format!("{} octets", transfer.octets));
    Check { name: "a TCP transfer arrives unchanged".into(), passed, found }
}

fn nothing_in_clear(wire: &Tally) -> Check {
    let found = match wire.examples.first() {
        Some(example) => format!("{} of {} frames, for example {example}", wire.leaks, wire.frames),
        None => format!("{} frames, all of them fit to be seen", wire.frames),
    };
    Check { name: "no inner packet is readable on the wire".into(), passed: wire.leaks == 0 && wire.frames > 0, found }
}

fn same_sas(ike: &IkeSa, child: &ChildSa, peer_ike: &IkeSa, peer_child: &ChildSa) -> Check {
    let same_ike = ike.initiator_spi == peer_ike.initiator_spi && ike.responder_spi == peer_ike.responder_spi;
    let same_child = child.spi_in == peer_child.spi_out && child.spi_out == peer_child.spi_in;
    let same_suites = ike.algorithms == peer_ike.algorithms && child.algorithms == peer_child.algorithms;
    let found = match (same_ike, same_child, same_suites) {
        (true, true, true) => format!("{:08x} and {:08x}", child.spi_in, child.spi_out),
        (false, _, _) => "different IKE SAs".to_owned(),
        (_, false, _) => format!(
            "initiator {:08x}/{:08x}, responder {:08x}/{:08x}",
            child.spi_in, child.spi_out, peer_child.spi_in, peer_child.spi_out
        ),
        (_, _, false) => "different algorithms".to_owned(),
    };
    Check { name: "both daemons have the same SAs".into(), passed: same_ike && same_child && same_suites, found }
}

fn on_the_wire(name: &'static str, sender: &ChildSa, flow: Option<&EspFlow>) -> Check {
    let Some(flow) = flow else {
        return Check {
            name: name.into(),
            passed: false,
            found: format!("no ESP packet with SPI {:08x}", sender.spi_out),
        };
    };
    let expected_in_udp = if sender.in_udp { flow.packets } else { 0 };
    let how = if flow.in_udp == 0 { "" } else { " in UDP" };
    let found = format!("{} packets seen{how}, SPI {:08x}", flow.packets, flow.spi);
    Check { name: name.into(), passed: flow.packets > 0 && flow.in_udp == expected_in_udp, found }
}

/// The wire shows how many packets were sent even if the capture missed some: sequence numbers start at 1 and grow by 1.
fn counters(name: &'static str, sender: &ChildSa, receiver: &ChildSa, flow: Option<&EspFlow>) -> Check {
    let on_wire = flow.map_or(0, |flow| u64::from(flow.highest_sequence));
    let (sent, received) = (sender.sent.packets, receiver.received.packets);
    let passed = sent > 0 && received > 0 && sent == on_wire && received <= sent;
    Check { name: name.into(), passed, found: format!("sent {sent}, on the wire {on_wire}, received {received}") }
}

fn payload_was_inside(receiver: &ChildSa, transfer: &TransferReport) -> Check {
    let received = receiver.received.bytes;
    let found = format!("{received} octets came out of the SA for {} of payload", transfer.octets);
    Check {
        name: "the transfer went through the SA".into(),
        passed: transfer.octets > 0 && received > transfer.octets,
        found,
    }
}

const ONE_CHILD: &str = "each daemon has one Child SA";
const FORWARD: (&str, &str) = ("ESP from initiator to responder", "counters agree from initiator to responder");
const BACKWARD: (&str, &str) = ("ESP from responder to initiator", "counters agree from responder to initiator");

#[cfg(test)]
mod tests {
    use super::super::frame::tests::{ethernet, ip, protected, udp};
    use super::super::sas::Counters;
    use super::*;

    const SPI_I: u32 = 0xc000_0001;
    const SPI_R: u32 = 0xc000_0002;

    struct Run {
        initiator: Vec<IkeSa>,
        responder: Vec<IkeSa>,
        pings: Vec<PingReport>,
        transfer: TransferReport,
        wire: Tally,
    }

    impl Run {
        /// Two packets there, one back.
        fn good() -> Self {
            let mut run = Self {
                initiator: vec![sa("192.168.10.1", SPI_I, SPI_R, counters(1, 52), counters(2, 1052))],
                responder: vec![sa("192.168.10.2", SPI_R, SPI_I, counters(2, 1052), counters(1, 52))],
                pings: vec![PingReport { destination: [192, 168, 3, 2].into(), sent: 3, received: 3, mean_us: 1 }],
                transfer: TransferReport { octets: 1000, seconds: 1.0, mbit_per_second: 0.008, failure: None },
                wire: Tally::default(),
            };
            run.see(&ip(OUT, 50, &esp(SPI_R, 1)));
            run.see(&ip(OUT, 50, &esp(SPI_R, 2)));
            run.see(&ip(BACK, 50, &esp(SPI_I, 1)));
            run
        }

        fn see(&mut self, packet: &[u8]) {
            self.wire.add(&ethernet(packet), &protected());
        }

        fn failed(&self) -> Vec<Cow<'static, str>> {
            let evidence = Evidence {
                initiator: &self.initiator,
                responder: &self.responder,
                pings: &self.pings,
                transfer: &self.transfer,
                wire: &self.wire,
            };
            judge(&evidence).iter().filter(|check| !check.passed).map(|check| check.name.clone()).collect()
        }
    }

    const OUT: [&str; 2] = ["192.168.10.1", "192.168.10.2"];
    const BACK: [&str; 2] = ["192.168.10.2", "192.168.10.1"];

    fn esp(spi: u32, sequence: u32) -> Vec<u8> {
        [&spi.to_be_bytes()[..], &sequence.to_be_bytes(), &[0xaa; 32]].concat()
    }

    fn counters(packets: u64, bytes: u64) -> Counters {
        Counters { packets, bytes }
    }

    fn sa(local: &str, spi_in: u32, spi_out: u32, received: Counters, sent: Counters) -> IkeSa {
        let child = ChildSa {
            name: "lab".into(),
            state: "INSTALLED".into(),
            mode: "TUNNEL".into(),
            spi_in,
            spi_out,
            algorithms: "AES_GCM_16-256".into(),
            esn: true,
            in_udp: false,
            received,
            sent,
            local_selectors: vec![],
            remote_selectors: vec![],
        };
        IkeSa {
            name: "lab".into(),
            state: "ESTABLISHED".into(),
            initiator: spi_in == SPI_I,
            local_host: local.into(),
            local_port: "500".into(),
            local_id: local.into(),
            remote_host: String::new(),
            remote_port: "500".into(),
            remote_id: String::new(),
            initiator_spi: "0123456789abcdef".into(),
            responder_spi: "fedcba9876543210".into(),
            initiator_nonce: String::new(),
            responder_nonce: String::new(),
            algorithms: "AES_GCM_16-256, PRF_HMAC_SHA2_256, MODP_2048".into(),
            children: vec![child],
        }
    }

    #[test]
    fn a_good_run_passes_everything() {
        assert_eq!(Run::good().failed(), [""; 0]);
    }

    #[test]
    fn one_clear_packet_fails_the_run() {
        let mut run = Run::good();
        run.see(&ip(["192.168.5.2", "192.168.3.2"], 6, &[0; 20]));
        assert_eq!(run.failed(), ["no inner packet is readable on the wire"]);
    }

    #[test]
    fn a_missing_direction_fails_the_run() {
        let mut run = Run::good();
        run.wire = Tally::default();
        run.see(&ip(OUT, 50, &esp(SPI_R, 2)));
        assert_eq!(run.failed(), [BACKWARD.0, BACKWARD.1]);
    }

    #[test]
    fn esp_with_the_right_spi_from_the_wrong_side_does_not_count() {
        let mut run = Run::good();
        run.wire = Tally::default();
        run.see(&ip(BACK, 50, &esp(SPI_R, 2)));
        run.see(&ip(OUT, 50, &esp(SPI_I, 1)));
        assert_eq!(run.failed(), [FORWARD.0, FORWARD.1, BACKWARD.0, BACKWARD.1]);
    }

    #[test]
    fn esp_must_travel_as_negotiated() {
        let mut run = Run::good();
        run.see(&ip(OUT, 17, &udp(4500, &esp(SPI_R, 2))));
        assert_eq!(run.failed(), [FORWARD.0]);
    }

    #[test]
    fn counters_that_do_not_fit_the_wire_fail_the_run() {
        let mut run = Run::good();
        run.see(&ip(OUT, 50, &esp(SPI_R, 3)));
        assert_eq!(run.failed(), [FORWARD.1]);
        let mut run = Run::good();
        run.initiator[0].children[0].received.packets = 9;
        assert_eq!(run.failed(), [BACKWARD.1]);
    }

    #[test]
    fn daemons_that_disagree_fail_the_run() {
        let mut run = Run::good();
        run.responder[0].children[0].spi_out = 0xc000_0009;
        assert!(run.failed().contains(&"both daemons have the same SAs".into()));
        let mut run = Run::good();
        run.responder[0].algorithms = "NULL".into();
        assert_eq!(run.failed(), ["both daemons have the same SAs"]);
        let mut run = Run::good();
        run.responder.clear();
        assert_eq!(run.failed(), [ONE_CHILD]);
    }

    #[test]
    fn lost_echoes_and_an_empty_transfer_fail_the_run() {
        let mut run = Run::good();
        run.pings[0].received = 2;
        assert_eq!(run.failed(), ["every echo request is answered"]);
        let mut run = Run::good();
        run.transfer.octets = 0;
        assert_eq!(run.failed(), ["a TCP transfer arrives unchanged", "the transfer went through the SA"]);
        let mut run = Run::good();
        run.transfer.octets = 2000;
        assert_eq!(run.failed(), ["the transfer went through the SA"]);
    }
}
