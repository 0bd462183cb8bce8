//! The version order: for each queue, what was sent, what was read and where it lies, built once from a history and read
//! by every checker. Works on runs, never on single records, in sorted vectors. Pure.
//! Not here: any judgement. Start at `VersionOrder::of`, then `QueueOrder`.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ranges::Ranges;
use crate::history::{Call, History, OffsetQuery, Operation, Outcome, Queue, Run, SeekTarget};

/// The index of a history.
#[derive(Debug)]
pub(super) struct VersionOrder {
    /// Queues that the history names, each with what is known about it.
    pub(super) queues: BTreeMap<Queue, QueueOrder>,
}

/// What is known about one queue.
#[derive(Debug, Default)]
pub(super) struct QueueOrder {
    /// Sends, by value; they never overlap.
    pub(super) sends: Vec<Send>,
    /// Runs delivered, in order of the history.
    pub(super) reads: Vec<Read>,
    /// Polls that had a position on the queue or delivered from it, in order of the history.
    pub(super) polls: Vec<PollOfQueue>,
    /// Where values lie, as polls and answered sends tell: the version order.
    pub(super) strands: Vec<Strand>,
    /// Where values lie, as final polls tell.
    pub(super) final_strands: Vec<Strand>,
    /// Values that any poll delivered.
    pub(super) read_values: Ranges,
    /// Values that a final poll delivered.
    pub(super) final_values: Ranges,
    /// Offsets at which a record was delivered that is not what was sent.
    pub(super) corrupt_offsets: Ranges,
    /// Log starts that the broker told.
    pub(super) starts: Vec<ObservedOffset>,
    /// Log ends that the broker told.
    pub(super) ends: Vec<ObservedOffset>,
    /// DeleteRecords that took or may have taken effect.
    pub(super) deletions: Vec<Deletion>,
    /// The log start at which the final reads began, and a time before it was asked for.
    pub(super) final_start: Option<(u64, u64)>,
    /// The log end that the client of the final reads was told last; it reads up to there.
    pub(super) final_end: Option<u64>,
    /// Indices of seek operations.
    pub(super) seeks: Vec<u32>,
    /// Records that may have been in the log unnoticed at some time: appends whose answer got lost, once per attempt.
    pub(super) hidden_records: u64,
    /// First offset past everything that polls, answers and positions ever named.
    pub(super) end: u64,
}

/// A produce operation.
#[derive(Debug, Clone)]
pub(super) struct Send {
    /// Index of the operation.
    pub(super) operation: u32,
    /// First value.
    pub(super) first_value: u64,
    /// Records.
    pub(super) count: u32,
    /// How it ended.
    pub(super) fate: Fate,
    /// Offset that the broker answered.
    pub(super) answered_offset: Option<u64>,
    /// Offset of the first record by the earliest poll that saw one of the batch, and when that poll completed.
    pub(super) seen: Option<(u64, u64)>,
    /// The lowest offset of the first record that any poll or answer tells.
    pub(super) lowest_offset: Option<u64>,
    /// Attempts.
    pub(super) attempts: u32,
    /// As sent.
    pub(super) acks: i8,
    /// As sent.
    pub(super) idempotent: bool,
    /// In microseconds since the run began.
    pub(super) invoked_us: u64,
    /// In microseconds since the run began.
    pub(super) completed_us: u64,
}

/// How a send ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Acknowledged,
    Refused,
    Unknown,
}

/// A run delivered by a poll.
#[derive(Debug, Clone)]
pub(super) struct Read {
    /// Index of the operation.
    pub(super) operation: u32,
    /// First offset.
    pub(super) first_offset: u64,
    /// First value.
    pub(super) first_value: u64,
    /// Records.
    pub(super) count: u32,
    /// Timestamp of the first record.
    pub(super) first_timestamp_ms: i64,
}

