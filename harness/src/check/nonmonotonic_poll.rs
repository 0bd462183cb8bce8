//! nonmonotonic-poll: a consumer gets records of a queue again, or in reverse, without having asked for it by a seek.

use super::case::Case;
use super::steps::missteps;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::Anomaly;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        for step in missteps(case, order).iter().filter(|step| step.came < step.due) {
            let facts = case.consequence_facts(*queue, order, 0, step.completed_us);
            let name = case.name(*queue);
            let mut evidence = Vec::new();
            evidence.extend(
                step.previous.map(|operation| {
                    Evidence::operation(operation, format!("{name} was read up to offset {}", step.due))
                }),
            );
            evidence.push(Evidence::operation(step.operation, format!("went on at offset {}", step.came)));
            found.push(Occurrence {
                anomaly: Anomaly::NonmonotonicPoll,
                count: 1,
                allowed: case.matrix.allowance(Anomaly::NonmonotonicPoll, &facts),
                explanation: format!(
                    "A consumer of {name} had to go on at offset {} and, without a seek, got offset {} next.",
                    step.due, step.came
                ),
                evidence,
            });
        }
    }
    Ok(found)
}
