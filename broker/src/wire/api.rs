//! The calls that the broker answers, their version ranges and header versions.
//! Versions are the codec's full range of each call. One departure is copied from Kafka (KAFKA-18659): ApiVersions
//! lists Produce from version 0, because librdkafka refuses to compress otherwise; versions below 3 are still refused.

use kafka_protocol::messages::{self, ApiKey};
use kafka_protocol::protocol::{Message, Request, VersionRange};

use super::group_shape;
use super::shape::{self, MessageShape};

/// A call that the broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Api {
    /// Append batches to queues.
    Produce,
    /// Read batches, waiting for new ones.
    Fetch,
    /// Offsets by position in time.
    ListOffsets,
    /// Brokers, topics and queues.
    Metadata,
    /// The node that coordinates a group.
    FindCoordinator,
    /// This table.
    ApiVersions,
    /// Create topics.
    CreateTopics,
    /// Delete topics.
    DeleteTopics,
    /// Move a queue's log start.
    DeleteRecords,
    /// A producer id for an idempotent producer.
    InitProducerId,
    /// The end offset of a leader epoch.
    OffsetForLeaderEpoch,
    /// Settings with their values and defaults.
    DescribeConfigs,
    /// Replace topics' settings.
    AlterConfigs,
    /// Add queues to topics.
    CreatePartitions,
    /// A member joins a group of the classic protocol.
    JoinGroup,
    /// A member asks for its assignment; the leader brings all of them.
    SyncGroup,
    /// A member lives.
    Heartbeat,
    /// Members leave.
    LeaveGroup,
    /// Commit offsets of a group.
    OffsetCommit,
    /// Offsets that groups committed.
    OffsetFetch,
    /// Forget offsets of a group.
    OffsetDelete,
    /// The groups that this node coordinates.
    ListGroups,
    /// Groups of the classic protocol with their members.
    DescribeGroups,
    /// Delete groups without members.
    DeleteGroups,
    /// A member of the new group protocol lives, and hears what it is to own.
    ConsumerGroupHeartbeat,
    /// Groups of the new protocol with their members.
    ConsumerGroupDescribe,
    /// Elect preferred leaders, or unclean ones.
    ElectLeaders,
    /// Change single settings of topics.
    IncrementalAlterConfigs,
    /// Move logs to other replicas.
    AlterPartitionReassignments,
    /// The moves under way.
    ListPartitionReassignments,
    /// The brokers of the cluster.
    DescribeCluster,
    /// Forget a broker that is gone for good.
    UnregisterBroker,
}

impl Api {
    /// Every call, by ascending key.
    pub const ALL: [Api; 32] = [
        Api::Produce,
        Api::Fetch,
        Api::ListOffsets,
        Api::Metadata,
        Api::OffsetCommit,
        Api::OffsetFetch,
        Api::FindCoordinator,
        Api::JoinGroup,
        Api::Heartbeat,
        Api::LeaveGroup,
        Api::SyncGroup,
        Api::DescribeGroups,
        Api::ListGroups,
        Api::ApiVersions,
        Api::CreateTopics,
        Api::DeleteTopics,
        Api::DeleteRecords,
        Api::InitProducerId,
        Api::OffsetForLeaderEpoch,
        Api::DescribeConfigs,
        Api::AlterConfigs,
        Api::CreatePartitions,
        Api::DeleteGroups,
        Api::ElectLeaders,
        Api::IncrementalAlterConfigs,
        Api::AlterPartitionReassignments,
        Api::ListPartitionReassignments,
        Api::OffsetDelete,
        Api::DescribeCluster,
        Api::UnregisterBroker,
        Api::ConsumerGroupHeartbeat,
        Api::ConsumerGroupDescribe,
    ];

    /// The call with a key on the wire, where the broker answers it.
    pub fn from_key(key: i16) -> Option<Api> {
        Api::ALL.into_iter().find(|api| api.key() == key)
    }

    /// The key on the wire.
    pub fn key(self) -> i16 {
        self.codec_key() as i16
    }

