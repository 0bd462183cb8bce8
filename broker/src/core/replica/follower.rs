//! The follower of a log: it asks its leader for what comes behind its end, one question at a time, copies frames as they
//! are, and cuts what the leader's epochs say it must not have. Each question tells its counted position, its vote for
//! the watermark, so it asks anew when a sync has moved it. Not here: the leader's answers (`leader`).

use std::time::Duration;

use super::super::log::{CopyError, Log, Replication};
use super::super::machine::{Core, Effects};
use super::super::metadata::MetadataRecord;
use super::super::peer::{Copied, CopyFetch, CopyFetched, LogMessage, PeerMessage};
use super::super::types::{LeaderEpoch, LogId, NodeId, Now, Position};
use crate::core::log::Flush;
use crate::mutant::Mutant;
use crate::points;

/// A log that is copied from a leader.
#[derive(Debug)]
pub(super) struct Following {
    leader: NodeId,
    epoch: LeaderEpoch,
    /// The question under way, and when to ask anew.
    asked: Option<Asked>,
    /// When to ask where no question is under way.
    ask_at: Option<Duration>,
    /// Nothing of the log is the leader's: it is to begin anew where the leader's begins.
    must_restart: bool,
    /// When to say again that this replica has lost what was confirmed.
    cut_proposed_until: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    tag: u64,
    until: Duration,
    /// The counted position that it told.
    told: Position,
}

impl Core {
    /// Copies a log from a leader from now on.
    pub(super) fn follow(&mut self, id: LogId, leader: NodeId, epoch: LeaderEpoch, now: Now, effects: &mut Effects) {
        self.replicas.leading.remove(&id);
        let known = self.replicas.following.get(&id);
        if known.is_some_and(|following| (following.leader, following.epoch) == (leader, epoch)) {
            return;
        }
        let following = Following {
            leader,
            epoch,
            asked: None,
            ask_at: None,
            must_restart: false,
            cut_proposed_until: Duration::ZERO,
        };
        self.replicas.following.insert(id, following);
        self.change_replication(id, Replication::Following, now, effects);
        if let (Some(Mutant::TruncateToWatermark), Some(log)) = (self.mutant, self.logs.get_mut(&id))
            && log.is_online()
        {
            // The defect (KIP-101): everything above its own watermark goes, confirmed or not.
            log.truncate(log.watermark_position(), &mut effects.disk);
        }
        self.ask(id, now, effects);
    }

    /// The leader's answer.
    pub(super) fn on_copied(&mut self, from: NodeId, fetched: CopyFetched, now: Now, effects: &mut Effects) {
        let id = fetched.log;
        let Some(following) = self.replicas.following.get_mut(&id) else { return };
        let is_awaited = following.asked.is_some_and(|asked| asked.tag == fetched.tag);
        if following.leader != from || following.epoch.0 != fetched.leader_epoch || !is_awaited {
            return;
        }
        following.asked = None;
        let Some(log) = self.logs.get_mut(&id) else { return };
        if !log.is_online() {
            return;
        }
        let forgets_producers = self.mutant == Some(Mutant::ProducersNotReplicated);
        match fetched.outcome {
            Copied::Frames(frames) => {
                let result = log.append_frames(&frames, now, &mut effects.disk);
                if forgets_producers {
                    log.forget_producers();
                }
                let progress = log.raise_high_watermark(fetched.high_watermark, now);
                log.free_below(fetched.start_position, &mut effects.disk);
                let is_full = frames.len() >= self.config.replica_fetch_bytes_max / 2;
                let is_counted = log.settings().flush != Flush::Ack || frames.is_empty();
                match result {
                    Ok(()) if is_full || is_counted => following.ask_at = Some(now.monotonic),
                    // The sync of what came will be told with the next question.
                    Ok(()) => following.ask_at = Some(now.monotonic + SYNC_PATIENCE),
                    Err(CopyError::Offline) => {}
                    Err(error @ (CopyError::Corrupt { .. } | CopyError::Discontinued { .. })) => {
                        effects.events.push((points::COPY_REFUSED, 1));
                        tracing::warn!(log = %id, %error, "the leader's frames are refused; asking again");
                        following.ask_at = Some(now.monotonic + BACKOFF);
                    }
                }
                self.mark_dirty(id);
                self.on_progress(id, progress, now, effects);
            }
            Copied::Diverging { epoch, end } => {
                let cut = parting(log, LeaderEpoch(epoch), end, self.mutant);
                if cut.is_some_and(|to| log.epochs().iter().last().is_some_and(|newest| to < newest.start)) {
                    effects.events.push((points::EPOCHS_CUT, 1));
                }
                match cut {
                    Some(to) => log.truncate(to, &mut effects.disk),
                    None => {
                        following.must_restart = true;
                        following.ask_at = Some(now.monotonic);
                    }
                }
            }
            Copied::Restart(carrier) => {
                following.must_restart = false;
                log.restart(carrier, &mut effects.disk);
            }
            Copied::Refused(_) => following.ask_at = Some(now.monotonic + BACKOFF),
        }
        self.note_deadline(id);
        self.ask_if_due(id, now, effects);
    }

