//! What a node does as leader or follower of a log: who copies from whom, what is confirmed, who is in sync.
//! Replication works in positions of a log, for both storage layouts alike; a log whose only replica is here has no state
//! in this room. Start at `Core::on_placement`, which hears of every change of a log's placement.
//! `leader` answers fetches, moves the watermark and proposes in-sync sets; `follower` fetches, copies and cuts.
//! As in Kafka with KIP-101, 279, 320 (epochs decide), 497 (the watermark waits for the greatest set proposed), 903 and
//! 966 (no progress below the least in-sync set). Not here: who is elected (`placement`), the bytes (`log::copy`).

mod follower;
mod leader;
#[cfg(test)]
mod rig_tests;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::log::Replication;
use super::machine::{Core, Effects};
use super::peer::LogMessage;
use super::types::{LeaderEpoch, LogId, NodeId, Now, Ticket};
use follower::Following;
use leader::{ColdCopy, Leading};

/// The logs that have replicas elsewhere.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    leading: BTreeMap<LogId, Leading>,
    following: BTreeMap<LogId, Following>,
    /// Frames on their way from the disk to a follower.
    reads: BTreeMap<Ticket, ColdCopy>,
    /// Counts fetches; begins at a draw, so that an answer to another process is never taken for one to this.
    tag_next: u64,
    ticks: bool,
}

impl Core {
    /// The epoch in which this process leads a log; none where it does not.
    pub fn leader_epoch(&self, log: LogId) -> Option<LeaderEpoch> {
        let placement = self.metadata.placement(log)?;
        let is_here = placement.leader == Some(self.config.node_id) && self.broker_epoch().is_some();
        is_here.then_some(LeaderEpoch(placement.leader_epoch))
    }

    /// A log's placement changed, or the log is new.
    pub(super) fn on_placement(&mut self, id: LogId, now: Now, effects: &mut Effects) {
        self.take_role(id, now, effects);
        self.follow_coordination(id, now, effects);
    }

    fn take_role(&mut self, id: LogId, now: Now, effects: &mut Effects) {
        let here = self.config.node_id;
        let epoch = self.leader_epoch(id);
        let Some(placement) = self.metadata.placement(id) else { return self.drop_roles(id, effects) };
        let (is_replica, is_alone) = (placement.replicas.contains(&here), placement.replicas == [here]);
        let (leader, placed_epoch) = (placement.leader, LeaderEpoch(placement.leader_epoch));
        if !is_replica {
            self.drop_roles(id, effects);
            if let Some(log) = self.forget_log(id) {
                log.remove(&mut effects.disk);
            }
            return;
        }
        self.ensure_log(id, 1, now);
        let Some(log) = self.logs.get_mut(&id) else { return };
        let led_before = log.leader_epoch();
        log.set_leader_epoch(epoch);
        if led_before.is_some() && led_before != epoch {
            // What was appended may stay, if the next leader has it: that it was refused would be a lie.
            self.refuse_produces(id, ResponseError::NotEnoughReplicasAfterAppend, effects);
            self.wake_fetches_of(id);
        }
        match (epoch, leader) {
            (Some(_), _) if is_alone => {
                self.replicas.leading.remove(&id);
                self.replicas.following.remove(&id);
                self.change_replication(id, Replication::Alone, now, effects);
            }
            (Some(epoch), _) => self.lead(id, epoch, now, effects),
            // A process that has not registered yet knows of its predecessor's leaderships.
            (None, Some(leader)) if leader != here => self.follow(id, NodeId(leader), placed_epoch, now, effects),
            (None, _) if is_alone => {}
            (None, _) => {
                self.replicas.leading.remove(&id);
                self.replicas.following.remove(&id);
                self.change_replication(id, Replication::Following, now, effects);
            }
        }
        self.keep_ticking(now);
    }

