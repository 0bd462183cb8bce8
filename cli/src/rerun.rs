//! `mqassay rerun`, hidden: runs the plan on standard input and answers with its trace hash, and with the events where they
//! are asked for. `verify --prove-determinism` talks to it in another process.

use std::io::{Read, Write};

use mqassay_harness::plan::Plan;
use mqassay_scenarios::campaign::proof;

use crate::exit::{Exit, Failure};

/// Arguments of `mqassay rerun`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Every event behind the hash
    #[arg(long)]
    trace: bool,
}

/// Runs the plan; the exit says whether it could be run, not what it showed.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(Failure::undone)?;
    let plan: Plan = serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("standard input is not a plan as mqassay writes them: {error}")))?;
    let answer = proof::answer(&plan, arguments.trace).map_err(Failure::undone)?;
    std::io::stdout().write_all(answer.as_bytes()).map_err(Failure::undone)?;
    Ok(Exit::Valid)
}
