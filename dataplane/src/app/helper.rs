//! The helper of FTP: what passes through a session by NAT, and the data connections that it speaks of.
//!
//! As with the original a session is a connection to the virtual port 21, and it is heeded while it is established. Its
//! client may ask for a data connection to itself alone, at a port from 1024 on; the server opens that from the port below
//! the session's, and the client sees it come from the port below the virtual one. Where the server waits for one, the
//! client comes to the same port of the virtual address. Both are expected for the time of the state LISTEN.
//!
//! A session's segments take the long way, and so do those of its data connections; [`crate::conn::lookup`] says how.

use super::{
    expected::Expected,
    ftp::{self, Command, MAX_TEXT},
};
use crate::{
    batch::{Batch, Kind, Layout, Packet},
    conn::{Connections, TableFull, key::Key, lookup::BatchKey, pair::Opener, table::Role, tcp::TcpState},
    director::Context,
    forward::route,
    index::Asked,
    port::Frame,
    snapshot::{Destination, Presence, Snapshot},
    time::Ticks,
    verdict::DropReason,
    wire::{checksum, protocol, tcp},
};
use std::net::SocketAddr;

/// Ports below this are no data connection's: a client would have the server connect to a service.
const FIRST_PORT: u16 = 1_024;

/// Who speaks in a session.
struct Session<'a> {
    client: SocketAddr,
    virtual_service: SocketAddr,
    destination: &'a Destination,
    slot: u32,
    is_established: bool,
}

impl Session<'_> {
    /// Expects a data connection at this port of who waits for it.
    fn expect(&self, opener: Opener, port: u16, now: Ticks, snapshot: &Snapshot) {
        let server = self.destination.address;
        // A server of every port is spoken to at the virtual one.
        let own = match self.destination.port {
            0 => self.virtual_service.port(),
            own => own,
        };
        let (client, at_virtual, at_server) = match opener {
            Opener::Client => (0, port, port),
            Opener::Server => (port, self.virtual_service.port() - 1, own.wrapping_sub(1)),
        };
        let expected = Expected {
            opener,
            client: SocketAddr::new(self.client.ip(), client),
            virtual_service: SocketAddr::new(self.virtual_service.ip(), at_virtual),
            server: SocketAddr::new(server, at_server),
            slot: self.slot,
            generation: self.destination.generation,
            session: snapshot.expectations.session(self.client, self.virtual_service),
        };
        let timeouts = self.destination.timeouts.as_deref().unwrap_or(&snapshot.timeouts);
        snapshot.expectations.add(expected, (now, timeouts.tcp[TcpState::Listen as usize]));
    }
}

/// Passes packet `i` of a session, of either side, which was found in the table.
pub(crate) fn session<K: Asked + BatchKey, F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    connections: &mut Connections<K>,
    context: &mut Context<'_>,
) {
    let (frame, packet) = (&mut batch.frames[i], &mut batch.packets[i]);
    let is_answer = packet.role == Role::ControlAnswers;
    let found = connections.table.get(packet.entry);
    let first = if is_answer { found.peer } else { packet.entry };
    let slot = found.destination;
    let is_established = found.state == TcpState::Established as u8;
    let key = connections.table.get(first).key;
    let Some(destination) = context.snapshot.destinations.get(slot as usize) else {
        return packet.drop(DropReason::DestinationRemoved);
    };
    // An ICMP error about it is translated as any other.
    if packet.layout.kind == Kind::Flow {
        let (client, virtual_service) = (key.client(), key.virtual_service());
        let session = Session { client, virtual_service, destination, slot, is_established };
        let passed = if is_answer {
            reply((frame, packet), (first, &session), connections, context)
        } else {
            command(frame, &packet.layout, (first, &session), connections, context)
        };
        if let Err(reason) = passed {
            return packet.drop(reason);
        }
    }
    packet.destination = slot;
    packet.role = Role::Nat;
    if is_answer {
        packet.role = Role::Server;
        key.keep_in(packet, &mut batch.key6[i]);
    }
}

