//! A claim's rules and what they say of measured figures. Pure: figures and rules in, outcomes out. A rule is decided
//! only where a figure's whole interval lies on one side of its bound. Not here: running anything (`super`).

use mqassay_harness::measure::result::{BenchResult, METRICS};
use mqassay_reports::{metric_title, written_figure};
use serde::{Deserialize, Serialize};

/// One bound on one figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Whose figure it is.
    pub(crate) system: String,
    /// The metric; none where the rule is about the verdict.
    pub(crate) metric: Option<String>,
    /// The verdict on the system's messages, where the rule is about it.
    pub(crate) verdict: Option<String>,
    /// Which plan's figure it is, where the claim has several.
    pub(crate) plan: Option<String>,
    /// The figure is the ratio to this system's.
    pub(crate) over: Option<String>,
    /// The figure is the ratio to the same system's under this plan.
    pub(crate) over_plan: Option<String>,
    /// The figure is the ratio of a sweep's point at `to` …
    pub(crate) to: Option<f64>,
    /// … over its point here.
    pub(crate) from: Option<f64>,
    /// The figure is at least this.
    pub(crate) at_least: Option<f64>,
    /// The figure is at most this.
    pub(crate) at_most: Option<f64>,
}

/// What a rule says of the figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The system that it is about.
    pub(crate) system: String,
    /// Whether the rule holds; none where the figures do not decide it.
    pub(crate) holds: Option<bool>,
    /// The figure and the bound, or why there is none, for people.
    pub(crate) figure: String,
}

impl Rule {
    /// Applies the rule to the results of the claim's plans.
    pub(crate) fn apply(&self, results: &[BenchResult]) -> Outcome {
        let (holds, figure) = match self.decide(results) {
            Ok((holds, figure)) => (holds, figure),
            Err(reason) => (None, reason),
        };
        Outcome { system: self.system.clone(), holds, figure }
    }

    fn decide(&self, results: &[BenchResult]) -> Result<(Option<bool>, String), String> {
        if let Some(wanted) = &self.verdict {
            let verdict =
                self.result(results, self.plan.as_deref())?.verdicts.iter().find(|one| one.system == self.system);
            let verdict = verdict.ok_or_else(|| format!("{} was not measured", self.system))?;
            let count = verdict.verified_messages;
            return Ok((Some(verdict.verdict == *wanted), format!("verdict {} on {count} messages", verdict.verdict)));
        }
        let [value, low, high] = self.figure(results)?;
        let at_least = self.at_least.map(|bound| side(low >= bound, high < bound));
        let at_most = self.at_most.map(|bound| side(high <= bound, low > bound));
        let holds = match (at_least, at_most) {
            (Some(first), Some(second)) => first.zip(second).map(|(first, second)| first && second),
            (first, second) => first.or(second).flatten(),
        };
        let written = |value: f64| self.written(value);
        let bound = |word: &str, bound: Option<f64>| {
            bound.map_or(String::new(), |bound| format!(", {word} {} wanted", written(bound)))
        };
        let bounds = bound("at least", self.at_least) + &bound("at most", self.at_most);
        let undecided = if holds.is_none() { "; the interval holds the bound, so that nothing is shown" } else { "" };
        let what = self.what();
        // What was counted has no interval.
        let interval = if low == high { String::new() } else { format!(" ({} to {})", written(low), written(high)) };
        Ok((holds, format!("{what}: {}{interval}{bounds}{undecided}", written(value))))
    }

    /// Value and interval.
    fn figure(&self, results: &[BenchResult]) -> Result<[f64; 3], String> {
        let metric = self.metric.as_deref().ok_or("the rule names no figure")?;
        let result = self.result(results, self.plan.as_deref())?;
        if let (Some(from), Some(to)) = (self.from, self.to) {
            return self.over_sweep(result, metric, from, to);
        }
        if let Some(over) = &self.over {
            let direct = result
                .ratios
                .iter()
                .find(|one| one.metric == metric && one.ratio_of == [self.system.clone(), over.clone()]);
            let inverse = result
                .ratios
                .iter()
                .find(|one| one.metric == metric && one.ratio_of == [over.clone(), self.system.clone()]);
            if let Some(few) = direct.or(inverse).filter(|one| !one.has_interval()) {
                return Err(format!("{} block pairs are too few to show a difference from {over}", few.pairs));
            }
            return match (direct, inverse) {
                (Some(one), _) => Ok([one.ratio, one.low, one.high]),
                (None, Some(one)) => Ok([1.0 / one.ratio, 1.0 / one.high, 1.0 / one.low]),
                (None, None) => Err(format!("{} and {over} were not both measured", self.system)),
            };
        }
        let row = |result: &BenchResult| {
            let row = result.rows.iter().find(|row| row.system == self.system && row.metric == metric);
            row.map(|row| [row.value, row.low, row.high]).ok_or_else(|| format!("{} was not measured", self.system))
        };
        let first = row(result)?;
        let Some(over_plan) = &self.over_plan else { return Ok(first) };
        let second = row(self.result(results, Some(over_plan))?)?;
        Ok([first[0] / second[0], first[1] / second[2], first[2] / second[1]])
    }

