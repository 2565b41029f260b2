//! AES in counter mode (RFC 3686), always beside a MAC.

use ::ctr::{Ctr32BE, CtrCore};
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher};
use aes::{Aes128, Aes192, Aes256};
use zeroize::Zeroize;

use super::ESP_HEADER_LEN;

/// AES keyed for counter mode.
///
/// ```text
/// counter block:  ┌───────────────┬───────────────────────────────┬───────────────┐
///                 │ salt (4)      │ IV (8): the sequence number   │ counter (4)   │  from 1 on
///                 └───────────────┴───────────────────────────────┴───────────────┘
/// ```
pub(super) struct Ctr {
    cipher: Aes,
    salt: [u8; SALT_LEN],
}

enum Aes {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

const SALT_LEN: usize = 4;
const IV_LEN: usize = 8;

impl Ctr {
    /// `None` when the key's length is not one of AES with a salt.
    pub(super) fn new(key_and_salt: &[u8]) -> Option<Self> {
        let (key, salt) = key_and_salt.split_last_chunk::<SALT_LEN>()?;
        let cipher = match key.len() {
            16 => Aes::Aes128(Aes128::new_from_slice(key).ok()?),
            24 => Aes::Aes192(Aes192::new_from_slice(key).ok()?),
            32 => Aes::Aes256(Aes256::new_from_slice(key).ok()?),
            _ => return None,
        };
        Some(Self { cipher, salt: *salt })
    }

    /// Encrypts all between the IV that stands in the packet and the ICV; or decrypts it, which is the same.
    pub(super) fn apply(&self, packet: &mut [u8], icv_len: usize) -> Option<()> {
        let end = packet.len().checked_sub(icv_len)?;
        let (iv, payload) = packet.get_mut(ESP_HEADER_LEN..end)?.split_first_chunk_mut::<IV_LEN>()?;
        let [s0, s1, s2, s3] = self.salt;
        let [i0, i1, i2, i3, i4, i5, i6, i7] = *iv;
        let first = [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7, 0, 0, 0, 1].into();
        match &self.cipher {
            Aes::Aes128(aes) => Ctr32BE::from_core(CtrCore::inner_iv_init(aes, &first)).try_apply_keystream(payload),
            Aes::Aes192(aes) => Ctr32BE::from_core(CtrCore::inner_iv_init(aes, &first)).try_apply_keystream(payload),
            Aes::Aes256(aes) => Ctr32BE::from_core(CtrCore::inner_iv_init(aes, &first)).try_apply_keystream(payload),
        }
        .ok()
    }
}

impl Drop for Ctr {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

impl std::fmt::Debug for Ctr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ctr(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// RFC 3686 §6, vectors 1 to 9: key and nonce, IV, plaintext, ciphertext.
    const VECTORS: [[&str; 4]; 9] = [
        [
            "ae6852f8121067cc4bf7a5765577f39e 00000030",
            "0000000000000000",
            "53696e676c6520626c6f636b206d7367",
            "e4095d4fb7a7b3792d6175a3261311b8",
        ],
        [
            "7e24067817fae0d743d6ce1f32539163 006cb6db",
            "c0543b59da48d90b",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28",
        ],
        [
            "7691be035e5020a8ac6e618529f9a0dc 00e0017b",
            "27777f3f4a1786f0",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
            "c1cf48a89f2ffdd9cf4652e9efdb72d74540a42bde6d7836d59a5ceaaef3105325b2072f",
        ],
        [
            "16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb78515 00000048",
            "36733c147d6d93cb",
            "53696e676c6520626c6f636b206d7367",
            "4b55384fe259c9c84e7935a003cbe928",
        ],
        [
            "7c5cb2401b3dc33c19e7340819e0f69c678c3db8e6f6a91a 0096b03b",
            "020c6eadc2cb500d",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "453243fc609b23327edfaafa7131cd9f8490701c5ad4a79cfc1fe0ff42f4fb00",
        ],
        [
            "02bf391ee8ecb159b959617b0965279bf59b60a786d3e0fe 0007bdfd",
            "5cbd60278dcc0912",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
            "96893fc55e5c722f540b7dd1ddf7e758d288bc95c69165884536c811662f2188abee0935",
        ],
        [
            "776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c104 00000060",
            "db5672c97aa8f0b2",
            "53696e676c6520626c6f636b206d7367",
            "145ad01dbf824ec7560863dc71e3e0c0",
        ],
        [
            "f6d66d6bd52d59bb0796365879eff886c66dd51a5b6a99744b50590c87a23884 00faac24",
            "c1585ef15a43d875",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "f05e231b3894612c49ee000b804eb2a9b8306b508f839d6a5530831d9344af1c",
        ],
        [
            "ff7a617ce69148e4f1726e2f43581de2aa62d9f805532edff1eed687fb54153d 001cc5b7",
            "51a51d70a1c11148",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
            "eb6c52821d0bbbf7ce7594462aca4faab407df866569fd07f48cc0b583d6071f1ec0e6b8",
        ],
    ];

    #[test]
    fn the_vectors_of_rfc_3686_come_out() {
        for (number, [key, iv, plain, cipher]) in VECTORS.into_iter().enumerate() {
            let ctr = Ctr::new(&octets(key)).unwrap();
            let mut packet = [vec![0; 8], octets(iv), octets(plain)].concat();
            ctr.apply(&mut packet, 0).unwrap();
            assert_eq!(packet[16..], octets(cipher), "vector {}", number + 1);
            ctr.apply(&mut packet, 0).unwrap();
            assert_eq!(packet[16..], octets(plain));
        }
    }
}
