//! System calls. The only place of the crate with `unsafe`; everything that leaves it is safe.

pub(crate) mod control_message;
pub(crate) mod device;
pub(crate) mod host;
pub(crate) mod memory;
pub(crate) mod namespace;
pub(crate) mod port;
pub(crate) mod ring;
pub(crate) mod steering;
pub(crate) mod tun;
