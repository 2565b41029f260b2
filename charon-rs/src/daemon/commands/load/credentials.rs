//! Commands that bring certificates and private keys, and those that tell which are there.

use pki::certificate::Certificate;
use pki::crl::Crl;
use pki::key::{KeyId, PrivateKey};

use super::{failed, success};
use crate::credentials::{Layer, Places};
use crate::daemon::service::Daemon;
use crate::daemon::shell::Shell;
use crate::swanctl::authority_keys::{AUTHORITY_KEYS, AuthorityDraft, FOREIGN_KEYS};
use crate::swanctl::keys::apply;
use crate::vici::Message;

/// Loads a certificate or a CRL.
pub(in crate::daemon::commands) async fn load_cert(daemon: &Daemon, arguments: &Message) -> Message {
    let loaded = match Loaded::read(arguments) {
        Ok(loaded) => loaded,
        Err(why) => return failed(why),
    };
    change(daemon, move |layer| {
        loaded.put(layer);
        success()
    })
    .await
}

/// Loads a private key; the answer names it.
pub(in crate::daemon::commands) async fn load_key(daemon: &Daemon, arguments: &Message) -> Message {
    let Some(data) = arguments.octets("data") else { return failed("key data missing") };
    // swanctl asks for passphrases itself, and sends keys without.
    let key = match PrivateKey::load(data, None) {
        Ok(key) => key,
        Err(error) => return failed(format!("parsing {} private key failed: {error}", kind(arguments))),
    };
    change(daemon, move |layer| success().with("id", hex(layer.add_key(key)))).await
}

/// Forgets a private key that was loaded over the socket.
pub(in crate::daemon::commands) async fn unload_key(daemon: &Daemon, arguments: &Message) -> Message {
    let Some(id) = arguments.text("id").map(str::to_owned) else { return failed("key id missing") };
    change(daemon, move |layer| {
        let found = layer.keys.keys().copied().find(|key| hex(*key).eq_ignore_ascii_case(&id));
        match found.and_then(|key| layer.keys.remove(&key)) {
            Some(_) => success(),
            None => failed("key not found"),
        }
    })
    .await
}

/// The names of the private keys that were loaded over the socket.
pub(in crate::daemon::commands) async fn get_keys(daemon: &Daemon) -> Message {
    look(daemon, |layer| {
        let mut message = Message::new();
        message.put_list("keys", layer.keys.keys().map(|key| hex(*key)));
        message
    })
    .await
}

/// Loads a CA and where to ask about its certificates.
pub(in crate::daemon::commands) async fn load_authority(daemon: &Daemon, arguments: &Message) -> Message {
    let mut authorities = Vec::new();
    for (name, section) in arguments.sections() {
        match authority(section) {
            Ok(places) => authorities.push((name.to_owned(), places)),
            Err(why) => return failed(format!("{why}, authority '{name}' discarded")),
        }
    }
    change(daemon, move |layer| {
        for (name, places) in authorities {
            layer.add_authority(places.authority.clone());
            layer.places.insert(name, places);
        }
        success()
    })
    .await
}

/// Forgets a CA that was loaded over the socket.
pub(in crate::daemon::commands) async fn unload_authority(daemon: &Daemon, arguments: &Message) -> Message {
    let Some(name) = arguments.text("name").map(str::to_owned) else { return failed("missing authority name") };
    change(daemon, move |layer| match layer.places.remove(&name) {
        Some(places) => {
            layer.authorities.retain(|authority| *authority != places.authority);
            success()
        }
        None => failed(format!("unload: authority '{name}' not found")),
    })
    .await
}

/// The names of the CAs that were loaded over the socket.
pub(in crate::daemon::commands) async fn get_authorities(daemon: &Daemon) -> Message {
    look(daemon, |layer| {
        let mut message = Message::new();
        message.put_list("authorities", layer.places.keys());
        message
    })
    .await
}

/// Forgets what was fetched about revocation.
pub(in crate::daemon::commands) async fn flush_certs(daemon: &Daemon) -> Message {
    let flush = |shell: &mut Shell| {
        shell.desk.flush();
        success()
    };
    daemon.handle.ask(flush).await.unwrap_or_else(failed)
}

