//! A load over time: median, p99 and longest latency of each window above, what was acknowledged, read and waiting below,
//! the phases that figures are not taken from shaded. One picture a system. Not here: a broker's crash (`timeline`).

use mqassay_harness::measure::result::{BenchResult, Latencies, Phase, Series, SeriesPoint};
use plotters::style::text_anchor::HPos;

use super::canvas::{Canvas, Paint};
use super::lines::{self, Frame, Tick};
use super::scale::{Axis, Spread, log_ends};
use super::{Chart, LegendItem, Table, both_widths, canvas, data_uri, sample};
use crate::number;
use crate::page::ReportError;

/// One chart for each system, in order of appearance.
pub(crate) fn charts(bench: &BenchResult) -> Result<Vec<Chart>, ReportError> {
    bench.series.iter().filter_map(|series| chart(bench, series).transpose()).collect()
}

fn chart(bench: &BenchResult, series: &Series) -> Result<Option<Chart>, ReportError> {
    let ends = series.points.iter().flat_map(|point| CURVES.iter().filter_map(|curve| (curve.of)(point)));
    let Some(ends) = log_ends(ends) else { return Ok(None) };
    let title = title(bench, series);
    let (wide, narrow) =
        both_widths(&title, |width| if width < 500.0 { 440.0 } else { 490.0 }, |canvas| draw(canvas, series, ends))?;
    let shape = format!(
        "{}, each of {}, {} and {}",
        number::counted(u64::from(series.topics), "topic", "topics"),
        number::counted(u64::from(series.queues), "queue", "queues"),
        number::counted(u64::from(series.producers), "producer", "producers"),
        number::counted(u64::from(series.subscriptions), "subscription", "subscriptions")
    );
    Ok(Some(Chart {
        title,
        caption: format!(
            "Above: latency from the intended send to reading, logarithmic, in windows of {} s; a percentile with fewer than \
             ten samples beyond it is left out. Below: records a second acknowledged and read. Over seconds since the load \
             began; shaded: not measured. {shape}. Plan {}; {}.",
            number::significant(series.window_seconds),
            bench.plan,
            sample(bench)
        ),
        legend: legend()?,
        wide,
        narrow,
        table: table(series),
        data: data_uri(series)?,
        data_name: format!("{}-{}-series.json", bench.plan, series.system.replace([' ', ','], "-")),
    }))
}

/// One line of the upper picture; its place in the list is its colour.
struct Curve {
    name: &'static str,
    of: fn(&SeriesPoint) -> Option<f64>,
}

const CURVES: [Curve; 3] = [
    Curve { name: "median", of: |point| percentile(point.end_to_end, 0) },
    Curve { name: "p99", of: |point| percentile(point.end_to_end, 3) },
    Curve { name: "longest", of: |point| point.end_to_end.map(|one| one.max_ns as f64) },
];
/// Colours of the lower picture, behind those of the upper.
const ACKNOWLEDGED: usize = 3;
const CONSUMED: usize = 4;

fn percentile(latencies: Option<Latencies>, index: usize) -> Option<f64> {
    latencies.and_then(|one| one.percentiles_ns[index]).map(|ns| ns as f64)
}

fn legend() -> Result<Vec<LegendItem>, ReportError> {
    let names = CURVES.iter().map(|curve| curve.name).chain(["acknowledged", "read"]);
    names
        .enumerate()
        .map(|(series, name)| Ok(LegendItem { label: name.to_owned(), mark: canvas::legend_mark(series)? }))
        .collect()
}

fn title(bench: &BenchResult, series: &Series) -> String {
    let row = |metric: &str| bench.rows.iter().find(|row| row.system == series.system && row.metric == metric);
    let said = |metric: &str, name: &str| row(metric).map(|row| format!("{name} {}", number::duration(row.value)));
    let figures: Vec<String> =
        [said("end_to_end_p50_ns", "median"), said("end_to_end_p99_ns", "p99")].into_iter().flatten().collect();
    let longest =
        series.points.iter().filter(|point| is_measured(series, point)).filter_map(|point| (CURVES[2].of)(point));
    let longest = number::duration(longest.fold(0.0, f64::max));
    if figures.is_empty() {
        format!("{} over time: longest latency {longest}", series.system)
    } else {
        format!("{} over time: {} in the middle window, longest {longest}", series.system, figures.join(", "))
    }
}

fn measured(series: &Series) -> Option<&Phase> {
    series.phases.iter().find(|phase| phase.name == "measured")
}

fn is_measured(series: &Series, point: &SeriesPoint) -> bool {
    measured(series).is_none_or(|phase| point.seconds >= phase.from_seconds - 1e-6)
}

