//! What may be deleted: whether DeleteRecords or the topic's retention justifies that a record is gone.
//! Errs on the side of the broker: what cannot be known from a history counts as justified.

use super::case::Case;
use super::order::QueueOrder;
use crate::history::Queue;

/// Whether the deletion of the record is justified to one who looked at the given time.
pub(super) fn is_justified(case: &Case<'_>, queue: Queue, order: &QueueOrder, record: Located, looked_us: u64) -> bool {
    let topic = case.topic(queue);
    let by_request =
        order.deletions.iter().any(|deletion| deletion.invoked_us <= looked_us && record.offset < deletion.justifies());
    by_request
        || topic.retention_ms.is_some_and(|age_ms| is_expired(case, order, record, looked_us, age_ms))
        || topic.retention_bytes.is_some_and(|limit| {
            let kept = bytes_maximum(case, order, record.offset);
            let beside = if topic.is_log_shared { bytes_beside(case, queue) } else { 0 };
            kept.saturating_add(beside) >= limit
        })
}

/// A value and its offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located {
    pub(super) value: u64,
    pub(super) offset: u64,
}

fn is_expired(case: &Case<'_>, order: &QueueOrder, record: Located, looked_us: u64, age_ms: i64) -> bool {
    let (Some(start_ms), Some(timestamp_ms)) = (case.context.wall_start_ms, case.timestamp(order, record.value)) else {
        return true;
    };
    // The look is rounded up to a whole millisecond: a deletion in the same one is in time.
    let looked_ms = start_ms.saturating_add_unsigned(looked_us.div_ceil(1_000));
    timestamp_ms.saturating_add(age_ms) <= looked_ms
}

/// Bytes of the queue's records from the offset on, at most, at any time of the run.
fn bytes_maximum(case: &Case<'_>, order: &QueueOrder, offset: u64) -> u64 {
    let records = order.end.saturating_sub(offset) + order.hidden_records;
    records.saturating_mul(case.context.record_bytes_maximum)
}

fn bytes_beside(case: &Case<'_>, queue: Queue) -> u64 {
    let others = case.order.queues.iter().filter(|(other, _)| **other != queue);
    others.map(|(_, order)| bytes_maximum(case, order, 0)).fold(0, u64::saturating_add)
}
