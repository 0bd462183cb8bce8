//! A group of the classic protocol: its members, its state, and what the states have in common. Members join, the
//! protocol that all of them know is chosen, the leader among them assigns, and every member gets its part.
//! Start with `ClassicState`. Joining is in `classic_join`; syncing, heartbeats and leaving in `classic_sync`.
//! Departure from Kafka: a member that waits for a rebalance stays until it ends, also when its connection is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::answer::GroupAnswer;
use super::record::{ClassicMemberValue, ClassicValue, GroupRecord};
use super::timers::Timer;
use super::turn::{Caller, Turn};
use crate::core::types::Now;

/// Where a group is in its cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClassicState {
    /// No members; perhaps offsets.
    Empty,
    /// Members are joining.
    PreparingRebalance,
    /// Everybody joined; the leader's assignment is awaited or being stored.
    CompletingRebalance,
    /// Every member has, or may ask for, its assignment.
    Stable,
}

/// How the rebalance under way collects its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joining {
    /// The group was empty: more members are waited for, this long at most in further delays.
    Initial { left: Duration },
    /// The members known must join again.
    Again,
}

/// A group.
#[derive(Debug)]
pub(super) struct ClassicGroup {
    pub(super) id: String,
    pub(super) state: ClassicState,
    /// Since when it is in the state, in milliseconds of wall time.
    pub(super) since_ms: i64,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    /// The protocol chosen for the generation.
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, ClassicMember>,
    /// Ids of the static members by instance; each names a member.
    pub(super) instances: BTreeMap<String, String>,
    /// Ids that were given out and have not joined.
    pub(super) pending: BTreeSet<String>,
    pub(super) joining: Joining,
    /// Whether somebody joined since the delay under way began.
    pub(super) has_newcomer: bool,
    /// Members that have asked for their assignment in this generation.
    pub(super) synced: BTreeSet<String>,
    /// The leader's assignment, while it is being stored.
    pub(super) proposed: Option<BTreeMap<String, Bytes>>,
}

/// A member.
#[derive(Debug)]
pub(super) struct ClassicMember {
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) rebalance_timeout: Duration,
    pub(super) session_timeout: Duration,
    /// What it can do, best first, each with what it says to the leader.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// Its JoinGroup that waits for the rebalance. Set while it takes part in one, also if nobody listens any more.
    pub(super) joined: Option<Caller>,
    /// Its SyncGroup that waits for the assignment.
    pub(super) syncing: Option<Caller>,
}

impl ClassicState {
    /// The state's name in answers.
    pub(super) fn name(self) -> &'static str {
        match self {
            ClassicState::Empty => "Empty",
            ClassicState::PreparingRebalance => "PreparingRebalance",
            ClassicState::CompletingRebalance => "CompletingRebalance",
            ClassicState::Stable => "Stable",
        }
    }
}

impl ClassicMember {
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }

    pub(super) fn knows(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }
}

impl ClassicGroup {
    /// A group without members.
    pub(super) fn new(id: String, now: Now) -> ClassicGroup {
        ClassicGroup {
            id,
            state: ClassicState::Empty,
            since_ms: now.wall_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeSet::new(),
            joining: Joining::Again,
            has_newcomer: false,
            synced: BTreeSet::new(),
            proposed: None,
        }
    }

    /// The group that a record describes.
    pub(super) fn stored(id: String, value: ClassicValue) -> ClassicGroup {
        let mut group = ClassicGroup::new(id, Now::default());
        let protocol = value.protocol.clone().unwrap_or_default();
        for member in value.members {
            if let Some(instance) = &member.instance {
                group.instances.insert(instance.clone(), member.id.clone());
            }
            let state = ClassicMember {
                instance: member.instance,
                client_id: member.client_id,
                rebalance_timeout: Duration::from_millis(u64::from(member.rebalance_timeout_ms)),
                session_timeout: Duration::from_millis(u64::from(member.session_timeout_ms)),
                protocols: vec![(protocol.clone(), Bytes::from(member.subscription))],
                assignment: Bytes::from(member.assignment),
                joined: None,
                syncing: None,
            };
            group.members.insert(member.id, state);
        }
        group.state = if group.members.is_empty() { ClassicState::Empty } else { ClassicState::Stable };
        group.synced = group.members.keys().cloned().collect();
        group.since_ms = value.since_ms;
        group.generation = value.generation;
        group.protocol_type = value.protocol_type;
        group.protocol = value.protocol;
        group.leader = value.leader;
        group
    }

