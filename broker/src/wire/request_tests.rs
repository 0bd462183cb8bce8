//! Tests of the way in: every version of every call passes, and hostile bytes end in an error, never in a panic.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;

use super::*;

fn text(value: &'static str) -> StrBytes {
    StrBytes::from_static_str(value)
}

fn name() -> TopicName {
    TopicName(text("orders"))
}

fn produce(version: i16) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(3).with_records(Some(Bytes::from_static(&[9; 70])));
    let mut topic = TopicProduceData::default().with_partition_data(vec![data.clone(), data]);
    if version <= 12 {
        topic.name = name();
    } else {
        topic.topic_id = uuid::Uuid::from_u128(7);
    }
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

fn fetch(version: i16) -> FetchRequest {
    let mut partition = FetchPartition::default().with_partition(1).with_fetch_offset(5).with_partition_max_bytes(99);
    let mut topic = FetchTopic::default();
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
    if version <= 12 {
        topic.topic = name();
        forgotten.topic = name();
    } else {
        topic.topic_id = uuid::Uuid::from_u128(7);
        forgotten.topic_id = uuid::Uuid::from_u128(7);
    }
    let mut request = FetchRequest::default().with_max_wait_ms(500).with_min_bytes(1);
    if version >= 7 {
        request.forgotten_topics_data = vec![forgotten];
    }
    if version >= 9 {
        partition.current_leader_epoch = 4;
    }
    if version >= 12 {
        request.cluster_id = Some(text("cluster"));
    }
    if version >= 15 {
        request.replica_state = ReplicaState::default().with_replica_id(BrokerId(4)).with_replica_epoch(8);
    }
    if version >= 17 {
        partition.replica_directory_id = uuid::Uuid::from_u128(9);
    }
    if version >= 18 {
        partition.high_watermark = 17;
    }
    topic.partitions = vec![partition.clone(), partition];
    request.with_topics(vec![topic])
}

fn create_topics() -> CreateTopicsRequest {
    let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
    let config = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(None);
    let topic = CreatableTopic::default()
        .with_name(name())
        .with_num_partitions(8)
        .with_assignments(vec![assignment])
        .with_configs(vec![config]);
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000)
}

fn delete_topics(version: i16) -> DeleteTopicsRequest {
    if version >= 6 {
        let state = DeleteTopicState::default().with_name(Some(name()));
        return DeleteTopicsRequest::default().with_topics(vec![state]);
    }
    DeleteTopicsRequest::default().with_topic_names(vec![name()])
}

fn rest(api: Api, version: i16, out: &mut BytesMut) {
    if super::super::group_tests::encode_request(api, version, out).is_some() {
        return;
    }
    match api {
        Api::Produce => produce(version).encode(out, version),
        Api::Fetch => fetch(version).encode(out, version),
        Api::ListOffsets => {
            let partition = ListOffsetsPartition::default().with_timestamp(-1);
            let topic = ListOffsetsTopic::default().with_name(name()).with_partitions(vec![partition]);
            ListOffsetsRequest::default().with_topics(vec![topic]).encode(out, version)
        }
        Api::Metadata => {
            let topic = MetadataRequestTopic::default().with_name(Some(name()));
            MetadataRequest::default().with_topics(Some(vec![topic])).encode(out, version)
        }
        Api::FindCoordinator if version >= 4 => {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![text("a")]).encode(out, version)
        }
        Api::FindCoordinator => FindCoordinatorRequest::default().with_key(text("a")).encode(out, version),
        Api::ApiVersions if version >= 3 => ApiVersionsRequest::default()
            .with_client_software_name(text("x"))
            .with_client_software_version(text("1"))
            .encode(out, version),
        Api::ApiVersions => ApiVersionsRequest::default().encode(out, version),
        Api::CreateTopics => create_topics().encode(out, version),
        Api::DeleteTopics => delete_topics(version).encode(out, version),
        Api::DeleteRecords => {
            let partition = DeleteRecordsPartition::default().with_offset(7);
            let topic = DeleteRecordsTopic::default().with_name(name()).with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![topic]).encode(out, version)
        }
        Api::InitProducerId => InitProducerIdRequest::default().with_transactional_id(None).encode(out, version),
        Api::OffsetForLeaderEpoch => {
            let topic = OffsetForLeaderTopic::default()
                .with_topic(name())
                .with_partitions(vec![OffsetForLeaderPartition::default()]);
            OffsetForLeaderEpochRequest::default().with_topics(vec![topic]).encode(out, version)
        }
        Api::DescribeConfigs => {
            let resource = DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("orders"))
                .with_configuration_keys(Some(vec![text("retention.ms")]));
            DescribeConfigsRequest::default().with_resources(vec![resource]).encode(out, version)
        }
        Api::CreatePartitions => {
            let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let topic = CreatePartitionsTopic::default().with_name(name()).with_assignments(Some(vec![assignment]));
            CreatePartitionsRequest::default().with_topics(vec![topic]).encode(out, version)
        }
        Api::DescribeCluster => DescribeClusterRequest::default().encode(out, version),
        Api::AlterConfigs
        | Api::ElectLeaders
        | Api::IncrementalAlterConfigs
        | Api::AlterPartitionReassignments
        | Api::ListPartitionReassignments
        | Api::UnregisterBroker => return rest_of_clusters(api, version, out),
        other => panic!("{other:?} has no request here"),
    }
    .unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
}

