//! White-box invariants of a cluster, over the states that probes saw: what must hold among the replicas of a log whatever
//! clients see. Log matching up to the lesser watermark; one start, and so one leader, of each leader epoch; leader
//! completeness: a new epoch starts beyond everything that was confirmed before it. Start at `violations`.
//! Not here: how states are seen (`adapter::probe`), and what clients were promised (the judge).

use std::collections::BTreeMap;

use mqassay_broker::core::dump::CoreDump;
use mqassay_broker::core::log::LogDump;
use mqassay_harness::plan::{FaultAction, Plan};

use crate::adapter::probe::StateSeen;

/// Number of the metadata log, whose replication is Raft's.
const METADATA_LOG: u64 = 0;
/// Violations that are told of one run.
const TOLD_MAXIMUM: usize = 10;

/// Whether the plan's settings and faults let confirmed records be lost, so that the invariants need not hold.
pub fn may_lose(plan: &Plan) -> bool {
    let rots = plan.faults.iter().any(|fault| matches!(fault.action, FaultAction::BitFlip { .. }));
    let loses = |of_topic: &BTreeMap<String, String>| {
        let setting = |topic: &str, node: &str| of_topic.get(topic).or_else(|| plan.settings.get(node));
        setting("mqassay.flush", "flush").is_some_and(|flush| flush != "ack")
            || setting("unclean.leader.election.enable", "unclean-election").is_some_and(|unclean| unclean == "true")
    };
    rots || plan.topics.iter().any(|topic| loses(&topic.config))
}

/// What the states of a run, in order of time, break; empty where everything holds.
pub fn violations(states: &[StateSeen]) -> Vec<String> {
    let mut latest: BTreeMap<u32, &CoreDump> = BTreeMap::new();
    let mut confirmed: BTreeMap<u64, Confirmed> = BTreeMap::new();
    let mut found = Vec::new();
    for seen in states {
        for log in seen.state.logs.iter().filter(|log| log.log != METADATA_LOG) {
            let known = confirmed.entry(log.log).or_default();
            known.check_epochs(seen, log, &mut found);
            for (other, state) in latest.iter().filter(|(other, _)| **other != seen.node) {
                if let Some(theirs) = state.logs.iter().find(|theirs| theirs.log == log.log) {
                    check_matching(seen, log, *other, theirs, &mut found);
                }
            }
        }
        latest.insert(seen.node, &seen.state);
        if found.len() >= TOLD_MAXIMUM {
            break;
        }
    }
    found
}

/// What is known of a log across its replicas.
#[derive(Default)]
struct Confirmed {
    /// The highest watermark seen so far.
    watermark: u64,
    /// Where each epoch starts, and on which node that was seen first.
    starts: BTreeMap<i32, (u64, u32)>,
}

impl Confirmed {
    fn check_epochs(&mut self, seen: &StateSeen, log: &LogDump, found: &mut Vec<String>) {
        for (epoch, start) in &log.epochs {
            match self.starts.get(epoch) {
                Some((known, _)) if known == start => {}
                // What lies below the start of a replica was never copied to it.
                Some(_) if *start <= log.start => {}
                Some((known, node)) => found.push(told(
                    seen,
                    log,
                    &format!("epoch {epoch} starts at {start} here and at {known} on node {node}: two leaders"),
                )),
                None => {
                    if *start > log.start && *start < self.watermark {
                        found.push(told(
                            seen,
                            log,
                            &format!("epoch {epoch} starts at {start}, below {} that was confirmed", self.watermark),
                        ));
                    }
                    if *start > log.start {
                        self.starts.insert(*epoch, (*start, seen.node));
                    }
                }
            }
        }
        self.watermark = self.watermark.max(log.watermark);
    }
}

/// Below the lesser watermark both hold the same batches at the same positions.
fn check_matching(seen: &StateSeen, one: &LogDump, node: u32, other: &LogDump, found: &mut Vec<String>) {
    let (from, to) = (one.start.max(other.start), one.watermark.min(other.watermark));
    let (ours, theirs) = (batches(one, from, to), batches(other, from, to));
    if let Some((position, ours, theirs)) = first_difference(&ours, &theirs) {
        let text = format!("at position {position} stands {ours}, and {theirs} on node {node}, both confirmed");
        found.push(told(seen, one, &text));
    }
}

