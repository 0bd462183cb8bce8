//! Recovery of one log's files: indexes where they are valid, a scan where they are not; torn tails are cut, corruption
//! is fenced, and what may not be durable is written again and synced. The rules are in `docs/log-format.md`.
//! Not here: which frame continues a log (`core::log::replay`).

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::layout::{self, index_path, log_directory, segment_path};
use super::reader::{Found, SegmentReader};
use super::{OpenError, at_path, write_file};
use crate::core::batch::UNCOVERED_BYTES;
use crate::core::log::frame::{FRAME_BYTES, Frame, FrameKind, claimed_bytes};
use crate::core::log::index::{IndexHead, IndexedQueue, decode_index};
use crate::core::log::replay::Replay;
use crate::core::log::{CleanedRange, Recovered};
use crate::core::types::{LogId, Position};
use crate::mutant::Mutant;
use crate::points;
use crate::ports::{Disk, Observer};

/// Bytes rewritten at a time.
const REWRITE_BYTES: u64 = 1 << 20;
/// The least that a disk writes as a whole.
const SECTOR_BYTES: u64 = 512;
/// A frame, and the first bytes of its batch, which the frame's checksum covers.
const HEAD_BYTES: u64 = (FRAME_BYTES + UNCOVERED_BYTES) as u64;

/// Recovers a log; one without directory or files is empty.
pub(super) async fn recover_log<D: Disk, O: Observer>(
    disk: &D,
    observer: &O,
    log: LogId,
    mutant: Option<Mutant>,
) -> Result<Recovered, OpenError> {
    let mut recovery = Recovery {
        disk,
        log,
        mutant,
        segments: Vec::new(),
        has_indexes: false,
        seals: Vec::new(),
        cut: None,
        named: None,
        lost: None,
    };
    let Some(replay) = recovery.scan()? else {
        if recovery.drop_unsynced()? {
            observer.event(points::TORN_TAIL_CUT, 1);
        }
        return Ok(Recovered::empty(log));
    };
    observer.point(points::RECOVERY_SCANNED);
    let recovered = recovery.repair(replay).await?;
    observer.event(points::RECOVERY, 1);
    let report = recovered.report;
    let counts = [
        (points::TORN_TAIL_CUT, u64::from(report.cut_bytes > 0)),
        (points::CORRUPTION_FOUND, report.corruptions),
        (points::PRODUCERS_RECOVERED, report.producers),
    ];
    for (name, count) in counts {
        if count > 0 {
            observer.event(name, count);
        }
    }
    Ok(recovered)
}

struct Recovery<'a, D: Disk> {
    disk: &'a D,
    log: LogId,
    mutant: Option<Mutant>,
    /// Oldest first.
    segments: Vec<SegmentFile<D>>,
    /// Whether there are index files, valid or not.
    has_indexes: bool,
    /// Indexes to be written: segments that are complete and have none.
    seals: Vec<(Position, Bytes)>,
    /// Where a torn tail is to be cut: the segment's place in `segments`, and the position.
    cut: Option<(usize, Position)>,
    /// The newest synced position that anything behind the first bad bytes names.
    named: Option<Position>,
    /// Where the newest segment ended whose index is there, but not all of its bytes.
    lost: Option<Position>,
}

struct SegmentFile<D: Disk> {
    base: Position,
    length: u64,
    file: D::File,
    index: Option<Index>,
    /// What it stands for, where compaction wrote it.
    cleaned: Option<CleanedRange>,
}

type Index = (IndexHead, Vec<IndexedQueue>);

/// Where what follows on an index's segment begins.
fn reach(head: &IndexHead) -> Position {
    head.cleaned.map_or(head.end, |range| range.to)
}

/// What follows on bad bytes.
enum Judgement {
    Torn,
    Corrupt,
}

