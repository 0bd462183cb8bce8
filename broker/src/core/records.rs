//! The records inside a batch as slices of it, and a batch written anew with some of them: what compaction needs.
//! Kept records stay as they are, byte for byte, with their offsets; only the batch around them changes.
//! Not here: which records are kept (`log::cleaner`).
//! Bytes: <https://kafka.apache.org/documentation/#record>.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::compression::{Compressor, Decompressor, Gzip, Lz4, Snappy, Zstd};

use super::batch::{BatchError, BatchHeader, HEADER_BYTES, RECORDS_READ_MAX, UNCOVERED_BYTES, crc32c};
use super::types::Offset;

/// A record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordSlice {
    /// All of its bytes, its length before them.
    pub(crate) bytes: Bytes,
    pub(crate) offset: Offset,
    /// In milliseconds.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Bytes>,
    /// Whether it has no value, and so deletes its key.
    pub(crate) is_tombstone: bool,
}

/// The records of a whole, intact batch.
pub(crate) fn slices(header: &BatchHeader, batch: &Bytes) -> Result<Vec<RecordSlice>, BatchError> {
    if !(0..=RECORDS_READ_MAX).contains(&header.record_count) {
        return Err(BatchError::Records(format!("{} records are too many", header.record_count)));
    }
    let mut body = decompressed(header, batch.slice(HEADER_BYTES..))?;
    let mut found = Vec::new();
    for index in 0..header.record_count {
        let cut = || BatchError::Records(format!("record {index} is cut or malformed"));
        found.push(take_record(&mut body, header).ok_or_else(cut)?);
    }
    if body.is_empty() { Ok(found) } else { Err(BatchError::Records("bytes are left behind the records".to_owned())) }
}

