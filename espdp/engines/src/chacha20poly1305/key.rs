//! What an SA is keyed with.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::vector::Block;

/// Keys of one direction of one SA. Made by [`super::Engine::key`].
#[repr(C, align(64))]
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Key {
    /// The two rows of ChaCha20's state that are the key.
    rows: [Block; 2],
    salt: [u8; 4],
}

impl Key {
    pub(super) fn new(key: &[u8; 32], salt: [u8; 4]) -> Box<Self> {
        // In its final place from the start, so that no copy stays behind.
        let mut made = Box::new(Self { rows: [[0; 16]; 2], salt });
        made.rows.as_flattened_mut().copy_from_slice(key);
        made
    }

    #[inline]
    pub(super) fn rows(&self) -> &[Block; 2] {
        &self.rows
    }

    #[inline]
    pub(super) fn salt(&self) -> [u8; 4] {
        self.salt
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}
