//! `mqassay systems bugs`: published bugs of real brokers, on a release that has them and on one that does not, side by
//! side. Not here: the scripts (the harness).

use std::path::PathBuf;

use mqassay_harness::known_bugs::{self, BUGS, Bug, Seen};
use mqassay_harness::process::disk;
use mqassay_harness::systems::Options;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::json_line;

/// Arguments of `mqassay systems bugs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Play bugs' scripts on the release that has each and on the one that does not; all where none is named
    Run(Run),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Bugs, as `mqassay systems bugs` lists them
    names: Vec<String>,
    /// Folder of the systems that are started for it [default: known-bugs in that of all systems]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// JSON lines on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    bug: &'a str,
    source: &'a str,
    anomaly: &'a str,
    command: String,
    old: &'a Seen,
    new: &'a Seen,
    is_as_published: bool,
}

/// Lists or plays the bugs; one that does not show on the old release, or shows on the new one, makes the answer invalid.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let Some(Action::Run(run)) = &arguments.action else {
        for bug in BUGS {
            tell(&format!("{:16} {}: {}", bug.name, bug.source, bug.title));
            tell(&format!("{:16} on {}, not on {} ({})", "", bug.broken, bug.mended, bug.mended_by));
        }
        return Ok(Exit::Valid);
    };
    let known = || BUGS.iter().map(|bug| bug.name).collect::<Vec<_>>().join(", ");
    if let Some(name) = run.names.iter().find(|name| !BUGS.iter().any(|bug| bug.name == **name)) {
        return Err(Failure::Usage(format!("no bug is called {name:?}; there is: {}", known())));
    }
    let home = match &run.home {
        Some(home) => std::path::absolute(home).map_err(Failure::undone)?,
        None => Options::from_environment().map_err(Failure::usage)?.home.join("known-bugs"),
    };
    let mut exit = Exit::Valid;
    for bug in BUGS.iter().filter(|bug| run.names.is_empty() || run.names.iter().any(|name| name == bug.name)) {
        if let Some(what) = disk::missing().filter(|_| bug.needs_disk()) {
            eprintln!("mqassay: {} is not tested here: {what}", bug.name);
            continue;
        }
        exit = exit.max(play(bug, &home, run.json)?);
    }
    Ok(exit)
}

fn play(bug: &Bug, home: &std::path::Path, json: bool) -> Result<Exit, Failure> {
    let program = std::env::current_exe().map_err(Failure::undone)?;
    let on = |system| known_bugs::run(bug, system, home, &program).map_err(Failure::undone);
    let (old, new) = (on(bug.broken)?, on(bug.mended)?);
    let is_as_published = old.shown.is_there && !new.shown.is_there;
    if json {
        let command = format!("mqassay systems bugs run {}", bug.name);
        let (old, new) = (&old, &new);
        let Bug { name, source, anomaly, .. } = *bug;
        tell(json_line(&Line { bug: name, source, anomaly, command, old, new, is_as_published })?.trim_end());
    } else {
        tell(&format!("{} ({}): {}", bug.name, bug.source, bug.title));
        for (system, seen) in [(bug.broken, &old), (bug.mended, &new)] {
            let verdict = if seen.shown.is_there { bug.anomaly } else { "nothing wrong" };
            tell(&format!("  {system} {}: {verdict}", seen.version));
            seen.shown.steps.iter().for_each(|step| tell(&format!("    {step}")));
        }
        let verdict = match is_as_published {
            true => format!("found on the old release, gone on the new one: {}", bug.mended_by),
            false => "NOT as published".to_owned(),
        };
        tell(&format!("  {verdict}; again with: mqassay systems bugs run {}", bug.name));
    }
    Ok(if is_as_published { Exit::Valid } else { Exit::Violation })
}
