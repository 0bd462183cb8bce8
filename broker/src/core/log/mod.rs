//! One log: append, counted position, reads, retention, producers. Pure: time comes in, effects go out.
//! Start at `Log::append` here and `Log::on_disk_event` in `sync`. Bytes are in `docs/log-format.md`.
//! `copy` is what replicas need, `watermark` what is confirmed. Not here: performing effects and finding what is on
//! disk (`store`), and who leads, follows and votes (`core::replica`).
//! A log's turn: any number of appends, then one `request_sync` under `flush=ack`; the store performs the effects in
//! order, and what it reports comes back through `on_disk_event`. Nothing is confirmed in the turn that appended it.

mod answer;
mod cache;
pub(crate) mod cleaner;
mod compaction;
mod copy;
mod dump;
mod effect;
mod entries;
mod epochs;
pub(crate) mod frame;
pub(crate) mod index;
pub(crate) mod producers;
mod queues;
mod read;
mod recovered;
pub(crate) mod replay;
mod retention;
mod sync;
mod watermark;

pub use answer::{AppendError, Appended, DiskPiece, ReadError, ReadFailure, ReadPiece, ReadPlan, TimestampLookup};
pub use compaction::{
    CleanedRange, CleanedSegment, Compaction, CompactionPlan, CompactionSettings, Horizon, PlannedSegment,
};
pub use copy::{CopyError, FramePiece, FramesFailure, FramesPlan};
pub use dump::{BatchDump, LogDump, ProducerDump, QueueDump};
pub use effect::{DiskEffect, DiskEvent, Flush, Halt, LogSettings, Progress};
pub use entries::Entries;
pub use epochs::{EpochStart, Epochs};
pub use index::IndexEntry;
pub use recovered::{Recovered, RecoveredQueue, RecoveredSegment, RecoveryReport};

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::batch::{Batch, BatchHeader, UNCOVERED_BYTES};
use super::types::{LeaderEpoch, LogId, Now, Offset, Position, QueueId};
use crate::mutant::Mutant;
use cache::TailCache;
use compaction::Compacting;
use frame::{FRAME_BYTES, Frame, FrameKind};
use index::{IndexHead, IndexWriter, QueueState};
use producers::Producers;
use queues::Queues;

/// Bodies of batches up to this many bytes are copied behind their frames.
const COPIED_BYTES_MAX: usize = 16 << 10;
/// Frames up to this many bytes, with their batches, share a piece of memory. Longer ones may stay in an answer that is not
/// sent, and would hold all of the piece.
const SHARING_BYTES_MAX: usize = 1 << 10;
/// The size of such a piece, within this part of what the cache may hold.
const PIECE_BYTES_MAX: usize = 16 << 10;
const PIECE_PART: usize = 16;
/// How long the P3 mutant remembers an idle producer.
const MUTANT_EXPIRY: Duration = Duration::from_millis(200);

/// One log.
#[derive(Debug)]
pub struct Log {
    id: LogId,
    settings: LogSettings,
    mutant: Option<Mutant>,
    epochs: Epochs,
    replication: Replication,
    /// The epoch in which this process leads the log.
    leader_epoch: Option<LeaderEpoch>,
    /// Where the first corrupt bytes that were found begin.
    corrupt_from: Option<Position>,
    /// How often the log has been loaded; a read of before is not this log's.
    opening: u32,
    /// Everything below was freed.
    start: Position,
    /// Where the next frame goes; synced <= written <= end.
    end: Position,
    /// Everything below has been written.
    written: Position,
    /// Everything below is durable.
    synced: Position,
    /// Where the newest batch ends; behind it there are only marks.
    batches_end: Position,
    /// Everything below is confirmed to clients; start <= watermark <= end.
    watermark: Position,
    /// Queues of which recovery found batches above the watermark.
    lagging: BTreeSet<QueueId>,
    /// Batches above this were appended since, and are in `unconfirmed`.
    lagging_below: Position,
    /// Oldest first, each beginning where the one before ends.
    segments: VecDeque<Segment>,
    /// Whether the last segment takes frames.
    active: bool,
    queues: Queues,
    /// Queues removed since the start: a reopening must not bring them back.
    removed: BTreeSet<QueueId>,
    unlisted_fenced: bool,
    /// Appends above the watermark, in order.
    unconfirmed: VecDeque<Unconfirmed>,
    cache: TailCache,
    /// What is left of the memory that small frames share.
    piece: BytesMut,
    /// Segments written to since the last sync was asked for, and whether one was created.
    dirty: BTreeSet<Position>,
    dirty_directory: bool,
    /// The sync under way, up to where it reaches, and whether another was asked for meanwhile.
    sync_in_flight: Option<Position>,
    sync_again: bool,
    availability: Availability,
    /// What is to be done to the files before the log serves again, once no sync and no index is under way.
    rework: Option<Rework>,
    compacting: Compacting,
    /// When the bytes that are not synced must be (`flush=interval`).
    interval_due: Option<Duration>,
    /// When to write a mark.
    mark_due: Option<Duration>,
    retention_due: Option<Duration>,
    producer_sweep_due: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Availability {
    Online,
    /// Waits until there may be room again.
    Offline {
        retry_at: Duration,
    },
    /// Recovery is under way.
    Reopening,
}

/// A change of a log's files that recovery follows on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rework {
    /// Everything from this position on goes.
    Cut(Position),
    /// Everything goes, and the log begins anew behind this carrier.
    Restart(Bytes),
}

