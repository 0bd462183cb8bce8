//! `mqassay report`: a page of the results in a folder, or of what differs between two.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mqassay_harness::measure::comparison::{self, Change, Comparison, Kind, Outcome};
use mqassay_harness::measure::result::BenchResult;
use mqassay_reports::{ComparisonInput, ReportInput};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::{self, cannot, json_line};

/// Arguments of `mqassay report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder with results, as `assay`, `verify`, `mutants run` and `bench` leave them, or one bench-*.json
    #[arg(value_name = "A")]
    runs_dir: PathBuf,
    /// A later folder or file of the same kind, which is compared with the first
    #[arg(value_name = "B")]
    other: Option<PathBuf>,
    /// The page to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "json")]
    output: Option<PathBuf>,
    /// JSON lines on standard output: a line for each figure that both have, each difference, and their sum
    #[arg(long, requires = "other")]
    json: bool,
    /// The page's title
    #[arg(long, default_value = "Results of mqassay", conflicts_with = "other")]
    title: String,
}

/// Writes the page; it exits with 0 whatever the results are, for they were told when they were made.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let first = results::load(&arguments.runs_dir, &arguments.title)?;
    let Some(other) = &arguments.other else {
        if let Some(output) = &arguments.output {
            write_page(&first, output)?;
            tell(&format!("report: {}", output.display()));
        }
        return Ok(Exit::Valid);
    };
    let second = results::load(other, &arguments.title)?;
    let input = compare(names(&arguments.runs_dir, other), [&first, &second]);
    if arguments.json {
        tell_lines(&input)?;
    } else {
        tell_comparison(&input);
    }
    if let Some(output) = &arguments.output {
        let page = mqassay_reports::render_comparison(&input).map_err(Failure::undone)?;
        std::fs::write(output, page).map_err(|error| cannot("write", output, error))?;
        if !arguments.json {
            tell(&format!("report: {}", output.display()));
        }
    }
    Ok(Exit::Valid)
}

/// Renders the page into a file.
pub(crate) fn write_page(input: &ReportInput, path: &Path) -> Result<(), Failure> {
    let page = mqassay_reports::render(input).map_err(Failure::undone)?;
    std::fs::write(path, page).map_err(|error| cannot("write", path, error))
}

/// The last parts of both paths, or the paths where those are the same.
fn names(first: &Path, second: &Path) -> [String; 2] {
    let of =
        |path: &Path| path.file_stem().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
    let short = [first, second].map(of);
    if short[0] == short[1] { [first, second].map(|path| path.display().to_string()) } else { short }
}

fn compare(names: [String; 2], [before, after]: [&ReportInput; 2]) -> ComparisonInput {
    let find = |input: &ReportInput, plan: &str| input.benches.iter().find(|bench| bench.plan == plan).cloned();
    let both = |bench: &BenchResult| Some(comparison::compare(bench, &find(after, &bench.plan)?));
    let plans: Vec<Comparison> = before.benches.iter().filter_map(both).collect();
    let only = |one: &ReportInput, other: &ReportInput| -> Vec<String> {
        one.benches.iter().filter(|bench| find(other, &bench.plan).is_none()).map(|bench| bench.plan.clone()).collect()
    };
    let mut mutants: BTreeMap<String, [Option<bool>; 2]> = BTreeMap::new();
    for (index, input) in [before, after].into_iter().enumerate() {
        for (line, _) in &input.mutants {
            mutants.entry(line.mutant.clone()).or_default()[index] = Some(line.caught);
        }
    }
    let manifests = [before, after].map(manifest);
    // A plan's own manifest says more than the folder's: the folder's is that of its last job.
    let mut differences =
        if plans.is_empty() { comparison::differences(&manifests[0], &manifests[1]) } else { Vec::new() };
    differences.extend(plans.iter().flat_map(|plan| plan.differences.clone()));
    differences.sort();
    differences.dedup();
    ComparisonInput {
        names,
        only: [only(before, after), only(after, before)],
        summaries: [before.summary.clone(), after.summary.clone()],
        plans,
        mutants,
        manifests,
        differences,
    }
}

/// Everything that a folder's manifests say.
fn manifest(input: &ReportInput) -> BTreeMap<String, String> {
    let mut entries = input.manifest.clone();
    for bench in &input.benches {
        for (name, value) in &bench.manifest {
            let name = if name == "plan" { format!("plan {}", bench.plan) } else { name.clone() };
            entries.entry(name).or_insert_with(|| value.clone());
        }
    }
    entries
}

