//! `mqassay replay`: one plan again, with the evidence for its verdict.

use std::path::PathBuf;

use mqassay_harness::artifact::folder;
use mqassay_scenarios::runner::{self, Record, RunError};

use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::json_line;
use crate::verify;

/// Arguments of `mqassay replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The plan's file, JSON or TOML
    plan: PathBuf,
    /// One JSON line on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the plan and exits by its verdict; a run that differs from the recorded one is unknown at best.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let path = arguments.plan.display().to_string();
    let plan = folder::read_plan(&arguments.plan).map_err(Failure::usage)?;
    let mut run = runner::run_plan(&plan, Record::HashOnly).map_err(|error| match error {
        RunError::Settings(_) | RunError::NoSuchMutant { .. } => Failure::Usage(format!("plan {path}: {error}")),
        error => Failure::undone(error),
    })?;
    run.line.plan.clone_from(&path);
    if arguments.json {
        tell(&json_line(&run.line)?);
    } else {
        tell(&verify::told(&run.line));
        tell(&format!("trace {}, {} operations, {} faults", run.line.trace_hash, run.line.operations, run.line.faults));
        for finding in &run.verdict.findings {
            let permitted = if finding.allowed.is_some() { "permitted" } else { "violation" };
            tell(&format!("{permitted}: {} × {}: {}", finding.count, finding.anomaly.name(), finding.explanation));
            for evidence in &finding.evidence {
                tell(&format!("  {}", evidence.text));
            }
        }
    }
    let exit = Exit::from(run.line.verdict);
    match &plan.recorded_trace {
        Some(recorded) if *recorded != run.line.trace_hash => {
            eprintln!(
                "mqassay: the run differs from the recorded one (trace {recorded}); it was recorded by another build, \
                 or the simulation is not deterministic"
            );
            Ok(exit.max(Exit::Unknown))
        }
        _ => Ok(exit),
    }
}
