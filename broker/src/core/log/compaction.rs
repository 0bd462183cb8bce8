//! When a log is compacted, and what follows from it: a log that is the only replica, with one queue. The newest segment
//! is left alone, so the end of the log and its newest record stay. A pass runs beside the log; what it has written
//! takes the place of the old segments at once, and their files go. Not here: what is kept (`cleaner`), the files (`store`).

use std::io;

use super::entries::Entries;
use super::epochs::EpochStart;
use super::index::IndexEntry;
use super::{DiskEffect, Log, Replication, Seal, Segment};
use crate::core::types::{Now, Offset, Position, QueueId};

/// Bytes that the key map of a pass may take; what does not fit waits for the next pass.
const KEY_MAP_BYTES_MAX: usize = 32 << 20;
/// The most passes whose end is remembered, for the tombstones that they met first.
const HORIZONS_MAX: usize = 64;

/// How a log is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionSettings {
    /// How long a tombstone stays once everything before it with its key is gone, in milliseconds.
    pub delete_retention_ms: i64,
    /// The least share of bytes that were never compacted at which the log is, in millionths.
    pub dirty_millionths: u32,
}

/// The range of positions that a cleaned segment stands for. The segment begins inside it and may end before it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanedRange {
    /// Where the range begins.
    pub from: Position,
    /// Where it ends: the next segment's range begins there.
    pub to: Position,
    /// How often its bytes were cleaned; of two that overlap, the one with the greater number counts.
    pub generation: u32,
}

/// A pass that ended: every tombstone below the offset has no older record with its key any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Horizon {
    /// The offset.
    pub below: Offset,
    /// When, in milliseconds of wall time.
    pub at_ms: i64,
}

/// What a pass is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionPlan {
    /// The log's queue.
    pub queue: QueueId,
    /// What is compacted, oldest first.
    pub segments: Vec<PlannedSegment>,
    /// Segments are joined while they have at most this many bytes.
    pub segment_bytes: u64,
    /// Everything below was compared by an earlier pass.
    pub clean_below: Offset,
    /// Tombstones below may go.
    pub tombstones_below: Offset,
    /// Records below are gone for everybody.
    pub log_start: Offset,
    /// The passes so far, for the indexes that this one writes.
    pub horizons: Vec<Horizon>,
    /// Bytes that the map of keys may take.
    pub key_map_bytes_max: usize,
}

/// A segment that a pass reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedSegment {
    /// Its base position.
    pub base: Position,
    /// Bytes of its file.
    pub length: u64,
    /// The positions that it stands for.
    pub range: CleanedRange,
    /// Whether it has batches that were never compared.
    pub is_dirty: bool,
}

/// What a pass has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compaction {
    /// The segments that are in place, each instead of those in its range.
    pub cleaned: Vec<CleanedSegment>,
    /// Every record below was compared.
    pub covered_below: Offset,
    /// Whether nothing that should have gone is left.
    pub is_complete: bool,
    /// Why the pass ended early.
    pub error: Option<io::ErrorKind>,
}

/// A segment that took the place of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanedSegment {
    /// Its base position.
    pub base: Position,
    /// Bytes of its file.
    pub length: u64,
    /// The positions that it stands for.
    pub range: CleanedRange,
    /// Largest timestamp, in milliseconds; -1 is none.
    pub max_timestamp: i64,
    /// Its batches.
    pub entries: Vec<IndexEntry>,
    /// The epochs of its frames.
    pub epochs: Vec<EpochStart>,
}

/// A log's state between passes.
#[derive(Debug, Default)]
pub(super) struct Compacting {
    pub(super) in_flight: bool,
    /// Oldest first; offsets and times both rise.
    pub(super) horizons: Vec<Horizon>,
    /// Everything below was read by a pass, complete or not.
    pub(super) attempted_below: Offset,
    /// A pass left something behind: the next one compares everything anew.
    pub(super) starts_over: bool,
}

impl CompactionPlan {
    /// Runs of segments that become one each.
    pub(crate) fn groups(&self) -> Vec<&[PlannedSegment]> {
        let (mut groups, mut begin, mut bytes) = (Vec::new(), 0, 0);
        for (number, segment) in self.segments.iter().enumerate() {
            if number > begin && bytes + segment.length > self.segment_bytes {
                groups.push(&self.segments[begin..number]);
                (begin, bytes) = (number, 0);
            }
            bytes += segment.length;
        }
        groups.push(&self.segments[begin..]);
        groups.retain(|group| !group.is_empty());
        groups
    }
}

impl Log {
    /// How urgently the log wants compaction: the share of its bytes that were never compacted, in millionths; none
    /// where there is not enough, or where it cannot be compacted now.
    pub fn compaction_due(&self) -> Option<u32> {
        let settings = self.settings.compaction?;
        let queue = self.compactable_queue()?;
        let candidates = self.compactable();
        let dirty_from = self.dirty_from(queue)?;
        let total: u64 = candidates.iter().map(|segment| segment.length).sum();
        let dirty: u64 = candidates.iter().filter(|s| s.end() > dirty_from).map(|s| s.length).sum();
        if dirty == 0 {
            return None;
        }
        let share = (u128::from(dirty) * 1_000_000 / u128::from(total.max(1))) as u32;
        (share >= settings.dirty_millionths).then_some(share)
    }

