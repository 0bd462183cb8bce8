//! `mqassay shrink`: a plan that breaks a guarantee, as small as it can be and still break the same one.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use mqassay_harness::artifact::{ShrunkLine, folder};
use mqassay_scenarios::runner::RunError;
use mqassay_scenarios::shrink::{self, Bound, Options, ShrinkError};
use serde::Serialize;

use crate::arguments::{jobs, seconds};
use crate::exit::{Exit, Failure};
use crate::progress::{Progress, tell};
use crate::results::json_line;

/// Arguments of `mqassay shrink`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The plan's file, JSON or TOML
    plan: PathBuf,
    /// Where the small plan goes, as TOML
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The anomaly that must stay [default: the first violation of the plan]
    #[arg(long, value_name = "NAME")]
    anomaly: Option<String>,
    /// Time at most, in seconds [default: 60, or none with --tries]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    budget: Option<Duration>,
    /// Candidates at most: ends at the same plan on every machine
    #[arg(long, value_name = "N")]
    tries: Option<u64>,
    /// Threads; the result does not depend on them [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// One JSON line on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    anomaly: String,
    runs: u64,
    /// Whether the search came to its end before its bound.
    minimal: bool,
    #[serde(flatten)]
    shrunk: ShrunkLine,
}

/// Shrinks the plan, and exits as its replay would: with a violation.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let plan = folder::read_plan(&arguments.plan).map_err(Failure::usage)?;
    if arguments.output.extension().is_none_or(|extension| extension != "toml") {
        let name = arguments.output.display();
        return Err(Failure::Usage(format!("the small plan is TOML, so its file's name must end in .toml: {name}")));
    }
    let options = Options {
        anomaly: arguments.anomaly.clone(),
        bound: Bound {
            time: arguments.budget.or(arguments.tries.is_none().then_some(shrink::BUDGET)),
            tries: arguments.tries,
        },
        jobs: jobs(arguments.jobs),
    };
    let mut progress = Progress::new("shrink", 0);
    let small = shrink::shrink_plan(&plan, &options, &mut |now| {
        let text = format!("runs: {} faults, {} operations left; {}", now.faults, now.operations, now.now);
        progress.reach(now.runs, now.runs, &text);
    })
    .map_err(|error| match error {
        ShrinkError::NothingToShrink { .. }
        | ShrinkError::Run(RunError::Settings(_) | RunError::NoSuchMutant { .. }) => {
            Failure::Usage(format!("plan {}: {error}", arguments.plan.display()))
        }
        error => Failure::undone(error),
    })?;
    progress.finish();
    let shrunk = small.write(&arguments.output).map_err(Failure::undone)?;
    let line = Line { anomaly: small.anomaly.clone(), runs: small.runs, minimal: small.is_minimal, shrunk };
    if arguments.json {
        tell(&json_line(&line)?);
    } else {
        let ShrunkLine { faults, operations, seconds, plan, faults_before, operations_before, .. } = &line.shrunk;
        let rest = if line.minimal { "" } else { "; the bound was reached before all was tried" };
        tell(&format!(
            "{}: {faults_before} faults → {faults}, {operations_before} operations → {operations} in {} runs, \
             {seconds:.1} s{rest}",
            line.anomaly, line.runs
        ));
        tell(&format!("replay: mqassay replay {plan}"));
    }
    Ok(Exit::from(small.line.verdict))
}
