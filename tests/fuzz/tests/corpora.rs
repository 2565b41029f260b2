//! The corpora, as they are and a bit changed.

use fuzz::mutate::Mutator;
use fuzz::{TARGETS, Target};

fn replay(name: &str, changed: usize) {
    let Some(target) = Target::named(name) else { panic!("there is no target {name}") };
    let corpus = target.corpus().unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!corpus.is_empty(), "nothing to replay");
    for input in &corpus {
        (target.run)(input);
    }
    let mut mutator = Mutator::new(2, corpus);
    for _ in 0..changed {
        (target.run)(&mutator.next_input());
    }
}

macro_rules! corpora {
    ($($test:ident: $name:literal, $changed:literal;)*) => {
        $(
            #[test]
            fn $test() {
                replay($name, $changed);
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$($name),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(replayed));
        }
    };
}

corpora! {
    datagrams_harm_no_engine: "datagram", 100;
    payloads_harm_no_engine: "payloads", 100;
    fragments_are_put_together_as_the_rfc_says: "fragments", 1000;
    proposals_are_read_and_agreed_on: "proposals", 1000;
    selectors_are_read_and_narrowed: "selectors", 1000;
    certificates_are_read_and_chained: "certificates", 200;
    vici_is_read: "vici", 1000;
}
