//! Counters as users see them: of a destination and of a service, since they were made or since `ipvsadm -Z`.
//!
//! What workers count by slot only grows. An account remembers where a destination, and where the user, began.

use crate::config::{
    model::ServiceKey,
    slots::{DestinationKey, Slot},
};
use pointsman_dataplane::{command::WorkerShared, snapshot::Presence};
use std::{
    collections::HashMap,
    ops::{AddAssign, Sub},
    sync::Arc,
};

/// How often rates are estimated, in seconds.
pub const RATE_SECONDS: u64 = 2;

/// What is counted of a destination, and of a service as the sum of its destinations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections made.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes of them, from the IP header on.
    pub bytes_in: u64,
    /// Packets of servers to clients, where they pass the director.
    pub packets_out: u64,
    /// Bytes of them, from the IP header on.
    pub bytes_out: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.connections = self.connections.wrapping_add(other.connections);
        self.packets_in = self.packets_in.wrapping_add(other.packets_in);
        self.bytes_in = self.bytes_in.wrapping_add(other.bytes_in);
        self.packets_out = self.packets_out.wrapping_add(other.packets_out);
        self.bytes_out = self.bytes_out.wrapping_add(other.bytes_out);
    }
}

impl Sub for Totals {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self {
            connections: self.connections.wrapping_sub(other.connections),
            packets_in: self.packets_in.wrapping_sub(other.packets_in),
            bytes_in: self.bytes_in.wrapping_sub(other.bytes_in),
            packets_out: self.packets_out.wrapping_sub(other.packets_out),
            bytes_out: self.bytes_out.wrapping_sub(other.bytes_out),
        }
    }
}

/// What all workers have counted for a slot since start.
pub fn counted(workers: &[Arc<WorkerShared>], slot: usize) -> Totals {
    let mut sum = Totals::default();
    for worker in workers {
        if let Some(counters) = worker.stats.destinations.get(slot) {
            sum += Totals {
                connections: counters.connections.get(),
                packets_in: counters.packets_in.get(),
                bytes_in: counters.bytes_in.get(),
                packets_out: counters.packets_out.get(),
                bytes_out: counters.bytes_out.get(),
            };
        }
    }
    sum
}

/// Per second, as the originals estimate them: every two seconds, average += (sample - average) / 4.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Meter {
    last: Totals,
    connections: f64,
    packets_in: f64,
    bytes_in: f64,
    packets_out: f64,
    bytes_out: f64,
}

impl Meter {
    fn tick(&mut self, value: Totals) {
        let new = value - self.last;
        self.last = value;
        let moved = |average: f64, count: u64| average + (count as f64 / RATE_SECONDS as f64 - average) / 4.0;
        self.connections = moved(self.connections, new.connections);
        self.packets_in = moved(self.packets_in, new.packets_in);
        self.bytes_in = moved(self.bytes_in, new.bytes_in);
        self.packets_out = moved(self.packets_out, new.packets_out);
        self.bytes_out = moved(self.bytes_out, new.bytes_out);
    }

    fn rates(&self) -> Totals {
        Totals {
            connections: self.connections.round() as u64,
            packets_in: self.packets_in.round() as u64,
            bytes_in: self.bytes_in.round() as u64,
            packets_out: self.packets_out.round() as u64,
            bytes_out: self.bytes_out.round() as u64,
        }
    }

    /// Clears the rates at a count.
    fn clear(&mut self, value: Totals) {
        *self = Self { last: value, ..Self::default() };
    }
}

#[derive(Debug)]
struct Destination {
    generation: u32,
    key: DestinationKey,
    /// Tells the services apart that had the same key one after the other.
    service: u64,
    start: Totals,
    zero: Totals,
    meter: Meter,
}

#[derive(Debug)]
struct Service {
    number: u64,
    /// Of destinations whose slots others have now.
    retired: Totals,
    zero: Totals,
    meter: Meter,
}

/// The accounts of all destinations and services.
#[derive(Debug, Default)]
pub struct Accounts {
    destinations: Vec<Option<Destination>>,
    services: HashMap<ServiceKey, Service>,
    next: u64,
}

/// Counts and rates.
pub type Shown = (Totals, Totals);

impl Accounts {
    /// Ends the accounts of services that are added again under their keys.
    pub fn end(&mut self, services: impl Iterator<Item = ServiceKey>) {
        for key in services {
            self.services.remove(&key);
        }
    }

