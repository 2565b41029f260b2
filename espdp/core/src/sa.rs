//! Security associations: what a packet needs of them, and the tables they stand in.

mod inbound;
mod outbound;

use espdp_api::{
    CryptoEngine, Direction, Encapsulation, EspSpi, IpsecProtocol, Mode, OuterPath, PolicyId, Refusal, SaLimits,
    SaSpec, SaStatistics, Secret,
};

pub(crate) use self::inbound::{InboundSa, InboundTable, Peer};
pub(crate) use self::outbound::{Admitting, OutboundSa, OutboundTable, SMALLEST_IPV6_MTU};
use crate::InterfaceId;
use crate::ah;
use crate::crypto::{ESP_HEADER_LEN, Transform};
use crate::drops::LazyDrops;
use crate::limits::Usage;
use crate::policy::Selectors;

/// What both halves of a Child SA have; what every packet changes comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SaCore {
    pub(crate) usage: Usage,
    pub(crate) path: OuterPath,
    pub(crate) transform: Transform,
    pub(crate) protocol: IpsecProtocol,
    pub(crate) spi: EspSpi,
    pub(crate) policy: PolicyId,
    pub(crate) interface: InterfaceId,
    pub(crate) mode: Mode,
    pub(crate) layout: Layout,
    pub(crate) extended: bool,
    pub(crate) selectors: Selectors,
    pub(crate) drops: LazyDrops,
}

impl SaCore {
    /// Checks the algorithms and keys them.
    pub(crate) fn new(
        spec: &SaSpec,
        limits: SaLimits,
        interface: InterfaceId,
        engine: CryptoEngine,
        iv_key: &Secret<[u8; 16]>,
    ) -> Result<Self, Refusal> {
        check_path(spec.protocol, &spec.path)?;
        let transform = match spec.protocol {
            IpsecProtocol::Esp => {
                Transform::with_engine(engine, spec.algorithms, &spec.encryption_key, &spec.integrity_key, iv_key)
            }
            IpsecProtocol::Ah => Transform::authentication_header(spec.algorithms, &spec.integrity_key),
        };
        let transform = transform.map_err(|error| Refusal::BadSa(error.to_string()))?;
        Ok(Self {
            protocol: spec.protocol,
            spi: spec.spi,
            policy: spec.policy,
            interface,
            mode: spec.mode,
            layout: Layout::new(spec),
            extended: spec.algorithms.extended_sequence_numbers,
            usage: Usage::new(limits),
            path: spec.path,
            transform,
            selectors: Selectors::new(&spec.local, &spec.remote),
            drops: LazyDrops::default(),
        })
    }

    /// Octets of the Authentication Header of an AH SA.
    pub(crate) fn ah_len(&self) -> usize {
        ah::header_len(self.layout.icv_len, self.path.remote.is_ipv6())
    }

    /// The counters as the daemon sees them.
    pub(crate) fn statistics(&self, direction: Direction, sequence: u64, now: std::time::Instant) -> SaStatistics {
        SaStatistics {
            spi: self.spi,
            direction,
            bytes: self.usage.bytes(),
            packets: self.usage.packets(),
            idle_seconds: self.usage.idle(now).map(|idle| idle.as_secs()),
            sequence,
            drops: self.drops.report(),
        }
    }
}

/// Whether packets of this protocol can take this path: AH covers the addresses that a NAT would change (RFC 3715 §2.1).
///
/// # Errors
/// [`Refusal::BadSa`].
pub(crate) fn check_path(protocol: IpsecProtocol, path: &OuterPath) -> Result<(), Refusal> {
    if protocol == IpsecProtocol::Ah && path.encapsulation != Encapsulation::Esp {
        return Err(Refusal::BadSa("AH cannot pass a NAT, and is never put in UDP: use ESP".to_owned()));
    }
    Ok(())
}

/// Sizes of an SA's packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Octets of SPI, sequence number and IV.
    pub(crate) header_len: usize,
    /// Octets of ICV.
    pub(crate) icv_len: usize,
    /// What payload and trailer are padded to.
    block: usize,
}

impl Layout {
    fn new(spec: &SaSpec) -> Self {
        let cipher = spec.algorithms.cipher;
        Self {
            header_len: ESP_HEADER_LEN + cipher.iv_len(),
            icv_len: spec.algorithms.icv_len(),
            block: cipher.pad_block(),
        }
    }

    /// What payload, padding and trailer are a multiple of.
    pub(crate) fn block(&self) -> usize {
        self.block
    }

    /// Octets of padding behind a payload of `payload_len` octets (RFC 4303 §2.4).
    pub(crate) fn padding(&self, payload_len: usize) -> usize {
        let unpadded = payload_len + TRAILER_LEN;
        // Block lengths are powers of two.
        unpadded.wrapping_neg() & (self.block - 1)
    }

    /// The block, less one.
    pub(super) fn block_mask(&self) -> usize {
        self.block - 1
    }
}

/// Octets of pad length and next header.
pub(crate) const TRAILER_LEN: usize = 2;
