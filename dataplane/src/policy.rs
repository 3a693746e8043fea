//! What the original leaves to `sysctl net.ipv4.vs.*`, by the same names and with the same defaults, and what Pointsman adds.

/// A defence that may work always, or only when memory (here: room in the table) is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Defence {
    /// 0: never.
    #[default]
    Off,
    /// 1: it works while room is short, and stands at 1 when it does not.
    Automatic,
    /// 2: the same, while it works.
    Working,
    /// 3: always.
    Always,
}

impl Defence {
    /// The value of the switch: 0 to 3.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Off, Self::Automatic, Self::Working, Self::Always].get(usize::from(number)).copied()
    }

    /// The number of the value.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Whether it works, given whether room is short.
    #[inline]
    pub fn works(self, short: bool) -> bool {
        match self {
            Self::Off => false,
            Self::Automatic | Self::Working => short,
            Self::Always => true,
        }
    }
}

/// The switches, each under the original's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    /// Packets of a connection whose server was removed end the connection and are looked at anew, instead of vanishing.
    pub expire_nodest_conn: bool,
    /// A template whose server is quiesced attracts its client no more.
    pub expire_quiescent_template: bool,
    /// Bit 0: a SYN of a connection in TIME_WAIT or CLOSE begins a new one. Bit 1: also in FIN_WAIT, where only the
    /// client's side is seen (direct routing, tunnel). 0: it goes where the old one went.
    pub conn_reuse_mode: u8,
    /// Any TCP segment without RST may open a connection.
    pub sloppy_tcp: bool,
    /// Any SCTP packet but ABORT may open a connection.
    pub sloppy_sctp: bool,
    /// Connections that look unfinished are ended at random.
    pub drop_entry: Defence,
    /// One of [`Policies::am_droprate`] packets that would open a connection is dropped.
    pub drop_packet: Defence,
    /// The TCP states by which a flood of SYN is told from clients.
    pub secure_tcp: Defence,
    /// See `drop_packet`; at least 1.
    pub am_droprate: u32,
    /// Room is short when fewer places than this are left in a worker's table; 0: one in sixteen.
    pub amemthresh: u32,
    /// A packet of a NATed server that is no connection's answer is answered with "port unreachable".
    pub nat_icmp_send: bool,
    /// A tunnel's outer header says "don't fragment" where the inner one does; else none does.
    pub pmtu_disc: bool,
    /// An ICMP error about a flow of a virtual service that is no connection's is scheduled as the flow would be: it finds
    /// the server of a flow that another director of the same table (`sh`, `mh`) balances.
    pub schedule_icmp: bool,
    /// Packets that arrive in IP in IP are not looked into. The original marks a packet of a protocol that it does not balance,
    /// and the packet that the host then unwraps keeps the mark and is not balanced. Here what the host unwraps never comes
    /// back to the packet path, whatever the switch says: packets in a tunnel to the host are the host's, those to a virtual
    /// address end there.
    pub ignore_tunneled: bool,
    /// SYNs that go into a tunnel ask for segments that fit into it (TCP option MSS). Not the original's.
    pub clamp_mss: bool,
}

impl Default for Policies {
    /// Those of the original.
    fn default() -> Self {
        Self {
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            conn_reuse_mode: 1,
            sloppy_tcp: false,
            sloppy_sctp: false,
            drop_entry: Defence::Off,
            drop_packet: Defence::Off,
            secure_tcp: Defence::Off,
            am_droprate: 10,
            amemthresh: 0,
            nat_icmp_send: false,
            pmtu_disc: true,
            schedule_icmp: false,
            ignore_tunneled: false,
            clamp_mss: false,
        }
    }
}
