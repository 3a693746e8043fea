//! Puts configurations in force: one change at a time, answered when every worker runs it.

mod warnings;

use self::warnings::{new_warnings, warnings};
use crate::{
    announce::announcements,
    clock,
    config::{
        compile::{Compiler, Steps, local_addresses},
        diff::diff,
        model::{Configuration, Service, ServiceKey, Start},
        slots::{DestinationKey, Moment},
        validate,
    },
    counters::{Accounts, Shown, counted},
    kernel::{self, Network},
    local::Local,
    refusal::{Code, Refusal},
    workers::Handle,
};
use pointsman_dataplane::{
    command::{Command, WorkerShared},
    index::Addresses,
    on_link::OnLink,
    publish::Publisher,
    snapshot::{NextHop, Presence, Snapshot},
    time::Nanos,
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Mutex, watch};

/// How long workers may take to run a new generation.
const PATIENCE: Nanos = Nanos::from_millis(if cfg!(test) { 200 } else { 5_000 });

/// Why a change is not in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be; nothing has changed. All reasons, at least one.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refusal>),
    /// A worker did not take it, and the change was taken back.
    #[error(
        "worker {worker} on core {core} has not taken the change within 5 seconds, so it was taken back: that core is starved; see what else runs there (`ps -eLo psr,pid,comm`)"
    )]
    Late {
        /// Its number.
        worker: u16,
        /// Its core.
        core: u32,
    },
    /// The daemon is ending.
    #[error("the director is shutting down: nothing has changed")]
    Ending,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::Refused(vec![refusal])
    }
}

/// A change that is in force, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The generation in force.
    pub generation: u64,
    /// One line a change.
    pub changes: Vec<String>,
    /// What needs the operator's eye, one sentence each.
    pub warnings: Vec<String>,
}

/// What is asked for besides the change itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// Only say what would change.
    pub dry_run: bool,
    /// Refuse unless this is in force.
    pub expected_generation: Option<u64>,
    /// Warn of everything, not only of what the change brings.
    pub all_warnings: bool,
}

/// The configuration in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Grows by one with each change.
    pub generation: u64,
    /// What it is.
    pub configuration: Arc<Configuration>,
}

/// What a director is made of before its workers run.
pub struct Prepared {
    configuration: Configuration,
    network: Network,
    compiler: Compiler,
    accounts: Accounts,
}

impl Prepared {
    /// The first generation of a configuration, and what workers are to run of it.
    pub fn new(configuration: Configuration, network: Network) -> Result<(Self, Snapshot), Refusal> {
        if let Some(refusal) = validate::interfaces(&configuration, &network).into_iter().next() {
            return Err(refusal);
        }
        let mut compiler = Compiler::default();
        let at = Moment { now: clock::now(), generation: 1, seen: 0 };
        compiler.check(&configuration, &Steps::default(), at)?;
        let snapshot = compiler.compile(&configuration, &network, at);
        let mut accounts = Accounts::default();
        let keys = configuration.services.iter().map(|service| service.key);
        accounts.follow(keys, compiler.touched(), |_| Default::default());
        Ok((Self { configuration, network, compiler, accounts }, snapshot))
    }
}

/// Keeps the configuration and changes it.
pub struct Control {
    state: Mutex<State>,
    in_force: watch::Sender<InForce>,
    next_hops: watch::Sender<(Vec<NextHop>, Network)>,
    on_link: Arc<OnLink>,
    workers: Vec<Handle>,
    shared: Vec<Arc<WorkerShared>>,
}

struct State {
    configuration: Arc<Configuration>,
    generation: u64,
    /// Of the snapshot: also grows when the kernel's routes change.
    compiled: u64,
    network: Network,
    publisher: Publisher<Snapshot>,
    compiler: Compiler,
    accounts: Accounts,
    local: Local,
}

impl State {
    /// The virtual addresses that the kernel is to have in the generation that was compiled last.
    fn local_addresses(&self) -> BTreeSet<IpAddr> {
        local_addresses(self.compiler.local_services(), &self.configuration.marks)
    }
}

