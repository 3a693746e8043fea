//! Lists in memory that is taken once.

/// No item.
pub(super) const NONE: u32 = u32::MAX;

/// Items, each with the number of the next one of its list. Memory is used as items come, but never allocated again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<(T, u32)>,
    most: usize,
    /// The list of those that are free.
    free: u32,
}

impl<T> Slab<T> {
    /// With room for `most`, less than [`NONE`].
    pub(super) fn new(most: usize) -> Self {
        Self { items: Vec::with_capacity(most), most, free: NONE }
    }

    /// Makes room for `most`. It allocates.
    pub(super) fn grow(&mut self, most: usize) {
        self.items.reserve_exact(most.saturating_sub(self.items.len()));
        self.most = self.most.max(most);
    }

    pub(super) fn is_full(&self) -> bool {
        self.free == NONE && self.items.len() >= self.most
    }

    pub(super) fn get(&self, at: u32) -> Option<&T> {
        self.items.get(at as usize).map(|(item, _)| item)
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.items.get_mut(at as usize).map(|(item, _)| item)
    }

    /// The item and the one after it.
    pub(super) fn get_with_next(&self, at: u32) -> Option<(&T, u32)> {
        self.items.get(at as usize).map(|(item, next)| (item, *next))
    }

    /// The items of a list with their numbers.
    pub(super) fn list(&self, first: u32) -> impl Iterator<Item = (u32, &T)> {
        let mut at = first;
        std::iter::from_fn(move || {
            let (item, next) = self.get_with_next(at)?;
            Some((std::mem::replace(&mut at, next), item))
        })
    }

    /// A new item before `next`: the new first of that list. `None`: there is no room.
    pub(super) fn take(&mut self, item: T, next: u32) -> Option<u32> {
        let at = self.free;
        if let Some(slot) = self.items.get_mut(at as usize) {
            self.free = std::mem::replace(slot, (item, next)).1;
            return Some(at);
        }
        if self.items.len() >= self.most {
            return None;
        }
        self.items.push((item, next));
        Some((self.items.len() - 1) as u32)
    }

    /// Frees item `at` of the list that begins with `first`; returns what it begins with now.
    pub(super) fn give(&mut self, at: u32, first: u32) -> u32 {
        let Some(after) = self.items.get(at as usize).map(|(_, next)| *next) else { return first };
        let before = self.list(first).find(|(number, _)| self.items[*number as usize].1 == at);
        let first = match before.map(|(number, _)| number) {
            Some(before) => {
                self.items[before as usize].1 = after;
                first
            }
            None => after,
        };
        self.items[at as usize].1 = self.free;
        self.free = at;
        first
    }

    /// Frees a list.
    pub(super) fn give_list(&mut self, mut first: u32) {
        while let Some((_, next)) = self.items.get_mut(first as usize) {
            (first, self.free, *next) = (*next, first, self.free);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(slab: &Slab<char>, first: u32) -> String {
        slab.list(first).map(|(_, c)| *c).collect()
    }

    #[test]
    fn items_come_and_go_in_the_room_that_there_is() {
        let mut slab = Slab::new(3);
        let a = slab.take('a', NONE).unwrap();
        let b = slab.take('b', a).unwrap();
        let mut first = slab.take('c', b).unwrap();
        assert_eq!(text(&slab, first), "cba");
        assert_eq!(slab.take('d', first), None);
        first = slab.give(b, first);
        assert_eq!(text(&slab, first), "ca");
        first = slab.take('d', first).unwrap();
        assert_eq!(text(&slab, first), "dca");
        first = slab.give(first, first);
        assert_eq!(text(&slab, first), "ca");
        first = slab.give(a, first);
        assert_eq!(text(&slab, first), "c");
        slab.give_list(first);
        slab.grow(5);
        let all = "vwxyz".chars().fold(NONE, |first, c| slab.take(c, first).unwrap());
        assert_eq!(text(&slab, all), "zyxwv");
        assert_eq!(slab.take('!', all), None);
    }
}
