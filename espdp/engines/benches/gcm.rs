//! How many clocks a packet takes in each engine, beside a library call per packet, for one core.
//!
//! `cargo bench -p esp-engines --bench gcm -- [--quick]`
//!
//! Batches of 64 packets, sealed and opened in place, with extended sequence numbers. Clocks are those of the time stamp counter; of many
//! rounds the lower quartile counts, because what else the machine does only ever adds to them. Engines and library take turns.

#![expect(clippy::unwrap_used, reason = "a benchmark whose setting fails has nothing to measure")]

#[path = "../../core/benches/support/clock.rs"]
#[expect(unreachable_pub, dead_code, reason = "shared by the benchmarks")]
mod clock;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use clock::{clock, lower_quartile};
use esp_engines::gcm::{Engine, Job, Key};

/// Octets of payload.
const OCTETS: [usize; 5] = [64, 256, 576, 1400, 9000];
/// Packets in a batch.
const BATCH: usize = 64;
/// Octets of SPI, sequence number and IV, and of the ICV.
const AROUND: usize = 32;
/// Octets of keys, and numbers of SAs whose packets come at random.
const SETTINGS: [(usize, usize); 4] = [(32, 1), (32, 1000), (16, 1), (16, 1000)];

fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--quick") { 300 } else { 5000 };
    println!("clocks per packet, seal/open");
    print!("{:<16} {:>4} {:>5}", "engine", "bits", "sas");
    OCTETS.iter().for_each(|octets| print!(" {octets:>11}"));
    println!();
    for (key_len, sas) in SETTINGS {
        let mut engines: Vec<Box<dyn Crypt>> = Vec::new();
        for engine in Engine::all() {
            engines.push(Box::new(Vectors {
                engine,
                sas: keys(key_len, sas, |key| Sa { key: engine.key(key, [7; 4]).unwrap() }),
            }));
        }
        engines.push(Box::new(Library { keys: keys(key_len, sas, library_key) }));
        let mut lines: Vec<_> = engines.iter().map(|engine| format!("{:<16}", engine.name())).collect();
        for octets in OCTETS {
            for (line, [seal, open]) in lines.iter_mut().zip(measure(&mut engines, octets, sas, rounds)) {
                line.push_str(&format!(" {:>11}", format!("{seal:.1}/{open:.1}")));
            }
        }
        for line in lines {
            let (name, clocks) = line.split_at(16);
            println!("{name} {:>4} {sas:>5}{clocks}", key_len * 8);
        }
    }
}

/// Clocks of sealing and opening for each engine.
fn measure(engines: &mut [Box<dyn Crypt>], octets: usize, sas: usize, rounds: usize) -> Vec<[f64; 2]> {
    let len = octets + AROUND;
    let mut memory = vec![1; len * BATCH];
    let mut clocks = vec![[Vec::new(), Vec::new()]; engines.len()];
    let mut random = 1u64;
    for round in 0..rounds {
        let order: Vec<usize> = (0..BATCH)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 33) as usize % sas
            })
            .collect();
        let first = (round * BATCH) as u64;
        for (engine, [seals, opens]) in engines.iter_mut().zip(&mut clocks) {
            let start = clock();
            engine.seal(&mut memory, len, first, &order);
            seals.push((clock() - start) as f64 / BATCH as f64);
            let start = clock();
            engine.open(&mut memory, len, &order);
            opens.push((clock() - start) as f64 / BATCH as f64);
        }
    }
    clocks.into_iter().map(|both| both.map(lower_quartile)).collect()
}

fn keys<K>(len: usize, sas: usize, key: impl Fn(&[u8]) -> K) -> Vec<K> {
    (0..sas).map(|number| key(&(0..len).map(|at| (at ^ number) as u8).collect::<Vec<_>>())).collect()
}

fn library_key(key: &[u8]) -> LessSafeKey {
    let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
    LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap())
}

/// What is measured.
trait Crypt {
    fn name(&self) -> &'static str;
    /// Packets of `len` octets, under IVs from `first` on.
    fn seal(&mut self, memory: &mut [u8], len: usize, first: u64, sas: &[usize]);
    fn open(&mut self, memory: &mut [u8], len: usize, sas: &[usize]);
}

struct Vectors {
    engine: Engine,
    sas: Vec<Sa>,
}

/// As an SA keeps its key.
struct Sa {
    key: Box<Key>,
}

impl Vectors {
    fn job(&self, len: usize, at: usize, sa: usize) -> Job<'_> {
        Job { key: &self.sas[sa].key, span: at * len..(at + 1) * len, high: Some(0) }
    }
}

impl Crypt for Vectors {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn seal(&mut self, memory: &mut [u8], len: usize, first: u64, sas: &[usize]) {
        let jobs = sas.iter().enumerate().map(|(at, sa)| (self.job(len, at, *sa), first + at as u64, ()));
        self.engine.seal(memory, jobs, |(), result| result.unwrap());
    }

    fn open(&mut self, memory: &mut [u8], len: usize, sas: &[usize]) {
        let jobs = sas.iter().enumerate().map(|(at, sa)| (self.job(len, at, *sa), ()));
        self.engine.open(memory, jobs, |(), result| result.unwrap());
    }
}

struct Library {
    keys: Vec<LessSafeKey>,
}

impl Crypt for Library {
    fn name(&self) -> &'static str {
        "aws-lc-rs"
    }

    fn seal(&mut self, memory: &mut [u8], len: usize, first: u64, sas: &[usize]) {
        for (at, (packet, sa)) in memory.chunks_mut(len).zip(sas).enumerate() {
            packet[8..16].copy_from_slice(&(first + at as u64).to_be_bytes());
            let (head, rest) = packet.split_at_mut(16);
            let (payload, icv) = rest.split_last_chunk_mut::<16>().unwrap();
            let (nonce, covered) = nonce_and_covered(head);
            self.keys[*sa].seal_in_place_scatter(nonce, Aad::from(covered), payload, &[], icv).unwrap();
        }
    }

    fn open(&mut self, memory: &mut [u8], len: usize, sas: &[usize]) {
        for (packet, sa) in memory.chunks_mut(len).zip(sas) {
            let (head, rest) = packet.split_at_mut(16);
            let (payload, icv) = rest.split_last_chunk_mut::<16>().unwrap();
            let (nonce, covered) = nonce_and_covered(head);
            self.keys[*sa].open_in_place_separate_tag(nonce, Aad::from(covered), icv, payload).unwrap();
        }
    }
}

fn nonce_and_covered(head: &[u8]) -> (Nonce, [u8; 12]) {
    let mut nonce = [7; 12];
    nonce[4..].copy_from_slice(&head[8..16]);
    let mut covered = [0; 12];
    covered[..4].copy_from_slice(&head[..4]);
    covered[8..].copy_from_slice(&head[4..8]);
    (Nonce::assume_unique_for_key(nonce), covered)
}
