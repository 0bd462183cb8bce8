//! The core as one value: it takes the time and an event, and appends effects to buffers that its caller owns.
//! Start at `Core::step` and `Core::end_turn`. Replies that need durability are emitted by the event that confirms it.
//! Not here: what single calls do; see the files that `core` lists.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::admin::Admin;
use super::batch;
use super::config::{Advertised, NodeConfig};
use super::control::Control;
use super::fetch::Fetches;
use super::gather::ColdRead;
use super::group::coordinator::Call;
use super::group::requests::{beat_call, join_call};
use super::group::service::Groups;
use super::internal::InternalAppends;
use super::list_offsets::Lookups;
use super::log::{CompactionSettings, DiskEffect, DiskEvent, Flush, Halt, Log, LogSettings, Progress, Recovered};
use super::metadata::{Metadata, MetadataUnreadable};
use super::peer::PeerMessage;
use super::produce::Produces;
use super::producer_ids::ProducerIds;
use super::quorum::Quorum;
use super::replica::Replicas;
use super::settings::{Cleanup, FlushMode, LogClass};
use super::types::{LogId, NodeId, Now, Offset, QueueId, Ticket};
use crate::mutant::Mutant;
use crate::points;
use crate::store::RecoveredNode;
use crate::wire::request::{Request, RequestHeader};
use crate::wire::response::Response;

/// A request of a connection; requests of one connection are answered in the order of their sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId {
    /// The connection, never reused by a node.
    pub connection: u64,
    /// The request's place in its connection.
    pub sequence: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A request came.
    Request {
        /// Which.
        id: RequestId,
        /// Its header.
        header: RequestHeader,
        /// Its body.
        request: Box<Request>,
    },
    /// The disk reports.
    Disk(DiskEvent),
    /// Another node says something.
    Peer {
        /// Which.
        from: NodeId,
        /// What.
        message: PeerMessage,
    },
    /// The time that `next_deadline` named has come.
    Deadline,
    /// A connection is gone; nothing more is owed to it.
    ConnectionClosed(u64),
}

/// What to do about a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Send this.
    Response(RequestHeader, Box<Response>),
    /// Send nothing (acks=0).
    Nothing,
    /// Close the connection (acks=0 that failed).
    Close,
}

/// The effects of a turn, to be performed in the order of the fields. With `halt` set, nothing but `disk` counts.
#[derive(Debug, Default)]
pub struct Effects {
    /// First the inline ones in order, whose events come back in the same turn; the others are started last.
    pub disk: Vec<DiskEffect>,
    /// Named points that the node passes once the inline disk effects are done.
    pub points: Vec<&'static str>,
    /// Countable events.
    pub events: Vec<(&'static str, u64)>,
    /// Answers, each once a request.
    pub replies: Vec<(RequestId, Answer)>,
    /// Messages to other nodes; dropped where there is no connection, or too much is queued for it.
    pub peers: Vec<(NodeId, PeerMessage)>,
    /// The node must stop at once.
    pub halt: Option<Halt>,
}

/// Why a node cannot start from what it recovered.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The metadata log is damaged below what was durable.
    #[error("the metadata log is corrupt; restore the data folder from a copy, nothing was changed")]
    MetadataCorrupt,
    /// A record's batch cannot be read.
    #[error("a batch of the metadata log cannot be read: {0}")]
    MetadataBatch(#[from] batch::BatchError),
    /// A record or snapshot cannot be read.
    #[error(transparent)]
    MetadataUnreadable(#[from] MetadataUnreadable),
    /// Records between the snapshot and the log's first are missing.
    #[error("the metadata log starts at {found}, the snapshot ends at {expected}; restore the data folder from a copy")]
    MetadataGap {
        /// The offset of the next record wanted.
        expected: Offset,
        /// The offset of the next record found.
        found: Offset,
    },
}

/// What a core is made of.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub config: NodeConfig,
    /// Where clients are told to connect.
    pub advertised: Advertised,
    /// What the data folder held.
    pub recovered: RecoveredNode,
    /// A deliberate bug.
    pub mutant: Option<Mutant>,
    /// A draw: the cluster's identity where it has none yet.
    pub cluster_draw: u64,
    /// A draw: names the process.
    pub incarnation: u64,
}

/// When the core wants to be called, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DeadlineOf {
    Retention,
    Log(LogId),
    Fetch(RequestId),
    Groups,
    Produce(RequestId),
    Replicas,
    Raft,
    Heartbeat,
    Proposal(u64),
}

