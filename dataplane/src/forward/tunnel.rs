//! Tunnels: the packet goes to the real server whole, behind an outer header (and one of GUE or GRE) to the server's own
//! address, and the server unwraps it.
//!
//! As the original does: the outer TTL is that of the packet, so are its DSCP and its "don't fragment"; ECN as RFC 3168
//! section 9.1.1 has it (full functionality), so that a packet marked "congestion experienced" travels as ECT(0). An IPv6
//! packet inside IPv4 travels without DF, and so does every packet where the switch `pmtu_disc` is off. IP in IP: RFC 2003 and RFC 2473; GRE: RFC 2784; generic UDP encapsulation:
//! draft-ietf-intarea-gue, version 0 without optional fields.

mod errors;
mod mss;
mod usual;

pub use errors::{others, quoted_flow, relay};
pub use usual::Template;
pub(crate) use usual::{batch, run};

use crate::{
    batch::Layout,
    policy::Policies,
    port::Frame,
    snapshot::{Encapsulation, Tunnel},
    time::Nanos,
    verdict::DropReason,
    wire::{checksum, ethernet, ipv4, ipv6, protocol, tcp, udp},
};
use std::{net::IpAddr, sync::atomic::Ordering};

/// The smallest MTU that IPv4 allows (RFC 791): a tunnel that leaves its packets less carries none.
const LEAST_V4: u16 = 68;
/// That of IPv6 (RFC 8200 section 5): senders make no smaller packets.
const LEAST_V6: u16 = 1280;

/// Bytes of the GUE header.
const GUE_LEN: usize = 4;
/// GRE: a checksum and two bytes of padding follow.
const GRE_CHECKSUM: u16 = 0x8000;
/// Bytes of the GRE header without a checksum.
const GRE_LEN: usize = 4;

/// ECN bits of the traffic class, and two of their values.
const ECN: u8 = 0b11;
const ECT_0: u8 = 0b10;
const CONGESTION: u8 = 0b11;

impl Tunnel {
    /// Bytes that it puts in front of a packet.
    pub fn overhead(&self) -> u16 {
        let outer = if self.source.is_ipv6() { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
        (outer + self.inner_header_len()) as u16
    }

    fn inner_header_len(&self) -> usize {
        match self.encapsulation {
            Encapsulation::Ipip => 0,
            Encapsulation::Gue { .. } => udp::HEADER_LEN + GUE_LEN,
            Encapsulation::Gre { checksum: false } => GRE_LEN,
            Encapsulation::Gre { checksum: true } => GRE_LEN + 4,
        }
    }

    /// Number and fragment word of the next outer IPv4 header. Only what may be fragmented needs a number of its own (RFC
    /// 6864).
    #[inline(always)]
    fn marks(&self, dont_fragment: bool) -> (u16, u16) {
        match dont_fragment {
            true => (0, ipv4::DONT_FRAGMENT),
            false => (self.identification.fetch_add(1, Ordering::Relaxed), 0),
        }
    }

    /// The largest outer packet that its path carries, over a link of that MTU: the path's may be smaller, and was learned.
    #[inline(always)]
    pub fn outer_mtu(&self, link: u16, now: Nanos) -> u16 {
        link.min(self.path.get(now))
    }

    /// The largest packet, of IPv6 or of IPv4, that fits into it, over a link of that MTU. `None` if less is left than the
    /// packet's family asks of every link.
    pub fn mtu(&self, link: u16, v6: bool, now: Nanos) -> Option<u16> {
        let least = if v6 { LEAST_V6 } else { LEAST_V4 };
        self.outer_mtu(link, now).checked_sub(self.overhead()).filter(|mtu| *mtu >= least)
    }
}

/// What an outer header takes from the packet inside.
struct Inner {
    class: u8,
    hop_limit: u8,
    dont_fragment: bool,
    protocol: u8,
    ethertype: u16,
}

/// Wraps the packet of a frame, which is in the layout's place and fits into the tunnel's MTU or may be cut outside, for the server at `to`. `flow`
/// tells flows apart: the network between spreads them by it.
///
/// # Errors
/// `FrameTruncated` for a header that is cut off, `NoRoute` if no address of ours leads to the server, `TooBig` without
/// headroom or beyond what an IP packet may be.
pub fn wrap(
    frame: &mut impl Frame,
    (layout, flow, mtu): (&Layout, u64, u16),
    (tunnel, to): (&Tunnel, IpAddr),
    policies: &Policies,
) -> Result<(), DropReason> {
    let (l3, end) = (usize::from(layout.l3), usize::from(layout.end));
    if policies.clamp_mss && layout.event & tcp::SYN != 0 {
        mss::clamp(frame.data_mut(), layout, mtu);
    }
    let mut inner = inner(frame.data().get(l3..).unwrap_or_default(), layout.v6)?;
    inner.dont_fragment &= policies.pmtu_disc;
    // What the wire padded is no part of the packet.
    frame.truncate(end);
    let overhead = usize::from(tunnel.overhead());
    let data = match frame.prepend(overhead) {
        Some(_) => frame.data_mut(),
        None => return Err(DropReason::TooBig),
    };
    data.copy_within(overhead..overhead + l3, 0);
    let ethertype = if to.is_ipv6() { ethernet::IPV6 } else { ethernet::IPV4 };
    data[l3 - 2..l3].copy_from_slice(&ethertype.to_be_bytes());
    let packet = &mut data[l3..];
    let outer_len = overhead - tunnel.inner_header_len();
    let protocol = match tunnel.encapsulation {
        Encapsulation::Ipip => inner.protocol,
        Encapsulation::Gue { .. } => protocol::UDP,
        Encapsulation::Gre { checksum } => {
            write_gre(&mut packet[outer_len..], &inner, checksum);
            protocol::GRE
        }
    };
    if let Encapsulation::Gue { port, checksum } = tunnel.encapsulation {
        write_gue(&mut packet[outer_len..], &inner, (port, flow), checksum.then_some((tunnel.source, to)))?;
    }
    write_outer(packet, (tunnel, to), &inner, protocol)
}

fn inner(packet: &[u8], v6: bool) -> Result<Inner, DropReason> {
    if v6 {
        let ip = ipv6::Ipv6::new(packet).ok_or(DropReason::FrameTruncated)?;
        return Ok(Inner {
            class: ip.traffic_class(),
            hop_limit: ip.hop_limit(),
            dont_fragment: false,
            protocol: protocol::IPV6,
            ethertype: ethernet::IPV6,
        });
    }
    let ip = ipv4::Ipv4::new(packet).ok_or(DropReason::FrameTruncated)?;
    Ok(Inner {
        class: ip.tos(),
        hop_limit: ip.ttl(),
        dont_fragment: ip.dont_fragment(),
        protocol: protocol::IPIP,
        ethertype: ethernet::IPV4,
    })
}

/// The class of the outer header over a packet of this one: see the module.
#[inline(always)]
fn outer_class(class: u8) -> u8 {
    if class & ECN == CONGESTION { class & !ECN | ECT_0 } else { class }
}

/// The outer header of the packet, which has its full length.
fn write_outer(
    packet: &mut [u8],
    (tunnel, to): (&Tunnel, IpAddr),
    inner: &Inner,
    protocol: u8,
) -> Result<(), DropReason> {
    let class = outer_class(inner.class);
    let written = match (tunnel.source, to) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (identification, fragment) = tunnel.marks(inner.dont_fragment);
            let fields = ipv4::Fields {
                tos: class,
                total_len: u16::try_from(packet.len()).map_err(|_| DropReason::TooBig)?,
                identification,
                fragment,
                ttl: inner.hop_limit,
                protocol,
                source,
                destination,
            };
            ipv4::write(packet, &fields)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let payload = packet.len().saturating_sub(ipv6::HEADER_LEN);
            let fields = ipv6::Fields {
                traffic_class: class,
                payload_len: u16::try_from(payload).map_err(|_| DropReason::TooBig)?,
                next_header: protocol,
                hop_limit: inner.hop_limit,
                source,
                destination,
            };
            ipv6::write(packet, &fields)
        }
        _ => return Err(DropReason::NoRoute),
    };
    if written { Ok(()) } else { Err(DropReason::FrameTruncated) }
}

