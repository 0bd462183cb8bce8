//! One partition of the internal topic on the node that leads its log: groups and their offsets. Pure: requests,
//! confirmations and time come in; records and answers go out. What a record says is in force when it is appended, but
//! told only once it is confirmed; where an append fails, the coordinator is dropped and loaded from the log again.
//! Not here: where requests come from and how records are appended (`service`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{
    HeartbeatRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetDeleteResponse,
    SyncGroupRequest,
};

use super::answer::GroupAnswer;
use super::classic::{ClassicGroup, ClassicState};
use super::classic_join::Join;
use super::consumer::ConsumerGroup;
use super::consumer_heartbeat::Beat;
use super::offsets::{self, FetchOffsets, Offsets};
use super::record::GroupRecord;
use super::timers::{Timer, Timers};
use super::turn::{Caller, Held, MemberIds, Outcome, Turn, View};
use crate::core::machine::RequestId;

/// A group of either kind.
#[derive(Debug)]
pub(super) enum Group {
    Classic(ClassicGroup),
    Consumer(ConsumerGroup),
}

/// A request that concerns one group.
#[derive(Debug)]
pub(in crate::core) enum Call {
    Join { group: String, join: Box<Join> },
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveGroupRequest),
    Commit(OffsetCommitRequest),
    DeleteOffsets(OffsetDeleteRequest),
    Beat { group: String, beat: Box<Beat> },
}

impl Call {
    /// The group that it concerns.
    pub(super) fn group(&self) -> &str {
        match self {
            Call::Join { group, .. } | Call::Beat { group, .. } => group,
            Call::Sync(request) => &request.group_id,
            Call::Heartbeat(request) => &request.group_id,
            Call::Leave(request) => &request.group_id,
            Call::Commit(request) => &request.group_id,
            Call::DeleteOffsets(request) => &request.group_id,
        }
    }

    /// The answer that nothing was done.
    pub(super) fn refused(&self, error: ResponseError) -> GroupAnswer {
        match self {
            Call::Join { join, .. } => GroupAnswer::join_refused(&join.member, error),
            Call::Sync(_) => GroupAnswer::sync_refused(error),
            Call::Heartbeat(_) => GroupAnswer::heartbeat(Err(error)),
            Call::Leave(_) => GroupAnswer::Leave(Default::default()).refused(error),
            Call::Commit(request) => super::describe::commit_refused(request, error),
            Call::Beat { .. } => GroupAnswer::beat_refused(error, "the group's coordinator is not here, or not ready"),
            Call::DeleteOffsets(_) => {
                GroupAnswer::DeleteOffsets(OffsetDeleteResponse::default().with_error_code(error.code()))
            }
        }
    }
}

/// The groups of one partition.
#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) offsets: Offsets,
    side: Side,
    /// Number of the newest append, and of the newest that is confirmed.
    appended: u64,
    confirmed: u64,
    /// In the order of the appends that they wait for.
    held: VecDeque<(u64, Held)>,
}

/// What groups share.
#[derive(Debug)]
struct Side {
    timers: Timers,
    holds: Vec<Held>,
    ids: MemberIds,
}

impl Side {
    fn turn<'a>(&'a mut self, view: View<'a>, out: &'a mut Outcome) -> Turn<'a> {
        Turn { view, out, timers: &mut self.timers, holds: &mut self.holds, ids: &mut self.ids }
    }
}

impl Coordinator {
    /// A coordinator before its first record. The draw names the process, and `number` this coordinator within it.
    pub(super) fn new(incarnation: u64, number: u64) -> Coordinator {
        Coordinator {
            groups: BTreeMap::new(),
            offsets: Offsets::default(),
            side: Side {
                timers: Timers::default(),
                holds: Vec::new(),
                ids: MemberIds { incarnation, next: number << MEMBERS_BITS },
            },
            appended: 0,
            confirmed: 0,
            held: VecDeque::new(),
        }
    }

