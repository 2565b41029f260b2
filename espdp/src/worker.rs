//! The thread that moves packets.
//!
//! A worker owns its sockets, its queues of the TUN devices and its SAs; nothing of it is shared, so nothing is locked. What
//! others want from it arrives as a job in its mailbox. It runs every packet to completion and sleeps in `epoll_wait` otherwise.

mod active;
mod counters;
mod handed;
mod handover;
mod link;
mod mailbox;
mod ports;
mod switching;
mod tunnel_ports;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use espdp_api::{DropCount, Encapsulation, Event, IkePath, OuterPath, WorkerId};
use espdp_core::{
    Dataplane, Egress, Elsewhere, Filling, InboundBatch, InterfaceId, Offloads, Opened, Origin, OutboundBatch,
    Progress, Reply, Sealed, SuperPacket, VnetHeader,
};
use rustix::event::{Timespec, epoll};
use tokio::sync::mpsc;
use tunnels::Family;

use crate::events::Events;
use crate::io::device::Device;
pub(crate) use active::Active;
use counters::{Loss, Losses};
use handover::Cargo;
pub(crate) use handover::Handover;
use link::Link;
pub(crate) use mailbox::{Mailbox, Mailboxes, Pass, WorkerGone};
pub(crate) use ports::Ports;
use ports::{PortId, Use};
use switching::Switch;
pub(crate) use tunnel_ports::TunnelPortId;
use tunnel_ports::TunnelPorts;

/// Everything that one worker thread owns.
pub(crate) struct Worker {
    id: WorkerId,
    /// How to reach the others.
    all: Mailboxes,
    handover: Handover,
    /// Policies and SAs.
    pub(crate) core: Dataplane,
    ports: Ports,
    tunnel_ports: TunnelPorts,
    devices: BTreeMap<InterfaceId, Device>,
    /// Links of the host beside the devices of their interfaces.
    links: BTreeMap<InterfaceId, Link>,
    /// What the TUN devices of this machine take.
    offloads: Offloads,
    epoll: OwnedFd,
    reports: Reports,
    losses: Losses,
    outbound: OutboundBatch,
    egress: Egress,
    inbound: InboundBatch,
    /// For one read from a TUN device or from the IKE port.
    buffer: Box<[u8]>,
    /// When to look for SAs that were silent for too long; `None`: now.
    dummies_due: Option<Instant>,
    /// Activations on their second round, of which some of the workers may not have heard yet, and IKE messages that go round after them.
    /// The first worker counts them, and holds IKE messages back.
    pub(crate) settling: usize,
    stopping: bool,
}

/// Where a worker tells what it notices.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    pub(crate) events: Events,
    /// Peers to which a packet was too long for the path.
    pub(crate) too_big: mpsc::Sender<IpAddr>,
    /// Devices that give no packets any more. Each worker tells each once, so there are never more than queues.
    pub(crate) lost: mpsc::UnboundedSender<InterfaceId>,
}

impl Worker {
    /// The worker `id` of `all`, which serves `ports`.
    pub(crate) fn new(
        id: WorkerId,
        (all, handover): (Mailboxes, Handover),
        ports: Ports,
        core: Dataplane,
        reports: Reports,
    ) -> io::Result<Self> {
        Ok(Self {
            id,
            all,
            handover,
            core,
            ports,
            tunnel_ports: TunnelPorts::default(),
            devices: BTreeMap::new(),
            links: BTreeMap::new(),
            offloads: Offloads::default(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            reports,
            losses: Losses::default(),
            outbound: OutboundBatch::new(),
            egress: Egress::default(),
            inbound: InboundBatch::new(),
            buffer: vec![0; Device::READ_LEN].into_boxed_slice(),
            dummies_due: None,
            settling: 0,
            stopping: false,
        })
    }

    /// Serves packets and jobs until a job calls [`Self::stop`].
    pub(crate) fn run(mut self, jobs: &Receiver<mailbox::Job>, bell: &OwnedFd) -> io::Result<()> {
        epoll::add(&self.epoll, bell, Token::Bell.into(), epoll::EventFlags::IN)?;
        if !self.handover.is_alone() {
            epoll::add(&self.epoll, &self.handover, Token::Handover.into(), epoll::EventFlags::IN)?;
        }
        for id in PortId::ALL {
            if let Some(port) = self.ports.get(id) {
                epoll::add(&self.epoll, port, Token::Port(id).into(), epoll::EventFlags::IN)?;
            }
        }
        let mut ready = Vec::with_capacity(READY);
        while !self.stopping {
            let patience = self.send_dummies();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), patience.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for epoll::Event { data, .. } in ready.drain(..) {
                let now = Instant::now();
                match Token::from(data) {
                    Token::Bell => self.serve_jobs(jobs, bell),
                    Token::Port(PortId { purpose: Use::Ike, family }) => self.receive_ike(family),
                    Token::Port(id) => self.receive_esp(id, now),
                    Token::TunnelPort(index) => self.receive_tunnel(index, now),
                    Token::Device(id) if self.core.is_bridge_port(id) => self.switch_from(id, now),
                    Token::Device(id) => self.send_from(id, now),
                    Token::Link(id) => self.send_from_link(id, now),
                    Token::Handover => self.take_over(now),
                }
                self.handover.flush();
                self.report_events();
            }
        }
        Ok(())
    }