/// A UDP and a GUE header at the front of `datagram`. Its source port tells flows apart, in the range that Linux takes.
/// `checksum`: the outer addresses, if it is to have one.
fn write_gue(
    datagram: &mut [u8],
    inner: &Inner,
    (port, flow): (u16, u64),
    checksum: Option<(IpAddr, IpAddr)>,
) -> Result<(), DropReason> {
    const FIRST: u16 = 32_768;
    const PORTS: u64 = 28_232;
    let source = FIRST + (((flow & 0xffff_ffff) * PORTS) >> 32) as u16;
    let len = u16::try_from(datagram.len()).map_err(|_| DropReason::TooBig)?;
    datagram[0..2].copy_from_slice(&source.to_be_bytes());
    datagram[2..4].copy_from_slice(&port.to_be_bytes());
    datagram[4..6].copy_from_slice(&len.to_be_bytes());
    datagram[6..8].copy_from_slice(&[0, 0]);
    // Version 0, data, no optional fields; what follows; no flags.
    datagram[8..12].copy_from_slice(&[0, inner.protocol, 0, 0]);
    if let Some(addresses) = checksum {
        let pseudo = match addresses {
            (IpAddr::V4(from), IpAddr::V4(to)) => checksum::pseudo_v4(from, to, protocol::UDP, len),
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                checksum::pseudo_v6(from, to, protocol::UDP, u32::from(len))
            }
            _ => return Err(DropReason::NoRoute),
        };
        // 0 says that there is none.
        let sum = match !checksum::fold(pseudo + checksum::sum(datagram)) {
            0 => u16::MAX,
            sum => sum,
        };
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(())
}

/// A GRE header at the front of `packet`, without key and sequence number.
fn write_gre(packet: &mut [u8], inner: &Inner, with_checksum: bool) {
    packet[0..2].copy_from_slice(&(if with_checksum { GRE_CHECKSUM } else { 0 }).to_be_bytes());
    packet[2..4].copy_from_slice(&inner.ethertype.to_be_bytes());
    if with_checksum {
        packet[4..8].fill(0);
        let sum = checksum::of(packet);
        packet[4..6].copy_from_slice(&sum.to_be_bytes());
    }
}
