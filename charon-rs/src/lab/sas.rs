//! The SAs as a daemon lists them at its control socket, in the shape that the lab compares and shows.

use std::net::IpAddr;

use serde::Serialize;

use crate::vici::Message;

/// An IKE SA with its Child SAs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct IkeSa {
    /// The connection's name.
    pub(super) name: String,
    /// `ESTABLISHED`, hopefully.
    pub(super) state: String,
    /// Whether this daemon began it.
    pub(super) initiator: bool,
    /// Our address.
    pub(super) local_host: String,
    /// Our port.
    pub(super) local_port: String,
    /// Our identity.
    pub(super) local_id: String,
    /// The peer's address.
    pub(super) remote_host: String,
    /// The peer's port.
    pub(super) remote_port: String,
    /// The peer's identity.
    pub(super) remote_id: String,
    /// The initiator's SPI, 16 hexadecimal digits.
    pub(super) initiator_spi: String,
    /// The responder's SPI.
    pub(super) responder_spi: String,
    /// The initiator's nonce in hexadecimal digits.
    pub(super) initiator_nonce: String,
    /// The responder's nonce.
    pub(super) responder_nonce: String,
    /// Cipher, PRF and group.
    pub(super) algorithms: String,
    /// Its Child SAs.
    pub(super) children: Vec<ChildSa>,
}

/// A Child SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ChildSa {
    /// The child's name.
    pub(super) name: String,
    /// `INSTALLED`, hopefully.
    pub(super) state: String,
    /// `TUNNEL` or `TRANSPORT`.
    pub(super) mode: String,
    /// The SPI that the peer sends to.
    #[serde(serialize_with = "super::tally::as_hex")]
    pub(super) spi_in: u32,
    /// The SPI that we send to.
    #[serde(serialize_with = "super::tally::as_hex")]
    pub(super) spi_out: u32,
    /// Cipher and integrity.
    pub(super) algorithms: String,
    /// Whether sequence numbers have 64 bits.
    pub(super) esn: bool,
    /// Whether ESP travels in UDP.
    pub(super) in_udp: bool,
    /// What came in.
    pub(super) received: Counters,
    /// What went out.
    pub(super) sent: Counters,
    /// Our side's selectors.
    pub(super) local_selectors: Vec<String>,
    /// The peer's side's selectors.
    pub(super) remote_selectors: Vec<String>,
}

/// What passed one half of a Child SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counters {
    /// Packets.
    pub(super) packets: u64,
    /// Octets of the inner packets.
    pub(super) bytes: u64,
}

impl IkeSa {
    /// Reads the SAs of one `list-tunnel` event: a section of the connection's name with its IKE SAs.
    pub(super) fn read_all(event: &Message) -> Vec<Self> {
        let sas = |tunnel: &Message| tunnel.section("ike-sas").cloned().unwrap_or_default();
        let read = |(name, tunnel)| sas(tunnel).sections().map(|(_, sa)| Self::read(name, sa)).collect::<Vec<_>>();
        event.sections().flat_map(read).collect()
    }

    fn read(name: &str, sa: &Message) -> Self {
        let text = |key| sa.text(key).unwrap_or_default().to_owned();
        let children = sa.section("child-sas").map(Message::sections).into_iter().flatten();
        let prf = sa.text("prf-alg").map(str::to_owned);
        let group = sa.text("dh-group").map(str::to_owned);
        Self {
            name: name.to_owned(),
            state: text("state"),
            initiator: sa.is_yes("initiator"),
            local_host: text("local-host"),
            local_port: text("local-port"),
            local_id: text("local-id"),
            remote_host: text("remote-host"),
            remote_port: text("remote-port"),
            remote_id: text("remote-id"),
            initiator_spi: text("initiator-spi"),
            responder_spi: text("responder-spi"),
            initiator_nonce: text("nonce-i"),
            responder_nonce: text("nonce-r"),
            algorithms: ciphers(sa).into_iter().chain(prf).chain(group).collect::<Vec<_>>().join(", "),
            children: children.filter_map(|(_, child)| ChildSa::read(child)).collect(),
        }
    }

