//! A dataplane in a namespace, driven by hand as the daemon drives it.

use std::net::IpAddr;

use espdp::{Dataplane, DataplaneSettings};
use espdp_api::*;
use futures_util::TryStreamExt;
use tokio::sync::mpsc::Receiver;

use crate::world::{Namespace, with_netlink};

/// A dataplane and what it said so far.
pub(crate) struct Gateway {
    dataplane: Option<Dataplane>,
    receiver: Receiver<FromDataplane>,
    requests: u64,
    namespace: Namespace,
}

/// The interface of every test.
pub(crate) const INTERFACE: &str = "ipsec0";
/// The policy of every test.
pub(crate) const POLICY: PolicyId = PolicyId(1);

impl Gateway {
    /// Starts one in `namespace`.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        Self::start_with(namespace, settings())
    }

    /// Starts one in `namespace` with these settings.
    pub(crate) fn start_with(namespace: &Namespace, settings: DataplaneSettings) -> Self {
        let started = namespace.run(|| Dataplane::start(settings));
        let (dataplane, receiver) = started.unwrap();
        Self { dataplane: Some(dataplane), receiver, requests: 0, namespace: namespace.clone() }
    }

    /// Sends a message that has no answer.
    pub(crate) fn send(&self, message: ToDataplane) {
        self.dataplane.as_ref().unwrap().send(message);
    }

    /// Has a command carried out; events that come before its outcome are lost.
    pub(crate) fn outcome(&mut self, command: Command) -> Outcome {
        let id = self.begin(command);
        self.outcome_of(id)
    }

    /// Wants a command carried out.
    pub(crate) fn begin(&mut self, command: Command) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.send(ToDataplane::Request(id, command));
        id
    }

    /// What came of the first command that was begun and not asked about.
    pub(crate) fn outcome_of(&mut self, id: RequestId) -> Outcome {
        self.outcome_counting(id, |event| println!("event before an outcome: {event:?}"))
    }

    /// The same, and hands on the events that come before.
    pub(crate) fn outcome_counting(&mut self, id: RequestId, mut heard: impl FnMut(Event)) -> Outcome {
        loop {
            match self.receiver.blocking_recv().unwrap() {
                FromDataplane::Outcome(answered, outcome) => {
                    assert_eq!(answered, id, "outcomes come in order and once");
                    return outcome;
                }
                FromDataplane::Event(event) => heard(event),
            }
        }
    }

    /// Has a command carried out that must succeed.
    pub(crate) fn command(&mut self, command: Command) -> Done {
        self.outcome(command).unwrap()
    }

    /// The next event that `wanted` turns into something.
    pub(crate) fn event<T>(&mut self, wanted: impl Fn(Event) -> Option<T>) -> T {
        loop {
            let FromDataplane::Event(event) = self.receiver.blocking_recv().unwrap() else {
                panic!("an outcome that nobody asked for")
            };
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    /// Makes the interface with these addresses.
    pub(crate) fn interface(&mut self, kind: InterfaceKind, addresses: &[&str]) {
        let spec = InterfaceSpec {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ..InterfaceSpec::new(InterfaceName::new(INTERFACE).unwrap(), kind)
        };
        assert_eq!(self.command(Command::SetInterface(Box::new(spec))), Done::Ok);
    }

    /// Sets the policy; selectors are prefixes.
    pub(crate) fn policy(&mut self, local: &[&str], remote: &[&str], routes: &[&str]) {
        let spec = PolicySpec {
            action: PolicyAction::Protect { acquire: true },
            routes: routes.iter().map(|text| text.parse().unwrap()).collect(),
            ..PolicySpec::protect(POLICY, InterfaceName::new(INTERFACE).unwrap(), selectors(local), selectors(remote))
        };
        assert_eq!(self.command(Command::SetPolicy(Box::new(spec))), Done::Ok);
    }

    /// A fresh inbound SPI.
    pub(crate) fn reserve(&mut self) -> EspSpi {
        self.reserve_for(SpiWish::new(InterfaceName::new(INTERFACE).unwrap()))
    }

    /// A fresh inbound SPI for a special purpose.
    pub(crate) fn reserve_for(&mut self, wish: SpiWish) -> EspSpi {
        let Done::Spi(spi) = self.command(Command::ReserveSpi(wish)) else { panic!("an SPI expected") };
        spi
    }

    /// All counters.
    pub(crate) fn statistics(&mut self) -> (Vec<SaStatistics>, InterfaceReport, Vec<DropCount>) {
        let Done::Statistics { sas, mut interfaces, drops } = self.command(Command::Statistics) else {
            panic!("statistics expected")
        };
        (sas, interfaces.remove(0), drops)
    }

    /// The counters of the only SA of a direction.
    pub(crate) fn sa(&mut self, direction: Direction) -> SaStatistics {
        let (sas, ..) = self.statistics();
        let mut sas = sas.into_iter().filter(|sa| sa.direction == direction);
        let (Some(sa), None) = (sas.next(), sas.next()) else { panic!("one SA of each direction expected") };
        sa
    }

    /// Stops it, and checks that nothing of it is left in the namespace.
    pub(crate) fn stop(mut self) {
        let dataplane = self.dataplane.take().unwrap();
        dataplane.stop();
        self.namespace.run(assert_clean);
    }
}

/// Settings as usual, with as many workers as the environment variable `ESPDP_TEST_WORKERS` says: everything has to work with any
/// number of them.
pub(crate) fn settings() -> DataplaneSettings {
    let count = std::env::var("ESPDP_TEST_WORKERS").map_or(1, |count| count.parse().unwrap());
    DataplaneSettings { workers: Workers::new(count).unwrap(), ..DataplaneSettings::default() }
}

/// One way to protect packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suite {
    pub(crate) protocol: IpsecProtocol,
    pub(crate) algorithms: EspAlgorithms,
    pub(crate) mode: Mode,
    pub(crate) encapsulation: Encapsulation,
    pub(crate) left: &'static str,
    pub(crate) right: &'static str,
}

