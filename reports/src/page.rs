//! Puts the page together: every part of the input becomes plain text and numbers for the template,
//! which decides the order. Not here: how anything looks; that is `templates/`.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use mqassay_harness::artifact::SummaryLine;
use mqassay_harness::measure::result::{BenchResult, MetricRow, SystemVerdict, TargetPart};
use serde::Serialize;

use crate::chart::{self, Chart, Systems, Table};
use crate::input::ReportInput;
use crate::tables::{self, Allowed, BadRun, Event, FaultRow, MutantRow, MutantStory, ScenarioRow};
use crate::{glossary, number};

/// Why a report could not be made. Nothing here depends on the figures; each is a fault of this crate or its input.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The template did not render.
    #[error("the report's template did not render: {0:#}; this is a bug of mqassay, please report it")]
    Template(#[from] minijinja::Error),
    /// A chart could not be drawn.
    #[error("a chart of the report could not be drawn: {0}; this is a bug of mqassay, please report it")]
    Drawing(String),
    /// A chart's data could not be written as JSON.
    #[error("a chart's data could not be written as JSON: {0}; look for a figure that is not a number")]
    Data(#[from] serde_json::Error),
}

impl ReportError {
    /// plotters does not export the type of its backend's errors, so what it says is kept instead.
    pub(crate) fn drawing(error: impl std::error::Error) -> ReportError {
        ReportError::Drawing(error.to_string())
    }
}

/// The whole report as one HTML page, which needs nothing beside itself.
pub fn render(input: &ReportInput) -> Result<String, ReportError> {
    Ok(environment()?.get_template("page.html")?.render(Serde(Page::of(input)?))?)
}

/// The template engine with every template of this crate; everything in them is escaped as HTML.
pub(crate) fn environment() -> Result<Environment<'static>, ReportError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    for (name, source) in TEMPLATES {
        environment.add_template(name, source)?;
    }
    Ok(environment)
}

const TEMPLATES: [(&str, &str); 11] = [
    ("base.html", include_str!("templates/base.html")),
    ("claims.html", include_str!("templates/claims.html")),
    ("comparison.html", include_str!("templates/comparison.html")),
    ("figure.html", include_str!("templates/figure.html")),
    ("explain.html", include_str!("templates/explain.html")),
    ("explain.css", include_str!("templates/explain.css")),
    ("loss.html", include_str!("templates/loss.html")),
    ("page.html", include_str!("templates/page.html")),
    ("verdict.html", include_str!("templates/verdict.html")),
    ("bench.html", include_str!("templates/bench.html")),
    ("style.css", include_str!("templates/style.css")),
];

/// Runs that are not valid are listed up to this many; the rest is counted.
const BAD_RUNS_SHOWN_MAX: usize = 40;

/// Remarks of a bench that are shown at once; the rest unfolds.
const REMARKS_SHOWN_MAX: usize = 4;

#[derive(Serialize)]
struct Page {
    title: String,
    headline: String,
    headline_kind: &'static str,
    tiles: Vec<Tile>,
    /// Whether the page says something of verified runs and bugs: one that only measures does not.
    has_campaign: bool,
    scenarios: Vec<ScenarioRow>,
    bad_runs: Vec<BadRun>,
    bad_runs_hidden: u64,
    allowed: Vec<Allowed>,
    events: Vec<Event>,
    events_missing: String,
    mutants: Vec<MutantRow>,
    mutant_sentence: String,
    fault_classes: Vec<String>,
    mutants_by_fault: Vec<FaultRow>,
    any_shrunk: bool,
    stories: Vec<MutantStory>,
    ladder: Option<Chart>,
    /// Figures of the plans that have no picture, side by side.
    counted: Option<Counted>,
    benches: Vec<BenchSection>,
    manifest: BTreeMap<String, String>,
}

/// A figure that is read first.
#[derive(Serialize)]
struct Tile {
    value: String,
    label: String,
}

