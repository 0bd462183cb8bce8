//! Record batches as they travel (Kafka's message format v2): a reader and writer of the 61-byte header, the split of a
//! Produce request's `records` into checked batches, and a reader of the records' offsets and timestamps.
//! Not here: frames and storage (`log`). Batches are never re-encoded; only the base offset and the partition leader
//! epoch are rewritten, which lie outside the batch's CRC.
//! Bytes: <https://kafka.apache.org/documentation/#recordbatch>.

use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use kafka_protocol::records::{Record, RecordBatchDecoder};
use thiserror::Error;

use super::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Bytes of a batch's header, up to and including the record count.
pub const HEADER_BYTES: usize = 61;
/// Bytes of the header that the batch's own CRC does not cover: base offset, length, leader epoch, magic, CRC.
pub const UNCOVERED_BYTES: usize = 21;
/// Bytes before the part that the length field counts.
/// The attribute of a batch whose records carry the time of their append.
const APPEND_TIME: i16 = 0x08;
const LENGTH_PREFIX_BYTES: usize = 12;
/// The most records of a batch that the record reader accepts; the count is the sender's word.
pub const RECORDS_READ_MAX: i32 = 1 << 20;
/// The fewest bytes of an uncompressed record.
const RECORD_BYTES_MIN: usize = 7;

/// A batch's header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; what a producer sends here is ignored.
    pub base_offset: Offset,
    /// Bytes behind the length field.
    pub length: i32,
    /// Epoch of the leader that appended the batch.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C over everything behind it.
    pub crc: u32,
    /// Compression (bits 0-2), timestamp type (3), transactional (4), control (5).
    pub attributes: i16,
    /// Offset of the last record, relative to the first.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, in milliseconds; -1 is none.
    pub base_timestamp: i64,
    /// Largest timestamp, in milliseconds; -1 is none.
    pub max_timestamp: i64,
    /// Idempotent producer.
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record; -1 without idempotence.
    pub base_sequence: i32,
    /// How many records the batch holds.
    pub record_count: i32,
}

/// A checked batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The decoded header.
    pub header: BatchHeader,
    /// The whole batch as it came, header included.
    pub bytes: Bytes,
}

/// Why bytes are not an acceptable batch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("the batch at byte {at} is cut: it needs {needed} bytes, {left} are left")]
    Cut {
        /// Where the batch begins.
        at: usize,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// The length field is shorter than a header.
    #[error("the batch at byte {at} gives its length as {length}")]
    Length {
        /// Where the batch begins.
        at: usize,
        /// The length field.
        length: i32,
    },
    /// Another message format than v2.
    #[error("the batch at byte {at} has magic {magic}; only message format 2 is stored")]
    Magic {
        /// Where the batch begins.
        at: usize,
        /// The magic found.
        magic: u8,
    },
    /// The checksum does not match.
    #[error("the batch at byte {at} has CRC-32C {found:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// Where the batch begins.
        at: usize,
        /// The field.
        found: u32,
        /// The value computed.
        computed: u32,
    },
    /// A field contradicts another.
    #[error("the batch at byte {at} is inconsistent: {what}")]
    Inconsistent {
        /// Where the batch begins.
        at: usize,
        /// Which fields.
        what: &'static str,
    },
    /// The records inside cannot be read.
    #[error("the records of the batch cannot be read: {0}")]
    Records(String),
}

impl BatchError {
    /// Kafka's error code for a client that sent such a batch: CORRUPT_MESSAGE, UNSUPPORTED_FOR_MESSAGE_FORMAT or
    /// INVALID_RECORD.
    pub fn kafka_error(&self) -> i16 {
        match self {
            BatchError::Cut { .. } | BatchError::Length { .. } | BatchError::Checksum { .. } => 2,
            BatchError::Magic { .. } => 43,
            BatchError::Inconsistent { .. } | BatchError::Records(_) => 87,
        }
    }
}

