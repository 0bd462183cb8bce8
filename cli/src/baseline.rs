//! A measurement against an earlier one: which figures got better or worse, beyond a share and beyond both intervals.
//! Two runs at different times share no blocks, so a difference counts only where the intervals lie apart.

use std::path::Path;

use mqassay_harness::measure::comparison::{self, Change, Outcome};
use mqassay_harness::measure::result::{BenchResult, MetricRow};

use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::cannot;

/// Reads a result as `bench --out` wrote it.
pub(crate) fn read(path: &Path) -> Result<BenchResult, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| cannot("read", path, error))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("{} is not a result of mqassay bench: {error}", path.display())))
}

/// Tells every figure that both have; a violation where one is worse by more than `worse_maximum` (a fraction) or is gone,
/// unknown where nothing can be compared. Figures of systems that `now` was not asked to measure are not missed. One value
/// each counts as apart: a count has no spread.
pub(crate) fn compare(baseline: &BenchResult, now: &BenchResult, systems: &[String], worse_maximum: f64) -> Exit {
    let found = comparison::compare(baseline, now);
    let changes: Vec<(&Change, f64)> =
        found.changes.iter().filter_map(|change| Some((change, 1.0 / change.gain?[1] - 1.0))).collect();
    let mut exit = if changes.is_empty() { Exit::Unknown } else { Exit::Valid };
    for (change, worse) in &changes {
        let is_apart = change.outcome != Outcome::NoDifference;
        let is_failure = is_apart && *worse > worse_maximum;
        if is_failure {
            exit = Exit::Violation;
        }
        let percent = 100.0 * worse.abs();
        let word = if *worse > 0.0 { "worse" } else { "better" };
        let note = match (is_failure, is_apart) {
            (true, _) => ": FAILS",
            (false, true) => "",
            (false, false) => ": no difference shown",
        };
        tell(&format!("  {:36} {:22} {percent:7.1} % {word}{note}", change.metric, change.of));
    }
    for row in gone(baseline, now, systems) {
        tell(&format!("  {:36} {:22} is gone: FAILS", row.metric, row.system));
        exit = Exit::Violation;
    }
    if changes.is_empty() {
        tell("  nothing to compare: the two results share no figure");
    }
    exit
}

/// Figures of the baseline that the new result lacks, of systems that it was to measure. A figure that stands for the
/// client or the machine of that day is none to miss.
fn gone<'a>(baseline: &'a BenchResult, now: &BenchResult, systems: &[String]) -> Vec<&'a MetricRow> {
    let is_asked = |row: &&MetricRow| {
        let of = |system: &String| {
            row.system.strip_prefix(system.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(", "))
        };
        systems.iter().any(of)
    };
    let is_there = |row: &MetricRow| now.rows.iter().any(|one| one.system == row.system && one.metric == row.metric);
    baseline.rows.iter().filter(is_asked).filter(|row| !is_there(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(metric: &str, value: f64, spread: f64) -> BenchResult {
        let row = MetricRow {
            plan: "p".to_owned(),
            system: "s".to_owned(),
            metric: metric.to_owned(),
            unit: String::new(),
            value,
            low: value * (1.0 - spread),
            high: value * (1.0 + spread),
        };
        BenchResult { rows: vec![row], ..BenchResult::default() }
    }

    #[test]
    fn worse_is_what_the_metric_says_and_overlap_shows_nothing() {
        let (throughput, latency) = ("produce_records_per_second", "end_to_end_p99_ns");
        let cases = [
            (throughput, 100.0, 90.0, 0.01, Exit::Violation),
            (throughput, 100.0, 90.0, 0.10, Exit::Valid),
            (throughput, 100.0, 97.0, 0.01, Exit::Valid),
            (throughput, 90.0, 100.0, 0.01, Exit::Valid),
            (latency, 100.0, 120.0, 0.01, Exit::Violation),
            (latency, 120.0, 100.0, 0.01, Exit::Valid),
        ];
        for (metric, before, now, spread, expected) in cases {
            let found = compare(&result(metric, before, spread), &result(metric, now, spread), &[], 0.05);
            assert_eq!(found, expected, "{metric}: {before} to {now}, ± {spread}");
        }
        assert_eq!(compare(&BenchResult::default(), &result(latency, 1.0, 0.0), &[], 0.05), Exit::Unknown);
    }

    #[test]
    fn a_figure_that_is_gone_fails_where_its_system_was_to_be_measured() {
        let (both, mut before) = (result("produce_records_per_second", 1.0, 0.0), BenchResult::default());
        before.rows.clone_from(&both.rows);
        before.rows.extend(result("end_to_end_p99_ns", 1.0, 0.0).rows);
        let compared = |systems: &[&str]| {
            let systems: Vec<String> = systems.iter().map(|name| (*name).to_owned()).collect();
            compare(&before, &both, &systems, 0.05)
        };
        assert_eq!(compared(&["s"]), Exit::Violation);
        assert_eq!(compared(&["another"]), Exit::Valid);
        before.rows[1].system = "s, a shape".to_owned();
        let systems = ["s".to_owned()];
        assert_eq!(compare(&before, &both, &systems, 0.05), Exit::Violation);
        before.rows[1].system = "s-other".to_owned();
        assert_eq!(compare(&before, &both, &systems, 0.05), Exit::Valid);
    }
}
