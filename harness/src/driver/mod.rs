//! The harness' own asynchronous Kafka client: producer, consumer by assignment, administrative calls.
//! It is generic over how connections are dialled and how time passes, so that the same code runs inside the
//! simulated world and on real sockets; it needs a `tokio::task::LocalSet` around it. It shares no code with any
//! broker: records are written and read by `records` here. Start at `producer` and `consumer`; `cluster` holds the
//! connections and the metadata, `errors` says what every error code means. Not here: plans and histories (`workload`).

pub mod admin;
mod assignor;
pub mod cluster;
pub mod connection;
pub mod consumer;
pub mod errors;
pub mod group;
pub mod membership;
pub mod mutant;
mod pending;
pub mod producer;
#[allow(clippy::disallowed_methods, reason = "the real arm of the ports: the system clock")]
pub mod real;
pub mod records;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// Opens byte streams to brokers.
pub trait Dial: Clone + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;
    /// Connects to `host:port`.
    fn dial(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>>;
}

/// Time as a client sees it.
pub trait Timer: Clone + 'static {
    /// Monotonic time since an origin of the timer's own.
    fn monotonic(&self) -> Duration;
    /// Wall time in milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64;
    /// Ends when `monotonic` has reached `deadline`.
    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()> + 'static;
}

/// Hears of countable events by their names, all listed in `EVENTS`.
pub type Events = Rc<dyn Fn(&'static str)>;

/// A batch was sent again.
pub const RETRY: &str = "retry";
/// A request was not answered in time; its connection is closed.
pub const TIME_OUT: &str = "time-out";
/// An open connection ended from the other side.
pub const CONNECTION_LOST: &str = "connection-lost";
/// A broker was connected to again.
pub const RECONNECT: &str = "reconnect";
/// An idempotent batch was acknowledged after an earlier attempt whose effect is unknown.
pub const DUPLICATE_ACKNOWLEDGED: &str = "duplicate-acknowledged";
/// A producer gave up a batch and went on under a new epoch or producer id.
pub const PRODUCER_RESET: &str = "producer-reset";
/// The names of all events that the driver tells.
pub const EVENTS: &[&str] = &[RETRY, TIME_OUT, CONNECTION_LOST, RECONNECT, DUPLICATE_ACKNOWLEDGED, PRODUCER_RESET];

/// A topic's name and the number of one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}-{}", self.topic, self.partition)
    }
}

/// What the future gives, or none where `deadline` (monotonic) comes first; the future is dropped then.
pub(crate) async fn before<T: Timer, F: Future>(timer: &T, deadline: Duration, future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = timer.sleep_until(deadline) => None,
    }
}
