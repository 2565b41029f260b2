//! Packets of a batch that wait for others to go side by side with them.

/// Packets that are put in order at once.
pub(crate) const SORTED: usize = 256;

/// Up to [`SORTED`] packets.
pub(crate) struct Pending<P> {
    packets: [Option<P>; SORTED],
    count: usize,
}

/// Where a packet stands among the pending ones, and what orders them.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Packets of different kinds cannot go together.
    pub(crate) kind: u8,
    /// Octets; no packet has more than a few over 65536.
    len: u32,
    index: u16,
}

impl<P> Pending<P> {
    pub(crate) fn new() -> Self {
        Self { packets: [const { None }; SORTED], count: 0 }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count == SORTED
    }

    /// Adds a packet, for which there is room as long as [`Self::is_full`] says no.
    #[inline]
    pub(crate) fn push(&mut self, packet: P) {
        if let Some(place) = self.packets.get_mut(self.count) {
            *place = Some(packet);
            self.count += 1;
        }
    }

    pub(crate) fn get(&self, place: Place) -> Option<&P> {
        self.packets.get(usize::from(place.index))?.as_ref()
    }

    pub(crate) fn take(&mut self, place: Place) -> Option<P> {
        self.packets.get_mut(usize::from(place.index))?.take()
    }

    /// Room for more, once all that was pending was taken.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    /// Puts packets of one kind together, and long ones behind short ones. `measure` gives kind and length.
    pub(crate) fn order<'o>(&self, order: &'o mut [Place; SORTED], measure: impl Fn(&P) -> (u8, usize)) -> &'o [Place] {
        let (order, _) = order.split_at_mut(self.count.min(SORTED));
        for (index, (place, packet)) in order.iter_mut().zip(self.packets.iter().flatten()).enumerate() {
            let (kind, len) = measure(packet);
            *place = Place { kind, len: len as u32, index: index as u16 };
        }
        order.sort_unstable();
        order
    }
}
