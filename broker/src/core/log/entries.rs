//! The batches of one queue in memory, packed into blocks of a few bytes each, because there may be hundreds of millions.
//! Whole blocks are found and dropped without a look inside. The newest block lies within the queue as long as it is short,
//! so that an append to a queue, which is one of a million and in no processor's cache, touches one place.
//! Not here: the index file of a sealed segment (`index`).

use std::collections::VecDeque;
use std::iter::FusedIterator;

use smallvec::SmallVec;

use super::frame::FRAME_BYTES;
use super::index::IndexEntry;
use crate::core::types::{Offset, Position};

/// Batches in the order of their offsets and positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entries {
    /// Full blocks, but for the first, of which some may have been dropped, and those before a cut.
    packed: VecDeque<Block>,
    /// Behind all blocks; none where there is no batch at all.
    newest: Option<Block>,
}

/// At most `BLOCK_ENTRIES` batches, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    first: IndexEntry,
    last: IndexEntry,
    count: u32,
    /// All but the first, each by its differences from the one before.
    rest: SmallVec<[u8; REST_BYTES_INLINE]>,
}

impl Entries {
    /// Adds the newest batch.
    pub fn push(&mut self, entry: IndexEntry) {
        match &mut self.newest {
            Some(block) if (block.count as usize) < BLOCK_ENTRIES => block.push(entry),
            newest => {
                if let Some(mut full) = newest.replace(Block::of(entry)) {
                    full.rest.shrink_to_fit();
                    self.packed.push_back(full);
                }
            }
        }
    }

    /// How many batches there are.
    pub fn len(&self) -> usize {
        self.packed.iter().chain(&self.newest).map(|block| block.count as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// The oldest batch.
    pub fn first(&self) -> Option<IndexEntry> {
        self.packed.front().or(self.newest.as_ref()).map(|block| block.first)
    }

    /// The newest batch.
    pub fn last(&self) -> Option<IndexEntry> {
        self.newest.as_ref().map(|block| block.last)
    }

    /// All batches.
    pub fn iter(&self) -> EntriesIter<'_> {
        self.iter_from(0)
    }

    /// The batches from the one that holds `offset`, or the next one, on.
    pub fn since(&self, offset: Offset) -> impl Iterator<Item = IndexEntry> + '_ {
        self.behind(move |entry| entry.next_offset() <= offset)
    }

    /// The batches whose frames stand at `position` or behind it.
    pub fn since_position(&self, position: Position) -> impl Iterator<Item = IndexEntry> + '_ {
        self.behind(move |entry| entry.position < position)
    }

    /// The batches whose frames end behind `position`.
    pub fn ending_after(&self, position: Position) -> impl Iterator<Item = IndexEntry> + '_ {
        self.behind(move |entry| entry.end() <= position)
    }

    /// Drops the batches wholly below `offset`.
    pub fn drop_below(&mut self, offset: Offset) {
        self.drop_while(|entry| entry.next_offset() <= offset);
    }

    /// Drops the batches whose frames stand below `position`.
    pub fn drop_below_position(&mut self, position: Position) {
        self.drop_while(|entry| entry.position < position);
    }

    /// Cuts the batches whose frames stand at `position` or behind it.
    pub fn cut(&mut self, position: Position) {
        while let Some(block) = self.newest.take_if(|block| block.last.position >= position) {
            let kept = Block::pack(block.iter().take_while(|entry| entry.position < position));
            self.newest = kept.or_else(|| self.packed.pop_back());
        }
    }

    /// The batches behind those for which `is_before` holds; it holds for a first part of them.
    fn behind(&self, is_before: impl Fn(&IndexEntry) -> bool) -> impl Iterator<Item = IndexEntry> {
        // Most readers are at the end, and touch nothing but the newest block.
        let is_in_newest = self.packed.back().is_none_or(|block| is_before(&block.last));
        let block = match is_in_newest {
            true => self.packed.len() + usize::from(self.newest.as_ref().is_some_and(|block| is_before(&block.last))),
            false => self.packed.partition_point(|block| is_before(&block.last)),
        };
        self.iter_from(block).skip_while(move |entry| is_before(entry))
    }

    fn iter_from(&self, block: usize) -> EntriesIter<'_> {
        EntriesIter { entries: self, block, inside: None }
    }

    fn block(&self, index: usize) -> Option<&Block> {
        match index == self.packed.len() {
            true => self.newest.as_ref(),
            false => self.packed.get(index),
        }
    }

    fn drop_while(&mut self, is_before: impl Fn(&IndexEntry) -> bool) {
        while self.packed.front().is_some_and(|block| is_before(&block.first)) {
            let Some(block) = self.packed.pop_front() else { break };
            if !is_before(&block.last) {
                let rest = Block::pack(block.iter().skip_while(&is_before));
                rest.into_iter().for_each(|rest| self.packed.push_front(rest));
                return;
            }
        }
        if self.packed.is_empty()
            && let Some(block) = self.newest.take_if(|block| is_before(&block.first))
            && !is_before(&block.last)
        {
            self.newest = Block::pack(block.iter().skip_while(is_before));
        }
    }
}

