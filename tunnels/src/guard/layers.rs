//! Sets whose elements do not overlap.
//!
//! The kernel looks an element of several fields up in a time that does not depend on how many there are, but takes no elements
//! that overlap. So flows are laid out in layers, each without overlaps. Tables of real gateways have one layer, or a few.

use std::collections::BTreeSet;

use super::flows::Flow;

/// Lays flows of one kind out. What another one covers is left out.
pub(super) fn layers(flows: &BTreeSet<Flow>) -> Vec<Vec<Flow>> {
    let mut layers: Vec<Vec<Flow>> = Vec::new();
    // By the start of the peer's addresses, the broad ones first. `open`: those that may still overlap what comes.
    let mut ordered: Vec<&Flow> = flows.iter().collect();
    ordered.sort_by_key(|flow| (flow.remote.start(), std::cmp::Reverse(flow.remote.end()), flow.local.start()));
    let mut open: Vec<(&Flow, usize)> = Vec::new();
    for flow in ordered {
        open.retain(|(other, _)| other.remote.end() >= flow.remote.start());
        if open.iter().any(|(other, _)| other.covers(flow)) {
            continue;
        }
        let taken: BTreeSet<usize> =
            open.iter().filter(|(other, _)| other.overlaps(flow)).map(|(_, layer)| *layer).collect();
        let layer = (0..layers.len()).find(|layer| !taken.contains(layer)).unwrap_or(layers.len());
        match layers.get_mut(layer) {
            Some(layer) => layer.push(*flow),
            None => layers.push(vec![*flow]),
        }
        open.push((flow, layer));
    }
    layers
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use espdp_api::AddressRange;
    use proptest::prelude::*;

    use super::super::flows::Ports;
    use super::*;

    fn flow() -> impl Strategy<Value = Flow> {
        let addresses = || {
            (0_u32..16, 0_u32..8).prop_map(|(start, more)| {
                let address = |last| IpAddr::V4(Ipv4Addr::from_bits(last));
                AddressRange::new(address(start), address(start + more)).unwrap()
            })
        };
        let ports = || (0_u16..8, 0_u16..4).prop_map(|(start, more)| (start, start + more));
        (addresses(), addresses(), ports(), ports()).prop_map(|(remote, local, own, other)| Flow {
            remote,
            local,
            protocol: (6, 6),
            ports: Ports::Pair { local: own, remote: other },
        })
    }

    proptest! {
        #[test]
        fn no_layer_overlaps_itself_and_nothing_is_lost(flows in proptest::collection::btree_set(flow(), 0..40)) {
            let layers = layers(&flows);
            for layer in &layers {
                for (at, one) in layer.iter().enumerate() {
                    prop_assert!(layer.iter().skip(at + 1).all(|other| !one.overlaps(other)));
                }
            }
            let laid: Vec<Flow> = layers.concat();
            prop_assert!(laid.iter().all(|flow| flows.contains(flow)));
            prop_assert!(flows.iter().all(|flow| laid.iter().any(|other| other.covers(flow))));
        }
    }

    #[test]
    fn ten_thousand_networks_are_one_layer() {
        let network = |at: u32| {
            let start = Ipv4Addr::from_bits(0x0a00_0000 + (at << 8));
            let end = Ipv4Addr::from_bits(start.to_bits() | 0xff);
            let remote = AddressRange::new(start.into(), end.into()).unwrap();
            let local = AddressRange::single(Ipv4Addr::new(192, 0, 2, 1).into());
            Flow { remote, local, protocol: (0, 255), ports: Ports::Any }
        };
        let layers = layers(&(0..10_000).map(network).collect());
        assert_eq!(layers.iter().map(Vec::len).collect::<Vec<_>>(), [10_000]);
    }
}
