//! Where replicas are and who leads, changed by hand: AlterPartitionReassignments (0 to 1), ListPartitionReassignments
//! (0), ElectLeaders (0 to 2) and UnregisterBroker (0).
//! Departures from Kafka: in the shared layout a log moves with all of its queues, whichever of them is named; a broker
//! that is unregistered loses its vote too.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
    UnregisterBrokerRequest, UnregisterBrokerResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::admin::{AdminAnswer, AdminCall, AdminSlot};
use super::machine::{Core, Effects, RequestId};
use super::metadata::{MetadataRecord, Topic};
use super::placement::Broker;
use super::types::{LogId, NodeId, Now};
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

impl Core {
    pub(super) fn alter_reassignments(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: AlterPartitionReassignmentsRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let may_change_factor = request.allow_replication_factor_change;
        let mut response =
            AlterPartitionReassignmentsResponse::default().with_allow_replication_factor_change(may_change_factor);
        let mut outstanding = 0;
        for (outer, topic) in request.topics.into_iter().enumerate() {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (inner, wanted) in topic.partitions.into_iter().enumerate() {
                let replicas = wanted.replicas.map(|replicas| replicas.iter().map(|id| id.0).collect::<Vec<i32>>());
                let result = self.checked_move(&topic.name, wanted.partition_index, replicas, may_change_factor);
                let result =
                    result.and_then(|record| self.submit(record, Some(AdminSlot { id, outer, inner }), now, effects));
                outstanding += usize::from(result.is_ok());
                let error = result.err().map_or(0, |error| error.code());
                partitions.push(
                    ReassignablePartitionResponse::default()
                        .with_partition_index(wanted.partition_index)
                        .with_error_code(error),
                );
            }
            response
                .responses
                .push(ReassignableTopicResponse::default().with_name(topic.name).with_partitions(partitions));
        }
        let answer = AdminAnswer::Response(Response::AlterPartitionReassignments(response));
        self.keep_or_answer_admin(id, AdminCall { header, answer, outstanding }, effects);
    }

    fn checked_move(
        &self,
        topic: &str,
        index: i32,
        replicas: Option<Vec<i32>>,
        may_change_factor: bool,
    ) -> Result<MetadataRecord, ResponseError> {
        let log = self.log_of_partition(topic, index).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let placement = self.metadata.placement(log).ok_or(ResponseError::UnknownTopicOrPartition)?;
        match &replicas {
            None if placement.reassignment.is_none() => return Err(ResponseError::NoReassignmentInProgress),
            None => {}
            Some(_) if self.metadata.log_class(log).is_some_and(|class| class.cleanup.compact) => {
                // Positions of a compacted log are its own: no other replica could be led by them.
                return Err(ResponseError::InvalidReplicaAssignment);
            }
            Some(replicas) if !self.metadata.is_assignable(replicas) => {
                return Err(ResponseError::InvalidReplicaAssignment);
            }
            Some(replicas) => {
                let before = placement.reassignment.as_ref().map_or(&placement.replicas, |moving| &moving.from);
                if !may_change_factor && replicas.len() != before.len() {
                    return Err(ResponseError::InvalidReplicationFactor);
                }
            }
        }
        Ok(MetadataRecord::Reassigned { log: log.0, replicas })
    }

