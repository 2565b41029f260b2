//! Commands that tell the daemon what `swanctl.conf` says, for `swanctl --load-all`.

pub(super) mod credentials;

use espdp_api::{InterfaceKind, InterfaceName, InterfaceSpec, Secret};
use ike_proto::config::{SecretKind, SharedSecret};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

use super::{failed, success};
use crate::config::values::identity::identity;
use crate::credentials::Layer;
use crate::daemon::applied::Origin;
use crate::daemon::service::Daemon;
use crate::daemon::shell::Shell;
use crate::swanctl;
use crate::vici::Message;

/// Secrets from the socket have names of their own, so that they never replace one of the file.
const SECRET_PREFIX: &str = "socket:";

/// Loads the connections of the message, each in a section of its name.
pub(super) async fn load_conn(daemon: &Daemon, arguments: &Message) -> Message {
    let (mut connections, mut layer) = (Vec::new(), Layer::default());
    for (name, section) in arguments.sections() {
        match swanctl::read(name, section, &mut layer) {
            Ok(read) => connections.push(read),
            Err(refusal) => return failed(format!("{refusal}, config discarded")),
        }
    }
    match daemon.handle.ask(|shell| load(shell, connections, layer)).await {
        Ok(Ok(())) => success(),
        Ok(Err(refusal)) => failed(refusal),
        Err(gone) => failed(gone),
    }
}

fn load(shell: &mut Shell, connections: Vec<swanctl::Read>, layer: Layer) -> Result<(), String> {
    if let Some(name) = connections.iter().flat_map(interfaces).find(|name| !shell.owns_link(name) && is_link(name)) {
        return Err(format!(
            "invalid value for: interface: {name} is a link of the host; expected an interface for the daemon to make, into \
             which packets are routed, such as ipsec1, config discarded"
        ));
    }
    shell.change_credentials(|socket| socket.merge(layer));
    for read in connections {
        for interface in interfaces(&read) {
            if !shell.has_interface(interface) {
                shell.want_interface(plain_interface(interface.clone()));
            }
        }
        let swanctl::Read { mut connection, shunts } = read;
        shell.desk.store().complete(&mut connection);
        shell.set_shunts(&connection.name, shunts);
        if shell.applied.connection(&connection.name) != Some((Origin::Socket, &connection)) {
            shell.set_connection(Origin::Socket, connection);
        }
    }
    // What connections of these names signed with and demanded before.
    shell.forget_unused_credentials();
    Ok(())
}

/// Where its children send packets.
fn interfaces(read: &swanctl::Read) -> impl Iterator<Item = &InterfaceName> {
    let of_children = read.connection.children.iter().map(|child| &child.interface);
    of_children.chain(read.shunts.iter().map(|shunt| &shunt.policy.spec.interface))
}

/// Whether the host has a link of that name. If nobody can tell, making it will.
fn is_link(name: &InterfaceName) -> bool {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None);
    socket.is_ok_and(|socket| name_to_index(socket, name.as_str()).is_ok())
}

/// Forgets a connection that was loaded over the socket.
pub(super) async fn unload_conn(daemon: &Daemon, arguments: &Message) -> Message {
    let Some(name) = arguments.text("name").map(str::to_owned) else { return failed("missing connection name") };
    let unload = move |shell: &mut Shell| match shell.applied.connection(&name) {
        Some((Origin::Socket, _)) => {
            shell.remove_connection(&name);
            shell.forget_unused_credentials();
            success()
        }
        Some((Origin::File, _)) => {
            failed(format!("connection '{name}' is from the configuration file: remove it there"))
        }
        None => failed(format!("unload: connection '{name}' not found")),
    };
    daemon.handle.ask(unload).await.unwrap_or_else(failed)
}

/// The names of the connections that were loaded over the socket.
pub(super) async fn get_conns(daemon: &Daemon) -> Message {
    let names = |shell: &mut Shell| {
        let mut message = Message::new();
        message.put_list("conns", shell.applied.connection_names(Origin::Socket));
        message
    };
    daemon.handle.ask(names).await.unwrap_or_else(failed)
}

/// Loads a pre-shared key.
pub(super) async fn load_shared(daemon: &Daemon, arguments: &Message) -> Message {
    let secret = match read_secret(arguments) {
        Ok(secret) => secret,
        Err(why) => return failed(why),
    };
    match daemon.handle.ask(move |shell| shell.set_secret(Origin::Socket, secret)).await {
        Ok(()) => success(),
        Err(gone) => failed(gone),
    }
}

/// Refuses a key on a token: there are none.
pub(super) fn load_token() -> Message {
    failed("keys on tokens are not supported: put the private key into swanctl's folder `private`")
}

/// Forgets a key that was loaded over the socket.
pub(super) async fn unload_shared(daemon: &Daemon, arguments: &Message) -> Message {
    let Some(id) = arguments.text("id") else { return failed("missing id of the shared key") };
    let name = format!("{SECRET_PREFIX}{id}");
    match daemon.handle.ask(move |shell| shell.remove_secret(&name)).await {
        Ok(()) => success(),
        Err(gone) => failed(gone),
    }
}

