//! JoinGroup: who may join, how members are told apart, and the rebalance from its beginning to the new generation.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::JoinGroupResponse;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;

use super::answer::{GroupAnswer, text};
use super::classic::{ClassicGroup, ClassicMember, ClassicState, Joining};
use super::turn::{Caller, Held, Turn};

/// A JoinGroup, checked as far as it can be without its group.
#[derive(Debug, Clone)]
pub(in crate::core) struct Join {
    pub(super) member: String,
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) protocol_type: String,
    pub(super) protocols: Vec<(String, Bytes)>,
    /// Whether a newcomer must come back with the id that it is given (from version 4 on).
    pub(super) needs_id: bool,
    /// Whether the member understands that a leader may be spared the assignment (from version 9 on).
    pub(super) can_skip_assignment: bool,
}

impl ClassicGroup {
    pub(super) fn join(&mut self, caller: Caller, join: Join, turn: &mut Turn<'_>) {
        if let Err(error) = self.check_join(&join, turn) {
            return turn.reply(caller, GroupAnswer::join_refused(&join.member, error));
        }
        if !join.member.is_empty() {
            return self.join_again(caller, join, turn);
        }
        match join.instance.clone() {
            Some(instance) => match self.instances.get(&instance).cloned() {
                Some(old) => self.replace_member(caller, &old, join, turn),
                None => {
                    let id = turn.ids.take(&instance);
                    self.add_member(caller, id, join, turn);
                }
            },
            None => {
                let id = turn.ids.take(&join.client_id);
                if join.needs_id {
                    turn.set_timer(self.pending_timer(&id), join.session_timeout);
                    turn.reply(caller, GroupAnswer::join_refused(&id, ResponseError::MemberIdRequired));
                    self.pending.insert(id);
                } else {
                    self.add_member(caller, id, join, turn);
                }
            }
        }
    }

    /// The time to wait for members is over.
    pub(super) fn on_join_timer(&mut self, turn: &mut Turn<'_>) {
        if self.state != ClassicState::PreparingRebalance {
            return;
        }
        if let Joining::Initial { left } = self.joining
            && self.has_newcomer
            && !left.is_zero()
        {
            self.has_newcomer = false;
            let delay = turn.view.settings.initial_rebalance_delay.min(left);
            self.joining = Joining::Initial { left: left - delay };
            return turn.set_timer(self.join_timer(), delay);
        }
        self.complete_join(turn);
    }

    /// An id that was given out was not used in time.
    pub(super) fn on_pending_timer(&mut self, member: &str, turn: &mut Turn<'_>) {
        if self.pending.remove(member) {
            self.try_complete_join(turn);
        }
    }

    /// Begins a rebalance, unless one is collecting its members.
    pub(super) fn rebalance(&mut self, turn: &mut Turn<'_>) {
        if self.state == ClassicState::PreparingRebalance {
            return self.try_complete_join(turn);
        }
        if self.state == ClassicState::CompletingRebalance {
            for member in self.members.values_mut() {
                if let Some(caller) = member.syncing.take() {
                    turn.reply(caller, GroupAnswer::sync_refused(ResponseError::RebalanceInProgress));
                }
                member.assignment = Bytes::new();
            }
            let ids: Vec<String> = self.members.keys().cloned().collect();
            ids.iter().for_each(|id| self.hear_of(id, turn));
        }
        turn.timers.clear(self.sync_timer());
        self.proposed = None;
        let timeout = self.rebalance_timeout();
        let delay = turn.view.settings.initial_rebalance_delay;
        self.has_newcomer = false;
        if self.state == ClassicState::Empty {
            let delay = delay.min(timeout);
            self.joining = Joining::Initial { left: timeout - delay };
            turn.set_timer(self.join_timer(), delay);
        } else {
            self.joining = Joining::Again;
            turn.set_timer(self.join_timer(), timeout);
        }
        self.set_state(ClassicState::PreparingRebalance, turn);
        self.try_complete_join(turn);
    }