/// Everything that a list of services needs, of one moment.
pub struct View {
    /// The generation in force.
    pub generation: u64,
    /// The configuration in force.
    pub configuration: Arc<Configuration>,
    /// The addresses of this machine.
    pub host_addresses: Addresses,
    /// Why its kernel takes no packets from the workers, if it was to and does not.
    pub local_refused: Option<String>,
    /// Counts and rates, by service.
    pub services: HashMap<ServiceKey, Shown>,
    /// Connection counts, counts and rates, by destination.
    pub destinations: HashMap<DestinationKey, DestinationView>,
}

/// What is known of a destination at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct DestinationView {
    /// Connections that are established or on the way to it.
    pub active: u32,
    /// All others.
    pub inactive: u32,
    /// Templates of persistent clients.
    pub templates: u32,
    /// At or above its upper threshold.
    pub overloaded: bool,
    /// It, or the router to it, does not answer on the link.
    pub silent: bool,
    /// Counts and rates.
    pub shown: Shown,
}

impl Control {
    /// Takes over what has been prepared, with the publisher of its snapshot as generation 1, its workers, and what gives
    /// their packets to the kernel.
    pub fn new(
        prepared: Prepared,
        publisher: Publisher<Snapshot>,
        workers: Vec<Handle>,
        local: Local,
    ) -> Arc<Self> {
        let configuration = Arc::new(prepared.configuration);
        let in_force = watch::Sender::new(InForce { generation: 1, configuration: configuration.clone() });
        let hops = prepared.compiler.next_hops().cloned().collect();
        let next_hops = watch::Sender::new((hops, prepared.network.clone()));
        let on_link = prepared.compiler.on_link().clone();
        let state = State {
            configuration,
            generation: 1,
            compiled: 1,
            network: prepared.network,
            publisher,
            compiler: prepared.compiler,
            accounts: prepared.accounts,
            local,
        };
        let shared = workers.iter().map(|worker| worker.shared.clone()).collect();
        Arc::new(Self { state: Mutex::new(state), in_force, next_hops, on_link, workers, shared })
    }

    /// The workers.
    pub fn workers(&self) -> &[Handle] {
        &self.workers
    }

    /// The configuration in force, now and whenever it changes.
    pub fn watch(&self) -> watch::Receiver<InForce> {
        self.in_force.subscribe()
    }

    /// Changes a copy of the configuration and puts it in force on every worker, or refuses and changes nothing.
    pub async fn change(
        self: &Arc<Self>,
        terms: Terms,
        change: impl FnOnce(&mut Configuration) -> Result<(), Error> + Send + 'static,
    ) -> Result<Applied, Error> {
        self.change_in_steps(terms, |configuration| change(configuration).map(|()| Steps::default())).await
    }

    /// The same for a change that is made of several.
    pub async fn change_in_steps(
        self: &Arc<Self>,
        terms: Terms,
        change: impl FnOnce(&mut Configuration) -> Result<Steps, Error> + Send + 'static,
    ) -> Result<Applied, Error> {
        // On its own, because a client that hangs up must not leave a change half done.
        let this = self.clone();
        match tokio::spawn(async move { this.change_whole(terms, change).await }).await {
            Ok(result) => result,
            Err(_) => Err(Error::Ending),
        }
    }