impl BatchHeader {
    /// Decodes the header at the start of `bytes`; none if they are fewer than 61. Checks nothing.
    pub fn decode(bytes: &[u8]) -> Option<BatchHeader> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        Some(BatchHeader {
            base_offset: Offset(i64::from_be_bytes(field(bytes, 0))),
            length: i32::from_be_bytes(field(bytes, 8)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(bytes, 12))),
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: i16::from_be_bytes(field(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: ProducerId(i64::from_be_bytes(field(bytes, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(bytes, 51))),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        })
    }

    /// Bytes of the whole batch.
    pub fn batch_bytes(&self) -> usize {
        LENGTH_PREFIX_BYTES + self.length.max(0) as usize
    }

    /// Whether records are compressed.
    pub fn is_compressed(&self) -> bool {
        self.attributes & 0x07 != 0
    }

    /// Whether all records carry the time of their append, which is the largest timestamp of the header.
    pub fn has_append_time(&self) -> bool {
        self.attributes & APPEND_TIME != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    /// Whether the batch is a transaction marker.
    pub fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// The offset behind the batch's last record.
    pub fn next_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta) + 1)
    }

    /// Sequence of the batch's last record; sequences wrap from 2^31 - 1 to 0.
    pub fn last_sequence(&self) -> i32 {
        sequence_plus(self.base_sequence, self.last_offset_delta)
    }
}

impl Batch {
    /// Checks the batch at the start of `bytes` and takes it; what follows stays.
    pub fn take(bytes: &mut Bytes, at: usize) -> Result<Batch, BatchError> {
        let batch = Batch::take_stored(bytes, at)?;
        let header = &batch.header;
        if header.last_offset_delta != header.record_count - 1 {
            let what = "the record count and the last offset delta";
            return Err(BatchError::Inconsistent { at, what });
        }
        Ok(batch)
    }

    /// The same for a batch that is stored: compaction may have taken records out of it.
    pub fn take_stored(bytes: &mut Bytes, at: usize) -> Result<Batch, BatchError> {
        let Some(header) = BatchHeader::decode(bytes) else {
            return Err(BatchError::Cut { at, needed: HEADER_BYTES, left: bytes.len() });
        };
        if bytes[16] != 2 {
            return Err(BatchError::Magic { at, magic: bytes[16] });
        }
        if (header.length as i64) < (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i64 {
            return Err(BatchError::Length { at, length: header.length });
        }
        let needed = header.batch_bytes();
        if bytes.len() < needed {
            return Err(BatchError::Cut { at, needed, left: bytes.len() });
        }
        let computed = crc32c(&[&bytes[UNCOVERED_BYTES..needed]]);
        if computed != header.crc {
            return Err(BatchError::Checksum { at, found: header.crc, computed });
        }
        check_consistency(&header, at)?;
        Ok(Batch { header, bytes: bytes.split_to(needed) })
    }

    /// An uncompressed batch without producer, one record a value, base offset 0: what the node writes for itself.
    pub fn of_values(values: &[Bytes], timestamp_ms: i64) -> Batch {
        let producer = BatchProducer { id: ProducerId::NONE, epoch: ProducerEpoch(-1), base_sequence: -1 };
        Batch::of_records(producer, values.iter().map(|value| (timestamp_ms, value)))
    }

    /// The same for records with keys; one without a value deletes what its key names.
    pub fn of_keyed(records: &[(Bytes, Option<Bytes>)], timestamp_ms: i64) -> Batch {
        let producer = BatchProducer { id: ProducerId::NONE, epoch: ProducerEpoch(-1), base_sequence: -1 };
        let records = records.iter().map(|(key, value)| (timestamp_ms, Some(key), value.as_ref()));
        Batch::encode(producer, records)
    }

    /// An uncompressed batch of a producer; each record is a timestamp in milliseconds and a value. At least one.
    pub fn of_records<'a>(producer: BatchProducer, records: impl Iterator<Item = (i64, &'a Bytes)>) -> Batch {
        Batch::encode(producer, records.map(|(timestamp, value)| (timestamp, None, Some(value))))
    }

    pub(crate) fn encode<'a>(
        producer: BatchProducer,
        records: impl Iterator<Item = (i64, Option<&'a Bytes>, Option<&'a Bytes>)>,
    ) -> Batch {
        let mut body = BytesMut::new();
        let (mut count, mut base_timestamp, mut max_timestamp) = (0i32, -1, -1);
        let mut record = Vec::new();
        for (timestamp, key, value) in records {
            if count == 0 {
                base_timestamp = timestamp;
            }
            max_timestamp = max_timestamp.max(timestamp);
            record.clear();
            record.push(0);
            put_varint(&mut record, timestamp - base_timestamp);
            put_varint(&mut record, i64::from(count));
            for part in [key, value] {
                put_varint(&mut record, part.map_or(-1, |bytes| bytes.len() as i64));
                record.extend_from_slice(part.map_or(&[], |bytes| bytes));
            }
            put_varint(&mut record, 0);
            let mut length = Vec::with_capacity(5);
            put_varint(&mut length, record.len() as i64);
            body.extend_from_slice(&length);
            body.extend_from_slice(&record);
            count += 1;
        }
        assert!(count > 0, "a batch holds at least one record");
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + body.len());
        bytes.put_i64(0);
        bytes.put_i32((HEADER_BYTES - LENGTH_PREFIX_BYTES + body.len()) as i32);
        bytes.put_i32(-1);
        bytes.put_u8(2);
        bytes.put_u32(0);
        bytes.put_i16(0);
        bytes.put_i32(count - 1);
        bytes.put_i64(base_timestamp);
        bytes.put_i64(max_timestamp);
        bytes.put_i64(producer.id.0);
        bytes.put_i16(producer.epoch.0);
        bytes.put_i32(producer.base_sequence);
        bytes.put_i32(count);
        bytes.extend_from_slice(&body);
        let crc = crc32c(&[&bytes[UNCOVERED_BYTES..]]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let header = BatchHeader::decode(&bytes).expect("the header was just written");
        Batch { header, bytes: bytes.freeze() }
    }

    /// This batch with the time of its append for all of its records: the only change by which it is not stored as it came.
    pub fn appended_at(&self, wall_ms: i64) -> Batch {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        bytes[21..23].copy_from_slice(&(self.header.attributes | APPEND_TIME).to_be_bytes());
        bytes[35..43].copy_from_slice(&wall_ms.to_be_bytes());
        let crc = crc32c(&[&bytes[UNCOVERED_BYTES..]]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let header = BatchHeader::decode(&bytes).expect("it has the length that it had");
        Batch { header, bytes: bytes.freeze() }
    }

    /// The batch's first 21 bytes with this base offset and leader epoch in them.
    pub(crate) fn uncovered(&self, base_offset: Offset, epoch: LeaderEpoch) -> [u8; UNCOVERED_BYTES] {
        let mut bytes = [0; UNCOVERED_BYTES];
        bytes.copy_from_slice(&self.bytes[..UNCOVERED_BYTES]);
        bytes[0..8].copy_from_slice(&base_offset.0.to_be_bytes());
        bytes[12..16].copy_from_slice(&epoch.0.to_be_bytes());
        bytes
    }
}

