//! What a log asks of the disk and what the disk reports back: plain data, performed by `store`.
//! Order within a turn: all inline effects in the order given, then the asynchronous ones are started.
//! Not here: any performing.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::compaction::{Compaction, CompactionPlan, CompactionSettings};
use super::recovered::Recovered;
use crate::core::types::{LogId, Position, QueueId, Ticket};

/// Something to be done to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskEffect {
    /// Inline: creates a segment's empty file, and the log's directory where it is missing.
    CreateSegment {
        /// The log.
        log: LogId,
        /// The segment's base position.
        base: Position,
    },
    /// Inline: writes into a segment. Consecutive writes are performed as one.
    Write {
        /// The log.
        log: LogId,
        /// The segment's base position.
        segment: Position,
        /// Where in the file, in bytes.
        at: u64,
        /// The bytes, one part behind the other.
        parts: Vec<Bytes>,
    },
    /// Inline: removes a segment and its index, durably, before anything that follows.
    RemoveSegment {
        /// The log.
        log: LogId,
        /// The segment's base position.
        base: Position,
    },
    /// Inline: removes all of a log's files.
    RemoveLog {
        /// The log.
        log: LogId,
    },
    /// Inline: removes segments that a cleaned one stands for, with their indexes.
    RemoveReplaced {
        /// The log.
        log: LogId,
        /// Base positions of the segments.
        bases: Vec<Position>,
    },
    /// Asynchronous: puts cleaned segments in the place of old ones, whose files stay until they are removed.
    Compact {
        /// The log.
        log: LogId,
        /// What is to be done.
        plan: Box<CompactionPlan>,
    },
    /// Asynchronous: makes the segments' completed writes durable, then the log's directory.
    Sync {
        /// The log.
        log: LogId,
        /// What the log may count as synced when all has succeeded.
        upto: Position,
        /// Base positions of the segments to sync.
        segments: Vec<Position>,
        /// Whether segments were created since the last sync.
        directory: bool,
    },
    /// Asynchronous: writes a durable segment's index file.
    Seal {
        /// The log.
        log: LogId,
        /// The segment's base position.
        segment: Position,
        /// The index file's bytes.
        index: Bytes,
    },
    /// Asynchronous: reads from a segment.
    Read {
        /// Names the read.
        ticket: Ticket,
        /// The log.
        log: LogId,
        /// The segment's base position.
        segment: Position,
        /// Where in the file, in bytes.
        at: u64,
        /// How many bytes.
        length: usize,
    },
    /// Asynchronous: writes a snapshot of the metadata beside the metadata log and makes it durable.
    /// Names sort by age; the two newest are kept.
    WriteSnapshot {
        /// A file name without directory or extension.
        name: String,
        /// Whether the log does not lead from older snapshots to what follows this one: they go once it is durable.
        supersedes: bool,
        /// The snapshot; the store adds a checksum.
        bytes: Bytes,
    },
    /// Asynchronous: recovers a log that went offline.
    Reopen {
        /// The log.
        log: LogId,
    },
    /// Asynchronous: removes everything from a position on, durably, then recovers the log; reports `Reopened`.
    Cut {
        /// The log.
        log: LogId,
        /// The position of a frame, or the log's end.
        to: Position,
    },
    /// Asynchronous: removes everything, durably, then begins the log behind a carrier; reports `Reopened`.
    Restart {
        /// The log.
        log: LogId,
        /// The bytes of an index file without entries.
        carrier: Bytes,
    },
}