fn rest_of_clusters(api: Api, version: i16, out: &mut BytesMut) {
    match api {
        Api::AlterConfigs => {
            let config = AlterableConfig::default().with_name(text("a")).with_value(Some(text("b")));
            let resource =
                AlterConfigsResource::default().with_resource_name(text("orders")).with_configs(vec![config]);
            AlterConfigsRequest::default().with_resources(vec![resource]).encode(out, version)
        }
        Api::IncrementalAlterConfigs => {
            let config = incremental::AlterableConfig::default().with_name(text("a")).with_config_operation(1);
            let resource = incremental::AlterConfigsResource::default().with_configs(vec![config.with_value(None)]);
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).encode(out, version)
        }
        Api::ElectLeaders => {
            let partitions = TopicPartitions::default().with_topic(name()).with_partitions(vec![1, 2]);
            ElectLeadersRequest::default().with_topic_partitions(Some(vec![partitions])).encode(out, version)
        }
        Api::AlterPartitionReassignments => {
            let partition = ReassignablePartition::default().with_replicas(Some(vec![BrokerId(1), BrokerId(2)]));
            let topic = ReassignableTopic::default().with_name(name()).with_partitions(vec![partition]);
            AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]).encode(out, version)
        }
        Api::ListPartitionReassignments => {
            let topic = ListPartitionReassignmentsTopics::default().with_name(name()).with_partition_indexes(vec![3]);
            ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic])).encode(out, version)
        }
        _ => UnregisterBrokerRequest::default().with_broker_id(BrokerId(1)).encode(out, version),
    }
    .unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
}

fn valid_frame(api: Api, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(api.key());
    out.put_i16(version);
    out.put_i32(42);
    out.put_i16(6);
    out.put_slice(b"client");
    if api.is_flexible(version) {
        // One tagged field that nobody knows.
        out.put_slice(&[1, 77, 2, 5, 5]);
    }
    rest(api, version, &mut out);
    out.freeze()
}

fn every_version() -> Vec<(Api, i16)> {
    let ranges = Api::ALL.into_iter().map(|api| (api, api.version_minimum()..=api.version_maximum()));
    ranges.flat_map(|(api, range)| range.map(move |version| (api, version))).collect()
}

#[test]
fn every_version_of_every_call_is_decoded() {
    for (api, version) in every_version() {
        let (header, _) = decode(valid_frame(api, version)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((header.api, header.version, header.correlation_id), (api, version, 42));
    }
}

#[test]
fn the_walk_consumes_exactly_what_the_codec_encodes() {
    // Were the walk to end early, a count behind its end would reach the codec unchecked. So the last byte of every
    // valid frame must be needed.
    for (api, version) in every_version() {
        let frame = valid_frame(api, version);
        let body_needed = !matches!((api, version), (Api::ApiVersions | Api::ListGroups, ..3));
        if body_needed {
            let cut = frame.slice(..frame.len() - 1);
            let error = decode(cut).expect_err("a cut frame is refused");
            assert!(matches!(error, DecodeError::Shape { .. }), "{api:?} {version}: {error}");
        }
    }
}

#[test]
fn unknown_versions_and_calls_are_told_apart() {
    let request = |key: i16, version: i16| {
        let mut out = BytesMut::new();
        out.put_i16(key);
        out.put_i16(version);
        out.put_i32(5);
        out.put_i16(-1);
        decode(out.freeze())
    };
    let (header, unknown) = request(18, 99).unwrap();
    assert_eq!((header.version, unknown), (0, Request::ApiVersionsUnknown));
    for (key, version) in [(0, 2), (0, 14), (1, 3), (3, -1), (71, 0), (20_000, 0), (-7, 1)] {
        assert!(matches!(request(key, version), Err(DecodeError::Unsupported { .. })), "{key} {version}");
    }
}

#[test]
fn a_count_that_asks_for_gigabytes_is_refused() {
    let mut out = BytesMut::new();
    for value in [3i16, 1] {
        out.put_i16(value);
    }
    out.put_i32(1);
    out.put_i16(-1);
    out.put_i32(i32::MAX);
    assert!(matches!(decode(out.freeze()), Err(DecodeError::Shape { source: ShapeError::Short { .. }, .. })));
}

#[test]
fn many_tiny_elements_are_refused() {
    let mut out = BytesMut::new();
    for value in [3i16, 1] {
        out.put_i16(value);
    }
    out.put_i32(1);
    out.put_i16(-1);
    let count = shape::ELEMENTS_MAX + 1;
    out.put_i32(i32::try_from(count).unwrap());
    out.put_bytes(0, count * 2);
    assert!(matches!(decode(out.freeze()), Err(DecodeError::Shape { source: ShapeError::TooManyElements, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 34_000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(decode(Bytes::from(bytes)));
    }

    #[test]
    fn random_bodies_never_panic(
        pick in any::<proptest::sample::Index>(),
        body in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(255), any::<u8>()], 0..200),
    ) {
        let all = every_version();
        let (api, version) = all[pick.index(all.len())];
        let mut out = BytesMut::new();
        out.put_i16(api.key());
        out.put_i16(version);
        out.put_i32(1);
        out.put_i16(-1);
        if api.is_flexible(version) {
            out.put_u8(0);
        }
        out.put_slice(&body);
        drop(decode(out.freeze()));
    }

    #[test]
    fn mutated_and_cut_requests_never_panic(
        pick in any::<proptest::sample::Index>(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), prop_oneof![Just(0x7fu8), Just(0xff), Just(0x80), any::<u8>()]), 1..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let all = every_version();
        let (api, version) = all[pick.index(all.len())];
        let mut frame = valid_frame(api, version).to_vec();
        for (place, value) in edits {
            // The first eight bytes say which call it is; the body behind them is what is put to the proof.
            let at = 8 + place.index(frame.len() - 8);
            frame[at] = value;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        drop(decode(Bytes::from(frame)));
    }
}
