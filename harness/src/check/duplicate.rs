//! duplicate: one value at two offsets or more.

use super::case::Case;
use super::order::QueueOrder;
use super::strands::Strand;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};
use crate::history::Queue;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        let mut strands = order.strands.to_vec();
        strands.sort_unstable_by_key(|strand| (strand.first_value, strand.first_offset));
        // The strand so far that reaches the greatest value; what starts before its end repeats its values.
        let mut widest: Option<Strand> = None;
        for strand in strands {
            if let Some(other) = widest.filter(|other| other.end_value() > strand.first_value) {
                let end = other.end_value().min(strand.end_value());
                repeated(case, *queue, order, &other, &strand, strand.first_value..end, &mut found);
            }
            widest = match widest {
                Some(other) if other.end_value() >= strand.end_value() => Some(other),
                Some(_) | None => Some(strand),
            };
        }
    }
    Ok(found)
}

/// One occurrence per send that the repeated values belong to.
fn repeated(
    case: &Case<'_>,
    queue: Queue,
    order: &QueueOrder,
    one: &Strand,
    other: &Strand,
    values: std::ops::Range<u64>,
    found: &mut Vec<Occurrence>,
) {
    let mut value = values.start;
    while value < values.end {
        let send = order.send_of(value);
        let end = send.map_or(values.end, |send| send.end_value().min(values.end));
        let offsets = [one, other].map(|strand| strand.first_offset + (value - strand.first_value));
        let (record, name) = (case.record(value), case.name(queue));
        let is_there = offsets.map(|offset| order.is_final_at(value, offset));
        let facts = Facts {
            idempotent: send.map(|send| send.idempotent),
            acks: send.map(|send| send.acks),
            retried: send.map(|send| send.attempts > 1),
            superseded: Some(is_there != [true, true]),
            // The copy that is gone must itself have been lost lawfully; losses elsewhere in the queue excuse nothing here.
            after_permitted_loss: send.map(|send| {
                is_there != [true, true] && case.loss_allowance(Anomaly::Ghost, queue, order, send).is_some()
            }),
            ..case.consequence_facts(queue, order, send.map_or(0, |send| send.invoked_us), u64::MAX)
        };
        let mut evidence: Vec<Evidence> = Vec::new();
        if let Some(send) = send {
            let text = format!("{record} was sent once, in {} attempts", send.attempts);
            evidence.push(Evidence::operation(send.operation, text));
        }
        for offset in offsets {
            let reader = order.reader_of(value, offset);
            evidence.extend(
                reader.map(|read| Evidence::operation(read.operation, format!("{record} was read at offset {offset}"))),
            );
        }
        found.push(Occurrence {
            anomaly: Anomaly::Duplicate,
            count: end - value,
            allowed: case.matrix.allowance(Anomaly::Duplicate, &facts),
            explanation: format!("{record} lies at offsets {} and {} of {name}.", offsets[0], offsets[1]),
            evidence,
        });
        value = end;
    }
}
