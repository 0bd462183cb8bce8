//! The built-in scenarios: the TOML files of `scenarios/catalogue`, compiled in, and the loader for files by path.
//! A new scenario is a file there and a line here.

use std::path::Path;

use mqassay_harness::plan::scenario::{Scenario, ScenarioError};
use thiserror::Error;

const FILES: &[(&str, &str)] = &[
    ("no-loss.toml", include_str!("../catalogue/no-loss.toml")),
    ("order.toml", include_str!("../catalogue/order.toml")),
    ("idempotent-delivery.toml", include_str!("../catalogue/idempotent-delivery.toml")),
    ("bad-disk.toml", include_str!("../catalogue/bad-disk.toml")),
    ("replay.toml", include_str!("../catalogue/replay.toml")),
    ("rot.toml", include_str!("../catalogue/rot.toml")),
    ("metadata-rot.toml", include_str!("../catalogue/metadata-rot.toml")),
    ("retention.toml", include_str!("../catalogue/retention.toml")),
    ("compaction.toml", include_str!("../catalogue/compaction.toml")),
    ("points.toml", include_str!("../catalogue/points.toml")),
    ("replication.toml", include_str!("../catalogue/replication.toml")),
    ("cluster-no-loss.toml", include_str!("../catalogue/cluster-no-loss.toml")),
    ("cluster-order.toml", include_str!("../catalogue/cluster-order.toml")),
    ("failover.toml", include_str!("../catalogue/failover.toml")),
    ("partition.toml", include_str!("../catalogue/partition.toml")),
    ("rolling.toml", include_str!("../catalogue/rolling.toml")),
    ("leader-storm.toml", include_str!("../catalogue/leader-storm.toml")),
    ("deposed.toml", include_str!("../catalogue/deposed.toml")),
    ("membership.toml", include_str!("../catalogue/membership.toml")),
    ("voter-changes.toml", include_str!("../catalogue/voter-changes.toml")),
    ("log-cuts.toml", include_str!("../catalogue/log-cuts.toml")),
    ("retry-limits.toml", include_str!("../catalogue/retry-limits.toml")),
    ("resume.toml", include_str!("../catalogue/resume.toml")),
    ("unclean-restart.toml", include_str!("../catalogue/unclean-restart.toml")),
    ("regroup.toml", include_str!("../catalogue/regroup.toml")),
    ("groups.toml", include_str!("../catalogue/groups.toml")),
    ("commits.toml", include_str!("../catalogue/commits.toml")),
    ("soak.toml", include_str!("../catalogue/soak.toml")),
    ("speed.toml", include_str!("../catalogue/speed.toml")),
];

/// Scenarios that run only where they are named: `soak` is for real processes and `speed` tells how fast simulation is;
/// neither shows anything that others do not.
const BY_NAME: &[&str] = &["soak", "speed"];

/// The built-in scenarios that run where none is named, in the order in which seeds take turns.
pub fn catalogue() -> Vec<Scenario> {
    all().into_iter().filter(|scenario| !BY_NAME.contains(&scenario.name.as_str())).collect()
}

/// Every built-in scenario, those that run only by name among them.
pub fn all() -> Vec<Scenario> {
    FILES
        .iter()
        .map(|(name, text)| Scenario::parse(name, text).expect("a test parses every built-in scenario"))
        .collect()
}

/// Why a scenario cannot be had.
#[derive(Debug, Error)]
pub enum CatalogueError {
    /// Neither a built-in name nor a file.
    #[error("no scenario {name:?}: name one of {known}, or the path of a scenario file (TOML)")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The built-in names.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read scenario {path}: {source}")]
    Unreadable {
        /// The file's path.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a scenario.
    #[error(transparent)]
    Bad(#[from] ScenarioError),
}

/// A built-in scenario by name, or one from a file by path.
pub fn find(name: &str) -> Result<Scenario, CatalogueError> {
    let builtin = all();
    if let Some(scenario) = builtin.iter().find(|scenario| scenario.name == name) {
        return Ok(scenario.clone());
    }
    if !Path::new(name).exists() && !name.ends_with(".toml") {
        let known = builtin.iter().map(|scenario| scenario.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(CatalogueError::Unknown { name: name.to_owned(), known });
    }
    let text =
        std::fs::read_to_string(name).map_err(|source| CatalogueError::Unreadable { path: name.to_owned(), source })?;
    Ok(Scenario::parse(name, &text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_parses_and_is_named_as_its_file() {
        for (file, text) in FILES {
            let scenario = Scenario::parse(file, text).unwrap();
            assert_eq!(format!("{}.toml", scenario.name), *file);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = find("no-los").unwrap_err().to_string();
        assert!(error.contains("no-loss") && error.contains("path"), "{error}");
        assert!(find("missing.toml").unwrap_err().to_string().contains("missing.toml"));
    }
}