    /// Written, synced, or recovered: a vote that has moved is told at once.
    pub(super) fn on_follower_progress(&mut self, id: LogId, came_online: bool, now: Now, effects: &mut Effects) {
        let (Some(following), Some(log)) = (self.replicas.following.get(&id), self.logs.get(&id)) else { return };
        let is_untold = match following.asked {
            Some(asked) => asked.told < log.counted_position() && log.counted_position() == log.end_position(),
            None => log.counted_position() == log.end_position(),
        };
        if came_online || is_untold {
            self.ask(id, now, effects);
        }
    }

    /// Asks where it is time, also where a question or its answer was lost.
    pub(super) fn tend_fetch(&mut self, id: LogId, now: Now, effects: &mut Effects) {
        let Some(following) = self.replicas.following.get_mut(&id) else { return };
        if following.asked.is_some_and(|asked| asked.until <= now.monotonic) {
            following.asked = None;
        }
        if following.asked.is_none() && following.ask_at.is_none() {
            following.ask_at = Some(now.monotonic);
        }
        self.ask_if_due(id, now, effects);
    }

    fn ask_if_due(&mut self, id: LogId, now: Now, effects: &mut Effects) {
        let Some(following) = self.replicas.following.get(&id) else { return };
        if following.ask_at.is_some_and(|at| at <= now.monotonic) {
            self.ask(id, now, effects);
        }
    }

    fn ask(&mut self, id: LogId, now: Now, effects: &mut Effects) {
        let Some(broker_epoch) = self.broker_epoch() else { return };
        if !self.shed_corruption(id, now, effects) {
            return;
        }
        let (Some(following), Some(log)) = (self.replicas.following.get_mut(&id), self.logs.get(&id)) else { return };
        if !log.is_online() {
            return;
        }
        self.replicas.tag_next += 1;
        let tag = self.incarnation.wrapping_add(self.replicas.tag_next);
        let told = log.counted_position();
        let until = now.monotonic + self.config.replica_fetch_wait + ANSWER_PATIENCE;
        following.asked = Some(Asked { tag, until, told });
        following.ask_at = None;
        let fetch = CopyFetch {
            log: id,
            tag,
            broker_epoch,
            leader_epoch: following.epoch.0,
            position: told,
            last_epoch: log.epochs().newest().0,
            fetch_from: log.end_position(),
            restart: following.must_restart,
        };
        effects.peers.push((following.leader, PeerMessage::Log(LogMessage::Fetch(fetch))));
    }

    /// A replica in which corruption was found says that it has lost what was confirmed; once that is known, it cuts its
    /// log before the corruption and copies it anew. Whether it may ask its leader for frames.
    fn shed_corruption(&mut self, id: LogId, now: Now, effects: &mut Effects) -> bool {
        let Some(from) = self.logs.get(&id).and_then(Log::corrupt_from) else { return true };
        let here = self.config.node_id;
        let Some(placement) = self.metadata.placement(id) else { return false };
        let is_trusted = placement.isr.contains(&here) || placement.elr.contains(&here);
        let (Some(following), Some(log)) = (self.replicas.following.get_mut(&id), self.logs.get_mut(&id)) else {
            return false;
        };
        if !log.is_online() {
            return false;
        }
        if is_trusted {
            following.ask_at = Some(now.monotonic + BACKOFF);
            if following.cut_proposed_until <= now.monotonic {
                following.cut_proposed_until = now.monotonic + PROPOSAL_PATIENCE;
                let record = MetadataRecord::ReplicaCut { log: id.0, broker: here };
                let _ = self.submit(record, None, now, effects);
            }
            return false;
        }
        if from > log.start_position() {
            effects.events.push((points::CORRUPTION_SHED, 1));
            log.truncate(from, &mut effects.disk);
            return false;
        }
        following.must_restart = true;
        true
    }
}

/// Where a follower's log is to be cut, given the leader's largest epoch that is not above the follower's last, and where
/// that ends: where the leader's copy of it ends, or its own, whichever comes first. None where nothing is common.
fn parting(log: &Log, epoch: LeaderEpoch, end: Position, mutant: Option<Mutant>) -> Option<Position> {
    if mutant == Some(Mutant::EpochNotAnswered) {
        // The defect (KIP-279): the leader's end is taken as that of the epoch asked for.
        return Some(end.min(log.end_position())).filter(|to| *to >= log.start_position());
    }
    let (_, own_end) = log.end_of_epoch(epoch)?;
    Some(own_end.min(end)).filter(|to| *to >= log.start_position())
}

/// How long a refused follower waits before it asks again.
const BACKOFF: Duration = Duration::from_millis(100);
/// How long an answer may take beyond the time that the leader may hold the question.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// How long a follower waits for its own sync before it asks for more.
const SYNC_PATIENCE: Duration = Duration::from_millis(200);
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(1);
