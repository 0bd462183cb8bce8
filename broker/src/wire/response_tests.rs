//! Tests of the way out: every version of every call can be encoded with every field filled, and reads back.

use std::io::IoSlice;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, LeaderIdAndEpoch, PartitionData};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::incremental_alter_configs_response as incremental;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{BrokerId, FetchResponse, ProducerId, TopicName};
use kafka_protocol::protocol::{Decodable, StrBytes};
use uuid::Uuid;

use super::*;
use crate::wire::api::Api;
use crate::wire::fetch::FetchedRecords;
use crate::wire::group_tests;

fn text(value: &'static str) -> StrBytes {
    StrBytes::from_static_str(value)
}

fn name() -> TopicName {
    TopicName(text("orders"))
}

/// Every field that the broker ever fills, filled.
fn filled(api: Api) -> Response {
    let id = Uuid::from_u128(7);
    let here = || vec![BrokerId(3)];
    match api {
        Api::Produce => {
            let partition = PartitionProduceResponse::default()
                .with_error_code(10)
                .with_base_offset(5)
                .with_log_start_offset(1)
                .with_error_message(Some(text("too large")));
            let topic = TopicProduceResponse::default().with_name(name()).with_topic_id(id);
            let topic = topic.with_partition_responses(vec![partition]);
            Response::Produce(ProduceResponse::default().with_responses(vec![topic]))
        }
        Api::Fetch => {
            let partition = PartitionData::default()
                .with_high_watermark(9)
                .with_last_stable_offset(9)
                .with_log_start_offset(2)
                .with_aborted_transactions(None)
                .with_records(Some(Bytes::from_static(b"records")));
            let topic = FetchableTopicResponse::default().with_topic(name()).with_topic_id(id);
            let topic = topic.with_partitions(vec![partition]);
            Response::Fetch(FetchResponse::default().with_error_code(70).with_responses(vec![topic]).into())
        }
        Api::ListOffsets => {
            let partition = ListOffsetsPartitionResponse::default().with_offset(4).with_leader_epoch(0);
            let topic = ListOffsetsTopicResponse::default().with_name(name()).with_partitions(vec![partition]);
            Response::ListOffsets(ListOffsetsResponse::default().with_topics(vec![topic]))
        }
        Api::Metadata => {
            let partition = MetadataResponsePartition::default()
                .with_leader_id(BrokerId(3))
                .with_leader_epoch(0)
                .with_replica_nodes(here())
                .with_isr_nodes(here());
            let topic = MetadataResponseTopic::default().with_name(Some(name())).with_topic_id(id);
            let by_id = MetadataResponseTopic::default().with_name(None).with_topic_id(id).with_error_code(100);
            let broker = MetadataResponseBroker::default().with_node_id(BrokerId(3)).with_host(text("h"));
            Response::Metadata(
                MetadataResponse::default()
                    .with_brokers(vec![broker.with_port(9092)])
                    .with_cluster_id(Some(text("c")))
                    .with_controller_id(BrokerId(3))
                    .with_topics(vec![topic.with_partitions(vec![partition]), by_id]),
            )
        }
        Api::FindCoordinator => {
            let coordinator = Coordinator::default()
                .with_key(text("g"))
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(15)
                .with_error_message(Some(text("none")));
            Response::FindCoordinator(FindCoordinatorResponse::default().with_coordinators(vec![coordinator]))
        }
        Api::ApiVersions => {
            let key = ApiVersion::default().with_api_key(18).with_max_version(4);
            Response::ApiVersions(ApiVersionsResponse::default().with_error_code(35).with_api_keys(vec![key]))
        }
        Api::AlterConfigs
        | Api::ElectLeaders
        | Api::IncrementalAlterConfigs
        | Api::AlterPartitionReassignments
        | Api::ListPartitionReassignments
        | Api::UnregisterBroker => filled_clusters(api),
        _ => group_tests::filled(api).unwrap_or_else(|| filled_administration(api, id)),
    }
}