    /// Follows a change: new destinations and services begin at 0, those that stay go on. `services` are all, `slots`
    /// those that have changed, with their numbers. Call it before workers see the change; `counted` gives what they have
    /// counted for a slot.
    pub fn follow<'a>(
        &mut self,
        services: impl Iterator<Item = ServiceKey>,
        slots: impl Iterator<Item = (usize, &'a Slot)>,
        counted: impl Fn(usize) -> Totals,
    ) {
        let mut old = std::mem::take(&mut self.services);
        for key in services {
            let account = old.remove(&key).unwrap_or_else(|| {
                self.next += 1;
                Service {
                    number: self.next,
                    retired: Totals::default(),
                    zero: Totals::default(),
                    meter: Meter::default(),
                }
            });
            self.services.insert(key, account);
        }
        for (number, slot) in slots {
            if self.destinations.len() <= number {
                self.destinations.resize_with(number + 1, || None);
            }
            let account = &mut self.destinations[number];
            if slot.presence == Presence::Vacant
                || account.as_ref().is_some_and(|account| account.generation == slot.generation)
            {
                continue;
            }
            let start = counted(number);
            if let Some(gone) = account.take()
                && let Some(service) = self.services.get_mut(&gone.key.service)
                && service.number == gone.service
            {
                service.retired += start - gone.start;
            }
            let service = self.services.get(&slot.key.service).map_or(0, |service| service.number);
            let (generation, key, zero) = (slot.generation, slot.key, Totals::default());
            *account = Some(Destination { generation, key, service, start, zero, meter: Meter::default() });
        }
    }

    /// Estimates rates: to be called every [`RATE_SECONDS`].
    pub fn tick(&mut self, counted: impl Fn(usize) -> Totals) {
        let sums = self.sums(&counted);
        for (key, service) in &mut self.services {
            service.meter.tick(sums.get(key).copied().unwrap_or_default());
        }
        for (number, account) in self.destinations.iter_mut().enumerate() {
            if let Some(account) = account {
                account.meter.tick(counted(number) - account.start);
            }
        }
    }

    /// `-Z`: hides what has been counted until now, of one service and its destinations or of all, and clears rates.
    pub fn zero(&mut self, of: Option<&ServiceKey>, counted: impl Fn(usize) -> Totals) {
        let sums = self.sums(&counted);
        let mut numbers = Vec::new();
        for (key, service) in &mut self.services {
            if of.is_none_or(|of| of == key) {
                service.zero = sums.get(key).copied().unwrap_or_default();
                service.meter.clear(service.zero);
                numbers.push(service.number);
            }
        }
        for (number, account) in self.destinations.iter_mut().enumerate() {
            if let Some(account) = account
                && numbers.contains(&account.service)
            {
                account.zero = counted(number) - account.start;
                account.meter.clear(account.zero);
            }
        }
    }

    /// Counts and rates of a slot.
    pub fn destination(&self, slot: u32, counted: impl Fn(usize) -> Totals) -> Shown {
        let slot = slot as usize;
        match self.destinations.get(slot) {
            Some(Some(account)) => (counted(slot) - account.start - account.zero, account.meter.rates()),
            _ => Shown::default(),
        }
    }

    /// Counts and rates of all services.
    pub fn services(&self, counted: impl Fn(usize) -> Totals) -> HashMap<ServiceKey, Shown> {
        let sums = self.sums(&counted);
        let shown = |(key, service): (&ServiceKey, &Service)| {
            let sum = sums.get(key).copied().unwrap_or_default();
            (*key, (sum - service.zero, service.meter.rates()))
        };
        self.services.iter().map(shown).collect()
    }