/// Who produced a batch, and the sequence of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchProducer {
    /// The producer; `ProducerId::NONE` without idempotence.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// Sequence of the first record; -1 without idempotence.
    pub base_sequence: i32,
}

/// Splits the `records` of a Produce request into checked batches, each a slice of them.
pub fn split_batches(mut records: Bytes) -> Result<Vec<Batch>, BatchError> {
    let total = records.len();
    let mut batches = Vec::with_capacity(1);
    while !records.is_empty() {
        let at = total - records.len();
        batches.push(Batch::take(&mut records, at)?);
    }
    Ok(batches)
}

/// A record as the reader gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordAt {
    /// The record's offset.
    pub offset: Offset,
    /// The record's timestamp, in milliseconds.
    pub timestamp: i64,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's value.
    pub value: Option<Bytes>,
}

/// Decodes the records of one or more batches, decompressing where needed.
pub fn read_records(mut batches: Bytes) -> Result<Vec<RecordAt>, BatchError> {
    let mut found = Vec::new();
    while !batches.is_empty() {
        let batch = Batch::take_stored(&mut batches, 0)?;
        if batch.header.record_count > RECORDS_READ_MAX {
            return Err(BatchError::Records(format!("{} records are too many", batch.header.record_count)));
        }
        let set =
            RecordBatchDecoder::decode(&mut batch.bytes.clone()).map_err(|e| BatchError::Records(e.to_string()))?;
        let read = set.records.into_iter();
        found.extend(read.map(|record| {
            let Record { offset, timestamp, key, value, .. } = record;
            let timestamp = if batch.header.has_append_time() { batch.header.max_timestamp } else { timestamp };
            RecordAt { offset: Offset(offset), timestamp, key, value }
        }));
    }
    Ok(found)
}

