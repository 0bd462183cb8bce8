//! corrupt-payload: a delivered record's key, value, headers or timestamp differ from what was sent.

use super::case::Case;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};
use crate::history::Call;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for index in &case.order.corrupt {
        match &case.operation(*index).call {
            Call::Poll { corrupt, .. } => {
                for record in corrupt {
                    let place = format!("offset {} of {}", record.offset, case.name(record.queue));
                    found.push(occurrence(case, *index, format!("{place}: {}", record.what)));
                }
            }
            Call::Produce { .. }
            | Call::Seek { .. }
            | Call::ListOffset { .. }
            | Call::DeleteRecords { .. }
            | Call::Group { .. }
            | Call::CreateTopic { .. } => {}
        }
    }
    for (queue, order) in case.order.queues.iter().filter(|(queue, _)| case.topic(**queue).has_create_time) {
        for (index, sent_ms) in &order.mistimed {
            let read = &order.reads[*index as usize];
            let record = case.record(read.first_value);
            let what = format!(
                "{record} at offset {} of {} has timestamp {}, and was sent with {sent_ms}",
                read.first_offset,
                case.name(*queue),
                read.first_timestamp_ms
            );
            found.push(occurrence(case, read.operation, what));
        }
    }
    Ok(found)
}

fn occurrence(case: &Case<'_>, operation: u32, what: String) -> Occurrence {
    let until_us = case.operation(operation).completed_us;
    let facts = Facts { faults: case.struck(0, until_us), replication: case.context.replication, ..Facts::default() };
    Occurrence {
        anomaly: Anomaly::CorruptPayload,
        count: 1,
        allowed: case.matrix.allowance(Anomaly::CorruptPayload, &facts),
        explanation: format!("A record was delivered that is not what was sent. {what}."),
        evidence: vec![Evidence::operation(operation, what)],
    }
}