/// The core of a node.
#[derive(Debug)]
pub struct Core {
    pub(super) config: NodeConfig,
    pub(super) advertised: Advertised,
    pub(super) mutant: Option<Mutant>,
    /// The cluster's identity, also before its record is durable.
    pub(super) cluster: u64,
    /// Names this process among all that the node ever had.
    pub(super) incarnation: u64,
    pub(super) metadata: Metadata,
    /// Every log, the metadata log included.
    pub(super) logs: BTreeMap<LogId, Log>,
    pub(super) produces: Produces,
    pub(super) fetches: Fetches,
    pub(super) replicas: Replicas,
    pub(super) lookups: Lookups,
    pub(super) admin: Admin,
    /// The metadata log's replication.
    pub(super) quorum: Quorum,
    pub(super) control: Control,
    /// Logs that the data folder holds and the state does not list yet.
    pub(super) found: BTreeMap<LogId, Recovered>,
    pub(super) producer_ids: ProducerIds,
    pub(super) groups: Groups,
    pub(super) internal: InternalAppends,
    /// Cold reads under way.
    pub(super) reads: BTreeMap<Ticket, ColdRead>,
    ticket_next: u64,
    /// Logs appended to in this turn.
    dirty: BTreeSet<LogId>,
    deadlines: BTreeSet<(Duration, DeadlineOf)>,
    log_deadlines: BTreeMap<LogId, Duration>,
    pub(super) snapshot_at: Offset,
    /// The log that is being compacted: one at a time, which bounds what passes hold.
    compacting: Option<LogId>,
}

impl Core {
    /// The core over what a data folder held.
    pub fn new(start: Start, now: Now, effects: &mut Effects) -> Result<Core, StartError> {
        let Start { config, advertised, recovered, mutant, cluster_draw, incarnation } = start;
        let RecoveredNode { metadata_snapshot, metadata: metadata_log, metadata_batches, logs } = recovered;
        if metadata_log.queues.get(&QueueId::METADATA).map_or(metadata_log.unlisted_fenced, |queue| queue.fenced) {
            return Err(StartError::MetadataCorrupt);
        }
        let session_seed = incarnation;
        let snapshot = metadata_snapshot.map(|(_, bytes)| bytes);
        let (quorum, metadata) = Quorum::recover(&config, incarnation, mutant, snapshot, metadata_batches, now)?;
        let snapshot_at = metadata.record_next();
        let cluster = metadata.cluster().unwrap_or(cluster_draw | 1);
        let mut core = Core {
            config,
            advertised,
            mutant,
            cluster,
            incarnation,
            metadata,
            logs: BTreeMap::new(),
            produces: Produces::default(),
            fetches: Fetches::new(session_seed),
            replicas: Replicas::default(),
            lookups: Lookups::default(),
            admin: Admin::default(),
            quorum,
            control: Control::default(),
            found: BTreeMap::new(),
            producer_ids: ProducerIds::default(),
            groups: Groups::default(),
            internal: InternalAppends::default(),
            reads: BTreeMap::new(),
            ticket_next: 0,
            dirty: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            log_deadlines: BTreeMap::new(),
            snapshot_at,
            compacting: None,
        };
        core.adopt_logs(metadata_log, logs, now, effects);
        core.take_up_roles(now, effects);
        core.deadlines.insert((now.monotonic + core.config.retention_check, DeadlineOf::Retention));
        core.on_raft_deadline(now, effects);
        core.on_heartbeat_due(now, effects);
        Ok(core)
    }

