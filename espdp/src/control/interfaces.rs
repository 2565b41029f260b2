//! Interfaces: in the workers, their devices and sockets, and their links in the kernel.

use std::collections::BTreeSet;

use espdp_api::{Done, InterfaceName, InterfaceSpec, Outcome, Refusal, WorkerId};
use espdp_core::InterfaceId;

use super::book::Interface;
use super::devices::DeviceSource;
use super::{Control, refusal, system};
use crate::StartError;
use crate::io::device::Device;
use crate::worker::{TunnelPortId, Worker};

impl Control {
    pub(super) async fn make_interface(&mut self, spec: InterfaceSpec) -> Outcome {
        let devices = self.open_device(&spec);
        // A namespace that was entered for it is let go of when nothing is in it.
        let devices = devices.inspect_err(|_| self.namespaces.keep(&self.book.namespaces()))?;
        let name = spec.name.clone();
        let made = match self.tell_core(&spec).await {
            Ok(id) => {
                self.book.interfaces.insert(name.clone(), Interface::new(spec.clone(), id));
                let served = self.put_into_service(id, devices).await;
                if served.is_ok() {
                    self.serve_link(id, &spec).await;
                }
                served
            }
            Err(refusal) => Err(refusal),
        };
        if made.is_err() {
            self.forget_interface(&name);
            self.remove_devices_of(&name).await;
            let closed = self.serve_tunnels().await;
            self.note_failure("undo an interface", closed.err().map(|refusal| refusal.to_string()));
        }
        self.refresh_routed_paths().await;
        made.map(|()| Done::Ok)
    }

    /// Takes an interface that could not be made out of the workers, as far as it is there.
    async fn remove_devices_of(&self, name: &InterfaceName) {
        let name = name.clone();
        let undone = self.ask_all(move |worker| {
            if let Ok(id) = worker.core.remove_interface(&name) {
                worker.remove_device(id);
            }
        });
        self.note_failure("undo an interface", undone.await.err().map(|refusal| refusal.to_string()));
    }

    /// Does what an interface needs outside of the core: links, routes, sockets, its device.
    async fn put_into_service(&mut self, id: InterfaceId, devices: Vec<Device>) -> Result<(), Refusal> {
        self.serve_tunnels().await?;
        self.apply().await.map_err(refusal)?;
        self.serve_device(id, devices).await
    }

    /// Opens the sockets that interfaces need whose tunnels are in clear, and closes those that none needs any more.
    async fn serve_tunnels(&mut self) -> Result<(), Refusal> {
        let wanted: BTreeSet<_> = self.book.interfaces.values().flat_map(|own| TunnelPortId::of(&own.spec)).collect();
        if wanted == self.tunnel_ports {
            return Ok(());
        }
        let open = |id: &TunnelPortId| match id.open() {
            Ok(port) => Ok((*id, port)),
            Err(StartError::System { operation, source }) => Err(system(operation, &source)),
            Err(error) => Err(system("open a socket for a tunnel", &error)),
        };
        let opened = wanted.difference(&self.tunnel_ports).map(open).collect::<Result<Vec<_>, _>>()?;
        let serve = move |worker: &mut Worker| (worker.set_tunnel_ports(&wanted, opened), worker.tunnel_ports());
        let (served, open) = self.ask(WorkerId::FIRST, serve).await?;
        self.tunnel_ports = open;
        served.map_err(|error| system("serve a socket for a tunnel", &error))
    }

    /// Hands the device of an interface to the workers: the first one, or to each its queue.
    pub(super) async fn serve_device(&self, id: InterfaceId, devices: Vec<Device>) -> Result<(), Refusal> {
        for (worker, device) in self.settings.workers.ids().zip(devices) {
            let added = self.ask(worker, move |worker| worker.add_device(id, device)).await?;
            added.map_err(|error| system("serve a device", &error))?;
        }
        Ok(())
    }

    /// Closes the device of an interface.
    pub(super) async fn close_device(&self, id: InterfaceId) -> Result<(), Refusal> {
        self.ask_all(move |worker| worker.remove_device(id)).await.map(drop)
    }

