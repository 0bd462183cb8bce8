//! Replication of the metadata log: a small Raft.
//! Start at `message`.

pub mod message;
