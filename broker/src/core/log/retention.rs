//! What a log does by the clock and what it gives up: retention, producer expiry, removal of queues.
//! Segments are removed from the oldest on, when sealed and expired, superfluous, or without a retained batch.

use std::time::Duration;

use super::{Availability, DiskEffect, Log, Queue, Replication, Seal};
use crate::core::types::{Now, Position, QueueId};

/// Bounds of the time between two looks at retention.
const RETENTION_CHECK_MIN: Duration = Duration::from_millis(100);
const RETENTION_CHECK_MAX: Duration = Duration::from_secs(60);

impl Log {
    /// Monotonic time at which `on_deadline` wants to be called; none while nothing is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        let reopen = match self.availability {
            Availability::Offline { retry_at } => return Some(retry_at),
            Availability::Online | Availability::Reopening => None,
        };
        [reopen, self.interval_due, self.mark_due, self.retention_due, self.producer_sweep_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due: reopening, interval flush, mark, retention, producer expiry.
    pub fn on_deadline(&mut self, now: Now, effects: &mut Vec<DiskEffect>) {
        let due = |deadline: Option<Duration>| deadline.is_some_and(|d| d <= now.monotonic);
        match self.availability {
            Availability::Offline { retry_at } if retry_at <= now.monotonic => return self.try_reopen(now, effects),
            Availability::Offline { .. } | Availability::Reopening => return,
            Availability::Online => {}
        }
        if due(self.interval_due) {
            self.interval_due = None;
            self.request_sync(effects);
        }
        if due(self.mark_due) {
            self.write_mark(now, effects);
        }
        if due(self.retention_due) {
            self.retain(now, effects);
        }
        if due(self.producer_sweep_due) {
            self.expire_producers(now);
        }
    }

    /// Removes the oldest segments that are expired, more than the size kept, or of no use to any queue.
    pub fn retain(&mut self, now: Now, effects: &mut Vec<DiskEffect>) {
        self.retention_due = None;
        if !self.is_online() || self.replication == Replication::Following {
            return;
        }
        self.start_seals(effects);
        let retention_ms = self.settings.retention_ms;
        let expired = move |max_timestamp: i64| match retention_ms {
            Some(keep) => max_timestamp >= 0 && now.wall_ms.saturating_sub(max_timestamp) > keep,
            None => false,
        };
        if self.active && self.segments.back().is_some_and(|s| s.length > 0 && expired(s.max_timestamp)) {
            self.close_active(effects);
            self.request_sync(effects);
        }
        let mut kept_bytes: u64 = self.segments.iter().map(|s| s.length).sum();
        while let Some(oldest) = self.segments.front() {
            let (base, end) = (oldest.base, oldest.base.plus(oldest.length));
            if oldest.seal != Seal::Done || end > self.watermark {
                break;
            }
            if self.compacting.in_flight {
                break;
            }
            let superfluous = self.settings.retention_bytes.is_some_and(|keep| kept_bytes - oldest.length >= keep);
            // Where records were compacted away, a segment without batches goes only once the log start is past it.
            let is_compacted = self.settings.compaction.is_some();
            let wants = |queue: &Queue| {
                let first = queue.entries.first();
                let begins_at = first.map_or(queue.next_offset, |e| e.base_offset);
                first.is_some_and(|e| e.position < end) || (is_compacted && queue.log_start < begins_at)
            };
            let wanted = || self.queues.iter().any(|(_, queue)| wants(queue));
            if !(expired(oldest.max_timestamp) || superfluous || !wanted()) {
                break;
            }
            kept_bytes -= oldest.length;
            self.remove_oldest(base, end, effects);
        }
        self.arm_deadlines(now, false);
    }

    /// Follower: removes what its leader has freed, whole segments below a position.
    pub fn free_below(&mut self, position: Position, effects: &mut Vec<DiskEffect>) {
        if !self.is_online() || position <= self.start {
            return;
        }
        let position = position.min(self.watermark);
        if self.active && self.segments.back().is_some_and(|s| s.length > 0 && s.base.plus(s.length) <= position) {
            self.close_active(effects);
            self.request_sync(effects);
        }
        self.start_seals(effects);
        while let Some(oldest) = self.segments.front() {
            let (base, end) = (oldest.base, oldest.base.plus(oldest.length));
            if oldest.seal != Seal::Done || end > position {
                break;
            }
            self.remove_oldest(base, end, effects);
        }
    }

    fn remove_oldest(&mut self, base: Position, end: Position, effects: &mut Vec<DiskEffect>) {
        self.segments.pop_front();
        self.start = end;
        self.epochs.forget_before(end);
        effects.push(DiskEffect::RemoveSegment { log: self.id, base });
        for (_, queue) in self.queues.iter_mut() {
            queue.entries.drop_below_position(end);
            let first = queue.entries.first().map_or(queue.next_offset, |e| e.base_offset);
            queue.log_start = queue.log_start.max(first);
        }
    }

    /// Forgets a queue. Its bytes go with retention; where it was the log's only queue, `remove` frees them at once.
    pub fn remove_queue(&mut self, queue: QueueId) {
        self.queues.remove(queue);
        self.removed.insert(queue);
    }

    /// Bytes of all segments.
    pub fn stored_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Removes the whole log with its files.
    pub fn remove(self, effects: &mut Vec<DiskEffect>) {
        effects.push(DiskEffect::RemoveLog { log: self.id });
    }

    /// Sets the deadlines of retention and of producer expiry where none is set.
    pub(super) fn arm_deadlines(&mut self, now: Now, has_producers: bool) {
        if has_producers && self.producer_sweep_due.is_none() {
            self.producer_sweep_due = Some(now.monotonic.saturating_add(self.producer_expiry()));
        }
        let retains = self.settings.retention_ms.is_some() || self.settings.retention_bytes.is_some();
        if retains && self.retention_due.is_none() && !self.segments.is_empty() {
            let by_age = self.settings.retention_ms.map(|keep| Duration::from_millis(keep.max(0) as u64) / 4);
            let wait = by_age.unwrap_or(RETENTION_CHECK_MAX).clamp(RETENTION_CHECK_MIN, RETENTION_CHECK_MAX);
            self.retention_due = Some(now.monotonic + wait);
        }
    }

    fn expire_producers(&mut self, now: Now) {
        let expiry = self.producer_expiry();
        let mut left = false;
        for (_, queue) in self.queues.iter_mut() {
            queue.producers.expire(now.monotonic, expiry);
            left |= queue.producers.count() > 0;
        }
        self.producer_sweep_due = left.then(|| now.monotonic.saturating_add(expiry));
    }
}
