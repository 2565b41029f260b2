//! Policies, in the workers and with their routes in the kernel.

use espdp_api::{Done, Outcome, PolicyId, PolicySpec, Refusal, WorkerId};

use super::book::Policy;
use super::{Control, refusal};

impl Control {
    /// The policy goes first: what its routes lead into the interface is then protected from the first packet on.
    pub(super) async fn set_policy(&mut self, spec: PolicySpec) -> Outcome {
        if !self.book.interfaces.contains_key(&spec.interface) {
            return Err(Refusal::UnknownInterface(spec.interface));
        }
        let sources = self.sources(&spec).await.map_err(refusal)?;
        let (id, for_core) = (spec.id, spec.clone());
        self.in_cores(move |core| core.set_policy(&for_core)).await?;
        let old = self.book.policies.get(&id);
        if old.is_none() {
            self.find_home(id);
        }
        let worker = old.map(|old| old.worker).unwrap_or_default();
        let old = self.book.policies.insert(id, Policy { spec, sources, worker });
        let Err(error) = self.apply().await else {
            self.links.look();
            self.guard_policies(old.as_ref().map(|old| &old.spec), id).await;
            return Ok(Done::Ok);
        };
        let undone = match old {
            Some(old) => {
                let for_core = old.spec.clone();
                self.book.policies.insert(id, old);
                self.in_cores(move |core| core.set_policy(&for_core)).await
            }
            None => {
                self.book.policies.remove(&id);
                self.in_cores(move |core| core.remove_policy(id)).await
            }
        };
        self.note_failure("undo a policy", undone.map(drop).err().map(|refusal| refusal.to_string()));
        let restored = self.apply().await;
        self.note_failure("undo a policy's routes", restored.err().map(|error| error.to_string()));
        Err(refusal(error))
    }

    pub(super) async fn remove_policy(&mut self, id: PolicyId) -> Outcome {
        self.in_cores(move |core| core.remove_policy(id)).await?;
        let removed = self.book.policies.remove(&id);
        self.book.outbound.retain(|(policy, _), _| *policy != id);
        self.links.look();
        self.apply().await.map_err(refusal)?;
        self.guard_policies(removed.as_ref().map(|removed| &removed.spec), id).await;
        self.refresh_mtus().await;
        Ok(Done::Ok)
    }

    /// Packets of a policy without an SA wait at the first worker, so that they ask for one only there.
    fn find_home(&self, policy: PolicyId) {
        for worker in self.settings.workers.ids().filter(|worker| *worker != WorkerId::FIRST) {
            self.mailboxes.post(worker, move |worker| {
                if let Err(refusal) = worker.core.set_home(policy, WorkerId::FIRST) {
                    tracing::debug!(%refusal, "a policy is gone before it had a home");
                }
            });
        }
    }
}
