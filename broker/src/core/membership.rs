//! What the metadata's records about brokers, in-sync sets, moves of replicas and settings do.
//! Who may be in sync: no process of another broker epoch (KIP-903), nobody fenced or shutting down (KIP-841).
//! Not here: who is elected (`placement`), and who proposes the records (`control`, `replica`).

use std::collections::BTreeMap;

use super::metadata::{Applied, Metadata, Partition, Refusal, Topic};
use super::placement::{Broker, DataFound, Electorate, may_have_lost};
use super::settings::{Layout, TopicSetting, TopicSettings};
use super::types::LogId;
use crate::mutant::Mutant;

impl Metadata {
    pub(super) fn register(&mut self, id: i32, broker: Broker, found: DataFound) -> Applied {
        if self.brokers.get(&id).is_some_and(|known| known.incarnation == broker.incarnation) {
            return Applied::Refused(Refusal::StaleBrokerEpoch);
        }
        if self.removed.get(&id) == Some(&broker.incarnation) {
            return Applied::Refused(Refusal::StaleBrokerEpoch);
        }
        self.removed.remove(&id);
        let before = self.brokers.insert(id, broker);
        // The defect (KIP-841): who was fenced is believed to be in no in-sync set.
        if self.mutant == Some(Mutant::FencedReplicaRejoins) && before.is_some_and(|broker| broker.fenced) {
            return Applied::Placements(Vec::new());
        }
        self.withdraw(id, found)
    }

    pub(super) fn unregister(&mut self, id: i32) -> Applied {
        let Some(broker) = self.brokers.remove(&id) else { return Applied::Refused(Refusal::UnknownBroker) };
        self.removed.insert(id, broker.incarnation);
        self.withdraw(id, DataFound::Clean)
    }

    /// Changes a broker's state, and what follows for the logs that it holds.
    pub(super) fn change_broker(&mut self, id: i32, epoch: i64, change: impl Fn(&mut Broker)) -> Applied {
        let Some(broker) = self.brokers.get_mut(&id) else { return Applied::Refused(Refusal::UnknownBroker) };
        if broker.epoch != epoch {
            return Applied::Refused(Refusal::StaleBrokerEpoch);
        }
        let was_active = broker.is_active();
        change(broker);
        match (was_active, broker.is_active()) {
            (true, false) => self.withdraw(id, DataFound::Clean),
            (false, true) => {
                let mutant = self.mutant;
                let mut changed = Vec::new();
                for (log, placement) in &mut self.placements {
                    if placement.leader.is_some() || !placement.replicas.contains(&id) {
                        continue;
                    }
                    let Some(class) = self.logs.get(log) else { continue };
                    let before = placement.clone();
                    placement.elect(Electorate { brokers: &self.brokers, class, mutant });
                    if placement.settle(&before) {
                        changed.push(LogId(*log));
                    }
                }
                Applied::Placements(changed)
            }
            (true, true) | (false, false) => Applied::Placements(Vec::new()),
        }
    }

    fn withdraw(&mut self, id: i32, found: DataFound) -> Applied {
        let mut changed = Vec::new();
        for (log, placement) in &mut self.placements {
            let Some(class) = self.logs.get(log) else { continue };
            let electorate = Electorate { brokers: &self.brokers, class, mutant: self.mutant };
            if placement.withdraw(id, may_have_lost(found, class), electorate) {
                changed.push(LogId(*log));
            }
        }
        Applied::Placements(changed)
    }

    pub(super) fn change_isr(
        &mut self,
        log: u64,
        leader_epoch: i32,
        partition_epoch: i32,
        wanted: &[(i32, i64)],
    ) -> Applied {
        let refused = Applied::Refused;
        let (Some(placement), Some(class)) = (self.placements.get_mut(&log), self.logs.get(&log)) else {
            return refused(Refusal::UnknownLog);
        };
        if placement.leader_epoch != leader_epoch {
            return refused(Refusal::FencedLeaderEpoch);
        }
        if placement.partition_epoch != partition_epoch {
            return refused(Refusal::StalePartitionEpoch);
        }
        for (id, epoch) in wanted {
            match self.brokers.get(id) {
                Some(broker) if broker.epoch != *epoch => return refused(Refusal::StaleBrokerEpoch),
                // The defect (KIP-841): whoever has caught up is in sync, also one that is fenced or about to go.
                Some(broker) if broker.is_active() || self.mutant == Some(Mutant::FencedReplicaRejoins) => {}
                Some(_) | None => return refused(Refusal::IneligibleReplica),
            }
        }
        let ids: Vec<i32> =
            placement.replicas.iter().copied().filter(|id| wanted.iter().any(|(w, _)| w == id)).collect();
        if ids.len() != wanted.len() || placement.leader.is_none_or(|leader| !ids.contains(&leader)) {
            return refused(Refusal::IneligibleReplica);
        }
        let before = placement.clone();
        placement.set_isr(ids, class);
        placement.finish_move(Electorate { brokers: &self.brokers, class, mutant: self.mutant });
        if !placement.settle(&before) {
            // Nothing else changed, but proposals that are still under way are refused from now on.
            placement.partition_epoch += 1;
        }
        Applied::Placements(vec![LogId(log)])
    }

