#!/usr/bin/python3
"""Makes the fixtures of the pipeline test (tests/tests/pipeline.rs): run it here after a change, and review the difference.

Each folder has `pointsman.toml`, `in.pcap` (what arrives), `out.pcap` (what must leave) and `counters.txt` (what must be
counted). What must leave is said here, step by step, and made by scapy: nothing is taken from Pointsman's own output.

One port: the director has 192.168.10.1 and fd00:10::1 at 02:00:00:00:00:01. A neighbour's MAC address is 02:00 and the last
four bytes of its IP address: the test makes the next hops known by that rule.
"""
import copy
import pathlib
import socket
import sys
from collections import Counter

import logging
logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import (ARP, Dot1AD, Dot1Q, Ether, ICMP, ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NA,  # noqa: E402
                       ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, ICMPv6TimeExceeded, IP, IPv6,
                       IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, PadN, Raw, TCP, UDP, fragment,
                       wrpcap)

HERE = pathlib.Path(__file__).parent
D0 = "02:00:00:00:00:01"
CLIENT, CLIENT6 = "192.168.10.2", "fd00:10::2"
VIP, VIP6 = "192.168.10.100", "fd00:10::100"
A, B, C = "192.168.10.12", "192.168.10.13", "192.168.10.14"
A6, B6 = "fd00:10::12", "fd00:10::13"


def mac(address):
    raw = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return "02:00:" + ":".join("%02x" % byte for byte in raw[-4:])


def ip(source=CLIENT, destination=VIP, **fields):
    if ":" in destination:
        if source == CLIENT:
            source = CLIENT6
        if "ttl" in fields:
            fields["hlim"] = fields.pop("ttl")
        return IPv6(src=source, dst=destination, **fields)
    return IP(src=source, dst=destination, **{"id": 7, "flags": "DF", **fields})


def tcp(port, flags, to=VIP, service=80, data=0, source=CLIENT, **fields):
    options = [("MSS", 1460)] if "S" in flags else []
    segment = TCP(sport=port, dport=service, flags=flags, seq=1000, ack=0, window=8192, options=options)
    return ip(source, to, **fields) / segment / Raw(bytes((i * 7 + 1) & 255 for i in range(data)))


def udp(port, to=VIP, service=53, data=b"ping", **fields):
    return ip(CLIENT, to, **fields) / UDP(sport=port, dport=service) / Raw(data)


def arriving(packet, source=None, destination=D0):
    """The frame that a client sends."""
    return Ether(src=source or mac(CLIENT6 if IPv6 in packet else CLIENT), dst=destination) / packet


def routed(packet, server):
    """The frame that the server gets: the packet with a TTL one less."""
    packet = copy.deepcopy(packet)
    if isinstance(packet, IPv6):
        packet.hlim -= 1
    else:
        packet.ttl -= 1
    return Ether(src=D0, dst=mac(server)) / packet


def back(packet, to=CLIENT):
    return Ether(src=D0, dst=mac(to)) / packet


