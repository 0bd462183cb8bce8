//! The lines between the judge and a driver, one JSON object each. `docs/driver.md` tells authors of drivers what they
//! mean. Unknown fields of an answer are passed over, so that a driver may add its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::history::OffsetQuery;

/// A request to the driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request<'a> {
    /// Number of the request; the answer repeats it.
    pub id: u64,
    /// The client on whose behalf it is made; requests of several clients may be open at once.
    pub client: u32,
    /// What to do.
    #[serde(flatten)]
    pub call: RequestCall<'a>,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub enum RequestCall<'a> {
    /// Make a topic.
    CreateTopic {
        /// Its name.
        topic: &'a str,
        /// Number of partitions.
        queues: u32,
        /// Settings, as Kafka names them; a driver may pass over what its broker does not know.
        config: &'a BTreeMap<String, String>,
    },
    /// Append a batch.
    Produce {
        /// The topic.
        topic: &'a str,
        /// The partition.
        partition: u32,
        /// -1 all, 1 leader, 0 none.
        acks: i8,
        /// Whether sending twice must leave one copy.
        idempotent: bool,
        /// Sends at most.
        attempts: u32,
        /// The records.
        records: Vec<WireRecord>,
    },
    /// Read from an offset on.
    Poll {
        /// The topic.
        topic: &'a str,
        /// The partition.
        partition: u32,
        /// First offset wanted.
        offset: i64,
        /// Longest wait for a record, in milliseconds.
        max_wait_ms: u32,
        /// Records at most.
        max_records: u32,
    },
    /// Tell an offset.
    ListOffset {
        /// The topic.
        topic: &'a str,
        /// The partition.
        partition: u32,
        /// Which: `"earliest"`, `"latest"`, or `{"timestamp":ms}`.
        query: OffsetQuery,
    },
    /// Move the log start.
    DeleteRecords {
        /// The topic.
        topic: &'a str,
        /// The partition.
        partition: u32,
        /// First offset that stays.
        before: i64,
    },
}

/// A record on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireRecord {
    /// Its offset; on the way in only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// The key in hexadecimal digits; null where there is none.
    pub key: Option<String>,
    /// The value in hexadecimal digits.
    pub value: String,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// The driver's answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// Number of the request.
    pub id: u64,
    /// How it ended.
    pub outcome: AnswerOutcome,
    /// Why it did not succeed, for people.
    #[serde(default)]
    pub why: String,
    /// Offset of a batch's first record, where the broker told it.
    #[serde(default)]
    pub first_offset: Option<i64>,
    /// How often the batch was sent.
    #[serde(default)]
    pub attempts: Option<u32>,
    /// Records read, by offset.
    #[serde(default)]
    pub records: Vec<WireRecord>,
    /// The offset asked for, -1 where there is none.
    #[serde(default)]
    pub offset: Option<i64>,
    /// The timestamp of the record found, -1 where there is none.
    #[serde(default)]
    pub timestamp_ms: Option<i64>,
    /// The log start after a deletion.
    #[serde(default)]
    pub low_watermark: Option<i64>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerOutcome {
    /// It took effect.
    Done,
    /// It surely had no effect.
    Refused,
    /// It may have taken effect, now or later.
    Unknown,
}
