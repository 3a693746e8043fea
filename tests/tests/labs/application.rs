//! Address translation for protocols that speak of addresses: real vsftpd with real curl and Python's ftplib, and calls
//! of SIP. The addresses of the tutorial's NAT lab, but for servers whose addresses are longer and shorter than the VIP.
//!
//! ```text
//! client 20.20.20.50 ── director 20.20.20.1 (eth0), 10.10.10.1 (eth1) ──┬── server 10.10.10.112
//!                       VIP 20.20.20.11, Pointsman's alone              └── other  10.10.10.2
//! ```

use super::with_one_and_two_workers;
use pointsman_tests::{Director, Lab, Process, wait_until};

const VSFTPD: &str = "\
listen=NO
listen_ipv6=YES
background=NO
anonymous_enable=YES
anon_root=/run/lab/ftp
ftp_username=root
run_as_launching_user=YES
write_enable=YES
anon_upload_enable=YES
anon_umask=022
allow_writeable_chroot=YES
connect_from_port_20=YES
isolate=NO
isolate_network=NO
seccomp_sandbox=NO
";

const FILE: &str = "/run/lab/original";

struct Network {
    lab: Lab,
    director: Director,
    servers: Vec<Process>,
}

impl Network {
    /// `program` runs on each server, whose node's name it is told as `$NODE`.
    fn new(workers: usize, program: &str) -> Self {
        let lab = Lab::new();
        lab.add_switch("outside");
        lab.add_switch("inside");
        lab.plug("client", "eth0", "outside", &["20.20.20.50/24", "fd20::50/64"]);
        lab.plug("director", "eth0", "outside", &["20.20.20.1/24", "fd20::1/64"]);
        lab.plug("director", "eth1", "inside", &["10.10.10.1/24", "fd10::1/64"]);
        lab.sh("mkdir -p /run/lab/ftp");
        lab.sh(&format!("head -c 300000 /dev/urandom >{FILE}; cp {FILE} /run/lab/ftp/file"));
        lab.write("/run/lab/vsftpd.conf", VSFTPD);
        lab.write("/run/lab/ring.py", RING);
        let server = |node: &str, addresses: &[&str]| {
            lab.plug(node, "eth0", "inside", addresses);
            lab.set_gateway(node, "10.10.10.1");
            lab.ok(node, "ip -6 route add default via fd10::1");
            lab.spawn(node, "server", &format!("export NODE={node}; {program}"))
        };
        let processes = vec![
            server("server", &["10.10.10.112/24", "fd10::112/64"]),
            server("other", &["10.10.10.2/24", "fd10::2/64"]),
        ];
        let director = Director::with_workers(&lab, "director", &["eth0", "eth1"], workers);
        Self { lab, director, servers: processes }
    }

    fn ftp(workers: usize) -> Self {
        let network = Self::new(workers, "exec vsftpd /run/lab/vsftpd.conf");
        for node in ["server", "other"] {
            wait_until(&format!("vsftpd on {node} answers"), 10, || {
                network.lab.run(node, "curl -sS --max-time 2 ftp://127.0.0.1/").code == 0
            });
        }
        network.director.ipvsadm_all(&[
            "-A -t 20.20.20.11:21 -s rr",
            "-a -t 20.20.20.11:21 -r 10.10.10.112:21 -m",
            "-a -t 20.20.20.11:21 -r 10.10.10.2:21 -m",
            "-A -t [fd20::11]:21 -s rr",
            "-a -t [fd20::11]:21 -r [fd10::112]:21 -m",
        ]);
        network
    }
}

/// curl's switches for PASV (the address it says is used), EPSV, PORT and EPRT.
const MODES: [&str; 4] = ["--disable-epsv --no-ftp-skip-pasv-ip", "", "-P - --disable-eprt", "-P -"];

#[test]
fn files_come_and_go_by_ftp_through_address_translation_in_every_mode() {
    with_one_and_two_workers(|workers| {
        let network = Network::ftp(workers);
        let (lab, url) = (&network.lab, "ftp://20.20.20.11");
        for (n, mode) in MODES.iter().enumerate() {
            for round in 0..4 {
                lab.ok("client", &format!("curl -sS --max-time 25 {mode} {url}/file | cmp - {FILE}"));
                let name = format!("copy-{n}-{round}");
                lab.ok("client", &format!("curl -sS --max-time 25 {mode} -T {FILE} {url}/{name}"));
                lab.sh(&format!("cmp {FILE} /run/lab/ftp/{name}"));
            }
        }
        // The sessions were scheduled, and nothing else; every byte passed the director.
        let [connections, _, _, bytes_in, bytes_out] = network.director.stats();
        assert_eq!(connections, 32);
        assert!(bytes_in > 16 * 300_000 && bytes_out > 16 * 300_000, "{bytes_in} bytes in, {bytes_out} out");
        let listed = network.director.ipvsadm("-Lnc").stdout;
        let data = |line: &&str| line.contains(" 20.20.20.11:20 ");
        let active: Vec<_> = listed.lines().filter(data).collect();
        assert!(active.iter().all(|line| line.ends_with(":20")), "{listed}");
        assert!(!active.is_empty(), "{listed}");
    });
}

