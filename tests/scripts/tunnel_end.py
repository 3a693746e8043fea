#!/usr/bin/python3
"""The end of a tunnel at a real server: takes what comes to its own address out of the outer header and gives it to the
kernel by a TUN device, as the kernel's own tunnel devices do. For machines whose kernel has none.

    tunnel_end.py DEVICE ADDRESS KIND

KIND is `ipip`, `gre` or `gue:PORT`. The device is there already. Answers do not come this way: they leave by the server's
own routes.
"""
import fcntl, os, socket, struct, sys

DEVICE, ADDRESS, KIND = sys.argv[1:]
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
GRE_CHECKSUM, PROTOCOL_IPIP, PROTOCOL_GRE = 0x8000, 4, 47

tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), IFF_TUN | IFF_NO_PI))

kind, _, port = KIND.partition(":")
if kind == "gue":
    outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
else:
    outer = socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL_IPIP if kind == "ipip" else PROTOCOL_GRE)
outer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
outer.bind((ADDRESS, int(port or 0)))
print("listening", flush=True)
while True:
    packet = outer.recv(65535)
    if kind == "gue":
        # Version 0, no optional fields, IPv4 inside.
        assert packet[:4] == bytes([0, 4, 0, 0]), packet[:4]
        packet = packet[4:]
    else:
        assert packet[9] == (PROTOCOL_IPIP if kind == "ipip" else PROTOCOL_GRE)
        packet = packet[(packet[0] & 15) * 4 :]
        if kind == "gre":
            flags, protocol = struct.unpack("!HH", packet[:4])
            assert protocol == 0x0800 and flags in (0, GRE_CHECKSUM), (flags, protocol)
            packet = packet[8 if flags else 4 :]
    os.write(tun, packet)