    pub(super) fn list_reassignments(
        &self,
        request: &ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse {
        let mut topics = Vec::new();
        for (name, topic) in self.metadata.topics() {
            let wanted = match &request.topics {
                None => None,
                Some(topics) => match topics.iter().find(|wanted| &**wanted.name == name) {
                    Some(wanted) => Some(&wanted.partition_indexes),
                    None => continue,
                },
            };
            let is_wanted = |index: &i32| wanted.is_none_or(|indexes| indexes.contains(index));
            let partitions = self.moving_partitions(topic).filter(|moving| is_wanted(&moving.partition_index));
            let partitions: Vec<OngoingPartitionReassignment> = partitions.collect();
            if !partitions.is_empty() {
                let name = TopicName(StrBytes::from_string(name.to_owned()));
                topics.push(OngoingTopicReassignment::default().with_name(name).with_partitions(partitions));
            }
        }
        ListPartitionReassignmentsResponse::default().with_topics(topics)
    }

    fn moving_partitions<'a>(&'a self, topic: &'a Topic) -> impl Iterator<Item = OngoingPartitionReassignment> + 'a {
        let ids = |ids: Vec<i32>| -> Vec<BrokerId> { ids.into_iter().map(BrokerId).collect() };
        (0..).zip(&topic.partitions).filter_map(move |(index, partition)| {
            let placement = self.metadata.placement(partition.log())?;
            placement.reassignment.as_ref()?;
            let (adding, removing) = placement.moving();
            let moving = OngoingPartitionReassignment::default()
                .with_partition_index(index)
                .with_replicas(ids(placement.replicas.clone()))
                .with_adding_replicas(ids(adding))
                .with_removing_replicas(ids(removing));
            Some(moving)
        })
    }

    pub(super) fn elect_leaders(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: ElectLeadersRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let is_unclean = request.election_type == 1;
        let is_all = request.topic_partitions.is_none();
        let wanted: Vec<(TopicName, Vec<i32>)> = match request.topic_partitions {
            Some(topics) => topics.into_iter().map(|topic| (topic.topic, topic.partitions)).collect(),
            None => {
                let all = |topic: &Topic| (0..topic.partitions.len() as i32).collect();
                let named = |name: &str| TopicName(StrBytes::from_string(name.to_owned()));
                self.metadata.topics().map(|(name, topic)| (named(name), all(topic))).collect()
            }
        };
        let mut response = ElectLeadersResponse::default();
        let mut outstanding = 0;
        for (topic, indexes) in wanted {
            let outer = response.replica_election_results.len();
            let mut results: Vec<PartitionResult> = Vec::new();
            for index in indexes {
                let result = self.checked_election(&topic, index, is_unclean);
                if is_all && result == Err(ResponseError::ElectionNotNeeded) {
                    continue;
                }
                let slot = AdminSlot { id, outer, inner: results.len() };
                let result = result.and_then(|record| self.submit(record, Some(slot), now, effects));
                outstanding += usize::from(result.is_ok());
                let error = result.err().map_or(0, |error| error.code());
                results.push(PartitionResult::default().with_partition_id(index).with_error_code(error));
            }
            let result = ReplicaElectionResult::default().with_topic(topic).with_partition_result(results);
            response.replica_election_results.push(result);
        }
        let answer = AdminAnswer::Response(Response::ElectLeaders(response));
        self.keep_or_answer_admin(id, AdminCall { header, answer, outstanding }, effects);
    }

    fn checked_election(&self, topic: &str, index: i32, unclean: bool) -> Result<MetadataRecord, ResponseError> {
        let log = self.log_of_partition(topic, index).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let placement = self.metadata.placement(log).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let preferred = placement.replicas.first().copied();
        let is_active = |id: i32| self.metadata.broker(NodeId(id)).is_some_and(Broker::is_active);
        if unclean {
            if placement.leader.is_some() {
                return Err(ResponseError::ElectionNotNeeded);
            }
            if !placement.replicas.iter().any(|id| is_active(*id)) {
                return Err(ResponseError::EligibleLeadersNotAvailable);
            }
        } else {
            if placement.leader == preferred {
                return Err(ResponseError::ElectionNotNeeded);
            }
            if !preferred.is_some_and(|id| placement.isr.contains(&id) && is_active(id)) {
                return Err(ResponseError::PreferredLeaderNotAvailable);
            }
        }
        Ok(MetadataRecord::LeaderPreferred { log: log.0, unclean })
    }

    pub(super) fn unregister_broker(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: &UnregisterBrokerRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let record = MetadataRecord::BrokerUnregistered { id: request.broker_id.0 };
        let submitted = self.submit(record, Some(AdminSlot { id, outer: 0, inner: 0 }), now, effects);
        let error = submitted.err().map_or(0, |error| error.code());
        let response = UnregisterBrokerResponse::default().with_error_code(error);
        let answer = AdminAnswer::Response(Response::UnregisterBroker(response));
        let outstanding = usize::from(submitted.is_ok());
        self.keep_or_answer_admin(id, AdminCall { header, answer, outstanding }, effects);
    }

    fn log_of_partition(&self, topic: &str, index: i32) -> Option<LogId> {
        let topic = self.metadata.topic(topic)?;
        Some(topic.partitions.get(usize::try_from(index).ok()?)?.log())
    }
}
