//! The node's log at the moments that matter, as offsets: what was durable, what was in memory only, what was gone
//! after the restart, and how far consumers could read. Start at `draw`.

use mqassay_harness::history::Queue;
use mqassay_harness::story::{NodeState, QueueState, Story};

use super::cause::{Cause, queue_in};
use super::evidence::{Focus, seconds};
use super::svg::Svg;
use crate::number;

const ROW: f64 = 74.0;
const BOX: f64 = 20.0;
/// Offsets that are drawn at most.
const OFFSETS_MAX: i64 = 160;

/// A moment of the log.
struct Moment<'a> {
    at_us: u64,
    title: String,
    /// How far the log was synced.
    detail: String,
    state: &'a QueueState,
    /// The state whose batches are drawn as gone where this one lacks them.
    earlier: Option<&'a QueueState>,
}

/// Draws the log of the evidence's queue at a width; none where no state shows it.
pub(super) fn draw(story: &Story, focus: &Focus<'_>, cause: &Cause<'_>, width: f64) -> Option<String> {
    let queue = focus.queue?;
    let moments = moments(story, focus, cause, queue);
    if moments.is_empty() {
        return None;
    }
    let (low, high) = range(focus, &moments);
    let (left, right) = (10.0, width - 14.0);
    let x = |offset: i64| left + (offset.clamp(low, high) - low) as f64 / (high - low).max(1) as f64 * (right - left);
    let row_height = if width < 500.0 { ROW + 15.0 } else { ROW };
    let mut svg = Svg::new(width);
    for (row, moment) in moments.iter().enumerate() {
        let top = 8.0 + row_height * row as f64;
        svg.text("f-ink small strong", (0.0, top + 10.0), "start", &moment.title);
        let place = if width < 500.0 { (0.0, top + 25.0, "start") } else { (right, top + 10.0, "end") };
        svg.text("f-muted small", (place.0, place.1), place.2, &moment.detail);
        let top = top + row_height - ROW;
        draw_row(&mut svg, moment, &x, (low, high), top + 30.0);
        for offset in focus.offsets.iter().filter(|offset| (low..=high).contains(offset)) {
            let at = x(*offset);
            svg.shape("f-bad", &[(at, top + 29.0), (at - 4.5, top + 21.0), (at + 4.5, top + 21.0)]);
        }
    }
    let bottom = 8.0 + row_height * moments.len() as f64;
    svg.line("k-axis", (left, bottom), (right, bottom));
    let step = step_for(high - low, width);
    let mut offset = (low + step - 1) / step * step;
    while offset <= high {
        svg.line("k-axis", (x(offset), bottom), (x(offset), bottom + 4.0));
        svg.text("f-muted small", (x(offset), bottom + 17.0), "middle", &offset.to_string());
        offset += step;
    }
    svg.text("f-muted small", (right, bottom + 33.0), "end", "offset");
    Some(svg.finish(bottom + 38.0, "The log of the queue at several moments, by offset."))
}

fn draw_row(svg: &mut Svg, moment: &Moment<'_>, x: &dyn Fn(i64) -> f64, (low, high): (i64, i64), top: f64) {
    let state = moment.state;
    let in_range = |first: i64, end: i64| end > low && first < high;
    if let Some(earlier) = moment.earlier {
        for batch in &earlier.batches {
            let end = batch.first_offset + i64::from(batch.count);
            let is_there = state.batches.iter().any(|other| other.first_offset == batch.first_offset);
            if !is_there && batch.first_offset >= state.log_start && in_range(batch.first_offset, end) {
                let (from, to) = (x(batch.first_offset), x(end));
                let title = format!("offsets {} to {}: gone", batch.first_offset, end - 1);
                svg.rect("batch gone", (from + 0.5, top), (to - from - 1.0, BOX), &title);
            }
        }
    }
    for batch in &state.batches {
        let end = batch.first_offset + i64::from(batch.count);
        if !in_range(batch.first_offset, end) {
            continue;
        }
        let (class, what) =
            if batch.end <= state.synced { ("durable", "synced") } else { ("volatile", "in memory only") };
        let (from, to) = (x(batch.first_offset), x(end));
        let title = format!("offsets {} to {}: {what}, up to position {}", batch.first_offset, end - 1, batch.end);
        svg.rect(&format!("batch {class}"), (from + 0.5, top), (to - from - 1.0, BOX), &title);
    }
    let watermark = x(state.high_watermark);
    svg.line("watermark", (watermark, top - 6.0), (watermark, top + BOX + 6.0));
    let (anchor, shift) = if watermark > (x(low) + x(high)) / 2.0 { ("end", -4.0) } else { ("start", 4.0) };
    let text = format!("high watermark {}", state.high_watermark);
    svg.text("f-ink small", (watermark + shift, top + BOX + 15.0), anchor, &text);
}

