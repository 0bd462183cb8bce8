//! What a failed call means: the one table from Kafka's error codes to retriable, surely without effect, or unknown.
//! An operation counts as refused only if every attempt at it was surely without effect. Kafka's own list of codes:
//! <https://kafka.apache.org/protocol#protocol_error_codes>.

use thiserror::Error;

use crate::history::Outcome;

/// Whether a failed attempt may have changed anything at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Surely not.
    None,
    /// It may have, now or later.
    Unknown,
}

/// What an error code means to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// Kafka's number.
    pub code: i16,
    /// Kafka's name.
    pub name: &'static str,
    /// Whether another attempt may succeed.
    pub retriable: bool,
    /// Whether the attempt may have changed anything.
    pub effect: Effect,
    /// Whether the client should ask for the metadata again first.
    pub stale_metadata: bool,
}

/// OFFSET_OUT_OF_RANGE: the position lies below the log start or beyond the end.
pub const OFFSET_OUT_OF_RANGE: i16 = 1;
/// ILLEGAL_GENERATION: the group has gone on without the member.
pub const ILLEGAL_GENERATION: i16 = 22;
/// UNKNOWN_MEMBER_ID: the group has forgotten the member.
pub const UNKNOWN_MEMBER_ID: i16 = 25;
/// REBALANCE_IN_PROGRESS: members are to join again.
pub const REBALANCE_IN_PROGRESS: i16 = 27;
/// MEMBER_ID_REQUIRED: join again with the id of the answer.
pub const MEMBER_ID_REQUIRED: i16 = 79;
/// FENCED_INSTANCE_ID: another member has taken the static member's place.
pub const FENCED_INSTANCE_ID: i16 = 82;
/// BROKER_ID_NOT_REGISTERED: the cluster has no such node.
pub const BROKER_ID_NOT_REGISTERED: i16 = 102;
/// FENCED_MEMBER_EPOCH: the group has gone on without the member.
pub const FENCED_MEMBER_EPOCH: i16 = 110;
/// STALE_MEMBER_EPOCH: the member has a newer epoch and has not heard of it.
pub const STALE_MEMBER_EPOCH: i16 = 113;
/// TOPIC_ALREADY_EXISTS.
pub const TOPIC_ALREADY_EXISTS: i16 = 36;
/// INVALID_REPLICATION_FACTOR: more copies than there are nodes now.
pub const INVALID_REPLICATION_FACTOR: i16 = 38;
/// OUT_OF_ORDER_SEQUENCE_NUMBER: a gap before the batch.
pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
/// DUPLICATE_SEQUENCE_NUMBER: the batch is in the log, and older than what the broker remembers of the producer.
pub const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
/// INVALID_PRODUCER_EPOCH: the broker knows a newer epoch of the producer.
pub const INVALID_PRODUCER_EPOCH: i16 = 47;
/// UNKNOWN_PRODUCER_ID: the broker has forgotten the producer.
pub const UNKNOWN_PRODUCER_ID: i16 = 59;

/// What a code other than 0 means. A code that is not in the table is not retriable and its effect unknown.
pub fn meaning(code: i16) -> Meaning {
    for row in TABLE {
        if row.code == code {
            return *row;
        }
    }
    Meaning { code, name: "an unknown error", retriable: false, effect: Effect::Unknown, stale_metadata: false }
}

/// Surely without effect, and final.
const fn refused(code: i16, name: &'static str) -> Meaning {
    Meaning { code, name, retriable: false, effect: Effect::None, stale_metadata: false }
}

/// Surely without effect; the next attempt may succeed.
const fn later(code: i16, name: &'static str) -> Meaning {
    Meaning { code, name, retriable: true, effect: Effect::None, stale_metadata: false }
}

/// Surely without effect; another node may be right.
const fn elsewhere(code: i16, name: &'static str) -> Meaning {
    Meaning { code, name, retriable: true, effect: Effect::None, stale_metadata: true }
}

