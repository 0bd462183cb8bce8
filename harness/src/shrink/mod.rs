//! Shrinking: delta debugging over plans. From a plan that shows an anomaly to a small one that shows the same anomaly
//! by the same kind of evidence. Start at `shrink`; `search` runs candidates side by side, `leaps` takes the big steps,
//! `pieces` says what can be left out, `salts` what can be under other draws, `values` what can be made simpler. Pure but for the oracle
//! that it is given, so that any world can be behind it. Not here: running plans, and what to do with the result.

mod leaps;
mod pieces;
mod salts;
mod search;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::check::Verdict;
use crate::guarantee::Anomaly;
use crate::plan::Plan;
use search::Search;

/// An anomaly together with what proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EvidenceKind {
    /// The anomaly.
    pub anomaly: Anomaly,
    /// What the evidence consists of.
    pub proof: Proof,
}

/// What a finding's evidence consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// What clients were told.
    Operations,
    /// What the nemesis, the nodes or the world's end told.
    Marks,
}

impl EvidenceKind {
    /// The kinds of a verdict's violations; what is allowed does not count.
    pub fn of_verdict(verdict: &Verdict) -> BTreeSet<EvidenceKind> {
        let violations = verdict.findings.iter().filter(|finding| finding.allowed.is_none());
        violations
            .map(|finding| {
                let by_operation = finding.evidence.iter().any(|evidence| evidence.operation.is_some());
                let proof = if by_operation { Proof::Operations } else { Proof::Marks };
                EvidenceKind { anomaly: finding.anomaly, proof }
            })
            .collect()
    }
}

/// Runs a plan: the kinds of the violations that it shows, or nothing where it cannot be run. Called from several
/// threads.
pub type Oracle<'a> = dyn Fn(&Plan) -> Option<BTreeSet<EvidenceKind>> + Sync + 'a;

/// How to shrink.
pub struct Options<'a> {
    /// What every smaller plan must show.
    pub wanted: EvidenceKind,
    /// Candidates run side by side at most, at least 1. The result does not depend on it.
    pub jobs: usize,
    /// Asked before each run; after the first no, the best plan so far is the result.
    pub may_go_on: &'a (dyn Fn() -> bool + Sync),
    /// Candidates considered at most, those already known among them; none lets time alone decide. Unlike time it bounds
    /// the search at the same place on every machine, whatever the threads.
    pub tries_max: Option<u64>,
    /// Hears of each step down.
    pub on_progress: &'a mut dyn FnMut(Progress),
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being tried.
    pub now: &'static str,
    /// Candidates that were run.
    pub runs: u64,
    /// Faults left.
    pub faults: usize,
    /// Client operations left.
    pub operations: usize,
}

/// The result.
#[derive(Debug, Clone, PartialEq)]
pub struct Shrunk {
    /// The smallest plan found that shows what was wanted.
    pub plan: Plan,
    /// Candidates that were run.
    pub runs: u64,
    /// Whether nothing was left to try: no fault, no operation and no client of the plan can be left out by itself.
    pub is_minimal: bool,
}

/// Shrinks a plan that shows what is wanted. Client slots keep their indexes, because rules and values name them.
///
/// Each step takes the first success in a stated order, whichever thread finds it, and steps are repeated until a whole
/// round of them changes nothing. No candidate is run twice.
pub fn shrink<'a>(plan: &Plan, oracle: &'a Oracle<'a>, options: Options<'a>) -> Shrunk {
    let mut start = plan.clone();
    start.recorded_trace = None;
    let mut search = Search::new(start, oracle, options);
    loop {
        let before = search.steps();
        leaps::leap(&mut search);
        pieces::drop_pieces(&mut search);
        salts::drop_under_other_salts(&mut search);
        // Values only when the pieces are settled: there are few of them then, and runs are short.
        values::simplify(&mut search);
        if search.is_stopped() || search.steps() == before {
            break;
        }
    }
    search.finish()
}
