//! Buffers against a simple model, across threads, and after their pool.
#![allow(unsafe_code)]

use super::*;
use crate::{PageChoice, PageSize, memcheck};
use proptest::prelude::*;
use std::sync::mpsc;
use std::thread;

fn pool(purpose: &str, buffers: usize, room: usize) -> Pool {
    let memory = Options { pages: PageChoice::Ordinary, ..Options::default() };
    Pool::new(purpose, PoolOptions { buffers, room, memory }).unwrap()
}

fn error_text(buffers: usize, room: usize) -> String {
    let memory = Options { pages: PageChoice::Ordinary, ..Options::default() };
    Pool::new("rx", PoolOptions { buffers, room, memory }).unwrap_err().to_string()
}

/// Runs `f` on a thread of its own.
fn elsewhere<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(f).join().unwrap()
}

fn is_parked(purpose: &str) -> bool {
    // SAFETY: parked pools are not freed while the lock is held.
    lock_parked().iter().any(|parked| unsafe { parked.shared.as_ref() }.region.report().purpose == purpose)
}

#[test]
fn a_pool_gives_each_buffer_once_and_then_none() {
    let mut pool = pool("once", 3, 100);
    assert_eq!((pool.capacity(), pool.available()), (3, 3));
    let buffers = [pool.alloc().unwrap(), pool.alloc().unwrap(), pool.alloc().unwrap()];
    assert!(pool.alloc().is_none());
    assert_eq!(pool.available(), 0);
    drop(buffers);
    assert_eq!(pool.available(), 3);
}

#[test]
fn alloc_into_gives_what_there_is() {
    let mut pool = pool("batch", 5, 100);
    let mut buffers = Vec::new();
    assert_eq!(pool.alloc_into(3, |buffer| buffers.push(buffer)), 3);
    assert_eq!(pool.alloc_into(9, |buffer| buffers.push(buffer)), 2);
    assert_eq!(pool.alloc_into(1, drop), 0);
    buffers.clear();
    assert_eq!(pool.alloc_into(9, drop), 9, "a buffer that is dropped at once is there again");
}

#[test]
fn the_report_names_the_purpose_and_the_bytes() {
    let pool = pool("worker 3 rx", 10, 1000);
    let report = pool.report();
    // 64 of header, 128 of headroom and 1000 of room are 19 lines of 64: an odd number already.
    assert_eq!((report.purpose.as_str(), report.bytes), ("worker 3 rx", 12288));
    assert_eq!(report.page_size, PageSize::Ordinary);
}

#[test]
fn buffers_are_an_odd_number_of_cache_lines_apart() {
    assert_eq!(stride(128), 192);
    assert_eq!(stride(129), 320);
    assert_eq!(stride(128 + 2048), 2240);
    assert_eq!(stride(65535), 65600);
    let mut pool = pool("stride", 2, 2048);
    let (a, b) = (pool.alloc().unwrap(), pool.alloc().unwrap());
    assert_eq!(b.data().as_ptr() as usize - a.data().as_ptr() as usize, 2240);
}

#[test]
fn sizes_that_are_not_possible_are_errors_that_name_the_limits() {
    assert_eq!(error_text(0, 100), "rx: a pool of 0 buffers: choose 1 to 4294967295");
    assert_eq!(error_text(1 << 32, 100), "rx: a pool of 4294967296 buffers: choose 1 to 4294967295");
    assert_eq!(error_text(1, 65408), "rx: buffers with room for 65408 bytes: choose at most 65407");
    assert!(error_text(1, usize::MAX).ends_with("choose at most 65407"));
    assert_eq!(pool("longest", 1, 65407).alloc().unwrap().tailroom(), 65407);
}

#[test]
fn a_fresh_buffer_is_empty_with_full_headroom_and_zeroed() {
    let mut buffer = pool("fresh", 1, 50).alloc().unwrap();
    assert!(buffer.is_empty());
    assert_eq!((buffer.len(), buffer.headroom(), buffer.tailroom()), (0, 128, 50));
    assert!(buffer.set_len(50));
    assert_eq!(buffer.data(), [0; 50]);
    assert_eq!(buffer.prepend(128), Some(&mut [0; 128][..]));
}

