//! Administrative calls about nodes and the replicas that they hold, one attempt each, all to one node: what it says of
//! a cluster is only as new as what it has applied, which `in_step` sees to.

use std::time::Duration;

use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, ListPartitionReassignmentsRequest, MetadataRequest,
    UnregisterBrokerRequest,
};

use super::admin::answered;
use super::cluster::{Cluster, topic_name};
use super::connection::Connection;
use super::errors::{BROKER_ID_NOT_REGISTERED, CallError};
use super::{Dial, Timer, TopicPartition};

/// A partition and the nodes that hold it, the preferred leader first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The partition.
    pub partition: TopicPartition,
    /// Its replicas; while it moves, those that come and those that go as well.
    pub replicas: Vec<i32>,
}

/// Where the replicas are, as one node knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Nodes that are in the cluster and heard of.
    pub nodes: Vec<i32>,
    /// Every partition of every topic, internal ones among them.
    pub partitions: Vec<Held>,
    /// Partitions that are on their way to other nodes.
    pub moving: Vec<TopicPartition>,
}

impl<D: Dial, T: Timer> Cluster<D, T> {
    /// A connection to a node that has applied everything that was committed when this was called. It says so by refusing
    /// to unregister a broker that nobody has: every refusal of that kind takes its turn in the metadata log.
    pub async fn in_step(&self, deadline: Duration) -> Result<Connection<T>, CallError> {
        let deadline = self.soon(deadline);
        let connection = self.connect(&self.controller(deadline).await?, deadline).await?;
        let request = UnregisterBrokerRequest::default().with_broker_id(NOBODY);
        match connection.call(&request, deadline).await?.error_code {
            BROKER_ID_NOT_REGISTERED => Ok(connection),
            code => Err(CallError::Answered { api: "UnregisterBroker".to_string(), code }),
        }
    }

    /// Asks where all replicas are.
    pub async fn survey(&self, connection: &Connection<T>, deadline: Duration) -> Result<Survey, CallError> {
        let deadline = self.soon(deadline);
        let answer = connection.call(&MetadataRequest::default().with_topics(None), deadline).await?;
        let mut survey =
            Survey { nodes: answer.brokers.iter().map(|broker| broker.node_id.0).collect(), ..Survey::default() };
        survey.nodes.sort_unstable();
        for topic in &answer.topics {
            let Some(name) = &topic.name else { continue };
            for partition in &topic.partitions {
                let key = TopicPartition { topic: name.to_string(), partition: partition.partition_index };
                let replicas = partition.replica_nodes.iter().map(|id| id.0).collect();
                survey.partitions.push(Held { partition: key, replicas });
            }
        }
        let request = ListPartitionReassignmentsRequest::default().with_topics(None);
        let answer = connection.call(&request, deadline).await?;
        answered("ListPartitionReassignments", answer.error_code)?;
        for topic in &answer.topics {
            let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
            let moving = indexes.map(|partition| TopicPartition { topic: topic.name.to_string(), partition });
            survey.moving.extend(moving);
        }
        Ok(survey)
    }

    /// Asks for partitions to be moved; what became of each, a later survey tells.
    pub async fn reassign(
        &self,
        connection: &Connection<T>,
        moves: &[Held],
        deadline: Duration,
    ) -> Result<(), CallError> {
        let deadline = self.soon(deadline);
        let topics = moves.iter().map(|Held { partition, replicas }| {
            let replicas = replicas.iter().map(|id| BrokerId(*id)).collect();
            let wanted = ReassignablePartition::default()
                .with_partition_index(partition.partition)
                .with_replicas(Some(replicas));
            ReassignableTopic::default().with_name(topic_name(&partition.topic)).with_partitions(vec![wanted])
        });
        let timeout = deadline.saturating_sub(self.timer().monotonic());
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(timeout.as_millis() as i32)
            .with_topics(topics.collect());
        let answer = connection.call(&request, deadline).await?;
        answered("AlterPartitionReassignments", answer.error_code)
    }

    /// Takes a node out of the cluster; one that is not in it is out.
    pub async fn unregister(&self, connection: &Connection<T>, node: i32, deadline: Duration) -> Result<(), CallError> {
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(node));
        match connection.call(&request, self.soon(deadline)).await?.error_code {
            BROKER_ID_NOT_REGISTERED => Ok(()),
            code => answered("UnregisterBroker", code),
        }
    }

    fn soon(&self, deadline: Duration) -> Duration {
        deadline.min(self.after(self.options().request_timeout))
    }
}

/// An id that no node has.
const NOBODY: BrokerId = BrokerId(-1);
