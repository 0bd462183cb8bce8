//! What the judge says: a verdict with its findings, each with the few operations that prove it.
//! Not here: how findings come about (one file per guarantee) and what is allowed (`guarantee`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::artifact::VerdictKind;
use crate::guarantee::{Allowance, Anomaly};

/// Pieces of evidence kept per finding.
pub(super) const EVIDENCE_MAXIMUM: usize = 4;

/// The judgement of one history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Invalid where a finding is not allowed; else unknown where something could not be judged; else valid.
    pub kind: VerdictKind,
    /// What was found, violations first.
    pub findings: Vec<Finding>,
    /// What could not be judged, and why.
    pub unjudged: Vec<Unjudged>,
}

/// All occurrences of one anomaly that share one reason to be allowed, or have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The anomaly.
    pub anomaly: Anomaly,
    /// Occurrences: records for anomalies of records, operations for anomalies of operations.
    pub count: u64,
    /// Why it is allowed, or nothing where it is a violation.
    pub allowed: Option<Allowance>,
    /// What happened, in one or two sentences for people; the first occurrence stands for all.
    pub explanation: String,
    /// The few operations that prove it.
    pub evidence: Vec<Evidence>,
}

/// A piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Index of the operation in the history; none where the evidence is a mark.
    pub operation: Option<u64>,
    /// What it shows.
    pub text: String,
}

/// Something that could not be judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unjudged {
    /// The checker's name.
    pub checker: String,
    /// Why it could not judge.
    pub reason: String,
}

/// One occurrence, as a checker reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Occurrence {
    pub(super) anomaly: Anomaly,
    pub(super) count: u64,
    pub(super) allowed: Option<Allowance>,
    pub(super) explanation: String,
    pub(super) evidence: Vec<Evidence>,
}

impl Verdict {
    /// Violations by name of the anomaly.
    pub fn violations(&self) -> BTreeMap<String, u64> {
        self.counts(false)
    }

    /// What the guarantee matrix permits, by name of the anomaly.
    pub fn allowed(&self) -> BTreeMap<String, u64> {
        self.counts(true)
    }

    fn counts(&self, allowed: bool) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for finding in self.findings.iter().filter(|finding| finding.allowed.is_some() == allowed) {
            *counts.entry(finding.anomaly.name().to_owned()).or_insert(0) += finding.count;
        }
        counts
    }

    /// Groups occurrences by anomaly and allowance, and decides the kind.
    pub(super) fn of(occurrences: Vec<Occurrence>, unjudged: Vec<Unjudged>) -> Verdict {
        let mut groups: BTreeMap<(bool, Anomaly, Option<String>), Finding> = BTreeMap::new();
        for occurrence in occurrences {
            assert!(occurrence.count > 0, "{} reported without an occurrence", occurrence.anomaly);
            let row = occurrence.allowed.as_ref().map(|allowance| allowance.row.clone());
            let key = (row.is_some(), occurrence.anomaly, row);
            match groups.get_mut(&key) {
                Some(finding) => finding.add(occurrence),
                None => {
                    groups.insert(key, Finding::from(occurrence));
                }
            }
        }
        let findings: Vec<Finding> = groups.into_values().collect();
        let kind = if findings.iter().any(|finding| finding.allowed.is_none()) {
            VerdictKind::Invalid
        } else if unjudged.is_empty() {
            VerdictKind::Valid
        } else {
            VerdictKind::Unknown
        };
        Verdict { kind, findings, unjudged }
    }
}

impl Finding {
    fn add(&mut self, occurrence: Occurrence) {
        self.count += occurrence.count;
        if self.evidence.len() + occurrence.evidence.len() <= EVIDENCE_MAXIMUM {
            self.evidence.extend(occurrence.evidence);
        }
    }
}

impl From<Occurrence> for Finding {
    fn from(occurrence: Occurrence) -> Finding {
        let Occurrence { anomaly, count, allowed, explanation, mut evidence } = occurrence;
        evidence.truncate(EVIDENCE_MAXIMUM);
        Finding { anomaly, count, allowed, explanation, evidence }
    }
}

impl Evidence {
    /// Evidence given by an operation of the history.
    pub(super) fn operation(index: u32, text: String) -> Evidence {
        Evidence { operation: Some(u64::from(index)), text }
    }

    /// Evidence given by a mark.
    pub(super) fn mark(text: String) -> Evidence {
        Evidence { operation: None, text }
    }
}