/// Batches by position: queue, first offset, number of records, end.
type Batches = BTreeMap<u64, (u64, i64, u32, u64)>;

fn batches(log: &LogDump, from: u64, to: u64) -> Batches {
    let of_queues = log.queues.iter().flat_map(|queue| queue.batches.iter().map(move |batch| (queue.queue, batch)));
    of_queues
        .filter(|(_, batch)| batch.position >= from && batch.end <= to)
        .map(|(queue, batch)| (batch.position, (queue, batch.first_offset, batch.count, batch.end)))
        .collect()
}

/// The first position at which the two differ. A queue's batches below its log start may be forgotten on one side.
fn first_difference(ours: &Batches, theirs: &Batches) -> Option<(u64, String, String)> {
    let text = |(queue, offset, count, end): &(u64, i64, u32, u64)| {
        format!("a batch of queue {queue} with {count} records from offset {offset}, to position {end}")
    };
    ours.iter().find_map(|(position, batch)| {
        let other = theirs.get(position)?;
        (batch != other).then(|| (*position, text(batch), text(other)))
    })
}

fn told(seen: &StateSeen, log: &LogDump, what: &str) -> String {
    format!("{} µs, node {}, log {}: {what}", seen.at_us, seen.node, log.log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqassay_broker::core::log::{BatchDump, QueueDump};

    fn log(epochs: &[(i32, u64)], watermark: u64, batches: &[(i64, u64)]) -> LogDump {
        let batch = |(offset, position): &(i64, u64)| BatchDump {
            first_offset: *offset,
            count: 1,
            position: *position,
            end: position + 100,
        };
        let queue = QueueDump {
            queue: 7,
            log_start: 0,
            high_watermark: 0,
            next_offset: 0,
            fenced: false,
            batches: batches.iter().map(batch).collect(),
            producers: Vec::new(),
        };
        let end = batches.last().map_or(0, |(_, position)| position + 100);
        LogDump {
            log: 3,
            epoch: epochs.last().map_or(-1, |(epoch, _)| *epoch),
            epochs: epochs.to_vec(),
            start: 0,
            end,
            written: end,
            synced: end,
            counted: end,
            watermark,
            queues: vec![queue],
        }
    }

    fn seen(node: u32, log: LogDump) -> StateSeen {
        let state = CoreDump { logs: vec![log], partitions: Vec::new() };
        StateSeen { at_us: 1_000, node, incarnation: 1, state }
    }

    #[test]
    fn replicas_that_agree_up_to_the_lesser_watermark_pass() {
        let leader = log(&[(1, 0), (2, 200)], 300, &[(0, 0), (1, 100), (2, 200)]);
        // Above its watermark the follower has what the old leader never confirmed.
        let follower = log(&[(1, 0)], 200, &[(0, 0), (1, 100), (9, 200)]);
        assert_eq!(violations(&[seen(0, follower), seen(1, leader)]), Vec::<String>::new());
    }

    #[test]
    fn other_batches_below_both_watermarks_are_found() {
        let one = log(&[(1, 0)], 200, &[(0, 0), (1, 100)]);
        let other = log(&[(1, 0)], 200, &[(0, 0), (5, 100)]);
        let found = violations(&[seen(0, one), seen(1, other)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("position 100") && found[0].contains("node 1"), "{found:?}");
    }

    #[test]
    fn a_leader_without_what_was_confirmed_is_found() {
        let old = log(&[(1, 0), (2, 100)], 300, &[(0, 0), (1, 100), (2, 200)]);
        let new = log(&[(1, 0), (2, 100), (3, 200)], 200, &[(0, 0), (1, 100), (7, 200)]);
        let found = violations(&[seen(0, old), seen(1, new)]);
        assert!(found.iter().any(|text| text.contains("below 300")), "{found:?}");
    }

    #[test]
    fn two_leaders_of_one_epoch_are_found() {
        let one = log(&[(1, 0), (2, 100)], 100, &[(0, 0), (1, 100)]);
        let other = log(&[(1, 0), (2, 200)], 100, &[(0, 0), (4, 100), (5, 200)]);
        let found = violations(&[seen(0, one), seen(1, other)]);
        assert!(found.iter().any(|text| text.contains("two leaders")), "{found:?}");
    }
}
