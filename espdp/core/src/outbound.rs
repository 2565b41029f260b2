//! From inner packets to packets for the wire.
//!
//! ```text
//!                    ┌ Protect(SA) ─▶ protect: envelope, fit, sequence number, ESP ─▶ seal
//! push ─▶ verdict ───┼ Clear(exit) ─▶ pass_in_clear: packets as they are
//!                    └ refused     ─▶ counted, with the SA that refused it where there is one
//! ```

mod dummies;
mod envelope;
mod in_place;
mod inside;
mod template;
mod together;
mod trailer;
mod whatif;

use std::time::Instant;

use espdp_api::{CaptureRemark, Direction, Event, IpsecProtocol, WorkerId};

use crate::batch::{Exit, OutboundFrame, Span};
use crate::crypto::seal_batch;
use crate::events::EventQueue;
use crate::fragment::Fragmenter;
use crate::icmp::PacketTooBig;
use crate::limits::Charge;
use crate::packet::Header;
use crate::policy::{Miss, Route, Scope};
use crate::sa::OutboundSa;
use crate::segment::Segmenter;
use crate::{Dataplane, DropReason, Elsewhere, InterfaceId, OutboundBatch, Run, Sealed, VnetHeader};
use envelope::{Envelope, Fit};
use inside::{Content, Inside};
pub(crate) use template::Template;

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

    /// The packet as one for another worker.
    #[must_use]
    pub fn going_to(&self, worker: WorkerId) -> Elsewhere<'a> {
        Elsewhere { worker, interface: self.interface, vnet: self.vnet, octets: self.packet }
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
    /// Nothing was done with it, since this worker has the SA for it, see [`Dataplane::set_home`]: push it there. Of packets that were
    /// read into the batch it is [`Sealed::elsewhere`] that says so.
    Elsewhere(WorkerId),
}

/// A batch that is being filled with packets for the wire. They are in clear until [`Filling::seal`].
#[derive(Debug)]
pub struct Filling<'a> {
    dataplane: &'a mut Dataplane,
    batch: &'a mut OutboundBatch,
    now: Instant,
}

impl Dataplane {
    /// Starts to fill `batch`, which is emptied first. What had no room in it before comes first.
    ///
    /// ```no_run
    /// # use espdp_core::{Dataplane, OutboundBatch, Progress, Run, SuperPacket};
    /// # fn send(_: Run<'_>) {}
    /// # fn example(dataplane: &mut Dataplane, batch: &mut OutboundBatch, mut packet: SuperPacket<'_>, now: std::time::Instant) {
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
        let mut filling = Filling { dataplane: self, batch, now };
        filling.push_postponed();
        filling
    }

    /// Goes on filling a batch that was begun with [`Self::fill`]. One that is sealed is over, and emptied first: nothing is
    /// ever sealed twice, which would undo the encryption and repeat a nonce.
    pub fn fill_on<'a>(&'a mut self, now: Instant, batch: &'a mut OutboundBatch) -> Filling<'a> {
        if batch.is_sealed() {
            return self.fill(now, batch);
        }
        Filling { dataplane: self, batch, now }
    }
}

impl<'a> Filling<'a> {
    /// Adds the segments of `packet` to the batch, each with its ESP header and trailer.
    pub fn push(&mut self, packet: &mut SuperPacket<'_>) -> Progress {
        self.wrap_arrivals();
        // What came before leaves before.
        if self.batch.has_postponed() { Progress::BatchFull } else { self.push_one(packet) }
    }

