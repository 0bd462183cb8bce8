//! The results of a job in its folder, so that `report` can make a page of them later:
//! `verify.jsonl`, `mutants.jsonl`, `caught.json`, `bench-<plan>.json` and `manifest.json`, each of them optional, and
//! `results.csv` with all measurements of the folder.
//! Not here: the artifacts of single runs, which are the harness'.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use mqassay_harness::artifact::{MutantLine, RunLine, SummaryLine};
use mqassay_harness::measure::result::BenchResult;
use mqassay_reports::{CaughtMutant, ReportInput};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit::Failure;
use crate::rows;

/// A folder of results.
#[derive(Debug, Clone)]
pub(crate) struct Results {
    folder: PathBuf,
}

impl Results {
    /// Results that go to a folder, which is made where it is missing.
    pub(crate) fn create(folder: &Path) -> Result<Results, Failure> {
        std::fs::create_dir_all(folder).map_err(|error| cannot("make the folder", folder, error))?;
        Ok(Results { folder: folder.to_path_buf() })
    }

    /// Runs and their sum, from `verify`.
    pub(crate) fn write_runs(&self, runs: &[RunLine], summary: &SummaryLine) -> Result<(), Failure> {
        let mut text = json_lines(runs)?;
        text.push_str(&json_line(summary)?);
        self.write("verify.jsonl", &text)
    }

    /// Mutants, and how those caught were seen.
    pub(crate) fn write_mutants(&self, mutants: &[(MutantLine, Option<CaughtMutant>)]) -> Result<(), Failure> {
        let lines: Vec<&MutantLine> = mutants.iter().map(|(line, _)| line).collect();
        self.write("mutants.jsonl", &json_lines(&lines)?)?;
        let caught: BTreeMap<&str, &CaughtMutant> =
            mutants.iter().filter_map(|(line, caught)| Some((line.mutant.as_str(), caught.as_ref()?))).collect();
        self.write("caught.json", &json_pretty(&caught)?)
    }

    /// One measurement; the table has those of the folder, whoever wrote them.
    pub(crate) fn write_bench(&self, bench: &BenchResult) -> Result<(), Failure> {
        self.write(&format!("bench-{}.json", bench.plan), &json_pretty(bench)?)?;
        rows::write(&load_benches(&self.folder)?, &self.folder.join("results.csv"))
    }

    /// Machine, versions and settings.
    pub(crate) fn write_manifest(&self, manifest: &BTreeMap<String, String>) -> Result<(), Failure> {
        self.write("manifest.json", &json_pretty(manifest)?)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.folder.join(name);
        let write = || std::fs::File::create(&path)?.write_all(text.as_bytes());
        write().map_err(|error: std::io::Error| cannot("write", &path, error))
    }
}

/// Everything in a folder, or in the file of one measurement, that a report can show.
pub(crate) fn load(folder: &Path, title: &str) -> Result<ReportInput, Failure> {
    let mut input = ReportInput { title: title.to_owned(), ..ReportInput::default() };
    if folder.is_file() {
        input.benches.extend(read(folder)?.map(|text| parse(folder, 1, &text)).transpose()?);
        return Ok(input);
    }
    let mut found = false;
    if let Some(text) = read(&folder.join("verify.jsonl"))? {
        found = true;
        load_runs(&folder.join("verify.jsonl"), &text, &mut input)?;
    }
    if let Some(text) = read(&folder.join("mutants.jsonl"))? {
        found = true;
        let path = folder.join("caught.json");
        let mut caught: BTreeMap<String, CaughtMutant> = match read(&path)? {
            Some(text) => parse(&path, 1, &text)?,
            None => BTreeMap::new(),
        };
        for (number, line) in numbered(&text) {
            let line: MutantLine = parse(&folder.join("mutants.jsonl"), number, line)?;
            let caught = caught.remove(&line.mutant);
            input.mutants.push((line, caught));
        }
    }
    input.benches = load_benches(folder)?;
    found = found || !input.benches.is_empty();
    if let Some(text) = read(&folder.join("manifest.json"))? {
        input.manifest = parse(&folder.join("manifest.json"), 1, &text)?;
    }
    if found {
        return Ok(input);
    }
    Err(Failure::Usage(format!(
        "no results in {}; fill it with: mqassay assay --out {0}, or mqassay verify --runs-dir {0}",
        folder.display()
    )))
}

