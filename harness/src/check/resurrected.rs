//! resurrected: a value that DeleteRecords surely deleted is read again by a final read.

use super::case::Case;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        for poll in order.polls.iter().filter(|poll| poll.is_final) {
            let done = order
                .deletions
                .iter()
                .filter_map(|deletion| Some((deletion.answered?, deletion.operation)))
                .filter(|(_, operation)| case.operation(*operation).completed_us < poll.invoked_us);
            let Some((start, deletion)) = done.max() else { continue };
            for read in order.reads_of(poll).iter().filter(|read| read.first_offset < start) {
                let (record, name) = (case.record(read.first_value), case.name(*queue));
                let facts = Facts {
                    faults: case.struck(0, poll.completed_us),
                    replication: case.context.replication,
                    ..Facts::default()
                };
                let text = format!("{record} was read at offset {} of {name}", read.first_offset);
                found.push(Occurrence {
                    anomaly: Anomaly::Resurrected,
                    count: read.strand().end().min(start) - read.first_offset,
                    allowed: case.matrix.allowance(Anomaly::Resurrected, &facts),
                    explanation: format!("{text}, after everything below offset {start} had been deleted."),
                    evidence: vec![
                        Evidence::operation(deletion, format!("deleted everything below offset {start} of {name}")),
                        Evidence::operation(read.operation, text),
                    ],
                });
            }
        }
    }
    Ok(found)
}
