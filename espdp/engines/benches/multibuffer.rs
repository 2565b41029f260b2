//! How many clocks a packet takes in the engines that put packets side by side, beside library calls per packet, for one core.
//!
//! `cargo bench -p esp-engines --bench multibuffer -- [--quick]`
//!
//! Batches of 256 packets, sealed and opened in place, with extended sequence numbers; `mix` is seven short, four middle and one
//! long packet in turn. Clocks are those of the time stamp counter; of many rounds the lower quartile counts, because what else the
//! machine does only ever adds to them. Engine and library take turns.

#![expect(clippy::unwrap_used, reason = "a benchmark whose setting fails has nothing to measure")]

#[path = "../../core/benches/support/clock.rs"]
#[expect(unreachable_pub, dead_code, reason = "shared by the benchmarks")]
mod clock;

use std::ops::Range;

use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use clock::{clock, lower_quartile};
use esp_engines::{cbc_hmac, chacha20poly1305};

/// Octets of the packets inside, and what the mix has.
const OCTETS: [usize; 4] = [64, 256, 576, 1400];
const MIX: [usize; 12] = [64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 576, 64];
/// Packets in a batch.
const BATCH: usize = 256;
/// SAs whose packets come in turn.
const SAS: [usize; 2] = [1, 1000];

fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--quick") { 60 } else { 600 };
    println!("clocks per packet, seal/open");
    print!("{:<28} {:>5}", "engine", "sas");
    OCTETS.iter().for_each(|octets| print!(" {octets:>11}"));
    println!(" {:>11}", "mix");
    for sas in SAS {
        let mut ways: Vec<Box<dyn Way>> = Vec::new();
        if let Some(engine) = cbc_hmac::Engine::detect().engine {
            ways.push(Box::new(CbcEngine {
                engine,
                keys: (0..sas).map(|sa| CbcKey(engine.key(&[sa as u8; 32], &[1; 32], &[2; 16]).unwrap())).collect(),
            }));
        }
        ways.push(Box::new(CbcLibrary::new(sas)));
        if let Some(engine) = chacha20poly1305::Engine::detect().engine {
            let keys = (0..sas).map(|sa| ChaChaKey(engine.key(&[sa as u8; 32], [2; 4]))).collect();
            ways.push(Box::new(ChaChaEngine { engine, keys }));
        }
        ways.push(Box::new(ChaChaLibrary::new(sas)));
        let mut lines: Vec<_> = ways.iter().map(|way| format!("{:<28} {sas:>5}", way.name())).collect();
        for lens in OCTETS.iter().map(std::slice::from_ref).chain([&MIX[..]]) {
            for (line, way) in lines.iter_mut().zip(&mut ways) {
                let [seal, open] = measure(&mut **way, lens, rounds);
                line.push_str(&format!(" {:>11}", format!("{seal:.1}/{open:.1}")));
            }
        }
        lines.iter().for_each(|line| println!("{line}"));
    }
}

/// Clocks of sealing and opening.
fn measure(way: &mut dyn Way, lens: &[usize], rounds: usize) -> [f64; 2] {
    let mut end = 0;
    let spans: Vec<Range<usize>> = lens
        .iter()
        .cycle()
        .take(BATCH)
        .map(|len| {
            let start = end;
            end += way.sealed_len(*len);
            start..end
        })
        .collect();
    let mut memory = vec![1; end];
    let mut clocks = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let start = clock();
        way.seal(&mut memory, &spans, (round * BATCH) as u64);
        let sealed = clock();
        way.open(&mut memory, &spans);
        let opened = clock();
        clocks[0].push((sealed - start) as f64 / BATCH as f64);
        clocks[1].push((opened - sealed) as f64 / BATCH as f64);
    }
    clocks.map(lower_quartile)
}

/// What is measured.
trait Way {
    fn name(&self) -> &'static str;
    /// Octets of the ESP packet that carries a packet.
    fn sealed_len(&self, octets: usize) -> usize;
    fn seal(&mut self, memory: &mut [u8], spans: &[Range<usize>], first: u64);
    fn open(&mut self, memory: &mut [u8], spans: &[Range<usize>]);
}

struct CbcEngine {
    engine: cbc_hmac::Engine,
    keys: Vec<CbcKey>,
}

/// As an SA keeps its key.
struct CbcKey(Box<cbc_hmac::Key>);

impl CbcEngine {
    fn job(&self, at: usize, span: &Range<usize>) -> cbc_hmac::Job<'_> {
        // Far apart, so that the next one's key is not in the same cache lines.
        let CbcKey(key) = &self.keys[at * 617 % self.keys.len()];
        cbc_hmac::Job { key, span: span.clone(), high: Some(0) }
    }
}

impl Way for CbcEngine {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn sealed_len(&self, octets: usize) -> usize {
        40 + (octets + 2).next_multiple_of(16)
    }

    fn seal(&mut self, memory: &mut [u8], spans: &[Range<usize>], first: u64) {
        let jobs = spans.iter().enumerate().map(|(at, span)| (self.job(at, span), first + at as u64, ()));
        self.engine.seal(memory, jobs, |(), result| result.unwrap());
    }

    fn open(&mut self, memory: &mut [u8], spans: &[Range<usize>]) {
        let jobs = spans.iter().enumerate().map(|(at, span)| (self.job(at, span), ()));
        self.engine.open(memory, jobs, |(), result| result.unwrap());
    }
}

struct CbcLibrary {
    keys: Vec<(aes::Aes256, aws_lc_rs::hmac::Key)>,
}

