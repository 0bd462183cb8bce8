//! The queues of a log by id. Ids are given out one behind the other, so queues lie in pages of neighbours: of a million
//! queues any one is found by a look into a small tree, which stays in the processor's cache, and one step into a page.

use std::collections::BTreeMap;

use super::Queue;
use crate::core::types::QueueId;

/// Queues, in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// By id over `PAGE_QUEUES`; none is empty.
    pages: BTreeMap<u64, Page>,
    count: usize,
}

/// Neighbouring queues, from the least to the greatest that are there, none left out.
#[derive(Debug)]
struct Page {
    /// The id of the first place.
    first: u64,
    places: Vec<Option<Queue>>,
}

impl Queues {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn get(&self, id: QueueId) -> Option<&Queue> {
        self.pages.get(&(id.0 / PAGE_QUEUES))?.place(id)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: QueueId) -> Option<&mut Queue> {
        self.pages.get_mut(&(id.0 / PAGE_QUEUES))?.place_mut(id)?.as_mut()
    }

    /// The queue, new where there is none.
    pub(super) fn get_or_default(&mut self, id: QueueId) -> &mut Queue {
        let page = self.pages.entry(id.0 / PAGE_QUEUES);
        let page = page.or_insert_with(|| Page { first: id.0, places: Vec::with_capacity(1) });
        let place = page.make_place(id);
        self.count += usize::from(place.is_none());
        place.get_or_insert_default()
    }

    pub(super) fn insert(&mut self, id: QueueId, queue: Queue) {
        *self.get_or_default(id) = queue;
    }

    pub(super) fn remove(&mut self, id: QueueId) {
        let number = id.0 / PAGE_QUEUES;
        let Some(page) = self.pages.get_mut(&number) else { return };
        let Some(place) = page.place_mut(id) else { return };
        self.count -= usize::from(place.take().is_some());
        if page.places.iter().all(Option::is_none) {
            self.pages.remove(&number);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Queues::default();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (QueueId, &Queue)> {
        self.pages.values().flat_map(|page| {
            let places = page.places.iter().enumerate();
            places.filter_map(|(index, place)| Some((page.id(index), place.as_ref()?)))
        })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (QueueId, &mut Queue)> {
        self.pages.values_mut().flat_map(|page| {
            let first = page.first;
            let places = page.places.iter_mut().enumerate();
            places.filter_map(move |(index, place)| Some((QueueId(first + index as u64), place.as_mut()?)))
        })
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = QueueId> {
        self.iter().map(|(id, _)| id)
    }
}

impl Page {
    fn id(&self, index: usize) -> QueueId {
        QueueId(self.first + index as u64)
    }

    fn place(&self, id: QueueId) -> Option<&Option<Queue>> {
        self.places.get(usize::try_from(id.0.checked_sub(self.first)?).ok()?)
    }

    fn place_mut(&mut self, id: QueueId) -> Option<&mut Option<Queue>> {
        self.places.get_mut(usize::try_from(id.0.checked_sub(self.first)?).ok()?)
    }

    /// The place of a queue of this page, which is made longer at whichever end it must.
    fn make_place(&mut self, id: QueueId) -> &mut Option<Queue> {
        if id.0 < self.first {
            let missing = (self.first - id.0) as usize;
            self.places.splice(0..0, std::iter::repeat_with(|| None).take(missing));
            self.first = id.0;
        }
        let index = (id.0 - self.first) as usize;
        if index >= self.places.len() {
            self.places.resize_with(index + 1, || None);
        }
        &mut self.places[index]
    }
}

/// Ids in a page. Greater ones make the tree smaller, and the growing of a page dearer.
const PAGE_QUEUES: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::types::Offset;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn queues_are_kept_as_in_a_plain_map(
            steps in prop::collection::vec((any::<bool>(), prop_oneof![0..700u64, u64::MAX - 3..=u64::MAX]), 0..80),
        ) {
            let (mut queues, mut plain) = (Queues::default(), BTreeMap::new());
            for (number, (is_removal, id)) in steps.into_iter().enumerate() {
                if is_removal {
                    queues.remove(QueueId(id));
                    plain.remove(&id);
                } else {
                    queues.get_or_default(QueueId(id)).next_offset = Offset(number as i64);
                    plain.insert(id, number as i64);
                }
                prop_assert_eq!(queues.len(), plain.len());
                prop_assert_eq!(queues.get(QueueId(id)).map(|queue| queue.next_offset.0), plain.get(&id).copied());
            }
            let seen: Vec<_> = queues.iter().map(|(id, queue)| (id.0, queue.next_offset.0)).collect();
            prop_assert_eq!(&seen, &plain.into_iter().collect::<Vec<_>>());
            let seen_again: Vec<_> = queues.iter_mut().map(|(id, queue)| (id.0, queue.next_offset.0)).collect();
            prop_assert_eq!(seen, seen_again);
        }
    }
}
