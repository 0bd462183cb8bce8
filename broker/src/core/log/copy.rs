//! What replicas of a log need: a leader reads frames as they are, a follower appends them as they come, finds where
//! both part ways by epochs, and cuts what its leader does not have. Positions are the same on every replica.
//! Not here: who leads and who has copied how far (`core::replica`).

use bytes::Bytes;
use thiserror::Error;

use super::frame::{CHECK_BYTES, FRAME_BYTES, FrameCheck, check_frame, with_synced};
use super::index::{IndexHead, IndexWriter, QueueState};
use super::producers::{ProducerState, Producers, Window};
use super::{Availability, DiskEffect, Log, Replication, Rework, Seal};
use crate::core::batch::UNCOVERED_BYTES;
use crate::core::types::{LeaderEpoch, LogId, Now, Position};
use crate::mutant::Mutant;

/// Where frames are to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FramesPlan {
    /// Whole frames, one part behind the other; nothing at the end of what was written.
    Cached(Vec<Bytes>),
    /// To be read with `DiskEffect::Read`, then checked with `Log::check_frames`.
    OnDisk(FramePiece),
}

/// Consecutive bytes of a log on disk, beginning with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePiece {
    /// The log.
    pub log: LogId,
    /// Base position of the segment.
    pub segment: Position,
    /// Where in the segment's file, in bytes.
    pub at: u64,
    /// How many bytes; the last frame may be cut.
    pub length: usize,
    /// Position of the first frame.
    pub position: Position,
    /// Which loading of the log it belongs to.
    pub(crate) opening: u32,
}

/// Why bytes read from disk give no frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FramesFailure {
    /// The log was cut, or the segment removed, while it was read; look again.
    #[error("the log changed while it was read")]
    Gone,
    /// The first frame is longer; read this many bytes.
    #[error("the first frame has {bytes} bytes")]
    Longer {
        /// Bytes of the first frame.
        bytes: usize,
    },
    /// The first frame is not what was written.
    #[error("corruption at position {position}")]
    Corrupt {
        /// Where.
        position: Position,
    },
}

/// Why a follower took no more of its leader's frames; those before were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CopyError {
    /// The log waits to be reopened.
    #[error("the log is offline")]
    Offline,
    /// The bytes are no intact frame that belongs at the log's end.
    #[error("the frame for position {position} is not intact")]
    Corrupt {
        /// Where it should stand.
        position: Position,
    },
    /// The frame does not continue the log: an older epoch, or offsets that the queue has.
    #[error("the frame at position {position} does not continue the log")]
    Discontinued {
        /// Where it should stand.
        position: Position,
    },
}

