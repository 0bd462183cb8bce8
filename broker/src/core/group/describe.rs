//! ListGroups (0 to 5), DescribeGroups (0 to 6) and ConsumerGroupDescribe (0 to 1): what the groups are, as one coordinator sees them.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response as consumer;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{GroupId, ListGroupsRequest, OffsetCommitRequest, OffsetCommitResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::answer::{GroupAnswer, text};
use super::classic::ClassicState;
use super::coordinator::{Coordinator, Group};
use super::record::TopicId;
use crate::core::authorized;
use crate::core::metadata::Metadata;

impl Coordinator {
    /// The groups that a ListGroups wants to hear of.
    pub(super) fn list(&self, request: &ListGroupsRequest) -> Vec<ListedGroup> {
        let wants = |filter: &[StrBytes], value: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
        };
        let mut listed = Vec::new();
        for (id, group) in &self.groups {
            let (state, kind, protocol_type) = match group {
                Group::Classic(group) => {
                    (group.state.name(), CLASSIC, group.protocol_type.as_deref().unwrap_or_default())
                }
                Group::Consumer(group) => (group.state_name(), CONSUMER, "consumer"),
            };
            if wants(&request.states_filter, state) && wants(&request.types_filter, kind) {
                listed.push(
                    ListedGroup::default()
                        .with_group_id(GroupId(text(id)))
                        .with_protocol_type(text(protocol_type))
                        .with_group_state(text(state))
                        .with_group_type(text(kind)),
                );
            }
        }
        listed
    }

    /// A group of the classic protocol.
    pub(super) fn describe(&self, id: &str, version: i16) -> DescribedGroup {
        let Some(Group::Classic(group)) = self.groups.get(id) else { return unknown_group(id, version) };
        let protocol = group
            .protocol
            .as_deref()
            .filter(|_| matches!(group.state, ClassicState::Stable | ClassicState::CompletingRebalance));
        let members = group.members.iter().map(|(member_id, member)| {
            let described = DescribedGroupMember::default()
                .with_member_id(text(member_id))
                .with_group_instance_id(member.instance.as_deref().map(text))
                .with_client_id(text(&member.client_id));
            if group.state == ClassicState::Stable {
                described
                    .with_member_metadata(member.metadata(protocol.unwrap_or_default()))
                    .with_member_assignment(member.assignment.clone())
            } else {
                described
            }
        });
        DescribedGroup::default()
            .with_group_id(GroupId(text(id)))
            .with_group_state(text(group.state.name()))
            .with_protocol_type(text(group.protocol_type.as_deref().unwrap_or_default()))
            .with_protocol_data(text(protocol.unwrap_or_default()))
            .with_members(members.collect())
            .with_authorized_operations(authorized::NOT_ASKED)
    }
}

impl Coordinator {
    /// A group of the new protocol.
    pub(super) fn describe_consumer(&self, id: &str, metadata: &Metadata) -> consumer::DescribedGroup {
        let Some(Group::Consumer(group)) = self.groups.get(id) else {
            let message = format!("there is no group {id} of the consumer protocol");
            let described = describe_consumer_refused(id, ResponseError::GroupIdNotFound);
            return described.with_error_message(Some(text(&message)));
        };
        let members = group.members.iter().map(|(member_id, member)| {
            let owned = member.current.assigned.iter().chain(&member.current.revoking);
            consumer::Member::default()
                .with_member_id(text(member_id))
                .with_instance_id(member.value.instance.as_deref().map(text))
                .with_rack_id(member.value.rack.as_deref().map(text))
                .with_member_epoch(member.current.epoch)
                .with_client_id(text(&member.value.client_id))
                .with_subscribed_topic_names(member.value.topics.iter().map(|name| TopicName(text(name))).collect())
                .with_subscribed_topic_regex(member.value.regex.as_deref().map(text))
                .with_assignment(described_assignment(owned, metadata))
                .with_target_assignment(described_assignment(member.target.iter(), metadata))
                .with_member_type(MEMBER_CONSUMER)
        });
        consumer::DescribedGroup::default()
            .with_group_id(GroupId(text(id)))
            .with_group_state(text(group.state_name()))
            .with_group_epoch(group.epoch)
            .with_assignment_epoch(group.target_epoch)
            .with_assignor_name(text(group.assignor().name()))
            .with_members(members.collect())
            .with_authorized_operations(authorized::NOT_ASKED)
    }
}

fn described_assignment<'a>(
    queues: impl Iterator<Item = (&'a TopicId, &'a BTreeSet<i32>)>,
    metadata: &Metadata,
) -> consumer::Assignment {
    let mut joined: BTreeMap<TopicId, BTreeSet<i32>> = BTreeMap::new();
    queues.for_each(|(topic, partitions)| joined.entry(*topic).or_default().extend(partitions));
    let topics = joined.into_iter().map(|(topic, partitions)| {
        consumer::TopicPartitions::default()
            .with_topic_id(Uuid::from_u128(topic.0))
            .with_topic_name(TopicName(text(metadata.name_of(topic.0).unwrap_or_default())))
            .with_partitions(partitions.into_iter().collect())
    });
    consumer::Assignment::default().with_topic_partitions(topics.collect())
}

/// A description of a group of the new protocol that failed.
pub(super) fn describe_consumer_refused(id: &str, error: ResponseError) -> consumer::DescribedGroup {
    consumer::DescribedGroup::default()
        .with_group_id(GroupId(text(id)))
        .with_error_code(error.code())
        .with_authorized_operations(authorized::NOT_ASKED)
}

/// The description of a group that is none of the classic protocol: dead, and from version 6 on an error.
fn unknown_group(id: &str, version: i16) -> DescribedGroup {
    let described = DescribedGroup::default()
        .with_group_id(GroupId(text(id)))
        .with_group_state(text("Dead"))
        .with_authorized_operations(authorized::NOT_ASKED);
    if version < 6 {
        return described;
    }
    let message = format!("there is no group {id} of the classic protocol");
    described.with_error_code(ResponseError::GroupIdNotFound.code()).with_error_message(Some(text(&message)))
}

/// A description that failed.
pub(super) fn describe_refused(id: &str, error: ResponseError) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_id(GroupId(text(id)))
        .with_error_code(error.code())
        .with_authorized_operations(authorized::NOT_ASKED)
}

/// A commit of which every partition is refused.
pub(super) fn commit_refused(request: &OffsetCommitRequest, error: ResponseError) -> GroupAnswer {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.code())
        });
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    GroupAnswer::Commit(OffsetCommitResponse::default().with_topics(topics.collect()))
}

/// The kind of a group of the classic protocol, in answers.
pub(super) const CLASSIC: &str = "Classic";
/// That of a group of the new protocol.
const CONSUMER: &str = "Consumer";

/// How ConsumerGroupDescribe numbers members of the new protocol.
const MEMBER_CONSUMER: i8 = 1;
