//! `mqassay replay`: one plan again, with the evidence for its verdict.

use std::path::{Path, PathBuf};

use mqassay_harness::artifact::{Divergence, folder};
use mqassay_harness::plan::Plan;
use mqassay_scenarios::runner::{self, Record, RunError};

use crate::exit::{Exit, Failure};
use crate::process_world::WorldName;
use crate::progress::tell;
use crate::real_replay;
use crate::results::json_line;
use crate::verify;

/// Arguments of `mqassay replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The plan's file, JSON or TOML
    plan: PathBuf,
    /// Where: in the simulated world, exactly, or on real processes with disks that forget, several times
    #[arg(long, value_enum, default_value_t = WorldName::Simulated)]
    world: WorldName,
    /// On processes: how often
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    runs: u64,
    /// On processes: the window around their times in which the runs let the faults strike, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    window_ms: u64,
    /// One JSON line on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the plan and exits by its verdict; a run that differs from the recorded one is unknown at best.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let path = arguments.plan.display().to_string();
    let plan = folder::read_plan(&arguments.plan).map_err(Failure::usage)?;
    if arguments.world == WorldName::Process {
        return real_replay::run(&plan, arguments.runs, arguments.window_ms, arguments.json);
    }
    let recorded = recorded_events(&arguments.plan, &plan)?;
    let record = if recorded.is_some() { Record::Events } else { Record::HashOnly };
    let mut run = runner::run_plan(&plan, record).map_err(|error| match error {
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
        Some(hash) if *hash != run.line.trace_hash => {
            tell_divergence(hash, recorded.as_deref(), &run.trace_lines);
            Ok(exit.max(Exit::Unknown))
        }
        _ => Ok(exit),
    }
}

/// The events that were recorded beside the plan, where the plan says that there was a recorded run.
fn recorded_events(path: &Path, plan: &Plan) -> Result<Option<Vec<String>>, Failure> {
    match path.parent() {
        Some(folder) if plan.recorded_trace.is_some() => folder::read_trace(folder).map_err(Failure::undone),
        _ => Ok(None),
    }
}

/// Says loudly that the run is not the recorded one, and from which event on; the verdict is that of the run made now.
fn tell_divergence(hash: &str, recorded: Option<&[String]>, now: &[String]) {
    eprintln!(
        "mqassay: THE RUN DIFFERS from the recorded one (trace {hash}): it was recorded by another build, or the \
         simulation is not deterministic; the verdict is that of the run made now"
    );
    match recorded.map(|recorded| Divergence::between(recorded, now)) {
        Some(Some(first)) => eprintln!("{}", verify::diverged(&first)),
        Some(None) => {
            eprintln!("  every event is as recorded: the plan's trace hash is not that of the trace beside it")
        }
        None => eprintln!("  no events were recorded beside the plan, so that the first difference cannot be named"),
    }
}
