//! The exception path's side of the host: devices of the kernel, and the thread that moves frames between them and the
//! workers.
//!
//! There is a TAP device for each port that the kernel does not see.
//! The device has the name, the MAC address and the MTU of the port, so that the kernel answers ARP and neighbour
//! discovery for the director's own addresses there, and ssh, gRPC, health checks and VRRP work as on any interface.
//! Of ports that it sees itself it is given only the packets to servers that are the director itself, by one TUN device for
//! all ports, which is there while there are such servers (see [`crate::local`]).
//!
//! [`pointsman_dataplane::exception`] is the workers' side. The thread takes turns between both ways in small steps and
//! sleeps when neither has anything; what the workers cannot take yet stays in the queue of the device.

use pointsman_dataplane::{
    exception::{HostEnd, Offered, WorkerEnd, channel},
    limits::MAX_PORTS,
    port::{
        Frame,
        sys::{
            interface::interface,
            poll::{self, MAX_FDS},
            tap,
        },
    },
    stats::Counter,
    wake::Waker,
    wire::vlan,
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Frames that are moved one way, and of one port, before it is another one's turn.
const STEP: usize = 32;

/// How long to wait for a worker that is behind.
const BEHIND: Duration = Duration::from_millis(1);

/// How long to sleep when there is nothing to do; whoever has something ends it.
const IDLE: Duration = Duration::from_secs(1);

/// Bytes of a frame beyond the MTU: an Ethernet header and two VLAN tags.
const AROUND: usize = 22;

/// Why there is no TAP device, or no thread.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel lacks the driver, or it is hidden.
    #[error(
        "/dev/net/tun is not there: load the kernel's module (`modprobe tun`), or give the container the device (`--device /dev/net/tun`)"
    )]
    NoTun,
    /// No rights.
    #[error(
        "the capability CAP_NET_ADMIN is missing, or /dev/net/tun may not be opened; run pointsmand as root, or give it the capability: `setcap cap_net_raw,cap_net_admin,cap_ipc_lock+ep $(command -v pointsmand)`"
    )]
    NotPermitted,
    /// A name that no interface can have.
    #[error(
        "\"{0}\" cannot name an interface, which has 1 to 15 bytes without blanks, `/`, `:` and `%`: change the name of the port"
    )]
    Name(String),
    /// A name that another interface has.
    #[error(
        "another interface is named {0}: change the name of the port, or that of the interface (`ip link set {0} name OTHER`)"
    )]
    Taken(String),
    /// The kernel refuses a property.
    #[error(
        "the kernel does not take {what} for the interface {name}: {source}; change it in the configuration of the port"
    )]
    Property {
        /// The interface.
        name: String,
        /// What it was to have.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else.
    #[error(
        "the interface {name} cannot be made: {source}; check `ulimit -n` and the kernel's log (`dmesg`)"
    )]
    Make {
        /// The interface.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// More devices than a director has ports, or frames that do not fit.
    #[error(
        "the interface {name} has an MTU of {mtu}, whose frames do not fit into buffers of {room} bytes; lower the port's `mtu`"
    )]
    Room {
        /// The interface.
        name: String,
        /// Its MTU.
        mtu: u16,
        /// Bytes of a buffer.
        room: usize,
    },
    /// No descriptors for the rings.
    #[error(
        "the way from the workers to the kernel cannot be made: {0}; raise the limit of open files (ulimit -n)"
    )]
    Path(io::Error),
    /// No thread.
    #[error("cannot start the thread of the exception path: {0}; check `ulimit -u`")]
    Thread(io::Error),
}

/// A TAP device, up. The interface is there as long as this is.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    mtu: u16,
}

