//! Keys of SAs in the form of Wireshark's tables, for `keylog = "DIR"` and `charonctl keys`.
//!
//! | file | one line for |
//! |---|---|
//! | `ikev2_decryption_table` | an IKE SA: `SPIi,SPIr,SK_ei,SK_er,"cipher",SK_ai,SK_ar,"integrity"` |
//! | `esp_sa` | one direction of a Child SA: `"IPv4","source","destination","0xSPI","cipher","0xkey","integrity","0xkey"` |
//!
//! Wireshark from 4.5 on has two more columns in `esp_sa` for extended sequence numbers and takes lines without them as
//! well. It knows no ChaCha20-Poly1305, and an unknown name makes it refuse the whole file, so those SAs become comments.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use espdp_api::{EspAlgorithms, EspCipher, EspIntegrity, EspSpi, Secret};
use ike_proto::io::{ChildKeyExport, IkeKeyExport, IkeSpi, Notice};
use ike_proto::proposal::{IkeCipher, WIRESHARK_NO_INTEGRITY, WiresharkName};

/// The name of Wireshark's table for IKE SAs, and of its file.
pub(crate) const IKE_TABLE: &str = "ikev2_decryption_table";

/// The name of Wireshark's table for ESP SAs, and of its file.
pub(crate) const ESP_TABLE: &str = "esp_sa";

/// What lines begin with that Wireshark would refuse.
pub(crate) const NOT_DECODED: &str = "# not decoded by Wireshark: ";

/// The keys of the SAs alive, and the thread that writes those of every SA to the files.
#[derive(Debug)]
pub(crate) struct KeyLog {
    ike: Book<(IkeSpi, IkeSpi)>,
    esp: Book<EspSpi>,
    lines: Option<mpsc::Sender<(&'static str, Secret<String>)>>,
    writer: Option<JoinHandle<()>>,
}

impl KeyLog {
    /// Appends to the files in `folder`, which are made for the owner alone if they are not there.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut files =
            [(IKE_TABLE, append_to(&folder.join(IKE_TABLE))?), (ESP_TABLE, append_to(&folder.join(ESP_TABLE))?)];
        let (lines, incoming) = mpsc::channel::<(&'static str, Secret<String>)>();
        // A thread of its own, so that a slow disk does not hold the daemon's loop up.
        let writer = std::thread::Builder::new().name("keylog".into()).spawn(move || {
            for (table, line) in incoming {
                for (_, file) in files.iter_mut().filter(|(name, _)| *name == table) {
                    if let Err(error) = file.write_all(line.expose().as_bytes()) {
                        tracing::warn!(%error, table, "keys for Wireshark cannot be written");
                    }
                }
            }
        })?;
        Ok(Self { ike: Book::default(), esp: Book::default(), lines: Some(lines), writer: Some(writer) })
    }

    /// Takes keys down when there are some, and forgets those of SAs that are gone.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most notices are of no interest here, and so are future ones")]
    pub(crate) fn on_notice(&mut self, notice: &Notice) {
        match notice {
            Notice::IkeKeys(keys) => {
                let line = Secret::new(ike_line(keys));
                self.write(IKE_TABLE, &line);
                self.ike.add((keys.initiator_spi, keys.responder_spi), line);
            }
            Notice::ChildKeys(keys) => {
                let line = Secret::new(esp_lines(keys));
                self.write(ESP_TABLE, &line);
                self.esp.add(keys.spi_in, line);
            }
            Notice::IkeUp(sa) => self.ike.keep(&(sa.initiator_spi, sa.responder_spi)),
            Notice::ChildUp { child, .. } => self.esp.keep(&child.spi_in),
            Notice::IkeDown { sa, .. } => {
                self.ike.remove(&(sa.initiator_spi, sa.responder_spi));
                for child in &sa.children {
                    self.esp.remove(&child.spi_in);
                }
            }
            Notice::IkeRekeyed { old, sa } => {
                self.ike.remove(old);
                self.ike.keep(&(sa.initiator_spi, sa.responder_spi));
            }
            Notice::ChildDown { child, .. } => self.esp.remove(&child.spi_in),
            Notice::ChildRekeyed { old, new, .. } => {
                self.esp.remove(&old.spi_in);
                self.esp.keep(&new.spi_in);
            }
            _ => {}
        }
    }

    /// The contents of both files for the SAs alive now: IKE, ESP.
    pub(crate) fn alive(&self) -> (Secret<String>, Secret<String>) {
        let joined = |lines: &mut dyn Iterator<Item = &Secret<String>>| {
            Secret::new(lines.map(|line| line.expose().as_str()).collect::<String>())
        };
        (joined(&mut self.ike.lines()), joined(&mut self.esp.lines()))
    }

