//! The entries of the replicated metadata log, and what voters say to each other about them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::core::types::NodeId;

/// An entry's place: two logs that have the same id somewhere are the same up to there. Indices begin at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryId {
    /// The term of the leader that made it.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// A node that votes, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peer {
    /// The node.
    pub id: NodeId,
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// A leader's first entry: by committing it, it commits all before it.
    Began,
    /// A record of the metadata, in its envelope.
    Record(Bytes),
    /// Who votes from here on.
    Voters(Vec<Peer>),
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place.
    pub id: EntryId,
    /// Its content.
    pub payload: Payload,
}

/// A message between voters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftMessage {
    /// The sender's term; in a pre-vote the term that it would begin.
    pub term: u64,
    /// The rest.
    pub body: RaftBody,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RaftBody {
    /// Would you vote for me?
    PreVote {
        /// The last entry of the sender; none where its log is empty.
        last: Option<EntryId>,
    },
    /// I would, or would not.
    PreVoteReply {
        /// Whether it would.
        granted: bool,
    },
    /// Vote for me.
    Vote {
        /// The last entry of the sender; none where its log is empty.
        last: Option<EntryId>,
    },
    /// I did, durably, or did not.
    VoteReply {
        /// Whether it did.
        granted: bool,
    },
    /// Entries, or a sign of life.
    Append {
        /// The entry before the first; none where that is the log's beginning.
        previous: Option<EntryId>,
        /// The entries.
        entries: Vec<Entry>,
        /// Everything below this index is committed.
        commit: u64,
        /// The leader's time when it was sent, in microseconds, to be echoed.
        sent: u64,
    },
    /// What became of an append.
    AppendReply {
        /// Everything below this index is durable here and as the leader has it; none where the append did not fit.
        matched: Option<u64>,
        /// Where it did not fit: the index from which the leader may try again.
        retry: u64,
        /// Echo of the append's time.
        sent: u64,
    },
    /// A part of a snapshot, for one whose next entry the leader has no more.
    Snapshot {
        /// The last entry that the snapshot covers.
        last: EntryId,
        /// Where the part begins, in bytes.
        at: u64,
        /// Bytes of the whole snapshot.
        total: u64,
        /// The part.
        bytes: Bytes,
        /// The leader's time when it was sent, in microseconds, to be echoed.
        sent: u64,
    },
    /// How much of a snapshot was received.
    SnapshotReply {
        /// The snapshot's last entry.
        last: EntryId,
        /// Bytes received in order.
        received: u64,
        /// Echo of the part's time.
        sent: u64,
    },
}
