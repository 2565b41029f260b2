//! Headers by the tables of RFC 4302.

use super::*;

const ICV_LEN: usize = 16;

/// An IPv4 header with these options, AH with an ICV of ones, and three octets of payload.
fn ipv4(options: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let total_len = (header_len + 28 + 3) as u16;
    let mut packet = vec![0x40 | (header_len / 4) as u8, 0xb9];
    packet.extend(total_len.to_be_bytes());
    packet.extend([0x12, 0x34, 0x40, 0, 61, protocol::AH, 0xaa, 0xbb, 192, 0, 2, 1, 192, 0, 2, 2]);
    packet.extend(options);
    packet.extend(authentication_header(6, ICV_LEN, 28));
    packet.extend([7, 8, 9]);
    packet
}

fn authentication_header(next_header: u8, icv_len: usize, len: usize) -> Vec<u8> {
    let mut ah = vec![next_header, (len / 4 - 2) as u8, 0, 0, 0, 0, 1, 0, 0, 0, 0, 5];
    ah.extend(vec![0xff; icv_len]);
    ah.resize(len, 0xee);
    ah
}

/// An IPv6 packet with this chain of headers, the last of which announces AH.
fn ipv6(first: u8, chain: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6b, 0x9a, 0xbc, 0xde];
    packet.extend(((chain.len() + 32 + 3) as u16).to_be_bytes());
    packet.extend([first, 61]);
    packet.extend([[0x20; 16], [0x21; 16]].concat());
    packet.extend(chain);
    packet.extend(authentication_header(6, ICV_LEN, 32));
    packet.extend([7, 8, 9]);
    packet
}

fn covered(packet: &[u8]) -> Option<Vec<u8>> {
    let mut covered = Vec::new();
    Place::find(packet)?.cover(packet, ICV_LEN, &mut |piece| covered.extend_from_slice(piece))?;
    assert_eq!(covered.len(), packet.len());
    Some(covered)
}

/// Which octets of `packet` may change without the ICV noticing.
fn mutable(packet: &[u8]) -> Vec<usize> {
    let before = covered(packet).unwrap();
    let changed = |at: usize| {
        let mut packet = packet.to_vec();
        packet[at] ^= 0x04;
        covered(&packet)
    };
    (0..packet.len()).filter(|at| changed(*at).is_some_and(|after| after == before)).collect()
}

/// R4302-3.3.3.1-1.
#[test]
fn routers_may_change_just_what_the_rfc_lists_in_ipv4() {
    let expected: Vec<_> = [1, 6, 7, 8, 10, 11].into_iter().chain(32..48).collect();
    let mut found = mutable(&ipv4(&[]));
    // A packet whose flags or offset say fragment is none for AH; within one that is none, they count as zero.
    found.extend([6, 7]);
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, expected);
    let mut other = ipv4(&[]);
    other[6] = 0;
    assert_eq!(covered(&other), covered(&ipv4(&[])), "Don't Fragment");
}

#[test]
fn ipv4_options_are_covered_or_not_as_a_whole() {
    // Record route with a pointer, no operation, router alert, end of list and what stands behind it.
    let options = [7, 7, 4, 1, 2, 3, 4, 1, 148, 4, 0, 9, 0, 0xcc, 0xcc, 0xcc];
    let packet = ipv4(&options);
    let covered = covered(&packet).unwrap();
    assert_eq!(covered[20..36], [0, 0, 0, 0, 0, 0, 0, 1, 148, 4, 0, 9, 0, 0xcc, 0xcc, 0xcc]);
    assert_eq!(Place::for_transport(&packet).unwrap().at, 36);
}

#[test]
fn malformed_ipv4_options_and_source_routes_are_refused() {
    for options in [[7, 0, 0, 0], [7, 1, 0, 0], [7, 5, 0, 0], [1, 1, 1, 7]] {
        assert_eq!(covered(&ipv4(&options)), None, "{options:?}");
        assert_eq!(Place::for_transport(&ipv4(&options)), None, "{options:?}");
    }
    for kind in [131, 137] {
        let packet = ipv4(&[kind, 7, 4, 192, 0, 2, 9, 0]);
        assert_eq!(Place::for_transport(&packet), None);
        assert_eq!(covered(&packet).unwrap()[20..28], [0; 8], "received, it is zeroed");
    }
}

/// R4302-3.3.3.1-1.
#[test]
fn routers_may_change_just_what_the_rfc_lists_in_ipv6() {
    // Half of the first octet belongs to the traffic class; of it, the version counts.
    let expected: Vec<_> = [0, 1, 2, 3, 7].into_iter().chain(52..68).collect();
    assert_eq!(mutable(&ipv6(protocol::AH, &[])), expected);
}

