//! What becomes of SAs that are up when their connection is configured anew.
//!
//! | what changed | from when on |
//! |---|---|
//! | dead peer detection, retransmission, redirections that are followed; what becomes of children that fall; children that are new | at once |
//! | proposals, lifetimes; of children also replay window and the shape of packets | from the next rekeying on |
//! | all else | in SAs that are set up from now on |

use super::{Child, Connection};

/// From when on a connection that was configured anew is what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing is new.
    Nothing,
    /// At once, also for SAs that are up.
    AtOnce,
    /// SAs that are up follow when they are rekeyed.
    AtRekey,
    /// SAs that are up stay as they are, in part at least.
    NewSas,
}

impl Connection {
    /// When all is as `new` says once that takes the place of this connection.
    #[must_use]
    pub fn effect_of(&self, new: &Self) -> Effect {
        let new = new.in_order();
        let mut followed = self.in_order();
        if followed == new {
            return Effect::Nothing;
        }
        followed.follow_at_once(&new);
        if followed.in_order() == new {
            return Effect::AtOnce;
        }
        followed.follow_at_rekey(&new);
        if followed.in_order() == new { Effect::AtRekey } else { Effect::NewSas }
    }

    /// This connection as an SA has it that is up when `new` takes its place. Of children it has the new ones: each SA knows the
    /// child that it was made for.
    pub(crate) fn succeeded_by(&self, new: &Self) -> Self {
        let mut connection = self.clone();
        connection.follow_at_once(new);
        connection.follow_at_rekey(new);
        connection.children.clone_from(&new.children);
        connection
    }

    fn follow_at_once(&mut self, new: &Self) {
        (self.dpd, self.retransmission, self.follow_redirects) = (new.dpd, new.retransmission, new.follow_redirects);
        for child in &mut self.children {
            if let Some(new) = new.children.iter().find(|new| new.name == child.name) {
                child.follow_at_once(new);
            }
        }
        let is_new = |new: &&Child| self.children.iter().all(|child| child.name != new.name);
        let added: Vec<Child> = new.children.iter().filter(is_new).cloned().collect();
        self.children.extend(added);
    }

    fn follow_at_rekey(&mut self, new: &Self) {
        self.ike_proposals.clone_from(&new.ike_proposals);
        self.ike_lifetime = new.ike_lifetime;
        for child in &mut self.children {
            if let Some(new) = new.children.iter().find(|new| new.name == child.name) {
                child.follow_at_rekey(new);
            }
        }
    }

    /// The order of children means something only where none is asked for by its name.
    fn in_order(&self) -> Self {
        let mut connection = self.clone();
        connection.children.sort_by(|a, b| a.name.cmp(&b.name));
        connection
    }
}

impl Child {
    /// What replaces an SA of this child when `new` has taken its place.
    ///
    /// RFC 7296 §2.8 wants the same algorithms and traffic selectors as before. Algorithms differ only where somebody has configured
    /// others; selectors, mode and what leads packets into the SA stay.
    pub(crate) fn rekeyed_as(&self, new: &Self) -> Self {
        let mut child = self.clone();
        child.follow_at_once(new);
        child.follow_at_rekey(new);
        child
    }

    fn follow_at_once(&mut self, new: &Self) {
        (self.start, self.close, self.dpd) = (new.start, new.close, new.dpd);
    }

