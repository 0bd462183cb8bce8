//! The lines of VerifiableProducer and VerifiableConsumer: one JSON object each, told apart by its `name`. Lines that do
//! not begin with a brace are another's (log messages on the same stream), and a last line may be cut off by a kill.
//! Names of events and fields: Kafka's `tools/src/main/java/org/apache/kafka/tools/Verifiable{Producer,Consumer}.java`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::verifiable::ImportError;

/// What a line tells; what does not matter here is `Other`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub(super) enum Event {
    /// A record was acknowledged.
    ProducerSendSuccess { topic: String, partition: u32, offset: i64, value: String },
    /// A record's send ended with an exception.
    ProducerSendError {
        value: String,
        #[serde(default)]
        exception: String,
        #[serde(default)]
        message: Option<String>,
    },
    /// A record was delivered.
    RecordData { topic: String, partition: u32, offset: i64, value: String },
    /// A poll ended; the records that it delivered stand on the lines before.
    RecordsConsumed {
        #[serde(default)]
        partitions: Vec<Consumed>,
    },
    /// The consumer goes on at the group's offsets.
    PartitionsAssigned { partitions: Vec<Partition> },
    /// Anything else.
    #[serde(other)]
    Other,
}

/// What a poll delivered of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Consumed {
    pub(super) count: u64,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) partition: u32,
}

/// An event and when its tool told it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Line {
    /// In milliseconds since the Unix epoch.
    pub(super) timestamp: i64,
    #[serde(flatten)]
    pub(super) event: Event,
    /// The line's number, from 1.
    #[serde(skip)]
    pub(super) number: u64,
}

/// A tool's output.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) path: PathBuf,
    pub(super) lines: Vec<Line>,
}

/// Reads a tool's output.
pub(super) fn read(path: &Path) -> Result<Output, ImportError> {
    let text = std::fs::read_to_string(path).map_err(|source| ImportError::Io { path: path.to_owned(), source })?;
    let whole = text.ends_with('\n');
    let count = text.lines().count();
    let mut lines = Vec::new();
    for (index, text) in text.lines().enumerate() {
        if !text.trim_start().starts_with('{') {
            continue;
        }
        match serde_json::from_str::<Line>(text) {
            Ok(line) => lines.push(Line { number: index as u64 + 1, ..line }),
            Err(_) if index + 1 == count && !whole => {}
            Err(source) => {
                let (path, line) = (path.to_owned(), index as u64 + 1);
                return Err(ImportError::Malformed { path, line, reason: source.to_string() });
            }
        }
    }
    if lines.is_empty() {
        return Err(ImportError::Empty { path: path.to_owned() });
    }
    Ok(Output { path: path.to_owned(), lines })
}
