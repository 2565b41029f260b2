//! Which device an interface needs, and how it is opened.

use espdp_api::{InterfaceKind, InterfaceName, InterfaceSpec, Layer, MacAddress, Workers};

use crate::io::device::{Device, DeviceError};
use crate::io::host::HostPort;
use crate::io::memory::MemoryPort;
use crate::io::tun::Tun;

/// The device behind an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceSource {
    /// A TUN or TAP device that we make: a link of the kernel that vanishes when we close it.
    Made(Layer, Option<MacAddress>),
    /// The same, for IP packets that nothing but SAs carries: each worker has a queue of it.
    Shared,
    /// A link that exists without us.
    Host,
    /// An end of a link within the process.
    Memory(u32),
    /// None: a tunnel that leads into a bridge domain.
    Nothing,
}

impl DeviceSource {
    /// What an interface needs.
    pub(crate) fn of(spec: &InterfaceSpec) -> Self {
        match spec.kind {
            InterfaceKind::Host => Self::Host,
            InterfaceKind::Memory { link } => Self::Memory(link),
            InterfaceKind::Tap => Self::Made(Layer::Ethernet, spec.mac),
            InterfaceKind::Ipsec => Self::Shared,
            InterfaceKind::Ipip | InterfaceKind::Gre(_) | InterfaceKind::Vxlan(_) | InterfaceKind::L2tpv3(_) => {
                match spec.kind.layer() {
                    Layer::Ip => Self::Made(Layer::Ip, None),
                    Layer::Ethernet if spec.bridge.is_some() => Self::Nothing,
                    Layer::Ethernet => Self::Made(Layer::Ethernet, spec.mac),
                }
            }
        }
    }

    /// Whether there is a link of the kernel that is ours to set up.
    pub(crate) fn is_made(self) -> bool {
        matches!(self, Self::Made(..) | Self::Shared)
    }

    /// Opens the device, for as many of the workers as can have it, the first one first.
    pub(crate) fn open(self, name: &InterfaceName, workers: Workers) -> Result<Vec<Device>, DeviceError> {
        Ok(match self {
            Self::Shared if workers != Workers::ONE => {
                Tun::create_queues(name, workers.count())?.into_iter().map(Device::Tun).collect()
            }
            Self::Shared => vec![Device::Tun(Tun::create(name, Layer::Ip, None)?)],
            Self::Made(layer, mac) => vec![Device::Tun(Tun::create(name, layer, mac)?)],
            Self::Host => vec![Device::Host(HostPort::open(name)?)],
            Self::Memory(link) => vec![Device::Memory(MemoryPort::open(name, link)?)],
            Self::Nothing => Vec::new(),
        })
    }

    /// Whether all workers have the device.
    pub(crate) fn is_shared(self) -> bool {
        self == Self::Shared
    }
}

#[cfg(test)]
mod tests {
    use espdp_api::{BridgeName, BridgePort, Gre};

    use super::*;

    #[test]
    fn only_tunnels_of_frames_into_a_bridge_domain_have_no_device() {
        let gre = |layer| InterfaceKind::Gre(Gre { layer, ..Gre::default() });
        let source = |kind, is_bridged: bool| {
            let mut spec = InterfaceSpec::new(InterfaceName::new("if0").unwrap(), kind);
            let bridge = BridgeName::new("lan").unwrap();
            spec.bridge = is_bridged.then_some(BridgePort { bridge, split_horizon: 0 });
            DeviceSource::of(&spec)
        };
        for is_bridged in [false, true] {
            assert_eq!(source(InterfaceKind::Ipsec, is_bridged), DeviceSource::Shared);
            assert_eq!(source(gre(Layer::Ip), is_bridged), DeviceSource::Made(Layer::Ip, None));
            assert_eq!(source(InterfaceKind::Tap, is_bridged), DeviceSource::Made(Layer::Ethernet, None));
            assert_eq!(source(InterfaceKind::Host, is_bridged), DeviceSource::Host);
            assert_eq!(source(InterfaceKind::Memory { link: 3 }, is_bridged), DeviceSource::Memory(3));
        }
        assert_eq!(source(gre(Layer::Ethernet), false), DeviceSource::Made(Layer::Ethernet, None));
        assert_eq!(source(gre(Layer::Ethernet), true), DeviceSource::Nothing);
    }
}
