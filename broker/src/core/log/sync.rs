//! Durability: when a log asks for a sync, and what each report of the disk changes.
//! At most one sync is under way a log; whoever asks meanwhile is served by the next, all together (group commit).

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::frame::Frame;
use super::{Availability, DiskEffect, DiskEvent, Flush, Halt, Log, Progress, Recovered, Replication, Seal, Segment};
use crate::core::types::{LeaderEpoch, Now, Position};

/// How long a log whose disk was full waits before it looks again.
const REOPEN_BACKOFF: Duration = Duration::from_millis(500);
/// How long a log is idle before it writes a mark.
const MARK_IDLE: Duration = Duration::from_millis(100);

impl Log {
    /// Asks for everything appended so far to be made durable; does nothing where it is.
    pub fn request_sync(&mut self, effects: &mut Vec<DiskEffect>) {
        if !self.is_online() {
            return;
        }
        if let Some(upto) = self.sync_in_flight {
            self.sync_again |= upto < self.end;
            return;
        }
        if self.synced == self.end {
            return;
        }
        self.interval_due = None;
        self.sync_in_flight = Some(self.end);
        let segments = std::mem::take(&mut self.dirty).into_iter().collect();
        let directory = std::mem::take(&mut self.dirty_directory);
        effects.push(DiskEffect::Sync { log: self.id, upto: self.end, segments, directory });
    }

    /// Takes in what the disk reports.
    ///
    /// # Panics
    /// On an event of another log, and on reads and snapshots, which are the caller's.
    pub fn on_disk_event(&mut self, event: DiskEvent, now: Now, effects: &mut Vec<DiskEffect>) -> Progress {
        assert_eq!(event.log(), Some(self.id), "a log is given its own disk events");
        let mut progress = Progress::default();
        match event {
            DiskEvent::Written { upto, .. } => {
                assert!(upto <= self.end, "what was written had been appended");
                if self.is_online() {
                    self.written = self.written.max(upto);
                    self.confirm(now, &mut progress);
                }
            }
            DiskEvent::WriteFailed { kind, .. } => self.on_write_failed(kind, now, &mut progress),
            DiskEvent::Synced { upto, result, .. } => self.on_synced(upto, result, now, effects, &mut progress),
            DiskEvent::Sealed { segment, result, .. } => {
                let sealing = |s: &&mut Segment| s.base == segment && matches!(s.seal, Seal::InFlight(_));
                if let Some(found) = self.segments.iter_mut().find(sealing) {
                    let sealed = std::mem::replace(&mut found.seal, Seal::Done);
                    if let (Seal::InFlight(index), Err(_)) = (sealed, &result) {
                        // Tried again with the next sync or look at retention: a full disk may have room by then.
                        found.seal = Seal::Wanted(index);
                    }
                }
                if result.is_ok() && self.settings.retention_bytes.is_some() {
                    // Not only at the next look: who writes fast would fill the disk by then, and free it all at once.
                    // After a failure it would be sealed, and fail, at once again.
                    self.retain(now, effects);
                }
                self.start_rework(effects);
            }
            DiskEvent::RemoveFailed { .. } => {}
            DiskEvent::Compacted { compaction, .. } => self.on_compacted(*compaction, now, effects),
            DiskEvent::Reopened { result, .. } => self.on_reopened(result, now, &mut progress),
            DiskEvent::Read { .. } | DiskEvent::SnapshotWritten { .. } => {
                unreachable!("these events belong to no log, which was asserted above")
            }
        }
        (progress.counted, progress.watermark) = (self.counted_position(), self.watermark);
        progress
    }

    /// Writes a mark where the log has been idle long enough, and asks for its sync.
    pub(super) fn write_mark(&mut self, now: Now, effects: &mut Vec<DiskEffect>) {
        self.mark_due = None;
        let Some(epoch) = self.epoch_of_mark() else { return };
        if !self.is_online() || !self.active || self.synced != self.end {
            return;
        }
        let mark = Frame::mark(self.end, self.synced, epoch);
        let head = Bytes::copy_from_slice(&mark.encode(&[]));
        self.write_frame(&mark, head, Bytes::new(), now, effects);
        self.request_sync(effects);
    }

