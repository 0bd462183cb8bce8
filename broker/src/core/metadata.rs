//! The metadata state machine: topics, their settings, queues and logs, moved log starts and producer ids.
//! It changes only by applying records of the metadata log in order, after they are durable; a record that finds the
//! state changed is refused by every replay alike. Not here: writing the records (`admin`) and the logs themselves.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::settings::{Layout, LogClass, TopicSettings};
use super::types::{LogId, Offset, ProducerId, QueueId};

/// A record of the metadata log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum MetadataRecord {
    /// The first record: the cluster's identity.
    ClusterNamed {
        /// A draw, not 0; the high half of every topic id.
        cluster: u64,
    },
    /// A topic came to be.
    TopicCreated {
        /// Its name.
        name: String,
        /// How many queues.
        partitions: u32,
        /// Its settings, resolved.
        settings: TopicSettings,
        /// Those that were given rather than defaults.
        overrides: BTreeMap<String, String>,
    },
    /// A topic got more queues.
    PartitionsAdded {
        /// Its name.
        name: String,
        /// How many queues it has then.
        partitions: u32,
    },
    /// A topic is gone, with everything in it.
    TopicDeleted {
        /// Its name.
        name: String,
    },
    /// Records below an offset are gone.
    LogStartMoved {
        /// The queue.
        queue: u64,
        /// Its first offset.
        offset: i64,
    },
    /// A block of producer ids is taken.
    ProducerIdsTaken {
        /// How many.
        count: u32,
    },
}

/// Where a queue lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    queue: u64,
    log: u64,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its number, never reused; the low half of its id.
    number: u64,
    /// Its settings, resolved.
    pub settings: TopicSettings,
    /// Those that were given rather than defaults.
    pub overrides: BTreeMap<String, String>,
    /// Its queues by index.
    pub partitions: Vec<Partition>,
}

/// The state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    cluster: u64,
    topics: BTreeMap<String, Topic>,
    /// Every log but the metadata log, with its class.
    logs: BTreeMap<u64, LogClass>,
    /// The logs that queues share.
    shared: Vec<u64>,
    log_starts: BTreeMap<u64, i64>,
    topic_number_next: u64,
    queue_next: u64,
    log_next: u64,
    producer_id_next: i64,
    /// The offset in the metadata log of the next record to apply.
    record_next: i64,
    #[serde(skip)]
    names: BTreeMap<u64, String>,
    #[serde(skip)]
    queue_logs: BTreeMap<u64, u64>,
}

/// What a record changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The cluster has its identity.
    ClusterNamed,
    /// A topic has the queues from this index on; their logs may be new.
    PartitionsAdded {
        /// The topic.
        name: String,
        /// Index of the first new queue.
        first: usize,
    },
    /// A topic is gone.
    TopicDeleted {
        /// What it was.
        topic: Box<Topic>,
    },
    /// A queue's log start moved.
    LogStartMoved {
        /// The log that holds the queue.
        log: LogId,
        /// The queue.
        queue: QueueId,
        /// Its first offset.
        offset: Offset,
    },
    /// Producer ids may be given out.
    ProducerIdsTaken {
        /// The first.
        first: ProducerId,
        /// How many.
        count: u32,
    },
    /// The record found the state changed and did nothing.
    Refused(Refusal),
}

/// Why a record did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// TOPIC_ALREADY_EXISTS (36).
    #[error("the topic exists")]
    TopicExists,
    /// UNKNOWN_TOPIC_OR_PARTITION (3).
    #[error("there is no such topic")]
    UnknownTopic,
    /// INVALID_PARTITIONS (37).
    #[error("the topic has that many partitions or more")]
    NotMorePartitions,
}

/// A snapshot or record that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{what} of the metadata log is not readable: {source}; a newer version may have written it")]
pub struct MetadataUnreadable {
    what: &'static str,
    source: serde_json::Error,
}

impl MetadataRecord {
    /// The record's bytes.
    pub fn encode(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("string keys and finite numbers are always representable"))
    }

    /// Reads a record's bytes.
    pub fn decode(bytes: &[u8]) -> Result<MetadataRecord, MetadataUnreadable> {
        serde_json::from_slice(bytes).map_err(|source| MetadataUnreadable { what: "a record", source })
    }
}

impl Partition {
    /// The queue.
    pub fn queue(self) -> QueueId {
        QueueId(self.queue)
    }

    /// The log that holds it.
    pub fn log(self) -> LogId {
        LogId(self.log)
    }
}

impl Metadata {
    /// The state before the first record.
    pub fn new() -> Metadata {
        Metadata {
            cluster: 0,
            topics: BTreeMap::new(),
            logs: BTreeMap::new(),
            shared: Vec::new(),
            log_starts: BTreeMap::new(),
            topic_number_next: 1,
            queue_next: 1,
            log_next: 1,
            producer_id_next: 1,
            record_next: 0,
            names: BTreeMap::new(),
            queue_logs: BTreeMap::new(),
        }
    }

