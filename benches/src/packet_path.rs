//! Direct routing from rx to tx: what one worker does with 64-byte frames (60 and the check sequence) in memory.
//!
//! One thread on one core calls `Worker::poll` again and again between the ends of a loopback port. Its generator writes
//! every frame anew, the worker receives, parses, looks up, rewrites and sends it, and the port takes the buffer back. All of
//! that is in the figures; the *floor*, generator and port with no worker between them, is given beside them. Connections
//! and buffers lie on huge pages. Flows come in the order f = (i x 0x9e3779b1) mod n: none twice before all others.
//!
//! - hit: every packet is of an established connection, of which there are 1, 1 k, 1 M or 10 M.
//! - nat: the same by address translation, every second packet on its way from a client to a server, the others back, each way
//!   of each connection once before any comes again.
//! - new: every packet is the SYN of a client never seen; connections end after a second, as many as begin.
//! - flood: the table is full, every SYN takes the place of the oldest half-open connection, and one packet in sixteen is of
//!   one of the established connections, a tenth of the table, none of which may be lost.

use crate::{
    Extent,
    rig::{Floor, Plan, Rig},
    timing::{Figure, measure, reference_nanos},
    traffic::{Flood, Fresh, Pattern, Permuted},
};
use pointsman_dataplane::{
    conn::{key::Key6, table::Table, tcp::TcpState},
    limits::BATCH,
    snapshot::{Method, Timeouts},
    time::Ticks,
    wire::tcp,
};
use pointsman_hugepages::{Error, Options, PageSize};

/// Connections of the table in the benches of new connections. A tenth of them stay established while it is flooded.
fn table(extent: Extent) -> usize {
    extent.pick(1 << 20, 1 << 13)
}

/// A figure and what it is worth.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// The figure.
    pub figure: Figure,
    /// Whether tables and buffers had huge pages.
    pub huge: bool,
}

/// Packets of `flows` established connections.
///
/// # Errors
/// When the memory is not to be had.
pub fn hit(flows: u32, extent: Extent) -> Result<(Measured, f64), Error> {
    hit_by(Method::Direct, flows, extent)
}

/// The same, forwarded by this method.
///
/// # Errors
/// When the memory is not to be had.
pub fn hit_by(method: Method, flows: u32, extent: Extent) -> Result<(Measured, f64), Error> {
    hits(Rig::established_by(method, flows, Options::default())?, flows, extent)
}

/// Packets of both directions of `flows` connections with NAT. The bytes are those of a connection with the entry for its
/// answers.
///
/// # Errors
/// When the memory is not to be had.
pub fn hit_nat(flows: u32, extent: Extent) -> Result<(Measured, f64), Error> {
    hits(Rig::translating(flows, Options::default())?, flows, extent)
}

/// What packets of known connections cost, and the bytes of the table for each of `flows`.
fn hits<P: Pattern>(mut rig: Rig<P>, flows: u32, extent: Extent) -> Result<(Measured, f64), Error> {
    // Each run sees each connection about once, and some millions of packets at least.
    let packets = extent.pick(u64::from(flows).max(4_000_000), 6_400);
    let before = rig.counts();
    let figure = measure(|| rig.run(packets));
    let after = rig.counts();
    assert_eq!(
        after.packets - before.packets,
        after.forwarded - before.forwarded,
        "packets were lost, which no figure may hide: {}",
        rig.losses()
    );
    let measured = Measured { figure, huge: rig.has_huge_pages() };
    Ok((measured, rig.table_bytes() as f64 / f64::from(flows)))
}

/// Bytes for each connection of a table of `flows` IPv6 connections, and whether it has huge pages.
///
/// # Errors
/// When the memory is not to be had.
pub fn memory_ipv6(flows: u32) -> Result<(f64, bool), Error> {
    let table = Table::<Key6>::new(flows as usize, 0x5eed, &Options::default())?;
    let reports = table.reports();
    let bytes: usize = reports.iter().map(|report| report.bytes).sum();
    let huge = reports.iter().all(|report| report.page_size != PageSize::Ordinary);
    Ok((bytes as f64 / f64::from(flows), huge))
}

/// Generator and port alone.
///
/// # Errors
/// When the memory is not to be had.
pub fn floor(flows: u32, extent: Extent) -> Result<Figure, Error> {
    let mut floor = Floor::new(Permuted::new(flows, tcp::ACK), &Options::default())?;
    Ok(measure(|| floor.run(extent.pick(4_000_000, 6_400))))
}

/// New connections with as many ending: the table is three quarters full, each connection ends a second after its SYN.
///
/// # Errors
/// When the memory is not to be had.
pub fn new_connections(extent: Extent) -> Result<Measured, Error> {
    let table = table(extent);
    let mut rig = sustained(table, Options::default())?;
    // Until connections end as fast as they begin.
    rig.run(2 * table as u64);
    let before = rig.counts();
    let figure = measure(|| rig.run(table as u64));
    let after = rig.counts();
    let created = after.created - before.created;
    let expired = after.expired - before.expired;
    assert_eq!(created, after.packets - before.packets, "{}", rig.losses());
    assert_eq!(after.evicted, 0, "the table was not to fill up");
    assert!(
        created.abs_diff(expired) <= table as u64 / 16,
        "as many end as begin: {created} began, {expired} ended"
    );
    let huge = rig.has_huge_pages();
    Ok(Measured { figure, huge })
}

