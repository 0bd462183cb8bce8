//! `mqassay explain`: one plan again as a white box, and a page that shows what happened and why.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use mqassay_harness::artifact::folder;
use mqassay_scenarios::explain;
use mqassay_scenarios::explain::curve::Effort;
use mqassay_scenarios::runner::RunError;

use crate::arguments::jobs;
use crate::exit::{Exit, Failure};
use crate::progress::tell;

use crate::results::cannot;
use crate::verify;

/// Arguments of `mqassay explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The plan's file
    plan: PathBuf,
    /// The page to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Real time for drawing the plan's tail again from each moment on; 0 leaves that out
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    budget: u32,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// Runs the plan, writes the page, and exits by the verdict.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let plan = folder::read_plan(&arguments.plan).map_err(Failure::usage)?;
    let mut story = explain::story(&plan).map_err(failure)?;
    story.line.plan = arguments.plan.display().to_string();
    story.replay = mqassay_scenarios::campaign::replay_line(&story.line);
    if arguments.budget > 0 {
        let effort = Effort { budget: Duration::from_secs(arguments.budget.into()), jobs: jobs(arguments.jobs) };
        story.curve = explain::curve::resample(&story, effort).map_err(failure)?;
    }
    let page = mqassay_reports::render_story(&story).map_err(Failure::undone)?;
    std::fs::write(&arguments.output, page).map_err(|error| cannot("write", &arguments.output, error))?;
    tell(&verify::told(&story.line));
    tell(&format!("explained: {}", arguments.output.display()));
    Ok(Exit::from(story.line.verdict))
}

fn failure(error: RunError) -> Failure {
    match error {
        RunError::Settings(_) | RunError::NoSuchMutant { .. } => Failure::usage(error),
        RunError::World { .. } | RunError::Workload(_) | RunError::Artifact(_) | RunError::Proof(_) => {
            Failure::undone(error)
        }
    }
}
