//! What a campaign keeps of each run beside its line, and how runs and shards add up to a summary.
//! Not here: what a campaign runs, and its files.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::recovery::{self, RecoveryTimes};
use super::{Pace, RunLine, SummaryLine, VerdictKind};

/// How often each class of fault struck at each named point: point → class → count.
pub type PointFaults = BTreeMap<String, BTreeMap<String, u64>>;

/// What a campaign needs of a finished run, so that it can go on later without running it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its line.
    pub line: RunLine,
    /// Countable events by name, those that happened.
    pub events: BTreeMap<String, u64>,
    /// Faults that struck at points.
    #[serde(default)]
    pub coverage: PointFaults,
    /// Situations that it went through, in a guided campaign (`scenarios::campaign::situations`).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub situations: BTreeSet<String>,
    /// Time from each fault to the next acknowledged send, by class of fault.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recovery: RecoveryTimes,
    /// What groups failures of one cause; none for a valid run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// What the run in another process showed, where it was run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// What a second run of the same plan in another process showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Proof {
    /// The same trace hash.
    Same,
    /// Another trace hash.
    Differs {
        /// The other process' trace hash.
        trace_hash: String,
        /// The first event that differs, counted from 1, and both texts; none where the recorded runs came out equal.
        first: Option<Divergence>,
    },
}

/// The first event in which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// Which event of the trace, from 1.
    pub event: u64,
    /// The event as it was before, or in this process.
    pub expected: String,
    /// The event as it is now, or in the other process.
    pub found: String,
}

/// Failures that look alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureGroup {
    /// Runs that failed so.
    pub runs: u64,
    /// Scenario of the first of them.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// Path of its plan, empty where it was not kept.
    pub plan: String,
}

/// Runs that were repeated in another process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    /// How many.
    pub runs: u64,
    /// Of them, those whose trace differed; each is a bug of mqassay.
    pub differing: u64,
}

impl Divergence {
    /// The first difference of two recorded traces; `None` where they are equal.
    pub fn between(expected: &[String], found: &[String]) -> Option<Divergence> {
        let (index, expected, found) = crate::sim::trace::first_difference(expected, found)?;
        Some(Divergence { event: index as u64 + 1, expected: expected.to_owned(), found: found.to_owned() })
    }
}

impl SummaryLine {
    /// Adds one run.
    pub fn add(&mut self, run: &RunRecord) {
        self.runs += 1;
        match run.line.verdict {
            VerdictKind::Valid => self.valid += 1,
            VerdictKind::Unknown => self.unknown += 1,
            VerdictKind::Invalid => self.invalid += 1,
        }
        add_counts(&mut self.events, &run.events);
        add_coverage(&mut self.coverage, &run.coverage);
        recovery::add(&mut self.recovery, &run.recovery);
        if let Some(fingerprint) = &run.fingerprint {
            let group = FailureGroup {
                runs: 1,
                scenario: run.line.scenario.clone(),
                seed: run.line.seed,
                plan: run.line.plan.clone(),
            };
            add_failures(&mut self.failures, fingerprint, &group);
        }
        if let Some(proof) = &run.proof {
            let differs = !matches!(proof, Proof::Same);
            add_repeated(&mut self.repeated, Repeated { runs: 1, differing: u64::from(differs) });
        }
        if run.line.simulated_seconds > 0.0 {
            // Whole numbers, so that shards add up to the same in any order.
            let whole_us = |seconds: f64| (seconds * 1e6) as u64;
            let pace = Pace {
                simulated_us: whole_us(run.line.simulated_seconds),
                thread_us: whole_us(run.line.wall_seconds),
                acknowledged_sends: run.events.get(SEND_ACKNOWLEDGED).copied().unwrap_or(0),
                faults: run.line.faults,
            };
            add_pace(&mut self.pace, pace);
        }
    }

    /// Adds the sum of another shard.
    pub fn merge(&mut self, other: &SummaryLine) {
        let SummaryLine {
            summary: _,
            runs,
            valid,
            unknown,
            invalid,
            events,
            coverage,
            recovery,
            failures,
            repeated,
            pace,
        } = other;
        self.runs += runs;
        self.valid += valid;
        self.unknown += unknown;
        self.invalid += invalid;
        add_counts(&mut self.events, events);
        add_coverage(&mut self.coverage, coverage);
        recovery::add(&mut self.recovery, recovery);
        for (fingerprint, group) in failures {
            add_failures(&mut self.failures, fingerprint, group);
        }
        if let Some(repeated) = repeated {
            add_repeated(&mut self.repeated, *repeated);
        }
        if let Some(pace) = pace {
            add_pace(&mut self.pace, *pace);
        }
    }
}