class Fixture:
    def __init__(self, name, *services):
        """A service is (protocol, address, port, scheduler, [(server, weight)])."""
        self.folder, self.services = HERE / name, services
        self.frames, self.expected, self.counters = [], [], Counter()
        self.servers = {}
        for protocol, address, port, _, servers in services:
            for server, _ in servers:
                self.servers[protocol, address, port, server] = Counter()

    def send(self, frame, *out, **counts):
        """A frame arrives, `out` leaves. What is neither forwarded nor answered names its counter."""
        self.frames.append(frame)
        self.expected.extend(out)
        self.counters["packets"] += 1
        for name, count in counts.items():
            self.counters[name.replace("__", ".")] += count

    def forward(self, packet, server, new=False, service=None):
        """The packet goes to the server; `new`: by a connection that it opens."""
        self.send(arriving(packet), routed(packet, server), forwarded=1)
        self.count(packet, server, new, service)

    def count(self, packet, server, new=False, service=None):
        protocol = "udp" if UDP in packet else "tcp"
        if service is None:
            service = packet[UDP if UDP in packet else TCP].dport
        counter = self.servers[protocol, packet.dst, service, server]
        counter["packets"] += 1
        counter["bytes"] += len(bytes(packet))
        if new:
            counter["connections"] += 1
            self.counters["connections_created"] += 1

    def ends(self, protocol, address, port, server, active, inactive):
        """The connections of a server at the end."""
        counter = self.servers[protocol, address, port, server]
        counter["active"], counter["inactive"] = active, inactive

    def write(self):
        self.folder.mkdir(exist_ok=True)
        lines = ["# Made by tests/pipeline/make.py.", "[[port]]", 'device = "eth0"']
        for protocol, address, port, scheduler, servers in self.services:
            lines += ["", "[[service]]", f'protocol = "{protocol}"', f'address = "{address}"', f"port = {port}",
                      f'scheduler = "{scheduler}"']
            for server, weight in servers:
                lines += ["", "[[service.server]]", f'address = "{server}"', 'method = "direct"', f"weight = {weight}"]
        (self.folder / "pointsman.toml").write_text("\n".join(lines) + "\n")
        for name, frames in (("in.pcap", self.frames), ("out.pcap", self.expected)):
            frames = [Raw(bytes(frame)) for frame in frames]
            for number, frame in enumerate(frames):
                frame.time = 1_700_000_000
            wrpcap(str(self.folder / name), frames, linktype=1, nano=False)
        lines = [f"{name} {self.counters[name]}" for name in sorted(self.counters)]
        for (protocol, address, port, server), counter in sorted(self.servers.items()):
            at = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            to = f"[{server}]:{port}" if ":" in server else f"{server}:{port}"
            counts = " ".join(f"{name} {counter[name]}" for name in
                              ("connections", "packets", "bytes", "active", "inactive"))
            lines.append(f"{protocol} {at} -> {to} {counts}")
        (self.folder / "counters.txt").write_text("\n".join(lines) + "\n")


def dr_rr():
    """Flows stick, other flows rotate from the last server added to the first, MAC addresses and TTL change."""
    f = Fixture("dr-rr", ("tcp", VIP, 80, "rr", [(A, 1), (B, 1), (C, 1)]))
    f.forward(tcp(1001, "S"), C, new=True)
    f.forward(tcp(1001, "A"), C)
    f.forward(tcp(1001, "PA", data=20), C)
    f.forward(tcp(1002, "S"), B, new=True)
    f.forward(tcp(1003, "S"), A, new=True)
    f.forward(tcp(1004, "S", tos=8), C, new=True)
    f.forward(tcp(1001, "FA"), C)
    f.forward(tcp(1002, "A", ttl=2, id=0), B)
    f.forward(tcp(1002, "PA", ttl=255, id=65535, data=1460), B)
    f.forward(tcp(1003, "R"), A)
    f.forward(tcp(1005, "S"), B, new=True)
    f.ends("tcp", VIP, 80, A, 1, 0)
    f.ends("tcp", VIP, 80, B, 2, 0)
    f.ends("tcp", VIP, 80, C, 1, 1)
    f.write()


