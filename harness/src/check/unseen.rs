//! unseen: an acknowledged value that no final read finds, though final reads reach the end.

use super::case::Case;
use super::deletion::{Located, is_justified};
use super::final_reads::FinalReads;
use super::order::{Fate, QueueOrder, Send};
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::Anomaly;
use crate::history::Queue;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        let finals = FinalReads::of(case, *queue, order);
        for send in order.sends.iter().filter(|send| send.fate == Fate::Acknowledged) {
            if let Some((count, first)) = missing(case, *queue, order, &finals, send) {
                found.push(occurrence(case, *queue, order, send, count, first));
            }
        }
    }
    Ok(found)
}

/// How many of the send's values the final reads owe and do not show, and the first of them with its offset.
pub(super) fn missing(
    case: &Case<'_>,
    queue: Queue,
    order: &QueueOrder,
    finals: &FinalReads<'_>,
    send: &Send,
) -> Option<(u64, (u64, u64))> {
    let (mut count, mut first) = (0, None);
    for values in order.final_values.missing_from(send.first_value..send.end_value()) {
        let owed = match send.answered_offset {
            Some(first_offset) => {
                let offset = first_offset + (values.start - send.first_value);
                finals.owed(offset..offset + (values.end - values.start), values.start)
            }
            None => owed_somewhere(case, queue, order, values.start..values.end),
        };
        count += owed.len() as u64;
        first = first.or(owed.first().map(|offset| (values.start, *offset)));
    }
    first.map(|first| (count, first))
}

/// Values whose offset nobody told: owed only where the reads reached the end and nothing can have been deleted.
fn owed_somewhere(case: &Case<'_>, queue: Queue, order: &QueueOrder, values: std::ops::Range<u64>) -> Vec<u64> {
    // Where nobody told its offset, whether a later record superseded it is not known either.
    let is_complete = case.final_extent(order) == u64::MAX && case.topic(queue).compaction.is_none();
    let at_log_start = Located { value: values.start, offset: 0 };
    match is_complete && !is_justified(case, queue, order, at_log_start, u64::MAX) {
        true => values.collect(),
        false => Vec::new(),
    }
}

fn occurrence(
    case: &Case<'_>,
    queue: Queue,
    order: &QueueOrder,
    send: &Send,
    count: u64,
    (value, offset): (u64, u64),
) -> Occurrence {
    let (record, name) = (case.record(value), case.name(queue));
    let place = match send.answered_offset {
        Some(_) => format!(" at offset {offset}"),
        None => String::new(),
    };
    let mut evidence = vec![Evidence::operation(send.operation, format!("{name} acknowledged {record}{place}"))];
    if let Some(poll) = order.polls.iter().rfind(|poll| poll.is_final) {
        let text = format!("the last final read of {name}: none of the final reads delivered it");
        evidence.push(Evidence::operation(poll.operation, text));
    }
    Occurrence {
        anomaly: Anomaly::Unseen,
        count,
        allowed: case.loss_allowance(Anomaly::Unseen, queue, order, send),
        explanation: format!(
            "{name} acknowledged {record}{place}, and the final reads, which went past it or to the end, do not find it."
        ),
        evidence,
    }
}