/// Installs an SA in each direction with the keys of this test.
pub(crate) fn connect(left: &mut Gateway, right: &mut Gateway, suite: Suite, local: &[&str], remote: &[&str]) {
    let (to_left, to_right) = (left.reserve(), right.reserve());
    for (gateway, inbound, outbound, from, to, local, remote) in [
        (&mut *left, to_left, to_right, suite.left, suite.right, local, remote),
        (&mut *right, to_right, to_left, suite.right, suite.left, remote, local),
    ] {
        let sa = |spi| half(suite, spi, [from, to], [local, remote]);
        let spec = InboundSaSpec { sa: sa(inbound), replay_window: 1024 };
        gateway.command(Command::InstallInbound(Box::new(spec)));
        let (ours, spi) = (inbound, outbound);
        let outbound = OutboundSaSpec {
            sa: sa(spi),
            shape: PacketShape::default(),
            sequence_end: SequenceEnd::Stop,
            inbound: Some(ours),
            carries: Carries::All,
        };
        gateway.command(Command::InstallOutbound(Box::new(outbound)));
        gateway.command(Command::Activate { policy: POLICY, spi });
    }
}

/// An SA between two addresses, for what is between two sets of networks.
pub(crate) fn half(suite: Suite, spi: EspSpi, [from, to]: [&str; 2], [local, remote]: [&[&str]; 2]) -> SaSpec {
    SaSpec {
        protocol: suite.protocol,
        spi,
        policy: POLICY,
        algorithms: suite.algorithms,
        encryption_key: key(spi, suite.algorithms.cipher.key_len() + suite.algorithms.cipher.salt_len()),
        integrity_key: key(spi, suite.algorithms.integrity.key_len()),
        mode: suite.mode,
        path: OuterPath { local: address(from), remote: address(to), encapsulation: suite.encapsulation },
        local: selectors(local),
        remote: selectors(remote),
        limits: SaLimits::default(),
    }
}

/// The selectors of prefixes.
pub(crate) fn selectors(prefixes: &[&str]) -> Vec<TrafficSelector> {
    prefixes.iter().map(|text| TrafficSelector::any_protocol(range(text))).collect()
}

fn range(text: &str) -> AddressRange {
    let prefix: IpPrefix = text.parse().unwrap();
    let start = ::tunnels::network(prefix).address();
    let end = match start {
        IpAddr::V4(start) => {
            IpAddr::V4((start.to_bits() | u32::MAX.checked_shr(prefix.bits().into()).unwrap_or(0)).into())
        }
        IpAddr::V6(start) => {
            IpAddr::V6((start.to_bits() | u128::MAX.checked_shr(prefix.bits().into()).unwrap_or(0)).into())
        }
    };
    AddressRange::new(start, end).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Keys that differ by SA, as both ends derive them.
fn key(spi: EspSpi, len: usize) -> Secret<Vec<u8>> {
    Secret::new(spi.to_wire().into_iter().cycle().zip(0u8..).map(|(octet, at)| octet ^ at).take(len).collect())
}

/// Neither link nor rule nor route of a dataplane is here.
fn assert_clean() {
    use rtnetlink::RouteMessageBuilder;
    use rtnetlink::packet_route::route::RouteAttribute;
    let ours = RouteAttribute::Table(DataplaneSettings::default().table);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    // A program that another test is just starting may have the descriptor of the device for a moment.
    while let links = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()
        && links.contains(INTERFACE)
    {
        assert!(std::time::Instant::now() < deadline, "{links}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_no_rules();
    with_netlink(async |netlink| {
        let all = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let routes: Vec<_> = netlink.route().get(all).execute().try_collect().await.unwrap();
        assert!(!routes.iter().any(|route| route.attributes.contains(&ours)), "{routes:?}");
    });
}

/// There are no rules but those of the kernel.
pub(crate) fn assert_no_rules() {
    use rtnetlink::IpVersion;
    use rtnetlink::packet_route::route::RouteProtocol;
    use rtnetlink::packet_route::rule::RuleAttribute;
    let of_the_kernel = RuleAttribute::Protocol(RouteProtocol::Kernel);
    with_netlink(async |netlink| {
        for version in [IpVersion::V4, IpVersion::V6] {
            let rules: Vec<_> = netlink.rule().get(version).execute().try_collect().await.unwrap();
            assert!(rules.iter().all(|rule| rule.attributes.contains(&of_the_kernel)), "{rules:?}");
        }
    });
}
