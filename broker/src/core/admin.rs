//! Changes of the metadata: any node proposes a record to the leader of the metadata log, and answers its caller when it
//! has applied the record itself. A call that makes several changes is answered when the last of them is applied,
//! refused or timed out. A proposal is sent at most once to a leader that may have appended it.
//! Not here: what the calls ask (`topics`, `producer_ids`, `describe`), what a record means (`metadata`), and its way
//! through the log (`quorum`).

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest};

use super::log::Log;
use super::machine::{Answer, Core, DeadlineOf, Effects, RequestId};
use super::metadata::{Applied, Metadata, MetadataRecord, Topic};
use super::peer::{ControlMessage, PeerMessage};
use super::quorum::Envelope;
use super::settings::Layout;
use super::types::{LogId, NodeId, Now, QueueId};
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

/// Changes that are not applied yet, and the calls that wait for them.
#[derive(Debug, Default)]
pub(super) struct Admin {
    calls: BTreeMap<RequestId, AdminCall>,
    /// Proposals that are not applied, by number.
    proposals: BTreeMap<u64, Proposal>,
    proposal_next: u64,
    /// Numbers and bytes of those that no leader has, oldest first.
    unsent: VecDeque<(u64, Bytes)>,
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
struct Proposal {
    bytes: Bytes,
    slot: Option<AdminSlot>,
    of: ProposalOf,
}

/// What a proposal that nobody waits for is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProposalOf {
    /// A block of producer ids.
    ProducerIds,
    /// A log's in-sync set.
    Replicas(LogId),
    /// Anything else.
    Other,
}

impl ProposalOf {
    fn of(record: &MetadataRecord) -> ProposalOf {
        match record {
            MetadataRecord::ProducerIdsTaken { .. } => ProposalOf::ProducerIds,
            MetadataRecord::IsrChanged { log, .. } => ProposalOf::Replicas(LogId(*log)),
            _ => ProposalOf::Other,
        }
    }
}

impl Admin {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Forgets what is owed; the changes themselves stand.
    pub(super) fn forget(&mut self, ids: RangeInclusive<RequestId>) {
        let gone: Vec<RequestId> = self.calls.range(ids).map(|(id, _)| *id).collect();
        gone.iter().for_each(|id| drop(self.calls.remove(id)));
    }
}

impl Core {
    /// Proposes a record; its result goes to the slot when it is applied. An error where too many wait already.
    pub(super) fn submit(
        &mut self,
        record: MetadataRecord,
        slot: Option<AdminSlot>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), ResponseError> {
        if self.admin.proposals.len() >= PROPOSALS_MAX {
            return Err(ResponseError::ThrottlingQuotaExceeded);
        }
        let of = ProposalOf::of(&record);
        let (origin, incarnation, tag) = (NodeId(self.config.node_id), self.incarnation, self.admin.proposal_next);
        let bytes = Envelope { origin, incarnation, tag, record: record.encode() }.encode();
        let log = self.logs.get(&LogId::METADATA).expect("the metadata log lives as long as the core");
        if bytes.len() as u64 + PROPOSAL_BYTES_OVERHEAD > log.settings().segment_bytes {
            return Err(ResponseError::PolicyViolation);
        }
        self.admin.proposal_next += 1;
        self.admin.proposals.insert(tag, Proposal { bytes: bytes.clone(), slot, of });
        self.admin.unsent.push_back((tag, bytes));
        self.set_deadline(now.monotonic + self.config.proposal_timeout, DeadlineOf::Proposal(tag));
        self.send_proposals(now, effects);
        Ok(())
    }

    /// Gives the leader what it does not have, where there is a leader.
    pub(super) fn send_proposals(&mut self, now: Now, effects: &mut Effects) {
        while let Some(leader) = self.controller() {
            let Some((tag, record)) = self.admin.unsent.pop_front() else { return };
            if leader.0 == self.config.node_id {
                let proposed =
                    self.with_raft(now, effects, |raft, output| raft.propose(record.clone(), now.monotonic, output));
                if proposed.is_err() {
                    self.admin.unsent.push_front((tag, record));
                    return;
                }
            } else {
                effects.peers.push((leader, PeerMessage::Control(ControlMessage::Propose { tag, record })));
            }
        }
    }

    /// A node that does not lead has appended nothing: the proposal may be sent again.
    pub(super) fn on_proposal_refused(&mut self, tag: u64) {
        // Sent again with the next regular work, when another leader may be known.
        if let Some(proposal) = self.admin.proposals.get(&tag)
            && !self.admin.unsent.iter().any(|(unsent, _)| *unsent == tag)
        {
            self.admin.unsent.push_back((tag, proposal.bytes.clone()));
        }
    }

    pub(super) fn on_proposal_deadline(&mut self, tag: u64, now: Now, effects: &mut Effects) {
        self.admin.unsent.retain(|(unsent, _)| *unsent != tag);
        let Some(proposal) = self.admin.proposals.remove(&tag) else { return };
        match proposal.slot {
            Some(slot) => self.settle_admin(slot, Err(ResponseError::RequestTimedOut), effects),
            None => self.on_own_proposal_lost(&proposal.of, now, effects),
        }
    }

