//! `mqassay mutants`: the table of deliberate bugs, and with `run` the score of the judge against them.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use mqassay_harness::artifact::{MutantLine, MutantSummary};
use mqassay_harness::check::{Evidence, Finding};
use mqassay_reports::CaughtMutant;
use mqassay_scenarios::campaign;
use mqassay_scenarios::mutants::{self, Culprit, ScoreOptions};
use mqassay_scenarios::race::{self, Race, RaceLine, Trial};
use mqassay_scenarios::runner::Run;
use mqassay_scenarios::score_table;
use mqassay_scenarios::shrink::Bound;
use serde::Serialize;

use crate::arguments::{Seeds, jobs, seconds};
use crate::exit::{Exit, Failure};
use crate::progress::{Progress, tell};
use crate::results::{Results, cannot, json_line};

/// Arguments of `mqassay mutants`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// JSON lines on standard output
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Try every mutant until it is caught; exits with 1 where one is not, or where the clean broker is blamed
    Run(Score),
    /// Race guided against blind sampling: runs until each catches a mutant, over independent trials
    Race(RaceArguments),
    /// Print the score as a table in Markdown, from the small plans that tests replay
    Table(TableArguments),
}

#[derive(Debug, clap::Args)]
struct TableArguments {
    /// The folder of the small plans
    #[arg(long, value_name = "DIR", default_value = "scenarios/regressions")]
    plans: PathBuf,
    /// Write it between the markers of a document instead of printing it
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct RaceArguments {
    /// A mutant to race for; may be given several times
    #[arg(long = "mutant", value_name = "NAME", required = true)]
    mutants: Vec<String>,
    /// Trials of each mutant
    #[arg(long, value_name = "N", default_value = "9", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    trials: u64,
    /// First seed of the first trial; each trial has its own seeds
    #[arg(long, value_name = "SEED", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    first_seed: u64,
    /// Runs of a trial at most
    #[arg(long, value_name = "N", default_value = "300", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    runs: u64,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

#[derive(Debug, clap::Args)]
struct Score {
    /// Time for all of it, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    budget: Option<Duration>,
    /// A mutant to try instead of all; may be given several times
    #[arg(long = "mutant", value_name = "NAME")]
    mutants: Vec<String>,
    /// Seeds for each mutant, both ends included; easy ones have the first 20 of them [default: 1..500]
    #[arg(long, value_name = "A..B")]
    seeds: Option<Seeds>,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Where artifacts of catching runs and results go
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// Shrink the plan that catches a mutant, for at most so many seconds each
    #[arg(long, value_name = "SECONDS", value_parser = seconds, num_args = 0..=1, default_missing_value = "60")]
    shrink: Option<Duration>,
    /// Shrink it with so many candidates at most, so that the result is the same on every machine
    #[arg(long, value_name = "N", conflicts_with = "shrink")]
    shrink_tries: Option<u64>,
    /// Add faults that no mutant needs to every plan, so that there is something to shrink
    #[arg(long)]
    crowded: bool,
}

#[derive(Serialize)]
struct TableLine {
    mutant: &'static str,
    grade: &'static str,
    title: &'static str,
    scenarios: &'static [&'static str],
    anomalies: &'static [&'static str],
    needs: &'static [&'static str],
}

/// Lists the table, or computes the score.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.action {
        None => list(arguments.json),
        Some(Action::Run(score)) => run_score(score, arguments.json),
        Some(Action::Race(race)) => run_race(race, arguments.json),
        Some(Action::Table(table)) => write_table(table),
    }
}

fn write_table(arguments: &TableArguments) -> Result<Exit, Failure> {
    let table = score_table::table(&arguments.plans).map_err(Failure::usage)?;
    match &arguments.into {
        None => tell(table.trim_end()),
        Some(path) => {
            let document = std::fs::read_to_string(path).map_err(|error| cannot("read", path, error))?;
            let document = score_table::placed(&document, &table).map_err(Failure::usage)?;
            std::fs::write(path, document).map_err(|error| cannot("write", path, error))?;
        }
    }
    Ok(Exit::Valid)
}

