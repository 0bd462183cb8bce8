//! Record batches of format 2, written and read by the harness itself, so that the judge checks bytes that no broker's
//! code has interpreted: <https://kafka.apache.org/documentation/#recordbatch>. Uncompressed only; what a reader cannot
//! make sense of is reported as damage with its offset, never skipped in silence.

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// A record as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Its key, if any.
    pub key: Option<Bytes>,
    /// Its value, if any.
    pub value: Option<Bytes>,
    /// Its headers in order.
    pub headers: Vec<Header>,
}

/// A record's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name, UTF-8 where the writer was well-behaved.
    pub key: Bytes,
    /// Its value, if any.
    pub value: Option<Bytes>,
}

/// A producer's id, epoch and the sequence number of a batch's first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// The producer's id.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
}

impl Sequence {
    /// What a producer without idempotence sends.
    pub const NONE: Sequence = Sequence { producer_id: -1, producer_epoch: -1, base_sequence: -1 };
}

/// A record that was read, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedRecord {
    /// Its offset.
    pub offset: i64,
    /// The record.
    pub record: Record,
}

/// Bytes that are not a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// First offset that is concerned.
    pub offset: i64,
    /// What is wrong.
    pub what: BatchFault,
}

/// What is wrong with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BatchFault {
    /// The only batch of an answer is cut off.
    #[error("the first batch is cut off")]
    CutOff,
    /// Its length field cannot be.
    #[error("the batch's length field is {length}")]
    Length {
        /// As read.
        length: i32,
    },
    /// Another format than 2.
    #[error("the batch has format {magic}, not 2")]
    Magic {
        /// As read.
        magic: i8,
    },
    /// CRC-32C differs.
    #[error("the batch's checksum is {found:08x} and should be {computed:08x}")]
    Checksum {
        /// In the header.
        found: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// Compressed, though this client never compresses.
    #[error("the batch says that it is compressed, and no batch was")]
    Compressed,
    /// There are more records than the last offset delta has room for, or none.
    #[error("the batch counts {count} records and its last offset delta is {last_offset_delta}")]
    Count {
        /// Records by the header.
        count: i32,
        /// By the header.
        last_offset_delta: i32,
    },
    /// A record's fields do not fill its length, or its offset delta is not above the one before.
    #[error("record {index} of the batch does not decode")]
    Record {
        /// From 0.
        index: i32,
    },
}

/// What an answer's bytes held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Records, control records left out, in the order of the bytes.
    pub records: Vec<PlacedRecord>,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// The offset behind the last batch that was read, if there was one.
    pub next_offset: Option<i64>,
    /// The leader epoch in the last batch that was read; none where no batch was read, or it has none.
    pub leader_epoch: Option<i32>,
}

/// Writes one batch with base offset 0, as a producer sends it.
pub fn encode_batch(records: &[Record], sequence: Sequence) -> Bytes {
    assert!(!records.is_empty(), "a batch has at least one record");
    let base_timestamp = records[0].timestamp_ms;
    let max_timestamp = records.iter().map(|record| record.timestamp_ms).fold(i64::MIN, i64::max);
    let count = i32::try_from(records.len()).expect("a batch has fewer than 2^31 records");
    let mut body = BytesMut::with_capacity(64 + records.len() * 64);
    let mut fields = BytesMut::new();
    for (index, record) in records.iter().enumerate() {
        fields.clear();
        fields.put_i8(0);
        put_varint(&mut fields, record.timestamp_ms - base_timestamp);
        put_varint(&mut fields, index as i64);
        put_optional(&mut fields, record.key.as_deref());
        put_optional(&mut fields, record.value.as_deref());
        put_varint(&mut fields, record.headers.len() as i64);
        for header in &record.headers {
            put_optional(&mut fields, Some(&header.key));
            put_optional(&mut fields, header.value.as_deref());
        }
        put_varint(&mut body, fields.len() as i64);
        body.extend_from_slice(&fields);
    }
    let mut checked = BytesMut::with_capacity(HEADER_BYTES - CHECKED_FROM + body.len());
    checked.put_i16(0);
    checked.put_i32(count - 1);
    checked.put_i64(base_timestamp);
    checked.put_i64(max_timestamp);
    checked.put_i64(sequence.producer_id);
    checked.put_i16(sequence.producer_epoch);
    checked.put_i32(sequence.base_sequence);
    checked.put_i32(count);
    checked.extend_from_slice(&body);
    let mut batch = BytesMut::with_capacity(CHECKED_FROM + checked.len());
    batch.put_i64(0);
    let length = CHECKED_FROM - LENGTH_COUNTS_FROM + checked.len();
    batch.put_i32(i32::try_from(length).expect("a batch is smaller than 2 GiB"));
    batch.put_i32(-1);
    batch.put_i8(2);
    batch.put_u32(checksum(&checked));
    batch.extend_from_slice(&checked);
    batch.freeze()
}

