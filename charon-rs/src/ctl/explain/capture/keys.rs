//! Keys of IKE SAs as the daemon and Wireshark write them: `ikev2_decryption_table`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use espdp_api::Secret;
use ike_proto::crypto::protection::MessageCipher;
use ike_proto::io::IkeSpi;
use ike_proto::proposal::{
    AdditionalGroups, Algorithm, IkeCipher, IkeIntegrity, IkeSuite, KeyExchangeGroup, Prf, WIRESHARK_NO_INTEGRITY,
    WiresharkName,
};
use zeroize::Zeroizing;

use crate::daemon::keylog::{IKE_TABLE, NOT_DECODED};

/// What decrypts the messages of an IKE SA.
pub(super) struct Ciphers {
    /// What the original initiator sends.
    pub(super) of_initiator: MessageCipher,
    /// What the original responder sends.
    pub(super) of_responder: MessageCipher,
}

/// The keys of a folder.
#[derive(Default)]
pub(super) struct Keys(BTreeMap<(IkeSpi, IkeSpi), Zeroizing<String>>);

impl Keys {
    /// Reads the table in `folder`.
    ///
    /// # Errors
    /// When it is not there, or is no such file.
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        let text = Zeroizing::new(fs::read_to_string(folder.join(IKE_TABLE))?);
        let mut keys = Self::default();
        for line in text.lines() {
            let line = line.trim();
            let line = line.strip_prefix(NOT_DECODED).unwrap_or(line);
            let mut spis = line.split(',').map(spi);
            if let (Some(Some(initiator)), Some(Some(responder))) = (spis.next(), spis.next()) {
                keys.0.insert((initiator, responder), Zeroizing::new(line.to_owned()));
            }
        }
        Ok(keys)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What decrypts the messages of the SA with these SPIs, if its keys are there and are of algorithms that are known here.
    pub(super) fn ciphers(&self, initiator: IkeSpi, responder: IkeSpi) -> Option<Ciphers> {
        let line = self.0.get(&(initiator, responder))?;
        let fields: Vec<&str> = line.split(',').map(|field| field.trim().trim_matches('"')).collect();
        let [_, _, sk_ei, sk_er, cipher, sk_ai, sk_ar, integrity] = fields[..] else { return None };
        let cipher = *IkeCipher::ALL.iter().find(|known| known.wireshark_name() == cipher)?;
        let integrity = match integrity {
            WIRESHARK_NO_INTEGRITY => None,
            name => Some(*IkeIntegrity::ALL.iter().find(|known| known.wireshark_name() == name)?),
        };
        // PRF and group have no part in protecting messages.
        let (prf, group, additional) = (Prf::HmacSha2_256, KeyExchangeGroup::Curve25519, AdditionalGroups::default());
        let suite = IkeSuite { cipher, integrity, prf, group, additional };
        let half = |encryption, integrity| MessageCipher::new(suite, &octets(encryption)?, &octets(integrity)?).ok();
        Some(Ciphers { of_initiator: half(sk_ei, sk_ai)?, of_responder: half(sk_er, sk_ar)? })
    }
}

fn spi(text: &str) -> Option<IkeSpi> {
    let octets = base16ct::mixed::decode_vec(text.trim()).ok()?;
    octets.try_into().ok().map(IkeSpi)
}

fn octets(text: &str) -> Option<Secret<Vec<u8>>> {
    base16ct::mixed::decode_vec(text).ok().map(Secret::new)
}
