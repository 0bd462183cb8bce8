//! Idempotent producers of one queue: epochs and the window of the last five batches, as Kafka keeps them.
//! A producer without state may begin at any sequence, as in Kafka since 2.4 (KIP-360); one whose epoch rises begins at 0.

use std::time::Duration;

use smallvec::SmallVec;

use super::AppendError;
use crate::core::batch::{BatchHeader, sequence_plus};
use crate::core::types::{Offset, Position, ProducerEpoch, ProducerId};

/// Batches remembered a producer.
pub(crate) const WINDOW_BATCHES: usize = 5;

/// The producers of a queue. Most queues have one, whose state lies within the queue's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Producers {
    /// By id.
    states: SmallVec<[ProducerState; 1]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerState {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    /// The last batches of this epoch.
    pub(crate) window: Window,
    pub(crate) active_last: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BatchSeen {
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: Offset,
    pub(crate) end: Position,
}

/// The newest batches of a producer, at most `WINDOW_BATCHES`, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Window {
    count: u8,
    /// Behind `count` there are defaults.
    seen: [BatchSeen; WINDOW_BATCHES],
}

impl Window {
    /// Adds the newest batch; the oldest goes where there is no room.
    pub(crate) fn push(&mut self, batch: BatchSeen) {
        if usize::from(self.count) == WINDOW_BATCHES {
            self.seen.copy_within(1.., 0);
            self.count -= 1;
        }
        self.seen[usize::from(self.count)] = batch;
        self.count += 1;
    }

    /// The batches, oldest first.
    pub(crate) fn as_slice(&self) -> &[BatchSeen] {
        &self.seen[..usize::from(self.count)]
    }
}

impl FromIterator<BatchSeen> for Window {
    fn from_iter<I: IntoIterator<Item = BatchSeen>>(batches: I) -> Window {
        let mut window = Window::default();
        batches.into_iter().for_each(|batch| window.push(batch));
        window
    }
}

impl Producers {
    /// Whether the batch may be appended now. Forgets its producer first where that has been idle past `expiry`.
    pub(crate) fn check(&mut self, header: &BatchHeader, now: Duration, expiry: Duration) -> Result<(), AppendError> {
        if header.producer_id == ProducerId::NONE {
            return Ok(());
        }
        let Ok(place) = self.place(header.producer_id) else {
            return Ok(());
        };
        let state = &self.states[place];
        if now.saturating_sub(state.active_last) > expiry {
            self.states.remove(place);
            return Ok(());
        }
        let (known, found) = (state.epoch, header.producer_epoch);
        if found < known {
            return Err(AppendError::InvalidProducerEpoch { known: known.0, found: found.0 });
        }
        if found > known {
            if header.base_sequence == 0 {
                return Ok(());
            }
            return Err(AppendError::OutOfOrderSequence { expected: 0, found: header.base_sequence });
        }
        let (first, last) = (header.base_sequence, header.last_sequence());
        let window = state.window.as_slice();
        if let Some(seen) = window.iter().find(|b| b.first_sequence == first && b.last_sequence == last) {
            return Err(AppendError::Duplicate { base_offset: seen.base_offset, end: seen.end });
        }
        let newest = window.last().expect("a producer's state begins with a batch");
        let expected = sequence_plus(newest.last_sequence, 1);
        if first == expected { Ok(()) } else { Err(AppendError::OutOfOrderSequence { expected, found: first }) }
    }

    /// Remembers a batch that was appended.
    pub(crate) fn record(&mut self, header: &BatchHeader, base_offset: Offset, end: Position, now: Duration) {
        if header.producer_id == ProducerId::NONE {
            return;
        }
        let epoch = header.producer_epoch;
        let place = self.place(header.producer_id).unwrap_or_else(|free| {
            let id = header.producer_id;
            self.states.insert(free, ProducerState { id, epoch, window: Window::default(), active_last: now });
            free
        });
        let state = &mut self.states[place];
        if state.epoch != epoch {
            (state.epoch, state.window) = (epoch, Window::default());
        }
        let (first_sequence, last_sequence) = (header.base_sequence, header.last_sequence());
        state.window.push(BatchSeen { first_sequence, last_sequence, base_offset, end });
        state.active_last = now;
    }

    /// Forgets producers that have been idle past `expiry`.
    pub(crate) fn expire(&mut self, now: Duration, expiry: Duration) {
        self.states.retain(|state| now.saturating_sub(state.active_last) <= expiry);
    }

