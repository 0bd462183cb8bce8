//! Idempotent producers of one queue: epochs and the window of the last five batches, as Kafka keeps them.
//! A producer without state may begin at any sequence, as in Kafka since 2.4 (KIP-360); one whose epoch rises begins at 0.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::AppendError;
use crate::core::batch::{BatchHeader, sequence_plus};
use crate::core::types::{Offset, Position, ProducerEpoch, ProducerId};

/// Batches remembered a producer.
pub(crate) const WINDOW_BATCHES: usize = 5;

/// The producers of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Producers {
    states: BTreeMap<ProducerId, ProducerState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerState {
    pub(crate) epoch: ProducerEpoch,
    /// The last batches of this epoch, oldest first.
    pub(crate) window: VecDeque<BatchSeen>,
    pub(crate) active_last: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchSeen {
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: Offset,
    pub(crate) end: Position,
}

impl Producers {
    /// Whether the batch may be appended now. Forgets its producer first where that has been idle past `expiry`.
    pub(crate) fn check(&mut self, header: &BatchHeader, now: Duration, expiry: Duration) -> Result<(), AppendError> {
        if header.producer_id == ProducerId::NONE {
            return Ok(());
        }
        let Some(state) = self.states.get(&header.producer_id) else {
            return Ok(());
        };
        if now.saturating_sub(state.active_last) > expiry {
            self.states.remove(&header.producer_id);
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
        if let Some(seen) = state.window.iter().find(|b| b.first_sequence == first && b.last_sequence == last) {
            return Err(AppendError::Duplicate { base_offset: seen.base_offset, end: seen.end });
        }
        let newest = state.window.back().expect("a producer's state begins with a batch");
        let expected = sequence_plus(newest.last_sequence, 1);
        if first == expected { Ok(()) } else { Err(AppendError::OutOfOrderSequence { expected, found: first }) }
    }

    /// Remembers a batch that was appended.
    pub(crate) fn record(&mut self, header: &BatchHeader, base_offset: Offset, end: Position, now: Duration) {
        if header.producer_id == ProducerId::NONE {
            return;
        }
        let epoch = header.producer_epoch;
        let state = self.states.entry(header.producer_id).or_insert_with(|| ProducerState {
            epoch,
            window: VecDeque::with_capacity(WINDOW_BATCHES),
            active_last: now,
        });
        if state.epoch != epoch {
            state.epoch = epoch;
            state.window.clear();
        }
        if state.window.len() == WINDOW_BATCHES {
            state.window.pop_front();
        }
        let (first_sequence, last_sequence) = (header.base_sequence, header.last_sequence());
        state.window.push_back(BatchSeen { first_sequence, last_sequence, base_offset, end });
        state.active_last = now;
    }

    /// Forgets producers that have been idle past `expiry`.
    pub(crate) fn expire(&mut self, now: Duration, expiry: Duration) {
        self.states.retain(|_, state| now.saturating_sub(state.active_last) <= expiry);
    }

    /// Lets all producers count as active now: after recovery nothing is known about when they were.
    pub(crate) fn touch(&mut self, now: Duration) {
        for state in self.states.values_mut() {
            state.active_last = now;
        }
    }

    pub(crate) fn insert(&mut self, id: ProducerId, state: ProducerState) {
        self.states.insert(id, state);
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&ProducerId, &ProducerState)> {
        self.states.iter()
    }

    /// How many producers have state.
    pub fn count(&self) -> usize {
        self.states.len()
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
