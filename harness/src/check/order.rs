//! The version order: for each queue, what was sent, what was read and where it lies, built once from a history and read
//! by every checker. Works on runs, never on single records, in sorted vectors. Pure.
//! Not here: any judgement. Start at `VersionOrder::of`, then `QueueOrder`.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Range;

use super::ranges::Ranges;
use super::steps::Misstep;
use super::strands::{Strand, Strands};
use crate::history::{Call, History, OffsetQuery, Operation, Outcome, Queue, Run, SeekTarget, Value};

/// The index of a history.
#[derive(Debug)]
pub(super) struct VersionOrder {
    /// Queues that the history names, each with what is known about it.
    pub(super) queues: BTreeMap<Queue, QueueOrder>,
    /// Indices of polls that delivered a record that is not what was sent.
    pub(super) corrupt: Vec<u32>,
    /// Indices of seeks and of questions for an offset.
    pub(super) lookups: Vec<u32>,
    /// Whether any poll belongs to the final reads.
    pub(super) has_final_polls: bool,
}

/// What is known about one queue.
#[derive(Debug, Default)]
pub(super) struct QueueOrder {
    /// Sends, by value; they never overlap.
    pub(super) sends: Vec<Send>,
    /// Runs delivered, in order of the history.
    pub(super) reads: Vec<Read>,
    /// Polls that delivered from the queue, and final polls that had a position on it, in order of the history.
    pub(super) polls: Vec<PollOfQueue>,
    /// Where values lie, as polls and answered sends tell: the version order.
    pub(super) strands: Strands,
    /// Where values lie, as final polls tell.
    pub(super) final_strands: Strands,
    /// Values that any poll delivered.
    pub(super) read_values: Ranges,
    /// Values that a final poll delivered.
    pub(super) final_values: Ranges,
    /// Offsets at which a record was delivered that is not what was sent.
    pub(super) corrupt_offsets: Ranges,
    /// Offsets at which it proves nothing that no record was delivered: those of `corrupt_offsets`, and those whose
    /// record compaction may have taken away; `compacted` adds the latter.
    pub(super) excused_offsets: Ranges,
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
    /// Runs delivered with another timestamp than was sent: index of the read, and the timestamp sent.
    pub(super) mistimed: Vec<(u32, i64)>,
    /// The greatest log start that any deletion justifies.
    pub(super) justified: u64,
    /// Where consumers left their way; `steps` fills it.
    pub(super) missteps: OnceCell<Vec<Misstep>>,
    /// Whether a rotten tail may have been cut; `case` fills it.
    pub(super) has_permitted_loss: OnceCell<bool>,
    /// Indices of reads by first offset, and the length of the longest; made when a read is looked for.
    by_offset: OnceCell<(Vec<u32>, u64)>,
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
    /// Timestamp of the first record.
    first_timestamp_ms: i64,
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
    /// The consumer's number.
    pub(super) client: u32,
    /// Position before the poll, where known.
    pub(super) position: Option<u64>,
    /// Its runs, as a range of `QueueOrder::reads`.
    reads: Range<u32>,
    /// Whether it belongs to the final reads.
    pub(super) is_final: bool,
    /// In microseconds since the run began.
    pub(super) invoked_us: u64,
    /// In microseconds since the run began.
    pub(super) completed_us: u64,
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
        let mut builder = Builder::default();
        for (index, operation) in history.operations.iter().enumerate() {
            let index = u32::try_from(index).map_err(|_| Malformed("more than 4,294,967,295 operations".to_owned()))?;
            if operation.completed_us < operation.invoked_us {
                return Err(Malformed(format!("operation {index} completed before it was invoked")));
            }
            builder.add(index, operation)?;
        }
        let Builder { mut queues, corrupt, lookups, final_client, .. } = builder;
        for index in &lookups {
            let operation = &history.operations[*index as usize];
            if Some(operation.client.0) == final_client {
                add_final_bounds(&mut queues, operation);
            }
        }
        for (queue, order) in &mut queues {
            order.finish(history).map_err(|Malformed(why)| Malformed(format!("{queue:?}: {why}")))?;
        }
        Ok(VersionOrder { queues, corrupt, lookups, has_final_polls: final_client.is_some() })
    }
}

