//! What the broker decides: a deterministic machine without I/O, clock, randomness or async.
//! `machine` is the whole: events in, effects out. Each call family has its file: `produce`, `fetch`, `list_offsets`,
//! `topics`, `producer_ids`, `describe`, `group`. `metadata` is the state that the metadata log replicates, `admin` writes it.
//! Records live in `log`. Not here: bytes on the wire (`wire`) and performing effects (`node`, `store`).

mod admin;
mod alter_configs;
mod authorized;
pub mod batch;
pub mod census;
pub mod config;
mod control;
mod describe;
pub mod dump;
mod fetch;
mod fetch_sessions;
mod gather;
pub mod group;
mod internal;
mod list_offsets;
pub mod log;
pub mod machine;
mod membership;
pub mod metadata;
pub mod peer;
pub mod placement;
mod produce;
mod producer_ids;
mod quorum;
pub mod raft;
mod reassignments;
pub(crate) mod records;
mod replica;
pub mod settings;
mod topics;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a variable asks it to record its traces anew")]
mod trace_tests;
pub mod types;
