//! Rebuilds a log's state from its indexes and frames, oldest first: what `store`'s recovery drives.
//! It decides which frame continues the log, and which queues corruption fences. Not here: reading files.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::compaction::{CleanedRange, Horizon};
use super::epochs::Epochs;
use super::frame::{Frame, FrameKind};
use super::index::{IndexHead, IndexWriter, IndexedQueue, QueueState};
use super::{IndexEntry, Recovered, RecoveredQueue, RecoveredSegment, RecoveryReport};
use crate::core::batch::BatchHeader;
use crate::core::types::{LogId, Position, QueueId};
use crate::mutant::Mutant;

/// The state of a log as far as it has been read.
#[derive(Debug)]
pub(crate) struct Replay {
    log: LogId,
    mutant: Option<Mutant>,
    epochs: Epochs,
    begin: Position,
    /// Where the first corrupt bytes begin.
    corrupt_from: Option<Position>,
    /// Everything below is accounted for.
    pub(crate) end: Position,
    /// Newest position that is known to be durable.
    pub(crate) synced_known: Position,
    queues: BTreeMap<QueueId, ReplayQueue>,
    /// A bad frame was passed: queues of which nothing is known may have been in it.
    unlisted_fenced: bool,
    segments: Vec<RecoveredSegment>,
    /// The newest list of compaction's passes.
    horizons: Vec<Horizon>,
    /// The segment being read, or the one before it, was compacted, and so offsets may be missing.
    may_skip: bool,
    pub(crate) report: RecoveryReport,
}

#[derive(Debug, Default)]
struct ReplayQueue {
    state: RecoveredQueue,
    /// A bad frame was passed, and no later frame of this queue has shown yet that it was not this queue's.
    suspect: bool,
}

impl Replay {
    /// Nothing known yet; the first segment begins at `begin`.
    pub(crate) fn new(log: LogId, mutant: Option<Mutant>, begin: Position) -> Replay {
        Replay {
            log,
            mutant,
            epochs: Epochs::default(),
            begin,
            corrupt_from: None,
            end: begin,
            synced_known: begin,
            queues: BTreeMap::new(),
            unlisted_fenced: false,
            segments: Vec::new(),
            horizons: Vec::new(),
            may_skip: false,
            report: RecoveryReport::default(),
        }
    }

    /// Takes the state of all queues from an index; the entries too if the segment is there.
    pub(crate) fn load_index(&mut self, head: IndexHead, queues: Vec<IndexedQueue>, with_entries: bool) {
        for known in head.epochs {
            self.epochs.start(known.epoch, known.start);
        }
        self.synced_known = self.synced_known.max(head.end);
        if !with_entries {
            self.begin = head.end;
        }
        self.end = head.end;
        self.may_skip = false;
        if head.horizons.last() > self.horizons.last() {
            self.horizons = head.horizons;
        }
        self.unlisted_fenced |= head.unlisted_fenced;
        for indexed in queues {
            let begins_at = indexed.entries.first().map_or(indexed.next_offset, |e| e.base_offset);
            let known = self.queues.contains_key(&indexed.queue);
            let queue = self.queues.entry(indexed.queue).or_default();
            let state = &mut queue.state;
            if queue.suspect {
                state.fenced |= begins_at > state.next_offset.max(indexed.log_start);
                queue.suspect = false;
            }
            if !known {
                state.log_start = match (with_entries, head.cleaned) {
                    (true, None) => begins_at,
                    // Compaction leaves the log start where it was.
                    (true, Some(_)) => indexed.log_start,
                    (false, _) => indexed.next_offset,
                };
            }
            state.log_start = state.log_start.max(indexed.log_start);
            state.next_offset = indexed.next_offset;
            state.fenced |= indexed.fenced;
            // The defect (KAFKA-5435): what an index holds of producers is gone with the segment before.
            if self.mutant != Some(Mutant::ProducerSnapshotsRemoved) {
                state.producers = indexed.producers;
            }
            if with_entries {
                indexed.entries.into_iter().for_each(|entry| state.entries.push(entry));
            }
        }
    }

    /// Whether a valid frame can be this log's: not one of an older leader, left behind where a tail was cut.
    pub(crate) fn is_current(&self, frame: &Frame) -> bool {
        frame.epoch >= self.epochs.newest()
    }

    /// Takes a valid mark.
    pub(crate) fn accept_mark(&mut self, frame: &Frame) {
        self.take_frame(frame);
    }

    /// Takes a valid batch; refuses one that repeats offsets of its queue, changing nothing.
    pub(crate) fn accept_batch(&mut self, frame: &Frame, header: &BatchHeader) -> bool {
        let first_seen = !self.queues.contains_key(&frame.queue);
        let queue = self.queues.entry(frame.queue).or_default();
        let state = &mut queue.state;
        if first_seen {
            (state.next_offset, state.log_start) = (header.base_offset, header.base_offset);
            state.fenced = self.unlisted_fenced && header.base_offset.0 > 0;
        }
        if header.base_offset < state.next_offset {
            return false;
        }
        let is_cleaned = frame.kind == FrameKind::Cleaned;
        state.fenced |= header.base_offset > state.next_offset && !is_cleaned && !self.may_skip;
        self.may_skip = is_cleaned;
        queue.suspect = false;
        state.entries.push(IndexEntry {
            position: frame.position,
            base_offset: header.base_offset,
            max_timestamp: header.max_timestamp,
            last_offset_delta: header.last_offset_delta.max(0) as u32,
            size: frame.length,
        });
        state.next_offset = header.next_offset();
        let end = frame.position.plus(frame.total_bytes());
        if self.mutant != Some(Mutant::WindowNotRecovered) {
            state.producers.record(header, header.base_offset, end, Duration::ZERO);
        }
        self.take_frame(frame);
        true
    }

