//! A sweep over a variable, both axes logarithmic: one line a system (or layout), named at its end, records per batch and
//! requests a second in strips below, because batches that shrink explain most of what a fall over many queues seems to be.

use mqassay_harness::measure::result::{BenchResult, METRICS, Sweep, SweepPoint};
use plotters::style::text_anchor::HPos;

use super::canvas::{Canvas, Paint};
use super::lines::{self, Frame, Tick};
use super::scale::{Axis, Spread, log_ends};
use super::{Chart, Systems, Table, both_widths, data_uri, drain, legend, sample};
use crate::page::ReportError;
use crate::{glossary, number};

/// One chart for each variable and metric that was swept, in order of appearance.
pub(crate) fn charts(bench: &BenchResult, systems: &Systems) -> Result<Vec<Chart>, ReportError> {
    let mut charts: Vec<Chart> = Vec::new();
    let mut done: Vec<(&str, &str)> = Vec::new();
    for sweep in bench.sweeps.iter().filter(|sweep| !drain::is_drain(sweep)) {
        let key = (sweep.variable.as_str(), sweep.metric.as_str());
        if done.contains(&key) {
            continue;
        }
        done.push(key);
        let same: Vec<&Sweep> =
            bench.sweeps.iter().filter(|other| other.variable == key.0 && other.metric == key.1).collect();
        charts.extend(chart(bench, &same, systems)?);
    }
    Ok(charts)
}

fn chart(bench: &BenchResult, sweeps: &[&Sweep], systems: &Systems) -> Result<Option<Chart>, ReportError> {
    let points = || sweeps.iter().flat_map(|sweep| &sweep.points);
    let values = log_ends(points().flat_map(|point| [point.low, point.value, point.high]));
    let variable = log_ends(points().map(|point| point.x));
    let (Some(values), Some(_)) = (values, variable) else { return Ok(None) };
    let judged: Vec<&Sweep> = sweeps.iter().copied().filter(|sweep| is_judged(bench, sweep)).collect();
    let title = title(if judged.is_empty() { sweeps } else { &judged });
    let unjudged: Vec<&str> =
        sweeps.iter().filter(|sweep| !is_judged(bench, sweep)).map(|sweep| sweep.system.as_str()).collect();
    let unjudged = match unjudged.is_empty() {
        true => String::new(),
        false => format!(" Without a verdict, for calibration: {}.", unjudged.join(", ")),
    };
    let (wide, narrow) = both_widths(
        &title,
        |width| {
            let strips = if has_requests(sweeps) { 1.0 } else { 0.0 };
            if width < 500.0 { 400.0 + 122.0 * strips } else { 470.0 + 136.0 * strips }
        },
        |canvas| draw(canvas, sweeps, values, systems),
    )?;
    let stops: Vec<String> = sweeps
        .iter()
        .filter_map(|sweep| sweep.stopped.as_ref().map(|why| format!(" {} stopped early: {why}.", sweep.system)))
        .collect();
    Ok(Some(Chart {
        title,
        caption: format!(
            "{} ({}) over {}, both axes logarithmic; mark: median, bar: 95 % interval; below, {}. Plan {}; {}.{}{unjudged}",
            glossary::metric(&sweeps[0].metric),
            sweeps[0].unit,
            sweeps[0].variable,
            if has_requests(sweeps) {
                "records per batch as the broker saw them, and how many such requests a second that makes"
            } else {
                "records per batch as the broker saw them"
            },
            bench.plan,
            sample(bench),
            stops.concat()
        ),
        legend: legend(systems, sweeps.iter().map(|sweep| sweep.system.as_str()))?,
        wide,
        narrow,
        table: table(sweeps),
        data: data_uri(&sweeps)?,
        data_name: format!("{}-{}-sweep.json", bench.plan, sweeps[0].variable),
    }))
}

fn is_judged(bench: &BenchResult, sweep: &Sweep) -> bool {
    bench.verdicts.iter().any(|verdict| verdict.system == sweep.system)
}

