//! poll-skip: a consumer's polls jump over a value known to exist, without a seek between.

use super::case::Case;
use super::order::QueueOrder;
use super::ranges::Ranges;
use super::steps::missteps;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::Anomaly;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        for step in missteps(case, order).iter().filter(|step| step.came > step.due) {
            let ceiling = case.start_ceiling(*queue, order, step.completed_us);
            let (first, count) = skipped(order, step.due.max(ceiling), step.came);
            let Some((offset, value)) = first else { continue };
            let facts = case.consequence_facts(*queue, order, 0, step.completed_us);
            let (name, record) = (case.name(*queue), case.record(value));
            let mut evidence = Vec::new();
            evidence.extend(
                step.previous.map(|operation| {
                    Evidence::operation(operation, format!("{name} was read up to offset {}", step.due))
                }),
            );
            evidence.push(Evidence::operation(step.operation, format!("went on at offset {}", step.came)));
            let teller = order.reader_of(value, offset).map(|read| read.operation);
            let teller = teller.or(order.send_of(value).map(|send| send.operation));
            evidence.extend(
                teller.map(|operation| Evidence::operation(operation, format!("{record} lies at offset {offset}"))),
            );
            found.push(Occurrence {
                anomaly: Anomaly::PollSkip,
                count,
                allowed: case.matrix.allowance(Anomaly::PollSkip, &facts),
                explanation: format!(
                    "A consumer of {name} had to go on at offset {}, and got offset {} next; {record} at offset {offset} was skipped.",
                    step.due, step.came
                ),
                evidence,
            });
        }
    }
    Ok(found)
}

/// The first value known to exist at the offsets from `start` to `end`, with its offset; and how many there are.
fn skipped(order: &QueueOrder, start: u64, end: u64) -> (Option<(u64, u64)>, u64) {
    if start >= end {
        return (None, 0);
    }
    let mut known = Ranges::default();
    let mut first: Option<(u64, u64)> = None;
    for strand in order.strands_at(start..end) {
        let part = strand.first_offset.max(start)..strand.end().min(end);
        for part in order.excused_offsets.missing_from(part) {
            if first.is_none_or(|(offset, _)| part.start < offset) {
                first = Some((part.start, strand.value_at(part.start)));
            }
            known.insert(part);
        }
    }
    (first, known.within(start..end).iter().map(|part| part.end - part.start).sum())
}
