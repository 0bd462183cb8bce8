//! The way in: a frame becomes a checked header and a decoded request, or an error that ends the connection.
//! An ApiVersions request of a version that nobody knows is a request of its own, because it has an answer.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, ApiVersionsRequest, ConsumerGroupDescribeRequest,
    ConsumerGroupHeartbeatRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest,
    ElectLeadersRequest, FetchRequest, FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest, UnregisterBrokerRequest,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

use super::api::Api;
use super::shape::{self, ShapeError};

/// What the header of a request says, as far as the broker needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// The call.
    pub api: Api,
    /// Its version: one that the broker answers, or 0 for the answer to an unknown ApiVersions.
    pub version: i16,
    /// Echoed in the response.
    pub correlation_id: i32,
}

/// A decoded request.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is the codec's message of that name")]
pub enum Request {
    Produce(ProduceRequest),
    Fetch(FetchRequest),
    ListOffsets(ListOffsetsRequest),
    Metadata(MetadataRequest),
    FindCoordinator(FindCoordinatorRequest),
    ApiVersions(ApiVersionsRequest),
    /// ApiVersions of a version that the broker does not know: answered in version 0 with error 35.
    ApiVersionsUnknown,
    CreateTopics(CreateTopicsRequest),
    DeleteTopics(DeleteTopicsRequest),
    DeleteRecords(DeleteRecordsRequest),
    InitProducerId(InitProducerIdRequest),
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest),
    DescribeConfigs(DescribeConfigsRequest),
    CreatePartitions(CreatePartitionsRequest),
    DescribeCluster(DescribeClusterRequest),
    /// JoinGroup, with the client id of its header.
    JoinGroup {
        client_id: StrBytes,
        request: JoinGroupRequest,
    },
    /// ConsumerGroupHeartbeat, with the client id of its header.
    ConsumerGroupHeartbeat {
        client_id: StrBytes,
        request: ConsumerGroupHeartbeatRequest,
    },
    ConsumerGroupDescribe(ConsumerGroupDescribeRequest),
    SyncGroup(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    LeaveGroup(LeaveGroupRequest),
    OffsetCommit(OffsetCommitRequest),
    OffsetFetch(OffsetFetchRequest),
    OffsetDelete(OffsetDeleteRequest),
    ListGroups(ListGroupsRequest),
    DescribeGroups(DescribeGroupsRequest),
    DeleteGroups(DeleteGroupsRequest),
    ElectLeaders(ElectLeadersRequest),
    AlterConfigs(AlterConfigsRequest),
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest),
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest),
    ListPartitionReassignments(ListPartitionReassignmentsRequest),
    UnregisterBroker(UnregisterBrokerRequest),
}

/// Why a frame is no request; its connection is to be closed.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Too short for a header.
    #[error("a frame of {0} bytes is too short for a request header")]
    NoHeader(usize),
    /// A call or version that the broker does not answer.
    #[error("version {version} of call {key} is not answered; ask ApiVersions first")]
    Unsupported {
        /// The call's key.
        key: i16,
        /// The version asked for.
        version: i16,
    },
    /// Counts or lengths do not fit the frame.
    #[error("{api:?} version {version}: {source}")]
    Shape {
        /// The call.
        api: Api,
        /// Its version.
        version: i16,
        /// What does not fit.
        source: ShapeError,
    },
    /// The codec refuses the body (a null where none may be, a string that is not UTF-8).
    #[error("{api:?} version {version}: {reason}")]
    Body {
        /// The call.
        api: Api,
        /// Its version.
        version: i16,
        /// The codec's words.
        reason: String,
    },
}

/// Decodes one frame.
pub fn decode(mut frame: Bytes) -> Result<(RequestHeader, Request), DecodeError> {
    let Some(head) = frame.first_chunk::<HEADER_BYTES_MIN>() else { return Err(DecodeError::NoHeader(frame.len())) };
    let [k0, k1, v0, v1, c0, c1, c2, c3, l0, l1] = *head;
    let key = i16::from_be_bytes([k0, k1]);
    let version = i16::from_be_bytes([v0, v1]);
    let correlation_id = i32::from_be_bytes([c0, c1, c2, c3]);
    let Some(api) = Api::from_key(key) else { return Err(DecodeError::Unsupported { key, version }) };
    if !api.answers(version) {
        if api == Api::ApiVersions {
            return Ok((RequestHeader { api, version: 0, correlation_id }, Request::ApiVersionsUnknown));
        }
        return Err(DecodeError::Unsupported { key, version });
    }
    let client_id_length = usize::try_from(i16::from_be_bytes([l0, l1])).unwrap_or(0);
    let mut body_at = HEADER_BYTES_MIN + client_id_length;
    if body_at > frame.len() {
        return Err(DecodeError::NoHeader(frame.len()));
    }
    // Clients send text; what is not is nobody's name.
    let client_id = StrBytes::try_from(frame.slice(HEADER_BYTES_MIN..body_at)).unwrap_or_default();
    let shape_error = |source| DecodeError::Shape { api, version, source };
    if api.is_flexible(version) {
        body_at = shape::check_header_tags(&frame, body_at).map_err(shape_error)?;
    }
    shape::check_body(&frame, body_at, api.request_shape(), version).map_err(shape_error)?;
    frame.advance(body_at);
    let request = decode_body(api, version, client_id, &mut frame).map_err(|error| DecodeError::Body {
        api,
        version,
        reason: error.to_string(),
    })?;
    Ok((RequestHeader { api, version, correlation_id }, request))
}

