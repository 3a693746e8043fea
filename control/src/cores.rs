//! Which workers get in each other's way: two on one core, or on the two hardware threads of one.

use std::path::Path;

/// What worker `index` shares its core with, of workers on `cores`; a sentence for each, with the remedy. `siblings` are
/// the processors of the same physical core as the kernel numbers them.
pub fn sharing(index: usize, cores: &[u32], siblings: impl Fn(u32) -> Vec<u32>) -> Vec<String> {
    let Some(own) = cores.get(index) else { return Vec::new() };
    let beside = siblings(*own);
    let others = cores.iter().enumerate().filter(|(other, _)| *other != index);
    others
        .filter_map(|(other, core)| {
            if core == own {
                Some(format!(
                    "worker {index} shares core {own} with worker {other}: give each its own in workers.cores"
                ))
            } else if beside.contains(core) {
                Some(format!(
                    "worker {index} on core {own} shares a physical core with worker {other} on core {core} (hyper-threads): two workers there are hardly faster than one; choose others in workers.cores (`lscpu -e` shows which)"
                ))
            } else {
                None
            }
        })
        .collect()
}

/// The processors of the physical core of processor `core`, as the kernel says; none if it does not.
pub fn siblings(core: u32) -> Vec<u32> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    std::fs::read_to_string(Path::new(&path)).map_or_else(|_| Vec::new(), |text| list(&text))
}

/// Numbers as the kernel lists them: `0-2,8`. What is not a number is left out.
fn list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
    };
    // More processors than Linux can have are a mistake, not a list.
    text.trim().split(',').filter_map(range).flatten().take(8_192).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_understood() {
        for (text, expected) in
            [("3\n", &[3][..]), ("0,4\n", &[0, 4]), ("0-2,8", &[0, 1, 2, 8]), ("", &[]), ("x,5-y,7", &[7])]
        {
            assert_eq!(list(text), expected, "{text:?}");
        }
        assert_eq!(list("0-4294967295").len(), 8_192);
    }

    #[test]
    fn a_worker_is_told_of_those_that_share_its_core() {
        // Hyper-threads are n and n + 4.
        let siblings = |core: u32| vec![core % 4, core % 4 + 4];
        let none: [&str; 0] = [];
        assert_eq!(sharing(0, &[1, 2, 3], siblings), none);
        assert_eq!(
            sharing(1, &[1, 5, 2], siblings),
            [
                "worker 1 on core 5 shares a physical core with worker 0 on core 1 (hyper-threads): two workers there are hardly faster than one; choose others in workers.cores (`lscpu -e` shows which)"
            ]
        );
        assert_eq!(
            sharing(0, &[7, 7], siblings),
            ["worker 0 shares core 7 with worker 1: give each its own in workers.cores"]
        );
    }
}