/// The earliest record at or past `offset_min` whose timestamp is at or past `timestamp`, in one or more batches.
pub fn earliest_record_at_or_past(
    batches: Bytes,
    timestamp: i64,
    offset_min: Offset,
) -> Result<Option<(Offset, i64)>, BatchError> {
    let records = read_records(batches)?;
    let found = records.into_iter().find(|r| r.timestamp >= timestamp && r.offset >= offset_min);
    Ok(found.map(|r| (r.offset, r.timestamp)))
}

/// The sequence `count` behind `sequence`; behind 2^31 - 1 comes 0.
pub fn sequence_plus(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) % (1i64 << 31)) as i32
}

/// CRC-32C of the parts, one behind the other.
pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    if let [only] = parts {
        return crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, only) as u32;
    }
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

fn check_consistency(header: &BatchHeader, at: usize) -> Result<(), BatchError> {
    let inconsistent = |what| Err(BatchError::Inconsistent { at, what });
    if header.record_count <= 0 || header.last_offset_delta < header.record_count - 1 {
        return inconsistent("the record count and the last offset delta");
    }
    let body_bytes = header.batch_bytes() - HEADER_BYTES;
    if !header.is_compressed() && header.record_count as usize > body_bytes / RECORD_BYTES_MIN {
        return inconsistent("the record count and the length");
    }
    if header.attributes & 0x07 > 4 {
        return inconsistent("the compression codec is unknown");
    }
    if header.producer_id.0 < -1 {
        return inconsistent("the producer id is negative");
    }
    if header.producer_id != ProducerId::NONE && (header.producer_epoch.0 < 0 || header.base_sequence < 0) {
        return inconsistent("a producer id without epoch or sequence");
    }
    if header.producer_id == ProducerId::NONE && header.base_sequence >= 0 {
        return inconsistent("a sequence without a producer id");
    }
    Ok(())
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
    use proptest::prelude::*;

    fn encoded(compression: Compression, timestamps: &[i64]) -> Bytes {
        let record = |(n, timestamp): (usize, &i64)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 7,
            producer_id: 11,
            producer_epoch: 2,
            timestamp_type: TimestampType::Creation,
            offset: n as i64,
            sequence: 40 + n as i32,
            timestamp: *timestamp,
            key: None,
            value: Some(Bytes::from(vec![b'v'; 50])),
            headers: Default::default(),
        };
        let records: Vec<Record> = timestamps.iter().enumerate().map(record).collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression };
        RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("encodes");
        bytes.freeze()
    }

    #[test]
    fn the_time_of_the_append_is_that_of_every_record_and_the_checksum_holds() {
        for codec in [Compression::None, Compression::Lz4] {
            let came = Batch::take(&mut encoded(codec, &[5, 9, 7]), 0).expect("it is good");
            let stamped = came.appended_at(1_000);
            assert_eq!((stamped.header.max_timestamp, stamped.header.base_timestamp), (1_000, 5));
            let again = Batch::take(&mut stamped.bytes.clone(), 0).expect("its checksum is right");
            let read = read_records(again.bytes).expect("readable");
            assert_eq!(read.iter().map(|record| record.timestamp).collect::<Vec<_>>(), [1_000; 3]);
            let found = earliest_record_at_or_past(stamped.bytes, 1_000, Offset(0)).expect("readable");
            assert_eq!(found, Some((Offset(0), 1_000)));
        }
    }

    #[test]
    fn batches_of_every_codec_are_split_checked_and_read() {
        let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        let all: Vec<Bytes> = codecs.iter().map(|codec| encoded(*codec, &[5, 9, 7])).collect();
        let batches = split_batches(all.concat().into()).expect("all are good");
        assert_eq!(batches.iter().map(|b| b.bytes.clone()).collect::<Vec<_>>(), all);
        for (batch, codec) in batches.iter().zip(codecs) {
            let header = batch.header;
            assert_eq!((header.producer_id, header.producer_epoch), (ProducerId(11), ProducerEpoch(2)));
            assert_eq!((header.base_sequence, header.last_sequence(), header.record_count), (40, 42, 3));
            assert_eq!((header.max_timestamp, header.is_compressed()), (9, codec != Compression::None));
            let found = |timestamp, from| {
                earliest_record_at_or_past(batch.bytes.clone(), timestamp, Offset(from)).expect("readable")
            };
            assert_eq!(found(6, 0), Some((Offset(1), 9)));
            assert_eq!(found(6, 2), Some((Offset(2), 7)), "records below the log start do not count");
            assert_eq!(found(10, 0), None);
        }
    }

    #[test]
    fn what_the_node_writes_for_itself_reads_back() {
        let values = [Bytes::from_static(b"a"), Bytes::new(), Bytes::from(vec![b'z'; 300])];
        let batch = Batch::of_values(&values, 1234);
        assert_eq!(split_batches(batch.bytes.clone()), Ok(vec![batch.clone()]));
        let read = read_records(batch.bytes).expect("readable");
        assert_eq!(read.iter().map(|r| r.value.clone().unwrap_or_default()).collect::<Vec<_>>(), values);
        assert!(read.iter().enumerate().all(|(n, r)| (r.offset, r.timestamp) == (Offset(n as i64), 1234)));
    }

    #[test]
    fn bad_batches_are_refused_with_the_error_that_clients_know() {
        let good = encoded(Compression::None, &[1, 2]);
        let change = |at: usize, bytes: &[u8]| {
            let mut changed = good.to_vec();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            let crc = crc32c(&[&changed[UNCOVERED_BYTES..]]);
            changed[17..21].copy_from_slice(&crc.to_be_bytes());
            split_batches(changed.into()).expect_err("it is bad").kafka_error()
        };
        let (corrupt, format, invalid) = (2, 43, 87);
        assert_eq!(change(16, &[1]), format, "an old magic");
        assert_eq!(change(8, &0i32.to_be_bytes()), corrupt, "a length below the header's");
        assert_eq!(change(8, &i32::MAX.to_be_bytes()), corrupt, "a length past the end");
        assert_eq!(change(8, &(-1i32).to_be_bytes()), corrupt, "a negative length");
        assert_eq!(change(57, &3i32.to_be_bytes()), invalid, "a count that contradicts the last offset");
        assert_eq!(change(57, &0i32.to_be_bytes()), invalid, "no records");
        assert_eq!(change(22, &[5]), invalid, "an unknown codec");
        assert_eq!(change(43, &(-2i64).to_be_bytes()), invalid, "a negative producer");
        assert_eq!(change(43, &(-1i64).to_be_bytes()), invalid, "a sequence without producer");
        assert_eq!(change(53, &(-1i32).to_be_bytes()), invalid, "a producer without sequence");
        let mut flipped = good.to_vec();
        flipped[70] ^= 1;
        assert_eq!(split_batches(flipped.into()).expect_err("a bit flipped").kafka_error(), corrupt);
        assert_eq!(split_batches(good.slice(..good.len() - 1)).expect_err("cut").kafka_error(), corrupt);
        let huge = [(i32::MAX - 1).to_be_bytes(), i32::MAX.to_be_bytes()];
        let mut counted = good.to_vec();
        counted[23..27].copy_from_slice(&huge[0]);
        counted[57..61].copy_from_slice(&huge[1]);
        let crc = crc32c(&[&counted[UNCOVERED_BYTES..]]);
        counted[17..21].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(split_batches(counted.into()).expect_err("no room for so many").kafka_error(), invalid);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever bytes come, the split neither panics nor allocates by their word, and gives back what it took.
        #[test]
        fn any_bytes_are_split_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), good in any::<bool>()) {
            if good {
                bytes.splice(0..0, encoded(Compression::None, &[3]));
            }
            let bytes = Bytes::from(bytes);
            if let Ok(batches) = split_batches(bytes.clone()) {
                let joined: Vec<u8> = batches.iter().flat_map(|b| b.bytes.to_vec()).collect();
                prop_assert_eq!(joined, bytes.to_vec());
            }
        }

        /// Sequences wrap as Kafka's do: behind 2^31 - 1 comes 0, and no sum is negative.
        #[test]
        fn sequences_stay_in_their_range(sequence in 0..=i32::MAX, count in 0..=i32::MAX - 1) {
            let sum = sequence_plus(sequence, count);
            prop_assert!(sum >= 0);
            let expected = sequence.checked_add(count).unwrap_or_else(|| count - (i32::MAX - sequence) - 1);
            prop_assert_eq!(sum, expected);
        }
    }
}
