//! Two network namespaces joined by a veth pair, made without any tool.
//!
//! ```text
//!   left                                        right
//!   192.0.2.1/24      wire ─────────── wire     192.0.2.2/24
//!   2001:db8::1/64                              2001:db8::2/64
//! ```
#![expect(unsafe_code, reason = "unshare(2) and ethtool's ioctl have no safe form")]

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread;

use espdp_api::IpPrefix;
use rtnetlink::{LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder};
use rustix::fs::{FileType, Mode, mknodat};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A network namespace; it ends with the last handle.
#[derive(Clone)]
pub(crate) struct Namespace(Arc<File>);

impl Namespace {
    /// A new one, with nothing but a loopback device that is up.
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            // SAFETY: only the network of this thread changes, which nothing else depends on.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            Self(Arc::new(File::open("/proc/thread-self/ns/net").unwrap()))
        });
        let namespace = made.join().unwrap();
        namespace.run(|| {
            with_netlink(async |netlink| {
                let loopback = LinkUnspec::new_with_index(1).up().build();
                netlink.link().change(loopback).execute().await.unwrap();
            });
        });
        namespace
    }

    /// Where the kernel shows it, for as long as this handle exists.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Starts a thread in the namespace.
    pub(crate) fn spawn<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let namespace = Arc::clone(&self.0);
        thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            body()
        })
    }

    /// Runs `body` in the namespace.
    pub(crate) fn run<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(body).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The two namespaces.
pub(crate) struct World {
    pub(crate) left: Namespace,
    pub(crate) right: Namespace,
}

/// The name of the outer interface on both sides.
pub(crate) const WIRE: &str = "wire";

impl World {
    /// Makes it.
    pub(crate) fn new() -> Self {
        make_tun_node();
        let (left, right) = (Namespace::new(), Namespace::new());
        join(&left, &right, WIRE);
        left.run(|| number(WIRE, "192.0.2.1/24", "2001:db8::1/64"));
        right.run(|| number(WIRE, "192.0.2.2/24", "2001:db8::2/64"));
        Self { left, right }
    }

    /// Deletes the wire and makes another one of the same name, without addresses.
    pub(crate) fn renew_wire(&self) {
        self.left.run(|| delete_link(WIRE));
        join(&self.left, &self.right, WIRE);
        self.left.run(|| set_link_down_and_up(WIRE));
        self.right.run(|| set_link_down_and_up(WIRE));
    }
}

/// Makes a host in a local network of `gateway`, whose addresses there are given as prefixes. The host has the next addresses, and
/// the gateway forwards for it.
pub(crate) fn make_host(gateway: &Namespace, v4: &'static str, v6: &'static str) -> Namespace {
    let host = Namespace::new();
    join(gateway, &host, "lan");
    gateway.run(move || {
        number("lan", v4, v6);
        for forwarding in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{forwarding}"), "1").unwrap();
        }
    });
    host.run(move || {
        let (v4, v6): (IpPrefix, IpPrefix) = (v4.parse().unwrap(), v6.parse().unwrap());
        let (IpAddr::V4(router4), IpAddr::V6(router6)) = (v4.address(), v6.address()) else {
            panic!("one address of each family expected")
        };
        let next4 = Ipv4Addr::from_bits(router4.to_bits() + 1);
        let next6 = Ipv6Addr::from_bits(router6.to_bits() + 1);
        number("lan", &format!("{next4}/{}", v4.bits()), &format!("{next6}/{}", v6.bits()));
        with_netlink(async |netlink| {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(router4).build();
            netlink.route().add(route).execute().await.unwrap();
            let route = RouteMessageBuilder::<Ipv6Addr>::new().gateway(router6).build();
            netlink.route().add(route).execute().await.unwrap();
        });
    });
    host
}

/// Adds a route over a gateway in the calling thread's namespace.
pub(crate) fn add_route(destination: &str, gateway: &str) {
    let prefix: IpPrefix = destination.parse().unwrap();
    let (IpAddr::V4(network), Ok(gateway)) = (prefix.address(), gateway.parse()) else { panic!("IPv4 expected") };
    let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(network, prefix.bits()).gateway(gateway);
    with_netlink(async |netlink| netlink.route().add(route.build()).execute().await.unwrap());
}

/// Makes a VXLAN device of the kernel in the calling thread's namespace.
pub(crate) fn make_kernel_vxlan(vni: u32, local: &str, remote: &str, v4: &str, v6: &str) {
    const NAME: &str = "kernel";
    let (local, remote): (IpAddr, IpAddr) = (local.parse().unwrap(), remote.parse().unwrap());
    with_netlink(async |netlink| {
        let vxlan = LinkVxlan::new(NAME, vni).port(4789);
        let vxlan = match (local, remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => vxlan.local(local).remote(remote),
            (IpAddr::V6(local), IpAddr::V6(remote)) => vxlan.local6(local).remote6(remote),
            _ => panic!("mixed families"),
        };
        netlink.link().add(vxlan.build()).execute().await.unwrap();
    });
    complete_checksums(NAME);
    number(NAME, v4, v6);
}