    /// Which of the workers it is.
    pub(crate) fn id(&self) -> WorkerId {
        self.id
    }

    /// Has a job visit all workers from here on, see [`Mailboxes::pass_on`].
    pub(crate) fn pass_on<J: Pass>(&self, job: J) {
        self.all.pass_on(job);
    }

    /// Whether this is the last worker: it is the first one that a [`Pass`] visits.
    pub(crate) fn is_last(&self) -> bool {
        self.all.workers().ids().next_back() == Some(self.id)
    }

    /// Ends [`Self::run`].
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Takes a device into service.
    pub(crate) fn add_device(&mut self, id: InterfaceId, device: Device) -> io::Result<()> {
        epoll::add(&self.epoll, &device, Token::Device(id).into(), epoll::EventFlags::IN)?;
        if let Device::Tun(tun) = &device {
            self.offloads = tun.offloads();
        }
        self.devices.insert(id, device);
        Ok(())
    }

    /// Closes a device; with the last queue of a TUN or TAP device its interface goes.
    pub(crate) fn remove_device(&mut self, id: InterfaceId) {
        if let Some(device) = self.devices.remove(&id)
            && let Err(error) = epoll::delete(&self.epoll, &device)
        {
            tracing::debug!(%error, "a device was not waited for");
        }
    }

    /// Whether the device of an interface is served here.
    pub(crate) fn has_device(&self, id: InterfaceId) -> bool {
        self.devices.contains_key(&id)
    }

    /// Closes a device that gives nothing any more, and has it made again if it is ours to make.
    fn lose_device(&mut self, id: InterfaceId) {
        self.losses.count(Loss::Device, 1);
        self.remove_device(id);
        if self.reports.lost.send(id).is_err() {
            tracing::debug!("the control thread has ended");
        }
    }

    /// Sends an IKE message.
    pub(crate) fn send_ike(&mut self, path: &IkePath, message: &[u8]) {
        self.ports.send_ike(path, message, &mut self.losses);
    }

    /// Sends a NAT keepalive.
    pub(crate) fn send_keepalive(&mut self, path: &IkePath) {
        self.ports.send_keepalive(path, &mut self.losses);
    }

    /// Drops that belong to no SA, in the core and around it.
    pub(crate) fn drops(&self) -> Vec<DropCount> {
        self.core.drops().into_iter().chain(self.losses.report()).collect()
    }

    fn serve_jobs(&mut self, jobs: &Receiver<mailbox::Job>, bell: &OwnedFd) {
        if let Err(error) = rustix::io::read(bell, &mut [0; 8]) {
            tracing::trace!(%error, "the bell fell silent");
        }
        for job in jobs.try_iter() {
            job(self);
        }
    }

    fn report_events(&mut self) {
        while let Some(event) = self.core.poll_event() {
            if !self.reports.events.event(event) {
                self.losses.count(Loss::QueueFull, 1);
            }
        }
    }

    /// Sends the dummy packets that are due, and says how long nothing has to be done.
    fn send_dummies(&mut self) -> Option<Timespec> {
        if !self.core.sends_dummies() {
            self.dummies_due = None;
            return None;
        }
        let now = Instant::now();
        if self.dummies_due.is_none_or(|due| due <= now) {
            let mut filling = self.core.fill(now, &mut self.outbound);
            self.dummies_due = filling.push_dummies();
            transmit(&filling.seal(), &mut self.ports, &mut self.losses, &self.reports.too_big);
        }
        let left = self.dummies_due?.saturating_duration_since(now);
        Timespec::try_from(left).ok()
    }