    fn over_sweep(&self, result: &BenchResult, metric: &str, from: f64, to: f64) -> Result<[f64; 3], String> {
        let sweep = result.sweeps.iter().find(|sweep| sweep.system == self.system && sweep.metric == metric);
        let sweep = sweep.ok_or_else(|| format!("{} was not measured", self.system))?;
        let point = |x: f64| {
            let found = sweep.points.iter().find(|point| point.x == x);
            found.ok_or_else(|| sweep.stopped.clone().unwrap_or_else(|| format!("no figure at {x} {}", sweep.variable)))
        };
        let (first, last) = (point(from)?, point(to)?);
        Ok([last.value / first.value, last.low / first.high, last.high / first.low])
    }

    fn result<'a>(&self, results: &'a [BenchResult], plan: Option<&str>) -> Result<&'a BenchResult, String> {
        let found = results.iter().find(|result| plan.is_none_or(|plan| result.plan == plan));
        found.ok_or_else(|| "its plan was not run".to_owned())
    }

    /// The figure as people write it: of two figures it is their ratio.
    fn written(&self, value: f64) -> String {
        let metric = self.metric.as_deref().unwrap_or_default();
        if self.over.is_some() || self.over_plan.is_some() || self.from.is_some() {
            return written_figure("", value, "ratio");
        }
        let unit = METRICS.iter().find(|(name, ..)| *name == metric).map_or("", |(_, unit, _)| unit);
        written_figure(metric, value, unit)
    }

    fn what(&self) -> String {
        let metric = metric_title(self.metric.as_deref().unwrap_or_default());
        match (&self.over, &self.over_plan, self.from, self.to) {
            (Some(over), ..) => format!("{metric}, {} over {over}", self.system),
            (None, Some(plan), ..) => format!("{metric}, {} over {plan}", self.plan.as_deref().unwrap_or_default()),
            (None, None, Some(from), Some(to)) => format!("{metric}, at {to} over at {from}"),
            _ => self.plan.as_ref().map_or(metric.clone(), |plan| format!("{metric}, {plan}")),
        }
    }
}

/// True, false, or undecided.
fn side(holds: bool, fails: bool) -> Option<bool> {
    match (holds, fails) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use mqassay_harness::measure::result::{MetricRow, RatioRow, Sweep, SweepPoint};

    use super::*;

    fn result(plan: &str, value: f64) -> BenchResult {
        let row = MetricRow {
            plan: plan.to_owned(),
            system: "kafka".to_owned(),
            metric: "produce_records_per_second".to_owned(),
            unit: String::new(),
            value,
            low: value * 0.9,
            high: value * 1.1,
        };
        let ratio = RatioRow {
            plan: plan.to_owned(),
            metric: row.metric.clone(),
            ratio_of: ["rocketmq".to_owned(), "kafka".to_owned()],
            ratio: 0.5,
            low: 0.4,
            high: 0.8,
            pairs: 6,
        };
        let point = |x, value| SweepPoint { x, value, low: value, high: value, records_per_batch: None };
        let sweep = Sweep {
            system: "kafka".to_owned(),
            variable: "queues".to_owned(),
            metric: row.metric.clone(),
            unit: String::new(),
            points: vec![point(64.0, 100.0), point(1024.0, 40.0)],
            stopped: Some("at 4096 queues: too many files".to_owned()),
        };
        let (rows, ratios, sweeps) = (vec![row], vec![ratio], vec![sweep]);
        BenchResult { plan: plan.to_owned(), rows, ratios, sweeps, ..BenchResult::default() }
    }

    fn rule(text: &str) -> Rule {
        toml::from_str(&format!("system = \"kafka\"\nmetric = \"produce_records_per_second\"\n{text}")).unwrap()
    }

    #[test]
    fn a_rule_is_decided_by_the_whole_interval_only() {
        let results = [result("a", 100.0), result("b", 10.0)];
        let cases = [
            ("at_least = 90.0", Some(true)),
            ("at_least = 111.0", Some(false)),
            ("at_least = 100.0", None),
            ("at_most = 120.0", Some(true)),
            ("at_most = 50.0", Some(false)),
            ("plan = \"b\"\nat_most = 12.0", Some(true)),
            ("plan = \"a\"\nover_plan = \"b\"\nat_least = 8.0", Some(true)),
            ("over = \"rocketmq\"\nat_least = 1.2", Some(true)),
            ("over = \"rocketmq\"\nat_least = 3.0", Some(false)),
            ("over = \"rocketmq\"\nat_least = 2.0", None),
            ("from = 64.0\nto = 1024.0\nat_most = 0.5", Some(true)),
            ("from = 64.0\nto = 4096.0\nat_most = 0.5", None),
        ];
        for (text, expected) in cases {
            let outcome = rule(text).apply(&results);
            assert_eq!(outcome.holds, expected, "{text}: {}", outcome.figure);
        }
        assert!(rule("from = 64.0\nto = 4096.0").apply(&results).figure.contains("too many files"));
        assert!(rule("plan = \"c\"\nat_least = 1.0").apply(&results).figure.contains("not run"));
    }

    #[test]
    fn too_few_pairs_decide_nothing() {
        let mut measured = result("p", 1.0);
        measured.ratios[0].pairs = 5;
        let outcome = rule("over = \"rocketmq\"\nat_least = 1.2").apply(&[measured]);
        assert_eq!(outcome.holds, None, "{}", outcome.figure);
    }
}