/// Reads all batches of an answer; records below `from` are left out, for a broker answers with whole batches.
pub fn read_batches(mut bytes: Bytes, from: i64) -> Contents {
    let mut contents = Contents::default();
    while !bytes.is_empty() {
        let is_first = contents.next_offset.is_none();
        if bytes.len() < LENGTH_COUNTS_FROM {
            note_cut_off(&mut contents, is_first, from);
            return contents;
        }
        let base_offset = (&bytes[0..8]).get_i64();
        let length = (&bytes[8..12]).get_i32();
        let Some(size) = usize::try_from(length).ok().map(|length| length + LENGTH_COUNTS_FROM) else {
            contents.damage.push(Damage { offset: base_offset, what: BatchFault::Length { length } });
            return contents;
        };
        if size < HEADER_BYTES {
            contents.damage.push(Damage { offset: base_offset, what: BatchFault::Length { length } });
            return contents;
        }
        if size > bytes.len() {
            note_cut_off(&mut contents, is_first, from);
            return contents;
        }
        let batch = bytes.split_to(size);
        let epoch = (&batch[12..16]).get_i32();
        contents.leader_epoch = (epoch >= 0).then_some(epoch);
        let last_offset_delta = (&batch[23..27]).get_i32();
        match read_batch(&batch, base_offset) {
            Ok(records) => {
                let wanted = records.into_iter().filter(|placed| placed.offset >= from);
                contents.records.extend(wanted);
            }
            Err(what) => contents.damage.push(Damage { offset: base_offset.max(from), what }),
        }
        // A damaged batch is stepped over by what its header says, by at least one record.
        contents.next_offset = Some((base_offset + i64::from(last_offset_delta.max(0)) + 1).max(from));
    }
    contents
}

/// Kafka cuts the last batch of an answer off where the limit falls, but never the first.
fn note_cut_off(contents: &mut Contents, is_first: bool, from: i64) {
    if is_first {
        contents.damage.push(Damage { offset: from, what: BatchFault::CutOff });
    }
}

fn read_batch(batch: &Bytes, base_offset: i64) -> Result<Vec<PlacedRecord>, BatchFault> {
    let magic = batch[16] as i8;
    if magic != 2 {
        return Err(BatchFault::Magic { magic });
    }
    let found = (&batch[17..21]).get_u32();
    let computed = checksum(&batch[CHECKED_FROM..]);
    if found != computed {
        return Err(BatchFault::Checksum { found, computed });
    }
    let mut header = &batch[CHECKED_FROM..HEADER_BYTES];
    let attributes = header.get_i16();
    let last_offset_delta = header.get_i32();
    let base_timestamp = header.get_i64();
    let max_timestamp = header.get_i64();
    let count = (&batch[57..61]).get_i32();
    if attributes & CONTROL != 0 {
        return Ok(Vec::new());
    }
    if attributes & COMPRESSION != 0 {
        return Err(BatchFault::Compressed);
    }
    // Compaction takes records out and leaves the offsets of the others.
    if count < 1 || i64::from(last_offset_delta) < i64::from(count) - 1 || count as usize > batch.len() {
        return Err(BatchFault::Count { count, last_offset_delta });
    }
    let mut rest = batch.slice(HEADER_BYTES..);
    let mut records = Vec::with_capacity(count as usize);
    let mut next_delta = 0;
    for index in 0..count {
        let deltas = next_delta..=i64::from(last_offset_delta);
        let (delta, record) = read_record(&mut rest, deltas, base_timestamp).ok_or(BatchFault::Record { index })?;
        next_delta = delta + 1;
        records.push(PlacedRecord { offset: base_offset + delta, record });
    }
    if !rest.is_empty() {
        return Err(BatchFault::Record { index: count });
    }
    if attributes & LOG_APPEND_TIME != 0 {
        for placed in &mut records {
            placed.record.timestamp_ms = max_timestamp;
        }
    }
    Ok(records)
}

