//! What trials ask of a cluster through librdkafka beside consuming: topics, records, end offsets, commits, leaders.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::consumers::{ConsumerError, kafka_error};

/// How long one answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
const STEP: Duration = Duration::from_millis(20);

/// Settings that all clients of a cluster have.
pub(crate) fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "mqassay-consumers")
        .set("broker.address.family", "v4")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.max.ms", "500")
        .set("topic.metadata.refresh.interval.ms", "1000");
    config
}

/// Waits for a condition, at most `PATIENCE`.
pub(crate) fn wait_until(
    what: &str,
    is_so: &mut dyn FnMut() -> Result<bool, ConsumerError>,
) -> Result<(), ConsumerError> {
    let start = Instant::now();
    while !is_so()? {
        if start.elapsed() > PATIENCE {
            return Err(ConsumerError::Late { what: what.to_owned(), seconds: PATIENCE.as_secs() });
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

/// An administrator of a cluster.
pub(crate) struct Admin {
    client: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl Admin {
    /// Connects when it is first used.
    pub(crate) fn connect(bootstrap: &str) -> Result<Admin, ConsumerError> {
        let client = config(bootstrap).create().map_err(kafka_error("create an admin client"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(crate::consumers::io_error("start a runtime for", "the admin client"))?;
        Ok(Admin { client, runtime })
    }

    /// Makes a topic and waits for its leaders; tries again while a young cluster has too few brokers for it.
    pub(crate) fn create(&self, topic: &str, queues: u32, replicas: u32) -> Result<(), ConsumerError> {
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        wait_until("the topic's creation", &mut || {
            let new = NewTopic::new(topic, queues as i32, TopicReplication::Fixed(replicas as i32));
            let results = self.runtime.block_on(self.client.create_topics([&new], &options));
            let results = results.map_err(kafka_error("create a topic"))?;
            match results.into_iter().next() {
                Some(Err((_, rdkafka::types::RDKafkaErrorCode::InvalidReplicationFactor))) => Ok(false),
                Some(Err((_, code))) => Err(kafka_error("create a topic")(KafkaError::AdminOp(code))),
                _ => Ok(true),
            }
        })?;
        self.wait_for_leaders(topic, queues)
    }

    /// Adds queues, so that there are as many as this.
    pub(crate) fn grow(&self, topic: &str, queues: u32) -> Result<(), ConsumerError> {
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        let new = NewPartitions::new(topic, queues as usize);
        let results = self.runtime.block_on(self.client.create_partitions([&new], &options));
        let results = results.map_err(kafka_error("add queues"))?;
        if let Some(Err((_, code))) = results.into_iter().next() {
            return Err(kafka_error("add queues")(KafkaError::AdminOp(code)));
        }
        self.wait_for_leaders(topic, queues)
    }

    fn wait_for_leaders(&self, topic: &str, queues: u32) -> Result<(), ConsumerError> {
        wait_until("the election of the queues' leaders", &mut || {
            let Ok(metadata) = self.client.inner().fetch_metadata(Some(topic), PATIENCE) else { return Ok(false) };
            let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
            Ok(partitions.iter().filter(|one| one.leader() >= 0 && one.error().is_none()).count() == queues as usize)
        })
    }

    /// Address of the leader of the topic's first queue.
    pub(crate) fn leader(&self, topic: &str) -> Result<String, ConsumerError> {
        let metadata = self.client.inner().fetch_metadata(Some(topic), PATIENCE);
        let metadata = metadata.map_err(kafka_error("ask for the leader"))?;
        let leader = metadata.topics().first().and_then(|topic| topic.partitions().first()).map(|one| one.leader());
        let broker = metadata.brokers().iter().find(|broker| Some(broker.id()) == leader);
        let broker = broker.ok_or(ConsumerError::Late { what: "the leader's election".to_owned(), seconds: 0 })?;
        Ok(format!("{}:{}", broker.host(), broker.port()))
    }
}

/// A group as seen by someone who is not in it.
pub(crate) struct Onlooker {
    consumer: BaseConsumer,
    topic: String,
    queues: u32,
}

impl Onlooker {
    /// Connects when it is first used.
    pub(crate) fn connect(bootstrap: &str, topic: &str, queues: u32, group: &str) -> Result<Onlooker, ConsumerError> {
        let mut config = config(bootstrap);
        config.set("group.id", group).set("enable.auto.commit", "false");
        let consumer = config.create().map_err(kafka_error("create a consumer"))?;
        Ok(Onlooker { consumer, topic: topic.to_owned(), queues })
    }

    /// End offsets by queue.
    pub(crate) fn ends(&self) -> Result<Vec<i64>, ConsumerError> {
        let end = |queue| {
            let watermarks = self.consumer.fetch_watermarks(&self.topic, queue, PATIENCE);
            watermarks.map(|(_, high)| high).map_err(kafka_error("ask for end offsets"))
        };
        (0..self.queues as i32).map(end).collect()
    }

    /// Committed offsets by queue, 0 where there is none.
    pub(crate) fn committed(&self) -> Result<Vec<i64>, ConsumerError> {
        let mut asked = TopicPartitionList::new();
        for queue in 0..self.queues as i32 {
            asked.add_partition(&self.topic, queue);
        }
        let found = self.consumer.committed_offsets(asked, PATIENCE).map_err(kafka_error("ask for commits"))?;
        let offset = |queue| match found.find_partition(&self.topic, queue).map(|one| one.offset()) {
            Some(Offset::Offset(offset)) => offset,
            _ => 0,
        };
        Ok((0..self.queues as i32).map(offset).collect())
    }

    /// Sends the group, which must have no members, back to the first offsets.
    pub(crate) fn rewind(&self) -> Result<(), ConsumerError> {
        let mut first = TopicPartitionList::new();
        for queue in 0..self.queues as i32 {
            let added = first.add_partition_offset(&self.topic, queue, Offset::Offset(0));
            added.map_err(kafka_error("name the queues"))?;
        }
        let mut last = None;
        let outcome = wait_until("the group's rewind", &mut || {
            last = self.consumer.commit(&first, CommitMode::Sync).err();
            Ok(last.is_none())
        });
        match (outcome, last) {
            (Err(_), Some(source)) => Err(kafka_error("rewind the group")(source)),
            (outcome, _) => outcome,
        }
    }

    /// Whether everything has been committed.
    pub(crate) fn is_done(&self) -> Result<bool, ConsumerError> {
        // While a leader is being elected nobody knows.
        let (Ok(ends), Ok(committed)) = (self.ends(), self.committed()) else { return Ok(false) };
        Ok(ends.iter().zip(&committed).all(|(end, committed)| committed >= end))
    }
}

/// A name that no other topic or group of any trial has.
pub(crate) fn fresh(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{what}-{now}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Partition to next offset, as librdkafka takes it.
pub(crate) fn offsets(topic: &str, next: &BTreeMap<i32, i64>) -> Result<TopicPartitionList, ConsumerError> {
    let mut list = TopicPartitionList::new();
    for (queue, offset) in next {
        let added = list.add_partition_offset(topic, *queue, Offset::Offset(*offset));
        added.map_err(kafka_error("name the offsets to commit"))?;
    }
    Ok(list)
}