    /// Takes a stored record, in the log's order.
    pub(super) fn replay(&mut self, record: GroupRecord) {
        match record {
            GroupRecord::Offset { group, topic, partition, value } => {
                self.offsets.apply(&group, topic, partition, value);
            }
            GroupRecord::Classic { group, value: Some(value) } => {
                self.groups.insert(group.clone(), Group::Classic(ClassicGroup::stored(group, value)));
            }
            GroupRecord::Classic { group, value: None } => {
                if matches!(self.groups.get(&group), Some(Group::Classic(_))) {
                    self.groups.remove(&group);
                }
            }
            GroupRecord::Epoch { group, value: None } => {
                if matches!(self.groups.get(&group), Some(Group::Consumer(_))) {
                    self.groups.remove(&group);
                }
            }
            GroupRecord::Epoch { ref group, value: Some(_) }
            | GroupRecord::Member { ref group, value: Some(_), .. } => {
                if !matches!(self.groups.get(group), Some(Group::Consumer(_))) {
                    self.groups.insert(group.clone(), Group::Consumer(ConsumerGroup::new(group.clone())));
                }
                self.replay_consumer(&group.clone(), record);
            }
            GroupRecord::Member { ref group, .. }
            | GroupRecord::TargetEpoch { ref group, .. }
            | GroupRecord::Target { ref group, .. }
            | GroupRecord::Current { ref group, .. } => self.replay_consumer(&group.clone(), record),
        }
    }

    fn replay_consumer(&mut self, group: &str, record: GroupRecord) {
        if let Some(Group::Consumer(group)) = self.groups.get_mut(group) {
            group.replay(record, None);
        }
    }

    /// Every record was taken: sessions begin.
    pub(super) fn begin(&mut self, view: View<'_>) {
        let mut out = Outcome::default();
        let orphans: Vec<String> =
            self.offsets.groups().map(|(group, _)| group.clone()).filter(|id| !self.groups.contains_key(id)).collect();
        for id in orphans {
            self.groups.insert(id.clone(), Group::Classic(ClassicGroup::new(id, view.now)));
        }
        let turn = &mut self.side.turn(view, &mut out);
        for group in self.groups.values() {
            match group {
                Group::Classic(group) => group.begin_sessions(turn),
                Group::Consumer(group) => group.begin_sessions(turn),
            }
        }
        turn.set_timer(Timer::Expire, view.settings.offsets_retention_check);
    }

    /// Takes a request.
    pub(super) fn call(&mut self, caller: Caller, call: Call, view: View<'_>, out: &mut Outcome) {
        match call {
            Call::Join { group, join } => self.join(caller, group, *join, view, out),
            Call::Sync(request) => {
                let turn = &mut self.side.turn(view, out);
                match self.groups.get_mut(request.group_id.as_str()) {
                    Some(Group::Classic(group)) => group.sync(caller, &request, turn),
                    Some(Group::Consumer(_)) | None => {
                        turn.reply(caller, GroupAnswer::sync_refused(ResponseError::UnknownMemberId));
                    }
                }
            }
            Call::Heartbeat(request) => {
                let turn = &mut self.side.turn(view, out);
                let result = match self.groups.get_mut(request.group_id.as_str()) {
                    Some(Group::Classic(group)) => group.heartbeat(&request, turn),
                    Some(Group::Consumer(_)) | None => Err(ResponseError::UnknownMemberId),
                };
                turn.reply(caller, GroupAnswer::heartbeat(result));
            }
            Call::Leave(request) => {
                let turn = &mut self.side.turn(view, out);
                match self.groups.get_mut(request.group_id.as_str()) {
                    Some(Group::Classic(group)) => group.leave(caller, &request, turn),
                    Some(Group::Consumer(_)) | None => {
                        // Up to version 2 one member is meant, from then on each answers for itself.
                        let nobody = &mut ClassicGroup::new(request.group_id.to_string(), view.now);
                        nobody.leave(caller, &request, turn);
                    }
                }
            }
            Call::Commit(request) => self.commit(caller, &request, view, out),
            Call::DeleteOffsets(request) => self.delete_offsets(caller, &request, view, out),
            Call::Beat { group, beat } => self.beat(caller, &group, &beat, view, out),
        }
        self.end_turn(view, out);
    }

    /// OffsetFetch for one group.
    pub(super) fn fetch_offsets(&self, wanted: &FetchOffsets) -> OffsetFetchResponseGroup {
        if let Some(Group::Consumer(group)) = self.groups.get(&wanted.group)
            && let Err(error) = group.check_fetch(wanted.member.as_deref(), wanted.member_epoch)
        {
            return offsets::fetch_refused(wanted, error);
        }
        offsets::fetch(self.offsets.of(&wanted.group), wanted)
    }

