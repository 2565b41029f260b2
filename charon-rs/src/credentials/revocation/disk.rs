//! CRLs on disk, so that a restart need not fetch them again. What is read there is checked as if it came from the network.

use std::path::{Path, PathBuf};
use std::{fs, io};

use pki::hash::HashAlgorithm;

use super::cache::Key;

/// A folder of CRLs.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Option<PathBuf>);

impl Disk {
    /// A folder, which is made if it is not there; without one, nothing is kept.
    pub(super) fn new(folder: Option<&Path>) -> Self {
        let made = folder.filter(|folder| match fs::create_dir_all(folder) {
            Ok(()) => true,
            Err(error) => {
                tracing::info!(%error, folder = %folder.display(), "CRLs are not kept on disk");
                false
            }
        });
        Self(made.map(Path::to_owned))
    }

    /// What is kept under `key`, if it is not larger than `limit`.
    pub(super) fn read(&self, key: &Key, limit: usize) -> Option<Vec<u8>> {
        let file = self.file(key)?;
        let size = fs::metadata(&file).ok()?.len();
        (size <= u64::try_from(limit).unwrap_or(u64::MAX)).then(|| fs::read(&file).ok()).flatten()
    }

    /// Keeps something: all of it or, when anything goes wrong, what was there before.
    pub(super) fn write(&self, key: &Key, octets: &[u8]) {
        let Some(file) = self.file(key) else { return };
        let written = || -> io::Result<()> {
            let fresh = file.with_extension("new");
            fs::write(&fresh, octets)?;
            fs::rename(&fresh, &file)
        };
        if let Err(error) = written() {
            tracing::warn!(%error, file = %file.display(), "a CRL cannot be kept on disk");
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let files = self.0.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        for file in files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "crl")) {
            if let Err(error) = fs::remove_file(&file) {
                tracing::warn!(%error, file = %file.display(), "a CRL cannot be removed");
            }
        }
    }

    /// The name tells nothing and cannot lead anywhere else: it is a hash.
    fn file(&self, key: &Key) -> Option<PathBuf> {
        let digest = HashAlgorithm::Sha256.digest(&[key.issuer.as_slice(), key.uri.as_bytes()].concat());
        let name: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
        Some(self.0.as_ref()?.join(format!("{name}.crl")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uri: &str) -> Key {
        Key { uri: uri.into(), issuer: vec![1; 32], certificate: Vec::new() }
    }

    #[test]
    fn what_was_written_is_read_again_if_it_fits() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(Some(&folder.path().join("new/crls")));
        disk.write(&key("http://a/../../b"), b"first");
        disk.write(&key("http://a/../../b"), b"second");
        assert_eq!(disk.read(&key("http://a/../../b"), 6), Some(b"second".to_vec()));
        assert_eq!(disk.read(&key("http://a/../../b"), 5), None, "too large");
        assert_eq!(disk.read(&key("http://a/"), 100), None);
        let names: Vec<_> = fs::read_dir(folder.path().join("new/crls")).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "nothing half written stays");
        disk.clear();
        assert_eq!(disk.read(&key("http://a/../../b"), 100), None);
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        for disk in [Disk::new(None), Disk::new(Some(Path::new("/proc/none/crls")))] {
            disk.write(&key("http://a/"), b"x");
            assert_eq!(disk.read(&key("http://a/"), 100), None);
        }
    }
}
