//! A whole node over a real loopback socket: what a client sees, in both layouts and under every flush setting.

mod client;
mod metrics;
mod pressure;
mod sessions;

use std::path::Path;

use bytes::Bytes;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest, FindCoordinatorRequest,
    GroupId, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use mqassay_broker::core::batch::{Batch, BatchProducer, read_records};
use mqassay_broker::core::config::NodeConfig;
use mqassay_broker::core::settings::{FlushMode, Layout};
use mqassay_broker::core::types::{ProducerEpoch, ProducerId};

use client::{Broker, Client};

fn config(layout: Layout, flush: FlushMode) -> NodeConfig {
    let mut config = NodeConfig::tiny();
    config.topic.layout = layout;
    config.topic.class.flush = flush;
    config
}

fn start(config: &NodeConfig, data: &Path) -> Broker {
    Broker::start(config.clone(), data).expect("the folder is free and sound")
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn create(client: &mut Client, name: &str, partitions: i32, configs: &[(&str, &str)]) -> i16 {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string((*name).to_owned()))
            .with_value(Some(StrBytes::from_string((*value).to_owned())))
    });
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
        .with_configs(configs.collect());
    let response = client.call(7, &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000));
    response.topics[0].error_code
}

fn plain() -> BatchProducer {
    BatchProducer { id: ProducerId::NONE, epoch: ProducerEpoch(-1), base_sequence: -1 }
}

fn batch(producer: BatchProducer, records: &[(i64, &'static str)]) -> Bytes {
    let records: Vec<(i64, Bytes)> =
        records.iter().map(|(at, value)| (*at, Bytes::from_static(value.as_bytes()))).collect();
    Batch::of_records(producer, records.iter().map(|(at, value)| (*at, value))).bytes
}

fn produce_request(topic: &str, partition: i32, records: Bytes, acks: i16) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(5000).with_topic_data(vec![topic])
}

fn produce(client: &mut Client, topic: &str, partition: i32, records: Bytes) -> PartitionProduceResponse {
    let response = client.call(9, &produce_request(topic, partition, records, -1));
    response.responses[0].partition_responses[0].clone()
}

fn fetch_request(topic: &str, partition: i32, offset: i64, max_wait_ms: i32) -> FetchRequest {
    let wanted =
        FetchPartition::default().with_partition(partition).with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![wanted]);
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

fn fetch(client: &mut Client, topic: &str, partition: i32, offset: i64) -> PartitionData {
    client.call(11, &fetch_request(topic, partition, offset, 0)).responses[0].partitions[0].clone()
}

/// Every record of a queue from an offset on, as offset and value.
fn read_all(client: &mut Client, topic: &str, partition: i32, mut offset: i64) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    loop {
        let data = fetch(client, topic, partition, offset);
        assert_eq!(data.error_code, 0, "offset {offset}");
        let records = read_records(data.records.unwrap_or_default()).expect("whole batches");
        let Some(last) = records.last() else { return found };
        let next = last.offset.0 + 1;
        for record in records.into_iter().filter(|record| record.offset.0 >= offset) {
            let value = record.value.expect("every record of these tests has a value");
            found.push((record.offset.0, String::from_utf8(value.to_vec()).expect("text")));
        }
        offset = next;
    }
}

fn list_offset(client: &mut Client, topic: &str, partition: i32, timestamp: i64) -> (i64, i64) {
    let wanted = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![wanted]);
    let response = client.call(7, &ListOffsetsRequest::default().with_topics(vec![topic]));
    let answer = &response.topics[0].partitions[0];
    assert_eq!(answer.error_code, 0);
    (answer.offset, answer.timestamp)
}

fn texts(pairs: &[(i64, &str)]) -> Vec<(i64, String)> {
    pairs.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
}

const EVERY_SETTING: [(Layout, FlushMode); 6] = [
    (Layout::Shared, FlushMode::Ack),
    (Layout::Shared, FlushMode::Interval),
    (Layout::Shared, FlushMode::Os),
    (Layout::Partitioned, FlushMode::Ack),
    (Layout::Partitioned, FlushMode::Interval),
    (Layout::Partitioned, FlushMode::Os),
];

