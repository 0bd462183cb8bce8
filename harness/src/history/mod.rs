//! What a run leaves: operations with three outcomes, in one versioned schema for every world.
//! An operation is one produce batch, one poll, or one administrative call; values travel as runs.
//! Only the recording wrapper around a driver creates operations. Encodings: `json` (lines) and `binary` (framed blocks);
//! both are described in `docs/history.md`.

pub mod binary;
mod fields;
pub mod json;
pub mod open;
#[cfg(test)]
mod round_trip;
pub mod sample;

use serde::{Deserialize, Serialize};

/// The version of the schema that this code writes.
pub const SCHEMA_VERSION: u32 = 2;

/// A queue (Kafka: partition): index into the plan's topics, and the partition's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Queue {
    /// Index of the topic in the header's list of topics.
    pub topic: u32,
    /// Number of the partition.
    pub partition: u32,
}

/// A client of the run; the plan's index of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub u32);

/// A record's value: unique per queue. The high 24 bits name the producing client, the low 40 count its records on that
/// queue from 0, in the order in which the producer was told to send them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Value(pub u64);

impl Value {
    /// The n-th value of a client on a queue.
    pub fn new(client: ClientId, sequence: u64) -> Value {
        assert!(
            client.0 < 1 << 24 && sequence < 1 << 40,
            "value out of range: client {} sequence {sequence}",
            client.0
        );
        Value((u64::from(client.0) << 40) | sequence)
    }

    /// The producing client.
    pub fn client(self) -> ClientId {
        ClientId((self.0 >> 40) as u32)
    }

    /// The producer's count of records on the queue, from 0.
    pub fn sequence(self) -> u64 {
        self.0 & ((1 << 40) - 1)
    }
}

/// Consecutive values at consecutive offsets of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The queue.
    pub queue: Queue,
    /// Value of the first record.
    pub first_value: Value,
    /// Number of records; value and offset both grow by one from each to the next.
    pub count: u32,
    /// Offset of the first record.
    pub first_offset: i64,
    /// Timestamp of the first record in milliseconds since the Unix epoch.
    pub first_timestamp_ms: i64,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "why")]
pub enum Outcome {
    /// It took effect and its answer is known.
    Done,
    /// It surely had no effect: every attempt was refused.
    Refused(String),
    /// It may or may not have taken effect: a time-out, a lost connection, or `acks=0`.
    Unknown(String),
}

/// What was asked, and what was answered where the outcome is `Done`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "call")]
pub enum Call {
    /// One batch to one queue.
    Produce {
        /// The queue.
        queue: Queue,
        /// Value of the first record; the others follow by one.
        first_value: Value,
        /// Number of records.
        count: u32,
        /// Timestamps in milliseconds of the records, all of them.
        timestamps_ms: Vec<i64>,
        /// Offset of the first record, where the outcome is done and the broker told it.
        first_offset: Option<i64>,
        /// Attempts that were sent, at least 1 where anything was sent.
        attempts: u32,
        /// -1 all, 1 leader, 0 none.
        acks: i8,
        /// Whether the idempotent producer's sequence numbers were sent.
        idempotent: bool,
    },
    /// One poll of a consumer: what it delivered, in the order of delivery per queue.
    Poll {
        /// Records delivered, as runs.
        runs: Vec<Run>,
        /// Records whose key, value, headers or timestamp were not what any producer sent.
        corrupt: Vec<CorruptRecord>,
        /// Positions from which the queues were read, before the poll; only queues whose position is known.
        positions: Vec<Position>,
        /// Whether the poll belongs to the final reads, which start at the log start and go to the end.
        is_final: bool,
    },
    /// The consumer set its position.
    Seek {
        /// The queue.
        queue: Queue,
        /// Where to.
        to: SeekTarget,
        /// The position that resulted, where done.
        offset: Option<i64>,
    },
    /// ListOffsets.
    ListOffset {
        /// The queue.
        queue: Queue,
        /// What was asked.
        query: OffsetQuery,
        /// The answer's offset, -1 where there is none, where done.
        offset: Option<i64>,
        /// The answer's timestamp, -1 where there is none, where done.
        timestamp_ms: Option<i64>,
    },
    /// DeleteRecords up to (not including) an offset; -1 means the high watermark.
    DeleteRecords {
        /// The queue.
        queue: Queue,
        /// First offset that stays.
        before: i64,
        /// The log start that the broker answered, where done.
        low_watermark: Option<i64>,
    },
    /// CreateTopics of one topic of the plan.
    CreateTopic {
        /// Index in the header's list of topics.
        topic: u32,
    },
    /// What a member of a consumer group did. Since schema 2.
    Group {
        /// The group's number; groups have names of their own only toward the broker.
        group: u32,
        /// The member's id, as the coordinator gave it or took it; empty where it has none yet.
        member: String,
        /// The generation (or member epoch) under which it acted, -1 where it has none.
        generation: i32,
        /// What it did.
        #[serde(flatten)]
        step: GroupStep,
    },
}

