//! A capture in, a capture out: the packet path offline. The format is that of libpcap's `pcap-savefile(5)`.
//!
//! [`PcapPort`] is the port; [`Reader`] and [`Writer`] serve whoever has captures elsewhere than in files. Both byte orders
//! and both resolutions of time are read; nanoseconds in little-endian order are written. A frame that is sent bears the
//! time of the last one that was received: there is no clock, so that the same input gives the same output.

use super::Frames;
use pointsman_hugepages::{Buffer, Pool};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    os::fd::RawFd,
    path::Path,
};

const MAGIC_MICROS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
const MAGIC_PCAPNG: u32 = 0x0a0d_0d0a;
const LINK_ETHERNET: u32 = 1;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// Bytes of the longest frame that is read or written: libpcap's own bound.
pub const MAX_FRAME: usize = 262_144;

/// Why a capture cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system says no.
    #[error("{file}: cannot {step}: {source}")]
    Io {
        /// The capture.
        file: String,
        /// What was to be done.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another kind of file.
    #[error("{file}: not a capture: it begins with {magic:#010x}, a pcap file with 0xa1b2c3d4 or 0xa1b23c4d")]
    NotACapture {
        /// The file.
        file: String,
        /// Its first four bytes as a big-endian number.
        magic: u32,
    },
    /// The newer format.
    #[error(
        "{file}: a pcapng capture; convert it to pcap by `tcpdump -r {file} -w NEW` or `editcap -F pcap {file} NEW`"
    )]
    Pcapng {
        /// The capture.
        file: String,
    },
    /// Frames that are not Ethernet's.
    #[error(
        "{file}: frames of link type {found}, not Ethernet (1); capture on one interface rather than on `any`"
    )]
    LinkType {
        /// The capture.
        file: String,
        /// Its link type, of the list at tcpdump.org/linktypes.html.
        found: u32,
    },
    /// A record that cannot be.
    #[error("{file}: record {record}, at byte {offset}: {what}")]
    Record {
        /// The capture.
        file: String,
        /// The record's number, from 1.
        record: u64,
        /// Where it begins in the file.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// When a frame was captured, since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Whole seconds.
    pub seconds: u32,
    /// Below a thousand million.
    pub nanos: u32,
}

/// Reads a capture record by record.
#[derive(Debug)]
pub struct Reader<R> {
    file: String,
    source: R,
    big_endian: bool,
    nanos: bool,
    /// Records read, and where the next begins.
    records: u64,
    offset: u64,
}

impl<R: Read> Reader<R> {
    /// Of `source`, which errors call `file`.
    ///
    /// # Errors
    /// If it is not a pcap capture of Ethernet frames.
    pub fn new(file: &str, mut source: R) -> Result<Self, Error> {
        let mut header = [0; FILE_HEADER];
        let file = file.to_owned();
        let got = fill(&mut source, &mut header).map_err(io_error(&file, "read"))?;
        let magic = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let (big_endian, nanos) = match (magic, magic.swap_bytes()) {
            (MAGIC_PCAPNG, _) => return Err(Error::Pcapng { file }),
            (MAGIC_MICROS, _) => (true, false),
            (MAGIC_NANOS, _) => (true, true),
            (_, MAGIC_MICROS) => (false, false),
            (_, MAGIC_NANOS) => (false, true),
            _ => return Err(Error::NotACapture { file, magic }),
        };
        if got < FILE_HEADER {
            return Err(Error::Record { file, record: 0, offset: 0, what: "the file header is cut off" });
        }
        let reader = Self { file, source, big_endian, nanos, records: 0, offset: FILE_HEADER as u64 };
        // The upper bits tell of check sequences behind the frames: not on any Ethernet that tcpdump sees.
        let found = reader.number(&header, 20) & 0x0fff_ffff;
        if found != LINK_ETHERNET {
            return Err(Error::LinkType { file: reader.file, found });
        }
        Ok(reader)
    }

