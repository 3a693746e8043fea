//! A device that has been started, and what may be asked of it from any thread.
//!
//! DPDK lets one thread at a time ask a device, and it must not be closed meanwhile: a lock sees to the first, a
//! [`Running`] that is held to the second. Bursts need neither.
#![allow(unsafe_code)]

use super::{Errno, Mempool, Plan, checked};
use dpdk_sys as raw;
use std::{
    ffi::c_char,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A device that has been configured, and is closed with this value.
pub(crate) struct Running {
    pub(super) port: u16,
    /// Where its receive rings take mbufs from; freed after the device has given them back.
    pub(crate) pool: Arc<Mempool>,
    pub(super) plan: Plan,
    /// Whether it runs. Taken by whoever asks it.
    started: Mutex<bool>,
}

impl Running {
    /// # Safety
    /// DPDK runs, the device is configured, and there is no other value for it.
    pub(super) unsafe fn new(port: u16, pool: Arc<Mempool>, plan: Plan) -> Self {
        Self { port, pool, plan, started: Mutex::new(false) }
    }

    /// To ask it, when no other thread does.
    pub(crate) fn ask(&self) -> Asked<'_> {
        Asked { port: self.port, started: self.started.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// To ask it, unless another thread does: for workers, which do not wait.
    pub(crate) fn ask_now(&self) -> Option<Asked<'_>> {
        Some(Asked { port: self.port, started: self.started.try_lock().ok()? })
    }
}

/// More bursts than any ring holds.
const DRAIN: u16 = 1_024;

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: numbers, and DPDK runs: the pool keeps it. No thread has a queue any more: each keeps this value. A device
        // that refuses is left to the end of the process.
        unsafe {
            // Drivers of hardware give back what is in their rings, some of software do not.
            if *self.started.get_mut().unwrap_or_else(PoisonError::into_inner) {
                (0..self.plan.queues).for_each(|queue| raw::dpdk_drain(self.port, queue, DRAIN));
            }
            let _ = checked(raw::dpdk_dev_stop(self.port));
            let _ = checked(raw::dpdk_dev_close(self.port));
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("port", &self.port).field("pool", &self.pool).finish()
    }
}

/// A device that nobody else asks at the time.
pub(crate) struct Asked<'a> {
    port: u16,
    pub(super) started: MutexGuard<'a, bool>,
}

impl Asked<'_> {
    /// Whether the device has a link, and its speed in megabits a second; `None` if it is gone.
    pub(crate) fn link(&self) -> Option<(bool, u32)> {
        let mut mbps = 0;
        // SAFETY: a device that is open, and a local number.
        let up = checked(unsafe { raw::dpdk_link(self.port, &mut mbps) }).ok()?;
        Some((up == 1, mbps))
    }

    pub(crate) fn stats(&self) -> raw::Stats {
        let mut stats = raw::Stats::default();
        // SAFETY: a device that is open, and a local structure. A device that refuses leaves zeros.
        let _ = unsafe { raw::dpdk_stats(self.port, &mut stats) };
        stats
    }

    /// The driver's own counters, by name.
    pub(crate) fn xstats(&self) -> Vec<(String, u64)> {
        const ROOM: usize = 1024;
        let (mut names, mut values) = (vec![[0 as c_char; 64]; ROOM], vec![0_u64; ROOM]);
        // SAFETY: a device that is open, and there is room for as many names and values.
        let count =
            unsafe { raw::dpdk_xstats(self.port, names.as_mut_ptr(), values.as_mut_ptr(), ROOM as u32) };
        let count = usize::try_from(count).ok().filter(|count| *count <= ROOM).unwrap_or(0);
        let text = |name: &[c_char; 64]| {
            name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte as u8)).collect()
        };
        names.iter().map(text).zip(values).take(count).collect()
    }

    /// Its MAC address.
    pub(crate) fn mac(&self) -> Result<[u8; 6], Errno> {
        let mut mac = [0; 6];
        // SAFETY: a device that is open, and room for an address.
        checked(unsafe { raw::dpdk_mac(self.port, mac.as_mut_ptr()) })?;
        Ok(mac)
    }
}