def dr_vlan():
    """Tags stay as they are."""
    f = Fixture("dr-vlan", ("tcp", VIP, 80, "rr", [(A, 1), (B, 1)]))
    one = lambda: Dot1Q(vlan=100, prio=3)
    two = lambda: Dot1AD(vlan=200) / Dot1Q(vlan=100)

    def tagged(frame, tags):
        return Ether(src=frame.src, dst=frame.dst) / tags / frame.payload

    for packet, tags, server, new in (
        (tcp(1, "S"), one, B, True), (tcp(1, "A"), one, B, False), (tcp(2, "S"), two, A, True),
        (tcp(2, "PA", data=100), two, A, False), (tcp(1, "PA", data=7), two, B, False),
    ):
        f.send(tagged(arriving(packet), tags()), tagged(routed(packet, server), tags()), forwarded=1)
        f.count(packet, server, new)
    # Three tags are more than are looked behind.
    f.send(tagged(arriving(tcp(1, "A")), Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3)), punted=1)
    request = ARP(op=1, hwsrc=mac(CLIENT), psrc=CLIENT, hwdst="00:00:00:00:00:00", pdst=VIP)
    reply = ARP(op=2, hwsrc=D0, psrc=VIP, hwdst=mac(CLIENT), pdst=CLIENT)
    f.send(Ether(src=mac(CLIENT), dst="ff:ff:ff:ff:ff:ff") / two() / request,
           Ether(src=D0, dst=mac(CLIENT)) / two() / reply, answers__arp=1)
    f.ends("tcp", VIP, 80, A, 1, 0)
    f.ends("tcp", VIP, 80, B, 1, 0)
    f.write()


def dr_ipv6():
    f = Fixture("dr-ipv6", ("tcp", VIP6, 80, "rr", [(A6, 1), (B6, 1)]), ("udp", VIP6, 53, "rr", [(A6, 1)]))
    f.forward(tcp(1, "S", VIP6), B6, new=True)
    f.forward(tcp(1, "A", VIP6), B6)
    f.forward(tcp(2, "S", VIP6, tc=0xb8, fl=0x12345), A6, new=True)
    f.forward(tcp(1, "FA", VIP6, hlim=2), B6)
    f.forward(udp(3, VIP6), A6, new=True)
    # Extension headers are walked, and stay.
    extended = IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) \
        / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)]) / UDP(sport=3, dport=53) / Raw(b"pong")
    f.forward(extended, A6)
    # Fragments follow the first.
    f.forward(IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrFragment(m=1, id=9) / UDP(sport=3, dport=53, len=20) / Raw(b"8 bytes."), A6)
    later = IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrFragment(offset=2, id=9, nh=17) / Raw(b"rest")
    f.send(arriving(later), routed(later, A6), forwarded=1)
    f.servers["udp", VIP6, 53, A6].update(packets=1, bytes=52)
    f.ends("tcp", VIP6, 80, A6, 1, 0)
    f.ends("tcp", VIP6, 80, B6, 0, 1)
    f.ends("udp", VIP6, 53, A6, 0, 1)
    f.write()


def wrr():
    """The measured order of weights 4, 3, 2: the first lap begins with weight 1."""
    f = Fixture("wrr", ("tcp", VIP, 80, "wrr", [(A, 4), (B, 3), (C, 2)]))
    for number, name in enumerate("CBA" + "ABACBACBA" + "ABACBACB"):
        f.forward(tcp(4001 + number, "S"), {"A": A, "B": B, "C": C}[name], new=True)
    f.ends("tcp", VIP, 80, A, 8, 0)
    f.ends("tcp", VIP, 80, B, 7, 0)
    f.ends("tcp", VIP, 80, C, 5, 0)
    f.write()


def udp_fixture():
    """Flows of UDP stick and are inactive; checksums of 0 stay."""
    f = Fixture("udp", ("udp", VIP, 53, "rr", [(A, 1), (B, 1)]))
    f.forward(udp(5001), B, new=True)
    f.forward(udp(5001, data=b"more than a little"), B)
    none = ip() / UDP(sport=5002, dport=53, chksum=0) / Raw(b"ping")
    f.forward(none, A, new=True)
    f.forward(none, A)
    f.forward(udp(5003, data=b""), B, new=True)
    f.ends("udp", VIP, 53, A, 0, 1)
    f.ends("udp", VIP, 53, B, 0, 2)
    f.write()


