//! A campaign: many (scenario, seed) runs over threads, one world per thread, told in order of the seeds.
//! Each plan is written before its run. Start at `run`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use mqassay_broker::mutant::Mutant;
use mqassay_harness::artifact::folder as artifact;
use mqassay_harness::artifact::{RunLine, SummaryLine, VerdictKind};
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::sample::sample;
use mqassay_harness::plan::scenario::Scenario;
use thiserror::Error;

use crate::runner::{self, Run, RunError};

/// Which artifacts stay on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Those of every run.
    All,
    /// Those of runs that are not valid.
    Failures,
    /// None.
    None,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Scenarios; seed s takes number s mod n, or all of them with `each`.
    pub scenarios: Vec<Scenario>,
    /// Seeds, both ends included.
    pub seeds: RangeInclusive<u64>,
    /// All scenarios on each seed.
    pub each: bool,
    /// A deliberate bug for every node.
    pub mutant: Option<Mutant>,
    /// Classes of fault that are left out of every plan.
    pub without: Vec<String>,
    /// Threads, at least 1.
    pub jobs: usize,
    /// Where artifacts go: `<runs_dir>/<scenario>/<seed>/`.
    pub runs_dir: PathBuf,
    /// Which of them stay.
    pub keep: Keep,
}

/// Why a campaign could not go on.
#[derive(Debug, Error)]
pub enum CampaignError {
    /// A run could not be performed or recorded.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A thread ended without its result.
    #[error("a worker ended before its runs were done; this is a bug of mqassay")]
    WorkerLost,
}

/// Runs the campaign. `on_run` hears of each run in order; answering false ends the campaign after that run.
pub fn run(options: &Options, on_run: &mut dyn FnMut(&Run) -> bool) -> Result<SummaryLine, CampaignError> {
    let plans = plans(options);
    let next = AtomicUsize::new(0);
    let mut summary = SummaryLine { summary: true, ..SummaryLine::default() };
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..options.jobs.clamp(1, plans.len().max(1)) {
            let (sender, plans, next) = (sender.clone(), &plans, &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&(scenario, seed)) = plans.get(index) else { return };
                    let plan = plan(options, scenario, seed);
                    if sender.send((index, perform(options, &plan))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early: BTreeMap<usize, Result<Run, RunError>> = BTreeMap::new();
        for expected in 0..plans.len() {
            let result = loop {
                if let Some(result) = early.remove(&expected) {
                    break result;
                }
                let (index, result) = receiver.recv().map_err(|_| CampaignError::WorkerLost)?;
                early.insert(index, result);
            };
            let stop = result.as_ref().is_err();
            let finished = result.map(|run| {
                add(&mut summary, &run);
                on_run(&run)
            });
            if stop || !matches!(finished, Ok(true)) {
                next.store(plans.len(), Ordering::Relaxed);
            }
            if !finished? {
                break;
            }
        }
        Ok(summary)
    })
}

/// The (scenario, seed) pairs of a campaign, in order.
fn plans(options: &Options) -> Vec<(&Scenario, u64)> {
    let count = options.scenarios.len() as u64;
    let mut plans = Vec::new();
    for seed in options.seeds.clone() {
        if options.each {
            plans.extend(options.scenarios.iter().map(|scenario| (scenario, seed)));
        } else if count > 0 {
            plans.push((&options.scenarios[(seed % count) as usize], seed));
        }
    }
    plans
}

/// The plan of one run, without the classes of fault that are left out.
pub fn plan(options: &Options, scenario: &Scenario, seed: u64) -> Plan {
    let mut plan = sample(scenario, seed, options.mutant.map(Mutant::name));
    plan.faults.retain(|fault| !options.without.iter().any(|class| class == fault.action.class()));
    plan
}

fn perform(options: &Options, plan: &Plan) -> Result<Run, RunError> {
    let folder = folder_of(&options.runs_dir, plan);
    if options.keep != Keep::None {
        artifact::write_plan(&folder, plan).map_err(RunError::from)?;
    }
    let mut run = runner::run_plan(plan, runner::Record::HashOnly)?;
    let keep = match options.keep {
        Keep::All => true,
        Keep::Failures => run.line.verdict != VerdictKind::Valid,
        Keep::None => false,
    };
    if keep {
        runner::write_artifacts(&folder, plan, &mut run)?;
    } else if options.keep != Keep::None {
        artifact::remove(&folder).map_err(RunError::from)?;
    }
    Ok(run)
}

/// The folder of a plan's artifacts.
pub fn folder_of(runs_dir: &Path, plan: &Plan) -> PathBuf {
    let scenario = match &plan.mutant {
        Some(mutant) => format!("{}@{mutant}", plan.scenario),
        None => plan.scenario.clone(),
    };
    runs_dir.join(scenario).join(plan.seed.to_string())
}

/// Adds a run to the summary; an event that never happened in any run is there with zero.
fn add(summary: &mut SummaryLine, run: &Run) {
    summary.runs += 1;
    match run.line.verdict {
        VerdictKind::Valid => summary.valid += 1,
        VerdictKind::Unknown => summary.unknown += 1,
        VerdictKind::Invalid => summary.invalid += 1,
    }
    for (name, count) in &run.events {
        *summary.events.entry(name.clone()).or_insert(0) += count;
    }
}

/// The command that replays a run, on one line.
pub fn replay_line(line: &RunLine) -> String {
    if !line.plan.is_empty() {
        return format!("mqassay replay {}", line.plan);
    }
    let mutant = line.mutant.as_ref().map(|mutant| format!(" --mutant {mutant}")).unwrap_or_default();
    format!("mqassay verify {} --seeds {}..{}{mutant}", line.scenario, line.seed, line.seed)
}