impl Log {
    /// The greatest epoch at or below `epoch`, and where it ends; -1 and the log's beginning where every epoch is
    /// greater; none where what there was of those below has been freed.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Position)> {
        let before_all = || (self.start == Position(0)).then_some((LeaderEpoch(-1), Position(0)));
        self.epochs.end_of(epoch, self.end).or_else(before_all)
    }

    /// Plans a read of whole frames from a position on, that of a frame: at least one, where one has been written, and
    /// at most about `bytes_max` bytes.
    ///
    /// # Panics
    /// On a position that the log has freed or not reached.
    pub fn read_frames(&self, from: Position, bytes_max: usize) -> FramesPlan {
        assert!(from >= self.start && from <= self.end, "a replica reads what the log has");
        let (mut parts, mut bytes, mut position) = (Vec::new(), 0, from);
        for (head, body) in self.cache.frames_from(from) {
            let length = head.len() + body.len();
            position = position.plus(length as u64);
            if position > self.written || (bytes > 0 && bytes + length > bytes_max) {
                break;
            }
            bytes += length;
            parts.push(head.clone());
            if !body.is_empty() {
                parts.push(body.clone());
            }
        }
        if !parts.is_empty() || from >= self.written {
            return FramesPlan::Cached(parts);
        }
        let segment = self.segment_of(from);
        let behind = self.segments.partition_point(|s| s.base <= from);
        let end = self.segments.get(behind).map_or(self.written, |next| next.base).min(self.written);
        let length = ((end.0 - from.0) as usize).min(bytes_max.max(CHECK_BYTES));
        let at = from.0 - segment.0;
        FramesPlan::OnDisk(FramePiece { log: self.id, segment, at, length, position: from, opening: self.opening })
    }

    /// The whole frames among bytes that a disk read brought, as far as they are intact; at least one.
    pub fn check_frames(&self, piece: &FramePiece, bytes: &Bytes) -> Result<Bytes, FramesFailure> {
        if piece.opening != self.opening || piece.position < self.start {
            return Err(FramesFailure::Gone);
        }
        let verify = self.mutant != Some(Mutant::ChecksumNotVerified);
        let mut at = 0;
        while at < bytes.len() {
            match check_frame(&bytes[at..], piece.position.plus(at as u64), verify) {
                FrameCheck::Batch(frame, _) | FrameCheck::Mark(frame) => at += frame.total_bytes() as usize,
                FrameCheck::Short(needed) if at == 0 && needed > piece.length => {
                    return Err(FramesFailure::Longer { bytes: needed });
                }
                FrameCheck::Short(_) | FrameCheck::BadBatch(_) | FrameCheck::Bad => break,
            }
        }
        if at == 0 {
            return Err(FramesFailure::Corrupt { position: piece.position });
        }
        Ok(bytes.slice(..at))
    }

    /// Follower: appends whole frames that follow on the log's end, as its leader has them, and checks each.
    /// Under `flush=ack` call `request_sync` once a turn.
    pub fn append_frames(&mut self, frames: &Bytes, now: Now, effects: &mut Vec<DiskEffect>) -> Result<(), CopyError> {
        if !self.is_online() {
            return Err(CopyError::Offline);
        }
        let verify = self.mutant != Some(Mutant::ChecksumNotVerified);
        let (mut at, mut has_producers) = (0, false);
        while at < frames.len() {
            let position = self.end;
            let rest = frames.slice(at..);
            let (frame, header) = match check_frame(&rest, position, verify) {
                FrameCheck::Batch(frame, header) => (frame, Some(header)),
                FrameCheck::Mark(frame) => (frame, None),
                FrameCheck::BadBatch(_) | FrameCheck::Short(_) | FrameCheck::Bad => {
                    return Err(CopyError::Corrupt { position });
                }
            };
            if frame.epoch < self.epochs.newest() {
                return Err(CopyError::Discontinued { position });
            }
            let total = frame.total_bytes() as usize;
            at += total;
            let Some(header) = header else {
                let head = with_synced(&rest[..FRAME_BYTES], self.synced).freeze();
                self.write_frame(&frame, head, Bytes::new(), now, effects);
                continue;
            };
            let queue = self.queues.get_or_default(frame.queue);
            if queue.is_new() {
                (queue.next_offset, queue.log_start, queue.high_watermark) =
                    (header.base_offset, header.base_offset, header.base_offset);
            }
            if header.base_offset != queue.next_offset {
                return Err(CopyError::Discontinued { position });
            }
            let covered = FRAME_BYTES + UNCOVERED_BYTES;
            let head = with_synced(&rest[..covered], self.synced).freeze();
            self.write_frame(&frame, head, rest.slice(covered..total), now, effects);
            self.index_batch(&frame, &header, header.base_offset, now);
            has_producers |= !header.producer_id.is_none();
        }
        self.arm_deadlines(now, has_producers);
        Ok(())
    }

    /// Follower: removes everything from a position on, that of a frame or the log's end. The log is offline until
    /// recovery has rebuilt its state, producers included.
    ///
    /// # Panics
    /// On a log that is not online, and on a position that it has freed or not reached.
    pub fn truncate(&mut self, to: Position, effects: &mut Vec<DiskEffect>) {
        assert!(to >= self.start && to <= self.end, "a log is cut within itself");
        self.rework(Rework::Cut(to), effects);
    }

    /// What a replica needs that begins where this log does: its queues' offsets and producers as they were there.
    pub fn carrier(&self) -> Bytes {
        let start = self.start;
        let mut writer = IndexWriter::new(IndexHead {
            base: Position(start.0.saturating_sub(1)),
            end: start,
            max_timestamp: -1,
            epochs: self.epochs.between(start, start),
            unlisted_fenced: self.unlisted_fenced,
            cleaned: None,
            horizons: Vec::new(),
        });
        for (id, queue) in self.queues.iter() {
            let next_offset = queue.entries.first().map_or(queue.next_offset, |entry| entry.base_offset);
            let producers = producers_before(&queue.producers, start);
            let log_start = queue.log_start.min(next_offset);
            let state = QueueState { next_offset, log_start, fenced: queue.fenced, producers: &producers };
            writer.queue(id, state, std::iter::empty());
        }
        writer.finish()
    }

    /// Follower: begins the log anew behind a leader's carrier. The log is offline until that is done.
    ///
    /// # Panics
    /// On a log that is not online.
    pub fn restart(&mut self, carrier: Bytes, effects: &mut Vec<DiskEffect>) {
        self.rework(Rework::Restart(carrier), effects);
    }

    /// The defect of a mutant (KAFKA-6003): what a replica copies leaves no trace of its producers.
    pub(crate) fn forget_producers(&mut self) {
        for (_, queue) in self.queues.iter_mut() {
            queue.producers = Producers::default();
        }
    }

    /// Starts a change of the files that waits for what is under way: a late sync would be taken for that of bytes
    /// written afterwards, a late index would name bytes that are gone.
    pub(super) fn start_rework(&mut self, effects: &mut Vec<DiskEffect>) {
        let sealing = || self.segments.iter().any(|segment| matches!(segment.seal, Seal::InFlight(_)));
        if self.rework.is_none() || self.sync_in_flight.is_some() || sealing() {
            return;
        }
        match self.rework.take() {
            Some(Rework::Cut(to)) => effects.push(DiskEffect::Cut { log: self.id, to }),
            Some(Rework::Restart(carrier)) => {
                // Whatever the files say of queues is the leader's to say now.
                self.queues.clear();
                effects.push(DiskEffect::Restart { log: self.id, carrier });
            }
            None => {}
        }
    }

    fn rework(&mut self, rework: Rework, effects: &mut Vec<DiskEffect>) {
        assert!(self.is_online(), "a log that is being recovered is not cut meanwhile");
        assert!(self.replication != Replication::Alone, "a log that is alone has nobody to copy from");
        self.availability = Availability::Reopening;
        self.rework = Some(rework);
        self.unconfirmed.clear();
        (self.interval_due, self.mark_due, self.sync_again) = (None, None, false);
        self.start_rework(effects);
    }
}

/// The producers as they were at a position, as far as what they did later leaves it known.
fn producers_before(producers: &Producers, position: Position) -> Producers {
    let mut before = Producers::default();
    for state in producers.iter() {
        let window: Window = state.window.as_slice().iter().filter(|seen| seen.end <= position).copied().collect();
        if !window.as_slice().is_empty() {
            before.insert(ProducerState { window, ..state.clone() });
        }
    }
    before
}