impl FromIterator<IndexEntry> for Entries {
    fn from_iter<I: IntoIterator<Item = IndexEntry>>(entries: I) -> Entries {
        let mut all = Entries::default();
        entries.into_iter().for_each(|entry| all.push(entry));
        all
    }
}

/// Goes through batches.
#[derive(Debug, Clone)]
pub struct EntriesIter<'a> {
    entries: &'a Entries,
    /// The next block.
    block: usize,
    inside: Option<BlockIter<'a>>,
}

impl Iterator for EntriesIter<'_> {
    type Item = IndexEntry;

    fn next(&mut self) -> Option<IndexEntry> {
        loop {
            if let Some(entry) = self.inside.as_mut().and_then(Iterator::next) {
                return Some(entry);
            }
            self.inside = Some(self.entries.block(self.block)?.iter());
            self.block += 1;
        }
    }
}

impl FusedIterator for EntriesIter<'_> {}

impl Block {
    fn of(first: IndexEntry) -> Block {
        Block { first, last: first, count: 1, rest: SmallVec::new() }
    }

    fn push(&mut self, entry: IndexEntry) {
        let (last, rest) = (&self.last, &mut self.rest);
        put(rest, (entry.position.0 as i64).wrapping_sub(end_of(last).0 as i64));
        put(rest, entry.base_offset.0.wrapping_sub(last.next_offset().0));
        put(rest, entry.max_timestamp.wrapping_sub(last.max_timestamp));
        put(rest, i64::from(entry.last_offset_delta) - i64::from(last.last_offset_delta));
        put(rest, i64::from(entry.size) - i64::from(last.size));
        (self.last, self.count) = (entry, self.count + 1);
    }

    fn pack(mut entries: impl Iterator<Item = IndexEntry>) -> Option<Block> {
        let mut block = Block::of(entries.next()?);
        entries.for_each(|entry| block.push(entry));
        Some(block)
    }

    fn iter(&self) -> BlockIter<'_> {
        BlockIter { next: Some(self.first), rest: &self.rest }
    }
}

/// Goes through a block's batches.
#[derive(Debug, Clone)]
struct BlockIter<'a> {
    next: Option<IndexEntry>,
    rest: &'a [u8],
}

impl Iterator for BlockIter<'_> {
    type Item = IndexEntry;

    fn next(&mut self) -> Option<IndexEntry> {
        let entry = self.next.take()?;
        if !self.rest.is_empty() {
            let position = (end_of(&entry).0 as i64).wrapping_add(take(&mut self.rest)) as u64;
            let base_offset = entry.next_offset().0.wrapping_add(take(&mut self.rest));
            let max_timestamp = entry.max_timestamp.wrapping_add(take(&mut self.rest));
            let last_offset_delta = (i64::from(entry.last_offset_delta) + take(&mut self.rest)) as u32;
            let size = (i64::from(entry.size) + take(&mut self.rest)) as u32;
            let (position, base_offset) = (Position(position), Offset(base_offset));
            self.next = Some(IndexEntry { position, base_offset, max_timestamp, last_offset_delta, size });
        }
        Some(entry)
    }
}

