//! A group of the new protocol (KIP-848): the broker assigns, and each member is led from what it owns to what it is to
//! own, giving up before others get. Everything here but sessions is the fold of the group's records: what changes is
//! written and applied by the same code that loads it.
//! Start at `ConsumerGroup::replay`. Heartbeats are in `consumer_heartbeat`, the way of one member in `reconcile`.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;

use super::assignor::{Assignor, Subscriber};
use super::record::{Assignment, CurrentValue, EpochValue, GroupRecord, MemberState, MemberValue, TopicId};
use super::subscription::{self, Topics};
use super::timers::Timer;
use super::turn::Turn;
use crate::core::types::Offset;
use crate::mutant::Mutant;

/// A group.
#[derive(Debug)]
pub(super) struct ConsumerGroup {
    pub(super) id: String,
    /// Counts changes of who is in the group and what is subscribed to.
    pub(super) epoch: i32,
    pub(super) metadata_hash: u64,
    pub(super) empty_since_ms: Option<i64>,
    /// The epoch that the target assignment was made for.
    pub(super) target_epoch: i32,
    pub(super) members: BTreeMap<String, Member>,
    /// Ids of the static members by instance.
    pub(super) instances: BTreeMap<String, String>,
    /// Who owns a queue, also while it is to give it up.
    owners: BTreeMap<(TopicId, i32), String>,
    /// Where the metadata was when the subscriptions were last compared with it.
    pub(super) compared_at: Option<Offset>,
}

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) value: MemberValue,
    pub(super) target: Assignment,
    pub(super) current: CurrentValue,
}

impl ConsumerGroup {
    pub(super) fn new(id: String) -> ConsumerGroup {
        ConsumerGroup {
            id,
            epoch: 0,
            metadata_hash: 0,
            empty_since_ms: None,
            target_epoch: 0,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            owners: BTreeMap::new(),
            compared_at: None,
        }
    }

    /// Takes a record of the group.
    pub(super) fn replay(&mut self, record: GroupRecord, mutant: Option<Mutant>) {
        match record {
            GroupRecord::Epoch { value: Some(value), .. } => {
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
                self.empty_since_ms = value.empty_since_ms;
            }
            GroupRecord::Member { member, value: Some(value), .. } => {
                if let Some(instance) = &value.instance {
                    self.instances.insert(instance.clone(), member.clone());
                }
                match self.members.get_mut(&member) {
                    Some(known) => known.value = value,
                    None => {
                        let new = Member { value, target: Assignment::new(), current: CurrentValue::joining() };
                        self.members.insert(member, new);
                    }
                }
            }
            GroupRecord::Member { member, value: None, .. } => {
                self.set_current(&member, CurrentValue::joining(), mutant);
                let gone = self.members.remove(&member);
                if let Some(instance) = gone.and_then(|gone| gone.value.instance)
                    && self.instances.get(&instance) == Some(&member)
                {
                    self.instances.remove(&instance);
                }
            }
            GroupRecord::TargetEpoch { value, .. } => self.target_epoch = value.unwrap_or(0),
            GroupRecord::Target { member, value, .. } => {
                if let Some(member) = self.members.get_mut(&member) {
                    member.target = value.unwrap_or_default();
                }
            }
            GroupRecord::Current { member, value, .. } => {
                self.set_current(&member, value.unwrap_or_else(CurrentValue::joining), mutant);
            }
            GroupRecord::Epoch { value: None, .. } | GroupRecord::Offset { .. } | GroupRecord::Classic { .. } => {}
        }
    }

    /// Writes a record, and has it in force.
    pub(super) fn write(&mut self, record: GroupRecord, turn: &mut Turn<'_>) {
        self.replay(record.clone(), turn.view.mutant);
        turn.record(record);
    }