    /// The record that stores the group, with these assignments.
    pub(super) fn to_record(&self, assignments: Option<&BTreeMap<String, Bytes>>) -> GroupRecord {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| ClassicMemberValue {
            id: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            rebalance_timeout_ms: member.rebalance_timeout.as_millis() as u32,
            session_timeout_ms: member.session_timeout.as_millis() as u32,
            subscription: member.metadata(protocol).to_vec(),
            assignment: match assignments {
                Some(assignments) => assignments.get(id).map(|bytes| bytes.to_vec()).unwrap_or_default(),
                None => member.assignment.to_vec(),
            },
        });
        let value = ClassicValue {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since_ms: self.since_ms,
            members: members.collect(),
        };
        GroupRecord::Classic { group: self.id.clone(), value: Some(value) }
    }

    /// Whether nobody is in it or about to be.
    pub(super) fn is_empty(&self) -> bool {
        self.state == ClassicState::Empty
    }

    /// Whether a member's id and instance, as a request names them, are those of a member.
    pub(super) fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), ResponseError> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(id) if id != member => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(ResponseError::UnknownMemberId) }
    }

    pub(super) fn check_generation(&self, generation: i32) -> Result<(), ResponseError> {
        if generation == self.generation { Ok(()) } else { Err(ResponseError::IllegalGeneration) }
    }

    /// Begins the sessions of all members, after the group was loaded.
    pub(super) fn begin_sessions(&self, turn: &mut Turn<'_>) {
        self.members.keys().for_each(|member| self.hear_of(member, turn));
    }

    /// Begins a member's session anew, unless it waits for the group rather than the group for it.
    pub(super) fn hear_of(&self, id: &str, turn: &mut Turn<'_>) {
        let Some(member) = self.members.get(id) else { return };
        let timer = self.session_timer(id);
        if member.joined.is_some() || member.syncing.is_some() {
            turn.timers.clear(timer);
        } else {
            turn.set_timer(timer, member.session_timeout);
        }
    }

    pub(super) fn session_timer(&self, member: &str) -> Timer {
        Timer::Session { group: self.id.clone(), member: member.to_owned() }
    }

    pub(super) fn pending_timer(&self, member: &str) -> Timer {
        Timer::Pending { group: self.id.clone(), member: member.to_owned() }
    }

    pub(super) fn join_timer(&self) -> Timer {
        Timer::Join { group: self.id.clone() }
    }

    pub(super) fn sync_timer(&self) -> Timer {
        Timer::Sync { group: self.id.clone() }
    }

    pub(super) fn set_state(&mut self, state: ClassicState, turn: &Turn<'_>) {
        self.state = state;
        self.since_ms = turn.view.now.wall_ms;
    }

    /// The longest time that any member wants for a rebalance.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    /// The protocol that all members know and most of them like best; ties go to the one that sorts first.
    pub(super) fn choose_protocol(&self) -> Option<String> {
        let first = self.members.values().next()?;
        let common = first.protocols.iter().map(|(name, _)| name.as_str());
        let common: BTreeSet<&str> = common.filter(|name| self.members.values().all(|m| m.knows(name))).collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().map(|(name, _)| name.as_str()).find(|name| common.contains(name))?;
            *votes.entry(vote).or_default() += 1;
        }
        let most = *votes.values().max()?;
        votes.iter().find(|(_, count)| **count == most).map(|(name, _)| (*name).to_owned())
    }

    /// Takes a member out, whatever it waits for; what becomes of the group is for the caller to decide.
    pub(super) fn remove_member(&mut self, id: &str, turn: &mut Turn<'_>) {
        turn.timers.clear(self.session_timer(id));
        let Some(member) = self.members.remove(id) else { return };
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        self.synced.remove(id);
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        let error = ResponseError::UnknownMemberId;
        if let Some(caller) = member.joined {
            turn.reply(caller, GroupAnswer::join_refused(id, error));
        }
        if let Some(caller) = member.syncing {
            turn.reply(caller, GroupAnswer::sync_refused(error));
        }
    }

    /// Answers everybody who waits that the coordinator is no more.
    pub(super) fn refuse_all(&mut self, error: ResponseError, turn: &mut Turn<'_>) {
        for (id, member) in &mut self.members {
            if let Some(caller) = member.joined.take() {
                turn.reply(caller, GroupAnswer::join_refused(id, error));
            }
            if let Some(caller) = member.syncing.take() {
                turn.reply(caller, GroupAnswer::sync_refused(error));
            }
        }
    }

    /// A commit of a member, or of somebody who is none.
    pub(super) fn check_commit(
        &self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), ResponseError> {
        if generation < 0 && self.is_empty() {
            return Ok(());
        }
        if generation < 0 && member.is_empty() && instance.is_none() {
            return Err(ResponseError::UnknownMemberId);
        }
        self.check_member(member, instance)?;
        self.check_generation(generation)?;
        if self.state == ClassicState::CompletingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        Ok(())
    }

    /// The topics that members of the protocol `consumer` subscribe to; none where that is not known.
    pub(super) fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some("consumer") || self.members.is_empty() {
            return None;
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscription_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }
}

/// The topics of a ConsumerProtocolSubscription: version, then an array of strings.
fn subscription_topics(bytes: &[u8]) -> Option<Vec<String>> {
    let mut rest = bytes.get(2..)?;
    let count = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = u16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
        topics.push(String::from_utf8(take(&mut rest, usize::from(length))?.to_vec()).ok()?);
    }
    Some(topics)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}