impl Tap {
    /// Creates the interface `name` with this MAC address and MTU in bytes, and sets it up. It has no addresses but the
    /// link-local one that the kernel gives it.
    ///
    /// # Errors
    /// See [`Error`]; there is no interface then.
    pub fn create(name: &str, mac: [u8; 6], mtu: u16) -> Result<Self, Error> {
        // The kernel would make a name of its own of `%d` or of none.
        let forbidden = |byte: u8| byte.is_ascii_whitespace() || byte == 0x0b || b"/:%\0".contains(&byte);
        if !(1..=15).contains(&name.len()) || matches!(name, "." | "..") || name.bytes().any(forbidden) {
            return Err(Error::Name(name.to_owned()));
        }
        let file = tap::create(name).map_err(not_made(name))?;
        let name = name.to_owned();
        let refused = |what: String| {
            let name = name.clone();
            move |source| Error::Property { name, what, source }
        };
        let words: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        tap::set_mac(&name, mac).map_err(refused(format!("the MAC address {}", words.join(":"))))?;
        tap::set_mtu(&name, mtu).map_err(refused(format!("an MTU of {mtu}")))?;
        tap::set_up(&name).map_err(refused("up".to_owned()))?;
        Ok(Self { file, name, mtu })
    }

    /// The interface.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A TUN device for packets that workers give the kernel. The interface is there as long as the file is open.
#[derive(Debug)]
pub struct Tun {
    /// Takes packets from their IP header on.
    pub file: File,
    /// The interface.
    pub name: String,
}

impl Tun {
    /// Names that no other program gives.
    const PATTERN: &str = "pointsman%d";

    /// Creates the interface, which is down and has no address.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn create() -> Result<Self, Error> {
        let (file, name) = tap::create_tun(Self::PATTERN).map_err(not_made(Self::PATTERN))?;
        Ok(Self { file, name })
    }

    /// Sets it up, and returns its number.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_up(&self) -> Result<u32, Error> {
        let refused = |source| Error::Property { name: self.name.clone(), what: "up".to_owned(), source };
        tap::set_up(&self.name).and_then(|()| interface(&self.name)).map(|facts| facts.index).map_err(refused)
    }
}

fn not_made(name: &str) -> impl FnOnce(io::Error) -> Error {
    let name = name.to_owned();
    move |source| match source.raw_os_error() {
        // ENOENT, ENXIO, ENODEV.
        Some(2 | 6 | 19) => Error::NoTun,
        // EPERM, EACCES.
        Some(1 | 13) => Error::NotPermitted,
        // EBUSY of another TAP device; EINVAL of an interface of another kind.
        Some(16 | 22) => Error::Taken(name),
        _ => Error::Make { name, source },
    }
}

/// What went through the device of one port.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Frames that the host took.
    pub to_host: Counter,
    /// Frames that it did not: the interface is down or gone, or the kernel has no memory.
    pub refused: Counter,
    /// Frames that the host sent and the first worker was given.
    pub from_host: Counter,
    /// Frames of the host that were lost as they are longer than the MTU that the port began with.
    pub too_long: Counter,
}

impl PortCounters {
    /// Those of the way to the host, as `pointsman ports --xstats` shows them.
    pub fn to_host(&self) -> [(String, u64); 2] {
        [("exception_to_host", &self.to_host), ("exception_to_host_refused", &self.refused)].map(shown)
    }

    /// Those of the way from it, which sends by itself where it sees the port.
    pub fn from_host(&self) -> [(String, u64); 2] {
        [("exception_from_host", &self.from_host), ("exception_from_host_too_long", &self.too_long)]
            .map(shown)
    }
}

fn shown((name, counter): (&str, &Counter)) -> (String, u64) {
    (name.to_owned(), counter.get())
}

/// The device that takes the packets of all ports which the kernel sees, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Delivery(Arc<Mutex<Option<File>>>);

impl Delivery {
    /// Gives packets of ports without a device of their own to this one, a TUN device, from now on. Without one they are
    /// lost, and counted.
    pub fn set(&self, device: Option<File>) {
        *self.device() = device;
    }

