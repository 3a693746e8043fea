//! Drives the neighbour machine: frames that workers learned from go in, probes go out by the first worker.

use crate::{
    apply::Control,
    clock,
    kernel::{Network, PortNetwork},
    neighbor::{NeighborInfo, Neighbors, PortAddresses, Transmit},
};
use pointsman_dataplane::{command::Command, on_link::OnLink, snapshot::NextHop, time::Nanos};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::MissedTickBehavior;

/// How often the frames of the workers are looked at.
const PERIOD: Duration = Duration::from_millis(10);
/// How often stations on the links are cleared that nobody speaks to any more.
const CLEAR: Nanos = Nanos::from_secs(1);

/// The neighbours of a director.
#[derive(Debug, Default)]
pub struct Resolver {
    neighbors: Mutex<Neighbors>,
}

impl Resolver {
    /// All neighbours, as users see them.
    pub fn states(&self) -> Vec<NeighborInfo> {
        self.lock().states().collect()
    }

    /// Resolves the next hops of a director for as long as it is polled.
    pub async fn run(&self, control: Arc<Control>) {
        let mut wanted = control.watch_next_hops();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cleared = clock::now();
        self.want(&wanted.borrow_and_update(), control.on_link());
        loop {
            self.step(&control);
            tokio::select! {
                _ = ticks.tick() => {
                    let now = clock::now();
                    let mut moved = control.on_link().has_new();
                    if now.0.saturating_sub(cleared.0) >= CLEAR.0 {
                        cleared = now;
                        moved |= control.on_link().clear(now);
                    }
                    if moved {
                        self.want(&wanted.borrow(), control.on_link());
                    }
                }
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.want(&wanted.borrow_and_update(), control.on_link());
                }
            }
        }
    }

    fn want(&self, (hops, network): &(Vec<NextHop>, Network), on_link: &OnLink) {
        let facts =
            |port| network.ports.get(usize::from(port)).map(|port: &PortNetwork| (port.mtu, port.mac));
        let mut hops = hops.clone();
        hops.extend(on_link.wanted(facts));
        let ports = network.ports.iter();
        let ports = ports.map(|port| PortAddresses { mac: port.mac, addresses: port.addresses.clone() });
        let mut neighbors = self.lock();
        neighbors.set_ports(ports.collect());
        neighbors.want(clock::now(), &hops);
    }

    fn step(&self, control: &Control) {
        let now = clock::now();
        let mut neighbors = self.lock();
        for worker in control.workers() {
            // As many as were there: a flood must not keep us here.
            for _ in 0..worker.shared.punts.len() {
                let Some(frame) = worker.shared.punts.pop() else { break };
                neighbors.handle_frame(now, frame.port, frame.data());
            }
        }
        if neighbors.poll_timeout().is_some_and(|due| due <= now) {
            neighbors.handle_timeout(now);
        }
        while let Some(Transmit { port, frame }) = neighbors.poll_transmit() {
            control.transmit(Command::Transmit { port, frame });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Neighbors> {
        // A panic while it was held has ended the daemon.
        self.neighbors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
