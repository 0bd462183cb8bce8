//! A consumer group's membership as a client holds it: the classic protocol (JoinGroup and SyncGroup, eager, one member
//! assigns by range) and the consumer protocol (ConsumerGroupHeartbeat, KIP-848). `tick` says what has to be done next;
//! whoever calls it stops reading what it must release before it ticks again. Offsets are committed and asked for here
//! too. Not here: reading (`consumer`), and when to commit (`workload::member`).
//! Departures from Kafka's clients: no task of its own sends heartbeats, and one request at a time is under way.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{Request, StrBytes};

use super::admin::{answered, missing};
use super::assignor;
use super::cluster::{Cluster, topic_name};
use super::errors::{
    CallError, FENCED_INSTANCE_ID, FENCED_MEMBER_EPOCH, ILLEGAL_GENERATION, MEMBER_ID_REQUIRED, REBALANCE_IN_PROGRESS,
    STALE_MEMBER_EPOCH, UNKNOWN_MEMBER_ID,
};
use super::{Dial, Timer, TopicPartition};
use crate::plan::GroupProtocol;

/// How a member takes part in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOptions {
    /// The group's name.
    pub group: String,
    /// The protocol.
    pub protocol: GroupProtocol,
    /// Topics that it subscribes to.
    pub topics: Vec<String>,
    /// The name of a static member.
    pub instance: Option<String>,
    /// The group forgets a member that was silent for so long.
    pub session_timeout: Duration,
    /// Longest wait for one answer, beyond what the coordinator was told to wait.
    pub request_timeout: Duration,
}

/// What a member has to do, or has become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tick {
    /// Nothing has changed.
    Stable,
    /// These queues are not its own any more.
    Release(Vec<TopicPartition>),
    /// It owns just these queues now.
    Owns(Vec<TopicPartition>),
    /// It is not a member, or not yet one of the present generation; try again later.
    NotYet(CallError),
}

/// A membership.
pub struct Group<D: Dial, T: Timer> {
    cluster: Cluster<D, T>,
    options: GroupOptions,
    coordinator: Option<String>,
    member: String,
    /// Generation or member epoch; none while it is not a member.
    generation: Option<i32>,
    owned: Vec<TopicPartition>,
    must_rejoin: bool,
    /// The coordinator is to hear what is owned with the next heartbeat (KIP-848).
    must_report: bool,
    next_heartbeat: Duration,
    /// When the coordinator last confirmed the membership.
    confirmed: Duration,
}

impl<D: Dial, T: Timer> Group<D, T> {
    /// A client that is not a member yet.
    pub fn new(cluster: Cluster<D, T>, options: GroupOptions) -> Group<D, T> {
        Group {
            cluster,
            options,
            coordinator: None,
            member: String::new(),
            generation: None,
            owned: Vec::new(),
            must_rejoin: false,
            must_report: false,
            next_heartbeat: Duration::ZERO,
            confirmed: Duration::ZERO,
        }
    }

    /// The member's id; empty where it has none.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// Its generation or member epoch, -1 where it is not a member.
    pub fn generation(&self) -> i32 {
        self.generation.unwrap_or(-1)
    }

    /// Whether it is a member, whatever it owns.
    pub fn is_member(&self) -> bool {
        self.generation.is_some() && !self.must_rejoin
    }

    /// Whether the next tick tries to join, which may take as long as a rebalance.
    pub fn will_join(&self) -> bool {
        self.owned.is_empty() && !self.is_member()
    }

    /// Time between heartbeats.
    pub fn heartbeat_interval(&self) -> Duration {
        self.options.session_timeout / 5
    }

    /// Sends what is due, and says what follows from the answer.
    pub async fn tick(&mut self) -> Tick {
        match self.options.protocol {
            GroupProtocol::Classic => self.tick_classic().await,
            GroupProtocol::Consumer => self.tick_consumer().await,
        }
    }

