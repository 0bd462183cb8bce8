//! What nodes say to each other, and its bytes. Messages may be lost; those of one connection come in order.
//! On the wire each is a frame as Kafka's requests are: a private API key (so that a fault can pick one kind), then the
//! message. Log bytes travel behind it as they are. Not here: connections (`node::peers`) and what a message does.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::raft::message::RaftMessage;
use super::types::{LogId, NodeId, Position};
use crate::wire::frame::LENGTH_BYTES;

/// A message between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Replication of the metadata log.
    Raft(RaftMessage),
    /// Brokers and their controller.
    Control(ControlMessage),
    /// Replication of the other logs.
    Log(LogMessage),
}

/// Who calls: the first message on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster's identity; 0 where the node knows none yet.
    pub cluster: u64,
    /// The calling node.
    pub node: NodeId,
    /// A draw of its process.
    pub incarnation: u64,
    /// Where it listens.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A message between a broker and the controller, which is the leader of the metadata log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlMessage {
    /// Append this record.
    Propose {
        /// The proposal's number with its origin.
        tag: u64,
        /// The record's bytes.
        record: Bytes,
    },
    /// The receiver does not lead; nothing was appended.
    ProposalRefused {
        /// The proposal's number.
        tag: u64,
        /// Who leads, where that is known.
        leader: Option<NodeId>,
    },
    /// A broker is alive.
    Heartbeat {
        /// Its process.
        incarnation: u64,
        /// Its broker epoch; -1 where it knows none.
        broker_epoch: i64,
        /// The offset in the metadata log of the next record that it will apply.
        applied: i64,
        /// Whether it wants to be relieved of its leaderships.
        wants_shutdown: bool,
    },
    /// The controller heard it.
    HeartbeatReply {
        /// The receiver's broker epoch as the controller knows it; -1 for none.
        broker_epoch: i64,
        /// Whether it leads nothing more and may go.
        may_shut_down: bool,
    },
    /// The sender is not the controller, and says who is: one that joins may never have heard of it.
    NotController {
        /// Who leads.
        leader: NodeId,
        /// Where it listens.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// A message about a log's replication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogMessage {
    /// A follower wants frames.
    Fetch(CopyFetch),
    /// What the leader answers.
    Fetched(CopyFetched),
}

/// A follower's question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFetch {
    /// The log.
    pub log: LogId,
    /// Names the question; the answer repeats it.
    pub tag: u64,
    /// The follower's broker epoch.
    pub broker_epoch: i64,
    /// The leader epoch that it follows.
    pub leader_epoch: i32,
    /// Its counted position: its vote for the watermark.
    pub position: Position,
    /// The epoch of its last frame; -1 for none.
    pub last_epoch: i32,
    /// Its end, from which it wants frames.
    pub fetch_from: Position,
    /// Nothing that it has is the leader's: it wants to begin where the leader's log begins.
    pub restart: bool,
}

/// A leader's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFetched {
    /// The log.
    pub log: LogId,
    /// The question's name.
    pub tag: u64,
    /// The leader epoch that the question named.
    pub leader_epoch: i32,
    /// The high watermark.
    pub high_watermark: Position,
    /// Where the leader's log begins.
    pub start_position: Position,
    /// What it brings.
    pub outcome: Copied,
}

/// The outcome of a follower's question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copied {
    /// Whole frames from the position wanted on, as they are stored; they travel behind the message.
    Frames(#[serde(skip)] Bytes),
    /// The follower's log is another one behind this point.
    Diverging {
        /// The leader's largest epoch that is not above the follower's last.
        epoch: i32,
        /// Where that epoch ends.
        end: Position,
    },
    /// What the follower wants was freed: a carrier, behind which its log is to begin anew.
    Restart(Bytes),
    /// A Kafka error code.
    Refused(i16),
}

/// Bytes that are no message; their connection is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a frame between nodes cannot be read: {reason}; do all nodes run the same version?")]
pub struct PeerError {
    reason: String,
}

impl PeerMessage {
    /// The API key of its frame.
    pub fn key(&self) -> i16 {
        match self {
            PeerMessage::Raft(_) => KEY_RAFT,
            PeerMessage::Control(_) => KEY_CONTROL,
            PeerMessage::Log(_) => KEY_LOG,
        }
    }

    /// Its frame in two parts, one to be sent behind the other.
    pub fn encode(&self) -> (Bytes, Bytes) {
        let tail = match self {
            PeerMessage::Log(LogMessage::Fetched(CopyFetched { outcome: Copied::Frames(bytes), .. })) => bytes.clone(),
            PeerMessage::Log(_) | PeerMessage::Raft(_) | PeerMessage::Control(_) => Bytes::new(),
        };
        (frame(self.key(), self, tail.len()), tail)
    }

