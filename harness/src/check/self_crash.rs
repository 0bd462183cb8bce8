//! self-crash: a node ended by itself, other than as declared for a disk that fails.

use super::case::Case;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};
use crate::history::Mark;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for mark in &case.history.marks {
        match mark {
            Mark::NodeExit { at_us, node, reason, declared } => {
                let facts = Facts {
                    faults: case.struck(0, *at_us),
                    replication: case.context.replication,
                    declared: Some(*declared),
                    ..Facts::default()
                };
                let text = format!("node {node} ended by itself after {} ms: {reason}", at_us / 1_000);
                found.push(Occurrence {
                    anomaly: Anomaly::SelfCrash,
                    count: 1,
                    allowed: case.matrix.allowance(Anomaly::SelfCrash, &facts),
                    explanation: format!("{text}."),
                    evidence: vec![Evidence::mark(text)],
                });
            }
            Mark::Fault { .. } | Mark::LivenessBegan { .. } | Mark::LivenessEnded { .. } => {}
        }
    }
    Ok(found)
}