/// The index while operations are added.
#[derive(Default)]
struct Builder {
    queues: BTreeMap<Queue, QueueOrder>,
    corrupt: Vec<u32>,
    lookups: Vec<u32>,
    /// The client of the first final poll.
    final_client: Option<u32>,
    /// Queues of the poll at hand, each with the place of its position, or behind those of its run.
    named: Vec<(Queue, u32)>,
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
        self.final_strands.at(offset..offset + 1).any(|strand| strand.holds(value, offset))
    }

    /// The first read that delivered the value at the offset.
    pub(super) fn reader_of(&self, value: u64, offset: u64) -> Option<&Read> {
        let (by_offset, longest) = self.by_offset.get_or_init(|| {
            let mut by_offset: Vec<u32> = (0..self.reads.len() as u32).collect();
            by_offset.sort_unstable_by_key(|read| (self.reads[*read as usize].first_offset, *read));
            (by_offset, self.reads.iter().map(|read| u64::from(read.count)).max().unwrap_or(0))
        });
        let reach = offset.saturating_sub(*longest);
        let from = by_offset.partition_point(|read| self.reads[*read as usize].first_offset < reach);
        let near = by_offset[from..].iter().take_while(|read| self.reads[**read as usize].first_offset <= offset);
        let holding = near.filter(|read| self.reads[**read as usize].strand().holds(value, offset));
        holding.min().map(|read| &self.reads[*read as usize])
    }

    /// Strands that share an offset with the range.
    pub(super) fn strands_at(&self, offsets: Range<u64>) -> impl Iterator<Item = &Strand> {
        self.strands.at(offsets)
    }

    /// Runs that the poll delivered from the queue.
    pub(super) fn reads_of(&self, poll: &PollOfQueue) -> &[Read] {
        &self.reads[poll.reads.start as usize..poll.reads.end as usize]
    }

    fn send_index(&self, value: u64) -> Option<usize> {
        let after = self.sends.partition_point(|send| send.first_value <= value);
        let index = after.checked_sub(1)?;
        (value < self.sends[index].end_value()).then_some(index)
    }

    fn finish(&mut self, history: &History) -> Result<(), Malformed> {
        self.sends.sort_by_key(|send| send.first_value);
        if let Some(pair) = self.sends.windows(2).find(|pair| pair[0].end_value() > pair[1].first_value) {
            let (one, other) = (pair[0].operation, pair[1].operation);
            return Err(Malformed(format!("operations {one} and {other} send the same value")));
        }
        self.place_reads(history);
        let finals = self.polls.iter().filter(|poll| poll.is_final);
        let of_finals: Vec<Strand> = finals.flat_map(|poll| self.reads_of(poll)).map(Read::strand).collect();
        self.final_strands = Strands::merged(of_finals);
        self.final_values = values_of(&self.final_strands);
        let answered = self.sends.iter().filter_map(|send| {
            let first_offset = send.answered_offset?;
            Some(Strand { first_offset, first_value: send.first_value, count: u64::from(send.count) })
        });
        let read = Strands::merged(self.reads.iter().map(Read::strand).collect());
        self.read_values = values_of(&read);
        self.strands = Strands::merged(read.iter().copied().chain(answered).collect());
        self.hidden_records = self.sends.iter().map(Send::hidden_records).sum();
        self.justified = self.deletions.iter().map(Deletion::justifies).max().unwrap_or(0);
        self.end = self.strands.iter().map(Strand::end).fold(self.end, u64::max);
        Ok(())
    }

    /// Tells each send where it was seen, and notes reads whose timestamp is not what was sent.
    fn place_reads(&mut self, history: &History) {
        let mut finder = Finder::default();
        for poll in &self.polls {
            if poll.is_final {
                self.final_start = self.final_start.or(poll.position.map(|position| (position, poll.invoked_us)));
            }
            for index in poll.reads.clone() {
                let read = &self.reads[index as usize];
                let first = finder.find(&self.sends, read.first_value);
                if let Some(send) = self.sends.get(first).filter(|send| send.first_value <= read.first_value) {
                    let sent_ms = send.timestamp(history, read.first_value);
                    if sent_ms != read.first_timestamp_ms {
                        self.mistimed.push((index, sent_ms));
                    }
                }
                let end_value = read.first_value + u64::from(read.count);
                let mut next = first;
                while let Some(send) = self.sends.get_mut(next).filter(|send| send.first_value < end_value) {
                    next += 1;
                    send.place(read, poll.completed_us);
                }
                finder.note(read.first_value, next);
            }
        }
    }
}

/// Finds the first send that ends past a value; at once where values come in each producer's order.
#[derive(Default)]
struct Finder {
    /// By producer, where its next value is expected.
    hints: Vec<(u32, usize)>,
}

impl Finder {
    fn find(&self, sends: &[Send], value: u64) -> usize {
        let client = Value(value).client().0;
        if let Ok(known) = self.hints.binary_search_by_key(&client, |hint| hint.0) {
            let near = self.hints[known].1;
            let is_past = sends.get(near).is_none_or(|send| send.end_value() > value);
            if is_past && near.checked_sub(1).is_none_or(|before| sends[before].end_value() <= value) {
                return near;
            }
        }
        sends.partition_point(|send| send.end_value() <= value)
    }

    fn note(&mut self, value: u64, next: usize) {
        let client = Value(value).client().0;
        match self.hints.binary_search_by_key(&client, |hint| hint.0) {
            Ok(known) => self.hints[known].1 = next,
            Err(place) => self.hints.insert(place, (client, next)),
        }
    }
}

impl Send {
    /// First value past the batch.
    pub(super) fn end_value(&self) -> u64 {
        self.first_value + u64::from(self.count)
    }

