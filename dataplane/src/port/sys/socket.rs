//! A packet socket: AF_PACKET, raw, never blocking.
//!
//! Invariant of the unsafe code: `fd` is open as long as the value lives, and every pointer given to the kernel points to
//! that many live bytes for the time of the call.
#![allow(unsafe_code)]

use super::abi::{Instruction, PACKET_FANOUT_DATA};
use bytemuck::{NoUninit, Pod};
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// A packet socket.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// A socket that receives nothing until [`Self::bind`].
    pub(crate) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor has just been made and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sets an option at `SOL_PACKET`.
    pub(crate) fn set<T: NoUninit>(&self, name: i32, value: &T) -> io::Result<()> {
        self.set_bytes(libc::SOL_PACKET, name, bytemuck::bytes_of(value))
    }

    /// Sets an option at `SOL_SOCKET`.
    pub(crate) fn set_generic<T: NoUninit>(&self, name: i32, value: &T) -> io::Result<()> {
        self.set_bytes(libc::SOL_SOCKET, name, bytemuck::bytes_of(value))
    }

    fn set_bytes(&self, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
        // SAFETY: `value` is that long.
        let result = unsafe {
            libc::setsockopt(self.fd(), level, name, value.as_ptr().cast(), value.len() as libc::socklen_t)
        };
        done(result)
    }

    /// Reads an option at `SOL_PACKET`.
    pub(crate) fn get<T: Pod>(&self, name: i32) -> io::Result<T> {
        self.get_at(libc::SOL_PACKET, name)
    }

    /// The error that waits at the socket, which is cleared.
    pub(crate) fn take_error(&self) -> io::Result<i32> {
        self.get_at(libc::SOL_SOCKET, libc::SO_ERROR)
    }

    fn get_at<T: Pod>(&self, level: i32, name: i32) -> io::Result<T> {
        let mut value = T::zeroed();
        let mut len = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to `value`, for which any bytes are a value.
        let result =
            unsafe { libc::getsockopt(self.fd(), level, name, (&raw mut value).cast(), &raw mut len) };
        done(result).map(|()| value)
    }

    /// Receives from (and sends to) one interface: frames of `protocol`, which is an EtherType, or none for 0.
    pub(crate) fn bind(&self, interface: i32, protocol: u16) -> io::Result<()> {
        // SAFETY: all zeroes are a `sockaddr_ll`.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = interface;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `address` is that long.
        done(unsafe { libc::bind(self.fd(), (&raw const address).cast(), len) })
    }

    /// Sets the program that chooses a member of the fanout group.
    pub(crate) fn set_fanout_program(&self, program: &[Instruction]) -> io::Result<()> {
        self.set_program(libc::SOL_PACKET, PACKET_FANOUT_DATA, program)
    }

    /// Sets the program that says how many bytes of a frame to receive: 0 for none.
    pub(crate) fn set_filter(&self, program: &[Instruction]) -> io::Result<()> {
        self.set_program(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
    }

    fn set_program(&self, level: i32, name: i32, program: &[Instruction]) -> io::Result<()> {
        let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let argument = Program { len, padding: [0; size_of::<usize>() - 2], instructions: program.as_ptr() };
        let bytes = size_of::<Program>() as libc::socklen_t;
        // SAFETY: `argument` is that long and points to `len` instructions; `Instruction` is laid out as `sock_filter`.
        done(unsafe { libc::setsockopt(self.fd(), level, name, (&raw const argument).cast(), bytes) })
    }

    /// Makes the kernel send what waits in the transmit ring.
    pub(crate) fn send_ring(&self) -> io::Result<()> {
        // SAFETY: no bytes are read from the null pointer, as the length is 0.
        let result = unsafe { libc::send(self.fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes a frame from the socket's queue. Returns its length, which is larger than `bytes` if it did not fit.
    pub(crate) fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: `bytes` is that long and exclusively ours.
        let result = unsafe { libc::recv(self.fd(), bytes.as_mut_ptr().cast(), bytes.len(), flags) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

fn done(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct sock_fprog`, with a value for its padding, which the kernel copies too.
#[repr(C)]
struct Program {
    len: u16,
    padding: [u8; size_of::<usize>() - 2],
    instructions: *const Instruction,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
const _: () = assert!(size_of::<Program>() == size_of::<libc::sock_fprog>());