def icmp_error(packet, kind, code, mtu=0):
    """What the director says about an IPv4 packet: 576 bytes at most, TOS 0xC0, DF clear, the identification its own."""
    quoted = bytes(packet)[:576 - 28]
    return IP(src=VIP, dst=packet.src, ttl=64, tos=0xc0, id=packet.id, flags=0) \
        / ICMP(type=kind, code=code, unused=0, nexthopmtu=mtu) / Raw(quoted)


def answers():
    f = Fixture("answers", ("tcp", VIP, 80, "rr", [(A, 1)]), ("tcp", VIP6, 80, "rr", [(A6, 1)]),
                ("udp", VIP, 56, "rr", []))
    everyone = "ff:ff:ff:ff:ff:ff"
    # ARP and neighbour discovery.
    f.send(Ether(src=mac(CLIENT), dst=everyone) / ARP(op=1, hwsrc=mac(CLIENT), psrc=CLIENT, pdst=VIP),
           back(ARP(op=2, hwsrc=D0, psrc=VIP, hwdst=mac(CLIENT), pdst=CLIENT)), answers__arp=1)
    f.send(Ether(src=mac(CLIENT6), dst="33:33:ff:00:01:00") / IPv6(src=CLIENT6, dst="ff02::1:ff00:100", hlim=255)
           / ICMPv6ND_NS(tgt=VIP6) / ICMPv6NDOptSrcLLAddr(lladdr=mac(CLIENT6)),
           back(IPv6(src=VIP6, dst=CLIENT6, hlim=255) / ICMPv6ND_NA(tgt=VIP6, R=0, S=1, O=1)
                / ICMPv6NDOptDstLLAddr(lladdr=D0), CLIENT6), answers__neighbor_advertisement=1)
    # Echo.
    echo = ip(flags=0) / ICMP(type=8, id=5, seq=1) / Raw(b"abcdefgh")
    f.send(arriving(echo), back(IP(src=VIP, dst=CLIENT, id=7, flags=0) / ICMP(type=0, id=5, seq=1) / Raw(b"abcdefgh")),
           answers__echo_reply=1)
    f.send(arriving(IPv6(src=CLIENT6, dst=VIP6) / ICMPv6EchoRequest(id=5, seq=1, data=b"abcdefgh")),
           back(IPv6(src=VIP6, dst=CLIENT6) / ICMPv6EchoReply(id=5, seq=1, data=b"abcdefgh"), CLIENT6),
           answers__echo_reply=1)
    # RST (RFC 9293, 3.10.7.1): the sequence number that the segment acknowledges, or an acknowledgement of it.
    reset = lambda port, service=80, **fields: back(
        IP(src=VIP, dst=CLIENT, id=0, flags="DF") / TCP(sport=service, dport=port, window=0, **fields))
    unknown = tcp(1005, "A")
    unknown[TCP].ack = 5
    f.send(arriving(unknown), reset(1005, flags="R", seq=5, ack=0), answers__tcp_reset=1)
    f.send(arriving(tcp(1006, "S", service=81)), reset(1006, 81, flags="RA", seq=0, ack=1001), answers__tcp_reset=1)
    f.send(arriving(tcp(1006, "F", data=10)), reset(1006, flags="RA", seq=0, ack=1011), answers__tcp_reset=1)
    f.send(arriving(tcp(1006, "SR")), drops__reset_unmatched=1)
    unknown6 = tcp(1005, "A", VIP6)
    unknown6[TCP].ack = 5
    f.send(arriving(unknown6), back(IPv6(src=VIP6, dst=CLIENT6)
           / TCP(sport=80, dport=1005, flags="R", seq=5, ack=0, window=0), CLIENT6), answers__tcp_reset=1)
    # Port unreachable: no service, no server.
    for service in (54, 56):
        packet = udp(5003, service=service)
        f.send(arriving(packet), back(icmp_error(packet, 3, 3)), answers__port_unreachable=1)
    packet = udp(5003, VIP6, service=54)
    f.send(arriving(packet), back(IPv6(src=VIP6, dst=CLIENT6) / ICMPv6DestUnreach(code=4) / Raw(bytes(packet)), CLIENT6),
           answers__port_unreachable=1)
    # Time exceeded, after the connection was made.
    packet = tcp(1007, "S", ttl=1)
    f.send(arriving(packet), back(icmp_error(packet, 11, 0)), answers__time_exceeded=1)
    f.count(packet, A, new=True)
    packet = tcp(1007, "PA", ttl=1, data=1400)
    f.send(arriving(packet), back(icmp_error(packet, 11, 0)), answers__time_exceeded=1)
    f.count(packet, A)
    packet = tcp(1007, "S", VIP6, hlim=1)
    f.send(arriving(packet), back(IPv6(src=VIP6, dst=CLIENT6) / ICMPv6TimeExceeded(code=0) / Raw(bytes(packet)), CLIENT6),
           answers__time_exceeded=1)
    f.count(packet, A6, new=True)
    # Too big for the way out: the TTL has been decremented.
    packet = tcp(1007, "PA", data=1500)
    quoted = copy.deepcopy(packet)
    quoted.ttl -= 1
    f.send(arriving(packet), back(icmp_error(quoted, 3, 4, 1500)), answers__packet_too_big=1)
    f.count(packet, A)
    packet = tcp(1007, "PA", data=1500)
    packet[IP].flags = 0
    # What may be fragmented is: 1480 bytes of data in the first part, the rest in the second.
    f.send(arriving(packet), *(routed(part, A) for part in fragment(packet, fragsize=1480)), forwarded=2)
    f.count(packet, A)
    f.ends("tcp", VIP, 80, A, 1, 0)
    f.ends("tcp", VIP6, 80, A6, 1, 0)
    f.write()


