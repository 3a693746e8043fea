//! A worker: the packet path on one page. This is the only file that names every stage.
//!
//! One thread runs one worker and calls [`Worker::poll`] again and again. Nothing in it waits. A worker owns its queues of
//! the ports, its buffers and its connections; what it shares it only reads (the snapshot, neighbours) or only writes
//! (counters), but for the connection counts of destinations and the place of a scheduler, which change when a connection
//! is made or ends.

use crate::{
    batch::Batch,
    command::{Command, ConnectionRecord, ConnectionsAnswer, ConnectionsQuery, WorkerShared},
    conn::{
        Connections, destination_of,
        key::{Key, Key4, Key6},
        lookup::{self, Picked},
        state_name,
        table::Role,
    },
    director::{self, Context},
    egress::Egress,
    exception::WorkerEnd,
    forward,
    handoff::Endpoint,
    limits::{BATCH, MAX_PORTS, TEMPLATE_BUDGET},
    parse::{self, Found},
    port::{Frame, FramePool, PoolOf, Port},
    publish::Reader,
    rate::TokenBucket,
    snapshot::{Method, Snapshot},
    time::{Nanos, Ticks},
    verdict::DropReason,
};
use pointsman_hugepages::{Error, Options, Report};
use std::{net::SocketAddr, os::fd::RawFd, sync::Arc};

/// What a worker is made of.
pub struct Setup<P: Port> {
    /// Its number, from 0.
    pub index: u16,
    /// Its queues of the ports, in the order of [`Snapshot::ports`]; at most [`MAX_PORTS`].
    pub ports: Vec<P>,
    /// Its buffers.
    pub pool: PoolOf<P>,
    /// Connections that its tables hold.
    pub connections_ipv4: usize,
    /// See `connections_ipv4`.
    pub connections_ipv6: usize,
    /// Where the tables live.
    pub memory: Options,
    /// Where its configuration comes from.
    pub snapshot: Reader<Snapshot>,
    /// Its ends of the rings to the other workers.
    pub handoff: Endpoint<P::Frame>,
    /// Its end of the exception path; `None` where nothing is given to the host.
    pub exception: Option<WorkerEnd<P::Frame>>,
    /// What it shares with the control plane.
    pub shared: Arc<WorkerShared>,
    /// Keeps clients from choosing which connections collide. Any random number.
    pub seed: u64,
}

/// See the module.
pub struct Worker<P: Port> {
    index: u16,
    ports: Vec<P>,
    pool: PoolOf<P>,
    v4: Connections<Key4>,
    v6: Connections<Key6>,
    config: Reader<Snapshot>,
    handoff: Endpoint<P::Frame>,
    egress: Egress<P::Frame>,
    errors: TokenBucket,
    shared: Arc<WorkerShared>,
    batch: Box<Batch<P::Frame>>,
    /// The port that is asked first at the next poll.
    turn: usize,
    /// The tick of the last look at templates.
    templates_at: Ticks,
    /// When the slow counters were last read from the ports.
    counted: Ticks,
    /// The most frames that waited in a handoff ring since then.
    handoff_fill: usize,
    fds: Vec<RawFd>,
}

impl<P: Port> Worker<P> {
    /// Takes all the memory that the worker will ever use.
    ///
    /// # Errors
    /// When the tables' memory is not to be had.
    pub fn new(mut setup: Setup<P>) -> Result<Self, Error> {
        setup.ports.truncate(MAX_PORTS);
        let v4 = Connections::new(setup.connections_ipv4, setup.seed, &setup.memory)?;
        let v6 = Connections::new(setup.connections_ipv6, setup.seed ^ 6, &setup.memory)?;
        setup.shared.stats.generation.set(setup.snapshot.generation());
        Ok(Self {
            index: setup.index,
            egress: Egress::new(setup.ports.len(), setup.exception),
            fds: setup.ports.iter().filter_map(Port::wait_fd).collect(),
            ports: setup.ports,
            pool: setup.pool,
            v4,
            v6,
            config: setup.snapshot,
            handoff: setup.handoff,
            errors: Context::error_budget(),
            shared: setup.shared,
            batch: Batch::new(),
            turn: 0,
            templates_at: Ticks(0),
            counted: Ticks(0),
            handoff_fill: 0,
        })
    }

