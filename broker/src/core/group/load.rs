//! A coordinator comes to be: when this node begins to lead a partition of the internal topic, its records are read
//! from the log's start to the end that it had then, and only then requests are taken. The end is reached once the high
//! watermark has; so nothing is told that could still be lost. When leadership goes, the state goes too.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::OFFSETS_TOPIC;
use super::coordinator::Coordinator;
use super::record::GroupRecord;
use super::service::{Phase, Shard};
use super::turn::Outcome;
use crate::core::batch;
use crate::core::gather::{Gather, ReadOwner};
use crate::core::machine::{Core, Effects, RequestId};
use crate::core::types::{LogId, Now, Offset, QueueId};

/// A load under way.
#[derive(Debug)]
pub(super) struct Loading {
    coordinator: Box<Coordinator>,
    /// The next record to take.
    next: Offset,
    /// Where the log ended when the load began.
    end: Offset,
    /// Where the batches end that are being read: compaction may have taken their last records.
    reads_to: Offset,
    /// A read that waits for the disk.
    gather: Option<Gather>,
    /// When to try again what could not be read.
    pub(super) retry_at: Option<Duration>,
}

impl Core {
    /// The placement of a log changed, or the log is new: a coordinator may have to come or go.
    pub(in crate::core) fn follow_coordination(&mut self, log: LogId, now: Now, effects: &mut Effects) {
        let Some(topic) = self.metadata.topic(OFFSETS_TOPIC) else { return };
        let Some(index) = topic.partitions.iter().position(|partition| partition.log() == log) else { return };
        let queue = topic.partitions[index].queue();
        let partition = index as i32;
        let epoch = self.leader_epoch(log);
        if self.groups.shards.get(&partition).map(|shard| shard.epoch) == epoch {
            return;
        }
        self.drop_coordinator(partition, ResponseError::NotCoordinator, now, effects);
        if let Some(epoch) = epoch {
            self.load_coordinator(partition, Shard::new(log, queue, epoch), now, effects);
        }
    }

    /// The topic is gone, and every coordinator with it.
    pub(in crate::core) fn drop_coordinators(&mut self, now: Now, effects: &mut Effects) {
        let partitions: Vec<i32> = self.groups.shards.keys().copied().collect();
        for partition in partitions {
            self.drop_coordinator(partition, ResponseError::NotCoordinator, now, effects);
        }
    }

    /// An append of a coordinator came to nothing: what it believes is not what is stored.
    pub(in crate::core) fn reload_coordinator(
        &mut self,
        partition: i32,
        error: ResponseError,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some((log, queue)) = self.groups.shards.get(&partition).map(|shard| (shard.log, shard.queue)) else {
            return;
        };
        self.drop_coordinator(partition, error, now, effects);
        if let Some(epoch) = self.leader_epoch(log) {
            self.load_coordinator(partition, Shard::new(log, queue, epoch), now, effects);
        }
    }

    /// Goes on with a load that waits for the high watermark, or for a second try.
    pub(in crate::core) fn continue_load(&mut self, partition: i32, now: Now, effects: &mut Effects) {
        loop {
            let Some(shard) = self.groups.shards.get_mut(&partition) else { return };
            let (log, queue, number) = (shard.log, shard.queue, shard.number);
            let Phase::Loading(loading) = &mut shard.phase else { return };
            if loading.gather.is_some() {
                return;
            }
            let Some(source) = self.logs.get(&log) else { return };
            // A log that was reopened may have lost what was never confirmed.
            loading.end = loading.end.min(source.log_end_offset(queue));
            if loading.next >= loading.end {
                return self.finish_load(partition, now);
            }
            let plan = match source.read(queue, loading.next, LOAD_BYTES, true) {
                Ok(plan) if !plan.pieces.is_empty() => plan,
                // Above the high watermark, or corrupt: a follower or a repair may help.
                Ok(_) | Err(_) => {
                    loading.retry_at = Some(now.monotonic + LOAD_RETRY);
                    return self.note_group_deadline();
                }
            };
            let id = load_id(partition);
            let reads_to = plan.next_offset;
            let gather = self.gather(ReadOwner::GroupLoad, id, number as usize, plan.pieces, effects);
            let is_complete = gather.is_complete();
            let Some(shard) = self.groups.shards.get_mut(&partition) else { return };
            let Phase::Loading(loading) = &mut shard.phase else { return };
            (loading.gather, loading.reads_to) = (Some(gather), reads_to);
            if !is_complete || !self.take_loaded(partition, now) {
                return;
            }
        }
    }