impl CbcLibrary {
    fn new(sas: usize) -> Self {
        let mac = || aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[1; 32]);
        Self { keys: (0..sas).map(|sa| (aes::Aes256::new(&[sa as u8; 32].into()), mac())).collect() }
    }

    fn icv(key: &aws_lc_rs::hmac::Key, covered: &[u8]) -> [u8; 16] {
        let mut context = aws_lc_rs::hmac::Context::with_key(key);
        context.update(covered);
        context.update(&[0; 4]);
        *context.sign().as_ref().first_chunk().unwrap()
    }
}

impl Way for CbcLibrary {
    fn name(&self) -> &'static str {
        "RustCrypto CBC, aws-lc HMAC"
    }

    fn sealed_len(&self, octets: usize) -> usize {
        40 + (octets + 2).next_multiple_of(16)
    }

    fn seal(&mut self, memory: &mut [u8], spans: &[Range<usize>], first: u64) {
        for (at, span) in spans.iter().enumerate() {
            let (aes, mac) = &self.keys[at * 617 % self.keys.len()];
            let (covered, icv) = memory[span.clone()].split_last_chunk_mut::<16>().unwrap();
            let iv = u128::from(first + at as u64).to_be_bytes();
            covered[8..24].copy_from_slice(&iv);
            let blocks = aes::Block::cast_slice_from_core_mut(covered[24..].as_chunks_mut().0);
            cbc::Encryptor::inner_iv_init(aes, &iv.into()).encrypt_blocks(blocks);
            *icv = Self::icv(mac, covered);
        }
    }

    fn open(&mut self, memory: &mut [u8], spans: &[Range<usize>]) {
        for (at, span) in spans.iter().enumerate() {
            let (aes, mac) = &self.keys[at * 617 % self.keys.len()];
            let (covered, icv) = memory[span.clone()].split_last_chunk_mut::<16>().unwrap();
            assert_eq!(*icv, Self::icv(mac, covered));
            let (iv, blocks) = covered[8..].split_first_chunk_mut::<16>().unwrap();
            let blocks = aes::Block::cast_slice_from_core_mut(blocks.as_chunks_mut().0);
            cbc::Decryptor::inner_iv_init(aes, &(*iv).into()).decrypt_blocks(blocks);
        }
    }
}

struct ChaChaEngine {
    engine: chacha20poly1305::Engine,
    keys: Vec<ChaChaKey>,
}

/// As an SA keeps its key.
struct ChaChaKey(Box<chacha20poly1305::Key>);

impl ChaChaEngine {
    fn job(&self, at: usize, span: &Range<usize>) -> chacha20poly1305::Job<'_> {
        // Far apart, so that the next one's key is not in the same cache lines.
        let ChaChaKey(key) = &self.keys[at * 617 % self.keys.len()];
        chacha20poly1305::Job { key, span: span.clone(), high: Some(0) }
    }
}

impl Way for ChaChaEngine {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn sealed_len(&self, octets: usize) -> usize {
        32 + (octets + 2).next_multiple_of(4)
    }

    fn seal(&mut self, memory: &mut [u8], spans: &[Range<usize>], first: u64) {
        let jobs = spans.iter().enumerate().map(|(at, span)| (self.job(at, span), first + at as u64, ()));
        self.engine.seal(memory, jobs, |(), result| result.unwrap());
    }

    fn open(&mut self, memory: &mut [u8], spans: &[Range<usize>]) {
        let jobs = spans.iter().enumerate().map(|(at, span)| (self.job(at, span), ()));
        self.engine.open(memory, jobs, |(), result| result.unwrap());
    }
}

struct ChaChaLibrary {
    keys: Vec<LessSafeKey>,
}

impl ChaChaLibrary {
    fn new(sas: usize) -> Self {
        let key = |sa| LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[sa as u8; 32]).unwrap());
        Self { keys: (0..sas).map(key).collect() }
    }
}

impl Way for ChaChaLibrary {
    fn name(&self) -> &'static str {
        "aws-lc ChaCha20-Poly1305"
    }

    fn sealed_len(&self, octets: usize) -> usize {
        32 + (octets + 2).next_multiple_of(4)
    }

    fn seal(&mut self, memory: &mut [u8], spans: &[Range<usize>], first: u64) {
        for (at, span) in spans.iter().enumerate() {
            let key = &self.keys[at * 617 % self.keys.len()];
            let (header, rest) = memory[span.clone()].split_first_chunk_mut::<16>().unwrap();
            header[8..].copy_from_slice(&(first + at as u64).to_be_bytes());
            let (payload, icv) = rest.split_last_chunk_mut::<16>().unwrap();
            let nonce = Nonce::assume_unique_for_key(*header.last_chunk().unwrap());
            key.seal_in_place_scatter(nonce, Aad::from([1; 12]), payload, &[], icv).unwrap();
        }
    }

    fn open(&mut self, memory: &mut [u8], spans: &[Range<usize>]) {
        for (at, span) in spans.iter().enumerate() {
            let key = &self.keys[at * 617 % self.keys.len()];
            let (header, rest) = memory[span.clone()].split_first_chunk_mut::<16>().unwrap();
            let (payload, icv) = rest.split_last_chunk_mut::<16>().unwrap();
            let nonce = Nonce::assume_unique_for_key(*header.last_chunk().unwrap());
            key.open_in_place_separate_tag(nonce, Aad::from([1; 12]), icv, payload).unwrap();
        }
    }
}