#[derive(Serialize)]
struct BenchSection {
    id: String,
    plan: String,
    title: String,
    verdicts: Vec<VerdictRow>,
    remarks: Vec<String>,
    remarks_more: Vec<String>,
    charts: Vec<Chart>,
    missing: String,
    targets: Vec<TargetRow>,
    /// Whether its figures stand in the table of those that have no picture.
    is_counted: bool,
    figures: Table,
    manifest: BTreeMap<String, String>,
}

/// One table of plans whose figures are no picture: counts, mostly.
#[derive(Serialize)]
struct Counted {
    systems: Vec<String>,
    rows: Vec<CountedRow>,
}

#[derive(Serialize)]
struct CountedRow {
    /// Empty where it is the plan of the row above.
    plan: String,
    figure: String,
    cells: Vec<String>,
}

impl Counted {
    fn of(benches: &[BenchResult], sections: &[BenchSection]) -> Option<Counted> {
        let counted = || benches.iter().zip(sections).filter(|(_, section)| section.is_counted).map(|(bench, _)| bench);
        let mut systems: Vec<String> = Vec::new();
        for row in counted().flat_map(|bench| &bench.rows) {
            if !systems.contains(&row.system) {
                systems.push(row.system.clone());
            }
        }
        let mut rows: Vec<CountedRow> = Vec::new();
        for bench in counted() {
            let mut plan = bench.plan.as_str();
            let mut metrics: Vec<&str> = Vec::new();
            for row in &bench.rows {
                if metrics.contains(&row.metric.as_str()) {
                    continue;
                }
                metrics.push(&row.metric);
                let cell = |system: &String| {
                    let same = |one: &&MetricRow| one.system == *system && one.metric == row.metric;
                    bench.rows.iter().find(same).map_or_else(|| "–".to_owned(), counted_cell)
                };
                let (figure, cells) = (glossary::metric(&row.metric), systems.iter().map(cell).collect());
                rows.push(CountedRow { plan: std::mem::take(&mut plan).to_owned(), figure, cells });
            }
        }
        (!rows.is_empty()).then_some(Counted { systems, rows })
    }
}

/// The figure, with its interval where it has one.
fn counted_cell(row: &MetricRow) -> String {
    let written = |value: f64| glossary::figure(&row.metric, value, &row.unit);
    if row.low == row.high {
        return written(row.value);
    }
    format!("{} ({} to {})", written(row.value), written(row.low), written(row.high))
}

#[derive(Serialize)]
struct TargetRow {
    target: String,
    part: String,
    ratio: String,
    interval: String,
    needs: String,
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Serialize)]
struct VerdictRow {
    system: String,
    verdict: String,
    messages: String,
    durability: String,
    anomalies: String,
}

impl Page {
    fn of(input: &ReportInput) -> Result<Page, ReportError> {
        let systems = Systems::of(&input.benches);
        let (headline, headline_kind) = headline(input);
        let not_valid = input.summary.unknown + input.summary.invalid;
        let bad_runs = tables::bad_runs(&input.runs, BAD_RUNS_SHOWN_MAX);
        let missing: Vec<String> = input
            .summary
            .events
            .iter()
            .filter(|(_, count)| **count == 0)
            .map(|(name, _)| name.replace('-', " "))
            .collect();
        let sections = input.benches.iter().enumerate().map(|(index, bench)| BenchSection::of(index, bench, &systems));
        let benches = sections.collect::<Result<Vec<BenchSection>, _>>()?;
        let (fault_classes, mutants_by_fault) = tables::mutants_by_fault(&input.mutants);
        Ok(Page {
            title: input.title.clone(),
            headline,
            headline_kind,
            tiles: tiles(input),
            has_campaign: has_campaign(input),
            scenarios: tables::scenarios(&input.runs),
            bad_runs_hidden: not_valid.saturating_sub(bad_runs.len() as u64),
            bad_runs,
            allowed: tables::allowed(&input.runs),
            events: tables::events(&input.summary),
            events_missing: missing.join(", "),
            mutants: tables::mutants(&input.mutants),
            mutant_sentence: mutant_sentence(input),
            fault_classes,
            mutants_by_fault,
            any_shrunk: input.mutants.iter().any(|(line, _)| line.shrunk.is_some()),
            stories: tables::stories(&input.mutants),
            ladder: chart::ladder::chart(&input.benches)?,
            counted: Counted::of(&input.benches, &benches),
            benches,
            manifest: input.manifest.clone(),
        })
    }
}

