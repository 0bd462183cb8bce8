//! The mutation score as a table for readers: each mutant, the anomaly by which it is caught, and how small the plan is
//! that shows it. Made of the mutants' table and the plans of `regressions`, whose test runs them; so the table says
//! nothing that a test does not show. Start at `table`. Not here: the score itself (`mutants`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mqassay_harness::artifact::ArtifactError;
use mqassay_harness::artifact::folder::read_plan;
use mqassay_harness::plan::Plan;
use thiserror::Error;

use crate::mutants::{Culprit, Subject, subjects};

/// The file that says what each plan of a folder shows.
pub const EXPECTED: &str = "expected.toml";
/// The lines between which the table stands in a document.
pub const MARKERS: [&str; 2] = ["<!-- mutation score: begin -->", "<!-- mutation score: end -->"];

/// Why the table cannot be made or placed.
#[derive(Debug, Error)]
pub enum TableError {
    /// A plan cannot be read.
    #[error(transparent)]
    Plan(#[from] ArtifactError),
    /// The folder's index cannot be read.
    #[error("cannot read {path}: {reason}; name the folder of the small plans")]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The document has no place for the table.
    #[error("the document lacks the line {0:?}; add both markers where the table is to stand")]
    NoMarker(&'static str),
}

/// The table in Markdown, from the small plans of a folder.
pub fn table(folder: &Path) -> Result<String, TableError> {
    let plans = plans(folder)?;
    let subjects = subjects();
    let small = |subject: &Subject| plans.iter().find(|(plan, _)| plan.culprit() == Some(subject.culprit.name()));
    let caught = subjects.iter().filter(|subject| small(subject).is_some()).count();
    let mut text = format!(
        "{} mutants, each caught by `mqassay mutants run` within 500 seeds, easy ones within 20; {caught} by a small plan \
         that a test replays:\n\n\
         | a broker (or, where it says so, a client) that … | caught as | faults | operations |\n|---|---|---:|---:|\n",
        subjects.len()
    );
    for row in &subjects {
        let told = match small(row) {
            Some((plan, anomaly)) => format!("{anomaly} | {} | {}", plan.faults.len(), plan.operation_count()),
            None => format!("{} | | ", row.anomalies.first().copied().unwrap_or_default()),
        };
        let who = match row.culprit {
            Culprit::Broker(_) => "",
            Culprit::Client(_) => "a client that ",
        };
        text.push_str(&format!("| {who}{} | {told} |\n", row.title));
    }
    Ok(text)
}

/// The document with the table between its markers.
pub fn placed(document: &str, table: &str) -> Result<String, TableError> {
    let [begin, end] = MARKERS;
    let (before, rest) = document.split_once(begin).ok_or(TableError::NoMarker(begin))?;
    let (_, after) = rest.split_once(end).ok_or(TableError::NoMarker(end))?;
    Ok(format!("{before}{begin}\n{table}{end}{after}"))
}

/// Each plan of the folder's index with the anomaly that it shows.
fn plans(folder: &Path) -> Result<Vec<(Plan, String)>, TableError> {
    let path = folder.join(EXPECTED);
    let unreadable = |reason: String| TableError::Index { path: path.clone(), reason };
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
    let expected: BTreeMap<String, String> = toml::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    expected.into_iter().map(|(file, anomaly)| Ok((read_plan(&folder.join(file))?, anomaly))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_takes_the_place_of_an_older_one() {
        let [begin, end] = MARKERS;
        let document = format!("# A\n\n{begin}\nold\n{end}\n\nB\n");
        let new = placed(&document, "new\n").unwrap();
        assert_eq!(new, format!("# A\n\n{begin}\nnew\n{end}\n\nB\n"));
        assert_eq!(placed(&new, "new\n").unwrap(), new);
        assert!(matches!(placed("no place", "new"), Err(TableError::NoMarker(_))));
    }

    #[test]
    fn a_folder_without_an_index_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(table(folder.path()), Err(TableError::Index { .. })));
    }
}
