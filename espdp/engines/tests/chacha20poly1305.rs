//! ChaCha20-Poly1305 over many packets, beside two libraries.

#[path = "support/chacha20poly1305.rs"]
mod differential;
#[path = "support/random.rs"]
mod random;

use esp_engines::chacha20poly1305::{Engine, Job, Refused};

#[test]
fn packets_of_all_lengths_are_sealed_and_opened_as_by_two_libraries() {
    let engine = Engine::detect().engine.expect("a processor that the engine runs on");
    differential::compare(engine, 1, 1500, 0..200);
    differential::compare(engine, 2, 600, 0..2101);
    differential::compare(engine, 3, 60, 8000..9001);
}

#[test]
fn what_is_no_packet_in_the_memory_is_refused_and_left_alone() {
    let engine = Engine::detect().engine.expect("a processor that the engine runs on");
    let key = engine.key(&[1; 32], [2; 4]);
    let mut memory = vec![5; 70_000];
    #[expect(clippy::reversed_empty_ranges, reason = "what a caller should not do")]
    let spans = [0..31, 5..36, 69_990..70_046, usize::MAX - 8..usize::MAX, 10..2, 0..66_000, 80_000..80_056];
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
}

#[test]
fn keys_show_nothing_of_themselves() {
    let engine = Engine::detect().engine.expect("a processor that the engine runs on");
    assert_eq!(format!("{:?}", engine.key(&[1; 32], [2; 4])), "Key { .. }");
}