/// What each sweep keeps of its best value at its last point, or how a cost grows. Not of its first: one queue alone seldom
/// gives a closed loop enough to do.
fn title(sweeps: &[&Sweep]) -> String {
    let xs = swept_values(sweeps);
    let (from, to) = (xs[0], xs[xs.len() - 1]);
    let is_cost = METRICS.iter().any(|(name, _, more_is_better)| *name == sweeps[0].metric && !more_is_better);
    let mut kept = Vec::new();
    for sweep in sweeps {
        let values = sweep.points.iter().map(|point| point.value);
        let best = if is_cost { values.reduce(f64::min) } else { values.reduce(f64::max) };
        if let (Some(best), [first, .., last]) = (best, sweep.points.as_slice())
            && best > 0.0
            && last.x > first.x
        {
            let share = last.value / best;
            let at = if last.x < to { format!(" (at {})", tick_label(last.x)) } else { String::new() };
            kept.push(if is_cost {
                format!("{} {} times its least{at}", sweep.system, number::significant((share * 100.0).round() / 100.0))
            } else {
                format!("{} keeps {} % of its best{at}", sweep.system, number::significant((share * 100.0).round()))
            });
        }
    }
    let (metric, variable) = (glossary::metric(&sweeps[0].metric), &sweeps[0].variable);
    let range = format!("{metric} from {} to {} {variable}", tick_label(from), tick_label(to));
    if kept.is_empty() { range } else { format!("{range}: {}", kept.join("; ")) }
}

/// Whether the figure is a rate of records, so that batches make it a rate of requests.
fn has_requests(sweeps: &[&Sweep]) -> bool {
    sweeps[0].unit == "records/s"
        && sweeps.iter().flat_map(|sweep| &sweep.points).all(|point| point.records_per_batch.is_some())
}

/// Requests a second; none where batches were not counted.
fn requests(point: &SweepPoint) -> Option<f64> {
    Some(point.value / point.records_per_batch?)
}

fn tick_label(value: f64) -> String {
    if value.fract() == 0.0 { number::count(value as u64) } else { number::significant(value) }
}

fn draw(canvas: &mut Canvas, sweeps: &[&Sweep], ends: (f64, f64), systems: &Systems) -> Result<(), ReportError> {
    let is_narrow = canvas.is_narrow();
    let right = canvas.width - if is_narrow { 14.0 } else { LABELS };
    let strip = if is_narrow { 70.0 } else { 84.0 };
    let foot = Frame { left: 58.0, right, top: canvas.height - 46.0 - strip, bottom: canvas.height - 46.0 };
    let lower = if has_requests(sweeps) {
        Frame { top: foot.top - strip - 52.0, bottom: foot.top - 52.0, ..foot }
    } else {
        foot
    };
    let upper = Frame { left: 58.0, right, top: 30.0, bottom: lower.top - 60.0 };
    let xs = swept_values(sweeps);
    let (low, high) = (xs[0], xs[xs.len() - 1]);
    let pad = if high > low { (high / low).powf(0.03) } else { 2.0 };
    let x = Axis::new(Spread::Logarithmic, (low / pad, high * pad), (upper.left, upper.right));
    let x_ticks: Vec<Tick> = x.thin(&xs, 44.0).into_iter().map(|tick| (tick, tick_label(tick))).collect();
    let y = Axis::new(Spread::Logarithmic, ends, (upper.bottom, upper.top));
    let y_ticks: Vec<Tick> = y.ticks(30.0).into_iter().map(|tick| (tick, written(tick, &sweeps[0].unit))).collect();
    lines::grid(canvas, upper, (&x, &x_ticks, ""), (&y, &y_ticks, &axis_name(sweeps[0])))?;
    let batch = batch_axis(sweeps, lower);
    let batch_ticks: Vec<Tick> = batch.ticks(24.0).into_iter().map(|tick| (tick, number::si(tick))).collect();
    let name = sweeps[0].variable.as_str();
    let lower_name = if has_requests(sweeps) { "" } else { name };
    lines::grid(canvas, lower, (&x, &x_ticks, lower_name), (&batch, &batch_ticks, "records per batch"))?;
    let mut ends_at = Vec::new();
    for sweep in sweeps {
        let series = systems.index(&sweep.system);
        let points: Vec<(f64, f64)> = sweep.points.iter().map(|point| (x.at(point.x), y.at(point.value))).collect();
        canvas.path(&points, Paint::Series(series), 2.0)?;
        for (point, at) in sweep.points.iter().zip(&points) {
            canvas.line((at.0, y.at(point.low)), (at.0, y.at(point.high)), Paint::Series(series), 1.5)?;
            canvas.mark(*at, series, true)?;
        }
        // A block too short for the client to count its batches has none to show; that is no zero.
        let size = |point: &SweepPoint| Some((x.at(point.x), batch.at(point.records_per_batch?)));
        let batches: Vec<(f64, f64)> = sweep.points.iter().filter_map(size).collect();
        canvas.path(&batches, Paint::Series(series), 1.5)?;
        for at in batches {
            canvas.mark(at, series, false)?;
        }
        ends_at.extend(points.last().map(|at| (*at, sweep.system.as_str())));
    }
    if has_requests(sweeps) {
        draw_requests(canvas, sweeps, foot, (&x, &x_ticks, name), systems)?;
    }
    if is_narrow { Ok(()) } else { draw_names(canvas, ends_at, upper) }
}

