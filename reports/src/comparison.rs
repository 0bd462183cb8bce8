//! The page that compares two runs: what got better, worse or shows no difference, and what else was not the same, which
//! stands first, because another machine or another setting explains more than any figure. Not here: the comparing.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::value::Serde;
use mqassay_harness::artifact::SummaryLine;
use mqassay_harness::measure::comparison::{Comparison, Difference, Kind, Outcome};
use serde::Serialize;

use crate::chart::{Chart, Table, data_uri, gains};
use crate::number;
use crate::page::{ReportError, environment};

/// Two runs and what differs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ComparisonInput {
    /// What the earlier and the later run are called.
    pub names: [String; 2],
    /// One comparison for each plan that both have.
    pub plans: Vec<Comparison>,
    /// Plans that only one of them has.
    pub only: [Vec<String>; 2],
    /// Sums of the verified runs; 0 runs where nothing was verified.
    pub summaries: [SummaryLine; 2],
    /// Deliberate bugs, each with whether the earlier and the later run caught it; none where it was not tried.
    pub mutants: BTreeMap<String, [Option<bool>; 2]>,
    /// Machine, versions and settings of both.
    pub manifests: [BTreeMap<String, String>; 2],
    /// What the manifests do not agree on.
    pub differences: Vec<Difference>,
}

impl ComparisonInput {
    /// How many figures came to this.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.plans.iter().flat_map(|plan| &plan.changes).filter(|change| change.outcome == outcome).count()
    }
}

#[derive(Serialize)]
struct Page<'a> {
    names: &'a [String; 2],
    headline: String,
    headline_kind: &'static str,
    warnings: Vec<Warning>,
    summaries: Vec<SummaryRow>,
    mutants: Vec<[String; 3]>,
    plans: Vec<PlanSection>,
    only: Vec<String>,
    manifest: Vec<ManifestRow>,
    data: String,
}

/// What is told before any figure.
#[derive(Serialize)]
struct Warning {
    title: &'static str,
    meaning: &'static str,
    rows: Vec<ManifestRow>,
}

#[derive(Serialize)]
struct SummaryRow {
    name: String,
    runs: String,
    valid: String,
    unknown: String,
    invalid: String,
}

#[derive(Serialize)]
struct PlanSection {
    plan: String,
    counts: String,
    verdicts: Vec<String>,
    chart: Option<Chart>,
    table: Table,
    only: Vec<String>,
}

#[derive(Serialize)]
struct ManifestRow {
    name: String,
    values: [String; 2],
    differs: bool,
}

/// The page; it needs nothing beside itself.
pub fn render_comparison(input: &ComparisonInput) -> Result<String, ReportError> {
    let (headline, headline_kind) = headline(input);
    let summary_row = |(name, sum): (&String, &SummaryLine)| SummaryRow {
        name: name.clone(),
        runs: number::count(sum.runs),
        valid: number::count(sum.valid),
        unknown: number::count(sum.unknown),
        invalid: number::count(sum.invalid),
    };
    let has_runs = input.summaries.iter().any(|sum| sum.runs > 0);
    let summaries = input.names.iter().zip(&input.summaries).filter(|_| has_runs).map(summary_row).collect();
    let said = |caught: Option<bool>| match caught {
        Some(true) => "caught".to_owned(),
        Some(false) => "missed".to_owned(),
        None => "not tried".to_owned(),
    };
    let mutants = input.mutants.iter().map(|(name, [before, after])| [name.clone(), said(*before), said(*after)]);
    let plans: Result<Vec<PlanSection>, ReportError> =
        input.plans.iter().map(|plan| PlanSection::of(plan, &input.names)).collect();
    let page = Page {
        names: &input.names,
        headline,
        headline_kind,
        warnings: warnings(&input.differences),
        summaries,
        mutants: mutants.collect(),
        plans: plans?,
        only: only_plans(input),
        manifest: manifest(&input.manifests),
        data: data_uri(input)?,
    };
    Ok(environment()?.get_template("comparison.html")?.render(Serde(page))?)
}

