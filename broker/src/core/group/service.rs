//! Groups as the node offers them: every request finds the coordinator of its group, what coordinators decide is
//! appended, and answers that need it wait until it is confirmed. FindCoordinator (0 to 6), JoinGroup (0 to 9),
//! SyncGroup (0 to 5), Heartbeat (0 to 4), LeaveGroup (0 to 5), OffsetCommit (2 to 9), OffsetFetch (1 to 9),
//! OffsetDelete (0), ListGroups (0 to 5), DescribeGroups (0 to 6), DeleteGroups (0 to 2),
//! ConsumerGroupHeartbeat (0 to 1), ConsumerGroupDescribe (0 to 1).
//! Departures from Kafka: FindCoordinator creates the internal topic and answers when it exists.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, ListGroupsRequest, ListGroupsResponse, OffsetFetchRequest,
};

use super::coordinator::{Call, Coordinator};
use super::load::Loading;
use super::offsets::{FetchOffsets, fetch_refused};
use super::turn::{Caller, Outcome, View};
use super::{OFFSETS_TOPIC, partition_of};
use crate::core::authorized;
use crate::core::batch::Batch;
use crate::core::gather::Gather;
use crate::core::internal::InternalWait;
use crate::core::machine::{Answer, Core, Effects, RequestId};
use crate::core::types::{LeaderEpoch, LogId, Now, QueueId};
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

/// The coordinators of this node.
#[derive(Debug, Default)]
pub(in crate::core) struct Groups {
    /// By partition of the internal topic.
    pub(super) shards: BTreeMap<i32, Shard>,
    /// The same partitions by log.
    pub(super) logs: BTreeMap<LogId, i32>,
    /// How many loads were begun.
    pub(super) loads: u64,
    deletes: BTreeMap<RequestId, PendingDelete>,
    /// The deadline that the core knows of.
    pub(in crate::core) noted: Option<Duration>,
}

/// A partition of the internal topic that this node leads.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) log: LogId,
    pub(super) queue: QueueId,
    pub(super) epoch: LeaderEpoch,
    /// Counts the loads of the process: what waits for an older one waits in vain.
    pub(super) number: u64,
    pub(super) phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// About to be loaded.
    Unread,
    Loading(Loading),
    Active(Box<Coordinator>),
}

/// A DeleteGroups of which some groups wait for their append.
#[derive(Debug)]
struct PendingDelete {
    header: RequestHeader,
    response: DeleteGroupsResponse,
    /// Places in the response that wait, with the partition of their group.
    waiting: BTreeMap<usize, i32>,
}

impl Groups {
    pub(in crate::core) fn is_empty(&self) -> bool {
        self.deletes.is_empty()
    }

    pub(in crate::core) fn forget(&mut self, ids: RangeInclusive<RequestId>) {
        self.deletes.retain(|id, _| !ids.contains(id));
    }

    /// The read of a load that is still wanted.
    pub(in crate::core) fn gather_of(&mut self, id: RequestId, number: usize) -> Option<&mut Gather> {
        let shard = self.shards.get_mut(&(id.sequence as i32))?;
        match &mut shard.phase {
            Phase::Loading(loading) if shard.number == number as u64 => loading.gather(),
            Phase::Loading(_) | Phase::Unread | Phase::Active(_) => None,
        }
    }

    /// The partition that a log holds, where this node coordinates it.
    pub(in crate::core) fn partition_of_log(&self, log: LogId) -> Option<i32> {
        self.logs.get(&log).copied()
    }

    fn next_deadline(&self) -> Option<Duration> {
        let deadlines = self.shards.values().filter_map(|shard| match &shard.phase {
            Phase::Active(coordinator) => coordinator.next_deadline(),
            Phase::Loading(loading) => loading.retry_at,
            Phase::Unread => None,
        });
        deadlines.min()
    }

    fn active(&mut self, partition: i32) -> Option<&mut Coordinator> {
        match &mut self.shards.get_mut(&partition)?.phase {
            Phase::Active(coordinator) => Some(coordinator),
            Phase::Loading(_) | Phase::Unread => None,
        }
    }
}

