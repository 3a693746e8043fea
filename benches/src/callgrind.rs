//! Instructions per packet, counted by valgrind's callgrind: the figure that does not depend on the machine's mood.
//!
//! The program runs itself twice under callgrind, with n packets and with 2n. The difference is what n packets cost, free of
//! what starting costs.

use std::process::Command;

/// Packets of the shorter run.
const PACKETS: u64 = 64_000;

/// Instructions per packet of `mode` with `flows` flows: see [`crate::packet_path::once`]. The program that calls this
/// must understand `--once MODE FLOWS PACKETS`.
///
/// # Errors
/// When valgrind is not there or says something else than expected.
pub fn per_packet(mode: &str, flows: u32) -> Result<f64, String> {
    let short = instructions(mode, flows, PACKETS)?;
    let long = instructions(mode, flows, 2 * PACKETS)?;
    Ok(long.saturating_sub(short) as f64 / PACKETS as f64)
}

fn instructions(mode: &str, flows: u32, packets: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--once", mode, &flows.to_string(), &packets.to_string()])
        .output()
        .map_err(|error| format!("cannot run valgrind ({error}); install the package valgrind"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("valgrind --tool=callgrind ended with {}: {text}", output.status));
    }
    collected(&text).ok_or_else(|| format!("callgrind does not say what it collected: {text}"))
}

/// The number behind "Collected :" in what callgrind prints.
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_what_callgrind_prints() {
        let text = "==1== Events    : Ir\n==1== Collected : 224401\n==1== \n==1== I   refs:      224,401\n";
        assert_eq!(collected(text), Some(224_401));
        assert_eq!(collected("==1== killed"), None);
    }
}
