#!/usr/bin/python3
"""Ends with 0 if ports by AF_XDP can be tested here; else prints why not, with the remedy, and ends with 1."""
import ctypes, os, socket, subprocess, sys

# Of <linux/socket.h> and <linux/bpf.h>.
AF_XDP, BPF_PROG_TYPE_XDP, BPF_MAP_TYPE_XSKMAP = 44, 6, 17


def obstacle():
    """What stands against it, if anything."""
    if os.geteuid() != 0:
        return "they need root; run `sudo env PATH=$PATH make test-dpdk`"
    if subprocess.run(["unshare", "-nm", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        return "this root has no CAP_SYS_ADMIN; run `make test-dpdk` as the machine's root, outside of a container"
    try:
        socket.socket(AF_XDP, socket.SOCK_RAW).close()
    except OSError as error:
        return f"a socket for AF_XDP: {error.strerror}; it takes a kernel with CONFIG_XDP_SOCKETS, and CAP_NET_RAW"
    try:
        # DPDK's driver is linked with it.
        bpf = ctypes.CDLL("libbpf.so.1")
    except OSError as error:
        return f"{error}; install the package libbpf1"
    program = bpf.libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_XDP, None)
    table = bpf.libbpf_probe_bpf_map_type(BPF_MAP_TYPE_XSKMAP, None)
    if (program, table) != (1, 1):
        return (
            "the kernel takes no XDP program from this root (it lacks CONFIG_BPF_SYSCALL, or root CAP_BPF); "
            "run `make test-dpdk` as the machine's root, outside of a container"
        )
    return None


reason = obstacle()
if reason:
    print(reason)
    sys.exit(1)
