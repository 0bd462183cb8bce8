//! A campaign: many (scenario, seed) runs over threads, one world per thread, told in order of the seeds.
//! Each plan is written before its run. Start at `run`; `guided` changes plans that reached something new, `proof` repeats
//! runs in another process, `fingerprint` groups failures.

pub mod fingerprint;
pub mod guided;
pub mod proof;
pub mod situations;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use mqassay_harness::artifact::folder as artifact;
use mqassay_harness::artifact::{RunLine, RunRecord, SummaryLine, VerdictKind};
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::sample::sample;
use mqassay_harness::plan::scenario::Scenario;
use thiserror::Error;

use crate::coverage;
use crate::mutants::Culprit;
use crate::runner::{self, Run, RunError};
use guided::Corpus;
use proof::Prover;

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
    pub mutant: Option<Culprit>,
    /// Classes of fault that are left out of every plan.
    pub without: Vec<String>,
    /// Threads, at least 1.
    pub jobs: usize,
    /// Where artifacts go: `<runs_dir>/<scenario>/<seed>/`.
    pub runs_dir: PathBuf,
    /// Which of them stay.
    pub keep: Keep,
    /// How the runs are gone through.
    pub course: Course,
}

/// How a campaign's runs are gone through; by default all of them, each as sampled, each once.
#[derive(Debug, Clone, Default)]
pub struct Course {
    /// The part of the seeds that is run here.
    pub shard: Shard,
    /// Plans are changed toward what was not reached yet.
    pub guided: bool,
    /// A share of the plans is run again in another process.
    pub prove: Option<Prover>,
    /// Runs that were done before, by scenario and seed: they are added up and not run again.
    pub done: BTreeMap<(String, u64), RunRecord>,
}

/// One of so many parts of a campaign's seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 1.
    pub number: u64,
    /// Of how many, at least 1.
    pub of: u64,
}

impl Default for Shard {
    fn default() -> Shard {
        Shard { number: 1, of: 1 }
    }
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
    let mut summary = SummaryLine {
        summary: true,
        events: runner::known_events(),
        coverage: coverage::empty(),
        ..SummaryLine::default()
    };
    let slots = slots(options);
    if options.course.guided {
        run_guided(options, &slots, &mut summary, on_run)?;
    } else {
        let plans = slots.iter().map(|(scenario, seed)| Slot { scenario, seed: *seed, plan: None }).collect::<Vec<_>>();
        run_slots(options, &plans, &mut |_, done| tell(&mut summary, done, on_run))?;
    }
    Ok(summary)
}

/// Rounds: the plans of one are made from what the rounds before it reached.
fn run_guided(
    options: &Options,
    slots: &[(&Scenario, u64)],
    summary: &mut SummaryLine,
    on_run: &mut dyn FnMut(&Run) -> bool,
) -> Result<(), CampaignError> {
    let mut corpus = Corpus::default();
    for round in slots.chunks(guided::ROUND) {
        let fresh = round.iter().map(|(scenario, seed)| (*scenario, plan(options, scenario, *seed))).collect();
        let made = corpus.plans_of(fresh, &|scenario, seed| plan(options, scenario, seed)).into_iter();
        let plans: Vec<Slot> = round
            .iter()
            .zip(made)
            .map(|((scenario, seed), plan)| Slot { scenario, seed: *seed, plan: Some(plan) })
            .collect();
        let goes_on = run_slots(options, &plans, &mut |index, done| {
            if let Some(plan) = &plans[index].plan {
                corpus.learn(plan, &done.record());
            }
            tell(summary, done, on_run)
        })?;
        if !goes_on {
            break;
        }
    }
    Ok(())
}

/// A run to be had.
struct Slot<'a> {
    scenario: &'a Scenario,
    seed: u64,
    /// Its plan, where it is not the sampled one.
    plan: Option<Plan>,
}

/// A run that is over.
enum Done<'a> {
    Now(Box<Run>),
    Before(&'a RunRecord),
}

impl Done<'_> {
    fn record(&self) -> RunRecord {
        match self {
            Done::Now(run) => run.record(),
            Done::Before(record) => (*record).clone(),
        }
    }
}

/// Adds a run up, and tells of it where it was run just now; whether to go on.
fn tell(summary: &mut SummaryLine, done: &Done, on_run: &mut dyn FnMut(&Run) -> bool) -> bool {
    summary.add(&done.record());
    match done {
        Done::Now(run) => on_run(run),
        Done::Before(_) => true,
    }
}

