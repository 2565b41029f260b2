//! Policies, in the workers and with their routes in the kernel.

use espdp_api::{Done, Outcome, PolicyId, PolicySpec, Refusal, WorkerId};

use espdp_core::Dataplane;

use super::book::Policy;
use super::{Control, refusal};

impl Control {
    /// The policy goes first: what its routes lead into the interface is then protected from the first packet on.
    pub(super) async fn set_policy(&mut self, spec: PolicySpec) -> Outcome {
        if !self.book.interfaces.contains_key(&spec.interface) {
            return Err(Refusal::UnknownInterface(spec.interface));
        }
        let sources = self.sources(&spec).await.map_err(refusal)?;
        let id = spec.id;
        let old = self.book.policies.get(&id);
        self.tell_policy(&spec, old.is_none()).await?;
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

    /// Tells all workers a policy. Packets of a new one, which has no SA, are the first worker's, so that they ask for one only there.
    async fn tell_policy(&self, spec: &PolicySpec, is_new: bool) -> Outcome {
        for worker in self.settings.workers.ids() {
            let spec = spec.clone();
            let tell = move |core: &mut Dataplane| {
                core.set_policy(&spec)?;
                if is_new && worker != WorkerId::FIRST { core.set_home(spec.id, WorkerId::FIRST) } else { Ok(()) }
            };
            self.in_core(worker, tell).await?;
        }
        Ok(Done::Ok)
    }
}