    pub(super) fn cut_replica(&mut self, log: u64, broker: i32) -> Applied {
        self.change_placement(log, Refusal::IneligibleReplica, |placement, electorate| {
            placement.withdraw(broker, true, electorate)
        })
    }

    pub(super) fn reassign(&mut self, log: u64, replicas: Option<Vec<i32>>) -> Applied {
        match replicas {
            Some(replicas) if !self.is_assignable(&replicas) => Applied::Refused(Refusal::InvalidAssignment),
            Some(_) if self.logs.get(&log).is_some_and(|class| class.cleanup.compact) => {
                Applied::Refused(Refusal::InvalidAssignment)
            }
            Some(to) => self.change_placement(log, Refusal::NoReassignment, |placement, electorate| {
                placement.begin_move(to, electorate);
                true
            }),
            None => self.change_placement(log, Refusal::NoReassignment, |placement, electorate| {
                placement.cancel_move(electorate)
            }),
        }
    }

    pub(super) fn prefer_leader(&mut self, log: u64, unclean: bool) -> Applied {
        self.change_placement(log, Refusal::NoElection, |placement, electorate| placement.prefer(unclean, electorate))
    }

    fn change_placement(
        &mut self,
        log: u64,
        unchanged: Refusal,
        change: impl FnOnce(&mut super::placement::Placement, Electorate<'_>) -> bool,
    ) -> Applied {
        let (Some(placement), Some(class)) = (self.placements.get_mut(&log), self.logs.get(&log)) else {
            return Applied::Refused(Refusal::UnknownLog);
        };
        let electorate = Electorate { brokers: &self.brokers, class, mutant: self.mutant };
        if change(placement, electorate) { Applied::Placements(vec![LogId(log)]) } else { Applied::Refused(unchanged) }
    }

    /// Whether a list of replicas names registered brokers, each once, and at least one.
    pub(super) fn is_assignable(&self, replicas: &[i32]) -> bool {
        let mut sorted = replicas.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        !replicas.is_empty() && sorted.len() == replicas.len() && sorted.iter().all(|id| self.brokers.contains_key(id))
    }

    /// Whether every partition of a topic has one replica, and none is on its way elsewhere.
    pub(super) fn has_one_replica_each(&self, topic: &Topic) -> bool {
        let is_alone = |partition: &Partition| {
            let placement = self.placements.get(&partition.log().0);
            placement.is_none_or(|placement| placement.replicas.len() == 1 && placement.reassignment.is_none())
        };
        topic.partitions.iter().all(is_alone)
    }

    pub(super) fn change_config(
        &mut self,
        name: &str,
        defaults: &TopicSettings,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Applied {
        let Some(topic) = self.topics.get_mut(name) else { return Applied::Refused(Refusal::UnknownTopic) };
        let mut overrides = topic.overrides.clone();
        let mut values = BTreeMap::new();
        for (key, value) in changes {
            let Some(setting) = TopicSetting::from_name(key) else { return Applied::Refused(Refusal::FixedSetting) };
            match value {
                Some(value) => drop(overrides.insert(key.clone(), value.clone())),
                None => drop(overrides.remove(key)),
            }
            values.insert(key.clone(), value.clone().unwrap_or_else(|| defaults.value(setting)));
        }
        let Ok(settings) = topic.settings.with_overrides(&values) else {
            return Applied::Refused(Refusal::FixedSetting);
        };
        let is_class_changed = settings.class != topic.settings.class;
        if settings.layout != topic.settings.layout || (is_class_changed && settings.layout == Layout::Shared) {
            // The log of a class is shared with other topics, and its queues cannot move to another log.
            return Applied::Refused(Refusal::FixedSetting);
        }
        let (was_compacted, is_compacted) = (topic.settings.class.cleanup.compact, settings.class.cleanup.compact);
        let is_replicated = |partition: &Partition| {
            self.placements.get(&partition.log().0).is_some_and(|placement| placement.replicas.len() > 1)
        };
        if was_compacted && !is_compacted || is_compacted && topic.partitions.iter().any(is_replicated) {
            return Applied::Refused(Refusal::FixedSetting);
        }
        topic.overrides = overrides;
        topic.settings = settings;
        let mut logs = Vec::new();
        if is_class_changed {
            for partition in &topic.partitions {
                logs.push(partition.log());
                self.logs.insert(partition.log().0, topic.settings.class.clone());
            }
        }
        Applied::ConfigChanged { logs }
    }
}
