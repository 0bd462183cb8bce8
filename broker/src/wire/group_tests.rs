//! Requests and answers of the calls about consumer groups, every field filled, for the tests of both ways.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::api::Api;
use super::response::Response;

fn text(value: &'static str) -> StrBytes {
    StrBytes::from_static_str(value)
}

fn group() -> GroupId {
    GroupId(text("readers"))
}

fn name() -> TopicName {
    TopicName(text("orders"))
}

/// Encodes a request of a call about groups.
pub(super) fn encode_request(api: Api, version: i16, out: &mut BytesMut) -> Option<()> {
    let instance = |from: i16| (version >= from).then(|| text("i"));
    let encoded = match api {
        Api::JoinGroup => {
            let protocol =
                JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
            let mut request = JoinGroupRequest::default()
                .with_group_id(group())
                .with_session_timeout_ms(6000)
                .with_protocol_type(text("consumer"))
                .with_group_instance_id(instance(5))
                .with_protocols(vec![protocol.clone(), protocol]);
            if version >= 1 {
                request.rebalance_timeout_ms = 7000;
            }
            if version >= 8 {
                request.reason = Some(text("why"));
            }
            request.encode(out, version)
        }
        Api::ConsumerGroupHeartbeat => {
            let topic = consumer_group_heartbeat_request::TopicPartitions::default()
                .with_topic_id(uuid::Uuid::from_u128(7))
                .with_partitions(vec![1, 2]);
            ConsumerGroupHeartbeatRequest::default()
                .with_group_id(group())
                .with_member_id(text("m"))
                .with_instance_id(Some(text("i")))
                .with_rack_id(Some(text("r")))
                .with_rebalance_timeout_ms(6000)
                .with_subscribed_topic_names(Some(vec![name()]))
                .with_subscribed_topic_regex((version >= 1).then(|| text("a.*")))
                .with_server_assignor(Some(text("range")))
                .with_topic_partitions(Some(vec![topic]))
                .encode(out, version)
        }
        Api::ConsumerGroupDescribe => {
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![group()]).encode(out, version)
        }
        Api::SyncGroup => {
            let part = SyncGroupRequestAssignment::default().with_assignment(Bytes::from_static(b"a"));
            SyncGroupRequest::default()
                .with_group_id(group())
                .with_group_instance_id(instance(3))
                .with_protocol_type(instance(5))
                .with_protocol_name(instance(5))
                .with_assignments(vec![part])
                .encode(out, version)
        }
        Api::Heartbeat => {
            HeartbeatRequest::default().with_group_id(group()).with_group_instance_id(instance(3)).encode(out, version)
        }
        Api::LeaveGroup => {
            let member = MemberIdentity::default()
                .with_member_id(text("m"))
                .with_group_instance_id(instance(3))
                .with_reason(instance(5));
            let mut request = LeaveGroupRequest::default().with_group_id(group());
            if version >= 3 {
                request.members = vec![member];
            } else {
                request.member_id = text("m");
            }
            request.encode(out, version)
        }
        _ => return encode_offsets_request(api, version, out),
    };
    encoded.unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
    Some(())
}

fn encode_offsets_request(api: Api, version: i16, out: &mut BytesMut) -> Option<()> {
    let instance = |from: i16| (version >= from).then(|| text("i"));
    let encoded = match api {
        Api::OffsetCommit => {
            let mut partition = OffsetCommitRequestPartition::default().with_committed_metadata(Some(text("note")));
            if version >= 6 {
                partition.committed_leader_epoch = 3;
            }
            let topic = OffsetCommitRequestTopic::default().with_name(name()).with_partitions(vec![partition]);
            OffsetCommitRequest::default()
                .with_group_id(group())
                .with_group_instance_id(instance(7))
                .with_topics(vec![topic])
                .encode(out, version)
        }
        Api::OffsetFetch if version >= 8 => {
            let topic = OffsetFetchRequestTopics::default().with_name(name()).with_partition_indexes(vec![0, 1]);
            let wanted = OffsetFetchRequestGroup::default()
                .with_group_id(group())
                .with_member_id(instance(9))
                .with_topics(Some(vec![topic]));
            OffsetFetchRequest::default().with_groups(vec![wanted]).with_require_stable(true).encode(out, version)
        }
        Api::OffsetFetch => {
            let topic = OffsetFetchRequestTopic::default().with_name(name()).with_partition_indexes(vec![0, 1]);
            OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![topic])).encode(out, version)
        }
        Api::OffsetDelete => {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(4);
            let topic = OffsetDeleteRequestTopic::default().with_name(name()).with_partitions(vec![partition]);
            OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![topic]).encode(out, version)
        }
        Api::ListGroups => {
            let mut request = ListGroupsRequest::default();
            if version >= 4 {
                request.states_filter = vec![text("Stable")];
            }
            if version >= 5 {
                request.types_filter = vec![text("classic")];
            }
            request.encode(out, version)
        }
        Api::DescribeGroups => DescribeGroupsRequest::default().with_groups(vec![group()]).encode(out, version),
        Api::DeleteGroups => DeleteGroupsRequest::default().with_groups_names(vec![group()]).encode(out, version),
        _ => return None,
    };
    encoded.unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
    Some(())
}