    /// Passes a frame whose batch is corrupt: its queue is fenced, the others are intact.
    pub(crate) fn pass_bad_batch(&mut self, frame: &Frame) {
        self.queues.entry(frame.queue).or_default().state.fenced = true;
        self.report.corruptions += 1;
        self.corrupt_from.get_or_insert(frame.position);
        self.take_frame(frame);
    }

    /// Passes bytes up to `end` of which no frame tells whose they were.
    pub(crate) fn pass_bad_bytes(&mut self, end: Position) {
        self.report.corruptions += 1;
        self.corrupt_from.get_or_insert(self.end);
        self.unlisted_fenced = true;
        for queue in self.queues.values_mut() {
            queue.suspect = true;
        }
        self.end = end;
    }

    /// Nothing tells what lies before the first segment.
    pub(crate) fn lack_history(&mut self) {
        self.report.corruptions += 1;
        self.corrupt_from.get_or_insert(self.begin);
        self.unlisted_fenced = true;
    }

    /// Whether the newest batch was one that compaction kept.
    pub(crate) fn is_in_cleaned(&self) -> bool {
        self.may_skip
    }

    /// Passes a segment of which compaction kept nothing.
    pub(crate) fn pass_emptied(&mut self) {
        self.may_skip = true;
    }

    /// Ends a segment at the current end; a sealed one's index gives its largest timestamp.
    pub(crate) fn end_segment(&mut self, base: Position, sealed: Option<i64>, cleaned: Option<CleanedRange>) {
        let in_segment = |q: &ReplayQueue| q.state.entries.since_position(base).map(|e| e.max_timestamp).max();
        let max_timestamp = match sealed {
            Some(max_timestamp) => max_timestamp,
            None => self.queues.values().filter_map(in_segment).max().unwrap_or(-1),
        };
        let length = self.end.0 - base.0;
        self.segments.push(RecoveredSegment { base, length, max_timestamp, sealed: sealed.is_some(), cleaned });
    }

    /// Whether it is still open which queues corruption has hit; until then no index can be written.
    pub(crate) fn has_suspects(&self) -> bool {
        self.queues.values().any(|q| q.suspect)
    }

    /// The index of the segment that ended last.
    pub(crate) fn index_of_last_segment(&self) -> Bytes {
        assert!(!self.has_suspects(), "an index says of every queue whether it is fenced");
        let segment = self.segments.last().expect("a segment was just ended");
        let mut writer = IndexWriter::new(IndexHead {
            base: segment.base,
            end: self.end,
            max_timestamp: segment.max_timestamp,
            epochs: self.epochs.between(segment.base, self.end),
            unlisted_fenced: self.unlisted_fenced,
            cleaned: segment.cleaned,
            horizons: Vec::new(),
        });
        for (id, queue) in &self.queues {
            let state = &queue.state;
            let (next_offset, log_start) = (state.next_offset, state.log_start);
            let indexed = QueueState { next_offset, log_start, fenced: state.fenced, producers: &state.producers };
            writer.queue(*id, indexed, state.entries.since_position(segment.base));
        }
        writer.finish()
    }

    /// Marks segments up to this one as sealed, their indexes having been written.
    pub(crate) fn mark_sealed(&mut self, base: Position) {
        for segment in &mut self.segments {
            segment.sealed |= segment.base == base;
        }
    }

    /// Everything has been read, and the tail made durable.
    pub(crate) fn finish(mut self) -> Recovered {
        let mut queues = BTreeMap::new();
        for (id, mut queue) in self.queues {
            queue.state.fenced |= queue.suspect;
            if self.mutant == Some(Mutant::WindowNotRecovered) {
                queue.state.producers = Default::default();
            }
            self.report.producers += queue.state.producers.count() as u64;
            queues.insert(id, queue.state);
        }
        Recovered {
            log: self.log,
            epochs: self.epochs,
            segments: self.segments,
            start: self.begin,
            end: self.end,
            corrupt_from: self.corrupt_from,
            queues,
            unlisted_fenced: self.unlisted_fenced,
            horizons: self.horizons,
            report: self.report,
        }
    }

    fn take_frame(&mut self, frame: &Frame) {
        // The defect (KAFKA-16541): only what a sealed segment's index says of epochs has reached the disk.
        if self.mutant != Some(Mutant::EpochsNotSynced) {
            self.epochs.start(frame.epoch, frame.position);
        }
        self.synced_known = self.synced_known.max(frame.synced);
        self.end = frame.position.plus(frame.total_bytes());
    }
}
