//! The fake broker's answers, one function for each call. Versions are those without tagged fields, so that every
//! response header is version 0; what a client asks beyond them closes its connection.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, FetchRequest, FetchResponse, FindCoordinatorResponse, InitProducerIdResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
    ProducerId, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::{Queue, Shared, State, wait_for_append};

/// Decodes a request and encodes its response. False where none is due; none where the request is not understood.
pub(super) fn encode(key: ApiKey, version: i16, body: &mut Bytes, shared: &Shared, out: &mut BytesMut) -> Option<bool> {
    let is_known = VERSIONS.iter().any(|(known, low, high)| *known == key && (*low..=*high).contains(&version));
    if key == ApiKey::ApiVersions && !is_known {
        let refusal = ApiVersionsResponse::default().with_error_code(UNSUPPORTED_VERSION);
        return refusal.with_api_keys(api_versions()).encode(out, 0).ok().map(|()| true);
    }
    if !is_known {
        return None;
    }
    match key {
        ApiKey::ApiVersions => {
            ApiVersionsResponse::default().with_api_keys(api_versions()).encode(out, version).ok()?;
        }
        ApiKey::Metadata => {
            metadata(&MetadataRequest::decode(body, version).ok()?, shared).encode(out, version).ok()?
        }
        ApiKey::CreateTopics => {
            create_topics(&CreateTopicsRequest::decode(body, version).ok()?, shared).encode(out, version).ok()?;
        }
        ApiKey::DeleteTopics => {
            delete_topics(&DeleteTopicsRequest::decode(body, version).ok()?, shared).encode(out, version).ok()?;
        }
        ApiKey::InitProducerId => init_producer_id(shared).encode(out, version).ok()?,
        ApiKey::FindCoordinator => {
            FindCoordinatorResponse::default().with_error_code(COORDINATOR_NOT_AVAILABLE).encode(out, version).ok()?;
        }
        ApiKey::Produce => {
            let request = ProduceRequest::decode(body, version).ok()?;
            let response = produce(&request, shared);
            if request.acks == 0 {
                return Some(false);
            }
            response.encode(out, version).ok()?;
        }
        ApiKey::Fetch => fetch(&FetchRequest::decode(body, version).ok()?, shared).encode(out, version).ok()?,
        ApiKey::ListOffsets => {
            list_offsets(&ListOffsetsRequest::decode(body, version).ok()?, shared).encode(out, version).ok()?;
        }
        _ => return None,
    }
    Some(true)
}

fn api_versions() -> Vec<ApiVersion> {
    let version = |(key, low, high): &(ApiKey, i16, i16)| {
        ApiVersion::default().with_api_key(*key as i16).with_min_version(*low).with_max_version(*high)
    };
    VERSIONS.iter().map(version).collect()
}

fn metadata(request: &MetadataRequest, shared: &Shared) -> MetadataResponse {
    let state = shared.state();
    let names: Vec<String> = match &request.topics {
        None => state.topics.keys().cloned().collect(),
        Some(topics) => topics.iter().filter_map(|topic| topic.name.as_ref().map(name_of)).collect(),
    };
    let topic = |name: String| {
        let queues = state.topics.get(&name).map(Vec::len);
        let partition = |index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BrokerId(NODE))
                .with_replica_nodes(vec![BrokerId(NODE)])
                .with_isr_nodes(vec![BrokerId(NODE)])
        };
        MetadataResponseTopic::default()
            .with_error_code(if queues.is_some() { 0 } else { UNKNOWN_TOPIC_OR_PARTITION })
            .with_name(Some(topic_name(&name)))
            .with_partitions((0..queues.unwrap_or(0) as i32).map(partition).collect())
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE))
        .with_host(StrBytes::from_string(shared.address.ip().to_string()))
        .with_port(i32::from(shared.address.port()));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_controller_id(BrokerId(NODE))
        .with_topics(names.into_iter().map(topic).collect())
}

fn create_topics(request: &CreateTopicsRequest, shared: &Shared) -> CreateTopicsResponse {
    let mut state = shared.state();
    let mut results = Vec::new();
    for topic in &request.topics {
        let queues = usize::try_from(topic.num_partitions).unwrap_or(1).max(1);
        state.topics.insert(name_of(&topic.name), vec![Queue::default(); queues]);
        results.push(CreatableTopicResult::default().with_name(topic.name.clone()));
    }
    CreateTopicsResponse::default().with_topics(results)
}

