//! T5, the schedulers: what the tutorial says of each, by real HTTP. `/` is a connection that has ended when the next
//! begins, and inactive; `/slow` one that stays active.

use super::{Segment, with_one_and_two_workers};
use pointsman_tests::{Held, Row};
use std::{cmp::Ordering, net::Ipv4Addr};

const VIP: &str = "192.168.10.100";

/// A segment with three web servers and a service at each VIP, whose servers have these weights.
fn cluster(workers: usize, scheduler: &str, vips: &[&str], weights: [u64; 3]) -> Segment {
    let segment = Segment::new(workers, 3, vips);
    for vip in vips {
        segment.director.ipvsadm_all(&[&format!("-A -t {vip}:80 -s {scheduler}")]);
        for (number, weight) in (12..).zip(weights) {
            let server = format!("-a -t {vip}:80 -r 192.168.10.{number}:80 -g -w {weight}");
            segment.director.ipvsadm_all(&[&server]);
        }
    }
    segment
}

/// The servers that answer requests which end, one after the other: `CBA` for web_3, web_2, web_1.
fn ended(segment: &Segment, count: usize) -> String {
    segment.lab.requests("client", &format!("http://{VIP}/"), count).iter().map(|page| letter(page)).collect()
}

/// The servers that answer requests which do not end.
fn held(segment: &Segment, count: usize) -> (String, Vec<Held>) {
    let hold = |_| segment.lab.hold_connection("client", &format!("http://{VIP}"));
    let held: Vec<Held> = (0..count).map(hold).collect();
    (held.iter().map(|held| letter(&held.page)).collect(), held)
}

fn letter(page: &str) -> char {
    match page {
        "web_1" => 'A',
        "web_2" => 'B',
        "web_3" => 'C',
        other => panic!("no server has the page `{other}`"),
    }
}

#[test]
fn rr_takes_turns_whatever_the_weights() {
    with_one_and_two_workers(|workers| {
        let segment = cluster(workers, "rr", &[VIP], [4, 3, 2]);
        assert_eq!(ended(&segment, 12), "CBACBACBACBA");
    });
}

#[test]
fn wrr_takes_turns_in_proportion_to_the_weights() {
    with_one_and_two_workers(|workers| {
        let segment = cluster(workers, "wrr", &[VIP], [4, 3, 2]);
        // Measured on the original; of nine requests, four, three and two.
        assert_eq!(ended(&segment, 21), "CBAABACBACBAABACBACBA");
    });
}

/// The place of an address in the tables of `sh` and `dh`, as the original computes it.
fn slot(address: &str) -> usize {
    let address: Ipv4Addr = address.parse().expect("an IPv4 address");
    (u32::from(address).wrapping_mul(0x61C8_8647) >> 24) as usize
}

/// The server at a place of a table that is filled in turn, with the server added last first.
fn at(slot: usize) -> &'static str {
    ["web_3", "web_2", "web_1"][slot % 3]
}

#[test]
fn sh_sends_all_requests_of_a_client_to_one_server() {
    // Places that were measured.
    assert_eq!((slot("10.0.0.1"), slot("192.168.1.10"), slot("203.0.113.7")), (39, 248, 124));
    with_one_and_two_workers(|workers| {
        let segment = cluster(workers, "sh", &[VIP], [1, 1, 1]);
        let mut seen = Vec::new();
        for number in 60..68 {
            let client = format!("192.168.10.{number}");
            segment.lab.ok("client", &format!("ip addr add {client}/24 dev eth0"));
            for _ in 0..3 {
                let page = segment.lab.request_from("client", &client, &format!("http://{VIP}/"));
                assert_eq!(page, at(slot(&client)), "{client}");
                seen.push(page);
            }
        }
        for page in ["web_1", "web_2", "web_3"] {
            assert!(seen.iter().any(|seen| seen == page), "{page} has its share of the clients: {seen:?}");
        }
    });
}

#[test]
fn dh_sends_all_requests_for_an_address_to_one_server() {
    let vips: Vec<String> = (100..108).map(|number| format!("192.168.10.{number}")).collect();
    let vips: Vec<&str> = vips.iter().map(String::as_str).collect();
    with_one_and_two_workers(|workers| {
        let segment = cluster(workers, "dh", &vips, [1, 1, 1]);
        segment.lab.ok("client", "ip addr add 192.168.10.60/24 dev eth0");
        let mut seen = Vec::new();
        for vip in &vips {
            for client in ["192.168.10.50", "192.168.10.60", "192.168.10.50"] {
                let page = segment.lab.request_from("client", client, &format!("http://{vip}/"));
                assert_eq!(page, at(slot(vip)), "{client} to {vip}");
                seen.push(page);
            }
        }
        for page in ["web_1", "web_2", "web_3"] {
            assert!(seen.iter().any(|seen| seen == page), "{page} has its share of the addresses: {seen:?}");
        }
    });
}

