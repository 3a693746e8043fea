//! What a command line of ipvsadm asks for.

use pointsman_proto::v1::{Server, Service, ServiceKey, Timeouts};

/// One command, complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// `-h`
    Help,
    /// `-v`
    Version,
    /// `-A`
    AddService(Service),
    /// `-E`
    EditService(Service),
    /// `-D`
    DeleteService(ServiceKey),
    /// `-C`
    Clear,
    /// `-a`
    AddServer(ServiceKey, Server),
    /// `-e`
    EditServer(ServiceKey, Server),
    /// `-d`: the service, the address and the port of the server.
    DeleteServer(ServiceKey, String, u16),
    /// `-L`
    List(Listing, Format),
    /// `-Z`, of one service or of all.
    Zero(Option<ServiceKey>),
    /// `--set`; 0 keeps what is in force.
    SetTimeouts(Timeouts),
    /// `--start-daemon`
    StartDaemon,
    /// `--stop-daemon`
    StopDaemon,
    /// `-S`
    Save(Format),
    /// `-R`
    Restore,
}

/// What `-L` lists.
#[derive(Clone, Debug, PartialEq)]
pub enum Listing {
    /// Every service.
    Services,
    /// `-t`, `-u`, `--sctp-service`, `-f`: one service.
    Service(ServiceKey),
    /// `-c`
    Connections,
    /// `--timeout`
    Timeouts,
    /// `--daemon`
    Daemon,
}

/// The columns of a list of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// Forwarding method, weight and connections.
    #[default]
    Default,
    /// `--stats`
    Stats,
    /// `--rate`
    Rate,
    /// `--thresholds`
    Thresholds,
    /// `--persistent-conn`
    PersistentConn,
    /// `--tun-info`
    TunInfo,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Of a list of services; of connections only [`Columns::PersistentConn`] makes a difference.
    pub columns: Columns,
    /// `-n`: addresses and ports as numbers.
    pub numeric: bool,
    /// `--exact`: all digits of a number.
    pub exact: bool,
    /// `--nosort`: in the order of the director.
    pub unsorted: bool,
}
