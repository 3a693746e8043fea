//! Immutable values handed to pollers that never wait.
//!
//! The publisher puts a new value into a slot and raises a generation. A poller looks at the generation between two
//! batches, one relaxed load on a line that is written only by a change, and takes the value when it has moved. The
//! publisher keeps every value until all pollers have moved past it, so that a poller never frees one.
//!
//! Orderings: the generation is stored with `Release` after the slot is filled and loaded with `Acquire` before the slot
//! is read, so a poller that sees generation n finds at least value n. `seen` is stored with `Release` after the poller
//! has let go of its old value, and read with `Acquire` by the publisher, so that the old value is dropped there.

#[cfg(loom)]
use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use crossbeam::utils::CachePadded;

struct Shared<T> {
    generation: CachePadded<AtomicU64>,
    slot: Mutex<(u64, Arc<T>)>,
    seen: Box<[CachePadded<AtomicU64>]>,
}

/// The one who publishes. Dropping it leaves the last value in force.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    /// Values that some poller may still hold, oldest first, with their generations.
    kept: Vec<(u64, Arc<T>)>,
}

/// One poller's view.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    index: usize,
    generation: u64,
    value: Arc<T>,
}

/// Makes a publisher of generation `generation` and its `readers` readers, all of which see `first`.
pub fn channel<T>(generation: u64, first: T, readers: usize) -> (Publisher<T>, Vec<Reader<T>>) {
    let first = Arc::new(first);
    let shared = Arc::new(Shared {
        generation: CachePadded::new(AtomicU64::new(generation)),
        slot: Mutex::new((generation, first.clone())),
        seen: (0..readers).map(|_| CachePadded::new(AtomicU64::new(generation))).collect(),
    });
    let readers = (0..readers)
        .map(|index| Reader { shared: shared.clone(), index, generation, value: first.clone() })
        .collect();
    (Publisher { shared, kept: vec![(generation, first)] }, readers)
}

impl<T> Publisher<T> {
    /// Puts `value` in force as `generation`, which must be greater than the last one.
    pub fn publish(&mut self, generation: u64, value: T) {
        let value = Arc::new(value);
        self.kept.push((generation, value.clone()));
        {
            // A poisoned lock would need a panic between two moves: the value inside is whole either way.
            let mut slot = self.shared.slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            debug_assert!(generation > slot.0, "generations only grow");
            *slot = (generation, value);
        }
        self.shared.generation.store(generation, Ordering::Release);
        self.collect();
    }

    /// The oldest generation that a reader still runs; the newest published one if there are no readers.
    pub fn seen(&self) -> u64 {
        let newest = self.shared.generation.load(Ordering::Relaxed);
        self.shared.seen.iter().map(|seen| seen.load(Ordering::Acquire)).min().unwrap_or(newest)
    }

    /// Frees the values that every reader has moved past. Returns how many are still kept, the one in force included.
    pub fn collect(&mut self) -> usize {
        let seen = self.seen();
        self.kept.retain(|(generation, _)| *generation >= seen);
        self.kept.len()
    }
}

impl<T> Reader<T> {
    /// Takes the newest value if there is one, and says whether it did. Never waits: while the publisher fills the slot
    /// the reader goes on with what it has and looks again at the next call.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        if self.shared.generation.load(Ordering::Acquire) == self.generation {
            return false;
        }
        self.take()
    }

    #[cold]
    fn take(&mut self) -> bool {
        {
            let Ok(slot) = self.shared.slot.try_lock() else {
                return false;
            };
            if slot.0 == self.generation {
                return false;
            }
            self.generation = slot.0;
            self.value = slot.1.clone();
        }
        self.shared.seen[self.index].store(self.generation, Ordering::Release);
        true
    }

    /// The value as of the last refresh.
    #[inline]
    pub fn get(&self) -> &T {
        &self.value
    }

    /// The generation of that value.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_kept_until_every_reader_has_moved_past_it() {
        let (mut publisher, mut readers) = channel(1, "one", 2);
        publisher.publish(2, "two");
        assert_eq!((publisher.seen(), publisher.collect()), (1, 2));
        assert!(readers[0].refresh());
        assert_eq!((*readers[0].get(), *readers[1].get()), ("two", "one"));
        assert_eq!((publisher.seen(), publisher.collect()), (1, 2));
        assert!(readers[1].refresh());
        assert!(!readers[1].refresh());
        assert_eq!((publisher.seen(), publisher.collect()), (2, 1));
    }

    #[test]
    fn a_reader_skips_what_was_replaced_before_it_looked() {
        let (mut publisher, mut readers) = channel(1, 1, 1);
        publisher.publish(2, 2);
        publisher.publish(3, 3);
        assert!(readers[0].refresh());
        assert_eq!((*readers[0].get(), readers[0].generation()), (3, 3));
        assert_eq!(publisher.collect(), 1);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::thread;

    /// A value that may be freed by the publisher's thread alone.
    struct Guarded {
        generation: u64,
        publisher: thread::ThreadId,
    }

    impl Drop for Guarded {
        fn drop(&mut self) {
            let here = thread::current().id();
            assert_eq!(here, self.publisher, "a reader freed generation {}", self.generation);
        }
    }

    /// `readers` readers that look `looks` times, with two changes: every interleaving in which a thread is interrupted at
    /// most twice.
    fn explore(readers: usize, looks: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(move || {
            let publisher_thread = thread::current().id();
            let value = |generation| Guarded { generation, publisher: publisher_thread };
            let (mut publisher, readers) = channel(1, value(1), readers);
            let threads: Vec<_> = readers
                .into_iter()
                .map(|mut reader| {
                    thread::spawn(move || {
                        let mut last = 1;
                        for _ in 0..looks {
                            reader.refresh();
                            assert!(reader.generation() >= last, "a reader never goes back");
                            assert_eq!(reader.get().generation, reader.generation());
                            last = reader.generation();
                        }
                    })
                })
                .collect();
            for generation in [2, 3] {
                publisher.publish(generation, value(generation));
            }
            publisher.collect();
            for thread in threads {
                thread.join().expect("the reader ends");
            }
        });
    }

    #[test]
    fn a_reader_never_goes_back_and_never_frees_a_value() {
        explore(1, 3);
    }

    #[test]
    fn two_readers_keep_what_either_still_reads() {
        explore(2, 1);
    }
}
