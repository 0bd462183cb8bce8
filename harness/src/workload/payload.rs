//! Records that betray any change: key, value, headers and timestamp all follow from the value's number, the queue, the
//! timestamp and the length, and the value carries them with a checksum. A record of another queue, a mixture of two
//! records, or one changed bit is found without knowing what was sent.
//!
//! Layout of a value: number (8 bytes, big endian), timestamp in milliseconds (8), checksum (8), filler.

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::driver::records::{Header, Record};
use crate::history::{Queue, Value};
use crate::plan::keys::{is_tombstone, key_of};

/// Shortest value in bytes.
pub const VALUE_BYTES_MINIMUM: u32 = 24;

/// The record with a number, on a queue, with a timestamp (milliseconds since the Unix epoch) and a value of `length` bytes.
pub fn encode(value: Value, queue: Queue, timestamp_ms: i64, length: u32) -> Record {
    let length = length.max(VALUE_BYTES_MINIMUM) as usize;
    let seed = seed(value, queue, timestamp_ms, length);
    let mut bytes = BytesMut::with_capacity(length);
    bytes.put_u64(value.0);
    bytes.put_i64(timestamp_ms);
    bytes.put_u64(xxh3_64_with_seed(b"value", seed));
    let mut block = 0u64;
    while bytes.len() < length {
        let filler = xxh3_64_with_seed(&block.to_le_bytes(), seed).to_le_bytes();
        let wanted = filler.len().min(length - bytes.len());
        bytes.extend_from_slice(&filler[..wanted]);
        block += 1;
    }
    Record { timestamp_ms, key: key(seed), value: Some(bytes.freeze()), headers: headers(seed) }
}

/// The number of a record that is what `encode` made for the queue; otherwise what differs.
pub fn check(record: &Record, queue: Queue) -> Result<Value, String> {
    let Some(bytes) = &record.value else { return Err("the value is null".to_string()) };
    if bytes.len() < VALUE_BYTES_MINIMUM as usize {
        return Err(format!("the value has {} bytes", bytes.len()));
    }
    let number = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_be_bytes(word)
    };
    let value = Value(number(0));
    let timestamp_ms = number(8) as i64;
    let expected = encode(value, queue, timestamp_ms, bytes.len() as u32);
    let named = |what: &str| Err(format!("{what} of value {} differs from what was sent", value.0));
    if expected.value.as_ref() != Some(bytes) {
        return named("the payload");
    }
    if expected.key != record.key {
        return named("the key");
    }
    if expected.headers != record.headers {
        return named("a header");
    }
    if expected.timestamp_ms != record.timestamp_ms {
        return Err(format!(
            "the timestamp of value {} is {} and was sent as {timestamp_ms}",
            value.0, record.timestamp_ms
        ));
    }
    Ok(value)
}

/// The same for a topic that is compacted: the key is one of a few, and one record in five has no value and
/// so deletes its key; its header tells the number and the timestamp instead.
pub fn encode_keyed(value: Value, queue: Queue, timestamp_ms: i64, length: u32) -> Record {
    let record = Record { key: Some(Bytes::from(key_of(value, queue))), ..encode(value, queue, timestamp_ms, length) };
    if !is_tombstone(value, queue) {
        return record;
    }
    let mut told = BytesMut::with_capacity(24);
    told.put_u64(value.0);
    told.put_i64(timestamp_ms);
    told.put_u64(seed(value, queue, timestamp_ms, 0));
    let header = Header { key: Bytes::from_static(TOMBSTONE_HEADER), value: Some(told.freeze()) };
    Record { value: None, headers: vec![header], ..record }
}

/// The number of a record that is what `encode_keyed` made for the queue; otherwise what differs.
pub fn check_keyed(record: &Record, queue: Queue) -> Result<Value, String> {
    let bytes = match (&record.value, record.headers.first()) {
        (Some(value), _) if value.len() >= VALUE_BYTES_MINIMUM as usize => value,
        (None, Some(Header { value: Some(told), .. })) if told.len() == 24 => told,
        (Some(_) | None, _) => return Err("nothing in the record tells its number".to_string()),
    };
    let (mut number, mut timestamp_ms) = ([0; 8], [0; 8]);
    number.copy_from_slice(&bytes[..8]);
    timestamp_ms.copy_from_slice(&bytes[8..16]);
    let (value, timestamp_ms) = (Value(u64::from_be_bytes(number)), i64::from_be_bytes(timestamp_ms));
    match encode_keyed(value, queue, timestamp_ms, bytes.len() as u32) == *record {
        true => Ok(value),
        false => Err(format!("the record of value {} differs from what was sent", value.0)),
    }
}

const TOMBSTONE_HEADER: &[u8] = b"assay-deletes";