    pub(super) async fn change_interface(&mut self, spec: InterfaceSpec) -> Outcome {
        let Some(old) = self.book.interfaces.get(&spec.name).cloned() else {
            return Err(Refusal::UnknownInterface(spec.name));
        };
        let mut new = old.clone();
        new.change(spec);
        if let Err(refused) = self.tell_core(&new.spec).await {
            // What the core took before it refused goes back; device and links were not touched.
            let restored = self.tell_core(&old.spec).await;
            self.note_failure("undo a change of an interface", restored.err().map(|error| error.to_string()));
            return Err(refused);
        }
        if let Err(refused) = self.take_over(&old, &new).await {
            let told = self.tell_core(&old.spec).await.map(drop);
            let restored = match told {
                Ok(()) => self.take_over(&new, &old).await,
                Err(refusal) => Err(refusal),
            };
            self.note_failure("undo a change of an interface", restored.err().map(|error| error.to_string()));
            self.namespaces.keep(&self.book.namespaces());
            return Err(refused);
        }
        self.namespaces.keep(&self.book.namespaces());
        self.refresh_routed_paths().await;
        Ok(Done::Ok)
    }

    /// Makes of an interface that the core knows what `new` says; another device than before takes the place of the old one.
    async fn take_over(&mut self, old: &Interface, new: &Interface) -> Result<(), Refusal> {
        let (name, id) = (new.spec.name.clone(), new.id);
        let mut devices = Vec::new();
        if DeviceSource::of(&new.spec) != DeviceSource::of(&old.spec) || new.spec.netns != old.spec.netns {
            self.close_device(id).await?;
            self.forget_link(&old.spec);
            devices = self.open_device(&new.spec)?;
        }
        self.book.interfaces.insert(name, new.clone());
        self.put_into_service(id, devices).await?;
        self.serve_link(id, &new.spec).await;
        Ok(())
    }

    /// Opens the device of an interface, in its namespace if it has one.
    pub(super) fn open_device(&mut self, spec: &InterfaceSpec) -> Result<Vec<Device>, Refusal> {
        let (source, name, workers) = (DeviceSource::of(spec), spec.name.clone(), self.settings.workers);
        let opened = match &spec.netns {
            None => source.open(&name, workers),
            Some(netns) => {
                let opened = self.namespaces.enter(netns)?.run(move || source.open(&name, workers));
                opened.map_err(|error| system(format!("enter the network namespace {netns}"), &error))?
            }
        };
        opened.map_err(|error| system(error.operation(), &error.source))
    }

    /// Forgets a link whose device is closed.
    pub(super) fn forget_link(&mut self, spec: &InterfaceSpec) {
        match &spec.netns {
            None => self.actual.forget_link(&spec.name),
            Some(netns) => self.namespaces.forget_link(netns, &spec.name),
        }
    }

    /// Takes an interface out of the book, and lets go of its namespace if it was the last one there.
    fn forget_interface(&mut self, name: &InterfaceName) {
        if let Some(gone) = self.book.interfaces.remove(name) {
            self.forget_link(&gone.spec);
        }
        self.namespaces.keep(&self.book.namespaces());
    }

    /// Tells the cores the kind of an interface, its tunnel, and its place in a bridge domain. All of them give it the same id, since
    /// they know the same interfaces.
    async fn tell_core(&self, spec: &InterfaceSpec) -> Result<InterfaceId, Refusal> {
        let mut agreed = None;
        for worker in self.settings.workers.ids() {
            let told = spec.clone();
            let tell = move |worker: &mut Worker| {
                let id = worker.core.apply_interface(&told)?;
                worker.core.set_bridge_port(&told.name, told.bridge.as_ref())?;
                Ok(id)
            };
            let id = self.ask(worker, tell).await??;
            if *agreed.get_or_insert(id) != id {
                let other = std::io::Error::other(format!("worker {} gives it another number", worker.0));
                return Err(system(format!("make interface {}", spec.name), &other));
            }
        }
        agreed.ok_or_else(|| Refusal::UnknownInterface(spec.name.clone()))
    }

    pub(super) async fn remove_interface(&mut self, name: &InterfaceName) -> Outcome {
        let mut id = None;
        for worker in self.settings.workers.ids() {
            let name = name.clone();
            id = Some(self.ask(worker, move |worker| worker.core.remove_interface(&name)).await??);
        }
        let spec = self.book.interfaces.remove(name).map(|gone| gone.spec);
        let withdrawn = self.apply().await;
        spec.iter().for_each(|spec| self.forget_link(spec));
        self.namespaces.keep(&self.book.namespaces());
        if let Some(id) = id {
            self.close_device(id).await?;
            self.drop_link(id).await;
        }
        self.serve_tunnels().await?;
        withdrawn.map_err(refusal)?;
        Ok(Done::Ok)
    }
}