/// How a log is replicated, and so who says what is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// It is the only replica: what counts here is confirmed.
    Alone,
    /// Other replicas copy it: what is confirmed is said by `raise_high_watermark`.
    Leading,
    /// It is copied from a leader, who also says what is confirmed and what is freed.
    Following,
}

#[derive(Debug)]
struct Segment {
    base: Position,
    length: u64,
    /// Largest timestamp of its batches, in milliseconds; -1 is none.
    max_timestamp: i64,
    seal: Seal,
    /// Where it took the place of others: all that it stands for.
    cleaned: Option<CleanedRange>,
}

#[derive(Debug, PartialEq, Eq)]
enum Seal {
    /// Still active, or without index since a recovery that could not write one.
    Open,
    /// To be sealed with this index once the segment is durable.
    Wanted(Bytes),
    InFlight(Bytes),
    Done,
}

#[derive(Debug, Default)]
struct Queue {
    /// Batches by offset; none lies wholly below the log start.
    entries: Entries,
    /// log_start <= high_watermark <= next_offset.
    next_offset: Offset,
    high_watermark: Offset,
    log_start: Offset,
    fenced: bool,
    producers: Producers,
}

#[derive(Debug)]
struct Unconfirmed {
    end: Position,
    queue: QueueId,
    next_offset: Offset,
}

impl Log {
    /// A log of which there is nothing on disk.
    pub fn new(id: LogId, settings: LogSettings, mutant: Option<Mutant>) -> Log {
        Log::recovered(settings, mutant, Recovered::empty(id), Now::default())
    }

    /// A log as recovery found it; all of it counts, and all of it is confirmed where nobody calls `unconfirm`.
    pub fn recovered(settings: LogSettings, mutant: Option<Mutant>, recovered: Recovered, now: Now) -> Log {
        let cache = TailCache::new(settings.tail_cache_bytes);
        let mut log = Log {
            id: recovered.log,
            settings,
            mutant,
            epochs: Epochs::default(),
            replication: Replication::Alone,
            leader_epoch: None,
            corrupt_from: None,
            opening: 0,
            start: recovered.start,
            end: recovered.end,
            written: recovered.end,
            synced: recovered.end,
            batches_end: recovered.end,
            watermark: recovered.end,
            lagging: BTreeSet::new(),
            lagging_below: recovered.end,
            segments: VecDeque::new(),
            active: false,
            queues: Queues::default(),
            removed: BTreeSet::new(),
            unlisted_fenced: false,
            unconfirmed: VecDeque::new(),
            cache,
            piece: BytesMut::new(),
            dirty: BTreeSet::new(),
            dirty_directory: false,
            sync_in_flight: None,
            sync_again: false,
            availability: Availability::Online,
            rework: None,
            compacting: Compacting::default(),
            interval_due: None,
            mark_due: None,
            retention_due: None,
            producer_sweep_due: None,
        };
        log.load(recovered, now);
        log
    }

    /// The log's id.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The log's settings.
    pub fn settings(&self) -> &LogSettings {
        &self.settings
    }

    /// Changes the settings; they hold from the next append on.
    pub fn set_settings(&mut self, settings: LogSettings) {
        self.settings = settings;
    }

