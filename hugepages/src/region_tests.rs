//! What a mapping becomes, and what its errors and warnings say.
#![allow(unsafe_code)]

use super::*;

fn options(pages: PageChoice) -> Options {
    Options { pages, ..Options::default() }
}

fn error_text(bytes: usize, options: &Options) -> String {
    Region::map("test region", bytes, options).unwrap_err().to_string()
}

/// One page more than the kernel holds or may add on demand: never to be had, whatever this machine has reserved.
fn one_page_too_many(page_size: PageSize) -> usize {
    let dir = format!("/sys/kernel/mm/hugepages/hugepages-{}kB", page_size.bytes() / 1024);
    let number = |file: &str| match std::fs::read_to_string(format!("{dir}/{file}")) {
        Ok(text) => text.trim().parse::<usize>().unwrap(),
        Err(_) => 0,
    };
    (number("nr_hugepages") + number("nr_overcommit_hugepages") + 1) * page_size.bytes()
}

#[test]
fn ordinary_pages_are_mapped_locked_zeroed_and_reported() {
    let region = Region::map("test region", 5000, &options(PageChoice::Ordinary)).unwrap();
    let report = region.report();
    assert_eq!((report.bytes, region.len(), report.page_size), (8192, 8192, PageSize::Ordinary));
    assert_eq!((report.purpose.as_str(), report.numa_node), ("test region", None));
    assert_eq!(report.locked, report.warnings.is_empty(), "either it is locked or it says why not");
    // SAFETY: the region is 8192 bytes long and nobody else knows it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(region.as_ptr(), region.len()) };
    assert!(bytes.iter().all(|byte| *byte == 0));
    bytes.fill(7);
}

#[test]
fn every_page_is_present_when_map_returns() {
    // Not locked: the lock would make the pages present too.
    let unlocked = Options { lock: false, ..options(PageChoice::Ordinary) };
    let region = Region::map("test region", 64 * 4096, &unlocked).unwrap();
    let mut present = [0u8; 64];
    // SAFETY: the region has 64 pages, and the kernel writes a byte for each.
    let result = unsafe { libc::mincore(region.as_ptr().cast(), region.len(), present.as_mut_ptr()) };
    assert_eq!(result, 0);
    assert!(present.iter().all(|page| page & 1 == 1));
}

#[test]
fn a_region_of_nothing_is_one_page() {
    assert_eq!(Region::map("test region", 0, &options(PageChoice::Ordinary)).unwrap().len(), 4096);
}

#[test]
fn auto_takes_huge_pages_or_warns_what_their_lack_costs_and_how_to_reserve_them() {
    let region = Region::map("test region", 3 << 20, &options(PageChoice::Auto)).unwrap();
    let report = region.report();
    match report.page_size {
        PageSize::Huge2M => {
            assert_eq!((report.bytes, report.locked), (4 << 20, true));
            assert_eq!(report.warnings, Vec::<String>::new());
        }
        PageSize::Ordinary => {
            assert_eq!(report.bytes, 3 << 20);
            assert!(report.warnings[0].contains("needs 2 huge pages of 2 MiB"), "{:?}", report.warnings);
        }
        PageSize::Huge1G => panic!("a region of 3 MiB in pages of 1 GiB"),
    }
    if sys::total_huge_pages(PageSize::Huge2M) == 0 && one_page_too_many(PageSize::Huge2M) == 2 << 20 {
        assert_eq!(report.page_size, PageSize::Ordinary);
    }
}

#[test]
fn the_fallback_is_ordinary_pages_with_a_warning_that_names_cost_and_remedy() {
    let lacking =
        map_pages("tables", one_page_too_many(PageSize::Huge2M), PageSize::Huge2M, &Options::default());
    let region = map_fallback("tables", 1 << 20, &Options::default(), &lacking.unwrap_err()).unwrap();
    assert_eq!(region.report().page_size, PageSize::Ordinary);
    let warning = &region.report().warnings[0];
    assert!(warning.starts_with("tables: needs "), "{warning}");
    for part in
        ["huge pages of 2 MiB", "TLB miss", "a fifth of the packet rate", "> /proc/sys/vm/nr_hugepages"]
    {
        assert!(warning.contains(part), "{warning:?} says nothing of {part:?}");
    }
}

#[test]
fn lacking_2_mib_pages_are_an_error_that_names_the_command() {
    let bytes = one_page_too_many(PageSize::Huge2M);
    let text = error_text(bytes, &options(PageChoice::Exactly(PageSize::Huge2M)));
    assert!(text.starts_with(&format!("test region: needs {} huge pages of 2 MiB, ", bytes >> 21)), "{text}");
    assert!(text.contains(" > /proc/sys/vm/nr_hugepages`"), "{text}");
    assert!(text.contains("vm.nr_hugepages="), "{text}");
}

#[test]
fn lacking_1_gib_pages_are_an_error_that_names_the_boot_parameters() {
    let bytes = one_page_too_many(PageSize::Huge1G);
    let text = error_text(bytes, &options(PageChoice::Exactly(PageSize::Huge1G)));
    assert!(text.contains("huge pages of 1 GiB"), "{text}");
    assert!(text.contains("boot with `hugepagesz=1G hugepages="), "{text}");
    assert!(text.contains("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages`"), "{text}");
}

