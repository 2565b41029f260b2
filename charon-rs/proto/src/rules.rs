//! Which payloads a message must and may carry, as a table; checked before any handler sees the message.

use espdp_api::TrafficSelector;

use crate::io::{CertificateData, CertificateRequest};
use crate::wire::{
    Authentication, ConfigurationAttribute, ConfigurationKind, Delete, Identification, KeyExchange, Notify, NotifyType,
    Payload, PayloadType, WireProposal,
};

/// The shape of a message. Notify, Vendor ID, Configuration, certificates, requests for them and payloads that are of no use here may
/// stand anywhere, in any number and order (R7296-2.5-6); payloads that are neither required nor optional are left aside.
#[derive(Debug)]
pub(crate) struct Form {
    /// What the message is, for people.
    pub(crate) name: &'static str,
    /// Payloads that must be there, just once each.
    pub(crate) required: &'static [PayloadType],
    /// Payloads that may be there once.
    pub(crate) optional: &'static [PayloadType],
}

use PayloadType as P;

/// RFC 7296 §1.2: `SAi1, KEi, Ni`.
pub(crate) const INIT_REQUEST: Form =
    Form { name: "IKE_SA_INIT request", required: &[P::SecurityAssociation, P::KeyExchange, P::Nonce], optional: &[] };

/// RFC 7296 §1.2: `SAr1, KEr, Nr`. Refusals are told apart before.
pub(crate) const INIT_RESPONSE: Form =
    Form { name: "IKE_SA_INIT response", required: &[P::SecurityAssociation, P::KeyExchange, P::Nonce], optional: &[] };

/// RFC 7296 §1.2: `IDi, [IDr,] AUTH, SAi2, TSi, TSr`. Without AUTH it asks for EAP (§2.16).
pub(crate) const AUTH_REQUEST: Form = Form {
    name: "IKE_AUTH request",
    required: &[P::IdInitiator, P::SecurityAssociation, P::SelectorsInitiator, P::SelectorsResponder],
    optional: &[P::Authentication, P::IdResponder],
};

/// RFC 6023 §5: the same without a Child SA. Without AUTH it asks for EAP (RFC 7296 §2.16).
pub(crate) const CHILDLESS_AUTH_REQUEST: Form = Form {
    name: "IKE_AUTH request without Child SA",
    required: &[P::IdInitiator],
    optional: &[P::Authentication, P::IdResponder],
};

/// RFC 4739 §2.1: `IDi, AUTH` in the next round, or nothing if only the responder has one.
pub(crate) const LATER_AUTH_REQUEST: Form = Form {
    name: "IKE_AUTH request of a further round",
    required: &[],
    optional: &[P::IdInitiator, P::Authentication, P::IdResponder],
};

/// RFC 7296 §1.2: `IDr, AUTH, SAr2, TSi, TSr`, the last three absent when the Child SA failed (§2.21.2).
pub(crate) const AUTH_RESPONSE: Form = Form {
    name: "IKE_AUTH response",
    required: &[P::IdResponder, P::Authentication],
    optional: &[P::SecurityAssociation, P::SelectorsInitiator, P::SelectorsResponder],
};

/// RFC 4739 §2.1: `IDr, AUTH` in the next round if the responder has one; with the Child SA in the last.
pub(crate) const LATER_AUTH_RESPONSE: Form = Form {
    name: "IKE_AUTH response of a further round",
    required: &[],
    optional: &[
        P::IdResponder,
        P::Authentication,
        P::SecurityAssociation,
        P::SelectorsInitiator,
        P::SelectorsResponder,
    ],
};

/// RFC 7296 §1.3.1, §1.3.3: `SA, Ni, [KEi,] TSi, TSr`.
pub(crate) const CHILD_REQUEST: Form = Form {
    name: "CREATE_CHILD_SA request for a Child SA",
    required: &[P::SecurityAssociation, P::Nonce, P::SelectorsInitiator, P::SelectorsResponder],
    optional: &[P::KeyExchange],
};

/// RFC 7296 §1.3.1, §1.3.3: `SA, Nr, [KEr,] TSi, TSr`.
pub(crate) const CHILD_RESPONSE: Form = Form {
    name: "CREATE_CHILD_SA response for a Child SA",
    required: &[P::SecurityAssociation, P::Nonce, P::SelectorsInitiator, P::SelectorsResponder],
    optional: &[P::KeyExchange],
};

/// RFC 7296 §1.3.2: `SA, Ni, KEi` (R7296-2.18-1).
pub(crate) const REKEY_IKE_REQUEST: Form = Form {
    name: "CREATE_CHILD_SA request for an IKE SA",
    required: &[P::SecurityAssociation, P::Nonce, P::KeyExchange],
    optional: &[],
};

/// RFC 7296 §1.3.2: `SA, Nr, KEr`.
pub(crate) const REKEY_IKE_RESPONSE: Form = Form {
    name: "CREATE_CHILD_SA response for an IKE SA",
    required: &[P::SecurityAssociation, P::Nonce, P::KeyExchange],
    optional: &[],
};