/// An answer of a call about groups as the newest version has it.
pub(super) fn filled(api: Api) -> Option<Response> {
    Some(match api {
        Api::JoinGroup => {
            let member = JoinGroupResponseMember::default()
                .with_member_id(text("m"))
                .with_group_instance_id(Some(text("i")))
                .with_metadata(Bytes::from_static(b"b"));
            Response::JoinGroup(
                JoinGroupResponse::default()
                    .with_generation_id(4)
                    .with_protocol_type(Some(text("consumer")))
                    .with_protocol_name(Some(text("range")))
                    .with_leader(text("m"))
                    .with_member_id(text("m"))
                    .with_members(vec![member]),
            )
        }
        Api::SyncGroup => Response::SyncGroup(
            SyncGroupResponse::default()
                .with_protocol_type(Some(text("consumer")))
                .with_protocol_name(Some(text("range")))
                .with_assignment(Bytes::from_static(b"a")),
        ),
        Api::Heartbeat => Response::Heartbeat(HeartbeatResponse::default().with_error_code(27)),
        Api::LeaveGroup => {
            let member = MemberResponse::default()
                .with_member_id(text("m"))
                .with_group_instance_id(Some(text("i")))
                .with_error_code(25);
            Response::LeaveGroup(LeaveGroupResponse::default().with_members(vec![member]))
        }
        _ => return filled_about_offsets(api).or_else(|| filled_of_the_new_protocol(api)),
    })
}

fn filled_of_the_new_protocol(api: Api) -> Option<Response> {
    Some(match api {
        Api::ConsumerGroupHeartbeat => {
            let topic = consumer_group_heartbeat_response::TopicPartitions::default()
                .with_topic_id(uuid::Uuid::from_u128(7))
                .with_partitions(vec![1, 2]);
            let assignment =
                consumer_group_heartbeat_response::Assignment::default().with_topic_partitions(vec![topic]);
            Response::ConsumerGroupHeartbeat(
                ConsumerGroupHeartbeatResponse::default()
                    .with_error_message(Some(text("none")))
                    .with_member_id(Some(text("m")))
                    .with_member_epoch(3)
                    .with_heartbeat_interval_ms(5000)
                    .with_assignment(Some(assignment)),
            )
        }
        Api::ConsumerGroupDescribe => {
            let topic = consumer_group_describe_response::TopicPartitions::default()
                .with_topic_id(uuid::Uuid::from_u128(7))
                .with_topic_name(name())
                .with_partitions(vec![1]);
            let assignment = consumer_group_describe_response::Assignment::default().with_topic_partitions(vec![topic]);
            let member = consumer_group_describe_response::Member::default()
                .with_member_id(text("m"))
                .with_instance_id(Some(text("i")))
                .with_rack_id(Some(text("r")))
                .with_client_id(text("c"))
                .with_subscribed_topic_names(vec![name()])
                .with_subscribed_topic_regex(Some(text("a.*")))
                .with_assignment(assignment.clone())
                .with_target_assignment(assignment)
                .with_member_type(1);
            let described = consumer_group_describe_response::DescribedGroup::default()
                .with_group_id(group())
                .with_error_message(Some(text("none")))
                .with_group_state(text("Stable"))
                .with_assignor_name(text("uniform"))
                .with_members(vec![member]);
            Response::ConsumerGroupDescribe(ConsumerGroupDescribeResponse::default().with_groups(vec![described]))
        }
        _ => return None,
    })
}

