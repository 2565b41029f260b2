//! The IKEv2 daemon and its control tool.
//!
//! The daemon is a shell around [`ike_proto`]: it moves datagrams, time, commands and files between the engine, the
//! dataplane and the control socket, and holds no protocol rule of its own.
//!
//! | module | what lives there |
//! |---|---|
//! | [`config`] | the TOML front end of the configuration |
//! | [`credentials`] | certificates and private keys, and what is signed and verified with them |
//! | [`ctl`] | the control tool |
//! | [`daemon`] | the shell around the engine, and the commands of its control socket |
//! | `import` | strongSwan's configuration files in the words of ours |
//! | [`lab`] | two gateways, a client and a server in namespaces of their own, to try it all |
//! | `swanctl` | the keys of swanctl.conf, the other front end of the configuration |
//! | [`vici`] | the protocol of the control socket: packets, messages, server, client |

pub mod config;
pub mod credentials;
pub mod ctl;
pub mod daemon;
mod import;
pub mod lab;
mod swanctl;
pub mod vici;