fn filled_administration(api: Api, id: Uuid) -> Response {
    match api {
        Api::CreateTopics => {
            let config = CreatableTopicConfigs::default().with_name(text("a")).with_value(Some(text("b")));
            let topic = CreatableTopicResult::default()
                .with_name(name())
                .with_topic_id(id)
                .with_num_partitions(4)
                .with_replication_factor(1)
                .with_error_message(Some(text("m")))
                .with_configs(Some(vec![config.with_config_source(1)]));
            Response::CreateTopics(CreateTopicsResponse::default().with_topics(vec![topic]))
        }
        Api::DeleteTopics => {
            let topics = [Some(name()), None].map(|name| {
                DeletableTopicResult::default().with_name(name).with_topic_id(id).with_error_message(Some(text("m")))
            });
            Response::DeleteTopics(DeleteTopicsResponse::default().with_responses(topics.into()))
        }
        Api::DeleteRecords => {
            let partition = DeleteRecordsPartitionResult::default().with_low_watermark(4);
            let topic = DeleteRecordsTopicResult::default().with_name(name()).with_partitions(vec![partition]);
            Response::DeleteRecords(DeleteRecordsResponse::default().with_topics(vec![topic]))
        }
        Api::OffsetForLeaderEpoch => {
            let partition = EpochEndOffset::default().with_leader_epoch(0).with_end_offset(9);
            let topic = OffsetForLeaderTopicResult::default().with_topic(name()).with_partitions(vec![partition]);
            Response::OffsetForLeaderEpoch(OffsetForLeaderEpochResponse::default().with_topics(vec![topic]))
        }
        Api::DescribeConfigs => {
            let synonym = DescribeConfigsSynonym::default().with_name(text("a")).with_value(Some(text("b")));
            let config = DescribeConfigsResourceResult::default()
                .with_name(text("a"))
                .with_value(Some(text("b")))
                .with_config_source(1)
                .with_synonyms(vec![synonym])
                .with_config_type(2)
                .with_documentation(Some(text("d")));
            let result = DescribeConfigsResult::default().with_resource_name(text("t")).with_configs(vec![config]);
            Response::DescribeConfigs(DescribeConfigsResponse::default().with_results(vec![result]))
        }
        Api::CreatePartitions => {
            let topic = CreatePartitionsTopicResult::default().with_name(name()).with_error_message(Some(text("m")));
            Response::CreatePartitions(CreatePartitionsResponse::default().with_results(vec![topic]))
        }
        Api::DescribeCluster => {
            let broker = DescribeClusterBroker::default().with_broker_id(BrokerId(3)).with_host(text("h"));
            let response = DescribeClusterResponse::default().with_cluster_id(text("c"));
            Response::DescribeCluster(response.with_brokers(vec![broker]))
        }
        Api::InitProducerId => {
            Response::InitProducerId(InitProducerIdResponse::default().with_producer_id(ProducerId(8)))
        }
        _ => unreachable!("filled by the caller"),
    }
}