    /// The epoch in which this replica may write a mark: that in which it leads. In the epoch of the newest frame another
    /// replica may have a batch where the mark would stand, and nothing would tell the two apart. A log that is alone and
    /// has no leader's epoch goes on in that of its newest frame.
    fn epoch_of_mark(&self) -> Option<LeaderEpoch> {
        let newest = self.epochs.newest();
        match self.replication {
            Replication::Following => None,
            Replication::Leading => self.leader_epoch.filter(|epoch| *epoch >= newest),
            Replication::Alone => Some(self.leader_epoch.map_or(newest, |epoch| epoch.max(newest))),
        }
    }

    /// Starts recovery of a log that waits for room, unless a sync is still under way: its late success would be
    /// taken for that of the bytes written after the reopening.
    pub(super) fn try_reopen(&mut self, now: Now, effects: &mut Vec<DiskEffect>) {
        if self.sync_in_flight.is_some() || self.compacting.in_flight {
            self.availability = Availability::Offline { retry_at: now.monotonic + REOPEN_BACKOFF };
            return;
        }
        self.availability = Availability::Reopening;
        effects.push(DiskEffect::Reopen { log: self.id });
    }

    fn on_write_failed(&mut self, kind: io::ErrorKind, now: Now, progress: &mut Progress) {
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                progress.went_offline = self.is_online();
                self.availability = Availability::Offline { retry_at: now.monotonic + REOPEN_BACKOFF };
                self.rework = None;
                self.unconfirmed.clear();
                (self.interval_due, self.mark_due, self.sync_again) = (None, None, false);
            }
            _ => progress.halt = Some(Halt::WriteFailed { log: self.id, kind }),
        }
    }

    fn on_synced(
        &mut self,
        upto: Position,
        result: Result<(), io::ErrorKind>,
        now: Now,
        effects: &mut Vec<DiskEffect>,
        progress: &mut Progress,
    ) {
        assert_eq!(self.sync_in_flight, Some(upto), "one sync is under way a log");
        self.sync_in_flight = None;
        if !self.is_online() {
            // Success or not (a segment may not even exist, for want of room): reopening will write and sync again
            // whatever is not known to be durable.
            return self.start_rework(effects);
        }
        if let Err(kind) = result {
            progress.halt = Some(Halt::SyncFailed { log: self.id, kind });
            return;
        }
        assert!(upto <= self.written, "what is synced was written");
        self.synced = self.synced.max(upto);
        self.confirm(now, progress);
        self.start_seals(effects);
        if std::mem::take(&mut self.sync_again) {
            self.request_sync(effects);
        }
    }

    /// Writes the index files of closed segments that are durable.
    pub(super) fn start_seals(&mut self, effects: &mut Vec<DiskEffect>) {
        let (id, synced) = (self.id, self.synced);
        let closed = self.segments.len() - usize::from(self.active);
        for segment in self.segments.iter_mut().take(closed) {
            let Seal::Wanted(index) = &segment.seal else { continue };
            if segment.base.plus(segment.length) <= synced {
                let index = index.clone();
                segment.seal = Seal::InFlight(index.clone());
                effects.push(DiskEffect::Seal { log: id, segment: segment.base, index });
            }
        }
    }

    fn on_reopened(&mut self, result: Result<Box<Recovered>, io::ErrorKind>, now: Now, progress: &mut Progress) {
        match result {
            Ok(recovered) => {
                self.load(*recovered, now);
                progress.watermark = self.watermark;
                progress.came_online = true;
                progress.advanced = self.queues.ids().collect();
            }
            Err(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                self.availability = Availability::Offline { retry_at: now.monotonic + REOPEN_BACKOFF };
            }
            Err(kind) => progress.halt = Some(Halt::ReopenFailed { log: self.id, kind }),
        }
    }

    /// Notes when to write a mark: all batches are durable, and confirmed, so that every replica in sync has them too.
    pub(super) fn arm_mark(&mut self, now: Now) {
        let (whole, synced) = (self.batches_end, self.synced);
        let writes_marks = self.replication != Replication::Following && self.settings.flush == Flush::Ack;
        if writes_marks && self.active && synced == whole && self.watermark >= whole && self.end == whole {
            self.mark_due = Some(now.monotonic + MARK_IDLE);
        }
    }
}