#[test]
fn what_was_produced_is_fetched_also_after_a_restart() {
    for (layout, flush) in EVERY_SETTING {
        let data = tempfile::tempdir().expect("a temporary folder");
        let config = config(layout, flush);
        let broker = start(&config, data.path());
        let mut client = Client::dial(&broker);
        assert_eq!(create(&mut client, "t", 3, &[]), 0);
        assert_eq!(create(&mut client, "t", 3, &[]), 36);
        assert_eq!(produce(&mut client, "t", 1, batch(plain(), &[(10, "a"), (20, "b")])).base_offset, 0);
        assert_eq!(produce(&mut client, "t", 1, batch(plain(), &[(30, "c")])).base_offset, 2);
        assert_eq!(produce(&mut client, "t", 2, batch(plain(), &[(40, "d")])).base_offset, 0);
        let expected = texts(&[(0, "a"), (1, "b"), (2, "c")]);
        assert_eq!(read_all(&mut client, "t", 1, 0), expected);
        assert_eq!(read_all(&mut client, "t", 1, 1), expected[1..], "a fetch inside a batch gets the whole batch");
        drop(client);
        broker.stop();

        let broker = start(&config, data.path());
        let mut client = Client::dial(&broker);
        assert_eq!(read_all(&mut client, "t", 1, 0), expected);
        assert_eq!(read_all(&mut client, "t", 0, 0), []);
        assert_eq!(produce(&mut client, "t", 1, batch(plain(), &[(50, "e")])).base_offset, 3);
        assert_eq!(fetch(&mut client, "t", 1, 5).error_code, 1, "past the end is out of range");
        broker.stop();
    }
}

#[test]
fn many_batches_roll_segments_and_are_read_back_from_disk() {
    for layout in [Layout::Shared, Layout::Partitioned] {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut config = config(layout, FlushMode::Ack);
        config.topic.class.segment_bytes = 2048;
        config.tail_cache_bytes = 512;
        let broker = start(&config, data.path());
        let mut client = Client::dial(&broker);
        create(&mut client, "t", 2, &[]);
        for index in 0..100 {
            let answer = produce(&mut client, "t", index % 2, batch(plain(), &[(i64::from(index), "some text")]));
            assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(index / 2)));
        }
        for partition in 0..2 {
            let all = read_all(&mut client, "t", partition, 0);
            assert_eq!(all.len(), 50);
            assert!(all.iter().enumerate().all(|(place, (offset, _))| place as i64 == *offset));
        }
        assert_eq!(list_offset(&mut client, "t", 1, 40), (20, 41), "found in a segment that is on disk alone");
        broker.stop();
    }
}

#[test]
fn offsets_by_time_are_exact_where_timestamps_are_not_monotonic() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let broker = start(&config(Layout::Shared, FlushMode::Ack), data.path());
    let mut client = Client::dial(&broker);
    create(&mut client, "t", 1, &[]);
    assert_eq!(list_offset(&mut client, "t", 0, -3), (-1, -1));
    produce(&mut client, "t", 0, batch(plain(), &[(100, "a"), (50, "b"), (300, "c")]));
    produce(&mut client, "t", 0, batch(plain(), &[(200, "d"), (250, "e")]));
    for (timestamp, expected) in [
        (0, (0, 100)),
        (100, (0, 100)),
        (101, (2, 300)),
        (300, (2, 300)),
        (301, (-1, -1)),
        (-1, (5, -1)),
        (-2, (0, -1)),
        (-3, (2, 300)),
    ] {
        assert_eq!(list_offset(&mut client, "t", 0, timestamp), expected, "timestamp {timestamp}");
    }
}

