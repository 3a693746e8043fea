//! What keeps the kernel's own copies of packets from it: a table of nf_tables at the ingress of the ports, where frames come
//! after packet sockets have had theirs.
//!
//! The table is as `nft list ruleset` shows it: a chain for each port, whose rules drop, and count, what is for a set of
//! addresses: packets, and ARP requests, which the workers answer. Answers to the kernel's own ARP requests reach it. The
//! table belongs to our socket: no `nft flush ruleset` touches it, and it vanishes with the process, however that ends.
//!
//! Numbers and structures are those of `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`; what follows their
//! headers is big-endian.

use rtnetlink::{
    packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NetlinkBuffer},
    sys::{Socket, SocketAddr},
};
use std::{collections::BTreeSet, io, net::IpAddr};

/// `NETLINK_NETFILTER`.
const PROTOCOL: isize = 12;
/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_CREATE`.
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
/// `NLMSG_ERROR`: an answer, with 0 if there is none.
const ERROR: u16 = 2;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`, with the number of the subsystem.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NF_TABLES: u16 = 10;
/// `NFPROTO_NETDEV`.
const NETDEV: u8 = 5;
/// `NFT_TABLE_F_OWNER`.
const OWNED: u32 = 2;
/// Before what others do there.
const PRIORITY: i32 = -500;
/// A register of 16 bytes, and that of the verdict.
const VALUE: u32 = 1;
const VERDICT: u32 = 0;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK: u32 = 1;
/// `NFT_META_PROTOCOL`: the EtherType behind a VLAN tag.
const ETHERTYPE: u32 = 1;
/// Elements of a set that one message has: an attribute has at most 64 KiB.
const ELEMENTS: usize = 1_000;

/// `NFT_MSG_*`.
#[derive(Clone, Copy)]
enum Message {
    NewTable = 0,
    DeleteTable = 2,
    NewChain = 3,
    NewRule = 6,
    NewSet = 9,
    NewElements = 12,
}

/// One family's addresses in the table.
struct Family {
    set: &'static str,
    id: u32,
    /// As `nft` names the type of the elements, and their bytes.
    kind: u32,
    len: u32,
}

const IPV4: Family = Family { set: "ipv4", id: 1, kind: 7, len: 4 };
const IPV6: Family = Family { set: "ipv6", id: 2, kind: 8, len: 16 };

/// The table, for as long as this is.
#[derive(Debug)]
pub struct Ingress {
    socket: Socket,
    name: String,
    /// The interfaces of the ports.
    devices: Vec<String>,
    /// What is kept from the kernel.
    addresses: BTreeSet<IpAddr>,
    /// Whether the table is there.
    made: bool,
}

impl Ingress {
    /// A table `name` for the ports on `devices`; there is none until there are addresses.
    ///
    /// # Errors
    /// When the kernel has no such sockets.
    pub fn new(name: &str, devices: Vec<String>) -> io::Result<Self> {
        let mut socket = Socket::new(PROTOCOL)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, name: name.to_owned(), devices, addresses: BTreeSet::new(), made: false })
    }

    /// Keeps the packets to these addresses from the kernel, and no others. All at once: no packet sees a part of it.
    ///
    /// # Errors
    /// `EPERM` without the capability, `EOPNOTSUPP` or `ENOENT` of kernels that lack a part of nf_tables; then nothing has
    /// changed.
    pub fn keep_off(&mut self, addresses: &BTreeSet<IpAddr>) -> io::Result<()> {
        if self.made && self.addresses == *addresses {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.control(BEGIN);
        if self.made {
            batch.push(Message::DeleteTable, &[text(1, &self.name)]);
        }
        batch.push(Message::NewTable, &[text(1, &self.name), number(2, OWNED)]);
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|address| address.is_ipv4());
        self.set(&mut batch, &IPV4, &v4);
        self.set(&mut batch, &IPV6, &v6);
        for device in &self.devices {
            let hook = nested(4, &[number(1, 0), number(2, PRIORITY as u32), text(3, device)]);
            let table = text(1, &self.name);
            batch.push(Message::NewChain, &[table, text(3, device), hook, text(7, "filter")]);
            for rule in [packets_to(&IPV4, 0x0800, 16), packets_to(&IPV6, 0x86dd, 24), arp_requests()] {
                let table = text(1, &self.name);
                batch.push(Message::NewRule, &[table, text(2, device), nested(4, &rule)]);
            }
        }
        batch.control(END);
        self.send(&batch)?;
        (self.made, self.addresses) = (true, addresses.clone());
        Ok(())
    }

    fn set(&self, batch: &mut Batch, family: &Family, addresses: &[IpAddr]) {
        let of = |name: u16, id: u16| {
            [text(1, &self.name), text(name, family.set), number(id, family.id)].into_iter().collect()
        };
        let mut set: Vec<DefaultNla> = of(2, 10);
        set.extend([number(4, family.kind), number(5, family.len)]);
        batch.push(Message::NewSet, &set);
        for some in addresses.chunks(ELEMENTS) {
            let element = |address: &IpAddr| match address {
                IpAddr::V4(v4) => nested(1, &[value(1, &v4.octets())]),
                IpAddr::V6(v6) => nested(1, &[value(1, &v6.octets())]),
            };
            let mut elements: Vec<DefaultNla> = of(2, 4);
            elements.push(nested(3, &some.iter().map(element).collect::<Vec<_>>()));
            batch.push(Message::NewElements, &elements);
        }
    }

    /// The kernel has done all of a batch, or nothing of it, when it has been sent.
    fn send(&mut self, batch: &Batch) -> io::Result<()> {
        self.socket.send_to(&batch.bytes, &SocketAddr::new(0, 0), 0)?;
        let mut acknowledged = false;
        loop {
            let (answer, _) = match self.socket.recv_from_full() {
                Ok(answer) => answer,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && acknowledged => return Ok(()),
                Err(error) => return Err(error),
            };
            let code = errors(&answer).try_fold((), |(), code| if code == 0 { Ok(()) } else { Err(code) });
            if let Err(code) = code {
                // What follows is of the same batch, which is void.
                while self.socket.recv_from_full().is_ok() {}
                return Err(io::Error::from_raw_os_error(-code));
            }
            acknowledged = true;
        }
    }
}