/// The offset delta, one of those allowed, and the record.
fn read_record(rest: &mut Bytes, deltas: RangeInclusive<i64>, base_timestamp: i64) -> Option<(i64, Record)> {
    let length = usize::try_from(take_varint(rest)?).ok()?;
    if length > rest.len() {
        return None;
    }
    let mut fields = rest.split_to(length);
    if fields.is_empty() {
        return None;
    }
    let _attributes = fields.get_i8();
    let timestamp_ms = base_timestamp.checked_add(take_varint(&mut fields)?)?;
    let delta = take_varint(&mut fields).filter(|delta| deltas.contains(delta))?;
    let key = take_optional(&mut fields)?;
    let value = take_optional(&mut fields)?;
    let header_count = take_varint(&mut fields)?;
    if header_count < 0 || header_count as usize > fields.len() {
        return None;
    }
    let mut headers = Vec::with_capacity(header_count as usize);
    for _ in 0..header_count {
        let key = take_optional(&mut fields)??;
        let value = take_optional(&mut fields)?;
        headers.push(Header { key, value });
    }
    fields.is_empty().then_some((delta, Record { timestamp_ms, key, value, headers }))
}

fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn put_varint(buffer: &mut BytesMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        buffer.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest as u8);
}

fn put_optional(buffer: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(buffer, bytes.len() as i64);
            buffer.extend_from_slice(bytes);
        }
        None => put_varint(buffer, -1),
    }
}

fn take_varint(bytes: &mut Bytes) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        if bytes.is_empty() {
            return None;
        }
        let byte = bytes.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// The outer none is a fault, the inner one Kafka's null.
fn take_optional(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    let length = take_varint(bytes)?;
    if length == -1 {
        return Some(None);
    }
    let length = usize::try_from(length).ok()?;
    (length <= bytes.len()).then(|| Some(bytes.split_to(length)))
}