    /// From a TUN device to the peers.
    fn send_from(&mut self, id: InterfaceId, now: Instant) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let mut broken = false;
        let mut filling = self.core.fill(now, &mut self.outbound);
        let mut left = PACKETS;
        while left > 0 {
            let mut packet = match take_packet(device, id, &mut filling, &mut self.buffer) {
                Ok(Some(Taken::InPlace)) => {
                    left -= 1;
                    continue;
                }
                Ok(Some(Taken::Packet(packet))) => packet,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a TUN device gives no packets any more");
                    broken = true;
                    break;
                }
            };
            left = left.saturating_sub(PACKETS / BUDGET);
            loop {
                match filling.push(&mut packet) {
                    Progress::Done => break,
                    Progress::Elsewhere(worker) => {
                        hand_over(&packet.going_to(worker), &mut self.handover, &mut self.losses);
                        break;
                    }
                    Progress::BatchFull => {
                        let sealed = filling.seal();
                        transmit(&sealed, &mut self.ports, &mut self.losses, &self.reports.too_big);
                        answer_all(&sealed, device, &mut self.losses);
                        hand_over_all(&sealed, &mut self.handover, &mut self.losses);
                        filling = self.core.fill(now, &mut self.outbound);
                    }
                }
            }
        }
        // Mostly once: more is left only when packets became more than had room.
        while !filling.is_empty() {
            let sealed = filling.seal();
            transmit(&sealed, &mut self.ports, &mut self.losses, &self.reports.too_big);
            answer_all(&sealed, device, &mut self.losses);
            hand_over_all(&sealed, &mut self.handover, &mut self.losses);
            filling = self.core.fill(now, &mut self.outbound);
        }
        if broken {
            // Somebody deleted the link. Its descriptor would be ready for ever.
            self.lose_device(id);
        }
    }

    /// From the peers to the TUN devices.
    fn receive_esp(&mut self, id: PortId, now: Instant) {
        let nat_port = self.ports.number(Use::Nat);
        for _ in 0..BUDGET {
            let Some(port) = self.ports.get(id) else { return };
            let mut drained = false;
            while let Some(space) = self.inbound.space() {
                let (len, source, about) = match port.receive(space) {
                    Ok(Some(received)) => received,
                    Ok(None) => {
                        drained = true;
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(%error, ?id, "a receive failed");
                        self.losses.count(Loss::ReceiveFailed, 1);
                        drained = true;
                        break;
                    }
                };
                if id == (PortId { purpose: Use::Esp, family: Family::V4 }) {
                    self.inbound.add_ipv4(len);
                    continue;
                }
                let Some(local) = about.local else { continue };
                let remote = source.ip();
                let origin = |encapsulation| Origin {
                    path: OuterPath { local, remote, encapsulation },
                    traffic_class: about.traffic_class,
                    hop_limit: about.hop_limit,
                };
                if id.purpose == Use::Esp {
                    self.inbound.add_esp(len, origin(Encapsulation::Esp));
                    continue;
                }
                if id.purpose == Use::Ah {
                    self.inbound.add_ah(len, origin(Encapsulation::Esp));
                    continue;
                }
                let udp = Encapsulation::Udp { local_port: nat_port, remote_port: source.port() };
                let path = IkePath { local: SocketAddr::new(local, nat_port), remote: source };
                let segment = about.segment.unwrap_or(len);
                let len = if self.handover.is_alone() {
                    len
                } else {
                    let (kept, lost) = self.handover.sift(&mut space[..len], segment, origin(udp));
                    self.losses.count(Loss::HandOver, lost);
                    kept
                };
                self.inbound.add_udp(len, segment, origin(udp), |message| {
                    report_ike(&self.reports.events, &mut self.losses, path, message);
                });
            }
            self.open_and_deliver(now);
            if drained {
                break;
            }
        }
    }

    /// Opens what was received, hands it to the inside, and empties the batch.
    fn open_and_deliver(&mut self, now: Instant) {
        if self.inbound.is_empty() {
            return;
        }
        let opened = self.core.open(now, self.offloads, &mut self.inbound);
        let mut switch = Switch {
            core: &mut self.core,
            outbound: &mut self.outbound,
            egress: &mut self.egress,
            devices: &self.devices,
            links: &mut self.links,
            ports: &mut self.ports,
            losses: &mut self.losses,
            too_big: &self.reports.too_big,
            now,
        };
        deliver(&opened, &mut switch);
        self.inbound.clear();
    }

    /// From the IKE port to the daemon. ESP never comes here (RFC 3948 §2: it uses the NAT-T port).
    fn receive_ike(&mut self, family: Family) {
        let ike_port = self.ports.number(Use::Ike);
        let Some(port) = self.ports.get(PortId { purpose: Use::Ike, family }) else { return };
        for _ in 0..BUDGET {
            match port.receive(&mut self.buffer) {
                Ok(Some((len, remote, about))) => {
                    let (Some(local), Some(message)) = (about.local, self.buffer.get(..len)) else { continue };
                    let path = IkePath { local: SocketAddr::new(local, ike_port), remote };
                    report_ike(&self.reports.events, &mut self.losses, path, message);
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "a receive on the IKE port failed");
                    self.losses.count(Loss::ReceiveFailed, 1);
                    return;
                }
            }
        }
    }
}

