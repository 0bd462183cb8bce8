//! Two results of one plan side by side: which figures got better or worse, and what else was not the same. Pure.
//! Two runs at different times share no blocks, so that a difference counts only where the intervals lie apart.
//! Not here: ratios of systems within one run (`statistics`), and how a comparison is shown.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::result::{BenchResult, METRICS};

/// What changed from one result to another of the same plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// The plan's name.
    pub plan: String,
    /// Figures that both have, in the order of the earlier result.
    pub changes: Vec<Change>,
    /// Figures that only the earlier result has.
    pub only_before: Vec<String>,
    /// Figures that only the later result has.
    pub only_after: Vec<String>,
    /// Each system's verdict in both, where it is not the same.
    pub verdicts: Vec<Difference>,
    /// What the manifests do not agree on, the gravest kind first.
    pub differences: Vec<Difference>,
}

/// One figure in both results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The metric, from `METRICS`, or the part of a target.
    pub metric: String,
    /// Whose figure it is: a system, a system at a point of a sweep, or a ratio of two.
    pub of: String,
    /// The unit.
    pub unit: String,
    /// The earlier figure: low end, median, high end.
    pub before: [f64; 3],
    /// The later figure.
    pub after: [f64; 3],
    /// The later over the earlier with the widest interval that both allow (low end, ratio, high end), turned so that more
    /// is better; none where a figure is zero or below.
    pub gain: Option<[f64; 3]>,
    /// What that comes to.
    pub outcome: Outcome,
}

/// What a change comes to. The order is that of reading: what got worse stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Worse, with the intervals apart.
    Worse,
    /// Better, with the intervals apart.
    Better,
    /// The intervals share values.
    NoDifference,
    /// One value each and not the same: without a spread nobody can tell a change from noise.
    NoSpread,
}

/// Something that is not the same in both; none where one does not have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// How grave it is for a comparison.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Earlier.
    pub before: Option<String>,
    /// Later.
    pub after: Option<String>,
}

/// Kinds of differences, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The machine, its kernel or its file system.
    Machine,
    /// A commit, a version, a client library, the kind of build.
    Version,
    /// The plan or a setting of a system.
    Setting,
    /// What no two runs share: load, stolen time, warm-up.
    Circumstance,
}

/// Compares two results of the same plan.
pub fn compare(before: &BenchResult, after: &BenchResult) -> Comparison {
    let mut earlier = figures(before);
    let later = figures(after);
    let mut comparison = Comparison {
        plan: after.plan.clone(),
        verdicts: verdicts(before, after),
        differences: differences(&before.manifest, &after.manifest),
        ..Comparison::default()
    };
    earlier.retain(|figure| match later.iter().find(|other| other.is_same_as(figure)) {
        Some(other) => {
            comparison.changes.push(change(figure, other));
            false
        }
        None => true,
    });
    comparison.only_before = earlier.iter().map(Figure::name).collect();
    let is_new = |figure: &&Figure| {
        !comparison.changes.iter().any(|change| change.metric == figure.metric && change.of == figure.of)
    };
    comparison.only_after = later.iter().filter(is_new).map(Figure::name).collect();
    comparison
}

/// What two manifests do not agree on, the gravest kind first. A plan written as JSON is compared field by field.
pub fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Difference> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let (earlier, later) = (before.get(name), after.get(name));
        if earlier == later {
            continue;
        }
        let fields =
            |text: Option<&String>| text.and_then(|text| serde_json::from_str(text).ok()).map(|value| flat(&value));
        match (fields(earlier), fields(later)) {
            (Some(earlier), Some(later)) if name == "plan" => {
                found.extend(differences(&earlier, &later).into_iter().map(|one| Difference {
                    kind: Kind::Setting,
                    name: format!("plan: {}", one.name),
                    ..one
                }))
            }
            _ => {
                let (before, after) = (earlier.cloned(), later.cloned());
                found.push(Difference { kind: kind_of(name), name: name.clone(), before, after });
            }
        }
    }
    found.sort();
    found
}

/// A figure of one result, under the name that it is found again by.
struct Figure {
    metric: String,
    of: String,
    unit: String,
    interval: [f64; 3],
    has_spread: bool,
    more_is_better: bool,
}

impl Figure {
    fn is_same_as(&self, other: &Figure) -> bool {
        self.metric == other.metric && self.of == other.of
    }

    fn name(&self) -> String {
        format!("{} of {}", self.metric, self.of)
    }
}

