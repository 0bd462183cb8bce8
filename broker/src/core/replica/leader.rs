//! The leader of a log: it answers followers' fetches with frames, with where both logs part ways, or with where its own
//! begins; it moves the high watermark to the least vote of the in-sync set, and proposes who is in that set.
//! Not here: the followers' side (`follower`), and what clients are answered (`produce`, `fetch`).

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::super::log::{DiskEffect, FramePiece, FramesFailure, FramesPlan, Log, Replication};
use super::super::machine::{Core, Effects};
use super::super::metadata::MetadataRecord;
use super::super::peer::{Copied, CopyFetch, CopyFetched, LogMessage, PeerMessage};
use super::super::placement::Placement;
use super::super::types::{LeaderEpoch, LogId, NodeId, Now, Position, Ticket};
use super::joined;
use crate::mutant::Mutant;
use crate::points;

/// A log that is led from here and copied elsewhere.
#[derive(Debug)]
pub(super) struct Leading {
    epoch: LeaderEpoch,
    /// Where the log ended when the epoch began: below, the watermark may be higher than is known here.
    epoch_start: Position,
    partition_epoch: i32,
    /// By broker; what is known of them in this epoch.
    followers: BTreeMap<i32, Follower>,
    /// An in-sync set that was proposed and of which nothing has been heard.
    proposal: Option<Proposal>,
    /// When to ask again to be relieved of a log in which corruption was found.
    hand_over_again_at: Duration,
}

#[derive(Debug)]
struct Follower {
    broker_epoch: i64,
    /// Its vote: everything below counts there.
    counted: Position,
    /// When it last had everything.
    caught_up: Duration,
    /// When it asked last, and where the log ended then.
    asked: Duration,
    end_when_asked: Position,
    /// A question that waits for more to be written.
    parked: Option<Parked>,
}

#[derive(Debug)]
struct Parked {
    fetch: CopyFetch,
    until: Duration,
}

#[derive(Debug)]
struct Proposal {
    /// Everyone that any proposal since the last change of the placement named (KIP-497: one of them may yet be taken).
    named: Vec<i32>,
    again_at: Duration,
}

/// Frames on their way from the disk.
#[derive(Debug)]
pub(super) struct ColdCopy {
    to: NodeId,
    fetch: CopyFetch,
    piece: FramePiece,
}

impl Leading {
    /// The log was recovered in the middle of the epoch: a tail that was being cut when the epoch began is gone.
    pub(super) fn on_log_back(&mut self, log: &Log) {
        self.epoch_start = self.epoch_start.min(log.end_position());
    }
}

impl Core {
    /// Leads a log in an epoch, with what the placement says now.
    pub(super) fn lead(&mut self, id: LogId, epoch: LeaderEpoch, now: Now, effects: &mut Effects) {
        self.replicas.following.remove(&id);
        let (Some(placement), Some(log)) = (self.metadata.placement(id), self.logs.get(&id)) else { return };
        let partition_epoch = placement.partition_epoch;
        let is_below_minimum =
            self.metadata.log_class(id).is_some_and(|class| placement.isr.len() < placement.isr_min(class));
        match self.replicas.leading.get_mut(&id) {
            Some(leading) if leading.epoch == epoch => {
                if leading.partition_epoch != partition_epoch {
                    leading.partition_epoch = partition_epoch;
                    leading.proposal = None;
                    effects.events.push((points::ISR_CHANGED, 1));
                }
                let replicas = &placement.replicas;
                leading.followers.retain(|follower, _| replicas.contains(follower));
            }
            Some(_) | None => {
                let epoch_start = log.end_position();
                let followers = BTreeMap::new();
                let leading = Leading {
                    epoch,
                    epoch_start,
                    partition_epoch,
                    followers,
                    proposal: None,
                    hand_over_again_at: Duration::ZERO,
                };
                self.replicas.leading.insert(id, leading);
                effects.events.push((points::LEADERSHIP_TAKEN, 1));
                self.change_replication(id, Replication::Leading, now, effects);
            }
        }
        if is_below_minimum {
            self.refuse_confirmations(id, ResponseError::NotEnoughReplicasAfterAppend, effects);
        }
        self.advance_watermark(id, now, effects);
    }

