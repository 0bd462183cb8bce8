//! Fetch's answer with its records beside it: they go from where they lie to the socket, and are never copied into a
//! buffer. The codec encodes every struct without records; this file says where in its bytes the records belong.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::protocol::Encodable;

/// An answer to Fetch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FetchAnswer {
    /// Everything but the records; its own `records` stay empty.
    pub response: FetchResponse,
    /// The records, ascending by topic and partition; partitions without records are left out.
    pub records: Vec<FetchedRecords>,
}

/// The records of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchedRecords {
    /// The topic's place in the response.
    pub topic: usize,
    /// The partition's place in its topic.
    pub partition: usize,
    /// The bytes, one behind the other.
    pub parts: Vec<Bytes>,
}

/// Where records belong in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Splice {
    /// Before this byte of the buffer that was encoded to.
    pub(super) at: usize,
    /// Which of the answer's records.
    pub(super) records: usize,
}

impl FetchedRecords {
    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

impl FetchAnswer {
    /// The response as the codec has it, with the records copied into it.
    pub fn joined(&self) -> FetchResponse {
        let mut response = self.response.clone();
        for records in &self.records {
            let place = &mut response.responses[records.topic].partitions[records.partition].records;
            *place = Some(Bytes::from(records.parts.concat()));
        }
        response
    }
}

impl From<FetchResponse> for FetchAnswer {
    fn from(mut response: FetchResponse) -> FetchAnswer {
        let mut records = Vec::new();
        for (topic, answer) in response.responses.iter_mut().enumerate() {
            for (partition, data) in answer.partitions.iter_mut().enumerate() {
                if let Some(bytes) = data.records.take() {
                    records.push(FetchedRecords { topic, partition, parts: vec![bytes] });
                }
            }
        }
        FetchAnswer { response, records }
    }
}

/// Encodes everything but the records, and notes where they belong.
pub(super) fn encode(
    answer: &FetchAnswer,
    version: i16,
    output: &mut BytesMut,
    splices: &mut Vec<Splice>,
) -> Result<(), String> {
    let mut records = answer.records.iter().enumerate().peekable();
    let topics = &answer.response.responses;
    let shell = shallow(&answer.response);
    let rest = open(&shell, version, if version >= RESPONSE_ERROR_SINCE { 10 } else { 4 }, output)?;
    put_count(output, version, topics.len());
    for (topic_index, topic) in topics.iter().enumerate() {
        let shell = FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_topic_id(topic.topic_id);
        let named = shell.compute_size(version).map_err(|error| error.to_string())?;
        let rest = open(&shell, version, named - if is_flexible(version) { 2 } else { 4 }, output)?;
        put_count(output, version, topic.partitions.len());
        for (partition_index, partition) in topic.partitions.iter().enumerate() {
            let is_here = |(_, found): &(usize, &FetchedRecords)| {
                (found.topic, found.partition) == (topic_index, partition_index)
            };
            let found = records.next_if(is_here).map(|(index, found)| (index, found.bytes()));
            encode_partition(partition, version, found, output, splices)?;
        }
        output.put_slice(&rest);
    }
    output.put_slice(&rest);
    Ok(())
}

fn encode_partition(
    partition: &PartitionData,
    version: i16,
    records: Option<(usize, usize)>,
    output: &mut BytesMut,
    splices: &mut Vec<Splice>,
) -> Result<(), String> {
    let start = output.len();
    partition.encode(output, version).map_err(|error| error.to_string())?;
    let Some((records, bytes)) = records else { return Ok(()) };
    // The records are the last field before the tagged ones, and a null here.
    let tags = if is_flexible(version) {
        start + untagged(partition).compute_size(version).map_err(|error| error.to_string())? - 1
    } else {
        output.len()
    };
    let tags = output.split_off(tags);
    output.truncate(output.len() - if is_flexible(version) { 1 } else { 4 });
    if is_flexible(version) {
        put_varint(output, bytes + 1);
    } else {
        output.put_i32(i32::try_from(bytes).map_err(|_| "more than two gigabytes of records".to_owned())?);
    }
    splices.push(Splice { at: output.len(), records });
    output.put_slice(&tags);
    Ok(())
}

/// Encodes a struct whose last array is empty: what comes before it now, what comes behind it is given back.
fn open(shell: &impl Encodable, version: i16, before: usize, output: &mut BytesMut) -> Result<BytesMut, String> {
    let start = output.len();
    shell.encode(output, version).map_err(|error| error.to_string())?;
    let rest = output.split_off(start + before + if is_flexible(version) { 1 } else { 4 });
    output.truncate(start + before);
    Ok(rest)
}

/// The response without its topics, which may be many.
fn shallow(response: &FetchResponse) -> FetchResponse {
    FetchResponse::default()
        .with_throttle_time_ms(response.throttle_time_ms)
        .with_error_code(response.error_code)
        .with_session_id(response.session_id)
        .with_node_endpoints(response.node_endpoints.clone())
}

/// The partition without its tagged fields.
fn untagged(partition: &PartitionData) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition.partition_index)
        .with_aborted_transactions(partition.aborted_transactions.clone())
        .with_preferred_read_replica(partition.preferred_read_replica)
}

fn put_count(output: &mut BytesMut, version: i16, count: usize) {
    if is_flexible(version) {
        put_varint(output, count + 1);
    } else {
        output.put_i32(count as i32);
    }
}

fn put_varint(output: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        output.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    output.put_u8(value as u8);
}

fn is_flexible(version: i16) -> bool {
    version >= FLEXIBLE_SINCE
}

/// The first version with compact lengths and tagged fields.
const FLEXIBLE_SINCE: i16 = 12;
/// The first version whose response has an error and a session of its own.
const RESPONSE_ERROR_SINCE: i16 = 7;
