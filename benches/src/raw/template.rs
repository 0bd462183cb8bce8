//! A Produce request encoded once and patched for every batch: stamps, sequence, checksum. No other byte is touched, so
//! that a driver on one core offers more than a broker on another can take.

use kafka_protocol::messages::ApiKey;

use super::wire::{self, PRODUCE_VERSION, ProducerIdentity};
use crate::payload::{self, PayloadWriter, Stamp};

/// What the requests of one connection have in common.
#[derive(Debug, Clone)]
pub(super) struct RequestShape {
    /// The topic's name; one of equal length replaces it in a request.
    pub(super) topic: String,
    pub(super) client: u32,
    pub(super) run: u64,
    pub(super) record_bytes: usize,
    /// Records of a batch, at most.
    pub(super) records: u32,
    /// Batches of a request.
    pub(super) batches: u32,
    pub(super) acks: i16,
    pub(super) producer: ProducerIdentity,
    /// Whether values go unstamped.
    pub(super) is_bare: bool,
    /// Wall clock, milliseconds, of every record.
    pub(super) timestamp_ms: i64,
}

/// One batch of the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// The queue's number within its topic.
    pub(super) partition: u32,
    /// The queue's number among all queues of the run.
    pub(super) queue: u32,
    /// The first record's sequence number in its queue.
    pub(super) sequence_first: u64,
}

/// One connection's request.
#[derive(Debug)]
pub(super) struct Template {
    frame: Vec<u8>,
    topic_at: usize,
    /// Where the entries of the batches begin in the frame: partition, size, batch.
    entries_at: Vec<usize>,
    /// Where the values begin in a batch.
    values_at: Vec<usize>,
    shape: RequestShape,
}

impl Template {
    /// Encodes the request.
    pub(super) fn new(shape: RequestShape) -> Template {
        let (batch, values_at) = encode_batch(&shape);
        let mut frame = wire::request_head(ApiKey::Produce, PRODUCE_VERSION);
        frame.extend_from_slice(&(-1_i16).to_be_bytes());
        frame.extend_from_slice(&shape.acks.to_be_bytes());
        frame.extend_from_slice(&PRODUCE_TIMEOUT_MS.to_be_bytes());
        frame.extend_from_slice(&1_i32.to_be_bytes());
        let name_bytes = i16::try_from(shape.topic.len()).expect("names of ours are short");
        frame.extend_from_slice(&name_bytes.to_be_bytes());
        let topic_at = frame.len();
        frame.extend_from_slice(shape.topic.as_bytes());
        frame.extend_from_slice(&shape.batches.to_be_bytes());
        let mut entries_at = Vec::with_capacity(shape.batches as usize);
        for _ in 0..shape.batches {
            entries_at.push(frame.len());
            frame.extend_from_slice(&0_i32.to_be_bytes());
            frame.extend_from_slice(&size_of(batch.len()).to_be_bytes());
            frame.extend_from_slice(&batch);
        }
        wire::close_frame(&mut frame);
        Template { frame, topic_at, entries_at, values_at, shape }
    }

    /// The frame, its length prefix included, with one batch of `records` records for each slot. Fewer records than the
    /// shape has, or fewer slots, are only possible where the request has one batch.
    pub(super) fn patch(
        &mut self,
        correlation: i32,
        topic: &str,
        slots: &[Slot],
        records: u32,
        times: (u64, u64),
    ) -> &[u8] {
        assert!(slots.len() == self.entries_at.len(), "a request has as many batches as its shape");
        assert!(topic.len() == self.shape.topic.len(), "names of a run have one length");
        assert!(records == self.shape.records || slots.len() == 1, "only a lone batch can be cut");
        self.frame[self.topic_at..self.topic_at + topic.len()].copy_from_slice(topic.as_bytes());
        self.frame[wire::CORRELATION_AT..wire::CORRELATION_AT + 4].copy_from_slice(&correlation.to_be_bytes());
        let batch_bytes = self.batch_bytes(records);
        for (index, slot) in slots.iter().enumerate() {
            self.patch_entry(self.entries_at[index], *slot, records as usize, batch_bytes, times);
        }
        let end = self.entries_at[slots.len() - 1] + ENTRY_HEAD_BYTES + batch_bytes;
        self.frame[..4].copy_from_slice(&size_of(end - 4).to_be_bytes());
        &self.frame[..end]
    }

