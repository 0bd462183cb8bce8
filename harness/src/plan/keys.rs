//! Keys of compacted topics: which key a value has, and whether it deletes it, follows from the value's number, so that
//! the workload and the judge agree without a word of it in the history. Not here: the records (`workload::payload`).

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::history::{Queue, Value};

/// Keys of a queue of a compacted topic.
const KEYS: u64 = 7;
const TOMBSTONE_ONE_IN: u64 = 5;

/// Whether a topic's settings ask for compaction.
pub fn is_compacted(config: &BTreeMap<String, String>) -> bool {
    config.get("cleanup.policy").is_some_and(|policy| policy.split(',').any(|word| word.trim() == "compact"))
}

/// The key of a value of a compacted topic.
pub fn key_of(value: Value, queue: Queue) -> String {
    format!("key {}", drawn(b"compaction key", value, queue) % KEYS)
}

/// Whether a value of a compacted topic deletes its key.
pub fn is_tombstone(value: Value, queue: Queue) -> bool {
    drawn(b"tombstone", value, queue).is_multiple_of(TOMBSTONE_ONE_IN)
}

fn drawn(label: &[u8], value: Value, queue: Queue) -> u64 {
    let place = u64::from(queue.topic) << 32 | u64::from(queue.partition);
    xxh3_64_with_seed(label, xxh3_64_with_seed(&value.0.to_le_bytes(), place))
}
