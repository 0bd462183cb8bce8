//! regression: the log's end or start, as the broker told it, goes back: an answer is lower than what was known before
//! the question was asked.

use super::case::Case;
use super::order::{Fate, QueueOrder};
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::Anomaly;
use crate::history::Queue;

/// Something that the broker told: from `completed_us` on the bound is at least `offset`.
struct Told {
    offset: u64,
    operation: u32,
    invoked_us: u64,
    completed_us: u64,
}

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        let starts: Vec<Told> = order.starts.iter().map(|at| told(case, at.offset, at.operation)).collect();
        found.extend(backward(case, *queue, order, "start", &starts, Vec::new()));
        let ends: Vec<Told> = order.ends.iter().map(|at| told(case, at.offset, at.operation)).collect();
        if !ends.is_empty() {
            found.extend(backward(case, *queue, order, "end", &ends, records(case, *queue, order)));
        }
    }
    Ok(found)
}

/// What acknowledgements and deliveries say of the end.
fn records(case: &Case<'_>, queue: Queue, order: &QueueOrder) -> Vec<Told> {
    // With several copies only acks=all says that the records lie below the high watermark.
    let is_alone = case.replication(&case.topic(queue)) == 1;
    let sure = order.sends.iter().filter(|send| is_alone || send.acks == -1);
    let acknowledged = sure.filter(|send| send.fate == Fate::Acknowledged).filter_map(|send| {
        let end = send.answered_offset? + u64::from(send.count);
        Some(told(case, end, send.operation))
    });
    let delivered = order.reads.iter().map(|read| told(case, read.strand().end(), read.operation));
    acknowledged.chain(delivered).collect()
}

fn told(case: &Case<'_>, offset: u64, operation: u32) -> Told {
    let call = case.operation(operation);
    Told { offset, operation, invoked_us: call.invoked_us, completed_us: call.completed_us }
}

/// Answers that lie below what was known before they were asked for.
fn backward(
    case: &Case<'_>,
    queue: Queue,
    order: &QueueOrder,
    what: &str,
    answers: &[Told],
    others: Vec<Told>,
) -> Vec<Occurrence> {
    let mut known: Vec<&Told> = answers.iter().chain(&others).collect();
    known.sort_by_key(|told| told.completed_us);
    let mut asked: Vec<&Told> = answers.iter().collect();
    asked.sort_by_key(|told| told.invoked_us);
    let mut known = known.into_iter().peekable();
    let mut floor: Option<&Told> = None;
    let mut found = Vec::new();
    for answer in asked {
        // Strictly before: what completed in the very microsecond of the question may have come after it.
        while let Some(told) = known.next_if(|told| told.completed_us < answer.invoked_us) {
            floor = Some(floor.filter(|floor| floor.offset >= told.offset).unwrap_or(told));
        }
        let Some(floor) = floor.filter(|floor| floor.offset > answer.offset) else { continue };
        let facts = case.consequence_facts(queue, order, 0, answer.completed_us);
        let name = case.name(queue);
        found.push(Occurrence {
            anomaly: Anomaly::Regression,
            count: 1,
            allowed: case.matrix.allowance(Anomaly::Regression, &facts),
            explanation: format!(
                "The {what} of {name} was at offset {} and later, as the broker told it, at {}.",
                floor.offset, answer.offset
            ),
            evidence: vec![
                Evidence::operation(floor.operation, format!("the {what} is at offset {} or above", floor.offset)),
                Evidence::operation(answer.operation, format!("the {what} is at offset {}", answer.offset)),
            ],
        });
    }
    found
}
