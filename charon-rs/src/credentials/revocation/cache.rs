//! What was fetched, as long as it holds. Whoever wants what is being fetched already waits for that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use pki::time::UnixTime;
use tokio::sync::OnceCell;

/// Entries of one cache; entries are only made for certificates that trusted CAs issued.
const MAX_ENTRIES: usize = 1024;

/// What an entry is about: where it comes from, who signed it, and which certificate if it is about just one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) uri: String,
    /// The fingerprint of the issuer.
    pub(super) issuer: Vec<u8>,
    /// The fingerprint of the certificate; empty for CRLs.
    pub(super) certificate: Vec<u8>,
}

/// Something that was fetched, or why it was not, and until when that holds.
#[derive(Clone, Debug)]
pub(super) struct Held<T> {
    pub(super) content: Result<T, String>,
    pub(super) until: UnixTime,
}

type Cell<T> = Arc<OnceCell<Held<T>>>;

/// Things that were fetched.
#[derive(Debug)]
pub(super) struct Cache<T>(Mutex<BTreeMap<Key, Cell<T>>>);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Cache<T> {
    /// What holds now, or what `fetch` gives.
    pub(super) async fn get(&self, key: Key, now: UnixTime, fetch: impl Future<Output = Held<T>>) -> Held<T> {
        let cell = self.cell(key, now);
        // When the one who fetches is gone before it is done, the next one who waits does it.
        cell.get_or_init(|| fetch).await.clone()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn cell(&self, key: Key, now: UnixTime) -> Cell<T> {
        let mut cells = self.lock();
        let holds = |cell: &Cell<T>| cell.get().is_none_or(|held| now < held.until);
        if let Some(cell) = cells.get(&key).filter(|cell| holds(cell)) {
            return Arc::clone(cell);
        }
        if cells.len() >= MAX_ENTRIES {
            cells.retain(|_, cell| holds(cell));
        }
        if cells.len() >= MAX_ENTRIES {
            cells.clear();
        }
        let cell = Cell::default();
        cells.insert(key, Arc::clone(&cell));
        cell
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Cell<T>>> {
        // Nothing in there can be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn key(uri: &str) -> Key {
        Key { uri: uri.into(), issuer: Vec::new(), certificate: Vec::new() }
    }

    #[tokio::test]
    async fn what_is_wanted_twice_at_once_is_fetched_once() {
        let (cache, fetched) = (Cache::default(), AtomicUsize::new(0));
        let (release, released) = tokio::sync::watch::channel(false);
        let get = || {
            let mut released = released.clone();
            let fetched = &fetched;
            cache.get(key("a"), UnixTime(0), async move {
                fetched.fetch_add(1, Ordering::Relaxed);
                released.wait_for(|go| *go).await.unwrap();
                Held { content: Ok(7), until: UnixTime(10) }
            })
        };
        let release = async { release.send(true).unwrap() };
        let (first, second, ()) = tokio::join!(get(), get(), release);
        assert_eq!((first.content, second.content), (Ok(7), Ok(7)));
        assert_eq!(fetched.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn entries_hold_until_their_end_and_failures_too() {
        let cache = Cache::default();
        let get = async |now: u64, value: Result<i32, String>| {
            let held = Held { content: value, until: UnixTime(now + 10) };
            cache.get(key("a"), UnixTime(now), async { held }).await.content
        };
        assert_eq!(get(0, Err("down".into())).await, Err("down".to_owned()));
        assert_eq!(get(9, Ok(1)).await, Err("down".to_owned()));
        assert_eq!(get(10, Ok(2)).await, Ok(2));
        assert_eq!(get(19, Ok(3)).await, Ok(2));
        cache.clear();
        assert_eq!(get(19, Ok(3)).await, Ok(3));
    }

    #[tokio::test]
    async fn the_number_of_entries_is_bounded() {
        let cache = Cache::default();
        for index in 0..2 * MAX_ENTRIES {
            let held = Held { content: Ok(()), until: UnixTime(10) };
            cache.get(key(&index.to_string()), UnixTime(0), async { held }).await.content.unwrap();
        }
        assert!(cache.lock().len() <= MAX_ENTRIES);
    }
}
