//! Lists of connections, linked through their entries, so that they need no memory of their own and an entry leaves its
//! list without a search.

use super::table::{Entry, NONE};

#[derive(Clone, Copy)]
struct Ends {
    head: u32,
    tail: u32,
}

/// A fixed number of lists, numbered from 1; 0 stands for none.
pub(super) struct Lists {
    ends: Box<[Ends]>,
}

impl Lists {
    pub(super) fn new(count: usize) -> Self {
        Self { ends: vec![Ends { head: NONE, tail: NONE }; count + 1].into() }
    }

    /// The first entry of a list, or [`NONE`].
    #[inline]
    pub(super) fn head(&self, list: u16) -> u32 {
        self.ends[usize::from(list)].head
    }

    /// Puts an entry that is in no list at the end of one.
    #[inline]
    pub(super) fn append<K>(&mut self, entries: &mut [Entry<K>], list: u16, entry: u32) {
        let tail = self.push(entries, list, entry);
        let added = &mut entries[entry as usize];
        debug_assert!(added.list == 0, "an entry is in one list");
        (added.list, added.prev, added.next) = (list, tail, NONE);
    }

    /// The same for an entry that is yet to be written. Returns the one that comes before it.
    #[inline]
    pub(super) fn push<K>(&mut self, entries: &mut [Entry<K>], list: u16, entry: u32) -> u32 {
        let ends = &mut self.ends[usize::from(list)];
        let tail = std::mem::replace(&mut ends.tail, entry);
        match entries.get_mut(tail as usize) {
            Some(last) => last.next = entry,
            None => ends.head = entry,
        }
        tail
    }

    /// Takes an entry out of its list, and returns which one that was.
    #[inline]
    pub(super) fn unlink<K>(&mut self, entries: &mut [Entry<K>], entry: u32) -> u16 {
        let removed = &mut entries[entry as usize];
        let (list, prev, next) = (removed.list, removed.prev, removed.next);
        (removed.list, removed.prev, removed.next) = (0, NONE, NONE);
        let ends = &mut self.ends[usize::from(list)];
        match entries.get_mut(prev as usize) {
            Some(before) => before.next = next,
            None => ends.head = next,
        }
        match entries.get_mut(next as usize) {
            Some(after) => after.prev = prev,
            None => ends.tail = prev,
        }
        list
    }
}
