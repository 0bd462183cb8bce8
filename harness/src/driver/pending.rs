//! The batches of one partition that a producer has not settled yet, as a pure state machine: which may be sent, under
//! which sequence numbers, and what a failure means for those behind. A batch keeps its sequence numbers and its bytes
//! through all retries. When an idempotent batch is given up, the partition drains, and goes on under a new epoch:
//! then no late copy of the abandoned batch can be appended behind newer ones. Not here: sending (`producer`).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::errors::{
    Attempts, CallError, DUPLICATE_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER,
    UNKNOWN_PRODUCER_ID,
};
use super::records::{Record, Sequence, encode_batch};
use crate::history::Outcome;

/// A producer as brokers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
}

/// How a batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its outcome.
    pub outcome: Outcome,
    /// Offset of its first record, where the outcome is done and the broker told it.
    pub first_offset: Option<i64>,
    /// How many times it was sent.
    pub attempts: u32,
}

/// A batch that is not settled.
pub(crate) struct Entry {
    /// Counts the producer's batches in the order of their submission.
    pub(crate) id: u64,
    records: Vec<Record>,
    reply: oneshot::Sender<Delivery>,
    /// Its bytes, from the moment when its sequence numbers are fixed.
    encoded: Option<Bytes>,
    attempts: u32,
    failures: Attempts,
    /// No attempt starts after this monotonic time.
    expires: Duration,
    state: EntryState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryState {
    Waiting { not_before: Duration },
    Sent,
}

/// What to do about the batch at an index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send it.
    Send,
    /// Neither it nor what is behind it may be sent now.
    Wait,
    /// Look at the one behind.
    Next,
    /// It was given up, and another stands at its index now.
    Removed,
}

/// Whether the sequence numbers start anew once nothing is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reset {
    No,
    NextEpoch,
    NewProducer,
}

/// What a settled answer was worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It was acknowledged at the first attempt, or nothing is known about the ones before.
    Acknowledged,
    /// It was acknowledged after an attempt that may have had its effect.
    AcknowledgedAgain,
    /// Not acknowledged; it waits for a retry or was given up.
    Failed,
}

/// One partition's batches, oldest first.
pub(crate) struct PartitionQueue {
    is_idempotent: bool,
    attempts_maximum: u32,
    /// The defect (client mutant P4): what may have been appended is stamped anew after a reset.
    restamps: bool,
    identity: Option<Identity>,
    /// Whether a batch was acknowledged under the identity. Until then one batch at a time is in flight: a broker that
    /// knows nothing of a producer may take any sequence number for its first (Kafka does), and so the second batch
    /// before the first, if it refused that one while the partition was not ready.
    is_established: bool,
    next_sequence: i32,
    entries: VecDeque<Entry>,
    /// Nothing is sent until all that is in flight has been answered; only with idempotence.
    is_draining: bool,
    reset: Reset,
}

impl PartitionQueue {
    pub(crate) fn new(is_idempotent: bool, attempts_maximum: u32, restamps: bool) -> PartitionQueue {
        PartitionQueue {
            is_idempotent,
            attempts_maximum,
            restamps,
            identity: None,
            is_established: false,
            next_sequence: 0,
            entries: VecDeque::new(),
            is_draining: false,
            reset: Reset::No,
        }
    }

    pub(crate) fn submit(
        &mut self,
        id: u64,
        records: Vec<Record>,
        expires: Duration,
        reply: oneshot::Sender<Delivery>,
    ) {
        let state = EntryState::Waiting { not_before: Duration::ZERO };
        let (attempts, failures) = (0, Attempts::default());
        self.entries.push_back(Entry { id, records, reply, encoded: None, attempts, failures, expires, state });
    }

