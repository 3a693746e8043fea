//! Measures the Internet checksum: of an IPv4 header (20 bytes), of 64 and of 1500 bytes, and its incremental updates.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pointsman_dataplane::wire::checksum;
use std::{hint::black_box, time::Duration};

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [20, 64, 1500] {
        let bytes: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::new("of", len), &bytes, |b, bytes| {
            b.iter(|| checksum::of(black_box(bytes)));
        });
    }
    let header: [u8; 20] = std::array::from_fn(|n| n as u8);
    group.throughput(Throughput::Bytes(20));
    group.bench_function("ipv4_header_ok", |b| b.iter(|| checksum::ipv4_header_ok(black_box(&header))));
}

fn incremental(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    group.bench_function("update16", |b| {
        b.iter(|| checksum::update16(black_box(0x1234), black_box(80), black_box(8080)));
    });
    group.bench_function("update32", |b| {
        b.iter(|| checksum::update32(black_box(0x1234), black_box(0x0a00_0064), black_box(0x0a00_0102)));
    });
    let mut header = [0_u8; 20];
    group.bench_function("decrement_ttl", |b| {
        b.iter(|| {
            header[8] = 64;
            checksum::decrement_ttl(black_box(&mut header))
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = whole, incremental
}
criterion_main!(benches);