/// The codes of the answers in a datagram of the kernel's.
fn errors(mut bytes: &[u8]) -> impl Iterator<Item = i32> + '_ {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let code = message.payload().first_chunk().map(|code| i32::from_ne_bytes(*code));
        let (kind, length) = (message.message_type(), (message.length() as usize).next_multiple_of(4));
        bytes = bytes.get(length..).unwrap_or_default();
        Some(if kind == ERROR { code? } else { 0 })
    })
}

/// Messages that the kernel takes as one.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Batch {
    fn control(&mut self, kind: u16) {
        self.message(kind, REQUEST, (0, NF_TABLES), &[]);
    }

    fn push(&mut self, message: Message, attributes: &[DefaultNla]) {
        let flags = match message {
            Message::DeleteTable => REQUEST | ACK,
            _ => REQUEST | ACK | CREATE,
        };
        self.message(NF_TABLES << 8 | message as u16, flags, (NETDEV, 0), attributes);
    }

    /// A header, the family and the resource, and attributes.
    fn message(&mut self, kind: u16, flags: u16, (family, resource): (u8, u16), attributes: &[DefaultNla]) {
        const HEADERS: usize = 20;
        let attributes = emitted(attributes);
        // A set's messages are the largest: some 32 KiB.
        let length = (HEADERS + attributes.len()) as u32;
        self.sequence += 1;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
    }
}

fn emitted(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

fn number(kind: u16, number: u32) -> DefaultNla {
    DefaultNla::new(kind, number.to_be_bytes().into())
}

fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, emitted(attributes))
}

/// Bytes to compare with or to look up.
fn value(kind: u16, bytes: &[u8]) -> DefaultNla {
    nested(kind, &[DefaultNla::new(1, bytes.into())])
}

fn expression(name: &str, attributes: &[DefaultNla]) -> DefaultNla {
    nested(1, &[text(1, name), nested(2, attributes)])
}

/// `meta protocol ETHERTYPE`.
fn is_protocol(ethertype: u16) -> [DefaultNla; 2] {
    [
        expression("meta", &[number(1, VALUE), number(2, ETHERTYPE)]),
        expression("cmp", &[number(1, VALUE), number(2, 0), value(3, &ethertype.to_be_bytes())]),
    ]
}

/// Bytes of the packet into the register.
fn load(offset: u32, len: u32) -> DefaultNla {
    expression("payload", &[number(1, VALUE), number(2, NETWORK), number(3, offset), number(4, len)])
}

/// `@set counter drop` of what is in the register.
fn dropped(family: &Family) -> [DefaultNla; 3] {
    [
        expression("lookup", &[text(1, family.set), number(2, VALUE), number(4, family.id)]),
        expression("counter", &[]),
        expression("immediate", &[number(1, VERDICT), nested(2, &[nested(2, &[number(1, 0)])])]),
    ]
}

/// `ip daddr @ipv4 counter drop`, the address being at `offset` of the header.
fn packets_to(family: &Family, ethertype: u16, offset: u32) -> Vec<DefaultNla> {
    let mut rule = Vec::from(is_protocol(ethertype));
    rule.push(load(offset, family.len));
    rule.extend(dropped(family));
    rule
}

/// `arp operation request arp daddr ip @ipv4 counter drop`.
fn arp_requests() -> Vec<DefaultNla> {
    let mut rule = Vec::from(is_protocol(0x0806));
    rule.push(load(6, 2));
    rule.push(expression("cmp", &[number(1, VALUE), number(2, 0), value(3, &1u16.to_be_bytes())]));
    rule.push(load(24, IPV4.len));
    rule.extend(dropped(&IPV4));
    rule
}
