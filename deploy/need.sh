#!/usr/bin/env bash
# need.sh TOOL...: makes sure that each tool is there; installs the Debian package of those that are not.
set -euo pipefail

# A tool is there if its program is found; scapy is a module of the system's Python, libdpdk a library.
present() {
    case $1 in
        scapy) /usr/bin/python3 -c 'import scapy' 2>/dev/null ;;
        libdpdk) pkg-config --exists libdpdk 2>/dev/null ;;
        *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

package_of() {
    case $1 in
        cc) echo gcc libc6-dev ;;
        ip) echo iproute2 ;;
        nft) echo nftables ;;
        ping) echo iputils-ping ;;
        sysctl) echo procps ;;
        scapy) echo python3-scapy ;;
        libdpdk) echo libdpdk-dev pkg-config ;;
        dpdk-testpmd) echo dpdk-dev ;;
        qemu-system-x86_64) echo qemu-system-x86 ;;
        busybox) echo busybox-static ;;
        strip) echo binutils ;;
        *) echo "$1" ;;
    esac
}

missing=()
for tool in "$@"; do
    present "$tool" && continue
    if [ "$tool" = cargo ]; then
        echo 'Rust is not installed: cargo is not found. Install it as https://rustup.rs says, then run make again:' >&2
        echo "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
        exit 1
    fi
    read -ra packages <<<"$(package_of "$tool")"
    missing+=("${packages[@]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

root=(env)
if [ "$(id -u)" != 0 ]; then root=(sudo); fi
if ! command -v apt-get >/dev/null || ! command -v "${root[0]}" >/dev/null; then
    echo "These packages are missing: ${missing[*]}. As root: apt-get update && apt-get install ${missing[*]}" >&2
    echo '(the names are those of Debian; elsewhere install what provides the same programs)' >&2
    exit 1
fi

echo "installing ${missing[*]}"
# Debian's nginx and vsftpd start as they are installed, and again at each boot; nothing here wants them as services.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap '"${root[@]}" rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
    "${root[@]}" chmod 755 $policy
fi
log=$(mktemp)
install() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; }
# Package lists may be absent or out of date: fetch them once if the first try fails.
if ! install && ! { "${root[@]}" apt-get update >"$log" 2>&1 && install; }; then
    cat "$log" >&2
    echo "These packages could not be installed: ${missing[*]}. Try: apt-get update && apt-get install ${missing[*]}" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
for service in nginx vsftpd; do
    if [[ " ${missing[*]} " = *" $service "* ]] && command -v systemctl >/dev/null; then
        "${root[@]}" systemctl disable --quiet "$service" 2>/dev/null || true
    fi
done