fn draw(canvas: &mut Canvas, series: &Series, ends: (f64, f64)) -> Result<(), ReportError> {
    let right = canvas.width - if canvas.is_narrow() { 14.0 } else { 24.0 };
    let middle = canvas.height * 0.56;
    let upper = Frame { left: 58.0, right, top: 30.0, bottom: middle - 24.0 };
    let lower = Frame { left: 58.0, right, top: middle + 36.0, bottom: canvas.height - 46.0 };
    let last = series.phases.iter().map(|phase| phase.to_seconds).fold(series.window_seconds, f64::max);
    let x = Axis::new(Spread::Linear, (0.0, last), (upper.left, upper.right));
    let x_ticks: Vec<Tick> = x.ticks(44.0).into_iter().map(|tick| (tick, number::significant(tick))).collect();
    let latency = Axis::new(Spread::Logarithmic, ends, (upper.bottom, upper.top));
    let latency_ticks: Vec<Tick> = latency.ticks(28.0).into_iter().map(|tick| (tick, number::duration(tick))).collect();
    let rates = series.points.iter().flat_map(|point| [point.acknowledged_per_second, point.consumed_per_second]);
    let rate = Axis::new(Spread::Linear, (0.0, rates.fold(1.0, f64::max) * 1.1), (lower.bottom, lower.top));
    let rate_ticks: Vec<Tick> = rate.ticks(26.0).into_iter().map(|tick| (tick, number::si(tick))).collect();
    for phase in series.phases.iter().filter(|phase| phase.name != "measured") {
        let (from, to) = (x.at(phase.from_seconds), x.at(phase.to_seconds));
        for frame in [upper, lower] {
            canvas.area((from, frame.top), (to, frame.bottom), Paint::Shade)?;
        }
        let needed = phase.name.chars().count() as f64 * 6.4 + 8.0;
        if to - from >= needed {
            canvas.text(((from + to) / 2.0, upper.top + 10.0), &phase.name, HPos::Center, Paint::Muted, 11.0)?;
        }
    }
    lines::grid(canvas, upper, (&x, &x_ticks, ""), (&latency, &latency_ticks, "latency"))?;
    lines::grid(canvas, lower, (&x, &x_ticks, "seconds since the load began"), (&rate, &rate_ticks, "records/s"))?;
    let at = |point: &SeriesPoint| x.at(point.seconds + series.window_seconds / 2.0);
    for (index, curve) in CURVES.iter().enumerate() {
        // A window without the figure breaks the line.
        for run in series.points.split(|point| (curve.of)(point).is_none()) {
            let run: Vec<(f64, f64)> =
                run.iter().filter_map(|point| Some((at(point), latency.at((curve.of)(point)?)))).collect();
            line(canvas, &run, index)?;
        }
    }
    for (index, value) in [
        (ACKNOWLEDGED, (|point: &SeriesPoint| point.acknowledged_per_second) as fn(&SeriesPoint) -> f64),
        (CONSUMED, |point: &SeriesPoint| point.consumed_per_second),
    ] {
        let run: Vec<(f64, f64)> = series.points.iter().map(|point| (at(point), rate.at(value(point)))).collect();
        line(canvas, &run, index)?;
    }
    Ok(())
}

/// A line, with marks where the points are few enough to tell them apart.
fn line(canvas: &mut Canvas, points: &[(f64, f64)], series: usize) -> Result<(), ReportError> {
    if points.len() > 1 {
        canvas.path(points, Paint::Series(series), 2.0)?;
    }
    let width = points.last().zip(points.first()).map_or(0.0, |(last, first)| last.0 - first.0);
    if points.len() == 1 || width / points.len() as f64 >= MARK_GAP {
        for point in points {
            canvas.mark(*point, series, true)?;
        }
    }
    Ok(())
}

/// Marks nearer to each other than this run into one band.
const MARK_GAP: f64 = 14.0;

fn table(series: &Series) -> Table {
    let duration = |value: Option<f64>| value.map_or("–".to_owned(), number::duration);
    let row = |point: &SeriesPoint| {
        let [median, p99, longest] = CURVES.each_ref().map(|curve| duration((curve.of)(point)));
        vec![
            number::significant(point.seconds),
            number::count(point.acknowledged_per_second.round() as u64),
            number::count(point.consumed_per_second.round() as u64),
            number::count(point.waiting),
            median,
            p99,
            longest,
        ]
    };
    let head = ["Second", "Acknowledged a second", "Read a second", "Waiting at the end", "Median", "p99", "Longest"];
    Table::new(&head, series.points.iter().map(row).collect())
}
