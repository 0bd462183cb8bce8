//! Reads: whole batches below the high watermark, from the tail cache or from disk, checked when they come from disk.

use bytes::Bytes;

use super::frame::{FRAME_BYTES, FrameCheck, check_frame};
use super::{DiskPiece, IndexEntry, Log, Queue, ReadError, ReadFailure, ReadPiece, ReadPlan, TimestampLookup};
use crate::core::types::{LeaderEpoch, Offset, Position, QueueId};
use crate::mutant::Mutant;

/// The longest single read from disk, in bytes, unless one batch is longer.
const DISK_PIECE_BYTES_MAX: usize = 1 << 20;
/// The longest with frames of other queues in it. All of it is in memory until it is checked.
const GAPPY_PIECE_BYTES_MAX: usize = 256 << 10;
/// What of other queues is read along rather than read around: about what a disk reads while another read begins.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// So many bytes of other queues, or so many reads, are enough for one plan.
const PLAN_WASTE_BYTES_MAX: u64 = 1 << 20;
const PLAN_READS_MAX: u64 = 256;

/// What a plan asks of the disk: reads, and bytes of other queues that are read along.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    reads: u64,
    waste: u64,
}

impl Log {
    /// Plans a read from the batch that holds `offset`, of at most `bytes_max` bytes of batches; `at_least_one` lets the
    /// first batch exceed them. Empty at the high watermark.
    pub fn read(
        &self,
        queue: QueueId,
        offset: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<ReadPlan, ReadError> {
        let mut plan = ReadPlan { next_offset: offset, ..ReadPlan::default() };
        let mut cost = Cost::default();
        let Some(state) = self.readable(queue)? else {
            if offset == Offset(0) {
                return Ok(plan);
            }
            return Err(out_of_range(offset, &Queue::default()));
        };
        if offset < state.log_start || offset > state.next_offset {
            return Err(out_of_range(offset, state));
        }
        // The defect (RocketMQ #8239): what is in the index is given out, confirmed or not.
        let reads_all = self.mutant == Some(Mutant::ReadsUnconfirmed);
        let readable_below = if reads_all { state.next_offset } else { state.high_watermark };
        for entry in state.entries.since(offset) {
            let size = entry.size as usize;
            let excess = plan.bytes + size > bytes_max && !(at_least_one && plan.bytes == 0);
            if entry.next_offset() > readable_below || excess {
                break;
            }
            if cost.reads >= PLAN_READS_MAX || cost.waste >= PLAN_WASTE_BYTES_MAX {
                plan.is_cut = true;
                break;
            }
            let more = self.add_piece(queue, &entry, &mut plan.pieces);
            (cost.reads, cost.waste) = (cost.reads + more.reads, cost.waste + more.waste);
            plan.bytes += size;
            plan.next_offset = entry.next_offset();
        }
        Ok(plan)
    }

    /// Verifies what a disk read brought, and gives the batches without their frames. Fences the queue on corruption.
    /// `held_bytes` is how much memory the bytes keep for as long as any of them is used.
    pub fn check_read(
        &mut self,
        piece: &DiskPiece,
        bytes: &Bytes,
        held_bytes: usize,
    ) -> Result<Vec<Bytes>, ReadFailure> {
        assert_eq!(piece.log, self.id, "a read is checked by its own log");
        if piece.opening != self.opening {
            return Err(ReadFailure::Gone);
        }
        let verify = self.mutant != Some(Mutant::ChecksumNotVerified);
        let end = piece.position.plus(piece.length as u64);
        let Some(state) = self.queues.get(piece.queue) else { return Err(ReadFailure::Gone) };
        let wanted: Vec<IndexEntry> =
            state.entries.since_position(piece.position).take_while(|entry| entry.position < end).collect();
        if wanted.first().is_none_or(|first| first.position != piece.position) {
            // Freed meanwhile.
            return Err(ReadFailure::Gone);
        }
        let wanted_bytes: usize = wanted.iter().map(|entry| FRAME_BYTES + entry.size as usize).sum();
        // What nobody wants is not kept in memory until the answer is sent.
        let is_gappy = wanted_bytes < held_bytes / 2;
        let mut batches = Vec::with_capacity(wanted.len());
        for entry in wanted {
            let at = (entry.position.0 - piece.position.0) as usize;
            let rest = bytes.get(at..).unwrap_or_default();
            match check_frame(rest, entry.position, verify) {
                FrameCheck::Batch(frame, _) if frame.queue == piece.queue && frame.length == entry.size || !verify => {
                    let batch = bytes.slice(at + FRAME_BYTES..at + FRAME_BYTES + frame.length as usize);
                    batches.push(if is_gappy { Bytes::copy_from_slice(&batch) } else { batch });
                }
                FrameCheck::Batch(..)
                | FrameCheck::Mark(_)
                | FrameCheck::BadBatch(_)
                | FrameCheck::Short(_)
                | FrameCheck::Bad => return Err(self.fail_read(piece, entry.position)),
            }
        }
        Ok(batches)
    }

    /// The earliest batch at or past `from`, below the high watermark, that has a record at or past `timestamp`.
    /// Exact also where timestamps are not monotonic.
    pub fn offset_for_timestamp(
        &self,
        queue: QueueId,
        timestamp: i64,
        from: Offset,
    ) -> Result<TimestampLookup, ReadError> {
        let Some(state) = self.readable(queue)? else {
            return Ok(TimestampLookup::None);
        };
        let from = from.max(state.log_start);
        let below = |e: &IndexEntry| e.next_offset() <= state.high_watermark;
        let Some(entry) = state.entries.since(from).take_while(below).find(|e| e.max_timestamp >= timestamp) else {
            return Ok(TimestampLookup::None);
        };
        let mut pieces = Vec::with_capacity(2);
        self.add_piece(queue, &entry, &mut pieces);
        Ok(TimestampLookup::InBatch { pieces, next_offset: entry.next_offset() })
    }

    /// The greatest epoch at or below `epoch`, and the offset where it ends in a queue; none where every epoch that is
    /// left is greater. A leader's own epoch counts also before its first batch.
    pub fn end_offset_of_epoch(&self, queue: QueueId, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let next_offset = self.log_end_offset(queue);
        if let Some(led) = self.leader_epoch.filter(|led| epoch >= *led) {
            return Some((led, next_offset));
        }
        let (epoch, end) = self.epochs.end_of(epoch, self.end)?;
        let Some(state) = self.queues.get(queue) else { return Some((epoch, Offset(0))) };
        let behind = state.entries.since_position(end).next();
        Some((epoch, behind.map_or(next_offset, |entry| entry.base_offset)))
    }

    /// The largest timestamp of a queue's batches between its log start and its high watermark, in milliseconds.
    pub fn largest_timestamp(&self, queue: QueueId) -> Option<i64> {
        let state = self.queues.get(queue)?;
        let below = |e: &IndexEntry| e.next_offset() <= state.high_watermark;
        state
            .entries
            .since(state.log_start)
            .take_while(below)
            .map(|e| e.max_timestamp)
            .filter(|timestamp| *timestamp >= 0)
            .max()
    }

    /// DeleteRecords: the log start that deleting everything below `before` gives (-1: the high watermark).
    /// Nothing moves yet; `apply_log_start` does once the metadata log has recorded it.
    pub fn deletion_target(&self, queue: QueueId, before: Offset) -> Result<Offset, ReadError> {
        let none = Queue::default();
        let state = self.readable(queue)?.unwrap_or(&none);
        if before == Offset(-1) {
            return Ok(state.high_watermark);
        }
        if before < Offset(0) || before > state.high_watermark {
            return Err(out_of_range(before, state));
        }
        Ok(before.max(state.log_start))
    }

    /// Moves a queue's log start forward; never back, and never past the log's end. `retain` then frees the room.
    pub fn apply_log_start(&mut self, queue: QueueId, offset: Offset) {
        if let Some(state) = self.queues.get_mut(queue) {
            let next_offset = state.next_offset;
            state.advance_log_start(offset.min(next_offset));
        }
    }

    fn readable(&self, queue: QueueId) -> Result<Option<&Queue>, ReadError> {
        if self.is_fenced(queue) {
            return Err(ReadError::QueueFenced);
        }
        Ok(self.queues.get(queue))
    }

    /// Adds a batch to what is read; gives what more that asks of the disk.
    fn add_piece(&self, queue: QueueId, entry: &IndexEntry, pieces: &mut Vec<ReadPiece>) -> Cost {
        if let Some((uncovered, body)) = self.cache.find(entry.position) {
            pieces.push(ReadPiece::Cached(uncovered));
            if !body.is_empty() {
                pieces.push(ReadPiece::Cached(body));
            }
            return Cost::default();
        }
        let length = FRAME_BYTES + entry.size as usize;
        let segment = self.segment_of(entry.position);
        if let Some(ReadPiece::OnDisk(last)) = pieces.last_mut() {
            let gap = entry.position.0 - last.position.plus(last.length as u64).0;
            let joined = (entry.position.0 - last.position.0) as usize + length;
            let longest = if gap == 0 { DISK_PIECE_BYTES_MAX } else { GAPPY_PIECE_BYTES_MAX };
            if last.segment == segment && gap <= GAP_BYTES_MAX && joined <= longest {
                last.length = joined;
                return Cost { reads: 0, waste: gap };
            }
        }
        let at = entry.position.0 - segment.0;
        pieces.push(ReadPiece::OnDisk(DiskPiece {
            log: self.id,
            queue,
            segment,
            at,
            length,
            position: entry.position,
            opening: self.opening,
        }));
        Cost { reads: 1, waste: 0 }
    }

    pub(super) fn segment_of(&self, position: Position) -> Position {
        let behind = self.segments.partition_point(|s| s.base <= position);
        self.segments[behind.checked_sub(1).expect("an entry's segment is kept as long as the entry")].base
    }

    fn fail_read(&mut self, piece: &DiskPiece, position: Position) -> ReadFailure {
        if piece.opening != self.opening || !self.segments.iter().any(|s| s.base == piece.segment) {
            return ReadFailure::Gone;
        }
        let Some(state) = self.queues.get_mut(piece.queue) else {
            return ReadFailure::Gone;
        };
        state.fenced = true;
        self.note_corruption(position);
        ReadFailure::Corrupt { queue: piece.queue, position }
    }
}

fn out_of_range(offset: Offset, state: &Queue) -> ReadError {
    ReadError::OffsetOutOfRange { offset, log_start: state.log_start, high_watermark: state.high_watermark }
}
