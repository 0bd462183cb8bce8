//! premature-deletion: a value below a log start that the broker told, though no DeleteRecords and no retention justifies
//! that the log starts there.

use super::case::Case;
use super::deletion::{Located, is_justified};
use super::order::QueueOrder;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};
use crate::history::Queue;

/// A log start, and who told it when.
struct ToldStart {
    offset: u64,
    operation: u32,
    completed_us: u64,
}

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        let mut judged = 0;
        for start in told_starts(case, order) {
            if start.offset > judged {
                found.extend(check_start(case, *queue, order, judged, &start));
                judged = start.offset;
            }
        }
    }
    Ok(found)
}

/// In order of time.
fn told_starts(case: &Case<'_>, order: &QueueOrder) -> Vec<ToldStart> {
    let mut starts: Vec<ToldStart> = order
        .starts
        .iter()
        .map(|start| ToldStart {
            offset: start.offset,
            operation: start.operation,
            completed_us: case.operation(start.operation).completed_us,
        })
        .collect();
    let first_final = order.polls.iter().find(|poll| poll.is_final && poll.position.is_some());
    starts.extend(first_final.map(|poll| ToldStart {
        offset: poll.position.unwrap_or(0),
        operation: poll.operation,
        completed_us: poll.completed_us,
    }));
    starts.sort_by_key(|start| start.completed_us);
    starts
}

/// Values that are known to have existed from the offset `from` on and lie below the start unjustified.
fn check_start(case: &Case<'_>, queue: Queue, order: &QueueOrder, from: u64, start: &ToldStart) -> Option<Occurrence> {
    let by_request = order.deletions.iter().filter(|deletion| deletion.invoked_us <= start.completed_us);
    let from = by_request.map(|deletion| deletion.justifies()).fold(from, u64::max);
    if from >= start.offset {
        return None;
    }
    let (mut count, mut first) = (0, None);
    for strand in order.strands_at(from..start.offset) {
        for offset in strand.first_offset.max(from)..strand.end().min(start.offset) {
            let located = Located { value: strand.value_at(offset), offset };
            if !is_justified(case, queue, order, located, start.completed_us)
                && !may_be_lost(case, queue, order, located)
            {
                count += 1;
                first = first.or(Some(located));
            }
        }
    }
    let first = first?;
    let (record, name) = (case.record(first.value), case.name(queue));
    let text = format!("the log of {name} starts at offset {}", start.offset);
    let mut evidence = vec![Evidence::operation(start.operation, text.clone())];
    let teller = order.reader_of(first.value, first.offset).map(|read| read.operation);
    let teller = teller.or(order.send_of(first.value).map(|send| send.operation));
    evidence
        .extend(teller.map(|teller| Evidence::operation(teller, format!("{record} lies at offset {}", first.offset))));
    let facts = Facts { faults: case.struck(0, u64::MAX), replication: case.context.replication, ..Facts::default() };
    Some(Occurrence {
        anomaly: Anomaly::PrematureDeletion,
        count,
        allowed: case.matrix.allowance(Anomaly::PrematureDeletion, &facts),
        explanation: format!(
            "{text}, above {record} at offset {}, which no DeleteRecords and no retention may have deleted yet.",
            first.offset
        ),
        evidence,
    })
}

/// Whether the record may have been lost, lawfully, before the log start moved over its offset.
fn may_be_lost(case: &Case<'_>, queue: Queue, order: &QueueOrder, record: Located) -> bool {
    let send = order.send_of(record.value);
    send.is_some_and(|send| case.loss_allowance(Anomaly::Ghost, queue, order, send).is_some())
}