impl BenchSection {
    fn of(index: usize, bench: &BenchResult, systems: &Systems) -> Result<BenchSection, ReportError> {
        let mut charts = Vec::new();
        let mut missing = Vec::new();
        let drawn = [
            ("throughput", chart::throughput::chart(bench, systems)?),
            ("broker CPU per message", chart::cpu::chart(bench, systems)?),
            ("ratios of systems", chart::forest::chart(bench, systems)?),
        ];
        for (name, chart) in drawn {
            match chart {
                Some(chart) => charts.push(chart),
                None => missing.push(name),
            }
        }
        let several = [
            ("a latency spectrum", chart::spectrum::charts(bench, systems)?),
            ("a sweep", chart::sweep::charts(bench, systems)?),
        ];
        for (name, drawn) in several {
            if drawn.is_empty() {
                missing.push(name);
            }
            charts.extend(drawn);
        }
        // Only a plan that crashes a broker has one: it is not missed elsewhere.
        charts.extend(chart::timeline::charts(bench, systems)?);
        charts.extend(chart::search::charts(bench, systems)?);
        charts.extend(chart::series::charts(bench)?);
        charts.extend(chart::drain::chart(bench, systems)?);
        // One more than fits is shown rather than hidden behind a line of its own.
        let remarks_shown = if bench.remarks.len() <= REMARKS_SHOWN_MAX + 1 { usize::MAX } else { REMARKS_SHOWN_MAX };
        let other: Vec<&MetricRow> = bench.rows.iter().collect();
        Ok(BenchSection {
            id: format!("bench-{index}"),
            plan: bench.plan.clone(),
            title: bench.title.clone(),
            verdicts: bench.verdicts.iter().map(verdict_row).collect(),
            is_counted: charts.is_empty() && bench.targets.is_empty() && !bench.rows.is_empty(),
            remarks: bench.remarks.iter().take(remarks_shown).cloned().collect(),
            remarks_more: bench.remarks.iter().skip(remarks_shown).cloned().collect(),
            charts,
            missing: missing.join(", "),
            targets: bench.targets.iter().map(target_row).collect(),
            figures: chart::figures(&other),
            manifest: bench.manifest.clone(),
        })
    }
}

fn target_row(part: &TargetPart) -> TargetRow {
    let (kind, outcome) = if part.met { ("valid", "met") } else { ("invalid", "missed") };
    TargetRow {
        target: part.target.clone(),
        part: part.part.clone(),
        ratio: number::significant(part.ratio),
        interval: format!("{} to {}", number::significant(part.low), number::significant(part.high)),
        needs: match part.at_most {
            None => number::significant(part.needs),
            Some(at_most) => format!("{} to {}", number::significant(part.needs), number::significant(at_most)),
        },
        kind,
        outcome,
    }
}

fn verdict_row(verdict: &SystemVerdict) -> VerdictRow {
    let anomalies: Vec<String> =
        verdict.anomalies.iter().map(|(name, count)| format!("{name} {}", number::count(*count))).collect();
    VerdictRow {
        system: verdict.system.clone(),
        verdict: verdict.verdict.clone(),
        messages: number::count(verdict.verified_messages),
        durability: verdict.durability.clone(),
        anomalies: anomalies.join(", "),
    }
}

/// Whether anything was verified or a bug tried, or nothing was done at all, which is then said there.
fn has_campaign(input: &ReportInput) -> bool {
    input.summary.runs > 0 || !input.mutants.is_empty() || input.benches.is_empty()
}

