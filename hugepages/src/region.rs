//! One mapping of memory: huge pages where they are to be had, locked, on a chosen NUMA node; and what it became.
//!
//! Invariant of the unsafe code: a `Region` owns its mapping from `map` to `drop`, and gives out only its address.
#![allow(unsafe_code)]

use crate::sys;
use std::fmt;
use std::io;
use std::ptr::NonNull;

/// A size of page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageSize {
    /// The kernel's ordinary page: 4 KiB on x86-64.
    Ordinary,
    /// A hugetlb page of 2 MiB.
    Huge2M,
    /// A hugetlb page of 1 GiB.
    Huge1G,
}

impl PageSize {
    /// The size in bytes.
    pub fn bytes(self) -> usize {
        match self {
            PageSize::Ordinary => sys::ordinary_page_bytes(),
            PageSize::Huge2M => 2 << 20,
            PageSize::Huge1G => 1 << 30,
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&size_text(self.bytes()))
    }
}

/// Which pages to map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageChoice {
    /// 1 GiB pages for a region of at least 1 GiB, else 2 MiB pages, else ordinary pages with a warning in the
    /// report: each where the kernel has enough of them free.
    #[default]
    Auto,
    /// Pages of this size, or an error.
    Exactly(PageSize),
    /// Ordinary pages, without a warning.
    Ordinary,
}

/// How to map a region.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which pages to map.
    pub pages: PageChoice,
    /// The NUMA node that the memory must be on; `None` leaves it to the kernel, which takes the mapping thread's.
    pub numa_node: Option<u32>,
    /// Whether to keep the memory from being swapped out. Where that is refused the report warns.
    pub lock: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { pages: PageChoice::Auto, numa_node: None, lock: true }
    }
}

/// What a mapping became.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the memory is for, as the caller named it.
    pub purpose: String,
    /// Bytes mapped: what was asked for, rounded up to whole pages.
    pub bytes: usize,
    /// The pages it is made of.
    pub page_size: PageSize,
    /// The NUMA node it is bound to, if one was asked for.
    pub numa_node: Option<u32>,
    /// Whether it stays in memory. Always so for huge pages, which the kernel never swaps.
    pub locked: bool,
    /// What an operator should know: each names what is wrong, what it costs and the remedy.
    pub warnings: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} in pages of {}", self.purpose, size_text(self.bytes), self.page_size)?;
        if let Some(node) = self.numa_node {
            write!(f, " on NUMA node {node}")?;
        }
        f.write_str(if self.locked { ", locked" } else { ", not locked" })
    }
}

/// Why memory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses the mapping: it lacks the memory, or a limit forbids it.
    #[error(
        "{purpose}: cannot map {} of memory: {source}; ask for less, or check `ulimit -v` and \
         /proc/sys/vm/overcommit_memory",
        size_text(*.bytes)
    )]
    Map {
        /// What the memory was for.
        purpose: String,
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Ordinary pages for more bytes than the machine has left. Touching them would wake the kernel's OOM killer.
    #[error(
        "{purpose}: needs {} of memory, {} are available; ask for less or free memory",
        size_text(*.bytes),
        size_text(*.available)
    )]
    NoMemory {
        /// What the memory was for.
        purpose: String,
        /// Bytes asked for.
        bytes: usize,
        /// `MemAvailable` of /proc/meminfo, in bytes.
        available: usize,
    },
    /// The pages are mapped but the kernel cannot provide them.
    #[error(
        "{purpose}: cannot fill {} of memory: {source}; free memory{}, and run Linux 5.14 or newer",
        size_text(*.bytes),
        on_node(*.numa_node)
    )]
    Populate {
        /// What the memory was for.
        purpose: String,
        /// Bytes mapped.
        bytes: usize,
        /// The node that they had to be on.
        numa_node: Option<u32>,
        /// What the kernel said.
        source: io::Error,
    },
    /// Huge pages were required and there are not enough.
    #[error("{purpose}: needs {wanted} huge pages of {page_size}, {free} are free; {remedy}")]
    NoHugePages {
        /// What the memory was for.
        purpose: String,
        /// Pages needed.
        wanted: usize,
        /// Pages that are free on the whole machine.
        free: usize,
        /// Their size.
        page_size: PageSize,
        /// The command that reserves them.
        remedy: String,
    },
    /// The memory cannot be bound to the NUMA node.
    #[error(
        "{purpose}: cannot bind memory to NUMA node {node}: {source}; this machine has nodes {online} (/sys/devices/system/node/online)"
    )]
    Bind {
        /// What the memory was for.
        purpose: String,
        /// The node asked for.
        node: u32,
        /// The nodes that exist.
        online: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The size in bytes is more than an address space holds.
    #[error("{purpose}: {items} items of {item_bytes} bytes are more than memory can hold; ask for fewer")]
    TooLarge {
        /// What the memory was for.
        purpose: String,
        /// Items asked for.
        items: usize,
        /// Bytes of each.
        item_bytes: usize,
    },
    /// A pool of no buffers, or of more than its 32-bit indices can name.
    #[error("{purpose}: a pool of {buffers} buffers: choose 1 to 4294967295")]
    BufferCount {
        /// What the pool was for.
        purpose: String,
        /// Buffers asked for.
        buffers: usize,
    },
    /// Buffers longer than their 16-bit lengths can say.
    #[error("{purpose}: buffers with room for {room} bytes: choose at most {max}")]
    BufferRoom {
        /// What the pool was for.
        purpose: String,
        /// Bytes asked for behind the headroom.
        room: usize,
        /// The most that is possible.
        max: usize,
    },
}

