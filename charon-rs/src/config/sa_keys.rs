//! The keys of `[sa.NAME]`.

use std::net::IpAddr;
use std::ops::Range;

use espdp_api::{
    Direction, Encapsulation, EspAlgorithms, EspIntegrity, EspSpi, Mode, OuterPath, PacketShape, SaLimits, TrafficLimit,
};
use ike_proto::proposal::{EspProposal, parse_esp_list};

use super::child_keys::{packets, proposals, replay_window};
use super::daemon::port;
use super::defaults;
use super::item::{At, Item};
use super::keys::Key;
use super::manual::ManualSa;
use super::sa_secrets::SaKeys;
use super::source::Complaint;
use super::values::address;

/// `[sa.NAME]` while it is read.
#[derive(Default)]
pub(super) struct SaDraft {
    spi: Option<EspSpi>,
    pub(super) direction: Option<Direction>,
    left: Option<At<IpAddr>>,
    right: Option<At<IpAddr>>,
    esp: Option<At<Vec<EspProposal>>>,
    mode: Option<Mode>,
    in_udp: Option<bool>,
    right_port: Option<At<u16>>,
    pub(super) replay_window: Option<At<u32>>,
    life_bytes: Option<u64>,
    life_packets: Option<u64>,
    pub(super) shape: PacketShape,
}

/// The keys of `[sa.NAME]`, beside [`super::shape_keys::SHAPE_KEYS`].
pub(super) const SA_KEYS: &[Key<SaDraft>] = &[
    Key {
        name: "spi",
        also_called: &[],
        takes: "number from 256",
        default: "none: it must be given",
        doc: "The SPI on the wire, the same at both ends: `0x3e8` or `1000`.",
        set: |draft, item| {
            draft.spi = Some(spi(item)?);
            Ok(())
        },
    },
    Key {
        name: "direction",
        also_called: &[],
        takes: "`out` or `in`",
        default: "none: it must be given",
        doc: "Whether we send on it or receive.",
        set: |draft, item| {
            draft.direction = Some(item.choice(&[("out", Direction::Outbound), ("in", Direction::Inbound)])?);
            Ok(())
        },
    },
    Key {
        name: "left",
        also_called: &[],
        takes: "address",
        default: "none: it must be given",
        doc: "Our address outside.",
        set: |draft, item| {
            draft.left = Some(item.at(item.text("an address")?.read(address::local)?));
            Ok(())
        },
    },
    Key {
        name: "right",
        also_called: &[],
        takes: "address",
        default: "none: it must be given",
        doc: "The peer's address outside.",
        set: |draft, item| {
            draft.right = Some(item.at(item.text("an address")?.read(peer)?));
            Ok(())
        },
    },
    Key {
        name: "esp",
        also_called: &[],
        takes: "a cipher and an integrity algorithm",
        default: "none: it must be given",
        doc: "`aes128-sha256`, `aes256-sha512`, `null-sha256`. Ciphers that count (AES-GCM, AES-CCM, AES-CTR, ChaCha20-Poly1305) are \
              refused: a number used twice with one key breaks them, and with keys by hand numbers start anew with each start \
              (RFC 4106 §2, RFC 7634 §2).",
        set: |draft, item| {
            draft.esp = Some(item.at(proposals(item, "an ESP proposal", parse_esp_list)?));
            Ok(())
        },
    },
    Key {
        name: "type",
        also_called: &[],
        takes: "`tunnel` or `transport`",
        default: "\"tunnel\"",
        doc: "The mode of the SA.",
        set: |draft, item| {
            draft.mode = Some(item.choice(&[("tunnel", Mode::Tunnel), ("transport", Mode::Transport)])?);
            Ok(())
        },
    },
    Key {
        name: "forceencaps",
        also_called: &["encap"],
        takes: "`true` or `false`",
        default: "false",
        doc: "ESP inside of UDP (RFC 3948), from our `nat_port`: where a NAT stands between the ends.",
        set: |draft, item| {
            draft.in_udp = Some(item.boolean()?);
            Ok(())
        },
    },
    Key {
        name: "rightport",
        also_called: &[],
        takes: "port",
        default: "4500",
        doc: "The peer's UDP port with `forceencaps`.",
        set: |draft, item| {
            draft.right_port = Some(item.at(port(item)?));
            Ok(())
        },
    },
    Key {
        name: "replay_window",
        also_called: &[],
        takes: "0, or 64 to 65536 packets",
        default: "0",
        doc: "How late a packet may come. 0, because nobody tells the peer to use new keys when its numbers start anew \
              (RFC 4303 §3.4.3): whoever records packets can send them again.",
        set: |draft, item| {
            draft.replay_window = Some(item.at(replay_window(item)?));
            Ok(())
        },
    },
    Key {
        name: "lifebytes",
        also_called: &[],
        takes: "amount of data",
        default: "no limit",
        doc: "The SA carries no more than this.",
        set: |draft, item| {
            draft.life_bytes = Some(item.bytes()?.value);
            Ok(())
        },
    },
    Key {
        name: "lifepackets",
        also_called: &[],
        takes: "number",
        default: "no limit",
        doc: "The SA carries no more packets than this.",
        set: |draft, item| {
            draft.life_packets = Some(packets(item)?);
            Ok(())
        },
    },
];