/// May have had its effect; worth another attempt.
const fn ambiguous(code: i16, name: &'static str) -> Meaning {
    Meaning { code, name, retriable: true, effect: Effect::Unknown, stale_metadata: false }
}

/// Another node may be right; but a leader or coordinator that is replaced answers so what it had appended before, which
/// may stay.
const fn replaced(code: i16, name: &'static str) -> Meaning {
    Meaning { code, name, retriable: true, effect: Effect::Unknown, stale_metadata: true }
}

const TABLE: &[Meaning] = &[
    Meaning {
        code: -1,
        name: "UNKNOWN_SERVER_ERROR",
        retriable: false,
        effect: Effect::Unknown,
        stale_metadata: false,
    },
    refused(OFFSET_OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"),
    later(2, "CORRUPT_MESSAGE"),
    elsewhere(3, "UNKNOWN_TOPIC_OR_PARTITION"),
    refused(4, "INVALID_FETCH_SIZE"),
    elsewhere(5, "LEADER_NOT_AVAILABLE"),
    replaced(6, "NOT_LEADER_OR_FOLLOWER"),
    ambiguous(7, "REQUEST_TIMED_OUT"),
    later(8, "BROKER_NOT_AVAILABLE"),
    elsewhere(9, "REPLICA_NOT_AVAILABLE"),
    refused(10, "MESSAGE_TOO_LARGE"),
    refused(12, "OFFSET_METADATA_TOO_LARGE"),
    ambiguous(13, "NETWORK_EXCEPTION"),
    later(14, "COORDINATOR_LOAD_IN_PROGRESS"),
    elsewhere(15, "COORDINATOR_NOT_AVAILABLE"),
    replaced(16, "NOT_COORDINATOR"),
    refused(17, "INVALID_TOPIC_EXCEPTION"),
    refused(18, "RECORD_LIST_TOO_LARGE"),
    later(19, "NOT_ENOUGH_REPLICAS"),
    ambiguous(20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND"),
    refused(21, "INVALID_REQUIRED_ACKS"),
    refused(ILLEGAL_GENERATION, "ILLEGAL_GENERATION"),
    refused(23, "INCONSISTENT_GROUP_PROTOCOL"),
    refused(24, "INVALID_GROUP_ID"),
    refused(UNKNOWN_MEMBER_ID, "UNKNOWN_MEMBER_ID"),
    refused(26, "INVALID_SESSION_TIMEOUT"),
    later(REBALANCE_IN_PROGRESS, "REBALANCE_IN_PROGRESS"),
    refused(28, "INVALID_COMMIT_OFFSET_SIZE"),
    refused(29, "TOPIC_AUTHORIZATION_FAILED"),
    refused(31, "CLUSTER_AUTHORIZATION_FAILED"),
    refused(32, "INVALID_TIMESTAMP"),
    refused(35, "UNSUPPORTED_VERSION"),
    refused(TOPIC_ALREADY_EXISTS, "TOPIC_ALREADY_EXISTS"),
    refused(37, "INVALID_PARTITIONS"),
    // Brokers of a young cluster may not have registered yet.
    later(INVALID_REPLICATION_FACTOR, "INVALID_REPLICATION_FACTOR"),
    refused(39, "INVALID_REPLICA_ASSIGNMENT"),
    refused(40, "INVALID_CONFIG"),
    elsewhere(41, "NOT_CONTROLLER"),
    refused(42, "INVALID_REQUEST"),
    refused(43, "UNSUPPORTED_FOR_MESSAGE_FORMAT"),
    refused(44, "POLICY_VIOLATION"),
    refused(OUT_OF_ORDER_SEQUENCE_NUMBER, "OUT_OF_ORDER_SEQUENCE_NUMBER"),
    // Its effect is an earlier attempt's; the producer takes it for an acknowledgement without an offset.
    Meaning {
        code: DUPLICATE_SEQUENCE_NUMBER,
        name: "DUPLICATE_SEQUENCE_NUMBER",
        retriable: false,
        effect: Effect::Unknown,
        stale_metadata: false,
    },
    refused(INVALID_PRODUCER_EPOCH, "INVALID_PRODUCER_EPOCH"),
    // The disk failed while or after the records were written: they may be there after the next start.
    Meaning { code: 56, name: "KAFKA_STORAGE_ERROR", retriable: true, effect: Effect::Unknown, stale_metadata: true },
    refused(UNKNOWN_PRODUCER_ID, "UNKNOWN_PRODUCER_ID"),
    elsewhere(72, "LISTENER_NOT_FOUND"),
    elsewhere(74, "FENCED_LEADER_EPOCH"),
    elsewhere(75, "UNKNOWN_LEADER_EPOCH"),
    refused(76, "UNSUPPORTED_COMPRESSION_TYPE"),
    later(78, "OFFSET_NOT_AVAILABLE"),
    later(MEMBER_ID_REQUIRED, "MEMBER_ID_REQUIRED"),
    refused(FENCED_INSTANCE_ID, "FENCED_INSTANCE_ID"),
    refused(87, "INVALID_RECORD"),
    later(89, "THROTTLING_QUOTA_EXCEEDED"),
    refused(90, "PRODUCER_FENCED"),
    elsewhere(100, "UNKNOWN_TOPIC_ID"),
    refused(BROKER_ID_NOT_REGISTERED, "BROKER_ID_NOT_REGISTERED"),
    elsewhere(103, "INCONSISTENT_TOPIC_ID"),
    refused(FENCED_MEMBER_EPOCH, "FENCED_MEMBER_EPOCH"),
    later(111, "UNRELEASED_INSTANCE_ID"),
    refused(112, "UNSUPPORTED_ASSIGNOR"),
    refused(STALE_MEMBER_EPOCH, "STALE_MEMBER_EPOCH"),
];

/// Why one attempt at a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// There was no connection, so nothing was sent.
    #[error("no connection to {address}: {reason}; is a broker listening there?")]
    NotConnected {
        /// `host:port`.
        address: String,
        /// What the dialling said.
        reason: String,
    },
    /// A call that had to come before this one failed, so nothing was sent.
    #[error("nothing was sent: {reason}")]
    NothingSent {
        /// What failed before.
        reason: String,
        /// Whether it may succeed at another attempt.
        is_retriable: bool,
    },
    /// The connection ended after the request was handed to it.
    #[error("connection to {address} was lost before the answer: {reason}")]
    Lost {
        /// `host:port`.
        address: String,
        /// What was seen.
        reason: String,
    },
    /// No answer came in time; the connection was closed.
    #[error("{address} did not answer {api} in time")]
    TimedOut {
        /// `host:port`.
        address: String,
        /// The call's name.
        api: String,
    },
    /// The answer was not what the protocol says.
    #[error("answer of {address} to {api} makes no sense: {reason}")]
    Undecodable {
        /// `host:port`.
        address: String,
        /// The call's name.
        api: String,
        /// What was wrong.
        reason: String,
    },
    /// The request could not be built, so nothing was sent.
    #[error("{api} cannot be sent to {address}: {reason}")]
    Unsendable {
        /// `host:port`.
        address: String,
        /// The call's name.
        api: String,
        /// What was wrong.
        reason: String,
    },
    /// No node is known to lead the partition, so nothing was sent.
    #[error("no leader of {partition} is known: {reason}")]
    NoLeader {
        /// Topic and partition.
        partition: String,
        /// What the metadata said.
        reason: String,
    },
    /// The broker answered with an error code.
    #[error("{api} was answered with {} ({code})", meaning(*code).name)]
    Answered {
        /// The call's name.
        api: String,
        /// Kafka's error code, never 0.
        code: i16,
    },
}

impl CallError {
    /// Whether the attempt may have changed anything at the broker.
    pub fn effect(&self) -> Effect {
        match self {
            CallError::NotConnected { .. }
            | CallError::NothingSent { .. }
            | CallError::Unsendable { .. }
            | CallError::NoLeader { .. } => Effect::None,
            CallError::Lost { .. } | CallError::TimedOut { .. } | CallError::Undecodable { .. } => Effect::Unknown,
            CallError::Answered { code, .. } => meaning(*code).effect,
        }
    }

    /// Whether another attempt may succeed.
    pub fn is_retriable(&self) -> bool {
        match self {
            CallError::NotConnected { .. }
            | CallError::NoLeader { .. }
            | CallError::Lost { .. }
            | CallError::TimedOut { .. }
            | CallError::Undecodable { .. } => true,
            CallError::Unsendable { .. } => false,
            CallError::NothingSent { is_retriable, .. } => *is_retriable,
            CallError::Answered { code, .. } => meaning(*code).retriable,
        }
    }

    /// Whether the metadata that led here should be asked for again.
    pub fn has_stale_metadata(&self) -> bool {
        match self {
            CallError::Answered { code, .. } => meaning(*code).stale_metadata,
            CallError::Unsendable { .. } => false,
            CallError::NotConnected { .. }
            | CallError::NothingSent { .. }
            | CallError::NoLeader { .. }
            | CallError::Lost { .. }
            | CallError::TimedOut { .. }
            | CallError::Undecodable { .. } => true,
        }
    }

    /// The code, where the broker answered with one.
    pub fn code(&self) -> Option<i16> {
        match self {
            CallError::Answered { code, .. } => Some(*code),
            CallError::NotConnected { .. }
            | CallError::NothingSent { .. }
            | CallError::Unsendable { .. }
            | CallError::NoLeader { .. }
            | CallError::Lost { .. }
            | CallError::TimedOut { .. }
            | CallError::Undecodable { .. } => None,
        }
    }
}

/// What the attempts at one operation add up to: refused only if each of them surely had no effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Why the first attempt of unknown effect failed.
    pub unknown: Option<String>,
    /// Why the last attempt without effect failed.
    pub refused: Option<String>,
}