/// The rig of [`new_connections`].
fn sustained(table: usize, memory: Options) -> Result<Rig<Fresh>, Error> {
    let mut timeouts = Timeouts::default();
    timeouts.tcp[TcpState::SynReceived as usize] = Ticks::from_secs(1);
    let plan = Plan {
        capacity: table,
        memory,
        // Three quarters of the table begin in a second.
        nanos_per_poll: 1_000_000_000 * BATCH as u64 / (table as u64 * 3 / 4),
    };
    Rig::new(plan, Fresh::new(0), timeouts)
}

/// The table full, and SYNs without end. The figure is for each SYN; the packets of established connections between them
/// are in the time.
///
/// # Errors
/// When the memory is not to be had.
pub fn flood(extent: Extent) -> Result<Measured, Error> {
    let table = table(extent);
    let mut rig = flooded(table, Options::default())?;
    let before = rig.counts();
    let share = u64::from(Flood::SHARE);
    let figure = measure(|| rig.run(table as u64) * (share - 1) / share);
    let after = rig.counts();
    assert_eq!(after.connections, table as u64, "the table stays full");
    assert_eq!(
        after.evicted - before.evicted,
        after.created - before.created,
        "every new connection took the place of another"
    );
    // A packet of a lost connection would be answered with a reset.
    assert_eq!(
        (after.dropped, after.answered),
        (0, 0),
        "an established connection was lost: {}",
        rig.losses()
    );
    let huge = rig.has_huge_pages();
    Ok(Measured { figure, huge })
}

/// The rig of [`flood`], its table full.
fn flooded(table: usize, memory: Options) -> Result<Rig<Flood>, Error> {
    let plan = Plan { capacity: table, memory, nanos_per_poll: 10_000 };
    let known = (table / 10) as u32;
    let mut rig = Rig::new(plan, Flood::new(known), Timeouts::default())?;
    rig.run(u64::from(known));
    rig.pattern().known.flags = tcp::ACK;
    rig.run(u64::from(known));
    rig.pattern().begun = true;
    rig.run(2 * table as u64);
    Ok(rig)
}

/// [`once`] with its arguments as text: MODE FLOWS PACKETS.
///
/// # Errors
/// What is wrong with the arguments, or the memory.
pub fn once_of_arguments(arguments: &[String]) -> Result<(), String> {
    let usage = || "--once is followed by MODE FLOWS PACKETS, for example: --once hit 1000 640000".to_owned();
    let [mode, flows, packets] = arguments else {
        return Err(usage());
    };
    let flows = flows.parse().map_err(|_| usage())?;
    let packets = packets.parse().map_err(|_| usage())?;
    let done = once(mode, flows, packets)?;
    println!("{done} packets");
    Ok(())
}

/// Does a fixed amount of work without timing, for callgrind: see [`crate::callgrind`].
///
/// # Errors
/// What is wrong with the arguments, or the memory.
pub fn once(mode: &str, flows: u32, packets: u64) -> Result<u64, String> {
    let memory = crate::rig::ordinary();
    let said = |error: Error| error.to_string();
    Ok(match mode {
        "hit" => Rig::established(flows, memory).map_err(said)?.run(packets),
        "tun" => Rig::established_by(Method::Tunnel, flows, memory).map_err(said)?.run(packets),
        "nat" => Rig::translating(flows, memory).map_err(said)?.run(packets),
        "floor" => Floor::new(Permuted::new(flows, tcp::ACK), &memory).map_err(said)?.run(packets),
        "new" => sustained(table(Extent::Smoke), memory).map_err(said)?.run(packets),
        "flood" => flooded(table(Extent::Smoke), memory).map_err(said)?.run(packets),
        _ => return Err(format!("no mode \"{mode}\": there are hit, tun, nat, floor, new and flood")),
    })
}

/// Runs everything and prints it.
///
/// # Errors
/// When the memory is not to be had.
pub fn print(extent: Extent) -> Result<(), Error> {
    let sizes: &[u32] = match extent {
        Extent::Full => &[1, 1_000, 1_000_000, 10_000_000],
        Extent::Smoke => &[1, 10_000],
    };
    if extent == Extent::Smoke {
        println!("packet_path: to see that it runs; these figures mean nothing");
    }
    println!("reference loop      {:.2} ns a step", reference_nanos());
    println!("floor               {}", floor(1_000, extent)?);
    for &flows in sizes {
        let (measured, bytes) = hit(flows, extent)?;
        println!("hit {flows:>10} flows {}{}  {bytes:.1} B/flow", measured.figure, pages(measured.huge));
    }
    let new = new_connections(extent)?;
    println!("new connections     {}{}", new.figure, pages(new.huge));
    let flood = flood(extent)?;
    println!("full table, flood   {}{}", flood.figure, pages(flood.huge));
    Ok(())
}

fn pages(huge: bool) -> &'static str {
    if huge { "" } else { "  WITHOUT HUGE PAGES" }
}