    /// Takes a read of a part of the batch as a sign of where it lies.
    fn place(&mut self, read: &Read, completed_us: u64) {
        // The offset of the batch's first record, which may lie before the run.
        let shifted = i128::from(read.first_offset) + i128::from(self.first_value) - i128::from(read.first_value);
        let Ok(first_offset) = u64::try_from(shifted) else { return };
        self.lowest_offset = Some(self.lowest_offset.map_or(first_offset, |lowest| lowest.min(first_offset)));
        if self.seen.is_none_or(|(_, seen_us)| completed_us < seen_us) {
            self.seen = Some((first_offset, completed_us));
        }
    }

    /// The timestamp that was sent with one of its values.
    fn timestamp(&self, history: &History, value: u64) -> i64 {
        let nth = (value - self.first_value) as usize;
        if nth == 0 {
            return self.first_timestamp_ms;
        }
        match &history.operations[self.operation as usize].call {
            Call::Produce { timestamps_ms, .. } => timestamps_ms[nth],
            Call::Poll { .. }
            | Call::Seek { .. }
            | Call::ListOffset { .. }
            | Call::DeleteRecords { .. }
            | Call::Group { .. }
            | Call::CreateTopic { .. } => unreachable!("a send is made of a produce operation"),
        }
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

impl Deletion {
    /// The greatest log start that it justifies.
    pub(super) fn justifies(&self) -> u64 {
        self.answered.map_or(self.before, |answered| if self.before == u64::MAX { answered } else { self.before })
    }
}

impl Builder {
    fn add(&mut self, index: u32, operation: &Operation) -> Result<(), Malformed> {
        let queues = &mut self.queues;
        let is_done = operation.outcome == Outcome::Done;
        match &operation.call {
            Call::Produce { queue, .. } => {
                let order = queues.entry(*queue).or_default();
                order.sends.push(send(index, operation)?);
            }
            Call::Poll { .. } => self.add_poll(index, operation)?,
            Call::Seek { queue, to, offset } => {
                let order = queues.entry(*queue).or_default();
                order.seeks.push(index);
                self.lookups.push(index);
                let observed = (*offset).and_then(|offset| u64::try_from(offset).ok()).filter(|_| is_done);
                match (to, observed) {
                    (SeekTarget::Beginning, Some(offset)) => {
                        order.starts.push(ObservedOffset { operation: index, offset })
                    }
                    (SeekTarget::End, Some(offset)) => {
                        order.end = order.end.max(offset);
                        order.ends.push(ObservedOffset { operation: index, offset });
                    }
                    (SeekTarget::Beginning | SeekTarget::End, None) => {}
                    (SeekTarget::Offset(_) | SeekTarget::Timestamp(_), _) => {}
                }
            }
            Call::ListOffset { queue, query, offset, .. } => {
                self.lookups.push(index);
                let order = queues.entry(*queue).or_default();
                let observed = (*offset).and_then(|offset| u64::try_from(offset).ok()).filter(|_| is_done);
                match (query, observed) {
                    (OffsetQuery::Earliest, Some(offset)) => {
                        order.starts.push(ObservedOffset { operation: index, offset })
                    }
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
            Call::CreateTopic { .. } | Call::Group { .. } => {}
        }
        Ok(())
    }

    fn add_poll(&mut self, index: u32, operation: &Operation) -> Result<(), Malformed> {
        let Call::Poll { runs, corrupt, positions, is_final } = &operation.call else {
            unreachable!("the caller passes polls alone")
        };
        if *is_final {
            self.final_client = self.final_client.or(Some(operation.client.0));
        }
        let places = positions.iter().map(|position| position.queue).chain(runs.iter().map(|run| run.queue));
        self.named.clear();
        self.named.extend(places.zip(0..));
        self.named.sort_unstable();
        for of_queue in self.named.chunk_by(|one, other| one.0 == other.0) {
            let order = self.queues.entry(of_queue[0].0).or_default();
            let (first_read, mut position) = (order.reads.len() as u32, None);
            for (_, place) in of_queue {
                match (*place as usize).checked_sub(positions.len()) {
                    None => position = u64::try_from(positions[*place as usize].offset).ok(),
                    Some(run) => order.reads.push(read(index, &runs[run])?),
                }
            }
            order.end = order.end.max(position.unwrap_or(0));
            let reads = first_read..read_count(order)?;
            if !*is_final && reads.is_empty() {
                continue;
            }
            order.polls.push(PollOfQueue {
                operation: index,
                client: operation.client.0,
                position,
                reads,
                is_final: *is_final,
                invoked_us: operation.invoked_us,
                completed_us: operation.completed_us,
            });
        }
        if !corrupt.is_empty() {
            self.corrupt.push(index);
        }
        for record in corrupt {
            let Ok(offset) = u64::try_from(record.offset) else { continue };
            let order = self.queues.entry(record.queue).or_default();
            order.corrupt_offsets.insert(offset..offset + 1);
        }
        Ok(())
    }
}

fn values_of(strands: &[Strand]) -> Ranges {
    Ranges::of(strands.iter().map(|strand| strand.first_value..strand.end_value()).collect())
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
        first_timestamp_ms: timestamps_ms[0],
    })
}

fn read_count(order: &QueueOrder) -> Result<u32, Malformed> {
    u32::try_from(order.reads.len()).map_err(|_| Malformed("more than 4,294,967,295 runs of one queue".to_owned()))
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
