//! Stage 5: next hop, neighbour, port. Frames for a neighbour that has not answered yet wait a moment in a bounded queue.

use crate::{
    batch::{Batch, Packet},
    exception::WorkerEnd,
    forward::fragment::{Cut, CutOuter, Pieces},
    fragments,
    handoff::Endpoint,
    limits::{BATCH, EXCEPTION_BUDGET, MAX_PORTS, MAX_WAITING, WAITING_MILLIS},
    port::{Frame, FramePool, Frames, PoolOf, Port},
    snapshot::{Hop, NeighborCell, NeighborState, Snapshot},
    stats::WorkerStats,
    time::Nanos,
    verdict::{DropReason, Verdict},
    wire::ethernet,
};
use arrayvec::ArrayVec;
use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

/// A frame that waits for its neighbour.
struct Waiting<F> {
    frame: F,
    /// The port that it leaves by, and that port's MAC address.
    port: u16,
    source: [u8; 6],
    cell: Arc<NeighborCell>,
    since: Nanos,
}

/// What leaves, by port, and what waits to leave.
pub struct Egress<F> {
    out: ArrayVec<Frames<F>, MAX_PORTS>,
    waiting: Vec<Waiting<F>>,
    /// Tells the fragments of the next outer IPv6 packet from those of others.
    identification: u32,
    exception: Option<WorkerEnd<F>>,
}

/// Sets the MAC addresses of a frame to a next hop of that number: the last step of each forwarding method.
#[inline(always)]
pub fn address(frame: &mut impl Frame, next_hop: u32, hop: &Hop<'_>) -> Verdict {
    match hop.cell.get() {
        NeighborState::Reachable(mac) => {
            ethernet::set_addresses(frame.data_mut(), mac, hop.source);
            Verdict::Forward(hop.port)
        }
        _ => Verdict::Resolve(next_hop),
    }
}

impl<F: Frame> Egress<F> {
    /// For `ports` ports, at most [`MAX_PORTS`]. Without an exception path nothing is given to the host.
    pub fn new(ports: usize, exception: Option<WorkerEnd<F>>) -> Self {
        Self {
            out: (0..ports.min(MAX_PORTS)).map(|_| Frames::new()).collect(),
            waiting: Vec::with_capacity(MAX_WAITING),
            // Workers begin anywhere, and none where another is: 2^32 packets are many.
            identification: RandomState::new().hash_one(0) as u32,
            exception,
        }
    }

    /// Sends every frame of the batch where its verdict says, and empties the batch. No frame is left without a count.
    pub fn resolve<P: Port<Frame = F>>(
        &mut self,
        batch: &mut Batch<F>,
        (ports, pool): (&mut [P], &mut PoolOf<P>),
        handoff: &Endpoint<F>,
        (now, snapshot, stats): (Nanos, &Snapshot, &WorkerStats),
    ) {
        // What waited for a neighbour that has answered since leaves before what has come since.
        self.retry(ports, (now, stats));
        match self.only_way(batch) {
            Some(port) => {
                stats.forwarded.add(batch.len() as u64);
                transmit(port, &mut batch.frames, ports, stats);
            }
            None => self.each_its_way(batch, (ports, pool), handoff, (now, snapshot, stats)),
        }
        self.flush(ports, stats);
        if let Some(exception) = &mut self.exception {
            exception.wake();
        }
    }

    /// Puts every frame of the batch where its verdict says.
    fn each_its_way<P: Port<Frame = F>>(
        &mut self,
        batch: &mut Batch<F>,
        (ports, pool): (&mut [P], &mut PoolOf<P>),
        handoff: &Endpoint<F>,
        (now, snapshot, stats): (Nanos, &Snapshot, &WorkerStats),
    ) {
        let at = (now, snapshot, stats);
        let mut forwarded = 0;
        let Batch { frames, packets, held, unsummed, unfinished, .. } = batch;
        for (i, (frame, packet)) in frames.drain(..).zip(packets).enumerate() {
            match packet.verdict {
                Verdict::Forward(port) => {
                    let queued = self.enqueue(usize::from(port), frame, ports, stats);
                    forwarded += u64::from(queued);
                }
                Verdict::Resolve(next_hop) => {
                    forwarded += u64::from(self.send_to(frame, next_hop, ports, at));
                }
                Verdict::Cut(next_hop) => match self.pieces((&frame, packet), next_hop, pool, at) {
                    Ok(pieces) => {
                        stats.cut.add(pieces.len() as u64 - 1);
                        for piece in pieces {
                            forwarded += u64::from(self.send_to(piece, next_hop, ports, at));
                        }
                    }
                    Err(reason) => stats.dropped(reason),
                },
                Verdict::Hold => {
                    let of = fragments::datagram(frame.data(), &packet.layout);
                    let hold = |(datagram, _)| held.hold(frame, packet.port, datagram, now).is_some();
                    if of.is_none_or(hold) {
                        stats.dropped(DropReason::FragmentUnmatched);
                    }
                }
                Verdict::Unfinished => {
                    // They were not found in the batch's order.
                    let of = unsummed.iter().find(|(number, ..)| usize::from(*number) == i);
                    let hold = |&(_, verdict, unsummed): &(u8, Verdict, _)| {
                        unfinished.hold(frame, Packet { verdict, ..*packet }, unsummed, now).is_some()
                    };
                    if of.is_none_or(hold) {
                        stats.dropped(DropReason::FragmentUnmatched);
                    }
                }
                Verdict::Answer(answer) => {
                    let queued = self.enqueue(usize::from(packet.port), frame, ports, stats);
                    stats.answers[answer as usize].add(u64::from(queued));
                }
                Verdict::Punt if P::SEEN_BY_HOST => stats.punted.add(1),
                Verdict::Punt | Verdict::Local => self.punt(frame, packet.port, stats),
                Verdict::Handoff(worker) => match handoff.push(worker, (frame, packet.port)) {
                    Ok(()) => stats.handed_off.add(1),
                    Err(_) => stats.dropped(DropReason::HandoffRingFull),
                },
                Verdict::Drop(reason) => stats.dropped(reason),
                Verdict::Open => {
                    debug_assert!(false, "every packet is decided before it leaves");
                    stats.punted.add(1);
                }
            }
        }
        unsummed.clear();
        stats.forwarded.add(forwarded);
    }