    /// Starts a pass.
    ///
    /// # Panics
    /// Where `compaction_due` says that none is due.
    pub fn compact(&mut self, now: Now, effects: &mut Vec<DiskEffect>) {
        let settings = self.settings.compaction.expect("a pass is due only where the settings ask for it");
        let id = self.compactable_queue().expect("a pass is due only where there is a queue");
        let dirty_from = self.dirty_from(id).expect("a pass is due only where something was never compacted");
        let state = &self.compacting;
        let expired = |horizon: &&Horizon| horizon.at_ms.saturating_add(settings.delete_retention_ms) < now.wall_ms;
        let tombstones_below = state.horizons.iter().rfind(expired).map_or(Offset(0), |horizon| horizon.below);
        let clean_below = match state.starts_over {
            true => Offset(0),
            false => state.horizons.last().map_or(Offset(0), |horizon| horizon.below),
        };
        let starts_over = state.starts_over;
        let planned = |segment: &&Segment| PlannedSegment {
            base: segment.base,
            length: segment.length,
            range: segment.range(),
            is_dirty: starts_over || segment.end() > dirty_from,
        };
        let plan = CompactionPlan {
            queue: id,
            segments: self.compactable().iter().map(planned).collect(),
            segment_bytes: self.settings.segment_bytes,
            clean_below,
            tombstones_below,
            log_start: self.log_start_offset(id),
            horizons: state.horizons.clone(),
            key_map_bytes_max: KEY_MAP_BYTES_MAX,
        };
        self.compacting.in_flight = true;
        effects.push(DiskEffect::Compact { log: self.id, plan: Box::new(plan) });
    }

    /// Whether a pass is under way.
    pub fn is_compacting(&self) -> bool {
        self.compacting.in_flight
    }

    /// Takes what a pass has done.
    pub(super) fn on_compacted(&mut self, compaction: Compaction, now: Now, effects: &mut Vec<DiskEffect>) {
        self.compacting.in_flight = false;
        for cleaned in compaction.cleaned {
            self.replace_segments(cleaned, effects);
        }
        let state = &mut self.compacting;
        state.attempted_below = state.attempted_below.max(compaction.covered_below);
        state.starts_over = !compaction.is_complete;
        if compaction.is_complete {
            state.horizons.push(Horizon { below: compaction.covered_below, at_ms: now.wall_ms });
            // A tombstone whose pass is forgotten counts from the next one on: it stays longer, never shorter.
            let surplus = state.horizons.len().saturating_sub(HORIZONS_MAX);
            state.horizons.drain(..surplus);
        }
    }

    fn replace_segments(&mut self, cleaned: CleanedSegment, effects: &mut Vec<DiskEffect>) {
        let CleanedSegment { base, length, range, max_timestamp, entries, epochs } = cleaned;
        let first = self.segments.partition_point(|segment| segment.base < range.from);
        let behind = self.segments.partition_point(|segment| segment.base < range.to);
        let bases: Vec<Position> = self.segments.range(first..behind).map(|segment| segment.base).collect();
        let segment = Segment { base, length, max_timestamp, seal: Seal::Done, cleaned: Some(range) };
        self.segments.drain(first..behind);
        self.segments.insert(first, segment);
        self.epochs.replace(range.from, range.to, &epochs);
        for (_, queue) in self.queues.iter_mut() {
            let before = queue.entries.iter().take_while(|entry| entry.position < range.from);
            let after = queue.entries.since_position(range.to);
            let all: Entries = before.chain(entries.iter().copied()).chain(after).collect();
            queue.entries = all;
            queue.entries.drop_below(queue.log_start);
        }
        // Positions below are given anew: what memory and reads under way have of them is something else.
        self.cache.drop_below(range.to);
        self.opening += 1;
        self.start = self.segments.front().map_or(self.start, |segment| segment.base);
        effects.push(DiskEffect::RemoveReplaced { log: self.id, bases });
    }

    /// The queue, where the log can be compacted now.
    fn compactable_queue(&self) -> Option<QueueId> {
        let is_free = self.is_online() && self.rework.is_none() && !self.compacting.in_flight;
        let is_sound = self.corrupt_from.is_none() && !self.unlisted_fenced;
        if !is_free || !is_sound || self.replication != Replication::Alone || self.queues.len() != 1 {
            return None;
        }
        self.queues.iter().find(|(_, queue)| !queue.fenced).map(|(id, _)| id)
    }

    /// The oldest segments, as far as they are sealed and confirmed, without the newest of all.
    fn compactable(&self) -> Vec<&Segment> {
        let older = self.segments.len().saturating_sub(1);
        let is_settled = |segment: &&Segment| segment.seal == Seal::Done && segment.end() <= self.watermark;
        self.segments.iter().take(older).take_while(is_settled).collect()
    }

    /// Where the first batch stands that no pass has read.
    fn dirty_from(&self, queue: QueueId) -> Option<Position> {
        let state = self.queues.get(queue)?;
        state.entries.since(self.compacting.attempted_below).next().map(|entry| entry.position)
    }
}

impl Segment {
    pub(super) fn end(&self) -> Position {
        self.base.plus(self.length)
    }

    /// The positions that it stands for.
    fn range(&self) -> CleanedRange {
        self.cleaned.unwrap_or(CleanedRange { from: self.base, to: self.end(), generation: 0 })
    }
}
