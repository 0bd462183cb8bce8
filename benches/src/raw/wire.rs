//! The few calls of the raw driver: encoding a request, one exchange over a blocking connection, and a reader of record
//! batches. Versions are the last without tagged fields, so that response headers are a correlation id and nothing else.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use bytes::{Buf, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, checksum};
use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

/// Whom an idempotent batch is from; both -1 where producers are not idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProducerIdentity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

impl ProducerIdentity {
    pub(super) const NONE: ProducerIdentity = ProducerIdentity { id: -1, epoch: -1 };

    pub(super) fn is_idempotent(self) -> bool {
        self.id >= 0
    }
}

/// A request as a frame, its length prefix included.
pub(super) fn request<Body: Encodable>(key: ApiKey, version: i16, correlation: i32, body: &Body) -> Vec<u8> {
    let mut frame = BytesMut::from(&[0; LENGTH_BYTES][..]);
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
    header.encode(&mut frame, key.request_header_version(version)).expect("the header has the fields of its version");
    body.encode(&mut frame, version).expect("the driver fills only fields that its version has");
    close_frame(&mut frame);
    frame.to_vec()
}

/// The beginning of a frame that is written by hand: length, key, version, correlation id 0, client id.
pub(super) fn request_head(key: ApiKey, version: i16) -> Vec<u8> {
    let mut frame = vec![0; LENGTH_BYTES];
    frame.extend_from_slice(&(key as i16).to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&0_i32.to_be_bytes());
    let client_id_bytes = i16::try_from(CLIENT_ID.len()).expect("a short constant");
    frame.extend_from_slice(&client_id_bytes.to_be_bytes());
    frame.extend_from_slice(CLIENT_ID.as_bytes());
    frame
}

/// Writes a frame's length into its prefix.
pub(super) fn close_frame(frame: &mut [u8]) {
    let length = u32::try_from(frame.len() - LENGTH_BYTES).expect("the plan bounds a request");
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// What a produce answer says of each of its batches, in their order: error code and base offset.
pub(super) fn produce_answer(mut answer: &[u8], each: &mut dyn FnMut(i16, i64)) -> Option<()> {
    let input = &mut answer;
    for _ in 0..take_count(input)? {
        let name_bytes = usize::try_from(i16::from_be_bytes(take(input)?)).ok()?;
        *input = input.get(name_bytes..)?;
        for _ in 0..take_count(input)? {
            let _partition: [u8; 4] = take(input)?;
            let error = i16::from_be_bytes(take(input)?);
            let base = i64::from_be_bytes(take(input)?);
            // Log append time and log start offset.
            let _: [u8; 16] = take(input)?;
            for _ in 0..take_count(input)? {
                let _batch_index: [u8; 4] = take(input)?;
                skip_string(input)?;
            }
            skip_string(input)?;
            each(error, base);
        }
    }
    Some(())
}

pub(super) fn take<const BYTES: usize>(input: &mut &[u8]) -> Option<[u8; BYTES]> {
    let (head, rest) = input.split_first_chunk::<BYTES>()?;
    *input = rest;
    Some(*head)
}

pub(super) fn take_count(input: &mut &[u8]) -> Option<i32> {
    take(input).map(i32::from_be_bytes)
}

/// A string that may be null, which has the length -1.
fn skip_string(input: &mut &[u8]) -> Option<()> {
    let bytes = i16::from_be_bytes(take(input)?).max(0);
    *input = input.get(usize::from(bytes.unsigned_abs())..)?;
    Some(())
}

/// Sends a frame and waits for the next.
pub(super) fn exchange(stream: &mut TcpStream, frame: &[u8]) -> io::Result<Bytes> {
    stream.write_all(frame)?;
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAXIMUM {
        return Err(io::Error::other(format!("an answer of {length} bytes is above the bound {FRAME_BYTES_MAXIMUM}")));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(Bytes::from(answer))
}

/// Takes the correlation id off an answer and decodes the rest.
pub(super) fn decode<Body: Decodable>(mut answer: Bytes, version: i16, correlation: i32) -> io::Result<Body> {
    if answer.len() < 4 || answer.get_i32() != correlation {
        return Err(io::Error::other("an answer to another request came"));
    }
    Body::decode(&mut answer, version).map_err(io::Error::other)
}

/// Asks for an identity as an idempotent producer; asks again while the broker's coordinator is loading.
pub(super) fn init_producer(stream: &mut TcpStream) -> io::Result<ProducerIdentity> {
    let body = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1));
    for attempt in 0..INIT_ATTEMPTS {
        let frame = request(ApiKey::InitProducerId, INIT_PRODUCER_VERSION, attempt, &body);
        let answer: InitProducerIdResponse = decode(exchange(stream, &frame)?, INIT_PRODUCER_VERSION, attempt)?;
        match answer.error_code {
            0 => return Ok(ProducerIdentity { id: answer.producer_id.0, epoch: answer.producer_epoch }),
            COORDINATOR_LOADING | COORDINATOR_NOT_AVAILABLE | NOT_COORDINATOR => {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            code => return Err(io::Error::other(format!("no producer id: error {code}"))),
        }
    }
    Err(io::Error::other("no producer id: the coordinator is not available"))
}

/// How far a set of batches could be walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walked {
    /// To its end, or to a last batch that is cut, as a fetch may end.
    Whole {
        /// The offset behind the last whole batch.
        next_offset: Option<i64>,
    },
    /// A batch is not one that the driver sent.
    Malformed,
}

