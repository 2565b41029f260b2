//! Certificates, keys and names.
//!
//! | module | what lives there |
//! |---|---|
//! | [`dn`] | distinguished names: as text, as DER, compared |
//! | [`key`] | private and public keys |

pub mod dn;
pub mod hash;
pub mod key;
pub mod pem;
pub mod signature;
pub mod time;

mod passphrase;

#[cfg(test)]
mod test_support;