    /// Reads a frame without its length.
    pub fn decode(frame: Bytes) -> Result<PeerMessage, PeerError> {
        let (key, mut message, tail) = split::<PeerMessage>(frame)?;
        if key != message.key() {
            return Err(PeerError { reason: format!("its key {key} is not that of its message") });
        }
        if let PeerMessage::Log(LogMessage::Fetched(CopyFetched { outcome: Copied::Frames(bytes), .. })) = &mut message
        {
            *bytes = tail;
        }
        Ok(message)
    }
}

impl Hello {
    /// Its frame.
    pub fn encode(&self) -> Bytes {
        frame(KEY_HELLO, self, 0)
    }

    /// Reads a frame without its length.
    pub fn decode(frame: Bytes) -> Result<Hello, PeerError> {
        let (key, hello, _) = split::<Hello>(frame)?;
        if key != KEY_HELLO {
            return Err(PeerError { reason: format!("its key is {key}, not that of a greeting") });
        }
        Ok(hello)
    }

    /// Whether a frame without its length is one.
    pub fn is_hello(frame: &[u8]) -> bool {
        frame.starts_with(&KEY_HELLO.to_be_bytes())
    }
}

fn frame(key: i16, message: &impl Serialize, tail: usize) -> Bytes {
    let body = postcard::to_stdvec(message).expect("messages consist of numbers, texts and bytes");
    let length = HEADER_BYTES + size_of::<u32>() + body.len() + tail;
    let mut bytes = BytesMut::with_capacity(LENGTH_BYTES + length - tail);
    bytes.put_u32(length as u32);
    bytes.put_i16(key);
    bytes.put_i16(0);
    bytes.put_i32(0);
    // No client id.
    bytes.put_i16(-1);
    bytes.put_u32(body.len() as u32);
    bytes.put_slice(&body);
    bytes.freeze()
}

fn split<T: for<'a> Deserialize<'a>>(mut frame: Bytes) -> Result<(i16, T, Bytes), PeerError> {
    let short = || PeerError { reason: format!("{} bytes are too few", frame.len()) };
    if frame.len() < HEADER_BYTES + size_of::<u32>() {
        return Err(short());
    }
    let key = frame.get_i16();
    frame.advance(HEADER_BYTES - size_of::<i16>());
    let length = frame.get_u32() as usize;
    if frame.len() < length {
        return Err(PeerError { reason: format!("{length} bytes are claimed, {} are there", frame.len()) });
    }
    let body = frame.split_to(length);
    let message = postcard::from_bytes(&body).map_err(|error| PeerError { reason: error.to_string() })?;
    Ok((key, message, frame))
}

/// The first call on a connection between nodes: who is calling. Everything behind it is one way.
pub const KEY_HELLO: i16 = 20_900;
/// Replication of logs.
pub const KEY_LOG: i16 = 20_910;
/// Replication of the metadata log.
pub const KEY_RAFT: i16 = 20_920;
/// Brokers and their controller.
pub const KEY_CONTROL: i16 = 20_930;
/// As a request's header: key, version, correlation id and the length of the client id.
const HEADER_BYTES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(bytes: &'static [u8]) -> PeerMessage {
        PeerMessage::Log(LogMessage::Fetched(CopyFetched {
            log: LogId(3),
            tag: 5,
            leader_epoch: 7,
            high_watermark: Position(100),
            start_position: Position(0),
            outcome: Copied::Frames(Bytes::from_static(bytes)),
        }))
    }

    fn joined(message: &PeerMessage) -> Bytes {
        let (head, tail) = message.encode();
        let mut frame = BytesMut::from(&head[..]);
        frame.extend_from_slice(&tail);
        let length = frame.get_u32();
        assert_eq!(length as usize, frame.len());
        frame.freeze()
    }

    #[test]
    fn messages_survive_the_round_trip_and_name_their_key() {
        let propose = ControlMessage::Propose { tag: 1, record: Bytes::from_static(b"record") };
        for message in [fetched(b"frames"), fetched(b""), PeerMessage::Control(propose)] {
            let frame = joined(&message);
            assert_eq!(frame[..2], message.key().to_be_bytes());
            assert_eq!(PeerMessage::decode(frame), Ok(message));
        }
        let hello = Hello { cluster: 5, node: NodeId(2), incarnation: 9, host: "node-2".to_owned(), port: 9092 };
        let frame = hello.encode().slice(LENGTH_BYTES..);
        assert!(Hello::is_hello(&frame));
        assert_eq!(Hello::decode(frame), Ok(hello));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let whole = joined(&fetched(b"frames"));
        for length in 0..whole.len() - b"frames".len() {
            assert!(PeerMessage::decode(whole.slice(..length)).is_err(), "cut at {length}");
        }
        let mut other_key = BytesMut::from(&whole[..]);
        other_key[..2].copy_from_slice(&KEY_RAFT.to_be_bytes());
        assert!(PeerMessage::decode(other_key.freeze()).is_err());
    }
}
