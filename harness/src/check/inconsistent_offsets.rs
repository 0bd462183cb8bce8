//! inconsistent-offsets: one offset of a queue with two values.

use super::case::Case;
use super::order::{QueueOrder, Send};
use super::strands::Strand;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};
use crate::history::Queue;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        // The strand so far that reaches the greatest offset; what starts before its end shares offsets with it.
        let mut widest: Option<Strand> = None;
        for strand in order.strands.iter() {
            if let Some(other) = widest.filter(|other| other.end() > strand.first_offset) {
                found.push(occurrence(case, *queue, order, &other, strand));
            }
            widest = match widest {
                Some(other) if other.end() >= strand.end() => Some(other),
                Some(_) | None => Some(*strand),
            };
        }
    }
    Ok(found)
}

fn occurrence(case: &Case<'_>, queue: Queue, order: &QueueOrder, one: &Strand, other: &Strand) -> Occurrence {
    let offset = other.first_offset;
    let count = one.end().min(other.end()) - offset;
    let values = [one.value_at(offset), other.value_at(offset)];
    let name = case.name(queue);
    // Only a value that is gone from the log can have been lost; the fault must have struck after it was sent.
    let gone: Vec<&Send> = values
        .iter()
        .filter(|value| !order.is_final_at(**value, offset))
        .filter_map(|value| order.send_of(*value))
        .collect();
    let sent_us = gone.iter().map(|send| send.invoked_us).min();
    // One of these very values must have been lost lawfully; losses elsewhere in the queue excuse nothing here.
    let is_lawful = gone.iter().any(|send| {
        [Anomaly::Ghost, Anomaly::LostWrite].iter().any(|loss| case.loss_allowance(*loss, queue, order, send).is_some())
    });
    let facts = sent_us.map(|sent_us| Facts {
        after_permitted_loss: Some(is_lawful),
        ..case.consequence_facts(queue, order, sent_us, u64::MAX)
    });
    let mut evidence = Vec::new();
    for value in values {
        let (record, read) = (case.record(value), order.reader_of(value, offset));
        let teller = read.map(|read| (read.operation, "was read"));
        let teller = teller.or(order.send_of(value).map(|send| (send.operation, "was acknowledged")));
        evidence.extend(
            teller.map(|(operation, how)| Evidence::operation(operation, format!("{record} {how} at offset {offset}"))),
        );
    }
    Occurrence {
        anomaly: Anomaly::InconsistentOffsets,
        count,
        allowed: facts.and_then(|facts| case.matrix.allowance(Anomaly::InconsistentOffsets, &facts)),
        explanation: format!(
            "Offset {offset} of {name} has two values: {} and {}.",
            case.record(values[0]),
            case.record(values[1])
        ),
        evidence,
    }
}
