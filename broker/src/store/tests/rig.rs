//! One log on a store, with everything asynchronous performed at once or held back: what the tests drive.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::disk::{Heard, MemoryDisk};
use crate::core::batch::{Batch, BatchProducer};
use crate::core::log::{
    AppendError, Appended, DiskEffect, DiskEvent, Flush, Log, LogSettings, Progress, ReadError, ReadFailure, ReadPiece,
};
use crate::core::types::{LeaderEpoch, LogId, Now, Offset, ProducerEpoch, ProducerId, QueueId, Ticket};
use crate::mutant::Mutant;
use crate::ports::{Disk, Observer};
use crate::store::{OpenError, Store, StoreSettings};

pub(super) const LOG: LogId = LogId(1);

pub(super) fn settings(flush: Flush) -> LogSettings {
    LogSettings {
        flush,
        segment_bytes: 2048,
        retention_ms: None,
        retention_bytes: None,
        compaction: None,
        producer_expiry: Duration::from_secs(3600),
        tail_cache_bytes: 1800,
    }
}

/// A batch of producer 5, with one record a timestamp.
pub(super) fn batch(base_sequence: i32, timestamps: &[i64], fill: u8) -> Batch {
    let producer = BatchProducer { id: ProducerId(5), epoch: ProducerEpoch(0), base_sequence };
    let value = Bytes::from(vec![fill; 20 + fill as usize]);
    Batch::of_records(producer, timestamps.iter().map(|t| (*t, &value)))
}

pub(super) struct Rig<D: Disk> {
    pub(super) store: Store<D, Heard>,
    pub(super) heard: Heard,
    pub(super) log: Log,
    pub(super) now: Now,
    /// Syncs, seals and the like that are not performed yet.
    pub(super) held: Vec<DiskEffect>,
    pub(super) progress: Vec<Progress>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadBack {
    Refused(ReadError),
    Failed(ReadFailure),
}

impl<D: Disk> Rig<D> {
    pub(super) async fn open(disk: D, settings: LogSettings, mutant: Option<Mutant>) -> Result<Rig<D>, OpenError> {
        let heard = Heard::default();
        let (store, mut node) =
            Store::open(disk, heard.clone(), mutant, StoreSettings { open_files_max: 2, preallocate_bytes: 4 << 10 })
                .await?;
        let now = Now { monotonic: Duration::from_secs(1), wall_ms: 1_000_000 };
        let log = match node.logs.remove(&LOG) {
            Some(recovered) => Log::recovered(settings, mutant, recovered, now),
            None => Log::new(LOG, settings, mutant),
        };
        Ok(Rig { store, heard, log, now, held: Vec::new(), progress: Vec::new() })
    }

    pub(super) fn append(&mut self, queue: u64, batch: Batch) -> Result<Appended, AppendError> {
        let mut effects = Vec::new();
        let appended = self.log.append(QueueId(queue), batch, LeaderEpoch(0), self.now, &mut effects);
        if self.log.settings().flush == Flush::Ack {
            self.log.request_sync(&mut effects);
        }
        self.take(effects);
        appended
    }

    /// Performs the inline effects and holds back the others.
    pub(super) fn take(&mut self, mut effects: Vec<DiskEffect>) {
        let events = self.store.perform(&mut effects);
        self.held.append(&mut effects);
        for event in events {
            self.report(event);
        }
    }

    /// Performs what was held back, and what follows from it.
    pub(super) async fn settle(&mut self) {
        while !self.held.is_empty() {
            self.settle_one().await;
        }
    }

    /// Performs the first of what was held back.
    pub(super) async fn settle_one(&mut self) {
        if !self.held.is_empty() {
            let effect = self.held.remove(0);
            let event = self.store.start(effect).await;
            self.report(event);
        }
    }

    pub(super) fn pass_time(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall_ms += time.as_millis() as i64;
        let mut effects = Vec::new();
        self.log.on_deadline(self.now, &mut effects);
        self.take(effects);
    }

    /// All batches of a queue from `offset` on, `bytes_max` at a time, in one piece.
    pub(super) async fn read_all(&mut self, queue: u64, offset: Offset, bytes_max: usize) -> Result<Bytes, ReadBack> {
        let (mut offset, mut all) = (offset, BytesMut::new());
        loop {
            let plan = self.log.read(QueueId(queue), offset, bytes_max, true).map_err(ReadBack::Refused)?;
            let before = all.len();
            for piece in plan.pieces {
                match piece {
                    ReadPiece::Cached(bytes) => all.extend_from_slice(&bytes),
                    ReadPiece::OnDisk(piece) => {
                        let (log, segment, at, length) = (piece.log, piece.segment, piece.at, piece.length);
                        let read = DiskEffect::Read { ticket: Ticket(1), log, segment, at, length };
                        let DiskEvent::Read { result, .. } = self.store.start(read).await else { panic!("not a read") };
                        let bytes = result.expect("the segment is there");
                        for batch in self.log.check_read(&piece, &bytes, bytes.len()).map_err(ReadBack::Failed)? {
                            all.extend_from_slice(&batch);
                        }
                    }
                }
            }
            assert_eq!(all.len() - before, plan.bytes, "a plan says how much it brings");
            if plan.next_offset == offset {
                return Ok(all.freeze());
            }
            offset = plan.next_offset;
        }
    }

    fn report(&mut self, event: DiskEvent) {
        if event.log() != Some(LOG) {
            return;
        }
        let mut effects = Vec::new();
        let progress = self.log.on_disk_event(event, self.now, &mut effects);
        self.progress.push(progress);
        self.take(effects);
    }
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    runtime.block_on(future)
}

pub(super) async fn open(disk: &MemoryDisk, flush: Flush, mutant: Option<Mutant>) -> Rig<MemoryDisk> {
    Rig::open(disk.clone(), settings(flush), mutant).await.expect("the folder opens")
}

/// An observer of nothing would do; this one checks that names are listed.
pub(super) fn heard<D: Disk>(rig: &Rig<D>, name: &'static str) -> u64 {
    fn is_observer(_: &impl Observer) {}
    is_observer(&rig.heard);
    rig.heard.0.borrow().get(name).copied().unwrap_or(0)
}
