//! What a client knows of its cluster: one connection per node, reconnected with a growing and jittered back-off, and
//! the metadata that says who leads which partition. Producers, consumers and administrative calls of one client share
//! it. Not here: what is asked of a node (`producer`, `consumer`, `admin`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use super::connection::Connection;
use super::errors::{Attempts, CallError};
use super::{Dial, Events, RECONNECT, Timer, TopicPartition, before};
use crate::plan::draws::Draws;

/// How a client reaches its cluster.
#[derive(Clone)]
pub struct ClusterOptions {
    /// `host:port` of the nodes to ask first, at least one.
    pub bootstrap: Vec<String>,
    /// Kafka's client id.
    pub client_id: String,
    /// The entity under which this client draws its jitter.
    pub entity: u64,
    /// Longest wait for one dialling and for one answer, where the caller does not say otherwise.
    pub request_timeout: Duration,
    /// Back-off after the first failure; doubled with each further one.
    pub backoff_minimum: Duration,
    /// Largest back-off, before the jitter of at most half of it.
    pub backoff_maximum: Duration,
    /// Whether asking for a topic that is not there creates it.
    pub auto_create: bool,
    /// The client mutant P4; see `mutant::ClientMutant::RestampsAppended`.
    pub restamps: bool,
}

/// A client's view of its cluster; clones share it.
pub struct Cluster<D: Dial, T: Timer> {
    inner: Rc<Inner<D, T>>,
}

impl<D: Dial, T: Timer> Clone for Cluster<D, T> {
    fn clone(&self) -> Self {
        Cluster { inner: self.inner.clone() }
    }
}

struct Inner<D: Dial, T: Timer> {
    dial: D,
    timer: T,
    draws: Draws,
    events: Events,
    options: ClusterOptions,
    /// By address. The lock is held while dialling, so that one connection is made and callers keep their order.
    slots: RefCell<BTreeMap<String, Rc<tokio::sync::Mutex<Slot<T>>>>>,
    metadata: RefCell<Metadata>,
}

struct Slot<T: Timer> {
    connection: Option<Connection<T>>,
    was_connected: bool,
    failures: u32,
    retry_at: Duration,
}

/// A partition's leader, as the newest metadata seen says.
#[derive(Debug, Clone, Copy)]
struct Leader {
    /// None where it is not known, or is to be asked for again.
    node: Option<i32>,
    /// Metadata of an older epoch is stale, whoever sent it; -1 where the broker knows no epochs.
    epoch: i32,
}

#[derive(Debug, Clone, Copy)]
struct TopicMetadata {
    id: Uuid,
    partitions: i32,
}

#[derive(Default)]
struct Metadata {
    addresses: BTreeMap<i32, String>,
    controller: Option<i32>,
    leaders: BTreeMap<TopicPartition, Leader>,
    topics: BTreeMap<String, TopicMetadata>,
    /// How many nodes were asked for metadata so far; the next one is asked next.
    asked: usize,
}

impl<D: Dial, T: Timer> Cluster<D, T> {
    /// A view with nothing known but the bootstrap addresses.
    pub fn new(dial: D, timer: T, draws: Draws, events: Events, options: ClusterOptions) -> Cluster<D, T> {
        assert!(!options.bootstrap.is_empty(), "a client needs at least one bootstrap address");
        let inner =
            Inner { dial, timer, draws, events, options, slots: RefCell::default(), metadata: RefCell::default() };
        Cluster { inner: Rc::new(inner) }
    }

    /// The client's timer.
    pub fn timer(&self) -> &T {
        &self.inner.timer
    }

    /// The client's options.
    pub fn options(&self) -> &ClusterOptions {
        &self.inner.options
    }

    /// Tells an event.
    pub(crate) fn tell(&self, event: &'static str) {
        (self.inner.events)(event);
    }

    /// Monotonic time so far from now.
    pub fn after(&self, wait: Duration) -> Duration {
        self.inner.timer.monotonic() + wait
    }

    /// The back-off after so many failures in a row, jitter included.
    pub fn backoff(&self, label: &'static str, failures: u32) -> Duration {
        let Inner { options, draws, .. } = &*self.inner;
        let doubled = options.backoff_minimum.saturating_mul(1u32 << failures.saturating_sub(1).min(16));
        let base = doubled.min(options.backoff_maximum);
        let jitter_us = draws.range(label, options.entity, 0, base.as_micros() as u64 / 2);
        base + Duration::from_micros(jitter_us)
    }

    /// The open connection to a node, or one new attempt at it after the back-off that earlier failures ask for.
    pub async fn connect(&self, address: &str, deadline: Duration) -> Result<Connection<T>, CallError> {
        let connecting = self.connect_in_turn(address, deadline);
        match before(&self.inner.timer, deadline, connecting).await {
            Some(result) => result,
            None => Err(CallError::NotConnected {
                address: address.to_string(),
                reason: "it could not be reached in time".to_string(),
            }),
        }
    }

