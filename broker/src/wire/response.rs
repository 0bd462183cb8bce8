//! The way out: a response becomes a frame. The codec refuses a field that the version lacks, so `fit` takes such
//! fields away; it is the one place that knows which. `core` fills every field it has an answer for.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{
    AlterConfigsResponse, AlterPartitionReassignmentsResponse, ApiVersionsResponse, ConsumerGroupDescribeResponse,
    ConsumerGroupHeartbeatResponse, CreatePartitionsResponse, CreateTopicsResponse, DeleteGroupsResponse,
    DeleteRecordsResponse, DeleteTopicsResponse, DescribeClusterResponse, DescribeConfigsResponse,
    DescribeGroupsResponse, ElectLeadersResponse, FindCoordinatorResponse, HeartbeatResponse,
    IncrementalAlterConfigsResponse, InitProducerIdResponse, JoinGroupResponse, LeaveGroupResponse, ListGroupsResponse,
    ListOffsetsResponse, ListPartitionReassignmentsResponse, MetadataResponse, OffsetCommitResponse,
    OffsetDeleteResponse, OffsetFetchResponse, OffsetForLeaderEpochResponse, ProduceResponse, SyncGroupResponse,
    UnregisterBrokerResponse,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::fetch::{self, FetchAnswer, Splice};
use super::frame::LENGTH_BYTES;
use super::output::Output;
use super::request::RequestHeader;

