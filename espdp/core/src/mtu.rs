//! How much room ESP and tunnels take, exactly.

use espdp_api::{Encapsulation, EspAlgorithms, InterfaceKind, L2tpCarrier, Layer, Mode};

use crate::{ah, tunnel_octets};

/// What stands around an inner packet on the wire between the gateways.
///
/// ```text
/// ┌──────────────┬───────┬───────┬──────┬────────────────────┬──────────────┬─────────┬─────────┬───────┐
/// │ outer_header │ udp   │ esp   │ iv   │ tunnel_ip, tunnel, │ inner packet │ padding │ trailer │ icv   │
/// │ 20 or 40     │ 0 / 8 │ 0 / 8 │ 0–16 │ ethernet           │              │         │ 0 / 2   │ 0–32  │
/// └──────────────┴───────┴───────┴──────┼────────────────────┴──────────────┴─────────┴─────────┼───────┘
///                                       └───────────────── a multiple of block ─────────────────┘
/// ```
///
/// In transport mode without a tunnel the outer header is the packet's own and does not stand inside: `kept_header` octets of
/// the inner packet are the outer header. Of a tunnel in transport mode the outer header is the tunnel's.
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
    /// Octets of the tunnel's own IP header, where that stands inside.
    pub tunnel_ip: usize,
    /// The tunnel header.
    pub tunnel: Term,
    /// Octets of the Ethernet header of a tunnel that carries frames.
    pub ethernet: usize,
    /// Octets of pad length and next header.
    pub trailer: usize,
    /// What is inside, padding and trailer included, is a multiple of this.
    pub block: usize,
    /// Octets of ICV.
    pub icv: usize,
    /// Octets of the inner packet that become the outer header instead of being encrypted.
    pub kept_header: usize,
}

/// A part of what stands around an inner packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Term {
    /// What it is, for people.
    pub name: &'static str,
    /// How long it is.
    pub octets: usize,
}

impl Overhead {
    /// The overhead of an SA whose outer packets are IPv6 or IPv4.
    #[must_use]
    pub fn new(algorithms: EspAlgorithms, mode: Mode, encapsulation: Encapsulation, outer_is_ipv6: bool) -> Self {
        let outer_header = ip_header(outer_is_ipv6);
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
            ..Self::NONE
        }
    }

    /// The overhead of an AH SA (RFC 4302 §2): one header of fixed length, called `esp` here, and no padding.
    #[must_use]
    pub fn authentication_header(algorithms: EspAlgorithms, mode: Mode, outer_is_ipv6: bool) -> Self {
        let esp = ah::header_len(algorithms.icv_len(), outer_is_ipv6);
        let like_esp = Self::new(algorithms, mode, Encapsulation::Esp, outer_is_ipv6);
        Self { esp, iv: 0, trailer: 0, block: 1, icv: 0, ..like_esp }
    }

    /// The overhead of a tunnel that nobody protects.
    #[must_use]
    pub fn of_tunnel(kind: InterfaceKind, outer_is_ipv6: bool) -> Self {
        let outer = Self { outer_header: ip_header(outer_is_ipv6), ..Self::NONE };
        outer.with_tunnel(kind, Mode::Transport, outer_is_ipv6)
    }

    /// The overhead of an interface of this kind whose packets go through the SA. IP in IP is the same on the wire in tunnel
    /// mode and in transport mode; any other tunnel has its IP header inside in tunnel mode.
    #[must_use]
    pub fn with_tunnel(self, kind: InterfaceKind, mode: Mode, tunnel_is_ipv6: bool) -> Self {
        let Some(tunnel) = tunnel_header(kind) else { return self };
        let tunnel_ip = match (kind, mode) {
            (InterfaceKind::Ipip, _) | (_, Mode::Transport) => 0,
            (_, Mode::Tunnel) => ip_header(tunnel_is_ipv6),
        };
        Self { tunnel_ip, tunnel, ethernet: ethernet_header(kind), kept_header: 0, ..self }
    }

    /// Octets on the wire, outer IP header included, for an inner packet of `inner_len` octets.
    #[must_use]
    pub fn outer_len(&self, inner_len: usize) -> usize {
        let payload = self.inside() + inner_len.saturating_sub(self.kept_header) + self.trailer;
        self.around() + payload.next_multiple_of(self.block)
    }

    /// The longest inner packet whose outer packet fits `outer_mtu`; 0 when not even an empty one does (R4301-8.2.1-1).
    #[must_use]
    pub fn inner_mtu(&self, outer_mtu: usize) -> usize {
        let room = outer_mtu.saturating_sub(self.around());
        let payload = room - room % self.block;
        match payload.checked_sub(self.trailer + self.inside()) {
            Some(inner) if outer_mtu >= self.around() => inner + self.kept_header,
            _ => 0,
        }
    }

    /// What lies between `outer_mtu` and [`Self::inner_mtu`], from the outside to the inside and back; what takes no room is left
    /// out. The terms and the inner MTU together are `outer_mtu`, unless that has no room for a packet at all.
    #[must_use]
    pub fn terms(&self, outer_mtu: usize) -> Vec<Term> {
        let inner_mtu = self.inner_mtu(outer_mtu);
        let ip = |octets| match octets {
            0..IPV6_HEADER => "IPv4 header",
            _ => "IPv6 header",
        };
        let tunnel_ip = match self.tunnel_ip {
            0..IPV6_HEADER => "IPv4 header of the tunnel",
            _ => "IPv6 header of the tunnel",
        };
        let mut terms = vec![
            Term { name: ip(self.outer_header), octets: self.outer_header - self.kept_header },
            Term { name: "UDP header", octets: self.udp },
            Term { name: "SPI and sequence number", octets: self.esp },
            Term { name: "IV", octets: self.iv },
            Term { name: tunnel_ip, octets: self.tunnel_ip },
            self.tunnel,
            Term { name: "Ethernet header", octets: self.ethernet },
            Term {
                name: "room that only padding can fill",
                octets: outer_mtu.saturating_sub(self.outer_len(inner_mtu)),
            },
            Term { name: "pad length and next header", octets: self.trailer },
            Term { name: "ICV", octets: self.icv },
        ];
        terms.retain(|term| term.octets > 0);
        terms
    }

    /// Octets outside of what is padded.
    fn around(&self) -> usize {
        self.outer_header + self.udp + self.esp + self.iv + self.icv
    }

    /// Octets in front of the inner packet that are padded with it.
    fn inside(&self) -> usize {
        self.tunnel_ip + self.tunnel.octets + self.ethernet
    }

    const NONE: Self = Self {
        outer_header: 0,
        udp: 0,
        esp: 0,
        iv: 0,
        tunnel_ip: 0,
        tunnel: Term { name: "", octets: 0 },
        ethernet: 0,
        trailer: 0,
        block: 1,
        icv: 0,
        kept_header: 0,
    };
}