/// A packet that was read from a device.
enum Taken<'b> {
    /// It stands in the batch.
    InPlace,
    /// It is still to be pushed.
    Packet(SuperPacket<'b>),
}

/// Reads a packet from the device of the interface `id`, to where it will be wrapped if that may be. `None` when none is waiting.
fn take_packet<'b>(
    device: &mut Device,
    id: InterfaceId,
    filling: &mut Filling<'_>,
    buffer: &'b mut [u8],
) -> io::Result<Option<Taken<'b>>> {
    if let Device::Tun(tun) = device
        && let Some(space) = filling.space(id)
    {
        let rest = buffer.get_mut(OutboundBatch::SPACE..).unwrap_or_default();
        let Some(len) = tun.read_both(space, rest)? else { return Ok(None) };
        return Ok(Some(filling.arrive(id, len, buffer).map_or(Taken::InPlace, Taken::Packet)));
    }
    let Some(read) = device.read(buffer)? else { return Ok(None) };
    // What is shorter than a vnet header no device gives.
    let (vnet, packet) = VnetHeader::split_from(read, VnetHeader::LEN).unwrap_or_default();
    Ok(Some(Taken::Packet(SuperPacket::new(id, vnet, packet))))
}

fn report_ike(events: &Events, losses: &mut Losses, path: IkePath, message: &[u8]) {
    if !events.event(Event::Ike { path, message: message.to_vec() }) {
        losses.count(Loss::QueueFull, 1);
    }
}

fn transmit(sealed: &Sealed<'_>, ports: &mut Ports, losses: &mut Losses, too_big: &mpsc::Sender<IpAddr>) {
    let narrow = |peer: Option<IpAddr>| {
        if let Some(peer) = peer
            && too_big.try_send(peer).is_err()
        {
            tracing::trace!(%peer, "the paths are about to be looked at anyway");
        }
    };
    for run in sealed.runs() {
        narrow(ports.send_run(&run, losses));
    }
    for packet in sealed.clear() {
        narrow(ports.send_clear(&packet, losses));
    }
}

/// Hands answers back to where their cause came from, which is one device for a whole batch.
fn answer_all(sealed: &Sealed<'_>, device: &Device, losses: &mut Losses) {
    sealed.replies().for_each(|reply| answer(&reply, device, losses));
}

fn answer(reply: &Reply<'_>, device: &Device, losses: &mut Losses) {
    if device.write_packet(reply.octets).is_err() {
        losses.count(Loss::Device, 1);
    }
}

/// Has other workers send the packets that they have the SAs for.
fn hand_over_all(sealed: &Sealed<'_>, handover: &mut Handover, losses: &mut Losses) {
    sealed.elsewhere().for_each(|packet| hand_over(&packet, handover, losses));
}

fn hand_over(packet: &Elsewhere<'_>, handover: &mut Handover, losses: &mut Losses) {
    let Elsewhere { worker, interface, vnet, octets } = *packet;
    if !handover.add(worker, Cargo::Inside { interface, vnet, hops: 0 }, octets) {
        losses.count(Loss::HandOver, 1);
    }
}

