//! AES-CBC (RFC 3602), always beside a MAC.

use aes::cipher::{BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128, Aes192, Aes256, Block};
use espdp_api::Secret;

use super::ESP_HEADER_LEN;

/// AES keyed for CBC, and the key that its IVs come from.
pub(super) struct Cbc {
    cipher: Aes,
    /// IVs must be unpredictable to whoever chooses the plaintext (RFC 3602 §2.1): an IV is the sequence number encrypted
    /// under this key, which is used for nothing else.
    iv_cipher: Aes128,
}

enum Aes {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

const BLOCK_LEN: usize = 16;

impl Cbc {
    /// `None` when the key's length is not one of AES.
    pub(super) fn new(key: &[u8], iv_key: &Secret<[u8; 16]>) -> Option<Self> {
        let cipher = match key.len() {
            16 => Aes::Aes128(Aes128::new_from_slice(key).ok()?),
            24 => Aes::Aes192(Aes192::new_from_slice(key).ok()?),
            32 => Aes::Aes256(Aes256::new_from_slice(key).ok()?),
            _ => return None,
        };
        Some(Self { cipher, iv_cipher: Aes128::new_from_slice(iv_key.expose()).ok()? })
    }

    /// The IV of the packet with this sequence number.
    pub(super) fn iv(&self, sequence: u64) -> [u8; BLOCK_LEN] {
        let mut iv = Block::from(u128::from(sequence).to_be_bytes());
        self.iv_cipher.encrypt_block(&mut iv);
        iv.into()
    }

    /// Encrypts all between the IV that stands in the packet and the ICV. `None` when that is no whole number of blocks.
    pub(super) fn encrypt(&self, packet: &mut [u8], icv_len: usize) -> Option<()> {
        let (iv, blocks) = split(packet, icv_len)?;
        let (iv, blocks) = (Block::from(*iv), Block::cast_slice_from_core_mut(blocks));
        match &self.cipher {
            Aes::Aes128(aes) => ::cbc::Encryptor::inner_iv_init(aes, &iv).encrypt_blocks(blocks),
            Aes::Aes192(aes) => ::cbc::Encryptor::inner_iv_init(aes, &iv).encrypt_blocks(blocks),
            Aes::Aes256(aes) => ::cbc::Encryptor::inner_iv_init(aes, &iv).encrypt_blocks(blocks),
        }
        Some(())
    }

    /// Decrypts all between IV and ICV. `None` when that is no whole number of blocks.
    pub(super) fn decrypt(&self, packet: &mut [u8], icv_len: usize) -> Option<()> {
        let (iv, blocks) = split(packet, icv_len)?;
        let (iv, blocks) = (Block::from(*iv), Block::cast_slice_from_core_mut(blocks));
        match &self.cipher {
            Aes::Aes128(aes) => ::cbc::Decryptor::inner_iv_init(aes, &iv).decrypt_blocks(blocks),
            Aes::Aes192(aes) => ::cbc::Decryptor::inner_iv_init(aes, &iv).decrypt_blocks(blocks),
            Aes::Aes256(aes) => ::cbc::Decryptor::inner_iv_init(aes, &iv).decrypt_blocks(blocks),
        }
        Some(())
    }
}

impl std::fmt::Debug for Cbc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cbc(..)")
    }
}

/// The IV, and what is encrypted.
fn split(packet: &mut [u8], icv_len: usize) -> Option<(&mut [u8; BLOCK_LEN], &mut [[u8; BLOCK_LEN]])> {
    let end = packet.len().checked_sub(icv_len)?;
    let (iv, payload) = packet.get_mut(ESP_HEADER_LEN..end)?.split_first_chunk_mut()?;
    match payload.as_chunks_mut() {
        (blocks, []) => Some((iv, blocks)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// RFC 3602 §4, cases 1 to 4: key, IV, plaintext, ciphertext. The whole packets of cases 5 to 8 are with the other
    /// vectors of ESP.
    const CASES: [[&str; 4]; 4] = [
        [
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            "53696e676c6520626c6f636b206d7367",
            "e353779c1079aeb82708942dbe77181a",
        ],
        [
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        ],
        [
            "6c3ea0477630ce21a2ce334aa746c2cd",
            "c782dc4c098c66cbd9cd27d825682c81",
            "5468697320697320612034382d62797465206d657373616765202865786163746c7920332041455320626c6f636b7329",
            "d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5021c19216bad525c8579695d83ba2684",
        ],
        [
            "56e47a38c5598974bc46903dba290349",
            "8ce82eefbea0da3c44699ed7db51b7d9",
            "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf\
             c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf",
            "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e\
             35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55",
        ],
    ];

    #[test]
    fn the_vectors_of_rfc_3602_come_out() {
        for [key, iv, plain, cipher] in CASES {
            let cbc = Cbc::new(&octets(key), &Secret::new([0; 16])).unwrap();
            let mut packet = [vec![0; 8], octets(iv), octets(plain)].concat();
            cbc.encrypt(&mut packet, 0).unwrap();
            assert_eq!(packet[24..], octets(cipher));
            cbc.decrypt(&mut packet, 0).unwrap();
            assert_eq!(packet[24..], octets(plain));
        }
    }

    #[test]
    fn ivs_differ_and_show_nothing_of_the_sequence() {
        let cbc = Cbc::new(&[1; 32], &Secret::new([2; 16])).unwrap();
        let other = Cbc::new(&[1; 32], &Secret::new([3; 16])).unwrap();
        assert_ne!(cbc.iv(1), cbc.iv(2));
        assert_ne!(cbc.iv(1), other.iv(1));
    }
}
