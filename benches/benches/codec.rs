//! Criterion benches of the reference broker's way in and out: a batch's checks, requests decoded, responses encoded.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use crc_fast::CrcAlgorithm;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, ProduceRequest, RequestHeader as WireHeader, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use mqassay_broker::core::batch::Batch;
use mqassay_broker::wire::api::Api;
use mqassay_broker::wire::fetch::{FetchAnswer, FetchedRecords};
use mqassay_broker::wire::output::Output;
use mqassay_broker::wire::request::{self, RequestHeader};
use mqassay_broker::wire::response::{self, Response};

const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;

fn batch_of(records: usize) -> Bytes {
    Batch::of_values(&vec![Bytes::from_static(&[7; 100]); records], 1_700_000_000_000).bytes
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

fn frame(key: ApiKey, version: i16, body: &impl Encodable) -> Bytes {
    let mut frame = BytesMut::new();
    let header = WireHeader::default().with_request_api_key(key as i16).with_request_api_version(version);
    header.encode(&mut frame, key.request_header_version(version)).expect("a header of this version");
    body.encode(&mut frame, version).expect("a body of this version");
    frame.freeze()
}

fn produce_frame(records: usize) -> Bytes {
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch_of(records)));
    let data = TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![data]);
    frame(ApiKey::Produce, PRODUCE_VERSION, &request)
}

fn fetch_frame(queues: i32) -> Bytes {
    let partition = |index| FetchPartition::default().with_partition(index).with_partition_max_bytes(1 << 20);
    let asked = FetchTopic::default().with_topic(topic()).with_partitions((0..queues).map(partition).collect());
    let request = FetchRequest::default().with_max_wait_ms(100).with_min_bytes(1).with_topics(vec![asked]);
    frame(ApiKey::Fetch, FETCH_VERSION, &request)
}

fn fetch_response(records: &Bytes) -> Response {
    let data = PartitionData::default().with_high_watermark(1_000);
    let answered = FetchableTopicResponse::default().with_topic(topic()).with_partitions(vec![data]);
    let fetched = FetchedRecords { topic: 0, partition: 0, parts: vec![records.clone()] };
    let response = FetchResponse::default().with_responses(vec![answered]);
    Response::Fetch(FetchAnswer { response, records: vec![fetched] })
}

fn check_batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch-check");
    for records in [1, 10, 100, 600] {
        let bytes = batch_of(records);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("{records} records of 100 bytes"), |bencher| {
            bencher.iter(|| black_box(Batch::take(&mut bytes.clone(), 0).expect("a sound batch")));
        });
    }
    group.finish();
}

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc-32c");
    for length in [100, 1 << 10, 64 << 10] {
        let bytes = vec![7u8; length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(format!("{length} bytes"), |bencher| {
            bencher.iter(|| black_box(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, black_box(&bytes))));
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request-decode");
    let frames = [
        ("produce, one batch of 600 records", produce_frame(600)),
        ("fetch, 4 queues", fetch_frame(4)),
        ("fetch, 1,000 queues", fetch_frame(1_000)),
    ];
    for (name, frame) in frames {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(request::decode(frame.clone()).expect("a sound frame")));
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("response-encode");
    let header = RequestHeader { api: Api::Fetch, version: FETCH_VERSION, correlation_id: 7 };
    let records = batch_of(600);
    group.throughput(Throughput::Bytes(records.len() as u64));
    group.bench_function("fetch, one batch of 600 records", |bencher| {
        bencher.iter_batched(
            || (fetch_response(&records), Output::default()),
            |(response, mut output)| {
                response::encode(header, response, &mut output).expect("a response of this version");
                output
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, check_batch, checksum, decode, encode);
criterion_main!(benches);