    /// Does what there is to do and returns how much that was; 0 if nothing. `now` must not go back.
    pub fn poll(&mut self, now: Nanos) -> usize {
        if self.config.refresh() {
            self.shared.stats.generation.set(self.config.generation());
            self.v4.begin_sweep();
            self.v6.begin_sweep();
        }
        let finished = if self.batch.unfinished.is_empty() { 0 } else { self.finish(now) };
        let received = self.receive(now);
        // Before the batch, so that a port that is short of room has some for the host.
        let of_host = self.take_from_host();
        if received > 0 {
            let found = self.parse(now);
            let misses = self.look_up(found, now);
            self.admit(&misses, now);
            self.rewrite(now);
            self.transmit(now);
        } else if of_host > 0 {
            self.egress.flush(&mut self.ports, &self.shared.stats);
        }
        let mut done = finished + received + of_host;
        done += self.expire(now);
        done += self.housekeep(now);
        self.count(done, now);
        done
    }

    /// The memory of its tables and buffers.
    pub fn memory_reports(&self) -> Vec<Report> {
        let mut reports: Vec<_> =
            self.v4.table.reports().into_iter().chain(self.v6.table.reports()).collect();
        reports.push(self.pool.report());
        reports
    }

    /// What to wait on for frames to arrive.
    pub fn wait_fds(&self) -> &[RawFd] {
        &self.fds
    }

    /// Its ports, for tests and benches.
    pub fn ports_mut(&mut self) -> &mut [P] {
        &mut self.ports
    }

    /// Fills the batch: frames that other workers handed over first, then those of the ports in turn.
    #[inline]
    fn receive(&mut self, now: Nanos) -> usize {
        let batch = &mut *self.batch;
        batch.runs.clear();
        batch.released = 0;
        if !batch.held.is_empty() {
            self.release(now);
        }
        let batch = &mut *self.batch;
        if self.handoff.workers() > 1 {
            let before = batch.frames.len();
            let fill = self.handoff.pop(BATCH / 2, |(frame, port)| {
                batch.frames.push(frame);
                batch.came_by(port, false);
            });
            if fill > 0 {
                self.handoff_fill = self.handoff_fill.max(fill);
                self.shared.stats.handed_in.add((batch.frames.len() - before) as u64);
            }
        }
        let ports = self.ports.len();
        for n in 0..ports {
            let port = (self.turn + n) % ports;
            let received = self.ports[port].rx(&mut self.pool, &mut batch.frames);
            if received > 0 {
                batch.came_by(port as u8, true);
                self.shared.stats.ports[port].rx_packets.add(received as u64);
            }
        }
        self.turn = (self.turn + 1) % ports.max(1);
        batch.len()
    }

    /// Fragments whose first has come are received once more, in front of all others.
    #[cold]
    fn release(&mut self, now: Nanos) {
        let late = self.batch.held.forget(now) as u64;
        self.shared.stats.drops[DropReason::FragmentUnmatched as usize].add(late);
        self.batch.release(&self.config.get().fragments, now);
    }

    /// First fragments whose last has come leave, before all others. Returns how many, with those that waited in vain.
    #[cold]
    fn finish(&mut self, now: Nanos) -> usize {
        self.batch.finish(&self.config.get().fragments, now);
        let finished = self.batch.len();
        if finished > 0 {
            self.send_batch(now);
        }
        finished
    }

    /// What the host sends by the exception path; it is not parsed.
    #[inline]
    fn take_from_host(&mut self) -> usize {
        self.egress.take_from_host(&mut self.pool, &mut self.ports, &self.shared.stats)
    }

    /// Stage 1.
    #[inline]
    fn parse(&mut self, now: Nanos) -> Found {
        let workers = (self.index, self.handoff.workers());
        let tables = (&self.v4.table, &self.v6.table);
        let found = parse::batch(&mut self.batch, (self.config.get(), now), workers, tables);
        for run in self.batch.runs.iter().filter(|run| run.received) {
            self.shared.stats.ports[usize::from(run.port)].rx_bytes.add(run.bytes);
        }
        found
    }