    /// Whether appends are taken: not while the log waits for room on its disk.
    pub fn is_online(&self) -> bool {
        self.availability == Availability::Online
    }

    /// Gives the batch its offsets and writes it behind the log's end, in the leader's epoch.
    /// Under `flush=ack` call `request_sync` once a turn, after the turn's appends.
    ///
    /// # Panics
    /// On an epoch below that of the newest frame: who leads has a greater one.
    pub fn append(
        &mut self,
        queue: QueueId,
        batch: Batch,
        epoch: LeaderEpoch,
        now: Now,
        effects: &mut Vec<DiskEffect>,
    ) -> Result<Appended, AppendError> {
        assert!(epoch >= self.epochs.newest(), "epochs rise along a log");
        if !self.is_online() {
            return Err(AppendError::Offline);
        }
        let bytes = (FRAME_BYTES + batch.bytes.len()) as u64;
        let segment_bytes = self.settings.segment_bytes;
        if bytes > segment_bytes {
            return Err(AppendError::TooLarge { bytes, segment_bytes });
        }
        let expiry = self.producer_expiry();
        let base_offset = match self.queues.get_mut(queue) {
            Some(state) if state.fenced => return Err(AppendError::QueueFenced),
            None if self.unlisted_fenced => return Err(AppendError::QueueFenced),
            Some(state) => {
                state.producers.check(&batch.header, now.monotonic, expiry)?;
                state.next_offset
            }
            None => Offset(0),
        };
        let position = self.end;
        let uncovered = batch.uncovered(base_offset, epoch);
        let (kind, length) = (FrameKind::Batch, batch.bytes.len() as u32);
        let frame = Frame { kind, length, position, queue, synced: self.synced, epoch };
        let body = batch.bytes.slice(UNCOVERED_BYTES..);
        // A small batch is copied: that costs less than to write and keep it in two pieces, and it does not hold on to
        // the buffer that it was received in.
        let (copied, body) = if body.len() <= COPIED_BYTES_MAX { (body, Bytes::new()) } else { (Bytes::new(), body) };
        let mut head = self.room_for(FRAME_BYTES + UNCOVERED_BYTES + copied.len());
        head.put_slice(&frame.encode(&uncovered));
        head.put_slice(&uncovered);
        head.put_slice(&copied);
        self.write_frame(&frame, head.freeze(), body, now, effects);
        self.index_batch(&frame, &batch.header, base_offset, now);
        self.arm_deadlines(now, !batch.header.producer_id.is_none());
        Ok(Appended { base_offset, end: self.end })
    }

    /// Queues that ever held a batch and were not removed.
    pub fn queues(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.queues.ids()
    }

    /// Whether corruption was found in the queue, or may have swallowed it.
    pub fn is_fenced(&self, queue: QueueId) -> bool {
        match self.queues.get(queue) {
            Some(state) => state.fenced,
            None => self.unlisted_fenced,
        }
    }

    /// Everything below counts on this replica: durable under `flush=ack`, written otherwise.
    pub fn counted_position(&self) -> Position {
        match self.settings.flush {
            Flush::Ack if self.mutant == Some(Mutant::AckBeforeSync) => self.written,
            Flush::Ack => self.synced,
            Flush::Interval { .. } | Flush::Os => self.written,
        }
    }

