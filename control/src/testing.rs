//! A director in memory: real workers on real threads, with wires for ports.

use crate::{
    apply::{Control, Prepared},
    clock,
    config::{Configuration, model::Idle, read},
    kernel::testing,
    local::Local,
    workers::{Crew, Plan},
};
use pointsman_dataplane::{
    command::WorkerShared,
    handoff,
    limits::FRAME_ROOM,
    port::{
        Port,
        memory::{Wire, pair},
    },
    publish,
    snapshot::Snapshot,
    worker::Setup,
};
use pointsman_hugepages::{Options, PageChoice, Pool, PoolOptions};
use std::{path::Path, sync::Arc, time::Duration};

pub(crate) struct Director {
    pub(crate) control: Arc<Control>,
    /// One for each worker: all are port 0 of [`testing::network`].
    pub(crate) wires: Vec<Wire>,
    /// Ends last.
    _crew: Crew,
}

pub(crate) fn parsed(text: &str) -> Configuration {
    read(Path::new("test.toml"), text).unwrap()
}

impl Director {
    /// Starts one with a configuration file's text.
    pub(crate) fn start(text: &str, workers: usize) -> Self {
        Self::start_idle(text, workers, Idle::Sleep)
    }

    /// The same, with workers that do as they are told when nothing arrives.
    pub(crate) fn start_idle(text: &str, workers: usize, idle: Idle) -> Self {
        let mut configuration = parsed(text);
        configuration.start.cores = (0..workers as u32).collect();
        let (prepared, snapshot) = Prepared::new(configuration, testing::network()).unwrap();
        let (publisher, readers) = publish::channel(1, snapshot, workers);
        let mut wires = Vec::new();
        let mut plans = Vec::new();
        for ((index, snapshot), handoff) in (0..).zip(readers).zip(handoff::mesh(workers)) {
            let (port, wire) = pair(64, FRAME_ROOM).unwrap();
            wires.push(wire);
            plans.push(Plan { idle, ..plan(index, port, snapshot, handoff) });
        }
        let (crew, _) = Crew::start(plans, |ended| panic!("{ended:?}")).unwrap();
        let control = Control::new(prepared, publisher, crew.handles().to_vec(), Local::default());
        Self { control, wires, _crew: crew }
    }

    /// The next frame that worker 0 sends.
    pub(crate) async fn sent(&mut self) -> Vec<u8> {
        for _ in 0..500 {
            if let Some(frame) = self.wires[0].pop() {
                return frame.data().to_vec();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no frame was sent within 5 seconds");
    }

    /// The next frame with an IPv4 packet that worker 0 sends: the routers of the network are asked for, too.
    pub(crate) async fn forwarded(&mut self) -> Vec<u8> {
        loop {
            let frame = self.sent().await;
            if frame[12..14] == [8, 0] {
                return frame;
            }
        }
    }
}

/// A small worker with one port. Memory ports have nothing to wait on: a frame is seen after 10 ms at the latest.
pub(crate) fn plan<P: Port<Frame = pointsman_hugepages::Buffer>>(
    index: u16,
    port: P,
    snapshot: publish::Reader<Snapshot>,
    handoff: handoff::Endpoint,
) -> Plan<P> {
    let memory = Options { pages: PageChoice::Ordinary, numa_node: None, lock: false };
    let pool = PoolOptions { buffers: 512, room: FRAME_ROOM, memory: memory.clone() };
    let setup = Setup {
        index,
        ports: vec![port],
        pool: Pool::new("test", pool).unwrap(),
        connections_ipv4: 8_192,
        connections_ipv6: 1_024,
        memory,
        snapshot,
        handoff,
        exception: None,
        shared: Arc::new(WorkerShared::new(index)),
        seed: clock::seed(),
    };
    Plan { core: 0, idle: Idle::Sleep, setup }
}

pub(crate) const WEB: &str = r#"
    [[service]]
    address = "10.0.0.100"
    port = 80
    scheduler = "rr"
    [[service.server]]
    address = "10.0.0.12"
"#;
