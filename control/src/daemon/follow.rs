//! What goes on beside the packets: rates, the kernel's changes, a configuration file that is read again.

use super::Error;
use crate::{
    apply::{Control, Terms},
    clock,
    config::{self, Configuration},
    counters::RATE_SECONDS,
    kernel::{self, Monitor, Network},
    ports::{Ports, remedy},
};
use pointsman_dataplane::limits::MAX_TEMPLATES;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::signal::unix::Signal;

/// How often devices are asked for their links.
#[cfg(feature = "dpdk")]
const LINK_INTERVAL: Duration = Duration::from_millis(500);
/// Changes of the kernel that are taken over together at most.
const BURST: usize = 1_000;

/// Estimates rates for as long as it is polled.
pub(super) async fn estimate_rates(control: Arc<Control>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(RATE_SECONDS));
    let mut gave_way = 0;
    loop {
        ticks.tick().await;
        control.estimate_rates().await;
        if let Err(error) = control.give_up_kept().await {
            tracing::warn!("what ended connections needed is still kept: {error}");
        }
        let now = control.templates_that_gave_way().await;
        if now > gave_way {
            tracing::warn!(
                "persistence: {} clients lost their servers for want of room: at most {MAX_TEMPLATES} clients at once are remembered; a flood, or shorten -p, or widen -M",
                now - gave_way
            );
            gave_way = now;
        }
    }
}

/// Reads the configuration file again at each SIGHUP.
pub(super) async fn reload(control: Arc<Control>, mut hangup: Signal, config: Option<PathBuf>) {
    while hangup.recv().await.is_some() {
        let Some(path) = &config else {
            tracing::info!("SIGHUP: there is no configuration file to read again");
            continue;
        };
        let new = std::fs::read_to_string(path)
            .map_err(|source| Error::File { path: path.clone(), source })
            .and_then(|text| Ok(config::read(path, &text)?));
        let applied = match new {
            Ok(new) => {
                let replace = move |configuration: &mut Configuration| {
                    *configuration = new;
                    Ok(())
                };
                control.change(Terms::default(), replace).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match applied {
            Ok(applied) => {
                let (path, changes) = (path.display(), applied.changes.len());
                tracing::info!(
                    "SIGHUP: {path} is in force as generation {}, {changes} changes",
                    applied.generation
                );
            }
            Err(error) => {
                error.lines().for_each(|line| tracing::error!("SIGHUP: {line}"));
                tracing::error!("SIGHUP: the configuration stays as it was");
            }
        }
    }
}

/// Takes over what changes in the kernel: links, addresses, routes.
pub(super) async fn follow_kernel(
    control: Arc<Control>,
    mut monitor: Monitor,
    devices: Vec<(String, String)>,
    ports: Arc<Ports>,
) {
    while monitor.changed().await {
        // Changes come in bursts, which may not end.
        for _ in 0..BURST {
            let more = tokio::time::timeout(Duration::from_millis(20), monitor.changed()).await;
            if !more.is_ok_and(|more| more) {
                break;
            }
        }
        let before = control.network().await;
        let network = match Network::read(&devices).await {
            Ok(network) => {
                if let Err(error) = control.hold_again(&network).await {
                    tracing::warn!("what the kernel has lost was not given again: {error}");
                }
                control.without_local(network).await
            }
            Err(kernel::Error::NoDevice { device, .. }) => before.without(|port| port.device == device),
            Err(error) => {
                tracing::warn!("a change in the kernel was not taken over: {error}");
                continue;
            }
        };
        say_what_changed(&before, &network);
        say_links(&ports, &network);
        let known = control.warnings().await;
        if let Err(error) = control.renew_network(network).await {
            tracing::warn!("a change in the kernel is not in force: {error}");
        }
        for warning in control.warnings().await.iter().filter(|warning| !known.contains(warning)) {
            tracing::warn!("{warning}");
        }
    }
}

/// Says which links were lost, and which are there again.
fn say_links(ports: &Ports, network: &Network) {
    for change in ports.observe(network, clock::now()) {
        let Some(port) = network.ports.get(change.port) else { continue };
        let lasted = Duration::from_millis(change.lasted.0 / 1_000_000);
        match remedy(port, ports.sources().get(change.port)) {
            Some(remedy) => tracing::warn!("{remedy} (the link had been there for {lasted:?})"),
            None => tracing::info!("port {}: has a link again, after {lasted:?}", port.name),
        }
    }
}

/// Tells the kernel about links that only DPDK sees, for as long as the exception path is there.
#[cfg(feature = "dpdk")]
pub(super) async fn follow_links(ports: Arc<Ports>, host: std::sync::Weak<crate::exception::Exception>) {
    // As the kernel makes an interface.
    let mut known: Vec<bool> = ports.sources().iter().map(|_| true).collect();
    let mut ticks = tokio::time::interval(LINK_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(host) = host.upgrade() else { return };
        for ((number, source), known) in (0u16..).zip(ports.sources()).zip(&mut known) {
            if let Some(up) = source.link()
                && up != *known
            {
                *known = up;
                host.set_carrier(number, up);
            }
        }
    }
}

fn say_what_changed(before: &Network, now: &Network) {
    for (old, new) in before.ports.iter().zip(&now.ports) {
        if old.index != new.index {
            tracing::warn!(
                "port {}: the interface {} was replaced by another of its name; restart pointsmand to use it",
                new.name,
                new.device
            );
        }
        if (old.mac, old.mtu, &old.addresses) != (new.mac, new.mtu, &new.addresses) {
            tracing::info!("port {}: its addresses or MTU have changed", new.name);
        }
    }
    if before.routes != now.routes {
        tracing::info!("the routes of the kernel have changed");
    }
}
