//! What goes round all workers, one after the other: activations, and IKE messages, which leave after them.

use espdp_api::{Command, Done, EspSpi, IkePath, PolicyId, RequestId, WorkerId};
use tokio::sync::mpsc;

use super::queue;
use crate::control::Request;
use crate::worker::{Active, Pass, Worker};

/// The wish to activate an SA, on its way to the worker that has it, and to all others, who have to know if it carries their packets.
///
/// The first round finds that worker, which uses the SA at once. Later wishes may have passed some workers by then: so a second round,
/// which begins at the first worker in the order of the wishes, tells all of them alike, and what the last wish says holds everywhere:
///
/// ```text
///   worker 2    worker 1    worker 0
///      ├──────────▶├──────────▶┤        worker 1 has the SA; worker 0 learns that
///      ├──────────▶├──────────▶┤        all learn it; done
/// ```
pub(super) struct Activation {
    id: RequestId,
    policy: PolicyId,
    spi: EspSpi,
    requests: mpsc::UnboundedSender<Request>,
    found: Option<Active>,
    is_second: bool,
}

impl Activation {
    /// A wish whose outcome goes to `requests`.
    pub(super) fn new(
        id: RequestId,
        (policy, spi): (PolicyId, EspSpi),
        requests: mpsc::UnboundedSender<Request>,
    ) -> Self {
        Self { id, policy, spi, requests, found: None, is_second: false }
    }

    /// What this worker has to do with it.
    fn look(&mut self, here: &mut Worker) {
        let (policy, spi) = (self.policy, self.spi);
        match self.found {
            Some(active) => active.tell(here),
            None => match here.core.activate(policy, spi) {
                Ok(carries) => self.found = Some(Active { policy, spi, home: here.id(), carries }),
                Err(refusal) => tracing::trace!(%refusal, "another worker may have the SA"),
            },
        }
    }
}

impl Pass for Activation {
    fn visit(mut self, here: &mut Worker) -> Option<Self> {
        self.look(here);
        if here.id() != WorkerId::FIRST {
            return Some(self);
        }
        let Self { id, policy, spi, .. } = self;
        if self.found.is_none() {
            // What was asked earlier, and makes policy or SA, may not be done yet: then it waits for its turn.
            let command = Command::Activate { policy, spi };
            queue(&self.requests, Request::Todo { id, command });
        } else if self.is_second || here.is_last() {
            here.settling = here.settling.saturating_sub(usize::from(self.is_second));
            queue(&self.requests, Request::Done { id, outcome: Ok(Done::Ok) });
        } else {
            here.settling += 1;
            here.pass_on(Self { is_second: true, ..self });
        }
        None
    }
}

/// An IKE message on its way to the first worker. It takes the way of activations, a second time if some settle, and so leaves when all
/// workers know what was activated before, and after the messages that were sent before.
pub(super) struct Departure {
    path: IkePath,
    message: Vec<u8>,
    is_second: bool,
}

impl Departure {
    /// A message that is to leave by this path.
    pub(super) fn new(path: IkePath, message: Vec<u8>) -> Self {
        Self { path, message, is_second: false }
    }
}

impl Pass for Departure {
    fn visit(self, here: &mut Worker) -> Option<Self> {
        if here.id() != WorkerId::FIRST {
            return Some(self);
        }
        // What was activated before is on its second round, if not done; what settles besides came later.
        if here.settling > 0 && !self.is_second {
            here.settling += 1;
            here.pass_on(Self { is_second: true, ..self });
        } else {
            here.settling = here.settling.saturating_sub(usize::from(self.is_second));
            here.send_ike(&self.path, &self.message);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::{Duration, Instant};

    use espdp_api::*;
    use espdp_core::{OutboundBatch, Progress, SuperPacket, VnetHeader};

    use crate::worker::Worker;
    use crate::{Dataplane, DataplaneSettings};

    const POLICY: PolicyId = PolicyId(7);
    const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

    /// Runs in a network of its own, whose loopback device is up.
    fn in_a_namespace(body: impl FnOnce() + Send + 'static) {
        use rustix::thread::{UnshareFlags, unshare_unsafe};
        if !rustix::process::geteuid().is_root() {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test makes a namespace: it needs root");
            println!("not run: this test makes a namespace, which needs root");
            return;
        }
        let body = move || {
            #[expect(unsafe_code, reason = "unshare has no safe form")]
            // SAFETY: only the network of this thread changes, which nothing else depends on.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                let up = rtnetlink::LinkUnspec::new_with_index(1).up().build();
                netlink.link().change(up).execute().await.unwrap();
            });
            body();
        };
        std::thread::spawn(body).join().unwrap();
    }

