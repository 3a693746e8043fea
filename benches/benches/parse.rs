//! Measures parsing one frame: TCP over IPv4, the same behind a VLAN tag, and TCP over IPv6 behind a hop-by-hop and a
//! destination options header.

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman_benches::traffic::{DIRECTOR_MAC, Permuted, Traffic};
use pointsman_dataplane::{
    batch::Kind,
    parse::{self, Keys},
    wire::{ipv6, protocol, tcp},
};
use std::{hint::black_box, net::Ipv6Addr, time::Duration};

fn ipv4() -> Vec<u8> {
    Traffic::new(Permuted::new(1, tcp::ACK)).frame().to_vec()
}

fn tagged() -> Vec<u8> {
    let mut frame = ipv4();
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x2a]);
    frame
}

fn ipv6_with_extensions() -> Vec<u8> {
    let mut frame = ipv4()[..12].to_vec();
    frame.extend([0x86, 0xdd]);
    let mut header = [0; ipv6::HEADER_LEN];
    let fields = ipv6::Fields {
        traffic_class: 0,
        payload_len: 8 + 8 + 20,
        next_header: 0,
        hop_limit: 64,
        source: Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1),
        destination: Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0x100),
    };
    assert!(ipv6::write(&mut header, &fields), "the header is 40 bytes");
    frame.extend(header);
    // Hop-by-hop, then destination options, each with a PadN option of 4 bytes (RFC 8200 section 4.2).
    frame.extend([60, 0, 1, 4, 0, 0, 0, 0]);
    frame.extend([protocol::TCP, 0, 1, 4, 0, 0, 0, 0]);
    frame.extend(&ipv4()[34..54]);
    frame
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let frames = [
        ("IPv4 TCP", ipv4()),
        ("IPv4 TCP, VLAN", tagged()),
        ("IPv6 TCP, two extensions", ipv6_with_extensions()),
    ];
    for (name, frame) in frames {
        let mut keys = Keys::default();
        let layout = parse::frame(&frame, DIRECTOR_MAC, &mut keys).expect("a frame that is whole");
        assert_eq!(layout.kind, Kind::Flow, "{name}");
        group.bench_function(name, |b| {
            b.iter(|| parse::frame(black_box(&frame), DIRECTOR_MAC, black_box(&mut keys)).is_ok());
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = parse
}
criterion_main!(benches);
