//! What a template says, as extensions.

use der::Encode;
use der::asn1::{Any, Ia5String, ObjectIdentifier, OctetString};
use der::flagset::FlagSet;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::certpolicy::{PolicyInformation, PolicyQualifierInfo};
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName as Encoded};
use x509_cert::ext::pkix::{
    AccessDescription, AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, NameConstraints,
    PolicyConstraints,
};

use super::{CrlPoint, IssueError, Policy, Template};
use crate::certificate::{KeyPurpose, Subtree, oid};
use crate::general_name::GeneralName;
use crate::key::PublicKey;

impl Template {
    pub(crate) fn extensions(
        &self,
        subject_key: &PublicKey,
        issuer_key_id: Option<&[u8]>,
    ) -> Result<Vec<Extension>, IssueError> {
        let mut list = Vec::new();
        if let Some(ca) = self.ca {
            let constraints = BasicConstraints { ca: true, path_len_constraint: ca.path_len };
            list.push(extension(oid::BASIC_CONSTRAINTS, true, &constraints)?);
        }
        list.push(extension(oid::KEY_USAGE, true, &self.key_usage())?);
        let key_id = OctetString::new(subject_key.key_id().0)?;
        list.push(extension(oid::SUBJECT_KEY_ID, false, &key_id)?);
        if let Some(id) = issuer_key_id {
            let key_identifier = Some(OctetString::new(id)?);
            let identifier = AuthorityKeyIdentifier { key_identifier, ..Default::default() };
            list.push(extension(oid::AUTHORITY_KEY_ID, false, &identifier)?);
        }
        self.add_names(&mut list)?;
        self.add_policies(&mut list)?;
        if !self.crl_points.is_empty() {
            list.push(extension(oid::CRL_DISTRIBUTION_POINTS, false, &distribution_points(&self.crl_points)?)?);
        }
        if !self.ocsp_uris.is_empty() {
            let access = |uri: &String| -> Result<AccessDescription, IssueError> {
                Ok(AccessDescription { access_method: oid::ACCESS_OCSP, access_location: uri_name(uri)? })
            };
            let all = self.ocsp_uris.iter().map(access).collect::<Result<Vec<_>, _>>()?;
            list.push(extension(oid::AUTHORITY_INFO_ACCESS, false, &all)?);
        }
        list.retain(|made| !self.extra.iter().any(|(id, ..)| *id == made.extn_id));
        for (id, critical, value) in &self.extra {
            list.push(Extension { extn_id: *id, critical: *critical, extn_value: OctetString::new(value.as_slice())? });
        }
        Ok(list)
    }

    fn key_usage(&self) -> KeyUsage {
        let crl_sign: FlagSet<KeyUsages> = if self.crl_sign { KeyUsages::CRLSign.into() } else { FlagSet::default() };
        KeyUsage(match self.ca {
            Some(_) => KeyUsages::KeyCertSign | KeyUsages::CRLSign,
            None => KeyUsages::DigitalSignature | crl_sign,
        })
    }

    fn add_names(&self, list: &mut Vec<Extension>) -> Result<(), IssueError> {
        if !self.alternative_names.is_empty() {
            list.push(subject_alternative_name(&self.alternative_names, self.subject.is_empty())?);
        }
        if !self.purposes.is_empty() {
            list.push(extended_key_usage(&self.purposes)?);
        }
        let (permitted, excluded) = (&self.name_constraints.permitted, &self.name_constraints.excluded);
        if !permitted.is_empty() || !excluded.is_empty() {
            let constraints =
                NameConstraints { permitted_subtrees: subtrees(permitted)?, excluded_subtrees: subtrees(excluded)? };
            list.push(extension(oid::NAME_CONSTRAINTS, true, &constraints)?);
        }
        Ok(())
    }