    pub(crate) fn oldest(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.id)
    }

    pub(crate) fn sent_count(&self) -> usize {
        self.entries.iter().filter(|entry| entry.state == EntryState::Sent).count()
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    pub(crate) fn adopt(&mut self, identity: Identity) {
        assert!(self.identity.is_none(), "a partition changes its producer only when it has been reset");
        self.identity = Some(identity);
        self.next_sequence = 0;
    }

    pub(crate) fn expires(&self, index: usize) -> Duration {
        self.entries[index].expires
    }

    /// Ends a draining where nothing is in flight any more. Gives the producer id that must not be used again, if any,
    /// and whether there was a reset.
    pub(crate) fn settle(&mut self) -> Option<ResetDone> {
        if !self.is_draining || self.sent_count() > 0 {
            return None;
        }
        self.is_draining = false;
        if self.reset == Reset::No {
            return None;
        }
        let mut kept = VecDeque::new();
        for mut entry in std::mem::take(&mut self.entries) {
            if entry.failures.unknown.is_some() && !self.restamps {
                entry.end();
            } else {
                entry.encoded = None;
                kept.push_back(entry);
            }
        }
        self.entries = kept;
        self.is_established = false;
        self.next_sequence = 0;
        let old = self.identity.take();
        let next = old.filter(|_| self.reset == Reset::NextEpoch).and_then(|identity| {
            let producer_epoch = identity.producer_epoch.checked_add(1)?;
            Some(Identity { producer_epoch, ..identity })
        });
        self.identity = next;
        self.reset = Reset::No;
        let forgotten = if next.is_none() { old.map(|identity| identity.producer_id) } else { None };
        Some(ResetDone { forgotten })
    }

    /// What to do about the batch at an index; none where there is none.
    pub(crate) fn step(&mut self, index: usize, now: Duration) -> Option<Step> {
        if self.awaits_answers() {
            return Some(Step::Wait);
        }
        let entry = self.entries.get(index)?;
        let EntryState::Waiting { not_before } = entry.state else { return Some(Step::Next) };
        if now >= entry.expires || entry.attempts >= self.attempts_maximum {
            self.give_up(index);
            return Some(Step::Removed);
        }
        if not_before <= now {
            return Some(Step::Send);
        }
        Some(if self.blocks_those_behind(index) { Step::Wait } else { Step::Next })
    }

    /// Whether an answer must come before anything is sent.
    fn awaits_answers(&self) -> bool {
        let is_first_alone = self.is_idempotent && !self.is_established && self.sent_count() > 0;
        self.is_draining || is_first_alone
    }

    /// With idempotence nothing overtakes. Without, whoever waits for its retry is overtaken, as in Kafka's clients;
    /// but what was never sent keeps its turn.
    fn blocks_those_behind(&self, index: usize) -> bool {
        self.is_idempotent || self.entries[index].attempts == 0
    }

    /// When the first waiting batch may be sent or expires.
    pub(crate) fn wake(&self) -> Option<Duration> {
        if self.awaits_answers() {
            return None;
        }
        let mut wake: Option<Duration> = None;
        for (index, entry) in self.entries.iter().enumerate() {
            let EntryState::Waiting { not_before } = entry.state else { continue };
            let own = not_before.min(entry.expires);
            wake = Some(wake.map_or(own, |earliest| earliest.min(own)));
            if self.blocks_those_behind(index) {
                break;
            }
        }
        wake
    }

    /// The batch's bytes: the same in every attempt, unless the sequence numbers were reset.
    pub(crate) fn encoded(&mut self, index: usize) -> Bytes {
        let entry = &mut self.entries[index];
        if let Some(encoded) = &entry.encoded {
            return encoded.clone();
        }
        let sequence = match (self.is_idempotent, self.identity) {
            (false, _) => Sequence::NONE,
            (true, identity) => {
                let identity = identity.expect("the producer adopts an identity before it encodes");
                let base_sequence = self.next_sequence;
                self.next_sequence = sequence_after(base_sequence, entry.records.len());
                Sequence { producer_id: identity.producer_id, producer_epoch: identity.producer_epoch, base_sequence }
            }
        };
        let encoded = encode_batch(&entry.records, sequence);
        entry.encoded = Some(encoded.clone());
        encoded
    }

    /// The batch was handed to a connection. Gives its id and how many times that has happened.
    pub(crate) fn mark_sent(&mut self, index: usize) -> (u64, u32) {
        let entry = &mut self.entries[index];
        assert!(entry.encoded.is_some(), "a batch is encoded before it is sent");
        entry.state = EntryState::Sent;
        entry.attempts += 1;
        (entry.id, entry.attempts)
    }

    /// The batch could not be handed to a connection; it had no attempt.
    pub(crate) fn not_sent(&mut self, index: usize, error: &CallError, not_before: Duration) {
        let entry = &mut self.entries[index];
        entry.failures.add(error);
        entry.state = EntryState::Waiting { not_before };
        if !error.is_retriable() {
            self.give_up(index);
        }
    }

    /// Attempts of a batch so far, by its id.
    pub(crate) fn attempts_of(&self, id: u64) -> u32 {
        self.entries.iter().find(|entry| entry.id == id).map_or(0, |entry| entry.attempts)
    }

    /// The broker answered, or did not. A failed batch waits until `not_before` if another attempt is left.
    pub(crate) fn answered(
        &mut self,
        id: u64,
        result: Result<Option<i64>, CallError>,
        not_before: Duration,
    ) -> Settled {
        let position = self.entries.iter().position(|entry| entry.id == id);
        let index = position.expect("a sent batch stays until it is answered");
        let entry = &self.entries[index];
        assert_eq!(entry.state, EntryState::Sent, "only a sent batch is answered");
        let was_ambiguous = entry.failures.unknown.is_some();
        let error = match result {
            Ok(first_offset) => {
                self.acknowledge(index, first_offset);
                return if was_ambiguous { Settled::AcknowledgedAgain } else { Settled::Acknowledged };
            }
            Err(error) => error,
        };
        if error.code() == Some(DUPLICATE_SEQUENCE_NUMBER) && self.is_idempotent {
            self.acknowledge(index, None);
            return Settled::AcknowledgedAgain;
        }
        let entry = &mut self.entries[index];
        entry.failures.add(&error);
        entry.state = EntryState::Waiting { not_before };
        self.is_draining |= self.is_idempotent;
        match error.code() {
            Some(OUT_OF_ORDER_SEQUENCE_NUMBER) if self.is_idempotent && index > 0 => {}
            Some(OUT_OF_ORDER_SEQUENCE_NUMBER) if self.is_idempotent => self.reset_to(Reset::NextEpoch),
            Some(INVALID_PRODUCER_EPOCH | UNKNOWN_PRODUCER_ID) if self.is_idempotent => {
                self.reset_to(Reset::NewProducer);
            }
            Some(_) | None if error.is_retriable() => {}
            Some(_) | None => self.give_up(index),
        }
        Settled::Failed
    }

    /// Ends a batch that nobody will answer (`acks=0`).
    pub(crate) fn abandon_unanswered(&mut self, id: u64, reason: &str) {
        let position = self.entries.iter().position(|entry| entry.id == id);
        let index = position.expect("a sent batch stays until it is settled");
        self.entries[index].failures.unknown.get_or_insert_with(|| reason.to_string());
        self.give_up(index);
    }

    fn acknowledge(&mut self, index: usize, first_offset: Option<i64>) {
        self.is_established = true;
        if let Some(entry) = self.entries.remove(index) {
            entry.reply(Outcome::Done, first_offset);
        }
    }

    /// Settles a batch without success. With idempotence its sequence numbers leave a gap, so the rest starts anew.
    fn give_up(&mut self, index: usize) {
        let Some(entry) = self.entries.remove(index) else { return };
        if self.is_idempotent && entry.encoded.is_some() {
            self.is_draining = true;
            self.reset_to(Reset::NextEpoch);
        }
        entry.end();
    }

    fn reset_to(&mut self, reset: Reset) {
        self.reset = self.reset.max(reset);
    }
}

/// A partition has started anew.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResetDone {
    /// The producer id that must not be used any more, if any.
    pub(crate) forgotten: Option<i64>,
}

impl Entry {
    fn end(self) {
        let outcome = self.failures.outcome();
        self.reply(outcome, None);
    }

    fn reply(self, outcome: Outcome, first_offset: Option<i64>) {
        // Whoever submitted the batch may have lost interest in it.
        drop(self.reply.send(Delivery { outcome, first_offset, attempts: self.attempts }));
    }
}

/// Sequence numbers go on with 0 behind the largest.
fn sequence_after(sequence: i32, count: usize) -> i32 {
    ((i64::from(sequence) + count as i64) % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap_to_zero() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 5), 3);
        assert_eq!(sequence_after(7, 3), 10);
    }
}
