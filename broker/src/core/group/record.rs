//! Records of the internal topic. A record without a value says that what its key names is gone.
//! Bytes: a key is a version and the postcard form of `Key`; a value is a version and the postcard form of its struct.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::offsets::Committed;

/// A topic's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct TopicId(pub(super) u128);

/// Queues by topic; no topic is listed without any.
pub(super) type Assignment = BTreeMap<TopicId, BTreeSet<i32>>;

/// A change of a group's stored state.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum GroupRecord {
    /// A committed offset.
    Offset { group: String, topic: String, partition: i32, value: Option<Committed> },
    /// A group of the classic protocol, whole.
    Classic { group: String, value: Option<ClassicValue> },
    /// A group of the new protocol: its epoch.
    Epoch { group: String, value: Option<EpochValue> },
    /// A member of the new protocol as it described itself.
    Member { group: String, member: String, value: Option<MemberValue> },
    /// The epoch of the group's target assignment.
    TargetEpoch { group: String, value: Option<i32> },
    /// What a member is to own.
    Target { group: String, member: String, value: Option<Assignment> },
    /// What a member owns.
    Current { group: String, member: String, value: Option<CurrentValue> },
}

#[derive(Debug, Serialize, Deserialize)]
enum Key {
    Offset { group: String, topic: String, partition: i32 },
    Classic { group: String },
    Epoch { group: String },
    Member { group: String, member: String },
    TargetEpoch { group: String },
    Target { group: String, member: String },
    Current { group: String, member: String },
}

/// A group of the classic protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ClassicValue {
    pub(super) protocol_type: Option<String>,
    pub(super) generation: i32,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    /// Since when the group is in its state, in milliseconds of wall time.
    pub(super) since_ms: i64,
    pub(super) members: Vec<ClassicMemberValue>,
}

/// A member of a group of the classic protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ClassicMemberValue {
    pub(super) id: String,
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) rebalance_timeout_ms: u32,
    pub(super) session_timeout_ms: u32,
    pub(super) subscription: Vec<u8>,
    pub(super) assignment: Vec<u8>,
}

/// The epoch of a group of the new protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EpochValue {
    pub(super) epoch: i32,
    /// Of what the group knew about the topics that it subscribes to.
    pub(super) metadata_hash: u64,
    /// Since when the group has no members, in milliseconds of wall time.
    pub(super) empty_since_ms: Option<i64>,
}

/// A member of the new protocol as it described itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberValue {
    pub(super) instance: Option<String>,
    pub(super) rack: Option<String>,
    pub(super) client_id: String,
    pub(super) topics: BTreeSet<String>,
    pub(super) regex: Option<String>,
    pub(super) rebalance_timeout_ms: u32,
    pub(super) assignor: Option<String>,
}

/// What a member of the new protocol owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CurrentValue {
    pub(super) epoch: i32,
    pub(super) previous_epoch: i32,
    pub(super) state: MemberState,
    pub(super) assigned: Assignment,
    /// What it still owns, and was told to give up.
    pub(super) revoking: Assignment,
}

/// Where a member of the new protocol is on its way to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum MemberState {
    /// It has what it is to have.
    #[default]
    Stable,
    /// It has not yet given up what it was told to.
    UnrevokedPartitions,
    /// Others have not yet given up what it is to have.
    UnreleasedPartitions,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordUnreadable {
    /// It has no key, or another format's version.
    #[error("a record of {topic} has no key of version {VERSION}; a newer version may have written it", topic = super::OFFSETS_TOPIC)]
    Version,
    /// Its bytes are of no known form.
    #[error("a record of {topic} is not readable: {0}", topic = super::OFFSETS_TOPIC)]
    Form(#[from] postcard::Error),
}

impl GroupRecord {
    /// The record's key, and its value where it has one.
    pub(super) fn encode(self) -> (Bytes, Option<Bytes>) {
        match self {
            GroupRecord::Offset { group, topic, partition, value } => {
                (bytes(&Key::Offset { group, topic, partition }), value.map(|value| bytes(&value)))
            }
            GroupRecord::Classic { group, value } => (bytes(&Key::Classic { group }), value.map(|value| bytes(&value))),
            GroupRecord::Epoch { group, value } => (bytes(&Key::Epoch { group }), value.map(|value| bytes(&value))),
            GroupRecord::Member { group, member, value } => {
                (bytes(&Key::Member { group, member }), value.map(|value| bytes(&value)))
            }
            GroupRecord::TargetEpoch { group, value } => {
                (bytes(&Key::TargetEpoch { group }), value.map(|value| bytes(&value)))
            }
            GroupRecord::Target { group, member, value } => {
                (bytes(&Key::Target { group, member }), value.map(|value| bytes(&value)))
            }
            GroupRecord::Current { group, member, value } => {
                (bytes(&Key::Current { group, member }), value.map(|value| bytes(&value)))
            }
        }
    }

    /// Reads a record's key and value.
    pub(super) fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<GroupRecord, RecordUnreadable> {
        Ok(match parse(key.ok_or(RecordUnreadable::Version)?)? {
            Key::Offset { group, topic, partition } => {
                GroupRecord::Offset { group, topic, partition, value: parse_value(value)? }
            }
            Key::Classic { group } => GroupRecord::Classic { group, value: parse_value(value)? },
            Key::Epoch { group } => GroupRecord::Epoch { group, value: parse_value(value)? },
            Key::Member { group, member } => GroupRecord::Member { group, member, value: parse_value(value)? },
            Key::TargetEpoch { group } => GroupRecord::TargetEpoch { group, value: parse_value(value)? },
            Key::Target { group, member } => GroupRecord::Target { group, member, value: parse_value(value)? },
            Key::Current { group, member } => GroupRecord::Current { group, member, value: parse_value(value)? },
        })
    }
}

fn bytes<T: Serialize>(value: &T) -> Bytes {
    let bytes = postcard::to_extend(value, vec![VERSION]).expect("every sequence and map knows its length");
    Bytes::from(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordUnreadable> {
    match bytes.split_first() {
        Some((&VERSION, body)) => Ok(postcard::from_bytes(body)?),
        Some(_) | None => Err(RecordUnreadable::Version),
    }
}

fn parse_value<T: DeserializeOwned>(value: Option<&[u8]>) -> Result<Option<T>, RecordUnreadable> {
    value.map(parse).transpose()
}

/// The version of keys and values.
const VERSION: u8 = 1;