/// RFC 9370 §2.2.2: `KEi(n)`.
pub(crate) const INTERMEDIATE_REQUEST: Form =
    Form { name: "IKE_INTERMEDIATE request", required: &[P::KeyExchange], optional: &[] };

/// RFC 9370 §2.2.2: `KEr(n)`.
pub(crate) const INTERMEDIATE_RESPONSE: Form =
    Form { name: "IKE_INTERMEDIATE response", required: &[P::KeyExchange], optional: &[] };

/// RFC 9370 §2.2.4: `KEi(n)`, and by ADDITIONAL_KEY_EXCHANGE what it goes on with.
pub(crate) const FOLLOWUP_REQUEST: Form =
    Form { name: "IKE_FOLLOWUP_KE request", required: &[P::KeyExchange], optional: &[] };

/// RFC 9370 §2.2.4: `KEr(n)`.
pub(crate) const FOLLOWUP_RESPONSE: Form =
    Form { name: "IKE_FOLLOWUP_KE response", required: &[P::KeyExchange], optional: &[] };

/// RFC 7296 §1.4: any number of notifications and Delete payloads, in both directions; also an error instead of what was
/// asked for.
pub(crate) const INFORMATIONAL: Form = Form { name: "INFORMATIONAL message", required: &[], optional: &[] };

/// How a message breaks its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// A payload is missing.
    #[error("{form} without {payload}")]
    Missing {
        /// The form's name.
        form: &'static str,
        /// The payload.
        payload: PayloadType,
    },
    /// A payload is there more than once.
    #[error("{form} with more than one {payload}")]
    Repeated {
        /// The form's name.
        form: &'static str,
        /// The payload.
        payload: PayloadType,
    },
}

impl Form {
    /// Checks `payloads` against the form.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub(crate) fn check(&'static self, payloads: Vec<Payload>) -> Result<Body, Violation> {
        let count = |kind| payloads.iter().filter(|payload| payload.kind() == kind).count();
        for &payload in self.required {
            if count(payload) == 0 {
                return Err(Violation::Missing { form: self.name, payload });
            }
        }
        for &payload in self.required.iter().chain(self.optional) {
            if count(payload) > 1 {
                return Err(Violation::Repeated { form: self.name, payload });
            }
        }
        Ok(Body { form: self.name, payloads })
    }
}

/// The payloads of a message that has the right form. What the form requires is there, but the compiler does not know,
/// so the getters of payloads that somebody needs say so if not.
#[derive(Debug)]
pub(crate) struct Body {
    form: &'static str,
    payloads: Vec<Payload>,
}

impl Body {
    /// The proposals.
    pub(crate) fn proposals(&self) -> Result<&[WireProposal], Violation> {
        self.find(P::SecurityAssociation, |payload| {
            if let Payload::SecurityAssociation(proposals) = payload { Some(proposals.as_slice()) } else { None }
        })
    }

    /// The nonce.
    pub(crate) fn nonce(&self) -> Result<&[u8], Violation> {
        self.find(P::Nonce, |payload| if let Payload::Nonce(nonce) = payload { Some(nonce.as_slice()) } else { None })
    }

    /// The public value.
    pub(crate) fn key_exchange(&self) -> Result<&KeyExchange, Violation> {
        self.find(P::KeyExchange, |payload| {
            if let Payload::KeyExchange(key_exchange) = payload { Some(key_exchange) } else { None }
        })
    }

    /// The initiator's identity.
    pub(crate) fn id_initiator(&self) -> Result<&Identification, Violation> {
        self.find(P::IdInitiator, |payload| {
            if let Payload::IdInitiator(identification) = payload { Some(identification) } else { None }
        })
    }

    /// The responder's identity.
    pub(crate) fn id_responder(&self) -> Result<&Identification, Violation> {
        self.find(P::IdResponder, |payload| {
            if let Payload::IdResponder(identification) = payload { Some(identification) } else { None }
        })
    }

    /// The proof of identity.
    pub(crate) fn authentication(&self) -> Result<&Authentication, Violation> {
        self.find(P::Authentication, |payload| {
            if let Payload::Authentication(authentication) = payload { Some(authentication) } else { None }
        })
    }

    /// The selectors of the exchange's initiator.
    pub(crate) fn selectors_initiator(&self) -> Result<&[TrafficSelector], Violation> {
        self.find(P::SelectorsInitiator, |payload| {
            if let Payload::SelectorsInitiator(selectors) = payload { Some(selectors.as_slice()) } else { None }
        })
    }

    /// The selectors of the exchange's responder.
    pub(crate) fn selectors_responder(&self) -> Result<&[TrafficSelector], Violation> {
        self.find(P::SelectorsResponder, |payload| {
            if let Payload::SelectorsResponder(selectors) = payload { Some(selectors.as_slice()) } else { None }
        })
    }

    /// The certificates, in the order of the payloads: the first is the one of the signer (R7296-1.2-3).
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &CertificateData> {
        self.payloads.iter().filter_map(|payload| {
            if let Payload::Certificate(certificate) = payload { Some(certificate) } else { None }
        })
    }