    fn patch_entry(&mut self, at: usize, slot: Slot, records: usize, batch_bytes: usize, times: (u64, u64)) {
        self.frame[at..at + 4].copy_from_slice(&slot.partition.to_be_bytes());
        self.frame[at + 4..at + 8].copy_from_slice(&size_of(batch_bytes).to_be_bytes());
        let batch = &mut self.frame[at + ENTRY_HEAD_BYTES..at + ENTRY_HEAD_BYTES + batch_bytes];
        let (intended_ns, sent_ns) = times;
        let stamped = if self.shape.is_bare { 0 } else { records };
        for (sequence, &value_at) in (slot.sequence_first..).zip(&self.values_at[..stamped]) {
            let stamp = Stamp { client: self.shape.client, queue: slot.queue, sequence, intended_ns, sent_ns };
            payload::patch(&mut batch[value_at..value_at + self.shape.record_bytes], stamp);
        }
        batch[8..12].copy_from_slice(&size_of(batch_bytes - 12).to_be_bytes());
        batch[23..27].copy_from_slice(&size_of(records - 1).to_be_bytes());
        batch[57..61].copy_from_slice(&size_of(records).to_be_bytes());
        if self.shape.producer.is_idempotent() {
            let base = i32::try_from(slot.sequence_first).expect("the plan bounds a block's records");
            batch[BASE_SEQUENCE_AT..BASE_SEQUENCE_AT + 4].copy_from_slice(&base.to_be_bytes());
        }
        let sum = wire::crc32c(&batch[UNCOVERED_BYTES..]);
        batch[CRC_AT..CRC_AT + 4].copy_from_slice(&sum.to_be_bytes());
    }

    /// Bytes of a batch with its first `records` records: each ends one byte, its count of headers, after its value.
    pub(super) fn batch_bytes(&self, records: u32) -> usize {
        self.values_at[records as usize - 1] + self.shape.record_bytes + 1
    }

    /// Where the first batch begins in the frame, its length prefix included.
    pub(super) fn batch_at(&self) -> usize {
        self.entries_at[0] + ENTRY_HEAD_BYTES
    }
}

fn size_of(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("the plan bounds a request")
}

/// The batch, and where its values begin.
fn encode_batch(shape: &RequestShape) -> (Vec<u8>, Vec<usize>) {
    let mut filler = PayloadWriter::new(shape.run, shape.record_bytes);
    let stamp = Stamp { client: shape.client, queue: 0, sequence: 0, intended_ns: 0, sent_ns: 0 };
    let value = filler.write(stamp);
    let mut values_at = Vec::with_capacity(shape.records as usize);
    let mut batch = vec![0; wire::BATCH_HEADER_BYTES];
    for delta in 0..shape.records {
        let mut head = Vec::with_capacity(16);
        head.extend_from_slice(&[0, 0]);
        put_varint(&mut head, i64::from(delta));
        put_varint(&mut head, -1);
        put_varint(&mut head, value.len() as i64);
        put_varint(&mut batch, (head.len() + value.len() + 1) as i64);
        batch.extend_from_slice(&head);
        values_at.push(batch.len());
        batch.extend_from_slice(value);
        batch.push(0);
    }
    let length = i32::try_from(batch.len() - 12).expect("the plan bounds a batch's bytes");
    let last_delta = i32::try_from(shape.records - 1).expect("the plan bounds a batch's bytes");
    let base_sequence: i32 = if shape.producer.is_idempotent() { 0 } else { -1 };
    let mut header = Vec::with_capacity(wire::BATCH_HEADER_BYTES);
    header.extend_from_slice(&0_i64.to_be_bytes());
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(&(-1_i32).to_be_bytes());
    header.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0]);
    header.extend_from_slice(&last_delta.to_be_bytes());
    header.extend_from_slice(&shape.timestamp_ms.to_be_bytes());
    header.extend_from_slice(&shape.timestamp_ms.to_be_bytes());
    header.extend_from_slice(&shape.producer.id.to_be_bytes());
    header.extend_from_slice(&shape.producer.epoch.to_be_bytes());
    header.extend_from_slice(&base_sequence.to_be_bytes());
    header.extend_from_slice(&(last_delta + 1).to_be_bytes());
    batch[..wire::BATCH_HEADER_BYTES].copy_from_slice(&header);
    (batch, values_at)
}

