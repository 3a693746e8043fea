//! The system calls of this crate, and the files in which the kernel tells what memory it has.
//!
//! Invariant of every block here: a range handed to the kernel is one that `map` returned and that nobody has
//! unmapped, so no call can change memory that is not the caller's.
#![allow(unsafe_code)]

use crate::PageSize;
use std::io;
use std::ptr::NonNull;

/// Highest NUMA node, plus one, that `bind` can name: the kernel's own limit (`CONFIG_NODES_SHIFT` is at most 10).
const MAX_NODES: u32 = 1024;

/// Maps `bytes` (a multiple of the page size) of zeroed private memory. Pages of hugetlb are reserved here
/// (no `MAP_NORESERVE`), so the kernel refuses now rather than at the first touch.
pub(crate) fn map(bytes: usize, page_size: PageSize) -> io::Result<NonNull<u8>> {
    let huge = match page_size {
        PageSize::Ordinary => 0,
        PageSize::Huge2M => libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
        PageSize::Huge1G => libc::MAP_HUGETLB | libc::MAP_HUGE_1GB,
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | huge;
    // SAFETY: a new anonymous mapping at an address that the kernel chooses touches no existing memory.
    let base =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))
}

/// Unmaps a whole mapping.
///
/// # Safety
/// `base` and `bytes` are those of one `map`, and nothing refers to the memory any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise. It fails only for a range that was never mapped.
    let result = unsafe { libc::munmap(base.as_ptr().cast(), bytes) };
    debug_assert_eq!(result, 0, "munmap of a mapping of our own");
}

/// Binds the pages of the range, none of which is touched yet, to `node`.
pub(crate) fn bind(base: NonNull<u8>, bytes: usize, node: u32) -> io::Result<()> {
    if node >= MAX_NODES {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut mask = [0u64; MAX_NODES as usize / 64];
    mask[node as usize / 64] = 1 << (node % 64);
    // SAFETY: the range is a mapping of ours; the mask outlives the call. The kernel reads `maxnode - 1` bits.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            base.as_ptr(),
            bytes,
            libc::MPOL_BIND as libc::c_ulong,
            mask.as_ptr(),
            (MAX_NODES + 1) as libc::c_ulong,
            0 as libc::c_ulong,
        )
    };
    check(result as libc::c_int)
}

/// Makes every page of the range present and writable now. Where a touch would raise SIGBUS (no huge page left on
/// the bound node) this returns an error. Needs Linux 5.14; an older kernel answers EINVAL.
pub(crate) fn populate(base: NonNull<u8>, bytes: usize) -> io::Result<()> {
    advise(base, bytes, libc::MADV_POPULATE_WRITE)
}

/// Asks for transparent huge pages: a hint, whose refusal costs nothing.
pub(crate) fn hint_transparent_huge(base: NonNull<u8>, bytes: usize) {
    let _ = advise(base, bytes, libc::MADV_HUGEPAGE);
}

/// Keeps the range out of children: after a fork a write to private hugetlb memory would need a second page, and a
/// page shared with a child would move away from under a NIC.
pub(crate) fn keep_from_children(base: NonNull<u8>, bytes: usize) -> io::Result<()> {
    advise(base, bytes, libc::MADV_DONTFORK)
}

/// Keeps the range in memory.
pub(crate) fn lock(base: NonNull<u8>, bytes: usize) -> io::Result<()> {
    // SAFETY: the range is a mapping of ours; locking changes no contents.
    check(unsafe { libc::mlock(base.as_ptr().cast(), bytes) })
}

/// The size of an ordinary page in bytes.
pub(crate) fn ordinary_page_bytes() -> usize {
    // SAFETY: sysconf only reads.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

/// Huge pages of this size that nobody has mapped or reserved, as the kernel's sysfs says; 0 where it has none.
pub(crate) fn free_huge_pages(page_size: PageSize) -> usize {
    huge_page_count(page_size, "free_hugepages").saturating_sub(huge_page_count(page_size, "resv_hugepages"))
}

/// Huge pages of this size that the kernel holds, free or not.
pub(crate) fn total_huge_pages(page_size: PageSize) -> usize {
    huge_page_count(page_size, "nr_hugepages")
}

/// Bytes that programs may still use without swapping: `MemAvailable`. `None` where the kernel does not tell.
pub(crate) fn available_bytes() -> Option<usize> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: usize = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The NUMA nodes of this machine as the kernel writes them, for example `0-1`.
pub(crate) fn online_nodes() -> String {
    let nodes = std::fs::read_to_string("/sys/devices/system/node/online").unwrap_or_default();
    if nodes.trim().is_empty() { "0".to_owned() } else { nodes.trim().to_owned() }
}

fn huge_page_count(page_size: PageSize, file: &str) -> usize {
    let kib = page_size.bytes() / 1024;
    let path = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/{file}");
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn advise(base: NonNull<u8>, bytes: usize, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: the range is a mapping of ours, and none of the advices used here discards contents.
    check(unsafe { libc::madvise(base.as_ptr().cast(), bytes, advice) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