    /// Whose certificates the peer asks for, in the order of the payloads.
    pub(crate) fn certificate_requests(&self) -> impl Iterator<Item = &CertificateRequest> {
        self.payloads
            .iter()
            .filter_map(|payload| if let Payload::CertificateRequest(request) = payload { Some(request) } else { None })
    }

    /// What was deleted, in the order of the payloads.
    pub(crate) fn deletes(&self) -> impl Iterator<Item = &Delete> {
        self.payloads
            .iter()
            .filter_map(|payload| if let Payload::Delete(delete) = payload { Some(delete) } else { None })
    }

    /// The attributes of the first Configuration payload of this kind.
    pub(crate) fn configuration(&self, kind: ConfigurationKind) -> Option<&[ConfigurationAttribute]> {
        let all = self.payloads.iter().filter_map(|payload| {
            if let Payload::Configuration(configuration) = payload { Some(configuration) } else { None }
        });
        all.filter(|configuration| configuration.kind == kind).map(|found| found.attributes.as_slice()).next()
    }

    /// The notifications.
    pub(crate) fn notifies(&self) -> impl Iterator<Item = &Notify> + Clone {
        notifies(&self.payloads)
    }

    /// The first notification of this type.
    pub(crate) fn notify(&self, kind: NotifyType) -> Option<&Notify> {
        self.notifies().find(|notify| notify.kind == kind)
    }

    /// Whether there is a notification of this type.
    pub(crate) fn has_notify(&self, kind: NotifyType) -> bool {
        self.notify(kind).is_some()
    }

    /// The first error notification.
    pub(crate) fn error(&self) -> Option<&Notify> {
        self.notifies().find(|notify| notify.kind.is_error())
    }

    /// Forgets certificates and requests for them, which may be long.
    pub(crate) fn drop_certificates(&mut self) {
        self.payloads.retain(|payload| !matches!(payload.kind(), P::Certificate | P::CertificateRequest));
    }

    fn find<'a, T: ?Sized>(
        &'a self,
        payload: PayloadType,
        get: impl Fn(&'a Payload) -> Option<&'a T>,
    ) -> Result<&'a T, Violation> {
        self.payloads.iter().find_map(get).ok_or(Violation::Missing { form: self.form, payload })
    }
}

/// The notifications among `payloads`.
pub(crate) fn notifies(payloads: &[Payload]) -> impl Iterator<Item = &Notify> + Clone {
    payloads.iter().filter_map(|payload| if let Payload::Notify(notify) = payload { Some(notify) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce() -> Payload {
        Payload::Nonce(vec![1; 32])
    }

    fn key_exchange() -> Payload {
        Payload::KeyExchange(KeyExchange { group: 31, data: vec![2; 32] })
    }

    fn sa() -> Payload {
        Payload::SecurityAssociation(Vec::new())
    }

    #[test]
    fn every_required_payload_is_missed_when_it_is_left_out() {
        let whole = [sa(), key_exchange(), nonce()];
        assert!(INIT_REQUEST.check(whole.to_vec()).is_ok());
        for left_out in 0..whole.len() {
            let mut payloads = whole.to_vec();
            let payload = payloads.remove(left_out).kind();
            let violation = Violation::Missing { form: INIT_REQUEST.name, payload };
            assert_eq!(INIT_REQUEST.check(payloads).unwrap_err(), violation);
        }
    }

    #[test]
    fn a_second_payload_of_a_kind_is_refused_and_the_order_does_not_matter() {
        assert!(INIT_REQUEST.check(vec![nonce(), Payload::VendorId(vec![1]), key_exchange(), sa()]).is_ok());
        let violation = INIT_REQUEST.check(vec![nonce(), nonce(), key_exchange(), sa()]).unwrap_err();
        assert_eq!(violation, Violation::Repeated { form: INIT_REQUEST.name, payload: PayloadType::Nonce });
    }

    #[test]
    fn certificates_and_requests_for_them_may_come_several_times_and_keep_their_order() {
        let certificate = |data: u8| CertificateData { encoding: 4, data: vec![data] };
        let request = |authority: u8| CertificateRequest { encoding: 4, authorities: vec![authority; 20] };
        let payloads = vec![
            Payload::Certificate(certificate(1)),
            Payload::CertificateRequest(request(3)),
            Payload::Certificate(certificate(2)),
            Payload::CertificateRequest(request(4)),
        ];
        let body = INFORMATIONAL.check(payloads).unwrap();
        assert!(body.certificates().eq(&[certificate(1), certificate(2)]));
        assert!(body.certificate_requests().eq(&[request(3), request(4)]));
    }

    #[test]
    fn optional_payloads_may_be_absent_but_getting_them_says_so() {
        let body = INFORMATIONAL.check(vec![Payload::Delete(Delete::IkeSa)]).unwrap();
        assert_eq!(body.deletes().count(), 1);
        assert!(body.nonce().is_err());
        assert!(body.error().is_none());
    }
}
