//! Committed offsets: OffsetCommit (2 to 9), OffsetFetch (1 to 9), OffsetDelete (0) and expiry. An offset counts, and is
//! seen, once its record is confirmed; so what OffsetFetch tells never goes back.
//! Departures from Kafka: a retention time that an old client asks for is ignored; offsets of a group with members never
//! expire; nothing is ever pending by a transaction, so `require_stable` changes nothing.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, TopicName,
};
use serde::{Deserialize, Serialize};

use super::answer::{GroupAnswer, text};
use super::record::GroupRecord;
use super::turn::{Caller, Held, Turn};
use crate::core::metadata::Metadata;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Committed {
    pub(super) offset: i64,
    /// Of the last record consumed; -1 is unknown.
    pub(super) leader_epoch: i32,
    pub(super) metadata: String,
    /// When, in milliseconds of wall time.
    pub(super) at_ms: i64,
}

/// What OffsetFetch asks of one group: its topics with their partitions, or all.
#[derive(Debug, Clone)]
pub(in crate::core) struct FetchOffsets {
    pub(in crate::core) group: String,
    pub(in crate::core) member: Option<String>,
    pub(in crate::core) member_epoch: i32,
    pub(in crate::core) topics: Option<Vec<(String, Vec<i32>)>>,
}

/// The offsets of one group by topic and partition.
pub(super) type GroupOffsets = BTreeMap<(String, i32), Committed>;

/// The offsets of the groups of one coordinator.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    groups: BTreeMap<String, GroupOffsets>,
    /// How many changes per group are appended and not confirmed.
    unconfirmed: BTreeMap<String, usize>,
}

impl Offsets {
    pub(super) fn of(&self, group: &str) -> Option<&GroupOffsets> {
        self.groups.get(group)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&String, &GroupOffsets)> {
        self.groups.iter()
    }

    /// Whether a group has an offset, or is about to.
    pub(super) fn has_any(&self, group: &str) -> bool {
        self.groups.contains_key(group) || self.unconfirmed.contains_key(group)
    }

    pub(super) fn expect(&mut self, group: &str) {
        *self.unconfirmed.entry(group.to_owned()).or_default() += 1;
    }

    pub(super) fn settle(&mut self, group: &str) {
        if let Some(count) = self.unconfirmed.get_mut(group) {
            *count -= 1;
            if *count == 0 {
                self.unconfirmed.remove(group);
            }
        }
    }

    pub(super) fn apply(&mut self, group: &str, topic: String, partition: i32, value: Option<Committed>) {
        match value {
            Some(committed) => {
                self.groups.entry(group.to_owned()).or_default().insert((topic, partition), committed);
            }
            None => {
                let Some(offsets) = self.groups.get_mut(group) else { return };
                offsets.remove(&(topic, partition));
                if offsets.is_empty() {
                    self.groups.remove(group);
                }
            }
        }
    }
}

/// Appends the commits that may be made, `Err` refusing them all; the answer waits for them.
pub(super) fn commit(
    offsets: &mut Offsets,
    caller: Caller,
    request: &OffsetCommitRequest,
    allowed: Result<(), ResponseError>,
    turn: &mut Turn<'_>,
) {
    let group = request.group_id.to_string();
    let mut changes = Vec::new();
    let mut answer = OffsetCommitResponse::default();
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let checked = allowed.and_then(|()| checked_commit(&topic.name, wanted, turn));
            let error = checked.as_ref().err().map_or(0, |error: &ResponseError| error.code());
            if let Ok(committed) = checked {
                changes.push((topic.name.to_string(), wanted.partition_index, Some(committed)));
            }
            partitions.push(
                OffsetCommitResponsePartition::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_code(error),
            );
        }
        let topic = OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions);
        answer.topics.push(topic);
    }
    let answer = GroupAnswer::Commit(answer);
    if changes.is_empty() {
        return turn.reply(caller, answer);
    }
    change(offsets, group, changes, turn);
    turn.reply_when_stored(caller, answer);
}

