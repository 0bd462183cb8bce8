//! CreateTopics (2 to 7), DeleteTopics (1 to 6), CreatePartitions (0 to 3) and DeleteRecords (0 to 2), answered per topic.
//! Departures from Kafka: settings are those of `settings`, unknown ones are refused;
//! the requests' time-outs are not needed, because every change ends with the next sync of the metadata log.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::admin::{AdminAnswer, AdminCall, AdminSlot};
use super::config::PARTITIONS_MAX;
use super::log::ReadError;
use super::machine::{Core, Effects, RequestId};
use super::metadata::{Applied, MetadataRecord, Refusal};
use super::settings::TopicSetting;
use super::types::{Now, Offset};
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

/// Why a change was refused before it was recorded.
struct Refused {
    error: ResponseError,
    message: Option<String>,
}

impl Refused {
    fn because(error: ResponseError, message: impl Into<String>) -> Refused {
        Refused { error, message: Some(message.into()) }
    }
}

impl From<ResponseError> for Refused {
    fn from(error: ResponseError) -> Refused {
        Refused { error, message: None }
    }
}

impl Core {
    pub(super) fn create_topics(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: CreateTopicsRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let mut response = CreateTopicsResponse::default();
        let mut outstanding = 0;
        for (outer, topic) in request.topics.iter().enumerate() {
            let mut result = CreatableTopicResult::default().with_name(topic.name.clone());
            let checked = self.check_creation(topic).and_then(|record| {
                if request.validate_only {
                    return Ok(false);
                }
                self.submit(record, Some(AdminSlot { id, outer, inner: 0 }), now, effects)?;
                Ok(true)
            });
            match checked {
                Ok(submitted) => outstanding += usize::from(submitted),
                Err(refused) => {
                    result.error_code = refused.error.code();
                    result.error_message = refused.message.map(StrBytes::from_string);
                    result.num_partitions = -1;
                    result.replication_factor = -1;
                }
            }
            response.topics.push(result);
        }
        let answer = AdminAnswer::Response(Response::CreateTopics(response));
        self.keep_or_answer_admin(id, AdminCall { header, answer, outstanding }, effects);
    }