    /// Stage 2. Returns the packets that the director must decide: those of no connection, and those of no flow.
    #[inline]
    fn look_up(&mut self, found: Found, now: Nanos) -> Picked {
        let at = (now, self.config.get());
        let mut misses = found.others;
        if found.v4 {
            lookup::batch(&mut self.v4, &mut self.batch, &mut misses, at);
        }
        if found.v6 {
            lookup::batch(&mut self.v6, &mut self.batch, &mut misses, at);
        }
        misses
    }

    /// Stage 3, for misses only.
    #[inline]
    fn admit(&mut self, misses: &Picked, now: Nanos) {
        if !misses.is_empty() {
            let snapshot = self.config.get();
            let mut context = Context { now, snapshot, shared: &self.shared, errors: &mut self.errors };
            director::admit(&mut self.batch, misses, &mut self.v4, &mut self.v6, &mut context);
        }
    }

    /// Stage 4.
    #[inline]
    fn rewrite(&mut self, now: Nanos) {
        let snapshot = self.config.get();
        let mut context = Context { now, snapshot, shared: &self.shared, errors: &mut self.errors };
        forward::batch(&mut self.batch, &mut context);
    }

    /// Stage 5.
    #[inline]
    fn transmit(&mut self, now: Nanos) {
        self.shared.stats.batch(self.batch.len() - self.batch.released);
        self.send_batch(now);
    }

    #[inline]
    fn send_batch(&mut self, now: Nanos) {
        let at = (now, self.config.get(), &self.shared.stats);
        self.egress.resolve(&mut self.batch, (&mut self.ports, &mut self.pool), &self.handoff, at);
    }

    /// Ends the connections whose time has come, or whose service is gone; a bounded number.
    #[inline]
    fn expire(&mut self, now: Nanos) -> usize {
        let (now, snapshot, stats) = (now.ticks(), self.config.get(), &self.shared.stats);
        // All workers share the templates.
        if self.index == 0 && now != self.templates_at {
            self.templates_at = now;
            snapshot.templates.expire(now, TEMPLATE_BUDGET);
            snapshot.expectations.expire(now);
        }
        let swept = self.v4.sweep(now, snapshot) + self.v6.sweep(now, snapshot);
        let swept = swept + self.v4.defend(now, snapshot, stats) + self.v6.defend(now, snapshot, stats);
        swept + self.v4.expire(now, snapshot, stats) + self.v6.expire(now, snapshot, stats)
    }

    /// Orders of the control plane, and frames that waited for a neighbour.
    #[inline]
    fn housekeep(&mut self, now: Nanos) -> usize {
        let mut done = self.egress.retry(&mut self.ports, (now, &self.shared.stats));
        while done < BATCH
            && let Some(command) = self.shared.commands.pop()
        {
            done += 1;
            match command {
                Command::Transmit { port, frame } => self.send(port, &frame),
                Command::ListConnections(query) => self.list(query, now),
            }
        }
        done
    }

    #[cold]
    fn send(&mut self, port: u16, frame: &[u8]) {
        let stats = &self.shared.stats;
        let filled = self.pool.alloc().and_then(|mut buffer| buffer.copy_from(frame).then_some(buffer));
        match filled {
            Some(buffer) => self.egress.send(port, buffer, &mut self.ports, stats),
            None => stats.dropped(DropReason::BufferPoolEmpty),
        }
    }

