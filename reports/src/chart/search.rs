//! The search for the highest rate: latency over offered rate, the bound as a line, what was held solid and what was not
//! hollow, and the knee named: the highest rate that the confirming runs held. Not here: the search.

use mqassay_harness::measure::result::{BenchResult, RateSearch, SearchPoint};
use plotters::style::text_anchor::HPos;

use super::canvas::{Canvas, Paint};
use super::lines::{self, Frame, Tick};
use super::scale::{Axis, Spread, log_ends};
use super::{Chart, Systems, Table, both_widths, data_uri, legend, sample};
use crate::number;
use crate::page::ReportError;

/// The searches of a bench under one bound each, or nothing where no rate was tried.
pub(crate) fn charts(bench: &BenchResult, systems: &Systems) -> Result<Vec<Chart>, ReportError> {
    let mut bounds: Vec<(f64, u64)> = Vec::new();
    for search in &bench.searches {
        if !bounds.contains(&(search.percentile, search.bound_ns)) {
            bounds.push((search.percentile, search.bound_ns));
        }
    }
    let mut charts = Vec::new();
    for (percentile, bound_ns) in bounds {
        let is_same = |search: &&RateSearch| search.percentile == percentile && search.bound_ns == bound_ns;
        let same: Vec<&RateSearch> = bench.searches.iter().filter(is_same).collect();
        charts.extend(chart(bench, &same, systems)?);
    }
    Ok(charts)
}

fn chart(bench: &BenchResult, searches: &[&RateSearch], systems: &Systems) -> Result<Option<Chart>, ReportError> {
    let bound = searches[0].bound_ns as f64;
    let points = || searches.iter().flat_map(|search| &search.points);
    let latencies = points().filter_map(|point| point.latency_ns).map(|ns| ns as f64).chain([bound]);
    let rates = points().map(|point| point.offered_records_per_second);
    let (Some(latencies), Some(rates)) = (log_ends(latencies), log_ends(rates)) else { return Ok(None) };
    let title = title(searches);
    let (wide, narrow) = both_widths(
        &title,
        |width| if width < 500.0 { 320.0 } else { 400.0 },
        |canvas| draw(canvas, searches, (rates, latencies), systems),
    )?;
    let headrooms: Vec<String> = searches
        .iter()
        .filter_map(|search| Some((search, search.client_headroom?)))
        .map(|(search, ratio)| format!("{} {}", search.system, number::significant(ratio)))
        .collect();
    let headroom = if headrooms.is_empty() {
        String::new()
    } else {
        format!(" Headroom of the client: {}.", headrooms.join(", "))
    };
    Ok(Some(Chart {
        title,
        caption: format!(
            "{} of the latency from the intended send over the offered rate, both logarithmic; dashed: the bound, {}; solid \
             marks: the rate was held (achieved, no growing backlog, no errors, within the bound); hollow: it was not; \
             upright lines: the highest rate that all confirming runs held.{headroom} Plan {}; {} runs, {}.",
            name(searches[0].percentile),
            number::duration(bound),
            bench.plan,
            points().count(),
            sample(bench)
        ),
        legend: legend(systems, searches.iter().map(|search| search.system.as_str()))?,
        wide,
        narrow,
        table: table(searches),
        data: data_uri(&searches)?,
        data_name: format!("{}-search.json", bench.plan),
    }))
}

fn name(percentile: f64) -> String {
    format!("p{}", number::significant(percentile))
}

fn title(searches: &[&RateSearch]) -> String {
    let said = |search: &&RateSearch| match search.confirmed_records_per_second {
        Some(rate) => format!("{} {} records/s", search.system, number::si(rate)),
        None => format!("{} no rate that was tried", search.system),
    };
    let (percentile, bound) = (name(searches[0].percentile), number::duration(searches[0].bound_ns as f64));
    format!(
        "Highest rate with {percentile} below {bound}: {}",
        searches.iter().map(said).collect::<Vec<_>>().join(", ")
    )
}

fn draw(
    canvas: &mut Canvas,
    searches: &[&RateSearch],
    (rates, latencies): ((f64, f64), (f64, f64)),
    systems: &Systems,
) -> Result<(), ReportError> {
    let right = canvas.width - if canvas.is_narrow() { 14.0 } else { 24.0 };
    let frame = Frame { left: 58.0, right, top: 30.0, bottom: canvas.height - 44.0 };
    let x = Axis::new(Spread::Logarithmic, rates, (frame.left, frame.right));
    let y = Axis::new(Spread::Logarithmic, latencies, (frame.bottom, frame.top));
    let x_ticks: Vec<Tick> = x.ticks(44.0).into_iter().map(|tick| (tick, number::si(tick))).collect();
    let y_ticks: Vec<Tick> = y.ticks(28.0).into_iter().map(|tick| (tick, number::duration(tick))).collect();
    let latency = format!("{} latency", name(searches[0].percentile));
    lines::grid(canvas, frame, (&x, &x_ticks, "offered records/s"), (&y, &y_ticks, &latency))?;
    let bound = y.at(searches[0].bound_ns as f64);
    let mut at = frame.left;
    while at < frame.right {
        canvas.line((at, bound), ((at + 6.0).min(frame.right), bound), Paint::Ink, 1.5)?;
        at += 11.0;
    }
    canvas.text((frame.left + 6.0, bound - 9.0), "bound", HPos::Left, Paint::Ink, 11.5)?;
    for search in searches {
        let series = systems.index(&search.system);
        let mut points: Vec<&SearchPoint> = search.points.iter().collect();
        points.sort_by(|a, b| a.offered_records_per_second.total_cmp(&b.offered_records_per_second));
        let place =
            |point: &SearchPoint| Some((x.at(point.offered_records_per_second), y.at(point.latency_ns? as f64)));
        let line: Vec<(f64, f64)> = points.iter().filter_map(|point| place(point)).collect();
        if line.len() > 1 {
            canvas.path(&line, Paint::Series(series), 1.5)?;
        }
        for point in &points {
            if let Some(at) = place(point) {
                canvas.mark(at, series, point.failed.is_none())?;
            }
        }
        if let Some(rate) = search.confirmed_records_per_second {
            canvas.line((x.at(rate), frame.top), (x.at(rate), frame.bottom), Paint::Dashed(series), 1.5)?;
        }
    }
    Ok(())
}

fn table(searches: &[&RateSearch]) -> Table {
    let duration = |ns: Option<u64>| ns.map_or("–".to_owned(), |ns| number::duration(ns as f64));
    let mut rows = Vec::new();
    for search in searches {
        for point in &search.points {
            rows.push(vec![
                search.system.clone(),
                number::count(point.offered_records_per_second as u64),
                number::count(point.achieved_records_per_second as u64),
                duration(point.latency_p50_ns),
                duration(point.latency_ns),
                duration(point.latency_max_ns),
                if point.is_confirming { "confirming" } else { "probe" }.to_owned(),
                point.failed.clone().unwrap_or_else(|| "held".to_owned()),
            ]);
        }
    }
    let bounded = name(searches[0].percentile);
    let head = ["System", "Offered a second", "Achieved", "Median", &bounded, "Longest", "Run", "Outcome"];
    Table::new(&head, rows)
}
