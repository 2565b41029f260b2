//! Values that are wiped when dropped and never printed.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Holds a secret: wiped on drop (R7296-2.12-1), `Debug` shows nothing of it.
///
/// There is no `PartialEq`: comparing secrets is for constant-time code that says so.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes `value` into custody.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Shows the secret to code that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// Gives write access, for example to fill a fresh key.
    pub fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> ZeroizeOnDrop for Secret<T> {}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use zeroize::Zeroize;

    use super::Secret;

    /// Counts how often it is wiped.
    #[derive(Clone, Default)]
    struct Key(Rc<Cell<u32>>);

    impl Zeroize for Key {
        fn zeroize(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    /// R7296-2.12-1.
    #[test]
    fn a_secret_is_wiped_whenever_it_is_dropped() {
        let key = Key::default();
        let secret = Secret::new(key.clone());
        let copy = secret.clone();
        drop(secret);
        assert_eq!(key.0.get(), 1);
        let moved = Some(copy);
        assert_eq!(key.0.get(), 1);
        drop(moved);
        assert_eq!(key.0.get(), 2);
    }

    #[test]
    fn debug_output_shows_nothing_of_the_secret() {
        assert_eq!(format!("{:?}", Secret::new(vec![1u8, 2, 3])), "Secret(..)");
    }
}
