//! The metadata state machine: brokers, topics, their settings, queues and logs, moved log starts and producer ids.
//! It changes only by applying records of the metadata log in order, after they are committed; a record that finds the
//! state changed is refused by every replay alike. Not here: writing the records (`admin`), the logs themselves, and
//! what the records about brokers and replicas do (`membership`).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::placement::{Broker, Brokers, DataFound, Electorate, Placement, rings};
use super::settings::{Layout, LogClass, TopicSettings};
use super::types::{LogId, NodeId, Offset, ProducerId, QueueId};
use crate::mutant::Mutant;

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
        /// How many replicas each queue has, where no assignment says so.
        replication: u32,
        /// The replicas of each queue, preferred leader first; empty leaves the choice to the cluster.
        assignments: Vec<Vec<i32>>,
    },
    /// A topic got more queues.
    PartitionsAdded {
        /// Its name.
        name: String,
        /// How many queues it has then.
        partitions: u32,
        /// The replicas of each new queue; empty leaves the choice to the cluster.
        assignments: Vec<Vec<i32>>,
    },
    /// A topic's settings changed.
    ConfigChanged {
        /// Its name.
        name: String,
        /// The settings that a removed override falls back to.
        defaults: TopicSettings,
        /// New values by name; none removes the override.
        changes: BTreeMap<String, Option<String>>,
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
    /// A broker's process makes itself known; the record's offset is its broker epoch. It is fenced until it caught up.
    BrokerRegistered {
        /// The broker.
        id: i32,
        /// A draw of the process.
        incarnation: u64,
        /// Where to connect to it.
        host: String,
        /// Its port.
        port: u16,
        /// What the process found in its data folder.
        found: DataFound,
    },
    /// A broker is silent.
    BrokerFenced {
        /// The broker.
        id: i32,
        /// Its broker epoch.
        epoch: i64,
    },
    /// A broker has caught up and is heard of.
    BrokerUnfenced {
        /// The broker.
        id: i32,
        /// Its broker epoch.
        epoch: i64,
    },
    /// A broker wants to go: it leads no more, and is in sync no more.
    BrokerShuttingDown {
        /// The broker.
        id: i32,
        /// Its broker epoch.
        epoch: i64,
    },
    /// A broker is gone for good.
    BrokerUnregistered {
        /// The broker.
        id: i32,
    },
    /// A leader changed its in-sync set.
    IsrChanged {
        /// The log.
        log: u64,
        /// The leader's epoch.
        leader_epoch: i32,
        /// The partition epoch that the leader knew.
        partition_epoch: i32,
        /// The set, each broker with its broker epoch.
        isr: Vec<(i32, i64)>,
    },
    /// A replica lost bytes that it had confirmed.
    ReplicaCut {
        /// The log.
        log: u64,
        /// The broker that holds it.
        broker: i32,
    },
    /// A log is to move to other replicas, or, with none, to stay.
    Reassigned {
        /// The log.
        log: u64,
        /// The replicas wanted, preferred leader first.
        replicas: Option<Vec<i32>>,
    },
    /// The preferred leader is to lead.
    LeaderPreferred {
        /// The log.
        log: u64,
        /// Anyone who is there may lead, if nobody in sync is.
        unclean: bool,
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
    /// How many replicas a new queue gets, where no assignment says so.
    pub replication: u32,
    /// Its queues by index.
    pub partitions: Vec<Partition>,
}

/// The state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    cluster: u64,
    pub(super) topics: BTreeMap<String, Topic>,
    /// Every log but the metadata log, with its class.
    pub(super) logs: BTreeMap<u64, LogClass>,
    /// The same logs, with their replicas.
    pub(super) placements: BTreeMap<u64, Placement>,
    pub(super) brokers: Brokers,
    /// Brokers that were unregistered, with the process that they had then.
    pub(super) removed: BTreeMap<i32, u64>,
    /// The logs that queues share.
    shared: Vec<u64>,
    log_starts: BTreeMap<u64, i64>,
    topic_number_next: u64,
    queue_next: u64,
    log_next: u64,
    producer_id_next: i64,
    /// The offset in the metadata log of the next record to apply.
    pub(super) record_next: i64,
    #[serde(skip)]
    pub(super) mutant: Option<Mutant>,
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
        /// Its name.
        name: String,
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
    /// A topic has new settings; the class of these logs changed.
    ConfigChanged {
        /// The logs.
        logs: Vec<LogId>,
    },
    /// These logs' placements changed. Brokers may have too.
    Placements(Vec<LogId>),
    /// The record found the state changed and did nothing.
    Refused(Refusal),
}