    /// A follower asks for frames.
    pub(super) fn on_copy_wanted(&mut self, from: NodeId, fetch: CopyFetch, now: Now, effects: &mut Effects) {
        let id = fetch.log;
        if let Err(error) = self.check_follower(from, &fetch) {
            return self.answer_copy(from, &fetch, Copied::Refused(error.code()), effects);
        }
        let Some(log) = self.logs.get(&id) else { return };
        if let Some(outcome) = difference(log, &fetch, self.mutant) {
            return self.answer_copy(from, &fetch, outcome, effects);
        }
        let end = log.end_position();
        let Some(leading) = self.replicas.leading.get_mut(&id) else { return };
        let fresh = Follower {
            broker_epoch: fetch.broker_epoch,
            counted: Position(0),
            caught_up: Duration::ZERO,
            asked: now.monotonic,
            end_when_asked: end,
            parked: None,
        };
        let follower = leading.followers.entry(from.0).or_insert_with(|| fresh);
        if follower.broker_epoch != fetch.broker_epoch {
            (follower.broker_epoch, follower.counted) = (fetch.broker_epoch, Position(0));
        }
        // The defect (RocketMQ #1155): what the follower is about to ask for is taken for what it has.
        let jumps_ahead = self.mutant == Some(Mutant::AckJumpsAhead);
        follower.counted = if jumps_ahead { end } else { fetch.position };
        if fetch.position >= end {
            follower.caught_up = now.monotonic;
        } else if fetch.position >= follower.end_when_asked {
            follower.caught_up = follower.caught_up.max(follower.asked);
        }
        (follower.asked, follower.end_when_asked, follower.parked) = (now.monotonic, end, None);
        self.serve_copy(from, fetch, now.monotonic + self.config.replica_fetch_wait, now, effects);
        self.advance_watermark(id, now, effects);
        self.propose_expansion(id, from, now, effects);
    }

    /// Answers questions that waited for more to be written.
    pub(super) fn serve_parked(&mut self, id: LogId, now: Now, effects: &mut Effects) {
        let Some(leading) = self.replicas.leading.get_mut(&id) else { return };
        let mut parked = Vec::new();
        for (follower, state) in &mut leading.followers {
            if let Some(waiting) = state.parked.take() {
                parked.push((NodeId(*follower), waiting));
            }
        }
        for (to, waiting) in parked {
            self.serve_copy(to, waiting.fetch, waiting.until, now, effects);
        }
    }

    /// Looks after the followers of a log: questions that waited long enough, laggards, proposals without an answer.
    pub(super) fn tend_followers(&mut self, id: LogId, now: Now, effects: &mut Effects) {
        self.serve_parked(id, now, effects);
        let here = self.config.node_id;
        let lag_max = self.config.replica_lag_max;
        let (Some(leading), Some(placement), Some(log)) =
            (self.replicas.leading.get_mut(&id), self.metadata.placement(id), self.logs.get(&id))
        else {
            return;
        };
        let end = log.end_position();
        let is_corrupt = log.corrupt_from().is_some() && placement.isr.len() > 1;
        let mut laggards = Vec::new();
        for member in placement.isr.iter().copied().filter(|member| *member != here) {
            // Whoever has not asked yet in this epoch is given the time from now on.
            let follower = leading.followers.entry(member).or_insert_with(|| Follower {
                broker_epoch: -1,
                counted: Position(0),
                caught_up: now.monotonic,
                asked: now.monotonic,
                end_when_asked: end,
                parked: None,
            });
            if follower.counted >= end && follower.broker_epoch >= 0 {
                follower.caught_up = follower.caught_up.max(follower.asked);
            } else if now.monotonic.saturating_sub(follower.caught_up) > lag_max {
                laggards.push(member);
            }
        }
        // The defect (KAFKA-15021): a proposal that was refused goes on counting.
        let waits_on = self.mutant == Some(Mutant::WatermarkWaitsForIneligible);
        let is_unheard =
            !waits_on && leading.proposal.as_ref().is_some_and(|proposal| proposal.again_at <= now.monotonic);
        let is_free = leading.proposal.is_none();
        if (is_free && !laggards.is_empty()) || is_unheard {
            let isr = placement.isr.iter().copied().filter(|member| !laggards.contains(member)).collect();
            self.propose_isr(id, isr, now, effects);
        }
        if is_corrupt {
            self.hand_over(id, now, effects);
        }
    }

    /// Corruption was found here, and others are in sync: one of them leads on, and this replica copies the log anew.
    fn hand_over(&mut self, id: LogId, now: Now, effects: &mut Effects) {
        let Some(leading) = self.replicas.leading.get_mut(&id) else { return };
        if leading.hand_over_again_at > now.monotonic {
            return;
        }
        leading.hand_over_again_at = now.monotonic + PROPOSAL_PATIENCE;
        let record = MetadataRecord::ReplicaCut { log: id.0, broker: self.config.node_id };
        let _ = self.submit(record, None, now, effects);
    }

