//! What the two front ends call the parts of the configuration that failures are about.

use ike_proto::io::ConfigKey;

/// The names of a part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// In `ipsec.toml`.
    pub(super) toml: &'static str,
    /// In which table there.
    pub(super) table: Table,
    /// In `swanctl.conf`, below `connections.NAME`, or from the top for what is no part of a connection.
    pub(super) swanctl: &'static str,
}

/// Where a key belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// `[conn.NAME]`
    Connection,
    /// `[conn.NAME.child.CHILD]`, or the connection if it is its only child.
    Child,
    /// `[daemon]`
    Daemon,
    /// The file of secrets.
    Secrets,
}

/// The names of `key`; `None` for one that came later than this table.
pub(super) fn names(key: ConfigKey) -> Option<Names> {
    NAMES.iter().find(|(known, ..)| *known == key).map(|(_, toml, table, swanctl)| Names {
        toml,
        table: *table,
        swanctl,
    })
}

use ConfigKey as K;
use Table::{Child, Connection, Daemon, Secrets};

const NAMES: &[(ConfigKey, &str, Table, &str)] = &[
    (K::LocalAddresses, "left", Connection, "local_addrs"),
    (K::RemoteAddresses, "right", Connection, "remote_addrs"),
    (K::RemotePort, "rightikeport", Connection, "remote_port"),
    (K::IkeProposals, "ike", Connection, "proposals"),
    (K::ChildProposals, "esp", Child, "esp_proposals"),
    (K::LocalSelectors, "leftsubnet", Child, "local_ts"),
    (K::RemoteSelectors, "rightsubnet", Child, "remote_ts"),
    (K::Mode, "type", Child, "mode"),
    (K::LocalAuth, "leftauth", Connection, "local.auth"),
    (K::RemoteAuth, "rightauth", Connection, "remote.auth"),
    (K::LocalIdentity, "leftid", Connection, "local.id"),
    (K::RemoteIdentity, "rightid", Connection, "remote.id"),
    (K::Secret, "psk", Secrets, "secrets"),
    (K::LocalCertificate, "leftcert", Connection, "local.certs"),
    (K::RemoteCertificate, "rightcert", Connection, "remote.certs"),
    (K::Authorities, "cacerts", Daemon, "authorities"),
    (K::RemoteAuthority, "rightca", Connection, "remote.cacerts"),
    (K::CertificatePolicies, "rightcertpolicy", Connection, "remote.cert_policy"),
    (K::Revocation, "revocation", Connection, "remote.revocation"),
    (K::Childless, "childless", Connection, "childless"),
    (K::Ppk, "ppk_id", Connection, "ppk_id"),
    (K::Redirect, "redirect", Connection, "redirect"),
    (K::Uniqueness, "uniqueids", Connection, "unique"),
    (K::Encapsulation, "encapsulation", Connection, "encap"),
    (K::Fragmentation, "fragmentation", Connection, "fragmentation"),
    (K::VirtualAddresses, "leftsourceip", Connection, "vips"),
    (K::Pools, "rightsourceip", Connection, "pools"),
    (K::FragmentSize, "fragmentsize", Connection, "fragment_size"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use ike_proto::io::FailureCode;

    #[test]
    fn whatever_decides_by_default_has_a_name_that_the_reference_has_too() {
        let reference = crate::config::reference();
        for key in FailureCode::ALL.iter().filter_map(|code| code.deciding_key()) {
            let names = names(key).unwrap_or_else(|| panic!("{key:?} has no name"));
            assert!(reference.contains(&format!("`{}`", names.toml)), "{}", names.toml);
        }
        let mut all: Vec<&str> = NAMES.iter().map(|(_, toml, ..)| *toml).collect();
        assert!(all.iter().all(|toml| reference.contains(&format!("`{toml}`"))), "{all:?}");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), NAMES.len(), "each stands for one thing");
    }
}