/// The ids of the keys that were loaded over the socket.
pub(super) async fn get_shared(daemon: &Daemon) -> Message {
    let ids = |shell: &mut Shell| {
        let names = shell.applied.secret_names(Origin::Socket);
        let mut message = Message::new();
        message.put_list("keys", names.map(|name| name.strip_prefix(SECRET_PREFIX).unwrap_or(name)));
        message
    };
    daemon.handle.ask(ids).await.unwrap_or_else(failed)
}

/// Forgets every key and certificate that was loaded over the socket.
pub(super) async fn clear_creds(daemon: &Daemon) -> Message {
    let clear = |shell: &mut Shell| {
        let names: Vec<String> = shell.applied.secret_names(Origin::Socket).map(str::to_owned).collect();
        names.iter().for_each(|name| shell.remove_secret(name));
        credentials::clear(shell);
        success()
    };
    daemon.handle.ask(clear).await.unwrap_or_else(failed)
}

fn read_secret(arguments: &Message) -> Result<SharedSecret, String> {
    let kind = arguments.text("type").unwrap_or_default();
    let kind = if kind.eq_ignore_ascii_case("ike") {
        SecretKind::Ike
    } else if kind.eq_ignore_ascii_case("ppk") {
        SecretKind::Ppk
    } else {
        return Err(format!("shared keys of type '{kind}' are not supported"));
    };
    let data = arguments.octets("data").ok_or("missing data of the shared key")?;
    let written = arguments.list("owners");
    // Beside others it says what one owner alone means anyway: any pair with that one.
    let named = written.iter().filter(|owner| *owner != "%any");
    let owners: Result<Vec<_>, _> = named.map(|owner| identity(owner)).collect();
    let owners = owners.map_err(|error| format!("invalid owner of the shared key: {error}"))?;
    // Without an id, as older clients send it, the owners name the key.
    let id = arguments.text("id").map_or_else(|| written.join(" "), str::to_owned);
    Ok(SharedSecret { name: format!("{SECRET_PREFIX}{id}"), kind, owners, secret: Secret::new(data.to_vec()) })
}

/// An interface without addresses, as connections of swanctl.conf need it.
fn plain_interface(name: InterfaceName) -> InterfaceSpec {
    InterfaceSpec::new(name, InterfaceKind::Ipsec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Demand;
    use crate::credentials::testing::Entity;
    use crate::daemon::testing::Wire;
    use ike_proto::config::{Connection, RemoteMethod, Trust};

    fn alone(connection: Connection) -> swanctl::Read {
        swanctl::Read { connection, shunts: Vec::new() }
    }

    #[tokio::test]
    async fn what_a_connection_demanded_before_it_was_loaded_again_is_forgotten() {
        let (mut shell, _wire) = Wire::shell();
        for round in ["one", "another", "a third"] {
            let (mut connection, mut layer) = (Connection::new("gw"), Layer::default());
            let certificates = vec![Entity::root(round).certificate];
            let name = layer.add_demand(Demand { certificates, ..Demand::default() });
            connection.remote.method = RemoteMethod::Signature(Trust { name, authorities: Vec::new(), ocsp: false });
            load(&mut shell, vec![alone(connection)], layer).unwrap();
            assert_eq!(shell.desk.store().socket().demands.len(), 1, "{round}");
        }
        load(&mut shell, vec![alone(Connection::new("gw"))], Layer::default()).unwrap();
        assert!(shell.desk.store().socket().demands.is_empty(), "a secret demands nothing");
    }

    #[test]
    fn a_shared_key_is_read_with_its_owners() {
        let mut arguments = Message::new().with("id", "ike-1").with("type", "IKE").with("data", "Vpp123");
        arguments.put_list("owners", ["moon.strongswan.org", "192.0.2.1"]);
        let secret = read_secret(&arguments).unwrap();
        assert_eq!(secret.name, "socket:ike-1");
        assert_eq!(secret.owners.len(), 2);
        assert_eq!(secret.secret.expose(), b"Vpp123");
    }

    #[test]
    fn a_post_quantum_key_is_known_by_its_owners() {
        let mut arguments = Message::new().with("id", "ppk-1").with("type", "PPK").with("data", "x");
        arguments.put_list("owners", ["quantum"]);
        let secret = read_secret(&arguments).unwrap();
        assert_eq!((secret.kind, secret.owners.len()), (SecretKind::Ppk, 1));
    }

    #[test]
    fn a_key_for_anybody_has_no_owners() {
        let owners = |written: &[&str]| {
            let mut arguments = Message::new().with("type", "ike").with("data", "x");
            arguments.put_list("owners", written);
            read_secret(&arguments).unwrap().owners.len()
        };
        assert_eq!(owners(&["%any"]), 0);
        assert_eq!(owners(&["moon", "%any"]), 1, "not for pairs without moon");
    }

    #[test]
    fn keys_of_other_kinds_are_refused() {
        let arguments = Message::new().with("type", "EAP").with("data", "x");
        assert_eq!(read_secret(&arguments).unwrap_err(), "shared keys of type 'EAP' are not supported");
    }
}