/// Every figure of a result whose direction is known.
fn figures(result: &BenchResult) -> Vec<Figure> {
    let direction = |metric: &str| METRICS.iter().find(|(name, ..)| *name == metric).map(|(.., more)| *more);
    let mut figures = Vec::new();
    for row in &result.rows {
        let Some(more_is_better) = direction(&row.metric) else { continue };
        figures.push(Figure {
            metric: row.metric.clone(),
            of: row.system.clone(),
            unit: row.unit.clone(),
            interval: [row.low, row.value, row.high],
            has_spread: row.low < row.high,
            more_is_better,
        });
    }
    for row in &result.ratios {
        let Some(more_is_better) = direction(&row.metric) else { continue };
        figures.push(Figure {
            metric: row.metric.clone(),
            of: row.ratio_of.join(" ÷ "),
            unit: "ratio".to_owned(),
            interval: [row.low, row.ratio, row.high],
            has_spread: row.has_interval(),
            more_is_better,
        });
    }
    for sweep in &result.sweeps {
        let Some(more_is_better) = direction(&sweep.metric) else { continue };
        for point in &sweep.points {
            figures.push(Figure {
                metric: sweep.metric.clone(),
                of: format!("{} at {} {}", sweep.system, point.x, sweep.variable),
                unit: sweep.unit.clone(),
                interval: [point.low, point.value, point.high],
                has_spread: point.low < point.high,
                more_is_better,
            });
        }
    }
    for part in &result.targets {
        figures.push(Figure {
            metric: format!("{}: {}", part.target, part.part),
            of: "target".to_owned(),
            unit: "ratio".to_owned(),
            interval: [part.low, part.ratio, part.high],
            has_spread: part.low < part.high,
            more_is_better: true,
        });
    }
    figures
}

fn change(before: &Figure, after: &Figure) -> Change {
    let (lower, higher) = (after.interval[2] < before.interval[0], after.interval[0] > before.interval[2]);
    let outcome = match (before.has_spread || after.has_spread, lower, higher) {
        (_, false, false) => Outcome::NoDifference,
        (false, ..) => Outcome::NoSpread,
        (true, lower, _) if lower == before.more_is_better => Outcome::Worse,
        (true, ..) => Outcome::Better,
    };
    Change {
        metric: before.metric.clone(),
        of: before.of.clone(),
        unit: after.unit.clone(),
        before: before.interval,
        after: after.interval,
        gain: if before.more_is_better {
            quotient(after.interval, before.interval)
        } else {
            quotient(before.interval, after.interval)
        },
        outcome,
    }
}

/// One interval over another, as wide as both allow.
fn quotient(above: [f64; 3], below: [f64; 3]) -> Option<[f64; 3]> {
    let is_usable = above.iter().chain(&below).all(|value| value.is_finite() && *value > 0.0);
    is_usable.then(|| [above[0] / below[2], above[1] / below[1], above[2] / below[0]])
}

fn verdicts(before: &BenchResult, after: &BenchResult) -> Vec<Difference> {
    let of = |result: &BenchResult| -> BTreeMap<String, String> {
        result.verdicts.iter().map(|one| (one.system.clone(), one.verdict.clone())).collect()
    };
    differences(&of(before), &of(after))
}

fn kind_of(name: &str) -> Kind {
    const MACHINE: [&str; 5] = ["kernel", "cpu", "cores", "memory", "file system"];
    const VERSION: [&str; 3] = ["commit", "mqassay", "build"];
    const CIRCUMSTANCE: [&str; 6] =
        ["command line", "load average at start", "stolen time", "fdatasync median", "wall seconds", "began"];
    if MACHINE.contains(&name) {
        Kind::Machine
    } else if VERSION.contains(&name) || name.ends_with(" version") || name.ends_with(" client") {
        Kind::Version
    } else if CIRCUMSTANCE.contains(&name) || name.ends_with(" warm-up") || name.starts_with("hiccup ") {
        Kind::Circumstance
    } else {
        Kind::Setting
    }
}

