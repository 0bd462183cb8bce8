//! `mqassay backlog`: makes the three causes of a backlog on a cluster of its own, has each named from outside, and
//! measures its cure. The causes themselves are in the benches.

use std::path::PathBuf;

use mqassay_benches::backlog::causes::{MADE, Outcome, Timing, run_case};
use mqassay_benches::backlog::judge::Cause;
use mqassay_benches::consumers::ConsumerError;
use mqassay_benches::consumers::cluster::{Cluster, System};

use crate::bench::end_brokers_on_signal;
use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::{cannot, json_line};
use crate::sinks::failure;

/// Arguments of `mqassay backlog`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Whose brokers: reference or kafka
    #[arg(long, default_value = "reference")]
    system: String,
    /// Runs of each cause
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    runs: u64,
    /// Of these, how many with the cure
    #[arg(long, default_value_t = 1, value_name = "RUNS")]
    cures: u64,
    /// Causes, all three without: faster-producer, poison-message, weak-consumer
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    causes: Vec<String>,
    /// JSON lines on standard output
    #[arg(long)]
    json: bool,
    /// Where the outcomes are kept as well, as JSON lines
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Makes and names; a cause that was named wrongly leaves the result unknown.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let named = |name: &String| {
        let unknown =
            || Failure::Usage(format!("no cause is called {name:?}; there is: {}", MADE.map(Cause::name).join(", ")));
        MADE.into_iter().find(|cause| cause.name() == name).ok_or_else(unknown)
    };
    let causes = match arguments.causes.is_empty() {
        true => MADE.to_vec(),
        false => arguments.causes.iter().map(named).collect::<Result<_, _>>()?,
    };
    let system = System::named(&arguments.system).map_err(failure)?;
    let json = arguments.json;
    let outcomes = cases(system, &causes, (arguments.runs, arguments.cures), &mut |outcome| {
        let line = if json { json_line(outcome).unwrap_or_default() } else { told(outcome) };
        tell(line.trim_end());
    })?;
    if let Some(path) = &arguments.out {
        let lines = outcomes.iter().map(json_line).collect::<Result<String, _>>()?;
        std::fs::write(path, lines).map_err(|error| cannot("write", path, error))?;
    }
    let right = outcomes.iter().filter(|outcome| outcome.is_right()).count();
    if !json {
        tell(&format!("{}: the right cause in {right} of {} runs", system.name(), outcomes.len()));
    }
    Ok(if right == outcomes.len() { Exit::Valid } else { Exit::Unknown })
}

/// Runs of each cause with consecutive seeds, the causes of one seed side by side, the first ones with their cures.
pub(crate) fn cases(
    system: System,
    causes: &[Cause],
    (runs, cures): (u64, u64),
    told: &mut dyn FnMut(&Outcome),
) -> Result<Vec<Outcome>, Failure> {
    end_brokers_on_signal().map_err(Failure::undone)?;
    let executable = std::env::current_exe().map_err(Failure::undone)?;
    let cluster = Cluster::start(system, 1, &executable).map_err(failure)?;
    let mut outcomes = Vec::new();
    for seed in 0..runs {
        let found: Vec<Result<Outcome, ConsumerError>> = std::thread::scope(|scope| {
            let cluster = &cluster;
            let start = |cause: &Cause| {
                let cause = *cause;
                scope.spawn(move || run_case(cluster, seed, cause, Timing::short(), seed < cures))
            };
            let cases: Vec<_> = causes.iter().map(start).collect();
            let join = |case: std::thread::ScopedJoinHandle<'_, Result<Outcome, ConsumerError>>| {
                case.join().map_err(|_| ConsumerError::Panicked { what: "case" })?
            };
            cases.into_iter().map(join).collect()
        });
        for outcome in found {
            let outcome = outcome.map_err(failure)?;
            told(&outcome);
            outcomes.push(outcome);
        }
    }
    Ok(outcomes)
}

fn told(outcome: &Outcome) -> String {
    let word = if outcome.is_right() { "right" } else { "WRONG" };
    let (made, named) = (outcome.made.name(), outcome.diagnosis.cause.name());
    let mut text = format!("{} seed {}: made {made}, named {named}: {word}", outcome.system, outcome.seed);
    outcome.diagnosis.evidence.iter().for_each(|line| text.push_str(&format!("\n    {line}")));
    if let Some(cure) = &outcome.cure {
        let lag = cure.curve.first().map_or(0, |point| point.1);
        let drained =
            cure.drained_seconds.map_or("not drained".to_owned(), |seconds| format!("drained in {seconds:.1} s"));
        text.push_str(&format!(
            "\n    cure: {}: {lag} waiting, {drained}; {} missing, {} put aside",
            cure.done, cure.missing, cure.put_aside
        ));
    }
    text
}
