//! Which SA carries a policy's packets, as workers tell each other.

use espdp_api::{Carries, EspSpi, PolicyId, WorkerId};

use super::Worker;

/// An SA that was activated, and who has it. Workers agree when all of them are told of activations in the same order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Active {
    pub(crate) policy: PolicyId,
    pub(crate) spi: EspSpi,
    pub(crate) home: WorkerId,
    pub(crate) carries: Carries,
}

impl Active {
    /// Has this worker act on it.
    pub(crate) fn tell(self, here: &mut Worker) {
        let Self { policy, spi, home, carries } = self;
        let told = if home == here.id() {
            here.core.activate(policy, spi).map(drop)
        } else if carries == Carries::All {
            here.core.set_home(policy, home)
        } else {
            Ok(())
        };
        if let Err(refusal) = told {
            tracing::debug!(%refusal, "a policy or its SA is gone before that was active everywhere");
        }
    }
}
