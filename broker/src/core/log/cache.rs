//! The newest frames in memory, so that readers at the tail need no disk. Bytes are shared, never copied.

use std::cell::Cell;
use std::collections::VecDeque;

use bytes::Bytes;

use super::frame::FRAME_BYTES;
use crate::core::types::Position;

/// What a batch costs beside its bytes: its place in the list, its allocations and its frame.
const OVERHEAD_BYTES: usize = 192;

/// Frames by position, oldest dropped first.
#[derive(Debug)]
pub(crate) struct TailCache {
    frames: VecDeque<CachedFrame>,
    bytes: usize,
    bytes_max: usize,
    /// Frames that were dropped so far: what stands at index 0 is this many frames behind the first one ever.
    dropped: usize,
    /// Where the last search ended, counted from the first frame ever. A reader goes forward, and its next frame is near;
    /// a search among all of them would touch memory that is not in the processor's cache at each step.
    sought: Cell<usize>,
}

#[derive(Debug)]
struct CachedFrame {
    position: Position,
    /// The frame and the batch's first 21 bytes at least, as stored.
    head: Bytes,
    /// The rest of the batch; nothing for a mark, perhaps nothing for a batch.
    body: Bytes,
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> TailCache {
        TailCache { frames: VecDeque::new(), bytes: 0, bytes_max, dropped: 0, sought: Cell::new(0) }
    }

    /// Adds the newest frame, which stands at `position`.
    pub(crate) fn push(&mut self, position: Position, head: Bytes, body: Bytes) {
        self.bytes += head.len() + body.len() + OVERHEAD_BYTES;
        self.frames.push_back(CachedFrame { position, head, body });
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.head.len() + oldest.body.len() + OVERHEAD_BYTES;
            self.dropped += 1;
        }
    }

    /// The batch whose frame stands at `position`, in two parts.
    pub(crate) fn find(&self, position: Position) -> Option<(Bytes, Bytes)> {
        let index = self.index_of(position)?;
        let found = &self.frames[index];
        Some((found.head.slice(FRAME_BYTES..), found.body.clone()))
    }

    /// The frames from `position` on, each in two parts; nothing where none stands there.
    pub(crate) fn frames_from(&self, position: Position) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        let begin = self.index_of(position).unwrap_or(self.frames.len());
        self.frames.range(begin..).map(|frame| (&frame.head, &frame.body))
    }

    /// Forgets the frames below a position.
    pub(crate) fn drop_below(&mut self, position: Position) {
        let gone = self.frames.partition_point(|frame| frame.position < position);
        self.bytes -= self.frames.drain(..gone).map(|f| f.head.len() + f.body.len() + OVERHEAD_BYTES).sum::<usize>();
        self.dropped += gone;
    }

    /// Index of the frame that stands at `position`: bounds that double from where the last search ended, halved then.
    fn index_of(&self, position: Position) -> Option<usize> {
        let not_behind = |index: usize| self.frames.get(index).is_some_and(|frame| frame.position <= position);
        let hint = self.sought.get().saturating_sub(self.dropped);
        let (mut low, mut high) = (0, self.frames.len());
        if not_behind(hint) {
            low = hint;
            let mut step = 1;
            while not_behind(low + step) {
                low += step;
                step *= 2;
            }
            high = high.min(low + step);
        } else {
            high = high.min(hint);
        }
        // The frame sought stands in low..high, if anywhere.
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if not_behind(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.sought.set(self.dropped + low);
        self.frames.get(low).filter(|frame| frame.position == position).map(|_| low)
    }

    /// Position of the newest frame.
    pub(crate) fn newest(&self) -> Option<Position> {
        self.frames.back().map(|frame| frame.position)
    }

    pub(crate) fn clear(&mut self) {
        self.dropped += self.frames.len();
        self.frames.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever was sought before, and however much was dropped, a search finds what a plain one finds.
        #[test]
        fn a_search_finds_what_a_plain_one_finds(
            steps in proptest::collection::vec((1u64..50, proptest::collection::vec(0u64..4000, 0..4)), 1..120),
            bytes_max in 400usize..40_000,
        ) {
            let mut cache = TailCache::new(bytes_max);
            let mut end = 0;
            for (length, sought) in steps {
                cache.push(Position(end), Bytes::from(vec![0; FRAME_BYTES + 21]), Bytes::new());
                end += length;
                for position in sought.into_iter().map(|position| Position(position % (end + 10))) {
                    let plain = cache.frames.iter().position(|frame| frame.position == position);
                    prop_assert_eq!(cache.index_of(position), plain);
                }
            }
        }
    }
}
