//! Scripted conversations with one coordinator: what each call is answered, in the order of a group's life.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, GroupId, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, SyncGroupRequest, SyncGroupResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::answer::GroupAnswer;
use super::coordinator::Call;
use super::partition_of;
use super::requests::{beat_call, join_call};
use super::rig::{GROUP, Rig, commit, commit_error};
use crate::wire::api::Api;

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn join(rig: &Rig, member: &str, instance: Option<&str>) -> Call {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_group_instance_id(instance.map(text))
        .with_session_timeout_ms(1000)
        .with_rebalance_timeout_ms(1000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    join_call(9, "client", request, &rig.settings).expect("it is well formed")
}

fn joined(answer: Option<GroupAnswer>) -> JoinGroupResponse {
    match answer {
        Some(GroupAnswer::Join(answer)) => answer,
        other => panic!("{other:?} answers no JoinGroup"),
    }
}

fn sync(rig: &mut Rig, member: &str, generation: i32, parts: &[(&str, &'static [u8])]) -> SyncGroupResponse {
    let parts = parts.iter().map(|(member, bytes)| {
        SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(Bytes::from_static(bytes))
    });
    let request = SyncGroupRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_generation_id(generation)
        .with_assignments(parts.collect());
    match rig.ask(Api::SyncGroup, 5, Call::Sync(request)) {
        GroupAnswer::Sync(answer) => answer,
        other => panic!("{other:?} answers no SyncGroup"),
    }
}

fn heartbeat(rig: &mut Rig, member: &str, generation: i32) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_generation_id(generation);
    match rig.ask(Api::Heartbeat, 4, Call::Heartbeat(request)) {
        GroupAnswer::Heartbeat(answer) => answer.error_code,
        other => panic!("{other:?} answers no Heartbeat"),
    }
}

fn beat(rig: &mut Rig, member: &str, epoch: i32) -> ConsumerGroupHeartbeatResponse {
    let is_joining = epoch == 0;
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(if is_joining { 1000 } else { -1 })
        .with_subscribed_topic_names(is_joining.then(|| vec![TopicName(text("orders"))]))
        .with_topic_partitions(is_joining.then(Vec::new));
    let call = beat_call(1, "client", request).expect("it is well formed");
    match rig.ask(Api::ConsumerGroupHeartbeat, 1, call) {
        GroupAnswer::Beat(answer) => answer,
        other => panic!("{other:?} answers no ConsumerGroupHeartbeat"),
    }
}

/// A group of one member in its first generation; the member's id.
fn group_of_one(rig: &mut Rig, instance: Option<&str>) -> String {
    let call = join(rig, "", instance);
    let mut number = rig.send(Api::JoinGroup, 9, call);
    if instance.is_none() {
        let answer = joined(rig.take(number));
        assert_eq!(answer.error_code, ResponseError::MemberIdRequired.code());
        let call = join(rig, &answer.member_id, None);
        number = rig.send(Api::JoinGroup, 9, call);
    }
    assert!(rig.take(number).is_none(), "more members are waited for");
    rig.pass(rig.settings.initial_rebalance_delay);
    let answer = joined(rig.take(number));
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
    assert_eq!(answer.leader, answer.member_id);
    let id = answer.member_id.to_string();
    assert_eq!(sync(rig, &id, 1, &[(&id, b"all")]).assignment, Bytes::from_static(b"all"));
    id
}

#[test]
fn groups_are_placed_as_kafka_places_them() {
    // Java: Math.abs("my-group".hashCode()) % 50, and a name outside the basic plane.
    assert_eq!("my-group".encode_utf16().fold(0i32, |h, u| h.wrapping_mul(31).wrapping_add(i32::from(u))), -1906497762);
    assert_eq!(partition_of("my-group", 50), 12);
    assert!((0..50).contains(&partition_of("gr\u{1F600}up", 50)));
}

#[test]
fn a_classic_group_lives_through_joins_and_a_crash() {
    let mut rig = Rig::new(4);
    let first = group_of_one(&mut rig, None);
    assert_eq!(heartbeat(&mut rig, &first, 1), 0);
    let answer = rig.ask(Api::OffsetCommit, 9, commit(&first, 1, 2, 77));
    assert_eq!((commit_error(&answer), rig.committed(2)), (0, 77));

    rig.crash(0);
    assert_eq!(rig.committed(2), 77);
    assert_eq!(heartbeat(&mut rig, &first, 1), 0, "the member and its generation were stored");
    let call = join(&rig, "", Some("other"));
    let second = rig.send(Api::JoinGroup, 9, call);
    assert_eq!(heartbeat(&mut rig, &first, 1), ResponseError::RebalanceInProgress.code());
    let call = join(&rig, &first, None);
    let again = rig.send(Api::JoinGroup, 9, call);
    let (leader, follower) = (joined(rig.take(again)), joined(rig.take(second)));
    assert_eq!((leader.generation_id, leader.members.len()), (2, 2));
    assert_eq!((follower.generation_id, follower.members.len()), (2, 0));
    let answer = rig.ask(Api::OffsetCommit, 9, commit(&first, 1, 2, 78));
    assert_eq!(commit_error(&answer), ResponseError::IllegalGeneration.code());
    assert_eq!(rig.committed(2), 77);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_its_old_id_is_fenced() {
    let mut rig = Rig::new(4);
    let old = group_of_one(&mut rig, Some("instance"));
    let call = join(&rig, "", Some("instance"));
    let GroupAnswer::Join(answer) = rig.ask(Api::JoinGroup, 9, call) else { panic!("another call's answer") };
    assert_eq!((answer.error_code, answer.generation_id, answer.skip_assignment), (0, 1, true));
    assert_ne!(answer.member_id.as_str(), old);
    assert_eq!(sync(&mut rig, &answer.member_id, 1, &[]).assignment, Bytes::from_static(b"all"));
    assert_eq!(heartbeat(&mut rig, &old, 1), ResponseError::UnknownMemberId.code());
    let call = join(&rig, &old, Some("instance"));
    let GroupAnswer::Join(fenced) = rig.ask(Api::JoinGroup, 9, call) else { panic!("another call's answer") };
    assert_eq!(fenced.error_code, ResponseError::FencedInstanceId.code());
}

#[test]
fn a_silent_member_is_out_and_an_idle_groups_offsets_expire() {
    let mut rig = Rig::new(4);
    let member = group_of_one(&mut rig, None);
    rig.ask(Api::OffsetCommit, 9, commit(&member, 1, 0, 5));
    rig.pass(Duration::from_millis(1001));
    rig.confirm_all();
    assert_eq!(heartbeat(&mut rig, &member, 1), ResponseError::UnknownMemberId.code());
    rig.pass(rig.settings.offsets_retention);
    rig.confirm_all();
    assert_eq!(rig.committed(0), 5, "kept as long after the group was left as it is set");
    rig.pass(Duration::from_secs(2));
    rig.confirm_all();
    assert_eq!(rig.committed(0), -1);
    rig.crash(0);
    assert_eq!(rig.committed(0), -1, "its deletion was stored");
}

#[test]
fn the_protocols_do_not_mix_and_an_empty_group_changes_its_kind() {
    let mut rig = Rig::new(4);
    let member = group_of_one(&mut rig, None);
    assert_eq!(beat(&mut rig, "new", 0).error_code, ResponseError::GroupIdNotFound.code());
    rig.ask(Api::OffsetCommit, 9, commit(&member, 1, 0, 5));
    rig.pass(Duration::from_millis(1001));
    rig.confirm_all();

    let answer = beat(&mut rig, "new", 0);
    assert_eq!((answer.error_code, answer.member_epoch), (0, 1));
    assert_eq!(answer.assignment.expect("who joins is told").topic_partitions[0].partitions, [0, 1, 2, 3]);
    assert_eq!(rig.committed(0), 5, "offsets stay with the group");
    let call = join(&rig, "", None);
    let GroupAnswer::Join(refused) = rig.ask(Api::JoinGroup, 9, call) else { panic!("another call's answer") };
    assert_eq!(refused.error_code, ResponseError::InconsistentGroupProtocol.code());

    rig.crash(0);
    let answer = beat(&mut rig, "new", 1);
    assert_eq!((answer.error_code, answer.member_epoch), (0, 1), "the member and its epoch were stored");
    let stale = rig.ask(Api::OffsetCommit, 9, commit("new", 0, 0, 9));
    assert_eq!(commit_error(&stale), ResponseError::StaleMemberEpoch.code());
    assert_eq!(beat(&mut rig, "new", 7).error_code, ResponseError::FencedMemberEpoch.code());
}

#[test]
fn a_commit_is_seen_once_it_is_confirmed_and_not_before() {
    let mut rig = Rig::new(4);
    let number = rig.send(Api::OffsetCommit, 9, commit("", -1, 0, 5));
    assert_eq!((rig.take(number), rig.committed(0)), (None, -1));
    rig.confirm_all();
    assert_eq!(commit_error(&rig.take(number).expect("it is confirmed")), 0);
    assert_eq!(rig.committed(0), 5);
    let lost = rig.send(Api::OffsetCommit, 9, commit("", -1, 0, 6));
    rig.crash(0);
    let error = commit_error(&rig.take(lost).expect("everybody who waits is told"));
    assert_eq!((error, rig.committed(0)), (ResponseError::NotCoordinator.code(), 5));
}