/// What a page without a campaign comes to: the verdicts on what was measured.
fn measured_headline(benches: &[BenchResult]) -> (String, &'static str) {
    let verdicts = || benches.iter().flat_map(|bench| &bench.verdicts);
    let count = |wanted: &str| verdicts().filter(|one| one.verdict == wanted).count() as u64;
    let messages = number::count(verdicts().map(|one| one.verified_messages).sum());
    let counted = verdicts().all(|one| one.verified_messages == 0);
    match (count("invalid"), count("unknown"), verdicts().count()) {
        (0, 0, 1..) if counted => ("Counted; no stream of messages was there to be verified.".to_owned(), "valid"),
        (_, _, 0) => ("What was measured was not judged, so that its figures do not count.".to_owned(), "unknown"),
        (0, 0, _) => (format!("Measured, and every message accounted for: {messages} were verified."), "valid"),
        (0, open, _) => {
            (format!("{open} of the measured could not be judged; {messages} messages were verified."), "unknown")
        }
        (bad, ..) => {
            (format!("{bad} of the measured lost, repeated or changed messages; its figures do not count."), "invalid")
        }
    }
}

/// What the campaign came to, in a sentence, and the class that colours it.
fn headline(input: &ReportInput) -> (String, &'static str) {
    let SummaryLine { runs, unknown, invalid, .. } = input.summary;
    let of_runs = format!("of {}", number::counted(runs, "run", "runs"));
    if !has_campaign(input) {
        measured_headline(&input.benches)
    } else if runs == 0 {
        ("No run was verified.".to_owned(), "unknown")
    } else if invalid > 0 {
        (format!("A guarantee was broken in {} {of_runs}.", number::count(invalid)), "invalid")
    } else if unknown > 0 {
        (format!("{} {of_runs} could not be judged; no guarantee was seen broken.", number::count(unknown)), "unknown")
    } else {
        (format!("Every guarantee held in all {}.", number::counted(runs, "run", "runs")), "valid")
    }
}

fn mutant_sentence(input: &ReportInput) -> String {
    let all = input.mutants.len() as u64;
    let caught = input.mutants.iter().filter(|(line, _)| line.caught).count() as u64;
    if caught == all {
        format!("{} tried, each caught.", number::counted(all, "deliberate bug was", "deliberate bugs were"))
    } else {
        let missed: Vec<&str> =
            input.mutants.iter().filter(|(line, _)| !line.caught).map(|(line, _)| line.mutant.as_str()).collect();
        format!("{} of {} caught; not caught: {}.", number::count(caught), number::count(all), missed.join(", "))
    }
}

fn tiles(input: &ReportInput) -> Vec<Tile> {
    let mut tiles = Vec::new();
    if input.summary.runs > 0 {
        let valid = format!("{} / {}", number::count(input.summary.valid), number::count(input.summary.runs));
        tiles.push(Tile { value: valid, label: "runs valid".to_owned() });
        let operations: u64 = input.runs.iter().map(|run| run.operations).sum();
        tiles.push(Tile { value: number::count(operations), label: "operations judged".to_owned() });
        let faults: u64 = input.runs.iter().map(|run| run.faults).sum();
        tiles.push(Tile { value: number::count(faults), label: "faults injected".to_owned() });
    }
    if !input.mutants.is_empty() {
        let caught = input.mutants.iter().filter(|(line, _)| line.caught).count();
        tiles.push(Tile {
            value: format!("{caught} / {}", input.mutants.len()),
            label: "deliberate bugs caught".to_owned(),
        });
    }
    let produced = input.benches.iter().flat_map(|bench| &bench.rows).find(|row| row.unit == "records/s");
    if let Some(row) = produced {
        let label = format!("records/s, {}, {}", row.system, row.plan);
        tiles.push(Tile { value: number::si(row.value), label });
    }
    tiles
}
