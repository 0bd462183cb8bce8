//! Where a log's replicas are, which of them are in sync, and who leads: a pure function of the metadata's records, so
//! that every node elects alike. Start at `Placement::elect`.
//! Eligible leader replicas and the last replica standing are those of KIP-966; who may be in sync, of KIP-841 and 903.
//! Not here: the records (`metadata`), and what a leader or follower does (`replica`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::settings::{FlushMode, LogClass};
use super::types::NodeId;
use crate::mutant::Mutant;

/// A registered broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// A draw of its process; another one is another process.
    pub incarnation: u64,
    /// The broker epoch: the offset of the record that registered this process.
    pub epoch: i64,
    /// Where clients and other brokers connect.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Not to be given anything: new, silent, or gone.
    pub fenced: bool,
    /// Asked to be relieved of its leaderships.
    pub shutting_down: bool,
}

/// What a process found in its data folder when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataFound {
    /// No data: whatever its predecessor held is gone.
    Nothing,
    /// Its predecessor ended cleanly, with everything synced.
    Clean,
    /// Its predecessor was killed or lost power: what was not synced may be gone.
    Unclean,
}

/// The registered brokers by id.
pub type Brokers = BTreeMap<i32, Broker>;

/// A log's replicas and their roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// All of them; the first is the preferred leader.
    pub replicas: Vec<i32>,
    /// Those in sync. Empty only where eligible leaders or the last known leader are left.
    pub isr: Vec<i32>,
    /// Not in sync, but known to hold everything below the high watermark.
    pub elr: Vec<i32>,
    /// Who leads; none while nobody may.
    pub leader: Option<i32>,
    /// Counts changes of the leader.
    pub leader_epoch: i32,
    /// Counts changes of anything here.
    pub partition_epoch: i32,
    /// Who led last.
    pub last_known_leader: Option<i32>,
    /// A move to other replicas that is under way.
    pub reassignment: Option<Reassignment>,
}

/// A move of a log to other replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reassignment {
    /// The replicas before.
    pub from: Vec<i32>,
    /// The replicas wanted.
    pub to: Vec<i32>,
}

/// How a leader may be chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Electorate<'a> {
    pub(super) brokers: &'a Brokers,
    pub(super) class: &'a LogClass,
    pub(super) mutant: Option<Mutant>,
}

impl Broker {
    /// Whether it may lead and be in sync.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.shutting_down
    }
}

impl Electorate<'_> {
    pub(super) fn is_active(&self, id: i32) -> bool {
        self.brokers.get(&id).is_some_and(Broker::is_active)
    }
}

impl Placement {
    /// A new log's: its active replicas are in sync, the first of them leads.
    pub(super) fn new(replicas: Vec<i32>, electorate: Electorate<'_>) -> Placement {
        let isr = replicas.iter().copied().filter(|id| electorate.is_active(*id)).collect();
        let mut placement = Placement {
            replicas,
            isr,
            elr: Vec::new(),
            leader: None,
            leader_epoch: 0,
            partition_epoch: 0,
            last_known_leader: None,
            reassignment: None,
        };
        placement.leader = placement.isr.first().copied();
        placement.last_known_leader = placement.leader;
        placement
    }

