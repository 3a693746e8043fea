//! The packet path beside a slow, plain model of IPVS (`model.rs`): the same packets and the same changes of configuration
//! to both, and after each the same verdict, the same bytes and the same counts. The seeds are kept.

mod model;
#[allow(dead_code, reason = "the harness serves the tests of the packet path too")]
#[path = "../support/mod.rs"]
mod support;

use model::{ACK, FIN, Flow, Model, RST, SYN, Service, Verdict};
use pointsman_dataplane::{scheduler::Kind, snapshot::Presence, time::Ticks, verdict::DropReason};
use support::{
    Lab, Plan, Size, TCP, UDP,
    frames::{C0, D0, D1, Ip, R1, R2, R3, Segment, ethernet, udp_packet},
};

const KINDS: [Kind; 10] = {
    use Kind::*;
    [Rr, Wrr, Lc, Wlc, Sed, Nq, Fo, Ovf, Sh, Dh]
};
const SERVICES: [(&str, bool); 5] = [
    ("10.0.0.100:80", true),
    ("10.0.0.101:443", true),
    ("10.0.0.100:53", false),
    ("[fd00:1::100]:80", true),
    ("[fd00:1::100]:53", false),
];
const MACS: [[u8; 6]; 3] = [R1, R2, R3];

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, range: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % range as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// The packet path and the model. Service `s` has the slots `3 s`, `3 s + 1` and `3 s + 2`.
struct Both {
    lab: Lab,
    model: Model,
    dice: Dice,
    /// How often a packet reached a server, vanished, heard of an unreachable port, and was reset.
    verdicts: [u32; 4],
}

