//! Real nginx with a log of who asked, and real curl: one request, one that is held open, many at once.

use crate::{Lab, Process, wait_until};

/// The folder of the director's own nginx.
const OWN: &str = "/run/lab/own";

/// A running nginx.
pub struct Web {
    lab: Lab,
    home: String,
    /// The program itself.
    pub process: Process,
}

/// A connection that a real curl holds open: an answer so slow that it does not end while the test runs.
pub struct Held {
    process: Process,
    /// The page of the server that answers.
    pub page: String,
}

impl Lab {
    /// Starts nginx on the ports of a node; `/` is `page`. A file can be put there. `/slow` begins with the page and takes
    /// a quarter of an hour.
    pub fn web(&self, node: &str, page: &str, ports: &[u16]) -> Web {
        let home = format!("/run/lab/web-{node}");
        self.write(&format!("{home}/index.html"), &format!("{page}\n"));
        self.write(&format!("{home}/slow"), &format!("{page}\n{}", "so slow\n".repeat(100_000)));
        self.write(&format!("{home}/nginx.conf"), &configuration(&home, ports));
        let nginx = format!("exec nginx -e {home}/error.log -c {home}/nginx.conf");
        let web = Web { lab: self.clone(), home, process: self.spawn(node, "nginx", &nginx) };
        wait_until(&format!("nginx on {node} answers"), 10, || {
            let line = format!("curl -s --max-time 2 http://127.0.0.1:{}/", ports[0]);
            self.run(node, &line).stdout.trim() == page
        });
        web
    }

    /// nginx on all addresses of the director, IPv6 too, that also takes uploads: `/` is `own`, `/down` 4 MB, and what is
    /// put to `/up` becomes the file `up`, all in `/run/lab/own`.
    pub fn own_server(&self, port: u16) -> Process {
        let text = format!(
            "user root;\ndaemon off;\nmaster_process off;\npid {OWN}/nginx.pid;\n\
             events {{ worker_connections 64; }}\nhttp {{ access_log off; client_body_temp_path {OWN}/body;\n\
             server {{ listen {port}; listen [::]:{port}; client_max_body_size 0; root {OWN}; \
             dav_methods PUT; }} }}\n"
        );
        self.write(&format!("{OWN}/nginx.conf"), &text);
        self.write(&format!("{OWN}/index.html"), "own\n");
        self.ok("director", &format!("head -c 4000000 /dev/urandom >{OWN}/down"));
        let nginx =
            self.spawn("director", "nginx", &format!("exec nginx -e {OWN}/error.log -c {OWN}/nginx.conf"));
        wait_until("nginx on the director answers", 10, || {
            let line = format!("curl -s --max-time 2 -o /dev/null http://192.168.10.11:{port}/down");
            self.run("director", &line).code == 0
        });
        nginx
    }

    /// Sends a file of 4 MB to the director's own nginx behind `url` (`http://VIP`), fetches another, and compares both.
    pub fn exchange_with_own_server(&self, node: &str, url: &str) {
        let sum = |node: &str, path: &str| self.ok(node, &format!("sha256sum <{path}"));
        let curl = |more: &str| self.ok(node, &format!("curl -gsSf --max-time 25 {more}"));
        self.ok(node, "head -c 4000000 /dev/urandom >/run/lab/up");
        curl(&format!("-T /run/lab/up {url}/up"));
        assert_eq!(sum("director", &format!("{OWN}/up")), sum(node, "/run/lab/up"));
        curl(&format!("-o /run/lab/down {url}/down"));
        assert_eq!(sum(node, "/run/lab/down"), sum("director", &format!("{OWN}/down")));
        self.ok("director", &format!("rm {OWN}/up"));
    }

    /// One HTTP request from one of the addresses of a node; the page that came back.
    pub fn request_from(&self, node: &str, address: &str, url: &str) -> String {
        self.ok(node, &format!("curl -sS --max-time 5 --interface {address} {url}")).trim().to_owned()
    }

    /// Opens a connection to the VIP at `url` (`http://VIP`) and holds it.
    pub fn hold_connection(&self, node: &str, url: &str) -> Held {
        let process = self.spawn(node, "held", &format!("exec curl -sSN {url}/slow"));
        wait_until(&format!("{url}/slow answers"), 10, || process.log().contains('\n'));
        let page = process.log().lines().next().unwrap_or_default().to_owned();
        Held { process, page }
    }

    /// Starts `count` curls at once that fetch `url`, each on a connection of its own, and compare it with a file of the
    /// lab.
    pub fn fetch_at_once(&self, node: &str, count: usize, url: &str, file: &str) -> Process {
        let line = format!(
            "seq {count} | xargs -P {count} -I% sh -c 'curl -sS --max-time 50 {url} | cmp - {file} && echo whole %'; \
             echo all ended"
        );
        self.spawn(node, "fetch", &line)
    }
}

impl Web {
    /// Where a file of its folder lies in the lab.
    pub fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.home)
    }

    /// Who asked, a line for each request that has ended: `ADDRESS PORT METHOD PATH`, the port being the server's. Waits
    /// until there are `count`: nginx writes a line when the answer has left. The node's own requests are not in it.
    pub fn log(&self, count: usize) -> Vec<String> {
        let lines = || self.lab.read(&self.path("access.log")).lines().map(str::to_owned).collect::<Vec<_>>();
        wait_until(&format!("{count} requests are in {}", self.path("access.log")), 10, || {
            lines().len() >= count
        });
        lines()
    }
}

impl Held {
    /// Waits until more of the answer comes than has come.
    pub fn goes_on(&self) {
        let before = self.process.log().len();
        wait_until("more of a slow answer comes", 10, || self.process.log().len() > before);
    }

    /// Ends the connection, as a user does who closes the browser.
    pub fn end(&self) {
        self.process.signal("TERM");
    }
}

fn configuration(home: &str, ports: &[u16]) -> String {
    let mut text = format!(
        "user root;\ndaemon off;\nmaster_process off;\npid {home}/nginx.pid;\n\
         events {{ worker_connections 4096; }}\nhttp {{\n    \
         map $remote_addr $other {{ 127.0.0.1 0; default 1; }}\n    \
         log_format who '$remote_addr $server_port $request_method $request_uri';\n    \
         access_log {home}/access.log who if=$other;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        text += &format!("    {kind}_temp_path {home}/{kind};\n");
    }
    text += "    server {\n";
    for port in ports {
        text += &format!("        listen {port} backlog=1024;\n");
    }
    text + &format!(
        "        client_max_body_size 0; root {home}; dav_methods PUT;\n        \
         location /slow {{ limit_rate 1000; }}\n    }}\n}}\n"
    )
}
