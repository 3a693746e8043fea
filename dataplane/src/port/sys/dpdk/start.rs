//! How a device is configured and started.
#![allow(unsafe_code)]

use super::{Alive, Errno, Hash, Mempool, Queue, Running, checked, device::Asked, take_log};
use dpdk_sys as raw;
use std::{ptr, sync::Arc};

/// How a device is to be configured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) queues: u16,
    pub(crate) mtu: u16,
    pub(crate) hash: Hash,
    pub(crate) rx_slots: u16,
    pub(crate) tx_slots: u16,
    /// -1 for any.
    pub(crate) node: i32,
    pub(crate) promiscuous: bool,
}

/// A device that runs.
pub(crate) struct Started {
    /// Of each worker.
    pub(crate) queues: Vec<Queue>,
    pub(crate) running: Arc<Running>,
    /// Whether it gives each frame to its owner.
    pub(crate) to_owners: bool,
}

/// The step that failed, what the driver returned, and what DPDK logged.
pub(crate) type Failed = (&'static str, Errno, String);

/// The log is taken before the device is closed, which is logged too.
fn failed(step: &'static str) -> impl Fn(Errno) -> Failed {
    move |errno| (step, errno, take_log())
}

impl Alive {
    /// Configures a device and starts it.
    pub(crate) fn run(&self, port: u16, plan: Plan, pool: Arc<Mempool>) -> Result<Started, Failed> {
        // SAFETY: DPDK runs.
        let with_key = unsafe { configure(port, &plan)? };
        let (queues, hash) = (plan.queues, if with_key { plan.hash.clone() } else { Hash::NONE });
        // SAFETY: configured, and DPDK refuses to configure a device that runs.
        let running = Arc::new(unsafe { Running::new(port, pool, Plan { hash, ..plan }) });
        // SAFETY: configured. The pool lives as long as `running`, which closes the device.
        let to_owners = unsafe {
            set_up_queues(port, &running.plan, running.pool.as_ptr())?;
            start(port, &running.plan, &mut running.ask())?
        };
        // SAFETY: started with as many queues, each number once.
        let queues = (0..queues).map(|queue| unsafe { Queue::new(Arc::clone(&running), queue) });
        Ok(Started { queues: queues.collect(), running, to_owners })
    }
}

impl Running {
    /// Stops the device and starts it again. `queues` are all that there are of it.
    pub(crate) fn restart(&self, queues: Vec<&mut Queue>) -> Result<(), Failed> {
        let own = queues.iter().filter(|queue| ptr::eq(&**queue.device(), self)).count();
        if own != usize::from(self.plan.queues) {
            return Err(failed("restart it while some of its ports are in use")(Errno(libc::EBUSY)));
        }
        let mut asked = self.ask();
        // SAFETY: all queues are borrowed exclusively, so that no thread uses one, and nobody else asks the device.
        unsafe {
            checked(raw::dpdk_dev_stop(self.port)).map_err(failed("stop it"))?;
            *asked.started = false;
            start(self.port, &self.plan, &mut asked)?;
        }
        Ok(())
    }
}

/// Returns whether the device has taken the key of the plan.
///
/// # Safety
/// DPDK runs.
unsafe fn configure(port: u16, plan: &Plan) -> Result<bool, Failed> {
    // SAFETY: a key of the length that is told, which stays, or none; and local numbers.
    unsafe {
        // Only what is not so already: a driver may have no way to set it.
        let mut mtu = 0;
        let set = raw::dpdk_mtu(port, &mut mtu) == 0 && mtu == plan.mtu;
        let told = |key, len| {
            checked(raw::dpdk_dev_configure(port, plan.queues, plan.mtu, plan.hash.flows, key, len))
        };
        let with_key = plan.hash.key.is_some_and(|(key, len)| told(key.as_ptr(), len).is_ok());
        // A driver may refuse a key: it keeps its own.
        if !with_key {
            told(ptr::null(), 0).map_err(failed("configure it"))?;
        }
        if !set {
            let _ = checked(raw::dpdk_mtu_set(port, plan.mtu));
        }
        Ok(with_key)
    }
}

/// # Safety
/// The device is configured, and the pool outlives it.
unsafe fn set_up_queues(port: u16, plan: &Plan, pool: *mut raw::Mempool) -> Result<(), Failed> {
    let (mut rx, mut tx) = (plan.rx_slots, plan.tx_slots);
    // SAFETY: as the caller says.
    unsafe {
        checked(raw::dpdk_dev_adjust_slots(port, &mut rx, &mut tx)).map_err(failed("size its rings"))?;
        for queue in 0..plan.queues {
            checked(raw::dpdk_rx_queue_setup(port, queue, rx, plan.node, pool))
                .map_err(failed("make a receive ring"))?;
            checked(raw::dpdk_tx_queue_setup(port, queue, tx, plan.node))
                .map_err(failed("make a transmit ring"))?;
        }
    }
    Ok(())
}

/// Returns whether the device gives each frame to its owner.
///
/// # Safety
/// The device is configured, with all of its queues.
unsafe fn start(port: u16, plan: &Plan, asked: &mut Asked<'_>) -> Result<bool, Failed> {
    // SAFETY: as the caller says.
    unsafe {
        checked(raw::dpdk_dev_start(port)).map_err(failed("start it"))?;
        *asked.started = true;
        // Its own address alone, unless told otherwise. Drivers without a filter refuse: they take all.
        match checked(raw::dpdk_promiscuous(port, plan.promiscuous.into())) {
            Err(errno) if plan.promiscuous => {
                return Err(failed("make it promiscuous")(errno));
            }
            _ => {}
        }
        // Neighbour solicitations for virtual addresses, and VRRP, go to groups.
        let _ = checked(raw::dpdk_all_multicast(port, 1));
        Ok(plan.hash.apply(port))
    }
}
