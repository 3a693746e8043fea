//! Any Linux interface, by packet sockets with memory-mapped rings (packet(7)).
//!
//! - `receive.rs`: receiving, and what the kernel left undone about its frames.
//! - `receive_ring.rs`: the two kinds of receive ring.
//! - `transmit.rs`: the transmit ring.
//! - `fanout.rs`: the BPF program by which the kernel delivers a flow to its worker.
//!
//! Each worker has two sockets, so that receiving and sending share no lock. The kernel sees every frame as well: what
//! is for the host's own addresses stays its own. Nothing of the interface's settings is changed, and all that a socket
//! asked for (it takes all multicast frames) ends with it, also after `kill -9`.
//!
//! There are two kinds of receive ring ([`ReceiveRing`]): of *frames* (TPACKET_V2, a slot a frame, each handed over at
//! once) and of *blocks* (TPACKET_V3, which the kernel hands over full or, at the earliest, after a millisecond; nothing
//! closes one sooner). Measured over veth by `af_packet_veth`: a lone frame is there and back in 12 us with frames and in
//! 1000 us with blocks, so each step of a handshake on an idle link would wait, and frames are the default. At full load
//! a director does 1.05 M and 1.04 M frames a CPU second, as sending takes most of it; but a worker that sleeps between
//! frames, 50,000 a second, spends 3.6 us on each with frames and 0.2 us with blocks, as it is woken 50 times less often.
//!
//! Super-frames, which come when segmentation is offloaded, are larger than a slot: they take the way round by a system
//! call, or lie in a block as all others do, and are split by [`super::segment`]. The transmit ring is TPACKET_V2.

mod fanout;
mod receive;
mod receive_ring;
mod transmit;

use super::{
    Frames,
    sys::{
        abi,
        interface::{Facts, interface},
        socket::PacketSocket,
    },
};
use crate::limits::{FRAME_ROOM, MAX_WORKERS};
use pointsman_hugepages::{Buffer, Pool};
use receive::Receiver;
use std::{io, os::fd::RawFd};
use transmit::Transmitter;

/// Bytes that a frame has beyond the MTU: an Ethernet header and two VLAN tags.
const LINK_BYTES: u32 = 14 + 2 * 4;

/// How the kernel hands over the frames that it receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceiveRing {
    /// Each at once, in a slot of its own (TPACKET_V2).
    #[default]
    Frames,
    /// Many together, in a block that is full or a millisecond old (TPACKET_V3).
    Blocks,
}

/// How to open one worker's part of an interface.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The interface's name.
    pub device: String,
    /// The worker's number, from 0. Open the workers of a device in this order: the kernel numbers them so.
    pub worker_index: u16,
    /// Workers that share the device: 1 to [`MAX_WORKERS`].
    pub workers: u16,
    /// Names the group of the workers' sockets: one number for each device that a program opens. Two programs with the
    /// same number for the same device would share its frames. Not used by a single worker.
    pub fanout_group: u16,
    /// The kind of receive ring.
    pub receive_ring: ReceiveRing,
    /// Frames of the interface's MTU that the receive ring holds: a power of two from 64 to 65536. A ring of blocks has as
    /// many bytes, but 1 MiB at least, and so holds more of smaller frames.
    pub rx_slots: u32,
    /// Frames that the transmit ring holds: a power of two from 64 to 65536.
    pub tx_slots: u32,
    /// Bytes that the worker's buffers have behind their headroom.
    pub frame_room: usize,
}

impl Settings {
    /// Of one worker, with rings for some milliseconds at a million frames a second.
    pub fn new(device: &str) -> Self {
        Self {
            device: device.to_owned(),
            worker_index: 0,
            workers: 1,
            fanout_group: 0,
            receive_ring: ReceiveRing::default(),
            rx_slots: 4_096,
            tx_slots: 1_024,
            frame_room: FRAME_ROOM,
        }
    }
}

