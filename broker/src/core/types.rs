//! The distinct types of the core: ids, positions, offsets, epochs and time as data.
//! Not here: anything with behaviour; see `batch` and `log`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, formatter)
            }
        }
    };
}

newtype!(
    /// A node of the cluster: a broker, and where it votes, a voter.
    NodeId(i32)
);
newtype!(
    /// A log: the unit that is appended, synced and elected. 0 is the metadata log.
    LogId(u64)
);
newtype!(
    /// A queue (Kafka: partition) within a log; never reused. 0 is the metadata queue.
    QueueId(u64)
);
newtype!(
    /// An absolute position in a log, in bytes since its beginning, frames included.
    Position(u64)
);
newtype!(
    /// A record's offset in its queue.
    Offset(i64)
);
newtype!(
    /// An idempotent producer; -1 is none.
    ProducerId(i64)
);
newtype!(
    /// A producer's epoch; -1 is none.
    ProducerEpoch(i16)
);
newtype!(
    /// The epoch of a log's leader, as batches and frames carry it; -1 is none.
    LeaderEpoch(i32)
);
newtype!(
    /// Names a read that is under way; the caller chooses it.
    Ticket(u64)
);

impl LogId {
    /// The metadata log.
    pub const METADATA: LogId = LogId(0);
}

impl QueueId {
    /// The only queue of the metadata log.
    pub const METADATA: QueueId = QueueId(0);
}

impl ProducerId {
    /// No idempotent producer.
    pub const NONE: ProducerId = ProducerId(-1);

    /// Whether there is no idempotent producer.
    pub fn is_none(self) -> bool {
        self == ProducerId::NONE
    }
}

impl Position {
    /// The position `bytes` further on.
    pub fn plus(self, bytes: u64) -> Position {
        Position(self.0 + bytes)
    }
}

impl Offset {
    /// The offset `count` further on.
    pub fn plus(self, count: i64) -> Offset {
        Offset(self.0 + count)
    }
}

/// What the core is told about time with each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic time since an origin of the node's own.
    pub monotonic: Duration,
    /// Wall time, in milliseconds since the Unix epoch.
    pub wall_ms: i64,
}