    /// The fragments of a packet that is too large for its next hop, in frames of their own: all, or none.
    #[cold]
    fn pieces(
        &mut self,
        (frame, packet): (&F, &Packet),
        next_hop: u32,
        pool: &mut F::Pool,
        (now, snapshot, _): (Nanos, &Snapshot, &WorkerStats),
    ) -> Result<Frames<F>, DropReason> {
        let mtu = snapshot.hop(next_hop).ok_or(DropReason::NoRoute)?.mtu;
        let l3 = usize::from(packet.layout.l3);
        let (link, bytes) = frame.data().split_at_checked(l3).ok_or(DropReason::TooBig)?;
        if bytes.first().is_some_and(|first| first >> 4 == 4) {
            return filled(link, &Cut::new(bytes, mtu).ok_or(DropReason::TooBig)?, pool);
        }
        // An outer packet: of IPv6 no other is cut.
        let destination = snapshot.destinations.get(packet.destination as usize);
        let tunnel = destination.and_then(|destination| destination.tunnel.as_ref());
        let mtu = tunnel.map_or(mtu, |tunnel| tunnel.outer_mtu(mtu, now));
        self.identification = self.identification.wrapping_add(1);
        let cut = CutOuter::new(bytes, mtu, self.identification).ok_or(DropReason::TooBig)?;
        filled(link, &cut, pool)
    }

    /// Puts a frame where its next hop is, or lets it wait. Whether a port was given it.
    #[cold]
    fn send_to<P: Port<Frame = F>>(
        &mut self,
        mut frame: F,
        next_hop: u32,
        ports: &mut [P],
        (now, snapshot, stats): (Nanos, &Snapshot, &WorkerStats),
    ) -> bool {
        let Some(hop) = snapshot.hop(next_hop) else {
            stats.dropped(DropReason::NoRoute);
            return false;
        };
        // The neighbour may have answered since.
        match (address(&mut frame, next_hop, &hop), hop.cell.get()) {
            (Verdict::Forward(port), _) => return self.enqueue(usize::from(port), frame, ports, stats),
            (_, NeighborState::Failed) => stats.dropped(DropReason::NeighborUnresolved),
            _ => self.wait(frame, &hop, now, stats),
        }
        false
    }

    /// Puts frames that the host sends in front of what leaves next; see [`Egress::flush`]. At most [`EXCEPTION_BUDGET`];
    /// returns how many. Drops those of the worker that the host has read.
    #[inline]
    pub fn take_from_host<P: Port<Frame = F>>(
        &mut self,
        pool: &mut PoolOf<P>,
        ports: &mut [P],
        stats: &WorkerStats,
    ) -> usize {
        if let Some(exception) = &mut self.exception {
            exception.drop_read();
        }
        let mut taken = 0;
        while taken < EXCEPTION_BUDGET
            && let Some(exception) = &mut self.exception
            && let Some(given) = exception.pop()
        {
            taken += 1;
            let port = usize::from(given.port());
            let filled = pool.alloc().and_then(|mut frame| frame.copy_from(given.data()).then_some(frame));
            exception.give_back(given);
            match filled {
                Some(frame) => stats.from_host.add(u64::from(self.enqueue(port, frame, ports, stats))),
                None => stats.dropped(DropReason::BufferPoolEmpty),
            }
        }
        taken
    }

    /// The port by which the whole batch leaves, as nearly every batch of a director does, if nothing else waits to leave
    /// by it: the batch's frames can then be sent as they stand.
    #[inline]
    fn only_way(&self, batch: &Batch<F>) -> Option<usize> {
        let packets = &batch.packets[..batch.frames.len()];
        let port = batch.way.or_else(|| match packets.first()?.verdict {
            Verdict::Forward(port) => {
                packets.iter().all(|packet| packet.verdict == Verdict::Forward(port)).then_some(port)
            }
            _ => None,
        })?;
        let out = self.out.get(usize::from(port))?;
        out.is_empty().then_some(usize::from(port))
    }

