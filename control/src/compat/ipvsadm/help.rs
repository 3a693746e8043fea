//! What `-h` and `-v` print.

/// `-v`.
pub const VERSION: &str =
    concat!("ipvsadm v1.31 (of Pointsman ", env!("CARGO_PKG_VERSION"), ", speaks IPVS v1.2.1)\n");

/// `-h`.
pub const HELP: &str = "\
Usage:
  ipvsadm -A|E SERVICE [-s SCHEDULER] [-p [SECONDS]] [-M MASK] [--pe ENGINE] [-b FLAGS] [-o]
  ipvsadm -D SERVICE
  ipvsadm -C
  ipvsadm -R < RULES
  ipvsadm -S [-n] > RULES
  ipvsadm -a|e SERVICE -r SERVER [-g|-i|-m] [-w WEIGHT] [-x UPPER] [-y LOWER] [TUNNEL]
  ipvsadm -d SERVICE -r SERVER
  ipvsadm -L|l [SERVICE | -c | --timeout | --daemon] [-n] [COLUMNS] [--exact] [--nosort]
  ipvsadm -Z [SERVICE]
  ipvsadm --set TCP TCPFIN UDP
  ipvsadm -h | -v

Commands (the first option; long forms in brackets):
  -A  add a virtual service [--add-service]       -a  add a real server [--add-server]
  -E  change a virtual service [--edit-service]   -e  change a real server [--edit-server]
  -D  delete a virtual service [--delete-service] -d  delete a real server [--delete-server]
  -C  delete every virtual service [--clear]      -L  list [--list]; also -l
  -R  read commands from stdin [--restore]        -S  print the commands that make this table [--save]
  -Z  set counters to zero [--zero]               --set  timeouts in seconds; 0 keeps the present one

SERVICE:
  -t|--tcp-service HOST[:PORT]     -u|--udp-service HOST[:PORT]     --sctp-service HOST[:PORT]
  -f|--fwmark-service MARK [-6]    a firewall mark; -6: of IPv6 packets
  An IPv6 address stands in brackets: [fd00::1]:80. Port 0 stands for every port and needs -p.

Options:
  -s|--scheduler NAME      wlc if not given
  -p|--persistent [SEC]    keep a client on its server; 360 s if no time is given
  -M|--netmask MASK        clients of one network share a server: 255.255.255.0, or 64 for IPv6
  -b|--sched-flags LIST    sh-port, sh-fallback, mh-port, mh-fallback, flag-1, flag-2, flag-3
  -o|--ops                 schedule each datagram by itself (UDP)
  --pe ENGINE              persistence engine
  -r|--real-server HOST[:PORT]
  -g|--gatewaying          direct routing (the default)
  -i|--ipip                tunnel
  -m|--masquerading        NAT
  -w|--weight N            0 gives the server no new connections; 1 if not given
  -x|--u-threshold N       connections at which the server gets no new ones; 0: never
  -y|--l-threshold N       connections below which it gets new ones again
  --tun-type ipip|gue|gre  --tun-port N  --tun-nocsum | --tun-csum | --tun-remcsum
  -n|--numeric             addresses and ports as numbers
  -c|--connection          list the connections
  --stats --rate --thresholds --persistent-conn --tun-info    other columns
  -X|--exact               numbers with all their digits
  --nosort                 in the director's own order

The director is pointsmand; POINTSMAN_SOCKET names its socket if it is not /run/pointsman/pointsman.sock.
";