    /// Whether there is nothing to send yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.packets() == 0
    }

    /// Adds the packets that had no room in the batch before, as far as there is room now.
    fn push_postponed(&mut self) {
        for (interface, vnet, packet) in self.batch.take_postponed() {
            let progress = if self.batch.has_postponed() {
                Progress::BatchFull
            } else {
                self.push_one(&mut SuperPacket::new(interface, vnet, &packet))
            };
            match progress {
                Progress::Done => {}
                Progress::BatchFull => self.batch.postpone(interface, vnet, &packet),
                Progress::Elsewhere(worker) => {
                    if !self.batch.hand_over_copy(worker, interface, vnet, &packet) {
                        self.batch.postpone(interface, vnet, &packet);
                    }
                }
            }
        }
    }

    /// As [`Self::push`], behind what is wrapped already.
    fn push_one(&mut self, packet: &mut SuperPacket<'_>) -> Progress {
        // What this packet becomes will stand from here on.
        let (place, cleared) = (self.batch.protected(), self.batch.cleared());
        if packet.taken == 0 && self.dataplane.tracer.is_armed() {
            self.dataplane.follow_outbound(self.now, place, packet.interface, packet.packet);
        }
        match self.encapsulate(packet) {
            Ok(progress) => {
                if self.dataplane.is_watched() {
                    self.follow(packet, (place, cleared), progress);
                }
                progress
            }
            Err(refused) => {
                if self.dataplane.is_watched() {
                    self.follow_refused(packet, place, refused);
                }
                self.count(refused);
                self.count_out(packet.interface, packet.packet.len());
                Progress::Done
            }
        }
    }

    /// Says what became of a packet that is watched: ESP packets from `place` on, or packets in clear from `cleared` on.
    fn follow(&mut self, packet: &SuperPacket<'_>, (place, cleared): (usize, usize), progress: Progress) {
        let frame = self.batch.frame(place);
        let is_cleared = frame.is_none() && self.batch.cleared() > cleared;
        if let Some(frame) = &frame {
            self.dataplane.follow_protected(place, frame, self.batch.protected() - place);
        } else if is_cleared {
            self.dataplane.follow_cleared(place, packet.interface, packet.packet.len());
        }
        if progress == Progress::Done {
            let (sa, remark) = (frame.map(|frame| frame.sa), is_cleared.then_some(CaptureRemark::InClear));
            self.dataplane.capture_inside(self.now, packet.interface, packet.packet, sa, remark);
        }
    }

    /// The same of one that goes no further.
    fn follow_refused(&mut self, packet: &SuperPacket<'_>, place: usize, Refused { reason, sa }: Refused) {
        self.dataplane.follow_dropped(place, reason);
        let remark = Some(CaptureRemark::Dropped(reason.name().to_owned()));
        self.dataplane.capture_inside(self.now, packet.interface, packet.packet, sa, remark);
    }

    /// Counts a packet that is not sent.
    fn count(&mut self, Refused { reason, sa }: Refused) {
        let sa = sa.and_then(|place| self.dataplane.outbound.get_mut(place));
        match sa {
            Some(sa) => sa.core.drops.count(reason),
            None => self.dataplane.drops.count(reason),
        }
    }

    /// Encrypts everything and says what to send.
    #[must_use]
    pub fn seal(mut self) -> Sealed<'a> {
        self.wrap_arrivals();
        let Self { dataplane, batch, now } = self;
        let is_watched = dataplane.is_watched();
        if is_watched {
            dataplane.capture_unprotected(now, &batch.sealed());
        }
        let sas = &dataplane.outbound;
        let (frames, memory) = batch.parts();
        seal_batch(frames, memory, |place| sas.get(place).map(|sa| &sa.core.transform));
        if is_watched {
            dataplane.follow_sealed(frames);
            dataplane.capture_sealed(now, frames, memory);
        }
        let sas = &mut dataplane.outbound;
        if !batch.gather(|place| sas.get(place).map(OutboundSa::path)) {
            for frame in batch.unsealed() {
                if let Some(sa) = sas.get_mut(frame.sa) {
                    sa.core.drops.count(DropReason::Crypto);
                }
            }
        }
        batch.sealed()
    }

    fn encapsulate(&mut self, packet: &mut SuperPacket<'_>) -> Result<Progress, Refused> {
        if let Some(interface) = self.dataplane.interfaces.get(packet.interface) {
            if interface.tunnel.is_some() {
                return self.wrap(packet);
            }
            // What policies would select is not what they are made for.
            if interface.lacks_tunnel() {
                return Err(DropReason::NoTunnel.into());
            }
        }
        let header = Header::parse(packet.packet).ok_or(DropReason::Malformed)?;
        let mut segments = Segmenter::new(&packet.vnet, packet.packet, &header)?;
        match self.verdict(packet.interface, &header)? {
            Verdict::Protect(place) => self.protect(packet, &header, &mut segments, place),
            Verdict::Clear(exit) => self.pass_in_clear(packet, &segments, exit),
            Verdict::HandOver(worker) => Ok(Progress::Elsewhere(worker)),
        }
    }

    /// Puts the headers of the interface's tunnel in front, and has the policies look at what comes out.
    fn wrap(&mut self, packet: &mut SuperPacket<'_>) -> Result<Progress, Refused> {
        let id = packet.interface;
        let interface = self.dataplane.interfaces.get_mut(id).ok_or(DropReason::NoPolicy)?;
        let tunnel = interface.tunnel.as_deref().ok_or(DropReason::NoPolicy)?;
        let is_plain = tunnel.is_plain();
        let inside = Inside::new(interface.kind.layer(), packet.vnet, packet.packet)?;
        let front = tunnel.front(inside.ip(), packet.packet)?;
        let first = packet.taken;
        let mut wrapped = inside.wrap(front, first)?;
        let header = front.header(wrapped.len(first));
        let verdict = if is_plain { Verdict::Clear(Exit::Routed) } else { self.verdict(id, &header)? };
        let result = match verdict {
            Verdict::Protect(place) => self.protect(packet, &header, &mut wrapped, place),
            Verdict::Clear(exit) => self.pass_in_clear(packet, &wrapped, exit),
            Verdict::HandOver(worker) => Ok(Progress::Elsewhere(worker)),
        };
        if let Some(tunnel) =
            self.dataplane.interfaces.get_mut(id).and_then(|interface| interface.tunnel.as_deref_mut())
        {
            tunnel.advance(packet.taken - first);
        }
        result
    }

    /// What the interface and its policies say about a packet.
    fn verdict(&mut self, interface: InterfaceId, header: &Header) -> Result<Verdict, Refused> {
        let Dataplane { interfaces, policies, outbound, events, .. } = &mut *self.dataplane;
        let kind = interfaces.get(interface).ok_or(DropReason::NoPolicy)?.kind;
        let completed = policies.complete(Scope::Outbound(interface.0), header, self.now);
        let header = completed.as_ref().unwrap_or(header);
        let routed = policies.route(interface, kind, header, outbound).map(|route| match route {
            Route::Protect(place) => Verdict::Protect(place),
            Route::Bypass => Verdict::Clear(Exit::Bypass),
        });
        routed.or_else(|miss| {
            if let Miss::NoSa(policy) = miss
                && policies.may_acquire(policy, self.now)
            {
                events.push(Event::Acquire { policy, packet: header.summary() });
            }
            without_route(miss)
        })
    }

    /// Adds the packets as ESP or AH packets of one SA, or what becomes of those that are too long.
    fn protect(
        &mut self,
        packet: &mut SuperPacket<'_>,
        header: &Header,
        content: &mut impl Content,
        place: u32,
    ) -> Result<Progress, Refused> {
        let interface = self.dataplane.interfaces.get_mut(packet.interface).ok_or(DropReason::NoPolicy)?;
        let kind = interface.kind;
        let sa = self.dataplane.outbound.get(place).ok_or(DropReason::NoSa)?;
        interface.in_place = sa.surroundings(kind).filter(|_| interface.tunnel.is_none());
        let refused_by_sa = |reason| Refused { reason, sa: Some(place) };
        let envelope = Envelope::new(sa, kind, header).map_err(refused_by_sa)?;
        if let Some(most) = content.inside().and_then(|inside| sa.mss_of(inside)) {
            content.lower_mss_to(most);
        }
        // No packet is longer than the first one.
        match envelope.fit(sa, content, packet.taken) {
            Fit::Whole => self.protect_all(packet, content, place, &envelope),
            Fit::CutOutside => {
                let envelope = envelope.cut_outside(sa);
                self.protect_all(packet, content, place, &envelope)
            }
            Fit::CutInside => self.protect_in_fragments(packet, content, place, &envelope),
            Fit::TooBig(mtu) => {
                self.answer_too_big(packet, content, mtu);
                Err(refused_by_sa(DropReason::TooBig))
            }
        }
    }

    /// Adds the packets that fit in the batch.
    fn protect_all(
        &mut self,
        packet: &mut SuperPacket<'_>,
        content: &impl Content,
        place: u32,
        envelope: &Envelope,
    ) -> Result<Progress, Refused> {
        self.protect_together(packet, content, place, envelope);
        let count = content.count();
        while packet.taken < count {
            let index = packet.taken;
            let write = |skip, out: &mut [u8]| content.write(index, skip, out);
            if self.seal_in(place, envelope, content.len(index), write)? == Progress::BatchFull {
                return Ok(Progress::BatchFull);
            }
            self.count_out(packet.interface, content.inside_len(index));
            packet.taken += 1;
        }
        Ok(Progress::Done)
    }

    /// Adds the fragments of each packet; all of a packet, or none while the batch has no room.
    fn protect_in_fragments(
        &mut self,
        packet: &mut SuperPacket<'_>,
        content: &impl Content,
        place: u32,
        envelope: &Envelope,
    ) -> Result<Progress, Refused> {
        let too_big = || Refused { reason: DropReason::TooBig, sa: Some(place) };
        let mut scratch = std::mem::take(&mut self.dataplane.scratch);
        let mut progress = Ok(Progress::Done);
        while packet.taken < content.count() && progress == Ok(Progress::Done) {
            scratch.clear();
            scratch.resize(content.len(packet.taken), 0);
            progress = content.write(packet.taken, 0, &mut scratch).map_err(Refused::from).and_then(|()| {
                let fragments = Fragmenter::new(&scratch, envelope.most()).ok_or_else(too_big)?;
                self.protect_fragments(place, envelope, &fragments)
            });
            if progress == Ok(Progress::Done) {
                self.count_out(packet.interface, scratch.len());
                packet.taken += 1;
            }
        }
        self.dataplane.scratch = scratch;
        progress
    }

    fn protect_fragments(
        &mut self,
        place: u32,
        envelope: &Envelope,
        fragments: &Fragmenter<'_>,
    ) -> Result<Progress, Refused> {
        let sa = self.dataplane.outbound.get(place).ok_or(DropReason::NoSa)?;
        let all = 0..fragments.count();
        let room = all.clone().map(|index| envelope.len(sa, fragments.len(index))).sum();
        if !self.batch.has_room_for(fragments.count(), room) {
            let is_hopeless = self.batch.packets() == 0;
            return if is_hopeless { Err(DropReason::TooBig.into()) } else { Ok(Progress::BatchFull) };
        }
        for index in all {
            let write = |_, out: &mut [u8]| fragments.write(index, out).ok_or(DropReason::Malformed);
            // There is room for all of them.
            if self.seal_in(place, envelope, fragments.len(index), write)? == Progress::BatchFull {
                return Err(DropReason::TooBig.into());
            }
        }
        Ok(Progress::Done)
    }

    /// Adds one ESP packet around `inner_len` octets that `write_inner` writes.
    fn seal_in(
        &mut self,
        place: u32,
        envelope: &Envelope,
        inner_len: usize,
        write_inner: impl Fn(usize, &mut [u8]) -> Result<(), DropReason>,
    ) -> Result<Progress, Refused> {
        let refused_by_sa = |reason| Refused { reason, sa: Some(place) };
        let Dataplane { outbound, events, .. } = &mut *self.dataplane;
        let sa = outbound.get_mut(place).ok_or(DropReason::NoSa)?;
        let len = envelope.len(sa, inner_len);
        if len > Run::OCTETS {
            return Err(refused_by_sa(DropReason::TooBig));
        }
        if !self.batch.has_room(len) {
            return Ok(Progress::BatchFull);
        }
        let (charge, sequence) = sa.admit(inner_len);
        raise_limit_event(charge, sa, events);
        if matches!(charge, Charge::Stop | Charge::StopAtHardLimit) {
            return Err(refused_by_sa(DropReason::HardLimit));
        }
        let (Span { offset, len }, octets) = self.batch.next(len);
        envelope.write(sa, sequence, inner_len, octets, write_inner).map_err(refused_by_sa)?;
        let own_header = envelope.own_header();
        self.batch.add(OutboundFrame {
            sequence,
            outer: envelope.outer.into(),
            sa: place,
            // No batch has so many octets, no run so long a packet.
            offset: (offset + own_header) as u32,
            len: (len - own_header) as u16,
            own_header: own_header as u16,
            is_whole: sa.core.protocol == IpsecProtocol::Ah,
            is_sealed: false,
        });
        sa.core.usage.touch(self.now);
        Ok(Progress::Done)
    }

    /// Counts a packet that came from the inside.
    fn count_out(&mut self, interface: InterfaceId, len: usize) {
        if let Some(interface) = self.dataplane.interfaces.get_mut(interface) {
            interface.counters.packets_out += 1;
            interface.counters.bytes_out += len as u64;
        }
    }

    /// Tells the sender of a packet how long its packets may be (RFC 4301 §8.2.1, R4301-8.2.1-1), as often as is good for
    /// everybody. Without room in the batch the next packet will bring the answer.
    fn answer_too_big(&mut self, packet: &SuperPacket<'_>, content: &impl Content, mtu: usize) {
        if !self.dataplane.answers.allows(self.now) {
            return;
        }
        let mut scratch = std::mem::take(&mut self.dataplane.scratch);
        scratch.clear();
        scratch.resize(content.inside_len(packet.taken), 0);
        // The first segment is what would have been sent, checksums and all.
        if content.write_inside(packet.taken, &mut scratch).is_ok()
            && let Some(header) = Header::parse(&scratch)
            && let Some(answer) = PacketTooBig::new(&scratch, &header, mtu)
            && self.batch.has_room(answer.len())
        {
            let (span, octets) = self.batch.next(answer.len());
            if answer.write(octets).is_some() {
                self.batch.add_reply(span, packet.interface);
            }
        }
        self.dataplane.scratch = scratch;
    }

    /// Adds the packets as they are.
    fn pass_in_clear(
        &mut self,
        packet: &mut SuperPacket<'_>,
        content: &impl Content,
        exit: Exit,
    ) -> Result<Progress, Refused> {
        while packet.taken < content.count() {
            let len = content.len(packet.taken);
            if !self.batch.has_room(len) {
                return Ok(Progress::BatchFull);
            }
            let (span, octets) = self.batch.next(len);
            content.write(packet.taken, 0, octets)?;
            self.batch.add_clear(span, exit);
            self.count_out(packet.interface, content.inside_len(packet.taken));
            packet.taken += 1;
        }
        Ok(Progress::Done)
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It goes to the SA at this place.
    Protect(u32),
    /// It leaves as it is.
    Clear(Exit),
    /// Another worker has the SA.
    HandOver(WorkerId),
}

