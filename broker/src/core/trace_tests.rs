//! Scripted traces: each file under `traces` holds commands (`> …`) and what the core did about them.
//! The test plays the commands again and compares. To record anew, set MQASSAY_RECORD_TRACES and read the difference.
//! The disk is played by hand: writes are reported at once, as the store does; syncs wait for a command.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, InitProducerIdRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::batch::{Batch, BatchProducer, read_records};
use super::config::{Advertised, NodeConfig};
use super::log::{DiskEffect, DiskEvent, Recovered};
use super::machine::{Answer, Core, Effects, Event, RequestId, Start};
use super::settings::Layout;
use super::types::{LogId, Now, ProducerEpoch, ProducerId};
use crate::store::RecoveredNode;
use crate::wire::api::Api;
use crate::wire::request::{Request, RequestHeader};
use crate::wire::response::Response;

struct Player {
    core: Core,
    now: Now,
    sequence: u64,
    /// Syncs and others under way, oldest first.
    started: VecDeque<DiskEffect>,
    is_full: bool,
    output: String,
}

#[test]
fn the_core_does_what_the_traces_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core/traces");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the traces are there");
    for file in files {
        let recorded = std::fs::read_to_string(&file).unwrap();
        let mut player = Player::new(&recorded);
        for line in recorded.lines() {
            if line.starts_with('#') {
                writeln!(player.output, "{line}").unwrap();
            } else if let Some(command) = line.strip_prefix("> ") {
                writeln!(player.output, "\n{line}").unwrap();
                player.play(command);
            }
        }
        if std::env::var_os("MQASSAY_RECORD_TRACES").is_some() {
            std::fs::write(&file, &player.output).unwrap();
        } else {
            assert_eq!(player.output, recorded, "{}", file.display());
        }
    }
}

impl Player {
    fn new(recorded: &str) -> Player {
        let now = Now { monotonic: Duration::from_secs(1), wall_ms: 1_000_000 };
        let recovered = RecoveredNode {
            metadata_snapshot: None,
            metadata: Recovered::empty(LogId::METADATA),
            metadata_batches: Vec::new(),
            logs: BTreeMap::new(),
        };
        let mut config = NodeConfig::tiny();
        if recorded.starts_with("# partitioned") {
            config.topic.layout = Layout::Partitioned;
        }
        let advertised = Advertised { host: "node".to_owned(), port: 9092 };
        let mut effects = Effects::default();
        let start = Start { config, advertised, recovered, mutant: None, cluster_draw: 8, incarnation: 1 };
        let core = Core::new(start, now, &mut effects).unwrap();
        let output = String::new();
        let mut player = Player { core, now, sequence: 0, started: VecDeque::new(), is_full: false, output };
        player.finish_turn(effects);
        player.sync_all();
        player.output.clear();
        player
    }