    /// The leader as a node.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader.map(NodeId)
    }

    /// The fewest in-sync replicas with which acks=all is accepted and the high watermark advances: the setting, but
    /// never more than there are replicas.
    pub fn isr_min(&self, class: &LogClass) -> usize {
        (class.min_insync_replicas as usize).min(self.replicas.len())
    }

    /// Replicas that a move adds and those that it removes.
    pub fn moving(&self) -> (Vec<i32>, Vec<i32>) {
        let Some(Reassignment { from, to }) = &self.reassignment else { return (Vec::new(), Vec::new()) };
        let without = |ids: &[i32], others: &[i32]| ids.iter().copied().filter(|id| !others.contains(id)).collect();
        (without(to, from), without(from, to))
    }

    /// A broker may be in sync no more: it was fenced, is shutting down, or `has_lost` confirmed records.
    pub(super) fn withdraw(&mut self, id: i32, has_lost: bool, electorate: Electorate<'_>) -> bool {
        if !self.replicas.contains(&id) {
            return false;
        }
        let before = self.clone();
        // The defect (KIP-966): the last in-sync replica stays in sync whatever became of its data.
        let is_kept_wrongly = electorate.mutant == Some(Mutant::LastReplicaKeptInSync) && self.isr == [id];
        // Without failover nothing was confirmed without it: it leads again when it is back, with what it has then.
        let is_awaited = !electorate.class.failover && self.last_known_leader == Some(id);
        if !is_kept_wrongly && !is_awaited {
            let isr = self.isr.iter().copied().filter(|other| *other != id).collect();
            self.set_isr(isr, electorate.class);
            if has_lost {
                self.elr.retain(|other| *other != id);
            }
        }
        if self.leader == Some(id) {
            self.leader = None;
        }
        self.elect(electorate);
        self.settle(&before)
    }

    /// Chooses a leader where there is none that may stay.
    pub(super) fn elect(&mut self, electorate: Electorate<'_>) {
        let may_stay = |id| electorate.is_active(id) && self.isr.contains(&id);
        if self.leader.is_some_and(may_stay) {
            return;
        }
        let class = electorate.class;
        let is_candidate = |id: &&i32| {
            electorate.is_active(**id) && (class.failover || self.last_known_leader.is_none_or(|last| last == **id))
        };
        let first_of = |ids: &[i32]| self.replicas.iter().filter(is_candidate).find(|id| ids.contains(id)).copied();
        let is_unclean_allowed = class.unclean_election || electorate.mutant == Some(Mutant::UncleanElection);
        let is_elr_ignored = electorate.mutant == Some(Mutant::LastReplicaKeptInSync) && !self.isr.is_empty();
        if let Some(leader) = first_of(&self.isr) {
            self.leader = Some(leader);
        } else if let (false, Some(leader)) = (is_elr_ignored, first_of(&self.elr)) {
            // Others of the list hold as much: they stay eligible, and join again by fetching.
            self.leader = Some(leader);
            self.isr = vec![leader];
            self.elr.retain(|id| *id != leader);
        } else if self.isr.is_empty()
            && self.elr.is_empty()
            && self.last_known_leader.is_some_and(|id| self.replicas.contains(&id) && electorate.is_active(id))
        {
            // The last replica standing: nobody is known to hold more.
            self.leader = self.last_known_leader;
            self.isr = self.leader.into_iter().collect();
        } else if let (true, Some(leader)) = (is_unclean_allowed, first_of(&self.replicas)) {
            self.leader = Some(leader);
            self.isr = vec![leader];
            self.elr.clear();
        } else {
            self.leader = None;
        }
        self.last_known_leader = self.leader.or(self.last_known_leader);
    }

    /// Takes a new in-sync set. Below the minimum those that leave stay eligible: the high watermark cannot pass them.
    pub(super) fn set_isr(&mut self, isr: Vec<i32>, class: &LogClass) {
        let left = self.isr.iter().chain(&self.elr).copied().filter(|id| !isr.contains(id));
        let elr: Vec<i32> = if isr.len() < self.isr_min(class) {
            let left: Vec<i32> = left.collect();
            self.replicas.iter().copied().filter(|id| left.contains(id)).collect()
        } else {
            Vec::new()
        };
        self.isr = isr;
        self.elr = elr;
    }

    /// Begins a move; its end is `finish_move`.
    pub(super) fn begin_move(&mut self, to: Vec<i32>, electorate: Electorate<'_>) -> bool {
        let before = self.clone();
        let from = self.reassignment.take().map_or_else(|| self.replicas.clone(), |moving| moving.from);
        let stays = from.iter().copied().filter(|id| !to.contains(id));
        self.replicas = to.iter().copied().chain(stays).collect();
        let replicas = self.replicas.clone();
        self.isr.retain(|id| replicas.contains(id));
        self.elr.retain(|id| replicas.contains(id));
        self.reassignment = Some(Reassignment { from, to });
        self.finish_move(electorate);
        self.elect(electorate);
        self.settle(&before)
    }

    /// Gives a move up, and goes back to the replicas before it.
    pub(super) fn cancel_move(&mut self, electorate: Electorate<'_>) -> bool {
        let before = self.clone();
        let Some(Reassignment { from, .. }) = self.reassignment.take() else { return false };
        if !self.isr.iter().chain(&self.elr).any(|id| from.contains(id)) {
            // Nobody of them holds what was confirmed since; the move has to go on.
            self.reassignment = before.reassignment;
            return false;
        }
        self.replicas = from;
        self.keep_replicas_only();
        self.elect(electorate);
        self.settle(&before)
    }

    /// Ends a move once all replicas wanted are in sync.
    pub(super) fn finish_move(&mut self, electorate: Electorate<'_>) {
        let Some(Reassignment { to, .. }) = &self.reassignment else { return };
        if !to.iter().all(|id| self.isr.contains(id)) {
            return;
        }
        self.replicas = to.clone();
        self.reassignment = None;
        self.keep_replicas_only();
        self.elect(electorate);
    }

    /// Elects the preferred leader where it is in sync, or with `unclean` anyone who is there.
    pub(super) fn prefer(&mut self, unclean: bool, electorate: Electorate<'_>) -> bool {
        let before = self.clone();
        if unclean {
            let class = LogClass { unclean_election: true, failover: true, ..electorate.class.clone() };
            self.elect(Electorate { class: &class, ..electorate });
        } else if let Some(first) = self.replicas.first().copied()
            && self.isr.contains(&first)
            && electorate.is_active(first)
        {
            self.leader = Some(first);
            self.last_known_leader = self.leader;
        }
        self.settle(&before)
    }

    fn keep_replicas_only(&mut self) {
        let replicas = &self.replicas;
        self.isr.retain(|id| replicas.contains(id));
        self.elr.retain(|id| replicas.contains(id));
        if self.leader.is_some_and(|id| !replicas.contains(&id)) {
            self.leader = None;
        }
        if self.last_known_leader.is_some_and(|id| !replicas.contains(&id)) {
            self.last_known_leader = None;
        }
    }

    /// Counts the epochs on where something differs from before; whether it does.
    pub(super) fn settle(&mut self, before: &Placement) -> bool {
        self.leader_epoch = before.leader_epoch + i32::from(self.leader != before.leader);
        self.partition_epoch = before.partition_epoch;
        if self == before {
            return false;
        }
        self.partition_epoch += 1;
        true
    }
}

/// Whether a process that came back may have lost what its replica had confirmed.
pub(super) fn may_have_lost(found: DataFound, class: &LogClass) -> bool {
    match found {
        DataFound::Nothing => true,
        DataFound::Clean => false,
        // Under `flush=ack` a replica confirms only what is durable.
        DataFound::Unclean => class.flush != FlushMode::Ack,
    }
}

/// Lists of replicas for new logs, one for each active broker as first: the active ones in a ring, then the others.
/// Empty where there are not `factor` brokers, or none is active.
pub(super) fn rings(brokers: &Brokers, factor: usize) -> Vec<Vec<i32>> {
    let (active, others): (Vec<_>, Vec<_>) = brokers.iter().partition(|(_, broker)| broker.is_active());
    let active: Vec<i32> = active.into_iter().map(|(id, _)| *id).collect();
    if factor == 0 || brokers.len() < factor {
        return Vec::new();
    }
    let ring = |first: usize| {
        let rotated = active.iter().cycle().skip(first).take(active.len()).copied();
        rotated.chain(others.iter().map(|(id, _)| **id)).take(factor).collect()
    };
    (0..active.len()).map(ring).collect()
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