/// Why an interface cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings contradict themselves.
    #[error("{device}: {what}")]
    Settings {
        /// The interface.
        device: String,
        /// What is wrong.
        what: &'static str,
    },
    /// There is no interface of this name here.
    #[error("{device}: no such interface in this network namespace; `ip link` lists those there are")]
    NoSuchInterface {
        /// The interface.
        device: String,
    },
    /// It is set down.
    #[error("{device}: the interface is down; set it up by `ip link set {device} up`")]
    Down {
        /// The interface.
        device: String,
    },
    /// Raw sockets need a capability.
    #[error(
        "{device}: opening a raw socket is not permitted; run as root, or give the program the capability by `setcap cap_net_raw,cap_ipc_lock+ep`"
    )]
    NotPermitted {
        /// The interface.
        device: String,
    },
    /// Its frames are of another kind.
    #[error("{device}: not an Ethernet interface; use one whose `ip link` line says link/ether")]
    NotEthernet {
        /// The interface.
        device: String,
    },
    /// Its frames would not fit.
    #[error(
        "{device}: its MTU of {mtu} is too large for buffers of {room} bytes; lower it by `ip link set {device} mtu {largest}` or configure larger buffers"
    )]
    MtuTooLarge {
        /// The interface.
        device: String,
        /// Its MTU.
        mtu: u32,
        /// Bytes of a buffer.
        room: usize,
        /// The largest MTU that fits.
        largest: u32,
    },
    /// The kernel has no memory for the rings.
    #[error(
        "{device}: the kernel refuses {bytes} bytes for the {which} ring: {source}; configure a smaller ring or free memory"
    )]
    Ring {
        /// The interface.
        device: String,
        /// "receive" or "transmit".
        which: &'static str,
        /// Bytes of the ring.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The sockets of the workers cannot share the device.
    #[error(
        "{device}: cannot share the interface between workers as group {group}: {source}; another program may use this group: choose another"
    )]
    Fanout {
        /// The interface.
        device: String,
        /// The group's number.
        group: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// Some other step failed.
    #[error("{device}: cannot {step}: {source}; Linux 4.20 or newer is needed")]
    Socket {
        /// The interface.
        device: String,
        /// What was to be done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: that `step` failed on `device`.
    fn socket(device: &str, step: &'static str) -> impl FnOnce(io::Error) -> Self {
        let device = device.to_owned();
        move |source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { device },
            Some(libc::ENODEV | libc::ENXIO) => Self::NoSuchInterface { device },
            Some(libc::ENETDOWN) => Self::Down { device },
            _ => Self::Socket { device, step, source },
        }
    }
}

/// What the driver had to do besides moving frames, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames whose checksum the sender had left to an interface: completed.
    pub checksums_completed: u64,
    /// Frames larger than the MTU that offloads had left whole: split.
    pub super_frames: u64,
    /// Frames that came of them.
    pub segments: u64,
    /// Frames lost because they are larger than a buffer and could not be split (a tunnel's), or because too many
    /// super-frames waited at once. `ethtool -K DEVICE gro off`, and `tso off` at the sender, avoid them.
    pub oversize: u64,
    /// Frames lost because the receive ring was full.
    pub ring_drops: u64,
    /// Times that a receive ring of blocks became full. A ring of frames does not tell.
    pub ring_freezes: u64,
}

/// One worker's part of an interface.
#[derive(Debug)]
pub struct AfPacket {
    device: String,
    facts: Facts,
    receiver: Receiver,
    transmitter: Transmitter,
}

impl AfPacket {
    /// Opens the interface.
    ///
    /// # Errors
    /// Each names the device and the remedy.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let device = &settings.device;
        check_settings(settings)?;
        let facts = interface(device).map_err(Error::socket(device, "ask for the interface"))?;
        if !facts.is_ethernet {
            return Err(Error::NotEthernet { device: device.clone() });
        }
        if !facts.up {
            return Err(Error::Down { device: device.clone() });
        }
        let room = settings.frame_room;
        if (facts.mtu + LINK_BYTES) as usize > room {
            let largest = (room as u32).saturating_sub(LINK_BYTES);
            return Err(Error::MtuTooLarge { device: device.clone(), mtu: facts.mtu, room, largest });
        }
        let transmitter = Transmitter::open(settings, &facts)?;
        let receiver = Receiver::open(settings, &facts)?;
        Ok(Self { device: device.clone(), facts, receiver, transmitter })
    }

    /// What the interface was when it was opened.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What the driver had to do besides moving frames, as of the last call of `rx_ring_drops`.
    pub fn counters(&self) -> Counters {
        self.receiver.counters()
    }
}

impl super::Port for AfPacket {
    type Frame = Buffer;

