//! Changes of the metadata: each is a record of the metadata log, applied once it is durable, in the log's order.
//! A call that makes several changes is answered when the last of them is applied or refused.
//! Not here: what the calls ask (`topics`, `producer_ids`, `describe`) and what a record means (`metadata`).

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use std::io;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest};

use super::batch::Batch;
use super::log::{DiskEffect, Log};
use super::machine::{Answer, Core, Effects, RequestId};
use super::metadata::{Applied, MetadataRecord, Topic};
use super::produce::LEADER_EPOCH;
use super::settings::Layout;
use super::types::{LogId, Now, Offset, Position, QueueId};
use crate::points;
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

/// Changes that are not durable yet, and the calls that wait for them.
#[derive(Debug, Default)]
pub(super) struct Admin {
    calls: BTreeMap<RequestId, AdminCall>,
    /// In the order of the log.
    waits: VecDeque<MetadataWait>,
    snapshot_pending: Option<Offset>,
}

/// A call that waits for its changes.
#[derive(Debug)]
pub(super) struct AdminCall {
    pub(super) header: RequestHeader,
    pub(super) answer: AdminAnswer,
    pub(super) outstanding: usize,
}

/// What a call is answered with.
#[derive(Debug)]
pub(super) enum AdminAnswer {
    /// This, with the changes' results filled in.
    Response(Response),
    /// The topics as they are then.
    Topics(MetadataRequest),
    /// The coordinators as they are then.
    Coordinators(FindCoordinatorRequest),
}

/// Where a change's result goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct AdminSlot {
    pub(super) id: RequestId,
    pub(super) outer: usize,
    pub(super) inner: usize,
}

#[derive(Debug)]
struct MetadataWait {
    end: Position,
    record: MetadataRecord,
    slot: Option<AdminSlot>,
}

impl Admin {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.waits.is_empty()
    }

    /// Forgets what is owed; the changes themselves stand.
    pub(super) fn forget(&mut self, ids: RangeInclusive<RequestId>) {
        let gone: Vec<RequestId> = self.calls.range(ids).map(|(id, _)| *id).collect();
        gone.iter().for_each(|id| drop(self.calls.remove(id)));
    }
}

impl Core {
    /// Appends a record; its result goes to the slot when it is applied.
    pub(super) fn submit(
        &mut self,
        record: MetadataRecord,
        slot: Option<AdminSlot>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), ResponseError> {
        let batch = Batch::of_values(&[record.encode()], now.wall_ms);
        let log = self.logs.get_mut(&LogId::METADATA).expect("the metadata log lives as long as the core");
        let appended = log
            .append(QueueId::METADATA, batch, LEADER_EPOCH, now, &mut effects.disk)
            .map_err(|_| ResponseError::KafkaStorageError)?;
        self.mark_dirty(LogId::METADATA);
        self.admin.waits.push_back(MetadataWait { end: appended.end, record, slot });
        Ok(())
    }

    /// Answers a call at once, or when its changes are applied.
    pub(super) fn keep_or_answer_admin(&mut self, id: RequestId, call: AdminCall, effects: &mut Effects) {
        if call.outstanding > 0 {
            self.admin.calls.insert(id, call);
            return;
        }
        let response = match call.answer {
            AdminAnswer::Response(response) => response,
            AdminAnswer::Topics(request) => Response::Metadata(self.topics_response(&call.header, &request)),
            AdminAnswer::Coordinators(request) => Response::FindCoordinator(self.coordinators_response(&request)),
        };
        effects.replies.push((id, Answer::Response(call.header, Box::new(response))));
    }

    pub(super) fn on_metadata_progress(&mut self, counted: Position, now: Now, effects: &mut Effects) {
        while self.admin.waits.front().is_some_and(|wait| wait.end <= counted) {
            let Some(MetadataWait { record, slot, .. }) = self.admin.waits.pop_front() else { break };
            let applied = self.metadata.apply(record);
            effects.points.push(points::METADATA_APPLIED);
            self.on_applied(&applied, now, effects);
            if let Some(slot) = slot {
                self.settle_admin(slot, Ok(&applied), effects);
            }
        }
        self.answer_init_producer_ids(now, effects);
        self.write_snapshot(effects);
    }