    /// Our address, if it reads as one.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        self.local_host.parse().ok()
    }
}

impl ChildSa {
    fn read(child: &Message) -> Option<Self> {
        let text = |key| child.text(key).unwrap_or_default().to_owned();
        let spi = |key| u32::from_str_radix(child.text(key)?, 16).ok();
        let number = |key| child.text(key).and_then(|number| number.parse().ok()).unwrap_or_default();
        Some(Self {
            name: text("name"),
            state: text("state"),
            mode: text("mode"),
            spi_in: spi("spi-in")?,
            spi_out: spi("spi-out")?,
            algorithms: ciphers(child).join(", "),
            esn: child.text("esn").is_some_and(|esn| esn != "0" && esn != "no"),
            in_udp: child.is_yes("encap"),
            received: Counters { packets: number("packets-in"), bytes: number("bytes-in") },
            sent: Counters { packets: number("packets-out"), bytes: number("bytes-out") },
            local_selectors: child.list("local-ts"),
            remote_selectors: child.list("remote-ts"),
        })
    }
}

/// `AES_GCM_16-256`, or cipher and integrity apart.
fn ciphers(sa: &Message) -> Vec<String> {
    let cipher = sa.text("encr-alg").map(|name| match sa.text("encr-keysize") {
        Some(bits) => format!("{name}-{bits}"),
        None => name.to_owned(),
    });
    cipher.into_iter().chain(sa.text("integ-alg").map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_sa_is_read_with_its_children() {
        let child = Message::new()
            .with("name", "lab")
            .with("state", "INSTALLED")
            .with("mode", "TUNNEL")
            .with("encap", "yes")
            .with("spi-in", "c0000001")
            .with("spi-out", "0a0b0c0d")
            .with("encr-alg", "AES_CBC")
            .with("encr-keysize", 256)
            .with("integ-alg", "HMAC_SHA2_256_128")
            .with("esn", 1)
            .with("bytes-in", 840)
            .with("packets-in", 10)
            .with("bytes-out", 84)
            .with("packets-out", 1);
        let sa = Message::new()
            .with("state", "ESTABLISHED")
            .with("initiator", "yes")
            .with("local-host", "192.168.10.1")
            .with("encr-alg", "CHACHA20_POLY1305")
            .with("prf-alg", "PRF_HMAC_SHA2_256")
            .with("dh-group", "CURVE_25519")
            .with_section("child-sas", Message::new().with_section("lab-1", child));
        let tunnel = Message::new().with("state", "UP").with_section("ike-sas", Message::new().with_section("1", sa));
        let sas = IkeSa::read_all(&Message::new().with_section("lab", tunnel));
        let [sa] = sas.as_slice() else { panic!("{sas:?}") };
        assert_eq!((sa.name.as_str(), sa.state.as_str()), ("lab", "ESTABLISHED"));
        assert_eq!(sa.algorithms, "CHACHA20_POLY1305, PRF_HMAC_SHA2_256, CURVE_25519");
        assert!(sa.initiator);
        assert_eq!(sa.local_address(), Some([192, 168, 10, 1].into()));
        let child = &sa.children[0];
        assert_eq!((child.spi_in, child.spi_out, child.esn, child.in_udp), (0xc000_0001, 0x0a0b_0c0d, true, true));
        assert_eq!(child.algorithms, "AES_CBC-256, HMAC_SHA2_256_128");
        assert_eq!(child.received, Counters { packets: 10, bytes: 840 });
        assert_eq!(child.sent, Counters { packets: 1, bytes: 84 });
    }

    #[test]
    fn a_tunnel_that_is_down_has_no_sas() {
        let tunnel = Message::new().with("state", "DOWN").with_section("ike-sas", Message::new());
        assert_eq!(IkeSa::read_all(&Message::new().with_section("lab", tunnel)), []);
        assert_eq!(IkeSa::read_all(&Message::new()), []);
    }
}