/// What becomes of a packet that no SA takes and no policy lets out.
fn without_route(miss: Miss) -> Result<Verdict, Refused> {
    match miss {
        Miss::NoPolicy | Miss::OtherPolicy => Err(DropReason::NoPolicy.into()),
        Miss::Discard => Err(DropReason::Discard.into()),
        Miss::HiddenPorts => Err(DropReason::HiddenPorts.into()),
        Miss::OutsideSa(place) => Err(Refused { reason: DropReason::OutsideSa, sa: Some(place) }),
        Miss::Elsewhere(worker) => Ok(Verdict::HandOver(worker)),
        Miss::NoSa(_) => Err(DropReason::NoSa.into()),
    }
}

/// A packet that is not sent, and the SA that refused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refused {
    reason: DropReason,
    sa: Option<u32>,
}

impl From<DropReason> for Refused {
    fn from(reason: DropReason) -> Self {
        Self { reason, sa: None }
    }
}

fn raise_limit_event(charge: Charge, sa: &OutboundSa, events: &mut EventQueue) {
    let (direction, spi, policy) = (Direction::Outbound, sa.core.spi, sa.core.policy);
    match charge {
        Charge::PassAtSoftLimit => events.push(Event::SoftLimit { direction, spi, policy }),
        Charge::StopAtHardLimit => events.push(Event::HardLimit { direction, spi, policy }),
        Charge::Pass | Charge::Stop => {}
    }
}

#[cfg(test)]
mod tests;
