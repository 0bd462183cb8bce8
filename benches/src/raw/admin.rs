//! Topics of a raw run, made and deleted over one blocking connection, by the thousand where queues are many.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::lanes::{Lanes, TOPIC_QUEUES};
use super::wire;

/// A connection for administration.
#[derive(Debug)]
pub(super) struct TopicAdmin {
    stream: TcpStream,
    correlation: i32,
}

impl TopicAdmin {
    pub(super) fn connect(bootstrap: &str) -> io::Result<TopicAdmin> {
        let stream = TcpStream::connect(bootstrap)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(TopicAdmin { stream, correlation: 0 })
    }

    /// Creates the run's topics and waits until every queue has a leader; fails where that takes more than `CREATE_PATIENCE`
    /// in all.
    pub(super) fn create(&mut self, lanes: &Lanes, settings: &BTreeMap<String, String>) -> io::Result<()> {
        let configs: Vec<CreatableTopicConfig> = settings.iter().map(config).collect();
        let numbers: Vec<u32> = (0..lanes.topics()).collect();
        let deadline = Instant::now() + CREATE_PATIENCE;
        for numbers in numbers.chunks(TOPICS_PER_REQUEST) {
            if Instant::now() > deadline {
                return Err(too_slow(&format!("only {} of {} topics are made", numbers[0], lanes.topics())));
            }
            let topic = |number: &u32| {
                CreatableTopic::default()
                    .with_name(name(&lanes.topic(*number)))
                    .with_num_partitions(i32::try_from(lanes.queues_of(*number)).expect("at most 1024"))
                    .with_replication_factor(1)
                    .with_configs(configs.clone())
            };
            let request = CreateTopicsRequest::default()
                .with_topics(numbers.iter().map(topic).collect())
                .with_timeout_ms(PATIENCE.as_millis() as i32);
            let answer: CreateTopicsResponse = self.call(ApiKey::CreateTopics, CREATE_TOPICS_VERSION, &request)?;
            if let Some(topic) = answer.topics.iter().find(|topic| topic.error_code != 0) {
                let reason = topic.error_message.as_ref().map_or("no reason given", |text| text.as_str());
                return Err(refused("create topic", &topic.name.0, topic.error_code, reason));
            }
        }
        for number in 0..lanes.topics() {
            // Metadata may name a leader before its log is there; an end offset comes from the log.
            while !(self.has_leaders(&lanes.topic(number), lanes.queues_of(number))?
                && self.has_ends(lanes, number, &|_| 0)?)
            {
                if Instant::now() > deadline {
                    return Err(too_slow("not every queue has a leader"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Whether every queue of a topic answers, with an end not below what is told of it.
    pub(super) fn has_ends(&mut self, lanes: &Lanes, topic: u32, least: &dyn Fn(u32) -> i64) -> io::Result<bool> {
        let partition = |index: u32| {
            ListOffsetsPartition::default()
                .with_partition_index(i32::try_from(index).expect("at most 1024"))
                .with_current_leader_epoch(-1)
                .with_timestamp(LATEST)
        };
        let asked = ListOffsetsTopic::default()
            .with_name(name(&lanes.topic(topic)))
            .with_partitions((0..lanes.queues_of(topic)).map(partition).collect());
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
        let answer: ListOffsetsResponse = self.call(ApiKey::ListOffsets, LIST_OFFSETS_VERSION, &request)?;
        let Some(found) = answer.topics.first() else { return Ok(false) };
        let first = topic * TOPIC_QUEUES;
        let is_there = |part: &ListOffsetsPartitionResponse| {
            part.error_code == 0 && part.offset >= least(first + part.partition_index.unsigned_abs())
        };
        Ok(found.partitions.len() == lanes.queues_of(topic) as usize && found.partitions.iter().all(is_there))
    }

    /// Deletes the run's topics.
    pub(super) fn delete(&mut self, lanes: &Lanes) -> io::Result<()> {
        let numbers: Vec<u32> = (0..lanes.topics()).collect();
        for numbers in numbers.chunks(TOPICS_PER_REQUEST) {
            let request = DeleteTopicsRequest::default()
                .with_topic_names(numbers.iter().map(|number| name(&lanes.topic(*number))).collect())
                .with_timeout_ms(PATIENCE.as_millis() as i32);
            let answer: DeleteTopicsResponse = self.call(ApiKey::DeleteTopics, DELETE_TOPICS_VERSION, &request)?;
            if let Some(topic) = answer.responses.iter().find(|topic| topic.error_code != 0) {
                let text = topic.name.as_ref().map_or("", |name| name.as_str());
                return Err(refused("delete topic", text, topic.error_code, "no reason given"));
            }
        }
        Ok(())
    }

    fn has_leaders(&mut self, topic: &str, queues: u32) -> io::Result<bool> {
        let request = MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name(topic)))]))
            .with_allow_auto_topic_creation(false);
        let answer: MetadataResponse = self.call(ApiKey::Metadata, METADATA_VERSION, &request)?;
        let led = |topic: &kafka_protocol::messages::metadata_response::MetadataResponseTopic| {
            topic.partitions.iter().filter(|partition| partition.error_code == 0 && partition.leader_id.0 >= 0).count()
        };
        Ok(answer.topics.first().is_some_and(|topic| topic.error_code == 0 && led(topic) == queues as usize))
    }

    /// One exchange.
    pub(super) fn call<Answer: Decodable>(
        &mut self,
        key: ApiKey,
        version: i16,
        body: &impl Encodable,
    ) -> io::Result<Answer> {
        self.correlation += 1;
        let frame = wire::request(key, version, self.correlation, body);
        wire::decode(wire::exchange(&mut self.stream, &frame)?, version, self.correlation)
    }
}

fn config((key, value): (&String, &String)) -> CreatableTopicConfig {
    CreatableTopicConfig::default()
        .with_name(StrBytes::from_string(key.clone()))
        .with_value(Some(StrBytes::from_string(value.clone())))
}

fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

fn too_slow(what: &str) -> io::Error {
    io::Error::other(format!("{what} after {} s", CREATE_PATIENCE.as_secs()))
}

fn refused(action: &str, topic: &str, code: i16, reason: &str) -> io::Error {
    io::Error::other(format!("cannot {action} {topic}: error {code}, {reason}"))
}

/// The last versions without tagged fields.
const CREATE_TOPICS_VERSION: i16 = 4;
const DELETE_TOPICS_VERSION: i16 = 3;
const METADATA_VERSION: i16 = 8;
const LIST_OFFSETS_VERSION: i16 = 5;
/// The timestamp that asks for the end.
const LATEST: i64 = -1;
const TOPICS_PER_REQUEST: usize = 8;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long all topics of a block may take.
const CREATE_PATIENCE: Duration = Duration::from_secs(180);