fn filled_clusters(api: Api) -> Response {
    let ids = || vec![BrokerId(3), BrokerId(4)];
    match api {
        Api::AlterConfigs => {
            let resource = AlterConfigsResourceResponse::default()
                .with_error_code(40)
                .with_error_message(Some(text("m")))
                .with_resource_name(text("orders"));
            Response::AlterConfigs(AlterConfigsResponse::default().with_responses(vec![resource]))
        }
        Api::IncrementalAlterConfigs => {
            let resource = incremental::AlterConfigsResourceResponse::default().with_resource_name(text("orders"));
            Response::IncrementalAlterConfigs(IncrementalAlterConfigsResponse::default().with_responses(vec![resource]))
        }
        Api::ElectLeaders => {
            let partition = PartitionResult::default().with_partition_id(2).with_error_code(84);
            let topic = ReplicaElectionResult::default().with_topic(name()).with_partition_result(vec![partition]);
            Response::ElectLeaders(ElectLeadersResponse::default().with_replica_election_results(vec![topic]))
        }
        Api::AlterPartitionReassignments => {
            let partition = ReassignablePartitionResponse::default().with_partition_index(2).with_error_code(85);
            let topic = ReassignableTopicResponse::default().with_name(name()).with_partitions(vec![partition]);
            let response = AlterPartitionReassignmentsResponse::default().with_responses(vec![topic]);
            Response::AlterPartitionReassignments(response)
        }
        Api::ListPartitionReassignments => {
            let partition = OngoingPartitionReassignment::default()
                .with_replicas(ids())
                .with_adding_replicas(ids())
                .with_removing_replicas(ids());
            let topic = OngoingTopicReassignment::default().with_name(name()).with_partitions(vec![partition]);
            Response::ListPartitionReassignments(ListPartitionReassignmentsResponse::default().with_topics(vec![topic]))
        }
        _ => Response::UnregisterBroker(UnregisterBrokerResponse::default().with_error_code(102)),
    }
}

fn decode_back(api: Api, version: i16, body: &mut Bytes) -> Response {
    if let Some(response) = group_tests::decode_response(api, version, body) {
        return response;
    }
    let decoded = match api {
        Api::Produce => ProduceResponse::decode(body, version).map(Response::Produce),
        Api::Fetch => FetchResponse::decode(body, version).map(|read| Response::Fetch(read.into())),
        Api::ListOffsets => ListOffsetsResponse::decode(body, version).map(Response::ListOffsets),
        Api::Metadata => MetadataResponse::decode(body, version).map(Response::Metadata),
        Api::FindCoordinator => FindCoordinatorResponse::decode(body, version).map(Response::FindCoordinator),
        Api::ApiVersions => ApiVersionsResponse::decode(body, version).map(Response::ApiVersions),
        Api::CreateTopics => CreateTopicsResponse::decode(body, version).map(Response::CreateTopics),
        Api::DeleteTopics => DeleteTopicsResponse::decode(body, version).map(Response::DeleteTopics),
        Api::DeleteRecords => DeleteRecordsResponse::decode(body, version).map(Response::DeleteRecords),
        Api::InitProducerId => InitProducerIdResponse::decode(body, version).map(Response::InitProducerId),
        Api::OffsetForLeaderEpoch => {
            OffsetForLeaderEpochResponse::decode(body, version).map(Response::OffsetForLeaderEpoch)
        }
        Api::DescribeConfigs => DescribeConfigsResponse::decode(body, version).map(Response::DescribeConfigs),
        Api::CreatePartitions => CreatePartitionsResponse::decode(body, version).map(Response::CreatePartitions),
        Api::AlterConfigs => AlterConfigsResponse::decode(body, version).map(Response::AlterConfigs),
        Api::ElectLeaders => ElectLeadersResponse::decode(body, version).map(Response::ElectLeaders),
        Api::IncrementalAlterConfigs => {
            IncrementalAlterConfigsResponse::decode(body, version).map(Response::IncrementalAlterConfigs)
        }
        Api::AlterPartitionReassignments => {
            AlterPartitionReassignmentsResponse::decode(body, version).map(Response::AlterPartitionReassignments)
        }
        Api::ListPartitionReassignments => {
            ListPartitionReassignmentsResponse::decode(body, version).map(Response::ListPartitionReassignments)
        }
        Api::UnregisterBroker => UnregisterBrokerResponse::decode(body, version).map(Response::UnregisterBroker),
        Api::DescribeCluster => DescribeClusterResponse::decode(body, version).map(Response::DescribeCluster),
        other => panic!("{other:?} has no answer here"),
    };
    decoded.unwrap_or_else(|error| panic!("{api:?} {version}: {error}"))
}