    const SEEN_BY_HOST: bool = true;

    #[inline]
    fn rx(&mut self, pool: &mut Pool, frames: &mut Frames) -> usize {
        self.transmitter.retry();
        self.receiver.receive(pool, frames)
    }

    #[inline]
    fn tx(&mut self, frames: &mut Frames) -> usize {
        self.transmitter.send(frames)
    }

    fn rx_ring_drops(&mut self) -> u64 {
        let counters = self.receiver.update_counters();
        counters.ring_drops + counters.oversize
    }

    fn wait_fd(&self) -> Option<RawFd> {
        Some(self.receiver.fd())
    }

    fn is_up(&mut self) -> bool {
        // Setting an interface down leaves an error at the socket, which would end every wait at once.
        self.receiver.clear_error();
        // An interface that was deleted and made again has another number: the sockets are not its.
        interface(&self.device).is_ok_and(|now| now.up && now.index == self.facts.index)
    }
}

fn check_settings(settings: &Settings) -> Result<(), Error> {
    let refuse = |what| Err(Error::Settings { device: settings.device.clone(), what });
    if settings.workers == 0 || usize::from(settings.workers) > MAX_WORKERS {
        return refuse("an interface is shared by 1 to 64 workers");
    }
    if settings.worker_index >= settings.workers {
        return refuse("workers are numbered from 0");
    }
    for slots in [settings.rx_slots, settings.tx_slots] {
        if !slots.is_power_of_two() || !(64..=65_536).contains(&slots) {
            return refuse("a ring holds a power of two of frames, from 64 to 65536");
        }
    }
    Ok(())
}

/// The number of the interface as the socket calls take it.
fn index(facts: &Facts) -> i32 {
    i32::try_from(facts.index).unwrap_or(0)
}

/// The power of two that holds a frame of this interface with `extra` bytes in front.
fn slot_shift(facts: &Facts, extra: usize) -> u32 {
    ((facts.mtu + LINK_BYTES) as usize + extra).next_power_of_two().trailing_zeros().max(11)
}

/// Makes the one ring of a socket.
fn request_ring(socket: &PacketSocket, option: i32, slots: u32, slot_shift: u32) -> io::Result<()> {
    // Slots lie in blocks of contiguous memory, which is scarcer the larger they are.
    const BLOCK_SHIFT: u32 = 16;
    let block_shift = slot_shift.max(BLOCK_SHIFT);
    let slots_per_block = 1 << (block_shift - slot_shift);
    socket.set(abi::PACKET_VERSION, &abi::TPACKET_V2)?;
    // Each frame comes with what offloads left undone, and goes with how much of it the kernel shall copy.
    socket.set(abi::PACKET_VNET_HDR, &1_i32)?;
    socket.set(
        option,
        &abi::RingRequest {
            block_size: 1 << block_shift,
            blocks: slots.div_ceil(slots_per_block),
            slot_size: 1 << slot_shift,
            slots: slots.next_multiple_of(slots_per_block),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_themselves_are_refused() {
        let good = Settings::new("lo");
        for (settings, what) in [
            (Settings { workers: 0, ..good.clone() }, "lo: an interface is shared by 1 to 64 workers"),
            (Settings { workers: 65, ..good.clone() }, "lo: an interface is shared by 1 to 64 workers"),
            (Settings { workers: 2, worker_index: 2, ..good.clone() }, "lo: workers are numbered from 0"),
            (
                Settings { rx_slots: 1_000, ..good.clone() },
                "lo: a ring holds a power of two of frames, from 64 to 65536",
            ),
        ] {
            assert_eq!(AfPacket::open(&settings).unwrap_err().to_string(), what);
        }
    }

    #[test]
    fn errors_name_the_device_and_the_remedy() {
        assert_eq!(
            AfPacket::open(&Settings::new("no-such-device")).unwrap_err().to_string(),
            "no-such-device: no such interface in this network namespace; `ip link` lists those there are"
        );
        assert_eq!(
            AfPacket::open(&Settings::new("lo")).unwrap_err().to_string(),
            "lo: not an Ethernet interface; use one whose `ip link` line says link/ether"
        );
        let denied = Error::socket("eth0", "open")(io::Error::from_raw_os_error(libc::EPERM));
        assert!(denied.to_string().contains("run as root, or give the program the capability by `setcap"));
    }
}
