//! `mqassay assay`, the main job: verify the reference broker under faults, catch deliberate bugs, measure the broker,
//! write a report. Each part has its share of the budget; a part that comes out bad does not keep the others from running.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mqassay_benches::plan::LoadPlan;
use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::measure::manifest;
use mqassay_harness::measure::result::BenchResult;
use mqassay_reports::ReportInput;
use mqassay_scenarios::campaign::{self, Course, Keep, Options};
use mqassay_scenarios::catalogue;
use mqassay_scenarios::mutants::{SEEDS, ScoreOptions};

use crate::arguments::{jobs, seconds};
use crate::exit::{Exit, Failure};
use crate::progress::{Progress, tell};
use crate::report::write_page;
use crate::results::Results;
use crate::{bench, mutants, verify};

/// Arguments of `mqassay assay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the report, the results and the artifacts go
    #[arg(long, value_name = "DIR", default_value = DEFAULT_OUT)]
    out: PathBuf,
    /// Time for the whole job, in seconds; what is measured takes at least 25
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = DEFAULT_BUDGET)]
    budget: Duration,
}

const DEFAULT_OUT: &str = "runs";
const DEFAULT_BUDGET: &str = "55";

impl Default for Arguments {
    fn default() -> Arguments {
        let budget = seconds(DEFAULT_BUDGET).expect("a test parses the default budget");
        Arguments { out: PathBuf::from(DEFAULT_OUT), budget }
    }
}

/// Share of the budget for verifying.
const VERIFY_SHARE: f64 = 0.3;
/// Share of the budget for mutants, at most.
const MUTANTS_SHARE: f64 = 0.25;
/// More seeds than any budget of the main job reaches.
const SEEDS_MAX: u64 = 100_000;

/// Does the main job; it exits with 0 when all came out as it should.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let began = Instant::now();
    let results = Results::create(&arguments.out)?;
    let mut input =
        ReportInput { title: "The reference broker, put to the proof".to_owned(), ..ReportInput::default() };
    let mut exits = Vec::new();

    verify_for(arguments, began, &mut input)?;
    results.write_runs(&input.runs, &input.summary)?;
    verify::print_summary(&input.summary);
    exits.push(verify::exit(&input.summary));

    let (found, score) = mutants::perform(
        &ScoreOptions {
            seeds: SEEDS,
            budget: Some(arguments.budget.mul_f64(MUTANTS_SHARE)),
            jobs: jobs(None),
            runs_dir: arguments.out.clone(),
            shrink: None,
            only: Vec::new(),
            crowded: false,
        },
        false,
    )?;
    results.write_mutants(&found)?;
    exits.push(mutants::exit(&score));
    input.mutants = found;

    let quick_began = Instant::now();
    measure(&quick_plan()?, &results, &mut input, &mut exits)?;
    let slowdown = (quick_began.elapsed().as_secs_f64() / QUICK_SECONDS).max(1.0);
    let queues = queues_plan(arguments.budget.saturating_sub(began.elapsed()), slowdown)?;
    measure(&queues, &results, &mut input, &mut exits)?;

    input.manifest = manifest_of(&arguments.out, &input.benches, began);
    results.write_manifest(&input.manifest)?;
    let page = bench::page_in(&arguments.out);
    write_page(&input, &page)?;
    tell(&format!("report: {}", page.display()));
    Ok(exits.into_iter().max().unwrap_or(Exit::Unknown))
}

/// Seeds from 1 on until the share of the budget is used up; at least one round of all scenarios.
fn verify_for(arguments: &Arguments, began: Instant, input: &mut ReportInput) -> Result<(), Failure> {
    let share = arguments.budget.mul_f64(VERIFY_SHARE);
    let scenarios = catalogue::catalogue();
    let round = scenarios.len();
    let options = Options {
        scenarios,
        seeds: 1..=SEEDS_MAX,
        each: false,
        mutant: None,
        without: Vec::new(),
        jobs: jobs(None),
        runs_dir: arguments.out.clone(),
        keep: Keep::Failures,
        course: Course::default(),
    };
    let mut progress = Progress::new("verify", share.as_secs());
    let summary = campaign::run(&options, &mut |run| {
        if run.line.verdict != VerdictKind::Valid {
            progress.say(&verify::told(&run.line));
        }
        input.runs.push(run.line.clone());
        let now = format!("s, {} runs", input.runs.len());
        progress.reach(began.elapsed().as_secs(), share.as_secs(), &now);
        input.runs.len() < round || began.elapsed() < share
    });
    progress.finish();
    input.summary = summary.map_err(Failure::undone)?;
    Ok(())
}