impl Pace {
    /// Simulated seconds for each real second of one thread.
    pub fn ratio(&self) -> f64 {
        self.simulated_us as f64 / self.thread_us.max(1) as f64
    }
}

/// The event that counts sends that were acknowledged.
pub const SEND_ACKNOWLEDGED: &str = "send-acknowledged";

fn add_pace(sum: &mut Option<Pace>, more: Pace) {
    let known = sum.get_or_insert_default();
    known.simulated_us += more.simulated_us;
    known.thread_us += more.thread_us;
    known.acknowledged_sends += more.acknowledged_sends;
    known.faults += more.faults;
}

fn add_counts(sum: &mut BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) {
    for (name, count) in counts {
        *sum.entry(name.clone()).or_insert(0) += count;
    }
}

fn add_coverage(sum: &mut PointFaults, coverage: &PointFaults) {
    for (point, classes) in coverage {
        add_counts(sum.entry(point.clone()).or_default(), classes);
    }
}

/// The first run of a group is the one with the least seed, whatever the order of the shards.
fn add_failures(sum: &mut BTreeMap<String, FailureGroup>, fingerprint: &str, group: &FailureGroup) {
    let Some(known) = sum.get_mut(fingerprint) else {
        sum.insert(fingerprint.to_owned(), group.clone());
        return;
    };
    let runs = known.runs + group.runs;
    if (group.seed, &group.scenario) < (known.seed, &known.scenario) {
        *known = group.clone();
    }
    known.runs = runs;
}

fn add_repeated(sum: &mut Option<Repeated>, more: Repeated) {
    let known = sum.get_or_insert_default();
    known.runs += more.runs;
    known.differing += more.differing;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seed: u64, verdict: VerdictKind, fingerprint: Option<&str>) -> RunRecord {
        let line = RunLine {
            scenario: "s".to_owned(),
            seed,
            mutant: None,
            verdict,
            anomalies: BTreeMap::new(),
            allowed: BTreeMap::new(),
            operations: 1,
            faults: 1,
            trace_hash: format!("{seed:032x}"),
            plan: format!("runs/s/{seed}/plan.json"),
            simulated_seconds: 1.0,
            wall_seconds: 0.1,
        };
        RunRecord {
            situations: BTreeSet::new(),
            line,
            events: BTreeMap::from([("kill".to_owned(), seed)]),
            recovery: RecoveryTimes::new(),
            coverage: BTreeMap::from([("sync".to_owned(), BTreeMap::from([("kill".to_owned(), 1)]))]),
            fingerprint: fingerprint.map(str::to_owned),
            proof: (seed == 2).then_some(Proof::Same),
        }
    }

    #[test]
    fn shards_add_up_to_what_one_campaign_would_have_said_in_either_order() {
        let runs = [
            record(1, VerdictKind::Valid, None),
            record(2, VerdictKind::Invalid, Some("a")),
            record(3, VerdictKind::Unknown, Some("b")),
            record(4, VerdictKind::Invalid, Some("a")),
        ];
        let sum = |picked: &[&RunRecord]| {
            let mut summary = SummaryLine { summary: true, ..SummaryLine::default() };
            picked.iter().for_each(|run| summary.add(run));
            summary
        };
        let whole = sum(&runs.iter().collect::<Vec<_>>());
        let (odd, even) = (sum(&[&runs[0], &runs[2]]), sum(&[&runs[3], &runs[1]]));
        let (mut one, mut other) = (odd.clone(), even.clone());
        one.merge(&even);
        other.merge(&odd);
        assert_eq!(one, whole);
        assert_eq!(other, whole);
        assert_eq!((whole.runs, whole.valid, whole.unknown, whole.invalid), (4, 1, 1, 2));
        assert_eq!((whole.events["kill"], whole.coverage["sync"]["kill"]), (10, 4));
        assert_eq!((whole.failures["a"].runs, whole.failures["a"].seed), (2, 2));
        assert_eq!(whole.repeated, Some(Repeated { runs: 1, differing: 0 }));
    }

    #[test]
    fn a_summary_of_an_earlier_version_is_read() {
        let text = "{\"summary\":true,\"runs\":1,\"valid\":1,\"unknown\":0,\"invalid\":0,\"events\":{}}";
        let summary: SummaryLine = serde_json::from_str(text).unwrap();
        assert!(summary.coverage.is_empty() && summary.failures.is_empty() && summary.repeated.is_none());
    }
}