    /// Reads a snapshot.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<Metadata, MetadataUnreadable> {
        let mut state: Metadata =
            serde_json::from_slice(bytes).map_err(|source| MetadataUnreadable { what: "a snapshot", source })?;
        state.names = state.topics.iter().map(|(name, topic)| (topic.number, name.clone())).collect();
        let partitions = state.topics.values().flat_map(|topic| &topic.partitions);
        state.queue_logs = partitions.map(|partition| (partition.queue, partition.log)).collect();
        Ok(state)
    }

    /// The state's bytes, and a name that sorts by age.
    pub fn encode_snapshot(&self) -> (String, Bytes) {
        let bytes = serde_json::to_vec(self).expect("string keys and finite numbers are always representable");
        (format!("{:020}", self.record_next), Bytes::from(bytes))
    }

    /// The offset in the metadata log of the next record to apply.
    pub fn record_next(&self) -> Offset {
        Offset(self.record_next)
    }

    /// The cluster's identity; none before its record was applied.
    pub fn cluster(&self) -> Option<u64> {
        (self.cluster != 0).then_some(self.cluster)
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// A topic's name by id.
    pub fn name_of(&self, id: u128) -> Option<&str> {
        if (id >> 64) as u64 != self.cluster {
            return None;
        }
        self.names.get(&(id as u64)).map(String::as_str)
    }

    /// The id of a topic, unique across clusters and never reused.
    pub fn id_of(&self, topic: &Topic) -> u128 {
        u128::from(self.cluster) << 64 | u128::from(topic.number)
    }

    /// Every topic by name.
    pub fn topics(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.topics.iter().map(|(name, topic)| (name.as_str(), topic))
    }

    /// How many topics there are, and queues of all of them.
    pub fn counts(&self) -> (usize, usize) {
        (self.topics.len(), self.queue_logs.len())
    }

    /// Every log but the metadata log, with its class.
    pub fn logs(&self) -> impl Iterator<Item = (LogId, &LogClass)> {
        self.logs.iter().map(|(log, class)| (LogId(*log), class))
    }

    /// The class of a log.
    pub fn log_class(&self, log: LogId) -> Option<&LogClass> {
        self.logs.get(&log.0)
    }

    /// Whether queues share a log.
    pub fn is_shared(&self, log: LogId) -> bool {
        self.shared.contains(&log.0)
    }

    /// The log starts that DeleteRecords moved.
    pub fn log_starts(&self) -> impl Iterator<Item = (QueueId, Offset)> {
        self.log_starts.iter().map(|(queue, offset)| (QueueId(*queue), Offset(*offset)))
    }

    /// The log that holds a queue of an existing topic.
    pub fn log_of(&self, queue: QueueId) -> Option<LogId> {
        self.queue_logs.get(&queue.0).map(|log| LogId(*log))
    }

    /// Applies the next record.
    pub fn apply(&mut self, record: MetadataRecord) -> Applied {
        self.record_next += 1;
        match record {
            MetadataRecord::ClusterNamed { cluster } => {
                self.cluster = cluster;
                Applied::ClusterNamed
            }
            MetadataRecord::TopicCreated { name, partitions, settings, overrides } => {
                if self.topics.contains_key(&name) {
                    return Applied::Refused(Refusal::TopicExists);
                }
                let number = self.topic_number_next;
                self.topic_number_next += 1;
                let placed = self.place(&settings, partitions as usize);
                self.topics.insert(name.clone(), Topic { number, settings, overrides, partitions: placed });
                self.names.insert(number, name.clone());
                Applied::PartitionsAdded { name, first: 0 }
            }
            MetadataRecord::PartitionsAdded { name, partitions } => self.add_partitions(name, partitions as usize),
            MetadataRecord::TopicDeleted { name } => self.delete_topic(&name),
            MetadataRecord::LogStartMoved { queue, offset } => {
                let Some(log) = self.queue_logs.get(&queue) else { return Applied::Refused(Refusal::UnknownTopic) };
                let start = self.log_starts.entry(queue).or_insert(offset);
                *start = offset.max(*start);
                Applied::LogStartMoved { log: LogId(*log), queue: QueueId(queue), offset: Offset(*start) }
            }
            MetadataRecord::ProducerIdsTaken { count } => {
                let first = ProducerId(self.producer_id_next);
                self.producer_id_next += i64::from(count);
                Applied::ProducerIdsTaken { first, count }
            }
        }
    }

    fn add_partitions(&mut self, name: String, partitions: usize) -> Applied {
        let Some(topic) = self.topics.get(&name) else { return Applied::Refused(Refusal::UnknownTopic) };
        let first = topic.partitions.len();
        if partitions <= first {
            return Applied::Refused(Refusal::NotMorePartitions);
        }
        let settings = topic.settings.clone();
        let placed = self.place(&settings, partitions - first);
        if let Some(topic) = self.topics.get_mut(&name) {
            topic.partitions.extend(placed);
        }
        Applied::PartitionsAdded { name, first }
    }

    fn delete_topic(&mut self, name: &str) -> Applied {
        let Some(topic) = self.topics.remove(name) else { return Applied::Refused(Refusal::UnknownTopic) };
        self.names.remove(&topic.number);
        for partition in &topic.partitions {
            self.log_starts.remove(&partition.queue);
            self.queue_logs.remove(&partition.queue);
            if topic.settings.layout == Layout::Partitioned {
                self.logs.remove(&partition.log);
            }
        }
        Applied::TopicDeleted { topic: Box::new(topic) }
    }

    fn place(&mut self, settings: &TopicSettings, count: usize) -> Vec<Partition> {
        let mut placed = Vec::with_capacity(count);
        for _ in 0..count {
            let log = match settings.layout {
                Layout::Shared => self.shared_log(&settings.class),
                Layout::Partitioned => self.new_log(&settings.class),
            };
            placed.push(Partition { queue: self.queue_next, log });
            self.queue_logs.insert(self.queue_next, log);
            self.queue_next += 1;
        }
        placed
    }

    fn shared_log(&mut self, class: &LogClass) -> u64 {
        if let Some(log) = self.shared.iter().find(|log| self.logs.get(log) == Some(class)) {
            return *log;
        }
        let log = self.new_log(class);
        self.shared.push(log);
        log
    }

    fn new_log(&mut self, class: &LogClass) -> u64 {
        let log = self.log_next;
        self.log_next += 1;
        self.logs.insert(log, class.clone());
        log
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Metadata::new()
    }
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