/// Size of a batch's header.
const HEADER_BYTES: usize = 61;
/// The length field counts the bytes from here on.
const LENGTH_COUNTS_FROM: usize = 12;
/// The checksum covers the bytes from here on.
const CHECKED_FROM: usize = 21;
const COMPRESSION: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 0b1000;
const CONTROL: i16 = 0b10_0000;

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::records::{Compression, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions};
    use proptest::prelude::*;

    fn optional_bytes() -> impl Strategy<Value = Option<Bytes>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from))
    }

    fn record() -> impl Strategy<Value = Record> {
        let header = ("[a-z]{0,8}", optional_bytes())
            .prop_map(|(key, value)| Header { key: Bytes::from(key.into_bytes()), value });
        (0i64..1 << 45, optional_bytes(), optional_bytes(), proptest::collection::vec(header, 0..4))
            .prop_map(|(timestamp_ms, key, value, headers)| Record { timestamp_ms, key, value, headers })
    }

    fn at_offset(batch: &Bytes, offset: i64) -> Bytes {
        let mut moved = BytesMut::from(&batch[..]);
        moved[0..8].copy_from_slice(&offset.to_be_bytes());
        moved.freeze()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in proptest::collection::vec(record(), 1..12), offset in 0i64..1 << 40) {
            let batch = at_offset(&encode_batch(&records, Sequence::NONE), offset);
            let contents = read_batches(batch, offset);
            prop_assert_eq!(contents.damage, vec![]);
            prop_assert_eq!(contents.next_offset, Some(offset + records.len() as i64));
            for (index, placed) in contents.records.iter().enumerate() {
                prop_assert_eq!(placed.offset, offset + index as i64);
                prop_assert_eq!(&placed.record, &records[index]);
            }
        }

        #[test]
        fn any_flipped_bit_behind_the_checksum_is_found(
            records in proptest::collection::vec(record(), 1..4), place in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let batch = encode_batch(&records, Sequence::NONE);
            let mut damaged = BytesMut::from(&batch[..]);
            let at = CHECKED_FROM + place.index(batch.len() - CHECKED_FROM);
            damaged[at] ^= 1 << bit;
            let contents = read_batches(damaged.freeze(), 0);
            prop_assert_eq!(contents.records, vec![]);
            let is_checksum = matches!(contents.damage[0].what, BatchFault::Checksum { .. });
            prop_assert!(is_checksum);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = BytesMut::from(&bytes[..]);
            if framed.len() > 21 {
                let length = framed.len() as i32 - 12;
                framed[8..12].copy_from_slice(&length.to_be_bytes());
                framed[16] = 2;
                let sum = checksum(&framed[21..]);
                framed[17..21].copy_from_slice(&sum.to_be_bytes());
            }
            let contents = read_batches(framed.freeze(), 0);
            prop_assert!(contents.records.len() <= bytes.len());
        }

        #[test]
        fn the_crate_reads_what_we_write_and_we_read_what_it_writes(
            mut records in proptest::collection::vec(record(), 1..8),
        ) {
            // The crate keeps headers in a map, so names must differ; it has no null key of a header either.
            for record in &mut records {
                for (index, header) in record.headers.iter_mut().enumerate() {
                    header.key = Bytes::from(format!("h{index}"));
                }
            }
            let sequence = Sequence { producer_id: 77, producer_epoch: 3, base_sequence: 40 };
            let ours = encode_batch(&records, sequence);
            let theirs = RecordBatchDecoder::decode(&mut ours.clone()).expect("the crate decodes our batch").records;
            prop_assert_eq!(theirs.len(), records.len());
            for (index, (their, our)) in theirs.iter().zip(&records).enumerate() {
                prop_assert_eq!(their.timestamp, our.timestamp_ms);
                prop_assert_eq!(&their.key, &our.key);
                prop_assert_eq!(&their.value, &our.value);
                prop_assert_eq!(their.headers.len(), our.headers.len());
                prop_assert_eq!((their.producer_id, their.producer_epoch, their.sequence), (77, 3, 40 + index as i32));
            }
            let mut again = BytesMut::new();
            let options = RecordEncodeOptions { version: 2, compression: Compression::None };
            RecordBatchEncoder::encode(&mut again, &theirs, &options).expect("the crate encodes its records");
            let read = read_batches(again.freeze(), 0);
            prop_assert_eq!(read.damage, vec![]);
            let read: Vec<_> = read.records.into_iter().map(|placed| placed.record).collect();
            prop_assert_eq!(read, records);
        }
    }

    #[test]
    fn a_cut_off_batch_is_damage_only_where_it_is_the_first() {
        let record =
            Record { timestamp_ms: 5, key: None, value: Some(Bytes::from_static(b"value")), headers: Vec::new() };
        let batch = encode_batch(&[record], Sequence::NONE);
        let cut = batch.slice(..batch.len() - 1);
        assert_eq!(read_batches(cut.clone(), 9).damage, vec![Damage { offset: 9, what: BatchFault::CutOff }]);
        let mut two = BytesMut::from(&batch[..]);
        two.extend_from_slice(&cut);
        let contents = read_batches(two.freeze(), 0);
        assert_eq!((contents.records.len(), contents.damage.len()), (1, 0));
    }

    #[test]
    fn records_below_the_position_are_left_out() {
        let records: Vec<_> =
            (0..4).map(|at| Record { timestamp_ms: at, key: None, value: None, headers: Vec::new() }).collect();
        let batch = at_offset(&encode_batch(&records, Sequence::NONE), 10);
        let contents = read_batches(batch, 12);
        assert_eq!(contents.records.iter().map(|placed| placed.offset).collect::<Vec<_>>(), vec![12, 13]);
        assert_eq!(contents.next_offset, Some(14));
    }
}
