//! Published vectors.

use super::*;

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Seals one packet of zeros behind a header, and gives all of it.
fn seal_zeros(engine: Engine, key: &[u8], payload: usize) -> Vec<u8> {
    let key = engine.key(key, [0; 4]).unwrap();
    let mut memory = vec![0; 32 + payload];
    let span = 0..memory.len();
    let job = Job { key: &key, span, high: None };
    engine.seal(&mut memory, [(job, 0, ())].into_iter(), |(), result| result.unwrap());
    memory
}

#[test]
fn the_key_stream_is_that_of_the_published_cases() {
    // Test cases 2 and 14 of "The Galois/Counter Mode of Operation": the first block of zeros under a key and nonce of zeros.
    for engine in Engine::all() {
        assert_eq!(seal_zeros(engine, &[0; 16], 16)[16..32], octets("0388dace60b6a392f328c2b971b2fe78"));
        assert_eq!(seal_zeros(engine, &[0; 32], 16)[16..32], octets("cea7403d4d606b6e074ec5d3baf39d18"));
    }
}