    /// A message about a log's replication came.
    pub(super) fn on_log_message(&mut self, from: NodeId, message: LogMessage, now: Now, effects: &mut Effects) {
        match message {
            LogMessage::Fetch(fetch) => self.on_copy_wanted(from, fetch, now, effects),
            LogMessage::Fetched(fetched) => self.on_copied(from, fetched, now, effects),
        }
    }

    /// The log has been written to, has been synced, or has come back.
    pub(super) fn on_replica_progress(&mut self, id: LogId, came_online: bool, now: Now, effects: &mut Effects) {
        if let Some(leading) = self.replicas.leading.get_mut(&id) {
            if let (true, Some(log)) = (came_online, self.logs.get(&id)) {
                leading.on_log_back(log);
            }
            self.advance_watermark(id, now, effects);
            self.serve_parked(id, now, effects);
        } else if self.replicas.following.contains_key(&id) {
            self.on_follower_progress(id, came_online, now, effects);
        }
    }

    /// Time-outs of fetches, lags of followers, proposals that nobody answered.
    pub(super) fn on_replica_tick(&mut self, now: Now, effects: &mut Effects) {
        self.replicas.ticks = false;
        let led: Vec<LogId> = self.replicas.leading.keys().copied().collect();
        for id in led {
            self.tend_followers(id, now, effects);
        }
        let followed: Vec<LogId> = self.replicas.following.keys().copied().collect();
        for id in followed {
            self.tend_fetch(id, now, effects);
        }
        self.keep_ticking(now);
    }

    /// The process ends: what waits for other replicas is answered now, as if its time were up.
    pub(super) fn stop_waiting_for_replicas(&mut self, effects: &mut Effects) {
        let led: Vec<LogId> = self.replicas.leading.keys().copied().collect();
        for id in led {
            self.refuse_confirmations(id, ResponseError::RequestTimedOut, effects);
        }
    }

    /// Takes up the roles that the state gives at the start. A replica that was out of sync when its process ended hears
    /// of no change of its placement when it is back, and would never copy again.
    pub(super) fn take_up_roles(&mut self, now: Now, effects: &mut Effects) {
        let here = self.config.node_id;
        let is_shared_role = |replicas: &[i32]| replicas.len() > 1 && replicas.contains(&here);
        let ids: Vec<LogId> =
            self.metadata.placements().filter(|(_, p)| is_shared_role(&p.replicas)).map(|(id, _)| id).collect();
        for id in ids {
            self.on_placement(id, now, effects);
        }
    }

    /// Makes a log that was recovered at the start wait for its role.
    pub(super) fn adopt_replica(&mut self, id: LogId) {
        let here = self.config.node_id;
        let is_alone = self.metadata.placement(id).is_none_or(|placement| placement.replicas == [here]);
        if let (false, Some(log)) = (is_alone, self.logs.get_mut(&id)) {
            log.unconfirm();
            log.set_replication(Replication::Following, Now::default());
        }
    }

    /// A log is gone, or its replica moved away.
    pub(super) fn drop_roles(&mut self, id: LogId, effects: &mut Effects) {
        self.replicas.leading.remove(&id);
        self.replicas.following.remove(&id);
        self.refuse_produces(id, ResponseError::NotEnoughReplicasAfterAppend, effects);
        self.wake_fetches_of(id);
    }

    fn change_replication(&mut self, id: LogId, replication: Replication, now: Now, effects: &mut Effects) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let progress = log.set_replication(replication, now);
        self.note_deadline(id);
        self.on_progress(id, progress, now, effects);
    }

    fn keep_ticking(&mut self, now: Now) {
        let has_roles = !(self.replicas.leading.is_empty() && self.replicas.following.is_empty());
        if has_roles && !self.replicas.ticks {
            self.replicas.ticks = true;
            self.set_replica_deadline(now.monotonic + TICK);
        }
    }
}

/// Whole frames in one piece.
fn joined(parts: Vec<Bytes>) -> Bytes {
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    let mut whole = bytes::BytesMut::with_capacity(bytes);
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}

/// How often time-outs and lags are looked at.
const TICK: Duration = Duration::from_millis(50);