    /// Sends the waiting frames whose neighbour has answered, and drops those that waited too long. Returns how many there
    /// were of both.
    #[inline]
    pub fn retry<P: Port<Frame = F>>(&mut self, ports: &mut [P], at: (Nanos, &WorkerStats)) -> usize {
        if self.waiting.is_empty() { 0 } else { self.retry_waiting(ports, at) }
    }

    #[cold]
    fn retry_waiting<P: Port<Frame = F>>(
        &mut self,
        ports: &mut [P],
        (now, stats): (Nanos, &WorkerStats),
    ) -> usize {
        let expired =
            |waiting: &Waiting<F>| now.0.saturating_sub(waiting.since.0) > WAITING_MILLIS * 1_000_000;
        // In order, so that a connection's segments stay in theirs.
        let done: ArrayVec<Waiting<F>, MAX_WAITING> = self
            .waiting
            .extract_if(.., |waiting| waiting.cell.get() != NeighborState::Incomplete || expired(waiting))
            .collect();
        let count = done.len();
        for mut waiting in done {
            let NeighborState::Reachable(mac) = waiting.cell.get() else {
                stats.dropped(DropReason::NeighborUnresolved);
                continue;
            };
            ethernet::set_addresses(waiting.frame.data_mut(), mac, waiting.source);
            let queued = self.enqueue(usize::from(waiting.port), waiting.frame, ports, stats);
            stats.forwarded.add(u64::from(queued));
        }
        self.flush(ports, stats);
        count
    }

    /// Sends one frame that the control plane made.
    pub fn send<P: Port<Frame = F>>(&mut self, port: u16, frame: F, ports: &mut [P], stats: &WorkerStats) {
        self.enqueue(usize::from(port), frame, ports, stats);
        self.flush(ports, stats);
    }

    /// Gives a frame to the host.
    fn punt(&mut self, frame: F, port: u8, stats: &WorkerStats) {
        if let Some(exception) = &mut self.exception
            && exception.push(frame, port).is_err()
        {
            stats.dropped(DropReason::ExceptionRingFull);
        } else {
            stats.punted.add(1);
        }
    }

    #[cold]
    fn wait(&mut self, frame: F, hop: &Hop<'_>, now: Nanos, stats: &WorkerStats) {
        if self.waiting.len() == MAX_WAITING {
            stats.dropped(DropReason::NeighborQueueFull);
            return;
        }
        let Hop { port, source, .. } = *hop;
        self.waiting.push(Waiting { frame, port, source, cell: hop.cell.clone(), since: now });
    }

    /// Whether there is such a port; if not, the frame is dropped and counted.
    #[inline]
    fn enqueue<P: Port<Frame = F>>(
        &mut self,
        port: usize,
        frame: F,
        ports: &mut [P],
        stats: &WorkerStats,
    ) -> bool {
        let Some(out) = self.out.get_mut(port) else {
            stats.dropped(DropReason::PortGone);
            return false;
        };
        out.push(frame);
        if out.len() == BATCH {
            transmit(port, out, ports, stats);
        }
        true
    }

    /// Sends all that was put into the queues of the ports.
    #[inline]
    pub fn flush<P: Port<Frame = F>>(&mut self, ports: &mut [P], stats: &WorkerStats) {
        for (port, out) in self.out.iter_mut().enumerate() {
            if !out.is_empty() {
                transmit(port, out, ports, stats);
            }
        }
    }
}

/// The fragments of a packet behind a link-layer header, in frames of their own: all, or none.
fn filled<F: Frame>(link: &[u8], cut: &impl Pieces, pool: &mut F::Pool) -> Result<Frames<F>, DropReason> {
    if cut.pieces() > BATCH {
        return Err(DropReason::TooBig);
    }
    let mut pieces = Frames::new();
    for n in 0..cut.pieces() {
        let mut piece = pool.alloc().ok_or(DropReason::BufferPoolEmpty)?;
        if !piece.set_len(link.len() + cut.len_of(n)) {
            return Err(DropReason::TooBig);
        }
        let (front, rest) = piece.data_mut().split_at_mut(link.len());
        front.copy_from_slice(link);
        if !cut.write(n, rest) {
            return Err(DropReason::TooBig);
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

fn transmit<P: Port>(port: usize, out: &mut Frames<P::Frame>, ports: &mut [P], stats: &WorkerStats) {
    let Some(device) = ports.get_mut(port) else {
        stats.drops[DropReason::PortGone as usize].add(out.len() as u64);
        out.clear();
        return;
    };
    let offered = out.len();
    let bytes: usize = out.iter().map(Frame::len).sum();
    let sent = device.tx(out);
    let counters = &stats.ports[port];
    counters.tx_packets.add(sent as u64);
    if sent == offered {
        counters.tx_bytes.add(bytes as u64);
    } else {
        // Which frames were refused is the driver's to know; they share the average.
        counters.tx_bytes.add((bytes * sent / offered) as u64);
        counters.tx_ring_drops.add((offered - sent) as u64);
        stats.drops[DropReason::TransmitRingFull as usize].add((offered - sent) as u64);
    }
}
