//! What a node can tell about itself in numbers, for people who watch it. Counted where it happens, read when asked for;
//! nothing in a node depends on it. Not here: a format to tell it in (`real::metrics`).

use std::time::Duration;

use crate::core::census::CoreCensus;
use crate::wire::api::Api;

/// A node's numbers since its start, and its state now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Requests taken, by call.
    pub requests: Vec<(Api, u64)>,
    /// Bytes received from connections.
    pub received_bytes: u64,
    /// Bytes sent to connections.
    pub sent_bytes: u64,
    /// Connections that are open.
    pub connections: usize,
    /// Bytes that requests without an answer and answers that are not sent hold.
    pub inflight_bytes: usize,
    /// How often a connection was paused for want of memory.
    pub throttles: u64,
    /// For how long, all connections together.
    pub throttled: Duration,
    /// How long syncs of logs took.
    pub syncs: Durations,
    /// What the core holds.
    pub core: CoreCensus,
}

/// How often something took how long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Durations {
    /// How many took at most as long as the bound of the same index and longer than the one before; the last, longer.
    pub counts: [u64; Durations::BOUNDS_US.len() + 1],
    /// All together.
    pub sum: Duration,
}

impl Durations {
    /// Upper bounds, in microseconds.
    pub const BOUNDS_US: [u64; 12] =
        [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

    /// Counts one.
    pub(super) fn add(&mut self, took: Duration) {
        let bucket = Durations::BOUNDS_US.partition_point(|bound| Duration::from_micros(*bound) < took);
        self.counts[bucket] += 1;
        self.sum += took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_under_the_first_bound_that_holds_it() {
        let mut durations = Durations::default();
        for us in [0, 100, 101, 1_000_000, 1_000_001] {
            durations.add(Duration::from_micros(us));
        }
        assert_eq!((durations.counts[0], durations.counts[1]), (2, 1));
        assert_eq!((durations.counts[11], durations.counts[12]), (1, 1));
        assert_eq!(durations.sum, Duration::from_micros(2_000_202));
    }
}