    /// Takes one event.
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Effects) {
        match event {
            Event::Request { id, header, request } => self.on_request(id, header, *request, now, effects),
            Event::Disk(DiskEvent::Read { ticket, result }) => self.on_read(ticket, result, now, effects),
            Event::Disk(DiskEvent::SnapshotWritten { name, result }) => self.on_snapshot(&name, result, now, effects),
            Event::Disk(event) => self.on_log_event(event, now, effects),
            Event::Peer { from, message: PeerMessage::Log(message) } => {
                self.on_log_message(from, message, now, effects);
            }
            Event::Peer { from, message: PeerMessage::Raft(message) } => {
                self.with_raft(now, effects, |raft, output| raft.step(from, message, now.monotonic, output));
            }
            Event::Peer { from, message: PeerMessage::Control(message) } => {
                self.on_control_message(from, message, now, effects);
            }
            Event::Deadline => self.on_deadline(now, effects),
            Event::ConnectionClosed(connection) => self.on_connection_closed(connection),
        }
    }

    /// Ends a turn: one sync request for all appends of the turn, and a look at the fetches that were woken.
    pub fn end_turn(&mut self, now: Now, effects: &mut Effects) {
        for id in std::mem::take(&mut self.dirty) {
            if let Some(log) = self.logs.get_mut(&id) {
                if log.settings().flush == Flush::Ack {
                    log.request_sync(&mut effects.disk);
                }
                self.note_deadline(id);
            }
        }
        self.retry_woken_fetches(now, effects);
    }

    /// Monotonic time at which `Event::Deadline` is wanted.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The metadata, for reading.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// A log, for reading.
    pub fn log(&self, id: LogId) -> Option<&Log> {
        self.logs.get(&id)
    }

    /// Whether nothing that was asked of the core is still owed (syncs that nobody waits for aside).
    pub fn is_idle(&self) -> bool {
        self.produces.is_empty()
            && self.admin.is_empty()
            && self.groups.is_empty()
            && self.quorum.is_idle()
            && self.may_shut_down()
    }

    /// Asks for a sync of everything written, whatever the flush settings; for a clean end.
    pub fn sync_all(&mut self, effects: &mut Effects) {
        self.stop_waiting_for_replicas(effects);
        for log in self.logs.values_mut() {
            log.request_sync(&mut effects.disk);
        }
    }

    pub(super) fn next_ticket(&mut self) -> Ticket {
        self.ticket_next += 1;
        Ticket(self.ticket_next)
    }

    pub(super) fn mark_dirty(&mut self, log: LogId) {
        self.dirty.insert(log);
    }

    pub(super) fn set_deadline(&mut self, at: Duration, of: DeadlineOf) {
        self.deadlines.insert((at, of));
    }

    pub(super) fn clear_deadline(&mut self, at: Duration, of: DeadlineOf) {
        self.deadlines.remove(&(at, of));
    }

    pub(super) fn set_fetch_deadline(&mut self, id: RequestId, at: Duration) {
        self.deadlines.insert((at, DeadlineOf::Fetch(id)));
    }

    pub(super) fn clear_fetch_deadline(&mut self, id: RequestId, at: Duration) {
        self.deadlines.remove(&(at, DeadlineOf::Fetch(id)));
    }

    pub(super) fn move_group_deadline(&mut self, from: Option<Duration>, to: Option<Duration>) {
        if let Some(at) = from {
            self.deadlines.remove(&(at, DeadlineOf::Groups));
        }
        if let Some(at) = to {
            self.deadlines.insert((at, DeadlineOf::Groups));
        }
    }

    pub(super) fn set_replica_deadline(&mut self, at: Duration) {
        self.deadlines.insert((at, DeadlineOf::Replicas));
    }

    pub(super) fn set_produce_deadline(&mut self, id: RequestId, at: Duration) {
        self.deadlines.insert((at, DeadlineOf::Produce(id)));
    }

    pub(super) fn clear_produce_deadline(&mut self, id: RequestId, at: Duration) {
        self.deadlines.remove(&(at, DeadlineOf::Produce(id)));
    }

    pub(super) fn forget_log(&mut self, id: LogId) -> Option<Log> {
        if let Some(at) = self.log_deadlines.remove(&id) {
            self.deadlines.remove(&(at, DeadlineOf::Log(id)));
        }
        self.dirty.remove(&id);
        self.logs.remove(&id)
    }

    /// Keeps the log's place in the order of deadlines up to date.
    pub(super) fn note_deadline(&mut self, id: LogId) {
        self.note_deadline_from(id, Duration::ZERO);
    }

    fn note_deadline_from(&mut self, id: LogId, earliest: Duration) {
        let wanted = self.logs.get(&id).and_then(Log::next_deadline).map(|at| at.max(earliest));
        let noted = self.log_deadlines.get(&id).copied();
        if wanted == noted {
            return;
        }
        if let Some(at) = noted {
            self.deadlines.remove(&(at, DeadlineOf::Log(id)));
            self.log_deadlines.remove(&id);
        }
        if let Some(at) = wanted {
            self.deadlines.insert((at, DeadlineOf::Log(id)));
            self.log_deadlines.insert(id, at);
        }
    }

    pub(super) fn log_settings(&self, class: &LogClass, shared: bool, siblings: usize) -> LogSettings {
        // The cache is the node's; the logs of the partitioned layout divide it by how many there are at their birth.
        let share = if shared { 1 } else { (self.logs.len() + siblings).max(1) };
        LogSettings {
            flush: match class.flush {
                FlushMode::Ack => Flush::Ack,
                FlushMode::Interval => Flush::Interval { every: self.config.flush_interval },
                FlushMode::Os => Flush::Os,
            },
            segment_bytes: class.segment_bytes,
            retention_ms: class.retention_ms.filter(|_| class.cleanup.delete),
            retention_bytes: class.retention_bytes.filter(|_| class.cleanup.delete),
            compaction: class.cleanup.compact.then_some(CompactionSettings {
                delete_retention_ms: class.cleanup.delete_retention_ms,
                dirty_millionths: class.cleanup.dirty_millionths,
            }),
            producer_expiry: self.config.producer_expiry,
            tail_cache_bytes: self.config.tail_cache_bytes / share,
        }
    }

    fn adopt_logs(
        &mut self,
        metadata_log: Recovered,
        found: BTreeMap<LogId, Recovered>,
        now: Now,
        effects: &mut Effects,
    ) {
        let class = LogClass {
            flush: FlushMode::Ack,
            segment_bytes: self.config.metadata_segment_bytes,
            retention_ms: None,
            retention_bytes: None,
            min_insync_replicas: 1,
            unclean_election: false,
            failover: true,
            cleanup: Cleanup::default(),
        };
        let settings = LogSettings { tail_cache_bytes: 0, ..self.log_settings(&class, true, 0) };
        // No mutant lives in the metadata log: a mutant breaks the promises made to clients, not the node itself.
        self.logs.insert(LogId::METADATA, Log::recovered(settings, None, metadata_log, now));
        self.found = found;
        let wanted: Vec<(LogId, LogClass)> = self.metadata.logs().map(|(id, class)| (id, class.clone())).collect();
        let siblings = wanted.len();
        for (id, class) in wanted {
            let settings = self.log_settings(&class, self.metadata.is_shared(id), siblings);
            let recovered = self.found.remove(&id).unwrap_or_else(|| Recovered::empty(id));
            let log = self.adopt_log(settings, recovered, now);
            self.logs.insert(id, log);
            self.adopt_replica(id);
        }
        self.remove_orphans(effects);
        let starts: Vec<(QueueId, Offset)> = self.metadata.log_starts().collect();
        for (queue, offset) in starts {
            if let Some(log) = self.metadata.log_of(queue).and_then(|id| self.logs.get_mut(&id)) {
                log.apply_log_start(queue, offset);
            }
        }
        let ids: Vec<LogId> = self.logs.keys().copied().collect();
        ids.into_iter().for_each(|id| self.note_deadline(id));
    }

    /// A log as the data folder has it, without the queues that were removed.
    pub(super) fn adopt_log(&self, settings: LogSettings, recovered: Recovered, now: Now) -> Log {
        let id = recovered.log;
        let mut log = Log::recovered(settings, self.mutant, recovered, now);
        let is_gone =
            |queue: &QueueId| self.metadata.log_of(*queue) != Some(id) && self.metadata.has_passed(id, Some(*queue));
        let gone: Vec<QueueId> = log.queues().filter(is_gone).collect();
        gone.into_iter().for_each(|queue| log.remove_queue(queue));
        log
    }

    /// Removes the files of logs whose topic is gone: its deletion was durable, the removal of its files was not.
    /// A log that the state does not know yet stays: its creation may be committed and not applied here.
    pub(super) fn remove_orphans(&mut self, effects: &mut Effects) {
        let metadata = &self.metadata;
        // The defect (nats-server #7556): whatever an unreadable snapshot does not list is an orphan.
        let is_defect = self.mutant == Some(Mutant::UnreadableSnapshotIsNone) && metadata.cluster().is_none();
        let is_orphan = |id: &LogId| is_defect || metadata.has_passed(*id, None);
        let orphans: Vec<LogId> = self.found.keys().copied().filter(is_orphan).collect();
        for log in orphans {
            self.found.remove(&log);
            effects.disk.push(DiskEffect::RemoveLog { log });
        }
    }

    fn on_request(&mut self, id: RequestId, header: RequestHeader, request: Request, now: Now, effects: &mut Effects) {
        let response = match request {
            Request::Produce(request) => return self.produce(id, header, request, now, effects),
            Request::Fetch(request) => return self.fetch(id, header, request, now, effects),
            Request::ListOffsets(request) => return self.list_offsets(id, header, request, effects),
            Request::Metadata(request) => return self.describe_topics(id, header, request, now, effects),
            Request::CreateTopics(request) => return self.create_topics(id, header, request, now, effects),
            Request::DeleteTopics(request) => return self.delete_topics(id, header, request, now, effects),
            Request::CreatePartitions(request) => return self.create_partitions(id, header, request, now, effects),
            Request::DeleteRecords(request) => return self.delete_records(id, header, request, now, effects),
            Request::InitProducerId(request) => return self.init_producer_id(id, header, request, now, effects),
            Request::FindCoordinator(request) => return self.find_coordinator(id, header, request, now, effects),
            Request::JoinGroup { client_id, request } => {
                match join_call(header.version, &client_id, request, &self.config.group) {
                    Ok(call) => return self.call_group(id, header, call, now, effects),
                    Err(refused) => refused.into_response(),
                }
            }
            Request::ConsumerGroupHeartbeat { client_id, request } => {
                match beat_call(header.version, &client_id, request) {
                    Ok(call) => return self.call_group(id, header, call, now, effects),
                    Err(refused) => refused.into_response(),
                }
            }
            Request::ConsumerGroupDescribe(request) => self.describe_consumer_groups(&request),
            Request::SyncGroup(request) => return self.call_group(id, header, Call::Sync(request), now, effects),
            Request::Heartbeat(request) => return self.call_group(id, header, Call::Heartbeat(request), now, effects),
            Request::LeaveGroup(request) => return self.call_group(id, header, Call::Leave(request), now, effects),
            Request::OffsetCommit(request) => return self.call_group(id, header, Call::Commit(request), now, effects),
            Request::OffsetDelete(request) => {
                return self.call_group(id, header, Call::DeleteOffsets(request), now, effects);
            }
            Request::DeleteGroups(request) => return self.delete_groups(id, header, request, now, effects),
            Request::OffsetFetch(request) => self.fetch_offsets(&header, request),
            Request::ListGroups(request) => self.list_groups(&request),
            Request::DescribeGroups(request) => self.describe_groups(&header, &request),
            Request::AlterConfigs(request) => return self.alter_configs(id, header, request, now, effects),
            Request::IncrementalAlterConfigs(request) => {
                return self.incremental_alter_configs(id, header, request, now, effects);
            }
            Request::AlterPartitionReassignments(request) => {
                return self.alter_reassignments(id, header, request, now, effects);
            }
            Request::ElectLeaders(request) => return self.elect_leaders(id, header, request, now, effects),
            Request::UnregisterBroker(request) => return self.unregister_broker(id, header, &request, now, effects),
            Request::ListPartitionReassignments(request) => {
                Response::ListPartitionReassignments(self.list_reassignments(&request))
            }
            Request::ApiVersions(_) => Response::ApiVersions(self.api_versions(true)),
            Request::ApiVersionsUnknown => Response::ApiVersions(self.api_versions(false)),
            Request::OffsetForLeaderEpoch(request) => {
                Response::OffsetForLeaderEpoch(self.offset_for_leader_epoch(request))
            }
            Request::DescribeConfigs(request) => Response::DescribeConfigs(self.describe_configs(request)),
            Request::DescribeCluster(request) => Response::DescribeCluster(self.describe_cluster(&request)),
        };
        effects.replies.push((id, Answer::Response(header, Box::new(response))));
    }

    fn on_log_event(&mut self, event: DiskEvent, now: Now, effects: &mut Effects) {
        let Some(id) = event.log() else { return };
        if matches!(event, DiskEvent::Compacted { .. }) {
            self.compacting = None;
        }
        // After one that failed, the next look is that of the clock.
        let goes_on = matches!(&event, DiskEvent::Compacted { compaction, .. } if compaction.error.is_none());
        // A log that was deleted with its topic may still have a sync under way.
        let Some(log) = self.logs.get_mut(&id) else { return };
        let progress = log.on_disk_event(event, now, &mut effects.disk);
        self.note_deadline(id);
        self.on_progress(id, progress, now, effects);
        if goes_on {
            self.compact_most_urgent(now, effects);
        }
    }

    /// Starts to compact the log that wants it most, unless another is being compacted.
    fn compact_most_urgent(&mut self, now: Now, effects: &mut Effects) {
        if self.compacting.is_some() {
            return;
        }
        let due = self.logs.iter().filter_map(|(id, log)| Some((log.compaction_due()?, std::cmp::Reverse(*id))));
        let Some((_, std::cmp::Reverse(id))) = due.max() else { return };
        if let Some(log) = self.logs.get_mut(&id) {
            log.compact(now, &mut effects.disk);
            self.compacting = Some(id);
        }
    }

    pub(super) fn on_progress(&mut self, id: LogId, progress: Progress, now: Now, effects: &mut Effects) {
        if let Some(halt) = progress.halt {
            effects.halt.get_or_insert(halt);
            return;
        }
        if id == LogId::METADATA {
            self.on_metadata_progress(progress.counted, now, effects);
            if progress.went_offline {
                self.quorum.on_log_offline();
            }
            if progress.came_online {
                self.on_metadata_online(now, effects);
            }
            return;
        }
        self.confirm_produces(id, progress.watermark, progress.counted, effects);
        self.confirm_internal(id, progress.watermark, now, effects);
        if let Some(partition) = self.groups.partition_of_log(id) {
            self.continue_load(partition, now, effects);
        }
        if progress.went_offline {
            self.refuse_produces(id, kafka_protocol::ResponseError::KafkaStorageError, effects);
            self.refuse_internal(id, kafka_protocol::ResponseError::CoordinatorNotAvailable, now, effects);
        }
        for queue in progress.advanced {
            self.wake_fetches(queue);
        }
        self.on_replica_progress(id, progress.came_online, now, effects);
    }

    fn on_deadline(&mut self, now: Now, effects: &mut Effects) {
        while let Some((at, of)) = self.deadlines.first().copied() {
            if at > now.monotonic {
                break;
            }
            self.deadlines.pop_first();
            match of {
                DeadlineOf::Retention => {
                    effects.events.push((points::RETENTION_CHECK, 1));
                    for log in self.logs.values_mut() {
                        log.retain(now, &mut effects.disk);
                    }
                    self.compact_most_urgent(now, effects);
                    self.deadlines.insert((now.monotonic + self.config.retention_check, DeadlineOf::Retention));
                }
                DeadlineOf::Log(id) => {
                    self.log_deadlines.remove(&id);
                    if let Some(log) = self.logs.get_mut(&id) {
                        log.on_deadline(now, &mut effects.disk);
                    }
                    // A log that is being reopened leaves what is due undone; without the pause its deadline, which
                    // stays in the past, would keep the node busy and, where time is simulated, for ever.
                    self.note_deadline_from(id, now.monotonic + LOG_DEADLINE_PAUSE);
                }
                DeadlineOf::Fetch(id) => self.on_fetch_deadline(id, now, effects),
                DeadlineOf::Groups => self.on_group_deadline(now, effects),
                DeadlineOf::Produce(id) => self.on_produce_deadline(id, effects),
                DeadlineOf::Replicas => self.on_replica_tick(now, effects),
                DeadlineOf::Raft => self.on_raft_deadline(now, effects),
                DeadlineOf::Heartbeat => self.on_heartbeat_due(now, effects),
                DeadlineOf::Proposal(tag) => self.on_proposal_deadline(tag, now, effects),
            }
        }
    }

    fn on_connection_closed(&mut self, connection: u64) {
        let range = RequestId { connection, sequence: 0 }..=RequestId { connection, sequence: u64::MAX };
        self.forget_produces(range.clone());
        self.admin.forget(range.clone());
        self.lookups.forget(range.clone());
        self.producer_ids.forget(range.clone());
        self.groups.forget(range.clone());
        for id in self.fetches.ids(range) {
            self.forget_fetch(id);
        }
    }
}

/// The least time between two calls of a log for its deadlines.
const LOG_DEADLINE_PAUSE: Duration = Duration::from_millis(10);