impl Both {
    fn new(seed: u64, workers: usize) -> Self {
        let (mut plan, mut model, mut dice) = (Plan::new(), Model::default(), Dice(seed));
        plan.timeouts.udp = Ticks::from_secs(304);
        for (number, (at, is_tcp)) in SERVICES.into_iter().enumerate() {
            let kind = dice.of(&KINDS);
            plan = plan.service(at, if is_tcp { TCP } else { UDP }, kind, 3);
            model.services.push(Service::new(is_tcp, at.parse().expect("a socket"), kind));
            for slot in 3 * number..3 * number + 3 {
                model.servers.push(model::Server::default());
                model.add(number, slot, 1);
            }
        }
        Self { lab: Lab::sized(plan, Size { workers, ..Size::default() }), model, dice, verdicts: [0; 4] }
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..=2 => {
                let seconds = self.dice.of(&[7, 7, 14, 63, 126, 910]);
                self.lab.run(seconds * 1_000);
                self.model.wait(seconds);
            }
            3..=9 => self.configure(),
            _ => self.packet(),
        }
    }

    /// One change, in force before the next packet.
    fn configure(&mut self) {
        let service = self.dice.below(SERVICES.len());
        let slot = 3 * service + self.dice.below(3);
        let weight = self.dice.of(&[0, 1, 1, 2, 3, 6]);
        let what = self.dice.below(10);
        let planned = &mut self.lab.plan.services[service];
        let place = planned.servers.iter().position(|(other, _)| *other as usize == slot);
        match (what, place) {
            (0, _) => {
                planned.kind = self.dice.of(&KINDS);
                if planned.kind != self.model.services[service].kind {
                    self.model.schedule(service, planned.kind);
                }
            }
            (1, _) => {
                let upper = self.dice.of(&[0, 0, 3, 8]);
                self.lab.plan.slots[slot].shared.set_thresholds(upper, 0);
                self.model.servers[slot].upper = u64::from(upper);
                self.model.servers[slot].weigh();
            }
            (2..=4, Some(place)) => {
                planned.servers.remove(place);
                self.lab.plan.slots[slot].presence = Presence::Removed;
                self.model.remove(service, slot);
            }
            (_, Some(place)) => {
                let old = std::mem::replace(&mut planned.servers[place].1, weight);
                if old != weight {
                    self.model.weigh(service, slot, u64::from(weight));
                }
            }
            (_, None) => {
                planned.servers.push((slot as u32, weight));
                self.lab.plan.slots[slot].presence = Presence::Present;
                self.model.add(service, slot, u64::from(weight));
            }
        }
        self.lab.publish();
        self.lab.poll();
    }

    fn packet(&mut self) {
        let (at, is_tcp) = self.dice.of(&SERVICES);
        let mut service: std::net::SocketAddr = at.parse().expect("a socket");
        if self.dice.below(30) == 0 {
            service.set_port(99);
        }
        let (host, port) = (1 + self.dice.below(5), 2_000 + self.dice.below(8));
        let client = if service.is_ipv6() {
            format!("[fd00:9::{host}]:{port}")
        } else {
            format!("10.0.1.{host}:{port}")
        };
        let flags =
            self.dice.of(&[SYN, SYN, ACK, ACK, ACK, FIN | ACK, RST, 0, SYN | FIN, SYN | RST, SYN | ACK]);
        let flow = Flow { tcp: is_tcp, client: client.parse().expect("a socket"), service };
        let (len, id) = (self.dice.below(200), self.dice.below(65_536) as u16);
        let packet = |ttl: u8| {
            let ip = Ip { ttl, id, ..Ip::default() };
            if is_tcp {
                let (seq, ack) = (1_000 + u32::from(id), 77);
                Segment { client: flow.client, service, flags, seq, ack, len, text: String::new(), ip }
                    .packet()
            } else {
                udp_packet(&client, &service.to_string(), &support::frames::data(len), &ip)
            }
        };
        let expected = self.model.packet(&flow, flags);
        let kinds = [
            matches!(expected, Verdict::Server(_)),
            expected == Verdict::Vanishes,
            expected == Verdict::Unreachable,
        ];
        self.verdicts[kinds.iter().position(|is| *is).unwrap_or(3)] += 1;
        let silent = self.lab.drops(DropReason::AnswerRateLimited);
        let out = self.lab.send(&[ethernet(D0, C0, &packet(64))]);
        let unsaid = self.lab.drops(DropReason::AnswerRateLimited) > silent;
        let context = || format!("{flow:?} {flags:#x} expected {expected:?}");
        match expected {
            Verdict::Server(slot) => {
                assert_eq!(out, [ethernet(MACS[slot % 3], D1, &packet(63))], "{}", context());
            }
            Verdict::Vanishes => assert!(out.is_empty() && !unsaid, "{}", context()),
            Verdict::Unreachable if unsaid => assert!(out.is_empty(), "{}", context()),
            Verdict::Unreachable => {
                self.answered(&out, if flow.service.is_ipv6() { "icmp6 1/4" } else { "icmp 3/3" }, &context())
            }
            Verdict::Reset => self.answered(&out, " R", &context()),
        }
    }

    fn answered(&self, out: &[Vec<u8>], with: &str, context: &str) {
        let said: Vec<String> = out.iter().map(|frame| support::text::text(frame)).collect();
        assert!(said.len() == 1 && said[0].starts_with("cl") && said[0].contains(with), "{said:?} {context}");
    }

    fn compare(&mut self) {
        for (slot, server) in self.model.servers.iter().enumerate() {
            let (active, inactive) = self.lab.counts(slot);
            assert_eq!(
                (u64::from(active), u64::from(inactive)),
                (server.active, server.inactive),
                "slot {slot}"
            );
            assert_eq!(self.lab.plan.slots[slot].shared.overloaded(), server.overloaded, "slot {slot}");
            assert_eq!(self.lab.traffic(slot).1, server.packets, "slot {slot}");
        }
        assert_eq!(self.lab.connections() as usize, self.model.connections());
        self.lab.assert_accounted(0);
    }
}

/// Seeds that are kept: those that found a difference stay first.
const SEEDS: [u64; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

/// Of each seed.
const STEPS: usize = 10_000;

#[test]
fn a_hundred_thousand_packets_and_changes_end_as_a_plain_model_of_ipvs_says() {
    for (seed, workers) in SEEDS.into_iter().zip([1, 2].into_iter().cycle()) {
        let mut both = Both::new(seed, workers);
        for step in 0..STEPS {
            let at = (seed, step);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                both.step();
                both.compare();
            }));
            if let Err(cause) = done {
                eprintln!("seed and step {at:?}");
                std::panic::resume_unwind(cause);
            }
        }
        let [reached, vanished, unreachable, reset] = both.verdicts;
        assert!(reached > 3_000 && vanished > 300 && unreachable > 100 && reset > 300, "{:?}", both.verdicts);
    }
}