impl Attempts {
    /// Adds a failed attempt.
    pub fn add(&mut self, error: &CallError) {
        match error.effect() {
            Effect::None => self.refused = Some(error.to_string()),
            Effect::Unknown => {
                self.unknown.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// The outcome of an operation that is given up.
    pub fn outcome(&self) -> Outcome {
        match (&self.unknown, &self.refused) {
            (Some(reason), _) => Outcome::Unknown(reason.clone()),
            (None, Some(reason)) => Outcome::Refused(reason.clone()),
            (None, None) => Outcome::Refused("it was never sent".to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_each_code_once() {
        assert!(TABLE.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn what_may_have_been_appended_is_never_refused() {
        for code in [-1, 6, 7, 13, 20, DUPLICATE_SEQUENCE_NUMBER, 56, 12345] {
            assert_eq!(meaning(code).effect, Effect::Unknown, "code {code}");
        }
        for code in [2, 3, 10, 19, 45, 47, 59, 87] {
            assert_eq!(meaning(code).effect, Effect::None, "code {code}");
        }
    }

    #[test]
    fn an_operation_is_refused_only_if_every_attempt_was() {
        let refused = CallError::Answered { api: "Produce".to_string(), code: 3 };
        let lost = CallError::Lost { address: "a:1".to_string(), reason: "reset".to_string() };
        let mut attempts = Attempts::default();
        assert!(matches!(attempts.outcome(), Outcome::Refused(_)));
        attempts.add(&refused);
        assert!(matches!(attempts.outcome(), Outcome::Refused(_)));
        attempts.add(&lost);
        attempts.add(&refused);
        assert!(matches!(attempts.outcome(), Outcome::Unknown(_)));
    }
}
