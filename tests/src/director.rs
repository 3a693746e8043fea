//! The daemon under test, and its clients.

use crate::{Lab, Output, Process};
use std::path::PathBuf;

/// A running `pointsmand` on a node of a lab.
pub struct Director {
    lab: Lab,
    node: String,
    /// The daemon itself.
    pub process: Process,
}

impl Director {
    /// Where cargo put `pointsmand` and `pointsman`; panics with the remedy if they are not built.
    pub fn programs() -> PathBuf {
        let folder = built_programs();
        for program in ["pointsmand", "pointsman"] {
            assert!(
                folder.join(program).is_file(),
                "{program} is not built: cargo build --package pointsman-control (`cargo ci` does it before the tests)"
            );
        }
        folder
    }

    /// Starts `pointsmand ARGUMENTS` on a node and waits until it is ready. `ipvsadm` is a link to the client there.
    pub fn start(lab: &Lab, node: &str, arguments: &str) -> Self {
        let mut process = Self::spawn(lab, node, arguments);
        // Long, for tables of gigabytes on a busy machine; a director that ends instead is noticed at once.
        process.wait_for_line("ready", 120);
        Self { lab: lab.clone(), node: node.to_owned(), process }
    }

    /// Starts it without waiting: for a start that is to be refused.
    pub fn spawn(lab: &Lab, node: &str, arguments: &str) -> Process {
        let client = Self::programs().join("pointsman");
        lab.sh(&format!("mkdir -p /run/bin && ln -sfn {} /run/bin/ipvsadm", client.display()));
        lab.spawn(node, "pointsmand", &format!("exec pointsmand {arguments}"))
    }

    /// Runs `ipvsadm ARGUMENTS` beside the director.
    pub fn ipvsadm(&self, arguments: &str) -> Output {
        self.lab.run(&self.node, &format!("/run/bin/ipvsadm {arguments}"))
    }

    /// Runs `ipvsadm` with each line of arguments; panics if one is refused.
    pub fn ipvsadm_all(&self, lines: &[&str]) {
        for line in lines {
            let output = self.ipvsadm(line);
            assert!(output.code == 0, "ipvsadm {line}\nexit {}\n{}", output.code, output.text());
        }
    }

    /// The service of the usual LVS tutorial: HTTP at 192.168.10.100 for the servers .12 and .13 by direct routing.
    pub fn add_web_service(&self, scheduler: &str) {
        self.ipvsadm_all(&[
            &format!("-A -t 192.168.10.100:80 -s {scheduler}"),
            "-a -t 192.168.10.100:80 -r 192.168.10.12:80 -g",
            "-a -t 192.168.10.100:80 -r 192.168.10.13:80 -g",
        ]);
    }

    /// Runs `pointsman ARGUMENTS` beside the director.
    pub fn pointsman(&self, arguments: &str) -> Output {
        self.lab.run(&self.node, &format!("pointsman {arguments}"))
    }

    /// The socket, as the test finds it from outside of the lab.
    pub fn socket(&self) -> PathBuf {
        self.lab.path("/run/pointsman/pointsman.sock")
    }
}

pub(crate) fn built_programs() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").to_path_buf()
}
