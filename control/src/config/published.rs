//! The destinations as workers have them. A worker may read an array as long as it runs its generation, so that a change
//! makes a new one: of 100,000 destinations that is megabytes, and so the array before the last, which no worker has any more,
//! is brought up to date instead where that is possible.

use pointsman_dataplane::snapshot::Destination;
use std::{mem, sync::Arc};

/// Two arrays that take turns.
#[derive(Debug, Default)]
pub(super) struct Published {
    last: Arc<[Destination]>,
    before: Arc<[Destination]>,
    /// The numbers of those in which `last` differs from `before`.
    changed: Vec<u32>,
}

impl Published {
    /// What was published last.
    pub(super) fn last(&self) -> Arc<[Destination]> {
        self.last.clone()
    }

    /// Publishes all destinations, of which those with these numbers have changed.
    pub(super) fn publish(&mut self, all: &[Destination], changed: Vec<u32>) {
        let mut next = mem::take(&mut self.before);
        match Arc::get_mut(&mut next).filter(|next| next.len() == all.len()) {
            Some(next) => {
                for number in self.changed.iter().chain(&changed) {
                    let number = *number as usize;
                    if let (Some(next), Some(new)) = (next.get_mut(number), all.get(number)) {
                        next.clone_from(new);
                    }
                }
            }
            None => next = all.into(),
        }
        self.before = mem::replace(&mut self.last, next);
        self.changed = changed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{compile::Compiler, read, slots::Moment},
        kernel::testing,
    };
    use pointsman_dataplane::time::Nanos;
    use std::path::Path;

    /// So many destinations, which are told apart by their generations.
    fn destinations(count: usize) -> Vec<Destination> {
        let servers = (0..count).map(|n| format!("[[service.server]]\naddress = \"10.0.1.{n}\"\n"));
        let text =
            format!("[[service]]\naddress = \"10.0.0.100\"\nport = 80\n{}", servers.collect::<String>());
        let at = Moment { now: Nanos(0), generation: 1, seen: 0 };
        let configuration = read(Path::new("test.toml"), &text).unwrap();
        let mut all =
            Compiler::default().compile(&configuration, &testing::network(), at).destinations.to_vec();
        all.iter_mut().for_each(|destination| destination.generation = 0);
        all
    }

    fn generations(of: &[Destination]) -> Vec<u32> {
        of.iter().map(|destination| destination.generation).collect()
    }

    #[test]
    fn the_array_before_the_last_is_brought_up_to_date_if_nobody_has_it() {
        let (mut published, mut all) = (Published::default(), destinations(5));
        let mut arrays = Vec::new();
        let mut reader = None;
        for generation in 1..20_u32 {
            // Now and then the same one twice, and none at all; a reader that stays behind for a while.
            let changed = match generation % 4 {
                0 => vec![],
                1 => vec![generation % 5],
                _ => vec![generation % 5, (generation * 3) % 5, generation % 5],
            };
            changed.iter().for_each(|number| all[*number as usize].generation = generation);
            published.publish(&all, changed);
            let last = published.last();
            assert_eq!(generations(&last), generations(&all), "generation {generation}");
            arrays.push(last.as_ptr());
            if generation == 6 {
                reader = Some((last.clone(), generations(&last)));
            }
            if generation == 12 {
                let (kept, expected) = reader.take().unwrap();
                assert_eq!(generations(&kept), expected, "nobody has changed it");
            }
        }
        assert_eq!(arrays[2..6], [arrays[0], arrays[1], arrays[0], arrays[1]], "two take turns");
        assert!(arrays[7] != arrays[5], "that one was being read");
        all.extend(destinations(1));
        published.publish(&all, vec![5]);
        published.publish(&all, vec![]);
        assert_eq!(published.last().len(), 6);
    }
}
