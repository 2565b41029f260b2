//! Pools of virtual addresses.

use std::net::IpAddr;

use espdp_api::AddressRange;

use crate::wire::ConfigurationAttribute;

/// Virtual addresses for peers that ask for one (RFC 7296 §2.19), and what those peers are told along with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name, unique.
    pub name: String,
    /// What people know it by: the address of its network, or its first address.
    pub base: IpAddr,
    /// The addresses, of one family.
    pub addresses: AddressRange,
    /// What goes with each of them: servers, subnets, domains.
    pub attributes: Vec<ConfigurationAttribute>,
}

impl Pool {
    /// How many addresses it has; the most that a number holds for larger ones.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::try_from(last_offset(&self.addresses)).ok().and_then(|last| last.checked_add(1)).unwrap_or(u64::MAX)
    }

    /// Whether they have an address in common, which two peers would get then.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.addresses, &other.addresses);
        ours.contains(theirs.start()) || theirs.contains(ours.start())
    }
}

/// How far the last address of a range is from the first.
pub(crate) fn last_offset(range: &AddressRange) -> u128 {
    offset_in(range, range.end()).unwrap_or_default()
}

/// How far an address is from the first one of a range; `None` if it is not in it.
fn offset_in(range: &AddressRange, address: IpAddr) -> Option<u128> {
    use std::net::IpAddr::{V4, V6};
    let offset = match (range.start(), address) {
        (V4(start), V4(address)) => u128::from(address.to_bits().checked_sub(start.to_bits())?),
        (V6(start), V6(address)) => address.to_bits().checked_sub(start.to_bits())?,
        (V4(_), V6(_)) | (V6(_), V4(_)) => return None,
    };
    range.contains(address).then_some(offset)
}

/// The address so far from the first one of a range; `None` beyond its end.
pub(crate) fn address_at(range: &AddressRange, offset: u128) -> Option<IpAddr> {
    use std::net::IpAddr::{V4, V6};
    let address = match range.start() {
        V4(start) => V4(start.to_bits().checked_add(u32::try_from(offset).ok()?)?.into()),
        V6(start) => V6(start.to_bits().checked_add(offset)?.into()),
    };
    range.contains(address).then_some(address)
}
