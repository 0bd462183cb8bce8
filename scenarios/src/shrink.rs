//! Shrinks a plan over the simulated world: from a run that breaks a guarantee to a plan of a few lines that breaks the
//! same one. The algorithm is `mqassay_harness::shrink`; here are the runs behind it, the time, and the file it ends
//! in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use mqassay_harness::artifact::{RunLine, ShrunkLine};
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::readable::to_toml;
use mqassay_harness::shrink::{self, EvidenceKind, Progress};
use thiserror::Error;

use crate::runner::{self, Record, RunError};

/// Real time for one plan where nobody says otherwise.
pub const BUDGET: Duration = Duration::from_secs(60);

/// Where shrinking ends at the latest; without any bound it comes to its own end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bound {
    /// Real time at most.
    pub time: Option<Duration>,
    /// Candidates at most: the same result on every machine.
    pub tries: Option<u64>,
}

/// How to shrink.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the anomaly that must stay; the gravest violation of the plan where none is named.
    pub anomaly: Option<String>,
    /// Where it ends at the latest.
    pub bound: Bound,
    /// Threads, at least 1.
    pub jobs: usize,
}

/// A plan that was shrunk.
#[derive(Debug, Clone)]
pub struct ShrunkPlan {
    /// The small plan.
    pub plan: Plan,
    /// Its run's line.
    pub line: RunLine,
    /// The anomaly that stayed.
    pub anomaly: String,
    /// Faults and client operations of the plan that it came from.
    pub before: (usize, usize),
    /// Runs that it took.
    pub runs: u64,
    /// Real seconds that it took.
    pub seconds: f64,
    /// Whether nothing was left to try.
    pub is_minimal: bool,
}

/// Why a plan was not shrunk.
#[derive(Debug, Error)]
pub enum ShrinkError {
    /// The plan cannot be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The plan does not break what must stay broken.
    #[error("nothing to shrink: the plan shows {shown}, and wanted is {wanted}")]
    NothingToShrink {
        /// The anomalies of the run.
        shown: String,
        /// What must stay.
        wanted: String,
    },
    /// The small plan cannot be written.
    #[error("cannot write the plan {path}: {source}")]
    Unwritable {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Shrinks a plan that breaks a guarantee.
pub fn shrink_plan(
    plan: &Plan,
    options: &Options,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<ShrunkPlan, ShrinkError> {
    let began = Instant::now();
    let first = runner::run_plan(plan, Record::HashOnly)?;
    let shown = EvidenceKind::of_verdict(&first.verdict);
    let is_wanted =
        |kind: &&EvidenceKind| options.anomaly.as_deref().is_none_or(|anomaly| anomaly == kind.anomaly.name());
    let Some(wanted) = shown.iter().find(is_wanted).copied() else {
        let names: Vec<&str> = shown.iter().map(|kind| kind.anomaly.name()).collect();
        return Err(ShrinkError::NothingToShrink {
            shown: if names.is_empty() { "no violation".to_owned() } else { names.join(", ") },
            wanted: options.anomaly.clone().unwrap_or_else(|| "any violation".to_owned()),
        });
    };
    let may_go_on = || options.bound.time.is_none_or(|most| began.elapsed() < most);
    let (jobs, tries_max) = (options.jobs.max(1), options.bound.tries);
    let search = shrink::Options { wanted, jobs, may_go_on: &may_go_on, tries_max, on_progress };
    let oracle = |plan: &Plan| violations(plan).map(|shown| due_to_culprit(plan, shown, wanted));
    let shrunk = shrink::shrink(plan, &oracle, search);
    let line = runner::run_plan(&shrunk.plan, Record::HashOnly)?.line;
    Ok(ShrunkPlan {
        line,
        anomaly: wanted.anomaly.name().to_owned(),
        before: (plan.faults.len(), plan.operation_count()),
        runs: shrunk.runs,
        seconds: began.elapsed().as_secs_f64(),
        is_minimal: shrunk.is_minimal,
        plan: shrunk.plan,
    })
}

/// The violations of a plan's run. A candidate that the world or the clients refuse is none, whatever the reason: the
/// plan that it came from did run.
fn violations(plan: &Plan) -> Option<BTreeSet<EvidenceKind>> {
    runner::run_plan(plan, Record::HashOnly).ok().map(|run| EvidenceKind::of_verdict(&run.verdict))
}

/// The violations, without the wanted one where the plan shows it with nobody at fault, too: a world so small that it
/// cannot work at all would otherwise pass for the smallest proof of any bug.
fn due_to_culprit(plan: &Plan, mut shown: BTreeSet<EvidenceKind>, wanted: EvidenceKind) -> BTreeSet<EvidenceKind> {
    if shown.contains(&wanted) && plan.culprit().is_some() {
        let mut clean = plan.clone();
        (clean.mutant, clean.client_mutant) = (None, None);
        let is_always = violations(&clean).is_none_or(|found| !found.is_empty());
        if is_always {
            shown.remove(&wanted);
        }
    }
    shown
}

fn fault_counts(plan: &Plan) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for fault in &plan.faults {
        *counts.entry(fault.action.class().to_owned()).or_insert(0) += 1;
    }
    counts
}

impl ShrunkPlan {
    /// Writes the plan as TOML and tells what became of it.
    pub fn write(&self, path: &Path) -> Result<ShrunkLine, ShrinkError> {
        let shown = path.display().to_string();
        let comment = format!(
            "Shows {}. Shrunk from {} faults and {} client operations.\nRun it again: mqassay replay {shown}",
            self.anomaly, self.before.0, self.before.1
        );
        std::fs::write(path, to_toml(&self.plan, &comment))
            .map_err(|source| ShrinkError::Unwritable { path: shown.clone(), source })?;
        Ok(ShrunkLine {
            faults: self.plan.faults.len() as u64,
            operations: self.plan.operation_count() as u64,
            seconds: self.seconds,
            plan: shown,
            faults_before: self.before.0 as u64,
            operations_before: self.before.1 as u64,
            fault_classes: fault_counts(&self.plan),
        })
    }
}