#[test]
fn ipv6_options_are_covered_as_their_type_says() {
    // Hop-by-hop: an option that may change, padding of one octet, one that may not; then a routing header.
    let hop_by_hop = [protocol::ROUTING, 1, 0x3e, 3, 1, 2, 3, 0, 0x1e, 4, 5, 6, 7, 8, 1, 0];
    let mut routing = vec![protocol::AH, 2, 0, 0, 0, 0, 0, 0];
    routing.extend([0x22; 16]);
    let packet = ipv6(protocol::HOP_BY_HOP, &[&hop_by_hop[..], &routing].concat());
    let covered = covered(&packet).unwrap();
    assert_eq!(covered[40..56], [protocol::ROUTING, 1, 0x3e, 3, 0, 0, 0, 0, 0x1e, 4, 5, 6, 7, 8, 1, 0]);
    assert_eq!(covered[56..80], routing);
}

#[test]
fn ah_goes_behind_hop_by_hop_and_routing_and_before_options_for_the_destination() {
    let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    let hop_by_hop = ipv6(protocol::HOP_BY_HOP, &options(protocol::UDP));
    assert_eq!(Place::for_transport(&hop_by_hop).unwrap().at, 48);
    let destination = ipv6(protocol::DESTINATION_OPTIONS, &options(protocol::UDP));
    assert_eq!(Place::for_transport(&destination).unwrap().at, 40);
    let mut routing = options(protocol::DESTINATION_OPTIONS);
    routing[3] = 0;
    let chain = [options(protocol::ROUTING), routing, options(protocol::UDP)].concat();
    assert_eq!(Place::for_transport(&ipv6(protocol::DESTINATION_OPTIONS, &chain)).unwrap().at, 56);
    let mut unfinished = chain;
    unfinished[8 + SEGMENTS_LEFT_AT] = 1;
    assert_eq!(Place::for_transport(&ipv6(protocol::DESTINATION_OPTIONS, &unfinished)), None);
}

#[test]
fn padding_fills_words_of_the_family_and_counts() {
    let lens = [12, 16, 24, 32].map(|icv_len| (header_len(icv_len, false), header_len(icv_len, true)));
    assert_eq!(lens, [(24, 24), (28, 32), (36, 40), (44, 48)]);
    let mut packet = ipv6(protocol::AH, &[]);
    let place = Place::find(&packet).unwrap();
    assert!(place.allows(&packet, ICV_LEN));
    packet[41] += 1;
    assert!(!place.allows(&packet, ICV_LEN), "more padding than needed");
    packet[41] -= 1;
    assert!(!place.allows(&packet[..71], ICV_LEN), "cut off");
    assert_eq!(place.spi_and_sequence(&packet), Some((0x100, 5)));
}

/// R4302-3.4.1-1.
#[test]
fn fragments_and_packets_without_ah_are_none() {
    for (at, value) in [(6, 0x20), (7, 1), (9, 50)] {
        let mut packet = ipv4(&[]);
        packet[at] = value;
        assert_eq!(Place::find(&packet), None);
    }
    let fragment = [protocol::AH, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(Place::find(&ipv6(protocol::FRAGMENT, &fragment)), None);
    let endless = [protocol::DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0].repeat(20);
    assert_eq!(Place::find(&ipv6(protocol::DESTINATION_OPTIONS, &endless)), None);
}

#[test]
fn what_was_written_is_removed_again() {
    let options = [148, 4, 0, 0];
    for (plain, len) in [(ipv4(&options), 28), (ipv6(protocol::HOP_BY_HOP, &[protocol::AH, 0, 1, 4, 0, 0, 0, 0]), 32)] {
        // A packet of AH within a packet of AH, which is allowed, so that any packet does here.
        let mut plain = plain;
        let place = Place::for_transport(&plain).unwrap();
        renew_lengths(&mut plain, place).unwrap();
        let mut packet = [&plain[..place.at], &vec![0x99; len], &plain[place.at..]].concat();
        place.write(&mut packet, len, [0, 0, 1, 2], 0x1_0000_0007).unwrap();
        assert_eq!(packet[place.at..place.at + 12], [protocol::AH, (len / 4 - 2) as u8, 0, 0, 0, 0, 1, 2, 0, 0, 0, 7]);
        let found = Place::find(&packet).unwrap();
        assert_eq!(found, place);
        assert!(found.allows(&packet, ICV_LEN));
        found.remove(&mut packet, len).unwrap();
        assert_eq!(packet[len..], plain);
    }
}

#[test]
fn an_identification_of_zero_is_replaced_before_the_kernel_does() {
    let mut packet = ipv4(&[]);
    packet[4..6].fill(0);
    let place = Place::find(&packet).unwrap();
    place.write(&mut packet, 28, [0, 0, 1, 2], 0x1_0000).unwrap();
    assert_ne!(packet[4..6], [0, 0]);
}