    fn device(&self) -> MutexGuard<'_, Option<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running path. Dropping it ends the thread and takes the interfaces away.
#[derive(Debug)]
pub struct Exception {
    delivery: Delivery,
    counters: Arc<[Arc<PortCounters>]>,
    links: Vec<(String, File)>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

/// The ends of the path for `workers` workers and for the thread, for frames of at most `frame_room` bytes from the host.
///
/// # Errors
/// When the process has no descriptors left.
pub fn path<F>(workers: usize, frame_room: usize) -> Result<(Vec<WorkerEnd<F>>, HostEnd<F>), Error> {
    channel(workers, frame_room).map_err(Error::Path)
}

/// Starts the thread that serves the host, on the cores that the calling thread may use: off those of the workers. `taps`
/// are the devices of the `ports` ports, in their order, and none if the kernel sees them itself; `wake` is called when the
/// first worker was given frames of the host, and is to wake it if it sleeps.
///
/// # Errors
/// When a device does not fit the buffers, or there is no thread.
pub fn start<F: Frame>(
    ports: usize,
    taps: Vec<Tap>,
    host: HostEnd<F>,
    wake: impl Fn() + Send + 'static,
) -> Result<Exception, Error> {
    let room = host.frame_room();
    if let Some(tap) = taps.iter().find(|tap| usize::from(tap.mtu) + AROUND > room) {
        return Err(Error::Room { name: tap.name.clone(), mtu: tap.mtu, room });
    }
    let counters: Arc<[Arc<PortCounters>]> = (0..ports).map(|_| Arc::default()).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let link = |tap: &Tap| match tap.file.try_clone() {
        Ok(file) => Ok((tap.name.clone(), file)),
        // No descriptors are left.
        Err(source) => Err(Error::Make { name: tap.name.clone(), source }),
    };
    let links = taps.iter().map(link).collect::<Result<_, _>>()?;
    let waker = host.waker();
    let delivery = Delivery::default();
    let thread = Thread {
        taps: taps.into_iter().take(MAX_PORTS).map(Some).collect(),
        delivery: delivery.clone(),
        host,
        counters: counters.clone(),
        stop: stop.clone(),
    };
    let spawned = thread::Builder::new().name("exception".to_owned()).spawn(move || thread.run(&wake));
    let thread = Some(spawned.map_err(Error::Thread)?);
    Ok(Exception { delivery, counters, links, stop, waker, thread })
}

impl Exception {
    /// Where packets of ports without a device of their own go.
    pub fn delivery(&self) -> Delivery {
        self.delivery.clone()
    }

    /// Counters of the ports, by number.
    pub fn counters(&self) -> Arc<[Arc<PortCounters>]> {
        self.counters.clone()
    }

    /// Tells the kernel whether a port has a link, as for a cable that was pulled.
    pub fn set_carrier(&self, port: u16, carrier: bool) {
        if let Some((name, file)) = self.links.get(usize::from(port))
            && let Err(error) = tap::set_carrier(file, carrier)
        {
            tracing::warn!("port {name}: the kernel was not told of its link: {error}");
        }
    }
}

impl Drop for Exception {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the exception path has ended abnormally: what it said is above");
        }
    }
}

/// What the thread works with.
struct Thread<F> {
    /// By port; `None`: it was taken away.
    taps: Vec<Option<Tap>>,
    delivery: Delivery,
    host: HostEnd<F>,
    counters: Arc<[Arc<PortCounters>]>,
    stop: Arc<AtomicBool>,
}

/// How far one turn from the host came.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    frames: usize,
    behind: bool,
}

impl<F: Frame> Thread<F> {
    fn run(mut self, wake: &impl Fn()) {
        while !self.stop.load(Ordering::Acquire) {
            let given = self.give();
            let taken = self.take();
            if taken.frames > 0 {
                wake();
            }
            if given + taken.frames == 0 {
                self.rest(taken.behind);
            }
        }
    }