/// Why a record did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// UNKNOWN_SERVER_ERROR (-1); no client asks for it.
    #[error("the cluster has its identity")]
    ClusterNamed,
    /// TOPIC_ALREADY_EXISTS (36).
    #[error("the topic exists")]
    TopicExists,
    /// UNKNOWN_TOPIC_OR_PARTITION (3).
    #[error("there is no such topic")]
    UnknownTopic,
    /// INVALID_PARTITIONS (37).
    #[error("the topic has that many partitions or more")]
    NotMorePartitions,
    /// INVALID_REPLICATION_FACTOR (38).
    #[error("there are not that many brokers")]
    NotEnoughBrokers,
    /// INVALID_REPLICA_ASSIGNMENT (39).
    #[error("the assignment names a broker that is not registered, or one twice, or none")]
    InvalidAssignment,
    /// INVALID_CONFIG (40).
    #[error("the setting is fixed at the topic's creation")]
    FixedSetting,
    /// BROKER_ID_NOT_REGISTERED (102).
    #[error("there is no such broker")]
    UnknownBroker,
    /// STALE_BROKER_EPOCH (77).
    #[error("the broker has been registered anew, or this process was already")]
    StaleBrokerEpoch,
    /// UNKNOWN_TOPIC_OR_PARTITION (3).
    #[error("there is no such log")]
    UnknownLog,
    /// FENCED_LEADER_EPOCH (74).
    #[error("another leader epoch has begun")]
    FencedLeaderEpoch,
    /// INVALID_UPDATE_VERSION (95).
    #[error("the replicas have changed meanwhile")]
    StalePartitionEpoch,
    /// INELIGIBLE_REPLICA (107).
    #[error("a broker of the set is fenced, shutting down, or holds no replica")]
    IneligibleReplica,
    /// NO_REASSIGNMENT_IN_PROGRESS (85).
    #[error("the log is not being moved, or cannot go back")]
    NoReassignment,
    /// PREFERRED_LEADER_NOT_AVAILABLE (80) or ELECTION_NOT_NEEDED (84).
    #[error("the leader stays as it is")]
    NoElection,
}

/// A snapshot or record that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{what} of the metadata log is not readable: {reason}; a newer version may have written it")]
pub struct MetadataUnreadable {
    what: &'static str,
    reason: String,
}

impl MetadataUnreadable {
    /// A record cannot be read.
    pub(super) fn record(error: impl std::fmt::Display) -> MetadataUnreadable {
        MetadataUnreadable { what: "a record", reason: error.to_string() }
    }

    /// A snapshot cannot be read.
    pub(super) fn snapshot(error: impl std::fmt::Display) -> MetadataUnreadable {
        MetadataUnreadable { what: "a snapshot", reason: error.to_string() }
    }
}

impl MetadataRecord {
    /// The record's bytes.
    pub fn encode(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("string keys and finite numbers are always representable"))
    }

    /// Reads a record's bytes.
    pub fn decode(bytes: &[u8]) -> Result<MetadataRecord, MetadataUnreadable> {
        serde_json::from_slice(bytes).map_err(MetadataUnreadable::record)
    }
}