impl PlanSection {
    fn of(plan: &Comparison, names: &[String; 2]) -> Result<PlanSection, ReportError> {
        let counts = |outcome| plan.changes.iter().filter(|change| change.outcome == outcome).count();
        let mut words = Vec::new();
        for outcome in [Outcome::Worse, Outcome::Better, Outcome::NoDifference, Outcome::NoSpread] {
            let count = counts(outcome);
            if count > 0 {
                words.push(format!("{count} {}", gains::word(outcome)));
            }
        }
        let turned = |one: &Difference| {
            let said = |verdict: &Option<String>| verdict.clone().unwrap_or_else(|| "not measured".to_owned());
            format!("verdict of {}: {}, then {}", one.name, said(&one.before), said(&one.after))
        };
        let only = |figures: &[String], name: &String| {
            figures
                .iter()
                .map(|figure| format!("{} (only in {name})", figure.replace('_', " ")))
                .collect::<Vec<String>>()
        };
        Ok(PlanSection {
            plan: plan.plan.clone(),
            counts: words.join(", "),
            verdicts: plan.verdicts.iter().map(turned).collect(),
            chart: gains::chart(plan, names)?,
            table: gains::table(&plan.changes, names),
            only: [only(&plan.only_before, &names[0]), only(&plan.only_after, &names[1])].concat(),
        })
    }
}

fn headline(input: &ComparisonInput) -> (String, &'static str) {
    let figures = |count: usize| number::counted(count as u64, "figure", "figures");
    let [worse, better, same] = [Outcome::Worse, Outcome::Better, Outcome::NoDifference].map(|one| input.count(one));
    let [before, after] = &input.names;
    if input.plans.iter().all(|plan| plan.changes.is_empty()) {
        return (format!("{before} and {after} share no figure."), "unknown");
    }
    let text = format!(
        "{after} is worse than {before} in {}, better in {}; {} show no difference.",
        figures(worse),
        number::count(better as u64),
        number::count(same as u64)
    );
    let kind = match (worse, better) {
        (0, 0) => "unknown",
        (0, _) => "valid",
        _ => "invalid",
    };
    (text, kind)
}

/// What differs, but for what no two runs share, by kind.
fn warnings(differences: &[Difference]) -> Vec<Warning> {
    let kinds = [
        (Kind::Machine, "Not the same machine", "A figure that changed may have changed because of it."),
        (
            Kind::Version,
            "Not the same versions",
            "This is what the comparison shows the effect of, if nothing else differs.",
        ),
        (Kind::Setting, "Not the same settings", "Figures are comparable only as far as these do not matter."),
    ];
    let rows = |kind: Kind| differences.iter().filter(move |one| one.kind == kind).map(row_of).collect::<Vec<_>>();
    let warning = |(kind, title, meaning)| Warning { title, meaning, rows: rows(kind) };
    kinds.into_iter().map(warning).filter(|warning| !warning.rows.is_empty()).collect()
}

fn row_of(one: &Difference) -> ManifestRow {
    let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
    ManifestRow { name: one.name.clone(), values: [said(&one.before), said(&one.after)], differs: true }
}

fn only_plans(input: &ComparisonInput) -> Vec<String> {
    let told = |(plans, name): (&Vec<String>, &String)| {
        plans.iter().map(|plan| format!("plan {plan}: only in {name}")).collect::<Vec<String>>()
    };
    input.only.iter().zip(&input.names).flat_map(told).collect()
}

fn manifest(manifests: &[BTreeMap<String, String>; 2]) -> Vec<ManifestRow> {
    let names: BTreeSet<&String> = manifests.iter().flat_map(BTreeMap::keys).collect();
    let row = |name: &String| {
        let value = |of: &BTreeMap<String, String>| of.get(name).cloned().unwrap_or_else(|| "–".to_owned());
        let [before, after] = [value(&manifests[0]), value(&manifests[1])];
        ManifestRow { name: name.clone(), differs: before != after, values: [before, after] }
    };
    names.into_iter().map(row).collect()
}