    pub(super) fn delete_topics(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: DeleteTopicsRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let mut response = DeleteTopicsResponse::default();
        let mut outstanding = 0;
        let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil()));
        let by_either = request.topics.into_iter().map(|topic| (topic.name, topic.topic_id));
        for (outer, (name, topic_id)) in by_name.chain(by_either).enumerate() {
            let found = match &name {
                Some(name) => Some(name.to_string()),
                None => self.metadata.name_of(topic_id.as_u128()).map(str::to_owned),
            };
            let unknown =
                if name.is_some() { ResponseError::UnknownTopicOrPartition } else { ResponseError::UnknownTopicId };
            let topic = found.as_deref().and_then(|name| self.metadata.topic(name));
            let mut result = DeletableTopicResult::default().with_topic_id(topic_id).with_name(name);
            let submitted = match (topic, found.clone()) {
                (Some(topic), Some(name)) => {
                    result.topic_id = Uuid::from_u128(self.metadata.id_of(topic));
                    result.name = Some(TopicName(StrBytes::from_string(name.clone())));
                    let slot = AdminSlot { id, outer, inner: 0 };
                    self.submit(MetadataRecord::TopicDeleted { name }, Some(slot), now, effects)
                }
                (None, _) | (_, None) => Err(unknown),
            };
            match submitted {
                Ok(()) => outstanding += 1,
                Err(error) => result.error_code = error.code(),
            }
            response.responses.push(result);
        }
        let answer = AdminAnswer::Response(Response::DeleteTopics(response));
        self.keep_or_answer_admin(id, AdminCall { header, answer, outstanding }, effects);
    }

    pub(super) fn create_partitions(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: CreatePartitionsRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let mut response = CreatePartitionsResponse::default();
        let mut outstanding = 0;
        for (outer, topic) in request.topics.iter().enumerate() {
            let mut result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
            let checked = self.check_growth(topic).and_then(|record| {
                if request.validate_only {
                    return Ok(false);
                }
                self.submit(record, Some(AdminSlot { id, outer, inner: 0 }), now, effects)?;
                Ok(true)
            });
            match checked {
                Ok(submitted) => outstanding += usize::from(submitted),
                Err(refused) => {
                    result.error_code = refused.error.code();
                    result.error_message = refused.message.map(StrBytes::from_string);
                }
            }
            response.results.push(result);
        }
        let answer = AdminAnswer::Response(Response::CreatePartitions(response));
        self.keep_or_answer_admin(id, AdminCall { header, answer, outstanding }, effects);
    }

    pub(super) fn delete_records(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: DeleteRecordsRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let mut response = DeleteRecordsResponse::default();
        let mut outstanding = 0;
        for (outer, topic) in request.topics.into_iter().enumerate() {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (inner, wanted) in topic.partitions.iter().enumerate() {
                let mut result = DeleteRecordsPartitionResult::default()
                    .with_partition_index(wanted.partition_index)
                    .with_low_watermark(-1);
                let slot = AdminSlot { id, outer, inner };
                match self.delete_records_of(&topic.name, wanted.partition_index, wanted.offset, slot, now, effects) {
                    Ok(None) => outstanding += 1,
                    Ok(Some(low_watermark)) => result.low_watermark = low_watermark.0,
                    Err(error) => result.error_code = error.code(),
                }
                partitions.push(result);
            }
            let result = DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions);
            response.topics.push(result);
        }
        let answer = AdminAnswer::Response(Response::DeleteRecords(response));
        self.keep_or_answer_admin(id, AdminCall { header, answer, outstanding }, effects);
    }

    /// The record that creates a topic on demand, where the name may be one.
    pub(super) fn creation_on_demand(&self, name: &str) -> Result<MetadataRecord, ResponseError> {
        check_name(name).map_err(|refused| refused.error)?;
        Ok(MetadataRecord::TopicCreated {
            name: name.to_owned(),
            partitions: self.config.default_partitions,
            settings: self.config.topic.clone(),
            overrides: BTreeMap::new(),
            replication: self.config.default_replication_factor,
            assignments: Vec::new(),
        })
    }

    /// Fills in what became of a change.
    pub(super) fn fill_topics_response(
        &self,
        response: &mut Response,
        slot: AdminSlot,
        result: Result<&Applied, ResponseError>,
    ) {
        let error = result.as_ref().err().map(ResponseError::code);
        match response {
            Response::CreateTopics(response) => {
                let answer = &mut response.topics[slot.outer];
                answer.error_code = error.unwrap_or(0);
                match result {
                    Ok(_) => self.describe_created(answer),
                    Err(_) => {
                        answer.num_partitions = -1;
                        answer.replication_factor = -1;
                    }
                }
            }
            Response::DeleteTopics(response) => response.responses[slot.outer].error_code = error.unwrap_or(0),
            Response::CreatePartitions(response) => response.results[slot.outer].error_code = error.unwrap_or(0),
            Response::DeleteRecords(response) => {
                let answer = &mut response.topics[slot.outer].partitions[slot.inner];
                answer.error_code = error.unwrap_or(0);
                if let Ok(Applied::LogStartMoved { offset, .. }) = result {
                    answer.low_watermark = offset.0;
                }
            }
            Response::AlterConfigs(response) => response.responses[slot.outer].error_code = error.unwrap_or(0),
            Response::IncrementalAlterConfigs(response) => {
                response.responses[slot.outer].error_code = error.unwrap_or(0);
            }
            Response::AlterPartitionReassignments(response) => {
                response.responses[slot.outer].partitions[slot.inner].error_code = error.unwrap_or(0);
            }
            Response::ElectLeaders(response) => {
                let results = &mut response.replica_election_results[slot.outer];
                results.partition_result[slot.inner].error_code = error.unwrap_or(0);
            }
            Response::UnregisterBroker(response) => response.error_code = error.unwrap_or(0),
            Response::Produce(_)
            | Response::Fetch(_)
            | Response::ListOffsets(_)
            | Response::Metadata(_)
            | Response::FindCoordinator(_)
            | Response::ApiVersions(_)
            | Response::InitProducerId(_)
            | Response::OffsetForLeaderEpoch(_)
            | Response::DescribeConfigs(_)
            | Response::ListPartitionReassignments(_)
            | Response::DescribeCluster(_)
            | Response::JoinGroup(_)
            | Response::ConsumerGroupHeartbeat(_)
            | Response::ConsumerGroupDescribe(_)
            | Response::SyncGroup(_)
            | Response::Heartbeat(_)
            | Response::LeaveGroup(_)
            | Response::OffsetCommit(_)
            | Response::OffsetFetch(_)
            | Response::OffsetDelete(_)
            | Response::ListGroups(_)
            | Response::DescribeGroups(_)
            | Response::DeleteGroups(_) => unreachable!("no other call waits for a change with a slot"),
        }
    }

    fn describe_created(&self, answer: &mut CreatableTopicResult) {
        // A deletion may have been applied in the same turn; the creation still happened.
        let Some(topic) = self.metadata.topic(&answer.name) else { return };
        answer.topic_id = Uuid::from_u128(self.metadata.id_of(topic));
        answer.num_partitions = topic.partitions.len() as i32;
        let first = topic.partitions.first().and_then(|partition| self.metadata.placement(partition.log()));
        answer.replication_factor = first.map_or(-1, |placement| placement.replicas.len() as i16);
        let configs = TopicSetting::ALL.map(|setting| {
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(setting.name()))
                .with_value(Some(StrBytes::from_string(topic.settings.value(setting))))
                .with_config_source(super::describe::config_source(topic, setting))
        });
        answer.configs = Some(configs.into());
    }

    fn check_creation(&self, topic: &CreatableTopic) -> Result<MetadataRecord, Refused> {
        check_name(&topic.name)?;
        if self.metadata.topic(&topic.name).is_some() {
            return Err(Refused::because(ResponseError::TopicAlreadyExists, "the topic exists"));
        }
        let partitions = self.check_partitions(topic)?;
        let given = topic.configs.iter();
        let overrides: BTreeMap<String, String> =
            given.filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string()))).collect();
        let settings = self
            .config
            .topic
            .with_overrides(&overrides)
            .map_err(|error| Refused::because(ResponseError::InvalidConfig, error.to_string()))?;
        let replication = match topic.replication_factor {
            -1 => self.config.default_replication_factor,
            factor => u32::try_from(factor).unwrap_or(0),
        };
        let assignments = manual_assignments(&topic.assignments);
        let most = assignments.iter().map(Vec::len).max().unwrap_or(replication as usize);
        if settings.class.cleanup.compact && most > 1 {
            return Err(Refused::because(ResponseError::InvalidConfig, ONE_REPLICA));
        }
        let name = topic.name.to_string();
        Ok(MetadataRecord::TopicCreated { name, partitions, settings, overrides, replication, assignments })
    }

    fn check_partitions(&self, topic: &CreatableTopic) -> Result<u32, Refused> {
        if !topic.assignments.is_empty() {
            if topic.num_partitions != -1 || topic.replication_factor != -1 {
                let message = "with an assignment, partitions and replication factor must be -1";
                return Err(Refused::because(ResponseError::InvalidRequest, message));
            }
            self.check_assignments(&topic.assignments)?;
            return Ok(topic.assignments.len() as u32);
        }
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            let message = "the replication factor must be 1 or more, or -1 for the default";
            return Err(Refused::because(ResponseError::InvalidReplicationFactor, message));
        }
        match topic.num_partitions {
            -1 => Ok(self.config.default_partitions),
            count if (1..=PARTITIONS_MAX as i32).contains(&count) => Ok(count as u32),
            _ => {
                let message = format!("partitions must be 1 to {PARTITIONS_MAX}, or -1 for the default");
                Err(Refused::because(ResponseError::InvalidPartitions, message))
            }
        }
    }

    fn check_assignments(&self, assignments: &[CreatableReplicaAssignment]) -> Result<(), Refused> {
        let mut seen = vec![false; assignments.len()];
        for assignment in assignments {
            let place = usize::try_from(assignment.partition_index).ok().and_then(|index| seen.get_mut(index));
            let replicas: Vec<i32> = assignment.broker_ids.iter().map(|broker| broker.0).collect();
            match place {
                Some(place) if self.metadata.is_assignable(&replicas) && !*place => *place = true,
                Some(_) | None => {
                    let message = "each partition from 0 up needs a list of registered brokers, each once";
                    return Err(Refused::because(ResponseError::InvalidReplicaAssignment, message));
                }
            }
        }
        Ok(())
    }

    fn check_growth(&self, topic: &CreatePartitionsTopic) -> Result<MetadataRecord, Refused> {
        let Some(known) = self.metadata.topic(&topic.name) else {
            return Err(ResponseError::UnknownTopicOrPartition.into());
        };
        let has = known.partitions.len();
        let wanted = usize::try_from(topic.count).unwrap_or(0);
        if wanted <= has || wanted > PARTITIONS_MAX as usize {
            let message = format!("the topic has {has} partitions; more, up to {PARTITIONS_MAX}, are possible");
            return Err(Refused::because(ResponseError::InvalidPartitions, message));
        }
        let mut replicas: Vec<Vec<i32>> = Vec::new();
        if let Some(assignments) = &topic.assignments {
            let lists = assignments.iter().map(|entry| entry.broker_ids.iter().map(|id| id.0).collect());
            replicas = lists.collect();
            if replicas.len() != wanted - has || !replicas.iter().all(|list| self.metadata.is_assignable(list)) {
                let message = "each new partition needs a list of registered brokers, each once";
                return Err(Refused::because(ResponseError::InvalidReplicaAssignment, message));
            }
        }
        if known.settings.class.cleanup.compact && replicas.iter().any(|list| list.len() > 1) {
            return Err(Refused::because(ResponseError::InvalidReplicaAssignment, ONE_REPLICA));
        }
        let name = topic.name.to_string();
        Ok(MetadataRecord::PartitionsAdded { name, partitions: wanted as u32, assignments: replicas })
    }

    /// The low watermark where nothing is to be moved, or none where a record was submitted.
    fn delete_records_of(
        &mut self,
        name: &str,
        index: i32,
        before: i64,
        slot: AdminSlot,
        now: Now,
        effects: &mut Effects,
    ) -> Result<Option<Offset>, ResponseError> {
        let unknown = ResponseError::UnknownTopicOrPartition;
        let topic = self.metadata.topic(name).ok_or(unknown)?;
        let partition = *usize::try_from(index).ok().and_then(|index| topic.partitions.get(index)).ok_or(unknown)?;
        let queue = partition.queue();
        let log = self.logs.get(&partition.log()).expect("applying the topic's record created its logs");
        let target = log.deletion_target(queue, Offset(before)).map_err(|error| match error {
            ReadError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
            ReadError::QueueFenced => ResponseError::KafkaStorageError,
        })?;
        let start = log.log_start_offset(queue);
        if target <= start {
            return Ok(Some(start));
        }
        let record = MetadataRecord::LogStartMoved { queue: queue.0, offset: target.0 };
        self.submit(record, Some(slot), now, effects)?;
        Ok(None)
    }
}