impl<D: Disk> Recovery<'_, D> {
    /// Reads everything and changes nothing but leftovers; none where there is nothing that was ever synced.
    fn scan(&mut self) -> Result<Option<Replay>, OpenError> {
        let Some(carrier) = self.open_files()? else {
            return Ok(None);
        };
        let begin = self.segments.first().map(|s| s.base);
        let mut replay = Replay::new(self.log, self.mutant, begin.unwrap_or_default());
        let begins_mid_log = begin.is_some_and(|b| b > Position(0));
        match carrier {
            Some((head, queues)) if begin.is_none() || self.begins_at() == Some(reach(&head)) => {
                replay.load_index(head, queues, false);
            }
            Some(_) => replay.lack_history(),
            None if begins_mid_log && self.was_never_synced() => return Ok(None),
            None if begins_mid_log && self.segments[0].index.is_none() && !self.is_scanned_cleaned(0) => {
                replay.lack_history();
            }
            None if self.segments.is_empty() => return Ok(None),
            None => {}
        }
        for number in 0..self.segments.len() {
            let base = self.segments[number].base;
            if replay.end != base && !self.pass_gap(&mut replay, number)? {
                break;
            }
            match self.segments[number].index.take() {
                Some((head, queues)) => {
                    let (max_timestamp, cleaned) = (head.max_timestamp, head.cleaned);
                    replay.load_index(head, queues, true);
                    replay.end_segment(base, Some(max_timestamp), cleaned);
                }
                None => {
                    self.scan_segment(&mut replay, number)?;
                    if self.is_emptied(number) {
                        replay.pass_emptied();
                    }
                    let cleaned = self.range_of_scanned(&replay, number);
                    self.segments[number].cleaned = cleaned;
                    replay.end_segment(base, None, cleaned);
                    let last = number + 1 == self.segments.len() || self.cut.is_some();
                    if !last && !replay.has_suspects() {
                        self.seals.push((base, replay.index_of_last_segment()));
                    }
                }
            }
            if self.cut.is_some() {
                break;
            }
        }
        if self.lost.is_some_and(|lost| lost > replay.end) && self.cut.is_none() {
            let end = replay.end;
            replay.pass_bad_bytes(end);
        }
        Ok(Some(replay))
    }

    /// Lists the directory, removes unfinished files, opens segments. Gives the index that was left behind by the
    /// segment before the first, if there is one; none where there is no directory.
    fn open_files(&mut self) -> Result<Option<Option<Index>>, OpenError> {
        let directory = log_directory(self.log);
        let names = match self.disk.list(&directory) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at_path("listing", &directory)(error)),
        };
        let mut indexes = BTreeMap::new();
        for name in &names {
            let path = format!("{directory}/{name}");
            if name.ends_with(layout::TEMPORARY) {
                self.disk.remove(&path).map_err(at_path("removing", &path))?;
            } else if let Some(base) = layout::segment_base(name) {
                let file = self.disk.open(&path, false).map_err(at_path("opening", &path))?;
                let length = self.disk.length(&file).map_err(at_path("measuring", &path))?;
                self.segments.push(SegmentFile { base, length, file, index: None, cleaned: None });
            } else if let Some(base) = layout::index_base(name) {
                self.has_indexes = true;
                let bytes = super::read_file(self.disk, &path)?;
                if let Some(index) = decode_index(&bytes).filter(|(head, _)| head.base == base) {
                    indexes.insert(base, index);
                }
            }
        }
        self.segments.sort_by_key(|s| s.base);
        for segment in &mut self.segments {
            // Nothing but what compaction left of others is sealed while it is empty; earlier versions did so after a cut.
            let may_be = |head: &IndexHead| segment.length > 0 || head.cleaned.is_some();
            let whole = |head: &IndexHead| may_be(head) && head.end.0 - head.base.0 == segment.length;
            if indexes.get(&segment.base).is_some_and(|(head, _)| whole(head)) {
                segment.index = indexes.remove(&segment.base);
                segment.cleaned = segment.index.as_ref().and_then(|(head, _)| head.cleaned);
            }
        }
        self.finish_compaction(&mut indexes)?;
        let first = self.segments.first().map(|s| s.base);
        self.lost =
            indexes.values().map(|(head, _)| head).filter(|h| first.is_some_and(|f| h.base >= f)).map(|h| h.end).max();
        let before_first = |base: &Position| first.is_none_or(|first| *base < first);
        Ok(Some(indexes.into_iter().rev().find(|(base, _)| before_first(base)).map(|(_, index)| index)))
    }

    /// Ends what a crash interrupted: of segments that stand for the same positions the one cleaned last counts, and an
    /// index whose segment was not in place yet goes.
    fn finish_compaction(&mut self, indexes: &mut BTreeMap<Position, Index>) -> Result<(), OpenError> {
        let mut ranges: Vec<(Position, CleanedRange)> =
            self.segments.iter().filter_map(|segment| Some((segment.base, segment.cleaned?))).collect();
        ranges.sort_unstable_by_key(|(_, range)| std::cmp::Reverse(range.generation));
        for (base, range) in ranges {
            if !self.segments.iter().any(|segment| segment.base == base) {
                continue;
            }
            let is_replaced = |other: Position| other != base && other >= range.from && other < range.to;
            if self.segments.iter().any(|segment| is_replaced(segment.base)) {
                // A process that was killed may not have synced the new segment's name: what it replaces goes after that.
                let directory = log_directory(self.log);
                self.disk.sync_directory(&directory).map_err(at_path("syncing", &directory))?;
            }
            for segment in self.segments.iter().filter(|segment| is_replaced(segment.base)) {
                self.remove_quietly(&segment_path(self.log, segment.base))?;
                self.remove_quietly(&index_path(self.log, segment.base))?;
            }
            self.segments.retain(|segment| !is_replaced(segment.base));
            for left in indexes.keys().copied().filter(|left| is_replaced(*left)) {
                self.remove_quietly(&index_path(self.log, left))?;
            }
            indexes.retain(|left, _| !is_replaced(*left));
        }
        let is_unfinished = |base: Position, index: &Index| {
            let covers = |segment: &SegmentFile<D>| segment.base < base && base < segment.base.plus(segment.length);
            index.0.cleaned.is_some() && self.segments.iter().any(covers)
        };
        let unfinished: Vec<Position> =
            indexes.iter().filter(|(base, index)| is_unfinished(**base, index)).map(|(base, _)| *base).collect();
        for base in unfinished {
            indexes.remove(&base);
            self.remove_quietly(&index_path(self.log, base))?;
        }
        Ok(())
    }

    fn remove_quietly(&self, path: &str) -> Result<(), OpenError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at_path("removing", path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Where the positions begin for which the first segment stands.
    fn begins_at(&self) -> Option<Position> {
        self.segments.first().map(|first| first.cleaned.map_or(first.base, |range| range.from))
    }

    /// What a segment stands for that compaction wrote and whose index is gone: all up to its neighbours.
    fn range_of_scanned(&self, replay: &Replay, number: usize) -> Option<CleanedRange> {
        if !replay.is_in_cleaned() {
            return None;
        }
        let before = number.checked_sub(1).map(|before| &self.segments[before]);
        let base = self.segments[number].base;
        let from =
            before.map_or(base, |before| before.cleaned.map_or(before.base.plus(before.length), |range| range.to));
        let to = self.segments.get(number + 1).map_or(replay.end, |next| next.cleaned.map_or(next.base, |r| r.from));
        Some(CleanedRange { from, to, generation: 1 })
    }

    /// Whether compaction left the positions between two segments free, or those before a segment that it wrote.
    fn is_lawful_gap(&self, previous: usize, number: usize) -> bool {
        let (before, after) = (&self.segments[previous], &self.segments[number]);
        let end = before.base.plus(before.length);
        let reached = before.cleaned.map_or(end, |range| range.to);
        match after.cleaned {
            Some(range) => range.from == reached,
            None => {
                (before.cleaned.is_some() && reached == after.base)
                    || (end <= after.base && self.is_scanned_cleaned(number))
            }
        }
    }

    /// Whether compaction left nothing in a segment on which others follow. Such a segment begins one byte behind where the
    /// one before ended; one that a power loss emptied begins right there.
    fn is_emptied(&self, number: usize) -> bool {
        let before = number.checked_sub(1).map(|before| &self.segments[before]);
        let reached = before.map(|before| before.cleaned.map_or(before.base.plus(before.length), |range| range.to));
        let segment = &self.segments[number];
        let is_shifted = reached.map_or(segment.base > Position(0), |reached| segment.base == reached.plus(1));
        segment.length == 0 && number + 1 < self.segments.len() && is_shifted
    }

    /// Whether the frames of a segment without index say that compaction wrote it.
    fn is_scanned_cleaned(&self, number: usize) -> bool {
        if self.is_emptied(number) {
            return true;
        }
        let mut reader = self.reader(&self.segments[number]);
        matches!(reader.check(0), Ok(Found::Batch(frame, _)) if frame.kind == FrameKind::Cleaned)
    }

    fn reader(&self, segment: &SegmentFile<D>) -> SegmentReader<'_, D> {
        SegmentReader::new(self.disk, segment.file.clone(), segment.base, segment.length, self.verifies())
    }

    /// Judges a segment that does not begin where the one before ended; false where the log is cut there.
    fn pass_gap(&mut self, replay: &mut Replay, number: usize) -> Result<bool, OpenError> {
        let base = self.segments[number].base;
        let previous = number.checked_sub(1);
        let Some(previous) = previous else {
            // The carrier's end differs from the first segment: judged in `scan`, the segment counts.
            replay.end = base;
            return Ok(true);
        };
        if self.is_lawful_gap(previous, number) {
            replay.end = base;
            return Ok(true);
        }
        let at = replay.end.min(base);
        match self.judge(replay, previous, self.segments[previous].length, at)? {
            Judgement::Corrupt => {
                replay.pass_bad_bytes(base);
                Ok(true)
            }
            Judgement::Torn => {
                self.cut = Some((previous, replay.end));
                Ok(false)
            }
        }
    }

    fn scan_segment(&mut self, replay: &mut Replay, number: usize) -> Result<(), OpenError> {
        let (base, length) = (self.segments[number].base, self.segments[number].length);
        let file = self.segments[number].file.clone();
        let path = segment_path(self.log, base);
        let mut reader = SegmentReader::new(self.disk, file, base, length, self.verifies());
        replay.report.scanned_bytes += length;
        let mut at = 0;
        while at < length {
            let found = reader.check(at).map_err(at_path("reading", &path))?;
            let (bad, intact_frame): (bool, Option<Frame>) = match found {
                Found::Mark(frame) if replay.is_current(&frame) => {
                    replay.accept_mark(&frame);
                    (false, None)
                }
                Found::Batch(frame, header) if replay.is_current(&frame) => {
                    (!replay.accept_batch(&frame, &header), None)
                }
                Found::BadBatch(frame) if replay.is_current(&frame) => (true, Some(frame)),
                Found::Mark(_) | Found::Batch(..) | Found::BadBatch(_) | Found::Bad => (true, None),
            };
            if !bad {
                at = replay.end.0 - base.0;
                continue;
            }
            if self.mutant == Some(Mutant::TornTailKept) {
                // The defect: what follows is neither judged nor cut, and the next append goes behind it.
                replay.end = base.plus(length);
                return Ok(());
            }
            match (self.judge(replay, number, at, base.plus(at))?, intact_frame) {
                (Judgement::Torn, _) => {
                    self.cut = Some((number, base.plus(at)));
                    return Ok(());
                }
                (Judgement::Corrupt, Some(frame)) => {
                    replay.pass_bad_batch(&frame);
                    at += frame.total_bytes();
                }
                (Judgement::Corrupt, None) => {
                    at = reader.find(at + 1).map_err(at_path("reading", &path))?.unwrap_or(length);
                    replay.pass_bad_bytes(base.plus(at));
                }
            }
        }
        Ok(())
    }

    /// Whether bad bytes at position `bad` (byte `at` of a segment) are a torn tail: nothing behind them says that they were
    /// durable, and they look like a write of which not all came to the disk. A file that cannot be read names nothing
    /// here; reading it in its turn reports the error.
    fn judge(&mut self, replay: &Replay, number: usize, at: u64, bad: Position) -> Result<Judgement, OpenError> {
        let named = match self.named {
            Some(named) => named,
            None => {
                let named = self.newest_synced_from(replay, number, at + 1);
                self.named = Some(named);
                named
            }
        };
        if named > bad || (self.log != LogId::METADATA && !self.lacks_a_sector(number, at, bad)?) {
            return Ok(Judgement::Corrupt);
        }
        Ok(Judgement::Torn)
    }

    /// Whether the file ends within the bytes, or what they have in one of their sectors is all zeros, as room is that was
    /// never written: a disk writes whole sectors. Where none lacks, all was written once and has rotted since.
    fn lacks_a_sector(&self, number: usize, at: u64, position: Position) -> Result<bool, OpenError> {
        let segment = &self.segments[number];
        let path = segment_path(self.log, segment.base);
        let read = |length| self.disk.read_at(&segment.file, at, length as usize).map_err(at_path("reading", &path));
        let left = segment.length - at;
        if left < HEAD_BYTES {
            return Ok(true);
        }
        let extent = claimed_bytes(&read(HEAD_BYTES)?, position).unwrap_or(HEAD_BYTES);
        if extent > left {
            return Ok(true);
        }
        let bytes = read(extent)?;
        let first = (SECTOR_BYTES - at % SECTOR_BYTES).min(extent) as usize;
        let (first, others) = bytes.split_at(first);
        let is_unwritten = |part: &[u8]| part.iter().all(|byte| *byte == 0);
        Ok(is_unwritten(first) || others.chunks(SECTOR_BYTES as usize).any(is_unwritten))
    }

    fn newest_synced_from(&self, replay: &Replay, number: usize, at: u64) -> Position {
        let mut newest = replay.synced_known.max(self.lost.unwrap_or_default());
        for (index, segment) in self.segments.iter().enumerate().skip(number) {
            if let (true, Some((head, _))) = (index > number, &segment.index) {
                newest = newest.max(head.end);
                continue;
            }
            let mut reader = self.reader(segment);
            let mut from = if index == number { at } else { 0 };
            while let Ok(Some(next)) = reader.find(from) {
                let frame = match reader.check(next) {
                    Ok(Found::Mark(frame) | Found::Batch(frame, _) | Found::BadBatch(frame)) => frame,
                    Ok(Found::Bad) | Err(_) => break,
                };
                if replay.is_current(&frame) {
                    newest = newest.max(frame.synced);
                }
                from = (next + frame.total_bytes()).min(segment.length);
            }
        }
        newest
    }

    /// Whether a log whose first segment is missing is all tail: its directory was never synced, and a power loss took
    /// the name of one segment and left that of the next.
    fn was_never_synced(&self) -> bool {
        let from_the_start = Replay::new(self.log, self.mutant, Position(0));
        !self.has_indexes && self.newest_synced_from(&from_the_start, 0, 0) == Position(0)
    }

    /// Removes the segments of a log of which nothing was ever synced; whether there were any.
    fn drop_unsynced(&mut self) -> Result<bool, OpenError> {
        let dropped = std::mem::take(&mut self.segments);
        for segment in dropped.iter().rev() {
            self.remove_quietly(&segment_path(self.log, segment.base))?;
        }
        if !dropped.is_empty() {
            let directory = log_directory(self.log);
            self.disk.sync_directory(&directory).map_err(at_path("syncing", &directory))?;
        }
        Ok(!dropped.is_empty())
    }

    fn verifies(&self) -> bool {
        self.mutant != Some(Mutant::ChecksumNotVerified)
    }

    /// Cuts the torn tail, writes again what may not be durable, syncs, and writes missing indexes.
    async fn repair(&mut self, mut replay: Replay) -> Result<Recovered, OpenError> {
        if let Some((number, end)) = self.cut.take() {
            for removed in self.segments.split_off(number + 1).into_iter().rev() {
                replay.report.cut_bytes += removed.length;
                for path in [index_path(self.log, removed.base), segment_path(self.log, removed.base)] {
                    match self.disk.remove(&path) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(at_path("removing", &path)(error));
                        }
                        Ok(()) | Err(_) => {}
                    }
                }
            }
            let last = &mut self.segments[number];
            replay.report.cut_bytes += last.length - (end.0 - last.base.0);
            last.length = end.0 - last.base.0;
            let path = segment_path(self.log, last.base);
            self.disk.truncate(&last.file, last.length).map_err(at_path("cutting", &path))?;
            // It is the newest one now and goes on where it was cut. Sealed while empty, it would be followed by another
            // segment of the same base, and the removal of one would remove the other's file.
            let newest = last.base;
            self.seals.retain(|(base, _)| *base < newest);
        }
        for segment in &self.segments {
            let sealed_to = replay.synced_known.0.saturating_sub(segment.base.0).min(segment.length);
            let path = segment_path(self.log, segment.base);
            if sealed_to == segment.length && replay.report.cut_bytes == 0 {
                continue;
            }
            let mut at = sealed_to;
            while at < segment.length {
                let length = (segment.length - at).min(REWRITE_BYTES);
                let bytes = self.disk.read_at(&segment.file, at, length as usize).map_err(at_path("reading", &path))?;
                self.disk.write_at(&segment.file, at, &[bytes]).map_err(at_path("rewriting", &path))?;
                at += length;
                replay.report.rewritten_bytes += length;
            }
            self.disk.sync_file(&segment.file).await.map_err(at_path("syncing", &path))?;
        }
        let directory = log_directory(self.log);
        let changed = replay.report.rewritten_bytes + replay.report.cut_bytes > 0;
        let sync_directory = self.mutant != Some(Mutant::DirectoryNotSynced);
        // A crash may have come between the creation of the newest segment and the first sync of its directory.
        let unproven = self.segments.last().is_some_and(|s| replay.synced_known <= s.base);
        if (changed || unproven) && sync_directory {
            self.disk.sync_directory(&directory).map_err(at_path("syncing", &directory))?;
        }
        for (base, index) in std::mem::take(&mut self.seals) {
            let directory = sync_directory.then_some(directory.as_str());
            write_file(self.disk, directory, &index_path(self.log, base), &[index]).await?;
            replay.mark_sealed(base);
        }
        Ok(replay.finish())
    }
}