    /// Reads the next frame into `bytes`, in place of what is there. `None` at the end.
    ///
    /// # Errors
    /// A record that is cut off or longer than [`MAX_FRAME`]; what reading gives.
    pub fn next(&mut self, bytes: &mut Vec<u8>) -> Result<Option<Stamp>, Error> {
        bytes.clear();
        let mut header = [0; RECORD_HEADER];
        let got = fill(&mut self.source, &mut header).map_err(io_error(&self.file, "read"))?;
        if got == 0 {
            return Ok(None);
        }
        if got < RECORD_HEADER {
            return Err(self.wrong("its header is cut off"));
        }
        let len = self.number(&header, 8) as usize;
        if len > MAX_FRAME {
            return Err(self.wrong("a frame of more than 262144 bytes"));
        }
        bytes.resize(len, 0);
        if fill(&mut self.source, bytes).map_err(io_error(&self.file, "read"))? < len {
            return Err(self.wrong("its frame is cut off"));
        }
        self.records += 1;
        self.offset += (RECORD_HEADER + len) as u64;
        let fraction = self.number(&header, 4);
        let nanos = if self.nanos { fraction } else { fraction.saturating_mul(1_000) };
        Ok(Some(Stamp { seconds: self.number(&header, 0), nanos: nanos.min(999_999_999) }))
    }

    fn number(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn wrong(&self, what: &'static str) -> Error {
        Error::Record { file: self.file.clone(), record: self.records + 1, offset: self.offset, what }
    }
}

/// Writes a capture record by record.
#[derive(Debug)]
pub struct Writer<W: Write> {
    file: String,
    sink: W,
}

impl<W: Write> Writer<W> {
    /// To `sink`, which errors call `file`.
    ///
    /// # Errors
    /// What writing gives.
    pub fn new(file: &str, mut sink: W) -> Result<Self, Error> {
        let mut header = [0; FILE_HEADER];
        header[..4].copy_from_slice(&MAGIC_NANOS.to_le_bytes());
        // Version 2.4.
        header[4] = 2;
        header[6] = 4;
        header[16..20].copy_from_slice(&(MAX_FRAME as u32).to_le_bytes());
        header[20..].copy_from_slice(&LINK_ETHERNET.to_le_bytes());
        sink.write_all(&header).map_err(io_error(file, "write"))?;
        Ok(Self { file: file.to_owned(), sink })
    }

    /// Appends a frame; of one longer than [`MAX_FRAME`], its beginning.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write(&mut self, stamp: Stamp, frame: &[u8]) -> Result<(), Error> {
        let captured = &frame[..frame.len().min(MAX_FRAME)];
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let mut header = [0; RECORD_HEADER];
        for (field, value) in
            header.chunks_exact_mut(4).zip([stamp.seconds, stamp.nanos, captured.len() as u32, len])
        {
            field.copy_from_slice(&value.to_le_bytes());
        }
        let written = self.sink.write_all(&header).and_then(|()| self.sink.write_all(captured));
        written.map_err(io_error(&self.file, "write"))
    }

    /// Hands on what is still held back, and what it was written to.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(mut self) -> Result<W, Error> {
        self.sink.flush().map_err(io_error(&self.file, "write"))?;
        Ok(self.sink)
    }
}

/// A port that receives the frames of one capture and sends into another.
#[derive(Debug)]
pub struct PcapPort {
    input: Option<Reader<BufReader<File>>>,
    output: Option<Writer<BufWriter<File>>>,
    /// The frame that is being received.
    frame: Vec<u8>,
    stamp: Stamp,
    /// Frames longer than the buffers.
    too_long: u64,
    error: Option<Error>,
}

impl PcapPort {
    /// Receives the frames of `input`, if there is one, and writes what is sent to `output`, which is replaced.
    ///
    /// # Errors
    /// Of the whole input, which is read through once: a capture is good to its end, or refused.
    pub fn open(input: Option<&Path>, output: Option<&Path>) -> Result<Self, Error> {
        let mut frame = Vec::new();
        let input = input.map(|path| checked(path, &mut frame)).transpose()?;
        let create = |path: &Path| {
            let name = path.display().to_string();
            let file = File::create(path).map_err(io_error(&name, "create"))?;
            Writer::new(&name, BufWriter::new(file))
        };
        let output = output.map(create).transpose()?;
        Ok(Self { input, output, frame, stamp: Stamp::default(), too_long: 0, error: None })
    }

    /// Whether all frames of the input have been received.
    pub fn is_done(&self) -> bool {
        self.input.is_none()
    }

    /// Completes the output.
    ///
    /// # Errors
    /// The first that reading or writing gave since the port was opened.
    pub fn finish(self) -> Result<(), Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.output.map_or(Ok(()), |output| output.finish().map(drop))
    }

    fn failed(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}

impl super::Port for PcapPort {
    type Frame = Buffer;