/// Heeds what a client sends, and gives what it acknowledges the server's numbers.
fn command<K: Key>(
    frame: &mut impl Frame,
    layout: &Layout,
    (first, session): (u32, &Session<'_>),
    connections: &mut Connections<K>,
    context: &Context<'_>,
) -> Result<(), DropReason> {
    let segment = frame.data_mut().get_mut(usize::from(layout.l4)..usize::from(layout.end));
    let segment = segment.ok_or(DropReason::FrameTruncated)?;
    match payload(segment).filter(|_| session.is_established).and_then(ftp::command) {
        Some(Command::Active(at)) if at.ip() == session.client.ip() && at.port() >= FIRST_PORT => {
            session.expect(Opener::Server, at.port(), context.now.ticks(), context.snapshot);
        }
        Some(Command::Passive) => {
            if let Some(control) = connections.sessions.find_or_insert(first) {
                control.asked = true;
            }
        }
        _ => {}
    }
    if let Some(control) = connections.sessions.find(&first) {
        control.server.restore(segment);
    }
    Ok(())
}

/// Has a server's segment say the virtual address where the server says its own, with the numbers that the client knows.
fn reply<K: Key>(
    (frame, packet): (&mut impl Frame, &mut Packet),
    (first, session): (u32, &Session<'_>),
    connections: &mut Connections<K>,
    context: &Context<'_>,
) -> Result<(), DropReason> {
    let Some(control) = connections.sessions.find(&first) else { return Ok(()) };
    let (l4, end) = (usize::from(packet.layout.l4), usize::from(packet.layout.end));
    let segment = frame.data().get(l4..end).ok_or(DropReason::FrameTruncated)?;
    let asked = control.asked && session.is_established;
    if let Some(found) = payload(segment).filter(|_| asked).and_then(ftp::reply) {
        control.asked = false;
        session.expect(Opener::Client, found.port, context.now.ticks(), context.snapshot);
        if let Some(text) = found.text(session.virtual_service.ip(), found.port) {
            control.server.replace(segment, (found.at, found.len), &text);
        }
    }
    // Room behind the packet, if the buffer has it: what lies there is padding.
    let len = frame.len();
    let room = len.max(end + MAX_TEXT);
    let room = if frame.set_len(room) { room } else { len };
    let buffer = frame.data_mut().get_mut(l4..room).ok_or(DropReason::FrameTruncated)?;
    let new_end = control.server.rewrite(buffer, end - l4).map(|new_len| l4 + new_len);
    frame.set_len(len);
    let new_end = new_end.ok_or(DropReason::TooBig)?;
    if new_end == end {
        return Ok(());
    }
    frame.set_len(new_end);
    packet.layout.end = new_end as u16;
    let mtu = context.snapshot.hop(packet.hop).map_or(u16::MAX, |hop| hop.mtu);
    if new_end > end && packet.layout.ip_len() > mtu {
        // The server could not be told: its own packet was not too large.
        return Err(DropReason::TooBig);
    }
    set_length(frame.data_mut(), &packet.layout)
}

/// Writes the length of a packet into its IP header.
fn set_length(frame: &mut [u8], layout: &Layout) -> Result<(), DropReason> {
    let header = frame.get_mut(usize::from(layout.l3)..).and_then(<[u8]>::first_chunk_mut::<20>);
    let header = header.ok_or(DropReason::FrameTruncated)?;
    if layout.v6 {
        let len = layout.ip_len().saturating_sub(crate::wire::ipv6::HEADER_LEN as u16);
        header[4..6].copy_from_slice(&len.to_be_bytes());
        return Ok(());
    }
    let (old, new) = (u16::from_be_bytes([header[2], header[3]]), layout.ip_len());
    let sum = checksum::update16(u16::from_be_bytes([header[10], header[11]]), old, new);
    header[2..4].copy_from_slice(&new.to_be_bytes());
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

fn payload(segment: &[u8]) -> Option<&[u8]> {
    tcp::Tcp::new(segment).map(|view| view.payload())
}

/// Makes the data connection that packet `i`, of no connection, opens, if it is expected, and sends the packet on. False,
/// and no change, if it is none.
pub(crate) fn expected<K: Asked + BatchKey, F: Frame>(
    batch: &mut Batch<F>,
    i: usize,
    key: &K,
    connections: &mut Connections<K>,
    context: &mut Context<'_>,
) -> bool {
    let (layout, now, snapshot) = (batch.packets[i].layout, context.now.ticks(), context.snapshot);
    let opens = layout.kind == Kind::Flow
        && key.protocol() == protocol::TCP
        && layout.event & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN;
    if !opens {
        return false;
    }
    let taken = snapshot.expectations.take(key.client(), key.virtual_service(), now);
    let Some((expected, made, answers)) = taken.and_then(|expected| keys(key, &expected)) else {
        return false;
    };
    let is_there =
        |found: &&Destination| found.generation == expected.generation && found.presence == Presence::Present;
    if snapshot.destinations.get(expected.slot as usize).filter(is_there).is_none() {
        return false;
    }
    let created = connections.create_data(
        (&made, &answers),
        (expected.slot, expected.opener, expected.session),
        (layout.event, layout.ip_len()),
        now,
        (snapshot, &context.shared.stats),
    );
    match created {
        Ok(entry) => {
            let by_client = expected.opener == Opener::Client;
            batch.packets[i].role = if by_client { Role::Data } else { Role::DataAnswers };
            batch.packets[i].entry = entry;
            route::translated(batch, i, connections, context);
        }
        Err(TableFull) => batch.packets[i].drop(DropReason::TableFull),
    }
    true
}

/// The keys of the client's and of the server's packets of an expected connection that a packet with `key` opens.
fn keys<K: Key>(key: &K, expected: &Expected) -> Option<(Expected, K, K)> {
    let Expected { virtual_service, server, .. } = *expected;
    match expected.opener {
        Opener::Client => {
            Some((*expected, *key, key.turned().with_source_address(server.ip(), server.port())?))
        }
        Opener::Server => Some((
            *expected,
            key.with_source_address(virtual_service.ip(), virtual_service.port())?.turned(),
            *key,
        )),
    }
}