/// Runs one load plan, tells its figures and adds them to the report.
fn measure(plan: &LoadPlan, results: &Results, input: &mut ReportInput, exits: &mut Vec<Exit>) -> Result<(), Failure> {
    let result = bench::measure(plan, &plan.systems)?;
    results.write_bench(&result)?;
    bench::print_figures(&result);
    exits.push(bench::exit(&result));
    input.benches.push(result);
    Ok(())
}

/// The quick plan, its blocks bounded by records too, so that reading everything back does not take long.
fn quick_plan() -> Result<LoadPlan, Failure> {
    let mut plan = LoadPlan::named("quick").map_err(Failure::undone)?;
    if let Some(throughput) = &mut plan.throughput {
        throughput.records_maximum = throughput.records_maximum.min(QUICK_RECORDS_MAX);
    }
    Ok(plan)
}

/// Records of an unthrottled block in the main job, at most.
const QUICK_RECORDS_MAX: u64 = 1_000_000;
/// What the quick plan takes on a machine that is not busy with other things, in seconds.
const QUICK_SECONDS: f64 = 18.0;
/// The shortest block of the sweep that still says something, in seconds.
const SWEEP_BLOCK_SECONDS_MIN: f64 = 0.15;

/// The sweep over queues, cut to the time that is left: fewer pairs first, then fewer points, its ends always kept.
/// `slowdown` says how much longer than on an idle machine things take.
fn queues_plan(left: Duration, slowdown: f64) -> Result<LoadPlan, Failure> {
    let mut plan = LoadPlan::named("queues").map_err(Failure::undone)?;
    let systems = plan.systems.len() as f64;
    if let Some(sweep) = &mut plan.sweep {
        // Beside the systems' blocks each point has one with the null sink. Making a topic, reading everything back and
        // deleting it take a second, and nearly a millisecond for each queue.
        let seconds_for = |queues: &[u32], pairs: u32| {
            let blocks = systems * f64::from(pairs) + 1.0;
            let overhead: f64 = queues.iter().map(|count| 1.0 + 0.000_8 * f64::from(*count)).sum();
            (left.as_secs_f64() / blocks - overhead * slowdown) / queues.len() as f64
        };
        sweep.pairs = sweep.pairs.min(2);
        if seconds_for(&sweep.queues, sweep.pairs) < SWEEP_BLOCK_SECONDS_MIN {
            sweep.pairs = 1;
        }
        if seconds_for(&sweep.queues, sweep.pairs) < SWEEP_BLOCK_SECONDS_MIN {
            // 1, 16, 256 and 4,096 of 1, 4, 16, 64, 256, 1,024 and 4,096.
            sweep.queues = sweep.queues.iter().copied().step_by(2).collect();
        }
        let seconds = seconds_for(&sweep.queues, sweep.pairs);
        sweep.block_seconds = seconds.clamp(SWEEP_BLOCK_SECONDS_MIN, sweep.block_seconds);
    }
    Ok(plan)
}

fn manifest_of(folder: &Path, benches: &[BenchResult], began: Instant) -> BTreeMap<String, String> {
    let mut entries = manifest::machine(folder);
    // The first bench knows the clients' and systems' versions.
    if let Some(bench) = benches.first() {
        for (name, value) in &bench.manifest {
            entries.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    entries.insert("mqassay".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    entries.insert("command line".to_owned(), std::env::args().collect::<Vec<_>>().join(" "));
    entries.insert("wall seconds".to_owned(), format!("{:.1}", began.elapsed().as_secs_f64()));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_help() {
        assert_eq!(Arguments::default().budget, Duration::from_secs(55));
    }

    #[test]
    fn the_sweep_fits_into_what_is_left() {
        let cases =
            [(0, 1.0, 1, 4), (30, 1.0, 1, 4), (40, 1.0, 1, 7), (40, 2.0, 1, 4), (70, 1.0, 2, 7), (1_000, 1.5, 2, 7)];
        for (left, slowdown, pairs, points) in cases {
            let plan = queues_plan(Duration::from_secs(left), slowdown).unwrap();
            let sweep = plan.sweep.as_ref().unwrap();
            assert_eq!((sweep.pairs, sweep.queues.len()), (pairs, points), "{left} seconds left");
            assert_eq!((sweep.queues[0], sweep.queues[points - 1]), (1, 4_096));
            assert!((0.1..=1.0).contains(&sweep.block_seconds), "{}", sweep.block_seconds);
        }
    }
}