fn seed(value: Value, queue: Queue, timestamp_ms: i64, length: usize) -> u64 {
    let mut name = [0; 32];
    name[0..8].copy_from_slice(&value.0.to_le_bytes());
    name[8..12].copy_from_slice(&queue.topic.to_le_bytes());
    name[12..16].copy_from_slice(&queue.partition.to_le_bytes());
    name[16..24].copy_from_slice(&timestamp_ms.to_le_bytes());
    name[24..32].copy_from_slice(&(length as u64).to_le_bytes());
    xxh3_64_with_seed(&name, 0)
}

/// One in eight records has no key.
fn key(seed: u64) -> Option<Bytes> {
    let drawn = xxh3_64_with_seed(b"key", seed);
    (!drawn.is_multiple_of(8)).then(|| Bytes::copy_from_slice(&drawn.to_be_bytes()))
}

/// None to two headers, of which the second has the same name as the first, and the last may be null.
fn headers(seed: u64) -> Vec<Header> {
    let drawn = xxh3_64_with_seed(b"headers", seed);
    let header = |value: Option<Bytes>| Header { key: Bytes::from_static(b"assay"), value };
    match drawn % 4 {
        0 => Vec::new(),
        1 => vec![header(Some(Bytes::copy_from_slice(&drawn.to_be_bytes())))],
        2 => vec![header(Some(Bytes::copy_from_slice(&drawn.to_be_bytes()[..3]))), header(Some(Bytes::new()))],
        _ => vec![header(Some(Bytes::copy_from_slice(&drawn.to_le_bytes()))), header(None)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::ClientId;
    use proptest::prelude::*;

    fn flip(bytes: &Bytes, bit: usize) -> Bytes {
        let mut changed = BytesMut::from(&bytes[..]);
        let bit = bit % (changed.len() * 8);
        changed[bit / 8] ^= 1 << (bit % 8);
        changed.freeze()
    }

    proptest! {
        #[test]
        fn every_change_is_found(sequence in 0u64..1000, length in 24u32..200, bit in any::<usize>(), time in 0i64..1 << 44) {
            let value = Value::new(ClientId(3), sequence);
            let queue = Queue { topic: 1, partition: 2 };
            let record = encode(value, queue, time, length);
            prop_assert_eq!(record.value.as_ref().map(Bytes::len), Some(length as usize));
            prop_assert_eq!(check(&record, queue), Ok(value));
            let elsewhere = Queue { topic: 1, partition: 3 };
            prop_assert!(check(&record, elsewhere).is_err());
            let sent = record.value.clone().expect("a record has a value");
            let mut changed = record.clone();
            changed.value = Some(flip(&sent, bit));
            prop_assert!(check(&changed, queue).is_err());
            let mut changed = record.clone();
            changed.value = Some(sent.slice(..sent.len() - 1));
            prop_assert!(check(&changed, queue).is_err());
            let mut changed = record.clone();
            changed.key = match &record.key {
                Some(key) => Some(flip(key, bit)),
                None => Some(Bytes::new()),
            };
            prop_assert!(check(&changed, queue).is_err());
            let mut changed = record.clone();
            changed.headers.push(Header { key: Bytes::from_static(b"assay"), value: None });
            prop_assert!(check(&changed, queue).is_err());
            let mut changed = record.clone();
            changed.timestamp_ms += 1;
            prop_assert!(check(&changed, queue).is_err());
        }
    }

    #[test]
    fn records_of_compacted_topics_tell_their_number_and_betray_a_change() {
        let queue = Queue { topic: 1, partition: 2 };
        let mut tombstones = 0;
        for sequence in 0..200 {
            let value = Value::new(ClientId(3), sequence);
            let record = encode_keyed(value, queue, 77, 40);
            assert_eq!(check_keyed(&record, queue), Ok(value));
            assert!(check_keyed(&record, Queue { topic: 1, partition: 3 }).is_err());
            let changed = Record { key: Some(Bytes::from_static(b"key 8")), ..record.clone() };
            assert!(check_keyed(&changed, queue).is_err());
            tombstones += u32::from(record.value.is_none());
        }
        assert!((20..80).contains(&tombstones), "{tombstones}");
    }

    #[test]
    fn records_with_and_without_keys_and_headers_occur() {
        let queue = Queue { topic: 0, partition: 0 };
        let records: Vec<_> =
            (0..100).map(|sequence| encode(Value::new(ClientId(0), sequence), queue, 5, 24)).collect();
        assert!(records.iter().any(|record| record.key.is_none()));
        for count in 0..3 {
            assert!(records.iter().any(|record| record.headers.len() == count), "no record has {count} headers");
        }
    }
}