    async fn connect_in_turn(&self, address: &str, deadline: Duration) -> Result<Connection<T>, CallError> {
        let slot = self.slot(address);
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.connection.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        slot.connection = None;
        let Inner { timer, options, dial, events, .. } = &*self.inner;
        if slot.retry_at > timer.monotonic() {
            timer.sleep_until(slot.retry_at).await;
        }
        // Counted before the attempt, so that one that is cut short by its caller counts as well.
        slot.failures += 1;
        slot.retry_at = self.after(self.backoff("reconnect-jitter", slot.failures));
        let attempt_deadline = deadline.min(self.after(options.request_timeout));
        let not_connected = |reason: String| CallError::NotConnected { address: address.to_string(), reason };
        let stream = match before(timer, attempt_deadline, dial.dial(address)).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return Err(not_connected(error.to_string())),
            None => return Err(not_connected("dialling took too long".to_string())),
        };
        let connection =
            Connection::open(stream, address, &options.client_id, timer.clone(), events.clone(), attempt_deadline)
                .await?;
        slot.failures = 0;
        slot.retry_at = Duration::ZERO;
        if slot.was_connected {
            self.tell(RECONNECT);
        }
        slot.was_connected = true;
        slot.connection = Some(connection.clone());
        Ok(connection)
    }

    fn slot(&self, address: &str) -> Rc<tokio::sync::Mutex<Slot<T>>> {
        let mut slots = self.inner.slots.borrow_mut();
        let slot = slots.entry(address.to_string()).or_insert_with(|| {
            let slot = Slot { connection: None, was_connected: false, failures: 0, retry_at: Duration::ZERO };
            Rc::new(tokio::sync::Mutex::new(slot))
        });
        slot.clone()
    }

    /// Address of the partition's leader, asking for the metadata where it is not known.
    pub async fn leader(&self, partition: &TopicPartition, deadline: Duration) -> Result<String, CallError> {
        if let Some(address) = self.known_leader(partition) {
            return Ok(address);
        }
        let answer =
            self.refresh(std::slice::from_ref(&partition.topic), self.inner.options.auto_create, deadline).await?;
        if let Some(address) = self.known_leader(partition) {
            return Ok(address);
        }
        let code = answer.topics.first().map(|topic| topic.error_code).filter(|code| *code != 0);
        let no_leader =
            || CallError::NoLeader { partition: partition.to_string(), reason: "the metadata names none".to_string() };
        Err(code.map_or_else(no_leader, |code| CallError::Answered { api: "Metadata".to_string(), code }))
    }

    /// Address of the partition's leader as far as the metadata seen so far says; nobody is asked.
    pub fn known_leader(&self, partition: &TopicPartition) -> Option<String> {
        let metadata = self.inner.metadata.borrow();
        let leader = metadata.leaders.get(partition)?.node?;
        metadata.addresses.get(&leader).cloned()
    }

    /// The leader epoch of the newest metadata seen, -1 where none is known.
    pub fn leader_epoch(&self, partition: &TopicPartition) -> i32 {
        self.inner.metadata.borrow().leaders.get(partition).map_or(-1, |leader| leader.epoch)
    }

    /// Number of the topic's partitions, as the metadata says now.
    pub(crate) async fn partition_count(&self, topic: &str, deadline: Duration) -> Result<i32, CallError> {
        self.refresh(&[topic.to_string()], false, deadline).await?;
        Ok(self.inner.metadata.borrow().topics.get(topic).map_or(0, |topic| topic.partitions))
    }

    /// The topic's id, asking for the metadata where it is not known.
    pub(crate) async fn id_of(&self, topic: &str, deadline: Duration) -> Result<Uuid, CallError> {
        let known = |metadata: &Metadata| metadata.topics.get(topic).map(|topic| topic.id);
        if let Some(id) = known(&self.inner.metadata.borrow()) {
            return Ok(id);
        }
        self.refresh(&[topic.to_string()], false, deadline).await?;
        let id = known(&self.inner.metadata.borrow());
        id.ok_or_else(|| no_topic(topic))
    }

    /// The name of the topic with an id, which must be one of `topics`, asking for the metadata where it is not known.
    pub(crate) async fn topic_of(&self, id: Uuid, topics: &[String], deadline: Duration) -> Result<String, CallError> {
        let known = |metadata: &Metadata| {
            metadata.topics.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name.clone())
        };
        if let Some(name) = known(&self.inner.metadata.borrow()) {
            return Ok(name);
        }
        self.refresh(topics, false, deadline).await?;
        let name = known(&self.inner.metadata.borrow());
        name.ok_or_else(|| no_topic(&id.to_string()))
    }

    /// A new id for a member of a group, as members of the consumer protocol make their own.
    pub(crate) fn new_member_id(&self) -> String {
        let Inner { options, draws, .. } = &*self.inner;
        let half = || draws.draw("member-id", options.entity);
        Uuid::from_u64_pair(half(), half()).to_string()
    }

    /// Asks the next node in turn.
    pub(crate) async fn call_any<R: Request>(&self, request: &R, deadline: Duration) -> Result<R::Response, CallError> {
        let deadline = deadline.min(self.after(self.inner.options.request_timeout));
        self.connect(&self.next_to_ask(), deadline).await?.call(request, deadline).await
    }

    /// Forgets who leads a partition, so that the next call asks.
    pub fn forget_leader(&self, partition: &TopicPartition) {
        if let Some(leader) = self.inner.metadata.borrow_mut().leaders.get_mut(partition) {
            leader.node = None;
        }
    }

    /// The controller's address, or that of the first known node.
    pub async fn controller(&self, deadline: Duration) -> Result<String, CallError> {
        let answer = self.refresh(&[], false, deadline).await?;
        let metadata = self.inner.metadata.borrow();
        let known = metadata.controller.and_then(|controller| metadata.addresses.get(&controller));
        let first = metadata.addresses.values().next();
        known.or(first).cloned().ok_or_else(|| CallError::NoLeader {
            partition: "the cluster".to_string(),
            reason: format!("the metadata lists {} nodes", answer.brokers.len()),
        })
    }

    /// Asks one node, the next in turn, for the metadata of some topics, and remembers it.
    pub async fn refresh(
        &self,
        topics: &[String],
        create: bool,
        deadline: Duration,
    ) -> Result<MetadataResponse, CallError> {
        let deadline = deadline.min(self.after(self.inner.options.request_timeout));
        let connection = self.connect(&self.next_to_ask(), deadline).await?;
        let topics = topics.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(topic_name(topic))));
        let request =
            MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(create);
        let answer = connection.call(&request, deadline).await?;
        self.remember(&answer);
        Ok(answer)
    }

    /// Asks every known node once for the metadata of some topics, each no longer than one request's time-out. A leader
    /// that has been replaced and does not know it yet names itself; the greater epoch that others tell stands.
    pub async fn refresh_from_all(&self, topics: &[String], deadline: Duration) {
        let nodes = {
            let metadata = self.inner.metadata.borrow();
            metadata.addresses.len() + self.inner.options.bootstrap.len()
        };
        for _ in 0..nodes {
            // A node that does not answer tells nothing; the others do.
            let _ = self.refresh(topics, false, deadline).await;
        }
    }

    fn next_to_ask(&self) -> String {
        let mut metadata = self.inner.metadata.borrow_mut();
        let mut addresses: Vec<&String> = metadata.addresses.values().collect();
        addresses.extend(&self.inner.options.bootstrap);
        let address = addresses[metadata.asked % addresses.len()].clone();
        metadata.asked += 1;
        address
    }

    fn remember(&self, answer: &MetadataResponse) {
        let mut metadata = self.inner.metadata.borrow_mut();
        if !answer.brokers.is_empty() {
            let nodes = answer.brokers.iter();
            metadata.addresses =
                nodes.map(|node| (node.node_id.0, format!("{}:{}", node.host.as_str(), node.port))).collect();
        }
        metadata.controller = (answer.controller_id.0 >= 0).then_some(answer.controller_id.0);
        for topic in &answer.topics {
            let Some(name) = &topic.name else { continue };
            if topic.error_code == 0 {
                let known = TopicMetadata { id: topic.topic_id, partitions: topic.partitions.len() as i32 };
                metadata.topics.insert(name.to_string(), known);
            }
            for partition in &topic.partitions {
                let key = TopicPartition { topic: name.to_string(), partition: partition.partition_index };
                let epoch = partition.leader_epoch;
                let known = metadata.leaders.get(&key).map_or(-1, |leader| leader.epoch);
                // A node that was cut off tells of leaders that are none any more.
                if epoch >= 0 && epoch < known {
                    continue;
                }
                let is_led = partition.error_code == 0 && partition.leader_id.0 >= 0;
                let node = is_led.then_some(partition.leader_id.0);
                metadata.leaders.insert(key, Leader { node, epoch: epoch.max(known) });
            }
        }
    }

    /// Sends one request to the partition's leader and waits for the answer, no longer than one request's time-out.
    pub async fn call_leader<R: Request>(
        &self,
        partition: &TopicPartition,
        request: &R,
        deadline: Duration,
    ) -> Result<R::Response, CallError> {
        let deadline = deadline.min(self.after(self.inner.options.request_timeout));
        let address = self.leader(partition, deadline).await?;
        self.connect(&address, deadline).await?.call(request, deadline).await
    }

    /// Repeats a call while its failures are retriable and the deadline has not passed; gives the last result and
    /// what the failed attempts before it add up to.
    pub async fn retry<O, F: Future<Output = Result<O, CallError>>>(
        &self,
        deadline: Duration,
        mut call: impl FnMut() -> F,
    ) -> (Result<O, CallError>, Attempts) {
        let mut attempts = Attempts::default();
        let mut failures = 0;
        loop {
            let error = match call().await {
                Ok(output) => return (Ok(output), attempts),
                Err(error) => error,
            };
            attempts.add(&error);
            failures += 1;
            let next = self.after(self.backoff("retry-jitter", failures));
            if !error.is_retriable() || next >= deadline {
                return (Err(error), attempts);
            }
            self.inner.timer.sleep_until(next).await;
        }
    }
}

fn no_topic(topic: &str) -> CallError {
    CallError::NoLeader { partition: topic.to_string(), reason: "the metadata does not name the topic".to_string() }
}

/// A topic's name as the protocol's crate wants it.
pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_string()))
}
