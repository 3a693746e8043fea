//! Every case that was kept is tried again.

use std::{fs, path::Path};

/// Tries the cases of a target; there must be some.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut cases = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is there") {
        let path = entry.expect("an entry can be read").path();
        // Said only if the test fails: which one it was.
        println!("{}", path.display());
        target(&fs::read(&path).expect("a case can be read"));
        cases += 1;
    }
    assert!(cases >= 20, "{name}: only {cases} cases");
}

#[test]
fn frames_of_the_corpus_are_parsed_inside_their_bytes() {
    replay("parse", pointsman_fuzz::parse);
}

#[test]
fn traffic_of_the_corpus_is_counted_and_what_leaves_is_sound() {
    replay("pipeline", pointsman_fuzz::pipeline);
}

#[test]
fn icmp_messages_of_the_corpus_are_counted_and_what_leaves_is_sound() {
    replay("icmp", pointsman_fuzz::icmp);
}
