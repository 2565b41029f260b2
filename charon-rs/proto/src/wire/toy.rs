//! A cipher for tests.

use super::{Inauthentic, MessageProtection};
use crate::SecureRandom;

/// A cipher that hides nothing and a checksum that protects nothing, to see where what goes.
pub(super) struct Toy {
    /// Octets of a block.
    pub(super) block: usize,
}

impl MessageProtection for Toy {
    fn iv_len(&self) -> usize {
        8
    }

    fn block_len(&self) -> usize {
        self.block
    }

    fn icv_len(&self) -> usize {
        2
    }

    fn seal(&mut self, random: &mut dyn SecureRandom, message: &mut [u8], body: usize) {
        random.fill_public(&mut message[body..body + 8]);
        let icv = message.len() - 2;
        message[body + 8..icv].iter_mut().for_each(|octet| *octet ^= 0x55);
        let sum = checksum(&message[..icv]);
        message[icv..].copy_from_slice(&sum);
    }

    fn open(&self, message: &[u8], body: usize) -> Result<Vec<u8>, Inauthentic> {
        let (signed, icv) = message.split_at(message.len() - 2);
        if checksum(signed) != icv {
            return Err(Inauthentic);
        }
        Ok(signed[body + 8..].iter().map(|octet| octet ^ 0x55).collect())
    }
}

fn checksum(octets: &[u8]) -> [u8; 2] {
    octets.iter().fold(0u16, |sum, &octet| sum.rotate_left(3) ^ u16::from(octet)).to_be_bytes()
}