    /// Moves the watermark to the least vote of the in-sync set, the proposed one included.
    pub(super) fn advance_watermark(&mut self, id: LogId, now: Now, effects: &mut Effects) {
        let here = self.config.node_id;
        let (Some(leading), Some(placement), Some(class), Some(log)) = (
            self.replicas.leading.get(&id),
            self.metadata.placement(id),
            self.metadata.log_class(id),
            self.logs.get_mut(&id),
        ) else {
            return;
        };
        if placement.isr.len() < placement.isr_min(class) || !placement.isr.contains(&here) {
            return;
        }
        let mut least = log.counted_position();
        for member in in_sync(leading, placement) {
            if member != here {
                least = least.min(leading.followers.get(&member).map_or(Position(0), |follower| follower.counted));
            }
        }
        let before = log.watermark_position();
        if least > before {
            let progress = log.raise_high_watermark(least, now);
            // A log that is being cut or reopened keeps its watermark: there is nothing to tell, now or again.
            if log.watermark_position() == before {
                return;
            }
            self.note_deadline(id);
            self.on_progress(id, progress, now, effects);
        }
    }

    /// Whether the watermark of a log that is led from here is known to be no lower than any leader's before (KIP-207).
    pub(in crate::core) fn is_watermark_known(&self, id: LogId) -> bool {
        let (Some(leading), Some(log)) = (self.replicas.leading.get(&id), self.logs.get(&id)) else { return true };
        log.watermark_position() >= leading.epoch_start
    }

    /// A proposal of an in-sync set was refused.
    pub(in crate::core) fn on_isr_refused(&mut self, id: LogId, now: Now) {
        if let Some(proposal) = self.replicas.leading.get_mut(&id).and_then(|leading| leading.proposal.as_mut()) {
            proposal.again_at = proposal.again_at.min(now.monotonic + REFUSAL_PAUSE);
        }
    }

    /// Takes frames that a cold read brought for a follower.
    pub(in crate::core) fn on_copy_read(
        &mut self,
        ticket: Ticket,
        result: &Result<Bytes, io::ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(ColdCopy { to, fetch, piece }) = self.replicas.reads.remove(&ticket) else { return };
        let storage_error = Copied::Refused(ResponseError::KafkaStorageError.code());
        let Some(log) = self.logs.get_mut(&fetch.log) else { return };
        let outcome = match result.as_ref().map(|bytes| log.check_frames(&piece, bytes)) {
            Ok(Ok(frames)) => Copied::Frames(frames),
            Ok(Err(FramesFailure::Longer { bytes })) => {
                return self.read_cold(to, fetch, FramePiece { length: bytes, ..piece }, effects);
            }
            Ok(Err(FramesFailure::Corrupt { position })) => {
                log.note_corruption(position);
                storage_error
            }
            Ok(Err(FramesFailure::Gone)) | Err(_) => storage_error,
        };
        self.answer_copy(to, &fetch, outcome, effects);
    }

