//! ESP SAs that one end has and the other has not (RFC 7296 §1.5, INVALID_SPI).
//!
//! Who gets ESP that it cannot open says so over the IKE SA with the sender, now and then. Who is told so has the Child SA
//! replaced: a peer that has lost it says that then, and a new one is made; nothing is ever torn down for such a message.

use std::time::Instant;

use espdp_api::{EspSpi, OuterPath};

use super::Engine;
use super::child::Phase;
use super::context::Context;
use super::established::Established;
use super::ike_sa::IkeSa;
use super::task::{Queued, Task};
use crate::io::IkeSpi;
use crate::wire::{Notify, NotifyType};

impl Engine {
    /// ESP came for an SPI that nobody has. Without an IKE SA with its sender nobody is told: an unprotected message would
    /// prove nothing.
    pub(super) fn on_unknown_esp(&mut self, now: Instant, path: OuterPath, spi: u32) {
        let from = path.remote;
        let is_sender = |sa: &Established| sa.is_in_use() && sa.session.path.remote.ip() == from;
        let mut sas = self.sas.iter().filter(|(_, sa)| sa.established().is_some_and(is_sender));
        let of_sender: Option<IkeSpi> = sas.next().map(|(spi, _): (&IkeSpi, &IkeSa)| *spi);
        if let Some(owner) = of_sender {
            self.with_established(owner, |sa, cx| {
                if sa.takes_hint(now) {
                    sa.queue(cx, now, Queued::new(Task::ReportSpi(spi)));
                }
            });
        }
    }
}

impl Established {
    /// The peer cannot open what we send on this SPI.
    pub(super) fn on_spi_lost(&mut self, cx: &mut Context, now: Instant, notify: &Notify) {
        let spi = notify.data.first_chunk().and_then(|field| EspSpi::from_wire(*field).ok()).or(notify.spi);
        let lost = spi.and_then(|spi| self.child_by_spi_out(spi));
        let Some(child) = lost.filter(|child| child.phase == Phase::Up && !child.redundant).map(|child| child.id)
        else {
            return;
        };
        if self.takes_hint(now) {
            self.queue(cx, now, Queued::new(Task::RekeyChild { child, group: None }));
        }
    }
}

/// The notification about an SPI that came from the network.
pub(super) fn invalid_spi(spi: u32) -> Notify {
    Notify::with_data(NotifyType::InvalidSpi, spi.to_be_bytes().to_vec())
}