    fn write(&self, table: &'static str, line: &Secret<String>) {
        if let Some(lines) = &self.lines {
            drop(lines.send((table, line.clone()))); // fails only when the thread has panicked, which was reported
        }
    }
}

/// Waits until everything is written.
impl Drop for KeyLog {
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Some(writer) = self.writer.take() {
            drop(writer.join()); // a panic there was reported by the thread
        }
    }
}

/// Lines of the SAs alive. Those of whom nobody has said that they are up may never be: strangers begin SAs, and of two
/// that meet one goes. So only the latest of them are kept.
#[derive(Debug)]
struct Book<K> {
    up: BTreeMap<K, Secret<String>>,
    begun: VecDeque<(K, Secret<String>)>,
}

impl<K> Default for Book<K> {
    fn default() -> Self {
        Self { up: BTreeMap::new(), begun: VecDeque::new() }
    }
}

impl<K: Ord + Copy> Book<K> {
    /// An SA is begun.
    fn add(&mut self, key: K, line: Secret<String>) {
        if self.begun.len() >= MAX_BEGUN {
            self.begun.pop_front();
        }
        self.begun.push_back((key, line));
    }

    /// The SA is up.
    fn keep(&mut self, key: &K) {
        if let Some(at) = self.begun.iter().rposition(|(begun, _)| begun == key) {
            self.up.extend(self.begun.remove(at));
        }
    }

    fn remove(&mut self, key: &K) {
        self.up.remove(key);
        self.begun.retain(|(begun, _)| begun != key);
    }

    fn lines(&self) -> impl Iterator<Item = &Secret<String>> {
        self.up.values().chain(self.begun.iter().map(|(_, line)| line))
    }
}

/// SAs of which it is not known whether they come up: as many as strangers may have half open by default.
const MAX_BEGUN: usize = 1024;

/// Opens a file of keys for the owner alone, at its end.
///
/// # Errors
/// When it cannot be opened, or is a link, no file, or somebody else's.
pub(crate) fn append_to(path: &Path) -> io::Result<fs::File> {
    // The folder may be writable by others: a link there must not lead us somewhere else, nor a pipe make us wait.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    // Whoever owns the file, or has another name for it, could read the keys whatever its mode.
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() || found.nlink() != 1 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "what is there is no file of ours alone"));
    }
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// The line of an IKE SA.
fn ike_line(keys: &IkeKeyExport) -> String {
    let integrity = keys.suite.integrity.map_or(WIRESHARK_NO_INTEGRITY, WiresharkName::wireshark_name);
    let mut line = comment_if(keys.suite.cipher == IkeCipher::ChaCha20Poly1305);
    write!(line, "{},{},", keys.initiator_spi, keys.responder_spi).unwrap_or_default();
    line.push_str(&hex(&keys.sk_ei));
    line.push(',');
    line.push_str(&hex(&keys.sk_er));
    write!(line, ",\"{}\",", keys.suite.cipher.wireshark_name()).unwrap_or_default();
    line.push_str(&hex(&keys.sk_ai));
    line.push(',');
    line.push_str(&hex(&keys.sk_ar));
    writeln!(line, ",\"{integrity}\"").unwrap_or_default();
    line
}

/// The two lines of a Child SA: what the peer sends and what we send.
fn esp_lines(keys: &ChildKeyExport) -> String {
    let inbound = (keys.path.remote, keys.path.local, keys.spi_in, &keys.encryption_in, &keys.integrity_in);
    let outbound = (keys.path.local, keys.path.remote, keys.spi_out, &keys.encryption_out, &keys.integrity_out);
    [inbound, outbound]
        .into_iter()
        .map(|(source, destination, spi, encryption, integrity)| {
            let family = match source {
                IpAddr::V4(_) => "IPv4",
                IpAddr::V6(_) => "IPv6",
            };
            format!(
                "{}\"{family}\",\"{source}\",\"{destination}\",\"0x{spi}\",\"{}\",\"0x{}\",\"{}\",\"0x{}\"\n",
                comment_if(is_unknown_to_wireshark(keys.algorithms)),
                keys.algorithms.cipher.wireshark_name(),
                hex(encryption),
                keys.algorithms.integrity.wireshark_name(),
                hex(integrity),
            )
        })
        .collect()
}

