//! The way out: a response becomes a frame. The codec refuses a field that the version lacks, so `fit` takes such
//! fields away; it is the one place that knows which. `core` fills every field it has an answer for.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{
    AlterConfigsResponse, AlterPartitionReassignmentsResponse, ApiVersionsResponse, CreatePartitionsResponse,
    CreateTopicsResponse, DeleteRecordsResponse, DeleteTopicsResponse, DescribeClusterResponse,
    DescribeConfigsResponse, ElectLeadersResponse, FetchResponse, FindCoordinatorResponse,
    IncrementalAlterConfigsResponse, InitProducerIdResponse, ListOffsetsResponse, ListPartitionReassignmentsResponse,
    MetadataResponse, OffsetForLeaderEpochResponse, ProduceResponse, UnregisterBrokerResponse,
};
use kafka_protocol::protocol::Encodable;

use super::frame::LENGTH_BYTES;
use super::request::RequestHeader;

/// An answer.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is the codec's message of that name")]
pub enum Response {
    Produce(ProduceResponse),
    Fetch(FetchResponse),
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
pub fn encode(header: RequestHeader, mut response: Response, output: &mut BytesMut) -> Result<(), EncodeError> {
    let start = output.len();
    output.put_i32(0);
    output.put_i32(header.correlation_id);
    if header.api.response_header_is_flexible(header.version) {
        output.put_u8(0);
    }
    fit(&mut response, header.version);
    if let Err(error) = encode_body(&response, header.version, output) {
        output.truncate(start);
        return Err(EncodeError { header, reason: error.to_string() });
    }
    let Ok(length) = i32::try_from(output.len() - start - LENGTH_BYTES) else {
        output.truncate(start);
        return Err(EncodeError { header, reason: "longer than two gigabytes".to_owned() });
    };
    output[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(())
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
        | Response::ElectLeaders(_)
        | Response::AlterConfigs(_)
        | Response::IncrementalAlterConfigs(_)
        | Response::AlterPartitionReassignments(_)
        | Response::ListPartitionReassignments(_)
        | Response::UnregisterBroker(_) => {}
    }
}

fn encode_body(response: &Response, version: i16, output: &mut BytesMut) -> Result<(), impl std::fmt::Display + use<>> {
    match response {
        Response::Produce(body) => body.encode(output, version),
        Response::Fetch(body) => body.encode(output, version),
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
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
