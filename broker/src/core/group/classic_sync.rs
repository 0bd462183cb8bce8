//! SyncGroup, Heartbeat and LeaveGroup: from the new generation to every member's assignment, and out of the group.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{HeartbeatRequest, LeaveGroupRequest, LeaveGroupResponse};
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::answer::{GroupAnswer, text};
use super::classic::{ClassicGroup, ClassicState};
use super::turn::{Caller, Held, Turn};

impl ClassicGroup {
    pub(super) fn sync(&mut self, caller: Caller, request: &SyncGroupRequest, turn: &mut Turn<'_>) {
        if let Err(error) = self.check_sync(request) {
            return turn.reply(caller, GroupAnswer::sync_refused(error));
        }
        let id = request.member_id.to_string();
        match self.state {
            ClassicState::Empty => turn.reply(caller, GroupAnswer::sync_refused(ResponseError::UnknownMemberId)),
            ClassicState::PreparingRebalance => {
                turn.reply(caller, GroupAnswer::sync_refused(ResponseError::RebalanceInProgress));
            }
            ClassicState::CompletingRebalance => {
                self.synced.insert(id.clone());
                if let Some(before) = self.members.get_mut(&id).and_then(|member| member.syncing.replace(caller)) {
                    turn.reply(before, GroupAnswer::sync_refused(ResponseError::RebalanceInProgress));
                }
                self.hear_of(&id, turn);
                if self.leader.as_deref() == Some(id.as_str()) && self.proposed.is_none() {
                    self.store_assignment(request, turn);
                }
            }
            ClassicState::Stable => {
                self.synced.insert(id.clone());
                let answer = self.assigned_answer(&id);
                turn.reply(caller, answer);
                self.hear_of(&id, turn);
            }
        }
    }

    /// The assignment of a generation is stored: every member that asked for its part gets it.
    pub(super) fn on_synced(&mut self, generation: i32, turn: &mut Turn<'_>) {
        if self.state != ClassicState::CompletingRebalance || self.generation != generation {
            return;
        }
        let Some(mut assignments) = self.proposed.take() else { return };
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
        }
        self.set_state(ClassicState::Stable, turn);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            if let Some(caller) = self.members.get_mut(&id).and_then(|member| member.syncing.take()) {
                let answer = self.assigned_answer(&id);
                turn.reply(caller, answer);
                self.hear_of(&id, turn);
            }
        }
    }

    /// Members that did not ask for their assignment in time are out.
    pub(super) fn on_sync_timer(&mut self, turn: &mut Turn<'_>) {
        let is_due = matches!(self.state, ClassicState::CompletingRebalance | ClassicState::Stable);
        let absent: Vec<String> = self.members.keys().filter(|id| !self.synced.contains(*id)).cloned().collect();
        if is_due && !absent.is_empty() {
            absent.iter().for_each(|id| self.remove_member(id, turn));
            self.rebalance(turn);
        }
    }

    /// A member was not heard of.
    pub(super) fn on_session_timer(&mut self, member: &str, turn: &mut Turn<'_>) {
        if self.members.contains_key(member) {
            self.remove_member(member, turn);
            self.rebalance(turn);
        }
    }

    pub(super) fn heartbeat(&mut self, request: &HeartbeatRequest, turn: &mut Turn<'_>) -> Result<(), ResponseError> {
        let instance = request.group_instance_id.as_deref();
        self.check_member(&request.member_id, instance)?;
        self.check_generation(request.generation_id)?;
        self.hear_of(&request.member_id, turn);
        match self.state {
            ClassicState::Empty => Err(ResponseError::UnknownMemberId),
            ClassicState::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            ClassicState::CompletingRebalance | ClassicState::Stable => Ok(()),
        }
    }

    /// LeaveGroup, of one member up to version 2 and of several from then on.
    pub(super) fn leave(&mut self, caller: Caller, request: &LeaveGroupRequest, turn: &mut Turn<'_>) {
        let mut answer = LeaveGroupResponse::default();
        if caller.header.version < 3 {
            let result = self.remove_leaver(&request.member_id, None, turn);
            answer.error_code = result.err().map_or(0, |error| error.code());
        } else {
            for member in &request.members {
                let result = self.remove_leaver(&member.member_id, member.group_instance_id.as_deref(), turn);
                answer.members.push(
                    MemberResponse::default()
                        .with_member_id(member.member_id.clone())
                        .with_group_instance_id(member.group_instance_id.clone())
                        .with_error_code(result.err().map_or(0, |error| error.code())),
                );
            }
        }
        match self.state {
            ClassicState::Empty => {}
            ClassicState::PreparingRebalance => self.try_complete_join(turn),
            ClassicState::CompletingRebalance | ClassicState::Stable if tells_of_leavers(&answer) => {
                self.rebalance(turn)
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => {}
        }
        turn.reply(caller, GroupAnswer::Leave(answer));
    }

    fn remove_leaver(&mut self, id: &str, instance: Option<&str>, turn: &mut Turn<'_>) -> Result<(), ResponseError> {
        if id.is_empty()
            && let Some(instance) = instance
        {
            let found = self.instances.get(instance).cloned().ok_or(ResponseError::UnknownMemberId)?;
            self.remove_member(&found, turn);
            return Ok(());
        }
        if self.pending.remove(id) {
            turn.timers.clear(self.pending_timer(id));
            return Ok(());
        }
        self.check_member(id, instance)?;
        self.remove_member(id, turn);
        Ok(())
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), ResponseError> {
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        self.check_generation(request.generation_id)?;
        let differs = |given: Option<&str>, ours: Option<&str>| given.is_some_and(|given| Some(given) != ours);
        if differs(request.protocol_type.as_deref(), self.protocol_type.as_deref())
            || differs(request.protocol_name.as_deref(), self.protocol.as_deref())
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn store_assignment(&mut self, request: &SyncGroupRequest, turn: &mut Turn<'_>) {
        let given = request.assignments.iter();
        let assignments: BTreeMap<String, Bytes> =
            given.map(|part| (part.member_id.to_string(), part.assignment.clone())).collect();
        turn.record(self.to_record(Some(&assignments)));
        turn.holds.push(Held::Synced { group: self.id.clone(), generation: self.generation });
        self.proposed = Some(assignments);
    }

    fn assigned_answer(&self, id: &str) -> GroupAnswer {
        let assignment = self.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default();
        GroupAnswer::Sync(
            SyncGroupResponse::default()
                .with_protocol_type(self.protocol_type.as_deref().map(text))
                .with_protocol_name(self.protocol.as_deref().map(text))
                .with_assignment(assignment),
        )
    }
}

/// Whether the answer tells of anybody who is out now.
fn tells_of_leavers(answer: &LeaveGroupResponse) -> bool {
    if answer.members.is_empty() { answer.error_code == 0 } else { answer.members.iter().any(|m| m.error_code == 0) }
}