#[test]
fn files_come_and_go_by_ftp_over_ipv6_through_address_translation() {
    with_one_and_two_workers(|workers| {
        let network = Network::ftp(workers);
        let (lab, url) = (&network.lab, "ftp://[fd20::11]");
        for (n, mode) in ["", "-P -"].iter().enumerate() {
            lab.ok("client", &format!("curl -g -sS --max-time 25 {mode} {url}/file | cmp - {FILE}"));
            lab.ok("client", &format!("curl -g -sS --max-time 25 {mode} -T {FILE} {url}/copy-{n}"));
            lab.sh(&format!("cmp {FILE} /run/lab/ftp/copy-{n}"));
        }
    });
}

/// One session of many transfers, passive and active by turns; the server's word for its address is taken.
const FTPLIB: &str = "import ftplib, io, sys\n\
    original = open('/run/lab/original', 'rb').read()\n\
    ftp = ftplib.FTP('20.20.20.11', timeout=20)\n\
    ftp.trust_server_pasv_ipv4_address = True\n\
    ftp.login()\n\
    for n in range(12):\n    \
        ftp.set_pasv(n % 3 != 2)\n    \
        got = io.BytesIO()\n    \
        ftp.retrbinary('RETR file', got.write)\n    \
        assert got.getvalue() == original, n\n    \
        ftp.storbinary('STOR %s-%d' % (sys.argv[1], n), io.BytesIO(original))\n    \
        assert 'file' in ftp.nlst(), n\n\
    print(ftp.quit())\n";

#[test]
fn a_session_of_many_transfers_keeps_its_numbers_right_where_addresses_differ_in_length() {
    with_one_and_two_workers(|workers| {
        let network = Network::ftp(workers);
        network.lab.write("/run/lab/session.py", FTPLIB);
        // With either server: one has a longer address than the VIP, the other a shorter one.
        for name in ["one", "two"] {
            let said = network.lab.ok("client", &format!("/usr/bin/python3 /run/lab/session.py {name}"));
            assert_eq!(said, "221 Goodbye.\n");
            for n in 0..12 {
                network.lab.sh(&format!("cmp {FILE} /run/lab/ftp/{name}-{n}"));
            }
        }
        assert_eq!(network.director.stats()[0], 2);
    });
}

/// Answers each datagram to port 5060 with the node's name.
const RING: &str = "import os, socket\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
    s.bind(('0.0.0.0', 5060))\n\
    print('listening', flush=True)\n\
    while True:\n    \
        peer = s.recvfrom(2000)[1]\n    \
        s.sendto(os.environ['NODE'].encode(), peer)\n";

/// Sends messages of the calls that it is told, each from a port of its own.
const CALL: &str = "import socket, sys\n\
    for call in sys.argv[1:]:\n    \
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
        s.settimeout(3)\n    \
        s.connect(('20.20.20.11', 5060))\n    \
        s.send(('OPTIONS sip:a@b SIP/2.0\\r\\nCall-ID: %s\\r\\n\\r\\n' % call).encode() if call else b'hello')\n    \
        try:\n        \
            print(call, s.recv(100).decode())\n    \
        except TimeoutError:\n        \
            print('no answer')\n";

#[test]
fn calls_of_one_client_stay_with_their_servers() {
    with_one_and_two_workers(|workers| {
        let mut network = Network::new(workers, "exec /usr/bin/python3 /run/lab/ring.py");
        network.servers.iter_mut().for_each(|server| server.wait_for_line("listening", 10));
        network.director.ipvsadm_all(&[
            "-A -u 20.20.20.11:5060 -s rr -p 60 --pe sip",
            "-a -u 20.20.20.11:5060 -r 10.10.10.112:5060 -m",
            "-a -u 20.20.20.11:5060 -r 10.10.10.2:5060 -m",
        ]);
        network.lab.write("/run/lab/call.py", CALL);
        let said =
            network.lab.ok("client", "/usr/bin/python3 /run/lab/call.py a@h b@h a@h a@h b@h c@h b@h ''");
        let expected = [
            "a@h other",
            "b@h server",
            "a@h other",
            "a@h other",
            "b@h server",
            "c@h other",
            "b@h server",
            "no answer",
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), expected);
        let listed = network.director.ipvsadm("-Lnc --persistent-conn").stdout;
        let mut templates: Vec<String> = listed
            .lines()
            .filter(|line| line.contains(" sip "))
            .map(|line| line.split_whitespace().skip(3).collect::<Vec<_>>().join(" "))
            .collect();
        templates.sort_unstable();
        let expected = [
            "20.20.20.50:0 20.20.20.11:5060 10.10.10.112:5060 sip b@h",
            "20.20.20.50:0 20.20.20.11:5060 10.10.10.2:5060 sip a@h",
            "20.20.20.50:0 20.20.20.11:5060 10.10.10.2:5060 sip c@h",
        ];
        assert_eq!(templates, expected, "{listed}");
    });
}
