//! FindCoordinator (0 to 6): the node that leads the partition of a group. The first request creates the internal topic
//! and is answered when it exists.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::answer::text;
use super::{OFFSETS_TOPIC, partition_of};
use crate::core::admin::{AdminAnswer, AdminCall, AdminSlot};
use crate::core::config::NodeConfig;
use crate::core::machine::{Core, Effects, RequestId};
use crate::core::metadata::MetadataRecord;
use crate::core::settings::{Cleanup, Layout, TopicSettings};
use crate::core::types::{NodeId, Now};
use crate::wire::request::RequestHeader;

impl Core {
    pub(in crate::core) fn find_coordinator(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: FindCoordinatorRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let is_needed = request.key_type == KEY_GROUP && self.metadata.topic(OFFSETS_TOPIC).is_none();
        let slot = AdminSlot { id, outer: 0, inner: 0 };
        let is_asked = is_needed && self.submit(offsets_topic(&self.config), Some(slot), now, effects).is_ok();
        let answer = AdminAnswer::Coordinators(request);
        self.keep_or_answer_admin(id, AdminCall { header, answer, outstanding: usize::from(is_asked) }, effects);
    }

    pub(in crate::core) fn coordinators_response(&self, request: &FindCoordinatorRequest) -> FindCoordinatorResponse {
        let single = [request.key.clone()];
        let keys = if request.coordinator_keys.is_empty() { &single[..] } else { &request.coordinator_keys[..] };
        let coordinators = keys.iter().map(|key| {
            let coordinator = Coordinator::default().with_key(key.clone());
            match self.find_one(request.key_type, key) {
                Ok((node, host, port)) => {
                    coordinator.with_node_id(BrokerId(node.0)).with_host(host).with_port(i32::from(port))
                }
                Err((error, message)) => coordinator
                    .with_node_id(BrokerId(-1))
                    .with_port(-1)
                    .with_error_code(error.code())
                    .with_error_message(Some(text(message))),
            }
        });
        FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
    }

    fn find_one(&self, key_type: i8, key: &str) -> Result<(NodeId, StrBytes, u16), (ResponseError, &'static str)> {
        match key_type {
            KEY_GROUP => {}
            KEY_TRANSACTION => return Err((ResponseError::CoordinatorNotAvailable, "transactions are not offered")),
            KEY_SHARE => return Err((ResponseError::CoordinatorNotAvailable, "share groups are not offered")),
            _ => return Err((ResponseError::InvalidRequest, "the key's type is unknown")),
        }
        let unavailable = |message| (ResponseError::CoordinatorNotAvailable, message);
        let topic = self.metadata.topic(OFFSETS_TOPIC);
        let topic = topic.ok_or_else(|| unavailable("the internal topic cannot be created yet"))?;
        let partition = &topic.partitions[partition_of(key, topic.partitions.len()) as usize];
        let leader = self.metadata.placement(partition.log()).and_then(|placement| placement.leader());
        let leader = leader.ok_or_else(|| unavailable("the group's partition has no leader"))?;
        if leader.0 == self.config.node_id {
            return Ok((leader, text(&self.advertised.host), self.advertised.port));
        }
        let broker = self.metadata.broker(leader).ok_or_else(|| unavailable("the group's coordinator is gone"))?;
        Ok((leader, text(&broker.host), broker.port))
    }
}

/// The record that creates the internal topic: always partitioned, kept for ever, replicated as wide as the cluster
/// was told to be, up to three times.
fn offsets_topic(config: &NodeConfig) -> MetadataRecord {
    let mut settings = TopicSettings { layout: Layout::Partitioned, ..config.topic.clone() };
    settings.class.retention_ms = None;
    settings.class.retention_bytes = None;
    settings.class.segment_bytes = settings.class.segment_bytes.max(SEGMENT_BYTES_MIN);
    let voters = config.cluster.len().clamp(1, REPLICATION) as u32;
    let replication = config.default_replication_factor.max(voters);
    // A replicated log is not compacted: there the topic grows.
    settings.class.cleanup = Cleanup { delete: false, compact: replication == 1, ..Cleanup::default() };
    MetadataRecord::TopicCreated {
        name: OFFSETS_TOPIC.to_owned(),
        partitions: config.group.offsets_partitions,
        settings,
        overrides: BTreeMap::new(),
        replication,
        assignments: Vec::new(),
    }
}

const KEY_GROUP: i8 = 0;
const KEY_TRANSACTION: i8 = 1;
const KEY_SHARE: i8 = 2;
/// Kafka's default for its internal topics.
const REPLICATION: usize = 3;
/// A group with many members is one record.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
