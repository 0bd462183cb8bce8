//! A broker's crash under a steady rate: what came through over time above, how late it was below, the time between kill
//! and restart shaded; one picture for each setting, one line a system.

use mqassay_harness::measure::result::{BenchResult, Timeline, TimelinePoint};

use super::canvas::{Canvas, Paint};
use super::lines::{self, Frame, Tick};
use super::scale::{Axis, Spread, log_ends};
use super::{Chart, Systems, Table, both_widths, data_uri, legend, sample};
use crate::number;
use crate::page::ReportError;

/// One chart for each setting, in order of appearance.
pub(crate) fn charts(bench: &BenchResult, systems: &Systems) -> Result<Vec<Chart>, ReportError> {
    let mut settings: Vec<&str> = Vec::new();
    for timeline in &bench.timelines {
        if !settings.contains(&timeline.setting.as_str()) {
            settings.push(&timeline.setting);
        }
    }
    let mut charts = Vec::new();
    for setting in settings {
        let same: Vec<&Timeline> = bench.timelines.iter().filter(|one| one.setting == setting).collect();
        charts.extend(chart(bench, setting, &same, systems)?);
    }
    Ok(charts)
}

fn chart(
    bench: &BenchResult,
    setting: &str,
    timelines: &[&Timeline],
    systems: &Systems,
) -> Result<Option<Chart>, ReportError> {
    let points = || timelines.iter().flat_map(|timeline| &timeline.points);
    let Some(latencies) = log_ends(points().filter_map(|point| point.latency_max_ns).map(|ns| ns as f64)) else {
        return Ok(None);
    };
    let gaps: Vec<String> =
        timelines.iter().map(|one| format!("{} {} s", one.system, number::significant(one.gap_seconds))).collect();
    let title = format!("Longest gap through a broker's kill -9 and restart, {setting} settings: {}", gaps.join("; "));
    let (wide, narrow) = both_widths(
        &title,
        |width| if width < 500.0 { 420.0 } else { 470.0 },
        |canvas| draw(canvas, timelines, latencies, systems),
    )?;
    Ok(Some(Chart {
        title,
        caption: format!(
            "Messages read a second in windows of {} s (above) and the longest time from intended send to reading \
             (below, logarithmic), over seconds since the load began; shaded from kill to restart. Plan {}; {}.",
            number::significant(timelines[0].window_seconds),
            bench.plan,
            sample(bench)
        ),
        legend: legend(systems, timelines.iter().map(|timeline| timeline.system.as_str()))?,
        wide,
        narrow,
        table: table(timelines),
        data: data_uri(&timelines)?,
        data_name: format!("{}-{setting}-timeline.json", bench.plan),
    }))
}

fn draw(
    canvas: &mut Canvas,
    timelines: &[&Timeline],
    latencies: (f64, f64),
    systems: &Systems,
) -> Result<(), ReportError> {
    let right = canvas.width - if canvas.is_narrow() { 14.0 } else { 24.0 };
    let middle = canvas.height * 0.48;
    let upper = Frame { left: 58.0, right, top: 30.0, bottom: middle - 24.0 };
    let lower = Frame { left: 58.0, right, top: middle + 36.0, bottom: canvas.height - 46.0 };
    let points = || timelines.iter().flat_map(|timeline| &timeline.points);
    let last = points().map(|point| point.seconds).fold(1.0, f64::max);
    let highest = points().map(|point| point.records_per_second).fold(1.0, f64::max);
    let x = Axis::new(Spread::Linear, (0.0, last), (upper.left, upper.right));
    let x_ticks: Vec<Tick> = x.ticks(44.0).into_iter().map(|tick| (tick, number::significant(tick))).collect();
    let rate = Axis::new(Spread::Linear, (0.0, highest * 1.1), (upper.bottom, upper.top));
    let rate_ticks: Vec<Tick> = rate.ticks(28.0).into_iter().map(|tick| (tick, number::si(tick))).collect();
    let latency = Axis::new(Spread::Logarithmic, latencies, (lower.bottom, lower.top));
    let latency_ticks: Vec<Tick> = latency.ticks(28.0).into_iter().map(|tick| (tick, number::duration(tick))).collect();
    for frame in [upper, lower] {
        for timeline in timelines.iter().take(1) {
            let (from, to) = (x.at(timeline.killed_seconds), x.at(timeline.restarted_seconds));
            canvas.area((from, frame.top), (to, frame.bottom), Paint::Shade)?;
        }
    }
    lines::grid(canvas, upper, (&x, &x_ticks, ""), (&rate, &rate_ticks, "messages read a second"))?;
    lines::grid(canvas, lower, (&x, &x_ticks, "seconds"), (&latency, &latency_ticks, "longest latency"))?;
    for timeline in timelines {
        let series = Paint::Series(systems.index(&timeline.system));
        let rates: Vec<(f64, f64)> =
            timeline.points.iter().map(|point| (x.at(point.seconds), rate.at(point.records_per_second))).collect();
        canvas.path(&rates, series, 2.0)?;
        // A window without messages has no latency: the line breaks there.
        for run in timeline.points.split(|point| point.latency_max_ns.is_none()) {
            let at =
                |point: &TimelinePoint| (x.at(point.seconds), latency.at(point.latency_max_ns.unwrap_or(0) as f64));
            let run: Vec<(f64, f64)> = run.iter().map(at).collect();
            if !run.is_empty() {
                canvas.path(&run, series, 2.0)?;
            }
        }
    }
    Ok(())
}

fn table(timelines: &[&Timeline]) -> Table {
    let row = |one: &&Timeline| {
        let since_kill = |at: f64| format!("{} s", number::significant(at - one.killed_seconds));
        vec![
            one.system.clone(),
            one.durability.clone(),
            format!("{} s", number::significant(one.gap_seconds)),
            one.recovered_seconds.map_or("not within the run".to_owned(), since_kill),
            number::count(one.lost),
            number::count(one.repeated),
            number::count(one.unacknowledged),
        ]
    };
    let head = ["System", "Durability", "Longest gap", "Recovered after kill", "Lost", "Repeated", "Not acknowledged"];
    Table::new(&head, timelines.iter().map(row).collect())
}
