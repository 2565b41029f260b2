//! Our dataplane alone, with keys by hand: as many tunnels as one likes, without a handshake for each. It says when they are there,
//! and serves until its standard input ends.

use std::io::{Read, Write};
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use espdp::{Dataplane, DataplaneSettings};
use espdp_api::{
    Carries, Command, Done, Encapsulation, EspAlgorithms, EspCipher, EspIntegrity, EspSpi, FromDataplane,
    InboundSaSpec, InterfaceKind, InterfaceName, InterfaceSpec, IpPrefix, IpsecProtocol, Mode, OutboundSaSpec,
    OuterPath, PacketShape, PolicyId, PolicySpec, RequestId, SaLimits, SaSpec, Secret, SequenceEnd, ToDataplane,
    TrafficSelector,
};
use tokio::sync::mpsc::Receiver;

#[derive(Parser)]
struct Options {
    /// Which gateway.
    side: Side,
    /// How many tunnels, one for each address from 10.2.128.0 on; 0: one for the whole right network.
    tunnels: u32,
    /// ESP directly in IP.
    #[arg(long)]
    native: bool,
    /// The link of the hosts, to be read past the stack.
    #[arg(long)]
    link: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Side {
    /// The left one, at 192.168.0.1.
    Moon,
    /// The right one, at 192.168.0.2.
    Sun,
}

fn main() -> Result<()> {
    let Options { side, tunnels, native, link } = Options::parse();
    let (dataplane, receiver) = Dataplane::start(DataplaneSettings::default())?;
    let mut gateway = Driven { dataplane, receiver, requests: 0 };
    let name = InterfaceName::new("ipsec0")?;
    let host_link = link.map(InterfaceName::new).transpose()?;
    let spec = InterfaceSpec { host_link, ..InterfaceSpec::new(name.clone(), InterfaceKind::Ipsec) };
    gateway.command(Command::SetInterface(Box::new(spec)))?;
    if tunnels == 0 {
        gateway.add_tunnel(side, &name, 0, &"10.2.0.0/16".parse()?, native)?;
    }
    for index in 0..tunnels {
        let target = Ipv4Addr::from_bits(FIRST_TUNNEL.to_bits() + index);
        gateway.add_tunnel(side, &name, index, &format!("{target}/32").parse()?, native)?;
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

    /// A tunnel between the whole left network and what there is of the right one.
    fn add_tunnel(
        &mut self,
        side: Side,
        interface: &InterfaceName,
        index: u32,
        right: &IpPrefix,
        native: bool,
    ) -> Result<()> {
        let left: IpPrefix = "10.1.0.0/16".parse()?;
        let id = PolicyId(u64::from(index) + 1);
        let (local, remote, ends) = match side {
            Side::Moon => (left, *right, [MOON, SUN]),
            Side::Sun => (*right, left, [SUN, MOON]),
        };
        let routes = if side == Side::Moon || index == 0 { vec![remote] } else { Vec::new() };
        let [local, remote] = [local, remote].map(|prefix| vec![TrafficSelector::any_protocol(tunnels::range(prefix))]);
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
        let [local_end, remote_end] = ends.map(Into::into);
        let path = OuterPath { local: local_end, remote: remote_end, encapsulation };
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
        let spec = OutboundSaSpec {
            sa: sa(outbound),
            shape: PacketShape::default(),
            sequence_end: SequenceEnd::Stop,
            inbound: Some(inbound),
            carries: Carries::All,
        };
        self.command(Command::InstallOutbound(Box::new(spec)))?;
        self.command(Command::Activate { policy: id, spi: outbound })?;
        Ok(())
    }
}

fn spi(number: u32) -> Result<EspSpi> {
    Ok(EspSpi::from_wire(number.to_be_bytes())?)
}

/// What it says when its tunnels are there.
const READY: &[u8; 5] = b"READY";
/// The left gateway.
const MOON: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
/// The right gateway.
const SUN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);
/// The address of the first tunnel.
const FIRST_TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 2, 128, 0);