    /// The state's name in answers.
    pub(super) fn state_name(&self) -> &'static str {
        let is_settled =
            |member: &Member| member.current.state == MemberState::Stable && member.current.epoch == self.target_epoch;
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(is_settled) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// The assignor that most members prefer.
    pub(super) fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        let names = self.members.values().filter_map(|member| member.value.assignor.as_deref());
        names.filter_map(Assignor::from_name).for_each(|assignor| *votes.entry(assignor).or_default() += 1);
        let most = votes.values().copied().max().unwrap_or(0);
        votes.into_iter().find(|(_, count)| *count == most).map_or(Assignor::Uniform, |(assignor, _)| assignor)
    }

    pub(super) fn owner(&self, topic: TopicId, partition: i32) -> Option<&str> {
        self.owners.get(&(topic, partition)).map(String::as_str)
    }

    /// The topics that members subscribe to, patterns resolved.
    pub(super) fn subscribed_topics(&self, turn: &Turn<'_>) -> BTreeSet<String> {
        let topics = subscription::topics(turn.view.metadata);
        let names = self.members.values().flat_map(|member| subscription::resolve(&member.value, &topics));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    /// A commit of a member, or of somebody who is none.
    pub(super) fn check_commit(&self, member: &str, epoch: i32, version: i16) -> Result<(), ResponseError> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(member).ok_or(ResponseError::UnknownMemberId)?;
        if version < 9 {
            return Err(ResponseError::UnsupportedVersion);
        }
        if epoch == member.current.epoch { Ok(()) } else { Err(ResponseError::StaleMemberEpoch) }
    }

    /// An OffsetFetch that names a member.
    pub(super) fn check_fetch(&self, member: Option<&str>, epoch: i32) -> Result<(), ResponseError> {
        let Some(id) = member.filter(|_| epoch >= 0) else { return Ok(()) };
        let member = self.members.get(id).ok_or(ResponseError::UnknownMemberId)?;
        if epoch == member.current.epoch { Ok(()) } else { Err(ResponseError::StaleMemberEpoch) }
    }

    /// Begins sessions after the group was loaded.
    pub(super) fn begin_sessions(&self, turn: &mut Turn<'_>) {
        for (id, member) in &self.members {
            turn.set_timer(self.session_timer(id), turn.view.settings.consumer_session_timeout);
            if member.current.state == MemberState::UnrevokedPartitions {
                turn.set_timer(self.revoke_timer(id), member.rebalance_timeout());
            }
        }
    }

    pub(super) fn session_timer(&self, member: &str) -> Timer {
        Timer::Session { group: self.id.clone(), member: member.to_owned() }
    }

    pub(super) fn revoke_timer(&self, member: &str) -> Timer {
        Timer::Revoke { group: self.id.clone(), member: member.to_owned() }
    }

    /// A member was not heard of, or did not give up what it was told to.
    pub(super) fn fence(&mut self, id: &str, turn: &mut Turn<'_>) {
        if self.members.contains_key(id) {
            self.remove_member(id, turn);
            self.bump(turn);
        }
    }

    /// Takes a member out; the epoch is for the caller to bump.
    pub(super) fn remove_member(&mut self, id: &str, turn: &mut Turn<'_>) {
        turn.timers.clear(self.session_timer(id));
        turn.timers.clear(self.revoke_timer(id));
        let (group, member) = (self.id.clone(), id.to_owned());
        self.write(GroupRecord::Current { group, member, value: None }, turn);
        let (group, member) = (self.id.clone(), id.to_owned());
        self.write(GroupRecord::Target { group, member, value: None }, turn);
        let (group, member) = (self.id.clone(), id.to_owned());
        self.write(GroupRecord::Member { group, member, value: None }, turn);
    }

    /// Begins the next epoch.
    pub(super) fn bump(&mut self, turn: &mut Turn<'_>) {
        turn.out.events.push((crate::points::GROUP_REBALANCED, 1));
        let topics = subscription::topics(turn.view.metadata);
        let metadata_hash = subscription::hash(self.members.values().map(|member| &member.value), &topics);
        let empty_since_ms = self.members.is_empty().then_some(turn.view.now.wall_ms);
        let value = EpochValue { epoch: self.epoch + 1, metadata_hash, empty_since_ms };
        self.write(GroupRecord::Epoch { group: self.id.clone(), value: Some(value) }, turn);
    }

    /// Makes the target assignment of the group's epoch.
    pub(super) fn assign(&mut self, turn: &mut Turn<'_>) {
        let topics: Topics<'_> = subscription::topics(turn.view.metadata);
        let mut counts: BTreeMap<TopicId, i32> = BTreeMap::new();
        let mut subscribers = BTreeMap::new();
        for (id, member) in &self.members {
            let mut wanted = BTreeSet::new();
            for (_, topic) in subscription::resolve(&member.value, &topics) {
                counts.insert(topic.id, topic.partitions);
                wanted.insert(topic.id);
            }
            let instance = member.value.instance.as_deref();
            subscribers.insert(id.as_str(), Subscriber { instance, topics: wanted, before: &member.target });
        }
        let targets = self.assignor().assign(&counts, &subscribers);
        for (member, target) in targets {
            if self.members.get(&member).is_some_and(|known| known.target != target) {
                let group = self.id.clone();
                self.write(GroupRecord::Target { group, member, value: Some(target) }, turn);
            }
        }
        self.write(GroupRecord::TargetEpoch { group: self.id.clone(), value: Some(self.epoch) }, turn);
    }

    /// The records that say that the group is gone; it has no members.
    pub(super) fn removal(&self) -> [GroupRecord; 2] {
        let group = || self.id.clone();
        [GroupRecord::TargetEpoch { group: group(), value: None }, GroupRecord::Epoch { group: group(), value: None }]
    }

    fn set_current(&mut self, id: &str, value: CurrentValue, mutant: Option<Mutant>) {
        let Some(member) = self.members.get_mut(id) else { return };
        let before = std::mem::replace(&mut member.current, value);
        let release = |owners: &mut BTreeMap<(TopicId, i32), String>| {
            for queue in queues(&before.assigned).chain(queues(&before.revoking)) {
                if owners.get(&queue).is_some_and(|owner| owner == id) {
                    owners.remove(&queue);
                }
            }
        };
        let after = &member.current;
        let owned = queues(&after.assigned).chain(queues(&after.revoking)).map(|queue| (queue, id.to_owned()));
        // The defect (KAFKA-16147): what the member had is released after what it has is noted, so a queue that it
        // keeps, or still has to give up, counts as free, and goes to another member at once.
        if mutant == Some(Mutant::OwnershipLostOnReassignment) {
            self.owners.extend(owned);
            release(&mut self.owners);
        } else {
            release(&mut self.owners);
            self.owners.extend(owned);
        }
    }
}

impl Member {
    pub(super) fn rebalance_timeout(&self) -> std::time::Duration {
        std::time::Duration::from_millis(u64::from(self.value.rebalance_timeout_ms))
    }
}

impl CurrentValue {
    /// Of a member that has joined and owns nothing.
    pub(super) fn joining() -> CurrentValue {
        CurrentValue {
            epoch: 0,
            previous_epoch: 0,
            state: MemberState::Stable,
            assigned: Assignment::new(),
            revoking: Assignment::new(),
        }
    }
}

fn queues(assignment: &Assignment) -> impl Iterator<Item = (TopicId, i32)> + '_ {
    assignment.iter().flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
}
