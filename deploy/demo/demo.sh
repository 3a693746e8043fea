#!/usr/bin/env bash
# demo.sh FOLDER: balances real HTTP by direct routing, in network namespaces of its own.
#
# FOLDER holds pointsmand and pointsman. The topology, the addresses and the commands are those of the usual LVS
# tutorial for direct routing. Everything happens in namespaces that end with this script, also after Ctrl-C: nothing
# is left on the machine. Works as root, and as an ordinary user where user namespaces are allowed.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

VIP=192.168.10.100
REQUESTS=8
# One segment; addresses by namespace. The interface is called ens33 everywhere, as in the tutorial.
declare -A ADDRESS=([client]=192.168.10.50 [director]=192.168.10.11 [web1]=192.168.10.12 [web2]=192.168.10.13)

enter_namespaces() {
    local folder=$1 flags
    for program in pointsmand pointsman; do
        [ -x "$folder/$program" ] || fail "$folder/$program is missing: cargo build --release, or make demo"
    done
    if unshare -Urnm true 2>/dev/null; then
        flags=-Urnm
    elif [ "$(id -u)" = 0 ] && unshare -nm true 2>/dev/null; then
        flags=-nm
    else
        fail "this user may not make network namespaces here. Run the demo as root, or allow user namespaces:" \
            "sysctl -w user.max_user_namespaces=10000 (Ubuntu: also kernel.apparmor_restrict_unprivileged_userns=0)"
    fi
    exec unshare "$flags" --pid --fork --kill-child --mount-proc -- \
        bash "$0" --inside "$(realpath "$folder")"
}

fail() {
    echo "demo: $*" >&2
    exit 1
}

bold='' plain=''
if [ -t 1 ]; then
    bold=$'\e[1m' plain=$'\e[0m'
fi
title() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }

in_ns() { ip netns exec "$@"; }

# Shows a command as it is typed on a node, and runs it there.
typed() {
    local node=$1
    shift
    printf '%s[%s]#%s %s\n' "$bold" "$node" "$plain" "$*"
    in_ns "$node" "$@"
}

build_segment() {
    local node
    mount -t tmpfs tmpfs /run
    mkdir -p /run/netns /run/demo/bin
    ip netns add switch
    in_ns switch ip link add br0 type bridge
    in_ns switch ip link set br0 up
    for node in "${!ADDRESS[@]}"; do
        ip netns add "$node"
        in_ns "$node" ip link set lo up
        ip link add ens33 netns "$node" type veth peer name "$node" netns switch
        in_ns switch ip link set "$node" master br0 up
        in_ns "$node" ip addr add "${ADDRESS[$node]}/24" dev ens33
        in_ns "$node" ip link set ens33 up
    done
}

# A real server as the tutorial sets it up: the VIP on lo:0, silent about it on the segment.
start_server() {
    local node=$1 page=$2 scope
    for scope in all default lo; do
        in_ns "$node" sysctl -qw "net.ipv4.conf.$scope.arp_ignore=1" "net.ipv4.conf.$scope.arp_announce=2"
    done
    in_ns "$node" ip addr add $VIP/32 dev lo label lo:0
    in_ns "$node" ip route add $VIP/32 dev lo
    local home=/run/demo/$node
    mkdir -p "$home"
    echo "$page" >"$home/index.html"
    cat >"$home/nginx.conf" <<CONF
user root;
daemon off;
master_process off;
pid $home/nginx.pid;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path $home/body;
    proxy_temp_path $home/proxy;
    fastcgi_temp_path $home/fastcgi;
    uwsgi_temp_path $home/uwsgi;
    scgi_temp_path $home/scgi;
    server {
        listen 80;
        root $home;
    }
}
CONF
    in_ns "$node" nginx -e "$home/error.log" -c "$home/nginx.conf" &
    wait_for "nginx on $node" "$home/error.log" in_ns "$node" curl -s -o /dev/null "http://${ADDRESS[$node]}/"
}

# wait_for WHAT LOG COMMAND...: until COMMAND succeeds; gives up after ten seconds and shows LOG.
wait_for() {
    local what=$1 log=$2
    shift 2
    for _ in {1..200}; do
        "$@" && return
        sleep 0.05
    done
    cat "$log" >&2
    fail "$what did not get ready within 10 s"
}

start_director() {
    local folder=$1 log=/run/demo/pointsmand.log
    ln -s "$folder/pointsman" /run/demo/bin/ipvsadm
    PATH=/run/demo/bin:$folder:$PATH
    printf '%s[director]#%s pointsmand --port ens33 &\n' "$bold" "$plain"
    : >$log
    in_ns director pointsmand --port ens33 >>$log 2>&1 &
    wait_for pointsmand $log grep -qx ready $log
    echo ready
}

show_topology() {
    title 'One segment, direct routing: requests pass the director, answers go straight to the client'
    cat <<'PICTURE'

      client               director
      192.168.10.50        192.168.10.11    VIP 192.168.10.100:80 rr
          |                    |
      ----+----------+---------+-------+----   192.168.10.0/24
                     |                 |
                  web1              web2           each with the VIP on lo:0,
                  192.168.10.12     192.168.10.13  arp_ignore=1, arp_announce=2
                  nginx: web_1      nginx: web_2

PICTURE
}

send_requests() {
    local answers=() answer number
    printf '%s[client]#%s for i in {1..%s}; do curl http://%s/; done\n' "$bold" "$plain" $REQUESTS $VIP
    for ((number = 1; number <= REQUESTS; number++)); do
        answer=$(in_ns client curl -sS --max-time 5 http://$VIP/) || fail "request $number was not answered"
        echo "$answer"
        answers+=("$answer")
    done
    ANSWERS="${answers[*]}"
}

# The answers must alternate: web_1 web_2 web_1 ... or web_2 web_1 web_2 ...
verdict() {
    local odd even
    odd=$(printf 'web_1 web_2 %.0s' {1..4})
    even=$(printf 'web_2 web_1 %.0s' {1..4})
    if [ "$ANSWERS " != "$odd" ] && [ "$ANSWERS " != "$even" ]; then
        fail "the answers do not alternate: $ANSWERS"
    fi
    title "It works: $REQUESTS requests to $VIP, answered by web_1 and web_2 in turn."
}

inside() {
    local folder=$1
    trap 'exit 130' INT TERM
    show_topology
    build_segment
    start_server web1 web_1
    start_server web2 web_2
    title 'The director'
    start_director "$folder"
    typed director ipvsadm -A -t $VIP:80 -s rr
    typed director ipvsadm -a -t $VIP:80 -r "${ADDRESS[web1]}:80" -g
    typed director ipvsadm -a -t $VIP:80 -r "${ADDRESS[web2]}:80" -g
    typed director ipvsadm -Ln
    title 'The client'
    send_requests
    title 'What the director saw'
    typed director ipvsadm -Ln
    typed director ipvsadm -Lnc
    typed director ipvsadm -Ln --stats
    verdict
}

case ${1:-} in
    --inside) inside "$2" ;;
    '') fail 'which folder holds pointsmand and pointsman? Try make demo' ;;
    *) enter_namespaces "$1" ;;
esac