    async fn change_whole(
        &self,
        terms: Terms,
        change: impl FnOnce(&mut Configuration) -> Result<Steps, Error>,
    ) -> Result<Applied, Error> {
        let state = &mut *self.state.lock().await;
        let began = clock::now();
        if let Some(expected) = terms.expected_generation
            && expected != state.generation
        {
            return Err(generation_moved(expected, state.generation).into());
        }
        let mut new = (*state.configuration).clone();
        let steps = change(&mut new)?;
        same_start(&state.configuration.start, &new.start).map_err(Error::Refused)?;
        new.start = state.configuration.start.clone();
        let strange = validate::interfaces(&new, &state.network);
        if !strange.is_empty() {
            return Err(Error::Refused(strange));
        }
        let at = self.moment(state);
        share(&state.configuration, &mut new);
        state.compiler.check(&new, &steps, at)?;
        let changes = changes(&state.configuration, &new, &steps);
        let mut warnings = match terms.all_warnings {
            true => warnings(&new, &state.network),
            false => new_warnings(&state.configuration, &new, &state.network),
        };
        if terms.dry_run || changes.is_empty() {
            return Ok(Applied { generation: state.generation, changes, warnings });
        }
        let old = state.configuration.clone();
        state.configuration = Arc::new(new);
        match self.publish(state, &steps).await {
            Ok(refused) => warnings.extend(refused),
            Err(late) => {
                state.configuration = old;
                self.put(state, &Steps::default()).await;
                state.local.keep(&state.local_addresses()).await;
                return Err(late);
            }
        }
        state.generation += 1;
        changes.iter().for_each(|change| tracing::info!("generation {}: {change}", state.generation));
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let took = Duration::from_nanos(clock::now().0.saturating_sub(began.0));
        tracing::debug!("generation {} was in force after {took:?}", state.generation);
        self.announce(state, &old);
        let in_force = InForce { generation: state.generation, configuration: state.configuration.clone() };
        self.in_force.send_replace(in_force);
        Ok(Applied { generation: state.generation, changes, warnings })
    }

    fn moment(&self, state: &State) -> Moment {
        Moment { now: clock::now(), generation: state.compiled + 1, seen: state.publisher.seen() }
    }

    /// Compiles and publishes what is in the state, and wakes the workers. The kernel has the virtual addresses of servers
    /// that are the director itself before; returns what it refuses, one sentence each.
    async fn put(&self, state: &mut State, steps: &Steps) -> Vec<String> {
        let at = self.moment(state);
        let mut snapshot = state.compiler.compile_steps(&state.configuration, steps, &state.network, at);
        state.accounts.end(steps.reborn.iter().copied());
        let keys = state.configuration.services.iter().map(|service| service.key);
        state.accounts.follow(keys, state.compiler.touched(), |slot| counted(&self.shared, slot));
        state.compiled = at.generation;
        let refused = state.local.add(&state.local_addresses(), &state.network).await;
        snapshot.exception_path = state.local.takes_packets();
        state.publisher.publish(at.generation, snapshot);
        self.workers.iter().for_each(Handle::wake);
        if state.compiler.next_hops_moved() {
            let hops = state.compiler.next_hops().cloned().collect();
            self.next_hops.send_replace((hops, state.network.clone()));
        }
        refused
    }

    /// The same, and waits until every worker runs it.
    async fn publish(&self, state: &mut State, steps: &Steps) -> Result<Vec<String>, Error> {
        let refused = self.put(state, steps).await;
        let deadline = clock::now().0 + PATIENCE.0;
        for worker in &self.workers {
            while worker.shared.stats.generation.get() < state.compiled {
                let left = deadline.saturating_sub(clock::now().0);
                if tokio::time::timeout(Duration::from_nanos(left), worker.renewed()).await.is_err() {
                    return Err(Error::Late { worker: worker.shared.index, core: worker.core });
                }
            }
        }
        state.publisher.collect();
        state.local.keep(&state.local_addresses()).await;
        Ok(refused)
    }