    /// The metadata log is offline: what was not durable is gone.
    pub(super) fn refuse_metadata_waits(&mut self, effects: &mut Effects) {
        for wait in std::mem::take(&mut self.admin.waits) {
            if let Some(slot) = wait.slot {
                self.settle_admin(slot, Err(ResponseError::KafkaStorageError), effects);
            }
        }
        self.refuse_init_producer_ids(effects);
    }

    pub(super) fn on_snapshot(&mut self, result: Result<(), io::ErrorKind>, now: Now, effects: &mut Effects) {
        let Some(offset) = self.admin.snapshot_pending.take() else { return };
        if result.is_err() {
            // The log still holds every record; the next snapshot is tried after as many records again.
            self.snapshot_at = self.metadata.record_next();
            return;
        }
        self.snapshot_at = offset;
        if let Some(log) = self.logs.get_mut(&LogId::METADATA) {
            log.apply_log_start(QueueId::METADATA, offset);
            log.retain(now, &mut effects.disk);
        }
    }

    fn write_snapshot(&mut self, effects: &mut Effects) {
        let next = self.metadata.record_next();
        let records = next.0.saturating_sub(self.snapshot_at.0).unsigned_abs();
        if records < self.config.snapshot_records || self.admin.snapshot_pending.is_some() {
            return;
        }
        let (name, bytes) = self.metadata.encode_snapshot();
        self.admin.snapshot_pending = Some(next);
        effects.disk.push(DiskEffect::WriteSnapshot { name, bytes });
    }

    /// Makes the logs follow the state.
    fn on_applied(&mut self, applied: &Applied, now: Now, effects: &mut Effects) {
        match applied {
            Applied::PartitionsAdded { name, first } => {
                let Some(topic) = self.metadata.topic(name) else { return };
                let class = topic.settings.class.clone();
                let shared = topic.settings.layout == Layout::Shared;
                let added = topic.partitions.len() - first;
                let logs: Vec<LogId> = topic.partitions[*first..].iter().map(|partition| partition.log()).collect();
                let settings = self.log_settings(&class, shared, added);
                for id in logs {
                    if !self.logs.contains_key(&id) {
                        self.logs.insert(id, Log::new(id, settings.clone(), self.mutant));
                        self.on_placement(id, now, effects);
                        self.follow_coordination(id, now, effects);
                    }
                }
            }
            Applied::TopicDeleted { name, topic } => {
                self.forget_committed(name, now, effects);
                self.remove_topic(topic, effects);
            }
            Applied::LogStartMoved { log, queue, offset } => {
                if let Some(log) = self.logs.get_mut(log) {
                    log.apply_log_start(*queue, *offset);
                }
                self.wake_fetches(*queue);
            }
            Applied::ProducerIdsTaken { first, count } => self.producer_ids.refill(*first, *count),
            Applied::Placements(logs) => {
                self.on_brokers_changed(now, effects);
                for log in logs {
                    self.on_placement(*log, now, effects);
                    self.follow_coordination(*log, now, effects);
                }
            }
            Applied::ConfigChanged { logs: _ } | Applied::ClusterNamed | Applied::Refused(_) => {}
        }
    }

    fn remove_topic(&mut self, topic: &Topic, effects: &mut Effects) {
        for partition in &topic.partitions {
            self.wake_fetches(partition.queue());
            match topic.settings.layout {
                Layout::Shared => {
                    if let Some(log) = self.logs.get_mut(&partition.log()) {
                        log.remove_queue(partition.queue());
                    }
                }
                Layout::Partitioned => {
                    self.refuse_produces(partition.log(), ResponseError::UnknownTopicOrPartition, effects);
                    if let Some(log) = self.forget_log(partition.log()) {
                        log.remove(&mut effects.disk);
                    }
                }
            }
        }
    }

    fn settle_admin(&mut self, slot: AdminSlot, result: Result<&Applied, ResponseError>, effects: &mut Effects) {
        // The connection may have closed meanwhile.
        let Some(mut call) = self.admin.calls.remove(&slot.id) else { return };
        if let AdminAnswer::Response(response) = &mut call.answer {
            let result = match result {
                Ok(Applied::Refused(refusal)) => Err(super::topics::refusal_error(*refusal)),
                Ok(applied) => Ok(applied),
                Err(error) => Err(error),
            };
            self.fill_topics_response(response, slot, result);
        }
        call.outstanding -= 1;
        self.keep_or_answer_admin(slot.id, call, effects);
    }
}