/// The largest TCP segment, without options, in IPv4 or IPv6 packets of `inner_mtu` octets.
#[must_use]
pub fn tcp_mss(inner_mtu: usize, is_ipv6: bool) -> usize {
    inner_mtu.saturating_sub(ip_header(is_ipv6) + TCP_HEADER)
}

/// What a tunnel of this kind puts in front of what it carries, behind its IP header and before an Ethernet header; `None` when
/// the kind is no tunnel.
fn tunnel_header(kind: InterfaceKind) -> Option<Term> {
    let name = match kind {
        InterfaceKind::Ipsec | InterfaceKind::Tap | InterfaceKind::Host | InterfaceKind::Memory { .. } => return None,
        InterfaceKind::Ipip => "",
        InterfaceKind::Gre(_) => "GRE header",
        InterfaceKind::Vxlan(_) => "UDP and VXLAN headers",
        InterfaceKind::L2tpv3(tunnel) => match tunnel.carrier {
            L2tpCarrier::Ip => "L2TPv3 header",
            L2tpCarrier::Udp { .. } => "UDP and L2TPv3 headers",
        },
    };
    Some(Term { name, octets: tunnel_octets(kind, false) - IPV4_HEADER - ethernet_header(kind) })
}

/// The Ethernet header of a tunnel that carries frames.
fn ethernet_header(kind: InterfaceKind) -> usize {
    match kind.layer() {
        Layer::Ip => 0,
        Layer::Ethernet => ETHERNET_HEADER,
    }
}

fn ip_header(is_ipv6: bool) -> usize {
    if is_ipv6 { IPV6_HEADER } else { IPV4_HEADER }
}

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
/// Without a VLAN tag, which costs the inner packet four octets more.
const ETHERNET_HEADER: usize = 14;

#[cfg(test)]
mod tests {
    use espdp_api::{EspCipher, EspIntegrity, Gre, L2tpCookie, L2tpSublayer, L2tpv3, Vni, Vxlan};
    use proptest::prelude::*;

    use super::*;