fn delete_topics(request: &DeleteTopicsRequest, shared: &Shared) -> DeleteTopicsResponse {
    let mut state = shared.state();
    let mut results = Vec::new();
    for name in &request.topic_names {
        let was_there = state.topics.remove(name.as_str()).is_some();
        let error = if was_there { 0 } else { UNKNOWN_TOPIC_OR_PARTITION };
        results.push(DeletableTopicResult::default().with_name(Some(name.clone())).with_error_code(error));
    }
    DeleteTopicsResponse::default().with_responses(results)
}

fn init_producer_id(shared: &Shared) -> InitProducerIdResponse {
    let mut state = shared.state();
    state.producer_ids += 1;
    InitProducerIdResponse::default().with_producer_id(ProducerId(state.producer_ids))
}

fn produce(request: &ProduceRequest, shared: &Shared) -> ProduceResponse {
    let mut state = shared.state();
    let State { topics, batches, .. } = &mut *state;
    let mut defect = || {
        *batches += 1;
        shared.behaviour.defect.filter(|(_, every)| batches.is_multiple_of(*every)).map(|(defect, _)| defect)
    };
    let mut responses = Vec::new();
    for topic in &request.topic_data {
        let mut partitions = Vec::new();
        for data in &topic.partition_data {
            let queue = topics.get_mut(topic.name.as_str()).and_then(|queues| queues.get_mut(data.index as usize));
            let records = data.records.as_deref().unwrap_or_default();
            let (error, base) = match queue.map(|queue| queue.append(records, &mut defect)) {
                None => (UNKNOWN_TOPIC_OR_PARTITION, -1),
                Some(None) => (CORRUPT_MESSAGE, -1),
                Some(Some(base)) => (0, base),
            };
            let response = PartitionProduceResponse::default().with_index(data.index).with_base_offset(base);
            partitions.push(response.with_error_code(error));
        }
        let response = TopicProduceResponse::default().with_name(topic.name.clone());
        responses.push(response.with_partition_responses(partitions));
    }
    drop(state);
    shared.appended.notify_all();
    ProduceResponse::default().with_responses(responses)
}

fn fetch(request: &FetchRequest, shared: &Shared) -> FetchResponse {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + wait;
    let mut state = shared.state();
    loop {
        let (bytes, topics) = fetch_now(request, &state);
        let is_enough = bytes >= usize::try_from(request.min_bytes).unwrap_or(0).max(1);
        if is_enough || shared.is_stopped() || Instant::now() >= deadline {
            return FetchResponse::default().with_responses(topics);
        }
        state = wait_for_append(shared, state, deadline);
    }
}

fn fetch_now(request: &FetchRequest, state: &State) -> (usize, Vec<FetchableTopicResponse>) {
    let mut bytes = 0;
    let mut topics = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let data = PartitionData::default().with_partition_index(asked.partition);
            let queues = state.topics.get(topic.topic.as_str());
            let Some(queue) = queues.and_then(|queues| queues.get(asked.partition as usize)) else {
                partitions.push(data.with_error_code(UNKNOWN_TOPIC_OR_PARTITION));
                continue;
            };
            let left = usize::try_from(request.max_bytes).unwrap_or(0).saturating_sub(bytes);
            let limit = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(left);
            let records = if left > 0 { queue.read(asked.fetch_offset, limit) } else { Bytes::new() };
            bytes += records.len();
            let data = data.with_high_watermark(queue.end).with_last_stable_offset(queue.end);
            partitions.push(data.with_log_start_offset(0).with_records(Some(records)));
        }
        topics.push(FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_partitions(partitions));
    }
    (bytes, topics)
}

fn list_offsets(request: &ListOffsetsRequest, shared: &Shared) -> ListOffsetsResponse {
    let state = shared.state();
    let mut topics = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let queues = state.topics.get(topic.name.as_str());
            let queue = queues.and_then(|queues| queues.get(asked.partition_index as usize));
            let (error, end) = queue.map_or((UNKNOWN_TOPIC_OR_PARTITION, -1), |queue| (0, queue.end));
            let offset = if asked.timestamp == LATEST { end } else { 0 };
            let response = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
            partitions.push(response.with_error_code(error).with_offset(offset));
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

fn name_of(name: &TopicName) -> String {
    name.as_str().to_owned()
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Calls answered, and the versions of each that have no tagged fields (ApiVersions apart).
const VERSIONS: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 8),
    (ApiKey::Fetch, 4, 11),
    (ApiKey::ListOffsets, 1, 5),
    (ApiKey::Metadata, 0, 8),
    (ApiKey::FindCoordinator, 0, 2),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 4),
    (ApiKey::DeleteTopics, 1, 3),
    (ApiKey::InitProducerId, 0, 1),
];
const NODE: i32 = 1;
const LATEST: i64 = -1;
const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const UNSUPPORTED_VERSION: i16 = 35;
