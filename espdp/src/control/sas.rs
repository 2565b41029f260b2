//! SPIs and SAs: which worker has them, and what follows from them.

use espdp_api::{
    Direction, Done, EspSpi, InboundSaSpec, OutboundSaSpec, Outcome, OuterPath, PolicyId, Refusal, SpiWish, WorkerId,
    Workers,
};
use tokio::sync::oneshot;

use super::book::{Interface, Outbound};
use super::{Control, gone, system};
use crate::worker::{Active, Pass, Worker, WorkerGone};

impl Control {
    pub(super) async fn reserve_spi(&mut self, wish: &SpiWish) -> Outcome {
        let random = getrandom::u32().map_err(|error| system("get random octets", &error))?;
        let worker = self.place(wish);
        let random = self.settings.workers.mark(random, worker);
        let spi = self.ask(worker, move |worker| worker.core.reserve_spi(random)).await??;
        Ok(Done::Spi(spi))
    }

    /// Which worker gets an SA: that of the SA it replaces, the one that was asked for, or the next one in turn. Only the first one
    /// has the devices and bridge domains of other interfaces than those for ESP alone, and the links beside devices.
    fn place(&mut self, wish: &SpiWish) -> WorkerId {
        let workers = self.settings.workers;
        if !self.book.interfaces.get(&wish.interface).is_some_and(Interface::is_shared) {
            return WorkerId::FIRST;
        }
        let replaced = wish.replaces.map(|spi| workers.of_spi(spi.value()));
        let asked = wish.worker.filter(|worker| worker.0 < workers.count());
        replaced.or(asked).unwrap_or_else(|| {
            // Downwards, so that the first one, which has IKE to do as well, is the last to get one.
            let last = workers.count().saturating_sub(1);
            self.last_chosen = self.last_chosen.0.checked_sub(1).map_or(WorkerId(last), WorkerId);
            self.last_chosen
        })
    }

    /// The worker that has the SA of an inbound SPI.
    fn worker_of(&self, spi: EspSpi) -> WorkerId {
        self.settings.workers.of_spi(spi.value())
    }

    pub(super) async fn install_inbound(&mut self, spec: Box<InboundSaSpec>) -> Outcome {
        let (spi, id) = (spec.sa.spi, spec.sa.policy);
        let worker = self.worker_of(spi);
        let own = self.book.policies.get(&id).and_then(|own| self.book.interfaces.get(&own.spec.interface));
        if worker != WorkerId::FIRST && own.is_some_and(|own| !own.is_served_by_all()) {
            return Err(Refusal::BadSa(format!(
                "SPI {spi} belongs to worker {}, and the first one has all SAs of such an interface: take an SPI whose bits 16 to \
                 19 are zero",
                worker.0
            )));
        }
        self.in_core(worker, move |core| core.install_inbound(&spec)).await?;
        if let Some(policy) = self.book.policies.get_mut(&id) {
            policy.worker = worker;
        }
        Ok(Done::Ok)
    }

    pub(super) async fn install_outbound(&mut self, spec: Box<OutboundSaSpec>) -> Outcome {
        let (policy, spi) = (spec.sa.policy, spec.sa.spi);
        let latest = self.book.policies.get(&policy).map(|own| own.worker).unwrap_or_default();
        let worker = spec.inbound.map_or(latest, |inbound| self.worker_of(inbound));
        if self.book.outbound.get(&(policy, spi)).is_some_and(|other| other.worker != worker) {
            return Err(Refusal::BadSa(format!("the policy has an outbound SA with SPI {spi} already")));
        }
        let outbound = Outbound::new(&spec, worker);
        self.in_core(worker, move |core| core.install_outbound(&spec)).await?;
        self.book.outbound.insert((policy, spi), outbound);
        self.tell_peers(policy);
        self.refresh_path(outbound.path.remote).await;
        Ok(Done::Ok)
    }

    pub(super) async fn activate(&mut self, policy: PolicyId, spi: EspSpi) -> Outcome {
        let worker = self.worker_of_outbound(policy, spi);
        let carries = self.ask(worker, move |worker| worker.core.activate(policy, spi)).await??;
        let (told, all_told) = oneshot::channel();
        let active = Active { policy, spi, home: worker, carries };
        self.mailboxes.pass_on(Agreement { active, told });
        all_told.await.map_err(|_| gone(WorkerGone))?;
        Ok(Done::Ok)
    }

    /// The worker that has an outbound SA; the first one knows of no others.
    fn worker_of_outbound(&self, policy: PolicyId, spi: EspSpi) -> WorkerId {
        self.book.outbound.get(&(policy, spi)).map(|sa| sa.worker).unwrap_or_default()
    }

    fn worker_of_half(&self, direction: Direction, policy: PolicyId, spi: EspSpi) -> WorkerId {
        match direction {
            Direction::Inbound => self.worker_of(spi),
            Direction::Outbound => self.worker_of_outbound(policy, spi),
        }
    }

    pub(super) async fn remove_sa(&mut self, direction: Direction, spi: EspSpi, policy: PolicyId) -> Outcome {
        let worker = self.worker_of_half(direction, policy, spi);
        let now = std::time::Instant::now();
        let statistics = self.ask(worker, move |worker| worker.core.remove_sa(direction, spi, policy, now)).await??;
        if direction == Direction::Outbound {
            self.book.outbound.remove(&(policy, spi));
            self.tell_peers(policy);
            self.refresh_mtus().await;
        }
        Ok(Done::Removed(Box::new(statistics)))
    }

    pub(super) async fn move_sa(
        &mut self,
        direction: Direction,
        spi: EspSpi,
        policy: PolicyId,
        path: OuterPath,
    ) -> Outcome {
        let worker = self.worker_of_half(direction, policy, spi);
        self.in_core(worker, move |core| core.move_sa(direction, spi, policy, path)).await?;
        if let (Direction::Outbound, Some(sa)) = (direction, self.book.outbound.get_mut(&(policy, spi))) {
            sa.move_to(path);
            self.tell_peers(policy);
            self.refresh_path(path.remote).await;
        }
        Ok(Done::Ok)
    }

    /// Tells each worker which peers a policy has that only the SAs of others know.
    fn tell_peers(&self, policy: PolicyId) {
        if self.settings.workers == Workers::ONE {
            return;
        }
        for worker in self.settings.workers.ids() {
            let peers = self.book.peers_elsewhere(policy, worker);
            self.mailboxes.post(worker, move |worker| {
                if let Err(refusal) = worker.core.set_peers_elsewhere(policy, peers) {
                    tracing::debug!(%refusal, "a policy is gone before its peers were known everywhere");
                }
            });
        }
    }
}

/// What all workers are told of an activation, in the same order as of those that went past this thread.
struct Agreement {
    active: Active,
    told: oneshot::Sender<()>,
}

impl Pass for Agreement {
    fn visit(self, here: &mut Worker) -> Option<Self> {
        self.active.tell(here);
        if here.id() != WorkerId::FIRST {
            return Some(self);
        }
        if self.told.send(()).is_err() {
            tracing::trace!("the control thread has ended");
        }
        None
    }
}