impl Core {
    pub(in crate::core) fn group_view(&self, now: Now) -> View<'_> {
        View { now, metadata: &self.metadata, settings: &self.config.group, mutant: self.mutant }
    }

    /// Takes a request that concerns one group.
    pub(in crate::core) fn call_group(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        call: Call,
        now: Now,
        effects: &mut Effects,
    ) {
        let caller = Caller { id, header };
        let partition = match self.coordinated_partition(call.group()) {
            Ok(partition) => partition,
            Err(error) => {
                let response = Box::new(call.refused(error).into_response());
                return effects.replies.push((id, Answer::Response(header, response)));
            }
        };
        self.with_coordinator(partition, now, effects, |coordinator, view, out| {
            coordinator.call(caller, call, view, out);
        });
    }

    pub(in crate::core) fn fetch_offsets(&self, header: &RequestHeader, request: OffsetFetchRequest) -> Response {
        let wanted = super::fetches::wanted(header.version, request);
        let answers = wanted.iter().map(|wanted| self.fetch_offsets_of(wanted));
        Response::OffsetFetch(super::fetches::response(header.version, answers.collect()))
    }

    pub(in crate::core) fn list_groups(&self, request: &ListGroupsRequest) -> Response {
        let mut response = ListGroupsResponse::default();
        for shard in self.groups.shards.values() {
            match &shard.phase {
                Phase::Active(coordinator) => response.groups.extend(coordinator.list(request)),
                Phase::Loading(_) | Phase::Unread => {
                    response.error_code = ResponseError::CoordinatorLoadInProgress.code();
                }
            }
        }
        Response::ListGroups(response)
    }

    pub(in crate::core) fn describe_groups(&self, header: &RequestHeader, request: &DescribeGroupsRequest) -> Response {
        let groups = request.groups.iter().map(|id| match self.coordinator_of(id) {
            Ok(coordinator) => coordinator.describe(id, header.version),
            Err(error) => super::describe::describe_refused(id, error),
        });
        let mut groups: Vec<_> = groups.collect();
        for group in groups.iter_mut().filter(|group| group.error_code == 0) {
            group.authorized_operations = authorized::told(request.include_authorized_operations, authorized::GROUP);
        }
        Response::DescribeGroups(DescribeGroupsResponse::default().with_groups(groups))
    }

    pub(in crate::core) fn describe_consumer_groups(&self, request: &ConsumerGroupDescribeRequest) -> Response {
        let groups = request.group_ids.iter().map(|id| match self.coordinator_of(id) {
            Ok(coordinator) => coordinator.describe_consumer(id, &self.metadata),
            Err(error) => super::describe::describe_consumer_refused(id, error),
        });
        let mut groups: Vec<_> = groups.collect();
        for group in groups.iter_mut().filter(|group| group.error_code == 0) {
            group.authorized_operations = authorized::told(request.include_authorized_operations, authorized::GROUP);
        }
        let response = ConsumerGroupDescribeResponse::default().with_groups(groups);
        Response::ConsumerGroupDescribe(response)
    }

    pub(in crate::core) fn delete_groups(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: DeleteGroupsRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let results =
            request.groups_names.iter().map(|group| DeletableGroupResult::default().with_group_id(group.clone()));
        let response = DeleteGroupsResponse::default().with_results(results.collect());
        let pending = PendingDelete { header, response, waiting: BTreeMap::new() };
        self.groups.deletes.insert(id, pending);
        for (slot, group) in request.groups_names.iter().enumerate() {
            let result = self.coordinated_partition(group).and_then(|partition| {
                if let Some(pending) = self.groups.deletes.get_mut(&id) {
                    pending.waiting.insert(slot, partition);
                }
                self.with_coordinator(partition, now, effects, |coordinator, view, out| {
                    coordinator.delete_group(group, (id, slot), view, out)
                })
                .unwrap_or(Err(ResponseError::NotCoordinator))
            });
            if let Err(error) = result {
                self.settle_delete(id, slot, Err(error));
            }
        }
        self.answer_delete(id, effects);
    }

    /// Appends of a partition up to this number are confirmed.
    pub(in crate::core) fn on_group_confirmed(
        &mut self,
        partition: i32,
        load: u64,
        number: u64,
        now: Now,
        effects: &mut Effects,
    ) {
        if self.groups.shards.get(&partition).map(|shard| shard.number) == Some(load) {
            self.with_coordinator(partition, now, effects, |coordinator, view, out| {
                coordinator.confirm(number, view, out);
            });
        }
    }

    pub(in crate::core) fn on_group_deadline(&mut self, now: Now, effects: &mut Effects) {
        self.groups.noted = None;
        let partitions: Vec<i32> = self.groups.shards.keys().copied().collect();
        for partition in partitions {
            let Some(shard) = self.groups.shards.get_mut(&partition) else { continue };
            match &mut shard.phase {
                Phase::Active(coordinator) => {
                    if coordinator.next_deadline().is_some_and(|at| at <= now.monotonic) {
                        self.with_coordinator(partition, now, effects, |coordinator, view, out| {
                            coordinator.on_deadline(view, out);
                        });
                    }
                }
                Phase::Loading(loading) => {
                    if loading.retry_at.is_some_and(|at| at <= now.monotonic) {
                        loading.retry_at = None;
                        self.continue_load(partition, now, effects);
                    }
                }
                Phase::Unread => {}
            }
        }
        self.note_group_deadline();
    }

    /// A topic is gone: what was committed of it goes too.
    pub(in crate::core) fn forget_committed(&mut self, topic: &str, now: Now, effects: &mut Effects) {
        if topic == OFFSETS_TOPIC {
            return self.drop_coordinators(now, effects);
        }
        let partitions: Vec<i32> = self.groups.shards.keys().copied().collect();
        for partition in partitions {
            self.with_coordinator(partition, now, effects, |coordinator, view, out| {
                coordinator.forget_topic(topic, view, out);
            });
        }
    }

    /// Keeps the groups' place in the order of deadlines up to date.
    pub(in crate::core) fn note_group_deadline(&mut self) {
        let wanted = self.groups.next_deadline();
        if wanted != self.groups.noted {
            self.move_group_deadline(self.groups.noted, wanted);
            self.groups.noted = wanted;
        }
    }

    /// Does what an event brought about.
    pub(super) fn deliver_group_outcome(&mut self, partition: i32, outcome: Outcome, now: Now, effects: &mut Effects) {
        effects.events.extend(outcome.events);
        for (caller, answer) in outcome.replies {
            let response = Box::new(answer.into_response());
            effects.replies.push((caller.id, Answer::Response(caller.header, response)));
        }
        for (id, slot) in outcome.deleted {
            self.settle_delete(id, slot, Ok(()));
            self.answer_delete(id, effects);
        }
        if outcome.records.is_empty() {
            return;
        }
        let Some(shard) = self.groups.shards.get(&partition) else { return };
        let (log, queue, load) = (shard.log, shard.queue, shard.number);
        let Phase::Active(coordinator) = &shard.phase else { return };
        let then = InternalWait::Group { partition, load, number: coordinator.appended() };
        let records: Vec<_> = outcome.records.into_iter().map(super::record::GroupRecord::encode).collect();
        let batch = Batch::of_keyed(&records, now.wall_ms);
        if let Err(error) = self.append_internal(log, queue, batch, then, now, effects) {
            self.reload_coordinator(partition, error, now, effects);
        }
    }

    /// DeleteGroups that wait for a coordinator that is no more.
    pub(super) fn refuse_deletes(&mut self, partition: i32, error: ResponseError, effects: &mut Effects) {
        let ids: Vec<RequestId> = self.groups.deletes.keys().copied().collect();
        for id in ids {
            let Some(pending) = self.groups.deletes.get(&id) else { continue };
            let slots: Vec<usize> =
                pending.waiting.iter().filter(|(_, of)| **of == partition).map(|(slot, _)| *slot).collect();
            slots.iter().for_each(|slot| self.settle_delete(id, *slot, Err(error)));
            self.answer_delete(id, effects);
        }
    }

    fn with_coordinator<T>(
        &mut self,
        partition: i32,
        now: Now,
        effects: &mut Effects,
        act: impl FnOnce(&mut Coordinator, View<'_>, &mut Outcome) -> T,
    ) -> Option<T> {
        let mut outcome = Outcome::default();
        let view = View { now, metadata: &self.metadata, settings: &self.config.group, mutant: self.mutant };
        let result = act(self.groups.active(partition)?, view, &mut outcome);
        self.deliver_group_outcome(partition, outcome, now, effects);
        self.note_group_deadline();
        Some(result)
    }

    /// The partition of a group, where its coordinator is here and takes requests.
    fn coordinated_partition(&self, group: &str) -> Result<i32, ResponseError> {
        let Some(topic) = self.metadata.topic(OFFSETS_TOPIC) else {
            return Err(ResponseError::CoordinatorNotAvailable);
        };
        let partition = partition_of(group, topic.partitions.len());
        match self.groups.shards.get(&partition).map(|shard| &shard.phase) {
            None => Err(ResponseError::NotCoordinator),
            Some(Phase::Loading(_) | Phase::Unread) => Err(ResponseError::CoordinatorLoadInProgress),
            Some(Phase::Active(_)) => Ok(partition),
        }
    }

    fn coordinator_of(&self, group: &str) -> Result<&Coordinator, ResponseError> {
        let partition = self.coordinated_partition(group)?;
        match self.groups.shards.get(&partition).map(|shard| &shard.phase) {
            Some(Phase::Active(coordinator)) => Ok(coordinator),
            Some(Phase::Loading(_) | Phase::Unread) | None => Err(ResponseError::NotCoordinator),
        }
    }

    fn fetch_offsets_of(
        &self,
        wanted: &FetchOffsets,
    ) -> kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup {
        match self.coordinator_of(&wanted.group) {
            Ok(coordinator) => coordinator.fetch_offsets(wanted),
            Err(error) => fetch_refused(wanted, error),
        }
    }

    fn settle_delete(&mut self, id: RequestId, slot: usize, result: Result<(), ResponseError>) {
        // The connection may have closed meanwhile.
        let Some(pending) = self.groups.deletes.get_mut(&id) else { return };
        pending.waiting.remove(&slot);
        pending.response.results[slot].error_code = result.err().map_or(0, |error| error.code());
    }

    fn answer_delete(&mut self, id: RequestId, effects: &mut Effects) {
        if self.groups.deletes.get(&id).is_some_and(|pending| pending.waiting.is_empty())
            && let Some(done) = self.groups.deletes.remove(&id)
        {
            let response = Box::new(Response::DeleteGroups(done.response));
            effects.replies.push((id, Answer::Response(done.header, response)));
        }
    }
}