    fn rx(&mut self, pool: &mut Pool, frames: &mut Frames) -> usize {
        let before = frames.len();
        while !frames.is_full() {
            let Some(input) = &mut self.input else { break };
            // First of all a buffer: without one, the frames stay in the capture.
            let Some(mut buffer) = pool.alloc() else { break };
            match input.next(&mut self.frame) {
                Ok(Some(stamp)) => {
                    self.stamp = stamp;
                    if buffer.copy_from(&self.frame) {
                        frames.push(buffer);
                    } else {
                        self.too_long += 1;
                    }
                }
                Ok(None) => self.input = None,
                Err(error) => {
                    self.input = None;
                    self.failed(error);
                }
            }
        }
        frames.len() - before
    }

    fn tx(&mut self, frames: &mut Frames) -> usize {
        let mut accepted = 0;
        for frame in frames.drain(..) {
            match self.output.as_mut().map(|output| output.write(self.stamp, frame.data())) {
                // Without an output, what is sent is as if nobody listened.
                None | Some(Ok(())) => accepted += 1,
                Some(Err(error)) => {
                    self.error.get_or_insert(error);
                }
            }
        }
        accepted
    }

    fn rx_ring_drops(&mut self) -> u64 {
        self.too_long
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }
}

/// A reader at the beginning of a capture that is good to its end.
fn checked(path: &Path, frame: &mut Vec<u8>) -> Result<Reader<BufReader<File>>, Error> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(io_error(&name, "open"))?;
    let mut reader = Reader::new(&name, BufReader::new(file))?;
    while reader.next(frame)?.is_some() {}
    let mut source = reader.source;
    source.rewind().map_err(io_error(&name, "read from the beginning"))?;
    Reader::new(&name, source)
}

