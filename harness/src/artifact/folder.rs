//! A run's folder `<runs>/<scenario>/<seed>/`: plan.json is written before the run, and after it manifest.json,
//! history.jsonl, trace.txt and verdict.json; of a real system that failed, its logs. Not here: which folders stay.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::RunLine;
use crate::check::Verdict;
use crate::history::History;
use crate::plan::{Plan, SCHEMA_VERSION};

/// The plan's file.
pub const PLAN_FILE: &str = "plan.json";
const MANIFEST_FILE: &str = "manifest.json";
const HISTORY_FILE: &str = "history.jsonl";
const TRACE_FILE: &str = "trace.txt";
const VERDICT_FILE: &str = "verdict.json";

/// Why artifacts cannot be written or read.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// The file system refused.
    #[error("{doing} {path} failed: {source}; check the folder, or name another with --runs-dir")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path} is not {wanted}: {reason}")]
    Malformed {
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// What a verified run leaves for the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptRun {
    /// Its line.
    pub line: RunLine,
    /// Its verdict with the evidence.
    pub verdict: Verdict,
}

/// Writes a plan into its folder and gives the file's path.
pub fn write_plan(folder: &Path, plan: &Plan) -> Result<PathBuf, ArtifactError> {
    std::fs::create_dir_all(folder).map_err(|source| failed("creating", folder, source))?;
    let path = folder.join(PLAN_FILE);
    write(&path, &json(plan))?;
    Ok(path)
}

/// Reads a plan, as JSON or, where the file's name ends so, as TOML.
pub fn read_plan(path: &Path) -> Result<Plan, ArtifactError> {
    let malformed = |reason: String| ArtifactError::Malformed { path: path.to_owned(), wanted: "a plan", reason };
    let text = std::fs::read_to_string(path).map_err(|source| failed("reading", path, source))?;
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    let plan: Plan = match is_toml {
        true => toml::from_str(&text).map_err(|error| malformed(error.to_string()))?,
        false => serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?,
    };
    if plan.schema != SCHEMA_VERSION {
        let reason = format!("it has schema {}, this version reads {SCHEMA_VERSION}", plan.schema);
        return Err(malformed(reason));
    }
    Ok(plan)
}

/// Writes what a run left, beside its plan.
pub fn write_run(
    folder: &Path,
    kept: &KeptRun,
    history: &History,
    trace_lines: &[String],
) -> Result<(), ArtifactError> {
    let manifest: BTreeMap<&str, String> = BTreeMap::from([
        ("mqassay", env!("CARGO_PKG_VERSION").to_owned()),
        ("scenario", kept.line.scenario.clone()),
        ("seed", kept.line.seed.to_string()),
        ("trace_hash", kept.line.trace_hash.clone()),
        ("history_schema", crate::history::SCHEMA_VERSION.to_string()),
        ("plan_schema", SCHEMA_VERSION.to_string()),
    ]);
    write(&folder.join(MANIFEST_FILE), &json(&manifest))?;
    write(&folder.join(VERDICT_FILE), &json(kept))?;
    write(&folder.join(HISTORY_FILE), &history_lines(history))?;
    let mut trace = format!("{}\n", kept.line.trace_hash);
    trace_lines.iter().for_each(|line| {
        trace.push_str(line);
        trace.push('\n');
    });
    write(&folder.join(TRACE_FILE), &trace)
}

/// The events that were recorded beside a plan: trace.txt without its first line, the hash. Nothing where there is no such
/// file, or where it holds the hash alone.
pub fn read_trace(folder: &Path) -> Result<Option<Vec<String>>, ArtifactError> {
    let path = folder.join(TRACE_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("reading", &path, source)),
    };
    let events: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
    Ok((!events.is_empty()).then_some(events))
}

/// Copies what a system's processes wrote into a run's folder; a log that is not there is passed over.
pub fn keep_logs(folder: &Path, logs: &[PathBuf]) -> Result<(), ArtifactError> {
    for log in logs.iter().filter(|log| log.is_file()) {
        let Some(name) = log.file_name() else { continue };
        std::fs::copy(log, folder.join(name)).map_err(|source| failed("copying", log, source))?;
    }
    Ok(())
}

/// Copies a run's folder, where there is one; whether there was.
pub fn copy(from: &Path, to: &Path) -> Result<bool, ArtifactError> {
    if !from.join(PLAN_FILE).is_file() {
        return Ok(false);
    }
    std::fs::create_dir_all(to).map_err(|source| failed("creating", to, source))?;
    for path in entries(from)? {
        let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
        std::fs::copy(&path, to.join(name)).map_err(|source| failed("copying", &path, source))?;
    }
    Ok(true)
}

/// Reads every verdict below a folder of runs, sorted by scenario and seed.
pub fn read_runs(runs: &Path) -> Result<Vec<KeptRun>, ArtifactError> {
    let mut kept = Vec::new();
    for scenario in entries(runs)? {
        if !scenario.is_dir() {
            continue;
        }
        for run in entries(&scenario)? {
            let path = run.join(VERDICT_FILE);
            if !path.exists() {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(|source| failed("reading", &path, source))?;
            kept.push(serde_json::from_str(&text).map_err(|error| ArtifactError::Malformed {
                path: path.clone(),
                wanted: "a verdict",
                reason: error.to_string(),
            })?);
        }
    }
    kept.sort_by(|a: &KeptRun, b: &KeptRun| (&a.line.scenario, a.line.seed).cmp(&(&b.line.scenario, b.line.seed)));
    Ok(kept)
}

/// Removes a run's folder.
pub fn remove(folder: &Path) -> Result<(), ArtifactError> {
    std::fs::remove_dir_all(folder).map_err(|source| failed("removing", folder, source))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ArtifactError> {
    let listed = std::fs::read_dir(folder).map_err(|source| failed("listing", folder, source))?;
    listed.map(|entry| entry.map(|entry| entry.path()).map_err(|source| failed("listing", folder, source))).collect()
}

fn history_lines(history: &History) -> String {
    let mut lines = String::new();
    let mut line = |text: String| {
        let written = writeln!(lines, "{text}");
        written.expect("writing into a string cannot fail");
    };
    let text = |value: Result<String, serde_json::Error>| value.expect("histories consist of numbers and strings");
    line(text(serde_json::to_string(&history.header)));
    history.operations.iter().for_each(|operation| line(text(serde_json::to_string(operation))));
    history.marks.iter().for_each(|mark| line(text(serde_json::to_string(mark))));
    lines
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("artifacts consist of numbers, strings and maps with text keys")
}

fn write(path: &Path, text: &str) -> Result<(), ArtifactError> {
    std::fs::write(path, text).map_err(|source| failed("writing", path, source))
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> ArtifactError {
    ArtifactError::Io { doing, path: path.to_owned(), source }
}