/// Has the kernel compute checksums before it hands packets to a link. Left to the hardware they would never be computed here: veth
/// pairs pass packets on as they are, inner checksums of tunnels included.
fn complete_checksums(link: &str) {
    /// `ETHTOOL_STXCSUM`, and `struct ethtool_value` with it.
    const SET_CHECKSUMS: u32 = 0x17;
    let mut value = [SET_CHECKSUMS, 0];
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: value.as_mut_ptr().cast() },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // SAFETY: the socket is open, and SIOCETHTOOL reads an `ifreq` whose data is an `ethtool_value`; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Runs something with an rtnetlink connection of the calling thread's namespace.
pub(crate) fn with_netlink<T>(body: impl AsyncFnOnce(rtnetlink::Handle) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        body(handle).await
    })
}

/// The index of a link.
pub(crate) async fn index(netlink: &rtnetlink::Handle, name: &str) -> u32 {
    use futures_util::TryStreamExt;
    let mut links = netlink.link().get().match_name(name).execute();
    links.try_next().await.unwrap().unwrap().header.index
}

/// Sets the MTU of the outer interface in the calling thread's namespace.
pub(crate) fn set_wire_mtu(mtu: u32) {
    with_netlink(async |netlink| {
        let wire = LinkUnspec::new_with_index(index(&netlink, WIRE).await).mtu(mtu).build();
        netlink.link().change(wire).execute().await.unwrap();
    });
}

/// Sets a link down and up again in the calling thread's namespace.
pub(crate) fn set_link_down_and_up(name: &str) {
    with_netlink(async |netlink| {
        let index = index(&netlink, name).await;
        netlink.link().change(LinkUnspec::new_with_index(index).down().build()).execute().await.unwrap();
        netlink.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
    });
}

/// Takes all addresses from a link in the calling thread's namespace.
pub(crate) fn flush_addresses(name: &str) {
    use futures_util::TryStreamExt;
    with_netlink(async |netlink| {
        let index = index(&netlink, name).await;
        let addresses = netlink.address().get().set_link_index_filter(index).execute();
        let addresses: Vec<_> = addresses.try_collect().await.unwrap();
        for address in addresses {
            netlink.address().del(address).execute().await.unwrap();
        }
    });
}

/// Deletes a link in the calling thread's namespace.
pub(crate) fn delete_link(name: &str) {
    with_netlink(async |netlink| {
        let index = index(&netlink, name).await;
        netlink.link().del(index).execute().await.unwrap();
    });
}

/// Whether this test can run. Without root it cannot, which in CI is a failure.
pub(crate) fn may_run() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "this test makes network namespaces: it needs root");
    println!("not run: this test makes network namespaces, which needs root");
    false
}

/// Makes a veth pair with one end in each namespace, both with the name `link`.
fn join(here: &Namespace, there: &Namespace, link: &'static str) {
    let other = Arc::clone(&there.0);
    here.run(move || {
        with_netlink(async |netlink| {
            let veth = LinkVeth::new(link, "other-end").build();
            netlink.link().add(veth).execute().await.unwrap();
            let moved = LinkUnspec::new_with_name("other-end").setns_by_fd(other.as_raw_fd()).build();
            netlink.link().change(moved).execute().await.unwrap();
        });
    });
    there.run(move || {
        with_netlink(async |netlink| {
            let index = index(&netlink, "other-end").await;
            let renamed = LinkUnspec::new_with_index(index).name(link.to_owned()).build();
            netlink.link().change(renamed).execute().await.unwrap();
        });
    });
}

/// Gives a link its addresses and sets it up.
fn number(link: &str, v4: &str, v6: &str) {
    let (v4, v6): (IpPrefix, IpPrefix) = (v4.parse().unwrap(), v6.parse().unwrap());
    with_netlink(async |netlink| {
        use rtnetlink::packet_route::address::AddressHeaderFlags;
        let index = index(&netlink, link).await;
        netlink.address().add(index, v4.address(), v4.bits()).execute().await.unwrap();
        let mut request = netlink.address().add(index, v6.address(), v6.bits());
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.unwrap();
        netlink.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
    });
}

/// Makes /dev/net/tun where a bare machine has none.
fn make_tun_node() {
    if std::fs::exists("/dev/net/tun").unwrap() {
        return;
    }
    std::fs::create_dir_all("/dev/net").unwrap();
    let device = rustix::fs::makedev(10, 200);
    match mknodat(rustix::fs::CWD, "/dev/net/tun", FileType::CharacterDevice, Mode::from_raw_mode(0o666), device) {
        // Another test was faster.
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => panic!("cannot make /dev/net/tun: {error}"),
    }
}
