//! OpenMessaging Benchmark's file formats (github.com/openmessaging/benchmark): its workload YAML is read as a load plan
//! (`workload`), as much of its driver YAML as fits with it (`settings`), and its result JSON is written (`result`), so that
//! its charts and everyone's published results stand beside ours. Fields are named as there. What is not honoured is an
//! error where figures would mean something else, else a remark on the result.

pub mod result;
mod settings;
mod workload;

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::plan::{LoadPlan, PlanError};

/// A workload as a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// What is run.
    pub plan: LoadPlan,
    /// What of the files is not honoured, or in another way.
    pub remarks: Vec<String>,
    /// The driver's name in results; none where no driver file was given.
    pub driver: Option<String>,
}

/// Whether a plan's name or path means a workload of OpenMessaging Benchmark.
pub fn is_workload(name_or_path: &str) -> bool {
    let ending = Path::new(name_or_path).extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| ending.eq_ignore_ascii_case("yaml") || ending.eq_ignore_ascii_case("yml"))
}

/// Reads a workload, and a driver's settings where they are given.
pub fn read(workload: &Path, driver: Option<&Path>) -> Result<Read, PlanError> {
    let name = workload.display().to_string();
    let mut read = workload::read(&text_of(workload)?, workload)?;
    if let Some(path) = driver {
        settings::apply(&text_of(path)?, path, &mut read)?;
    }
    read.plan.check(&name)?;
    Ok(read)
}

fn text_of(path: &Path) -> Result<String, PlanError> {
    let known = LoadPlan::built_in_names().collect::<Vec<_>>().join(", ");
    std::fs::read_to_string(path).map_err(|source| PlanError::Read { path: path.to_path_buf(), known, source })
}

fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, PlanError> {
    let failed = |error: serde_saphyr::Error| form(path, error.to_string());
    serde_saphyr::from_str(text).map_err(failed)
}

fn form(path: &Path, reason: String) -> PlanError {
    PlanError::Form { origin: path.display().to_string(), reason }
}

fn value(path: &Path, reason: String) -> PlanError {
    PlanError::Value { origin: path.display().to_string(), reason }
}
