//! Consumer groups: the classic protocol, the one of KIP-848, and committed offsets.
//! Each partition of the internal topic `__consumer_offsets` has a `Coordinator` on the node that leads its log: a pure
//! state machine whose state is the fold of the partition's records. `service` routes requests, appends, and loads;
//! `coordinator` is one partition; `classic` and `consumer` are the two kinds of group; `offsets` what they commit.
//! `docs/groups.md` gives the records. Departures from Kafka: records are in a format of our own; there is no
//! compaction of the topic; the two protocols do not mix in one group (a group that is empty changes its kind); offsets
//! of a group with members never expire; a client's host is not known, and given as empty.

mod answer;
mod assignor;
mod classic;
mod classic_join;
mod classic_sync;
mod consumer;
pub(super) mod consumer_heartbeat;
pub(super) mod coordinator;
mod describe;
mod fetches;
mod find;
#[cfg(test)]
mod laws;
mod load;
mod offsets;
mod reconcile;
mod record;
pub(super) mod requests;
#[cfg(test)]
mod rig;
pub(super) mod service;
pub mod settings;
mod subscription;
#[cfg(test)]
mod tests;
mod timers;
mod turn;

/// The internal topic.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The partition of the internal topic that a group lives on: Java's hash of the group's id, as Kafka does.
pub fn partition_of(group: &str, partitions: usize) -> i32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka takes the absolute value, of which the smallest number has none.
    let positive = if hash == i32::MIN { 0 } else { hash.unsigned_abs() as usize };
    (positive % partitions.max(1)) as i32
}
