//! Scripted brokers for tests, over in-memory streams and tokio's paused clock: one topic, logs in memory that all nodes
//! share, Kafka's rules for sequence numbers, leaders that a test moves, and for each Produce request in turn a fate.
//! Not a model for judging brokers.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, FetchRequest, FetchResponse, InitProducerIdResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    ProduceRequest, ProduceResponse, ProducerId, ResponseHeader,
};
use kafka_protocol::protocol::{
    Decodable, Encodable, HeaderVersion, Message, Request, StrBytes, decode_request_header_from_buffer,
};
use kafka_protocol::records::{Record, RecordBatchDecoder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;

use super::{Dial, Timer};

/// What becomes of one Produce request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is done and answered, and so are those that were put off.
    Answer,
    /// It is done, and its answer put off until a later one is answered.
    PutOff,
    /// It is done, and the connection ends without an answer.
    LoseAnswer,
    /// It is lost, and the connection ends.
    LoseRequest,
    /// It is done and never answered; the connection stays.
    Forget,
    /// It is answered with an error and not done.
    Refuse(i16),
}

/// The broker's state, and what it saw.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) fates: VecDeque<Fate>,
    /// Diallings that fail before one succeeds.
    pub(crate) refused_dials: u32,
    /// Batches by partition, with base offsets written.
    pub(crate) logs: BTreeMap<i32, Vec<(i64, Bytes)>>,
    pub(crate) log_starts: BTreeMap<i32, i64>,
    /// Each Produce request: partition, producer id, epoch, first sequence number.
    pub(crate) produced: Vec<(i32, i64, i16, i32)>,
    pub(crate) dials: u32,
    pub(crate) producer_ids: i64,
    pub(crate) topic_exists: bool,
    /// Named in the metadata, with the loopback interface; 1 where only in-memory streams are served.
    port: u16,
    /// Whether the next Fetch answers carry a flipped bit.
    pub(crate) flips_bits: bool,
    /// Whether a Fetch from a partition's end is refused, as by a leader of a newer epoch.
    pub(crate) fences_at_end: bool,
    /// As Kafka does it for a producer that it does not know.
    pub(crate) takes_any_first_sequence: bool,
    windows: BTreeMap<(i32, i64), Window>,
    /// How many nodes there are, on ports from 1 on; none counts as one.
    pub(crate) nodes: i32,
    /// Who leads each partition and since which epoch; node 0 without an epoch where nothing is said.
    pub(crate) leaders: BTreeMap<i32, (i32, i32)>,
    /// What nodes that are cut off believe of the leaders.
    pub(crate) believed: BTreeMap<i32, BTreeMap<i32, (i32, i32)>>,
    /// The partition's records are cut at the offset where the epoch ended.
    pub(crate) epoch_ends: BTreeMap<i32, i64>,
    /// Data requests by the node that they reached.
    pub(crate) reached: Vec<i32>,
}

#[derive(Default)]
struct Window {
    epoch: i16,
    batches: VecDeque<(i32, i32, i64)>,
}

/// The broker; clones share it. It is the dialler too.
#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) model: Rc<RefCell<Model>>,
}

/// Kafka's NOT_LEADER_OR_FOLLOWER.
const NOT_LEADER: i16 = 6;
const FENCED_LEADER_EPOCH: i16 = 74;
pub(crate) const PARTITIONS: i32 = 2;
pub(crate) const TOPIC: &str = "scripted";

impl Scripted {
    pub(crate) fn new(fates: &[Fate]) -> Scripted {
        let model = Model { fates: fates.iter().copied().collect(), topic_exists: true, port: 1, ..Model::default() };
        Scripted { model: Rc::new(RefCell::new(model)) }
    }

    /// Serves on a free port of the loopback interface too, and names that in its metadata.
    pub(crate) async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        self.model.borrow_mut().port = address.port();
        let broker = self.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(stream, broker.clone(), 0));
            }
        });
        address.to_string()
    }

    /// Values of all records of a partition in the order of their offsets.
    pub(crate) fn values(&self, partition: i32) -> Vec<Bytes> {
        let model = self.model.borrow();
        let batches = model.logs.get(&partition).map(|log| &log[..]).unwrap_or_default();
        batches
            .iter()
            .flat_map(|(_, batch)| decode(batch))
            .map(|record| record.value.expect("test records have values"))
            .collect()
    }
}

impl Dial for Scripted {
    type Stream = DuplexStream;

    async fn dial(&self, address: &str) -> io::Result<DuplexStream> {
        let mut model = self.model.borrow_mut();
        model.dials += 1;
        if model.refused_dials > 0 {
            model.refused_dials -= 1;
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "refused by the script"));
        }
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let port: i32 = address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(1);
        let node = if model.nodes > 1 { port - 1 } else { 0 };
        tokio::task::spawn_local(serve(theirs, self.clone(), node));
        Ok(ours)
    }
}