    /// An own proposal was applied or refused.
    pub(super) fn settle_proposal(&mut self, tag: u64, applied: &Applied, now: Now, effects: &mut Effects) {
        let Some(proposal) = self.admin.proposals.remove(&tag) else { return };
        if let Some(slot) = proposal.slot {
            self.settle_admin(slot, Ok(applied), effects);
        } else if let (Applied::Refused(_), ProposalOf::Replicas(log)) = (applied, proposal.of) {
            self.on_isr_refused(log, now);
        }
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

    /// Makes the logs follow the state.
    pub(super) fn on_applied(&mut self, applied: &Applied, is_own: bool, now: Now, effects: &mut Effects) {
        match applied {
            Applied::PartitionsAdded { name, first } => {
                let Some(topic) = self.metadata.topic(name) else { return };
                let siblings = topic.partitions.len() - first;
                let logs: Vec<LogId> = topic.partitions[*first..].iter().map(|partition| partition.log()).collect();
                for id in logs {
                    self.add_log(id, siblings, now, effects);
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
            Applied::ProducerIdsTaken { first, count } => {
                if is_own {
                    self.producer_ids.refill(*first, *count);
                }
            }
            Applied::Placements(logs) => {
                self.on_brokers_changed(now, effects);
                for log in logs {
                    self.on_placement(*log, now, effects);
                }
            }
            Applied::ConfigChanged { logs } => {
                for id in logs {
                    self.renew_settings(*id);
                    self.on_placement(*id, now, effects);
                }
            }
            Applied::ClusterNamed => self.cluster = self.metadata.cluster().unwrap_or(self.cluster),
            Applied::Refused(_) => {}
        }
    }

    /// Begins a log that the state lists, with what the data folder held of it.
    fn add_log(&mut self, id: LogId, siblings: usize, now: Now, effects: &mut Effects) {
        if !self.logs.contains_key(&id) {
            self.ensure_log(id, siblings, now);
            self.on_placement(id, now, effects);
        }
    }

    /// Makes a log that has a replica here, from what the data folder holds of it.
    pub(super) fn ensure_log(&mut self, id: LogId, siblings: usize, now: Now) {
        let here = self.config.node_id;
        let is_here = self.metadata.placement(id).is_some_and(|placement| placement.replicas.contains(&here));
        let Some(class) = self.metadata.log_class(id).cloned() else { return };
        if self.logs.contains_key(&id) || !(is_here || self.found.contains_key(&id)) {
            return;
        }
        let settings = self.log_settings(&class, self.metadata.is_shared(id), siblings);
        let log = match self.found.remove(&id) {
            Some(recovered) => self.adopt_log(settings, recovered, now),
            None => Log::new(id, settings, self.mutant),
        };
        self.logs.insert(id, log);
        self.adopt_replica(id);
        self.note_deadline(id);
    }

    fn renew_settings(&mut self, id: LogId) {
        let Some(class) = self.metadata.log_class(id) else { return };
        let settings = self.log_settings(class, self.metadata.is_shared(id), 0);
        if let Some(log) = self.logs.get_mut(&id) {
            let tail_cache_bytes = log.settings().tail_cache_bytes;
            log.set_settings(super::log::LogSettings { tail_cache_bytes, ..settings });
        }
    }

    /// Takes over the state of a snapshot.
    pub(super) fn install_metadata(&mut self, state: Metadata, now: Now, effects: &mut Effects) {
        let before = std::mem::replace(&mut self.metadata, state);
        self.cluster = self.metadata.cluster().unwrap_or(self.cluster);
        for (name, topic) in before.topics() {
            let is_kept = self.metadata.topic(name).is_some_and(|t| self.metadata.id_of(t) == before.id_of(topic));
            if !is_kept {
                self.forget_committed(name, now, effects);
                self.remove_topic(topic, effects);
            }
        }
        let wanted: Vec<LogId> = self.metadata.logs().map(|(id, _)| id).collect();
        let siblings = wanted.len();
        let starts: Vec<(QueueId, super::types::Offset)> = self.metadata.log_starts().collect();
        for id in &wanted {
            if self.logs.contains_key(id) {
                self.renew_settings(*id);
                self.on_placement(*id, now, effects);
            } else {
                self.add_log(*id, siblings, now, effects);
            }
        }
        for (queue, offset) in starts {
            if let Some(log) = self.metadata.log_of(queue).and_then(|id| self.logs.get_mut(&id)) {
                log.apply_log_start(queue, offset);
            }
            self.wake_fetches(queue);
        }
        self.remove_orphans(effects);
        self.on_brokers_changed(now, effects);
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
                    self.drop_roles(partition.log(), effects);
                    if let Some(log) = self.forget_log(partition.log()) {
                        log.remove(&mut effects.disk);
                    }
                    if self.found.remove(&partition.log()).is_some() {
                        effects.disk.push(super::log::DiskEffect::RemoveLog { log: partition.log() });
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

/// The most proposals that wait.
const PROPOSALS_MAX: usize = 10_000;
/// Bytes that a proposal needs beside its own in a segment, generously.
const PROPOSAL_BYTES_OVERHEAD: u64 = 512;
