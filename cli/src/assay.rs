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
use mqassay_scenarios::campaign::{self, Keep, Options};
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
const DEFAULT_BUDGET: &str = "75";

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
        },
        false,
    )?;
    results.write_mutants(&found)?;
    exits.push(mutants::exit(&score));
    input.mutants = found;

    for plan in load_plans(arguments.budget.saturating_sub(began.elapsed()))? {
        let result = bench::measure(&plan, &plan.systems)?;
        results.write_bench(&result)?;
        bench::print_result(&result);
        exits.push(bench::exit(&result));
        input.benches.push(result);
    }

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

/// The quick plan, and the sweep over queues with its blocks cut to what is left of the budget.
fn load_plans(left: Duration) -> Result<Vec<LoadPlan>, Failure> {
    let quick = LoadPlan::named("quick").map_err(Failure::undone)?;
    let mut queues = LoadPlan::named("queues").map_err(Failure::undone)?;
    let systems = queues.systems.len() as f64;
    if let Some(sweep) = &mut queues.sweep {
        sweep.pairs = sweep.pairs.min(2);
        let blocks = sweep.queues.len() as f64 * systems * f64::from(sweep.pairs);
        // The quick plan takes about 15 seconds; half of what is left after it goes to making topics.
        let seconds = (left.as_secs_f64() - 15.0).max(0.0) * 0.5 / blocks;
        sweep.block_seconds = seconds.clamp(0.15, sweep.block_seconds);
    }
    Ok(vec![quick, queues])
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
        assert_eq!(Arguments::default().budget, Duration::from_secs(75));
    }

    #[test]
    fn the_sweep_fits_into_what_is_left() {
        for (left, longest) in [(0, 0.16), (40, 1.0), (1_000, 1.01)] {
            let plans = load_plans(Duration::from_secs(left)).unwrap();
            let sweep = plans[1].sweep.as_ref().unwrap();
            assert!(sweep.block_seconds <= longest && sweep.block_seconds > 0.1, "{left}: {}", sweep.block_seconds);
        }
    }
}
