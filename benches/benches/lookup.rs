//! Measures the connection table alone: batches of 64 looked up in a full table of 64 K, 1 M and 10 M connections, all
//! found and none found, and batches of 64 inserted and removed again. Flows come as in `packet_path`: in a permutation of
//! all. Elements are connections.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pointsman_benches::{Extent, lookup::Lookup, pin};
use pointsman_dataplane::limits::BATCH;
use pointsman_hugepages::Options;
use std::time::Duration;

fn table(c: &mut Criterion) {
    pin(0);
    let sizes: &[u32] = Extent::of_arguments().pick(&[65_536, 1_000_000, 10_000_000], &[1_000]);
    let mut group = c.benchmark_group("lookup");
    group.throughput(Throughput::Elements(BATCH as u64));
    for &flows in sizes {
        let mut lookup = Lookup::new(flows, &Options::default()).expect("memory for the table");
        if !lookup.has_huge_pages() {
            eprintln!("lookup: no huge pages for {flows} connections: the figures are not comparable");
        }
        group.bench_function(BenchmarkId::new("hit", flows), |b| b.iter(|| lookup.hit()));
        group.bench_function(BenchmarkId::new("miss", flows), |b| b.iter(|| lookup.miss()));
        group.bench_function(BenchmarkId::new("insert and remove", flows), |b| {
            b.iter(|| lookup.insert_and_remove());
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = table
}
criterion_main!(benches);
