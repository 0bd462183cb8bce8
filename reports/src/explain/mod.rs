//! The page that explains one run: the verdict in three sentences, a space-time diagram around the evidence, the node's
//! log at the moments that matter, and how probable the anomaly was when. Start at `render_story`.
//! Not here: how a run is recorded; the story arrives finished, and a part that it lacks is a sentence on the page.

mod cause;
mod curve;
mod diagram;
mod evidence;
mod log;
mod scale;
mod svg;

use std::collections::BTreeMap;

use minijinja::value::Serde;
use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::history::Mark;
use mqassay_harness::plan::{Fault, FaultAction, Plan, Trigger};
use mqassay_harness::sim::disk::LossKind;
use mqassay_harness::story::{Curve, Story};
use serde::Serialize;

use crate::chart::{NARROW, WIDE};
use crate::number;
use crate::page::{self, ReportError};
use cause::{Cause, words};
use evidence::{Focus, client_name, operation_text, outcome_text, queue_name, seconds};

/// Findings, losses and faults are listed up to this many; the rest is counted.
const ROWS_MAX: usize = 60;

/// The story of a run as one HTML page, which needs nothing beside itself.
pub fn render_story(story: &Story) -> Result<String, ReportError> {
    let environment = page::environment()?;
    Ok(environment.get_template("explain.html")?.render(Serde(Page::of(story)))?)
}

#[derive(Serialize)]
struct Page {
    title: String,
    headline: String,
    headline_kind: &'static str,
    sentences: Vec<Sentence>,
    queue: String,
    diagram: Option<Picture>,
    messages_hidden: usize,
    log: Option<Picture>,
    curve: Option<CurveSection>,
    proofs: Vec<ProofRow>,
    others: Vec<String>,
    findings: Vec<Vec<String>>,
    losses: Vec<Vec<String>>,
    losses_hidden: usize,
    faults: Vec<FaultRow>,
    settings: BTreeMap<String, String>,
    replay: String,
}

/// One of the three sentences.
#[derive(Serialize)]
struct Sentence {
    label: &'static str,
    text: String,
}

/// A picture for wide windows and one for narrow ones.
#[derive(Serialize)]
struct Picture {
    wide: String,
    narrow: String,
}

#[derive(Serialize)]
struct CurveSection {
    picture: Picture,
    title: String,
    caption: String,
    rows: Vec<Vec<String>>,
}

#[derive(Serialize)]
struct ProofRow {
    number: usize,
    client: String,
    operation: String,
    outcome: String,
    class: &'static str,
    invoked: String,
    completed: String,
    shows: String,
}

#[derive(Serialize)]
struct FaultRow {
    index: usize,
    struck: String,
    trigger: String,
    action: String,
    is_cause: bool,
}

impl Page {
    fn of(story: &Story) -> Page {
        let focus = Focus::of(story);
        let cause = Cause::of(story, &focus);
        let (headline, headline_kind) = headline(story);
        let (wide, hidden) = diagram::draw(story, &focus, &cause, WIDE);
        let (narrow, _) = diagram::draw(story, &focus, &cause, NARROW);
        let log = |width| log::draw(story, &focus, &cause, width);
        let losses = losses(story);
        Page {
            title: title(story),
            headline,
            headline_kind,
            sentences: sentences(story, &focus, &cause),
            queue: focus.queue.map_or_else(String::new, |queue| queue_name(story, queue)),
            diagram: (!focus.proofs.is_empty()).then_some(Picture { wide, narrow }),
            messages_hidden: hidden,
            log: log(WIDE).zip(log(NARROW)).map(|(wide, narrow)| Picture { wide, narrow }),
            curve: story.curve.as_ref().map(|curve| curve_section(story, curve)),
            proofs: focus.proofs.iter().map(|proof| proof_row(story, proof)).collect(),
            others: focus.others.iter().map(|text| (*text).to_owned()).collect(),
            findings: findings(story),
            losses_hidden: losses.len().saturating_sub(ROWS_MAX),
            losses: losses.into_iter().take(ROWS_MAX).collect(),
            faults: faults(story, &cause),
            settings: settings(&story.plan),
            replay: story.replay.clone(),
        }
    }
}

fn title(story: &Story) -> String {
    let mutant = story.plan.mutant.as_ref().map(|mutant| format!(", mutant {mutant}")).unwrap_or_default();
    format!("{}, seed {}{mutant}", story.plan.scenario, story.plan.seed)
}

fn headline(story: &Story) -> (String, &'static str) {
    match story.verdict.kind {
        VerdictKind::Invalid => {
            let names: Vec<String> = story.line.anomalies.keys().cloned().collect();
            (format!("A guarantee was broken: {}.", names.join(", ")), "invalid")
        }
        VerdictKind::Unknown => ("Something could not be judged; no guarantee was seen broken.".to_owned(), "unknown"),
        VerdictKind::Valid => ("Every guarantee held.".to_owned(), "valid"),
    }
}

