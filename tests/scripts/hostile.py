#!/usr/bin/python3
"""Sends frames that no honest host sends, and prints how many it sent.

    hostile.py KIND INTERFACE MAC SEED

to the station MAC. KIND is `truncated` (every beginning of good frames of every kind, from the bare Ethernet header
on), `flipped` (good frames with some bits turned) or `random` (random bytes behind a plausible Ethernet header).
"""
import logging, random, socket, sys, time
logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import *  # noqa
from scapy.layers.sctp import *  # noqa

KIND, INTERFACE, MAC, SEED = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
OWN = open(f"/sys/class/net/{INTERFACE}/address").read().strip()
CLIENT, VIP, CLIENT6, VIP6 = "192.168.10.50", "192.168.10.100", "fd00:10::50", "fd00:10::100"


def good():
    """One good frame of each kind that the director parses."""
    syn = TCP(sport=4242, dport=80, flags="S", options=[("MSS", 1460), ("WScale", 7)])
    v4, v6 = IP(src=CLIENT, dst=VIP), IPv6(src=CLIENT6, dst=VIP6)
    options = IP(src=CLIENT, dst=VIP, options=[IPOption_RR(), IPOption_Timestamp()])
    chain = v6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting(segleft=0) / IPv6ExtHdrDestOpt()
    error = ICMP(type=3, code=4) / IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=4242)
    error6 = ICMPv6PacketTooBig() / IPv6(src=VIP6, dst=CLIENT6) / TCP(sport=80, dport=4242)
    query, part = UDP(sport=4243, dport=53) / b"query", b"a part of a larger datagram"
    inner = [
        v4 / syn, options / syn, v4 / query, v4 / SCTP(sport=4244, dport=80) / SCTPChunkInit(), v4 / ICMP() / b"echo",
        v4 / error, IP(src=CLIENT, dst=VIP, flags="MF") / syn, IP(src=CLIENT, dst=VIP, frag=3) / part,
        v6 / syn, chain / syn, v6 / query, v6 / IPv6ExtHdrFragment(m=1) / part, v6 / ICMPv6EchoRequest(data=b"echo"),
        v6 / error6, v6 / ICMPv6ND_NS(tgt=VIP6) / ICMPv6NDOptSrcLLAddr(), ARP(op=1, psrc=CLIENT, pdst=VIP),
        v4 / IP(src=CLIENT, dst=VIP) / syn, v6 / IPv6(src=CLIENT6, dst=VIP6) / syn,
    ]
    # As many extension headers as fit: a chain that a careless reader would follow for long.
    long = v6
    for _ in range(100):
        long = long / IPv6ExtHdrDestOpt()
    inner.append(long / syn)
    frames = [bytes(Ether(src=OWN, dst=MAC) / packet) for packet in inner]
    frames += [bytes(Ether(src=OWN, dst=MAC) / Dot1Q(vlan=7) / packet) for packet in inner[:3]]
    frames += [bytes(Ether(src=OWN, dst=MAC, type=0x88A8) / Dot1Q(vlan=7) / Dot1Q(vlan=8) / packet) for packet in inner[:3]]
    frames.append(bytes(Ether(src=OWN, dst=MAC) / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / inner[0]))
    return frames


def frames():
    rng = random.Random(SEED)
    if KIND == "truncated":
        for frame in good():
            yield from (frame[:end] for end in range(14, len(frame) + 1))
    elif KIND == "flipped":
        bases = good()
        for _ in range(4000):
            frame = bytearray(rng.choice(bases))
            for _ in range(rng.randint(1, 6)):
                # Behind the addresses, so that the frame still reaches the director.
                frame[rng.randrange(12, min(len(frame), 90))] ^= 1 << rng.randrange(8)
            yield bytes(frame)
    elif KIND == "random":
        types = [0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 0x0000, 0x05DC, 0xFFFF]
        for _ in range(4000):
            addresses = bytes.fromhex((MAC + OWN).replace(":", ""))
            yield addresses + rng.choice(types).to_bytes(2, "big") + rng.randbytes(rng.choice([0, 1, 8, 20, 40, 60, 200, 1400]))
    else:
        sys.exit(f"what is {KIND}?")


def main():
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind((INTERFACE, 0))
    sent = 0
    for frame in frames():
        wire.send(frame)
        sent += 1
        if sent % 32 == 0:
            time.sleep(0.002)  # what is tested is the reading of frames, not a full ring
    print(sent)


main()
