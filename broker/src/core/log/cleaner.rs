//! What compaction keeps of a log: pure, driven by `store`, which reads and writes the files. A first pass over what was
//! never compacted notes the newest offset of each key, a second over everything keeps what no later record supersedes.
//! Not here: when a log is compacted (`compaction`).
//! Departures from Kafka: keys are kept whole, not as hashes, so no two are ever taken for one; when a tombstone may go
//! is remembered per pass in the index (`Horizon`), not in the batches.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::compaction::CompactionPlan;
use super::epochs::EpochStart;
use super::frame::{Frame, FrameKind};
use super::index::IndexEntry;
use crate::core::batch::{BatchError, BatchHeader, UNCOVERED_BYTES};
use crate::core::records::{RecordSlice, slices, with_records};
use crate::core::types::{LeaderEpoch, Offset, Position, QueueId};
use crate::mutant::Mutant;

/// What an entry of the key map costs beside the key.
const ENTRY_BYTES: usize = 96;

/// The newest offset of each key, within bounds.
#[derive(Debug)]
pub(crate) struct Cleaner {
    latest: BTreeMap<Bytes, Offset>,
    bytes: usize,
    bytes_max: usize,
    clean_below: Offset,
    /// Everything below is in the map, or was when it was compacted.
    covered_below: Offset,
    is_full: bool,
    /// A batch was passed whose records take no part: those of transactions, and markers.
    has_apart: bool,
    log_start: Offset,
    tombstones_below: Offset,
}

/// What is left of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of it.
    Whole,
    /// Some records, in this batch.
    Part(Bytes),
    /// Nothing.
    Nothing,
}

impl Cleaner {
    pub(crate) fn new(plan: &CompactionPlan, mutant: Option<Mutant>) -> Cleaner {
        // The defect (KAFKA-4529): a tombstone is taken for old at once.
        let is_hasty = mutant == Some(Mutant::TombstoneDroppedEarly);
        Cleaner {
            latest: BTreeMap::new(),
            bytes: 0,
            bytes_max: plan.key_map_bytes_max,
            clean_below: plan.clean_below,
            covered_below: plan.clean_below,
            is_full: false,
            has_apart: false,
            log_start: plan.log_start,
            tombstones_below: if is_hasty { Offset(i64::MAX) } else { plan.tombstones_below },
        }
    }

    /// First pass: takes a batch into the map; false once the map is full, and this batch is not in it.
    pub(crate) fn note(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<bool, BatchError> {
        if self.is_full || header.next_offset() <= self.clean_below {
            return Ok(!self.is_full);
        }
        if is_apart(header) {
            self.has_apart = true;
        } else {
            let keyed = slices(header, batch)?.into_iter().filter_map(|record| Some((record.key?, record.offset)));
            let keyed: Vec<(Bytes, Offset)> = keyed.collect();
            let more: usize = keyed.iter().map(|(key, _)| key.len() + ENTRY_BYTES).sum();
            if self.bytes + more > self.bytes_max && !self.latest.is_empty() {
                self.is_full = true;
                return Ok(false);
            }
            for (key, offset) in keyed {
                match self.latest.get_mut(&key) {
                    Some(latest) => *latest = offset,
                    None => {
                        self.bytes += key.len() + ENTRY_BYTES;
                        // A copy: a slice would hold on to all that was read with it.
                        self.latest.insert(Bytes::copy_from_slice(&key), offset);
                    }
                }
            }
        }
        self.covered_below = header.next_offset();
        Ok(true)
    }

    /// Second pass: what is left of a batch.
    pub(crate) fn keep(&self, header: &BatchHeader, batch: &Bytes) -> Result<Kept, BatchError> {
        if is_apart(header) || header.base_offset >= self.covered_below {
            return Ok(Kept::Whole);
        }
        let all = slices(header, batch)?;
        let count = all.len();
        let kept: Vec<RecordSlice> = all.into_iter().filter(|record| self.keeps(record)).collect();
        if kept.len() == count {
            return Ok(Kept::Whole);
        }
        if kept.is_empty() { Ok(Kept::Nothing) } else { with_records(header, batch, &kept).map(Kept::Part) }
    }

    fn keeps(&self, record: &RecordSlice) -> bool {
        if record.offset < self.log_start {
            return false;
        }
        // As in Kafka, a record without key has no place in a compacted log; produce refuses it.
        let Some(key) = &record.key else { return false };
        let is_superseded = self.latest.get(key).is_some_and(|latest| *latest > record.offset);
        let is_over = record.is_tombstone && record.offset < self.tombstones_below;
        !is_superseded && !is_over
    }

    /// Everything below was compared.
    pub(crate) fn covered_below(&self) -> Offset {
        self.covered_below
    }

    /// Whether records took no part, so that older values of a key may be left before its tombstone.
    pub(crate) fn has_apart(&self) -> bool {
        self.has_apart
    }
}

/// Whether a batch's records may not supersede others: nobody knows here whether their transaction was aborted.
fn is_apart(header: &BatchHeader) -> bool {
    header.is_transactional() || header.is_control()
}

/// The frames of a segment that takes the place of others.
#[derive(Debug)]
pub(crate) struct CleanedFrames {
    base: Position,
    end: Position,
    /// Where the next segment begins.
    range_to: Position,
    queue: QueueId,
    out: BytesMut,
    pub(crate) entries: Vec<IndexEntry>,
    pub(crate) epochs: Vec<EpochStart>,
    pub(crate) max_timestamp: i64,
}

impl CleanedFrames {
    pub(crate) fn new(base: Position, range_to: Position, queue: QueueId) -> CleanedFrames {
        let (out, entries, epochs) = (BytesMut::new(), Vec::new(), Vec::new());
        CleanedFrames { base, end: base, range_to, queue, out, entries, epochs, max_timestamp: -1 }
    }

