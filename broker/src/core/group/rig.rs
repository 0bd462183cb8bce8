//! A coordinator with a log in memory, for tests: appends are confirmed when the test says so, and a crash keeps what
//! was confirmed and any prefix of the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::answer::GroupAnswer;
use super::coordinator::{Call, Coordinator, Group};
use super::offsets::FetchOffsets;
use super::record::GroupRecord;
use super::settings::GroupSettings;
use super::turn::{Caller, Outcome, View};
use crate::core::machine::RequestId;
use crate::core::metadata::{Metadata, MetadataRecord};
use crate::core::placement::DataFound;
use crate::core::types::Now;
use crate::mutant::Mutant;
use crate::wire::api::Api;
use crate::wire::request::RequestHeader;

/// The group of all tests.
pub(super) const GROUP: &str = "readers";

/// The coordinator and its world.
pub(super) struct Rig {
    pub(super) coordinator: Coordinator,
    pub(super) metadata: Metadata,
    pub(super) settings: GroupSettings,
    pub(super) mutant: Option<Mutant>,
    pub(super) now: Now,
    /// Appended batches of records as they are stored; the first `confirmed` survive everything.
    log: Vec<Vec<(Bytes, Option<Bytes>)>>,
    confirmed: usize,
    /// The coordinator's first append is this one.
    base: usize,
    lives: u64,
    sequence: u64,
    /// Answers that came, by request.
    pub(super) answers: BTreeMap<u64, GroupAnswer>,
}

impl Rig {
    /// A rig with one topic, `orders`.
    pub(super) fn new(partitions: u32) -> Rig {
        let mut metadata = Metadata::new();
        metadata.apply(MetadataRecord::ClusterNamed { cluster: 9 });
        let host = "node".to_owned();
        let found = DataFound::Nothing;
        metadata.apply(MetadataRecord::BrokerRegistered { id: 0, incarnation: 1, host, port: 1, found });
        metadata.apply(MetadataRecord::BrokerUnfenced { id: 0, epoch: 1 });
        let mut rig = Rig {
            coordinator: Coordinator::new(7, 1),
            metadata,
            settings: GroupSettings::tiny(),
            mutant: None,
            now: Now { monotonic: Duration::from_secs(1), wall_ms: 1_000_000 },
            log: Vec::new(),
            confirmed: 0,
            base: 0,
            lives: 1,
            sequence: 0,
            answers: BTreeMap::new(),
        };
        rig.create_topic("orders", partitions);
        rig.coordinator.begin(rig_view(&rig.metadata, &rig.settings, rig.mutant, rig.now));
        rig
    }

    pub(super) fn create_topic(&mut self, name: &str, partitions: u32) {
        self.metadata.apply(MetadataRecord::TopicCreated {
            name: name.to_owned(),
            partitions,
            settings: crate::core::config::NodeConfig::tiny().topic,
            overrides: BTreeMap::new(),
            replication: 1,
            assignments: Vec::new(),
        });
        assert!(self.metadata.topic(name).is_some(), "{name} was created");
    }

    /// Sends a request; the number under which its answer will be found.
    pub(super) fn send(&mut self, api: Api, version: i16, call: Call) -> u64 {
        self.sequence += 1;
        let id = RequestId { connection: 1, sequence: self.sequence };
        let caller = Caller { id, header: RequestHeader { api, version, correlation_id: 0 } };
        self.act(|coordinator, view, out| coordinator.call(caller, call, view, out));
        self.sequence
    }

    /// Sends a request, has everything confirmed, and gives the answer that must be there then.
    pub(super) fn ask(&mut self, api: Api, version: i16, call: Call) -> GroupAnswer {
        let number = self.send(api, version, call);
        self.confirm_all();
        self.answers.remove(&number).expect("an answer that waits for nothing else")
    }

    pub(super) fn take(&mut self, number: u64) -> Option<GroupAnswer> {
        self.answers.remove(&number)
    }