/// What one poll said about the queue.
#[derive(Debug, Clone)]
pub(super) struct PollOfQueue {
    /// Index of the operation.
    pub(super) operation: u32,
    /// Position before the poll, where known.
    pub(super) position: Option<u64>,
    /// Its runs, as a range of `QueueOrder::reads`.
    pub(super) reads: Range<usize>,
    /// Whether it belongs to the final reads.
    pub(super) is_final: bool,
    /// In microseconds since the run began.
    pub(super) invoked_us: u64,
    /// In microseconds since the run began.
    pub(super) completed_us: u64,
}

/// Consecutive values at consecutive offsets, merged over all that saw them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strand {
    /// First offset.
    pub(super) first_offset: u64,
    /// First value.
    pub(super) first_value: u64,
    /// Records.
    pub(super) count: u64,
}

/// An offset that the broker told.
#[derive(Debug, Clone, Copy)]
pub(super) struct ObservedOffset {
    /// Index of the operation.
    pub(super) operation: u32,
    /// The offset.
    pub(super) offset: u64,
}

/// A DeleteRecords that took or may have taken effect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deletion {
    /// Index of the operation.
    pub(super) operation: u32,
    /// First offset that it lets stay; the greatest number where it asked for the high watermark and got no answer.
    pub(super) before: u64,
    /// The log start that the broker answered.
    pub(super) answered: Option<u64>,
    /// In microseconds since the run began.
    pub(super) invoked_us: u64,
}

/// A history that no recorder writes; the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

impl VersionOrder {
    /// Builds the index.
    pub(super) fn of(history: &History) -> Result<VersionOrder, Malformed> {
        let mut queues: BTreeMap<Queue, QueueOrder> = BTreeMap::new();
        let final_client = history.operations.iter().find(|operation| is_final_poll(&operation.call));
        let final_client = final_client.map(|operation| operation.client);
        for (index, operation) in history.operations.iter().enumerate() {
            let index = u32::try_from(index).map_err(|_| Malformed("more than 4,294,967,295 operations".to_owned()))?;
            if operation.completed_us < operation.invoked_us {
                return Err(Malformed(format!("operation {index} completed before it was invoked")));
            }
            add_operation(&mut queues, index, operation)?;
            if Some(operation.client) == final_client {
                add_final_bounds(&mut queues, operation);
            }
        }
        for (queue, order) in &mut queues {
            order.finish().map_err(|Malformed(why)| Malformed(format!("{queue:?}: {why}")))?;
        }
        Ok(VersionOrder { queues })
    }
}

impl QueueOrder {
    /// The send that wrote the value.
    pub(super) fn send_of(&self, value: u64) -> Option<&Send> {
        self.send_index(value).map(|index| &self.sends[index])
    }

    /// Whether a final poll delivered the value at the offset.
    pub(super) fn is_final_at(&self, value: u64, offset: u64) -> bool {
        if !self.final_values.contains(value) {
            return false;
        }
        let after = self.final_strands.partition_point(|strand| strand.first_offset <= offset);
        self.final_strands[..after].iter().rev().any(|strand| strand.holds(value, offset))
    }

    /// The first read that delivered the value at the offset.
    pub(super) fn reader_of(&self, value: u64, offset: u64) -> Option<&Read> {
        self.reads.iter().find(|read| read.strand().holds(value, offset))
    }

    /// Strands that share an offset with the range.
    pub(super) fn strands_at(&self, offsets: Range<u64>) -> impl Iterator<Item = &Strand> {
        let end = self.strands.partition_point(|strand| strand.first_offset < offsets.end);
        self.strands[..end].iter().filter(move |strand| strand.end() > offsets.start)
    }

    fn send_index(&self, value: u64) -> Option<usize> {
        let after = self.sends.partition_point(|send| send.first_value <= value);
        let index = after.checked_sub(1)?;
        (value < self.sends[index].end_value()).then_some(index)
    }

