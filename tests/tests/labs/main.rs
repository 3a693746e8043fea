//! The labs of the usual LVS tutorial, each with its topology, addresses and commands, and Pointsman in the director's
//! place: real nginx, real curl, with one worker and with two.
//!
//! The kernel of the director forwards nothing and has no virtual address on an interface.

mod application;
mod direct;
mod local;
mod marks;
mod nat;
mod persistence;
mod schedulers;
mod tunnel;

use pointsman_tests::{Director, Lab, Web};

/// Runs a lab with one worker and with two; a test that fails has said with how many.
fn with_one_and_two_workers(lab: impl Fn(usize)) {
    for workers in [1, 2] {
        println!("with {workers} workers:");
        lab(workers);
    }
}

/// The tutorial's segment 192.168.10.0/24: a client, a director, and web servers that hold the VIPs, from .12 on.
struct Segment {
    lab: Lab,
    director: Director,
    servers: Vec<Web>,
}

impl Segment {
    fn new(workers: usize, servers: usize, vips: &[&str]) -> Self {
        let lab = Lab::new();
        lab.add_switch("switch");
        lab.plug("client", "eth0", "switch", &["192.168.10.50/24"]);
        lab.plug("director", "eth0", "switch", &["192.168.10.11/24"]);
        let server = |number| {
            let node = format!("web{number}");
            lab.plug(&node, "eth0", "switch", &[&format!("192.168.10.{}/24", 11 + number)]);
            lab.hold_quietly(&node, "lo", vips);
            lab.web(&node, &format!("web_{number}"), &[80])
        };
        let servers = (1..=servers).map(server).collect();
        let director = Director::with_workers(&lab, "director", &["eth0"], workers);
        Self { lab, director, servers }
    }
}