    /// The epoch in which this process leads the log; none where it does not, or nobody told.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.leader_epoch
    }

    /// Says whether this process leads the log, and in which epoch.
    pub fn set_leader_epoch(&mut self, epoch: Option<LeaderEpoch>) {
        self.leader_epoch = epoch;
    }

    /// Where the first corrupt bytes that were found begin.
    pub fn corrupt_from(&self) -> Option<Position> {
        self.corrupt_from
    }

    /// Remembers that the bytes at a position are not what was written.
    pub fn note_corruption(&mut self, position: Position) {
        self.corrupt_from = Some(self.corrupt_from.map_or(position, |known| known.min(position)));
    }

    /// Where the log begins: below, everything has been freed.
    pub fn start_position(&self) -> Position {
        self.start
    }

    /// The epochs of its frames.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Where the next frame goes.
    pub fn end_position(&self) -> Position {
        self.end
    }

    /// Consumers read below it; the last stable offset too. 0 for a queue that never held a batch.
    pub fn high_watermark(&self, queue: QueueId) -> Offset {
        self.queues.get(queue).map_or(Offset(0), |q| q.high_watermark)
    }

    /// The offset that the queue's next record gets.
    pub fn log_end_offset(&self, queue: QueueId) -> Offset {
        self.queues.get(queue).map_or(Offset(0), |q| q.next_offset)
    }

    /// The queue's first offset.
    pub fn log_start_offset(&self, queue: QueueId) -> Offset {
        self.queues.get(queue).map_or(Offset(0), |q| q.log_start)
    }

    /// An empty buffer for a frame of so many bytes.
    fn room_for(&mut self, bytes: usize) -> BytesMut {
        let piece_bytes = PIECE_BYTES_MAX.min(self.settings.tail_cache_bytes / PIECE_PART);
        if bytes > SHARING_BYTES_MAX.min(piece_bytes) {
            return BytesMut::with_capacity(bytes);
        }
        if self.piece.capacity() < bytes {
            self.piece = BytesMut::with_capacity(piece_bytes);
        }
        let behind = self.piece.split_off(bytes);
        std::mem::replace(&mut self.piece, behind)
    }

    /// Writes a frame at the end, rolling first where the active segment is full.
    /// `head` are the frame's bytes and the batch's first 21, `body` the rest.
    fn write_frame(&mut self, frame: &Frame, head: Bytes, body: Bytes, now: Now, effects: &mut Vec<DiskEffect>) {
        assert_eq!(frame.position, self.end, "a frame stands where it says");
        let total = frame.total_bytes();
        let full = |s: &Segment| s.length + total > self.settings.segment_bytes;
        if self.active && frame.kind == FrameKind::Batch && self.segments.back().is_some_and(full) {
            self.close_active(effects);
        }
        if !self.active {
            let base = self.end;
            self.segments.push_back(Segment { base, length: 0, max_timestamp: -1, seal: Seal::Open, cleaned: None });
            self.active = true;
            self.dirty_directory = true;
            effects.push(DiskEffect::CreateSegment { log: self.id, base });
        }
        self.epochs.start(frame.epoch, frame.position);
        // The defect (Ra 2.15.2) goes on: what is in memory already is not replaced by what is written anew.
        let is_stale = self.mutant == Some(Mutant::CacheOutlivesCut)
            && self.cache.newest().is_some_and(|newest| newest >= frame.position);
        if !is_stale {
            self.cache.push(frame.position, head.clone(), body.clone());
        }
        let segment = self.segments.back_mut().expect("there is an active segment");
        let (base, at) = (segment.base, segment.length);
        assert_eq!(base.plus(at), frame.position, "segments have no gaps");
        segment.length += total;
        self.end = frame.position.plus(total);
        self.dirty.insert(base);
        if let (Flush::Interval { every }, None) = (self.settings.flush, self.interval_due) {
            self.interval_due = Some(now.monotonic + every);
        }
        let parts = if body.is_empty() { vec![head] } else { vec![head, body] };
        effects.push(DiskEffect::Write { log: self.id, segment: base, at, parts });
    }

    /// Takes a batch that was just written into its queue.
    fn index_batch(&mut self, frame: &Frame, header: &BatchHeader, base_offset: Offset, now: Now) {
        let (queue, end) = (frame.queue, self.end);
        let segment = self.segments.back_mut().expect("a frame was just written into the last segment");
        segment.max_timestamp = segment.max_timestamp.max(header.max_timestamp);
        let next_offset = base_offset.plus(i64::from(header.last_offset_delta) + 1);
        let state = self.queues.get_or_default(queue);
        state.entries.push(IndexEntry {
            position: frame.position,
            base_offset,
            max_timestamp: header.max_timestamp,
            last_offset_delta: header.last_offset_delta as u32,
            size: frame.length,
        });
        state.next_offset = next_offset;
        state.producers.record(header, base_offset, end, now.monotonic);
        self.removed.remove(&queue);
        self.unconfirmed.push_back(Unconfirmed { end, queue, next_offset });
        self.batches_end = end;
        self.mark_due = None;
    }

    /// Ends the active segment: it is synced, then sealed with the state of all queues as it is now.
    fn close_active(&mut self, effects: &mut Vec<DiskEffect>) {
        assert!(self.active, "only an active segment is closed");
        let segment = self.segments.back().expect("an active log has a segment");
        let (base, end) = (segment.base, segment.base.plus(segment.length));
        let mut writer = IndexWriter::new(IndexHead {
            base,
            end,
            max_timestamp: segment.max_timestamp,
            epochs: self.epochs.between(base, end),
            unlisted_fenced: self.unlisted_fenced,
            cleaned: None,
            horizons: Vec::new(),
        });
        for (id, queue) in self.queues.iter() {
            let (next_offset, log_start, fenced) = (queue.next_offset, queue.log_start, queue.fenced);
            let state = QueueState { next_offset, log_start, fenced, producers: &queue.producers };
            writer.queue(id, state, queue.entries.since_position(base));
        }
        self.segments.back_mut().expect("an active log has a segment").seal = Seal::Wanted(writer.finish());
        self.active = false;
        match self.settings.flush {
            Flush::Ack => {}
            Flush::Interval { .. } | Flush::Os => self.request_sync(effects),
        }
        self.start_seals(effects);
    }

    fn producer_expiry(&self) -> Duration {
        match self.mutant {
            Some(Mutant::ProducerExpiresEarly) => MUTANT_EXPIRY,
            Some(_) | None => self.settings.producer_expiry,
        }
    }

    /// Takes over what recovery found, in place of whatever was there; log starts never move back.
    fn load(&mut self, recovered: Recovered, now: Now) {
        assert_eq!(recovered.log, self.id, "a log is recovered from its own files");
        // The defect (KAFKA-10706): epochs of frames that were cut are still known.
        if self.mutant != Some(Mutant::EpochsOutliveCut) || recovered.epochs.newest() > self.epochs.newest() {
            self.epochs = recovered.epochs;
        }
        self.opening += 1;
        self.corrupt_from = recovered.corrupt_from;
        (self.start, self.end) = (recovered.start, recovered.end);
        (self.written, self.synced, self.batches_end) = (recovered.end, recovered.end, recovered.end);
        self.active = recovered.segments.last().is_some_and(|s| !s.sealed);
        let open_or_sealed = |s: RecoveredSegment| Segment {
            base: s.base,
            length: s.length,
            max_timestamp: s.max_timestamp,
            seal: if s.sealed { Seal::Done } else { Seal::Open },
            cleaned: s.cleaned,
        };
        self.segments = recovered.segments.into_iter().map(open_or_sealed).collect();
        self.unlisted_fenced = recovered.unlisted_fenced;
        let attempted_below = recovered.horizons.last().map_or(Offset(0), |horizon| horizon.below);
        self.compacting = Compacting { horizons: recovered.horizons, attempted_below, ..Compacting::default() };
        let before = std::mem::take(&mut self.queues);
        for (id, found) in recovered.queues {
            if self.removed.contains(&id) {
                continue;
            }
            let mut producers = found.producers;
            producers.touch(now.monotonic);
            let next_offset = found.next_offset;
            let mut queue = Queue {
                entries: found.entries,
                next_offset,
                high_watermark: next_offset,
                log_start: found.log_start,
                fenced: found.fenced,
                producers,
            };
            if let Some(before) = before.get(id) {
                queue.advance_log_start(before.log_start.min(next_offset));
            }
            self.queues.insert(id, queue);
        }
        // The defect (Ra 2.15.2): what was cut is still served from memory.
        if self.mutant != Some(Mutant::CacheOutlivesCut) {
            self.cache.clear();
        }
        self.dirty.clear();
        (self.dirty_directory, self.sync_again) = (false, false);
        (self.availability, self.rework) = (Availability::Online, None);
        let watermark = match self.replication {
            Replication::Alone => self.end,
            Replication::Leading | Replication::Following => self.watermark.clamp(self.start, self.end),
        };
        self.set_watermark(watermark);
        (self.interval_due, self.mark_due) = (None, None);
        let has_producers = self.queues.iter().any(|(_, q)| q.producers.count() > 0);
        self.arm_deadlines(now, has_producers);
    }
}

impl Queue {
    /// Whether nothing was ever appended to it.
    fn is_new(&self) -> bool {
        self.next_offset == Offset(0) && self.entries.is_empty()
    }

    /// Moves the log start forward and forgets batches wholly below it.
    fn advance_log_start(&mut self, offset: Offset) {
        self.log_start = self.log_start.max(offset);
        self.entries.drop_below(self.log_start);
    }
}