#[test]
fn connections_that_stay_open_are_spread_in_the_order_measured_on_the_original() {
    with_one_and_two_workers(|workers| {
        for (scheduler, weights, order) in [
            ("lc", [1, 1, 1], "CBACBACBA"),
            ("lc", [4, 3, 2], "CBACBACBA"),
            ("wlc", [4, 3, 2], "CBAABCABACBA"),
            ("sed", [4, 3, 2], "ABCABACBA"),
            ("nq", [4, 3, 2], "CBAABACBA"),
        ] {
            let segment = cluster(workers, scheduler, &[VIP], weights);
            let (servers, _held) = held(&segment, order.len());
            assert_eq!(servers, order, "{scheduler} {weights:?}");
        }
    });
}

/// Compares what two servers have to do by a formula: a load over a weight.
fn compare((load, weight): (u64, u64), (other_load, other_weight): (u64, u64)) -> Ordering {
    (load * other_weight).cmp(&(other_load * weight))
}

/// The server that a formula of the tutorial chooses; of those with the same result, the one added last.
fn least(rows: &[Row], formula: impl Fn(&Row) -> (u64, u64)) -> char {
    // `min_by` takes the first of equals, and the table is in the order of the addresses: that of adding.
    let row = rows.iter().rev().min_by(|a, b| compare(formula(a), formula(b))).expect("there are servers");
    ['A', 'B', 'C'][rows.iter().position(|other| other == row).expect("it is one of them")]
}

/// Says which server is chosen next.
type Formula = fn(&[Row]) -> char;

fn lc(rows: &[Row]) -> char {
    least(rows, |row| (row.active * 256 + row.inactive, 1))
}

fn wlc(rows: &[Row]) -> char {
    least(rows, |row| (row.active * 256 + row.inactive, row.weight))
}

fn sed(rows: &[Row]) -> char {
    least(rows, |row| ((row.active + 1) * 256, row.weight))
}

fn nq(rows: &[Row]) -> char {
    let idle: Vec<char> =
        "ABC".chars().zip(rows).filter(|(_, row)| row.active == 0).map(|(letter, _)| letter).collect();
    idle.last().copied().unwrap_or_else(|| sed(rows))
}

#[test]
fn the_dynamic_schedulers_choose_by_the_formulas_of_the_tutorial() {
    let formulas: [(&str, Formula); 4] = [("lc", lc), ("wlc", wlc), ("sed", sed), ("nq", nq)];
    with_one_and_two_workers(|workers| {
        for (scheduler, formula) in formulas {
            let segment = cluster(workers, scheduler, &[VIP], [4, 1, 2]);
            let mut open: Vec<Held> = Vec::new();
            for step in 0..20 {
                // What is open is no longer the same; then more is open, with others that ended in between.
                if step == 10 {
                    open.drain(..4).for_each(|held| held.end());
                }
                segment.director.wait_for_active(open.len() as u64);
                let rows = segment.director.servers();
                let chosen = if step % 3 == 2 {
                    ended(&segment, 1)
                } else {
                    let (chosen, held) = held(&segment, 1);
                    open.extend(held);
                    chosen
                };
                assert_eq!(chosen, formula(&rows).to_string(), "{scheduler}, request {step}: {rows:?}");
            }
        }
    });
}

#[test]
fn lblc_keeps_an_address_at_its_server_until_that_has_too_much_while_another_has_little() {
    with_one_and_two_workers(|workers| {
        let segment = cluster(workers, "lblc", &[VIP], [4, 4, 4]);
        // wlc would take turns.
        assert_eq!(ended(&segment, 4), "CCCC");
        // More active connections than its weight, and another server with less than half of its own.
        let (servers, first) = held(&segment, 7);
        assert_eq!(servers, "CCCCCBB");
        first.iter().take(5).for_each(Held::end);
        segment.director.wait_for_active(2);
        // The address has moved for good, though the first server is idle.
        assert_eq!(ended(&segment, 2), "BB");
    });
}

#[test]
fn lblcr_adds_a_server_to_those_of_an_address_and_takes_the_least_loaded_of_them() {
    with_one_and_two_workers(|workers| {
        let segment = cluster(workers, "lblcr", &[VIP], [4, 4, 4]);
        assert_eq!(ended(&segment, 4), "CCCC");
        let (servers, first) = held(&segment, 7);
        assert_eq!(servers, "CCCCCBB");
        first.iter().take(5).for_each(Held::end);
        segment.director.wait_for_active(2);
        // Both are the address's: the first has become the less loaded one. The third is none of its servers.
        assert_eq!(ended(&segment, 2), "CC");
    });
}
