//! Workloads: runs a plan's clients over the driver and writes the history of what they saw.
//! Start at `client::run_client`; `topics` prepares, `final_reads` reads everything at the end, `recorder` is the only
//! writer of operations, `payload` makes records that betray any change, `phase` says when the faults have stopped.
//! Every operation ends after a bounded time. Not here: sampling plans (`plan`), judging (`check`), faults (`sim`).

pub mod client;
mod consuming;
pub mod final_reads;
mod member;
pub mod operator;
pub mod payload;
pub mod phase;
mod producing;
pub mod recorder;
pub mod topics;

use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use crate::driver::cluster::{Cluster, ClusterOptions};
pub use crate::driver::mutant::ClientMutant;
use crate::driver::{Dial, Events, Timer, TopicPartition};
use crate::history::{ClientId, Queue};
use crate::plan::Topic;
use crate::plan::draws::Draws;
use crate::plan::keys::is_compacted;
use phase::Phase;
use recorder::Recorder;

/// Everything that a client of a run needs from the world that it runs in.
pub struct Context<D: Dial, T: Timer> {
    /// The client, as the history names it.
    pub client: ClientId,
    /// Opens connections.
    pub dial: D,
    /// The client's clocks.
    pub timer: T,
    /// The timer's monotonic time at the run's beginning.
    pub began: Duration,
    /// The timer's wall time at the run's beginning, in milliseconds since the Unix epoch.
    pub began_wall_ms: i64,
    /// `host:port` of the nodes to ask first, at least one.
    pub bootstrap: Vec<String>,
    /// The plan's topics.
    pub topics: Rc<Vec<Topic>>,
    /// Where jitter comes from.
    pub draws: Draws,
    /// Where operations go to.
    pub recorder: Recorder,
    /// Tells when the faults have stopped.
    pub phase: Phase,
    /// Hears of the driver's events (`driver::EVENTS`).
    pub events: Events,
    /// A deliberate bug of the client, if any.
    pub client_mutant: Option<ClientMutant>,
}

/// Why a client could not run as planned.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WorkloadError {
    /// The plan asks a client for something that its role cannot do.
    #[error("operation {index} of client {client} is not one that {role} can do; correct the plan")]
    WrongRole {
        /// The client's index in the plan.
        client: u32,
        /// The operation's index among the client's.
        index: usize,
        /// The client's role.
        role: &'static str,
    },
    /// The plan names a queue that no topic of it has.
    #[error(
        "operation {index} of client {client} names topic {topic}, partition {partition}, which is not in the plan"
    )]
    NoSuchQueue {
        /// The client's index in the plan.
        client: u32,
        /// The operation's index among the client's.
        index: usize,
        /// The topic's index.
        topic: u32,
        /// The partition's number.
        partition: u32,
    },
    /// The producer's settings contradict each other.
    #[error("client {client} cannot be a producer: {reason}; correct the plan")]
    Producer {
        /// The client's index in the plan.
        client: u32,
        /// What is wrong.
        reason: String,
    },
    /// A topic could not be created, or has no leader.
    #[error("topic {topic} is not ready after {waited_ms} ms: {reason}")]
    TopicNotReady {
        /// Its name.
        topic: String,
        /// How long was waited, in milliseconds.
        waited_ms: u128,
        /// What was seen last.
        reason: String,
    },
}

impl<D: Dial, T: Timer> Context<D, T> {
    /// A cluster view for this client with the given time-out of one request.
    pub(crate) fn cluster(&self, request_timeout: Duration) -> Cluster<D, T> {
        let options = ClusterOptions {
            bootstrap: self.bootstrap.clone(),
            client_id: format!("mqassay-{}", self.client.0),
            entity: u64::from(self.client.0),
            request_timeout,
            backoff_minimum: BACKOFF_MINIMUM,
            backoff_maximum: BACKOFF_MAXIMUM,
            // In a cluster a node may not know yet a topic that another has just created.
            auto_create: self.topics.iter().any(|topic| topic.auto_created),
            restamps: self.client_mutant == Some(ClientMutant::RestampsAppended),
        };
        Cluster::new(self.dial.clone(), self.timer.clone(), self.draws.clone(), self.events.clone(), options)
    }

    /// Microseconds since the run began.
    pub(crate) fn now_us(&self) -> u64 {
        self.timer.monotonic().saturating_sub(self.began).as_micros() as u64
    }

    /// The queue as the driver names it.
    pub(crate) fn topic_partition(&self, queue: Queue) -> TopicPartition {
        let topic = self.topics[queue.topic as usize].name.clone();
        TopicPartition { topic, partition: queue.partition as i32 }
    }

    /// Whether the queue's topic is compacted.
    pub(crate) fn is_compacted(&self, queue: Queue) -> bool {
        self.topics.get(queue.topic as usize).is_some_and(|topic| is_compacted(&topic.config))
    }

    /// Whether the plan has the queue.
    pub(crate) fn has_queue(&self, queue: Queue) -> bool {
        self.topics.get(queue.topic as usize).is_some_and(|topic| queue.partition < topic.queues)
    }

    /// Every queue of the plan, in order.
    pub(crate) fn queues(&self) -> Vec<Queue> {
        let topics = self.topics.iter().enumerate();
        topics
            .flat_map(|(topic, described)| {
                (0..described.queues).map(move |partition| Queue { topic: topic as u32, partition })
            })
            .collect()
    }

    /// Ends at the operation's time, or at once in the liveness phase.
    pub(crate) async fn wait_for_turn(&self, at_ms: u64) {
        tokio::select! {
            biased;
            () = self.phase.liveness() => {}
            () = self.timer.sleep_until(self.began + Duration::from_millis(at_ms)) => {}
        }
    }
}

const BACKOFF_MINIMUM: Duration = Duration::from_millis(20);
const BACKOFF_MAXIMUM: Duration = Duration::from_millis(640);

#[cfg(test)]
mod tests;
