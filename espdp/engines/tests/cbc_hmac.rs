//! AES-CBC with HMAC-SHA2-256 over many packets, beside two libraries.

#[path = "support/cbc_hmac.rs"]
mod differential;
#[path = "support/random.rs"]
mod random;

use esp_engines::cbc_hmac::{Engine, Job, Refused};

#[test]
fn packets_of_all_lengths_are_sealed_and_opened_as_by_two_libraries() {
    let engine = Engine::detect().engine.expect("a processor that the engine runs on");
    differential::compare(engine, 1, 1500, 0..12);
    differential::compare(engine, 2, 600, 0..133);
    differential::compare(engine, 3, 60, 500..570);
}

#[test]
fn what_is_no_packet_in_the_memory_is_refused_and_left_alone() {
    let engine = Engine::detect().engine.expect("a processor that the engine runs on");
    let key = engine.key(&[1; 32], &[2; 32], &[3; 16]).unwrap();
    let mut memory = vec![5; 70_000];
    #[expect(clippy::reversed_empty_ranges, reason = "what a caller should not do")]
    let spans = [0..39, 0..55, 69_990..70_046, usize::MAX - 8..usize::MAX, 10..2, 0..66_000, 80_000..80_056];
    let job = |span| Job { key: &key, span, high: None };
    let mut refused = 0;
    engine.seal(&mut memory, spans.iter().cloned().map(|span| (job(span), 1, ())), |(), result| {
        assert_eq!(result, Err(Refused::Span));
        refused += 1;
    });
    engine.open(&mut memory, spans.iter().cloned().map(|span| (job(span), ())), |(), result| {
        assert_eq!(result, Err(Refused::Span));
        refused += 1;
    });
    assert_eq!((refused, memory), (2 * spans.len(), vec![5; 70_000]));
    assert!(engine.key(&[1; 31], &[2; 32], &[3; 16]).is_none());
}

#[test]
fn keys_show_nothing_of_themselves() {
    let engine = Engine::detect().engine.expect("a processor that the engine runs on");
    assert_eq!(format!("{:?}", engine.key(&[1; 16], &[2; 32], &[3; 16]).unwrap()), "Key { rounds: 10, .. }");
}
