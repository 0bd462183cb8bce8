//! Index entries and the immutable index file of a sealed segment; its bytes are in `docs/log-format.md`.
//! Not here: when a segment is sealed (`append`) and how its index is used (`replay`).

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::compaction::{CleanedRange, Horizon};
use super::epochs::EpochStart;
use super::frame::FRAME_BYTES;
use super::producers::{BatchSeen, ProducerState, Producers, WINDOW_BATCHES, Window};
use crate::core::batch::crc32c;
use crate::core::types::{LeaderEpoch, Offset, Position, ProducerEpoch, ProducerId, QueueId};

const MAGIC: [u8; 4] = *b"MQIX";
const VERSION: u8 = 2;
const HEAD_BYTES: usize = 36;
const EPOCH_BYTES: usize = 12;
const CLEANED_BYTES: usize = 22;
const HORIZON_BYTES: usize = 16;
/// Bits of the byte behind the version.
const UNLISTED_FENCED: u8 = 1;
const CLEANED: u8 = 2;
const QUEUE_BYTES: usize = 33;
const ENTRY_BYTES: usize = 32;
const PRODUCER_BYTES: usize = 11;
const SEEN_BYTES: usize = 24;
const CRC_BYTES: usize = 4;

/// One batch of a queue: 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Position of its frame.
    pub position: Position,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Its largest timestamp, in milliseconds; -1 is none.
    pub max_timestamp: i64,
    /// Offset of its last record, relative to the first.
    pub last_offset_delta: u32,
    /// Bytes of the batch, its frame left out.
    pub size: u32,
}

impl IndexEntry {
    /// The position behind the batch.
    pub fn end(&self) -> Position {
        self.position.plus(FRAME_BYTES as u64 + u64::from(self.size))
    }

    /// The offset behind the batch.
    pub fn next_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta) + 1)
    }
}

/// What the head of an index file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexHead {
    pub(crate) base: Position,
    pub(crate) end: Position,
    /// Largest timestamp in the segment, in milliseconds; -1 is none.
    pub(crate) max_timestamp: i64,
    /// The epochs in force between base and end, oldest first; the first may have started before.
    pub(crate) epochs: Vec<EpochStart>,
    /// Queues that are not listed are fenced.
    pub(crate) unlisted_fenced: bool,
    /// What the segment stands for, where compaction wrote it.
    pub(crate) cleaned: Option<CleanedRange>,
    /// The passes of compaction before that, where compaction wrote it.
    pub(crate) horizons: Vec<Horizon>,
}

/// A queue in an index file, with its state at the segment's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexedQueue {
    pub(crate) queue: QueueId,
    pub(crate) next_offset: Offset,
    pub(crate) log_start: Offset,
    pub(crate) fenced: bool,
    /// Batches in this segment.
    pub(crate) entries: Vec<IndexEntry>,
    pub(crate) producers: Producers,
}

/// Encodes an index file, queue by queue in the order of their ids.
pub(crate) struct IndexWriter {
    bytes: BytesMut,
    queues: u32,
}

impl IndexWriter {
    pub(crate) fn new(head: IndexHead) -> IndexWriter {
        let mut bytes = BytesMut::with_capacity(4096);
        bytes.put_slice(&MAGIC);
        bytes.put_u8(VERSION);
        let unlisted = if head.unlisted_fenced { UNLISTED_FENCED } else { 0 };
        bytes.put_u8(unlisted | if head.cleaned.is_some() { CLEANED } else { 0 });
        let epochs = &head.epochs[head.epochs.len().saturating_sub(usize::from(u16::MAX))..];
        bytes.put_u16(epochs.len() as u16);
        bytes.put_u64(head.base.0);
        bytes.put_u64(head.end.0);
        bytes.put_i64(head.max_timestamp);
        bytes.put_u32(0);
        for start in epochs {
            bytes.put_i32(start.epoch.0);
            bytes.put_u64(start.start.0);
        }
        if let Some(range) = head.cleaned {
            bytes.put_u64(range.from.0);
            bytes.put_u64(range.to.0);
            bytes.put_u32(range.generation);
            bytes.put_u16(head.horizons.len() as u16);
            for horizon in &head.horizons {
                bytes.put_i64(horizon.below.0);
                bytes.put_i64(horizon.at_ms);
            }
        }
        IndexWriter { bytes, queues: 0 }
    }

    /// Adds a queue, of which `entries` are those in this segment.
    pub(crate) fn queue(&mut self, queue: QueueId, state: QueueState<'_>, entries: impl Iterator<Item = IndexEntry>) {
        self.queues += 1;
        let bytes = &mut self.bytes;
        bytes.put_u64(queue.0);
        bytes.put_i64(state.next_offset.0);
        bytes.put_i64(state.log_start.0);
        bytes.put_u8(u8::from(state.fenced));
        let count_at = bytes.len();
        bytes.put_u32(0);
        bytes.put_u32(state.producers.count() as u32);
        let mut count = 0u32;
        for entry in entries {
            count += 1;
            bytes.put_u64(entry.position.0);
            bytes.put_i64(entry.base_offset.0);
            bytes.put_i64(entry.max_timestamp);
            bytes.put_u32(entry.last_offset_delta);
            bytes.put_u32(entry.size);
        }
        bytes[count_at..count_at + 4].copy_from_slice(&count.to_be_bytes());
        for producer in state.producers.iter() {
            let window = producer.window.as_slice();
            bytes.put_i64(producer.id.0);
            bytes.put_i16(producer.epoch.0);
            bytes.put_u8(window.len() as u8);
            for seen in window {
                bytes.put_i32(seen.first_sequence);
                bytes.put_i32(seen.last_sequence);
                bytes.put_i64(seen.base_offset.0);
                bytes.put_u64(seen.end.0);
            }
        }
    }