def hostile():
    """Damaged and forged frames go nowhere; a connection in their midst goes on."""
    f = Fixture("hostile", ("tcp", VIP, 80, "rr", [(A, 1), (B, 1)]), ("udp", VIP6, 53, "rr", [(A6, 1)]))
    f.forward(tcp(1, "S"), B, new=True)
    whole = bytes(arriving(tcp(1, "A", data=10)))
    for length, reason in ((0, "frame_truncated"), (13, "frame_truncated"), (20, "frame_truncated"),
                           (33, "frame_truncated"), (34, "ipv4_header"), (53, "ipv4_header"), (63, "ipv4_header")):
        f.send(Raw(whole[:length]), **{f"drops__{reason}": 1})
    f.forward(tcp(1, "A"), B)
    for fields, reason in ((dict(chksum=1), "ipv4_checksum"), (dict(version=5), "ipv4_header"),
                           (dict(len=19), "ipv4_header"), (dict(ihl=15, len=40), "ipv4_header"),
                           (dict(len=41), "ipv4_header")):
        packet = tcp(1, "A")
        for name, value in fields.items():
            setattr(packet[IP], name, value)
        f.send(arriving(packet), **{f"drops__{reason}": 1})
    # Headers that end too early.
    f.send(arriving(ip(proto=6) / Raw(b"\0" * 19)), drops__transport_header=1)
    f.send(arriving(ip(proto=17) / Raw(b"\0" * 7)), drops__transport_header=1)
    f.send(arriving(ip(proto=1) / Raw(b"\x08" * 7)), drops__transport_header=1)
    # A RST is not sent for a segment with a wrong checksum, nor an echo reply for a request with one.
    wrong = tcp(9, "A")
    wrong[TCP].chksum = 1
    f.send(arriving(wrong), drops__transport_header=1)
    f.send(arriving(ip() / ICMP(type=8, id=5, seq=1, chksum=1) / Raw(b"abc")), drops__transport_header=1)
    f.forward(tcp(1, "A"), B)
    # Fragments.
    f.send(arriving(ip(flags="MF") / UDP(sport=1, dport=80, len=40) / Raw(b"first part")), drops__fragment_malformed=1)
    # One whose first does not come waits, for longer than this lasts.
    f.send(arriving(ip(flags=0, frag=2, proto=17) / Raw(b"second part")))
    # Sources that nobody has.
    for source in ("224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.1", VIP):
        f.send(arriving(tcp(9, "S", source=source)), drops__source_invalid=1)
    f.send(arriving(tcp(9, "S"), source=D0), drops__loop_detected=1)
    f.send(arriving(tcp(1, "A"), destination="02:00:00:00:00:99"), drops__not_our_mac=1)
    # A chain of more extension headers than eight.
    chain = IPv6(src=CLIENT6, dst=VIP6)
    for _ in range(9):
        chain = chain / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
    f.send(arriving(chain / UDP(sport=1, dport=53) / Raw(b"deep")), drops__ipv6_extensions=1)
    cut = IPv6(src=CLIENT6, dst=VIP6, plen=200) / UDP(sport=1, dport=53) / Raw(b"short")
    f.send(arriving(cut), drops__ipv6_header=1)
    gre = ip(proto=47) / Raw(b"\0" * 20)
    f.send(arriving(gre), back(icmp_error(gre, 3, 2)), answers__protocol_unreachable=1)
    f.send(arriving(ip() / ICMP(type=13, id=5, seq=1) / Raw(b"when")), drops__protocol_unsupported=1)
    # An ICMP error about a connection that is not known; then about one that is.
    about = lambda port: IP(src="192.168.10.77", dst=VIP, id=1, ttl=9) / ICMP(type=3, code=1) / Raw(
        bytes(IP(src=VIP, dst=CLIENT, ttl=5) / TCP(sport=80, dport=port, flags="A")))
    f.send(arriving(about(77)), drops__icmp_unmatched=1)
    error = about(1)
    f.send(arriving(error), routed(error, B), forwarded=1)
    f.count(error, B, service=80)
    f.ends("tcp", VIP, 80, B, 1, 0)
    f.write()


