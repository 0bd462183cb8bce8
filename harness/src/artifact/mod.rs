//! The artifacts of a verified run and their folder `RUNS_DIR/<scenario>/<seed>/`, and the lines that `verify` prints.
//! The field names of these lines are stable.

pub mod campaign;
pub mod folder;
pub mod recovery;

pub use campaign::{Divergence, FailureGroup, PointFaults, Proof, Repeated, RunRecord};
pub use folder::ArtifactError;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One run's line on standard output with `--json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunLine {
    /// Name of the scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// The mutant's name, or null.
    pub mutant: Option<String>,
    /// valid, unknown or invalid.
    pub verdict: VerdictKind,
    /// Violations only, by anomaly.
    pub anomalies: BTreeMap<String, u64>,
    /// What the guarantee matrix permits, by anomaly.
    pub allowed: BTreeMap<String, u64>,
    /// Client operations in the history.
    pub operations: u64,
    /// Faults that struck.
    pub faults: u64,
    /// 32 hexadecimal digits.
    pub trace_hash: String,
    /// Path of the plan file, empty where artifacts were not kept.
    pub plan: String,
    /// Length of the run in simulated seconds.
    pub simulated_seconds: f64,
    /// Length of the run in real seconds.
    pub wall_seconds: f64,
}

/// The last line of `verify --json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SummaryLine {
    /// Always true; tells this line from the others.
    pub summary: bool,
    /// Runs in all.
    pub runs: u64,
    /// Of them valid.
    pub valid: u64,
    /// Of them unknown.
    pub unknown: u64,
    /// Of them invalid.
    pub invalid: u64,
    /// Countable events of all runs, by name.
    pub events: BTreeMap<String, u64>,
    /// How often each class of fault struck at each named point of the broker, zeros included.
    #[serde(default)]
    pub coverage: PointFaults,
    /// Time from each fault to the next acknowledged send, by class of fault: a histogram.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recovery: recovery::RecoveryTimes,
    /// Runs that are not valid, grouped by fingerprint: those of one group look alike.
    #[serde(default)]
    pub failures: BTreeMap<String, FailureGroup>,
    /// Runs repeated in another process, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated: Option<Repeated>,
    /// How long the runs were; none where they were not in simulated time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
}

/// How much simulated time runs took, and how much real time that took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Simulated microseconds.
    pub simulated_us: u64,
    /// Real microseconds of the threads that simulated and judged. Not written: the same campaign gives the same summary.
    #[serde(skip)]
    pub thread_us: u64,
    /// Sends that were acknowledged.
    pub acknowledged_sends: u64,
    /// Faults that struck.
    pub faults: u64,
}

/// The verdict, in order of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerdictKind {
    /// Every guarantee was checked and held.
    Valid,
    /// Something could not be judged.
    Unknown,
    /// A guarantee was broken.
    Invalid,
}

/// One line of `mutants run --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MutantLine {
    /// The mutant's name.
    pub mutant: String,
    /// easy, medium or hard.
    pub grade: String,
    /// Whether a violation that it causes was found.
    pub caught: bool,
    /// The anomaly by which it was caught, or null.
    pub anomaly: Option<String>,
    /// Seeds tried, the catching one included.
    pub seeds_tried: u64,
    /// Real seconds until it was caught.
    pub wall_seconds: f64,
    /// Classes of the faults that struck in the catching run, and how often.
    #[serde(default)]
    pub fault_classes: BTreeMap<String, u64>,
    /// What became of the catching plan, where it was shrunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrunk: Option<ShrunkLine>,
}

/// A plan that was shrunk, and from what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShrunkLine {
    /// Faults that are left.
    pub faults: u64,
    /// Client operations that are left.
    pub operations: u64,
    /// Real seconds that it took.
    pub seconds: f64,
    /// Path of the small plan (TOML).
    pub plan: String,
    /// Faults of the plan that it came from.
    pub faults_before: u64,
    /// Client operations of the plan that it came from.
    pub operations_before: u64,
    /// Classes of the faults that are left, and how many of each: without them the bug does not show.
    #[serde(default)]
    pub fault_classes: BTreeMap<String, u64>,
}

/// The last line of `mutants run --json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MutantSummary {
    /// Always true.
    pub summary: bool,
    /// Mutants tried: until each was caught, or on all of its seeds.
    pub mutants: u64,
    /// Of them caught.
    pub caught: u64,
    /// Mutants for which time did not suffice.
    pub left_out: u64,
    /// Violations on the clean broker under the same seeds.
    pub false_alarms: u64,
}
