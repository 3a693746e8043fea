//! What the kernel knows about a network interface (netdevice(7)).
//!
//! Invariant of the unsafe code: each request is an `ifreq` of ours with a name that ends in a zero, and only the field
//! that the request fills is read.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// An interface of the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its number, which is never used again for another.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Bytes of the largest packet, from the IP header on.
    pub mtu: u32,
    /// Whether it is set up; it may lack a cable.
    pub up: bool,
    /// Whether its frames are Ethernet's.
    pub is_ethernet: bool,
}

/// Asks the kernel about `device`.
///
/// # Errors
/// `ENODEV` if there is none of this name; what the system calls return.
pub fn interface(device: &str) -> io::Result<Facts> {
    let socket = any_socket()?;
    let mut request = named(device)?;
    ask(&socket, libc::SIOCGIFINDEX, &mut request)?;
    // SAFETY: what SIOCGIFINDEX fills.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    ask(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: what SIOCGIFFLAGS fills.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    ask(&socket, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: what SIOCGIFMTU fills.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    ask(&socket, libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: what SIOCGIFHWADDR fills.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(address.sa_data) {
        *to = from as u8;
    }
    Ok(Facts {
        index: u32::try_from(index).unwrap_or(0),
        mac,
        mtu: u32::try_from(mtu).unwrap_or(0),
        up: flags & libc::IFF_UP != 0,
        is_ethernet: address.sa_family == libc::ARPHRD_ETHER,
    })
}

/// These requests are answered by a socket of any kind; this kind needs no rights and no IP.
pub(super) fn any_socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor has just been made and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn named(device: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zeroes are an `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero. No interface has a longer name, or an empty one.
    if device.is_empty() || device.len() >= request.ifr_name.len() || device.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

pub(super) fn ask(socket: &OwnedFd, request: libc::c_ulong, argument: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: `argument` is what these requests take and fill.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_and_not_ethernet() {
        let facts = interface("lo").unwrap();
        assert_eq!((facts.index, facts.mtu, facts.mac, facts.is_ethernet), (1, 65_536, [0; 6], false));
    }

    #[test]
    fn names_that_no_interface_has_are_refused_as_such() {
        for name in ["", "no-such-device", "a-name-that-is-longer-than-any", "l\0o"] {
            assert_eq!(interface(name).unwrap_err().raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    }
}