    fn finish(&mut self) -> Result<(), Malformed> {
        self.sends.sort_by_key(|send| send.first_value);
        if let Some(pair) = self.sends.windows(2).find(|pair| pair[0].end_value() > pair[1].first_value) {
            let (one, other) = (pair[0].operation, pair[1].operation);
            return Err(Malformed(format!("operations {one} and {other} send the same value")));
        }
        let mut is_final = vec![false; self.reads.len()];
        for poll_index in 0..self.polls.len() {
            let poll = self.polls[poll_index].clone();
            if poll.is_final {
                is_final[poll.reads.clone()].fill(true);
                self.final_start = self.final_start.or(poll.position.map(|position| (position, poll.invoked_us)));
            }
            for read in poll.reads {
                self.place(read, poll.completed_us);
            }
        }
        let read: Vec<Strand> = self.reads.iter().map(Read::strand).collect();
        let of_final = read.iter().zip(&is_final).filter(|(_, is_final)| **is_final).map(|(strand, _)| *strand);
        self.final_strands = merged(of_final.collect());
        self.final_values = values_of(&self.final_strands);
        let answered = self.sends.iter().filter_map(|send| {
            let first_offset = send.answered_offset?;
            Some(Strand { first_offset, first_value: send.first_value, count: u64::from(send.count) })
        });
        let read = merged(read);
        self.read_values = values_of(&read);
        self.strands = merged(read.into_iter().chain(answered).collect());
        self.hidden_records = self.sends.iter().map(Send::hidden_records).sum();
        self.end = self.strands.iter().map(Strand::end).fold(self.end, u64::max);
        Ok(())
    }

    /// Tells each send of a run where it was seen.
    fn place(&mut self, read_index: usize, completed_us: u64) {
        let read = self.reads[read_index].clone();
        let end_value = read.first_value + u64::from(read.count);
        let mut next = self.sends.partition_point(|send| send.end_value() <= read.first_value);
        while let Some(send) = self.sends.get_mut(next).filter(|send| send.first_value < end_value) {
            next += 1;
            // The offset of the batch's first record, which may lie before the run.
            let shifted = i128::from(read.first_offset) + i128::from(send.first_value) - i128::from(read.first_value);
            let Ok(first_offset) = u64::try_from(shifted) else { continue };
            send.lowest_offset = Some(send.lowest_offset.map_or(first_offset, |lowest| lowest.min(first_offset)));
            if send.seen.is_none_or(|(_, seen_us)| completed_us < seen_us) {
                send.seen = Some((first_offset, completed_us));
            }
        }
    }
}

impl Send {
    /// First value past the batch.
    pub(super) fn end_value(&self) -> u64 {
        self.first_value + u64::from(self.count)
    }

    fn hidden_records(&self) -> u64 {
        let attempts = match self.fate {
            Fate::Acknowledged => self.attempts.saturating_sub(1),
            Fate::Unknown => self.attempts.max(1),
            Fate::Refused => 0,
        };
        u64::from(self.count) * u64::from(attempts)
    }

    /// Offset of the first record and the time from which on it surely existed: by its answer, or because a part of the
    /// batch, which is stored whole or not at all, was seen.
    pub(super) fn placed(&self) -> Option<(u64, u64)> {
        match (self.fate, self.answered_offset) {
            (Fate::Acknowledged, Some(offset)) => Some((offset, self.completed_us)),
            (Fate::Acknowledged | Fate::Refused | Fate::Unknown, _) => self.seen,
        }
    }
}

impl Read {
    /// The run.
    pub(super) fn strand(&self) -> Strand {
        Strand { first_offset: self.first_offset, first_value: self.first_value, count: u64::from(self.count) }
    }
}

impl Strand {
    /// First offset past it.
    pub(super) fn end(&self) -> u64 {
        self.first_offset + self.count
    }

    /// First value past it.
    pub(super) fn end_value(&self) -> u64 {
        self.first_value + self.count
    }

    /// The value at an offset within it.
    pub(super) fn value_at(&self, offset: u64) -> u64 {
        assert!(offset >= self.first_offset && offset < self.end(), "offset {offset} outside of {self:?}");
        self.first_value + (offset - self.first_offset)
    }

