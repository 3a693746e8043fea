//! `make demo`, behind the build: it must show what it promises, and leave nothing behind.

use pointsman_tests::{Director, repository, wait_until};
use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// The demo, running in a process group of its own with its output in a file.
struct Demo {
    child: Child,
    output: PathBuf,
}

impl Demo {
    fn start(name: &str) -> Self {
        let output = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let file = File::create(&output).expect("the file for the output can be made");
        let child = Command::new(repository().join("deploy/demo/demo.sh"))
            .arg(Director::programs())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file)
            .process_group(0)
            .spawn()
            .expect("the demo starts");
        Self { child, output }
    }

    fn printed(&self) -> String {
        fs::read_to_string(&self.output).expect("the output can be read")
    }

    /// Waits for its end; the exit status.
    fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the demo ends", 60, || {
            status = self.child.try_wait().expect("a child can be asked for its state");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    fn is_gone(&self) -> bool {
        let group = self.child.id().to_string();
        let left = Command::new("pgrep").args(["-g", &group]).output().expect("pgrep (procps) starts");
        !left.status.success()
    }
}

#[test]
fn the_demo_shows_requests_that_alternate_and_the_tables() {
    let mut demo = Demo::start("demo.txt");
    let code = demo.wait();
    let printed = demo.printed();
    assert_eq!(code, Some(0), "{printed}");
    let answers: Vec<&str> = printed.lines().filter(|line| line.starts_with("web_")).collect();
    assert_eq!(answers, ["web_2", "web_1", "web_2", "web_1", "web_2", "web_1", "web_2", "web_1"]);
    let tables = [
        "[director]# ipvsadm -a -t 192.168.10.100:80 -r 192.168.10.12:80 -g\n",
        "TCP  192.168.10.100:80 rr\n  -> 192.168.10.12:80             Route   1      0          0         \n",
        "IPVS connection entries\n",
        "It works: 8 requests to 192.168.10.100, answered by web_1 and web_2 in turn.",
    ];
    for part in tables {
        assert!(printed.contains(part), "`{part}` is not in:\n{printed}");
    }
    wait_until("nothing of the demo is left", 10, || demo.is_gone());
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let mut demo = Demo::start("interrupted-demo.txt");
    wait_until("the director of the demo is ready", 30, || {
        demo.printed().lines().any(|line| line == "ready")
    });
    let group = format!("-{}", demo.child.id());
    // What Ctrl-C sends: SIGINT to every process of the foreground group.
    let sent = Command::new("kill").args(["-INT", "--", &group]).status().expect("kill starts");
    assert!(sent.success());
    assert_ne!(demo.wait(), Some(0), "{}", demo.printed());
    wait_until("nothing of the demo is left", 10, || demo.is_gone());
    let names = Command::new("ip").args(["netns", "list"]).output().expect("ip starts");
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    assert!(!names.contains("web1"), "{names}");
}