    async fn tick_classic(&mut self) -> Tick {
        if self.is_member() {
            if !self.is_heartbeat_due() {
                return Tick::Stable;
            }
            let request = HeartbeatRequest::default()
                .with_group_id(self.group_id())
                .with_generation_id(self.generation())
                .with_member_id(text(&self.member))
                .with_group_instance_id(self.instance());
            let answer = self.call(&request, self.options.request_timeout).await;
            match answer.and_then(|answer| answered("Heartbeat", answer.error_code)) {
                Ok(()) => {
                    self.confirm();
                    return Tick::Stable;
                }
                Err(error) => {
                    self.learn(&error);
                    if self.is_member() && !self.is_session_over() {
                        return Tick::Stable;
                    }
                    self.must_rejoin = true;
                }
            }
        }
        if !self.owned.is_empty() {
            return Tick::Release(std::mem::take(&mut self.owned));
        }
        match self.join_classic().await {
            Ok(owned) => {
                self.owned = owned.clone();
                self.must_rejoin = false;
                self.confirm();
                Tick::Owns(owned)
            }
            Err(error) => {
                self.learn(&error);
                Tick::NotYet(error)
            }
        }
    }

    async fn join_classic(&mut self) -> Result<Vec<TopicPartition>, CallError> {
        let mut joined = self.send_join().await?;
        if joined.error_code == MEMBER_ID_REQUIRED {
            self.member = joined.member_id.to_string();
            joined = self.send_join().await?;
        }
        answered("JoinGroup", joined.error_code)?;
        self.member = joined.member_id.to_string();
        self.generation = Some(joined.generation_id);
        let is_leader = joined.leader == joined.member_id && !joined.skip_assignment;
        let assignments = if is_leader { self.assign(&joined).await? } else { Vec::new() };
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_group_instance_id(self.instance())
            .with_protocol_type(Some(StrBytes::from_static_str(assignor::PROTOCOL_TYPE)))
            .with_protocol_name(joined.protocol_name.clone())
            .with_assignments(assignments);
        let answer = self.call(&request, self.options.session_timeout + self.options.request_timeout).await?;
        answered("SyncGroup", answer.error_code)?;
        assignor::read_assignment(&answer.assignment).ok_or_else(|| CallError::Undecodable {
            address: "the coordinator".to_string(),
            api: "SyncGroup".to_string(),
            reason: "the assignment does not decode".to_string(),
        })
    }

