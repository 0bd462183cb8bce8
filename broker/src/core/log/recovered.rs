//! What recovery found in a log: plain data between `store`, which reads the files, and `Log`.

use std::collections::BTreeMap;

use super::compaction::{CleanedRange, Horizon};
use super::entries::Entries;
use super::epochs::Epochs;
use super::producers::Producers;
use crate::core::types::{LogId, Offset, Position, QueueId};

/// A recovered log; all of it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The log.
    pub log: LogId,
    /// The epochs of its frames.
    pub epochs: Epochs,
    /// Its segments, oldest first, without gaps.
    pub segments: Vec<RecoveredSegment>,
    /// Where it begins: below, everything has been freed.
    pub start: Position,
    /// Where the next frame goes.
    pub end: Position,
    /// Where the first corrupt bytes begin, if there are any.
    pub corrupt_from: Option<Position>,
    /// Its queues, those that ever held a batch.
    pub queues: BTreeMap<QueueId, RecoveredQueue>,
    /// Corruption may have swallowed whole queues, so a queue that is not listed is fenced too.
    pub unlisted_fenced: bool,
    /// The passes of compaction, oldest first, as far as its segments tell.
    pub horizons: Vec<Horizon>,
    /// What happened on the way.
    pub report: RecoveryReport,
}

/// A segment as recovery found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveredSegment {
    /// Base position.
    pub base: Position,
    /// Length of its file, in bytes.
    pub length: u64,
    /// Largest timestamp of its batches, in milliseconds; -1 is none.
    pub max_timestamp: i64,
    /// Whether it has a valid index file.
    pub sealed: bool,
    /// What it stands for, where compaction wrote it.
    pub cleaned: Option<CleanedRange>,
}

/// A queue as recovery found it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveredQueue {
    /// Its batches, by offset.
    pub entries: Entries,
    /// The offset that its next record gets.
    pub next_offset: Offset,
    /// Its first offset, as far as the files tell.
    pub log_start: Offset,
    /// Whether corruption was found in it.
    pub fenced: bool,
    /// Its idempotent producers.
    pub producers: Producers,
}

/// What recovery did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoveryReport {
    /// Bytes scanned, those of sealed segments left out.
    pub scanned_bytes: u64,
    /// Bytes of a torn tail that were cut.
    pub cut_bytes: u64,
    /// Bytes that were rewritten in place and synced.
    pub rewritten_bytes: u64,
    /// Runs of corrupt bytes below a synced position.
    pub corruptions: u64,
    /// Producers whose window was rebuilt.
    pub producers: u64,
}

impl Recovered {
    /// A log of which there is nothing yet.
    pub fn empty(log: LogId) -> Recovered {
        Recovered {
            log,
            epochs: Epochs::default(),
            segments: Vec::new(),
            start: Position(0),
            end: Position(0),
            corrupt_from: None,
            queues: BTreeMap::new(),
            unlisted_fenced: false,
            horizons: Vec::new(),
            report: RecoveryReport::default(),
        }
    }
}
