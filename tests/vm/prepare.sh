#!/usr/bin/env bash
# prepare.sh FOLDER PROGRAM...: makes what the virtual machine of `make test-vm` boots: FOLDER/linux, which is Debian's own
# kernel, and FOLDER/initramfs, which is busybox, the kernel's modules for its NICs and for vfio-pci, the programs with the
# libraries that they are linked with, and DPDK's drivers. The kernel's package is downloaded and unpacked in FOLDER,
# never installed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=$1
shift
modules=(vfio-pci vfio_iommu_type1 virtio_pci virtio_net e1000 e1000e tun)
# All of DPDK's drivers are a hundred libraries; the machine has two kinds of NIC.
drivers=(bus_pci bus_vdev mempool_ring net_virtio net_e1000)

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
# An absolute path is the same inside of the initramfs.
PATH=$PATH:/usr/sbin:/sbin

# Unpacks the package in a folder. Newer kernels lie in /usr/lib, and their modules are compressed.
unpack() {
    dpkg-deb --extract "$1"/*.deb "$1" && rm "$1"/*.deb || return 1
    if [ -d "$1/usr/lib/modules" ]; then mkdir -p "$1/lib" && mv "$1/usr/lib/modules" "$1/lib/" || return 1; fi
    rm -rf "${1:?}/usr"
    find "$1/lib/modules" -name '*.ko.xz' -exec busybox unxz {} +
}

# Fetches the kernel that Debian installs today, unless it is the one that is here. That one stays if this fails.
fetch_kernel() {
    local package new=$folder/download
    package=$(apt-cache depends --important linux-image-amd64 | awk '$1 == "Depends:" { print $2; exit }') || package=
    if [ -z "$package" ]; then
        echo 'Debian'\''s package linux-image-amd64 is not known here: apt-get update (the test boots that kernel)' >&2
        return 1
    fi
    [ "$(cat "$folder/package" 2>/dev/null)" != "$package" ] || return 0
    echo "downloading $package"
    rm -rf "$new" && mkdir "$new" || return 1
    (cd "$new" && apt-get download -qq "$package" 2>"$new/log") || {
        cat "$new/log" >&2
        echo "$package could not be downloaded; try: apt-get update" >&2
        return 1
    }
    unpack "$new" || {
        echo "$package could not be unpacked in $new" >&2
        return 1
    }
    rm -rf "$folder"/{package,unpacked} && mv "$new" "$folder/unpacked" && echo "$package" >"$folder/package"
}

# Copies files to the same place in the initramfs. What is a link stays one: a library found by two names must be one file.
put() {
    local file real
    for file in "$@"; do
        [ -e "$tree$file" ] && continue
        real=$(realpath "$file")
        mkdir -p "$tree$(dirname "$file")" "$tree$(dirname "$real")"
        cp -n "$real" "$tree$real"
        [ "$real" = "$file" ] || ln -sfn "$real" "$tree$file"
    done
}

# The libraries that programs or libraries are linked with.
libraries() { ldd "$@" | awk '$2 == "=>" { print $3 } $1 ~ /^\// && NF == 2 && $1 !~ /:$/ { print $1 }' | sort -u; }

if ! fetch_kernel; then
    [ -e "$folder/package" ] || exit 1
    echo "going on with $(cat "$folder/package"), which is here already" >&2
fi
kernel=$(echo "$folder"/unpacked/boot/vmlinuz-*)
version=${kernel##*vmlinuz-}
ln -sfn "$kernel" "$folder/linux"

tree=$(mktemp -d -p "$folder")
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,dev,proc,sys,run,tmp,etc,var,"lib/modules/$version"}
cp "$(command -v busybox)" "$tree/bin/busybox"
# Debian has busybox with libraries (busybox) and without (busybox-static).
put $(libraries "$tree/bin/busybox" 2>/dev/null || true)
cp "$here/init.sh" "$tree/init"
chmod 755 "$tree/init"

source=$folder/unpacked/lib/modules/$version
"$tree/bin/busybox" depmod -b "$folder/unpacked" "$version"
cp "$source"/modules.{builtin,order} "$tree/lib/modules/$version/"
for module in "${modules[@]}"; do
    # A line of modules.dep is a module, and behind the colon all that it needs.
    files=$(grep -E "(^|/)${module//[-_]/[-_]}\.ko:" "$source/modules.dep") || {
        echo "the kernel $version has no module $module" >&2
        exit 1
    }
    for file in ${files/:/}; do
        file=${file#"/lib/modules/$version/"}
        mkdir -p "$tree/lib/modules/$version/$(dirname "$file")"
        cp "$source/$file" "$tree/lib/modules/$version/$file"
    done
done
"$tree/bin/busybox" depmod -b "$tree" "$version"

plugins=$(echo /usr/lib/*/dpdk/pmds-*)
parts=()
for driver in "${drivers[@]}"; do
    parts+=("$plugins/librte_$driver".so.*)
done
for program in "$@"; do
    cp "$program" "$tree/bin/"
    put $(libraries "$program")
done
put "${parts[@]}" $(libraries "${parts[@]}")
# Without their symbols the programs are a tenth as large, and the machine has them in memory.
strip "${@/#*\//$tree/bin/}"

(cd "$tree" && find . | busybox cpio -o -H newc 2>/dev/null) >"$folder/initramfs.new"
mv "$folder/initramfs.new" "$folder/initramfs"