/// What version 4.0 refuses the whole table for.
fn is_unknown_to_wireshark(algorithms: EspAlgorithms) -> bool {
    let EspAlgorithms { cipher, integrity, .. } = algorithms;
    let cipher = match cipher {
        EspCipher::ChaCha20Poly1305
        | EspCipher::AesCcm16 { .. }
        | EspCipher::AesCcm12 { .. }
        | EspCipher::AesCcm8 { .. }
        | EspCipher::AesGmac { .. } => true,
        EspCipher::AesGcm16 { .. }
        | EspCipher::AesGcm12 { .. }
        | EspCipher::AesGcm8 { .. }
        | EspCipher::AesCbc { .. }
        | EspCipher::AesCtr { .. }
        | EspCipher::Null => false,
    };
    cipher || integrity == EspIntegrity::AesCmac96
}

fn comment_if(unknown_to_wireshark: bool) -> String {
    if unknown_to_wireshark { NOT_DECODED.to_owned() } else { String::new() }
}

fn hex(key: &Secret<Vec<u8>>) -> String {
    key.expose().iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use espdp_api::{Encapsulation, EspAlgorithms, EspIntegrity, OuterPath};
    use ike_proto::proposal::{AdditionalGroups, IkeIntegrity, IkeSuite, KeyExchangeGroup, Prf};

    fn key(octet: u8, len: usize) -> Secret<Vec<u8>> {
        Secret::new(vec![octet; len])
    }

    fn ike_keys(cipher: IkeCipher, key_len: usize, integrity: Option<IkeIntegrity>, mac_len: usize) -> IkeKeyExport {
        IkeKeyExport {
            initiator_spi: IkeSpi([0x01, 0x58, 0xb8, 0xfb, 0x90, 0xb7, 0x62, 0x3d]),
            responder_spi: IkeSpi([0x13, 0x51, 0x46, 0x10, 0xce, 0xa1, 0x61, 0x60]),
            suite: IkeSuite {
                cipher,
                integrity,
                prf: Prf::HmacSha2_256,
                group: KeyExchangeGroup::Modp2048,
                additional: AdditionalGroups::default(),
            },
            sk_ei: key(0xe1, key_len),
            sk_er: key(0xe2, key_len),
            sk_ai: key(0xa1, mac_len),
            sk_ar: key(0xa2, mac_len),
        }
    }

    fn child_keys(cipher: EspCipher, key_len: usize, integrity: EspIntegrity, mac_len: usize) -> ChildKeyExport {
        ChildKeyExport {
            path: OuterPath {
                local: "192.168.10.1".parse().unwrap(),
                remote: "192.168.10.2".parse().unwrap(),
                encapsulation: Encapsulation::Esp,
            },
            algorithms: EspAlgorithms { cipher, integrity, extended_sequence_numbers: true },
            spi_in: EspSpi::try_from(0xc254_fe64).unwrap(),
            spi_out: EspSpi::try_from(0x0708_83c2).unwrap(),
            encryption_in: key(0x11, key_len),
            integrity_in: key(0x22, mac_len),
            encryption_out: key(0x33, key_len),
            integrity_out: key(0x44, mac_len),
        }
    }

    #[test]
    fn lines_of_ike_sas_are_as_wireshark_reads_them() {
        let aead = ike_keys(IkeCipher::AesGcm16 { key_bits: 256 }, 36, None, 0);
        assert_eq!(
            ike_line(&aead),
            format!(
                "0158b8fb90b7623d,13514610cea16160,{},{},\"AES-GCM-256 with 16 octet ICV [RFC5282]\",,,\"NONE [RFC4306]\"\n",
                "e1".repeat(36),
                "e2".repeat(36),
            )
        );
        let cbc = ike_keys(IkeCipher::AesCbc { key_bits: 256 }, 32, Some(IkeIntegrity::HmacSha2_256_128), 32);
        assert_eq!(
            ike_line(&cbc),
            format!(
                "0158b8fb90b7623d,13514610cea16160,{},{},\"AES-CBC-256 [RFC3602]\",{},{},\"HMAC_SHA2_256_128 [RFC4868]\"\n",
                "e1".repeat(32),
                "e2".repeat(32),
                "a1".repeat(32),
                "a2".repeat(32),
            )
        );
    }

    #[test]
    fn lines_of_esp_sas_name_the_sender_first() {
        let keys = child_keys(EspCipher::AesGcm16 { key_bits: 128 }, 20, EspIntegrity::None, 0);
        assert_eq!(
            esp_lines(&keys),
            format!(
                "\"IPv4\",\"192.168.10.2\",\"192.168.10.1\",\"0xc254fe64\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x{}\",\"NULL\",\"0x\"\n\
                 \"IPv4\",\"192.168.10.1\",\"192.168.10.2\",\"0x070883c2\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x{}\",\"NULL\",\"0x\"\n",
                "11".repeat(20),
                "33".repeat(20),
            )
        );
        let keys = child_keys(EspCipher::AesCbc { key_bits: 128 }, 16, EspIntegrity::HmacSha2_256_128, 32);
        let line = format!(
            "\"AES-CBC [RFC3602]\",\"0x{}\",\"HMAC-SHA-256-128 [RFC4868]\",\"0x{}\"\n",
            "33".repeat(16),
            "44".repeat(32)
        );
        assert!(esp_lines(&keys).ends_with(&line));
    }

    #[test]
    fn what_wireshark_cannot_decode_does_not_spoil_the_file() {
        let ike = ike_keys(IkeCipher::ChaCha20Poly1305, 36, None, 0);
        let child = child_keys(EspCipher::ChaCha20Poly1305, 36, EspIntegrity::None, 0);
        for line in ike_line(&ike).lines().chain(esp_lines(&child).lines()) {
            assert!(line.starts_with('#'), "{line}");
        }
    }

    #[test]
    fn files_are_appended_to_and_are_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys").join(ESP_TABLE);
        let keys = child_keys(EspCipher::AesGcm16 { key_bits: 128 }, 20, EspIntegrity::None, 0);
        for _ in 0..2 {
            let mut log = KeyLog::open(path.parent().unwrap()).unwrap();
            log.on_notice(&Notice::ChildKeys(Box::new(keys.clone())));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), esp_lines(&keys).repeat(2));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let trap = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &trap).unwrap();
        assert!(append_to(&trap).is_err());
    }

    #[test]
    fn keys_go_into_no_file_that_others_laid_out() {
        let folder = tempfile::tempdir().unwrap();
        let (file, twin, pipe) = (folder.path().join("file"), folder.path().join("twin"), folder.path().join("pipe"));
        fs::write(&file, "").unwrap();
        fs::hard_link(&file, &twin).unwrap();
        assert!(append_to(&twin).is_err(), "it has another name");
        fs::remove_file(&file).unwrap();
        assert!(append_to(&twin).is_ok());
        // Only root can give files away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&twin, Some(65534), None).unwrap();
            assert!(append_to(&twin).is_err(), "its owner could read the keys");
        }
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(append_to(&pipe).is_err(), "and without waiting for somebody who reads");
        // With a reader, opening it works.
        let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        assert!(append_to(&pipe).is_err());
        drop(reader);
    }

    #[test]
    fn only_the_keys_of_living_sas_are_dumped() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = KeyLog::open(folder.path()).unwrap();
        let ike = ike_keys(IkeCipher::AesGcm16 { key_bits: 256 }, 36, None, 0);
        let child = child_keys(EspCipher::AesGcm16 { key_bits: 128 }, 20, EspIntegrity::None, 0);
        log.on_notice(&Notice::IkeKeys(Box::new(ike.clone())));
        log.on_notice(&Notice::ChildKeys(Box::new(child.clone())));
        let (ike_lines, child_lines) = log.alive();
        assert_eq!((ike_lines.expose(), child_lines.expose()), (&ike_line(&ike), &esp_lines(&child)));
        let report = crate::daemon::testing::ike_sa();
        log.on_notice(&Notice::IkeRekeyed { old: (ike.initiator_spi, ike.responder_spi), sa: Box::new(report) });
        assert!(log.alive().0.expose().is_empty());
        assert!(!format!("{log:?}").contains("11111111"));
    }

    #[test]
    fn what_strangers_begin_is_forgotten_and_takes_the_place_of_nothing_that_is_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = KeyLog::open(folder.path()).unwrap();
        let begin = |log: &mut KeyLog, number: usize| {
            let mut keys = ike_keys(IkeCipher::AesGcm16 { key_bits: 256 }, 36, None, 0);
            keys.initiator_spi = IkeSpi(u64::try_from(number).unwrap().to_be_bytes());
            log.on_notice(&Notice::IkeKeys(Box::new(keys.clone())));
            keys
        };
        let first = begin(&mut log, 0);
        let (initiator_spi, responder_spi) = (first.initiator_spi, first.responder_spi);
        let sa = ike_proto::io::IkeSaReport { initiator_spi, responder_spi, ..crate::daemon::testing::ike_sa() };
        log.on_notice(&Notice::IkeUp(Box::new(sa.clone())));
        for number in 1..=3 * MAX_BEGUN {
            begin(&mut log, number);
        }
        let alive = log.alive().0;
        assert_eq!(alive.expose().lines().count(), 1 + MAX_BEGUN);
        assert!(alive.expose().contains(&ike_line(&first)));
        log.on_notice(&Notice::IkeDown { sa: Box::new(sa), reason: ike_proto::io::DownReason::Command });
        assert!(!log.alive().0.expose().contains(&ike_line(&first)));
    }
}