impl Topic {
    /// The topic without its queues.
    fn head(&self) -> Topic {
        Topic {
            number: self.number,
            settings: self.settings.clone(),
            overrides: self.overrides.clone(),
            replication: self.replication,
            partitions: Vec::new(),
        }
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
            placements: BTreeMap::new(),
            brokers: BTreeMap::new(),
            removed: BTreeMap::new(),
            shared: Vec::new(),
            log_starts: BTreeMap::new(),
            topic_number_next: 1,
            queue_next: 1,
            log_next: 1,
            producer_id_next: 1,
            record_next: 0,
            mutant: None,
            names: BTreeMap::new(),
            queue_logs: BTreeMap::new(),
        }
    }

    /// Reads a snapshot.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<Metadata, MetadataUnreadable> {
        let mut state: Metadata = serde_json::from_slice(bytes).map_err(MetadataUnreadable::snapshot)?;
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

    /// Where a log is; none for the metadata log, and for one that does not exist.
    pub fn placement(&self, log: LogId) -> Option<&Placement> {
        self.placements.get(&log.0)
    }

    /// Where every log is.
    pub fn placements(&self) -> impl Iterator<Item = (LogId, &Placement)> {
        self.placements.iter().map(|(log, placement)| (LogId(*log), placement))
    }

    /// A registered broker.
    pub fn broker(&self, id: NodeId) -> Option<&Broker> {
        self.brokers.get(&id.0)
    }

    /// The registered brokers.
    pub fn brokers(&self) -> impl Iterator<Item = (NodeId, &Broker)> {
        self.brokers.iter().map(|(id, broker)| (NodeId(*id), broker))
    }

    /// Whether a broker was unregistered, and no process of it registered since.
    pub fn is_unregistered(&self, id: NodeId) -> bool {
        self.removed.contains_key(&id.0)
    }

    /// Whether this very process was unregistered.
    pub fn is_removed(&self, id: NodeId, incarnation: u64) -> bool {
        self.removed.get(&id.0) == Some(&incarnation)
    }

    /// Whether a log or queue that is not listed was removed; otherwise it may be still to come.
    pub fn has_passed(&self, log: LogId, queue: Option<QueueId>) -> bool {
        log.0 < self.log_next && queue.is_none_or(|queue| queue.0 < self.queue_next)
    }

    /// Gives the state a deliberate bug.
    pub fn set_mutant(&mut self, mutant: Option<Mutant>) {
        self.mutant = mutant;
    }

    /// Passes an entry of the metadata log that holds no record.
    pub fn pass(&mut self) {
        self.record_next += 1;
    }

    /// Applies the next record.
    pub fn apply(&mut self, record: MetadataRecord) -> Applied {
        let offset = self.record_next;
        self.record_next += 1;
        match record {
            MetadataRecord::ClusterNamed { .. } if self.cluster != 0 => Applied::Refused(Refusal::ClusterNamed),
            MetadataRecord::ClusterNamed { cluster } => {
                self.cluster = cluster;
                Applied::ClusterNamed
            }
            MetadataRecord::TopicCreated { name, partitions, settings, overrides, replication, assignments } => {
                let number = self.topic_number_next;
                let topic = Topic { number, settings, overrides, replication, partitions: Vec::new() };
                self.create_topic(name, topic, partitions as usize, assignments)
            }
            MetadataRecord::PartitionsAdded { name, partitions, assignments } => {
                self.add_partitions(name, partitions as usize, assignments)
            }
            MetadataRecord::ConfigChanged { name, defaults, changes } => self.change_config(&name, &defaults, &changes),
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
            MetadataRecord::BrokerRegistered { id, incarnation, host, port, found } => {
                let broker = Broker { incarnation, epoch: offset, host, port, fenced: true, shutting_down: false };
                self.register(id, broker, found)
            }
            MetadataRecord::BrokerFenced { id, epoch } => self.change_broker(id, epoch, |broker| broker.fenced = true),
            MetadataRecord::BrokerUnfenced { id, epoch } => {
                self.change_broker(id, epoch, |broker| broker.fenced = broker.shutting_down)
            }
            MetadataRecord::BrokerShuttingDown { id, epoch } => {
                self.change_broker(id, epoch, |broker| broker.shutting_down = true)
            }
            MetadataRecord::BrokerUnregistered { id } => self.unregister(id),
            MetadataRecord::IsrChanged { log, leader_epoch, partition_epoch, isr } => {
                self.change_isr(log, leader_epoch, partition_epoch, &isr)
            }
            MetadataRecord::ReplicaCut { log, broker } => self.cut_replica(log, broker),
            MetadataRecord::Reassigned { log, replicas } => self.reassign(log, replicas),
            MetadataRecord::LeaderPreferred { log, unclean } => self.prefer_leader(log, unclean),
        }
    }

    fn create_topic(&mut self, name: String, topic: Topic, count: usize, assignments: Vec<Vec<i32>>) -> Applied {
        if self.topics.contains_key(&name) {
            return Applied::Refused(Refusal::TopicExists);
        }
        let partitions = match self.place(&topic, count, assignments) {
            Ok(partitions) => partitions,
            Err(refusal) => return Applied::Refused(refusal),
        };
        self.topic_number_next += 1;
        self.names.insert(topic.number, name.clone());
        self.topics.insert(name.clone(), Topic { partitions, ..topic });
        Applied::PartitionsAdded { name, first: 0 }
    }

    fn add_partitions(&mut self, name: String, partitions: usize, assignments: Vec<Vec<i32>>) -> Applied {
        let Some(topic) = self.topics.get(&name) else { return Applied::Refused(Refusal::UnknownTopic) };
        let first = topic.partitions.len();
        if partitions <= first {
            return Applied::Refused(Refusal::NotMorePartitions);
        }
        let head = topic.head();
        let placed = match self.place(&head, partitions - first, assignments) {
            Ok(placed) => placed,
            Err(refusal) => return Applied::Refused(refusal),
        };
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
                self.placements.remove(&partition.log);
            }
        }
        Applied::TopicDeleted { name: name.to_owned(), topic: Box::new(topic) }
    }

    /// Gives new queues their ids, logs and replicas.
    fn place(&mut self, topic: &Topic, count: usize, assignments: Vec<Vec<i32>>) -> Result<Vec<Partition>, Refusal> {
        let is_manual = !assignments.is_empty();
        let lists = if is_manual { assignments } else { rings(&self.brokers, topic.replication as usize) };
        if lists.is_empty() {
            return Err(Refusal::NotEnoughBrokers);
        }
        if !lists.iter().all(|replicas| self.is_assignable(replicas)) {
            return Err(Refusal::InvalidAssignment);
        }
        let class = &topic.settings.class;
        // Topics begin at different brokers, so that the first queues of many topics do not meet at one.
        let shift = if is_manual { 0 } else { topic.number as usize };
        let mut shared: Vec<Option<u64>> = vec![None; lists.len()];
        let mut placed = Vec::with_capacity(count);
        for index in 0..count {
            let list = (index + shift) % lists.len();
            let log = match (topic.settings.layout, shared[list]) {
                (Layout::Partitioned, _) => self.new_log(class, &lists[list]),
                (Layout::Shared, Some(log)) => log,
                (Layout::Shared, None) => *shared[list].insert(self.shared_log(class, &lists[list])),
            };
            placed.push(Partition { queue: self.queue_next, log });
            self.queue_logs.insert(self.queue_next, log);
            self.queue_next += 1;
        }
        Ok(placed)
    }

    fn shared_log(&mut self, class: &LogClass, replicas: &[i32]) -> u64 {
        let is_alike = |log: &&u64| {
            let placement = self.placements.get(log);
            self.logs.get(log) == Some(class)
                && placement.is_some_and(|p| p.reassignment.is_none() && p.replicas == replicas)
        };
        if let Some(log) = self.shared.iter().find(is_alike) {
            return *log;
        }
        let log = self.new_log(class, replicas);
        self.shared.push(log);
        log
    }

    fn new_log(&mut self, class: &LogClass, replicas: &[i32]) -> u64 {
        let log = self.log_next;
        self.log_next += 1;
        self.logs.insert(log, class.clone());
        let electorate = Electorate { brokers: &self.brokers, class, mutant: self.mutant };
        self.placements.insert(log, Placement::new(replicas.to_vec(), electorate));
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
