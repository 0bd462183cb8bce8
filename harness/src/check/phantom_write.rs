//! phantom-write: a value was read though every attempt to send it was refused, or nobody sent it.

use super::case::Case;
use super::order::Fate;
use super::ranges::Ranges;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    // A run that was stopped early may have sends that were never recorded; only a refusal is proof then.
    let has_every_send = case.reached() == Some(true);
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        let sent = order.sends.iter().filter(|send| send.fate != Fate::Refused);
        let sent = Ranges::of(sent.map(|send| send.first_value..send.end_value()).collect());
        for read in &order.reads {
            for values in sent.missing_from(read.first_value..read.strand().end_value()) {
                let refused = order.send_of(values.start);
                if refused.is_none() && !has_every_send {
                    continue;
                }
                let (record, name) = (case.record(values.start), case.name(*queue));
                let offset = read.first_offset + (values.start - read.first_value);
                let why = if refused.is_some() { "every attempt to send it was refused" } else { "nobody sent it" };
                let text = format!("{record} was read at offset {offset} of {name}");
                let mut evidence = vec![Evidence::operation(read.operation, text.clone())];
                evidence.extend(refused.map(|send| Evidence::operation(send.operation, "refused".to_owned())));
                let facts = Facts {
                    faults: case.struck(0, u64::MAX),
                    replication: case.context.replication,
                    ..Facts::default()
                };
                found.push(Occurrence {
                    anomaly: Anomaly::PhantomWrite,
                    count: values.end - values.start,
                    allowed: case.matrix.allowance(Anomaly::PhantomWrite, &facts),
                    explanation: format!("{text}, though {why}."),
                    evidence,
                });
            }
        }
    }
    Ok(found)
}
