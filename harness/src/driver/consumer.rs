//! The consumer by assignment: fetches its partitions from where it stands, seeks, and tells what it read and what it
//! could not. It commits nothing and resets its position only when told to. A position is unknown at first; a poll
//! starts such a partition at its log start.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};

use super::admin::{EARLIEST, answered, missing};
use super::cluster::{Cluster, topic_name};
use super::connection::Started;
use super::errors::CallError;
use super::records::{Damage, PlacedRecord, read_batches};
use super::{Dial, Timer, TopicPartition};

/// A consumer's limits.
#[derive(Debug, Clone, Copy)]
pub struct ConsumerOptions {
    /// Longest wait for an answer, beyond what the broker was told to wait.
    pub request_timeout: Duration,
    /// Upper bound of one answer in bytes; a broker exceeds it only for one batch.
    pub fetch_max_bytes: u32,
}

/// Where a consumer stands in a partition.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The next offset; none before the log start was asked for.
    offset: Option<i64>,
    /// The leader epoch of what lies before it, -1 where it is not known: after a seek.
    epoch: i32,
    /// The newest leader whose log is known to hold what was read (KIP-320).
    checked: i32,
}

const UNPLACED: Place = Place { offset: None, epoch: -1, checked: -1 };

/// A consumer with its positions.
pub struct Consumer<D: Dial, T: Timer> {
    cluster: Cluster<D, T>,
    options: ConsumerOptions,
    positions: BTreeMap<TopicPartition, Place>,
    /// Polls so far; each starts with another partition, for a broker fills its answer in the order of the request.
    polls: usize,
}

/// What one poll gave.
#[derive(Debug, Default)]
pub struct Polled {
    /// Partitions that were read, also where there was nothing new.
    pub read: Vec<PartitionRead>,
    /// Partitions that could not be read.
    pub failed: Vec<(TopicPartition, CallError)>,
}

/// What was read of one partition.
#[derive(Debug)]
pub struct PartitionRead {
    /// The partition.
    pub partition: TopicPartition,
    /// The position before.
    pub from: i64,
    /// The position after.
    pub next: i64,
    /// Records in the order of their offsets.
    pub records: Vec<PlacedRecord>,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// As the broker answered.
    pub high_watermark: i64,
    /// As the broker answered, -1 where it did not.
    pub log_start_offset: i64,
}

impl<D: Dial, T: Timer> Consumer<D, T> {
    /// A consumer of these partitions.
    pub fn assign(cluster: Cluster<D, T>, options: ConsumerOptions, partitions: Vec<TopicPartition>) -> Consumer<D, T> {
        let positions = partitions.into_iter().map(|partition| (partition, UNPLACED)).collect();
        Consumer { cluster, options, positions, polls: 0 }
    }

