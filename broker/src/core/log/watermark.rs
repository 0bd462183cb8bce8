//! The high watermark of a log, a position, and those of its queues, which follow from it.
//! A log that is alone confirms what counts; a replicated one is told by `raise_high_watermark` (`core::replica`).

use super::{Log, Progress, Queue, Replication};
use crate::core::types::{Now, Offset, Position, QueueId};

impl Log {
    /// Everything below is confirmed to clients, as far as this replica knows.
    pub fn watermark_position(&self) -> Position {
        self.watermark
    }

    /// How the log is replicated.
    pub fn replication(&self) -> Replication {
        self.replication
    }

    /// Changes how the log is replicated. What was confirmed stays so.
    pub fn set_replication(&mut self, replication: Replication, now: Now) -> Progress {
        self.replication = replication;
        if replication == Replication::Following {
            self.mark_due = None;
        }
        let mut progress = Progress::default();
        self.confirm(now, &mut progress);
        (progress.counted, progress.watermark) = (self.counted_position(), self.watermark);
        progress
    }

    /// After recovery of a log that has other replicas: what was found may never have been confirmed.
    pub fn unconfirm(&mut self) {
        self.set_watermark(self.start);
    }

    /// Takes everything below a position for confirmed, as far as it is here; never goes back.
    pub fn raise_high_watermark(&mut self, position: Position, now: Now) -> Progress {
        let mut progress = Progress::default();
        self.raise(position, now, &mut progress);
        (progress.counted, progress.watermark) = (self.counted_position(), self.watermark);
        progress
    }

    /// Confirms what counts, where the log is alone.
    pub(super) fn confirm(&mut self, now: Now, progress: &mut Progress) {
        match self.replication {
            Replication::Alone => self.raise(self.counted_position(), now, progress),
            Replication::Leading | Replication::Following => self.arm_mark(now),
        }
    }

    /// Puts the watermark anywhere within the log, and those of all queues.
    pub(super) fn set_watermark(&mut self, watermark: Position) {
        self.watermark = watermark;
        self.unconfirmed.clear();
        self.lagging.clear();
        self.lagging_below = self.end;
        for (id, queue) in self.queues.iter_mut() {
            queue.high_watermark = queue.confirmed_below(watermark);
            if queue.high_watermark < queue.next_offset {
                self.lagging.insert(id);
            }
        }
    }

    fn raise(&mut self, position: Position, now: Now, progress: &mut Progress) {
        let watermark = position.min(self.end);
        if watermark > self.watermark && self.is_online() {
            self.watermark = watermark;
            self.raise_lagging(progress);
            while self.unconfirmed.front().is_some_and(|u| u.end <= watermark) {
                let Some(confirmed) = self.unconfirmed.pop_front() else { break };
                if let Some(queue) = self.queues.get_mut(confirmed.queue) {
                    queue.high_watermark = confirmed.next_offset;
                    progress.advanced.push(confirmed.queue);
                }
            }
            progress.advanced.sort_unstable();
            progress.advanced.dedup();
        }
        self.arm_mark(now);
    }

    /// Raises queues that recovery left behind; once all are up, appends alone move watermarks.
    fn raise_lagging(&mut self, progress: &mut Progress) {
        let watermark = self.watermark;
        if self.lagging.is_empty() {
            return;
        }
        let queues = &mut self.queues;
        self.lagging.retain(|id: &QueueId| {
            let Some(queue) = queues.get_mut(*id) else { return false };
            let confirmed = queue.confirmed_below(watermark);
            if confirmed > queue.high_watermark {
                queue.high_watermark = confirmed;
                progress.advanced.push(*id);
            }
            confirmed < queue.next_offset
        });
        if watermark >= self.lagging_below {
            self.lagging.clear();
        }
    }
}

impl Queue {
    /// The offset below which every batch ends at or below a position.
    fn confirmed_below(&self, position: Position) -> Offset {
        let first = self.entries.ending_after(position).next().map_or(self.next_offset, |entry| entry.base_offset);
        first.max(self.log_start)
    }
}
