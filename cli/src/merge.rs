//! `mqassay merge`: the results of shards added up in a new folder, as if one machine had run them all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mqassay_harness::artifact::{RunLine, SummaryLine, folder};

use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::{Results, json_line, load_verified};
use crate::{junit, verify};

/// Arguments of `mqassay merge`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folders of results, each of a shard that has ended
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Where the sum goes, with the artifacts that the shards kept
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Print the coverage of point × fault
    #[arg(long)]
    coverage: bool,
    /// The merged summary as a JSON line on standard output
    #[arg(long)]
    json: bool,
    /// Write all runs as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// A run's name: scenario, mutant and seed.
type Name = (String, Option<String>, u64);

/// Adds the shards up and exits by the gravest verdict.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut summary = SummaryLine { summary: true, ..SummaryLine::default() };
    let mut runs: BTreeMap<Name, (RunLine, &Path)> = BTreeMap::new();
    for folder in &arguments.folders {
        let (lines, mut sum) = load_verified(folder)?;
        let mut plans = BTreeMap::new();
        for mut line in lines {
            let name = (line.scenario.clone(), line.mutant.clone(), line.seed);
            if let Some((_, other)) = runs.get(&name) {
                return Err(Failure::Usage(format!(
                    "{} seed {} is in {} and in {}; shards of one campaign have no run in common",
                    line.scenario,
                    line.seed,
                    other.display(),
                    folder.display()
                )));
            }
            let plan = copy_artifacts(&line, folder, &arguments.out)?;
            plans.insert(std::mem::replace(&mut line.plan, plan.clone()), plan);
            runs.insert(name, (line, folder));
        }
        for group in sum.failures.values_mut() {
            group.plan = plans.get(&group.plan).cloned().unwrap_or_default();
        }
        summary.merge(&sum);
    }
    let mut lines: Vec<RunLine> = runs.into_values().map(|(line, _)| line).collect();
    lines.sort_by(|a, b| (a.seed, &a.scenario).cmp(&(b.seed, &b.scenario)));
    Results::create(&arguments.out)?.write_runs(&lines, &summary)?;
    if let Some(path) = &arguments.junit {
        junit::write(path, &lines)?;
    }
    if arguments.json {
        tell(&json_line(&summary)?);
    } else {
        verify::print_summary(&summary);
    }
    if arguments.coverage && !arguments.json {
        verify::print_coverage(&summary);
    }
    Ok(verify::exit(&summary))
}

/// Copies what a shard kept of a run, and gives the plan's new path; nothing where nothing was kept.
fn copy_artifacts(line: &RunLine, shard: &Path, out: &Path) -> Result<String, Failure> {
    if line.plan.is_empty() {
        return Ok(String::new());
    }
    let run = verify::run_folder(line);
    let (from, to) = (shard.join(&run), out.join(&run));
    let is_there = folder::copy(&from, &to).map_err(Failure::undone)?;
    Ok(if is_there { to.join(folder::PLAN_FILE).display().to_string() } else { String::new() })
}
