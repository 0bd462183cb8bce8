//! What the final reads must show: which records that existed are not in the log at the end though nothing excuses it.
//! Shared by `unseen` (acknowledged values) and `ghost` (values that were only read).

use std::ops::Range;

use super::case::Case;
use super::deletion::{Located, is_justified};
use super::order::QueueOrder;
use super::ranges::Ranges;
use crate::history::Queue;

/// The final reads of one queue.
pub(super) struct FinalReads<'a> {
    case: &'a Case<'a>,
    queue: Queue,
    order: &'a QueueOrder,
    start: u64,
    extent: u64,
    passed: Ranges,
}

impl<'a> FinalReads<'a> {
    /// Of the queue.
    pub(super) fn of(case: &'a Case<'a>, queue: Queue, order: &'a QueueOrder) -> FinalReads<'a> {
        let finals = order.polls.iter().filter(|poll| poll.is_final);
        let passed = Ranges::of(finals.map(|poll| case.passed(queue, order, poll)).collect());
        FinalReads {
            case,
            queue,
            order,
            start: order.final_start.map_or(0, |(start, _)| start),
            extent: case.final_extent(order),
            passed,
        }
    }

    /// Offsets of the range that the final reads should have delivered, and did not excusably leave out; the values
    /// from `first_value` on lie there.
    pub(super) fn owed(&self, offsets: Range<u64>, first_value: u64) -> Vec<u64> {
        let clipped = offsets.start.max(self.start)..offsets.end.min(self.extent);
        let is_owed = |offset: &u64| {
            let located = Located { value: first_value + (*offset - offsets.start), offset: *offset };
            let is_corrupt = self.order.excused_offsets.contains(*offset);
            // Where no final read passed, the log start may have moved over the record meanwhile.
            let may_be_deleted =
                !self.passed.contains(*offset) && is_justified(self.case, self.queue, self.order, located, u64::MAX);
            !is_corrupt && !may_be_deleted
        };
        clipped.filter(is_owed).collect()
    }
}
