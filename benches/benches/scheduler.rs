//! Measures one pick of a scheduler (rr, wrr, lc, wlc, sh, mh, lblc) among 1, 16 and 100 destinations with different weights
//! and connections. rr and wrr move their common place on with each pick, an atomic exchange; lblc locks a part of its cache.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman_dataplane::{
    conn::key::{Key, Key4},
    scheduler::{Candidate, Kind, Opening, Scheduler},
    snapshot::Method,
    stats::DestinationShared,
    time::Ticks,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

fn scheduler(kind: Kind, destinations: u32) -> Scheduler {
    let candidates = (0..destinations)
        .map(|slot| {
            let shared = Arc::new(DestinationShared::default());
            for _ in 0..slot % 7 {
                shared.connected(true);
            }
            let server = SocketAddr::new([10, 0, 1, slot as u8].into(), 80);
            Candidate {
                slot,
                generation: 1,
                server,
                weight: 1 + slot % 5,
                settings: (0, 0, Method::Direct),
                shared,
            }
        })
        .collect();
    Scheduler::compile(kind, candidates, None)
}

fn pick(c: &mut Criterion) {
    let key = Key4::from_wire([10, 0, 0, 2, 10, 0, 0, 100], [0x1f, 0x90, 0, 80], 6);
    let opening = Opening { key: &key, hash: key.hash(&[1, 2]), now: Ticks(0) };
    let mut group = c.benchmark_group("scheduler");
    for kind in [Kind::Rr, Kind::Wrr, Kind::Lc, Kind::Wlc, Kind::Sh, Kind::Mh, Kind::Lblc] {
        for destinations in [1, 16, 100] {
            let scheduler = scheduler(kind, destinations);
            group.bench_function(BenchmarkId::new(kind.name(), destinations), |b| {
                b.iter(|| scheduler.pick(&opening));
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = pick
}
criterion_main!(benches);
