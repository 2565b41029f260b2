//! Packets of every length, place, key length and kind of sequence number, sealed and opened by an engine and by two libraries.

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm, aes::Aes192};
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use esp_engines::gcm::{Engine, Job, Key, Refused};

/// Octets of payload up to which each length comes with each place and setting.
const EACH: usize = 2100;
/// Every so many packets there is one with up to this many octets of payload.
const LONG: (usize, usize) = (16, 9000);
/// Places of a packet's start in a cache line.
const PLACES: usize = 64;
/// Packets in a batch.
const BATCH: usize = 8;
/// Keys of each length.
const KEYS: usize = 5;
/// Settings: three key lengths, with and without extended sequence numbers.
const SETTINGS: usize = 6;
/// Octets of header, and of the ICV.
const HEADER: usize = 16;
const ICV: usize = 16;

/// How many packets have each length, place and setting once, the long ones beside them included.
pub fn round() -> usize {
    let each = (EACH + 1) * PLACES * SETTINGS;
    each + each / (LONG.0 - 1) + 1
}

/// Seals and opens `packets` packets. Panics at the first difference.
pub fn check(engine: Engine, packets: usize, seed: u64) {
    let mut random = Random(seed);
    let sas: Vec<Sa> = (0..3 * KEYS).map(|number| Sa::new(engine, [16, 24, 32][number % 3], &mut random)).collect();
    let mut memory = Memory { room: vec![0; BATCH * (LONG.1 + 256) + PLACES] };
    let mut plan = Plan { packet: 0, systematic: 0 };
    for _ in 0..packets.div_ceil(BATCH) {
        let is_dense = random.below(4) == 0;
        let mut end = 0;
        let octets = memory.octets();
        let batch: Vec<Case<'_>> = (0..BATCH)
            .map(|_| {
                let case = plan.next(&sas, end, is_dense, &mut random);
                end = case.start + case.len();
                case
            })
            .collect();
        // Some octets behind the last packet, which must stay as they are.
        let octets = &mut octets[..end + PLACES];
        random.fill(octets);
        check_batch(engine, &batch, octets, &mut random);
    }
}

fn check_batch(engine: Engine, batch: &[Case<'_>], octets: &mut [u8], random: &mut Random) {
    let plain = octets.to_vec();
    let mut expected = plain.clone();
    for case in batch {
        case.sa.seal_by_libraries(case, &mut expected[case.start..][..case.len()]);
    }
    let jobs = batch.iter().map(|case| (case.job(), case.iv, ()));
    engine.seal(octets, jobs, |(), result| assert_eq!(result, Ok(())));
    for case in batch {
        assert_eq!(
            octets[case.start..][..case.len()],
            expected[case.start..][..case.len()],
            "sealed by {}: {case:?}",
            engine.name()
        );
    }
    assert!(octets == expected, "{} wrote outside of a packet: {batch:?}", engine.name());

    // One bit of some packets changes; the others come out as they were, and nothing around them is touched.
    let broken: Vec<Option<usize>> =
        batch.iter().map(|case| (random.below(8) == 0).then(|| random.below(case.len() * 8))).collect();
    let mut results = Vec::new();
    for (case, bit) in batch.iter().zip(&broken) {
        if let Some(bit) = bit {
            octets[case.start + bit / 8] ^= 1 << (bit % 8);
        }
    }
    engine.open(octets, batch.iter().map(|case| (case.job(), ())), |(), result| results.push(result));
    for ((case, bit), result) in batch.iter().zip(&broken).zip(results) {
        let expected_result = if bit.is_some() { Err(Refused::Icv) } else { Ok(()) };
        assert_eq!(result, expected_result, "opened by {}: {case:?}, bit {bit:?}", engine.name());
        let span = case.start..case.start + case.len();
        if bit.is_some() {
            octets[span.clone()].copy_from_slice(&expected[span.clone()]);
        }
        // What is opened has its header and ICV, and the payload in clear.
        let (payload, icv) = (span.start + HEADER..span.end - ICV, span.end - ICV..span.end);
        if bit.is_none() {
            assert_eq!(octets[payload.clone()], plain[payload.clone()], "opened by {}: {case:?}", engine.name());
            octets[payload.clone()].copy_from_slice(&expected[payload]);
            octets[icv.clone()].copy_from_slice(&expected[icv]);
        }
    }
    assert!(octets == expected, "{} wrote outside of a packet: {batch:?}", engine.name());
}

/// Which packet comes next.
struct Plan {
    packet: usize,
    systematic: usize,
}

impl Plan {
    fn next<'s>(&mut self, sas: &'s [Sa], end: usize, is_dense: bool, random: &mut Random) -> Case<'s> {
        self.packet += 1;
        let sequence = random.next();
        let (payload, place, setting) = if self.packet.is_multiple_of(LONG.0) {
            (EACH + 1 + random.below(LONG.1 - EACH), random.below(PLACES), random.below(SETTINGS))
        } else {
            let number = self.systematic;
            self.systematic += 1;
            let (payload, rest) = (number % (EACH + 1), number / (EACH + 1));
            (payload, rest % PLACES, rest / PLACES % SETTINGS)
        };
        let gap = if is_dense { 0 } else { (place + PLACES - end % PLACES) % PLACES };
        let sa = &sas[3 * random.below(KEYS) + setting % 3];
        let high = (setting >= 3).then_some((sequence >> 32) as u32);
        Case { sa, start: end + gap, payload, iv: sequence, high }
    }
}