/// An answer.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is the codec's message of that name")]
pub enum Response {
    Produce(ProduceResponse),
    /// The codec's message with its records beside it.
    Fetch(FetchAnswer),
    ListOffsets(ListOffsetsResponse),
    Metadata(MetadataResponse),
    FindCoordinator(FindCoordinatorResponse),
    ApiVersions(ApiVersionsResponse),
    CreateTopics(CreateTopicsResponse),
    DeleteTopics(DeleteTopicsResponse),
    DeleteRecords(DeleteRecordsResponse),
    InitProducerId(InitProducerIdResponse),
    OffsetForLeaderEpoch(OffsetForLeaderEpochResponse),
    DescribeConfigs(DescribeConfigsResponse),
    CreatePartitions(CreatePartitionsResponse),
    DescribeCluster(DescribeClusterResponse),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatResponse),
    ConsumerGroupDescribe(ConsumerGroupDescribeResponse),
    JoinGroup(JoinGroupResponse),
    SyncGroup(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    LeaveGroup(LeaveGroupResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetFetch(OffsetFetchResponse),
    OffsetDelete(OffsetDeleteResponse),
    ListGroups(ListGroupsResponse),
    DescribeGroups(DescribeGroupsResponse),
    DeleteGroups(DeleteGroupsResponse),
    ElectLeaders(ElectLeadersResponse),
    AlterConfigs(AlterConfigsResponse),
    IncrementalAlterConfigs(IncrementalAlterConfigsResponse),
    AlterPartitionReassignments(AlterPartitionReassignmentsResponse),
    ListPartitionReassignments(ListPartitionReassignmentsResponse),
    UnregisterBroker(UnregisterBrokerResponse),
}

/// A response that the codec refuses; its connection is to be closed.
#[derive(Debug, thiserror::Error)]
#[error("{api:?} version {version} cannot be answered: {reason}", api = header.api, version = header.version)]
pub struct EncodeError {
    header: RequestHeader,
    reason: String,
}

/// Appends a response as one frame. After an error the output is as it was.
pub fn encode(header: RequestHeader, mut response: Response, output: &mut Output) -> Result<(), EncodeError> {
    fit(&mut response, header.version);
    fit_groups(&mut response, header.version);
    let buffer = output.tail();
    let start = buffer.len();
    buffer.put_i32(0);
    buffer.put_i32(header.correlation_id);
    if header.api.response_header_is_flexible(header.version) {
        buffer.put_u8(0);
    }
    let mut splices = Vec::new();
    let encoded = encode_body(&response, header.version, buffer, &mut splices);
    let spliced_bytes: usize = records_of(&response).iter().map(fetch::FetchedRecords::bytes).sum();
    let length = i32::try_from(buffer.len() - start - LENGTH_BYTES + spliced_bytes);
    let (Ok(()), Ok(length)) = (&encoded, length) else {
        buffer.truncate(start);
        let reason = encoded.err().unwrap_or_else(|| "longer than two gigabytes".to_owned());
        return Err(EncodeError { header, reason });
    };
    buffer[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    if let (Some(first), Response::Fetch(answer)) = (splices.first(), response) {
        let rest = buffer.split_off(first.at);
        splice(answer, &splices, &rest, output);
    }
    Ok(())
}

/// Puts the records where they belong; `rest` is what was encoded from the first of them on.
fn splice(answer: FetchAnswer, splices: &[Splice], rest: &[u8], output: &mut Output) {
    let first = splices[0].at;
    let ends = splices.iter().skip(1).map(|splice| splice.at - first).chain([rest.len()]);
    for ((records, splice), end) in answer.records.into_iter().zip(splices).zip(ends) {
        records.parts.into_iter().for_each(|part| output.push(part));
        output.tail().put_slice(&rest[splice.at - first..end]);
    }
}

fn records_of(response: &Response) -> &[fetch::FetchedRecords] {
    match response {
        Response::Fetch(answer) => &answer.records,
        _ => &[],
    }
}

/// Takes away what the version does not have.
fn fit(response: &mut Response, version: i16) {
    match response {
        Response::ListOffsets(response) if version < 4 => {
            for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.leader_epoch = -1;
            }
        }
        Response::Metadata(response) => {
            if !(8..=10).contains(&version) {
                response.cluster_authorized_operations = i32::MIN;
            }
            if version < 8 {
                response.topics.iter_mut().for_each(|topic| topic.topic_authorized_operations = i32::MIN);
            }
            if version < 12 {
                response.topics.iter_mut().for_each(|topic| {
                    topic.name.get_or_insert_default();
                });
            }
        }
        Response::FindCoordinator(response) if version <= 3 => {
            if let Some(coordinator) = response.coordinators.drain(..).next() {
                response.error_code = coordinator.error_code;
                response.error_message = coordinator.error_message;
                response.node_id = coordinator.node_id;
                response.host = coordinator.host;
                response.port = coordinator.port;
            }
        }
        Response::DeleteTopics(response) if version < 6 => {
            response.responses.iter_mut().for_each(|topic| {
                topic.name.get_or_insert_default();
            });
        }
        Response::Produce(_)
        | Response::Fetch(_)
        | Response::ListOffsets(_)
        | Response::FindCoordinator(_)
        | Response::ApiVersions(_)
        | Response::CreateTopics(_)
        | Response::DeleteTopics(_)
        | Response::DeleteRecords(_)
        | Response::InitProducerId(_)
        | Response::OffsetForLeaderEpoch(_)
        | Response::DescribeConfigs(_)
        | Response::CreatePartitions(_)
        | Response::DescribeCluster(_)
        | Response::JoinGroup(_)
        | Response::ConsumerGroupHeartbeat(_)
        | Response::ConsumerGroupDescribe(_)
        | Response::SyncGroup(_)
        | Response::Heartbeat(_)
        | Response::LeaveGroup(_)
        | Response::OffsetCommit(_)
        | Response::OffsetFetch(_)
        | Response::OffsetDelete(_)
        | Response::ListGroups(_)
        | Response::DescribeGroups(_)
        | Response::DeleteGroups(_)
        | Response::ElectLeaders(_)
        | Response::AlterConfigs(_)
        | Response::IncrementalAlterConfigs(_)
        | Response::AlterPartitionReassignments(_)
        | Response::ListPartitionReassignments(_)
        | Response::UnregisterBroker(_) => {}
    }
}

/// The same for answers about groups.
fn fit_groups(response: &mut Response, version: i16) {
    if let Response::JoinGroup(response) = &mut *response
        && version < 7
    {
        response.protocol_type = None;
        response.protocol_name.get_or_insert_default();
        if version < 5 {
            response.members.iter_mut().for_each(|member| member.group_instance_id = None);
        }
    }
    if let Response::LeaveGroup(response) = &mut *response
        && version < 3
    {
        response.members.clear();
    }
    if let Response::ListGroups(response) = &mut *response
        && version < 5
    {
        response.groups.iter_mut().for_each(|group| {
            group.group_type = StrBytes::default();
            if version < 4 {
                group.group_state = StrBytes::default();
            }
        });
    }
    if let Response::ConsumerGroupDescribe(response) = &mut *response
        && version < 1
    {
        let members = response.groups.iter_mut().flat_map(|group| &mut group.members);
        members.for_each(|member| member.member_type = -1);
    }
    if let Response::DescribeGroups(response) = &mut *response
        && version < 6
    {
        response.groups.iter_mut().for_each(|group| {
            group.error_message = None;
            if version < 3 {
                group.authorized_operations = i32::MIN;
            }
            if version < 4 {
                group.members.iter_mut().for_each(|member| member.group_instance_id = None);
            }
        });
    }
    if let Response::OffsetFetch(response) = &mut *response
        && version < 5
    {
        if version < 2 {
            response.error_code = 0;
        }
        let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        partitions.for_each(|partition| partition.committed_leader_epoch = -1);
    }
}

fn encode_body(
    response: &Response,
    version: i16,
    output: &mut BytesMut,
    splices: &mut Vec<Splice>,
) -> Result<(), String> {
    let encoded = match response {
        Response::Produce(body) => body.encode(output, version),
        Response::Fetch(answer) => return fetch::encode(answer, version, output, splices),
        Response::ListOffsets(body) => body.encode(output, version),
        Response::Metadata(body) => body.encode(output, version),
        Response::FindCoordinator(body) => body.encode(output, version),
        Response::ApiVersions(body) => body.encode(output, version),
        Response::CreateTopics(body) => body.encode(output, version),
        Response::DeleteTopics(body) => body.encode(output, version),
        Response::DeleteRecords(body) => body.encode(output, version),
        Response::InitProducerId(body) => body.encode(output, version),
        Response::OffsetForLeaderEpoch(body) => body.encode(output, version),
        Response::DescribeConfigs(body) => body.encode(output, version),
        Response::CreatePartitions(body) => body.encode(output, version),
        Response::ElectLeaders(body) => body.encode(output, version),
        Response::AlterConfigs(body) => body.encode(output, version),
        Response::IncrementalAlterConfigs(body) => body.encode(output, version),
        Response::AlterPartitionReassignments(body) => body.encode(output, version),
        Response::ListPartitionReassignments(body) => body.encode(output, version),
        Response::UnregisterBroker(body) => body.encode(output, version),
        Response::DescribeCluster(body) => body.encode(output, version),
        Response::JoinGroup(body) => body.encode(output, version),
        Response::ConsumerGroupHeartbeat(body) => body.encode(output, version),
        Response::ConsumerGroupDescribe(body) => body.encode(output, version),
        Response::SyncGroup(body) => body.encode(output, version),
        Response::Heartbeat(body) => body.encode(output, version),
        Response::LeaveGroup(body) => body.encode(output, version),
        Response::OffsetCommit(body) => body.encode(output, version),
        Response::OffsetFetch(body) => body.encode(output, version),
        Response::OffsetDelete(body) => body.encode(output, version),
        Response::ListGroups(body) => body.encode(output, version),
        Response::DescribeGroups(body) => body.encode(output, version),
        Response::DeleteGroups(body) => body.encode(output, version),
    };
    encoded.map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