    fn add_policies(&self, list: &mut Vec<Extension>) -> Result<(), IssueError> {
        if !self.policies.is_empty() {
            let policies = self.policies.iter().map(policy).collect::<Result<Vec<_>, _>>()?;
            list.push(extension(oid::CERTIFICATE_POLICIES, false, &policies)?);
        }
        if !self.policy_mappings.is_empty() {
            let mappings: Vec<_> =
                self.policy_mappings.iter().map(|(issuer, subject)| vec![*issuer, *subject]).collect();
            list.push(extension(oid::POLICY_MAPPINGS, true, &mappings)?);
        }
        if let Some(constraints) = self.policy_constraints {
            let constraints = PolicyConstraints {
                require_explicit_policy: constraints.require_explicit,
                inhibit_policy_mapping: constraints.inhibit_mapping,
            };
            list.push(extension(oid::POLICY_CONSTRAINTS, true, &constraints)?);
        }
        if let Some(skip) = self.inhibit_any_policy {
            list.push(extension(oid::INHIBIT_ANY_POLICY, true, &skip)?);
        }
        Ok(())
    }
}

/// An extension with its value encoded.
pub(crate) fn extension(id: ObjectIdentifier, critical: bool, value: &impl Encode) -> Result<Extension, IssueError> {
    Ok(Extension { extn_id: id, critical, extn_value: OctetString::new(value.to_der()?)? })
}

pub(crate) fn subject_alternative_name(names: &[GeneralName], critical: bool) -> Result<Extension, IssueError> {
    let names = names.iter().map(encoded).collect::<Result<Vec<_>, _>>()?;
    extension(oid::SUBJECT_ALTERNATIVE_NAME, critical, &names)
}

pub(crate) fn extended_key_usage(purposes: &[KeyPurpose]) -> Result<Extension, IssueError> {
    let purposes: Vec<_> = purposes.iter().map(|purpose| purpose.oid()).collect();
    extension(oid::EXTENDED_KEY_USAGE, false, &purposes)
}

pub(crate) fn distribution_points(points: &[CrlPoint]) -> Result<Vec<DistributionPoint>, IssueError> {
    let point = |point: &CrlPoint| -> Result<DistributionPoint, IssueError> {
        let issuer = point.issuer.as_ref().map(|issuer| issuer.to_name()).transpose()?;
        Ok(DistributionPoint {
            distribution_point: Some(DistributionPointName::FullName(vec![uri_name(&point.uri)?])),
            reasons: None,
            crl_issuer: issuer.map(|issuer| vec![Encoded::DirectoryName(issuer)]),
        })
    };
    points.iter().map(point).collect()
}

fn policy(policy: &Policy) -> Result<PolicyInformation, IssueError> {
    let mut qualifiers = Vec::new();
    if let Some(uri) = &policy.cps_uri {
        let uri = Ia5String::new(uri).map_err(|_| IssueError::Name(uri.clone()))?;
        qualifiers.push(PolicyQualifierInfo { policy_qualifier_id: CPS, qualifier: Some(Any::encode_from(&uri)?) });
    }
    if let Some(text) = &policy.notice {
        let notice = Any::encode_from(&vec![text.clone()])?;
        qualifiers.push(PolicyQualifierInfo { policy_qualifier_id: USER_NOTICE, qualifier: Some(notice) });
    }
    let policy_qualifiers = Some(qualifiers).filter(|qualifiers| !qualifiers.is_empty());
    Ok(PolicyInformation { policy_identifier: policy.id, policy_qualifiers })
}

fn subtrees(subtrees: &[Subtree]) -> Result<Option<Vec<GeneralSubtree>>, IssueError> {
    let subtree = |subtree: &Subtree| -> Result<GeneralSubtree, IssueError> {
        let base = match subtree {
            Subtree::Name(name) => encoded(name)?,
            Subtree::Ip(subnet) => Encoded::IpAddress(OctetString::new(subnet.octets())?),
        };
        Ok(GeneralSubtree { base, minimum: 0, maximum: None })
    };
    let all = subtrees.iter().map(subtree).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(all).filter(|all| !all.is_empty()))
}

fn encoded(name: &GeneralName) -> Result<Encoded, IssueError> {
    name.to_encoded().ok_or_else(|| IssueError::Name(name.to_string()))
}

fn uri_name(uri: &str) -> Result<Encoded, IssueError> {
    encoded(&GeneralName::Uri(uri.to_owned()))
}

const CPS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.2.1");
const USER_NOTICE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.2.2");