    const UDP: Encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };

    fn gcm() -> EspAlgorithms {
        algorithms(EspCipher::AesGcm16 { key_bits: 256 }, EspIntegrity::None)
    }

    fn algorithms(cipher: EspCipher, integrity: EspIntegrity) -> EspAlgorithms {
        EspAlgorithms { cipher, integrity, extended_sequence_numbers: true }
    }

    fn gre(key: Option<u32>, layer: Layer) -> InterfaceKind {
        InterfaceKind::Gre(Gre { key, checksum: false, sequence: false, layer })
    }

    fn vxlan() -> InterfaceKind {
        InterfaceKind::Vxlan(Vxlan { vni: Vni::try_from(7).unwrap(), port: Vxlan::PORT })
    }

    fn l2tpv3(carrier: L2tpCarrier) -> InterfaceKind {
        let cookie = L2tpCookie::Eight([1; 8]);
        let sublayer = L2tpSublayer::Default;
        InterfaceKind::L2tpv3(L2tpv3 { session: 1, peer_session: 2, cookie, peer_cookie: cookie, carrier, sublayer })
    }

    #[test]
    fn well_known_mtus_come_out() {
        let cbc = algorithms(EspCipher::AesCbc { key_bits: 128 }, EspIntegrity::HmacSha2_256_128);
        for (algorithms, mode, encapsulation, outer_is_ipv6, expected) in [
            (gcm(), Mode::Tunnel, Encapsulation::Esp, false, 1446),
            (gcm(), Mode::Tunnel, UDP, false, 1438),
            (gcm(), Mode::Tunnel, Encapsulation::Esp, true, 1426),
            (gcm(), Mode::Transport, Encapsulation::Esp, false, 1466),
            (cbc, Mode::Tunnel, Encapsulation::Esp, false, 1438),
            (cbc, Mode::Tunnel, UDP, false, 1422),
        ] {
            let overhead = Overhead::new(algorithms, mode, encapsulation, outer_is_ipv6);
            assert_eq!(overhead.inner_mtu(1500), expected, "{overhead:?}");
        }
    }

    #[test]
    fn tunnels_take_what_their_headers_take() {
        let plain = |kind, ipv6| Overhead::of_tunnel(kind, ipv6).inner_mtu(1500);
        assert_eq!(plain(InterfaceKind::Ipip, false), 1480);
        assert_eq!(plain(gre(None, Layer::Ip), false), 1476);
        assert_eq!(plain(gre(Some(7), Layer::Ip), true), 1452);
        assert_eq!(plain(gre(None, Layer::Ethernet), false), 1462);
        assert_eq!(plain(vxlan(), false), 1450);
        assert_eq!(plain(vxlan(), true), 1430);
        assert_eq!(plain(l2tpv3(L2tpCarrier::Ip), false), 1500 - 20 - 4 - 8 - 4 - 14);
        let udp = L2tpCarrier::Udp { local_port: 1701, remote_port: 1701 };
        assert_eq!(plain(l2tpv3(udp), false), 1500 - 20 - 8 - 8 - 8 - 4 - 14);
    }

    #[test]
    fn a_protected_tunnel_has_its_own_ip_header_inside_only_in_tunnel_mode() {
        let protected =
            |kind, mode| Overhead::new(gcm(), mode, Encapsulation::Esp, false).with_tunnel(kind, mode, false);
        assert_eq!(protected(InterfaceKind::Ipip, Mode::Transport).inner_mtu(1500), 1446);
        assert_eq!(protected(InterfaceKind::Ipip, Mode::Tunnel).inner_mtu(1500), 1446);
        assert_eq!(protected(gre(None, Layer::Ip), Mode::Transport).inner_mtu(1500), 1442);
        assert_eq!(protected(gre(None, Layer::Ip), Mode::Tunnel).inner_mtu(1500), 1422);
        assert_eq!(protected(InterfaceKind::Ipsec, Mode::Tunnel).inner_mtu(1500), 1446);
        assert_eq!(protected(InterfaceKind::Ipsec, Mode::Transport).inner_mtu(1500), 1466);
    }

    #[test]
    fn each_term_has_its_name_and_the_mtu_is_what_they_leave() {
        let cbc = algorithms(EspCipher::AesCbc { key_bits: 256 }, EspIntegrity::HmacSha2_256_128);
        let overhead = Overhead::new(cbc, Mode::Tunnel, UDP, false).with_tunnel(vxlan(), Mode::Tunnel, false);
        let terms: Vec<_> = overhead.terms(1500).into_iter().map(|term| (term.name, term.octets)).collect();
        let expected = [
            ("IPv4 header", 20),
            ("UDP header", 8),
            ("SPI and sequence number", 8),
            ("IV", 16),
            ("IPv4 header of the tunnel", 20),
            ("UDP and VXLAN headers", 16),
            ("Ethernet header", 14),
            ("pad length and next header", 2),
            ("ICV", 16),
        ];
        assert_eq!(terms.iter().filter(|(name, _)| !name.starts_with("room")).copied().collect::<Vec<_>>(), expected);
        assert_eq!(terms.iter().map(|(_, octets)| octets).sum::<usize>() + overhead.inner_mtu(1500), 1500);
        assert_eq!((tcp_mss(1446, false), tcp_mss(1446, true), tcp_mss(20, true)), (1406, 1386, 0));
    }

    proptest! {
        #[test]
        fn terms_and_inner_mtu_add_up_to_the_path(outer_mtu in 300usize..70_000, is_tunnel: bool, in_udp: bool, ipv6: bool, kind in 0usize..6) {
            let mode = if is_tunnel { Mode::Tunnel } else { Mode::Transport };
            let kinds = [InterfaceKind::Ipsec, InterfaceKind::Ipip, gre(Some(1), Layer::Ethernet), vxlan(),
                         l2tpv3(L2tpCarrier::Ip), InterfaceKind::Tap];
            let encapsulation = if in_udp { UDP } else { Encapsulation::Esp };
            let overhead = Overhead::new(gcm(), mode, encapsulation, ipv6).with_tunnel(kinds[kind], mode, ipv6);
            let inner = overhead.inner_mtu(outer_mtu);
            let terms: usize = overhead.terms(outer_mtu).iter().map(|term| term.octets).sum();
            prop_assert_eq!(terms + inner, outer_mtu);
            prop_assert!(overhead.outer_len(inner) <= outer_mtu && overhead.outer_len(inner + 1) > outer_mtu);
        }
    }
}
