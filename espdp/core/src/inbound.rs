//! From ESP packets to inner packets.

use std::time::Instant;

use crate::{Dataplane, InboundBatch, Offloads, Opened};

impl Dataplane {
    /// Opens everything in `batch`: SPI look-up, replay check, decryption, selector check, ECN, coalescing.
    pub fn open<'a>(&mut self, _now: Instant, _offloads: Offloads, _batch: &'a mut InboundBatch) -> Opened<'a> {
        unimplemented!()
    }
}
