//! DPDK's environment and devices, behind functions that any caller may call.
//!
//! Invariant of the unsafe code: an [`Alive`] exists only while DPDK's environment runs, and all that refers to DPDK's
//! memory holds one. What is passed by pointer is a local value of the shim's own type.
#![allow(unsafe_code)]

mod device;
mod mbuf;
mod rss;
mod start;

pub(crate) use device::Running;
pub use mbuf::{Mbuf, MbufPool};
pub(crate) use mbuf::{Mempool, Queue};
pub(crate) use rss::Hash;
pub(crate) use start::Plan;

use dpdk_sys as raw;
pub use dpdk_sys::{DevInfo, Stats};
use std::{
    cell::Cell,
    ffi::{CStr, CString, c_char, c_int},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// What DPDK says of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: DPDK returns a C string of this thread's for any number.
        let text = unsafe { CStr::from_ptr(raw::dpdk_errno_text(self.0)) };
        f.write_str(&text.to_string_lossy())
    }
}

fn checked(code: c_int) -> Result<c_int, Errno> {
    if code < 0 { Err(Errno(-code)) } else { Ok(code) }
}

/// DPDK's version, like "DPDK 22.11.11".
pub fn version() -> String {
    // SAFETY: a C string that stays.
    unsafe { CStr::from_ptr(raw::dpdk_version()) }.to_string_lossy().into_owned()
}

/// The last lines that DPDK has logged, which are then forgotten.
pub(crate) fn take_log() -> String {
    let mut bytes = vec![0_u8; 8192];
    // SAFETY: there is room for as many bytes.
    let len = unsafe { raw::dpdk_log_tail(bytes.as_mut_ptr().cast::<c_char>(), bytes.len(), 1) };
    bytes.truncate(len);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// DPDK's environment, which runs while this exists.
#[derive(Debug)]
pub(crate) struct Alive {
    huge_pages: bool,
}

/// It can be started once in the life of a process.
static STARTED: AtomicBool = AtomicBool::new(false);
static ENDED: AtomicBool = AtomicBool::new(false);

/// Why the environment does not start.
pub(crate) enum Refused {
    StartedBefore,
    No(Errno),
}

impl Alive {
    /// Starts it with these arguments, behind the program's name. On a thread of its own: DPDK binds the calling thread to
    /// a core, and what that thread starts inherits it.
    pub(crate) fn start(arguments: &[String], huge_pages: bool) -> Result<Arc<Self>, Refused> {
        if STARTED.swap(true, SeqCst) {
            return Err(Refused::StartedBefore);
        }
        let arguments: Vec<CString> =
            arguments.iter().map(|argument| CString::new(argument.as_str()).unwrap_or_default()).collect();
        let thread = std::thread::Builder::new().name("dpdk-start".to_owned()).spawn(move || {
            let mut pointers: Vec<*mut c_char> =
                arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
            let count = pointers.len() as c_int;
            pointers.push(std::ptr::null_mut());
            // SAFETY: a list of C strings that ends with a null pointer; DPDK copies what it keeps, and changes the order
            // of the list at most.
            let code = unsafe {
                raw::dpdk_log_keep();
                raw::dpdk_eal_init(count, pointers.as_mut_ptr())
            };
            // SAFETY: it reads a number of this thread.
            if code < 0 { Err(Errno(unsafe { raw::dpdk_errno() })) } else { Ok(()) }
        });
        let ended = thread.map_err(|_| Refused::No(Errno(libc::EAGAIN)))?.join();
        match ended.unwrap_or(Err(Errno(libc::EFAULT))) {
            Ok(()) => Ok(Arc::new(Self { huge_pages })),
            Err(errno) => Err(Refused::No(errno)),
        }
    }

    pub(crate) fn has_huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// Makes the calling thread one that DPDK knows, until it ends: it then has a store of mbufs of its own in each pool.
    /// Without a free place (there are 128) it works as well, more slowly.
    pub(crate) fn register_thread(&self) {
        REGISTERED.with(|registered| {
            if !registered.0.get() {
                // SAFETY: DPDK runs.
                registered.0.set(unsafe { raw::dpdk_thread_register() } == 0);
            }
        });
    }

    /// The number of the device of this name.
    pub(crate) fn device(&self, name: &str) -> Option<u16> {
        let name = CString::new(name).ok()?;
        // SAFETY: a C string, and DPDK runs.
        let number = unsafe { raw::dpdk_dev_by_name(name.as_ptr()) };
        u16::try_from(number).ok()
    }

    pub(crate) fn info(&self, port: u16) -> Result<DevInfo, Errno> {
        let mut info = DevInfo::default();
        // SAFETY: see the head, as for all below.
        checked(unsafe { raw::dpdk_dev_info(port, &mut info) })?;
        Ok(info)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ENDED.store(true, SeqCst);
        // SAFETY: the last of all that refers to DPDK's memory is gone.
        unsafe { raw::dpdk_eal_cleanup() };
    }
}

/// Whether DPDK knows this thread; taken back when the thread ends.
struct Registered(Cell<bool>);

impl Drop for Registered {
    fn drop(&mut self) {
        if self.0.get() && !ENDED.load(SeqCst) {
            // SAFETY: registered by this thread, and DPDK runs: what this thread used held an `Alive`, and who starts
            // workers joins their threads before it lets the last one go, so that DPDK does not end between the look
            // and the call. A thread that outlives DPDK sees `ENDED`.
            unsafe { raw::dpdk_thread_unregister() }
        }
    }
}

thread_local! {
    static REGISTERED: Registered = const { Registered(Cell::new(false)) };
}