    /// The next offset that a poll reads, where it is known and the partition assigned.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.positions.get(partition)?.offset
    }

    /// Sets the position, assigning the partition if need be.
    pub fn seek(&mut self, partition: &TopicPartition, offset: i64) {
        self.positions.insert(partition.clone(), Place { offset: Some(offset), ..UNPLACED });
    }

    /// Reads a partition no more.
    pub fn unassign(&mut self, partition: &TopicPartition) {
        self.positions.remove(partition);
    }

    /// Fetches every assigned partition once, one request per leader.
    pub async fn poll(&mut self, max_wait: Duration, min_bytes: u32) -> Polled {
        let mut polled = Polled::default();
        let mut by_leader: BTreeMap<String, Vec<(TopicPartition, i64)>> = BTreeMap::new();
        for partition in self.in_turn() {
            match self.locate(&partition).await {
                Ok((address, position)) => by_leader.entry(address).or_default().push((partition, position)),
                Err(error) => polled.failed.push((partition, error)),
            }
        }
        let mut started = Vec::new();
        for (address, asked) in by_leader {
            match self.start_fetch(&address, &asked, max_wait, min_bytes).await {
                Ok(request) => started.push((asked, request)),
                Err(error) => self.fail_all(asked, &error, &mut polled),
            }
        }
        for (asked, request) in started {
            match request.answer().await {
                Ok(answer) => self.take(asked, &answer, &mut polled),
                Err(error) => self.fail_all(asked, &error, &mut polled),
            }
        }
        polled
    }

    fn in_turn(&mut self) -> Vec<TopicPartition> {
        let mut partitions: Vec<_> = self.positions.keys().cloned().collect();
        if !partitions.is_empty() {
            let first = self.polls % partitions.len();
            partitions.rotate_left(first);
        }
        self.polls += 1;
        partitions
    }

    /// The partition's leader and position, asking for what is not known.
    async fn locate(&mut self, partition: &TopicPartition) -> Result<(String, i64), CallError> {
        let deadline = self.cluster.after(self.options.request_timeout);
        let address = self.cluster.leader(partition, deadline).await?;
        if let Some(position) = self.position(partition) {
            return Ok((address, self.checked(partition, position, deadline).await?));
        }
        let listed = self.cluster.list_offset(partition, EARLIEST, deadline).await?;
        self.seek(partition, listed.offset);
        Ok((address, listed.offset))
    }

    /// The position, after a new leader was asked whether its log holds what was read. Where it does not, the log was
    /// truncated (which a clean election never does), and the position goes back to where the logs part.
    async fn checked(
        &mut self,
        partition: &TopicPartition,
        position: i64,
        deadline: Duration,
    ) -> Result<i64, CallError> {
        let leader_epoch = self.cluster.leader_epoch(partition);
        let place = self.positions.get(partition).copied().unwrap_or(UNPLACED);
        if place.epoch < 0 || leader_epoch <= place.checked {
            return Ok(position);
        }
        let end = self.cluster.end_of_epoch(partition, place.epoch, deadline).await?;
        let offset = if end >= 0 { end.min(position) } else { position };
        self.positions.insert(partition.clone(), Place { offset: Some(offset), checked: leader_epoch, ..place });
        Ok(offset)
    }

    async fn start_fetch(
        &self,
        address: &str,
        asked: &[(TopicPartition, i64)],
        max_wait: Duration,
        min_bytes: u32,
    ) -> Result<Started<FetchRequest, T>, CallError> {
        let limit = i32::try_from(self.options.fetch_max_bytes).unwrap_or(i32::MAX);
        let mut topics: Vec<FetchTopic> = Vec::new();
        for (partition, position) in asked {
            let fetched = FetchPartition::default()
                .with_partition(partition.partition)
                .with_current_leader_epoch(self.cluster.leader_epoch(partition))
                .with_fetch_offset(*position)
                .with_partition_max_bytes(limit);
            match topics.last_mut() {
                Some(topic) if topic.topic.as_str() == partition.topic => topic.partitions.push(fetched),
                Some(_) | None => topics.push(
                    FetchTopic::default().with_topic(topic_name(&partition.topic)).with_partitions(vec![fetched]),
                ),
            }
        }
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(max_wait.as_millis() as i32)
            .with_min_bytes(i32::try_from(min_bytes).unwrap_or(i32::MAX))
            .with_max_bytes(limit)
            .with_topics(topics);
        let connection = self.cluster.connect(address, self.cluster.after(self.options.request_timeout)).await?;
        connection.start(&request, self.cluster.after(max_wait + self.options.request_timeout))
    }

    fn take(&mut self, asked: Vec<(TopicPartition, i64)>, answer: &FetchResponse, polled: &mut Polled) {
        if let Err(error) = answered("Fetch", answer.error_code) {
            return self.fail_all(asked, &error, polled);
        }
        for (partition, from) in asked {
            let topics = answer.responses.iter().filter(|topic| topic.topic.as_str() == partition.topic);
            let mut found = topics.flat_map(|topic| &topic.partitions);
            let found = found.find(|found| found.partition_index == partition.partition);
            let checked = found.ok_or_else(|| missing("Fetch", &partition)).and_then(|found| {
                answered("Fetch", found.error_code)?;
                Ok(found)
            });
            match self.cluster.forgetting_stale(&partition, checked) {
                Ok(found) => {
                    let (read, epoch) = read_partition(partition, from, found);
                    let before = self.positions.get(&read.partition).copied().unwrap_or(UNPLACED);
                    let checked = before.checked.max(self.cluster.leader_epoch(&read.partition));
                    let place = Place { offset: Some(read.next), epoch: epoch.unwrap_or(before.epoch), checked };
                    self.positions.insert(read.partition.clone(), place);
                    polled.read.push(read);
                }
                Err(error) => polled.failed.push((partition, error)),
            }
        }
    }

    fn fail_all(&self, asked: Vec<(TopicPartition, i64)>, error: &CallError, polled: &mut Polled) {
        for (partition, _) in asked {
            if error.has_stale_metadata() {
                self.cluster.forget_leader(&partition);
            }
            polled.failed.push((partition, error.clone()));
        }
    }
}

/// What was read, and the leader epoch of its last batch.
fn read_partition(partition: TopicPartition, from: i64, found: &PartitionData) -> (PartitionRead, Option<i32>) {
    let contents = read_batches(found.records.clone().unwrap_or_default(), from);
    let read = PartitionRead {
        partition,
        from,
        next: contents.next_offset.unwrap_or(from),
        records: contents.records,
        damage: contents.damage,
        high_watermark: found.high_watermark,
        log_start_offset: found.log_start_offset,
    };
    (read, contents.leader_epoch)
}
