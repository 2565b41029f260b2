//! Certificates, keys and names.
//!
//! | module | what lives there |
//! |---|---|
//! | [`dn`] | distinguished names: as text, as DER, compared |
//! | [`key`] | private and public keys |

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

pub use signed::SignatureError;

#[cfg(test)]
mod test_support;
