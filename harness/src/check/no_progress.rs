//! no-progress: in the liveness phase something did not end within the bound, though a sufficient core is healthy.

use super::case::Case;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};
use crate::history::Mark;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    if case.context.has_liveness_phase && case.reached().is_none() {
        return Err("the history has no end of the liveness phase: the run was cut off".to_owned());
    }
    let mut found = Vec::new();
    for mark in &case.history.marks {
        match mark {
            Mark::LivenessEnded { at_us, reached: false, missing } => {
                let facts =
                    Facts { faults: case.struck(0, *at_us), replication: case.context.replication, ..Facts::default() };
                let shown = missing.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
                found.push(Occurrence {
                    anomaly: Anomaly::NoProgress,
                    count: missing.len().max(1) as u64,
                    allowed: case.matrix.allowance(Anomaly::NoProgress, &facts),
                    explanation: format!("Faults had stopped, yet within the bound this did not end: {shown}."),
                    evidence: missing.iter().map(|what| Evidence::mark(what.clone())).collect(),
                });
            }
            Mark::LivenessEnded { reached: true, .. }
            | Mark::Fault { .. }
            | Mark::NodeExit { .. }
            | Mark::LivenessBegan { .. } => {}
        }
    }
    Ok(found)
}
