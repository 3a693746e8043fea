//! What the state of a connection means, protocol by protocol: one number, whose meaning is the protocol's.

use super::{
    sctp::{self, SctpState},
    tcp::{self, Direction, TcpState},
    wheel::HalfOpen,
};
use crate::{snapshot::Timeouts, time::Ticks, wire::protocol};

/// The states of a flow without handshake (UDP).
const FLOWING: u8 = 0;
/// Its client has sent one packet, be it answered or not: such flows give way first when the table is full. A server
/// answers who asks, whatever address that claims to have.
const SINGLE: u8 = 1;

/// That of each protocol before its first packet, in which a connection lives shortly: TCP's and SCTP's NONE.
pub(super) const NONE: u8 = 0;

/// How long an echo through source NAT is waited for, as iptables has it.
const ECHO: Ticks = Ticks::from_secs(30);

/// The states that a packet without handshake leaves as they are, as bits by number.
pub(crate) const FLOWING_KEEPS: u16 = 1 << FLOWING;

/// The state of a new connection after its first packet. `event`: see [`crate::batch::Layout::event`]; `secure`: by the
/// states of the policy `secure_tcp`.
#[inline]
pub fn first(number: u8, direction: Direction, event: u8, secure: bool) -> u8 {
    match number {
        protocol::TCP => next(number, direction, TcpState::None as u8, event, secure),
        protocol::SCTP => sctp::next(direction, SctpState::None, sctp::Event::from_u8(event)) as u8,
        protocol::ICMP | protocol::ICMPV6 => FLOWING,
        _ => SINGLE,
    }
}

/// The state after a packet.
#[inline]
pub fn next(number: u8, direction: Direction, state: u8, event: u8, secure: bool) -> u8 {
    match number {
        protocol::TCP if secure => tcp::next_secure(direction, TcpState::from_u8(state), event) as u8,
        protocol::TCP => tcp::next(direction, TcpState::from_u8(state), event) as u8,
        protocol::SCTP => sctp::next(direction, SctpState::from_u8(state), sctp::Event::from_u8(event)) as u8,
        _ if direction == Direction::Output => state,
        _ => FLOWING,
    }
}

/// Whether such a connection counts as active (`ActiveConn`). UDP never does.
#[inline]
pub fn is_active(number: u8, state: u8) -> bool {
    match number {
        protocol::TCP => tcp::is_active(state),
        protocol::SCTP => SctpState::from_u8(state).is_active(),
        _ => false,
    }
}

/// How long it lives without a packet.
#[inline]
pub fn timeout(number: u8, state: u8, timeouts: &Timeouts) -> Ticks {
    match number {
        protocol::TCP => timeouts.tcp[TcpState::from_u8(state) as usize],
        protocol::SCTP => timeouts.sctp[SctpState::from_u8(state) as usize],
        protocol::ICMP | protocol::ICMPV6 => ECHO,
        _ => timeouts.udp,
    }
}

/// The queue that it stands in, if it is half-open.
#[inline]
pub(super) fn half_open_queue(number: u8, state: u8) -> Option<HalfOpen> {
    match number {
        protocol::TCP if state == TcpState::SynReceived as u8 => Some(HalfOpen::Tcp),
        protocol::TCP => (state == TcpState::SynAck as u8).then_some(HalfOpen::TcpSynAck),
        // The first of its half-open states has a time of its own.
        protocol::SCTP if state == SctpState::Init1 as u8 => Some(HalfOpen::Sctp),
        protocol::SCTP => SctpState::from_u8(state).is_half_open().then_some(HalfOpen::SctpCookie),
        _ => (state == SINGLE).then_some(HalfOpen::Udp),
    }
}

/// As ipvsadm prints it.
pub fn name(number: u8, state: u8) -> &'static str {
    match number {
        protocol::TCP => TcpState::from_u8(state).name(),
        protocol::SCTP => SctpState::from_u8(state).name(),
        protocol::ICMP | protocol::ICMPV6 => "ECHO",
        _ => "UDP",
    }
}
