//! All sockets of a worker, and how runs of ESP packets and IKE messages leave through them.

use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};

use espdp_api::{Encapsulation, IkePath, WorkerId, Workers};
use espdp_core::{ClearPacket, Exit, Fragmenter, OuterHeader, Run};
use tunnels::Family;

use crate::io::control_message::Sending;
use crate::io::port::{Coalesce, Port, Sharing, TooLong};
use crate::io::steering::SpiAt;
use crate::worker::counters::{Loss, Losses};
use crate::{DataplaneSettings, StartError};

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// IKE on UDP port 500.
    Ike,
    /// IKE behind a marker, and ESP, on UDP port 4500.
    Nat,
    /// ESP as IP protocol 50.
    Esp,
    /// AH, IP protocol 51.
    Ah,
}

/// Names a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortId {
    pub(crate) purpose: Use,
    pub(crate) family: Family,
}

impl PortId {
    /// Every socket that there may be.
    pub(crate) const ALL: [Self; 8] = [
        Self { purpose: Use::Ike, family: Family::V4 },
        Self { purpose: Use::Nat, family: Family::V4 },
        Self { purpose: Use::Esp, family: Family::V4 },
        Self { purpose: Use::Ah, family: Family::V4 },
        Self { purpose: Use::Ike, family: Family::V6 },
        Self { purpose: Use::Nat, family: Family::V6 },
        Self { purpose: Use::Esp, family: Family::V6 },
        Self { purpose: Use::Ah, family: Family::V6 },
    ];
}

/// The sockets of one family.
#[derive(Debug)]
struct FamilyPorts {
    /// Only the first worker has it.
    ike: Option<Port>,
    nat: Port,
    esp: Port,
    ah: Port,
    /// For whole packets that a policy lets out in clear, and for AH.
    bypass: Port,
    /// For whole packets that take the same way as any other of this host.
    routed: Port,
}

impl FamilyPorts {
    /// Those of all workers. Each gets what its SAs receive.
    fn open_all(family: Family, settings: &DataplaneSettings) -> Result<Vec<Self>, StartError> {
        let DataplaneSettings { ike_port, nat_port, mark, workers, .. } = *settings;
        let ports = workers.ids().map(|worker| {
            let is_first = worker == WorkerId::FIRST;
            let sharing = if workers == Workers::ONE { Sharing::Alone } else { Sharing::BySpi };
            let ports = Self {
                ike: is_first.then(|| Port::udp(family, ike_port, mark, Coalesce::No, Sharing::Alone)).transpose()?,
                nat: Port::udp(family, nat_port, mark, Coalesce::Yes, sharing)?,
                esp: Port::esp(family, mark)?,
                ah: Port::ah(family, mark)?,
                bypass: Port::with_header(family, Some(mark))?,
                routed: Port::with_header(family, None)?,
            };
            if sharing == Sharing::BySpi {
                ports.esp.keep_only(worker, workers, SpiAt::Esp)?;
                ports.ah.keep_only(worker, workers, SpiAt::Ah)?;
            }
            Ok(ports)
        });
        let ports = ports.collect::<Result<Vec<_>, StartError>>()?;
        // Now that all of them are there: what came to one of them earlier is handed to its owner.
        if let Some(first) = ports.first().filter(|_| workers != Workers::ONE) {
            first.nat.steer_by_spi(workers)?;
        }
        Ok(ports)
    }
}

/// All sockets.
#[derive(Debug)]
pub(crate) struct Ports {
    v4: FamilyPorts,
    /// `None` on machines without IPv6.
    v6: Option<FamilyPorts>,
    ike_port: u16,
    nat_port: u16,
}