#[test]
fn data_grows_and_shrinks_at_both_ends_within_the_buffer() {
    let mut buffer = pool("ends", 1, 10).alloc().unwrap();
    assert!(buffer.copy_from(b"payload"));
    buffer.prepend(4).unwrap().copy_from_slice(b"head");
    assert_eq!(buffer.data(), b"headpayload");
    assert_eq!((buffer.headroom(), buffer.tailroom()), (124, 3));
    assert!(buffer.trim_front(2));
    assert_eq!(buffer.data(), b"adpayload");
    buffer.truncate(4);
    buffer.truncate(5);
    assert_eq!(buffer.data(), b"adpa");
    assert!(buffer.set_len(9), "what was cut is still there");
    assert_eq!(buffer.data(), b"adpayload");
    buffer.data_mut()[0] = b'X';
    assert_eq!(buffer.data(), b"Xdpayload");
    buffer.reset();
    assert_eq!((buffer.data(), buffer.headroom(), buffer.tailroom()), (&b""[..], 128, 10));
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut buffer = pool("refused", 1, 10).alloc().unwrap();
    assert!(buffer.copy_from(b"0123456789"));
    assert!(!buffer.copy_from(b"0123456789a"));
    assert!(!buffer.set_len(11));
    assert!(!buffer.trim_front(11));
    assert_eq!(buffer.prepend(129), None);
    for huge in [65536, usize::MAX] {
        assert!(!buffer.set_len(huge) && !buffer.trim_front(huge) && buffer.prepend(huge).is_none());
    }
    assert_eq!((buffer.data(), buffer.headroom()), (&b"0123456789"[..], 128));
}

#[test]
fn a_buffer_dropped_on_another_thread_comes_home() {
    let mut pool = pool("return", 2, 100);
    let (a, b) = (pool.alloc().unwrap(), pool.alloc().unwrap());
    elsewhere(move || drop((a, b)));
    assert_eq!(pool.shared().returns.len(), 2, "through the queue: the stack is this thread's");
    assert_eq!(pool.available(), 2);
    let again = [pool.alloc().unwrap(), pool.alloc().unwrap()];
    assert!(pool.alloc().is_none());
    drop(again);
    assert_eq!(pool.available(), 2);
}

#[test]
fn a_pool_may_move_before_it_allocates() {
    let mut pool = pool("moved new", 2, 100);
    let (mut pool, available) = elsewhere(move || {
        drop(pool.alloc().unwrap());
        let available = pool.available();
        (pool, available)
    });
    assert_eq!(available, 2);
    assert_eq!(pool.available(), 2, "every buffer is home, so it may move again");
}

#[test]
fn a_pool_that_moved_takes_its_new_thread_once_every_buffer_is_home() {
    let mut pool = pool("moved", 3, 100);
    let (mine, moved) = (pool.alloc().unwrap(), pool.alloc().unwrap());
    let (to_main, from_thread) = mpsc::channel();
    let (to_thread, from_main) = mpsc::channel::<()>();
    let other = thread::spawn(move || {
        // One is out on the first thread, so only what comes through the queue can be had here.
        assert_eq!(pool.available(), 0);
        assert!(pool.alloc().is_none());
        drop(moved);
        assert_eq!(pool.available(), 1);
        let again = pool.alloc().unwrap();
        assert!(pool.alloc().is_none());
        drop(again);
        to_main.send(()).unwrap();
        from_main.recv().unwrap();
        assert_eq!(pool.available(), 3, "the first thread has freed its own");
        let mut buffers = Vec::new();
        assert_eq!(pool.alloc_into(4, |buffer| buffers.push(buffer)), 3);
        buffers.clear();
        assert_eq!(pool.available(), 3);
    });
    from_thread.recv().unwrap();
    drop(mine);
    to_thread.send(()).unwrap();
    other.join().unwrap();
}

#[test]
fn buffers_outlive_their_pool_and_the_last_one_frees_it_for_the_next_sweep() {
    let purpose = "outlived by its buffers";
    let mut first = pool(purpose, 3, 100);
    let (mut a, b) = (first.alloc().unwrap(), first.alloc().unwrap());
    assert!(a.copy_from(b"still here"));
    drop(first);
    assert!(is_parked(purpose));
    elsewhere(move || drop(b));
    drop(pool("another", 1, 1));
    assert!(is_parked(purpose), "one buffer is out");
    a.prepend(3).unwrap().copy_from_slice(b"is ");
    assert_eq!(a.data(), b"is still here");
    drop(a);
    drop(pool("another", 1, 1));
    assert!(!is_parked(purpose));
}

