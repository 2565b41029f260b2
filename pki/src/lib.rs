//! Certificates, keys and names: what IKE needs of X.509, as a library; and `pki`, a tool on top of it.
//!
//! | module | what lives there |
//! |---|---|
//! | [`key`], [`pem`] | private and public keys; files |
//! | [`signature`], [`hash`] | signatures as certificates and IKEv2 use them |
//! | [`dn`], [`general_name`], [`identity`] | names; whether an IKE identity is a name of a certificate |
//! | [`certificate`], [`request`], [`pkcs12`] | what others send, read once |
//! | [`path`] | whether a certificate is trusted, and if not, why |
//! | [`revocation`], [`crl`], [`ocsp`] | whether it was revoked |
//! | [`issue`] | making certificates and CRLs |
//!
//! This is a core: the time and random numbers are arguments, and nothing is read, written or fetched. (The tool does all
//! that.) Everything that comes from outside can be anything; it gives an error and never a panic. What was verified is a
//! value that only the verifier can make: [`path::ValidPath`], [`crl::VerifiedCrl`], [`request::Request`].
//!
//! # What is ours and what is not
//!
//! Arithmetic, ASN.1 and the structures of X.509 come from one family of crates, RustCrypto, which the rest of the workspace
//! uses too: `rsa`, `p256`, `p384`, `p521`, `ed25519-dalek`; `der`, `spki`, `pkcs1`, `pkcs5`, `pkcs8`, `sec1`, `x509-cert`. It takes
//! random numbers as arguments, can make every combination of curve, hash and salt that a peer may ask for, and needs no
//! second C library. `rcgen` and `x509-parser` would each bring a family of their own; `aws-lc-rs`, which is faster, has its own
//! random numbers and neither SHA-1 for old peers nor ECDSA with hashes other than the usual.
//!
//! Ours are the rules: which algorithms count (RFC 7427, RFC 8247), path building and validation (RFC 5280 §6), name
//! constraints, policies, revocation, and who an IKE identity belongs to. Ours are also the few structures that the family
//! lacks or has only for other versions: OCSP (RFC 6960) and PKCS#12 (RFC 7292).
//!
//! RSA private keys are always used with blinding, and the result is checked before it leaves, so that neither the time nor a
//! fault tells about the key. Nothing is ever decrypted with them: the attack of RUSTSEC-2023-0071 needs that.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

pub mod certificate;
pub mod crl;
pub mod dn;
pub mod general_name;
pub mod hash;
pub mod identity;
pub mod issue;
pub mod key;
pub mod ocsp;
pub mod path;
pub mod pem;
pub mod pkcs12;
pub mod request;
pub mod revocation;
pub mod signature;
pub mod time;

mod passphrase;
mod signed;

pub use der::asn1::ObjectIdentifier;
pub use signed::SignatureError;

#[cfg(test)]
mod test_support;