    fn play(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["create", topic, partitions, ref configs @ ..] => self.create(topic, partitions, configs),
            ["delete", topic] => {
                let names = vec![TopicName(StrBytes::from_string(topic.to_owned()))];
                let request = DeleteTopicsRequest::default().with_topic_names(names);
                self.request(Api::DeleteTopics, 5, Request::DeleteTopics(request));
            }
            ["producer"] => {
                let request = InitProducerIdRequest::default().with_transactional_id(None);
                self.request(Api::InitProducerId, 4, Request::InitProducerId(request));
            }
            ["produce", topic, partition, acks, producer, sequence, ref values @ ..] => {
                let id = producer.parse().unwrap();
                let epoch = if id < 0 { -1 } else { 0 };
                let base_sequence = sequence.parse().unwrap();
                let producer = BatchProducer { id: ProducerId(id), epoch: ProducerEpoch(epoch), base_sequence };
                self.produce(topic, partition, acks.parse().unwrap(), producer, values);
            }
            ["fetch", topic, partition, offset, wait, bytes] => self.fetch(topic, partition, offset, wait, bytes),
            ["sync"] => self.sync_all(),
            ["sync-fails"] => {
                let Some(DiskEffect::Sync { log, upto, .. }) = self.started.pop_front() else { panic!("no sync") };
                let result = Err(std::io::ErrorKind::Other);
                self.turn([Event::Disk(DiskEvent::Synced { log, upto, result })]);
            }
            ["full"] => self.is_full = true,
            ["room"] => self.is_full = false,
            ["time", milliseconds] => {
                self.now.monotonic += Duration::from_millis(milliseconds.parse().unwrap());
                self.turn([Event::Deadline]);
            }
            ["close"] => self.turn([Event::ConnectionClosed(1)]),
            _ => panic!("unknown command `{command}`"),
        }
    }

    fn create(&mut self, topic: &str, partitions: &str, configs: &[&str]) {
        let configs = configs.iter().map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(name.to_owned()))
                .with_value(Some(StrBytes::from_string(value.to_owned())))
        });
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_num_partitions(partitions.parse().unwrap())
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        self.request(Api::CreateTopics, 7, Request::CreateTopics(request));
    }

    fn produce(&mut self, topic: &str, partition: &str, acks: i16, producer: BatchProducer, values: &[&str]) {
        let values: Vec<Bytes> = values.iter().map(|value| Bytes::copy_from_slice(value.as_bytes())).collect();
        let records = Batch::of_records(producer, values.iter().map(|value| (1_000_000, value))).bytes;
        let data = PartitionProduceData::default().with_index(partition.parse().unwrap()).with_records(Some(records));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(acks).with_topic_data(vec![topic]);
        self.request(Api::Produce, 9, Request::Produce(request));
    }

    fn fetch(&mut self, topic: &str, partition: &str, offset: &str, wait: &str, bytes: &str) {
        let wanted = FetchPartition::default()
            .with_partition(partition.parse().unwrap())
            .with_fetch_offset(offset.parse().unwrap())
            .with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(vec![wanted]);
        let request = FetchRequest::default()
            .with_max_wait_ms(wait.parse().unwrap())
            .with_min_bytes(bytes.parse().unwrap())
            .with_max_bytes(1 << 20)
            .with_topics(vec![topic]);
        self.request(Api::Fetch, 11, Request::Fetch(request));
    }

    fn request(&mut self, api: Api, version: i16, request: Request) {
        let id = RequestId { connection: 1, sequence: self.sequence };
        self.sequence += 1;
        let header = RequestHeader { api, version, correlation_id: 0 };
        self.turn([Event::Request { id, header, request: Box::new(request) }]);
    }

    /// Completes every sync and seal that is under way, and those that they bring about.
    fn sync_all(&mut self) {
        while let Some(effect) = self.started.pop_front() {
            let event = match effect {
                DiskEffect::Sync { log, upto, .. } => DiskEvent::Synced { log, upto, result: Ok(()) },
                DiskEffect::Seal { log, segment, .. } => DiskEvent::Sealed { log, segment, result: Ok(()) },
                DiskEffect::WriteSnapshot { name, .. } => DiskEvent::SnapshotWritten { name, result: Ok(()) },
                DiskEffect::Reopen { log } => DiskEvent::Reopened { log, result: Ok(Box::new(Recovered::empty(log))) },
                other => panic!("{other:?} is not played"),
            };
            self.turn([Event::Disk(event)]);
        }
    }

    fn turn<const N: usize>(&mut self, events: [Event; N]) {
        let mut effects = Effects::default();
        for event in events {
            self.core.step(self.now, event, &mut effects);
        }
        self.finish_turn(effects);
    }

    fn finish_turn(&mut self, mut effects: Effects) {
        loop {
            self.core.end_turn(self.now, &mut effects);
            let mut reported = Vec::new();
            for effect in std::mem::take(&mut effects.disk) {
                self.perform(effect, &mut reported);
            }
            if let Some(halt) = effects.halt.take() {
                writeln!(self.output, "halt: {halt}").unwrap();
                return;
            }
            effects.points.drain(..).for_each(|name| writeln!(self.output, "point {name}").unwrap());
            effects.events.drain(..).for_each(|(name, _)| writeln!(self.output, "event {name}").unwrap());
            if reported.is_empty() {
                break;
            }
            for event in reported {
                self.core.step(self.now, Event::Disk(event), &mut effects);
            }
        }
        for (id, answer) in effects.replies {
            writeln!(self.output, "reply {}: {}", id.sequence, describe(&answer)).unwrap();
        }
    }

    fn perform(&mut self, effect: DiskEffect, reported: &mut Vec<DiskEvent>) {
        match effect {
            DiskEffect::CreateSegment { log, base } => {
                writeln!(self.output, "create log {log} segment {base}").unwrap()
            }
            DiskEffect::Write { log, segment, at, parts } => {
                let bytes: usize = parts.iter().map(Bytes::len).sum();
                let from = segment.plus(at);
                if self.is_full {
                    writeln!(self.output, "write log {log} at {from}: {bytes} bytes; the disk is full").unwrap();
                    let kind = std::io::ErrorKind::StorageFull;
                    reported.push(DiskEvent::WriteFailed { log, from, kind });
                    return;
                }
                writeln!(self.output, "write log {log} at {from}: {bytes} bytes").unwrap();
                reported.push(DiskEvent::Written { log, upto: from.plus(bytes as u64) });
            }
            DiskEffect::RemoveSegment { log, base } => {
                writeln!(self.output, "remove log {log} segment {base}").unwrap()
            }
            DiskEffect::RemoveLog { log } => writeln!(self.output, "remove log {log}").unwrap(),
            DiskEffect::Sync { log, upto, .. } => {
                writeln!(self.output, "sync log {log} up to {upto}").unwrap();
                self.started.push_back(effect);
            }
            DiskEffect::Seal { log, segment, .. } => {
                writeln!(self.output, "seal log {log} segment {segment}").unwrap();
                self.started.push_back(effect);
            }
            DiskEffect::WriteSnapshot { ref name, .. } => {
                writeln!(self.output, "snapshot {name}").unwrap();
                self.started.push_back(effect);
            }
            DiskEffect::Compact { .. } | DiskEffect::RemoveReplaced { .. } => {
                panic!("no log is compacted in these traces")
            }
            DiskEffect::Cut { .. } | DiskEffect::Restart { .. } => panic!("no log is cut in these traces"),
            DiskEffect::Reopen { log } => {
                writeln!(self.output, "reopen log {log}").unwrap();
                self.started.push_back(effect);
            }
            DiskEffect::Read { log, segment, at, length, .. } => {
                writeln!(self.output, "read log {log} segment {segment} at {at}: {length} bytes").unwrap();
            }
        }
    }
}

fn describe(answer: &Answer) -> String {
    let response = match answer {
        Answer::Nothing => return "nothing".to_owned(),
        Answer::Close => return "close the connection".to_owned(),
        Answer::Response(_, response) => response,
    };
    match &**response {
        Response::Produce(response) => {
            let answer = &response.responses[0].partition_responses[0];
            format!("produced: error {}, base offset {}", answer.error_code, answer.base_offset)
        }
        Response::Fetch(response) => {
            let response = response.joined();
            let answer = &response.responses[0].partitions[0];
            let records = read_records(answer.records.clone().unwrap_or_default()).unwrap();
            let offsets: Vec<i64> = records.iter().map(|record| record.offset.0).collect();
            format!(
                "fetched: error {}, high watermark {}, offsets {offsets:?}",
                answer.error_code, answer.high_watermark
            )
        }
        Response::CreateTopics(response) => {
            let answer = &response.topics[0];
            format!("created: error {}, {} partitions", answer.error_code, answer.num_partitions)
        }
        Response::DeleteTopics(response) => format!("deleted: error {}", response.responses[0].error_code),
        Response::InitProducerId(response) => {
            format!("producer: error {}, id {}", response.error_code, response.producer_id.0)
        }
        other => format!("{other:?}"),
    }
}
