//! ConsumerGroupHeartbeat (0 to 1): joining, staying in and leaving a group of the new protocol, and hearing what to own.
//! Departures from Kafka: racks are stored and told, but no assignor looks at them; what a member says after it is told
//! to leave for good is not waited for.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment as AssignmentAnswer, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use uuid::Uuid;

use super::answer::{GroupAnswer, text};
use super::assignor::Assignor;
use super::consumer::{ConsumerGroup, Member};
use super::record::{Assignment, CurrentValue, GroupRecord, MemberState, MemberValue, TopicId};
use super::subscription;
use super::turn::{Caller, Turn};

/// A heartbeat, checked as far as it can be without its group.
#[derive(Debug, Clone)]
pub(in crate::core) struct Beat {
    pub(super) member: String,
    pub(super) epoch: i32,
    pub(super) instance: Option<String>,
    rack: Option<String>,
    client_id: String,
    rebalance_timeout_ms: Option<u32>,
    topics: Option<BTreeSet<String>>,
    regex: Option<String>,
    assignor: Option<String>,
    owned: Option<Assignment>,
}

/// A refusal with its reason.
type Refused = (ResponseError, &'static str);

impl Beat {
    /// Reads and checks a request.
    pub(super) fn new(version: i16, client_id: &str, request: ConsumerGroupHeartbeatRequest) -> Result<Beat, Refused> {
        let owned = request.topic_partitions.map(|topics| {
            let topics = topics.into_iter().filter(|topic| !topic.partitions.is_empty());
            topics.map(|t| (TopicId(t.topic_id.as_u128()), t.partitions.into_iter().collect())).collect::<Assignment>()
        });
        let beat = Beat {
            member: request.member_id.to_string(),
            epoch: request.member_epoch,
            instance: request.instance_id.map(|id| id.to_string()),
            rack: request.rack_id.map(|rack| rack.to_string()),
            client_id: client_id.to_owned(),
            rebalance_timeout_ms: u32::try_from(request.rebalance_timeout_ms).ok(),
            topics: request.subscribed_topic_names.map(|names| names.iter().map(|name| name.to_string()).collect()),
            regex: request.subscribed_topic_regex.map(|regex| regex.to_string()),
            assignor: request.server_assignor.map(|name| name.to_string()),
            owned,
        };
        beat.check(version, request.group_id.is_empty())?;
        Ok(beat)
    }

    fn check(&self, version: i16, has_no_group: bool) -> Result<(), Refused> {
        let invalid = |message| Err((ResponseError::InvalidRequest, message));
        if has_no_group {
            return Err((ResponseError::InvalidGroupId, "a group is named"));
        }
        if self.instance.as_deref() == Some("") {
            return invalid("an instance id is not empty");
        }
        if self.epoch < LEFT_STATIC {
            return invalid("an epoch is -2 or more");
        }
        if self.member.is_empty() && (self.epoch != 0 || version >= 1) {
            return invalid("a member names itself");
        }
        if self.epoch == LEFT_STATIC && self.instance.is_none() {
            return invalid("a static member names its instance when it leaves for a while");
        }
        if self.epoch == 0 {
            if self.rebalance_timeout_ms.is_none() {
                return invalid("a member that joins says how long a rebalance may take");
            }
            if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return invalid("a member that joins owns nothing, and says so");
            }
            if self.topics.is_none() && self.regex.is_none() {
                return invalid("a member that joins says what it subscribes to");
            }
        }
        if self.assignor.as_deref().is_some_and(|name| Assignor::from_name(name).is_none()) {
            return Err((ResponseError::UnsupportedAssignor, "the assignors are uniform and range"));
        }
        match self.regex.as_deref().filter(|regex| !regex.is_empty()).map(subscription::compile) {
            Some(Err(error)) => Err((error, "the pattern cannot be read")),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Whether it says everything, as a member does that did not hear the last answer.
    fn is_full(&self) -> bool {
        self.epoch == 0 || self.topics.is_some() || self.regex.is_some()
    }

    fn is_leave(&self) -> bool {
        self.epoch == LEFT || self.epoch == LEFT_STATIC
    }
}

impl ConsumerGroup {
    pub(super) fn heartbeat(&mut self, caller: Caller, beat: &Beat, turn: &mut Turn<'_>) {
        let result = if beat.is_leave() { self.leave(beat, turn) } else { self.stay(beat, turn) };
        let answer = match result {
            Ok(answer) => answer.with_heartbeat_interval_ms(heartbeat_interval_ms(turn)),
            Err((error, message)) => {
                return turn.reply(caller, GroupAnswer::beat_refused(error, message));
            }
        };
        turn.reply_when_stored(caller, GroupAnswer::Beat(answer));
    }

    fn stay(&mut self, beat: &Beat, turn: &mut Turn<'_>) -> Result<ConsumerGroupHeartbeatResponse, Refused> {
        let id = self.locate(beat, turn)?;
        let is_new = !self.members.contains_key(&id);
        let before = self.members.get(&id).map(|member| member.current.assigned.clone()).unwrap_or_default();
        let has_changed = self.describe_itself(&id, beat, turn);
        if is_new || has_changed || self.has_outdated_topics(turn) {
            self.bump(turn);
        }
        self.compared_at = Some(turn.view.metadata.record_next());
        if self.epoch > self.target_epoch {
            self.assign(turn);
        }
        let Some(member) = self.members.get(&id) else {
            return Err((ResponseError::UnknownMemberId, "the member is gone"));
        };
        let next = self.reconcile(member, beat.owned.as_ref());
        if next != member.current || is_new {
            self.set_revoke_timer(&id, member, &next, turn);
            let group = self.id.clone();
            self.write(GroupRecord::Current { group, member: id.clone(), value: Some(next.clone()) }, turn);
        }
        turn.set_timer(self.session_timer(&id), turn.view.settings.consumer_session_timeout);
        let is_told = beat.is_full() || next.assigned != before;
        Ok(ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(text(&id)))
            .with_member_epoch(next.epoch)
            .with_assignment(is_told.then(|| assignment_answer(&next.assigned))))
    }

    fn leave(&mut self, beat: &Beat, turn: &mut Turn<'_>) -> Result<ConsumerGroupHeartbeatResponse, Refused> {
        if let Some(instance) = &beat.instance {
            match self.instances.get(instance) {
                None => return Err((ResponseError::UnknownMemberId, "there is no such instance")),
                Some(id) if *id != beat.member => {
                    return Err((ResponseError::FencedInstanceId, "another member has the instance"));
                }
                Some(_) => {}
            }
        }
        let Some(member) = self.members.get(&beat.member) else {
            return Err((ResponseError::UnknownMemberId, "there is no such member"));
        };
        if beat.epoch == LEFT_STATIC {
            // It keeps what it owns for when it is back, but holds nobody up.
            let value = CurrentValue {
                epoch: LEFT_STATIC,
                previous_epoch: member.current.epoch,
                state: MemberState::Stable,
                assigned: member.current.assigned.clone(),
                revoking: Assignment::new(),
            };
            let group = self.id.clone();
            turn.timers.clear(self.revoke_timer(&beat.member));
            self.write(GroupRecord::Current { group, member: beat.member.clone(), value: Some(value) }, turn);
        } else {
            self.fence(&beat.member, turn);
        }
        let answer = ConsumerGroupHeartbeatResponse::default().with_member_id(Some(text(&beat.member)));
        Ok(answer.with_member_epoch(beat.epoch))
    }

    /// The id of the member that speaks: a known one, or one that joins now.
    fn locate(&mut self, beat: &Beat, turn: &mut Turn<'_>) -> Result<String, Refused> {
        let is_joining = beat.epoch == 0;
        let known = match &beat.instance {
            Some(instance) => self.instances.get(instance).cloned(),
            None => self.members.contains_key(&beat.member).then(|| beat.member.clone()),
        };
        let Some(known) = known else {
            if !is_joining {
                return Err((ResponseError::UnknownMemberId, "there is no such member"));
            }
            if self.members.len() >= turn.view.settings.members_max {
                return Err((ResponseError::GroupMaxSizeReached, "the group is full"));
            }
            let is_named = !beat.member.is_empty();
            return Ok(if is_named { beat.member.clone() } else { turn.ids.take(&beat.client_id) });
        };
        if is_joining {
            let has_left = self.members.get(&known).is_some_and(|member| member.current.epoch == LEFT_STATIC);
            return match () {
                () if known == beat.member => Ok(known),
                () if has_left => Ok(self.replace(&known, beat, turn)),
                () => Err((ResponseError::UnreleasedInstanceId, "another member has the instance")),
            };
        }
        if known != beat.member {
            return Err((ResponseError::FencedInstanceId, "another member has the instance"));
        }
        let current = &self.members[&known].current;
        // A member that did not hear of its last epoch says the one before, and owns no more than it should.
        let is_behind = beat.epoch == current.previous_epoch
            && beat.owned.as_ref().is_some_and(|owned| is_subset(owned, &current.assigned));
        if beat.epoch == current.epoch || (beat.epoch < current.epoch && is_behind) {
            return Ok(known);
        }
        Err((ResponseError::FencedMemberEpoch, "the member's epoch is not the one that it was told"))
    }

    /// A static member is back under another id, and takes the place that it had.
    fn replace(&mut self, old: &str, beat: &Beat, turn: &mut Turn<'_>) -> String {
        let id = if beat.member.is_empty() { turn.ids.take(&beat.client_id) } else { beat.member.clone() };
        let Some(Member { value, target, current }) = self.members.get(old).cloned() else { return id };
        self.remove_member(old, turn);
        let (group, member) = (self.id.clone(), id.clone());
        self.write(GroupRecord::Member { group, member, value: Some(value) }, turn);
        let (group, member) = (self.id.clone(), id.clone());
        self.write(GroupRecord::Target { group, member, value: Some(target) }, turn);
        let value = CurrentValue { assigned: current.assigned, ..CurrentValue::joining() };
        let (group, member) = (self.id.clone(), id.clone());
        self.write(GroupRecord::Current { group, member, value: Some(value) }, turn);
        id
    }

    /// Stores what the member says about itself; whether its subscription is another one now.
    fn describe_itself(&mut self, id: &str, beat: &Beat, turn: &mut Turn<'_>) -> bool {
        let known = self.members.get(id).map(|member| &member.value);
        let pattern = |regex: &String| Some(regex.clone()).filter(|regex| !regex.is_empty());
        let value = MemberValue {
            instance: beat.instance.clone().or_else(|| known.and_then(|value| value.instance.clone())),
            rack: beat.rack.clone().or_else(|| known.and_then(|value| value.rack.clone())),
            client_id: beat.client_id.clone(),
            topics: beat.topics.clone().or_else(|| known.map(|value| value.topics.clone())).unwrap_or_default(),
            regex: match &beat.regex {
                Some(regex) => pattern(regex),
                None => known.and_then(|value| value.regex.clone()),
            },
            rebalance_timeout_ms: beat
                .rebalance_timeout_ms
                .or_else(|| known.map(|value| value.rebalance_timeout_ms))
                .unwrap_or_default(),
            assignor: beat.assignor.clone().or_else(|| known.and_then(|value| value.assignor.clone())),
        };
        if known == Some(&value) {
            return false;
        }
        let has_changed = known.is_none_or(|known| known.topics != value.topics || known.regex != value.regex);
        let (group, member) = (self.id.clone(), id.to_owned());
        self.write(GroupRecord::Member { group, member, value: Some(value) }, turn);
        has_changed
    }

    /// Whether topics that the group subscribes to came, went or grew. Looks only where the metadata has changed.
    fn has_outdated_topics(&self, turn: &Turn<'_>) -> bool {
        if self.compared_at == Some(turn.view.metadata.record_next()) {
            return false;
        }
        let topics = subscription::topics(turn.view.metadata);
        subscription::hash(self.members.values().map(|member| &member.value), &topics) != self.metadata_hash
    }

    /// A member has so long to give up what it is told to.
    fn set_revoke_timer(&self, id: &str, member: &Member, next: &CurrentValue, turn: &mut Turn<'_>) {
        let timer = self.revoke_timer(id);
        if next.state != MemberState::UnrevokedPartitions {
            turn.timers.clear(timer);
        } else if next.revoking != member.current.revoking {
            turn.set_timer(timer, member.rebalance_timeout());
        }
    }
}

fn heartbeat_interval_ms(turn: &Turn<'_>) -> i32 {
    turn.view.settings.consumer_heartbeat_interval.as_millis() as i32
}

fn assignment_answer(assignment: &Assignment) -> AssignmentAnswer {
    let topics = assignment.iter().map(|(topic, partitions)| {
        TopicPartitions::default()
            .with_topic_id(Uuid::from_u128(topic.0))
            .with_partitions(partitions.iter().copied().collect())
    });
    AssignmentAnswer::default().with_topic_partitions(topics.collect())
}

fn is_subset(these: &Assignment, those: &Assignment) -> bool {
    these.iter().all(|(topic, partitions)| those.get(topic).is_some_and(|of| partitions.is_subset(of)))
}

/// Epochs that say that a member leaves.
const LEFT: i32 = -1;
const LEFT_STATIC: i32 = -2;
