//! One blocking connection to a Kafka broker, and requests in exactly the version that a script asks for: old releases are
//! asked in the words of old clients. Not here: reconnecting, pipelining (`driver` has both).

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, BrokerId, CreateTopicsRequest, EndTxnRequest, FindCoordinatorRequest,
    InitProducerIdRequest, ListOffsetsRequest, ProduceRequest, ProducerId, RequestHeader, ResponseHeader, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::driver::records::{Record, Sequence, encode_batch};

/// A connection.
pub(super) struct Wire {
    stream: TcpStream,
    correlation: i32,
}

/// A producer's id and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

impl Wire {
    pub(super) fn open(address: &str) -> io::Result<Wire> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, correlation: 0 })
    }

    /// One request and its answer.
    pub(super) fn call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("mqassay")));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, R::header_version(version)).map_err(io::Error::other)?;
        request.encode(&mut frame, version).map_err(io::Error::other)?;
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        let mut answer = self.exchange(&frame)?;
        ResponseHeader::decode(&mut answer, R::Response::header_version(version)).map_err(io::Error::other)?;
        R::Response::decode(&mut answer, version).map_err(io::Error::other)
    }

    /// One frame with its length before it, and the answer's frame without.
    pub(super) fn exchange(&mut self, frame: &[u8]) -> io::Result<Bytes> {
        self.stream.write_all(frame)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > ANSWER_BYTES_MAX {
            return Err(io::Error::other(format!("the answer says that it has {length} bytes")));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        Ok(answer.into())
    }

    /// Makes a topic of one queue.
    pub(super) fn create_topic(&mut self, topic: &str) -> io::Result<()> {
        let one = CreatableTopic::default().with_name(name(topic)).with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![one]).with_timeout_ms(10_000);
        let answer = self.call(&request, 4)?;
        done("CreateTopics", answer.topics.first().map_or(0, |topic| topic.error_code))
    }

    /// A new epoch for the transactional id; waits while its coordinator is not ready. Asking who that is makes Kafka create
    /// the topic of transactions.
    pub(super) fn init_producer(&mut self, transactional_id: &str, timeout_ms: i32) -> io::Result<Identity> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional(transactional_id)))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let coordinator = FindCoordinatorRequest::default()
            .with_key(StrBytes::from_string(transactional_id.to_owned()))
            .with_key_type(TRANSACTION_COORDINATOR);
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.call(&coordinator, 2)?;
            let answer = self.call(&request, 4)?;
            if answer.error_code == 0 {
                return Ok(Identity { id: *answer.producer_id, epoch: answer.producer_epoch });
            }
            if Instant::now() >= deadline {
                done("InitProducerId", answer.error_code)?;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Names a queue's topic as part of the transaction, which begins with it; waits while the last one is being ended.
    pub(super) fn add_partition(&mut self, transactional_id: &str, who: Identity, topic: &str) -> io::Result<()> {
        let one = AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(vec![0]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional(transactional_id))
            .with_v3_and_below_producer_id(ProducerId(who.id))
            .with_v3_and_below_producer_epoch(who.epoch)
            .with_v3_and_below_topics(vec![one]);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.call(&request, 3)?;
            let results = answer.results_by_topic_v3_and_below.first();
            let code = results.and_then(|topic| topic.results_by_partition.first());
            let code = code.map_or(0, |partition| partition.partition_error_code);
            if code == 0 || Instant::now() >= deadline {
                return done("AddPartitionsToTxn", code);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Appends one record to the topic's only queue; gives the broker's error code.
    pub(super) fn produce(&mut self, of: &Produced<'_>, version: i16) -> io::Result<i16> {
        let record =
            Record { timestamp_ms: 1, key: None, value: Some(Bytes::from(of.value.to_owned())), headers: vec![] };
        let sequence = match of.sequence {
            Some((who, base_sequence)) => Sequence { producer_id: who.id, producer_epoch: who.epoch, base_sequence },
            None => Sequence::NONE,
        };
        let mut batch = encode_batch(&[record], sequence).to_vec();
        if of.transactional_id.is_some() {
            mark_transactional(&mut batch);
        }
        let partition = PartitionProduceData::default().with_index(0).with_records(Some(batch.into()));
        let data = TopicProduceData::default().with_name(name(of.topic)).with_partition_data(vec![partition]);
        let request = ProduceRequest::default()
            .with_transactional_id(of.transactional_id.map(transactional))
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![data]);
        let answer = self.call(&request, version)?;
        let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        Ok(partition.map_or(0, |partition| partition.error_code))
    }

    /// The same, waiting while the queue has no leader that serves, or the producer's last transaction is still being ended.
    pub(super) fn append(&mut self, of: &Produced<'_>, version: i16) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let code = self.produce(of, version)?;
            if !PASSING.contains(&code) || Instant::now() >= deadline {
                return done("Produce", code);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends a transaction; gives the error code and, from version 5 on, the identity for the next one.
    pub(super) fn end(
        &mut self,
        transactional_id: &str,
        who: Identity,
        commits: bool,
        version: i16,
    ) -> io::Result<(i16, Identity)> {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional(transactional_id))
            .with_producer_id(ProducerId(who.id))
            .with_producer_epoch(who.epoch)
            .with_committed(commits);
        let answer = self.call(&request, version)?;
        let is_new = version >= 5 && answer.error_code == 0;
        let next = Identity { id: *answer.producer_id, epoch: answer.producer_epoch };
        Ok((answer.error_code, if is_new { next } else { who }))
    }

    /// The end of the topic's queue for readers who see everything, and for those who see committed records only.
    pub(super) fn ends(&mut self, topic: &str) -> io::Result<(i64, i64)> {
        Ok((self.end_offset(topic, 0)?, self.end_offset(topic, 1)?))
    }

    fn end_offset(&mut self, topic: &str, isolation: i8) -> io::Result<i64> {
        let latest = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(-1);
        let topics = vec![ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![latest])];
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(isolation)
            .with_topics(topics);
        let answer = self.call(&request, 4)?;
        let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
        let partition = partition.ok_or_else(|| io::Error::other("ListOffsets was answered without the queue"))?;
        done("ListOffsets", partition.error_code)?;
        Ok(partition.offset)
    }
}

/// A record to be appended.
pub(super) struct Produced<'a> {
    pub(super) topic: &'a str,
    pub(super) value: &'a str,
    /// None outside of transactions.
    pub(super) transactional_id: Option<&'a str>,
    /// The producer and the record's number; none for a producer without idempotence.
    pub(super) sequence: Option<(Identity, i32)>,
}

/// Sets the bit of the batch's attributes that says so, and its checksum anew.
fn mark_transactional(batch: &mut [u8]) {
    batch[ATTRIBUTES_AT + 1] |= 0x10;
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &batch[ATTRIBUTES_AT..]) as u32;
    batch[ATTRIBUTES_AT - 4..ATTRIBUTES_AT].copy_from_slice(&checksum.to_be_bytes());
}

pub(super) fn done(api: &str, code: i16) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::other(format!("{api} was answered with error {code}"))) }
}

pub(super) fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn transactional(id: &str) -> TransactionalId {
    TransactionalId(StrBytes::from_string(id.to_owned()))
}

/// Where a batch's attributes begin; its checksum covers all from there on.
const ATTRIBUTES_AT: usize = 21;
/// UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, CONCURRENT_TRANSACTIONS.
const PASSING: [i16; 4] = [3, 5, 6, 51];
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const ANSWER_BYTES_MAX: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What FindCoordinator calls the coordinator of transactions.
const TRANSACTION_COORDINATOR: i8 = 1;