fn sentences(story: &Story, focus: &Focus<'_>, cause: &Cause<'_>) -> Vec<Sentence> {
    let Some(finding) = focus.finding else { return Vec::new() };
    let times = number::counted(finding.count, "time", "times");
    let permitted = if finding.allowed.is_some() { ", which these settings permit" } else { "" };
    let what = format!("{} was found {times}{permitted}: {}", finding.anomaly.name(), finding.explanation);
    let proofs: Vec<String> = focus
        .proofs
        .iter()
        .map(|proof| format!("({}) {} of {}", proof.number, kind(proof), client_name(story, proof.operation.client.0)))
        .collect();
    let proof = match proofs.len() {
        0 => focus.others.join("; "),
        _ => format!("It is proved by {}.", proofs.join(", ")),
    };
    vec![
        Sentence { label: "What", text: what },
        Sentence { label: "Proof", text: proof },
        Sentence { label: "Cause", text: cause.sentence.clone() },
    ]
}

fn kind(proof: &evidence::Proof<'_>) -> &'static str {
    use mqassay_harness::history::Call;
    match &proof.operation.call {
        Call::Produce { .. } => "a produce",
        Call::Poll { is_final: true, .. } => "a final read",
        Call::Poll { .. } => "a poll",
        Call::Seek { .. } => "a seek",
        Call::ListOffset { .. } => "an offset query",
        Call::DeleteRecords { .. } => "a deletion",
        Call::CreateTopic { .. } => "a topic's creation",
        Call::Group { .. } => "a group's step",
    }
}

fn proof_row(story: &Story, proof: &evidence::Proof<'_>) -> ProofRow {
    let (outcome, class) = outcome_text(&proof.operation.outcome);
    ProofRow {
        number: proof.number,
        client: client_name(story, proof.operation.client.0),
        operation: operation_text(story, proof.operation),
        outcome,
        class,
        invoked: seconds(proof.operation.invoked_us),
        completed: seconds(proof.operation.completed_us),
        shows: proof.texts.join("; "),
    }
}

fn findings(story: &Story) -> Vec<Vec<String>> {
    let row = |finding: &mqassay_harness::check::Finding| {
        let allowed =
            finding.allowed.as_ref().map_or_else(|| "violation".to_owned(), |row| format!("permitted: {}", row.reason));
        vec![finding.anomaly.name().to_owned(), number::count(finding.count), allowed, finding.explanation.clone()]
    };
    story.verdict.findings.iter().map(row).collect()
}

/// What drives lost, in order of time.
fn losses(story: &Story) -> Vec<Vec<String>> {
    let mut losses: Vec<_> = story.losses.iter().collect();
    losses.sort_by_key(|loss| loss.at_us);
    let row = |loss: &&mqassay_harness::sim::disk::FileLoss| {
        let what = match loss.kind {
            LossKind::Vanished { length } => {
                format!("vanished with {}: its name was not durable", number::counted(length, "byte", "bytes"))
            }
            LossKind::Bytes { length, durable_length, length_after, bytes } => format!(
                "{} gone or older; length {} before, of which {} was durable, {} afterwards",
                number::counted(bytes, "byte", "bytes"),
                number::count(length),
                number::count(durable_length),
                number::count(length_after)
            ),
            LossKind::BitFlip { offset } => format!("a bit of byte {} was flipped", number::count(offset)),
        };
        vec![seconds(loss.at_us), format!("node {}", loss.node), loss.path.clone(), what]
    };
    losses.iter().map(row).collect()
}

fn faults(story: &Story, cause: &Cause<'_>) -> Vec<FaultRow> {
    let struck = |index: usize| {
        story.history.marks.iter().find_map(|mark| match mark {
            Mark::Fault { at_us, fault, .. } if *fault as usize == index => Some(*at_us),
            _ => None,
        })
    };
    let mut rows: Vec<(u64, FaultRow)> = story
        .plan
        .faults
        .iter()
        .enumerate()
        .map(|(index, fault)| {
            let at_us = struck(index);
            let row = FaultRow {
                index,
                struck: at_us.map_or_else(|| "never".to_owned(), seconds),
                trigger: trigger_text(&fault.trigger),
                action: action_text(fault),
                is_cause: cause.fault.is_some_and(|(_, _, fault)| fault as usize == index),
            };
            (at_us.unwrap_or(u64::MAX), row)
        })
        .collect();
    rows.sort_by_key(|(at_us, row)| (*at_us, row.index));
    rows.into_iter().map(|(_, row)| row).take(ROWS_MAX).collect()
}

fn trigger_text(trigger: &Trigger) -> String {
    match trigger {
        Trigger::At { at_ms } => format!("at {}", seconds(at_ms * 1000)),
        Trigger::Point { name, node, occurrence, armed_ms } => {
            format!("at point {name} of node {node}, time {occurrence} from {} on", seconds(armed_ms * 1000))
        }
    }
}

fn action_text(fault: &Fault) -> String {
    let class = words(fault.action.class());
    match &fault.action {
        FaultAction::Kill { node, restart_after_ms }
        | FaultAction::PowerLoss { node, restart_after_ms }
        | FaultAction::Restart { node, restart_after_ms } => {
            format!("{class} of node {node}, started again after {restart_after_ms} ms")
        }
        FaultAction::KillSet { nodes, restart_after_ms, .. }
        | FaultAction::PowerLossSet { nodes, restart_after_ms, .. } => {
            let nodes: Vec<String> = nodes.iter().map(u32::to_string).collect();
            format!("{class} of nodes {}, the first down for {restart_after_ms} ms", nodes.join(", "))
        }
        FaultAction::Partition { cut, duration_ms, .. } => {
            format!("{class}: {} directions of links cut for {duration_ms} ms", cut.len())
        }
        FaultAction::ClockSkew { node, skew_ms, duration_ms } => {
            format!("{class} on node {node}: the wall clock is {skew_ms} ms ahead for {duration_ms} ms")
        }
        FaultAction::Link { from, to, duration_ms, .. } => {
            format!("{class} from {from:?} to {to:?} for {duration_ms} ms")
        }
        FaultAction::DiskError { node, operations, .. } => {
            format!("{class} on node {node}, {operations} times")
        }
        FaultAction::Pause { node, duration_ms }
        | FaultAction::DiskFull { node, duration_ms }
        | FaultAction::DiskSlow { node, duration_ms, .. } => {
            format!("{class} on node {node} for {duration_ms} ms")
        }
        FaultAction::BitFlip { node, within } if within.is_empty() => format!("{class} on node {node}"),
        FaultAction::BitFlip { node, within } => format!("{class} on node {node}, in a file named like {within}"),
        FaultAction::AddNode { node } => format!("{class}: node {node} starts and joins the cluster"),
        FaultAction::RemoveNode { node } => {
            format!("{class}: the replicas of node {node} move away, then it is stopped and unregistered")
        }
    }
}

fn settings(plan: &Plan) -> BTreeMap<String, String> {
    let mut settings = plan.settings.clone();
    settings.insert("nodes".to_owned(), plan.world.nodes.to_string());
    settings.insert("clients".to_owned(), plan.clients.len().to_string());
    settings.insert("planned operations".to_owned(), plan.operation_count().to_string());
    settings.insert("sync takes".to_owned(), number::duration(plan.world.sync_us as f64 * 1000.0));
    settings.insert("latency".to_owned(), format!("{} ms, jitter {} ms", plan.world.latency_ms, plan.world.jitter_ms));
    settings
}

fn curve_section(story: &Story, curve: &Curve) -> CurveSection {
    let runs: u64 = curve.points.iter().map(|point| u64::from(point.runs)).sum();
    // The steepest step is where the anomaly became likely, if the intervals of its two ends are apart.
    let steps = curve.points.windows(2).map(|two| (two[1].share().1 - two[0].share().1, two[0], two[1]));
    let steepest = steps.max_by(|one, other| one.0.total_cmp(&other.0));
    let steepest = steepest.filter(|(_, from, to)| from.share().2 < to.share().0);
    let first = curve.points.first().map(|point| point.share().1);
    let title = match (steepest, first) {
        (Some((_, from, to)), _) => format!(
            "{} became likely between {} and {}: from {:.0} % to {:.0} % of the runs",
            curve.anomaly,
            seconds(from.cut_ms * 1000),
            seconds(to.cut_ms * 1000),
            from.share().1 * 100.0,
            to.share().1 * 100.0
        ),
        (None, Some(share)) if share >= 0.5 => format!(
            "{} was likely from the beginning: {:.0} % of the runs with nothing kept of the plan's times",
            curve.anomaly,
            share * 100.0
        ),
        (None, _) => format!("{} grew likely in small steps, or too few runs tell", curve.anomaly),
    };
    let rows = curve.points.iter().map(|point| {
        let (low, share, high) = point.share();
        vec![
            seconds(point.cut_ms * 1000),
            number::count(u64::from(point.runs)),
            number::count(u64::from(point.with_anomaly)),
            if point.runs == 0 { "not tried".to_owned() } else { format!("{:.0} %", share * 100.0) },
            format!("{:.0} % to {:.0} %", low * 100.0, high * 100.0),
        ]
    });
    CurveSection {
        picture: Picture { wide: curve::draw(story, curve, WIDE), narrow: curve::draw(story, curve, NARROW) },
        title,
        caption: format!(
            "Each point: the plan is kept up to that moment, later operations and faults are drawn again, and the share \
             of runs with {} is counted; the band is Wilson's interval of 95 %. {} runs in {}.",
            curve.anomaly,
            number::count(runs),
            number::duration(curve.wall_seconds * 1e9)
        ),
        rows: rows.collect(),
    }
}
