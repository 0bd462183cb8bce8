//! Administrative calls and offset look-ups, one attempt each; whoever calls decides about retries (`Cluster::retry`).

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::cluster::{Cluster, topic_name};
use super::errors::CallError;
use super::{Dial, Timer, TopicPartition};

/// ListOffsets' timestamp that asks for the log start.
pub const EARLIEST: i64 = -2;
/// ListOffsets' timestamp that asks for the high watermark.
pub const LATEST: i64 = -1;

/// What ListOffsets answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset, -1 where there is none.
    pub offset: i64,
    /// The record's timestamp in milliseconds, -1 where there is none.
    pub timestamp_ms: i64,
}

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Copies of each partition; -1 leaves it to the broker's default.
    pub replication: i16,
    /// Its settings.
    pub config: BTreeMap<String, String>,
}

impl<D: Dial, T: Timer> Cluster<D, T> {
    /// One ListOffsets of one partition: `EARLIEST`, `LATEST`, or a time in milliseconds since the Unix epoch.
    pub async fn list_offset(
        &self,
        partition: &TopicPartition,
        timestamp: i64,
        deadline: Duration,
    ) -> Result<ListedOffset, CallError> {
        let asked = ListOffsetsPartition::default().with_partition_index(partition.partition).with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(topic_name(&partition.topic)).with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let result = self.call_leader(partition, &request, deadline).await;
        let answer = self.forgetting_stale(partition, result)?;
        let topics = answer.topics.iter().filter(|topic| topic.name.as_str() == partition.topic);
        let found =
            topics.flat_map(|topic| &topic.partitions).find(|found| found.partition_index == partition.partition);
        let found = found.ok_or_else(|| missing("ListOffsets", partition))?;
        self.forgetting_stale(partition, answered("ListOffsets", found.error_code))?;
        Ok(ListedOffset { offset: found.offset, timestamp_ms: found.timestamp })
    }

    /// One OffsetForLeaderEpoch of one partition: the end of the newest epoch up to the given one, -1 where the leader
    /// knows none.
    pub async fn end_of_epoch(
        &self,
        partition: &TopicPartition,
        epoch: i32,
        deadline: Duration,
    ) -> Result<i64, CallError> {
        let asked = OffsetForLeaderPartition::default()
            .with_partition(partition.partition)
            .with_current_leader_epoch(self.leader_epoch(partition))
            .with_leader_epoch(epoch);
        let topic =
            OffsetForLeaderTopic::default().with_topic(topic_name(&partition.topic)).with_partitions(vec![asked]);
        let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let result = self.call_leader(partition, &request, deadline).await;
        let answer = self.forgetting_stale(partition, result)?;
        let topics = answer.topics.iter().filter(|topic| topic.topic.as_str() == partition.topic);
        let found = topics.flat_map(|topic| &topic.partitions).find(|found| found.partition == partition.partition);
        let found = found.ok_or_else(|| missing("OffsetForLeaderEpoch", partition))?;
        self.forgetting_stale(partition, answered("OffsetForLeaderEpoch", found.error_code))?;
        Ok(found.end_offset)
    }

    /// One DeleteRecords of one partition; the answer is its new log start.
    pub async fn delete_records(
        &self,
        partition: &TopicPartition,
        before: i64,
        deadline: Duration,
    ) -> Result<i64, CallError> {
        let asked = DeleteRecordsPartition::default().with_partition_index(partition.partition).with_offset(before);
        let topic = DeleteRecordsTopic::default().with_name(topic_name(&partition.topic)).with_partitions(vec![asked]);
        let timeout = deadline.saturating_sub(self.timer().monotonic());
        let request =
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout.as_millis() as i32);
        let result = self.call_leader(partition, &request, deadline).await;
        let answer = self.forgetting_stale(partition, result)?;
        let topics = answer.topics.iter().filter(|topic| topic.name.as_str() == partition.topic);
        let found =
            topics.flat_map(|topic| &topic.partitions).find(|found| found.partition_index == partition.partition);
        let found = found.ok_or_else(|| missing("DeleteRecords", partition))?;
        self.forgetting_stale(partition, answered("DeleteRecords", found.error_code))?;
        Ok(found.low_watermark)
    }

    /// One CreateTopics of one topic, with as many replicas as the system gives where nothing is said.
    pub async fn create_topic(&self, topic: &NewTopic, deadline: Duration) -> Result<(), CallError> {
        let config = topic.config.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(name.clone()))
                .with_value(Some(StrBytes::from_string(value.clone())))
        });
        let asked = CreatableTopic::default()
            .with_name(topic_name(&topic.name))
            .with_num_partitions(topic.partitions)
            .with_replication_factor(topic.replication)
            .with_configs(config.collect());
        let timeout = deadline.saturating_sub(self.timer().monotonic());
        let request =
            CreateTopicsRequest::default().with_topics(vec![asked]).with_timeout_ms(timeout.as_millis() as i32);
        let address = self.controller(deadline).await?;
        let answer = self.connect(&address, deadline).await?.call(&request, deadline).await?;
        let found = answer.topics.iter().find(|found| found.name.as_str() == topic.name);
        let partition = TopicPartition { topic: topic.name.clone(), partition: -1 };
        answered("CreateTopics", found.ok_or_else(|| missing("CreateTopics", &partition))?.error_code)
    }

    /// Partitions of a topic that have a leader, as one node says now; the topic is not created.
    pub async fn led_partitions(&self, topic: &str, deadline: Duration) -> Result<Vec<i32>, CallError> {
        let answer = self.refresh(&[topic.to_string()], false, deadline).await?;
        let described = answer.topics.first();
        answered("Metadata", described.map_or(0, |topic| topic.error_code))?;
        let partitions = described.map(|topic| &topic.partitions[..]).unwrap_or_default();
        let led = partitions.iter().filter(|partition| partition.error_code == 0 && partition.leader_id.0 >= 0);
        let mut led: Vec<i32> = led.map(|partition| partition.partition_index).collect();
        led.sort_unstable();
        Ok(led)
    }

    /// Passes a result on, and forgets the partition's leader where the failure says that it may have moved.
    pub(crate) fn forgetting_stale<O>(
        &self,
        partition: &TopicPartition,
        result: Result<O, CallError>,
    ) -> Result<O, CallError> {
        if let Err(error) = &result
            && error.has_stale_metadata()
        {
            self.forget_leader(partition);
        }
        result
    }
}

/// An error code as a result.
pub(crate) fn answered(api: &str, code: i16) -> Result<(), CallError> {
    if code == 0 { Ok(()) } else { Err(CallError::Answered { api: api.to_string(), code }) }
}

/// The answer does not speak of what was asked.
pub(crate) fn missing(api: &str, partition: &TopicPartition) -> CallError {
    CallError::Undecodable {
        address: "the broker".to_string(),
        api: api.to_string(),
        reason: format!("it says nothing about {partition}"),
    }
}