    /// Deletes a group without members, with its offsets.
    pub(super) fn delete_group(
        &mut self,
        id: &str,
        place: (RequestId, usize),
        view: View<'_>,
        out: &mut Outcome,
    ) -> Result<(), ResponseError> {
        let group = self.groups.get(id).ok_or(ResponseError::GroupIdNotFound)?;
        match group {
            Group::Classic(group) if group.is_empty() => {}
            Group::Consumer(group) if group.members.is_empty() => {}
            Group::Classic(_) | Group::Consumer(_) => return Err(ResponseError::NonEmptyGroup),
        }
        self.forget_group(id, view, out);
        self.side.holds.push(Held::Deleted { id: place.0, slot: place.1 });
        self.end_turn(view, out);
        Ok(())
    }

    /// A topic is gone, and with it what was committed of it.
    pub(super) fn forget_topic(&mut self, topic: &str, view: View<'_>, out: &mut Outcome) {
        let concerned: Vec<(String, Vec<i32>)> = self
            .offsets
            .groups()
            .map(|(group, offsets)| {
                let partitions = offsets.keys().filter(|(name, _)| name == topic).map(|(_, partition)| *partition);
                (group.clone(), partitions.collect())
            })
            .filter(|(_, partitions): &(String, Vec<i32>)| !partitions.is_empty())
            .collect();
        for (group, partitions) in concerned {
            let changes = partitions.into_iter().map(|partition| (topic.to_owned(), partition, None)).collect();
            offsets::change(&mut self.offsets, group, changes, &mut self.side.turn(view, out));
        }
        self.end_turn(view, out);
    }

    /// Appends up to this number are confirmed.
    pub(super) fn confirm(&mut self, number: u64, view: View<'_>, out: &mut Outcome) {
        assert!(number <= self.appended, "only what was appended is confirmed");
        self.confirmed = self.confirmed.max(number);
        self.release(view, out);
        self.end_turn(view, out);
    }

