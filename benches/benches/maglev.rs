//! Measures how long it takes to make the table of `mh`: 65,537 places for 1,000 servers of equal weight, and the 4,093 of
//! the original for 10, 100 and 1,000. The servers' hashes are counted too.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman_dataplane::scheduler::mh::{PLACES, Share, fill};
use std::{hint::black_box, net::SocketAddr, time::Duration};

fn table(places: u32, servers: u32) -> Box<[u32]> {
    let server = |n: u32| SocketAddr::new([10, 0, (n >> 8) as u8, n as u8].into(), 80);
    let shares: Vec<Share> = (0..servers).map(|n| Share::new(server(n), 1, places)).collect();
    fill(places, &shares)
}

fn maglev(c: &mut Criterion) {
    let mut group = c.benchmark_group("maglev");
    for (places, servers) in [(65_537, 1_000), (PLACES, 10), (PLACES, 100), (PLACES, 1_000)] {
        group.bench_function(BenchmarkId::new(places.to_string(), servers), |b| {
            b.iter(|| table(black_box(places), servers));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    targets = maglev
}
criterion_main!(benches);