/// One mapping, zeroed, present and writable, until it is dropped.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    report: Report,
}

// SAFETY: a region owns its mapping, which belongs to the process and not to a thread.
unsafe impl Send for Region {}
// SAFETY: a shared region gives out only its address and its report.
unsafe impl Sync for Region {}

impl Region {
    /// Maps at least `bytes` of zeroed memory for `purpose`, whose name appears in the report and in errors.
    ///
    /// Every page is present when this returns, so a later touch neither faults nor raises SIGBUS.
    ///
    /// # Errors
    /// See [`Error`]: pages that were required exactly and are lacking, a NUMA node that does not exist, no memory.
    /// A refused lock is a warning in the report.
    pub fn map(purpose: &str, bytes: usize, options: &Options) -> Result<Region, Error> {
        match options.pages {
            PageChoice::Ordinary => map_pages(purpose, bytes, PageSize::Ordinary, options),
            PageChoice::Exactly(size) => map_pages(purpose, bytes, size, options),
            PageChoice::Auto => map_best(purpose, bytes, options),
        }
    }

    /// What the mapping became.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Bytes mapped.
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty: it has one page at least")]
    pub fn len(&self) -> usize {
        self.report.bytes
    }

    /// The first byte, aligned to the page size. Valid for [`len`](Region::len) bytes while the region lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever holds its address holds the region too.
        unsafe { sys::unmap(self.base, self.report.bytes) }
    }
}