/// Appends deletions; partitions of topics that the group subscribes to are refused.
pub(super) fn delete(
    offsets: &mut Offsets,
    caller: Caller,
    request: &OffsetDeleteRequest,
    is_subscribed: &dyn Fn(&str) -> bool,
    turn: &mut Turn<'_>,
) {
    let group = request.group_id.to_string();
    let mut changes = Vec::new();
    let mut answer = OffsetDeleteResponse::default();
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let error = if !exists(turn.view.metadata, &topic.name, wanted.partition_index) {
                ResponseError::UnknownTopicOrPartition.code()
            } else if is_subscribed(&topic.name) {
                ResponseError::GroupSubscribedToTopic.code()
            } else {
                0
            };
            let place = (topic.name.to_string(), wanted.partition_index);
            if error == 0 && offsets.of(&group).is_some_and(|offsets| offsets.contains_key(&place)) {
                changes.push((place.0, place.1, None));
            }
            partitions.push(
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_code(error),
            );
        }
        let topic = OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions);
        answer.topics.push(topic);
    }
    change(offsets, group, changes, turn);
    turn.reply_when_stored(caller, GroupAnswer::DeleteOffsets(answer));
}

/// Appends changes, to be seen once they are confirmed.
pub(super) fn change(
    offsets: &mut Offsets,
    group: String,
    changes: Vec<(String, i32, Option<Committed>)>,
    turn: &mut Turn<'_>,
) {
    if changes.is_empty() {
        return;
    }
    for (topic, partition, value) in &changes {
        let (topic, value) = (topic.clone(), value.clone());
        turn.record(GroupRecord::Offset { group: group.clone(), topic, partition: *partition, value });
    }
    offsets.expect(&group);
    turn.holds.push(Held::Offsets { group, changes });
}

/// The offsets that a group has where they are asked for; -1 where it has none.
pub(super) fn fetch(offsets: Option<&GroupOffsets>, wanted: &FetchOffsets) -> OffsetFetchResponseGroup {
    let none = GroupOffsets::new();
    let offsets = offsets.unwrap_or(&none);
    let topics = match &wanted.topics {
        Some(topics) => topics.clone(),
        None => {
            let mut all: Vec<(String, Vec<i32>)> = Vec::new();
            for (topic, partition) in offsets.keys() {
                match all.last_mut() {
                    Some((last, partitions)) if last == topic => partitions.push(*partition),
                    Some(_) | None => all.push((topic.clone(), vec![*partition])),
                }
            }
            all
        }
    };
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|partition| {
            let found = offsets.get(&(topic.clone(), partition));
            OffsetFetchResponsePartitions::default()
                .with_partition_index(partition)
                .with_committed_offset(found.map_or(-1, |committed| committed.offset))
                .with_committed_leader_epoch(found.map_or(-1, |committed| committed.leader_epoch))
                .with_metadata(Some(text(found.map_or("", |committed| committed.metadata.as_str()))))
        });
        let partitions = partitions.collect();
        OffsetFetchResponseTopics::default().with_name(TopicName(text(&topic))).with_partitions(partitions)
    });
    OffsetFetchResponseGroup::default().with_group_id(GroupId(text(&wanted.group))).with_topics(topics.collect())
}

/// The same question answered with an error.
pub(in crate::core) fn fetch_refused(wanted: &FetchOffsets, error: ResponseError) -> OffsetFetchResponseGroup {
    let mut answer = fetch(None, wanted);
    let partitions = answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    partitions.for_each(|partition| partition.error_code = error.code());
    answer.with_error_code(error.code())
}

fn checked_commit(
    topic: &str,
    wanted: &OffsetCommitRequestPartition,
    turn: &Turn<'_>,
) -> Result<Committed, ResponseError> {
    if !exists(turn.view.metadata, topic, wanted.partition_index) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    let metadata = wanted.committed_metadata.as_deref().unwrap_or_default();
    if metadata.len() > turn.view.settings.offset_metadata_bytes_max {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    Ok(Committed {
        offset: wanted.committed_offset,
        leader_epoch: wanted.committed_leader_epoch,
        metadata: metadata.to_owned(),
        at_ms: turn.view.now.wall_ms,
    })
}

fn exists(metadata: &Metadata, topic: &str, partition: i32) -> bool {
    let count = metadata.topic(topic).map_or(0, |topic| topic.partitions.len());
    usize::try_from(partition).is_ok_and(|index| index < count)
}
