//! Memory stays bounded: a real broker process under a flood, with consumers that never read and with idle connections
//! by the hundred, serves another client and never holds as much as 512 MiB.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{CreateTopicsRequest, FetchRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use mqassay_broker::core::batch::{Batch, BatchProducer};
use mqassay_broker::core::types::{ProducerEpoch, ProducerId};
use mqassay_harness::process::{BrokerProcess, ProcessOptions};

const RSS_BYTES_MAX: u64 = 512 << 20;
/// As many as a process with the usual 1,024 descriptors can hold beside the others.
const IDLE: usize = 900;
const GREEDY: usize = 4;
const FETCHES: usize = 200;
const FLOODS: usize = 2;
const FLOOD_REQUESTS: usize = 2400;
const SMALL_REQUESTS: usize = 20_000;

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

fn frame<R: Request>(version: i16, request: &R) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(R::KEY);
    frame.put_i16(version);
    frame.put_i32(1);
    frame.put_i16(-1);
    if R::header_version(version) >= 2 {
        frame.put_u8(0);
    }
    request.encode(&mut frame, version).unwrap();
    let length = i32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

fn receive<R: Request>(stream: &mut TcpStream, version: i16) -> R::Response {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut body).unwrap();
    let mut body = Bytes::from(body);
    body.advance(if R::Response::header_version(version) >= 1 { 5 } else { 4 });
    R::Response::decode(&mut body, version).unwrap()
}

fn call<R: Request>(stream: &mut TcpStream, version: i16, request: &R) -> R::Response {
    stream.write_all(&frame(version, request)).unwrap();
    receive::<R>(stream, version)
}

fn produce(value_bytes: usize) -> ProduceRequest {
    let value = Bytes::from(vec![7; value_bytes]);
    let nobody = BatchProducer { id: ProducerId::NONE, epoch: ProducerEpoch(-1), base_sequence: -1 };
    let records = Batch::of_records(nobody, std::iter::once((1, &value))).bytes;
    let data = PartitionProduceData::default().with_records(Some(records));
    let data = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(5000).with_topic_data(vec![data])
}

fn fetch(bytes_max: i32) -> FetchRequest {
    let partition = FetchPartition::default().with_partition_max_bytes(bytes_max);
    let wanted = FetchTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    FetchRequest::default().with_max_bytes(bytes_max).with_topics(vec![wanted])
}

/// Sends a request so many times as fast as the broker takes it, and reads every answer.
fn flood(address: &str, request: &ProduceRequest, count: usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    let (mut sending, frame) = (stream.try_clone().unwrap(), frame(9, request));
    std::thread::scope(|scope| {
        scope.spawn(move || (0..count).for_each(|_| sending.write_all(&frame).unwrap()));
        for _ in 0..count {
            let response = receive::<ProduceRequest>(&mut stream, 9);
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        }
    });
}

#[test]
fn memory_stays_below_its_bound_whatever_clients_do() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["broker", "--listen", "127.0.0.1:0", "--flush", "os", "--data"];
    let mut arguments: Vec<std::ffi::OsString> = arguments.iter().map(Into::into).collect();
    arguments.push(folder.path().join("data").into());
    let program = env!("CARGO_BIN_EXE_mqassay").into();
    let options = ProcessOptions { program, arguments, ready_timeout: Duration::from_secs(30) };
    let mut broker = BrokerProcess::start(&options).unwrap();
    let address = broker.address().to_owned();
    let mut client = TcpStream::connect(&address).unwrap();
    let created = CreatableTopic::default().with_name(topic()).with_num_partitions(1).with_replication_factor(1);
    let created = CreateTopicsRequest::default().with_topics(vec![created]).with_timeout_ms(5000);
    assert_eq!(call(&mut client, 7, &created).topics[0].error_code, 0);

    let idle: Vec<TcpStream> = (0..IDLE).map(|_| TcpStream::connect(&address).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..FLOODS {
            scope.spawn(|| flood(&address, &produce(64_000), FLOOD_REQUESTS));
        }
        scope.spawn(|| flood(&address, &produce(100), SMALL_REQUESTS));
    });
    let greedy: Vec<TcpStream> = (0..GREEDY)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            (0..FETCHES).for_each(|_| stream.write_all(&frame(11, &fetch(16 << 20))).unwrap());
            stream
        })
        .collect();
    // The broker has taken up all that when it has answered these, one after the other.
    for _ in 0..50 {
        let response = call(&mut client, 9, &produce(100));
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        let found = call(&mut client, 11, &fetch(1000));
        assert_eq!(found.responses[0].partitions[0].error_code, 0);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_bytes = peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
    assert!(peak_bytes < RSS_BYTES_MAX, "the broker held {peak_bytes} bytes");
    drop((idle, greedy));
    broker.kill().unwrap();
}
