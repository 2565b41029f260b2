//! The second front end to the model of connections: the keys of strongSwan's `swanctl.conf`, as `swanctl` sends them over the
//! control socket and as they stand in its file.
//!
//! Keys that say what this daemon does anyway are accepted with that value; a key that asks for something else is refused, so
//! that nobody believes in a protection that is not there.
//!
//! | module | what lives there |
//! |---|---|
//! | `keys` | keys in general, and what is said about all others |
//! | `conn_keys`, `auth_keys`, `child_keys`, `authority_keys`, `pool_keys` | the keys there are |
//! | `build` | from what is written to the model |
//! | `reference` | the reference of all keys |

pub(crate) mod auth_keys;
pub(crate) mod authority_keys;
mod build;
pub(crate) mod child_keys;
pub(crate) mod conn_keys;
pub(crate) mod keys;
pub(crate) mod pool_keys;
mod reference;

pub(crate) use build::{CHILD_REKEY_TIME, IKE_REKEY_TIME, Read, SHUNT_PRIORITY, Shunt, read};
pub(crate) use pool_keys::read_pool;
pub(crate) use reference::reference;