fn moments<'a>(story: &'a Story, focus: &Focus<'_>, cause: &Cause<'a>, queue: Queue) -> Vec<Moment<'a>> {
    let mut moments: Vec<Moment<'a>> = Vec::new();
    let mut add = |what: &str, state: Option<&'a NodeState>, earlier: Option<&'a QueueState>| {
        let Some((state, found)) = state.and_then(|state| Some((state, queue_in(state, queue)?))) else { return };
        let synced = number::count(found.synced);
        let title = format!("{what}, {}", seconds(state.at_us));
        let detail = format!("log {} synced up to position {synced}", found.log);
        moments.push(Moment { at_us: state.at_us, title, detail, state: found, earlier });
    };
    let acknowledged = focus.proofs.first().map(|proof| proof.operation.completed_us);
    let node = cause.before.map(|state| state.node);
    let is_nodes = |state: &&NodeState| node.is_none_or(|node| state.node == node);
    let state_at = |at_us: u64| story.states.iter().rev().filter(is_nodes).find(|state| state.at_us <= at_us);
    add("When proof 1 was complete", acknowledged.and_then(state_at), None);
    let had = cause.before.and_then(|state| queue_in(state, queue));
    let is_restart = cause.is_restart();
    add(if is_restart { "Before the process ended" } else { "Before" }, cause.before, None);
    add(if is_restart { "What recovery kept" } else { "After" }, cause.after, had);
    add("At the end of the run", story.states.iter().rfind(is_nodes), None);
    moments.sort_by_key(|moment| moment.at_us);
    moments.dedup_by(|later, earlier| std::ptr::eq(later.state, earlier.state));
    moments
}

/// The offsets to draw: those of the evidence and the log's ends, with some room, and no more than fit.
fn range(focus: &Focus<'_>, moments: &[Moment<'_>]) -> (i64, i64) {
    let newest = moments.iter().map(|moment| moment.state.next_offset).max().unwrap_or(0);
    let low = focus.offsets.first().copied().unwrap_or(newest - 40);
    let high = focus.offsets.last().map_or(newest, |offset| offset + 1);
    let ends = moments.iter().map(|moment| moment.state.next_offset);
    let near = ends.filter(|end| (low - 60..=high + 60).contains(end));
    let (mut low, mut high) = near.fold((low, high), |(low, high), end| (low.min(end), high.max(end)));
    let room = ((high - low) / 4).max(12);
    (low, high) = ((low - room).max(0), high + room);
    if focus.offsets.len() < 2 && high - low > OFFSETS_MAX {
        let middle = focus.offsets.first().copied().unwrap_or(high);
        (low, high) = ((middle - OFFSETS_MAX / 2).max(0), middle + OFFSETS_MAX / 2);
    }
    (low, high)
}

fn step_for(span: i64, width: f64) -> i64 {
    let room = (width / 60.0) as i64;
    let steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 20_000];
    steps.into_iter().find(|step| span / step <= room).unwrap_or(100_000)
}
