//! The verdict side of the page: runs summed by scenario, what was permitted and why, events, mutants.
//! Not here: charts of measurements, which are in `chart`.

use std::collections::{BTreeMap, BTreeSet};

use mqassay_harness::artifact::{MutantLine, RunLine, SummaryLine, VerdictKind};
use serde::Serialize;

use crate::input::CaughtMutant;
use crate::{glossary, number};

/// Runs of one scenario, summed.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct ScenarioRow {
    name: String,
    runs: String,
    valid: String,
    unknown: String,
    invalid: String,
    worst: &'static str,
    operations: String,
    faults: String,
    simulated: String,
    allowed: Vec<String>,
}

/// A run that is not valid, with the line that replays it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BadRun {
    scenario: String,
    seed: u64,
    verdict: &'static str,
    anomalies: Vec<String>,
    replay: Option<String>,
}

/// An anomaly that the guarantee matrix permitted in some run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Allowed {
    name: String,
    count: String,
    scenarios: String,
    meaning: &'static str,
    reasons: Vec<String>,
}

/// A countable event.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    name: String,
    count: String,
    happened: bool,
}

/// A row of the table of mutants.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct MutantRow {
    name: String,
    grade: String,
    caught: bool,
    anomaly: String,
    seeds: String,
    seconds: String,
    faults: Option<[String; 2]>,
    operations: Option<[String; 2]>,
    shrink_seconds: String,
}

/// Which classes of fault a mutant's catch takes: a cell per class.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FaultRow {
    name: String,
    cells: Vec<FaultCell>,
}

/// One class of fault in the run that caught a mutant.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FaultCell {
    /// `needed` where the shrunk plan still has it, `struck` where only the whole plan had it, `none` else.
    kind: &'static str,
    count: String,
}

/// A caught mutant in full.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct MutantStory {
    name: String,
    anomaly: String,
    meaning: Option<&'static str>,
    seeds: String,
    explanation: String,
    evidence: Vec<String>,
    plan: String,
    replay: String,
}

#[derive(Default)]
struct Sum {
    runs: u64,
    by_verdict: [u64; 3],
    operations: u64,
    faults: u64,
    simulated_seconds: f64,
    allowed: BTreeMap<String, u64>,
}

/// The table by scenario, in order of the names.
pub(crate) fn scenarios(runs: &[RunLine]) -> Vec<ScenarioRow> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for run in runs {
        let name = match &run.mutant {
            Some(mutant) => format!("{} with mutant {mutant}", run.scenario),
            None => run.scenario.clone(),
        };
        let sum = sums.entry(name).or_default();
        sum.runs += 1;
        sum.by_verdict[severity(run.verdict)] += 1;
        sum.operations += run.operations;
        sum.faults += run.faults;
        sum.simulated_seconds += run.simulated_seconds;
        for (anomaly, count) in &run.allowed {
            *sum.allowed.entry(anomaly.clone()).or_default() += count;
        }
    }
    sums.into_iter().map(|(name, sum)| scenario_row(name, &sum)).collect()
}

fn scenario_row(name: String, sum: &Sum) -> ScenarioRow {
    let [valid, unknown, invalid] = sum.by_verdict;
    let worst = if invalid > 0 {
        "invalid"
    } else if unknown > 0 {
        "unknown"
    } else {
        "valid"
    };
    ScenarioRow {
        name,
        runs: number::count(sum.runs),
        valid: number::count(valid),
        unknown: number::count(unknown),
        invalid: number::count(invalid),
        worst,
        operations: number::count(sum.operations),
        faults: number::count(sum.faults),
        simulated: format!("{} s", number::count(sum.simulated_seconds.round() as u64)),
        allowed: named_counts(&sum.allowed),
    }
}

fn severity(verdict: VerdictKind) -> usize {
    match verdict {
        VerdictKind::Valid => 0,
        VerdictKind::Unknown => 1,
        VerdictKind::Invalid => 2,
    }
}

fn verdict_name(verdict: VerdictKind) -> &'static str {
    ["valid", "unknown", "invalid"][severity(verdict)]
}

fn named_counts(counts: &BTreeMap<String, u64>) -> Vec<String> {
    counts.iter().map(|(name, count)| format!("{name} {}", number::count(*count))).collect()
}