    /// Tells the neighbours about addresses that were not up in `old`.
    fn announce(&self, state: &State, old: &Configuration) {
        let before = old.addresses_up();
        let up = state.configuration.addresses_up();
        let new = up.difference(&before);
        let commands: Vec<Command> =
            new.flat_map(|address| announcements(*address, &state.network)).collect();
        let Some(worker) = self.workers.first().cloned() else { return };
        // More than the worker's queue holds have to wait, and nobody has to wait for them.
        tokio::spawn(async move {
            for mut command in commands {
                while let Err(refused) = worker.command(command) {
                    command = refused;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }

    /// Templates of persistent clients that gave way for want of room, since start.
    pub async fn templates_that_gave_way(&self) -> u64 {
        self.state.lock().await.compiler.templates_that_gave_way()
    }

    /// Tells the neighbours about all addresses.
    pub async fn announce_all(&self) {
        let state = self.state.lock().await;
        self.announce(&state, &Configuration::default());
    }

    /// Has the first worker send a frame.
    pub fn transmit(&self, command: Command) {
        if let Some(worker) = self.workers.first()
            && worker.command(command).is_err()
        {
            tracing::warn!(
                "worker 0 does not take commands: an announcement or a neighbour's query was not sent"
            );
        }
    }

    /// Takes over what the kernel knows now, and says whether that made a difference.
    pub async fn renew_network(&self, network: Network) -> Result<bool, Error> {
        let state = &mut *self.state.lock().await;
        let network = state.local.without(network);
        if state.network == network {
            return Ok(false);
        }
        let old = std::mem::replace(&mut state.network, network);
        if state.network.leads_alike(&old, state.configuration.servers().map(|server| server.address)) {
            return Ok(false);
        }
        self.renew(state).await.map(|()| true)
    }

    /// Lets the director be a server of its own, if it is one in the first generation.
    pub async fn begin_local(&self) -> Result<(), Error> {
        let state = &mut *self.state.lock().await;
        if state.compiler.local_services().next().is_none() { Ok(()) } else { self.renew(state).await }
    }

    /// Gives the kernel again what somebody has taken away from it, by what it knows now.
    pub async fn hold_again(&self, network: &Network) -> Result<(), Error> {
        let state = &mut *self.state.lock().await;
        if state.local.stands(&network.host_addresses) {
            return Ok(());
        }
        // That may be older than what was given last.
        let gone = kernel::addresses().await.is_ok_and(|addresses| state.local.forget_gone(&addresses));
        if gone { self.renew(state).await } else { Ok(()) }
    }

    /// Publishes the configuration in force again.
    async fn renew(&self, state: &mut State) -> Result<(), Error> {
        let refused = self.publish(state, &Steps::default()).await?;
        refused.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(())
    }

    /// What the kernel knows without the addresses that it has from the director.
    pub async fn without_local(&self, network: Network) -> Network {
        self.state.lock().await.local.without(network)
    }

    /// What the kernel knew last.
    pub async fn network(&self) -> Network {
        self.state.lock().await.network.clone()
    }

    /// The next hops that are to be resolved, and what the kernel knows of their ports; now and whenever they change.
    pub fn watch_next_hops(&self) -> watch::Receiver<(Vec<NextHop>, Network)> {
        self.next_hops.subscribe()
    }

    /// The stations on the links that workers route packets to, which are to be resolved too.
    pub fn on_link(&self) -> &OnLink {
        &self.on_link
    }

    /// All warnings about the configuration in force.
    pub async fn warnings(&self) -> Vec<String> {
        let state = self.state.lock().await;
        warnings(&state.configuration, &state.network)
    }

    /// Gives up what was kept for connections that have ended: to be called now and then.
    pub async fn give_up_kept(&self) -> Result<(), Error> {
        let state = &mut *self.state.lock().await;
        if state.compiler.kept_in_vain().next().is_some() { self.renew(state).await } else { Ok(()) }
    }

    /// Estimates the rates: to be called every [`crate::counters::RATE_SECONDS`].
    pub async fn estimate_rates(&self) {
        self.state.lock().await.accounts.tick(|slot| counted(&self.shared, slot));
    }

    /// `-Z`, of one service that must be there or of all.
    pub async fn zero(&self, of: Option<ServiceKey>) -> Result<(), Refusal> {
        let state = &mut *self.state.lock().await;
        if let Some(key) = &of {
            crate::verbs::find(&state.configuration, key, Code::NoSuchService)?;
        }
        state.accounts.zero(of.as_ref(), |slot| counted(&self.shared, slot));
        Ok(())
    }

    /// The slots of a service's destinations, removed ones with connections included.
    pub async fn slots_of(&self, service: ServiceKey) -> HashSet<u32> {
        let state = self.state.lock().await;
        let slots = (0..).zip(state.compiler.slots().all());
        let of = slots.filter(|(_, slot)| slot.presence != Presence::Vacant && slot.key.service == service);
        of.map(|(number, _)| number).collect()
    }

    /// All services and destinations with what is counted of them.
    pub async fn view(&self) -> View {
        let state = self.state.lock().await;
        let counted = |slot: usize| counted(&self.shared, slot);
        let mut destinations = HashMap::new();
        for (number, slot) in (0..).zip(state.compiler.slots().all()) {
            if state.compiler.slots().find(&slot.key) != Some(number) {
                continue;
            }
            let view = DestinationView {
                active: slot.shared.active(),
                inactive: slot.shared.inactive(),
                templates: slot.shared.templates(),
                overloaded: slot.shared.overloaded(),
                silent: state.compiler.is_silent(number),
                shown: state.accounts.destination(number, counted),
            };
            destinations.insert(slot.key, view);
        }
        View {
            generation: state.generation,
            configuration: state.configuration.clone(),
            host_addresses: state.compiler.host_addresses().clone(),
            local_refused: state.local.refused().map(str::to_owned),
            services: state.accounts.services(counted),
            destinations,
        }
    }
}

/// One line a change. A service that was deleted and added again is both, even if it looks the same.
fn changes(old: &Configuration, new: &Configuration, steps: &Steps) -> Vec<String> {
    if steps.reborn.is_empty() {
        return diff(old, new);
    }
    let mut stayed = old.clone();
    stayed.services.retain(|service| !steps.reborn.contains(&service.key));
    let mut lines = diff(old, &stayed);
    lines.extend(diff(&stayed, new));
    lines
}

fn generation_moved(expected: u64, found: u64) -> Refusal {
    Refusal::new(
        Code::Generation,
        "expected_generation",
        format!("expected generation {expected} to be in force, found {found}"),
        "read the configuration again and repeat the change",
    )
}

/// What is not said is as it runs; the rest must be.
fn same_start(running: &Start, asked: &Start) -> Result<(), Vec<Refusal>> {
    let different = [
        ("start.ports", "ports", !asked.ports.is_empty() && asked.ports != running.ports),
        ("start.cores", "cores of workers", !asked.cores.is_empty() && asked.cores != running.cores),
        (
            "start.connections_ipv4",
            "capacity for IPv4 connections",
            asked.connections_ipv4.is_some() && asked.connections_ipv4 != running.connections_ipv4,
        ),
        (
            "start.connections_ipv6",
            "capacity for IPv6 connections",
            asked.connections_ipv6.is_some() && asked.connections_ipv6 != running.connections_ipv6,
        ),
        ("start.memory", "memory", asked.memory.is_some() && asked.memory != running.memory),
        ("start.dpdk", "settings of DPDK", asked.dpdk.is_some() && asked.dpdk != running.dpdk),
    ];
    let refusal = |(field, what, _)| {
        Refusal::invalid(
            field,
            format!("this is not what runs, and the {what} cannot change after start"),
            "leave them as they are, or restart pointsmand with this configuration",
        )
    };
    let refusals: Vec<Refusal> =
        different.into_iter().filter(|(_, _, differ)| *differ).map(refusal).collect();
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

/// Makes `new` share the services that are as in `old`, so that nobody looks at them again.
fn share(old: &Configuration, new: &mut Configuration) {
    let known: HashMap<ServiceKey, &Arc<Service>> =
        old.services.iter().map(|service| (service.key, service)).collect();
    for service in &mut new.services {
        if let Some(known) = known.get(&service.key)
            && *known == service
        {
            *service = Arc::clone(known);
        }
    }
}

#[cfg(test)]
mod tests;
