//! `pointsman-bench` over virtual devices of DPDK, as a user runs it. Figures mean nothing: packets lie in ordinary pages.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::{thread::sleep, time::Duration};
use support::{Folder, bench, measured, names, text};

#[test]
fn every_command_measures_over_a_device_that_gives_back_what_it_is_sent() {
    for (line, row) in [
        ("run --mix syn-flood --frame-size imix --seconds 0.05", "CPU time a packet"),
        ("search --seconds 0.05 --loss 5% --resolution 10%", "throughput at 5 % loss"),
        ("latency --seconds 0.1 --rate 0.02", "0.02 Mpps: p99.99"),
        ("latency --seconds 0.05", "back to back: p50"),
        ("bursts --link 100 --seconds 0.01 --repeats 2 --ring 256", "100 Gbit/s: longest burst, least"),
        ("connections --seconds 0.05", ": connections"),
        ("scaling --seconds 0.05 --workers 2", "2 workers, net_ring0: times one worker"),
    ] {
        let (report, _) = measured("ring", &format!("{line} --flows 4000 --port net_ring0"));
        assert!(names(&report).iter().any(|name| name.ends_with(row)), "{line}: {:?}", names(&report));
        assert!(names(&report)[0].contains("net_ring0"), "{:?}", names(&report));
        assert!(report.method.contains("Over the virtual device net_ring0"), "{}", report.method);
        assert!(report.method.contains("DPDK 2"), "{}", report.method);
    }
}

#[test]
fn a_device_without_an_end_is_measured_too() {
    let (report, _) = measured("null", "run --flows 4000 --port net_null0 --workers 2 --seconds 0.05");
    assert!(report.losses.unwrap().is_empty() && report.rows[0].value > 0.0);
}

#[test]
fn generate_tells_loss_order_and_latency_of_what_comes_back() {
    let (report, markdown) =
        measured("generate", "generate --port vdev:net_ring0 --flows 1k --rate 20k --seconds 0.2");
    let name = |what: &str| format!("hit, 1000 flows, 64 B, 1 sender, net_ring0: {what}");
    let expected = ["sent", "throughput", "on the wire", "loss", "out of order", "twice", "p50"].map(name);
    assert_eq!(names(&report)[..7], expected);
    assert!(report.rows[0].remark.starts_with("4000 frames"), "{}", report.rows[0].remark);
    assert_eq!([3, 4, 5].map(|row: usize| report.rows[row].value), [0.0; 3], "{markdown}");
    assert!(markdown.contains("No packet was lost."), "{markdown}");
}

#[test]
fn frames_that_never_come_back_are_an_error_that_says_what_to_look_at() {
    let folder = Folder::new("no-way-back");
    let refused = |port: &str| {
        let line =
            format!("generate --port {port} --destination-mac 02:00:00:00:00:01 --flows 1k --seconds 0.1");
        let output = bench(&format!("{line} --rate 20k --pages ordinary"), &[]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
        text(&output.stderr)
    };
    let said = refused(&format!("net_pcap0,tx_pcap={}", folder.file("sent.pcap").display()));
    assert!(said.contains("none of the 2000 frames that made connections came back by net_pcap0"), "{said}");
    assert!(said.contains("10.0.0.100:80 (TCP)") && said.contains("--real-servers"), "{said}");
    assert!(refused("net_null0").contains("net_null gives empty frames"));
}

#[test]
fn a_sink_in_another_process_counts_what_a_generator_sends() {
    let folder = Folder::new("memif");
    let socket = folder.file("memif.sock");
    let port = |role: &str| format!("net_memif0,role={role},socket={},socket-abstract=no", socket.display());
    let sink = std::thread::scope(|scope| {
        // Long enough for the generator to start and to end on a busy machine.
        let sink = scope
            .spawn(|| measured("sink", &format!("sink --port {} --flows 1k --seconds 15", port("server"))).0);
        // DPDK refuses who connects before the sink listens, and while its device is not started yet.
        let listens = (0..600).any(|_| {
            sleep(Duration::from_millis(50));
            socket.exists()
        });
        assert!(listens, "the sink has no socket after 30 seconds");
        sleep(Duration::from_secs(2));
        let line = format!("generate --one-way --port {} --flows 1k --rate 5k --seconds 1", port("client"));
        let (report, _) = measured("one-way", &format!("{line} --destination-mac 02:00:00:00:00:01"));
        assert_eq!(names(&report).len(), 2, "what comes back is nobody's here: {:?}", names(&report));
        assert!(report.rows[0].remark.starts_with("5000 frames"), "{}", report.rows[0].remark);
        sink.join().unwrap()
    });
    // Also the SYN and the ACK that make each connection, unless the sink was not there yet.
    let came: u64 = sink.rows[0].remark.split(' ').next().unwrap().parse().unwrap();
    assert!((5_000..=7_000).contains(&came), "{came}");
    assert!(names(&sink)[2].ends_with(": missing"));
    assert_eq!([2, 3, 4].map(|row: usize| sink.rows[row].value), [0.0; 3], "missing, out of order, twice");
}

#[test]
fn what_a_device_refuses_is_told_with_its_remedy() {
    let refused = |line: &str| {
        let output = bench(line, &[]);
        assert_eq!(output.status.code(), Some(2), "{line}: {}", text(&output.stdout));
        text(&output.stderr)
    };
    let said = refused("run --port 0000:7f:1f.7");
    assert!(said.contains("huge page") || said.contains("there is no PCI device at this address"), "{said}");
    let said = refused("run --pages ordinary --port net_nonsense0 --destination-mac 02:00:00:00:00:01");
    assert!(said.contains("net_nonsense0") || said.contains("DPDK does not start"), "{said}");
    assert!(
        refused("run --pages ordinary --port net_af_packet0,iface=lo")
            .contains("--destination-mac is missing")
    );
    assert!(refused("run --pages ordinary --port net_ring0 --workers 60").contains("queues for 60 workers"));
    assert!(
        refused("run --port net_ring0 --port net_ring1").contains("net_ring and net_null have no other end")
    );
    assert!(
        refused("generate --port net_ring0 --method tun")
            .contains("--method tun is not measured on a wire yet")
    );
    let said = refused("generate --pages ordinary --port net_ring0 --clock cpu");
    assert!(said.contains("--clock cpu is for a director in this process"), "{said}");
}

#[cfg(feature = "control")]
#[test]
fn changes_come_into_force_while_packets_pass_and_none_is_lost() {
    let measured = pointsman_benches::apply::measure(pointsman_benches::Extent::Smoke).unwrap();
    assert!(measured.forwarded > 0 && measured.all.min > 0.0 && measured.one.min > 0.0, "{measured:?}");
}