/// The error code of a record that found the state changed.
pub(super) fn refusal_error(refusal: Refusal) -> ResponseError {
    match refusal {
        Refusal::ClusterNamed => ResponseError::UnknownServerError,
        Refusal::TopicExists => ResponseError::TopicAlreadyExists,
        Refusal::UnknownTopic => ResponseError::UnknownTopicOrPartition,
        Refusal::NotMorePartitions => ResponseError::InvalidPartitions,
        Refusal::NotEnoughBrokers => ResponseError::InvalidReplicationFactor,
        Refusal::InvalidAssignment => ResponseError::InvalidReplicaAssignment,
        Refusal::FixedSetting => ResponseError::InvalidConfig,
        Refusal::UnknownBroker => ResponseError::BrokerIdNotRegistered,
        Refusal::StaleBrokerEpoch => ResponseError::StaleBrokerEpoch,
        Refusal::UnknownLog => ResponseError::UnknownTopicOrPartition,
        Refusal::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
        Refusal::StalePartitionEpoch => ResponseError::InvalidUpdateVersion,
        Refusal::IneligibleReplica => ResponseError::IneligibleReplica,
        Refusal::NoReassignment => ResponseError::NoReassignmentInProgress,
        Refusal::NoElection => ResponseError::ElectionNotNeeded,
    }
}

/// The replicas of each partition, in the partitions' order.
fn manual_assignments(assignments: &[CreatableReplicaAssignment]) -> Vec<Vec<i32>> {
    let mut sorted: Vec<&CreatableReplicaAssignment> = assignments.iter().collect();
    sorted.sort_by_key(|assignment| assignment.partition_index);
    sorted.into_iter().map(|assignment| assignment.broker_ids.iter().map(|id| id.0).collect()).collect()
}

fn check_name(name: &str) -> Result<(), Refused> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let has_length = (1..=NAME_BYTES_MAX).contains(&name.len());
    if has_length && name.bytes().all(is_plain) && name != "." && name != ".." {
        return Ok(());
    }
    let message = format!("a topic's name has 1 to {NAME_BYTES_MAX} of the characters a-z A-Z 0-9 . _ -");
    Err(Refused::because(ResponseError::InvalidTopicException, message))
}

/// Why a topic is not compacted, or not replicated: each replica would move what others look for where it was.
pub(super) const ONE_REPLICA: &str =
    "a compacted topic has one replica of each partition; replicated ones are not compacted";
/// The longest name of a topic, in bytes.
const NAME_BYTES_MAX: usize = 249;