#[test]
fn a_pool_dropped_on_another_thread_waits_for_its_owner_s_buffers() {
    let purpose = "dropped elsewhere";
    let mut first = pool(purpose, 2, 100);
    let mut mine = first.alloc().unwrap();
    elsewhere(move || drop(first));
    assert!(is_parked(purpose));
    assert!(mine.copy_from(b"mine"));
    drop(mine);
    sweep();
    assert!(!is_parked(purpose));
}

#[test]
fn a_pool_whose_buffers_are_home_is_freed_at_once() {
    let mut first = pool("home", 2, 100);
    let out = first.alloc().unwrap();
    elsewhere(move || drop(out));
    drop(first);
    assert!(!is_parked("home"));
}

#[test]
#[cfg(debug_assertions)]
fn a_debug_build_panics_where_a_buffer_is_freed_twice() {
    let mut pool = pool("twice", 2, 100);
    let buffer = pool.alloc().unwrap();
    // SAFETY: none: this is the mistake that unsafe code elsewhere could make. The header is still mapped.
    let copy = unsafe { std::ptr::read(&buffer) };
    drop(buffer);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(copy))).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "buffer 0 is freed twice");
}

/// A worker hands buffers to two others, as a handoff ring does: one drops them, one sends them back. Each buffer is
/// filled with its number all over, and whoever has it finds that number still there.
#[test]
fn buffers_that_cross_threads_keep_their_bytes_and_all_come_home() {
    let rounds: u32 = if memcheck::is_running() { 500 } else { 50_000 };
    let mut pool = pool("crossing", 64, 200);
    let (to_dropper, dropper_gets) = mpsc::sync_channel::<(u32, Buffer)>(16);
    let (to_echo, echo_gets) = mpsc::sync_channel::<(u32, Buffer)>(16);
    let (echo_sends, back) = mpsc::channel();
    let check = |number: u32, buffer: &Buffer| {
        assert!(buffer.len() == 200 && buffer.data().chunks(4).all(|chunk| chunk == number.to_be_bytes()));
    };
    let dropper =
        thread::spawn(move || dropper_gets.iter().for_each(|(number, buffer)| check(number, &buffer)));
    let echo = thread::spawn(move || {
        echo_gets.iter().for_each(|(number, buffer)| {
            check(number, &buffer);
            echo_sends.send((number, buffer)).unwrap();
        })
    });
    for number in 0..rounds {
        back.try_iter().for_each(|(number, buffer)| check(number, &buffer));
        let Some(mut buffer) = pool.alloc() else { continue };
        assert!(buffer.copy_from(&number.to_be_bytes().repeat(50)));
        match number % 3 {
            0 => to_dropper.send((number, buffer)).unwrap(),
            1 => to_echo.send((number, buffer)).unwrap(),
            _ => check(number, &buffer),
        }
    }
    drop((to_dropper, to_echo));
    dropper.join().unwrap();
    echo.join().unwrap();
    drop(back);
    assert_eq!(pool.available(), 64);
    assert_eq!(pool.alloc_into(65, |buffer| elsewhere(move || drop(buffer))), 65);
}

const BUFFERS: usize = 6;
/// With headroom 5 cache lines, an odd number: a stride that forgot the header would let buffers overlap.
const ROOM: usize = 192;