    /// Gives the host what workers left to it.
    fn give(&mut self) -> usize {
        let (taps, counters) = (&self.taps, &self.counters);
        let delivery = self.delivery.device();
        self.host.pop(STEP, |frame, port| {
            let port = usize::from(port);
            let Some(counters) = counters.get(port) else { return };
            let written = match taps.get(port) {
                Some(tap) => tap.as_ref().map(|tap| (&tap.file).write(frame.data())),
                None => {
                    delivery.as_ref().zip(packet(frame.data())).map(|(mut file, packet)| file.write(packet))
                }
            };
            match written {
                Some(Ok(_)) => counters.to_host.add(1),
                // Down, gone, or without memory: the kernel's business, and told by it.
                Some(Err(_)) | None => counters.refused.add(1),
            }
        })
    }

    /// Takes what the host sends, a few frames of each port.
    fn take(&mut self) -> Taken {
        let mut taken = Taken::default();
        for (port, (slot, counters)) in (0u16..).zip(self.taps.iter_mut().zip(self.counters.iter())) {
            for _ in 0..STEP {
                let Some(tap) = slot else { break };
                match offer(&mut self.host, port, tap, counters) {
                    Turn::Sent => taken.frames += 1,
                    Turn::Lost => {}
                    Turn::Nothing => break,
                    Turn::Behind => {
                        taken.behind = true;
                        return taken;
                    }
                    Turn::Gone(error) => {
                        tracing::error!(
                            "port {0}: the interface {0} was taken away ({error}): the director's own addresses there are lost; restart pointsmand",
                            tap.name
                        );
                        *slot = None;
                    }
                }
            }
        }
        taken
    }

    /// Sleeps until a worker or the host has something, or a worker that is `behind` may have room.
    fn rest(&mut self, behind: bool) {
        self.host.falls_asleep();
        if !self.host.has_frames() && !self.stop.load(Ordering::Acquire) {
            let mut fds: [RawFd; MAX_FDS] = [-1; MAX_FDS];
            fds[0] = self.host.fd();
            // What is not taken would keep us awake.
            if !behind {
                let taps = self.taps.iter().map(|tap| tap.as_ref().map_or(-1, |tap| tap.file.as_raw_fd()));
                fds[1..].iter_mut().zip(taps).for_each(|(fd, tap)| *fd = tap);
            }
            poll::wait_for(&fds, if behind { BEHIND } else { IDLE });
        }
        self.host.wakes();
    }
}

/// What is behind the Ethernet header of a frame, and its VLAN tags.
fn packet(frame: &[u8]) -> Option<&[u8]> {
    vlan::skip(frame).and_then(|(_, l3)| frame.get(l3..))
}

/// What came of asking one device for a frame.
enum Turn {
    Sent,
    /// It was too long.
    Lost,
    Nothing,
    Behind,
    Gone(io::Error),
}

fn offer<F>(host: &mut HostEnd<F>, port: u16, tap: &Tap, counters: &PortCounters) -> Turn {
    let mut turn = Turn::Nothing;
    let room = host.frame_room();
    let offered = host.offer(port, |buffer| match (&tap.file).read(buffer) {
        // Cut off, or of the largest size: the buffer has one byte more than a frame may have.
        Ok(len) if len > room => {
            turn = Turn::Lost;
            None
        }
        Ok(len) => (len > 0).then_some(len),
        Err(error) => {
            let passing = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
            if !passing.contains(&error.kind()) {
                turn = Turn::Gone(error);
            }
            None
        }
    });
    match offered {
        Offered::Sent => {
            counters.from_host.add(1);
            Turn::Sent
        }
        Offered::NoRoom => Turn::Behind,
        Offered::Nothing => {
            if matches!(turn, Turn::Lost) {
                counters.too_long.add(1);
            }
            turn
        }
    }
}