/// The batch with these records alone, at least one; offsets, producer and codec stay.
pub(crate) fn with_records(header: &BatchHeader, batch: &Bytes, kept: &[RecordSlice]) -> Result<Bytes, BatchError> {
    assert!(!kept.is_empty(), "a batch holds at least one record");
    let mut records = BytesMut::with_capacity(kept.iter().map(|record| record.bytes.len()).sum());
    kept.iter().for_each(|record| records.put_slice(&record.bytes));
    let mut bytes = BytesMut::from(&batch[..HEADER_BYTES]);
    compress_into(&mut bytes, header, records.freeze())?;
    let length = (bytes.len() - LENGTH_PREFIX_BYTES) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    if header.attributes & APPEND_TIME == 0 {
        let newest = kept.iter().map(|record| record.timestamp).max().unwrap_or(-1);
        bytes[35..43].copy_from_slice(&newest.to_be_bytes());
    }
    bytes[57..61].copy_from_slice(&(kept.len() as i32).to_be_bytes());
    let crc = crc32c(&[&bytes[UNCOVERED_BYTES..]]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Ok(bytes.freeze())
}

fn take_record(body: &mut Bytes, header: &BatchHeader) -> Option<RecordSlice> {
    let mut rest = body.clone();
    let length = usize::try_from(take_varint(&mut rest)?).ok()?;
    let prefix = body.len() - rest.len();
    if rest.len() < length {
        return None;
    }
    let bytes = body.split_to(prefix + length);
    let mut fields = bytes.slice(prefix..);
    fields.try_get_u8().ok()?;
    let timestamp_delta = take_varint(&mut fields)?;
    let offset_delta = take_varint(&mut fields)?;
    if !(0..=i64::from(header.last_offset_delta)).contains(&offset_delta) {
        return None;
    }
    let key = take_part(&mut fields)?;
    let value = take_part(&mut fields)?;
    let timestamp = match header.attributes & APPEND_TIME {
        0 => header.base_timestamp.wrapping_add(timestamp_delta),
        _ => header.max_timestamp,
    };
    let offset = header.base_offset.plus(offset_delta);
    Some(RecordSlice { bytes, offset, timestamp, key, is_tombstone: value.is_none() })
}

/// Outer none: malformed. Inner none: null.
fn take_part(fields: &mut Bytes) -> Option<Option<Bytes>> {
    match take_varint(fields)? {
        -1 => Some(None),
        length => {
            let length = usize::try_from(length).ok().filter(|length| *length <= fields.len())?;
            Some(Some(fields.split_to(length)))
        }
    }
}

fn take_varint(bytes: &mut Bytes) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn decompressed(header: &BatchHeader, mut body: Bytes) -> Result<Bytes, BatchError> {
    let all = |plain: &mut Bytes| Ok(plain.copy_to_bytes(plain.remaining()));
    let plain = match header.attributes & CODEC {
        0 => return Ok(body),
        1 => Gzip::decompress(&mut body, all),
        2 => Snappy::decompress(&mut body, all),
        3 => Lz4::decompress(&mut body, all),
        4 => Zstd::decompress(&mut body, all),
        codec => return Err(BatchError::Records(format!("the compression codec {codec} is unknown"))),
    };
    plain.map_err(|error| BatchError::Records(error.to_string()))
}

fn compress_into(out: &mut BytesMut, header: &BatchHeader, plain: Bytes) -> Result<(), BatchError> {
    let put = |buffer: &mut BytesMut| {
        buffer.put_slice(&plain);
        Ok(())
    };
    let done = match header.attributes & CODEC {
        0 => {
            out.put_slice(&plain);
            return Ok(());
        }
        1 => Gzip::compress(out, put),
        2 => Snappy::compress(out, put),
        3 => Lz4::compress(out, put),
        4 => Zstd::compress(out, put),
        codec => return Err(BatchError::Records(format!("the compression codec {codec} is unknown"))),
    };
    done.map_err(|error| BatchError::Records(error.to_string()))
}

/// Bytes before the part that a batch's length field counts.
const LENGTH_PREFIX_BYTES: usize = 12;
/// The bits of the attributes that name the codec.
const CODEC: i16 = 0x07;
/// The bit of the attributes that says that records have the time of their append.
const APPEND_TIME: i16 = 0x08;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::batch::read_records;
    use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

    fn encoded(compression: Compression) -> Bytes {
        let record = |n: i64| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 7,
            producer_id: 11,
            producer_epoch: 2,
            timestamp_type: TimestampType::Creation,
            offset: 90 + n,
            sequence: 40 + n as i32,
            timestamp: 1000 + 7 * (n % 3),
            key: (n != 2).then(|| Bytes::from(format!("key {n}"))),
            value: (n != 3).then(|| Bytes::from(vec![b'v'; 30])),
            headers: [(kafka_protocol::protocol::StrBytes::from_static_str("h"), Some(Bytes::from_static(b"x")))]
                .into(),
        };
        let records: Vec<Record> = (0..6).map(record).collect();
        let mut bytes = BytesMut::new();
        RecordBatchEncoder::encode(&mut bytes, &records, &RecordEncodeOptions { version: 2, compression })
            .expect("encodes");
        bytes.freeze()
    }

    #[test]
    fn kept_records_of_every_codec_read_back_unchanged() {
        for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let batch = encoded(codec);
            let header = BatchHeader::decode(&batch).expect("a header");
            let all = slices(&header, &batch).expect("readable");
            let read = read_records(batch.clone()).expect("readable");
            for (slice, record) in all.iter().zip(&read) {
                assert_eq!((slice.offset, slice.timestamp), (record.offset, record.timestamp));
                assert_eq!((&slice.key, slice.is_tombstone), (&record.key, record.value.is_none()));
            }
            let kept: Vec<RecordSlice> = all.iter().filter(|r| r.offset.0 % 2 == 1).cloned().collect();
            let rewritten = with_records(&header, &batch, &kept).expect("writable");
            let header_after = BatchHeader::decode(&rewritten).expect("a header");
            assert_eq!(slices(&header_after, &rewritten), Ok(kept));
            let same = |h: &BatchHeader| (h.base_offset, h.next_offset(), h.producer_id, h.base_sequence, h.attributes);
            assert_eq!(same(&header), same(&header_after), "offsets, producer and codec stay");
            let expected: Vec<_> = read.into_iter().filter(|record| record.offset.0 % 2 == 1).collect();
            assert_eq!(read_records(rewritten), Ok(expected), "with headers and timestamps");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let batch = encoded(Compression::None);
        let header = BatchHeader::decode(&batch).expect("a header");
        let mut cut = batch.to_vec();
        cut[HEADER_BYTES] = 0x7f;
        assert!(slices(&header, &cut.into()).is_err(), "a record that is longer than the rest");
        assert!(slices(&BatchHeader { record_count: 5, ..header }, &batch).is_err(), "a record too many");
        assert!(slices(&BatchHeader { last_offset_delta: 4, ..header }, &batch).is_err(), "an offset past the last");
    }
}