#[derive(Clone, Debug)]
enum Op {
    Alloc,
    Free(usize),
    FreeElsewhere(usize),
    Prepend(usize, usize),
    TrimFront(usize, usize),
    Truncate(usize, usize),
    SetLen(usize, usize),
    CopyFrom(usize, usize),
    Reset(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0..BUFFERS;
    prop_oneof![
        4 => Just(Op::Alloc),
        1 => which.clone().prop_map(Op::Free),
        1 => which.clone().prop_map(Op::FreeElsewhere),
        2 => (which.clone(), 0..150usize).prop_map(|(i, n)| Op::Prepend(i, n)),
        2 => (which.clone(), 0..150usize).prop_map(|(i, n)| Op::TrimFront(i, n)),
        1 => (which.clone(), 0..150usize).prop_map(|(i, n)| Op::Truncate(i, n)),
        2 => (which.clone(), 0..420usize).prop_map(|(i, n)| Op::SetLen(i, n)),
        2 => (which.clone(), 0..280usize).prop_map(|(i, n)| Op::CopyFrom(i, n)),
        1 => which.prop_map(Op::Reset),
    ]
}

/// What a buffer should be: its headroom, and its data.
#[derive(Default)]
struct Model {
    headroom: usize,
    data: Vec<u8>,
}

/// Does `op` to a buffer and to its model. Bytes that an operation adds are filled with `fill` in both.
fn change(op: &Op, buffer: &mut Buffer, model: &mut Model, fill: u8) {
    let end = HEADROOM + ROOM - model.headroom;
    match *op {
        Op::Prepend(_, n) => match buffer.prepend(n) {
            Some(bytes) => {
                bytes.fill(fill);
                model.headroom -= n;
                model.data.splice(0..0, vec![fill; n]);
            }
            None => assert!(n > model.headroom),
        },
        Op::TrimFront(_, n) => {
            assert_eq!(buffer.trim_front(n), n <= model.data.len());
            if n <= model.data.len() {
                model.headroom += n;
                model.data.drain(..n);
            }
        }
        Op::Truncate(_, n) => {
            buffer.truncate(n);
            model.data.truncate(n);
        }
        Op::SetLen(_, n) => {
            assert_eq!(buffer.set_len(n), n <= end);
            if n <= end {
                let old = model.data.len().min(n);
                buffer.data_mut()[old..].fill(fill);
                model.data.resize(n, fill);
            }
        }
        Op::CopyFrom(_, n) => {
            assert_eq!(buffer.copy_from(&vec![fill; n]), n <= ROOM);
            if n <= ROOM {
                *model = Model { headroom: HEADROOM, data: vec![fill; n] };
            }
        }
        Op::Reset(_) => {
            buffer.reset();
            *model = Model { headroom: HEADROOM, data: Vec::new() };
        }
        Op::Alloc | Op::Free(_) | Op::FreeElsewhere(_) => {}
    }
}

/// No two buffers overlap, from their headers to the end of their tailroom.
fn assert_disjoint(live: &[(Buffer, Model)]) {
    let mut spans: Vec<(usize, usize)> = live
        .iter()
        .map(|(buffer, _)| buffer.data().as_ptr() as usize - buffer.headroom() - HEADER)
        .map(|start| (start, start + HEADER + HEADROOM + ROOM))
        .collect();
    spans.sort_unstable();
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{spans:x?}");
}

proptest! {
    #[test]
    fn any_sequence_of_operations_does_what_a_simple_model_does(ops in prop::collection::vec(op(), 1..120)) {
        let mut pool = pool("model", BUFFERS, ROOM);
        let mut live: Vec<(Buffer, Model)> = Vec::new();
        for (step, op) in ops.iter().enumerate() {
            match *op {
                Op::Alloc => match pool.alloc() {
                    Some(buffer) => live.push((buffer, Model { headroom: HEADROOM, data: Vec::new() })),
                    None => prop_assert_eq!(live.len(), BUFFERS),
                },
                Op::Free(i) if i < live.len() => drop(live.swap_remove(i)),
                Op::FreeElsewhere(i) if i < live.len() => {
                    let (buffer, _) = live.swap_remove(i);
                    elsewhere(move || drop(buffer));
                }
                Op::Free(_) | Op::FreeElsewhere(_) => {}
                Op::Prepend(i, _) | Op::TrimFront(i, _) | Op::Truncate(i, _) | Op::SetLen(i, _)
                | Op::CopyFrom(i, _) | Op::Reset(i) => {
                    if let Some((buffer, model)) = live.get_mut(i) {
                        change(op, buffer, model, step as u8 + 1);
                    }
                }
            }
            prop_assert_eq!(pool.available(), BUFFERS - live.len());
            for (buffer, model) in &live {
                prop_assert_eq!(buffer.data(), &model.data[..]);
                prop_assert_eq!((buffer.len(), buffer.is_empty()), (model.data.len(), model.data.is_empty()));
                prop_assert_eq!(buffer.headroom(), model.headroom);
                prop_assert_eq!(buffer.tailroom(), HEADROOM + ROOM - model.headroom - model.data.len());
            }
            assert_disjoint(&live);
        }
    }
}
