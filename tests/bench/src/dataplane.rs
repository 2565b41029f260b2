//! Our dataplane alone, with keys by hand: as many tunnels as one likes, without a handshake for each.
//!
//! Both gateways run as processes of their own, which are this program again, so that their CPU time can be told apart.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use espdp::{Dataplane, DataplaneSettings};
use espdp_api::{
    AddressRange, Command, Done, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, EspSpi, FromDataplane,
    InboundSaSpec, InterfaceKind, InterfaceName, InterfaceSpec, IpPrefix, IpsecProtocol, Mode, OutboundSaSpec,
    OuterPath, PacketShape, PolicyId, PolicySpec, RequestId, SaLimits, SaSpec, Secret, SequenceEnd, ToDataplane,
    TrafficSelector,
};
use harness::{Site, World};
use tokio::sync::mpsc::Receiver;

use crate::load::FIRST_TUNNEL;

/// Which gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// The left one.
    Moon,
    /// The right one.
    Sun,
}

/// Both gateways of mode `tunnels`.
pub(crate) struct Tunnels {
    gateways: Vec<(Child, ChildStdin)>,
}

impl Tunnels {
    /// Starts both and waits until all tunnels are there.
    pub(crate) fn start(world: &World, tunnels: u32) -> Result<Self> {
        let program: PathBuf = std::env::current_exe()?;
        let mut gateways = Vec::new();
        for (site, side) in [(Site::MOON, "moon"), (Site::SUN, "sun")] {
            let mut command = world.command(site.gateway, &program)?;
            command.args(["gateway", side, &tunnels.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().context("start a gateway")?;
            let stdin = child.stdin.take().context("its standard input")?;
            gateways.push((child, stdin));
        }
        for (child, _) in &mut gateways {
            let mut word = [0; 5];
            child.stdout.take().context("its standard output")?.read_exact(&mut word).context("a gateway failed")?;
            ensure!(&word == READY, "a gateway said {word:?}");
        }
        Ok(Self { gateways })
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        self.gateways.iter().map(|(child, _)| child.id()).collect()
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        for (mut child, stdin) in self.gateways.drain(..) {
            drop(stdin); // The end of its input is its sign to stop.
            if let Err(error) = child.wait() {
                eprintln!("a gateway cannot be waited for: {error}");
            }
        }
    }
}

/// One gateway: sets its tunnels up, says so, and serves until its standard input ends.
pub(crate) fn run(side: Side, tunnels: u32, native: bool) -> Result<()> {
    let (dataplane, receiver) = Dataplane::start(DataplaneSettings::default())?;
    let mut gateway = Driven { dataplane, receiver, requests: 0 };
    let name = InterfaceName::new("ipsec0")?;
    gateway.command(Command::SetInterface(InterfaceSpec::new(name.clone(), InterfaceKind::Ipsec)))?;
    for index in 0..tunnels {
        gateway.add_tunnel(side, &name, index, native)?;
    }
    std::io::stdout().write_all(READY)?;
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    gateway.dataplane.stop();
    Ok(())
}

/// A dataplane that does one command after the other.
struct Driven {
    dataplane: Dataplane,
    receiver: Receiver<FromDataplane>,
    requests: u64,
}

impl Driven {
    fn command(&mut self, command: Command) -> Result<Done> {
        self.requests += 1;
        self.dataplane.send(ToDataplane::Request(RequestId(self.requests), command));
        loop {
            match self.receiver.blocking_recv().context("the dataplane ended")? {
                FromDataplane::Outcome(_, outcome) => return Ok(outcome?),
                FromDataplane::Event(_) => {}
            }
        }
    }

    /// A tunnel between the whole left network and one address of the right one.
    fn add_tunnel(&mut self, side: Side, interface: &InterfaceName, index: u32, native: bool) -> Result<()> {
        let target = Ipv4Addr::from_bits(FIRST_TUNNEL.to_bits() + index);
        let left = range("10.1.0.0".parse()?, "10.1.255.255".parse()?)?;
        let right = range(target, target)?;
        let id = PolicyId(u64::from(index) + 1);
        let (local, remote, route, ends) = match side {
            Side::Moon => (left, right, format!("{target}/32"), [Site::MOON, Site::SUN]),
            Side::Sun => (right, left, Site::MOON.net4.to_owned(), [Site::SUN, Site::MOON]),
        };
        let routes: Vec<IpPrefix> = if side == Side::Moon || index == 0 { vec![route.parse()?] } else { Vec::new() };
        let policy = PolicySpec { routes, ..PolicySpec::protect(id, interface.clone(), local.clone(), remote.clone()) };
        self.command(Command::SetPolicy(Box::new(policy)))?;
        let [to_left, to_right] = [2 * index + 0x1000_0000, 2 * index + 0x1000_0001].map(spi);
        let (inbound, outbound) = match side {
            Side::Moon => (to_left?, to_right?),
            Side::Sun => (to_right?, to_left?),
        };
        let encapsulation = match native {
            true => Encapsulation::Esp,
            false => Encapsulation::Udp { local_port: 4500, remote_port: 4500 },
        };
        let algorithms = EspAlgorithms {
            cipher: EspCipher::AesGcm16 { key_bits: 256 },
            integrity: EspIntegrity::None,
            extended_sequence_numbers: true,
        };
        let [here, there] = ends.map(|site| site.outer4.parse());
        let path = OuterPath { local: here?, remote: there?, encapsulation };
        let sa = |spi: EspSpi| SaSpec {
            protocol: IpsecProtocol::Esp,
            spi,
            policy: id,
            algorithms,
            encryption_key: Secret::new(spi.to_wire().into_iter().cycle().take(36).collect()),
            integrity_key: Secret::new(Vec::new()),
            mode: Mode::Tunnel,
            path,
            local: local.clone(),
            remote: remote.clone(),
            limits: SaLimits::default(),
        };
        self.command(Command::ClaimSpi(inbound))?;
        self.command(Command::InstallInbound(Box::new(InboundSaSpec { sa: sa(inbound), replay_window: 1024 })))?;
        let spec = OutboundSaSpec { sa: sa(outbound), shape: PacketShape::default(), sequence_end: SequenceEnd::Stop };
        self.command(Command::InstallOutbound(Box::new(spec)))?;
        self.command(Command::Activate { policy: id, spi: outbound })?;
        Ok(())
    }
}

fn range(from: Ipv4Addr, to: Ipv4Addr) -> Result<Vec<TrafficSelector>> {
    Ok(vec![TrafficSelector::any_protocol(AddressRange::new(from.into(), to.into())?)])
}

fn spi(number: u32) -> Result<EspSpi> {
    Ok(EspSpi::from_wire(number.to_be_bytes())?)
}

/// What a gateway says when its tunnels are there.
const READY: &[u8; 5] = b"READY";
