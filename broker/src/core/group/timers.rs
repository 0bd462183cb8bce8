//! Named deadlines of a coordinator: each name has one at most, and the earliest is known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a deadline is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A member that was not heard of is gone.
    Session { group: String, member: String },
    /// An id that was given out was not used.
    Pending { group: String, member: String },
    /// A rebalance waits no longer for members to join.
    Join { group: String },
    /// A rebalance waits no longer for members to ask for their assignment.
    Sync { group: String },
    /// A member that was to give up queues did not.
    Revoke { group: String, member: String },
    /// Look for offsets that have expired.
    Expire,
}

/// Deadlines by name, in monotonic time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<Timer, Duration>,
    order: BTreeSet<(Duration, Timer)>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Duration) {
        if let Some(before) = self.at.insert(timer.clone(), at) {
            self.order.remove(&(before, timer.clone()));
        }
        self.order.insert((at, timer));
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.order.remove(&(at, timer));
        }
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    pub(super) fn pop_due(&mut self, now: Duration) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.order.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }
}
