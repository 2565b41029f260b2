//! How the packets of a flow are wrapped, worked out once.

use espdp_api::{InterfaceKind, IpsecProtocol, Mode};

use crate::batch::{PackedOuter, Surroundings};
use crate::packet::{Header, protocol};
use crate::sa::OutboundSa;

/// How the packets of a flow are wrapped that stand where they are wrapped already, and what may keep one from being wrapped so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Template {
    /// What the outer headers of all packets have in common.
    common: PackedOuter,
    /// What they have of their inner packet.
    copied: PackedOuter,
    sa: u32,
    pub(super) spi: u32,
    /// The longest packet that can be wrapped so; 0 when none can.
    pub(super) most: u16,
    pub(super) around: Surroundings,
    pub(super) next_header: u8,
    /// Whether what TCP announces has to be looked at.
    pub(super) heeds_mss: bool,
}

impl Template {
    /// For the flow that `header` is of, which found the SA at `place`, on an interface of this kind.
    pub(crate) fn new(place: u32, sa: &OutboundSa, kind: InterfaceKind, header: &Header) -> Self {
        let (common, copied) = sa.tunnel_header(header);
        let around = sa.surroundings(kind);
        Self {
            common,
            copied,
            sa: place,
            spi: sa.core.spi.value(),
            most: if around.is_some() { u16::try_from(sa.most()).unwrap_or(u16::MAX) } else { 0 },
            around: around.unwrap_or_default(),
            next_header: if header.is_ipv4() { protocol::IPV4 } else { protocol::IPV6 },
            heeds_mss: sa.mss_of(header).is_some(),
        }
    }

    /// The place of the SA.
    #[inline]
    pub(crate) fn sa(&self) -> u32 {
        self.sa
    }

    /// The outer header of a packet whose own header says `inner`.
    #[inline]
    pub(super) fn outer(&self, inner: PackedOuter) -> PackedOuter {
        self.common.with_copied(inner, self.copied)
    }
}

impl OutboundSa {
    /// What stands around packets that are wrapped where they are; `None` when they have to be written anew: in transport mode, of
    /// AH, or when they are filled up.
    pub(super) fn surroundings(&self, kind: InterfaceKind) -> Option<Surroundings> {
        let is_tunnel = self.core.mode == Mode::Tunnel || kind == InterfaceKind::Ipip;
        let is_plain = is_tunnel && self.core.protocol == IpsecProtocol::Esp && self.fill_to() == 0;
        Surroundings::new(self.core.layout).filter(|_| is_plain)
    }
}