/// Forgets all credentials that were loaded over the socket; CAs that have a name stay, as at strongSwan.
pub(super) fn clear(shell: &mut Shell) {
    shell.change_credentials(|layer| {
        let places = std::mem::take(&mut layer.places);
        let (signers, demands) = (std::mem::take(&mut layer.signers), std::mem::take(&mut layer.demands));
        *layer = Layer { places, signers, demands, ..Layer::default() };
        layer.authorities = layer.places.values().map(|places| places.authority.clone()).collect();
    });
}

/// What `load-cert` brings.
enum Loaded {
    Certificates(Vec<Certificate>),
    Authorities(Vec<Certificate>),
    Crl(Box<Crl>),
}

impl Loaded {
    fn read(arguments: &Message) -> Result<Self, String> {
        let data = arguments.octets("data").ok_or("certificate data missing")?;
        let kind = kind(arguments);
        match kind.to_ascii_uppercase().as_str() {
            "X509" => {
                let certificates =
                    Certificate::load(data).map_err(|error| format!("parsing X509 certificate failed: {error}"))?;
                match arguments.text("flag").unwrap_or("NONE").to_ascii_uppercase().as_str() {
                    "CA" => Ok(Self::Authorities(certificates)),
                    "NONE" | "ANY" | "OCSP" => Ok(Self::Certificates(certificates)),
                    flag => Err(format!("invalid certificate flag '{flag}'")),
                }
            }
            "X509_CRL" => {
                let crl = Crl::load(data).map_err(|error| format!("parsing X509_CRL failed: {error}"))?;
                Ok(Self::Crl(Box::new(crl)))
            }
            // Raw public keys come with the connections that use them, so swanctl's copies are not needed.
            "PUBKEY" => Ok(Self::Certificates(Vec::new())),
            _ => Err(format!("invalid certificate type '{kind}'")),
        }
    }

    fn put(self, layer: &mut Layer) {
        match self {
            Self::Certificates(certificates) => certificates.into_iter().for_each(|own| layer.add_certificate(own)),
            // A CA that another one issued is on the way to that one and, as at strongSwan, not trusted by itself.
            Self::Authorities(certificates) => certificates.into_iter().for_each(|authority| {
                if authority.is_self_issued() {
                    layer.add_authority(authority)
                } else {
                    layer.add_certificate(authority)
                }
            }),
            Self::Crl(crl) => {
                layer.crls.retain(|known| known.fingerprint() != crl.fingerprint());
                layer.crls.push(crl.into());
            }
        }
    }
}

fn authority(section: &Message) -> Result<Places, String> {
    let mut draft = AuthorityDraft::default();
    apply(section, AUTHORITY_KEYS, FOREIGN_KEYS, |_| false, &mut draft).map_err(|refusal| refusal.to_string())?;
    let data = draft.certificate.ok_or("CA certificate missing")?;
    let certificates = Certificate::load(&data).map_err(|error| format!("invalid value for: cacert: {error}"))?;
    let authority = certificates.into_iter().next().ok_or("CA certificate missing")?;
    Ok(Places { authority, crl_uris: draft.crl_uris, ocsp_uris: draft.ocsp_uris })
}

async fn change(daemon: &Daemon, change: impl FnOnce(&mut Layer) -> Message + Send + 'static) -> Message {
    daemon.handle.ask(|shell: &mut Shell| shell.change_credentials(change)).await.unwrap_or_else(failed)
}

async fn look(daemon: &Daemon, look: impl FnOnce(&Layer) -> Message + Send + 'static) -> Message {
    daemon.handle.ask(|shell: &mut Shell| look(shell.desk.store().socket())).await.unwrap_or_else(failed)
}

fn kind(arguments: &Message) -> &str {
    arguments.text("type").unwrap_or_default()
}

/// A key as strongSwan names it: without colons.
fn hex(key: KeyId) -> String {
    key.to_string().replace(':', "")
}
