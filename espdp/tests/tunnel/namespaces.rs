//! Interfaces whose inside is in another network namespace.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use espdp_api::*;

use crate::gateway::{Gateway, connect};
use crate::traffic::{ping, tcp_transfer};
use crate::world::{Namespace, World, may_run};
use crate::{LEFT, NAT_T, RIGHT, gcm};

/// A name of a namespace where `ip netns` has them; gone when dropped.
struct Name(PathBuf);

impl Name {
    fn new(text: &str) -> (Self, Namespace) {
        let (path, namespace) = (PathBuf::from("/run/netns").join(text), Namespace::new());
        fs::create_dir_all("/run/netns").unwrap();
        symlink(namespace.path(), &path).unwrap();
        (Self(path), namespace)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

fn interface(netns: Option<&str>, addresses: &[&str]) -> Command {
    Command::SetInterface(Box::new(InterfaceSpec {
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        netns: netns.map(str::to_owned),
        ..InterfaceSpec::new(InterfaceName::new(crate::gateway::INTERFACE).unwrap(), InterfaceKind::Ipsec)
    }))
}

/// The tunnel's outside is in the gateway's namespace, its inside where it was told to be, with addresses and routes there and
/// nothing of it here; and it goes on when the name of the namespace is deleted.
#[test]
fn the_inside_of_an_interface_is_in_the_namespace_that_it_names() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let text = format!("espdp-test-{}", std::process::id());
    let (name, inside) = Name::new(&text);
    let (mut left, mut right) = (Gateway::start(&world.left), Gateway::start(&world.right));
    left.command(interface(Some(&text), &["10.1.0.1/24", "fd01::1/128"]));
    left.policy(&LEFT, &RIGHT, &RIGHT);
    right.interface(InterfaceKind::Ipsec, &["10.2.0.1/24", "fd02::1/128"]);
    right.policy(&RIGHT, &LEFT, &LEFT);
    connect(&mut left, &mut right, gcm(NAT_T, "192.0.2.1", "192.0.2.2"), &LEFT, &RIGHT);
    ping(&inside, "10.2.0.1", 64);
    ping(&world.right, "fd01::1", 1000);
    tcp_transfer(&inside, &world.right, "10.2.0.1", 4 << 20);
    let links = world.left.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    assert!(!links.contains(crate::gateway::INTERFACE), "{links}");
    world.left.run(crate::gateway::assert_no_rules);

    drop(name);
    ping(&inside, "10.2.0.1", 64);
    // Another namespace with that name is not mistaken for it.
    let (name, _other) = Name::new(&text);
    left.command(Command::RemovePolicy(crate::gateway::POLICY));
    left.command(Command::RemoveInterface(InterfaceName::new(crate::gateway::INTERFACE).unwrap()));
    left.command(interface(Some(&text), &["10.1.0.1/24"]));
    assert!(!inside.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap()).contains("ipsec0"));
    drop(name);
    left.stop();
    right.stop();
}

#[test]
fn a_namespace_that_there_is_not_is_refused() {
    if !may_run() {
        return;
    }
    let world = World::new();
    let mut left = Gateway::start(&world.left);
    for name in ["no-such-namespace", "../netns", ""] {
        let refused = left.outcome(interface(Some(name), &[])).unwrap_err();
        assert!(refused.to_string().contains("enter the network namespace"), "{refused}");
    }
    left.command(interface(None, &[]));
    left.stop();
}