/// Runs that are not valid, the gravest first, at most `limit`.
pub(crate) fn bad_runs(runs: &[RunLine], limit: usize) -> Vec<BadRun> {
    let mut bad: Vec<&RunLine> = runs.iter().filter(|run| run.verdict != VerdictKind::Valid).collect();
    bad.sort_by_key(|run| std::cmp::Reverse(run.verdict));
    let row = |run: &&RunLine| BadRun {
        scenario: run.scenario.clone(),
        seed: run.seed,
        verdict: verdict_name(run.verdict),
        anomalies: named_counts(&run.anomalies),
        replay: (!run.plan.is_empty()).then(|| format!("mqassay replay {}", run.plan)),
    };
    bad.iter().take(limit).map(row).collect()
}

/// Every permitted anomaly with its meaning, in order of the names.
pub(crate) fn allowed(runs: &[RunLine]) -> Vec<Allowed> {
    let mut found: BTreeMap<&str, (u64, Vec<&str>)> = BTreeMap::new();
    for run in runs {
        for (anomaly, count) in &run.allowed {
            let entry = found.entry(anomaly).or_default();
            entry.0 += count;
            if !entry.1.contains(&run.scenario.as_str()) {
                entry.1.push(&run.scenario);
            }
        }
    }
    let explain = |(name, (count, mut scenarios)): (&str, (u64, Vec<&str>))| {
        scenarios.sort_unstable();
        Allowed {
            name: name.to_owned(),
            count: number::count(count),
            scenarios: scenarios.join(", "),
            meaning: glossary::anomaly(name).unwrap_or_default(),
            reasons: glossary::permissions(name),
        }
    };
    found.into_iter().map(explain).collect()
}

/// Events in order of their names.
pub(crate) fn events(summary: &SummaryLine) -> Vec<Event> {
    let row = |(name, count): (&String, &u64)| Event {
        name: name.replace('-', " "),
        count: number::count(*count),
        happened: *count > 0,
    };
    summary.events.iter().map(row).collect()
}

/// The table of mutants, in the order given.
pub(crate) fn mutants(mutants: &[(MutantLine, Option<CaughtMutant>)]) -> Vec<MutantRow> {
    let row = |(line, _): &(MutantLine, Option<CaughtMutant>)| MutantRow {
        name: line.mutant.clone(),
        grade: line.grade.clone(),
        caught: line.caught,
        anomaly: line.anomaly.clone().unwrap_or_default(),
        seeds: number::count(line.seeds_tried),
        seconds: number::duration(line.wall_seconds * 1e9),
        faults: line.shrunk.as_ref().map(|small| [small.faults_before, small.faults].map(number::count)),
        operations: line.shrunk.as_ref().map(|small| [small.operations_before, small.operations].map(number::count)),
        shrink_seconds: line.shrunk.as_ref().map_or_else(String::new, |small| number::duration(small.seconds * 1e9)),
    };
    mutants.iter().map(row).collect()
}

/// The classes of fault that struck in any catching run, in order of their names, and a row for each mutant caught.
pub(crate) fn mutants_by_fault(mutants: &[(MutantLine, Option<CaughtMutant>)]) -> (Vec<String>, Vec<FaultRow>) {
    let caught = || mutants.iter().map(|(line, _)| line).filter(|line| line.caught && !line.fault_classes.is_empty());
    let classes: BTreeSet<&String> = caught().flat_map(|line| line.fault_classes.keys()).collect();
    let cell = |line: &MutantLine, class: &String| {
        let struck = line.fault_classes.get(class).copied().unwrap_or(0);
        let left = line.shrunk.as_ref().and_then(|small| small.fault_classes.get(class)).copied().unwrap_or(0);
        let (kind, count) = match (left, struck) {
            (0, 0) => ("none", 0),
            (0, struck) => ("struck", struck),
            (left, _) => ("needed", left),
        };
        FaultCell { kind, count: number::count(count) }
    };
    let row = |line: &MutantLine| FaultRow {
        name: line.mutant.clone(),
        cells: classes.iter().map(|class| cell(line, class)).collect(),
    };
    (classes.iter().map(|class| class.replace('-', " ")).collect(), caught().map(row).collect())
}

/// The mutants whose evidence is at hand, in the order given.
pub(crate) fn stories(mutants: &[(MutantLine, Option<CaughtMutant>)]) -> Vec<MutantStory> {
    let mut stories = Vec::new();
    for (line, caught) in mutants {
        let Some(caught) = caught else { continue };
        let anomaly = line.anomaly.clone().unwrap_or_else(|| "an anomaly".to_owned());
        stories.push(MutantStory {
            name: line.mutant.clone(),
            meaning: glossary::anomaly(&anomaly),
            anomaly,
            seeds: number::counted(line.seeds_tried, "seed", "seeds"),
            explanation: caught.explanation.clone(),
            evidence: caught.evidence.clone(),
            plan: caught.plan.clone(),
            replay: caught.replay.clone(),
        });
    }
    stories
}