    /// The codec's name of the call.
    pub fn codec_key(self) -> ApiKey {
        match self {
            Api::Produce => ApiKey::Produce,
            Api::Fetch => ApiKey::Fetch,
            Api::ListOffsets => ApiKey::ListOffsets,
            Api::Metadata => ApiKey::Metadata,
            Api::FindCoordinator => ApiKey::FindCoordinator,
            Api::ApiVersions => ApiKey::ApiVersions,
            Api::CreateTopics => ApiKey::CreateTopics,
            Api::DeleteTopics => ApiKey::DeleteTopics,
            Api::DeleteRecords => ApiKey::DeleteRecords,
            Api::InitProducerId => ApiKey::InitProducerId,
            Api::OffsetForLeaderEpoch => ApiKey::OffsetForLeaderEpoch,
            Api::DescribeConfigs => ApiKey::DescribeConfigs,
            Api::CreatePartitions => ApiKey::CreatePartitions,
            Api::JoinGroup => ApiKey::JoinGroup,
            Api::SyncGroup => ApiKey::SyncGroup,
            Api::Heartbeat => ApiKey::Heartbeat,
            Api::LeaveGroup => ApiKey::LeaveGroup,
            Api::OffsetCommit => ApiKey::OffsetCommit,
            Api::OffsetFetch => ApiKey::OffsetFetch,
            Api::OffsetDelete => ApiKey::OffsetDelete,
            Api::ListGroups => ApiKey::ListGroups,
            Api::DescribeGroups => ApiKey::DescribeGroups,
            Api::DeleteGroups => ApiKey::DeleteGroups,
            Api::ElectLeaders => ApiKey::ElectLeaders,
            Api::AlterConfigs => ApiKey::AlterConfigs,
            Api::IncrementalAlterConfigs => ApiKey::IncrementalAlterConfigs,
            Api::AlterPartitionReassignments => ApiKey::AlterPartitionReassignments,
            Api::ListPartitionReassignments => ApiKey::ListPartitionReassignments,
            Api::UnregisterBroker => ApiKey::UnregisterBroker,
            Api::DescribeCluster => ApiKey::DescribeCluster,
            Api::ConsumerGroupHeartbeat => ApiKey::ConsumerGroupHeartbeat,
            Api::ConsumerGroupDescribe => ApiKey::ConsumerGroupDescribe,
        }
    }

    /// The lowest version answered.
    pub fn version_minimum(self) -> i16 {
        self.versions().min
    }

    /// The highest version answered.
    pub fn version_maximum(self) -> i16 {
        self.versions().max
    }

    /// The lowest version listed by ApiVersions; see the head of this file for the one that differs.
    pub fn version_minimum_listed(self) -> i16 {
        match self {
            Api::Produce => 0,
            _ => self.version_minimum(),
        }
    }

    /// Whether the version is answered.
    pub fn answers(self, version: i16) -> bool {
        (self.version_minimum()..=self.version_maximum()).contains(&version)
    }

    /// Whether the version has tagged fields, in the request's header too.
    pub fn is_flexible(self, version: i16) -> bool {
        self.codec_key().request_header_version(version) >= 2
    }

    /// Whether the response's header has tagged fields; ApiVersions never has them.
    pub fn response_header_is_flexible(self, version: i16) -> bool {
        self.codec_key().response_header_version(version) >= 1
    }