/// Hands packets to the devices of their interfaces, and frames from tunnels to their bridge domains.
fn deliver(opened: &Opened<'_>, switch: &mut Switch<'_>) {
    for delivery in opened.deliveries() {
        if switch.core.is_bridge_port(delivery.interface) {
            // Frames are never joined to super-packets, so that one is one piece.
            delivery.pieces().for_each(|frame| switch.forward(delivery.interface, &delivery.vnet, frame));
            continue;
        }
        match switch.links.get_mut(&delivery.interface).map(|link| link.deliver(&delivery, switch.now)) {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => continue,
            Some(Err(error)) => {
                tracing::trace!(%error, "a link took no packet");
                switch.losses.count(Loss::Device, 1);
                continue;
            }
        }
        let written = switch.devices.get(&delivery.interface).map(|device| device.deliver(&delivery));
        if !matches!(written, Some(Ok(()))) {
            switch.losses.count(Loss::Device, 1);
        }
    }
    switch.flush();
}

/// Reads of one descriptor before the others get their turn.
const BUDGET: usize = 16;
/// The same for packets that are no super-packets.
const PACKETS: usize = 128;
/// Descriptors that one `epoll_wait` reports at most.
const READY: usize = 64;

/// What a ready descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Bell,
    /// Another worker has handed something over.
    Handover,
    Port(PortId),
    Device(InterfaceId),
    /// The link beside a device.
    Link(InterfaceId),
    /// By its place among the sockets for tunnels.
    TunnelPort(u16),
}

impl Token {
    /// Devices are numbered from here on.
    const FIRST_DEVICE: u64 = 2 + PortId::ALL.len() as u64;
    /// Sockets for tunnels are numbered from here on.
    const FIRST_TUNNEL_PORT: u64 = Self::FIRST_DEVICE + 65_536;
    /// Links are numbered from here on.
    const FIRST_LINK: u64 = Self::FIRST_TUNNEL_PORT + 65_536;
}

impl From<Token> for epoll::EventData {
    fn from(token: Token) -> Self {
        let number = match token {
            Token::Bell => 0,
            Token::Handover => 1,
            Token::Port(id) => 2 + PortId::ALL.iter().take_while(|other| **other != id).count() as u64,
            Token::Device(InterfaceId(id)) => Token::FIRST_DEVICE + u64::from(id),
            Token::TunnelPort(index) => Token::FIRST_TUNNEL_PORT + u64::from(index),
            Token::Link(InterfaceId(id)) => Token::FIRST_LINK + u64::from(id),
        };
        Self::new_u64(number)
    }
}

impl From<epoll::EventData> for Token {
    fn from(data: epoll::EventData) -> Self {
        let number = data.u64();
        let port = usize::try_from(number).ok().and_then(|number| PortId::ALL.get(number.checked_sub(2)?));
        let device = number.checked_sub(Self::FIRST_DEVICE).and_then(|id| u16::try_from(id).ok());
        let tunnel_port = number.checked_sub(Self::FIRST_TUNNEL_PORT).and_then(|index| u16::try_from(index).ok());
        let link = number.checked_sub(Self::FIRST_LINK).and_then(|id| u16::try_from(id).ok());
        match (port, device, tunnel_port, link) {
            (Some(id), ..) => Self::Port(*id),
            (None, Some(id), ..) => Self::Device(InterfaceId(id)),
            (None, None, Some(index), _) => Self::TunnelPort(index),
            (None, None, None, Some(id)) => Self::Link(InterfaceId(id)),
            (None, None, None, None) if number == 1 => Self::Handover,
            (None, None, None, None) => Self::Bell,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_way_through_epoll() {
        let ports = PortId::ALL.map(Token::Port);
        let devices = [0, 1, u16::MAX].map(|id| Token::Device(InterfaceId(id)));
        let tunnel_ports = [0, 1, u16::MAX].map(Token::TunnelPort);
        let links = [0, 1, u16::MAX].map(|id| Token::Link(InterfaceId(id)));
        let inside = devices.into_iter().chain(links);
        for token in [Token::Bell, Token::Handover].into_iter().chain(ports).chain(inside).chain(tunnel_ports) {
            assert_eq!(Token::from(epoll::EventData::from(token)), token);
        }
    }
}