impl SaDraft {
    /// The SA `name`, whose name stands at `span`, or everything that is wrong with it.
    pub(super) fn finish(
        self,
        name: &str,
        span: Range<usize>,
        keys: Option<&SaKeys>,
        nat_port: u16,
    ) -> Result<ManualSa, Vec<Complaint>> {
        let mut complaints = Vec::new();
        let missing = |key: &str| {
            Complaint::new(span.clone(), format!("sa `{name}` has no `{key}`")).expected(format!("expected `{key}`"))
        };
        let required = [
            ("spi", self.spi.is_some()),
            ("direction", self.direction.is_some()),
            ("left", self.left.is_some()),
            ("right", self.right.is_some()),
            ("esp", self.esp.is_some()),
        ];
        complaints.extend(required.iter().filter(|(_, given)| !given).map(|(key, _)| missing(key)));
        let algorithms = self.esp.as_ref().and_then(|esp| algorithms(esp).map_err(|why| complaints.push(why)).ok());
        if let (Some(left), Some(right)) = (&self.left, &self.right)
            && left.value.is_ipv4() != right.value.is_ipv4()
        {
            let message = "left and right are addresses of different families";
            complaints
                .push(Complaint::new(right.span.clone(), message).expected("expected IPv4 on both sides, or IPv6"));
        }
        let in_udp = self.in_udp == Some(true);
        if let Some(port) = self.right_port.as_ref().filter(|_| !in_udp) {
            let message = "`rightport` has no effect without `forceencaps = true`";
            complaints.push(Complaint::new(port.span.clone(), message));
        }
        match (keys, algorithms) {
            (None, _) => complaints.push(
                Complaint::new(span.clone(), format!("sa `{name}` has no keys"))
                    .expected(format!("expected a table [sa.{name}] in the secrets file")),
            ),
            (Some(keys), Some(algorithms)) => complaints.extend(wrong_lengths(keys, algorithms, &span)),
            (Some(_), None) => {}
        }
        let given = (self.spi, self.direction, self.left, self.right, algorithms, keys);
        let (Some(spi), Some(direction), Some(left), Some(right), Some(algorithms), Some(keys)) = given else {
            return Err(complaints);
        };
        if !complaints.is_empty() {
            return Err(complaints);
        }
        let remote_port = self.right_port.map_or(defaults::NAT_PORT, |port| port.value);
        let encapsulation =
            if in_udp { Encapsulation::Udp { local_port: nat_port, remote_port } } else { Encapsulation::Esp };
        let hard = TrafficLimit { bytes: self.life_bytes, packets: self.life_packets };
        Ok(ManualSa {
            name: name.to_owned(),
            direction,
            spi,
            algorithms,
            encryption_key: keys.encryption.clone(),
            integrity_key: keys.integrity.clone(),
            mode: self.mode.unwrap_or(Mode::Tunnel),
            path: OuterPath { local: left.value, remote: right.value, encapsulation },
            limits: SaLimits { soft: TrafficLimit::default(), hard },
            replay_window: self.replay_window.map_or(0, |window| window.value),
            shape: self.shape,
        })
    }
}

fn spi(item: Item<'_>) -> Result<EspSpi, Complaint> {
    let number = item.integer(u64::from(EspSpi::FIRST_USABLE)..=u64::from(u32::MAX))?;
    let spi = u32::try_from(number).ok().and_then(|number| EspSpi::try_from(number).ok());
    spi.ok_or_else(|| item.wrong_type("an SPI"))
}

fn peer(text: &str) -> Result<IpAddr, super::values::ValueError> {
    address::local(text)
        .map_err(|error| super::values::ValueError { expected: "expected an address".to_owned(), ..error })
}

/// The one suite that is written; nobody negotiates here.
fn algorithms(esp: &At<Vec<EspProposal>>) -> Result<EspAlgorithms, Complaint> {
    let complain = |message: &str| Complaint::new(esp.span.clone(), message);
    let [EspProposal { ciphers, integrity, groups, extended_sequence_numbers, .. }] = esp.value.as_slice() else {
        return Err(complain("several proposals").expected("expected one: nobody negotiates keys by hand"));
    };
    let ([cipher], [] | [_]) = (ciphers.as_slice(), integrity.as_slice()) else {
        return Err(complain("several algorithms").expected("expected one cipher and one integrity algorithm"));
    };
    // What has a salt builds its nonces of that and a counter.
    if cipher.salt_len() > 0 {
        let message = "this cipher must not be used with keys by hand: its numbers start anew with each start, and one that is \
                       used twice with a key breaks it (RFC 3686 §7, RFC 4106 §2, RFC 7634 §2)";
        return Err(complain(message).expected("expected AES-CBC with HMAC, such as \"aes128-sha256\""));
    }
    if !groups.is_empty() {
        return Err(complain("a group for keys that nobody exchanges")
            .expected("expected a cipher and an integrity algorithm alone"));
    }
    if extended_sequence_numbers.as_slice() == [true] {
        let message = "extended sequence numbers need both ends to start at once: nobody sends their high half";
        return Err(complain(message).expected("expected no `esn`"));
    }
    let integrity = integrity.first().copied().unwrap_or(EspIntegrity::None);
    let algorithms = EspAlgorithms { cipher: *cipher, integrity, extended_sequence_numbers: false };
    if algorithms.is_sound() {
        Ok(algorithms)
    } else {
        Err(complain("a cipher without integrity").expected("expected both, such as \"aes128-sha256\" (RFC 4303 §3.2)"))
    }
}

fn wrong_lengths(keys: &SaKeys, algorithms: EspAlgorithms, span: &Range<usize>) -> Vec<Complaint> {
    let lengths = [
        ("encryption_key", keys.encryption.expose().len(), algorithms.cipher.key_len()),
        ("integrity_key", keys.integrity.expose().len(), algorithms.integrity.key_len()),
    ];
    let wrong = lengths.into_iter().filter(|(_, given, needed)| given != needed);
    wrong
        .map(|(key, given, needed)| {
            Complaint::new(span.clone(), format!("`{key}` in the secrets file has {given} octets"))
                .expected(format!("expected {needed} octets, {} hexadecimal digits", needed * 2))
        })
        .collect()
}