fn list(json: bool) -> Result<Exit, Failure> {
    let subjects = mutants::subjects();
    let width = subjects.iter().map(|row| row.culprit.name().len()).max().unwrap_or(0);
    for row in subjects {
        let line = TableLine {
            mutant: row.culprit.name(),
            grade: row.grade,
            title: row.title,
            scenarios: row.scenarios,
            anomalies: row.anomalies,
            needs: row.needs,
        };
        if json {
            tell(&json_line(&line)?);
        } else {
            tell(&format!("{:width$}  {:6}  {}", line.mutant, line.grade, line.title));
            tell(&format!(
                "{:width$}  {:6}  needs {}; shows as {}",
                "",
                "",
                line.needs.join(" or "),
                line.anomalies.join(", ")
            ));
        }
    }
    Ok(Exit::Valid)
}

fn run_race(arguments: &RaceArguments, json: bool) -> Result<Exit, Failure> {
    known(&arguments.mutants)?;
    let race = Race {
        trials: arguments.trials,
        first_seed: arguments.first_seed,
        runs_max: arguments.runs,
        jobs: jobs(arguments.jobs),
    };
    for subject in arguments.mutants.iter().filter_map(|name| mutants::find(name)) {
        let name = subject.culprit.name();
        let mut progress = Progress::new(name, arguments.trials);
        let line = race::run(&subject, &race, &mut |trial| {
            if !json {
                let Trial { first_seed, blind, guided } = trial;
                progress.say(&format!("{name}: from seed {first_seed}: blind {blind} runs, guided {guided}"));
            }
            progress.step(name);
        });
        let line = line.map_err(Failure::undone)?;
        if json {
            tell(&json_line(&line)?);
        } else {
            let RaceLine { blind_median, guided_median, blind_mean, guided_mean, .. } = line;
            tell(&format!(
                "{name}: median of {} trials: blind {blind_median} runs, guided {guided_median} \
                 (mean: {blind_mean:.1}, {guided_mean:.1})",
                arguments.trials
            ));
        }
    }
    Ok(Exit::Valid)
}

/// Refuses a name that no mutant has.
fn known(names: &[String]) -> Result<(), Failure> {
    let Some(name) = names.iter().find(|name| mutants::find(name).is_none()) else { return Ok(()) };
    let known: Vec<&str> = mutants::subjects().iter().map(|subject| subject.culprit.name()).collect();
    Err(Failure::Usage(format!("no mutant {name:?}; known are {}", known.join(", "))))
}

fn run_score(score: &Score, json: bool) -> Result<Exit, Failure> {
    let bound = Bound { time: score.shrink, tries: score.shrink_tries };
    let options = ScoreOptions {
        seeds: score.seeds.as_ref().map_or(mutants::SEEDS, |seeds| seeds.0.clone()),
        budget: score.budget,
        jobs: jobs(score.jobs),
        runs_dir: score.runs_dir.clone(),
        shrink: (bound != Bound::default()).then_some(bound),
        only: score.mutants.clone(),
        crowded: score.crowded,
    };
    known(&score.mutants)?;
    let results = Results::create(&score.runs_dir)?;
    let (found, summary) = perform(&options, json)?;
    results.write_mutants(&found)?;
    if json {
        tell(&json_line(&summary)?);
    } else {
        shrunk_table(&found).iter().for_each(|line| tell(line));
        tell(&format!(
            "{} of {} mutants caught, {} false alarms",
            summary.caught, summary.mutants, summary.false_alarms
        ));
        if summary.left_out > 0 {
            tell(&format!("{} were left out for want of time; a longer --budget tries them", summary.left_out));
        }
    }
    // A score of some mutants is none of all.
    Ok(if summary.left_out > 0 { exit(&summary).max(Exit::Unknown) } else { exit(&summary) })
}