    fn everything() -> Vec<TrafficSelector> {
        vec![TrafficSelector::any_protocol(AddressRange::new([0; 4].into(), [255; 4].into()).unwrap())]
    }

    fn policy() -> PolicySpec {
        PolicySpec::protect(POLICY, InterfaceName::new("ipsec0").unwrap(), everything(), everything())
    }

    fn outbound(spi: EspSpi) -> OutboundSaSpec {
        let cipher = EspCipher::AesGcm16 { key_bits: 128 };
        let sa = SaSpec {
            protocol: IpsecProtocol::Esp,
            spi,
            policy: POLICY,
            algorithms: EspAlgorithms { cipher, integrity: EspIntegrity::None, extended_sequence_numbers: false },
            encryption_key: Secret::new(vec![7; 20]),
            integrity_key: Secret::new(Vec::new()),
            mode: Mode::Tunnel,
            path: OuterPath { local: LOOPBACK.into(), remote: LOOPBACK.into(), encapsulation: Encapsulation::Esp },
            local: everything(),
            remote: everything(),
            limits: SaLimits::default(),
        };
        let (shape, sequence_end) = (PacketShape::default(), SequenceEnd::Stop);
        OutboundSaSpec { sa, shape, sequence_end, inbound: None, carries: Carries::All }
    }