    fn follow_at_rekey(&mut self, new: &Self) {
        let protocol = |child: &Self| child.esp_proposals.first().map(|proposal| proposal.protocol);
        // RFC 7296 §1.3.3: what is replaced is named by its protocol, which stays.
        if protocol(self) == protocol(new) {
            self.esp_proposals.clone_from(&new.esp_proposals);
        }
        self.lifetime = new.lifetime;
        self.rekey_after_traffic = new.rekey_after_traffic;
        self.expire_after_traffic = new.expire_after_traffic;
        self.replay_window = new.replay_window;
        self.shape = new.shape;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use espdp_api::{InterfaceName, IpsecProtocol, Mode, PacketShape, Routes, TrafficLimit};

    use super::super::{ChildSelector, CloseAction, Dpd, DpdAction, Lifetime, StartAction};
    use super::*;
    use crate::proposal::EspProposal;

    const NEVER: Lifetime = Lifetime { rekey_after: None, jitter: Duration::ZERO, expire_after: None };

    fn child(name: &str) -> Child {
        let network = espdp_api::AddressRange::new("10.1.0.0".parse().unwrap(), "10.1.0.255".parse().unwrap()).unwrap();
        Child {
            name: name.into(),
            mode: Mode::Tunnel,
            local_selectors: vec![espdp_api::TrafficSelector::any_protocol(network).into()],
            remote_selectors: vec![ChildSelector::HOST],
            esp_proposals: vec!["aes256gcm16".parse().unwrap()],
            lifetime: NEVER,
            rekey_after_traffic: TrafficLimit::default(),
            expire_after_traffic: TrafficLimit::default(),
            replay_window: 64,
            interface: InterfaceName::new("ipsec0").unwrap(),
            priority: espdp_api::PolicySpec::DEFAULT_PRIORITY,
            routes: Routes::FromSelectors,
            later_fragments: false,
            per_resource: false,
            shape: PacketShape::default(),
            start: StartAction::None,
            updown: Vec::new(),
            close: CloseAction::None,
            dpd: None,
        }
    }

    /// The effect of a change.
    fn effect(change: impl FnOnce(&mut Connection)) -> Effect {
        let before = Connection { children: vec![child("net")], ..Connection::new("net") };
        let mut new = before.clone();
        change(&mut new);
        before.effect_of(&new)
    }

    #[test]
    fn each_setting_has_its_time() {
        let lifetime = Lifetime { rekey_after: Some(Duration::from_secs(60)), ..NEVER };
        assert_eq!(effect(|_| {}), Effect::Nothing);
        let probes = Dpd { delay: Duration::from_secs(7), action: DpdAction::Hold };
        assert_eq!(effect(|new| new.dpd = Some(probes)), Effect::AtOnce);
        assert_eq!(effect(|new| new.children[0].close = CloseAction::Start), Effect::AtOnce);
        assert_eq!(effect(|new| new.children.insert(0, child("another"))), Effect::AtOnce);
        assert_eq!(effect(|new| new.ike_lifetime = lifetime), Effect::AtRekey);
        assert_eq!(effect(|new| new.ike_proposals.clear()), Effect::AtRekey);
        assert_eq!(effect(|new| new.children[0].lifetime = lifetime), Effect::AtRekey);
        assert_eq!(effect(|new| new.children[0].replay_window += 1), Effect::AtRekey);
        let esp = || vec!["chacha20poly1305".parse().unwrap()];
        assert_eq!(effect(|new| new.children[0].esp_proposals = esp()), Effect::AtRekey);
        assert_eq!(effect(|new| (new.children[0].esp_proposals, new.dpd) = (esp(), Some(probes))), Effect::AtRekey);
        assert_eq!(effect(|new| new.children[0].local_selectors = vec![ChildSelector::HOST]), Effect::NewSas);
        assert_eq!(effect(|new| new.children[0].updown = vec!["/bin/true".to_owned()]), Effect::NewSas);
        assert_eq!(effect(|new| new.mobike = !new.mobike), Effect::NewSas);
        assert_eq!(effect(|new| new.children.clear()), Effect::NewSas);
    }

    #[test]
    fn what_is_rekeyed_keeps_its_selectors_and_its_protocol() {
        let old = child("net");
        let limit = TrafficLimit { bytes: Some(7), packets: None };
        let ah = vec![EspProposal { protocol: IpsecProtocol::Ah, ..old.esp_proposals[0].clone() }];
        let new = Child {
            local_selectors: vec![ChildSelector::HOST],
            esp_proposals: ah,
            rekey_after_traffic: limit,
            ..old.clone()
        };
        let rekeyed = old.rekeyed_as(&new);
        assert_eq!(rekeyed, Child { rekey_after_traffic: limit, ..old });
    }
}
