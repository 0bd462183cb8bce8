//! rebalance-livelock: after the faults have stopped, a group finds no generation that lasts within the bound: a member
//! that did not end had no queues given to it, or was given them again and again.

use super::case::Case;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};
use crate::history::{Call, GroupStep, Mark, Outcome};

/// Generations of one member in the liveness phase that are too many.
const GENERATIONS_MAXIMUM: usize = 30;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let began_us = case.history.marks.iter().find_map(|mark| match mark {
        Mark::LivenessBegan { at_us } => Some(*at_us),
        Mark::Fault { .. } | Mark::NodeExit { .. } | Mark::LivenessEnded { .. } => None,
    });
    let (Some(began_us), Some(false)) = (began_us, case.reached()) else { return Ok(Vec::new()) };
    let missing = case.history.marks.iter().find_map(|mark| match mark {
        Mark::LivenessEnded { missing, .. } => Some(missing),
        Mark::Fault { .. } | Mark::NodeExit { .. } | Mark::LivenessBegan { .. } => None,
    });
    let mut found = Vec::new();
    for (group, view) in case.groups() {
        for client in &view.clients {
            let unended = format!("client-{client} has not ended");
            if !missing.is_some_and(|missing| missing.contains(&unended)) {
                continue;
            }
            let generations = generations_of(case, *client, began_us);
            if (1..=GENERATIONS_MAXIMUM).contains(&generations) {
                continue;
            }
            let facts =
                Facts { faults: case.struck(0, u64::MAX), replication: case.context.replication, ..Facts::default() };
            found.push(Occurrence {
                anomaly: Anomaly::RebalanceLivelock,
                count: 1,
                allowed: case.matrix.allowance(Anomaly::RebalanceLivelock, &facts),
                explanation: format!(
                    "Faults had stopped, and member {client} of group {group} was part of {generations} generations without an end."
                ),
                evidence: vec![Evidence::mark(unended)],
            });
        }
    }
    Ok(found)
}

/// How often the member was told what it owns since then.
fn generations_of(case: &Case<'_>, client: u32, since_us: u64) -> usize {
    let operations = case.history.operations.iter().filter(|operation| {
        operation.client.0 == client && operation.invoked_us >= since_us && operation.outcome == Outcome::Done
    });
    let is_owning = |call: &Call| matches!(call, Call::Group { step: GroupStep::Own { .. }, .. });
    operations.filter(|operation| is_owning(&operation.call)).count()
}
