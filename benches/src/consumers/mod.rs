//! The consumer's half: consumers whose effects are rows of a real database, and what becomes of these under redelivery,
//! crashes at every step, rebalances and a leader's death. Start at `trial`; `sink` has the ways to be idempotent and how
//! each goes wrong, `worker` is the consumer's process. Not here: load and its figures (`session`), the causes of a backlog
//! (`backlog`), any judgement of a broker.

pub mod acknowledge;
pub mod cluster;
pub mod effects;
pub mod faults;
pub(crate) mod kafka;
pub mod message;
mod process;
mod produce;
pub mod sink;
pub mod trial;
pub mod worker;

use std::path::PathBuf;

use mqassay_harness::process::ProcessError;
use mqassay_harness::systems::SystemError;
use rdkafka::error::KafkaError;
use thiserror::Error;

/// A trial could not be made. What a sink does wrong is not here but in the counts.
#[derive(Debug, Error)]
pub enum ConsumerError {
    /// The client library met an error.
    #[error("cannot {action}: {source}")]
    Kafka {
        /// What was tried.
        action: &'static str,
        /// The library's error.
        source: KafkaError,
    },
    /// The sink's database met an error.
    #[error("the sink's database: {0}")]
    Database(#[from] rusqlite::Error),
    /// A broker process of ours.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// An external system.
    #[error(transparent)]
    System(#[from] SystemError),
    /// A record that no trial has written.
    #[error("{text:?} is not a message of a trial; give the worker a topic of its own")]
    Foreign {
        /// The record's value, as far as it is text.
        text: String,
    },
    /// A consumer's process ended otherwise than it was told to.
    #[error("the consumer {what} ended with {status}; its last line: {last:?}")]
    Ended {
        /// Which consumer.
        what: String,
        /// How it ended.
        status: String,
        /// What it said last.
        last: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s")]
    Late {
        /// What was waited for.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The members of a group do not say what they consume.
    #[error("no member of group {group:?} says what it owns; name the group's topics (--topic)")]
    NoTopics {
        /// The group.
        group: String,
    },
    /// A topic that is not there.
    #[error("the cluster has no topic {topic:?}, or it has no queues; check the name")]
    NoQueues {
        /// The topic.
        topic: String,
    },
    /// No such name.
    #[error("no {what} is called {name:?}; there is: {known}")]
    Unknown {
        /// What kind of thing.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The machine.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or program.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A thread of ours died; its panic has been printed.
    #[error("the {what}'s thread died; this is a bug of mqassay")]
    Panicked {
        /// Which thread.
        what: &'static str,
    },
}

/// The error of an action of the client library.
pub(crate) fn kafka_error(action: &'static str) -> impl FnOnce(KafkaError) -> ConsumerError {
    move |source| ConsumerError::Kafka { action, source }
}

/// The error of an action on a file or a program.
pub(crate) fn io_error(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ConsumerError {
    let path = path.into();
    move |source| ConsumerError::Io { action, path, source }
}