/// tokio's clock, which tests run paused.
#[derive(Clone, Copy)]
pub(crate) struct PausedTimer {
    origin: tokio::time::Instant,
}

impl PausedTimer {
    pub(crate) fn start() -> PausedTimer {
        PausedTimer { origin: tokio::time::Instant::now() }
    }
}

impl Timer for PausedTimer {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall_ms(&self) -> i64 {
        1_700_000_000_000 + self.origin.elapsed().as_millis() as i64
    }

    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()> + 'static {
        tokio::time::sleep_until(self.origin + deadline)
    }
}

/// Runs a test on a paused clock and a local set.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime needs no resource that can fail");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, broker: Scripted, node: i32) {
    let mut put_off: Vec<Bytes> = Vec::new();
    while let Ok(length) = stream.read_i32().await {
        let mut frame = BytesMut::zeroed(length as usize);
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        let Some(answers) = broker.react(node, frame.freeze(), &mut put_off) else { return };
        for answer in answers {
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

impl Scripted {
    /// The frames to be written, or none where the connection ends.
    fn react(&self, node: i32, mut frame: Bytes, put_off: &mut Vec<Bytes>) -> Option<Vec<Bytes>> {
        let header = decode_request_header_from_buffer(&mut frame).expect("the client's header decodes");
        let (version, id) = (header.request_api_version, header.correlation_id);
        let api = ApiKey::try_from(header.request_api_key).expect("the client knows its call");
        if api != ApiKey::Produce {
            return Some(vec![self.model.borrow_mut().answer(node, api, version, id, frame)]);
        }
        let request = ProduceRequest::decode(&mut frame, version).expect("the client's request decodes");
        assert_eq!(request.transactional_id, None, "Kafka takes an empty transactional id for one");
        let mut model = self.model.borrow_mut();
        let fate = model.fates.pop_front().unwrap_or(Fate::Answer);
        if fate == Fate::LoseRequest {
            model.note(&request);
            return None;
        }
        model.reached.push(node);
        let is_leader = model.leader(request.topic_data[0].partition_data[0].index).0 == node;
        let code = match fate {
            Fate::Refuse(code) => code,
            _ if !is_leader => NOT_LEADER,
            _ => 0,
        };
        let answer = framed::<ProduceRequest>(&model.produce(&request, code), version, id);
        match fate {
            Fate::LoseAnswer | Fate::LoseRequest => None,
            Fate::Forget => Some(Vec::new()),
            Fate::PutOff => {
                put_off.push(answer);
                Some(Vec::new())
            }
            Fate::Answer | Fate::Refuse(_) if request.acks == 0 => Some(Vec::new()),
            Fate::Answer | Fate::Refuse(_) => {
                put_off.push(answer);
                Some(std::mem::take(put_off))
            }
        }
    }
}

impl Model {
    fn leader(&self, partition: i32) -> (i32, i32) {
        self.leaders.get(&partition).copied().unwrap_or((0, -1))
    }

    fn answer(&mut self, node: i32, api: ApiKey, version: i16, id: i32, mut frame: Bytes) -> Bytes {
        let frame = &mut frame;
        match api {
            ApiKey::ApiVersions => framed::<kafka_protocol::messages::ApiVersionsRequest>(&versions(), version, id),
            ApiKey::Metadata => {
                let request = MetadataRequest::decode(frame, version).expect("decodes");
                framed::<MetadataRequest>(&self.metadata(node, &request), version, id)
            }
            ApiKey::InitProducerId => {
                let request = kafka_protocol::messages::InitProducerIdRequest::decode(frame, version).expect("decodes");
                assert_eq!(request.transactional_id, None, "Kafka refuses a transactional id that is empty");
                self.producer_ids += 1;
                let answer = InitProducerIdResponse::default().with_producer_id(ProducerId(self.producer_ids + 1000));
                framed::<kafka_protocol::messages::InitProducerIdRequest>(&answer, version, id)
            }
            ApiKey::ListOffsets => {
                let request = ListOffsetsRequest::decode(frame, version).expect("decodes");
                framed::<ListOffsetsRequest>(&self.list_offsets(&request), version, id)
            }
            ApiKey::Fetch => {
                let request = FetchRequest::decode(frame, version).expect("decodes");
                framed::<FetchRequest>(&self.fetch(node, &request), version, id)
            }
            ApiKey::OffsetForLeaderEpoch => {
                let request = OffsetForLeaderEpochRequest::decode(frame, version).expect("decodes");
                framed::<OffsetForLeaderEpochRequest>(&self.epoch_end(&request), version, id)
            }
            ApiKey::CreateTopics => {
                let request = CreateTopicsRequest::decode(frame, version).expect("decodes");
                let code = if self.topic_exists { 36 } else { 0 };
                self.topic_exists = true;
                let topic = CreatableTopicResult::default().with_name(request.topics[0].name.clone());
                let answer = CreateTopicsResponse::default().with_topics(vec![topic.with_error_code(code)]);
                framed::<CreateTopicsRequest>(&answer, version, id)
            }
            ApiKey::DeleteRecords => {
                let request = DeleteRecordsRequest::decode(frame, version).expect("decodes");
                let asked = &request.topics[0].partitions[0];
                self.log_starts.insert(asked.partition_index, asked.offset);
                let partition = DeleteRecordsPartitionResult::default()
                    .with_partition_index(asked.partition_index)
                    .with_low_watermark(asked.offset);
                let topic = DeleteRecordsTopicResult::default().with_name(request.topics[0].name.clone());
                let answer = DeleteRecordsResponse::default().with_topics(vec![topic.with_partitions(vec![partition])]);
                framed::<DeleteRecordsRequest>(&answer, version, id)
            }
            other => panic!("the scripted broker does not know {other:?}"),
        }
    }

    fn metadata(&self, asked: i32, request: &MetadataRequest) -> MetadataResponse {
        let nodes = (0..self.nodes.max(1)).map(|node| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(node))
                .with_host("127.0.0.1".into())
                .with_port(i32::from(self.port) + node)
        });
        let told = |partition: i32| {
            let believed = self.believed.get(&asked).and_then(|leaders| leaders.get(&partition).copied());
            believed.unwrap_or(self.leader(partition))
        };
        let partitions = (0..PARTITIONS).map(|index| {
            let (leader, epoch) = told(index);
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BrokerId(leader))
                .with_leader_epoch(epoch)
        });
        let partitions: Vec<_> = if self.topic_exists { partitions.collect() } else { Vec::new() };
        let asked = request.topics.iter().flatten();
        let topics = asked.map(|topic| {
            MetadataResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.clone())
                .with_error_code(if self.topic_exists { 0 } else { 3 })
        });
        MetadataResponse::default()
            .with_brokers(nodes.collect())
            .with_controller_id(BrokerId(0))
            .with_topics(topics.collect())
            .with_cluster_id(Some(StrBytes::from_static_str("scripted")))
    }

    fn end(&self, partition: i32) -> i64 {
        let last = self.logs.get(&partition).and_then(|log| log.last());
        last.map_or(0, |(base, batch)| base + decode(batch).len() as i64)
    }

    fn note(&mut self, request: &ProduceRequest) -> (i32, Bytes, Vec<Record>) {
        let data = &request.topic_data[0].partition_data[0];
        let batch = data.records.clone().expect("a producer sends records");
        let records = decode(&batch);
        let first = &records[0];
        self.produced.push((data.index, first.producer_id, first.producer_epoch, first.sequence));
        (data.index, batch, records)
    }

    fn produce(&mut self, request: &ProduceRequest, code: i16) -> ProduceResponse {
        let (partition, batch, records) = self.note(request);
        let (code, offset) = if code == 0 { self.append(partition, &batch, &records) } else { (code, -1) };
        let answer =
            PartitionProduceResponse::default().with_index(partition).with_error_code(code).with_base_offset(offset);
        let topic = TopicProduceResponse::default().with_name(request.topic_data[0].name.clone());
        ProduceResponse::default().with_responses(vec![topic.with_partition_responses(vec![answer])])
    }

    fn append(&mut self, partition: i32, batch: &Bytes, records: &[Record]) -> (i16, i64) {
        let offset = self.end(partition);
        let first = &records[0];
        if first.producer_id >= 0 {
            let window = self.windows.entry((partition, first.producer_id)).or_default();
            if first.producer_epoch < window.epoch {
                return (47, -1);
            }
            if first.producer_epoch > window.epoch {
                window.batches.clear();
                window.epoch = first.producer_epoch;
            }
            if let Some(known) = window.batches.iter().find(|known| known.0 == first.sequence) {
                return (0, known.2);
            }
            let expected = window.batches.back().map_or(0, |last| last.0 + last.1);
            let is_first = self.takes_any_first_sequence && window.batches.is_empty();
            if first.sequence != expected && !is_first {
                return (45, -1);
            }
            window.batches.push_back((first.sequence, records.len() as i32, offset));
            if window.batches.len() > 5 {
                window.batches.pop_front();
            }
        }
        let mut stored = BytesMut::from(&batch[..]);
        stored[0..8].copy_from_slice(&offset.to_be_bytes());
        stored[12..16].copy_from_slice(&self.leader(partition).1.to_be_bytes());
        self.logs.entry(partition).or_default().push((offset, stored.freeze()));
        (0, offset)
    }

    fn list_offsets(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let asked = &request.topics[0].partitions[0];
        let partition = asked.partition_index;
        let log = self.logs.get(&partition).map(|log| &log[..]).unwrap_or_default();
        let (offset, timestamp) = match asked.timestamp {
            -2 => (self.log_starts.get(&partition).copied().unwrap_or(0), -1),
            -1 => (self.end(partition), -1),
            wanted => log
                .iter()
                .flat_map(|(_, batch)| decode(batch))
                .find(|record| record.timestamp >= wanted)
                .map_or((-1, -1), |record| (record.offset, record.timestamp)),
        };
        let answer = ListOffsetsPartitionResponse::default()
            .with_partition_index(partition)
            .with_offset(offset)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopicResponse::default().with_name(request.topics[0].name.clone());
        ListOffsetsResponse::default().with_topics(vec![topic.with_partitions(vec![answer])])
    }

    fn epoch_end(&self, request: &OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
        let asked = &request.topics[0].partitions[0];
        let end = self.epoch_ends.get(&asked.leader_epoch).copied().unwrap_or(self.end(asked.partition));
        let answer = EpochEndOffset::default()
            .with_partition(asked.partition)
            .with_leader_epoch(asked.leader_epoch)
            .with_end_offset(end);
        let topic = OffsetForLeaderTopicResult::default().with_topic(request.topics[0].topic.clone());
        OffsetForLeaderEpochResponse::default().with_topics(vec![topic.with_partitions(vec![answer])])
    }

    fn fetch(&mut self, node: i32, request: &FetchRequest) -> FetchResponse {
        self.reached.push(node);
        let mut topics = Vec::new();
        for asked in &request.topics {
            let partitions = asked.partitions.iter().map(|asked| {
                let start = self.log_starts.get(&asked.partition).copied().unwrap_or(0);
                let end = self.end(asked.partition);
                let answer = PartitionData::default().with_partition_index(asked.partition);
                if self.leader(asked.partition).0 != node {
                    return answer.with_error_code(NOT_LEADER);
                }
                if self.fences_at_end && asked.fetch_offset == end {
                    return answer.with_error_code(FENCED_LEADER_EPOCH);
                }
                if asked.fetch_offset < start || asked.fetch_offset > end {
                    return answer.with_error_code(1);
                }
                let log = self.logs.get(&asked.partition).map(|log| &log[..]).unwrap_or_default();
                let behind = log.iter().find(|(base, batch)| base + decode(batch).len() as i64 > asked.fetch_offset);
                let mut records = BytesMut::from(behind.map(|(_, batch)| &batch[..]).unwrap_or_default());
                if self.flips_bits && records.len() > 80 {
                    records[80] ^= 4;
                }
                answer.with_high_watermark(end).with_log_start_offset(start).with_records(Some(records.freeze()))
            });
            let partitions = partitions.collect();
            topics.push(FetchableTopicResponse::default().with_topic(asked.topic.clone()).with_partitions(partitions));
        }
        FetchResponse::default().with_responses(topics)
    }
}

