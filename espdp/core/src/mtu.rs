//! How much room ESP takes, exactly.

use espdp_api::{Encapsulation, EspAlgorithms, Mode};

use crate::ah;

/// What stands around an inner packet on the wire between the gateways.
///
/// ```text
/// ┌──────────────┬───────┬───────────┬──────┬──────────────────────┬─────────┬──────────────┬───────┐
/// │ outer_header │ udp   │ esp       │ iv   │ inner packet         │ padding │ trailer      │ icv   │
/// │ 20 or 40     │ 0 / 8 │ 8         │ 0–16 │                      │         │ 2            │ 12–32 │
/// └──────────────┴───────┴───────────┴──────┼──────────────────────┴─────────┴──────────────┼───────┘
///                                           └──────────── a multiple of block ──────────────┘
/// ```
///
/// In transport mode the outer header is the packet's own and does not stand inside: `kept_header` octets of the inner
/// packet are the outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overhead {
    /// Octets of the outer IP header.
    pub outer_header: usize,
    /// Octets of the UDP header (RFC 3948).
    pub udp: usize,
    /// Octets of SPI and sequence number; with AH, of all of it.
    pub esp: usize,
    /// Octets of IV.
    pub iv: usize,
    /// Octets of pad length and next header.
    pub trailer: usize,
    /// What payload, padding and trailer together are a multiple of.
    pub block: usize,
    /// Octets of ICV.
    pub icv: usize,
    /// Octets of the inner packet that become the outer header instead of being encrypted.
    pub kept_header: usize,
}

impl Overhead {
    /// The overhead of an SA whose outer packets are IPv6 or IPv4.
    #[must_use]
    pub fn new(algorithms: EspAlgorithms, mode: Mode, encapsulation: Encapsulation, outer_is_ipv6: bool) -> Self {
        let outer_header = if outer_is_ipv6 { 40 } else { 20 };
        Self {
            outer_header,
            udp: match encapsulation {
                Encapsulation::Esp => 0,
                Encapsulation::Udp { .. } => 8,
            },
            esp: 8,
            iv: algorithms.cipher.iv_len(),
            trailer: 2,
            block: algorithms.cipher.pad_block(),
            icv: algorithms.icv_len(),
            kept_header: match mode {
                Mode::Tunnel => 0,
                Mode::Transport => outer_header,
            },
        }
    }

    /// The overhead of an AH SA (RFC 4302 §2): one header of fixed length, called `esp` here, and no padding.
    #[must_use]
    pub fn authentication_header(algorithms: EspAlgorithms, mode: Mode, outer_is_ipv6: bool) -> Self {
        let esp = ah::header_len(algorithms.icv_len(), outer_is_ipv6);
        let like_esp = Self::new(algorithms, mode, Encapsulation::Esp, outer_is_ipv6);
        Self { esp, iv: 0, trailer: 0, block: 1, icv: 0, ..like_esp }
    }

    /// Octets on the wire, outer IP header included, for an inner packet of `inner_len` octets.
    #[must_use]
    pub fn outer_len(&self, inner_len: usize) -> usize {
        let payload = inner_len.saturating_sub(self.kept_header) + self.trailer;
        self.fixed() + payload.next_multiple_of(self.block)
    }

    /// The longest inner packet whose outer packet fits `outer_mtu`; 0 when not even an empty one does (R4301-8.2.1-1).
    #[must_use]
    pub fn inner_mtu(&self, outer_mtu: usize) -> usize {
        let room = outer_mtu.saturating_sub(self.fixed());
        let payload = room - room % self.block;
        if payload < self.trailer { 0 } else { payload - self.trailer + self.kept_header }
    }

    /// Octets that do not depend on the packet.
    fn fixed(&self) -> usize {
        self.outer_header + self.udp + self.esp + self.iv + self.icv
    }
}

#[cfg(test)]
mod tests {
    use espdp_api::{EspCipher, EspIntegrity};

    use super::*;

    const UDP: Encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };

    #[test]
    fn well_known_mtus_come_out() {
        let algorithms = |cipher, integrity| EspAlgorithms { cipher, integrity, extended_sequence_numbers: true };
        let gcm = algorithms(EspCipher::AesGcm16 { key_bits: 256 }, EspIntegrity::None);
        let cbc = algorithms(EspCipher::AesCbc { key_bits: 128 }, EspIntegrity::HmacSha2_256_128);
        for (algorithms, mode, encapsulation, outer_is_ipv6, expected) in [
            (gcm, Mode::Tunnel, Encapsulation::Esp, false, 1446),
            (gcm, Mode::Tunnel, UDP, false, 1438),
            (gcm, Mode::Tunnel, Encapsulation::Esp, true, 1426),
            (gcm, Mode::Transport, Encapsulation::Esp, false, 1466),
            (cbc, Mode::Tunnel, Encapsulation::Esp, false, 1438),
            (cbc, Mode::Tunnel, UDP, false, 1422),
        ] {
            let overhead = Overhead::new(algorithms, mode, encapsulation, outer_is_ipv6);
            assert_eq!(overhead.inner_mtu(1500), expected, "{overhead:?}");
        }
    }
}