/// One change with its plan.
#[derive(Serialize)]
struct Line<'a> {
    plan: &'a str,
    #[serde(flatten)]
    change: &'a Change,
}

/// The last line.
#[derive(Serialize)]
struct Sum {
    compared: usize,
    worse: usize,
    better: usize,
    no_difference: usize,
    no_spread: usize,
}

fn tell_lines(input: &ComparisonInput) -> Result<(), Failure> {
    for plan in &input.plans {
        for change in &plan.changes {
            tell(&json_line(&Line { plan: &plan.plan, change })?);
        }
    }
    for difference in input.differences.iter().chain(input.plans.iter().flat_map(|plan| &plan.verdicts)) {
        tell(&json_line(difference)?);
    }
    let sum = Sum {
        compared: input.plans.iter().map(|plan| plan.changes.len()).sum(),
        worse: input.count(Outcome::Worse),
        better: input.count(Outcome::Better),
        no_difference: input.count(Outcome::NoDifference),
        no_spread: input.count(Outcome::NoSpread),
    };
    tell(&json_line(&sum)?);
    Ok(())
}

/// What differs first, then what got worse or better, then how much did not change.
fn tell_comparison(input: &ComparisonInput) {
    let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    for one in input.differences.iter().filter(|one| one.kind != Kind::Circumstance) {
        let kind = match one.kind {
            Kind::Machine => "OTHER MACHINE",
            Kind::Version => "OTHER VERSION",
            Kind::Setting => "OTHER SETTING",
            Kind::Circumstance => "other",
        };
        tell(&format!("{kind}: {}: {}, then {}", one.name, said(&one.before), said(&one.after)));
    }
    for plan in &input.plans {
        tell(&format!("{}:", plan.plan));
        for one in &plan.verdicts {
            tell(&format!("  verdict of {}: {}, then {}", one.name, said(&one.before), said(&one.after)));
        }
        for (outcome, word) in
            [(Outcome::Worse, "worse"), (Outcome::Better, "better"), (Outcome::NoSpread, "one value each")]
        {
            for change in plan.changes.iter().filter(|change| change.outcome == outcome) {
                let (from, to) = (change.before[1], change.after[1]);
                let gain = change.gain.map_or(String::new(), |[low, ratio, high]| {
                    format!(", {ratio:.3} ({low:.3} to {high:.3}) where more is better")
                });
                tell(&format!(
                    "  {word}: {} of {}: {from:.1} to {to:.1} {}{gain}",
                    change.metric, change.of, change.unit
                ));
            }
        }
        let same = plan.changes.iter().filter(|change| change.outcome == Outcome::NoDifference).count();
        tell(&format!("  no difference shown in {same} of {} figures", plan.changes.len()));
    }
    for (plans, name) in input.only.iter().zip(&input.names) {
        for plan in plans {
            tell(&format!("{plan}: only in {name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_where_they_tell_the_runs_apart() {
        assert_eq!(names(Path::new("out/monday"), Path::new("out/tuesday")), ["monday", "tuesday"]);
        assert_eq!(names(Path::new("a/out"), Path::new("b/out")), ["a/out", "b/out"]);
        assert_eq!(names(Path::new("a/bench-m1.json"), Path::new("b")), ["bench-m1", "b"]);
    }

    #[test]
    fn plans_of_one_side_and_another_machine_are_told() {
        let bench = |plan: &str, kernel: &str| BenchResult {
            plan: plan.to_owned(),
            manifest: BTreeMap::from([("kernel".to_owned(), kernel.to_owned())]),
            ..BenchResult::default()
        };
        let before =
            ReportInput { benches: vec![bench("both", "6.1"), bench("gone", "6.1")], ..ReportInput::default() };
        let after = ReportInput { benches: vec![bench("both", "6.2"), bench("new", "6.2")], ..ReportInput::default() };
        let input = compare(["a".to_owned(), "b".to_owned()], [&before, &after]);
        assert_eq!(input.only, [vec!["gone".to_owned()], vec!["new".to_owned()]]);
        assert_eq!((input.plans.len(), input.differences[0].kind), (1, Kind::Machine));
    }
}