    pub(crate) fn finish(mut self) -> Bytes {
        self.bytes[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&self.queues.to_be_bytes());
        let crc = crc32c(&[&self.bytes]);
        self.bytes.put_u32(crc);
        self.bytes.freeze()
    }
}

/// A queue's state as the index writer takes it.
pub(crate) struct QueueState<'a> {
    pub(crate) next_offset: Offset,
    pub(crate) log_start: Offset,
    pub(crate) fenced: bool,
    pub(crate) producers: &'a Producers,
}

/// Decodes an index file; none if it is not intact.
pub(crate) fn decode_index(bytes: &Bytes) -> Option<(IndexHead, Vec<IndexedQueue>)> {
    let body = bytes.len().checked_sub(CRC_BYTES).filter(|length| *length >= HEAD_BYTES)?;
    let mut rest = bytes.slice(..body);
    if bytes.slice(body..).get_u32() != crc32c(&[&rest]) || rest[..4] != MAGIC || rest[4] != VERSION {
        return None;
    }
    let flags = rest[5];
    rest.advance(6);
    let epochs_count = usize::from(rest.get_u16());
    let (base, end) = (Position(rest.get_u64()), Position(rest.get_u64()));
    let (max_timestamp, queues_count) = (rest.get_i64(), rest.get_u32());
    let rest = at_least(&mut rest, epochs_count * EPOCH_BYTES)?;
    let epochs = (0..epochs_count)
        .map(|_| EpochStart { epoch: LeaderEpoch(rest.get_i32()), start: Position(rest.get_u64()) })
        .collect();
    let (cleaned, horizons) = if flags & CLEANED == 0 { (None, Vec::new()) } else { decode_cleaned(rest)? };
    let unlisted_fenced = flags & UNLISTED_FENCED != 0;
    let head = IndexHead { base, end, max_timestamp, epochs, unlisted_fenced, cleaned, horizons };
    let mut queues = Vec::new();
    for _ in 0..queues_count {
        queues.push(decode_queue(rest)?);
    }
    rest.is_empty().then_some((head, queues))
}

fn decode_cleaned(rest: &mut Bytes) -> Option<(Option<CleanedRange>, Vec<Horizon>)> {
    let rest = at_least(rest, CLEANED_BYTES)?;
    let (from, to) = (Position(rest.get_u64()), Position(rest.get_u64()));
    let (generation, count) = (rest.get_u32(), usize::from(rest.get_u16()));
    let rest = at_least(rest, count * HORIZON_BYTES)?;
    let horizon = |_| Horizon { below: Offset(rest.get_i64()), at_ms: rest.get_i64() };
    let horizons = (0..count).map(horizon).collect();
    Some((Some(CleanedRange { from, to, generation }), horizons))
}

fn decode_queue(rest: &mut Bytes) -> Option<IndexedQueue> {
    let (queue, next_offset, log_start, fenced, entries_count, producers_count) =
        at_least(rest, QUEUE_BYTES).map(|rest| {
            let (queue, next, start) = (QueueId(rest.get_u64()), Offset(rest.get_i64()), Offset(rest.get_i64()));
            (queue, next, start, rest.get_u8() != 0, rest.get_u32() as usize, rest.get_u32())
        })?;
    at_least(rest, entries_count.checked_mul(ENTRY_BYTES)?)?;
    let mut entries = Vec::with_capacity(entries_count);
    for _ in 0..entries_count {
        entries.push(IndexEntry {
            position: Position(rest.get_u64()),
            base_offset: Offset(rest.get_i64()),
            max_timestamp: rest.get_i64(),
            last_offset_delta: rest.get_u32(),
            size: rest.get_u32(),
        });
    }
    let mut producers = Producers::default();
    for _ in 0..producers_count {
        let rest = at_least(rest, PRODUCER_BYTES)?;
        let (id, epoch, count) = (ProducerId(rest.get_i64()), ProducerEpoch(rest.get_i16()), rest.get_u8() as usize);
        if count == 0 || count > WINDOW_BATCHES {
            return None;
        }
        at_least(rest, count * SEEN_BYTES)?;
        let mut window = Window::default();
        for _ in 0..count {
            window.push(BatchSeen {
                first_sequence: rest.get_i32(),
                last_sequence: rest.get_i32(),
                base_offset: Offset(rest.get_i64()),
                end: Position(rest.get_u64()),
            });
        }
        producers.insert(ProducerState { id, epoch, window, active_last: Duration::ZERO });
    }
    Some(IndexedQueue { queue, next_offset, log_start, fenced, entries, producers })
}

fn at_least(rest: &mut Bytes, bytes: usize) -> Option<&mut Bytes> {
    (rest.len() >= bytes).then_some(rest)
}