/// How many requests a second the records of each point came in.
fn draw_requests(
    canvas: &mut Canvas,
    sweeps: &[&Sweep],
    frame: Frame,
    x: (&Axis, &[Tick], &str),
    systems: &Systems,
) -> Result<(), ReportError> {
    let values = sweeps.iter().flat_map(|sweep| &sweep.points).filter_map(requests);
    let Some(ends) = log_ends(values) else { return Ok(()) };
    let y = Axis::new(Spread::Logarithmic, ends, (frame.bottom, frame.top));
    let ticks: Vec<Tick> = y.ticks(24.0).into_iter().map(|tick| (tick, number::si(tick))).collect();
    lines::grid(canvas, frame, x, (&y, &ticks, "requests/s"))?;
    for sweep in sweeps {
        let series = systems.index(&sweep.system);
        let at = |point: &SweepPoint| Some((x.0.at(point.x), y.at(requests(point)?)));
        let line: Vec<(f64, f64)> = sweep.points.iter().filter_map(at).collect();
        canvas.path(&line, Paint::Series(series), 1.5)?;
        for at in line {
            canvas.mark(at, series, false)?;
        }
    }
    Ok(())
}

/// Names each line at its end, so that nobody has to look a colour up. Names that would meet are moved apart.
fn draw_names(canvas: &mut Canvas, mut ends: Vec<((f64, f64), &str)>, frame: Frame) -> Result<(), ReportError> {
    ends.sort_by(|a, b| a.0.1.total_cmp(&b.0.1));
    let mut lowest = f64::NEG_INFINITY;
    for ((x, y), name) in ends {
        let place = y.max(lowest + NAME_HEIGHT);
        lowest = place;
        // A line that stopped before the others is named at the margin all the same; a thread leads there.
        canvas.line((x + 7.0, y), (frame.right + 4.0, place), Paint::Grid, 1.0)?;
        canvas.text((frame.right + 8.0, place), name, HPos::Left, Paint::Ink, 12.0)?;
    }
    Ok(())
}

/// Room for the lines' names at the right, in CSS pixels.
const LABELS: f64 = 168.0;
const NAME_HEIGHT: f64 = 15.0;

/// Every value of the variable at which something was measured, ascending, each once.
fn swept_values(sweeps: &[&Sweep]) -> Vec<f64> {
    let mut xs: Vec<f64> = sweeps.iter().flat_map(|sweep| &sweep.points).map(|point| point.x).collect();
    xs.retain(|x| x.is_finite() && *x > 0.0);
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    xs
}

/// From zero where the batches are much alike, logarithmic where they are not.
fn batch_axis(sweeps: &[&Sweep], frame: Frame) -> Axis {
    let sizes = || sweeps.iter().flat_map(|sweep| &sweep.points).filter_map(|point| point.records_per_batch);
    let highest = sizes().filter(|size| size.is_finite()).fold(0.0, f64::max);
    let lowest = sizes().filter(|size| *size > 0.0).fold(f64::INFINITY, f64::min);
    match log_ends(sizes()) {
        Some(ends) if highest / lowest > 20.0 => Axis::new(Spread::Logarithmic, ends, (frame.bottom, frame.top)),
        _ => Axis::new(
            Spread::Linear,
            (0.0, if highest > 0.0 { highest * 1.15 } else { 1.0 }),
            (frame.bottom, frame.top),
        ),
    }
}

/// A tick's label: the unit stands beside the axis' name, unless it scales with the value.
fn written(value: f64, unit: &str) -> String {
    match unit {
        "ns" | "bytes" => number::quantity(value, unit),
        _ => number::si(value),
    }
}

fn axis_name(sweep: &Sweep) -> String {
    match sweep.unit.as_str() {
        "ns" | "bytes" | "" => glossary::metric(&sweep.metric),
        unit => format!("{}, {unit}", glossary::metric(&sweep.metric)),
    }
}

fn table(sweeps: &[&Sweep]) -> Table {
    let mut rows = Vec::new();
    for sweep in sweeps {
        for point in &sweep.points {
            rows.push(vec![
                sweep.system.clone(),
                number::significant(point.x),
                number::quantity(point.value, &sweep.unit),
                number::quantity(point.low, &sweep.unit),
                number::quantity(point.high, &sweep.unit),
                point.records_per_batch.map_or_else(|| "not counted".to_owned(), number::significant),
            ]);
        }
    }
    let variable = sweeps[0].variable.clone();
    Table::new(&["System", &variable, "Median", "95 % from", "95 % to", "Records per batch"], rows)
}