    /// Lets all producers count as active now: after recovery nothing is known about when they were.
    pub(crate) fn touch(&mut self, now: Duration) {
        for state in &mut self.states {
            state.active_last = now;
        }
    }

    /// Puts a producer's state in place of what there was of it.
    pub(crate) fn insert(&mut self, state: ProducerState) {
        match self.place(state.id) {
            Ok(place) => self.states[place] = state,
            Err(free) => self.states.insert(free, state),
        }
    }

    /// The producers by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ProducerState> {
        self.states.iter()
    }

    /// How many producers have state.
    pub fn count(&self) -> usize {
        self.states.len()
    }

    /// Where a producer's state is, or would be.
    fn place(&self, id: ProducerId) -> Result<usize, usize> {
        self.states.binary_search_by_key(&id, |state| state.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::batch::{Batch, BatchProducer};
    use bytes::Bytes;

    const EXPIRY: Duration = Duration::from_secs(60);

    fn header(epoch: i16, base_sequence: i32, count: usize) -> BatchHeader {
        let value = Bytes::from_static(b"v");
        let producer = BatchProducer { id: ProducerId(9), epoch: ProducerEpoch(epoch), base_sequence };
        Batch::of_records(producer, std::iter::repeat_n((1, &value), count)).header
    }

    fn offer(producers: &mut Producers, offset: i64, header: BatchHeader) -> Result<(), AppendError> {
        producers.check(&header, Duration::ZERO, EXPIRY)?;
        producers.record(&header, Offset(offset), Position(offset as u64), Duration::ZERO);
        Ok(())
    }

    #[test]
    fn the_last_five_batches_are_recognised_and_older_ones_are_out_of_order() {
        let mut producers = Producers::default();
        for n in 0..6 {
            assert_eq!(offer(&mut producers, i64::from(n) * 2, header(0, n * 2, 2)), Ok(()));
        }
        for n in 1..6i32 {
            let duplicate =
                AppendError::Duplicate { base_offset: Offset(i64::from(n) * 2), end: Position(n as u64 * 2) };
            assert_eq!(offer(&mut producers, 99, header(0, n * 2, 2)), Err(duplicate));
        }
        let out_of_order = |found| Err(AppendError::OutOfOrderSequence { expected: 12, found });
        assert_eq!(offer(&mut producers, 99, header(0, 0, 2)), out_of_order(0));
        assert_eq!(offer(&mut producers, 99, header(0, 10, 1)), out_of_order(10), "same first, other last sequence");
        assert_eq!(offer(&mut producers, 99, header(0, 13, 1)), out_of_order(13));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut producers = Producers::default();
        assert_eq!(offer(&mut producers, 0, header(0, i32::MAX - 1, 2)), Ok(()));
        assert_eq!(offer(&mut producers, 2, header(0, 0, 1)), Ok(()));
        let mut producers = Producers::default();
        assert_eq!(offer(&mut producers, 0, header(0, i32::MAX, 3)), Ok(()), "a batch may wrap inside");
        assert_eq!(offer(&mut producers, 3, header(0, 2, 1)), Ok(()));
        let duplicate = AppendError::Duplicate { base_offset: Offset(0), end: Position(0) };
        assert_eq!(offer(&mut producers, 4, header(0, i32::MAX, 3)), Err(duplicate));
    }

    #[test]
    fn epochs_fence_and_begin_at_sequence_zero() {
        let mut producers = Producers::default();
        assert_eq!(offer(&mut producers, 0, header(3, 40, 1)), Ok(()), "unknown producers begin anywhere");
        let stale = AppendError::InvalidProducerEpoch { known: 3, found: 2 };
        assert_eq!(offer(&mut producers, 1, header(2, 41, 1)), Err(stale));
        let not_zero = AppendError::OutOfOrderSequence { expected: 0, found: 41 };
        assert_eq!(offer(&mut producers, 1, header(4, 41, 1)), Err(not_zero));
        assert_eq!(offer(&mut producers, 1, header(4, 0, 1)), Ok(()));
    }

    #[test]
    fn state_lasts_as_long_as_its_expiry_and_no_longer() {
        let mut producers = Producers::default();
        assert_eq!(offer(&mut producers, 0, header(0, 0, 1)), Ok(()));
        let late = header(0, 7, 1);
        assert!(producers.clone().check(&late, EXPIRY, EXPIRY).is_err());
        assert_eq!(producers.check(&late, EXPIRY + Duration::from_millis(1), EXPIRY), Ok(()));
        assert_eq!(producers.count(), 0);
    }
}
