//! Frames on their way through a bridge domain: from devices and out of tunnels, to devices and into tunnels.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use espdp_core::{Dataplane, Egress, InterfaceId, OutboundBatch, Progress, SuperPacket, VnetHeader};
use tokio::sync::mpsc;

use super::counters::{Loss, Losses};
use super::{BUDGET, Link, Ports, Worker, transmit};
use crate::io::device::Device;

/// What forwarding works with. What goes into tunnels is gathered until [`Self::flush`].
pub(super) struct Switch<'a> {
    pub(super) core: &'a mut Dataplane,
    pub(super) outbound: &'a mut OutboundBatch,
    pub(super) egress: &'a mut Egress,
    pub(super) devices: &'a BTreeMap<InterfaceId, Device>,
    pub(super) links: &'a mut BTreeMap<InterfaceId, Link>,
    pub(super) ports: &'a mut Ports,
    pub(super) losses: &'a mut Losses,
    pub(super) too_big: &'a mpsc::Sender<IpAddr>,
    pub(super) now: Instant,
}

impl Switch<'_> {
    /// Sends a frame that came in by `from` where its domain says.
    pub(super) fn forward(&mut self, from: InterfaceId, vnet: &VnetHeader, frame: &[u8]) {
        let mut egress = std::mem::take(self.egress);
        self.core.forward(self.now, from, frame, &mut egress);
        for port in egress.ports() {
            self.put(*port, vnet, frame);
        }
        if let Some(answer) = egress.answer() {
            self.put(from, &VnetHeader::default(), answer);
        }
        *self.egress = egress;
    }

    /// Transmits what was gathered.
    pub(super) fn flush(&mut self) {
        let sealed = self.core.fill_on(self.now, self.outbound).seal();
        transmit(&sealed, self.ports, self.losses, self.too_big);
        self.outbound.clear();
    }

    /// Hands a frame to a device; interfaces without one are tunnels.
    fn put(&mut self, to: InterfaceId, vnet: &VnetHeader, frame: &[u8]) {
        if let Some(device) = self.devices.get(&to) {
            if let Err(error) = device.write(vnet, frame) {
                tracing::trace!(%error, "a device took no frame");
                self.losses.count(Loss::Device, 1);
            }
            return;
        }
        let mut packet = SuperPacket::new(to, *vnet, frame);
        while self.core.fill_on(self.now, self.outbound).push(&mut packet) == Progress::BatchFull {
            self.flush();
        }
    }
}

impl Worker {
    /// From a device that is a port of a bridge domain to the other ports.
    pub(super) fn switch_from(&mut self, id: InterfaceId, now: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = (0..BUDGET).try_for_each(|_| {
            let Some(device) = self.devices.get_mut(&id) else { return Err(Done::Drained) };
            let read = device.read(&mut buffer).map_err(Done::Broken)?.ok_or(Done::Drained)?;
            if let Some((vnet, frame)) = VnetHeader::split_from(read, VnetHeader::LEN) {
                self.switch(now).forward(id, &vnet, frame);
            }
            Ok(())
        });
        self.buffer = buffer;
        self.switch(now).flush();
        if let Err(Done::Broken(error)) = result {
            tracing::warn!(%error, "a device gives no frames any more");
            self.lose_device(id);
        }
    }

    /// Everything that forwarding needs.
    fn switch(&mut self, now: Instant) -> Switch<'_> {
        Switch {
            core: &mut self.core,
            outbound: &mut self.outbound,
            egress: &mut self.egress,
            devices: &self.devices,
            links: &mut self.links,
            ports: &mut self.ports,
            losses: &mut self.losses,
            too_big: &self.reports.too_big,
            now,
        }
    }
}

/// Why reading ends before its budget is used up.
enum Done {
    /// Nothing waits.
    Drained,
    /// The device is gone. Its descriptor would be ready for ever.
    Broken(io::Error),
}
