//! What would become of a packet.

use espdp_api::{Done, InboundVerdict, OutboundFate, OutboundVerdict, Outcome, Question, Refusal, WhatIf, WorkerId};
use espdp_core::InterfaceId;

use super::Control;

impl Control {
    /// Asks the worker that would have the packet, and for what comes in all of them: each has SAs of its own.
    pub(super) async fn what_if(&self, question: Question) -> Outcome {
        let mut answer = WhatIf::default();
        let name = match &question.interface {
            Some(name) => Some(name),
            None => {
                // Without a route it is said that there is none.
                answer.link = self.netlink.link_to(question.destination).await.ok();
                self.book.interfaces.keys().find(|name| answer.link.as_deref() == Some(name.as_str()))
            }
        };
        if let Some(name) = name {
            let own = self.book.interfaces.get(name).ok_or_else(|| Refusal::UnknownInterface(name.clone()))?;
            answer.outbound = self.what_if_sent(own.id, &question.packet).await?;
        }
        for (name, own) in &self.book.interfaces {
            if question.interface.as_ref().is_none_or(|wanted| wanted == name) {
                let (id, packet) = (own.id, question.packet.clone());
                let verdicts = self.ask_all(move |worker| worker.core.what_if_received(id, &packet)).await?;
                answer.inbound.extend(verdicts.into_iter().flatten().reduce(together));
            }
        }
        Ok(Done::WhatIf(Box::new(answer)))
    }

    async fn what_if_sent(&self, id: InterfaceId, packet: &[u8]) -> Result<Option<OutboundVerdict>, Refusal> {
        let mut worker = WorkerId::FIRST;
        // Whoever has the SA is asked after the one who says so; more often only if the SA moves meanwhile.
        for _ in self.settings.workers.ids() {
            let packet = packet.to_vec();
            let verdict = self.ask(worker, move |worker| worker.core.what_if_sent(id, &packet)).await?;
            match &verdict {
                Some(OutboundVerdict { fate: OutboundFate::Elsewhere(other), .. }) => worker = *other,
                _ => return Ok(verdict),
            }
        }
        Ok(None)
    }
}

/// What two workers say together: one SA that takes the packet is enough, and whoever has SAs knows best why none does.
fn together(one: InboundVerdict, other: InboundVerdict) -> InboundVerdict {
    let no_sa = |verdict: &InboundVerdict| verdict.reason.as_deref() == Some("no_sa");
    let reason = match (one.reason.is_none() || other.reason.is_none(), no_sa(&one)) {
        (true, _) => None,
        (false, true) => other.reason,
        (false, false) => one.reason,
    };
    InboundVerdict { sas: [one.sas, other.sas].concat(), reason, ..one }
}

#[cfg(test)]
mod tests {
    use espdp_api::{InterfaceName, PolicyId};

    use super::*;

    fn verdict(sas: &[u32], reason: Option<&str>) -> InboundVerdict {
        InboundVerdict {
            interface: InterfaceName::new("ipsec0").unwrap(),
            policy: None,
            sas: sas.iter().map(|spi| (*spi, PolicyId(1))).collect(),
            reason: reason.map(str::to_owned),
        }
    }

    #[test]
    fn one_worker_with_an_sa_is_enough() {
        let said = |one, other| together(one, other).reason;
        assert_eq!(said(verdict(&[7], None), verdict(&[], Some("no_sa"))), None);
        assert_eq!(said(verdict(&[], Some("no_sa")), verdict(&[7], None)), None);
        assert_eq!(said(verdict(&[], Some("no_sa")), verdict(&[], Some("selectors"))).as_deref(), Some("selectors"));
        assert_eq!(said(verdict(&[], Some("selectors")), verdict(&[], Some("no_sa"))).as_deref(), Some("selectors"));
        let both = together(verdict(&[7], None), verdict(&[9], None));
        assert_eq!(both.sas, [(7, PolicyId(1)), (9, PolicyId(1))]);
    }
}