    async fn send_join(&mut self) -> Result<JoinGroupResponse, CallError> {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(assignor::RANGE))
            .with_metadata(assignor::subscription(&self.options.topics));
        let timeout = self.options.session_timeout.as_millis() as i32;
        let request = JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(timeout)
            .with_rebalance_timeout_ms(timeout)
            .with_member_id(text(&self.member))
            .with_group_instance_id(self.instance())
            .with_protocol_type(StrBytes::from_static_str(assignor::PROTOCOL_TYPE))
            .with_protocols(vec![protocol]);
        self.call(&request, self.options.session_timeout * 2 + self.options.request_timeout).await
    }

    /// What each member gets, by the one that leads.
    async fn assign(&self, joined: &JoinGroupResponse) -> Result<Vec<SyncGroupRequestAssignment>, CallError> {
        let deadline = self.cluster.after(self.options.request_timeout);
        let mut partitions = BTreeMap::new();
        for topic in &self.options.topics {
            partitions.insert(topic.clone(), self.cluster.partition_count(topic, deadline).await?);
        }
        let members: Vec<_> = joined
            .members
            .iter()
            .map(|member| (member.member_id.to_string(), assignor::read_subscription(&member.metadata)))
            .collect();
        let assigned = assignor::by_range(&members, &partitions);
        let assignments = assigned.into_iter().map(|(member, owned)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(&member))
                .with_assignment(assignor::assignment(&owned))
        });
        Ok(assignments.collect())
    }

    async fn tick_consumer(&mut self) -> Tick {
        let is_quiet = self.generation.is_some() && !self.must_report && !self.is_heartbeat_due();
        if is_quiet && !self.must_rejoin {
            return Tick::Stable;
        }
        if self.must_rejoin {
            if !self.owned.is_empty() {
                return Tick::Release(std::mem::take(&mut self.owned));
            }
            (self.generation, self.must_rejoin) = (None, false);
        }
        let answer = self.beat().await;
        let answer = answer.and_then(|answer| answered("ConsumerGroupHeartbeat", answer.error_code).map(|()| answer));
        match answer {
            Ok(answer) => self.take_beat(answer).await,
            Err(error) => {
                self.learn(&error);
                match self.generation {
                    Some(_) if !self.must_rejoin && !self.is_session_over() => Tick::Stable,
                    _ if self.owned.is_empty() => Tick::NotYet(error),
                    _ => {
                        self.must_rejoin = true;
                        Tick::Release(std::mem::take(&mut self.owned))
                    }
                }
            }
        }
    }

    async fn beat(&mut self) -> Result<ConsumerGroupHeartbeatResponse, CallError> {
        if self.member.is_empty() {
            self.member = self.cluster.new_member_id();
        }
        let is_joining = self.generation.is_none();
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_member_id(text(&self.member))
            .with_member_epoch(self.generation.unwrap_or(0))
            .with_instance_id(self.instance())
            .with_rebalance_timeout_ms(-1)
            .with_subscribed_topic_names(None)
            .with_topic_partitions(None);
        if is_joining {
            let topics = self.options.topics.iter().map(|topic| topic_name(topic));
            request.rebalance_timeout_ms = self.options.session_timeout.as_millis() as i32;
            request.subscribed_topic_names = Some(topics.collect());
        }
        if is_joining || self.must_report {
            request.topic_partitions = Some(self.owned_by_id().await?);
        }
        let answer = self.call(&request, self.options.request_timeout).await?;
        self.must_report = false;
        Ok(answer)
    }

    async fn take_beat(&mut self, answer: ConsumerGroupHeartbeatResponse) -> Tick {
        if let Some(member) = answer.member_id.filter(|member| !member.is_empty()) {
            self.member = member.to_string();
        }
        self.generation = Some(answer.member_epoch);
        self.confirm();
        let Some(assignment) = answer.assignment else { return Tick::Stable };
        let mut target = Vec::new();
        for topic in assignment.topic_partitions {
            let deadline = self.cluster.after(self.options.request_timeout);
            let name = match self.cluster.topic_of(topic.topic_id, &self.options.topics, deadline).await {
                Ok(name) => name,
                Err(error) => {
                    // Joining anew makes the coordinator say it again.
                    self.must_rejoin = true;
                    return Tick::NotYet(error);
                }
            };
            let partitions = topic.partitions.iter();
            target.extend(partitions.map(|partition| TopicPartition { topic: name.clone(), partition: *partition }));
        }
        target.sort();
        let (kept, revoked): (Vec<_>, Vec<_>) = self.owned.drain(..).partition(|owned| target.contains(owned));
        self.must_report = true;
        if !revoked.is_empty() {
            // What is new comes with the answer to the report that these are released.
            self.owned = kept;
            return Tick::Release(revoked);
        }
        self.owned = target.clone();
        Tick::Owns(target)
    }

    async fn owned_by_id(&self) -> Result<Vec<TopicPartitions>, CallError> {
        let deadline = self.cluster.after(self.options.request_timeout);
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for owned in &self.owned {
            by_topic.entry(&owned.topic).or_default().push(owned.partition);
        }
        let mut owned = Vec::new();
        for (topic, partitions) in by_topic {
            let id = self.cluster.id_of(topic, deadline).await?;
            owned.push(TopicPartitions::default().with_topic_id(id).with_partitions(partitions));
        }
        Ok(owned)
    }

    /// One OffsetCommit; fails where any queue was refused.
    pub async fn commit(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), CallError> {
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for (partition, offset) in offsets {
            let committed = OffsetCommitRequestPartition::default()
                .with_partition_index(partition.partition)
                .with_committed_offset(*offset)
                .with_committed_leader_epoch(-1)
                .with_committed_metadata(None);
            match topics.last_mut() {
                Some(topic) if topic.name.as_str() == partition.topic => topic.partitions.push(committed),
                Some(_) | None => topics.push(
                    OffsetCommitRequestTopic::default()
                        .with_name(topic_name(&partition.topic))
                        .with_partitions(vec![committed]),
                ),
            }
        }
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(self.generation())
            .with_member_id(text(&self.member))
            .with_group_instance_id(self.instance())
            .with_topics(topics);
        let result = self.call(&request, self.options.request_timeout).await.and_then(|answer| {
            let codes = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
            // A refusal of one queue says nothing of the others: the first whose effect is unknown goes before.
            let failures: Vec<CallError> = codes.filter_map(|code| answered("OffsetCommit", code).err()).collect();
            let unknown = failures.iter().find(|error| error.effect() == super::errors::Effect::Unknown);
            match unknown.or(failures.first()) {
                Some(error) => Err(error.clone()),
                None => Ok(()),
            }
        });
        if let Err(error) = &result {
            self.learn(error);
        }
        result
    }

    /// One OffsetFetch; -1 where nothing is committed.
    pub async fn committed(&mut self, queues: &[TopicPartition]) -> Result<Vec<(TopicPartition, i64)>, CallError> {
        let result = self.fetch_committed(queues).await;
        if let Err(error) = &result {
            self.learn(error);
        }
        result
    }

    async fn fetch_committed(&mut self, queues: &[TopicPartition]) -> Result<Vec<(TopicPartition, i64)>, CallError> {
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for queue in queues {
            by_topic.entry(&queue.topic).or_default().push(queue.partition);
        }
        let topics = by_topic.into_iter().map(|(topic, partitions)| {
            OffsetFetchRequestTopics::default().with_name(topic_name(topic)).with_partition_indexes(partitions)
        });
        let is_consumer = self.options.protocol == GroupProtocol::Consumer;
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(self.group_id())
            .with_member_id(is_consumer.then(|| text(&self.member)))
            .with_member_epoch(if is_consumer { self.generation() } else { -1 })
            .with_topics(Some(topics.collect()));
        let request = OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(true);
        let answer = self.call(&request, self.options.request_timeout).await?;
        let nothing = |queue: &TopicPartition| missing("OffsetFetch", queue);
        let group = answer.groups.first().ok_or_else(|| nothing(&queues[0]))?;
        answered("OffsetFetch", group.error_code)?;
        let mut committed = Vec::new();
        for queue in queues {
            let topics = group.topics.iter().filter(|topic| topic.name.as_str() == queue.topic);
            let mut found = topics.flat_map(|topic| &topic.partitions);
            let found = found.find(|found| found.partition_index == queue.partition).ok_or_else(|| nothing(queue))?;
            answered("OffsetFetch", found.error_code)?;
            committed.push((queue.clone(), found.committed_offset));
        }
        Ok(committed)
    }

    /// Leaves the group, with one attempt; whether it was heard or not, the client is no member any more.
    pub async fn leave(&mut self) -> Result<(), CallError> {
        let left = match (self.generation, self.options.protocol) {
            (None, _) => Ok(()),
            (Some(_), GroupProtocol::Classic) => {
                let member = MemberIdentity::default()
                    .with_member_id(text(&self.member))
                    .with_group_instance_id(self.instance());
                let request = LeaveGroupRequest::default().with_group_id(self.group_id()).with_members(vec![member]);
                let answer = self.call(&request, self.options.request_timeout).await;
                answer.and_then(|answer| answered("LeaveGroup", answer.error_code))
            }
            (Some(_), GroupProtocol::Consumer) => {
                let epoch = if self.options.instance.is_some() { LEAVING_FOR_A_WHILE } else { LEAVING };
                let request = ConsumerGroupHeartbeatRequest::default()
                    .with_group_id(self.group_id())
                    .with_member_id(text(&self.member))
                    .with_member_epoch(epoch)
                    .with_instance_id(self.instance())
                    .with_rebalance_timeout_ms(-1)
                    .with_subscribed_topic_names(None)
                    .with_topic_partitions(None);
                let answer = self.call(&request, self.options.request_timeout).await;
                answer.and_then(|answer| answered("ConsumerGroupHeartbeat", answer.error_code))
            }
        };
        self.forget();
        left
    }

    /// No member any more, as after a crash.
    pub fn forget(&mut self) {
        self.member = String::new();
        self.generation = None;
        self.owned = Vec::new();
        (self.must_rejoin, self.must_report) = (false, false);
    }

    async fn call<R: Request>(&mut self, request: &R, wait: Duration) -> Result<R::Response, CallError> {
        let deadline = self.cluster.after(wait);
        let address = match self.coordinator.clone() {
            Some(address) => address,
            None => self.find_coordinator().await?,
        };
        let result = match self.cluster.connect(&address, deadline).await {
            Ok(connection) => connection.call(request, deadline).await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.coordinator = None;
        }
        result
    }

    async fn find_coordinator(&mut self) -> Result<String, CallError> {
        let group = text(&self.options.group);
        let request = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![group]);
        let answer = self.cluster.call_any(&request, self.cluster.after(self.options.request_timeout)).await?;
        let (code, host, port) = match answer.coordinators.first() {
            Some(found) => (found.error_code, &found.host, found.port),
            None => (answer.error_code, &answer.host, answer.port),
        };
        answered("FindCoordinator", code)?;
        let address = format!("{}:{port}", host.as_str());
        self.coordinator = Some(address.clone());
        Ok(address)
    }

    /// What an error says of the membership and the coordinator.
    fn learn(&mut self, error: &CallError) {
        if error.has_stale_metadata() {
            self.coordinator = None;
        }
        match error.code() {
            Some(REBALANCE_IN_PROGRESS) => self.must_rejoin = true,
            Some(UNKNOWN_MEMBER_ID | FENCED_INSTANCE_ID | FENCED_MEMBER_EPOCH) => {
                self.member = String::new();
                self.generation = None;
                self.must_rejoin = self.options.protocol == GroupProtocol::Consumer && !self.owned.is_empty();
            }
            Some(ILLEGAL_GENERATION) => {
                self.generation = None;
            }
            // The next heartbeat brings the present epoch.
            Some(STALE_MEMBER_EPOCH) => self.next_heartbeat = Duration::ZERO,
            Some(_) | None => {}
        }
    }

    fn is_heartbeat_due(&self) -> bool {
        self.cluster.timer().monotonic() >= self.next_heartbeat
    }

    /// By its own clock the group has forgotten it: somebody else may own its queues.
    fn is_session_over(&self) -> bool {
        self.cluster.timer().monotonic() >= self.confirmed + self.options.session_timeout
    }

    fn confirm(&mut self) {
        self.confirmed = self.cluster.timer().monotonic();
        self.next_heartbeat = self.cluster.after(self.heartbeat_interval());
    }

    fn group_id(&self) -> GroupId {
        GroupId(text(&self.options.group))
    }

    fn instance(&self) -> Option<StrBytes> {
        self.options.instance.as_deref().map(text)
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

/// ConsumerGroupHeartbeat's epoch of a member that leaves.
const LEAVING: i32 = -1;
/// ConsumerGroupHeartbeat's epoch of a static member that means to come back.
const LEAVING_FOR_A_WHILE: i32 = -2;