/// The measurements of a folder, in order of their plans' names.
fn load_benches(folder: &Path) -> Result<Vec<BenchResult>, Failure> {
    let mut benches = Vec::new();
    for path in bench_files(folder)? {
        benches.extend(read(&path)?.map(|text| parse(&path, 1, &text)).transpose()?);
    }
    Ok(benches)
}

/// The runs and the sum of a campaign that has ended.
pub(crate) fn load_verified(folder: &Path) -> Result<(Vec<RunLine>, SummaryLine), Failure> {
    let path = folder.join("verify.jsonl");
    let Some(text) = read(&path)? else {
        return Err(Failure::Usage(format!("no {}; the shard has not ended, go on with it: --resume", path.display())));
    };
    let mut input = ReportInput::default();
    load_runs(&path, &text, &mut input)?;
    if !input.summary.summary {
        return Err(Failure::Usage(format!("{} has no summary in its last line; run the shard again", path.display())));
    }
    Ok((input.runs, input.summary))
}

fn load_runs(path: &Path, text: &str, input: &mut ReportInput) -> Result<(), Failure> {
    for (number, line) in numbered(text) {
        let value: serde_json::Value = parse(path, number, line)?;
        if value.get("summary").is_some() {
            input.summary = parse(path, number, line)?;
        } else {
            input.runs.push(parse(path, number, line)?);
        }
    }
    Ok(())
}

fn bench_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return Err(Failure::Usage(format!("cannot read the folder {}: {error}", folder.display()))),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| cannot("read", folder, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("bench-") && name.ends_with(".json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The file's text, nothing where there is no such file.
fn read(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("read", path, error)),
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim().is_empty())
}

fn parse<T: DeserializeOwned>(path: &Path, line: usize, text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::Usage(format!("{}, line {line}: not what mqassay writes there: {error}", path.display()))
    })
}

/// A value as one line of JSON with its line feed.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map(|line| line + "\n").map_err(Failure::undone)
}

fn json_lines<T: Serialize>(values: &[T]) -> Result<String, Failure> {
    values.iter().map(json_line).collect()
}

fn json_pretty<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(Failure::undone)
}

/// A failure of the file system, with what was tried.
pub(crate) fn cannot(action: &str, path: &Path, error: std::io::Error) -> Failure {
    Failure::Undone(anyhow::anyhow!("cannot {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results::create(&folder.path().join("new")).unwrap();
        let mutant = |name: &str, caught| MutantLine {
            mutant: name.to_owned(),
            grade: "easy".to_owned(),
            caught,
            anomaly: None,
            seeds_tried: 3,
            wall_seconds: 0.5,
            fault_classes: BTreeMap::new(),
            shrunk: None,
        };
        let story = CaughtMutant { plan: "p".to_owned(), ..CaughtMutant::default() };
        let mutants = vec![(mutant("S6", true), Some(story)), (mutant("S1", false), None)];
        results.write_mutants(&mutants).unwrap();
        let summary = SummaryLine { summary: true, runs: 4, valid: 4, ..SummaryLine::default() };
        results.write_runs(&[], &summary).unwrap();
        for plan in ["quick", "compare"] {
            results.write_bench(&BenchResult { plan: plan.to_owned(), ..BenchResult::default() }).unwrap();
        }
        results.write_manifest(&BTreeMap::from([("commit".to_owned(), "c".to_owned())])).unwrap();
        let input = load(&results.folder, "t").unwrap();
        assert_eq!(input.mutants, mutants);
        assert_eq!(input.summary, summary);
        let plans: Vec<&str> = input.benches.iter().map(|bench| bench.plan.as_str()).collect();
        assert_eq!(plans, ["compare", "quick"]);
        assert_eq!(input.manifest["commit"], "c");
    }

    #[test]
    fn an_empty_folder_and_a_broken_line_are_told_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let Err(Failure::Usage(message)) = load(folder.path(), "t") else { panic!("an empty folder has no results") };
        assert!(message.contains("mqassay assay --out"), "{message}");
        std::fs::write(
            folder.path().join("verify.jsonl"),
            "{\"summary\":true,\"runs\":0,\"valid\":0,\"unknown\":0,\"invalid\":0,\"events\":{}}\nnonsense\n",
        )
        .unwrap();
        let Err(Failure::Usage(message)) = load(folder.path(), "t") else { panic!("nonsense was read") };
        assert!(message.contains("verify.jsonl, line 2"), "{message}");
        assert!(matches!(load(Path::new("missing-folder"), "t"), Err(Failure::Usage(_))));
    }
}