    /// The number of the newest append.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    /// When `on_deadline` is wanted, in monotonic time.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.side.timers.next()
    }

    /// A timer is due.
    pub(super) fn on_deadline(&mut self, view: View<'_>, out: &mut Outcome) {
        while let Some(timer) = self.side.timers.pop_due(view.now.monotonic) {
            if timer == Timer::Expire {
                self.expire_offsets(view, out);
                self.side.timers.set(timer, view.now.monotonic + view.settings.offsets_retention_check);
                continue;
            }
            let turn = &mut self.side.turn(view, out);
            match &timer {
                Timer::Session { group, member } => match self.groups.get_mut(group) {
                    Some(Group::Classic(group)) => group.on_session_timer(member, turn),
                    Some(Group::Consumer(group)) => group.fence(member, turn),
                    None => {}
                },
                Timer::Revoke { group, member } => match self.groups.get_mut(group) {
                    Some(Group::Consumer(group)) => group.fence(member, turn),
                    Some(Group::Classic(_)) | None => {}
                },
                Timer::Pending { group, member } => match self.groups.get_mut(group) {
                    Some(Group::Classic(group)) => group.on_pending_timer(member, turn),
                    Some(Group::Consumer(_)) | None => {}
                },
                Timer::Join { group } => match self.groups.get_mut(group) {
                    Some(Group::Classic(group)) => group.on_join_timer(turn),
                    Some(Group::Consumer(_)) | None => {}
                },
                Timer::Sync { group } => match self.groups.get_mut(group) {
                    Some(Group::Classic(group)) => group.on_sync_timer(turn),
                    Some(Group::Consumer(_)) | None => {}
                },
                Timer::Expire => {}
            }
        }
        self.end_turn(view, out);
    }

    /// The coordinator is no more: everybody who waits is told so.
    pub(super) fn refuse_all(mut self, error: ResponseError, view: View<'_>, out: &mut Outcome) {
        let turn = &mut self.side.turn(view, out);
        for group in self.groups.values_mut() {
            match group {
                Group::Classic(group) => group.refuse_all(error, turn),
                Group::Consumer(_) => {}
            }
        }
        for (_, held) in self.held {
            if let Held::Reply(caller, answer) = held {
                out.replies.push((caller, answer.refused(error)));
            }
        }
    }

    fn join(&mut self, caller: Caller, id: String, join: Join, view: View<'_>, out: &mut Outcome) {
        let turn = &mut self.side.turn(view, out);
        if !self.groups.contains_key(&id) {
            if !join.member.is_empty() {
                let error = ResponseError::UnknownMemberId;
                return turn.reply(caller, GroupAnswer::join_refused(&join.member, error));
            }
            self.groups.insert(id.clone(), Group::Classic(ClassicGroup::new(id.clone(), view.now)));
        }
        if let Some(Group::Consumer(group)) = self.groups.get(&id)
            && group.members.is_empty()
        {
            group.removal().into_iter().for_each(|record| turn.record(record));
            self.groups.insert(id.clone(), Group::Classic(ClassicGroup::new(id.clone(), view.now)));
        }
        match self.groups.get_mut(&id) {
            Some(Group::Classic(group)) => group.join(caller, join, turn),
            Some(Group::Consumer(_)) => {
                let error = ResponseError::InconsistentGroupProtocol;
                turn.reply(caller, GroupAnswer::join_refused(&join.member, error));
            }
            None => {}
        }
    }

    /// A heartbeat of the new protocol. A group that is empty becomes one of the new kind.
    fn beat(&mut self, caller: Caller, id: &str, beat: &Beat, view: View<'_>, out: &mut Outcome) {
        let turn = &mut self.side.turn(view, out);
        let is_convertible = match self.groups.get(id) {
            None => true,
            Some(Group::Classic(group)) => group.is_empty() && group.pending.is_empty(),
            Some(Group::Consumer(_)) => false,
        };
        if is_convertible {
            if beat.epoch != 0 {
                let answer = GroupAnswer::beat_refused(ResponseError::UnknownMemberId, "there is no such member");
                return turn.reply(caller, answer);
            }
            let before = self.groups.insert(id.to_owned(), Group::Consumer(ConsumerGroup::new(id.to_owned())));
            if before.is_some() {
                turn.record(GroupRecord::Classic { group: id.to_owned(), value: None });
            }
        }
        match self.groups.get_mut(id) {
            Some(Group::Consumer(group)) => group.heartbeat(caller, beat, turn),
            Some(Group::Classic(_)) | None => {
                let message = "the group has members of the classic protocol";
                turn.reply(caller, GroupAnswer::beat_refused(ResponseError::GroupIdNotFound, message));
            }
        }
    }

    fn commit(&mut self, caller: Caller, request: &OffsetCommitRequest, view: View<'_>, out: &mut Outcome) {
        let id = request.group_id.as_str();
        let generation = request.generation_id_or_member_epoch;
        let turn = &mut self.side.turn(view, out);
        let allowed = match self.groups.get_mut(id) {
            Some(Group::Classic(group)) => {
                let allowed = group.check_commit(&request.member_id, request.group_instance_id.as_deref(), generation);
                if allowed.is_ok() {
                    // A commit shows that the member lives, as a heartbeat does.
                    group.hear_of(&request.member_id, turn);
                }
                allowed
            }
            Some(Group::Consumer(group)) => group.check_commit(&request.member_id, generation, caller.header.version),
            None if generation < 0 => {
                self.groups.insert(id.to_owned(), Group::Classic(ClassicGroup::new(id.to_owned(), view.now)));
                Ok(())
            }
            None if caller.header.version >= 9 => Err(ResponseError::GroupIdNotFound),
            None => Err(ResponseError::IllegalGeneration),
        };
        offsets::commit(&mut self.offsets, caller, request, allowed, turn);
    }

    fn delete_offsets(&mut self, caller: Caller, request: &OffsetDeleteRequest, view: View<'_>, out: &mut Outcome) {
        let turn = &mut self.side.turn(view, out);
        let subscribed = match self.groups.get(request.group_id.as_str()) {
            Some(Group::Classic(group)) if group.is_empty() => Some(Default::default()),
            Some(Group::Classic(group)) => group.subscribed_topics(),
            Some(Group::Consumer(group)) => Some(group.subscribed_topics(turn)),
            None => {
                let error = ResponseError::GroupIdNotFound.code();
                let answer = OffsetDeleteResponse::default().with_error_code(error);
                return turn.reply(caller, GroupAnswer::DeleteOffsets(answer));
            }
        };
        let Some(subscribed) = subscribed else {
            // Members of another protocol: nobody can say what they need.
            let answer = OffsetDeleteResponse::default().with_error_code(ResponseError::NonEmptyGroup.code());
            return turn.reply(caller, GroupAnswer::DeleteOffsets(answer));
        };
        offsets::delete(&mut self.offsets, caller, request, &|topic| subscribed.contains(topic), turn);
    }

    /// Forgets offsets that nobody used for too long, and groups of which nothing is left.
    fn expire_offsets(&mut self, view: View<'_>, out: &mut Outcome) {
        let retention_ms = view.settings.offsets_retention.as_millis() as i64;
        let horizon = view.now.wall_ms.saturating_sub(retention_ms);
        let mut idle = Vec::new();
        for (id, group) in &self.groups {
            match group {
                Group::Classic(group) if group.state == ClassicState::Empty && group.pending.is_empty() => {
                    // Members that left used the offsets until then; without a protocol there never were any.
                    let since = if group.protocol_type.is_some() { group.since_ms } else { i64::MIN };
                    idle.push((id.clone(), since));
                }
                Group::Consumer(group) if group.members.is_empty() => {
                    idle.push((id.clone(), group.empty_since_ms.unwrap_or(i64::MIN)));
                }
                Group::Classic(_) | Group::Consumer(_) => {}
            }
        }
        for (id, since_ms) in idle {
            let expired: Vec<(String, i32)> = self
                .offsets
                .of(&id)
                .into_iter()
                .flatten()
                .filter(|(_, committed)| committed.at_ms.max(since_ms) < horizon)
                .map(|(place, _)| place.clone())
                .collect();
            if !expired.is_empty() {
                out.events.push((crate::points::OFFSETS_EXPIRED, expired.len() as u64));
                let changes = expired.into_iter().map(|(topic, partition)| (topic, partition, None)).collect();
                offsets::change(&mut self.offsets, id, changes, &mut self.side.turn(view, out));
            } else if !self.offsets.has_any(&id) && since_ms < horizon {
                self.forget_group(&id, view, out);
            }
        }
    }

    /// Takes a group and its offsets out, in the log too.
    fn forget_group(&mut self, id: &str, view: View<'_>, out: &mut Outcome) {
        let Some(group) = self.groups.remove(id) else { return };
        let turn = &mut self.side.turn(view, out);
        match group {
            Group::Classic(group) => {
                group.pending.iter().for_each(|member| turn.timers.clear(group.pending_timer(member)));
                turn.timers.clear(group.join_timer());
                turn.record(GroupRecord::Classic { group: id.to_owned(), value: None });
            }
            Group::Consumer(group) => group.removal().into_iter().for_each(|record| turn.record(record)),
        }
        let places: Vec<(String, i32)> = self.offsets.of(id).into_iter().flatten().map(|(p, _)| p.clone()).collect();
        let changes = places.into_iter().map(|(topic, partition)| (topic, partition, None)).collect();
        offsets::change(&mut self.offsets, id.to_owned(), changes, turn);
    }

    /// Numbers the append that the turn decided on, and lets what is held wait for it.
    fn end_turn(&mut self, view: View<'_>, out: &mut Outcome) {
        // An event may pass through here more than once; its records are still one append.
        if !out.records.is_empty() && !out.is_numbered {
            self.appended += 1;
            out.is_numbered = true;
        }
        let number = self.appended;
        self.held.extend(self.side.holds.drain(..).map(|held| (number, held)));
        self.release(view, out);
    }

    /// Does what waited for what is confirmed.
    fn release(&mut self, view: View<'_>, out: &mut Outcome) {
        while self.held.front().is_some_and(|(number, _)| *number <= self.confirmed) {
            let Some((_, held)) = self.held.pop_front() else { return };
            match held {
                Held::Reply(caller, answer) => out.replies.push((caller, answer)),
                Held::Synced { group, generation } => match self.groups.get_mut(&group) {
                    Some(Group::Classic(group)) => group.on_synced(generation, &mut self.side.turn(view, out)),
                    Some(Group::Consumer(_)) | None => {}
                },
                Held::Offsets { group, changes } => {
                    for (topic, partition, value) in changes {
                        self.offsets.apply(&group, topic, partition, value);
                    }
                    self.offsets.settle(&group);
                }
                Held::Deleted { id, slot } => out.deleted.push((id, slot)),
            }
        }
    }
}

/// Member ids of one coordinator's life: its number in the process, then so many bits of count.
const MEMBERS_BITS: u32 = 40;