/// One packet.
struct Case<'s> {
    sa: &'s Sa,
    start: usize,
    payload: usize,
    iv: u64,
    high: Option<u32>,
}

impl Case<'_> {
    fn len(&self) -> usize {
        HEADER + self.payload + ICV
    }

    fn job(&self) -> Job<'_> {
        Job { key: &self.sa.key, span: self.start..self.start + self.len(), high: self.high }
    }
}

impl std::fmt::Debug for Case<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sa, start, payload, high, .. } = self;
        write!(f, "{payload} octets at {start}, {:?}, high half {high:?}", sa.key)
    }
}

/// A key, three times.
struct Sa {
    key: Box<Key>,
    salt: [u8; 4],
    aws_lc: LessSafeKey,
    rust_crypto: RustCrypto,
}

enum RustCrypto {
    Aes128(Aes128Gcm),
    Aes192(AesGcm<Aes192, U12>),
    Aes256(Aes256Gcm),
}

impl Sa {
    fn new(engine: Engine, key_len: usize, random: &mut Random) -> Self {
        let (mut key, mut salt) = (vec![0; key_len], [0; 4]);
        random.fill(&mut key);
        random.fill(&mut salt);
        let (algorithm, rust_crypto) = match key_len {
            16 => (&AES_128_GCM, RustCrypto::Aes128(KeyInit::new_from_slice(&key).unwrap())),
            24 => (&AES_192_GCM, RustCrypto::Aes192(KeyInit::new_from_slice(&key).unwrap())),
            _ => (&AES_256_GCM, RustCrypto::Aes256(KeyInit::new_from_slice(&key).unwrap())),
        };
        let aws_lc = LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap());
        Self { key: engine.key(&key, salt).unwrap(), salt, aws_lc, rust_crypto }
    }

    /// What must come out, for which the two must agree.
    fn seal_by_libraries(&self, case: &Case<'_>, packet: &mut [u8]) {
        packet[8..HEADER].copy_from_slice(&case.iv.to_be_bytes());
        let (header, rest) = packet.split_at_mut(HEADER);
        let (payload, icv) = rest.split_last_chunk_mut::<ICV>().unwrap();
        let covered = match case.high {
            None => header[..8].to_vec(),
            Some(high) => [&header[..4], &high.to_be_bytes(), &header[4..8]].concat(),
        };
        let nonce: [u8; 12] = std::array::from_fn(|at| if at < 4 { self.salt[at] } else { header[at + 4] });
        let mut again = payload.to_vec();
        let tag = match &self.rust_crypto {
            RustCrypto::Aes128(aes) => aes.encrypt_inout_detached(&nonce.into(), &covered, again.as_mut_slice().into()),
            RustCrypto::Aes192(aes) => aes.encrypt_inout_detached(&nonce.into(), &covered, again.as_mut_slice().into()),
            RustCrypto::Aes256(aes) => aes.encrypt_inout_detached(&nonce.into(), &covered, again.as_mut_slice().into()),
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.aws_lc.seal_in_place_scatter(nonce, Aad::from(&covered), payload, &[], icv).unwrap();
        assert_eq!((&*payload, &icv[..]), (&again[..], &tag.unwrap()[..]), "the libraries do not agree");
    }
}

/// Memory that starts on a cache line.
struct Memory {
    room: Vec<u8>,
}

impl Memory {
    fn octets(&mut self) -> &mut [u8] {
        let skip = self.room.as_ptr().align_offset(PLACES);
        &mut self.room[skip..]
    }
}

/// SplitMix64: the same cases for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn fill(&mut self, octets: &mut [u8]) {
        for chunk in octets.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