    /// The versions that the codec has for the request and for the response.
    fn versions(self) -> VersionRange {
        match self {
            Api::Produce => both::<messages::ProduceRequest>(),
            Api::Fetch => both::<messages::FetchRequest>(),
            Api::ListOffsets => both::<messages::ListOffsetsRequest>(),
            Api::Metadata => both::<messages::MetadataRequest>(),
            Api::FindCoordinator => both::<messages::FindCoordinatorRequest>(),
            Api::ApiVersions => both::<messages::ApiVersionsRequest>(),
            Api::CreateTopics => both::<messages::CreateTopicsRequest>(),
            Api::DeleteTopics => both::<messages::DeleteTopicsRequest>(),
            Api::DeleteRecords => both::<messages::DeleteRecordsRequest>(),
            Api::InitProducerId => both::<messages::InitProducerIdRequest>(),
            Api::OffsetForLeaderEpoch => both::<messages::OffsetForLeaderEpochRequest>(),
            Api::DescribeConfigs => both::<messages::DescribeConfigsRequest>(),
            Api::CreatePartitions => both::<messages::CreatePartitionsRequest>(),
            Api::JoinGroup => both::<messages::JoinGroupRequest>(),
            Api::SyncGroup => both::<messages::SyncGroupRequest>(),
            Api::Heartbeat => both::<messages::HeartbeatRequest>(),
            Api::LeaveGroup => both::<messages::LeaveGroupRequest>(),
            Api::OffsetCommit => both::<messages::OffsetCommitRequest>(),
            Api::OffsetFetch => both::<messages::OffsetFetchRequest>(),
            Api::OffsetDelete => both::<messages::OffsetDeleteRequest>(),
            Api::ListGroups => both::<messages::ListGroupsRequest>(),
            Api::DescribeGroups => both::<messages::DescribeGroupsRequest>(),
            Api::DeleteGroups => both::<messages::DeleteGroupsRequest>(),
            Api::ElectLeaders => both::<messages::ElectLeadersRequest>(),
            Api::AlterConfigs => both::<messages::AlterConfigsRequest>(),
            Api::IncrementalAlterConfigs => both::<messages::IncrementalAlterConfigsRequest>(),
            Api::AlterPartitionReassignments => both::<messages::AlterPartitionReassignmentsRequest>(),
            Api::ListPartitionReassignments => both::<messages::ListPartitionReassignmentsRequest>(),
            Api::UnregisterBroker => both::<messages::UnregisterBrokerRequest>(),
            Api::DescribeCluster => both::<messages::DescribeClusterRequest>(),
            Api::ConsumerGroupHeartbeat => both::<messages::ConsumerGroupHeartbeatRequest>(),
            Api::ConsumerGroupDescribe => both::<messages::ConsumerGroupDescribeRequest>(),
        }
    }

    /// The shape of the request's body.
    pub fn request_shape(self) -> MessageShape {
        match self {
            Api::Produce => shape::PRODUCE,
            Api::Fetch => shape::FETCH,
            Api::ListOffsets => shape::LIST_OFFSETS,
            Api::Metadata => shape::METADATA,
            Api::FindCoordinator => shape::FIND_COORDINATOR,
            Api::ApiVersions => shape::API_VERSIONS,
            Api::CreateTopics => shape::CREATE_TOPICS,
            Api::DeleteTopics => shape::DELETE_TOPICS,
            Api::DeleteRecords => shape::DELETE_RECORDS,
            Api::InitProducerId => shape::INIT_PRODUCER_ID,
            Api::OffsetForLeaderEpoch => shape::OFFSET_FOR_LEADER_EPOCH,
            Api::DescribeConfigs => shape::DESCRIBE_CONFIGS,
            Api::CreatePartitions => shape::CREATE_PARTITIONS,
            Api::JoinGroup => group_shape::JOIN_GROUP,
            Api::SyncGroup => group_shape::SYNC_GROUP,
            Api::Heartbeat => group_shape::HEARTBEAT,
            Api::LeaveGroup => group_shape::LEAVE_GROUP,
            Api::OffsetCommit => group_shape::OFFSET_COMMIT,
            Api::OffsetFetch => group_shape::OFFSET_FETCH,
            Api::OffsetDelete => group_shape::OFFSET_DELETE,
            Api::ListGroups => group_shape::LIST_GROUPS,
            Api::DescribeGroups => group_shape::DESCRIBE_GROUPS,
            Api::DeleteGroups => group_shape::DELETE_GROUPS,
            Api::ElectLeaders => shape::ELECT_LEADERS,
            Api::AlterConfigs => shape::ALTER_CONFIGS,
            Api::IncrementalAlterConfigs => shape::INCREMENTAL_ALTER_CONFIGS,
            Api::AlterPartitionReassignments => shape::ALTER_PARTITION_REASSIGNMENTS,
            Api::ListPartitionReassignments => shape::LIST_PARTITION_REASSIGNMENTS,
            Api::UnregisterBroker => shape::UNREGISTER_BROKER,
            Api::DescribeCluster => shape::DESCRIBE_CLUSTER,
            Api::ConsumerGroupHeartbeat => group_shape::CONSUMER_GROUP_HEARTBEAT,
            Api::ConsumerGroupDescribe => group_shape::CONSUMER_GROUP_DESCRIBE,
        }
    }
}

fn both<R: Request>() -> VersionRange {
    R::VERSIONS.intersect(&<R::Response as Message>::VERSIONS)
}