/// Reads until `bytes` are full or the source ends. Returns how many were read.
fn fill(source: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match source.read(&mut bytes[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

fn io_error(file: &str, step: &'static str) -> impl FnOnce(io::Error) -> Error {
    let file = file.to_owned();
    move |source| Error::Io { file, step, source }
}

#[cfg(test)]
mod tests {
    use super::{super::Port as _, *};
    use pointsman_hugepages::{Options, PageChoice, PoolOptions};
    use proptest::prelude::*;

    /// A capture of one frame, `abc`, of 1.5 seconds, as each kind of tcpdump writes it.
    const LITTLE_MICROS: &[u8] = b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0\x01\0\0\0\
        \x01\0\0\0\x20\xa1\x07\0\x03\0\0\0\x03\0\0\0abc";
    const BIG_NANOS: &[u8] = b"\xa1\xb2\x3c\x4d\0\x02\0\x04\0\0\0\0\0\0\0\0\0\x04\0\0\0\0\0\x01\
        \0\0\0\x01\x1d\xcd\x65\0\0\0\0\x03\0\0\0\x03abc";

    fn read(bytes: &[u8]) -> Result<Vec<(Stamp, Vec<u8>)>, Error> {
        let mut reader = Reader::new("in.pcap", bytes)?;
        let (mut list, mut frame) = (Vec::new(), Vec::new());
        while let Some(stamp) = reader.next(&mut frame)? {
            list.push((stamp, frame.clone()));
        }
        Ok(list)
    }

    fn pool(buffers: usize) -> Pool {
        let memory = Options { pages: PageChoice::Ordinary, ..Options::default() };
        Pool::new("test", PoolOptions { buffers, room: 100, memory }).unwrap()
    }

    /// A file of this name that is removed with the value.
    struct Temporary(std::path::PathBuf);

    impl Temporary {
        fn new(name: &str, bytes: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("pointsman-{}-{name}", std::process::id()));
            std::fs::write(&path, bytes).unwrap();
            Self(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn both_byte_orders_and_resolutions_are_read() {
        let frame = (Stamp { seconds: 1, nanos: 500_000_000 }, b"abc".to_vec());
        assert_eq!(read(LITTLE_MICROS).unwrap(), std::slice::from_ref(&frame));
        assert_eq!(read(BIG_NANOS).unwrap(), [frame]);
    }

    #[test]
    fn captures_that_cannot_be_read_are_refused_by_name_and_place() {
        let with = |at: usize, bytes: &[u8]| {
            let mut capture = LITTLE_MICROS.to_vec();
            capture[at..at + bytes.len()].copy_from_slice(bytes);
            capture
        };
        let twice = [LITTLE_MICROS, &LITTLE_MICROS[24..42]].concat();
        for (bytes, message) in [
            (
                with(0, b"\x0a\x0d\x0d\x0a"),
                "in.pcap: a pcapng capture; convert it to pcap by `tcpdump -r in.pcap -w NEW` or `editcap -F pcap in.pcap NEW`",
            ),
            (
                b"GIF89a".to_vec(),
                "in.pcap: not a capture: it begins with 0x47494638, a pcap file with 0xa1b2c3d4 or 0xa1b23c4d",
            ),
            (
                with(20, b"\x71"),
                "in.pcap: frames of link type 113, not Ethernet (1); capture on one interface rather than on `any`",
            ),
            (LITTLE_MICROS[..20].to_vec(), "in.pcap: record 0, at byte 0: the file header is cut off"),
            (LITTLE_MICROS[..30].to_vec(), "in.pcap: record 1, at byte 24: its header is cut off"),
            (twice, "in.pcap: record 2, at byte 43: its frame is cut off"),
            (with(32, b"\x01\0\x04"), "in.pcap: record 1, at byte 24: a frame of more than 262144 bytes"),
        ] {
            assert_eq!(read(&bytes).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_port_goes_through_its_capture_and_writes_another() {
        let mut many = Writer::new("many", Vec::new()).unwrap();
        for n in 0..150_u8 {
            let len = if n == 100 { 101 } else { 60 };
            many.write(Stamp { seconds: n.into(), nanos: 7 }, &vec![n; len]).unwrap();
        }
        let input = Temporary::new("in.pcap", &many.finish().unwrap());
        let output = Temporary::new("out.pcap", b"old");
        let mut port = PcapPort::open(Some(&input.0), Some(&output.0)).unwrap();
        let (mut pool, mut frames) = (pool(64), Frames::new());
        let mut moved = 0;
        while !port.is_done() {
            let received = port.rx(&mut pool, &mut frames);
            assert_eq!(port.tx(&mut frames), received);
            moved += received;
        }
        assert_eq!((moved, port.rx_ring_drops()), (149, 1));
        port.finish().unwrap();
        let written = read(&std::fs::read(&output.0).unwrap()).unwrap();
        assert_eq!(written.len(), 149);
        // A batch of 64 bears the time of its last frame.
        assert_eq!(written[0], (Stamp { seconds: 63, nanos: 7 }, vec![0; 60]));
        assert_eq!(written[148], (Stamp { seconds: 149, nanos: 7 }, vec![149; 60]));
    }

    #[test]
    fn a_capture_that_is_damaged_anywhere_is_refused_at_once() {
        let input = Temporary::new("damaged.pcap", &LITTLE_MICROS[..LITTLE_MICROS.len() - 1]);
        let error = PcapPort::open(Some(&input.0), None).unwrap_err().to_string();
        assert!(error.ends_with("damaged.pcap: record 1, at byte 24: its frame is cut off"), "{error}");
        let error = PcapPort::open(Some(Path::new("/nowhere/in.pcap")), None).unwrap_err().to_string();
        assert_eq!(error, "/nowhere/in.pcap: cannot open: No such file or directory (os error 2)");
    }

    #[test]
    fn a_port_without_captures_is_silent_and_takes_everything() {
        let mut port = PcapPort::open(None, None).unwrap();
        let (mut pool, mut frames) = (pool(3), Frames::new());
        assert_eq!(port.rx(&mut pool, &mut frames), 0);
        pool.alloc_into(3, |buffer| frames.push(buffer));
        assert_eq!((port.tx(&mut frames), pool.available()), (3, 3));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(list in proptest::collection::vec((any::<u32>(), 0_u32..1_000_000_000, proptest::collection::vec(any::<u8>(), 0..100)), 0..20)) {
            let mut writer = Writer::new("out", Vec::new()).unwrap();
            for (seconds, nanos, frame) in &list {
                writer.write(Stamp { seconds: *seconds, nanos: *nanos }, frame).unwrap();
            }
            let back = read(&writer.finish().unwrap()).unwrap();
            let list: Vec<_> = list.into_iter().map(|(seconds, nanos, frame)| (Stamp { seconds, nanos }, frame)).collect();
            prop_assert_eq!(back, list);
        }

        #[test]
        fn no_capture_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), header: bool) {
            if header {
                bytes.splice(0..0, LITTLE_MICROS[..24].iter().copied());
            }
            let _ = read(&bytes);
        }
    }
}