    /// Whether it has the value at the offset.
    pub(super) fn holds(&self, value: u64, offset: u64) -> bool {
        offset >= self.first_offset && offset < self.end() && self.value_at(offset) == value
    }

    /// Equal for strands that continue each other.
    fn diagonal(&self) -> u64 {
        self.first_value.wrapping_sub(self.first_offset)
    }
}

impl Deletion {
    /// The greatest log start that it justifies.
    pub(super) fn justifies(&self) -> u64 {
        self.answered.map_or(self.before, |answered| if self.before == u64::MAX { answered } else { self.before })
    }
}

fn values_of(strands: &[Strand]) -> Ranges {
    Ranges::of(strands.iter().map(|strand| strand.first_value..strand.end_value()).collect())
}

/// Joins strands that overlap or continue each other; sorted by first offset, then value.
fn merged(mut strands: Vec<Strand>) -> Vec<Strand> {
    strands.sort_unstable_by_key(|strand| (strand.diagonal(), strand.first_offset));
    let mut merged: Vec<Strand> = Vec::new();
    for strand in strands {
        match merged.last_mut() {
            Some(last) if last.diagonal() == strand.diagonal() && strand.first_offset <= last.end() => {
                last.count = last.end().max(strand.end()) - last.first_offset;
            }
            Some(_) | None => merged.push(strand),
        }
    }
    merged.sort_unstable_by_key(|strand| (strand.first_offset, strand.first_value));
    merged
}

fn is_final_poll(call: &Call) -> bool {
    matches!(call, Call::Poll { is_final: true, .. })
}

/// What the client of the final reads is told of the bounds within which it reads.
fn add_final_bounds(queues: &mut BTreeMap<Queue, QueueOrder>, operation: &Operation) {
    let Call::ListOffset { queue, query, offset: Some(offset), .. } = &operation.call else { return };
    let (Outcome::Done, Ok(offset)) = (&operation.outcome, u64::try_from(*offset)) else { return };
    let order = queues.entry(*queue).or_default();
    match query {
        OffsetQuery::Earliest => order.final_start = order.final_start.or(Some((offset, operation.invoked_us))),
        OffsetQuery::Latest => order.final_end = Some(offset),
        OffsetQuery::Timestamp(_) => {}
    }
}

fn add_operation(queues: &mut BTreeMap<Queue, QueueOrder>, index: u32, operation: &Operation) -> Result<(), Malformed> {
    let is_done = operation.outcome == Outcome::Done;
    match &operation.call {
        Call::Produce { queue, .. } => {
            let order = queues.entry(*queue).or_default();
            order.sends.push(send(index, operation)?);
        }
        Call::Poll { .. } => add_poll(queues, index, operation)?,
        Call::Seek { queue, to, offset } => {
            let order = queues.entry(*queue).or_default();
            order.seeks.push(index);
            let observed = (*offset).and_then(|offset| u64::try_from(offset).ok()).filter(|_| is_done);
            match (to, observed) {
                (SeekTarget::Beginning, Some(offset)) => order.starts.push(ObservedOffset { operation: index, offset }),
                (SeekTarget::End, Some(offset)) => {
                    order.end = order.end.max(offset);
                    order.ends.push(ObservedOffset { operation: index, offset });
                }
                (SeekTarget::Beginning | SeekTarget::End, None) => {}
                (SeekTarget::Offset(_) | SeekTarget::Timestamp(_), _) => {}
            }
        }
        Call::ListOffset { queue, query, offset, .. } => {
            let order = queues.entry(*queue).or_default();
            let observed = (*offset).and_then(|offset| u64::try_from(offset).ok()).filter(|_| is_done);
            match (query, observed) {
                (OffsetQuery::Earliest, Some(offset)) => order.starts.push(ObservedOffset { operation: index, offset }),
                (OffsetQuery::Latest, Some(offset)) => {
                    order.end = order.end.max(offset);
                    order.ends.push(ObservedOffset { operation: index, offset });
                }
                (OffsetQuery::Earliest | OffsetQuery::Latest, None) => {}
                (OffsetQuery::Timestamp(_), _) => {}
            }
        }
        Call::DeleteRecords { queue, before, low_watermark } => {
            if matches!(operation.outcome, Outcome::Refused(_)) {
                return Ok(());
            }
            let order = queues.entry(*queue).or_default();
            let answered = (*low_watermark).and_then(|start| u64::try_from(start).ok()).filter(|_| is_done);
            let before = u64::try_from(*before).unwrap_or(u64::MAX);
            if let Some(offset) = answered {
                order.starts.push(ObservedOffset { operation: index, offset });
            }
            order.deletions.push(Deletion { operation: index, before, answered, invoked_us: operation.invoked_us });
        }
        Call::CreateTopic { .. } => {}
    }
    Ok(())
}