#[test]
fn lacking_pages_of_a_node_are_an_error_that_names_the_node_s_file() {
    let bytes = one_page_too_many(PageSize::Huge2M);
    let pages = PageChoice::Exactly(PageSize::Huge2M);
    let text = error_text(bytes, &Options { numa_node: Some(0), ..options(pages) });
    let file = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages`";
    assert!(text.contains(file), "{text}");
}

#[test]
fn the_command_asks_for_what_the_kernel_has_and_what_is_lacking() {
    let Error::NoHugePages { wanted, free, remedy, .. } = no_huge_pages("t", 1 << 20, PageSize::Huge2M, None)
    else {
        panic!("another error");
    };
    assert_eq!(wanted, 1 << 20);
    let total = sys::total_huge_pages(PageSize::Huge2M) + (1 << 20) - free;
    assert!(remedy.contains(&format!("`echo {total} > ")), "{remedy}");
}

#[test]
fn a_numa_node_that_does_not_exist_is_an_error_that_names_it() {
    for node in [1000, 1023, 1024, u32::MAX] {
        let text = error_text(4096, &Options { numa_node: Some(node), ..options(PageChoice::Ordinary) });
        assert!(
            text.starts_with(&format!("test region: cannot bind memory to NUMA node {node}: ")),
            "{text}"
        );
        assert!(text.contains("this machine has nodes 0"), "{text}");
    }
}

#[test]
fn memory_bound_to_node_0_reports_it() {
    let numa = Options { numa_node: Some(0), ..options(PageChoice::Ordinary) };
    let region = Region::map("test region", 4096, &numa).unwrap();
    assert_eq!(region.report().numa_node, Some(0));
    assert!(region.report().to_string().starts_with("test region: 4 KiB in pages of 4 KiB on NUMA node 0"));
}

#[test]
fn more_memory_than_the_machine_has_is_an_error_before_it_is_touched() {
    let text = error_text(1 << 60, &options(PageChoice::Ordinary));
    assert!(text.starts_with("test region: needs 1073741824 GiB of memory, "), "{text}");
    assert!(text.ends_with(" are available; ask for less or free memory"), "{text}");
}

#[test]
fn a_size_that_rounds_over_the_end_of_memory_is_an_error() {
    for pages in [PageChoice::Ordinary, PageChoice::Auto, PageChoice::Exactly(PageSize::Huge1G)] {
        let text = error_text(usize::MAX, &options(pages));
        assert!(text.starts_with("test region: 18446744073709551615 items of 1 bytes"), "{text}");
    }
}

#[test]
fn a_refused_lock_is_a_warning_that_names_the_limit() {
    let warnings = std::thread::spawn(|| {
        drop_all_capabilities();
        with_no_lockable_memory(|| {
            let region = Region::map("test region", 1 << 20, &options(PageChoice::Ordinary)).unwrap();
            assert!(!region.report().locked);
            assert!(region.report().to_string().ends_with(", not locked"));
            region.report().warnings.clone()
        })
    });
    let warnings = warnings.join().unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("test region: cannot lock 1 MiB of memory: "), "{warnings:?}");
    for part in ["swapped out", "`ulimit -l`", "LimitMEMLOCK=", "CAP_IPC_LOCK"] {
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
}

#[test]
fn without_lock_nothing_is_locked_and_nothing_is_warned_of() {
    let unlocked = Options { lock: false, ..options(PageChoice::Ordinary) };
    let region = Region::map("test region", 4096, &unlocked).unwrap();
    assert!(!region.report().locked);
    assert_eq!(region.report().warnings, Vec::<String>::new());
}

#[test]
fn a_dropped_region_is_unmapped() {
    // Other threads of this process map too. No other test uses this size, nor memory that is bound but not locked,
    // so the kernel merges this mapping with no neighbour.
    let bytes = 1234 * 4096;
    let spans = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| span_bytes(line) == Some(bytes)).count()
    };
    let bound = Options { pages: PageChoice::Ordinary, numa_node: Some(0), lock: false };
    let region = Region::map("test region", bytes, &bound).unwrap();
    assert_eq!(spans(), 1);
    drop(region);
    assert_eq!(spans(), 0);
}

#[test]
fn sizes_are_written_in_the_largest_unit_that_divides_them() {
    let text = |bytes| size_text(bytes);
    assert_eq!([text(0), text(100), text(3 << 10)], ["0 bytes", "100 bytes", "3 KiB"]);
    assert_eq!([text(1536 << 10), text(2 << 20), text(5 << 30)], ["1536 KiB", "2 MiB", "5 GiB"]);
}

/// The length of the mapping that a line of /proc/self/maps tells of.
fn span_bytes(line: &str) -> Option<usize> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(end, 16).ok()? - usize::from_str_radix(start, 16).ok()?)
}

/// Capabilities belong to a thread, so this takes nothing from other tests.
fn drop_all_capabilities() {
    const VERSION_3: u32 = 0x2008_0522; // _LINUX_CAPABILITY_VERSION_3 of capability.h
    let header = [VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: the kernel reads a header of 8 bytes and sets of 24.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(result, 0);
}

/// The limit belongs to the process, but binds no thread that has CAP_IPC_LOCK, and no other test needs a lock.
fn with_no_lockable_memory<T>(f: impl FnOnce() -> T) -> T {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes to and reads from a limit of ours.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    assert_eq!(result, 0);
    let none = libc::rlimit { rlim_cur: 0, ..limit };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &none) }, 0);
    let value = f();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
    value
}
