//! OffsetFetch in its two forms: one group up to version 7, several from version 8 on.

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};

use super::offsets::FetchOffsets;

/// What a request asks, group by group.
pub(super) fn wanted(version: i16, request: OffsetFetchRequest) -> Vec<FetchOffsets> {
    if version >= 8 {
        let groups = request.groups.into_iter().map(|group| FetchOffsets {
            group: group.group_id.to_string(),
            member: group.member_id.map(|member| member.to_string()),
            member_epoch: group.member_epoch,
            topics: group.topics.map(|topics| {
                topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect()
            }),
        });
        return groups.collect();
    }
    let topics = request
        .topics
        .map(|topics| topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect());
    vec![FetchOffsets { group: request.group_id.to_string(), member: None, member_epoch: -1, topics }]
}

/// The answers as the version has them.
pub(super) fn response(version: i16, mut answers: Vec<OffsetFetchResponseGroup>) -> OffsetFetchResponse {
    if version >= 8 {
        return OffsetFetchResponse::default().with_groups(answers);
    }
    let Some(only) = answers.pop() else { return OffsetFetchResponse::default() };
    let topics = only.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_committed_leader_epoch(partition.committed_leader_epoch)
                .with_metadata(partition.metadata)
                .with_error_code(partition.error_code)
        });
        OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_error_code(only.error_code).with_topics(topics.collect())
}
