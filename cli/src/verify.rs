//! `mqassay verify`: scenarios over seeds in the simulated world, told run by run.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use mqassay_broker::mutant::Mutant;
use mqassay_harness::artifact::{RunLine, SummaryLine, VerdictKind};
use mqassay_harness::plan::scenario::{FaultRanges, Scenario};
use mqassay_scenarios::campaign::{self, Keep, Options};
use mqassay_scenarios::{catalogue, mutants};

use crate::arguments::{Seeds, jobs};
use crate::exit::{Exit, Failure};
use crate::progress::{Progress, tell};
use crate::results::{Results, json_line};

/// Arguments of `mqassay verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names of built-in scenarios, or paths of scenario files (TOML); all built-in ones where none is named
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Seeds, both ends included; seed s takes scenario s mod n
    #[arg(long, value_name = "A..B", default_value = "1..100")]
    seeds: Seeds,
    /// All scenarios on each seed
    #[arg(long)]
    each: bool,
    /// A deliberate bug for the broker
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// A class of fault to leave out; may be given several times
    #[arg(long, value_name = "CLASS")]
    without: Vec<String>,
    /// JSON lines on standard output
    #[arg(long)]
    json: bool,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Where artifacts and results go
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// Which runs' artifacts stay
    #[arg(long, value_enum, default_value_t = Kept::Failures)]
    keep: Kept,
}

/// Which runs' artifacts stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kept {
    /// Of every run
    All,
    /// Of runs that are not valid
    Failures,
    /// None, and no results either
    None,
}

/// Runs the campaign and exits by its verdict.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let options = options(arguments)?;
    let total = options.seeds.end() - options.seeds.start() + 1;
    let total = total.saturating_mul(if options.each { options.scenarios.len() as u64 } else { 1 });
    let results = match arguments.keep {
        Kept::None => None,
        Kept::All | Kept::Failures => Some(Results::create(&arguments.runs_dir)?),
    };
    let mut lines: Vec<RunLine> = Vec::new();
    let mut progress = Progress::new("verify", total);
    let summary = campaign::run(&options, &mut |run| {
        if arguments.json {
            match json_line(&run.line) {
                Ok(line) => progress.say(line.trim_end()),
                Err(failure) => {
                    failure.report();
                    return false;
                }
            }
        } else if run.line.verdict != VerdictKind::Valid {
            progress.say(&told(&run.line));
        }
        progress.step(&run.line.scenario);
        lines.push(run.line.clone());
        true
    })
    .map_err(Failure::undone)?;
    progress.finish();
    if let Some(results) = results {
        results.write_runs(&lines, &summary)?;
    }
    if arguments.json {
        tell(&json_line(&summary)?);
    } else {
        print_summary(&summary);
    }
    Ok(exit(&summary))
}

fn options(arguments: &Arguments) -> Result<Options, Failure> {
    let scenarios: Vec<Scenario> = if arguments.scenarios.is_empty() {
        catalogue::catalogue()
    } else {
        arguments
            .scenarios
            .iter()
            .map(|name| catalogue::find(name))
            .collect::<Result<_, _>>()
            .map_err(Failure::usage)?
    };
    for class in &arguments.without {
        let known = FaultRanges::default().classes().map(|(name, _)| name);
        if !known.contains(&class.as_str()) {
            return Err(Failure::Usage(format!("no class of fault {class:?}; known are {}", known.join(", "))));
        }
    }
    Ok(Options {
        scenarios,
        seeds: arguments.seeds.0.clone(),
        each: arguments.each,
        mutant: arguments.mutant.as_deref().map(mutant).transpose()?,
        without: arguments.without.clone(),
        jobs: jobs(arguments.jobs),
        runs_dir: arguments.runs_dir.clone(),
        keep: match arguments.keep {
            Kept::All => Keep::All,
            Kept::Failures => Keep::Failures,
            Kept::None => Keep::None,
        },
    })
}

fn mutant(name: &str) -> Result<Mutant, Failure> {
    mutants::find(name).map(|row| row.mutant).ok_or_else(|| {
        let known: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        Failure::Usage(format!("no mutant {name:?}; known are {}", known.join(", ")))
    })
}

/// A run that is not valid, with the lines that replay and shrink it.
pub(crate) fn told(line: &RunLine) -> String {
    let verdict = match line.verdict {
        VerdictKind::Valid => "valid",
        VerdictKind::Unknown => "unknown",
        VerdictKind::Invalid => "INVALID",
    };
    let anomalies: Vec<String> = line.anomalies.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let found = if anomalies.is_empty() { String::new() } else { format!(" ({})", anomalies.join(", ")) };
    let shrink = match line.verdict {
        VerdictKind::Invalid if !line.plan.is_empty() => {
            format!("; shrink: mqassay shrink {} -o small.toml", line.plan)
        }
        VerdictKind::Valid | VerdictKind::Unknown | VerdictKind::Invalid => String::new(),
    };
    format!("{verdict}{found}: {} seed {}; replay: {}{shrink}", line.scenario, line.seed, campaign::replay_line(line))
}

/// The sum of a campaign for people.
pub(crate) fn print_summary(summary: &SummaryLine) {
    let SummaryLine { runs, valid, unknown, invalid, .. } = summary;
    tell(&format!("{runs} runs: {valid} valid, {unknown} unknown, {invalid} invalid"));
    let events: Vec<String> = summary.events.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if !events.is_empty() {
        tell(&format!("events: {}", events.join(", ")));
    }
}

/// The gravest verdict of a campaign; one without runs showed nothing.
pub(crate) fn exit(summary: &SummaryLine) -> Exit {
    if summary.invalid > 0 {
        Exit::Violation
    } else if summary.unknown > 0 || summary.runs == 0 {
        Exit::Unknown
    } else {
        Exit::Valid
    }
}
