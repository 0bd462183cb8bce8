//! The Fetch call of the raw driver, written and read by hand: its answers are tens of megabytes, and are taken where they
//! lie. Version 11, the last without tagged fields; whole fetches, no sessions.

use kafka_protocol::messages::ApiKey;

use super::lanes::Lanes;
use super::wire::{self, FETCH_VERSION, take, take_count};

/// Queues to ask for, each with the offset to read from, in order of the queue.
pub(super) fn request(correlation: i32, lanes: &Lanes, wanted: &[(u32, i64)], limits: Limits) -> Vec<u8> {
    let mut frame = wire::request_head(ApiKey::Fetch, FETCH_VERSION);
    frame[wire::CORRELATION_AT..wire::CORRELATION_AT + 4].copy_from_slice(&correlation.to_be_bytes());
    for word in [-1, limits.wait_ms, 1, ANSWER_BYTES_MAXIMUM] {
        frame.extend_from_slice(&word.to_be_bytes());
    }
    // Read uncommitted; no session.
    frame.push(0);
    for word in [0, -1] {
        frame.extend_from_slice(&i32::to_be_bytes(word));
    }
    let groups: Vec<&[(u32, i64)]> = wanted.chunk_by(|a, b| Lanes::place(a.0).0 == Lanes::place(b.0).0).collect();
    frame.extend_from_slice(&count(groups.len()));
    for group in groups {
        let name = lanes.topic(Lanes::place(group[0].0).0);
        frame.extend_from_slice(&i16::try_from(name.len()).expect("names of ours are short").to_be_bytes());
        frame.extend_from_slice(name.as_bytes());
        frame.extend_from_slice(&count(group.len()));
        for &(queue, offset) in group {
            frame.extend_from_slice(&Lanes::place(queue).1.to_be_bytes());
            frame.extend_from_slice(&(-1_i32).to_be_bytes());
            frame.extend_from_slice(&offset.to_be_bytes());
            frame.extend_from_slice(&(-1_i64).to_be_bytes());
            frame.extend_from_slice(&limits.queue_bytes.to_be_bytes());
        }
    }
    // No forgotten topics, no rack.
    frame.extend_from_slice(&[0; 6]);
    wire::close_frame(&mut frame);
    frame
}

/// What bounds an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How long the broker may wait for the first byte, milliseconds.
    pub(super) wait_ms: i32,
    /// Bytes of one queue, about.
    pub(super) queue_bytes: i32,
}

/// One queue's part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) topic: u32,
    pub(super) partition: u32,
    pub(super) error: i16,
    pub(super) high_watermark: i64,
    pub(super) records: &'a [u8],
}

/// Takes an answer apart, behind its correlation id. None where it is malformed; the inner error is the whole call's.
pub(super) fn answer<'a>(mut answer: &'a [u8], each: &mut dyn FnMut(Part<'a>)) -> Option<Result<(), i16>> {
    let input = &mut answer;
    let _throttle: [u8; 4] = take(input)?;
    let error = i16::from_be_bytes(take(input)?);
    let _session: [u8; 4] = take(input)?;
    if error != 0 {
        return Some(Err(error));
    }
    for _ in 0..take_count(input)? {
        let name_bytes = usize::try_from(i16::from_be_bytes(take(input)?)).ok()?;
        let (name, rest) = input.split_at_checked(name_bytes)?;
        *input = rest;
        let topic = std::str::from_utf8(name).ok()?.rsplit('-').next()?.parse().ok()?;
        for _ in 0..take_count(input)? {
            let partition = u32::from_be_bytes(take(input)?);
            let error = i16::from_be_bytes(take(input)?);
            let high_watermark = i64::from_be_bytes(take(input)?);
            // Last stable offset and log start offset.
            let _: [u8; 16] = take(input)?;
            for _ in 0..take_count(input)?.max(0) {
                let _aborted: [u8; 16] = take(input)?;
            }
            let _preferred_replica: [u8; 4] = take(input)?;
            let bytes = usize::try_from(take_count(input)?.max(0)).ok()?;
            let (records, rest) = input.split_at_checked(bytes)?;
            *input = rest;
            each(Part { topic, partition, error, high_watermark, records });
        }
    }
    Some(Ok(()))
}

fn count(number: usize) -> [u8; 4] {
    i32::try_from(number).expect("a request has a few hundred queues").to_be_bytes()
}

const ANSWER_BYTES_MAXIMUM: i32 = 16 << 20;

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::{FetchRequest, FetchResponse, RequestHeader, TopicName};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    use super::*;

    #[test]
    fn the_codec_reads_the_request() {
        let lanes = Lanes { prefix: "run".to_owned(), queues: 3_000, connections: 1 };
        let wanted = [(0, 5), (1_023, 0), (1_024, 9)];
        let limits = Limits { wait_ms: 500, queue_bytes: 100 };
        let mut frame = Bytes::from(request(7, &lanes, &wanted, limits)).slice(4..);
        assert_eq!(RequestHeader::decode(&mut frame, 1).unwrap().correlation_id, 7);
        let fetch = FetchRequest::decode(&mut frame, FETCH_VERSION).unwrap();
        assert!(frame.is_empty());
        assert_eq!((fetch.max_wait_ms, fetch.min_bytes, fetch.session_epoch), (500, 1, -1));
        let found: Vec<(String, i32, i64)> = fetch
            .topics
            .iter()
            .flat_map(|topic| {
                let of = |part: &kafka_protocol::messages::fetch_request::FetchPartition| {
                    (topic.topic.to_string(), part.partition, part.fetch_offset)
                };
                topic.partitions.iter().map(of).collect::<Vec<_>>()
            })
            .collect();
        let expected = [("run-0000", 0, 5), ("run-0000", 1_023, 0), ("run-0001", 0, 9)];
        assert_eq!(found, expected.map(|(topic, partition, offset)| (topic.to_owned(), partition, offset)));
    }

    #[test]
    fn what_the_codec_writes_is_taken_apart() {
        let part = PartitionData::default()
            .with_partition_index(4)
            .with_high_watermark(12)
            .with_records(Some(Bytes::from_static(b"records")));
        let topic = FetchableTopicResponse::default()
            .with_topic(TopicName(StrBytes::from_static_str("run-0002")))
            .with_partitions(vec![part]);
        let mut bytes = BytesMut::new();
        FetchResponse::default().with_responses(vec![topic]).encode(&mut bytes, FETCH_VERSION).unwrap();
        let mut parts = Vec::new();
        assert_eq!(answer(&bytes, &mut |part| parts.push(part)), Some(Ok(())));
        let expected = Part { topic: 2, partition: 4, error: 0, high_watermark: 12, records: b"records" };
        assert_eq!(parts, [expected]);
        for end in 0..bytes.len() {
            assert_eq!(answer(&bytes[..end], &mut |_| {}), None, "cut at {end}");
        }
    }
}