    /// All pieces of a load's read are there.
    pub(in crate::core) fn on_load_gathered(&mut self, id: RequestId, now: Now, effects: &mut Effects) {
        let partition = id.sequence as i32;
        if self.take_loaded(partition, now) {
            self.continue_load(partition, now, effects);
        }
    }

    /// Takes the records that were read; whether the load goes on at once.
    fn take_loaded(&mut self, partition: i32, now: Now) -> bool {
        let Some(shard) = self.groups.shards.get_mut(&partition) else { return false };
        let Phase::Loading(loading) = &mut shard.phase else { return false };
        let Some(gather) = loading.gather.take() else { return false };
        let taken = gather.into_bytes().and_then(|bytes| loading.take(bytes));
        if taken.is_err() {
            loading.retry_at = Some(now.monotonic + LOAD_RETRY);
            self.note_group_deadline();
        }
        taken.is_ok()
    }

    fn load_coordinator(&mut self, partition: i32, mut shard: Shard, now: Now, effects: &mut Effects) {
        let Some(log) = self.logs.get(&shard.log) else { return };
        self.groups.loads += 1;
        shard.number = self.groups.loads;
        shard.phase = Phase::Loading(Loading {
            coordinator: Box::new(Coordinator::new(self.incarnation, shard.number)),
            next: log.log_start_offset(shard.queue),
            end: log.log_end_offset(shard.queue),
            reads_to: Offset(0),
            gather: None,
            retry_at: None,
        });
        effects.events.push((crate::points::COORDINATOR_LOADED, 1));
        self.groups.logs.insert(shard.log, partition);
        self.groups.shards.insert(partition, shard);
        self.continue_load(partition, now, effects);
    }

    fn finish_load(&mut self, partition: i32, now: Now) {
        let Some(mut shard) = self.groups.shards.remove(&partition) else { return };
        if let Phase::Loading(loading) = shard.phase {
            let mut coordinator = loading.coordinator;
            coordinator.begin(self.group_view(now));
            shard.phase = Phase::Active(coordinator);
        }
        self.groups.shards.insert(partition, shard);
        self.note_group_deadline();
    }

    fn drop_coordinator(&mut self, partition: i32, error: ResponseError, now: Now, effects: &mut Effects) {
        let Some(shard) = self.groups.shards.remove(&partition) else { return };
        self.groups.logs.remove(&shard.log);
        self.forget_internal(shard.log);
        if let Phase::Active(coordinator) = shard.phase {
            let mut outcome = Outcome::default();
            coordinator.refuse_all(error, self.group_view(now), &mut outcome);
            self.deliver_group_outcome(partition, outcome, now, effects);
        }
        self.refuse_deletes(partition, error, effects);
        self.note_group_deadline();
    }
}

impl Loading {
    pub(super) fn gather(&mut self) -> Option<&mut Gather> {
        self.gather.as_mut()
    }

    fn take(&mut self, batches: Bytes) -> Result<(), ResponseError> {
        let records = batch::read_records(batches).map_err(|_| ResponseError::KafkaStorageError)?;
        for record in records {
            if record.offset < self.next {
                continue;
            }
            self.next = record.offset.plus(1);
            match GroupRecord::decode(record.key.as_deref(), record.value.as_deref()) {
                Ok(record) => self.coordinator.replay(record),
                // A newer version wrote it: what it means is not for this one to know, as in Kafka.
                Err(error) => tracing::warn!(%error, offset = record.offset.0, "a record is passed over"),
            }
        }
        self.next = self.next.max(self.reads_to);
        Ok(())
    }
}

impl Shard {
    fn new(log: LogId, queue: QueueId, epoch: crate::core::types::LeaderEpoch) -> Shard {
        Shard { log, queue, epoch, number: 0, phase: Phase::Unread }
    }
}

/// The id under which a load's reads come back: no connection has it.
fn load_id(partition: i32) -> RequestId {
    RequestId { connection: u64::MAX, sequence: partition as u64 }
}

/// Bytes of records read at a time.
const LOAD_BYTES: usize = 1 << 20;
const LOAD_RETRY: Duration = Duration::from_secs(1);
