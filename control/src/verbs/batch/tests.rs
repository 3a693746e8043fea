//! A batch has the effect of its verbs one by one, down to what the schedulers pick next.

use super::*;
use crate::{
    config::{compile::Compiler, slots::Moment},
    kernel::testing,
};
use pointsman_dataplane::{
    conn::key::Key4,
    scheduler::Opening,
    snapshot::Snapshot,
    time::{Nanos, Ticks},
};

fn web() -> Option<v1::ServiceKey> {
    let protocol = v1::Protocol::Tcp.into();
    let address = v1::service_key::Address { protocol, address: "10.0.0.100".into(), port: 80 };
    Some(v1::ServiceKey { key: Some(v1::service_key::Key::Address(address)) })
}

fn service(scheduler: &str) -> v1::Service {
    v1::Service { key: web(), scheduler: scheduler.into(), ..Default::default() }
}

fn server(n: u8, weight: u32) -> Option<v1::Server> {
    Some(v1::Server { address: format!("10.0.0.{n}"), weight: Some(weight), ..Default::default() })
}

/// `A rr`, `a 12 3`, `e 12 1`, `d 12`, `E wrr`, `D`, `C`.
fn verb(line: &str) -> v1::Verb {
    let words: Vec<&str> = line.split(' ').collect();
    let n = || words[1].parse().unwrap();
    let weight = || words[2].parse().unwrap();
    let verb = match words[0] {
        "A" => Kind::AddService(v1::AddServiceRequest { service: Some(service(words[1])) }),
        "E" => Kind::EditService(v1::EditServiceRequest { service: Some(service(words[1])) }),
        "D" => Kind::DeleteService(v1::DeleteServiceRequest { service: web() }),
        "C" => Kind::Flush(v1::FlushRequest {}),
        "a" => Kind::AddServer(v1::AddServerRequest { service: web(), server: server(n(), weight()) }),
        "e" => Kind::EditServer(v1::EditServerRequest { service: web(), server: server(n(), weight()) }),
        "d" => {
            let address = format!("10.0.0.{}", words[1]);
            Kind::DeleteServer(v1::DeleteServerRequest { service: web(), address, port: 80 })
        }
        other => panic!("{other}"),
    };
    v1::Verb { verb: Some(verb) }
}

/// What is picked before and after `lines`, done in batches of `size`.
fn picks(before: &[&str], picked: usize, lines: &[&str], size: usize) -> Vec<String> {
    let (mut compiler, network, mut config) =
        (Compiler::default(), testing::network(), Configuration::default());
    let mut generation = 0;
    let mut apply = |lines: &[&str]| {
        let verbs: Vec<v1::Verb> = lines.iter().map(|line| verb(line)).collect();
        let (results, steps) = batch(&mut config, &verbs);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        generation += 1;
        let at = Moment { now: Nanos::from_secs(generation), generation, seen: generation - 1 };
        compiler.compile_steps(&config, &steps, &network, at)
    };
    let pick = |snapshot: &Snapshot| {
        let client = Key4::from_wire([10, 0, 0, 2, 10, 0, 0, 100], [0x1f, 0x90, 0, 80], 6);
        let opening = Opening { key: &client, hash: 0, now: Ticks(0) };
        let slot = snapshot.services.first()?.scheduler.pick(&opening)?;
        Some(snapshot.destinations[slot as usize].address.to_string())
    };
    let mut snapshot = apply(before);
    let mut all: Vec<Option<String>> = (0..picked).map(|_| pick(&snapshot)).collect();
    for lines in lines.chunks(size) {
        snapshot = apply(lines);
    }
    all.extend((0..24).map(|_| pick(&snapshot)));
    all.into_iter().map(Option::unwrap_or_default).collect()
}

#[test]
fn schedulers_pick_after_a_batch_what_they_pick_after_its_verbs_one_by_one() {
    let table: [&[&str]; 9] = [
        &["a 14 1", "a 15 2", "a 16 4"],
        &["d 13", "a 13 3"],
        &["e 12 4", "e 12 1", "e 13 2"],
        &["a 14 6", "e 14 2", "d 12", "a 12 5"],
        &["a 14 7", "d 14", "e 13 0", "e 13 3"],
        &["E wrr", "a 14 2", "e 14 3", "E rr", "a 15 1", "E wrr"],
        &["D", "A wrr", "a 12 2", "a 13 3", "e 12 1", "a 14 6"],
        &["C", "A rr", "a 13 1", "a 12 1"],
        &["d 12", "D", "A wrr", "a 12 2", "d 12", "a 13 9", "a 12 3"],
    ];
    for scheduler in ["rr", "wrr"] {
        let add = format!("A {scheduler}");
        let before = [add.as_str(), "a 12 2", "a 13 3", "a 11 6"];
        for lines in table {
            for picked in 0..7 {
                let one_by_one = picks(&before, picked, lines, 1);
                assert_eq!(
                    picks(&before, picked, lines, 100),
                    one_by_one,
                    "{scheduler}, {picked}: {lines:?}"
                );
            }
        }
    }
}

#[test]
fn a_new_service_with_its_servers_is_one_step() {
    let lines = ["A wrr", "a 12 2", "a 13 4"].map(verb);
    let (results, steps) = batch(&mut Configuration::default(), &lines);
    assert_eq!(results.len(), 3);
    assert!(steps.between.is_empty() && steps.reborn.is_empty());
}
