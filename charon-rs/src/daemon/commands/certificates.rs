//! Commands that show certificates and CAs.

use pki::certificate::Certificate;

use super::failed;
use crate::credentials::Store;
use crate::daemon::service::Daemon;
use crate::daemon::shell::Shell;
use crate::vici::{Message, Streamer};

/// Streams one `list-cert` event for each certificate and CRL.
pub(super) async fn list_certs(daemon: &Daemon, arguments: &Message, streamer: &Streamer) -> Message {
    let wanted = Wanted::of(arguments);
    let found = daemon.handle.ask(move |shell: &mut Shell| wanted.find(shell.desk.store())).await;
    stream(streamer, "list-cert", found).await
}

/// Streams one `list-authority` event for each CA that has a name.
pub(super) async fn list_authorities(daemon: &Daemon, arguments: &Message, streamer: &Streamer) -> Message {
    let wanted = arguments.text("name").map(str::to_owned);
    let look = move |shell: &mut Shell| {
        let places = shell.desk.store().places();
        let named = places.filter(|(name, _)| wanted.as_deref().is_none_or(|wanted| wanted == *name));
        let section = |(name, places): (&String, &crate::credentials::Places)| {
            let mut section = Message::new().with("cacert", places.authority.subject());
            section.put_list("crl_uris", &places.crl_uris);
            section.put_list("ocsp_uris", &places.ocsp_uris);
            Message::new().with_section(name, section)
        };
        named.map(section).collect()
    };
    stream(streamer, "list-authority", daemon.handle.ask(look).await).await
}

async fn stream(
    streamer: &Streamer,
    event: &'static str,
    found: Result<Vec<Message>, crate::daemon::shell::Gone>,
) -> Message {
    match found {
        Ok(found) => {
            for message in found {
                streamer.send(event, message).await;
            }
            Message::new()
        }
        Err(gone) => failed(gone),
    }
}

/// Which certificates are asked for.
struct Wanted {
    kind: String,
    flag: String,
    subject: Option<String>,
}

impl Wanted {
    fn of(arguments: &Message) -> Self {
        let upper = |name: &str| arguments.text(name).unwrap_or("ANY").to_ascii_uppercase();
        Self { kind: upper("type"), flag: upper("flag"), subject: arguments.text("subject").map(str::to_owned) }
    }

    fn find(&self, store: &Store) -> Vec<Message> {
        let mut found = Vec::new();
        if self.is_kind("X509") {
            let end_entities = store.certificates().map(|certificate| (certificate, "NONE"));
            let authorities = store.anchors().iter().chain(store.intermediates()).map(|ca| (ca, "CA"));
            let wanted = |(certificate, flag): &(&Certificate, &str)| {
                (self.flag == "ANY" || self.flag == *flag)
                    && self.subject.as_deref().is_none_or(|subject| certificate.subject().to_string() == subject)
            };
            let section = |(certificate, flag): (&Certificate, &str)| {
                let mut section = Message::new().with("type", "X509").with("flag", flag);
                section.put_if("has_privkey", store.has_key(certificate));
                section.put_octets("data", certificate.der().to_vec());
                section
            };
            found.extend(end_entities.chain(authorities).filter(wanted).map(section));
        }
        if self.is_kind("X509_CRL") && self.flag == "ANY" {
            found.extend(store.crls().map(|crl| {
                let mut section = Message::new().with("type", "X509_CRL").with("flag", "NONE");
                section.put_octets("data", crl.der().to_vec());
                section
            }));
        }
        found
    }

    fn is_kind(&self, kind: &str) -> bool {
        self.kind == "ANY" || self.kind == kind
    }
}