    /// What each service has counted since it was made.
    fn sums(&self, counted: &impl Fn(usize) -> Totals) -> HashMap<ServiceKey, Totals> {
        let mut sums: HashMap<ServiceKey, Totals> =
            self.services.iter().map(|(key, service)| (*key, service.retired)).collect();
        for (number, account) in self.destinations.iter().enumerate() {
            if let Some(account) = account
                && self.services.get(&account.key.service).is_some_and(|s| s.number == account.service)
                && let Some(sum) = sums.get_mut(&account.key.service)
            {
                *sum += counted(number) - account.start;
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        model::Protocol,
        slots::{Moment, Slots},
    };
    use pointsman_dataplane::time::Nanos;
    use std::collections::HashSet;

    const SERVICE: ServiceKey = ServiceKey::Address {
        protocol: Protocol::Udp,
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
        port: 53,
    };

    /// Slots and accounts that are changed together, and counts by slot.
    struct Bench {
        slots: Slots,
        accounts: Accounts,
        counts: Vec<u64>,
        second: u64,
    }

    impl Bench {
        fn new() -> Self {
            let (slots, accounts) = (Slots::new(4), Accounts::default());
            Self { slots, accounts, counts: vec![0; 4], second: 0 }
        }

        fn change(&mut self, seconds: u64, services: &[ServiceKey], servers: &[u8]) {
            self.second += seconds;
            let at =
                Moment { now: Nanos::from_secs(self.second), generation: self.second, seen: self.second };
            let key = |n: &u8| DestinationKey { service: SERVICE, address: [10, 0, 1, *n].into(), port: 53 };
            let keys: Vec<_> = servers.iter().map(key).collect();
            self.slots.assign_all(&keys, &services.iter().copied().collect::<HashSet<_>>(), at);
            let counts = self.counts.clone();
            self.accounts.follow(
                services.iter().copied(),
                self.slots.all().iter().enumerate(),
                Self::counted(&counts),
            );
        }

        fn counted(counts: &[u64]) -> impl Fn(usize) -> Totals + use<'_> {
            |slot| Totals {
                connections: counts[slot],
                packets_in: 2 * counts[slot],
                bytes_in: 100 * counts[slot],
                packets_out: 3 * counts[slot],
                bytes_out: 1_000 * counts[slot],
            }
        }

        fn connections(&self, slot: u32) -> u64 {
            self.accounts.destination(slot, Self::counted(&self.counts)).0.connections
        }

        fn service(&self) -> u64 {
            self.accounts.services(Self::counted(&self.counts))[&SERVICE].0.connections
        }
    }

    #[test]
    fn a_service_counts_what_its_removed_destinations_did() {
        let mut bench = Bench::new();
        bench.change(1, &[SERVICE], &[1, 2]);
        bench.counts = vec![10, 5, 0, 0];
        assert_eq!((bench.connections(0), bench.connections(1), bench.service()), (10, 5, 15));
        bench.change(1, &[SERVICE], &[2]);
        assert_eq!(bench.service(), 15);
        // Two minutes later another destination gets the slot and begins at 0.
        bench.change(200, &[SERVICE], &[2, 3]);
        assert_eq!((bench.connections(0), bench.service()), (0, 15));
        bench.counts[0] = 13;
        assert_eq!((bench.connections(0), bench.service()), (3, 18));
    }

    #[test]
    fn a_destination_that_comes_back_goes_on_counting() {
        let mut bench = Bench::new();
        bench.change(1, &[SERVICE], &[1]);
        bench.counts[0] = 10;
        bench.change(1, &[SERVICE], &[]);
        bench.change(1, &[SERVICE], &[1]);
        assert_eq!(bench.connections(0), 10);
    }

    #[test]
    fn a_service_that_was_deleted_begins_at_0() {
        let mut bench = Bench::new();
        bench.change(1, &[SERVICE], &[1]);
        bench.counts[0] = 10;
        bench.change(1, &[], &[]);
        bench.change(1, &[SERVICE], &[1]);
        assert_eq!((bench.service(), bench.connections(0)), (0, 0));
    }

    #[test]
    fn zero_hides_what_was_counted_and_clears_rates() {
        let mut bench = Bench::new();
        bench.change(1, &[SERVICE], &[1]);
        bench.counts[0] = 10;
        let counts = bench.counts.clone();
        bench.accounts.tick(Bench::counted(&counts));
        bench.accounts.zero(None, Bench::counted(&counts));
        assert_eq!((bench.connections(0), bench.service()), (0, 0));
        assert_eq!(bench.accounts.destination(0, Bench::counted(&counts)).1, Totals::default());
        bench.counts[0] = 12;
        assert_eq!((bench.connections(0), bench.service()), (2, 2));
    }

    #[test]
    fn rates_move_a_quarter_of_the_way_every_two_seconds() {
        let mut meter = Meter::default();
        // 800 a second: 0 + (800 - 0) / 4 = 200, 200 + 600 / 4 = 350, then silence: 350 - 350 / 4 = 262.5.
        for (count, rate) in [(1_600, 200), (3_200, 350), (3_200, 263)] {
            meter.tick(Totals { connections: count, ..Totals::default() });
            assert_eq!(meter.rates().connections, rate);
        }
    }

    #[test]
    fn what_servers_send_is_counted_and_has_rates_too() {
        let worker = |packets: u64, bytes: u64| {
            let worker = WorkerShared::new(0);
            worker.stats.destinations[3].packets_out.add(packets);
            worker.stats.destinations[3].bytes_out.add(bytes);
            Arc::new(worker)
        };
        let sum = counted(&[worker(400, 40_000), worker(400, 120_000)], 3);
        assert_eq!((sum.packets_out, sum.bytes_out, sum.packets_in), (800, 160_000, 0));
        let mut meter = Meter::default();
        meter.tick(sum);
        // 400 and 80000 a second: a quarter of the way.
        assert_eq!((meter.rates().packets_out, meter.rates().bytes_out), (100, 20_000));
    }
}