/// What a member of a consumer group does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum GroupStep {
    /// It joined, or went on under a new generation: where done, these queues are all that it owns from the completion on.
    Own {
        /// The queues.
        queues: Vec<Queue>,
    },
    /// It gave queues up, or learnt that it had lost them: it processed nothing of them after the call.
    Release {
        /// The queues.
        queues: Vec<Queue>,
    },
    /// OffsetCommit. Where the outcome is done, every queue was accepted.
    Commit {
        /// The next offset to be read, by queue.
        offsets: Vec<Position>,
    },
    /// OffsetFetch, with the answer where done; -1: nothing is committed.
    FetchOffsets {
        /// By queue.
        offsets: Vec<Position>,
    },
}

/// A queue's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The queue.
    pub queue: Queue,
    /// Next offset to be read.
    pub offset: i64,
}

/// A delivered record that is not what was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorruptRecord {
    /// The queue.
    pub queue: Queue,
    /// Its offset.
    pub offset: i64,
    /// What differs.
    pub what: String,
}

/// Target of a seek.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeekTarget {
    /// The log start.
    Beginning,
    /// The end.
    End,
    /// An offset.
    Offset(i64),
    /// The first record at or after a time, in milliseconds since the Unix epoch.
    Timestamp(i64),
}

/// What ListOffsets is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OffsetQuery {
    /// The log start.
    Earliest,
    /// The high watermark.
    Latest,
    /// The first record at or after a time, in milliseconds since the Unix epoch.
    Timestamp(i64),
}

/// One operation of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The client that called.
    pub client: ClientId,
    /// When it was called, in microseconds since the run began.
    pub invoked_us: u64,
    /// When its outcome was known, in microseconds since the run began.
    pub completed_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What was asked and answered.
    #[serde(flatten)]
    pub call: Call,
}

/// The first line or block of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// `SCHEMA_VERSION` of the writer.
    pub schema: u32,
    /// Names of the topics; queues refer to them by index.
    pub topics: Vec<String>,
    /// What the run was, for people.
    pub title: String,
}

/// What the nemesis and the nodes did, for checkers that need it (self-crash, no-progress, permitted bounds).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "mark")]
pub enum Mark {
    /// A fault struck.
    Fault {
        /// Microseconds since the run began.
        at_us: u64,
        /// The fault's class, as the guarantee matrix names it.
        class: String,
        /// The plan's index of the fault.
        fault: u32,
        /// The nodes that it struck; none where it struck a link, or where the world does not say. Since schema 2.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        nodes: Vec<u32>,
    },
    /// A node ended by itself.
    NodeExit {
        /// Microseconds since the run began.
        at_us: u64,
        /// The node.
        node: u32,
        /// What it said.
        reason: String,
        /// Whether it is the declared answer to a disk that fails.
        declared: bool,
    },
    /// The liveness phase began: faults have stopped and a sufficient core is healed.
    LivenessBegan {
        /// Microseconds since the run began.
        at_us: u64,
    },
    /// The liveness phase ended; `reached` says whether every operation ended and final reads reached the end.
    LivenessEnded {
        /// Microseconds since the run began.
        at_us: u64,
        /// Whether all of it was reached within the bound.
        reached: bool,
        /// What was still missing.
        missing: Vec<String>,
    },
}

/// A whole history in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Its header.
    pub header: Header,
    /// Operations in order of completion.
    pub operations: Vec<Operation>,
    /// Marks in order of time.
    pub marks: Vec<Mark>,
}

/// One thing that a history holds, in whichever encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An operation.
    Operation(Operation),
    /// A mark.
    Mark(Mark),
}

impl History {
    /// Adds an item behind those of its kind.
    pub fn push(&mut self, item: Item) {
        match item {
            Item::Operation(operation) => self.operations.push(operation),
            Item::Mark(mark) => self.marks.push(mark),
        }
    }
}
