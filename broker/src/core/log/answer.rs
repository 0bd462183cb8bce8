//! What a log answers: appends, reads, lookups and their errors, with the Kafka error each maps to.

use bytes::Bytes;
use thiserror::Error;

use crate::core::types::{LogId, Offset, Position, QueueId};

/// An append that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// The append is confirmed when the high watermark has reached this.
    pub end: Position,
}

/// Why an append was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AppendError {
    /// A retry of a batch that the window remembers: to be answered like the original, when it is confirmed.
    #[error("the batch is a retry of the one at offset {base_offset}")]
    Duplicate {
        /// Offset of the original's first record.
        base_offset: Offset,
        /// The original is confirmed when the high watermark has reached this.
        end: Position,
    },
    /// OUT_OF_ORDER_SEQUENCE_NUMBER (45).
    #[error("the batch has sequence {found}, expected {expected}")]
    OutOfOrderSequence {
        /// The sequence expected.
        expected: i32,
        /// The sequence found.
        found: i32,
    },
    /// INVALID_PRODUCER_EPOCH (47).
    #[error("the batch has producer epoch {found}, the queue knows {known}")]
    InvalidProducerEpoch {
        /// The newest epoch known.
        known: i16,
        /// The epoch found.
        found: i16,
    },
    /// KAFKA_STORAGE_ERROR (56): corruption was found in the queue.
    #[error("the queue is fenced: corruption was found in it")]
    QueueFenced,
    /// KAFKA_STORAGE_ERROR (56), retriable: the log waits to be reopened after its disk was full.
    #[error("the log is offline until the disk has room")]
    Offline,
    /// RECORD_LIST_TOO_LARGE (18): the batch does not fit into a segment.
    #[error("the batch of {bytes} bytes does not fit into a segment of {segment_bytes}")]
    TooLarge {
        /// Bytes of the batch and its frame.
        bytes: u64,
        /// The most that a segment holds.
        segment_bytes: u64,
    },
}

/// Why a read was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadError {
    /// OFFSET_OUT_OF_RANGE (1).
    #[error("offset {offset} is outside {log_start}..={high_watermark}")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The queue's first offset.
        log_start: Offset,
        /// The queue's high watermark.
        high_watermark: Offset,
    },
    /// KAFKA_STORAGE_ERROR (56): corruption was found in the queue.
    #[error("the queue is fenced: corruption was found in it")]
    QueueFenced,
}

/// A part of a read, in offset order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadPiece {
    /// Bytes of batches, or a part of them, at hand.
    Cached(Bytes),
    /// Frames to be read from disk with `DiskEffect::Read`, then checked with `Log::check_read`.
    OnDisk(DiskPiece),
}

/// Frames of one queue on disk, with whatever little of other queues lies between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskPiece {
    /// The log.
    pub log: LogId,
    /// The queue.
    pub queue: QueueId,
    /// Base position of the segment.
    pub segment: Position,
    /// Where in the segment's file, in bytes.
    pub at: u64,
    /// Bytes, frames included.
    pub length: usize,
    /// Position of the first frame.
    pub position: Position,
    /// Which loading of the log it belongs to.
    pub(crate) opening: u32,
}

/// What a read consists of: whole batches, the first of which holds the offset asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadPlan {
    /// The parts, to be concatenated.
    pub pieces: Vec<ReadPiece>,
    /// Bytes of the batches in all, frames left out.
    pub bytes: usize,
    /// The offset behind the last batch.
    pub next_offset: Offset,
    /// Whether there is more that could be read now, but only at the price of much that nobody asked for.
    pub is_cut: bool,
}

/// What was wrong with bytes read from disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadFailure {
    /// The bytes are not what was written; the queue is fenced now. KAFKA_STORAGE_ERROR (56).
    #[error("corruption in queue {queue} at position {position}: the queue is fenced")]
    Corrupt {
        /// The queue.
        queue: QueueId,
        /// Position of the bad frame.
        position: Position,
    },
    /// The segment was removed meanwhile; ask `Log::read` again.
    #[error("the segment was removed while it was read")]
    Gone,
}

/// Where the answer to a lookup by timestamp lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimestampLookup {
    /// No batch has a record at or past the timestamp.
    None,
    /// In these pieces, one batch; see `batch::earliest_record_at_or_past`, with the queue's log start.
    InBatch {
        /// The batch.
        pieces: Vec<ReadPiece>,
        /// Where to look on if the batch does not hold one after all.
        next_offset: Offset,
    },
}