fn versions() -> ApiVersionsResponse {
    let range = |key: ApiKey, min, max| {
        ApiVersion::default().with_api_key(key as i16).with_min_version(min).with_max_version(max)
    };
    ApiVersionsResponse::default().with_api_keys(vec![
        range(ApiKey::Produce, ProduceRequest::VERSIONS.min, ProduceRequest::VERSIONS.max),
        range(ApiKey::Fetch, 4, 11),
        range(ApiKey::ListOffsets, 1, 10),
        range(ApiKey::Metadata, 0, 13),
        range(ApiKey::CreateTopics, 2, 7),
        range(ApiKey::DeleteRecords, 0, 2),
        range(ApiKey::InitProducerId, 0, 5),
        range(ApiKey::OffsetForLeaderEpoch, 2, 4),
    ])
}

fn framed<R: Request>(answer: &R::Response, version: i16, correlation: i32) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(correlation);
    header.encode(&mut frame, R::Response::header_version(version)).expect("a response header encodes");
    answer.encode(&mut frame, version).expect("the answer encodes");
    let length = frame.len() as i32 - 4;
    (&mut frame[0..4]).put_i32(length);
    assert_eq!((&frame[0..4]).get_i32(), length);
    frame.freeze()
}

/// Read by the protocol's crate, so that the client's own writer is checked by another's reader.
fn decode(batch: &Bytes) -> Vec<Record> {
    RecordBatchDecoder::decode(&mut batch.clone()).expect("the client's batch decodes").records
}
