//! ICMP echo (RFC 792, RFC 4443 §4), because a fresh machine has no `ping`.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

/// What became of some echo requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PingReport {
    /// Who was asked.
    pub destination: IpAddr,
    /// Requests sent.
    pub sent: u32,
    /// Replies received, with the payload as it was sent.
    pub received: u32,
    /// Mean round trip time in microseconds; 0 when there was no reply.
    pub mean_us: u64,
}

/// Sends `count` echo requests with `payload` to `destination`, one after the other as replies come, and waits at most
/// `patience` for each. Must run where raw sockets are allowed.
///
/// # Errors
/// The socket's error; a destination that is unreachable is no error but a missing reply.
pub fn ping(destination: IpAddr, payload: &[u8], count: u32, patience: Duration) -> io::Result<PingReport> {
    let (domain, protocol) = match destination {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.connect(&SocketAddr::new(destination, 0).into())?;
    let identifier = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
    let mut report = PingReport { destination, sent: 0, received: 0, mean_us: 0 };
    let mut total = Duration::ZERO;
    for sequence in 0..count {
        let sequence = u16::try_from(sequence & 0xffff).unwrap_or_default();
        let echo = Echo { v4: destination.is_ipv4(), identifier, sequence, payload };
        let started = Instant::now();
        report.sent = report.sent.saturating_add(1);
        match socket.send(&echo.request()) {
            Ok(_) => {}
            Err(error) if is_unreachable(&error) => {
                // No reply will come; do not flood.
                std::thread::sleep(patience);
                continue;
            }
            Err(error) => return Err(error),
        }
        if wait_for_reply(&socket, &echo, started, patience)? {
            report.received = report.received.saturating_add(1);
            total = total.saturating_add(started.elapsed());
        }
    }
    let mean = total.checked_div(report.received).unwrap_or_default();
    report.mean_us = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX);
    Ok(report)
}

fn wait_for_reply(mut socket: &Socket, echo: &Echo<'_>, started: Instant, patience: Duration) -> io::Result<bool> {
    let mut buffer = vec![0; LONGEST_PACKET];
    loop {
        let left = patience.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(length) => {
                if echo.is_answered_by(buffer.get(..length).unwrap_or_default()) {
                    return Ok(true);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted || is_unreachable(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// One request.
///
/// ```text
///  0                   1                   2                   3
/// |     Type      |     Code      |          Checksum             |
/// |           Identifier          |        Sequence Number        |
/// |     Data ...
/// ```
struct Echo<'a> {
    v4: bool,
    identifier: u16,
    sequence: u16,
    payload: &'a [u8],
}

impl Echo<'_> {
    fn request(&self) -> Vec<u8> {
        let kind = if self.v4 { ECHO_V4 } else { ECHO_V6 };
        let fields = [[kind, 0], [0, 0], self.identifier.to_be_bytes(), self.sequence.to_be_bytes()];
        let mut message = [&fields.concat(), self.payload].concat();
        if self.v4 {
            // The kernel computes the checksum of ICMPv6 (RFC 3542 §3.1), but not this one.
            let checksum = internet_checksum(&message).to_be_bytes();
            for (field, octet) in message.iter_mut().skip(2).zip(checksum) {
                *field = octet;
            }
        }
        message
    }

    /// Whether `packet`, as a raw socket gives it (IPv4 with its header, IPv6 without), answers the request.
    fn is_answered_by(&self, packet: &[u8]) -> bool {
        let message = match packet.first() {
            Some(first) if self.v4 => packet.get(usize::from(first & 0x0f).saturating_mul(4)..).unwrap_or_default(),
            _ => packet,
        };
        let Some((header, payload)) = message.split_first_chunk::<8>() else { return false };
        let &[kind, code, _, _, id_hi, id_lo, seq_hi, seq_lo] = header;
        kind == (if self.v4 { ECHO_REPLY_V4 } else { ECHO_REPLY_V6 })
            && code == 0
            && u16::from_be_bytes([id_hi, id_lo]) == self.identifier
            && u16::from_be_bytes([seq_hi, seq_lo]) == self.sequence
            && payload == self.payload
    }
}

/// RFC 1071.
fn internet_checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| match *pair {
        [hi, lo] => u32::from(u16::from_be_bytes([hi, lo])),
        [hi] => u32::from(u16::from_be_bytes([hi, 0])),
        _ => 0,
    });
    let mut sum = words.fold(0_u32, u32::saturating_add);
    while let Some(carry) = sum.checked_shr(16).filter(|&carry| carry != 0) {
        sum = (sum & 0xffff).saturating_add(carry);
    }
    !u16::try_from(sum).unwrap_or_default()
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::ConnectionRefused
    )
}

/// No IP packet is longer, jumbograms excepted.
const LONGEST_PACKET: usize = 1 << 16;
const ECHO_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

#[cfg(test)]
mod tests {
    use super::super::tally::MARKER;
    use super::super::topology::{CLIENT, Network, Topology, TopologyError};
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    #[test]
    fn neighbours_answer_and_strangers_do_not() {
        let network = match Network::build(&Topology::two_gateways().unwrap()) {
            Ok(network) => network,
            Err(TopologyError::Namespace(error)) if error.is_permission() => return crate::lab::netns::skipped(&error),
            Err(error) => panic!("{error}"),
        };
        let client = network.namespace(CLIENT).unwrap();
        for address in ["192.168.5.1", "fec5::1"] {
            let report = client.run(|| ping(address.parse().unwrap(), MARKER, 3, PATIENCE)).unwrap().unwrap();
            assert_eq!((report.sent, report.received), (3, 3), "{address}");
            assert!(report.mean_us > 0);
        }
        for address in ["192.168.3.2", "fec3::2"] {
            let report = client.run(|| ping(address.parse().unwrap(), MARKER, 1, PATIENCE)).unwrap().unwrap();
            assert_eq!((report.sent, report.received, report.mean_us), (1, 0, 0), "{address}");
        }
    }

    #[test]
    fn the_checksum_is_the_one_of_the_rfc() {
        // RFC 1071 §3: the sum of these is ddf2.
        assert_eq!(internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(internet_checksum(&[0xff]), !0xff00);
        let message = echo(true, 7, 9).request();
        assert_eq!(internet_checksum(&message), 0, "a message with its checksum sums to nothing");
    }

    fn echo(v4: bool, identifier: u16, sequence: u16) -> Echo<'static> {
        Echo { v4, identifier, sequence, payload: MARKER }
    }

    #[test]
    fn a_reply_must_match_in_everything() {
        let mut reply = echo(false, 7, 9).request();
        reply[0] = ECHO_REPLY_V6;
        assert!(echo(false, 7, 9).is_answered_by(&reply));
        assert!(!echo(false, 8, 9).is_answered_by(&reply));
        assert!(!echo(false, 7, 8).is_answered_by(&reply));
        assert!(!echo(false, 7, 9).is_answered_by(&echo(false, 7, 9).request()), "our own request");
        reply.pop();
        assert!(!echo(false, 7, 9).is_answered_by(&reply), "a damaged payload");
        let mut reply = [&[0x45; 20][..], &echo(true, 7, 9).request()].concat();
        reply[20] = ECHO_REPLY_V4;
        assert!(echo(true, 7, 9).is_answered_by(&reply));
        assert!(!echo(true, 7, 9).is_answered_by(&[0x4f; 20]));
    }
}
