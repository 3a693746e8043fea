//! The recordings of a real kernel director (`tests/oracle`): the same scenario must print the same text.
//!
//! `oracle.py` builds a client, a director and three servers in namespaces, sends frames and prints every frame that
//! comes out, and every answer of the command line. `golden/NAME.out` is what Linux 6.1 IPVS and ipvsadm 1.31 printed.

use pointsman_tests::{Lab, repository};

/// Waited for answers after each frame, in seconds: generous, for the machines that run tests.
const WAIT_SECONDS: &str = "0.25";

#[test]
fn direct_routing_with_rr_answers_as_the_kernel_does() {
    replay("dr-rr");
}

#[test]
fn wrr_chooses_the_servers_that_the_kernel_chooses() {
    replay("wrr");
}

#[test]
fn nat_with_port_mapping_answers_as_the_kernel_does() {
    replay("nat-rr");
}

#[test]
fn udp_and_one_packet_scheduling_answer_as_the_kernel_does() {
    replay("udp");
}

#[test]
fn ipv6_by_direct_routing_and_nat_answers_as_the_kernel_does() {
    replay("ipv6");
}

#[test]
fn flows_seen_from_both_sides_and_from_one_pass_the_tcp_states_of_the_kernel() {
    replay("tcp-states");
}

#[test]
fn ip_in_ip_is_wrapped_and_refused_as_the_kernel_does() {
    replay("tun-ipip");
}

#[test]
fn a_persistent_client_stays_with_its_server_as_with_the_kernel() {
    replay("persist-client");
}

#[test]
fn ipvsadm_accepts_and_refuses_in_the_words_of_the_original() {
    replay("cli-errors");
}

fn replay(scenario: &str) {
    let oracle = repository().join("tests/oracle");
    let golden = std::fs::read_to_string(oracle.join(format!("golden/{scenario}.out")))
        .expect("the recording is there");
    let lab = Lab::new();
    let line = format!(
        "mkdir -p /run/bin && ln -s $(command -v pointsman) /run/bin/ipvsadm && cd {folder} && \
         ORACLE_WAIT={WAIT_SECONDS} ORACLE_LVS=/run/bin/ipvsadm ORACLE_VIP='pointsman vip add ADDR' \
         /usr/bin/python3 -B oracle.py command 'exec pointsmand --port d0 --port d1' scenarios/{scenario}.txt",
        folder = oracle.display()
    );
    let output = lab.sh_within(180, &line);
    if output.code != 0 || output.stdout != golden {
        lab.write("/run/lab/golden", &golden);
        lab.write("/run/lab/printed", &output.stdout);
        let difference =
            lab.sh_within(30, "diff -U4 --label recorded --label printed /run/lab/golden /run/lab/printed");
        panic!("{scenario}: exit {}\n{}\n{}", output.code, difference.stdout, output.stderr);
    }
}