#[test]
fn a_retry_is_answered_like_its_original_and_a_gap_is_refused() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let config = config(Layout::Shared, FlushMode::Ack);
    let broker = start(&config, data.path());
    let mut client = Client::dial(&broker);
    create(&mut client, "t", 1, &[]);
    let granted = client.call(4, &InitProducerIdRequest::default().with_transactional_id(None));
    assert_eq!((granted.error_code, granted.producer_epoch), (0, 0));
    let producer = |base_sequence| BatchProducer {
        id: ProducerId(granted.producer_id.0),
        epoch: ProducerEpoch(granted.producer_epoch),
        base_sequence,
    };
    assert_eq!(produce(&mut client, "t", 0, batch(producer(0), &[(1, "a"), (2, "b")])).base_offset, 0);
    assert_eq!(produce(&mut client, "t", 0, batch(producer(2), &[(3, "c")])).base_offset, 2);
    let retry = produce(&mut client, "t", 0, batch(producer(0), &[(1, "a"), (2, "b")]));
    assert_eq!((retry.error_code, retry.base_offset), (0, 0));
    assert_eq!(produce(&mut client, "t", 0, batch(producer(9), &[(3, "z")])).error_code, 45);
    drop(client);
    broker.stop();

    let broker = start(&config, data.path());
    let mut client = Client::dial(&broker);
    let retry = produce(&mut client, "t", 0, batch(producer(2), &[(3, "c")]));
    assert_eq!((retry.error_code, retry.base_offset), (0, 2), "the window outlives a restart");
    assert_eq!(read_all(&mut client, "t", 0, 0), texts(&[(0, "a"), (1, "b"), (2, "c")]));
    let next = client.call(4, &InitProducerIdRequest::default().with_transactional_id(None));
    assert!(next.producer_id.0 > granted.producer_id.0, "ids are never given out twice");
}

#[test]
fn a_fetch_waits_for_records_and_ends_with_its_wait() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let broker = start(&config(Layout::Shared, FlushMode::Ack), data.path());
    let (mut reader, mut writer) = (Client::dial(&broker), Client::dial(&broker));
    create(&mut writer, "t", 1, &[]);
    let empty = reader.call(11, &fetch_request("t", 0, 0, 30));
    assert_eq!(empty.responses[0].partitions[0].records.as_deref().unwrap_or_default(), b"");
    reader.send(11, &fetch_request("t", 0, 0, 60_000));
    // A request behind the waiting one is answered behind it.
    reader.send(3, &ApiVersionsRequest::default());
    produce(&mut writer, "t", 0, batch(plain(), &[(1, "late")]));
    let woken = reader.receive::<FetchRequest>(11);
    let records = read_records(woken.responses[0].partitions[0].records.clone().unwrap_or_default());
    assert_eq!(records.expect("a whole batch").len(), 1);
    assert!(!reader.receive::<ApiVersionsRequest>(3).api_keys.is_empty());
}

#[test]
fn topics_are_changed_and_described_and_survive_snapshots() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let config = config(Layout::Shared, FlushMode::Ack);
    let broker = start(&config, data.path());
    let mut client = Client::dial(&broker);
    let topics = |name| Some(vec![MetadataRequestTopic::default().with_name(Some(topic_name(name)))]);
    let created =
        client.call(12, &MetadataRequest::default().with_topics(topics("auto")).with_allow_auto_topic_creation(true));
    assert_eq!((created.topics[0].error_code, created.topics[0].partitions.len()), (0, 4));
    let refused =
        client.call(12, &MetadataRequest::default().with_topics(topics("none")).with_allow_auto_topic_creation(false));
    assert_eq!(refused.topics[0].error_code, 3);
    assert_eq!(create(&mut client, "own", 2, &[("retention.ms", "5000"), ("mqassay.layout", "partitioned")]), 0);
    assert_eq!(create(&mut client, "bad", 2, &[("no.such.setting", "1")]), 40);
    let shared_and_compacted = [("cleanup.policy", "compact"), ("mqassay.layout", "shared")];
    assert_eq!(create(&mut client, "bad", 2, &shared_and_compacted), 40);
    assert_eq!(create(&mut client, "compacted", 2, &[("cleanup.policy", "compact")]), 0);
    assert_eq!(create(&mut client, "b/d", 2, &[]), 17);
    let growth = CreatePartitionsTopic::default().with_name(topic_name("own")).with_count(5).with_assignments(None);
    let grown = client.call(3, &CreatePartitionsRequest::default().with_topics(vec![growth.clone()]));
    assert_eq!(grown.results[0].error_code, 0);
    let again = client.call(3, &CreatePartitionsRequest::default().with_topics(vec![growth]));
    assert_eq!(again.results[0].error_code, 37);
    for index in 0..30 {
        // Enough records for several snapshots.
        assert_eq!(create(&mut client, &format!("filler-{index}"), 1, &[]), 0);
    }
    let deleted = client.call(5, &DeleteTopicsRequest::default().with_topic_names(vec![topic_name("auto")]));
    assert_eq!(deleted.responses[0].error_code, 0);
    assert_eq!(produce(&mut client, "auto", 0, batch(plain(), &[(1, "a")])).error_code, 3);
    drop(client);
    broker.stop();

    let broker = start(&config, data.path());
    let mut client = Client::dial(&broker);
    let all = client.call(12, &MetadataRequest::default().with_topics(None));
    assert_eq!(all.topics.len(), 32);
    let own = all.topics.iter().find(|topic| topic.name == Some(topic_name("own"))).expect("it was created");
    assert_eq!(own.partitions.len(), 5);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str("own"))
        .with_configuration_keys(None);
    let described = client.call(4, &DescribeConfigsRequest::default().with_resources(vec![resource]));
    let configs = &described.results[0].configs;
    let value = |name: &str| {
        let config = configs.iter().find(|config| &*config.name == name).expect("a setting that it has");
        (config.value.as_ref().expect("it is not secret").to_string(), config.config_source)
    };
    assert_eq!(value("retention.ms"), ("5000".to_owned(), 1));
    assert_eq!(value("mqassay.layout"), ("partitioned".to_owned(), 1));
    assert_eq!(value("mqassay.flush"), ("ack".to_owned(), 5));
    assert_eq!(configs.len(), 13);
}