    /// Adds a batch in the epoch of its frame; false where the place does not suffice.
    pub(crate) fn push(&mut self, batch: &Bytes, epoch: LeaderEpoch) -> bool {
        let header = BatchHeader::decode(batch).expect("an intact batch has a header");
        let (kind, length) = (FrameKind::Cleaned, batch.len() as u32);
        let frame = Frame { kind, length, position: self.end, queue: self.queue, synced: self.range_to, epoch };
        let end = self.end.plus(frame.total_bytes());
        if end > self.range_to {
            return false;
        }
        self.out.extend_from_slice(&frame.encode(&batch[..UNCOVERED_BYTES]));
        self.out.extend_from_slice(batch);
        self.entries.push(IndexEntry {
            position: self.end,
            base_offset: header.base_offset,
            max_timestamp: header.max_timestamp,
            last_offset_delta: header.last_offset_delta as u32,
            size: length,
        });
        if self.epochs.last().is_none_or(|known| epoch > known.epoch) {
            self.epochs.push(EpochStart { epoch, start: self.end });
        }
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        self.end = end;
        true
    }

    /// Bytes that are ready, once they are at least `least`, and where in the file they go.
    pub(crate) fn take(&mut self, least: usize) -> Option<(u64, Bytes)> {
        if self.out.is_empty() || self.out.len() < least {
            return None;
        }
        let at = self.length() - self.out.len() as u64;
        Some((at, self.out.split().freeze()))
    }

    pub(crate) fn length(&self) -> u64 {
        self.end.0 - self.base.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::batch::Batch;

    fn plan(clean_below: i64, tombstones_below: i64, key_map_bytes_max: usize) -> CompactionPlan {
        CompactionPlan {
            queue: QueueId(1),
            segments: Vec::new(),
            segment_bytes: 1 << 20,
            clean_below: Offset(clean_below),
            tombstones_below: Offset(tombstones_below),
            log_start: Offset(0),
            horizons: Vec::new(),
            key_map_bytes_max,
        }
    }

    /// A batch of single letters, upper case deleting its key, at an offset.
    fn batch(letters: &str, base_offset: i64) -> (BatchHeader, Bytes) {
        let records: Vec<_> = letters
            .chars()
            .map(|c| {
                (Bytes::from(c.to_ascii_lowercase().to_string()), c.is_lowercase().then(|| Bytes::from_static(b"v")))
            })
            .collect();
        let batch = Batch::of_keyed(&records, 5);
        let mut bytes = BytesMut::from(&batch.bytes[..]);
        bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
        let bytes = bytes.freeze();
        (BatchHeader::decode(&bytes).expect("a header"), bytes)
    }

    fn kept(cleaner: &Cleaner, (header, bytes): &(BatchHeader, Bytes)) -> String {
        let bytes = match cleaner.keep(header, bytes).expect("readable") {
            Kept::Whole => bytes.clone(),
            Kept::Part(bytes) => bytes,
            Kept::Nothing => return String::new(),
        };
        let header = BatchHeader::decode(&bytes).expect("a header");
        let letter = |record: RecordSlice| {
            let key = String::from_utf8(record.key.expect("a key").to_vec()).expect("text");
            if record.is_tombstone { key.to_uppercase() } else { key }
        };
        slices(&header, &bytes).expect("readable").into_iter().map(letter).collect()
    }

    #[test]
    fn the_newest_record_of_a_key_stays_and_tombstones_as_long_as_they_must() {
        let all = [batch("abcb", 0), batch("aC", 4), batch("dA", 6)];
        let cleaned = |tombstones_below| {
            let mut cleaner = Cleaner::new(&plan(0, tombstones_below, 1 << 20), None);
            all.iter().for_each(|(header, bytes)| assert_eq!(cleaner.note(header, bytes), Ok(true)));
            assert_eq!(cleaner.covered_below(), Offset(8));
            all.each_ref().map(|batch| kept(&cleaner, batch))
        };
        assert_eq!(cleaned(0), ["b", "C", "dA"]);
        assert_eq!(cleaned(6), ["b", "", "dA"]);
        assert_eq!(cleaned(8), ["b", "", "d"]);
    }

    #[test]
    fn a_full_map_leaves_what_it_does_not_cover() {
        let all = [batch("ab", 0), batch("ab", 2), batch("xa", 4)];
        let mut cleaner = Cleaner::new(&plan(0, 0, 2 * (ENTRY_BYTES + 1)), None);
        assert_eq!(cleaner.note(&all[0].0, &all[0].1), Ok(true));
        assert_eq!(cleaner.note(&all[1].0, &all[1].1), Ok(false), "counted as new keys, which is never too few");
        assert_eq!(cleaner.note(&all[2].0, &all[2].1), Ok(false));
        assert_eq!(cleaner.covered_below(), Offset(2));
        assert_eq!(all.each_ref().map(|batch| kept(&cleaner, batch)), ["ab", "ab", "xa"]);
    }

    #[test]
    fn what_was_compacted_before_gives_way_to_newer_records_only() {
        let (old, new) = (batch("abC", 0), batch("bd", 3));
        let mut cleaner = Cleaner::new(&plan(3, 3, 1 << 20), None);
        assert_eq!(cleaner.note(&old.0, &old.1), Ok(true));
        assert_eq!(cleaner.note(&new.0, &new.1), Ok(true));
        assert_eq!([kept(&cleaner, &old), kept(&cleaner, &new)], ["a", "bd"]);
    }
}
