#!/bin/busybox sh
# The first process of the virtual machine of `make test-vm`: mounts what programs expect, then does what it is told over
# the second serial line: each line in is the length of a line for the shell and that line; its output comes back between
# two marks, with its status, or `again` if it did not come whole: an emulated line loses bytes while the host is busy.

/bin/busybox --install -s /bin
export PATH=/bin LC_ALL=C
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mkdir -p /dev/hugepages
mount -t hugetlbfs none /dev/hugepages
exec </dev/null >/dev/ttyS0 2>&1
ip link set lo up

exec 3<>/dev/ttyS1
stty raw -echo <&3
echo ready >&3
while read -r length line <&3; do
    if [ "$length" != "${#line}" ]; then
        { echo '<<<'; echo '>>> again'; } >&3
        continue
    fi
    sh -c "$line" >/tmp/output 2>&1 </dev/null 3<&-
    status=$?
    # A line that is not ended would swallow the mark.
    { echo '<<<'; cat /tmp/output; echo; echo ">>> $status"; } >&3
done
poweroff -f