/// What the disk reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskEvent {
    /// Everything below a position has been written (not synced).
    Written {
        /// The log.
        log: LogId,
        /// The end of what was written.
        upto: Position,
    },
    /// A write failed; nothing at or past `from` counts, and later writes of the log were not performed.
    WriteFailed {
        /// The log.
        log: LogId,
        /// Where the failed write began.
        from: Position,
        /// The kind of error.
        kind: io::ErrorKind,
    },
    /// A sync ended.
    Synced {
        /// The log.
        log: LogId,
        /// The position asked for.
        upto: Position,
        /// Success, or the kind of error; after an error nothing is known about the unsynced bytes.
        result: Result<(), io::ErrorKind>,
    },
    /// An index file was written, or could not be.
    Sealed {
        /// The log.
        log: LogId,
        /// The segment's base position.
        segment: Position,
        /// Success, or the kind of error; without index the segment is scanned at recovery.
        result: Result<(), io::ErrorKind>,
    },
    /// A pass of compaction has ended.
    Compacted {
        /// The log.
        log: LogId,
        /// What it has done.
        compaction: Box<Compaction>,
    },
    /// A removal failed; what was to be removed may come back at recovery.
    RemoveFailed {
        /// The log.
        log: LogId,
        /// The kind of error.
        kind: io::ErrorKind,
    },
    /// A read ended. `NotFound` where the segment has been removed.
    Read {
        /// Names the read.
        ticket: Ticket,
        /// The bytes, fewer where the file ends before, or the kind of error.
        result: Result<Bytes, io::ErrorKind>,
    },
    /// A snapshot is durable, or could not be written.
    SnapshotWritten {
        /// The name given.
        name: String,
        /// Success, or the kind of error.
        result: Result<(), io::ErrorKind>,
    },
    /// A log has been recovered again, or could not be.
    Reopened {
        /// The log.
        log: LogId,
        /// What was found, or the kind of error.
        result: Result<Box<Recovered>, io::ErrorKind>,
    },
}

impl DiskEvent {
    /// The log to hand the event to; none for reads and snapshots, which belong to the caller.
    pub fn log(&self) -> Option<LogId> {
        match self {
            DiskEvent::Written { log, .. }
            | DiskEvent::WriteFailed { log, .. }
            | DiskEvent::Synced { log, .. }
            | DiskEvent::Sealed { log, .. }
            | DiskEvent::RemoveFailed { log, .. }
            | DiskEvent::Compacted { log, .. }
            | DiskEvent::Reopened { log, .. } => Some(*log),
            DiskEvent::Read { .. } | DiskEvent::SnapshotWritten { .. } => None,
        }
    }
}

/// What a disk event changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// The counted position now.
    pub counted: Position,
    /// The high watermark now; appends whose end is at or below it are confirmed.
    pub watermark: Position,
    /// Queues whose high watermark moved.
    pub advanced: Vec<QueueId>,
    /// The log went offline: appends that are not confirmed never will be; answer them with a retriable error.
    pub went_offline: bool,
    /// The log serves again.
    pub came_online: bool,
    /// The node must stop at once, without answering anything that is not confirmed.
    pub halt: Option<Halt>,
}

/// Why a node must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// After a failed sync the page cache proves nothing.
    #[error("sync of log {log} failed ({kind}); the node stops, a restart recovers what is durable")]
    SyncFailed {
        /// The log.
        log: LogId,
        /// The kind of error.
        kind: io::ErrorKind,
    },
    /// A write failed for another reason than a full disk.
    #[error("write to log {log} failed ({kind}); the node stops, check the disk and restart")]
    WriteFailed {
        /// The log.
        log: LogId,
        /// The kind of error.
        kind: io::ErrorKind,
    },
    /// A log that was offline could not be recovered.
    #[error("log {log} could not be reopened ({kind}); the node stops, check the disk and restart")]
    ReopenFailed {
        /// The log.
        log: LogId,
        /// The kind of error.
        kind: io::ErrorKind,
    },
}

/// When appended bytes are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Before the append is confirmed; one sync serves all appends waiting.
    Ack,
    /// At most this long after the append was confirmed.
    Interval {
        /// The longest time that confirmed bytes stay unsynced.
        every: Duration,
    },
    /// When the operating system likes, and when a segment is sealed.
    Os,
}

/// A log's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// When appended bytes are made durable.
    pub flush: Flush,
    /// A segment is sealed rather than grown past this many bytes.
    pub segment_bytes: u64,
    /// Sealed segments whose newest record is older are removed, in milliseconds.
    pub retention_ms: Option<i64>,
    /// Sealed segments are removed while the rest of the log holds at least this many bytes.
    pub retention_bytes: Option<u64>,
    /// How the log is compacted; none is not at all.
    pub compaction: Option<CompactionSettings>,
    /// A producer's state is forgotten after this long without a batch.
    pub producer_expiry: Duration,
    /// Bytes of recent frames that are kept in memory.
    pub tail_cache_bytes: usize,
}