    fn check_follower(&self, from: NodeId, fetch: &CopyFetch) -> Result<(), ResponseError> {
        let Some(epoch) = self.leader_epoch(fetch.log) else { return Err(ResponseError::NotLeaderOrFollower) };
        // The defect (KIP-320): whatever epoch the follower follows, it is given frames, and its vote counts.
        let is_fenced = self.mutant != Some(Mutant::FetchNotFenced);
        if fetch.leader_epoch < epoch.0 && is_fenced {
            return Err(ResponseError::FencedLeaderEpoch);
        }
        if fetch.leader_epoch > epoch.0 {
            return Err(ResponseError::UnknownLeaderEpoch);
        }
        let is_replica = self.metadata.placement(fetch.log).is_some_and(|p| p.replicas.contains(&from.0));
        if !is_replica || !self.replicas.leading.contains_key(&fetch.log) {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        if self.metadata.broker(from).is_none_or(|broker| broker.epoch != fetch.broker_epoch) {
            return Err(ResponseError::StaleBrokerEpoch);
        }
        if !self.logs.get(&fetch.log).is_some_and(Log::is_online) {
            return Err(ResponseError::KafkaStorageError);
        }
        Ok(())
    }

    fn serve_copy(&mut self, to: NodeId, fetch: CopyFetch, until: Duration, now: Now, effects: &mut Effects) {
        let Some(log) = self.logs.get(&fetch.log) else { return };
        if fetch.fetch_from < log.start_position() || fetch.fetch_from > log.end_position() || !log.is_online() {
            // Freed or lost meanwhile: the follower asks again and hears what holds then.
            return self.answer_copy(to, &fetch, Copied::Refused(ResponseError::KafkaStorageError.code()), effects);
        }
        match log.read_frames(fetch.fetch_from, self.config.replica_fetch_bytes_max) {
            FramesPlan::Cached(parts) if parts.is_empty() && until > now.monotonic => {
                let leading = self.replicas.leading.get_mut(&fetch.log);
                if let Some(follower) = leading.and_then(|leading| leading.followers.get_mut(&to.0)) {
                    follower.parked = Some(Parked { fetch, until });
                }
            }
            FramesPlan::Cached(parts) => self.answer_copy(to, &fetch, Copied::Frames(joined(parts)), effects),
            FramesPlan::OnDisk(piece) => self.read_cold(to, fetch, piece, effects),
        }
    }

    fn read_cold(&mut self, to: NodeId, fetch: CopyFetch, piece: FramePiece, effects: &mut Effects) {
        let ticket = self.next_ticket();
        let FramePiece { log, segment, at, length, .. } = piece;
        effects.disk.push(DiskEffect::Read { ticket, log, segment, at, length });
        self.replicas.reads.insert(ticket, ColdCopy { to, fetch, piece });
    }

    fn answer_copy(&self, to: NodeId, fetch: &CopyFetch, outcome: Copied, effects: &mut Effects) {
        let log = self.logs.get(&fetch.log);
        let fetched = CopyFetched {
            log: fetch.log,
            tag: fetch.tag,
            leader_epoch: fetch.leader_epoch,
            high_watermark: log.map_or(Position(0), Log::watermark_position),
            start_position: log.map_or(Position(0), Log::start_position),
            outcome,
        };
        effects.peers.push((to, PeerMessage::Log(LogMessage::Fetched(fetched))));
    }

    fn propose_expansion(&mut self, id: LogId, from: NodeId, now: Now, effects: &mut Effects) {
        let (Some(leading), Some(placement), Some(log)) =
            (self.replicas.leading.get(&id), self.metadata.placement(id), self.logs.get(&id))
        else {
            return;
        };
        let Some(follower) = leading.followers.get(&from.0) else { return };
        let has_all = follower.counted >= log.watermark_position() && follower.counted >= leading.epoch_start;
        let is_eligible = self.metadata.broker(from).is_some_and(|b| b.epoch == follower.broker_epoch && b.is_active());
        // The defect (KIP-841's other half): whether the broker is fenced or about to go is the controller's affair.
        let asks_anyway = self.mutant == Some(Mutant::WatermarkWaitsForIneligible);
        let is_new = !placement.isr.contains(&from.0) && leading.proposal.is_none();
        if is_new && has_all && (is_eligible || asks_anyway) {
            let mut isr = placement.isr.clone();
            isr.push(from.0);
            self.propose_isr(id, isr, now, effects);
        }
    }

    fn propose_isr(&mut self, id: LogId, isr: Vec<i32>, now: Now, effects: &mut Effects) {
        let (Some(leading), Some(placement)) = (self.replicas.leading.get_mut(&id), self.metadata.placement(id)) else {
            return;
        };
        let mut with_epochs = Vec::with_capacity(isr.len());
        for member in &isr {
            // Who follows is named with the epoch in which it did; a process that came after is another one (KIP-903).
            let followed = leading.followers.get(member).map(|f| f.broker_epoch).filter(|epoch| *epoch >= 0);
            let registered = self.metadata.broker(NodeId(*member)).map(|broker| broker.epoch);
            let Some(epoch) = followed.or(registered) else { return };
            with_epochs.push((*member, epoch));
        }
        let proposal = leading.proposal.get_or_insert_with(|| Proposal { named: Vec::new(), again_at: Duration::ZERO });
        proposal.again_at = now.monotonic + PROPOSAL_PATIENCE;
        for member in isr {
            if !proposal.named.contains(&member) {
                proposal.named.push(member);
            }
        }
        let record = MetadataRecord::IsrChanged {
            log: id.0,
            leader_epoch: leading.epoch.0,
            partition_epoch: placement.partition_epoch,
            isr: with_epochs,
        };
        let _ = self.submit(record, None, now, effects);
    }
}

/// How the follower's log differs from the leader's, if it does.
fn difference(log: &Log, fetch: &CopyFetch, mutant: Option<Mutant>) -> Option<Copied> {
    if fetch.restart || fetch.fetch_from < log.start_position() {
        return Some(Copied::Restart(log.carrier()));
    }
    // The defect (KIP-320) again: what epochs would show is not looked at.
    if fetch.fetch_from == Position(0) || mutant == Some(Mutant::FetchNotFenced) {
        return None;
    }
    let Some((epoch, end)) = log.end_of_epoch(LeaderEpoch(fetch.last_epoch)) else {
        return Some(Copied::Restart(log.carrier()));
    };
    let is_older = epoch.0 < fetch.last_epoch && mutant != Some(Mutant::EpochNotAnswered);
    (is_older || end < fetch.fetch_from).then_some(Copied::Diverging { epoch: epoch.0, end })
}

/// Whose votes the watermark waits for.
fn in_sync<'a>(leading: &'a Leading, placement: &'a Placement) -> impl Iterator<Item = i32> + 'a {
    let proposed = leading.proposal.iter().flat_map(|proposal| proposal.named.iter().copied());
    placement.isr.iter().copied().chain(proposed)
}

/// How long a proposal may go unanswered before it is made again.
const PROPOSAL_PATIENCE: Duration = Duration::from_millis(1000);
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);
