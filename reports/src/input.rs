//! What a report is made from. Whoever ran the campaign, the mutants and the benches fills it in;
//! every part may be empty, and the page then says so in a sentence.

use std::collections::BTreeMap;

use mqassay_harness::artifact::{MutantLine, RunLine, SummaryLine};
use mqassay_harness::measure::result::BenchResult;
use serde::{Deserialize, Serialize};

/// Everything that a report shows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportInput {
    /// The page's title.
    pub title: String,
    /// Verified runs of the broker without a deliberate bug.
    pub runs: Vec<RunLine>,
    /// Their sum, with the countable events of the campaign.
    pub summary: SummaryLine,
    /// Mutants tried, each with what caught it, where it was caught and its artifacts were kept.
    pub mutants: Vec<(MutantLine, Option<CaughtMutant>)>,
    /// Measurements, one section each, in this order.
    pub benches: Vec<BenchResult>,
    /// Machine, versions and settings of the whole: name to value.
    pub manifest: BTreeMap<String, String>,
}

/// How a deliberate bug was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaughtMutant {
    /// The operations that prove the anomaly, one text each.
    pub evidence: Vec<String>,
    /// What the bug is and why it shows, in a few sentences.
    pub explanation: String,
    /// Path of the plan that shows it.
    pub plan: String,
    /// The command line that replays it.
    pub replay: String,
}
