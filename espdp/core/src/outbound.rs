//! From inner packets to ESP packets.

use std::time::Instant;

use crate::{Dataplane, InterfaceId, OutboundBatch, Sealed, VnetHeader};

/// A packet from a TUN device: plain, or a super-packet that stands for many segments.
#[derive(Debug)]
pub struct SuperPacket<'a> {
    interface: InterfaceId,
    vnet: VnetHeader,
    packet: &'a [u8],
    /// Segments that are already in a batch.
    taken: usize,
}

impl<'a> SuperPacket<'a> {
    /// A packet that came from `interface` with this vnet header.
    #[must_use]
    pub fn new(interface: InterfaceId, vnet: VnetHeader, packet: &'a [u8]) -> Self {
        Self { interface, vnet, packet, taken: 0 }
    }
}

/// Whether a [`SuperPacket`] is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// All of it is in the batch, or was dropped and counted.
    Done,
    /// The batch is full: seal and send it, then push the same packet into the next one.
    BatchFull,
}

/// A batch that is being filled with packets for the wire. They are in clear until [`Filling::seal`].
#[derive(Debug)]
pub struct Filling<'a> {
    dataplane: &'a mut Dataplane,
    batch: &'a mut OutboundBatch,
    now: Instant,
}

impl Dataplane {
    /// Starts to fill `batch`, which is emptied first.
    ///
    /// ```no_run
    /// # use espdp_core::{Dataplane, OutboundBatch, Progress, Run, SuperPacket};
    /// # fn send(_: Run<'_>) {}
    /// # fn example(dataplane: &mut Dataplane, batch: &mut OutboundBatch, mut packet: SuperPacket<'_>) {
    /// # let now: std::time::Instant = unimplemented!();
    /// loop {
    ///     let mut filling = dataplane.fill(now, batch);
    ///     let progress = filling.push(&mut packet); // or many packets
    ///     for run in filling.seal().runs() {
    ///         send(run);
    ///     }
    ///     if progress == Progress::Done {
    ///         break;
    ///     }
    /// }
    /// # }
    /// ```
    pub fn fill<'a>(&'a mut self, now: Instant, batch: &'a mut OutboundBatch) -> Filling<'a> {
        batch.clear();
        Filling { dataplane: self, batch, now }
    }
}

impl<'a> Filling<'a> {
    /// Adds the segments of `packet` to the batch, each with its ESP header and trailer.
    pub fn push(&mut self, _packet: &mut SuperPacket<'_>) -> Progress {
        unimplemented!()
    }

    /// Encrypts everything and says what to send.
    #[must_use]
    pub fn seal(self) -> Sealed<'a> {
        unimplemented!()
    }
}