    /// One step of a walk: IPv4 entries, IPv6 ones, and the templates that all workers share, which the first one tells; at
    /// most 4096 looked at.
    #[cold]
    fn list(&self, query: ConnectionsQuery, now: Nanos) {
        let ConnectionsQuery { cursor, mut records, answer } = query;
        let (now, snapshot) = (now.ticks(), self.config.get());
        let (v4, v6) = (self.v4.table.capacity() as u64, self.v6.table.capacity() as u64);
        let templates = if self.index == 0 { snapshot.templates.capacity() as u64 } else { 0 };
        let mut at = cursor;
        let end = (cursor.saturating_add(4096)).min(v4 + v6 + templates);
        while at < end && records.len() < records.capacity() {
            let record = if at < v4 {
                record(&self.v4, at as u32, now, snapshot)
            } else if at < v4 + v6 {
                record(&self.v6, (at - v4) as u32, now, snapshot)
            } else {
                record_of_template((at - v4 - v6) as usize, now, snapshot)
            };
            records.extend(record);
            at += 1;
        }
        let next = (at < v4 + v6 + templates).then_some(at);
        // The one who asked may be gone.
        let _ = answer.try_send(ConnectionsAnswer { worker: self.index, next, records });
    }

    #[inline]
    fn count(&mut self, done: usize, now: Nanos) {
        let stats = &self.shared.stats;
        stats.polls.add(1);
        if done == 0 {
            stats.empty_polls.add(1);
        }
        stats.held.set((self.batch.held.len() + self.batch.unfinished.len()) as u64);
        stats.connections.set((self.v4.len() + self.v6.len()) as u64);
        if now.ticks().since(self.counted).0 >= Ticks::PER_SECOND {
            self.counted = now.ticks();
            let fill = std::mem::take(&mut self.handoff_fill) as u64;
            stats.handoff_fill.set(fill);
            stats.handoff_fill_highest.set(fill.max(stats.handoff_fill_highest.get()));
            for (port, counters) in self.ports.iter_mut().zip(&stats.ports) {
                counters.rx_ring_drops.set(port.rx_ring_drops());
            }
        }
    }
}

fn record_of_template(number: usize, now: Ticks, snapshot: &Snapshot) -> Option<ConnectionRecord> {
    let found = snapshot.templates.record(number, now)?;
    let destination = snapshot.destinations.get(found.slot as usize)?;
    (destination.generation == found.generation).then(|| ConnectionRecord {
        protocol: found.key.protocol,
        client: SocketAddr::new(found.key.client, 0),
        virtual_service: SocketAddr::new(found.key.address, found.key.port),
        // A template of all ports has none, on either side.
        destination: SocketAddr::new(
            destination.address,
            if found.key.port == 0 { 0 } else { destination.port },
        ),
        state: "NONE",
        expires_millis: found.remaining.0.saturating_mul(10),
        packets_in: 0,
        bytes_in: 0,
        packets_out: 0,
        bytes_out: 0,
        outbound: false,
        method: destination.method,
        slot: Some(found.slot),
        call_id: found.call_id,
    })
}

fn record<K: Key>(
    connections: &Connections<K>,
    entry: u32,
    now: Ticks,
    snapshot: &Snapshot,
) -> Option<ConnectionRecord> {
    let found = connections.live(entry)?;
    let remaining = connections.remaining(entry, now, snapshot);
    let answers = connections.answers(entry);
    let (packets_out, bytes_out) = answers.map_or((0, 0), |answers| (answers.packets, answers.bytes));
    let virtual_service = found.key.virtual_service();
    let (virtual_service, destination, method) = match found.role {
        // Where its packets leave from, and where they go.
        Role::Outbound => (connections.becomes(entry)?.client(), virtual_service, Method::Nat),
        // To the server by another port than its session's.
        Role::Data => (virtual_service, connections.becomes(entry)?.virtual_service(), Method::Nat),
        _ => {
            let destination = destination_of(found, snapshot)?;
            // A server of every port takes a connection at the port that its client asked for.
            let port = if destination.port == 0 { virtual_service.port() } else { destination.port };
            (virtual_service, SocketAddr::new(destination.address, port), found.role.method())
        }
    };
    Some(ConnectionRecord {
        protocol: found.key.protocol(),
        client: found.key.client(),
        virtual_service,
        destination,
        state: state_name(found),
        expires_millis: remaining.0.saturating_mul(10),
        packets_in: found.packets,
        bytes_in: found.bytes,
        packets_out,
        bytes_out,
        outbound: found.role == Role::Outbound,
        method,
        slot: (found.role != Role::Outbound).then_some(found.destination),
        call_id: None,
    })
}