def not_ours():
    """What is not for a virtual address is the host's: nothing leaves, nothing is dropped."""
    f = Fixture("not-ours", ("tcp", VIP, 80, "rr", [(A, 1)]))
    host = "192.168.10.1"
    everyone = "ff:ff:ff:ff:ff:ff"
    for frame in (
        arriving(tcp(1, "S", host, 22)),
        arriving(tcp(1, "A", host, 80)),
        arriving(udp(1, host)),
        arriving(udp(1, "fd00:10::1")),
        arriving(ip(CLIENT, host) / ICMP(type=8) / Raw(b"ping")),
        arriving(ip(CLIENT, host, flags="MF") / UDP(sport=1, dport=2) / Raw(b"part")),
        arriving(tcp(1, "S", "8.8.8.8", 80)),
        Ether(src=mac(CLIENT), dst=everyone) / ARP(op=1, hwsrc=mac(CLIENT), psrc=CLIENT, pdst=host),
        Ether(src=mac(CLIENT), dst=D0) / ARP(op=2, hwsrc=mac(CLIENT), psrc=CLIENT, hwdst=D0, pdst=host),
        Ether(src=mac(CLIENT), dst=everyone) / tcp(1, "S"),
        Ether(src=mac(CLIENT), dst="01:00:5e:00:00:12") / IP(src=CLIENT, dst="224.0.0.18", proto=112) / Raw(b"\0" * 20),
        Ether(src=mac(CLIENT), dst="01:80:c2:00:00:0e", type=0x88cc) / Raw(b"\0" * 46),
        Ether(src=mac(CLIENT), dst=D0, type=38) / Raw(b"\0" * 46),
    ):
        f.send(frame, punted=1)
    f.forward(tcp(1, "S"), A, new=True)
    f.ends("tcp", VIP, 80, A, 1, 0)
    f.write()


if __name__ == "__main__":
    for make in (dr_rr, dr_vlan, dr_ipv6, wrr, udp_fixture, answers, hostile, not_ours):
        make()
    sys.exit(0)