impl Ports {
    /// Opens all sockets of all workers in the network namespace of the calling thread.
    pub(crate) fn open_all(settings: &DataplaneSettings) -> Result<Vec<Self>, StartError> {
        let v4 = FamilyPorts::open_all(Family::V4, settings)?;
        let v6 = match FamilyPorts::open_all(Family::V6, settings) {
            Ok(ports) => ports,
            Err(StartError::System { source, .. }) if is_without_family(&source) => {
                tracing::info!("no IPv6 here");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let mut v6 = v6.into_iter();
        let of_worker = |v4| Self { v4, v6: v6.next(), ike_port: settings.ike_port, nat_port: settings.nat_port };
        Ok(v4.into_iter().map(of_worker).collect())
    }

    /// The families that there are sockets of.
    pub(crate) fn families(&self) -> Vec<Family> {
        let v6 = self.v6.as_ref().map(|_| Family::V6);
        [Family::V4].into_iter().chain(v6).collect()
    }

    /// One socket.
    pub(crate) fn get(&mut self, id: PortId) -> Option<&mut Port> {
        let ports = self.of(id.family)?;
        match id.purpose {
            Use::Ike => ports.ike.as_mut(),
            Use::Nat => Some(&mut ports.nat),
            Use::Esp => Some(&mut ports.esp),
            Use::Ah => Some(&mut ports.ah),
        }
    }

    fn of(&mut self, family: Family) -> Option<&mut FamilyPorts> {
        match family {
            Family::V4 => Some(&mut self.v4),
            Family::V6 => self.v6.as_mut(),
        }
    }

    /// The number of the UDP port behind `purpose`; 0 for ESP and AH.
    pub(crate) fn number(&self, purpose: Use) -> u16 {
        match purpose {
            Use::Ike => self.ike_port,
            Use::Nat => self.nat_port,
            Use::Esp | Use::Ah => 0,
        }
    }

    /// Sends a run of ESP packets. Says the peer to which the path turned out to be too narrow, if so; what is too long for it goes
    /// in fragments until the interface's MTU is right, and for ever where IPv6 inside wants more than the path offers.
    pub(crate) fn send_run(&mut self, run: &Run<'_>, losses: &mut Losses) -> Option<IpAddr> {
        if run.has_own_header {
            return self.send_with_header(run, losses);
        }
        let remote = run.path.remote;
        let (purpose, remote_port) = match run.path.encapsulation {
            Encapsulation::Esp => (Use::Esp, 0),
            Encapsulation::Udp { remote_port, .. } => (Use::Nat, remote_port),
        };
        let packets = run.packets();
        let Some(port) = self.get(PortId { purpose, family: remote.into() }) else {
            losses.count(Loss::NoPort, packets.len());
            return None;
        };
        let to = SocketAddr::new(remote, remote_port);
        let mut patience = Patience::Left;
        let OuterHeader { traffic_class, hop_limit, flow_label, .. } = run.outer;
        let one = Sending { traffic_class, hop_limit: Some(hop_limit), flow_label, ..Sending::from(run.path.local) };
        let too_long = too_long(&run.outer);
        if packets.len() > 1 && purpose == Use::Nat {
            let all = Sending { segment: u16::try_from(run.segment_len).ok(), ..one };
            match send(port, &[IoSlice::new(run.octets)], to, &all, too_long, &mut patience) {
                Err(error) if may_take_singly(&error) => {}
                Err(error) => {
                    losses.count(loss(&error), packets.len());
                    return None;
                }
                Ok(()) => return None,
            }
        }
        let mut too_narrow = None;
        for packet in packets {
            let pieces = [IoSlice::new(packet)];
            let mut sent = send(port, &pieces, to, &one, too_long, &mut patience);
            if too_long != TooLong::Fragment && sent.as_ref().is_err_and(is_too_big) {
                too_narrow = Some(remote);
                sent = send(port, &pieces, to, &one, TooLong::Fragment, &mut patience);
            }
            if let Err(error) = sent {
                losses.count(loss(&error), 1);
            }
        }
        too_narrow
    }

    /// Sends a run of packets that bring their own IP header, in fragments where they ask for it. Says the peer to which the path
    /// turned out to be too narrow.
    fn send_with_header(&mut self, run: &Run<'_>, losses: &mut Losses) -> Option<IpAddr> {
        let remote = run.path.remote;
        let too_long = too_long(&run.outer);
        let Some(ports) = self.of(remote.into()) else {
            losses.count(Loss::NoPort, run.packets().len());
            return None;
        };
        let mut too_narrow = None;
        let mut send = |packet: &[u8]| {
            if let Err(error) = ports.bypass.send_packet(packet, remote, too_long) {
                too_narrow = too_narrow.or(is_too_big(&error).then_some(remote));
                losses.count(loss(&error), 1);
            }
        };
        for packet in run.packets() {
            match run.outer.cut_to.and_then(|mtu| Fragmenter::new(packet, usize::from(mtu))) {
                Some(fragments) => {
                    for index in 0..fragments.count() {
                        let mut fragment = vec![0; fragments.len(index)];
                        // What cannot be a fragment, for it would end beyond 64 KiB, cannot arrive either.
                        if fragments.write(index, &mut fragment).is_some() {
                            send(&fragment);
                        }
                    }
                }
                None => send(packet),
            }
        }
        too_narrow
    }

    /// Sends a packet that brings its own IP header. Says its destination if the path to it turned out to be too narrow.
    pub(crate) fn send_clear(&mut self, packet: &ClearPacket<'_>, losses: &mut Losses) -> Option<IpAddr> {
        let Some(destination) = packet.destination() else {
            losses.count(Loss::SendFailed, 1);
            return None;
        };
        let Some(ports) = self.of(destination.into()) else {
            losses.count(Loss::NoPort, 1);
            return None;
        };
        let port = match packet.exit {
            Exit::Bypass => &mut ports.bypass,
            Exit::Routed => &mut ports.routed,
        };
        let error = port.send_packet(packet.octets, destination, TooLong::Fragment).err()?;
        tracing::debug!(%error, %destination, "a whole packet could not be sent");
        losses.count(loss(&error), 1);
        is_too_big(&error).then_some(destination)
    }

    /// Sends an IKE message; on the NAT-T port behind four zero octets (RFC 7296 §2.23, RFC 3948 §2.2). Our port in `path` says
    /// which socket. IKE messages may be fragmented by IP.
    pub(crate) fn send_ike(&mut self, path: &IkePath, message: &[u8], losses: &mut Losses) {
        if path.local.port() == self.ike_port {
            self.send_datagram(Use::Ike, path, &[IoSlice::new(message)], losses);
        } else {
            self.send_datagram(Use::Nat, path, &[IoSlice::new(&[0; 4]), IoSlice::new(message)], losses);
        }
    }

    /// Sends a NAT keepalive (RFC 3948 §2.3).
    pub(crate) fn send_keepalive(&mut self, path: &IkePath, losses: &mut Losses) {
        self.send_datagram(Use::Nat, path, &[IoSlice::new(&[0xff])], losses);
    }

    fn send_datagram(&mut self, purpose: Use, path: &IkePath, pieces: &[IoSlice<'_>], losses: &mut Losses) {
        let Some(port) = self.get(PortId { purpose, family: path.remote.ip().into() }) else {
            losses.count(Loss::NoPort, 1);
            return;
        };
        let sending = Sending::from(path.local.ip());
        if let Err(error) = send(port, pieces, path.remote, &sending, TooLong::Fragment, &mut Patience::Left) {
            tracing::debug!(%error, ?path, "an IKE datagram could not be sent");
            losses.count(loss(&error), 1);
        }
    }
}

/// Whether to wait once more for room in a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    Left,
    Lost,
}

/// Sends, after a short wait when there is no room. A wait in vain is the last one of the run.
fn send(
    port: &mut Port,
    pieces: &[IoSlice<'_>],
    to: SocketAddr,
    sending: &Sending,
    too_long: TooLong,
    patience: &mut Patience,
) -> io::Result<()> {
    let is_full = |result: &io::Result<()>| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    let mut sent = port.send(pieces, to, sending, too_long);
    if is_full(&sent) && *patience == Patience::Left {
        port.wait_for_room();
        sent = port.send(pieces, to, sending, too_long);
        if is_full(&sent) {
            *patience = Patience::Lost;
        }
    }
    sent
}

/// Whether the kernel refused the run as a whole but may take its packets: devices without checksum offload (`EIO`), kernels with
/// other limits (`EINVAL`), packets that are too long for the path (`EMSGSIZE`).
fn may_take_singly(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL)) || is_too_big(error)
}

fn too_long(outer: &OuterHeader) -> TooLong {
    match (outer.dont_fragment, outer.heeds_path_mtu) {
        (true, true) => TooLong::Refuse,
        (true, false) => TooLong::RefuseByLink,
        (false, _) => TooLong::Fragment,
    }
}

fn is_too_big(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

fn loss(error: &io::Error) -> Loss {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => Loss::SendTooBig,
        Some(libc::EAGAIN | libc::ENOBUFS) => Loss::SendFull,
        _ => Loss::SendFailed,
    }
}

/// Whether a socket was refused because the machine has no such address family.
fn is_without_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}