    /// What a worker answers.
    fn ask<T: Send + 'static>(
        dataplane: &Dataplane,
        worker: WorkerId,
        job: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> T {
        let (answer, result) = channel();
        dataplane.mailboxes.post(worker, move |worker| answer.send(job(worker)).unwrap());
        result.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    /// A job that keeps a worker busy.
    struct Hold {
        begun: Receiver<()>,
        release: Sender<()>,
    }

    impl Hold {
        /// Waits until the worker does nothing else.
        fn begins(&self) {
            self.begun.recv_timeout(Duration::from_secs(20)).unwrap();
        }

        fn end(self) {
            self.release.send(()).unwrap();
        }
    }

    /// Keeps a worker busy after what stands in its mailbox.
    fn hold(dataplane: &Dataplane, worker: WorkerId) -> Hold {
        let ((begin, begun), (release, wait_for_release)) = (channel(), channel());
        dataplane.mailboxes.post(worker, move |_| {
            begin.send(()).ok();
            wait_for_release.recv().unwrap();
        });
        Hold { begun, release }
    }

    /// What a worker would do with a packet of the policy.
    fn push(worker: &mut Worker) -> Progress {
        let interface =
            worker.core.set_interface(&InterfaceName::new("ipsec0").unwrap(), InterfaceKind::Ipsec).unwrap();
        let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0x66, 0xcf, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([0, 9, 0, 9, 0, 8, 0, 0]);
        let mut packet = SuperPacket::new(interface, VnetHeader::default(), &packet);
        worker.core.fill(Instant::now(), &mut OutboundBatch::new()).push(&mut packet)
    }

    /// The other worker has let activation and message pass, which it does before it knows who has the SA, and is busy then.
    #[test]
    fn an_ike_message_leaves_only_when_all_workers_know_what_was_activated_before() {
        in_a_namespace(|| {
            let settings = DataplaneSettings { workers: Workers::new(2).unwrap(), ..DataplaneSettings::default() };
            let (dataplane, _receiver) = Dataplane::start(settings).unwrap();
            let (first, other) = (WorkerId(0), WorkerId(1));
            let spi = EspSpi::from_wire([0, 0, 9, 9]).unwrap();
            for worker in [first, other] {
                ask(&dataplane, worker, move |worker| {
                    worker.core.set_interface(&policy().interface, InterfaceKind::Ipsec).unwrap();
                    worker.core.set_policy(&policy()).unwrap();
                    if worker.id() == first {
                        worker.core.install_outbound(&outbound(spi)).unwrap();
                    }
                });
            }
            let peer = UdpSocket::bind(SocketAddr::from((LOOPBACK, 0))).unwrap();
            let path = IkePath { local: SocketAddr::from((LOOPBACK, 500)), remote: peer.local_addr().unwrap() };

            // So that nothing passes the other worker before all of it stands in its mailbox.
            let all_sent = hold(&dataplane, other);
            dataplane.send(ToDataplane::Request(RequestId(1), Command::Activate { policy: POLICY, spi }));
            dataplane.send(ToDataplane::SendIke { path, message: b"delete the old one".to_vec() });
            let busy = hold(&dataplane, other);
            all_sent.end();
            busy.begins();

            assert_eq!(ask(&dataplane, first, push), Progress::Done, "it is active");
            peer.set_nonblocking(true).unwrap();
            let early = peer.recv(&mut [0; 64]).map_err(|error| error.kind());
            assert_eq!(early, Err(std::io::ErrorKind::WouldBlock), "the other worker does not know yet");
            busy.end();
            peer.set_nonblocking(false).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert_eq!(peer.recv(&mut [0; 64]).unwrap(), 18);
            assert_eq!(ask(&dataplane, other, push), Progress::Elsewhere(first));
            dataplane.stop();
        });
    }

    /// The second wish passes the worker that has its SA before the first one finds that the first worker has the other SA.
    #[test]
    fn all_workers_agree_on_the_last_of_two_activations_that_overlap() {
        in_a_namespace(|| {
            let settings = DataplaneSettings { workers: Workers::new(2).unwrap(), ..DataplaneSettings::default() };
            let (dataplane, mut receiver) = Dataplane::start(settings).unwrap();
            let (first, other) = (WorkerId(0), WorkerId(1));
            let spi_at = |worker: WorkerId| EspSpi::from_wire([0, 0, 9, worker.0]).unwrap();
            for worker in [first, other] {
                let spi = spi_at(worker);
                ask(&dataplane, worker, move |worker| {
                    worker.core.set_interface(&policy().interface, InterfaceKind::Ipsec).unwrap();
                    worker.core.set_policy(&policy()).unwrap();
                    worker.core.install_outbound(&outbound(spi)).unwrap();
                });
            }
            let both_sent = hold(&dataplane, first);
            for worker in [first, other] {
                let activate = Command::Activate { policy: POLICY, spi: spi_at(worker) };
                dataplane.send(ToDataplane::Request(RequestId(worker.0.into()), activate));
            }
            ask(&dataplane, other, |_| ());
            both_sent.end();
            for _ in [first, other] {
                while !matches!(receiver.blocking_recv().unwrap(), FromDataplane::Outcome(_, Ok(Done::Ok))) {}
            }
            assert_eq!(ask(&dataplane, other, push), Progress::Done, "it has the last one");
            assert_eq!(ask(&dataplane, first, push), Progress::Elsewhere(other));
            dataplane.stop();
        });
    }

    /// The second activation settles still when the message has been round twice: the other worker is busy before it hears of that.
    #[test]
    fn an_ike_message_does_not_wait_for_what_is_activated_after_it() {
        in_a_namespace(|| {
            let settings = DataplaneSettings { workers: Workers::new(2).unwrap(), ..DataplaneSettings::default() };
            let (dataplane, _receiver) = Dataplane::start(settings).unwrap();
            let (first, other) = (WorkerId(0), WorkerId(1));
            let spi = EspSpi::from_wire([0, 0, 9, 9]).unwrap();
            ask(&dataplane, first, move |worker| {
                worker.core.set_interface(&policy().interface, InterfaceKind::Ipsec).unwrap();
                worker.core.set_policy(&policy()).unwrap();
                worker.core.install_outbound(&outbound(spi)).unwrap();
            });
            let peer = UdpSocket::bind(SocketAddr::from((LOOPBACK, 0))).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let path = IkePath { local: SocketAddr::from((LOOPBACK, 500)), remote: peer.local_addr().unwrap() };
            let activate =
                |id| dataplane.send(ToDataplane::Request(RequestId(id), Command::Activate { policy: POLICY, spi }));

            let all_sent = hold(&dataplane, other);
            activate(1);
            dataplane.send(ToDataplane::SendIke { path, message: b"delete the old one".to_vec() });
            activate(2);
            let second_rounds = hold(&dataplane, other);
            all_sent.end();
            second_rounds.begins();
            assert_eq!(ask(&dataplane, first, |worker| worker.settling), 3);
            let end = hold(&dataplane, other);
            second_rounds.end();
            end.begins();
            assert_eq!(ask(&dataplane, first, |worker| worker.settling), 0);
            assert_eq!(peer.recv(&mut [0; 64]).unwrap(), 18, "though the other worker is busy");
            end.end();
            dataplane.stop();
        });
    }
}