#[test]
fn every_version_of_every_answer_is_encoded_and_reads_back() {
    for api in Api::ALL {
        for version in api.version_minimum()..=api.version_maximum() {
            let header = RequestHeader { api, version, correlation_id: 42 };
            let response = group_tests::filled_for(api, version).unwrap_or_else(|| filled(api));
            let mut frame = sent(header, response).split_off(6);
            assert_eq!(frame.get_i32() as usize, frame.len());
            assert_eq!(frame.get_i32(), 42);
            if api.response_header_is_flexible(version) {
                assert_eq!(frame.get_u8(), 0);
            }
            let body = frame.clone();
            let read = decode_back(api, version, &mut frame);
            assert!(frame.is_empty(), "{api:?} {version}");
            // What was read, encoded again, gives the same bytes: nothing that the version has was dropped.
            let again = sent(header, read.clone());
            assert!(again.ends_with(&body), "{api:?} {version}");
            if version == api.version_maximum() && api != Api::Produce && api != Api::Fetch {
                assert_eq!(read, filled(api), "the newest version has every field");
            }
        }
    }
}

#[test]
fn an_answer_that_cannot_be_encoded_leaves_the_output_alone() {
    let header = RequestHeader { api: Api::Fetch, version: 4, correlation_id: 1 };
    let mut response = FetchResponse::default().with_responses(vec![FetchableTopicResponse::default()]);
    response.responses[0].partitions.push(PartitionData::default().with_preferred_read_replica(BrokerId(3)));
    let mut output = Output::default();
    output.tail().put_slice(b"before");
    assert!(encode(header, Response::Fetch(response.into()), &mut output).is_err());
    assert_eq!(all(&output), b"before"[..]);
}

#[test]
fn records_lie_in_a_fetch_as_the_codec_would_have_put_them() {
    let large = |byte: u8| Bytes::from(vec![byte; 5000]);
    for version in Api::Fetch.version_minimum()..=Api::Fetch.version_maximum() {
        let mut response = FetchResponse::default().with_throttle_time_ms(7);
        for name in ["first", "second"] {
            let partitions = (0..3).map(|index| PartitionData::default().with_partition_index(index));
            let topic = FetchableTopicResponse::default().with_partitions(partitions.collect());
            let (named, id) = if version < 13 { (name, 0) } else { ("", 9) };
            let topic = topic.with_topic(TopicName(text(named))).with_topic_id(Uuid::from_u128(id));
            response.responses.push(topic);
        }
        let parts = vec![large(1), Bytes::from_static(b"small"), large(2)];
        let mut records = vec![FetchedRecords { topic: 0, partition: 1, parts }];
        records.push(FetchedRecords { topic: 1, partition: 0, parts: vec![large(3)] });
        records.push(FetchedRecords { topic: 1, partition: 2, parts: vec![Bytes::from_static(b"end")] });
        if version >= 12 {
            let leader = LeaderIdAndEpoch::default().with_leader_epoch(4);
            response.responses[1].partitions[0].current_leader = leader;
        }
        let answer = FetchAnswer { response, records };
        let mut joined = BytesMut::new();
        answer.joined().encode(&mut joined, version).expect("the version has these fields");
        let frame = sent(RequestHeader { api: Api::Fetch, version, correlation_id: 1 }, Response::Fetch(answer));
        assert!(frame.ends_with(&joined), "version {version}");
        assert_eq!(frame.slice(6..).get_i32() as usize, frame.len() - 10);
    }
}

/// What goes over the wire behind six bytes that were there before.
fn sent(header: RequestHeader, response: Response) -> Bytes {
    let mut output = Output::default();
    output.tail().put_slice(b"before");
    encode(header, response, &mut output).unwrap_or_else(|error| panic!("{error}"));
    all(&output)
}

fn all(output: &Output) -> Bytes {
    let mut slices = [IoSlice::new(&[]); 64];
    let filled = output.slices(&mut slices);
    slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
}