fn send(index: u32, operation: &Operation) -> Result<Send, Malformed> {
    let Call::Produce { first_value, count, timestamps_ms, first_offset, attempts, acks, idempotent, .. } =
        &operation.call
    else {
        unreachable!("the caller passes produce operations alone")
    };
    if timestamps_ms.len() != *count as usize || *count == 0 {
        let found = timestamps_ms.len();
        return Err(Malformed(format!("operation {index} sends {count} records with {found} timestamps")));
    }
    let fate = match operation.outcome {
        Outcome::Done => Fate::Acknowledged,
        Outcome::Refused(_) => Fate::Refused,
        Outcome::Unknown(_) => Fate::Unknown,
    };
    let answered = (*first_offset).and_then(|offset| u64::try_from(offset).ok());
    let answered_offset = answered.filter(|_| fate == Fate::Acknowledged);
    Ok(Send {
        operation: index,
        first_value: first_value.0,
        count: *count,
        fate,
        answered_offset,
        seen: None,
        lowest_offset: answered_offset,
        attempts: *attempts,
        acks: *acks,
        idempotent: *idempotent,
        invoked_us: operation.invoked_us,
        completed_us: operation.completed_us,
    })
}

fn add_poll(queues: &mut BTreeMap<Queue, QueueOrder>, index: u32, operation: &Operation) -> Result<(), Malformed> {
    let Call::Poll { runs, corrupt, positions, is_final } = &operation.call else {
        unreachable!("the caller passes polls alone")
    };
    let mut named: BTreeMap<Queue, (Option<u64>, Vec<&Run>)> = BTreeMap::new();
    for position in positions {
        named.entry(position.queue).or_default().0 = u64::try_from(position.offset).ok();
    }
    for run in runs {
        named.entry(run.queue).or_default().1.push(run);
    }
    for (queue, (position, runs)) in named {
        let order = queues.entry(queue).or_default();
        let first_read = order.reads.len();
        for run in runs {
            order.reads.push(read(index, run)?);
        }
        order.end = order.end.max(position.unwrap_or(0));
        order.polls.push(PollOfQueue {
            operation: index,
            position,
            reads: first_read..order.reads.len(),
            is_final: *is_final,
            invoked_us: operation.invoked_us,
            completed_us: operation.completed_us,
        });
    }
    for record in corrupt {
        let Ok(offset) = u64::try_from(record.offset) else { continue };
        let order = queues.entry(record.queue).or_default();
        order.corrupt_offsets.insert(offset..offset + 1);
    }
    Ok(())
}

fn read(index: u32, run: &Run) -> Result<Read, Malformed> {
    let first_offset =
        u64::try_from(run.first_offset).map_err(|_| Malformed(format!("operation {index} read a negative offset")))?;
    let is_bounded = run.first_value.0.checked_add(u64::from(run.count)).is_some();
    if run.count == 0 || !is_bounded {
        return Err(Malformed(format!("operation {index} read a run of {} records", run.count)));
    }
    let (first_value, count) = (run.first_value.0, run.count);
    Ok(Read { operation: index, first_offset, first_value, count, first_timestamp_ms: run.first_timestamp_ms })
}