fn filled_about_offsets(api: Api) -> Option<Response> {
    Some(match api {
        Api::OffsetCommit => {
            let partition = OffsetCommitResponsePartition::default().with_partition_index(1).with_error_code(12);
            let topic = OffsetCommitResponseTopic::default().with_name(name()).with_partitions(vec![partition]);
            Response::OffsetCommit(OffsetCommitResponse::default().with_topics(vec![topic]))
        }
        Api::OffsetFetch => {
            let partition = OffsetFetchResponsePartitions::default()
                .with_partition_index(1)
                .with_committed_offset(8)
                .with_committed_leader_epoch(2)
                .with_metadata(Some(text("note")));
            let topic = OffsetFetchResponseTopics::default().with_name(name()).with_partitions(vec![partition]);
            let group = OffsetFetchResponseGroup::default().with_group_id(group()).with_topics(vec![topic]);
            Response::OffsetFetch(OffsetFetchResponse::default().with_groups(vec![group]))
        }
        Api::OffsetDelete => {
            let partition = OffsetDeleteResponsePartition::default().with_partition_index(1).with_error_code(86);
            let topic = OffsetDeleteResponseTopic::default().with_name(name()).with_partitions(vec![partition]);
            Response::OffsetDelete(OffsetDeleteResponse::default().with_topics(vec![topic]))
        }
        Api::ListGroups => {
            let listed = ListedGroup::default()
                .with_group_id(group())
                .with_protocol_type(text("consumer"))
                .with_group_state(text("Stable"))
                .with_group_type(text("Classic"));
            Response::ListGroups(ListGroupsResponse::default().with_groups(vec![listed]))
        }
        Api::DescribeGroups => {
            let member = DescribedGroupMember::default()
                .with_member_id(text("m"))
                .with_group_instance_id(Some(text("i")))
                .with_client_id(text("c"))
                .with_member_metadata(Bytes::from_static(b"m"))
                .with_member_assignment(Bytes::from_static(b"a"));
            let described = DescribedGroup::default()
                .with_group_id(group())
                .with_error_message(Some(text("none")))
                .with_group_state(text("Stable"))
                .with_protocol_type(text("consumer"))
                .with_protocol_data(text("range"))
                .with_members(vec![member]);
            Response::DescribeGroups(DescribeGroupsResponse::default().with_groups(vec![described]))
        }
        Api::DeleteGroups => {
            let result = DeletableGroupResult::default().with_group_id(group()).with_error_code(68);
            Response::DeleteGroups(DeleteGroupsResponse::default().with_results(vec![result]))
        }
        _ => return None,
    })
}

/// The same as the version has it, where a version has another form altogether.
pub(super) fn filled_for(api: Api, version: i16) -> Option<Response> {
    match api {
        Api::OffsetFetch if version < 8 => {
            let partition = OffsetFetchResponsePartition::default()
                .with_committed_offset(8)
                .with_committed_leader_epoch(2)
                .with_metadata(Some(text("note")));
            let topic = OffsetFetchResponseTopic::default().with_name(name()).with_partitions(vec![partition]);
            let response = OffsetFetchResponse::default().with_topics(vec![topic]).with_error_code(16);
            Some(Response::OffsetFetch(response))
        }
        Api::LeaveGroup if version < 3 => Some(Response::LeaveGroup(LeaveGroupResponse::default().with_error_code(25))),
        _ => filled(api),
    }
}

/// Reads an answer of a call about groups.
pub(super) fn decode_response(api: Api, version: i16, body: &mut Bytes) -> Option<Response> {
    let decoded = match api {
        Api::JoinGroup => JoinGroupResponse::decode(body, version).map(Response::JoinGroup),
        Api::ConsumerGroupHeartbeat => {
            ConsumerGroupHeartbeatResponse::decode(body, version).map(Response::ConsumerGroupHeartbeat)
        }
        Api::ConsumerGroupDescribe => {
            ConsumerGroupDescribeResponse::decode(body, version).map(Response::ConsumerGroupDescribe)
        }
        Api::SyncGroup => SyncGroupResponse::decode(body, version).map(Response::SyncGroup),
        Api::Heartbeat => HeartbeatResponse::decode(body, version).map(Response::Heartbeat),
        Api::LeaveGroup => LeaveGroupResponse::decode(body, version).map(Response::LeaveGroup),
        Api::OffsetCommit => OffsetCommitResponse::decode(body, version).map(Response::OffsetCommit),
        Api::OffsetFetch => OffsetFetchResponse::decode(body, version).map(Response::OffsetFetch),
        Api::OffsetDelete => OffsetDeleteResponse::decode(body, version).map(Response::OffsetDelete),
        Api::ListGroups => ListGroupsResponse::decode(body, version).map(Response::ListGroups),
        Api::DescribeGroups => DescribeGroupsResponse::decode(body, version).map(Response::DescribeGroups),
        Api::DeleteGroups => DeleteGroupsResponse::decode(body, version).map(Response::DeleteGroups),
        _ => return None,
    };
    Some(decoded.unwrap_or_else(|error| panic!("{api:?} {version}: {error}")))
}
