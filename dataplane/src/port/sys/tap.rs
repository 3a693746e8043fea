//! TAP and TUN devices: interfaces of the kernel whose wire is a file of ours (`linux/if_tun.h`, netdevice(7)).
//!
//! Invariant of the unsafe code: each request is an `ifreq` of ours, or an `int`, as the request takes it.
#![allow(unsafe_code)]

use super::interface::{any_socket, ask, named};
use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
};

/// Creates an interface of this name, and none if there is one already. It lasts as long as the file, which gives and
/// takes a frame, from its Ethernet header on, at each read and write, and does not block.
///
/// # Errors
/// `ENOENT` or `ENODEV` without the kernel's driver, `EPERM` without rights, `EBUSY` or `EINVAL` if the name is taken.
pub fn create(name: &str) -> io::Result<File> {
    made(name, libc::IFF_TAP).map(|(file, _)| file)
}

/// The same for packets, from their IP header on, with the first name of `pattern`, which has a `%d` for a number, that no
/// interface has. Returns that name, too.
///
/// # Errors
/// `ENOENT` or `ENODEV` without the kernel's driver, `EPERM` without rights.
pub fn create_tun(pattern: &str) -> io::Result<(File, String)> {
    made(pattern, libc::IFF_TUN)
}

fn made(name: &str, kind: libc::c_int) -> io::Result<(File, String)> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = named(name)?;
    // The flags are small numbers in a signed field.
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as libc::c_short;
    // SAFETY: `request` is what TUNSETIFF takes and fills.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = request.ifr_name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    Ok((file, String::from_utf8(bytes).map_err(io::Error::other)?))
}

/// Gives an interface its MAC address.
///
/// # Errors
/// `EADDRNOTAVAIL` for one that no station can have.
pub fn set_mac(name: &str, mac: [u8; 6]) -> io::Result<()> {
    let mut request = named(name)?;
    // SAFETY: all zeroes are a `sockaddr`.
    let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
    address.sa_family = libc::ARPHRD_ETHER;
    for (to, from) in address.sa_data.iter_mut().zip(mac) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_hwaddr = address;
    ask(&any_socket()?, libc::SIOCSIFHWADDR, &mut request)
}

/// Gives an interface its MTU, in bytes.
///
/// # Errors
/// `EINVAL` for less than 68 or more than 65521.
pub fn set_mtu(name: &str, mtu: u16) -> io::Result<()> {
    let mut request = named(name)?;
    request.ifr_ifru.ifru_mtu = mtu.into();
    ask(&any_socket()?, libc::SIOCSIFMTU, &mut request)
}

/// Sets an interface up.
///
/// # Errors
/// What the kernel says.
pub fn set_up(name: &str) -> io::Result<()> {
    let (socket, mut request) = (any_socket()?, named(name)?);
    ask(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: what SIOCGIFFLAGS has filled.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    ask(&socket, libc::SIOCSIFFLAGS, &mut request)
}

/// Tells the kernel whether the interface of `file` has a link.
///
/// # Errors
/// `EINVAL` of kernels before 5.0.
pub fn set_carrier(file: &File, carrier: bool) -> io::Result<()> {
    /// `_IOW('T', 226, int)`.
    const TUNSETCARRIER: u64 = 0x4004_54e2;
    let value = libc::c_int::from(carrier);
    // SAFETY: TUNSETCARRIER reads an int.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETCARRIER as _, &raw const value) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