/// A JSON value's leaves by their path.
fn flat(value: &serde_json::Value) -> BTreeMap<String, String> {
    fn walk(path: &str, value: &serde_json::Value, found: &mut BTreeMap<String, String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(&path, value, found);
                }
            }
            serde_json::Value::Null => {}
            leaf => {
                found.insert(path.to_owned(), leaf.to_string());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk("", value, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::super::result::{MetricRow, RatioRow, SystemVerdict};
    use super::*;

    fn row(metric: &str, system: &str, [low, value, high]: [f64; 3]) -> MetricRow {
        let (plan, unit) = ("p".to_owned(), String::new());
        MetricRow { plan, system: system.to_owned(), metric: metric.to_owned(), unit, value, low, high }
    }

    fn rows(rows: Vec<MetricRow>) -> BenchResult {
        BenchResult { plan: "p".to_owned(), rows, ..BenchResult::default() }
    }

    #[test]
    fn a_change_counts_where_intervals_lie_apart_and_its_direction_is_the_metrics() {
        let (rate, cost) = ("produce_records_per_second", "broker_cpu_ns_per_message");
        let cases = [
            (rate, [90.0, 100.0, 110.0], [120.0, 130.0, 140.0], Outcome::Better),
            (rate, [90.0, 100.0, 110.0], [50.0, 60.0, 70.0], Outcome::Worse),
            (rate, [90.0, 100.0, 110.0], [105.0, 130.0, 140.0], Outcome::NoDifference),
            (cost, [90.0, 100.0, 110.0], [120.0, 130.0, 140.0], Outcome::Worse),
            (cost, [90.0, 100.0, 110.0], [50.0, 60.0, 70.0], Outcome::Better),
            (cost, [100.0; 3], [120.0; 3], Outcome::NoSpread),
            (cost, [100.0; 3], [100.0; 3], Outcome::NoDifference),
            (cost, [100.0; 3], [120.0, 130.0, 140.0], Outcome::Worse),
        ];
        for (metric, before, after, expected) in cases {
            let found = compare(&rows(vec![row(metric, "s", before)]), &rows(vec![row(metric, "s", after)]));
            assert_eq!(found.changes[0].outcome, expected, "{metric}: {before:?} to {after:?}");
        }
        let found =
            compare(&rows(vec![row(cost, "s", [80.0, 100.0, 200.0])]), &rows(vec![row(cost, "s", [40.0, 50.0, 80.0])]));
        assert_eq!(found.changes[0].gain, Some([1.0, 2.0, 5.0]));
        let zero = compare(
            &rows(vec![row("lost_messages", "s", [0.0; 3])]),
            &rows(vec![row("lost_messages", "s", [0.0, 4.0, 9.0])]),
        );
        assert_eq!((zero.changes[0].gain, zero.changes[0].outcome), (None, Outcome::NoDifference));
    }

    #[test]
    fn what_only_one_has_is_told_and_few_pairs_have_no_spread() {
        let rate = "produce_records_per_second";
        let ratio = |ratio: f64, pairs| RatioRow {
            plan: "p".to_owned(),
            metric: rate.to_owned(),
            ratio_of: ["a".to_owned(), "b".to_owned()],
            ratio,
            low: ratio * 0.9,
            high: ratio * 1.1,
            pairs,
        };
        let mut before = rows(vec![row(rate, "gone", [1.0; 3])]);
        before.ratios = vec![ratio(1.0, 5)];
        let mut after = rows(vec![row(rate, "new", [1.0; 3]), row("unheard_of", "new", [1.0; 3])]);
        after.ratios = vec![ratio(2.0, 5)];
        let found = compare(&before, &after);
        assert_eq!(found.only_before, ["produce_records_per_second of gone"]);
        assert_eq!(found.only_after, ["produce_records_per_second of new"]);
        assert_eq!((found.changes[0].of.as_str(), found.changes[0].outcome), ("a ÷ b", Outcome::NoSpread));
    }

    #[test]
    fn manifests_differ_by_kind_and_plans_field_by_field() {
        let manifest = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
            entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let before = manifest(&[
            ("stolen time", "0 %"),
            ("kernel", "6.1"),
            ("commit", "a"),
            ("cores", "2"),
            ("plan", r#"{"queues":4,"rate":{"pairs":8}}"#),
        ]);
        let after = manifest(&[
            ("stolen time", "1 %"),
            ("kernel", "6.2"),
            ("commit", "a"),
            ("cores", "2"),
            ("kafka version", "4"),
            ("plan", r#"{"queues":4,"rate":{"pairs":2}}"#),
        ]);
        let found: Vec<(Kind, String)> =
            differences(&before, &after).into_iter().map(|one| (one.kind, one.name)).collect();
        let expected = [
            (Kind::Machine, "kernel"),
            (Kind::Version, "kafka version"),
            (Kind::Setting, "plan: rate.pairs"),
            (Kind::Circumstance, "stolen time"),
        ];
        assert_eq!(found, expected.map(|(kind, name)| (kind, name.to_owned())));
    }

    #[test]
    fn a_verdict_that_turned_is_told() {
        let verdict = |verdict: &str| BenchResult {
            verdicts: vec![SystemVerdict {
                system: "kafka".to_owned(),
                verdict: verdict.to_owned(),
                verified_messages: 1,
                anomalies: BTreeMap::new(),
                durability: String::new(),
            }],
            ..BenchResult::default()
        };
        assert!(compare(&verdict("valid"), &verdict("valid")).verdicts.is_empty());
        let turned = compare(&verdict("valid"), &verdict("invalid")).verdicts;
        assert_eq!(turned[0].after.as_deref(), Some("invalid"));
    }
}
