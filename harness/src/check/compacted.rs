//! What compaction may take from a queue: a record that a later one with its key supersedes, and one without value once
//! its time is over. The key and whether there is a value follow from the value's number (`plan::keys`), so the
//! history need not tell them. Errs on the side of the broker: what is superseded at any time of the run may be gone at
//! any time of the run. The record that supersedes is owed like any other, so a key never loses its newest record unseen.

use std::collections::{BTreeMap, BTreeSet};

use super::order::{Fate, QueueOrder};
use super::ranges::Ranges;
use crate::history::{History, Queue, Value};
use crate::plan::keys;

/// Marks the offsets of the queue at which a missing record proves nothing.
pub(super) fn excuse(history: &History, queue: Queue, order: &mut QueueOrder, tombstones_stay_ms: Option<u64>) {
    order.excused_offsets = order.corrupt_offsets.clone();
    let Some(stay_ms) = tombstones_stay_ms else { return };
    let ended_us = history.operations.iter().map(|operation| operation.completed_us).max().unwrap_or(0);
    let mut newest = BTreeMap::new();
    let mut placed: Vec<(u64, Value)> = Vec::new();
    for strand in order.strands.iter() {
        placed.extend((strand.first_offset..strand.end()).map(|offset| (offset, Value(strand.value_at(offset)))));
    }
    // A batch of which one record was seen lies there as a whole.
    for send in &order.sends {
        let first_offset = send.placed().map(|(first_offset, _)| first_offset);
        let values = (send.first_value..send.end_value()).map(Value);
        placed.extend(first_offset.into_iter().flat_map(|first| (first..).zip(values.clone())));
    }
    for (offset, value) in &placed {
        let latest = newest.entry(keys::key_of(*value, queue)).or_insert(*offset);
        *latest = (*latest).max(*offset);
    }
    let deleted_unseen = deleted_unseen(queue, order, stay_ms, ended_us);
    let may_go = |(offset, value): &&(u64, Value)| {
        let key = keys::key_of(*value, queue);
        let is_superseded = newest.get(&key).is_some_and(|latest| latest > offset);
        is_superseded
            || deleted_unseen.contains(&key)
            || (keys::is_tombstone(*value, queue) && is_over(order, *value, stay_ms, ended_us))
    };
    let gone = Ranges::of(placed.iter().filter(may_go).map(|(offset, _)| *offset..*offset + 1).collect());
    for part in gone.within(0..u64::MAX) {
        order.excused_offsets.insert(part);
    }
}

/// Keys that a record may have deleted which nobody saw, because it was itself gone before: one of a send without answer,
/// or a copy of one that was sent again.
fn deleted_unseen(queue: Queue, order: &QueueOrder, stay_ms: u64, ended_us: u64) -> BTreeSet<String> {
    let unseen = order.sends.iter().filter(|send| match send.fate {
        Fate::Acknowledged => send.attempts > 1,
        Fate::Unknown => true,
        Fate::Refused => false,
    });
    let values = unseen.flat_map(|send| (send.first_value..send.end_value()).map(Value));
    let deleting =
        values.filter(|value| keys::is_tombstone(*value, queue) && is_over(order, *value, stay_ms, ended_us));
    deleting.map(|value| keys::key_of(value, queue)).collect()
}

/// Whether a record without value may have been there for as long as it must.
fn is_over(order: &QueueOrder, value: Value, stay_ms: u64, ended_us: u64) -> bool {
    let sent_us = order.send_of(value.0).map_or(0, |send| send.invoked_us);
    ended_us.saturating_sub(sent_us) >= stay_ms.saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{QUEUE, Sample};
    use super::*;
    use crate::history::ClientId;

    /// The first sequences of two values of the samples' client, one of which is a tombstone or not, with one key.
    fn pair(second_deletes: bool) -> (u64, u64) {
        let value = |sequence| Value::new(ClientId(0), sequence);
        let is_last = |n: u64| keys::is_tombstone(value(n), QUEUE) == second_deletes;
        let (first, second) = (0..60)
            .flat_map(|first| (first + 1..60).map(move |second| (first, second)))
            .find(|(first, second)| {
                keys::key_of(value(*first), QUEUE) == keys::key_of(value(*second), QUEUE) && is_last(*second)
            })
            .expect("there are fewer keys than values");
        (first, second)
    }

    fn compacted(sample: Sample, stay_ms: u64) -> Sample {
        let mut sample = sample;
        sample.context.topics[0].compaction = Some(stay_ms);
        sample
    }

    #[test]
    fn a_superseded_record_may_go_and_the_one_that_supersedes_it_may_not() {
        let (first, second) = pair(false);
        let sent = || Sample::new().sent(first, 1, 0).sent(second, 1, 1);
        compacted(sent().last(0, &[(second, 1, 1)]), 1 << 40).expect_clean();
        sent().last(0, &[(second, 1, 1)]).expect(&[("lost-write", 1), ("poll-skip", 1), ("unseen", 1)], &[]);
        compacted(sent().last(0, &[(first, 1, 0)]), 1 << 40).expect(&[("unseen", 1)], &[]);
    }

    #[test]
    fn a_tombstone_stays_for_its_time() {
        let (first, second) = pair(true);
        let sent = || Sample::new().sent(first, 1, 0).sent(second, 1, 1).last(0, &[]);
        compacted(sent(), 1 << 40).expect(&[("unseen", 1)], &[]);
        compacted(sent(), 0).expect_clean();
    }

    #[test]
    fn a_tombstone_without_answer_may_have_deleted_its_key() {
        let (first, second) = pair(true);
        let sent = || Sample::new().sent(first, 1, 0).unknown(second, 1).last(0, &[]);
        compacted(sent(), 0).expect_clean();
        compacted(sent(), 1 << 40).expect(&[("unseen", 1)], &[]);
    }
}