/// A size for people: whole GiB, MiB or KiB where it is one, else bytes.
pub(crate) fn size_text(bytes: usize) -> String {
    match bytes {
        0 => "0 bytes".to_owned(),
        _ if bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

fn map_best(purpose: &str, bytes: usize, options: &Options) -> Result<Region, Error> {
    if bytes >= PageSize::Huge1G.bytes() {
        match map_pages(purpose, bytes, PageSize::Huge1G, options) {
            Err(Error::NoHugePages { .. }) => {}
            other => return other,
        }
    }
    match map_pages(purpose, bytes, PageSize::Huge2M, options) {
        Err(lacking @ Error::NoHugePages { .. }) => map_fallback(purpose, bytes, options, &lacking),
        other => other,
    }
}

/// Ordinary pages, with the warning that huge ones were `lacking`.
fn map_fallback(purpose: &str, bytes: usize, options: &Options, lacking: &Error) -> Result<Region, Error> {
    let mut region = map_pages(purpose, bytes, PageSize::Ordinary, options)?;
    region.report.warnings.insert(
        0,
        format!(
            "{lacking}. Using pages of {} instead, which cost a TLB miss beside the cache miss of each random access: \
             up to a fifth of the packet rate at ten million connections",
            PageSize::Ordinary
        ),
    );
    Ok(region)
}

/// Maps with pages of one size. Lacking huge pages are always `NoHugePages`, whatever the kernel called it.
fn map_pages(purpose: &str, bytes: usize, page_size: PageSize, options: &Options) -> Result<Region, Error> {
    let page = page_size.bytes();
    let bytes =
        bytes
            .max(1)
            .checked_next_multiple_of(page)
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or_else(|| Error::TooLarge { purpose: purpose.to_owned(), items: bytes, item_bytes: 1 })?;
    let huge = page_size != PageSize::Ordinary;
    if let Some(available) = sys::available_bytes().filter(|available| !huge && bytes > *available) {
        return Err(Error::NoMemory { purpose: purpose.to_owned(), bytes, available });
    }
    let base = sys::map(bytes, page_size).map_err(|source| match huge {
        true => no_huge_pages(purpose, bytes / page, page_size, options.numa_node),
        false => Error::Map { purpose: purpose.to_owned(), bytes, source },
    })?;
    let report = Report {
        purpose: purpose.to_owned(),
        bytes,
        page_size,
        numa_node: options.numa_node,
        locked: huge,
        warnings: Vec::new(),
    };
    // From here on the region's drop unmaps, whatever fails.
    let mut region = Region { base, report };
    prepare(&mut region, options)?;
    Ok(region)
}

/// Binds, touches and locks a fresh mapping, in this order: pages are placed when they are touched.
fn prepare(region: &mut Region, options: &Options) -> Result<(), Error> {
    let (base, bytes, page_size) = (region.base, region.report.bytes, region.report.page_size);
    let purpose = || region.report.purpose.clone();
    let huge = page_size != PageSize::Ordinary;
    if let Some(node) = options.numa_node {
        sys::bind(base, bytes, node).map_err(|source| Error::Bind {
            purpose: purpose(),
            node,
            online: sys::online_nodes(),
            source,
        })?;
    }
    if !huge && options.pages == PageChoice::Auto {
        sys::hint_transparent_huge(base, bytes);
    }
    sys::populate(base, bytes).map_err(|source| {
        match huge && source.raw_os_error() != Some(libc::EINVAL) {
            true => no_huge_pages(&purpose(), bytes / page_size.bytes(), page_size, options.numa_node),
            false => Error::Populate { purpose: purpose(), bytes, numa_node: options.numa_node, source },
        }
    })?;
    if let Err(error) = sys::keep_from_children(base, bytes) {
        let warning = format!(
            "{}: cannot keep {} of memory from child processes: {error}; start no child while packets flow",
            purpose(),
            size_text(bytes)
        );
        region.report.warnings.push(warning);
    }
    if options.lock && !huge {
        lock(region);
    }
    Ok(())
}

fn lock(region: &mut Region) {
    match sys::lock(region.base, region.report.bytes) {
        Ok(()) => region.report.locked = true,
        Err(error) => region.report.warnings.push(format!(
            "{}: cannot lock {} of memory: {error}. It may be swapped out, and a packet then waits for a disk; raise \
             `ulimit -l` (LimitMEMLOCK= in a systemd unit) or grant CAP_IPC_LOCK",
            region.report.purpose,
            size_text(region.report.bytes)
        )),
    }
}

fn no_huge_pages(purpose: &str, wanted: usize, page_size: PageSize, node: Option<u32>) -> Error {
    let free = sys::free_huge_pages(page_size);
    // The pool must grow by what is lacking; the kernel counts used pages in the number that one writes. On a bound
    // node all may be lacking, although other nodes have some.
    let lacking = if node.is_some() { wanted } else { wanted.saturating_sub(free).max(1) };
    let total = sys::total_huge_pages(page_size) + lacking;
    let kib = page_size.bytes() / 1024;
    let remedy = match (page_size, node) {
        (_, Some(node)) => format!(
            "reserve them on the node: `echo {total} > /sys/devices/system/node/node{node}/hugepages/hugepages-{kib}kB/nr_hugepages`"
        ),
        (PageSize::Huge1G, None) => format!(
            "reserve them: boot with `hugepagesz=1G hugepages={total}`, or while memory is unfragmented \
             `echo {total} > /sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages`"
        ),
        (_, None) => format!(
            "reserve them: `echo {total} > /proc/sys/vm/nr_hugepages` (to keep it: vm.nr_hugepages={total} in \
             /etc/sysctl.d, or boot with `hugepagesz=2M hugepages={total}`)"
        ),
    };
    Error::NoHugePages { purpose: purpose.to_owned(), wanted, free, page_size, remedy }
}

fn on_node(node: Option<u32>) -> String {
    node.map(|node| format!(" on NUMA node {node}")).unwrap_or_default()
}

#[cfg(test)]
#[path = "region_tests.rs"]
mod tests;