/// Walks record batches by their headers alone and gives each one's base offset and count of records; stops at what is
/// cut or malformed.
pub(super) fn walk_heads(mut set: &[u8], on_batch: &mut dyn FnMut(i64, u32)) {
    while set.len() >= BATCH_HEADER_BYTES {
        let (Ok(length), Ok(count)) = (usize::try_from(be_i32(set, 8)), u32::try_from(be_i32(set, 57))) else { return };
        let Some((_, rest)) = set.split_at_checked(12 + length) else { return };
        on_batch(be_i64(set, 0), count);
        set = rest;
    }
}

/// Walks record batches and gives each record's offset and value; the value is none where the batch's checksum is wrong.
pub(super) fn walk_batches(mut set: &[u8], on_record: &mut dyn FnMut(i64, Option<&[u8]>)) -> Walked {
    let mut next_offset = None;
    while set.len() >= BATCH_HEADER_BYTES {
        let Ok(length) = usize::try_from(be_i32(set, 8)) else { return Walked::Malformed };
        if set.len() < 12 + length {
            break;
        }
        let (base, count) = (be_i64(set, 0), be_i32(set, 57));
        if 12 + length < BATCH_HEADER_BYTES || set[16] != 2 || set[22] & 0x07 != 0 || count < 0 {
            return Walked::Malformed;
        }
        let (batch, rest) = set.split_at(12 + length);
        if crc32c(&batch[21..]).to_be_bytes() != batch[17..21] {
            (0..i64::from(count)).for_each(|delta| on_record(base + delta, None));
        } else if walk_records(base, count, &batch[BATCH_HEADER_BYTES..], on_record).is_none() {
            return Walked::Malformed;
        }
        next_offset = Some(base + i64::from(be_i32(batch, 23)) + 1);
        set = rest;
    }
    Walked::Whole { next_offset }
}

fn walk_records(
    base: i64,
    count: i32,
    mut records: &[u8],
    on_record: &mut dyn FnMut(i64, Option<&[u8]>),
) -> Option<()> {
    for _ in 0..count {
        let length = usize::try_from(take_varint(&mut records)?).ok()?;
        let (mut record, rest) = records.split_at_checked(length)?;
        records = rest;
        // Attributes.
        record = record.get(1..)?;
        let _timestamp_delta = take_varint(&mut record)?;
        let delta = take_varint(&mut record)?;
        if let Ok(key_bytes) = usize::try_from(take_varint(&mut record)?) {
            record = record.get(key_bytes..)?;
        }
        let value_bytes = usize::try_from(take_varint(&mut record)?).ok()?;
        on_record(base + delta, Some(record.get(..value_bytes)?));
    }
    Some(())
}

fn take_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn be_i32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("the header's length was checked"))
}

fn be_i64(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("the header's length was checked"))
}

/// The checksum of batches.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, bytes)).expect("a CRC-32 has 32 bits")
}

const CLIENT_ID: &str = "mqassay-raw";
/// Bytes of a frame's length prefix.
pub(super) const LENGTH_BYTES: usize = 4;
/// Where a request has its correlation id: behind length, key and version.
pub(super) const CORRELATION_AT: usize = 8;
/// Bytes of a batch before its records.
pub(super) const BATCH_HEADER_BYTES: usize = 61;
/// The version of Produce that is sent.
pub(super) const PRODUCE_VERSION: i16 = 8;
/// The version of Fetch that is sent.
pub(super) const FETCH_VERSION: i16 = 11;
/// No answer may be longer.
pub(super) const FRAME_BYTES_MAXIMUM: usize = 128 << 20;
const INIT_PRODUCER_VERSION: i16 = 1;
const INIT_ATTEMPTS: i32 = 100;
const COORDINATOR_LOADING: i16 = 14;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const NOT_COORDINATOR: i16 = 16;
