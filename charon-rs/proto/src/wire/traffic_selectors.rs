//! Traffic Selector payloads (RFC 7296 §3.13).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use espdp_api::{AddressRange, PortRange, TrafficSelector};

use super::error::WireError;
use super::payload_type::PayloadType;
use super::reader::Reader;
use super::writer::count_octet;

/// Selectors in one payload: their number is one octet.
pub const MAX_SELECTORS: usize = 255;

const TS_IPV4_ADDR_RANGE: u8 = 7;
const TS_IPV6_ADDR_RANGE: u8 = 8;

/// Octets of a selector without its addresses.
const FIXED_LEN: u16 = 8;

/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Number of TSs |                 RESERVED                      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                       <Traffic Selectors>                     ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
/// Selectors of unknown types, and ranges that end before they begin, select nothing and are left out.
pub(super) fn parse_selectors(body: &mut Reader<'_>) -> Result<Vec<TrafficSelector>, WireError> {
    let offset = body.offset();
    let [count, _, _, _] = body.array()?;
    if count == 0 {
        return Err(body.wrong(offset, "number of selectors", "at least 1", count));
    }
    let mut selectors = Vec::new();
    for _ in 0..count {
        selectors.extend(parse_selector(body)?);
    }
    Ok(selectors)
}

/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   TS Type     |IP Protocol ID*|       Selector Length         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           Start Port*         |           End Port*           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                         Starting Address*                     ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                         Ending Address*                       ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
fn parse_selector(body: &mut Reader<'_>) -> Result<Option<TrafficSelector>, WireError> {
    let offset = body.offset();
    let [kind, protocol] = body.array()?;
    let stated = body.u16()?;
    let Some(length) = stated.checked_sub(4) else {
        return Err(body.wrong(offset, "selector length", "at least 4 octets", stated));
    };
    let mut rest = body.part(usize::from(length))?;
    let expected = match kind {
        TS_IPV4_ADDR_RANGE => (16, "16 for IPv4 ranges"),
        TS_IPV6_ADDR_RANGE => (40, "40 for IPv6 ranges"),
        _ => return Ok(None),
    };
    if stated != expected.0 {
        return Err(rest.wrong(offset, "selector length", expected.1, stated));
    }
    let ports = PortRange { start: rest.u16()?, end: rest.u16()? };
    let mut address = || -> Result<IpAddr, WireError> {
        Ok(match kind {
            TS_IPV4_ADDR_RANGE => IpAddr::from(rest.array::<4>()?),
            _ => IpAddr::from(rest.array::<16>()?),
        })
    };
    let (start, end) = (address()?, address()?);
    // R7296-3.13.1-1: the one reversed range of ports that means something is OPAQUE.
    let selects = ports == PortRange::OPAQUE || ports.start <= ports.end;
    let addresses = AddressRange::new(start, end).ok().filter(|_| selects);
    Ok(addresses.map(|addresses| TrafficSelector { addresses, protocol, ports }))
}

pub(super) fn encode_selectors(
    payload: PayloadType,
    selectors: &[TrafficSelector],
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    let count = count_octet(payload, "selectors", selectors.len())?;
    out.extend_from_slice(&[count, 0, 0, 0]);
    selectors.iter().for_each(|selector| encode_selector(selector, out));
    Ok(())
}

fn encode_selector(selector: &TrafficSelector, out: &mut Vec<u8>) {
    let TrafficSelector { addresses, protocol, ports } = selector;
    let (kind, addresses) = match (addresses.start(), addresses.end()) {
        (IpAddr::V4(start), IpAddr::V4(end)) => (TS_IPV4_ADDR_RANGE, concat_v4(start, end)),
        (start, end) => (TS_IPV6_ADDR_RANGE, concat_v6(start, end)),
    };
    let length = FIXED_LEN.saturating_add(u16::try_from(addresses.len()).unwrap_or(u16::MAX));
    out.extend_from_slice(&[kind, *protocol]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&ports.start.to_be_bytes());
    out.extend_from_slice(&ports.end.to_be_bytes());
    out.extend_from_slice(&addresses);
}

fn concat_v4(start: Ipv4Addr, end: Ipv4Addr) -> Vec<u8> {
    [start.octets(), end.octets()].concat()
}

/// An [`AddressRange`] is of one family, so both are IPv6 here; an IPv4 address would be mapped.
fn concat_v6(start: IpAddr, end: IpAddr) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => Ipv6Addr::octets(&v6),
    };
    [octets(start), octets(end)].concat()
}
