//! ghost: a value that was consumed, though never acknowledged to its producer, and later is nowhere.
//! Acknowledged values that vanish are `unseen`.

use super::case::Case;
use super::final_reads::FinalReads;
use super::order::Fate;
use super::ranges::Ranges;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::Anomaly;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        let finals = FinalReads::of(case, *queue, order);
        let acknowledged = order.sends.iter().filter(|send| send.fate == Fate::Acknowledged);
        let acknowledged = Ranges::of(acknowledged.map(|send| send.first_value..send.end_value()).collect());
        for strand in order.strands.iter() {
            for gone in order.final_values.missing_from(strand.first_value..strand.end_value()) {
                for values in acknowledged.missing_from(gone) {
                    let offset = strand.first_offset + (values.start - strand.first_value);
                    let owed = finals.owed(offset..offset + (values.end - values.start), values.start);
                    let Some(offset_gone) = owed.first().copied() else { continue };
                    let value = values.start + (offset_gone - offset);
                    let (record, name) = (case.record(value), case.name(*queue));
                    let reader = order.reader_of(value, offset_gone);
                    let text = format!("{record} was read at offset {offset_gone} of {name}");
                    found.push(Occurrence {
                        anomaly: Anomaly::Ghost,
                        count: owed.len() as u64,
                        allowed: order
                            .send_of(value)
                            .and_then(|send| case.loss_allowance(Anomaly::Ghost, *queue, order, send)),
                        explanation: format!("{text}; later it is nowhere, and nothing justifies its deletion."),
                        evidence: reader.map(|read| Evidence::operation(read.operation, text)).into_iter().collect(),
                    });
                }
            }
        }
    }
    Ok(found)
}
