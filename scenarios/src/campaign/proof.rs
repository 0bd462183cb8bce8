//! Determinism proved while a campaign runs: a share of the plans is run again in another process, and the trace hashes are
//! compared. A difference is narrowed to the first event that differs. Start at `Prover::prove`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use mqassay_harness::artifact::{Divergence, Proof};
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::draws::draw_at;
use thiserror::Error;

use crate::runner::{self, Record, RunError};

/// The subcommand that answers with a run's trace; its argument `TRACE` asks for the events too.
pub const SUBCOMMAND: &str = "rerun";
/// See `SUBCOMMAND`.
pub const TRACE: &str = "--trace";
/// Recorded runs that are compared in search of the first difference; a difference may come and go.
const TRIES: u32 = 3;

/// Runs plans again in another process.
#[derive(Debug, Clone)]
pub struct Prover {
    /// Share of the plans, 0 to 1.
    pub share: f64,
    /// The `mqassay` program.
    pub program: PathBuf,
}

/// Why a plan could not be run in another process.
#[derive(Debug, Error)]
pub enum ProofError {
    /// The process could not be started or spoken to.
    #[error("running the plan again with {program} failed: {source}")]
    Process {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process ended without an answer.
    #[error("{program}, told to run the plan of {scenario} seed {seed} again, gave no trace hash ({status}): {said}")]
    NoAnswer {
        /// The program.
        program: PathBuf,
        /// The plan's scenario.
        scenario: String,
        /// The plan's seed.
        seed: u64,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said on standard error.
        said: String,
    },
}

impl Prover {
    /// Whether the plan is among the share; a function of the plan.
    pub fn chooses(&self, plan: &Plan) -> bool {
        (draw_at(plan.salt, "prove", plan.seed, 0) as f64) < self.share * (u64::MAX as f64)
    }

    /// Runs the plan in another process and compares with the trace hash of this one.
    pub fn prove(&self, plan: &Plan, expected: &str) -> Result<Proof, RunError> {
        let (trace_hash, _) = self.ask(plan, false)?;
        if trace_hash == expected {
            return Ok(Proof::Same);
        }
        let mut first = None;
        for _ in 0..TRIES {
            let here = runner::run_plan(plan, Record::Events)?.trace_lines;
            let (_, there) = self.ask(plan, true)?;
            first = Divergence::between(&here, &there);
            if first.is_some() {
                break;
            }
        }
        Ok(Proof::Differs { trace_hash, first })
    }

    fn ask(&self, plan: &Plan, is_traced: bool) -> Result<(String, Vec<String>), ProofError> {
        let failed = |source| ProofError::Process { program: self.program.clone(), source };
        let mut command = Command::new(&self.program);
        command.arg(SUBCOMMAND).args(is_traced.then_some(TRACE));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let text = serde_json::to_vec(plan).expect("a plan consists of numbers, strings and maps with text keys");
        // It reads all of the plan before it answers, so neither side waits for the other.
        let mut input = child.stdin.take().expect("its standard input is a pipe, as set above");
        let written = input.write_all(&text);
        drop(input);
        let output = child.wait_with_output().map_err(failed)?;
        let answer = String::from_utf8_lossy(&output.stdout);
        let mut lines = answer.lines().map(str::to_owned);
        match lines.next().filter(|hash| output.status.success() && hash.len() == 32) {
            Some(hash) => written.map(|()| (hash, lines.collect())).map_err(failed),
            None => Err(ProofError::NoAnswer {
                program: self.program.clone(),
                scenario: plan.scenario.clone(),
                seed: plan.seed,
                status: output.status,
                said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
        }
    }
}

/// What the other process answers: the trace hash, and the events where they are asked for, line by line.
pub fn answer(plan: &Plan, is_traced: bool) -> Result<String, RunError> {
    let run = runner::run_plan(plan, if is_traced { Record::Events } else { Record::HashOnly })?;
    let mut text = run.line.trace_hash + "\n";
    for line in run.trace_lines {
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}