/// Zigzag, seven bits a byte, lowest first.
fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

const PRODUCE_TIMEOUT_MS: i32 = 30_000;
/// Partition and size before a batch.
const ENTRY_HEAD_BYTES: usize = 8;
const CRC_AT: usize = 17;
/// Base offset to checksum, which the checksum does not cover.
const UNCOVERED_BYTES: usize = 21;
const BASE_SEQUENCE_AT: usize = 53;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::{ProduceRequest, RequestHeader};
    use kafka_protocol::protocol::Decodable;

    use super::*;
    use crate::raw::wire::{Walked, walk_batches};

    fn shape(batches: u32) -> RequestShape {
        RequestShape {
            topic: "t-0000".to_owned(),
            client: 2,
            run: 9,
            record_bytes: 100,
            records: 200,
            batches,
            acks: -1,
            producer: ProducerIdentity { id: 5, epoch: 1 },
            is_bare: false,
            timestamp_ms: 1_700_000_000_000,
        }
    }

    /// Goal: what is patched is a sound request. Method: Kafka's codec takes it apart, our walker reads the records.
    fn check(batches: u32, slots: &[Slot], records: u32) {
        let mut template = Template::new(shape(batches));
        let frame = template.patch(77, "t-0041", slots, records, (11, 12));
        assert_eq!(i32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        let mut frame = Bytes::copy_from_slice(&frame[4..]);
        let header = RequestHeader::decode(&mut frame, 1).unwrap();
        assert_eq!((header.correlation_id, header.request_api_key), (77, ApiKey::Produce as i16));
        let request = ProduceRequest::decode(&mut frame, PRODUCE_VERSION).unwrap();
        assert!(frame.is_empty(), "bytes are left over");
        assert_eq!(request.topic_data[0].name.as_str(), "t-0041");
        assert_eq!(request.topic_data[0].partition_data.len(), slots.len());
        for (partition, slot) in request.topic_data[0].partition_data.iter().zip(slots) {
            assert_eq!(partition.index as u32, slot.partition);
            let set = partition.records.clone().unwrap();
            assert_eq!(i32::from_be_bytes(set[53..57].try_into().unwrap()), slot.sequence_first as i32);
            let mut sequences = Vec::new();
            let walked = walk_batches(&set, &mut |offset, value| {
                let stamp = payload::read(9, 100, value.unwrap()).unwrap();
                assert_eq!((stamp.client, stamp.queue, stamp.intended_ns, stamp.sent_ns), (2, slot.queue, 11, 12));
                sequences.push((offset, stamp.sequence));
            });
            assert_eq!(walked, Walked::Whole { next_offset: Some(i64::from(records)) });
            let expected: Vec<(i64, u64)> =
                (0..u64::from(records)).map(|index| (index as i64, slot.sequence_first + index)).collect();
            assert_eq!(sequences, expected);
        }
    }

    #[test]
    fn a_patched_request_holds_the_stamps_that_were_asked_for() {
        let slot = |partition, sequence_first| Slot { partition, queue: partition + 1_024, sequence_first };
        check(1, &[slot(3, 0)], 200);
        check(1, &[slot(3, 1 << 20)], 200);
        check(1, &[slot(0, 5)], 1);
        check(1, &[slot(1_023, 5)], 127);
        check(3, &[slot(7, 0), slot(8, 400), slot(9, 200)], 200);
    }
}
