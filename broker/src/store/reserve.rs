//! How far ahead of a segment's end room is reserved on disk. A write into room that is reserved costs the file system a
//! third less: it looks for no place. The file's length stays what was written, so recovery sees no difference.
//! What is left over is given back when the segment is sealed. Not here: reserving it (`perform`).

use std::collections::BTreeMap;

use crate::core::types::{LogId, Position};

/// What is reserved for the segments that are written to.
#[derive(Debug)]
pub(super) struct Reserve {
    bytes_max: u64,
    /// By segment the length up to which room is reserved.
    upto: BTreeMap<(LogId, Position), u64>,
}

impl Reserve {
    /// Reserves at most `bytes_max` ahead of a segment's end.
    pub(super) fn new(bytes_max: u64) -> Reserve {
        Reserve { bytes_max, upto: BTreeMap::new() }
    }

    /// The length up to which to reserve room before a segment is made as long as `length`; none where there is enough.
    /// As much again as there is: where there is little, little is reserved.
    pub(super) fn wanted(&mut self, log: LogId, segment: Position, length: u64) -> Option<u64> {
        if length < self.bytes_max / SHORT_PART || self.bytes_max == 0 {
            return None;
        }
        let upto = self.upto.entry((log, segment)).or_default();
        if length <= *upto {
            return None;
        }
        *upto = length + length.min(self.bytes_max);
        Some(*upto)
    }

    /// The segment is written to no more; whether room was reserved for it.
    pub(super) fn end(&mut self, log: LogId, segment: Position) -> bool {
        self.upto.remove(&(log, segment)).is_some()
    }

    /// Nothing is known of a log's segments any more.
    pub(super) fn forget(&mut self, log: LogId) {
        self.upto.retain(|(of, _), _| *of != log);
    }
}

/// Segments shorter than this part of what may be reserved get nothing: a queue with little in it takes little.
const SHORT_PART: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_again_as_there_is_is_reserved_up_to_the_bound() {
        let (log, segment) = (LogId(1), Position(0));
        let mut reserve = Reserve::new(1600);
        assert_eq!(reserve.wanted(log, segment, 99), None, "too short");
        assert_eq!(reserve.wanted(log, segment, 100), Some(200));
        assert_eq!(reserve.wanted(log, segment, 200), None, "there is room");
        assert_eq!(reserve.wanted(log, segment, 201), Some(402));
        assert_eq!(reserve.wanted(log, segment, 5000), Some(6600));
        assert_eq!(reserve.wanted(log, Position(5000), 100), Some(200), "each segment has its own");
        assert!(reserve.end(log, segment));
        assert!(!reserve.end(log, segment), "given back once");
        reserve.forget(log);
        assert!(!reserve.end(log, Position(5000)));
        assert_eq!(Reserve::new(0).wanted(log, segment, 5000), None);
    }
}