    /// Ends the wait for members where there is nobody left to wait for.
    pub(super) fn try_complete_join(&mut self, turn: &mut Turn<'_>) {
        let is_complete = self.pending.is_empty() && self.members.values().all(|member| member.joined.is_some());
        let is_waiting = self.state == ClassicState::PreparingRebalance && self.joining == Joining::Again;
        if is_waiting && is_complete {
            self.complete_join(turn);
        }
    }

    fn check_join(&self, join: &Join, turn: &Turn<'_>) -> Result<(), ResponseError> {
        let is_supported = if self.members.is_empty() {
            !join.protocol_type.is_empty() && !join.protocols.is_empty()
        } else {
            let is_common = |name: &str| self.members.values().all(|member| member.knows(name));
            self.protocol_type.as_deref() == Some(join.protocol_type.as_str())
                && join.protocols.iter().any(|(name, _)| is_common(name))
        };
        if !is_supported {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let is_known = self.members.contains_key(&join.member)
            || join.instance.as_ref().is_some_and(|instance| self.instances.contains_key(instance));
        if !is_known && self.members.len() + self.pending.len() >= turn.view.settings.members_max {
            let is_expected = self.pending.contains(&join.member);
            return if is_expected { Ok(()) } else { Err(ResponseError::GroupMaxSizeReached) };
        }
        Ok(())
    }

    fn join_again(&mut self, caller: Caller, join: Join, turn: &mut Turn<'_>) {
        let id = join.member.clone();
        if self.pending.contains(&id) && join.instance.is_none() {
            return self.add_member(caller, id, join, turn);
        }
        if let Err(error) = self.check_member(&id, join.instance.as_deref()) {
            return turn.reply(caller, GroupAnswer::join_refused(&id, error));
        }
        let member = &self.members[&id];
        let is_same = member.protocols == join.protocols;
        let is_leader = self.leader.as_deref() == Some(id.as_str());
        match self.state {
            ClassicState::CompletingRebalance if is_same => {
                // It did not hear the answer to its join of this very generation.
                let answer = self.joined_answer(&id);
                turn.reply(caller, answer);
                self.hear_of(&id, turn);
            }
            ClassicState::Stable if is_same && !is_leader => {
                let answer = self.joined_answer(&id);
                turn.reply(caller, answer);
                self.hear_of(&id, turn);
            }
            ClassicState::PreparingRebalance | ClassicState::CompletingRebalance | ClassicState::Stable => {
                self.update_member(caller, &id, join, turn);
                self.rebalance(turn);
            }
            ClassicState::Empty => unreachable!("an empty group has no members"),
        }
    }

    fn add_member(&mut self, caller: Caller, id: String, join: Join, turn: &mut Turn<'_>) {
        turn.timers.clear(self.pending_timer(&id));
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        self.leader.get_or_insert_with(|| id.clone());
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        let member = ClassicMember {
            instance: join.instance,
            client_id: join.client_id,
            rebalance_timeout: join.rebalance_timeout,
            session_timeout: join.session_timeout,
            protocols: join.protocols,
            assignment: Bytes::new(),
            joined: Some(caller),
            syncing: None,
        };
        self.members.insert(id, member);
        let joins_others = self.state == ClassicState::PreparingRebalance;
        self.rebalance(turn);
        self.has_newcomer |= joins_others;
    }

    fn update_member(&mut self, caller: Caller, id: &str, join: Join, turn: &mut Turn<'_>) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.client_id = join.client_id;
        member.protocols = join.protocols;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        if let Some(before) = member.joined.replace(caller) {
            // The client gave up on that request and asked again.
            turn.reply(before, GroupAnswer::join_refused(id, ResponseError::RebalanceInProgress));
        }
        if let Some(before) = member.syncing.take() {
            turn.reply(before, GroupAnswer::sync_refused(ResponseError::RebalanceInProgress));
        }
        self.hear_of(id, turn);
    }

    /// A static member is back under a new id: its old id is fenced, its place is kept.
    fn replace_member(&mut self, caller: Caller, old: &str, join: Join, turn: &mut Turn<'_>) {
        let id = turn.ids.take(join.instance.as_deref().unwrap_or_default());
        let Some(mut member) = self.members.remove(old) else { return };
        turn.timers.clear(self.session_timer(old));
        if let Some(before) = member.joined.take() {
            turn.reply(before, GroupAnswer::join_refused(old, ResponseError::FencedInstanceId));
        }
        if let Some(before) = member.syncing.take() {
            turn.reply(before, GroupAnswer::sync_refused(ResponseError::FencedInstanceId));
        }
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        if self.synced.remove(old) {
            self.synced.insert(id.clone());
        }
        let leader_before = self.leader.clone();
        if leader_before.as_deref() == Some(old) {
            self.leader = Some(id.clone());
        }
        member.client_id = join.client_id;
        member.protocols = join.protocols;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        self.members.insert(id.clone(), member);
        if self.state == ClassicState::Stable && self.choose_protocol() == self.protocol {
            turn.record(self.to_record(None));
            let is_leader = self.leader.as_deref() == Some(id.as_str());
            let GroupAnswer::Join(mut answer) = self.joined_answer(&id) else { return };
            if join.can_skip_assignment {
                answer.skip_assignment = is_leader;
            } else {
                // It would assign anew if it were told that it leads; nothing is to change.
                answer.leader = text(leader_before.as_deref().unwrap_or_default());
                answer.members.clear();
            }
            turn.holds.push(Held::Reply(caller, GroupAnswer::Join(answer)));
            return self.hear_of(&id, turn);
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.joined = Some(caller);
        }
        self.rebalance(turn);
    }

    /// The rebalance has the members that it gets: those who did not come are out, and a generation begins.
    fn complete_join(&mut self, turn: &mut Turn<'_>) {
        let is_absent = |member: &ClassicMember| member.joined.is_none() && member.instance.is_none();
        let absent: Vec<String> =
            self.members.iter().filter(|(_, member)| is_absent(member)).map(|(id, _)| id.clone()).collect();
        absent.iter().for_each(|id| self.remove_member(id, turn));
        let has_joined = |id: &String| self.members.get(id).is_some_and(|member| member.joined.is_some());
        if !self.leader.as_ref().is_some_and(has_joined) {
            let joined = self.members.iter().find(|(_, member)| member.joined.is_some()).map(|(id, _)| id.clone());
            if joined.is_none() && !self.members.is_empty() {
                // Static members may still come back before their sessions end.
                self.joining = Joining::Again;
                return turn.set_timer(self.join_timer(), self.rebalance_timeout());
            }
            self.leader = joined;
        }
        turn.timers.clear(self.join_timer());
        self.generation = self.generation.wrapping_add(1).max(1);
        self.synced.clear();
        self.proposed = None;
        turn.out.events.push((crate::points::GROUP_REBALANCED, 1));
        if self.members.is_empty() {
            self.protocol = None;
            self.set_state(ClassicState::Empty, turn);
            return turn.record(self.to_record(None));
        }
        self.protocol = self.choose_protocol();
        self.set_state(ClassicState::CompletingRebalance, turn);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.joined_answer(&id);
            let caller = self.members.get_mut(&id).and_then(|member| member.joined.take());
            if let Some(caller) = caller {
                turn.reply(caller, answer);
                self.hear_of(&id, turn);
            }
        }
        turn.set_timer(self.sync_timer(), self.rebalance_timeout());
    }

    /// What a member hears about the generation that it is in.
    fn joined_answer(&self, id: &str) -> GroupAnswer {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let is_leader = self.leader.as_deref() == Some(id);
        let described: BTreeMap<&String, &ClassicMember> =
            if is_leader { self.members.iter().collect() } else { BTreeMap::new() };
        let members = described.into_iter().map(|(id, member)| {
            JoinGroupResponseMember::default()
                .with_member_id(text(id))
                .with_group_instance_id(member.instance.as_deref().map(text))
                .with_metadata(member.metadata(protocol))
        });
        GroupAnswer::Join(
            JoinGroupResponse::default()
                .with_generation_id(self.generation)
                .with_protocol_type(self.protocol_type.as_deref().map(text))
                .with_protocol_name(Some(text(protocol)))
                .with_leader(text(self.leader.as_deref().unwrap_or_default()))
                .with_member_id(text(id))
                .with_members(members.collect()),
        )
    }
}