fn end_of(entry: &IndexEntry) -> Position {
    entry.position.plus(FRAME_BYTES as u64 + u64::from(entry.size))
}

/// Small numbers of either sign take one byte.
fn put(out: &mut SmallVec<[u8; REST_BYTES_INLINE]>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn take(bytes: &mut &[u8]) -> i64 {
    let (mut value, mut shift) = (0u64, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

const BLOCK_ENTRIES: usize = 64;
/// So many bytes of a block need no allocation: some four batches.
const REST_BYTES_INLINE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(steps: &[(u64, i64, i64, u32, u32)]) -> Vec<IndexEntry> {
        let (mut position, mut offset) = (Position(0), Offset(0));
        let entry = |&(gap, skipped, max_timestamp, last_offset_delta, size): &(u64, i64, i64, u32, u32)| {
            let entry = IndexEntry {
                position: position.plus(gap),
                base_offset: offset.plus(skipped),
                max_timestamp,
                last_offset_delta,
                size,
            };
            (position, offset) = (end_of(&entry), entry.next_offset());
            entry
        };
        steps.iter().map(entry).collect()
    }

    fn any_steps() -> impl Strategy<Value = Vec<(u64, i64, i64, u32, u32)>> {
        let gap = prop_oneof![Just(0), 0..1u64 << 40];
        let skipped = prop_oneof![Just(0), 0..1i64 << 30];
        let timestamp = prop_oneof![Just(-1), 0..1i64 << 45, Just(i64::MAX), Just(i64::MIN)];
        let step = (gap, skipped, timestamp, 0..i32::MAX as u32, 61..i32::MAX as u32);
        prop::collection::vec(step, 0..600)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_went_in_is_found_dropped_and_cut_as_in_a_plain_list(steps in any_steps(), at in 0..600usize) {
            let plain = entries(&steps);
            let packed: Entries = plain.iter().copied().collect();
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), plain.clone());
            prop_assert_eq!((packed.len(), packed.is_empty()), (plain.len(), plain.is_empty()));
            prop_assert_eq!((packed.first(), packed.last()), (plain.first().copied(), plain.last().copied()));
            let Some(place) = plain.get(at.min(plain.len().saturating_sub(1))).copied() else { return Ok(()) };
            for offset in [place.base_offset, place.next_offset(), Offset(place.base_offset.0 - 1)] {
                let kept: Vec<_> = plain.iter().copied().filter(|e| e.next_offset() > offset).collect();
                prop_assert_eq!(packed.since(offset).collect::<Vec<_>>(), kept.clone());
                let mut dropped = packed.clone();
                dropped.drop_below(offset);
                prop_assert_eq!(dropped.iter().collect::<Vec<_>>(), kept.clone());
                prop_assert_eq!((dropped.first(), dropped.len()), (kept.first().copied(), kept.len()));
            }
            for position in [place.position, place.position.plus(1)] {
                let (below, kept): (Vec<_>, Vec<_>) = plain.iter().copied().partition(|e| e.position < position);
                prop_assert_eq!(packed.since_position(position).collect::<Vec<_>>(), kept.clone());
                let (mut dropped, mut cut) = (packed.clone(), packed.clone());
                dropped.drop_below_position(position);
                cut.cut(position);
                prop_assert_eq!(dropped.iter().collect::<Vec<_>>(), kept);
                prop_assert_eq!((cut.iter().collect::<Vec<_>>(), cut.last()), (below.clone(), below.last().copied()));
                cut.push(place);
                prop_assert_eq!(cut.last(), Some(place));
            }
        }
    }

    #[test]
    fn batches_of_an_even_flow_take_a_few_bytes_each() {
        let steps: Vec<_> = (0..6400).map(|n| (40 * (n % 3), 0, 1_700_000_000_000 + n as i64 / 9, 0, 110)).collect();
        let packed: Entries = entries(&steps).into_iter().collect();
        let bytes: usize = packed.packed.iter().map(|block| block.rest.len() + size_of::<Block>()).sum();
        assert!(bytes < 6400 * 8, "{bytes}");
    }
}
