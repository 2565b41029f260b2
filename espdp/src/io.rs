//! System calls. The only place of the crate with `unsafe`; everything that leaves it is safe.

pub(crate) mod control_message;
pub(crate) mod port;
pub(crate) mod tun;