/// A mutant's line, with what caught it.
pub(crate) type Attempt = (MutantLine, Option<CaughtMutant>);

/// Tries every mutant and tells of each.
pub(crate) fn perform(options: &ScoreOptions, json: bool) -> Result<(Vec<Attempt>, MutantSummary), Failure> {
    let mut found: Vec<Attempt> = Vec::new();
    let mut failure = None;
    let mut progress = Progress::new("mutants", mutants::subjects().len() as u64);
    let summary = mutants::run(options, &mut |line, run| {
        if json {
            match json_line(line) {
                Ok(text) => progress.say(text.trim_end()),
                Err(error) => failure = Some(error),
            }
        } else {
            progress.say(&told(line));
        }
        progress.step(&line.mutant);
        found.push((line.clone(), run.map(|run| story(line, run))));
    })
    .map_err(Failure::undone)?;
    match failure {
        Some(failure) => Err(failure),
        None => Ok((found, summary)),
    }
}

fn told(line: &MutantLine) -> String {
    match &line.anomaly {
        Some(anomaly) => format!("{}: caught as {anomaly} at seed {}", line.mutant, line.seeds_tried),
        None => format!("{}: NOT caught in {} seeds", line.mutant, line.seeds_tried),
    }
}

/// What shrinking made of the catching plans, before and after; nothing where none was shrunk.
fn shrunk_table(found: &[Attempt]) -> Vec<String> {
    let row = |mutant: &str, anomaly: &str, faults: &str, operations: &str, seconds: &str| {
        format!("{mutant:24} {anomaly:20} {faults:>10} {operations:>12} {seconds:>8}")
    };
    let shrunk = found.iter().filter_map(|(line, _)| {
        let small = line.shrunk.as_ref()?;
        let faults = format!("{} → {}", small.faults_before, small.faults);
        let operations = format!("{} → {}", small.operations_before, small.operations);
        let anomaly = line.anomaly.as_deref().unwrap_or_default();
        Some(row(&line.mutant, anomaly, &faults, &operations, &format!("{:.1}", small.seconds)))
    });
    let rows: Vec<String> = shrunk.collect();
    let head = (!rows.is_empty()).then(|| row("mutant", "anomaly", "faults", "operations", "seconds"));
    head.into_iter().chain(rows).collect()
}

/// What a reader of the report is told of a run that caught a mutant: the finding by which it was caught.
fn story(line: &MutantLine, run: &Run) -> CaughtMutant {
    let is_catch = |finding: &&Finding| {
        finding.allowed.is_none() && line.anomaly.as_deref().is_none_or(|anomaly| finding.anomaly.name() == anomaly)
    };
    let finding = run.verdict.findings.iter().find(is_catch);
    let told = |evidence: &Evidence| match evidence.operation {
        Some(operation) => format!("operation {operation}: {}", evidence.text),
        None => evidence.text.clone(),
    };
    let mut explanation: Vec<String> = mutants::find(&line.mutant)
        .map(|row| match row.culprit {
            Culprit::Broker(_) => format!("This broker {}.", row.title),
            Culprit::Client(_) => format!("This client {}.", row.title),
        })
        .into_iter()
        .collect();
    explanation.extend(finding.map(|finding| finding.explanation.clone()));
    CaughtMutant {
        evidence: finding.map_or_else(Vec::new, |finding| finding.evidence.iter().map(told).collect()),
        explanation: explanation.join(" "),
        plan: run.line.plan.clone(),
        replay: campaign::replay_line(&run.line),
    }
}

/// Valid where every mutant that was tried was caught, and the clean broker never blamed.
pub(crate) fn exit(summary: &MutantSummary) -> Exit {
    if summary.mutants == 0 {
        return Exit::Unknown;
    }
    if summary.caught == summary.mutants && summary.false_alarms == 0 { Exit::Valid } else { Exit::Violation }
}