#[test]
fn records_of_a_topic_with_append_time_carry_the_brokers_time() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let broker = start(&config(Layout::Shared, FlushMode::Ack), data.path());
    let mut client = Client::dial(&broker);
    assert_eq!(create(&mut client, "t", 1, &[("message.timestamp.type", "LogAppendTime")]), 0);
    assert_eq!(create(&mut client, "bad", 1, &[("message.timestamp.type", "MyTime")]), 40);
    let appended = produce(&mut client, "t", 0, batch(plain(), &[(1, "a"), (2, "b")]));
    assert_eq!(appended.error_code, 0);
    assert!(appended.log_append_time_ms > 2);
    let partition = ListOffsetsPartition::default().with_timestamp(3).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let listed = client.call(5, &request).topics.remove(0).partitions.remove(0);
    assert_eq!((listed.error_code, listed.offset, listed.timestamp), (0, 0, appended.log_append_time_ms));
    assert_eq!(create(&mut client, "own", 1, &[]), 0);
    assert_eq!(produce(&mut client, "own", 0, batch(plain(), &[(1, "a")])).log_append_time_ms, -1);
}

#[test]
fn authorized_operations_are_told_where_they_are_asked_for() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let broker = start(&config(Layout::Shared, FlushMode::Ack), data.path());
    let mut client = Client::dial(&broker);
    create(&mut client, "t", 1, &[]);
    let all = MetadataRequest::default().with_topics(None);
    let plain = client.call(10, &all);
    assert_eq!(plain.cluster_authorized_operations, i32::MIN);
    assert_eq!(plain.topics[0].topic_authorized_operations, i32::MIN);
    let asking = all.with_include_cluster_authorized_operations(true).with_include_topic_authorized_operations(true);
    let told = client.call(10, &asking);
    assert_eq!(told.topics[0].topic_authorized_operations.count_ones(), 8);
    let cluster = client.call(1, &DescribeClusterRequest::default().with_include_cluster_authorized_operations(true));
    assert_eq!(cluster.cluster_authorized_operations, told.cluster_authorized_operations);
    assert_eq!(cluster.cluster_authorized_operations.count_ones(), 7);
    let mut groups = DescribeGroupsRequest::default().with_groups(vec![GroupId(StrBytes::from_static_str("g"))]);
    let described = client.call(5, &groups);
    assert_eq!(described.groups[0].authorized_operations, i32::MIN);
    groups.include_authorized_operations = true;
    let described = retried(&mut client, &groups);
    assert_eq!(described.authorized_operations.count_ones(), 5);
}

/// The group's description, asked for until its coordinator serves.
fn retried(client: &mut Client, request: &DescribeGroupsRequest) -> DescribedGroup {
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![StrBytes::from_static_str("g")]);
    loop {
        client.call(4, &find);
        let described = client.call(5, request).groups.remove(0);
        if described.error_code == 0 {
            return described;
        }
    }
}

