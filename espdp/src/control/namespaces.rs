//! The network namespaces that the insides of interfaces are in.
//!
//! A device is made right in its namespace, and addresses and routes are set over a netlink connection of that namespace. Both keep
//! the namespace alive: when its name is deleted, the interface goes on until it is removed. A namespace that gets the name
//! afterwards is another one, and is refused while interfaces are in the old one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use espdp_api::Refusal;
use tunnels::{Netlink, NetlinkError, NetworkState};

use super::system;
use crate::io::namespace::Namespace;

/// All namespaces in use, by name.
#[derive(Debug, Default)]
pub(super) struct Namespaces(BTreeMap<String, Inside>);

/// A namespace.
#[derive(Debug)]
struct Inside {
    namespace: Namespace,
    netlink: Netlink,
    /// What we have put into it.
    actual: NetworkState,
}

impl Namespaces {
    /// The namespace `name`, which is kept from now on.
    ///
    /// # Errors
    /// [`Refusal::System`] when there is none, or when interfaces are in another one that had the name before.
    pub(super) fn enter(&mut self, name: &str) -> Result<Namespace, Refusal> {
        let failed = |error: io::Error| system(format!("enter the network namespace {name}"), &error);
        let now = Namespace::open(name).map_err(failed)?;
        if let Some(inside) = self.0.get(name) {
            if inside.namespace.is_same(&now).map_err(failed)? {
                return Ok(inside.namespace.clone());
            }
            return Err(failed(io::Error::other(
                "interfaces are in another one that had this name; remove them first",
            )));
        }
        let runtime = tokio::runtime::Handle::current();
        let open = move || {
            let _inside = runtime.enter();
            Netlink::open()
        };
        let netlink = now.run(open).map_err(failed)?;
        let netlink = netlink.map_err(|error| system(error.operation, &error.source))?;
        self.0.insert(name.to_owned(), Inside { namespace: now.clone(), netlink, actual: NetworkState::default() });
        Ok(now)
    }

    /// The netlink connection of a namespace.
    pub(super) fn netlink(&self, name: &str) -> Option<&Netlink> {
        self.0.get(name).map(|inside| &inside.netlink)
    }

    /// Notes that a link of ours has gone from a namespace.
    pub(super) fn forget_link(&mut self, name: &str, link: &espdp_api::InterfaceName) {
        if let Some(inside) = self.0.get_mut(name) {
            inside.actual.forget_link(link);
        }
    }

    /// Leads each namespace to what `desired` says about it.
    ///
    /// # Errors
    /// [`NetlinkError`] of the first step that a kernel refuses.
    pub(super) async fn apply(&mut self, desired: impl Fn(&str) -> NetworkState) -> Result<(), NetlinkError> {
        for (name, inside) in &mut self.0 {
            inside.netlink.apply(&mut inside.actual, &desired(name)).await?;
        }
        Ok(())
    }

    /// Lets go of the namespaces that are not in `used`.
    pub(super) fn keep(&mut self, used: &BTreeSet<&str>) {
        self.0.retain(|name, _| used.contains(name.as_str()));
    }
}
