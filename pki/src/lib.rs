//! Certificates, keys and names.
//!
//! | module | what lives there |
//! |---|---|
//! | [`dn`] | distinguished names: as text, as DER, compared |

pub mod dn;