#[test]
fn deleted_records_stay_deleted_and_deleted_topics_begin_anew() {
    for layout in [Layout::Shared, Layout::Partitioned] {
        let data = tempfile::tempdir().expect("a temporary folder");
        let config = config(layout, FlushMode::Ack);
        let broker = start(&config, data.path());
        let mut client = Client::dial(&broker);
        create(&mut client, "t", 1, &[]);
        for value in ["a", "b", "c", "d"] {
            produce(&mut client, "t", 0, batch(plain(), &[(1, value)]));
        }
        let mut delete = |before| {
            let partition = DeleteRecordsPartition::default().with_offset(before);
            let topic = DeleteRecordsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
            let response = client.call(2, &DeleteRecordsRequest::default().with_topics(vec![topic]));
            let answer = &response.topics[0].partitions[0];
            (answer.error_code, answer.low_watermark)
        };
        assert_eq!(delete(2), (0, 2));
        assert_eq!(delete(1), (0, 2));
        assert_eq!(delete(9), (1, -1));
        assert_eq!(fetch(&mut client, "t", 0, 1).error_code, 1);
        drop(client);
        broker.stop();

        let broker = start(&config, data.path());
        let mut client = Client::dial(&broker);
        assert_eq!(list_offset(&mut client, "t", 0, -2).0, 2);
        assert_eq!(read_all(&mut client, "t", 0, 2), texts(&[(2, "c"), (3, "d")]));
        client.call(5, &DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")]));
        assert_eq!(create(&mut client, "t", 1, &[]), 0);
        assert_eq!(read_all(&mut client, "t", 0, 0), []);
        assert_eq!(produce(&mut client, "t", 0, batch(plain(), &[(1, "new")])).base_offset, 0);
        drop(client);
        broker.stop();

        let broker = start(&config, data.path());
        let mut client = Client::dial(&broker);
        assert_eq!(read_all(&mut client, "t", 0, 0), texts(&[(0, "new")]));
    }
}

#[test]
fn hostile_bytes_end_their_own_connection_only() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let broker = start(&config(Layout::Shared, FlushMode::Ack), data.path());
    let mut steady = Client::dial(&broker);
    create(&mut steady, "t", 1, &[]);
    let hostile: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0, 0, 0, 3, 0, 3, 0],
        &[0, 0, 0, 10, 0, 71, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
    ];
    for bytes in hostile {
        let mut client = Client::dial(&broker);
        client.raw(bytes);
        assert_eq!(client.frame(), None, "{bytes:?}");
    }
    let mut client = Client::dial(&broker);
    client.raw(&[0, 0, 0, 10, 0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff]);
    let answer = client.frame().expect("an unknown ApiVersions is answered");
    assert_eq!(answer[..6], [0, 0, 0, 7, 0, 35]);
    let mut corrupt = batch(plain(), &[(1, "a")]).to_vec();
    corrupt[65] ^= 1;
    assert_eq!(produce(&mut steady, "t", 0, Bytes::from(corrupt)).error_code, 2);
    assert_eq!(produce(&mut steady, "t", 0, batch(plain(), &[(1, "a")])).error_code, 0);
}

#[test]
fn without_acks_nothing_is_answered_and_an_error_closes() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let broker = start(&config(Layout::Shared, FlushMode::Ack), data.path());
    let mut client = Client::dial(&broker);
    create(&mut client, "t", 1, &[]);
    client.send(9, &produce_request("t", 0, batch(plain(), &[(1, "a")]), 0));
    assert_eq!(produce(&mut client, "t", 0, batch(plain(), &[(2, "b")])).base_offset, 1);
    client.send(9, &produce_request("nowhere", 0, batch(plain(), &[(1, "a")]), 0));
    assert_eq!(client.frame(), None);
}

#[test]
fn a_data_folder_has_one_broker_at_a_time() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let config = config(Layout::Shared, FlushMode::Ack);
    let broker = start(&config, data.path());
    let Err(refused) = Broker::start(config.clone(), data.path()) else { panic!("the folder is taken") };
    assert!(refused.to_string().contains("in use"), "{refused}");
    broker.stop();
    start(&config, data.path()).stop();
}