/// Runs the slots over threads and hands them out in order; whether every `on_done` said to go on.
fn run_slots(
    options: &Options,
    slots: &[Slot],
    on_done: &mut dyn FnMut(usize, &Done) -> bool,
) -> Result<bool, CampaignError> {
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..options.jobs.clamp(1, slots.len().max(1)) {
            let (sender, next, stopped) = (sender.clone(), &next, &stopped);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(slot) = slots.get(index).filter(|_| !stopped.load(Ordering::Relaxed)) else { return };
                    if sender.send((index, perform_slot(options, slot))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early: BTreeMap<usize, Result<Done, RunError>> = BTreeMap::new();
        for expected in 0..slots.len() {
            let result = loop {
                if let Some(result) = early.remove(&expected) {
                    break result;
                }
                let (index, result) = receiver.recv().map_err(|_| CampaignError::WorkerLost)?;
                early.insert(index, result);
            };
            let goes_on = result.map(|done| on_done(expected, &done));
            if !matches!(goes_on, Ok(true)) {
                stopped.store(true, Ordering::Relaxed);
            }
            if !goes_on? {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

fn perform_slot<'a>(options: &'a Options, slot: &Slot) -> Result<Done<'a>, RunError> {
    if let Some(record) = options.course.done.get(&(slot.scenario.name.clone(), slot.seed)) {
        return Ok(Done::Before(record));
    }
    let run = match &slot.plan {
        Some(plan) => perform(options, plan),
        None => perform(options, &plan(options, slot.scenario, slot.seed)),
    };
    run.map(|run| Done::Now(Box::new(run)))
}

/// The (scenario, seed) pairs of the shard, in order.
fn slots(options: &Options) -> Vec<(&Scenario, u64)> {
    let (count, Shard { number, of }) = (options.scenarios.len() as u64, options.course.shard);
    assert!((1..=of).contains(&number), "shard {number} of {of}");
    let first = *options.seeds.start();
    let mut slots = Vec::new();
    for seed in options.seeds.clone().filter(|seed| (seed - first) % of == number - 1) {
        if options.each {
            slots.extend(options.scenarios.iter().map(|scenario| (scenario, seed)));
        } else if count > 0 {
            slots.push((&options.scenarios[(seed % count) as usize], seed));
        }
    }
    slots
}

/// How many runs a campaign has, those done before included.
pub fn total(options: &Options) -> u64 {
    slots(options).len() as u64
}

/// The plans of a campaign as sampled, in the order in which they run.
pub fn plans(options: &Options) -> impl Iterator<Item = Plan> + '_ {
    slots(options).into_iter().map(|(scenario, seed)| plan(options, scenario, seed))
}

/// The plan of one run as sampled, without the classes of fault that are left out.
pub fn plan(options: &Options, scenario: &Scenario, seed: u64) -> Plan {
    let mut plan = sample(scenario, seed, None);
    if let Some(culprit) = options.mutant {
        culprit.infect(&mut plan);
    }
    plan.faults.retain(|fault| !options.without.iter().any(|class| class == fault.action.class()));
    plan
}

fn perform(options: &Options, plan: &Plan) -> Result<Run, RunError> {
    let folder = folder_of(&options.runs_dir, plan);
    if options.keep != Keep::None {
        artifact::write_plan(&folder, plan).map_err(RunError::from)?;
    }
    let record = if options.keep == Keep::All { runner::Record::Events } else { runner::Record::HashOnly };
    let mut run = runner::run_plan(plan, record)?;
    // They are kept for guidance alone: there are many.
    if !options.course.guided {
        run.situations.clear();
    }
    if let Some(prover) = options.course.prove.as_ref().filter(|prover| prover.chooses(plan)) {
        run.proof = Some(prover.prove(plan, &run.line.trace_hash)?);
    }
    let keep = match options.keep {
        Keep::All => true,
        Keep::Failures => run.line.verdict != VerdictKind::Valid,
        Keep::None => false,
    };
    if keep {
        record_trace(plan, &mut run)?;
        runner::write_artifacts(&folder, plan, &mut run)?;
    } else if options.keep != Keep::None {
        artifact::remove(&folder).map_err(RunError::from)?;
    }
    Ok(run)
}

/// The events of a run that is kept, from a second run where the first did not record them: a replay by another build can
/// then say where it diverges. They stay out where the second run is not the first one's equal.
fn record_trace(plan: &Plan, run: &mut Run) -> Result<(), RunError> {
    if run.trace_lines.is_empty() {
        let again = runner::run_plan(plan, runner::Record::Events)?;
        if again.line.trace_hash == run.line.trace_hash {
            run.trace_lines = again.trace_lines;
        } else {
            let (scenario, seed) = (&plan.scenario, plan.seed);
            tracing::error!("{scenario} seed {seed}: the same plan gave another trace; this is a bug of mqassay");
        }
    }
    Ok(())
}

/// The folder of a plan's artifacts.
pub fn folder_of(runs_dir: &Path, plan: &Plan) -> PathBuf {
    runs_dir.join(folder_in(&plan.scenario, plan.culprit(), plan.seed))
}

/// The folder of a run's artifacts within the folder of a campaign.
pub fn folder_in(scenario: &str, mutant: Option<&str>, seed: u64) -> PathBuf {
    let scenario = mutant.map_or(scenario.to_owned(), |mutant| format!("{scenario}@{mutant}"));
    Path::new(&scenario).join(seed.to_string())
}

/// The command that replays a run, on one line.
pub fn replay_line(line: &RunLine) -> String {
    if !line.plan.is_empty() {
        return format!("mqassay replay {}", line.plan);
    }
    let mutant = line.mutant.as_ref().map(|mutant| format!(" --mutant {mutant}")).unwrap_or_default();
    format!("mqassay verify {} --seeds {}..{}{mutant}", line.scenario, line.seed, line.seed)
}