    /// Confirms the oldest append that is not.
    pub(super) fn confirm_one(&mut self) {
        if self.confirmed < self.log.len() {
            self.confirmed += 1;
            let number = (self.confirmed - self.base) as u64;
            self.act(|coordinator, view, out| coordinator.confirm(number, view, out));
        }
    }

    pub(super) fn confirm_all(&mut self) {
        while self.confirmed < self.log.len() {
            self.confirm_one();
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall_ms += time.as_millis() as i64;
        self.act(|coordinator, view, out| coordinator.on_deadline(view, out));
    }

    /// Everybody who waits hears that the coordinator is gone; another one reads what was confirmed and `more` batches.
    pub(super) fn crash(&mut self, more: usize) {
        self.log.truncate(self.confirmed + more);
        self.confirmed = self.log.len();
        self.base = self.log.len();
        self.lives += 1;
        let before = std::mem::replace(&mut self.coordinator, Coordinator::new(7, self.lives));
        let mut out = Outcome::default();
        let view = rig_view(&self.metadata, &self.settings, self.mutant, self.now);
        before.refuse_all(kafka_protocol::ResponseError::NotCoordinator, view, &mut out);
        self.answers.extend(out.replies.into_iter().map(|(caller, answer)| (caller.id.sequence, answer)));
        for (key, value) in self.log.iter().flatten() {
            let record = GroupRecord::decode(Some(key), value.as_deref()).expect("what was encoded is readable");
            self.coordinator.replay(record);
        }
        let view = rig_view(&self.metadata, &self.settings, self.mutant, self.now);
        self.coordinator.begin(view);
    }

    /// How many appends are not confirmed.
    pub(super) fn unconfirmed(&self) -> usize {
        self.log.len() - self.confirmed
    }

    /// The generation of the group where it is of the classic protocol.
    pub(super) fn generation(&self) -> i32 {
        match self.coordinator.groups.get(GROUP) {
            Some(Group::Classic(group)) => group.generation,
            Some(Group::Consumer(_)) | None => 0,
        }
    }

    /// The committed offset of a partition of `orders`; -1 is none.
    pub(super) fn committed(&self, partition: i32) -> i64 {
        let topics = Some(vec![("orders".to_owned(), vec![partition])]);
        let wanted = FetchOffsets { group: GROUP.to_owned(), member: None, member_epoch: -1, topics };
        self.coordinator.fetch_offsets(&wanted).topics[0].partitions[0].committed_offset
    }

    pub(super) fn act(&mut self, act: impl FnOnce(&mut Coordinator, View<'_>, &mut Outcome)) {
        let mut out = Outcome::default();
        act(&mut self.coordinator, rig_view(&self.metadata, &self.settings, self.mutant, self.now), &mut out);
        self.answers.extend(out.replies.into_iter().map(|(caller, answer)| (caller.id.sequence, answer)));
        if !out.records.is_empty() {
            self.log.push(out.records.into_iter().map(GroupRecord::encode).collect());
            assert_eq!((self.log.len() - self.base) as u64, self.coordinator.appended(), "one number an append");
        }
    }
}

/// A commit to `orders`.
pub(super) fn commit(member: &str, generation: i32, partition: i32, offset: i64) -> Call {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(StrBytes::from_static_str("note")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("orders")))
        .with_partitions(vec![partition]);
    Call::Commit(
        OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str(GROUP)))
            .with_member_id(StrBytes::from_string(member.to_owned()))
            .with_generation_id_or_member_epoch(generation)
            .with_topics(vec![topic]),
    )
}

/// The error of a commit's only partition.
pub(super) fn commit_error(answer: &GroupAnswer) -> i16 {
    let GroupAnswer::Commit(answer) = answer else { panic!("{answer:?} answers no commit") };
    answer.topics[0].partitions[0].error_code
}

fn rig_view<'a>(metadata: &'a Metadata, settings: &'a GroupSettings, mutant: Option<Mutant>, now: Now) -> View<'a> {
    View { now, metadata, settings, mutant }
}