fn decode_body(
    api: Api,
    version: i16,
    client_id: StrBytes,
    body: &mut Bytes,
) -> Result<Request, impl std::fmt::Display + use<>> {
    match api {
        Api::Produce => ProduceRequest::decode(body, version).map(Request::Produce),
        Api::Fetch => FetchRequest::decode(body, version).map(Request::Fetch),
        Api::ListOffsets => ListOffsetsRequest::decode(body, version).map(Request::ListOffsets),
        Api::Metadata => MetadataRequest::decode(body, version).map(Request::Metadata),
        Api::FindCoordinator => FindCoordinatorRequest::decode(body, version).map(Request::FindCoordinator),
        Api::ApiVersions => ApiVersionsRequest::decode(body, version).map(Request::ApiVersions),
        Api::CreateTopics => CreateTopicsRequest::decode(body, version).map(Request::CreateTopics),
        Api::DeleteTopics => DeleteTopicsRequest::decode(body, version).map(Request::DeleteTopics),
        Api::DeleteRecords => DeleteRecordsRequest::decode(body, version).map(Request::DeleteRecords),
        Api::InitProducerId => InitProducerIdRequest::decode(body, version).map(Request::InitProducerId),
        Api::OffsetForLeaderEpoch => {
            OffsetForLeaderEpochRequest::decode(body, version).map(Request::OffsetForLeaderEpoch)
        }
        Api::DescribeConfigs => DescribeConfigsRequest::decode(body, version).map(Request::DescribeConfigs),
        Api::CreatePartitions => CreatePartitionsRequest::decode(body, version).map(Request::CreatePartitions),
        Api::ElectLeaders => ElectLeadersRequest::decode(body, version).map(Request::ElectLeaders),
        Api::AlterConfigs => AlterConfigsRequest::decode(body, version).map(Request::AlterConfigs),
        Api::IncrementalAlterConfigs => {
            IncrementalAlterConfigsRequest::decode(body, version).map(Request::IncrementalAlterConfigs)
        }
        Api::AlterPartitionReassignments => {
            AlterPartitionReassignmentsRequest::decode(body, version).map(Request::AlterPartitionReassignments)
        }
        Api::ListPartitionReassignments => {
            ListPartitionReassignmentsRequest::decode(body, version).map(Request::ListPartitionReassignments)
        }
        Api::UnregisterBroker => UnregisterBrokerRequest::decode(body, version).map(Request::UnregisterBroker),
        Api::DescribeCluster => DescribeClusterRequest::decode(body, version).map(Request::DescribeCluster),
        Api::JoinGroup => {
            JoinGroupRequest::decode(body, version).map(|request| Request::JoinGroup { client_id, request })
        }
        Api::ConsumerGroupHeartbeat => ConsumerGroupHeartbeatRequest::decode(body, version)
            .map(|request| Request::ConsumerGroupHeartbeat { client_id, request }),
        Api::ConsumerGroupDescribe => {
            ConsumerGroupDescribeRequest::decode(body, version).map(Request::ConsumerGroupDescribe)
        }
        Api::SyncGroup => SyncGroupRequest::decode(body, version).map(Request::SyncGroup),
        Api::Heartbeat => HeartbeatRequest::decode(body, version).map(Request::Heartbeat),
        Api::LeaveGroup => LeaveGroupRequest::decode(body, version).map(Request::LeaveGroup),
        Api::OffsetCommit => OffsetCommitRequest::decode(body, version).map(Request::OffsetCommit),
        Api::OffsetFetch => OffsetFetchRequest::decode(body, version).map(Request::OffsetFetch),
        Api::OffsetDelete => OffsetDeleteRequest::decode(body, version).map(Request::OffsetDelete),
        Api::ListGroups => ListGroupsRequest::decode(body, version).map(Request::ListGroups),
        Api::DescribeGroups => DescribeGroupsRequest::decode(body, version).map(Request::DescribeGroups),
        Api::DeleteGroups => DeleteGroupsRequest::decode(body, version).map(Request::DeleteGroups),
    }
}

/// Key, version, correlation id and the length of the client id.
const HEADER_BYTES_MIN: usize = 10;

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
