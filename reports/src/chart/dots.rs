//! Dots with whiskers: one row for each system and metric, on one axis from zero. Throughput and CPU are shown so.
//! A hollow dot is a figure whose run has no green verdict.

use mqassay_harness::measure::result::{BenchResult, MetricRow};
use plotters::style::text_anchor::HPos;

use super::canvas::{Canvas, Paint};
use super::scale::{Axis, Spread};
use super::{Chart, Systems, Table, both_widths, data_uri, sample};
use crate::page::ReportError;
use crate::{glossary, number};

/// What tells one dot chart from another.
pub(super) struct DotChart<'a> {
    /// The chart's title, from its rows.
    pub(super) title: String,
    /// What the axis shows.
    pub(super) axis: &'a str,
    /// Ends the name of the data file.
    pub(super) file: &'a str,
}

/// A dot chart of the rows, all in one unit, grouped by metric.
pub(super) fn chart(
    bench: &BenchResult,
    rows: &[&MetricRow],
    systems: &Systems,
    what: &DotChart<'_>,
) -> Result<Option<Chart>, ReportError> {
    if rows.is_empty() {
        return Ok(None);
    }
    let groups = group(bench, rows, systems);
    let unit = rows[0].unit.clone();
    let (wide, narrow) =
        both_widths(&what.title, |width| height(&groups, width), |canvas| draw(canvas, &groups, &unit))?;
    let hollow = if groups.iter().flat_map(|group| &group.dots).any(|dot| !dot.is_green) {
        " A hollow mark has no green verdict and does not count."
    } else {
        ""
    };
    Ok(Some(Chart {
        title: what.title.clone(),
        caption: format!(
            "{}, from zero. Mark: median over interleaved blocks; whisker: 95 % interval. Plan {}; {}.{hollow}",
            what.axis,
            bench.plan,
            sample(bench)
        ),
        legend: Vec::new(),
        wide,
        narrow,
        table: table(rows),
        data: data_uri(&rows)?,
        data_name: format!("{}-{}.json", bench.plan, what.file),
    }))
}

struct Group {
    title: String,
    dots: Vec<Dot>,
}

struct Dot {
    label: String,
    series: usize,
    is_green: bool,
    interval: (f64, f64, f64),
}

fn group(bench: &BenchResult, rows: &[&MetricRow], systems: &Systems) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        let verdict = bench.verdicts.iter().find(|verdict| verdict.system == row.system);
        let is_green = verdict.is_some_and(|verdict| verdict.verdict == "valid");
        let dot = Dot {
            label: row.system.clone(),
            series: systems.index(&row.system),
            is_green,
            interval: (row.low, row.value, row.high),
        };
        let title = glossary::metric(&row.metric);
        match groups.iter_mut().find(|group| group.title == title) {
            Some(group) => group.dots.push(dot),
            None => groups.push(Group { title, dots: vec![dot] }),
        }
    }
    groups
}

const GROUP_TITLE: f64 = 30.0;
const AXIS_FOOT: f64 = 34.0;

fn row_height(width: f64) -> f64 {
    if width < 500.0 { 42.0 } else { 30.0 }
}

fn height(groups: &[Group], width: f64) -> f64 {
    let rows: usize = groups.iter().map(|group| group.dots.len()).sum();
    let titles = if groups.len() > 1 { groups.len() } else { 0 };
    titles as f64 * GROUP_TITLE + rows as f64 * row_height(width) + AXIS_FOOT + 6.0
}

fn draw(canvas: &mut Canvas, groups: &[Group], unit: &str) -> Result<(), ReportError> {
    let is_narrow = canvas.is_narrow();
    let (left, right) = if is_narrow { (8.0, canvas.width - 16.0) } else { (190.0, canvas.width - 160.0) };
    let highest = groups.iter().flat_map(|group| &group.dots).map(|dot| dot.interval.1.max(dot.interval.2));
    let highest = highest.filter(|value| value.is_finite()).fold(0.0, f64::max);
    let end = if highest > 0.0 { highest * 1.06 } else { 1.0 };
    let axis = Axis::new(Spread::Linear, (0.0, end), (left, right));
    let bottom = canvas.height - AXIS_FOOT;
    let written = number::quantity(highest, unit).chars().count() as f64 * 6.6 + 8.0;
    for tick in axis.ticks(written.max(84.0)) {
        let x = axis.at(tick);
        canvas.line((x, 4.0), (x, bottom), if tick == 0.0 { Paint::Axis } else { Paint::Grid }, 1.0)?;
        let label = if tick == 0.0 { "0".to_owned() } else { number::quantity(tick, unit) };
        canvas.text((x, bottom + 16.0), &label, HPos::Center, Paint::Muted, 11.5)?;
    }
    let mut y = 4.0;
    for group in groups {
        // A single group's title would only repeat the chart's.
        if groups.len() > 1 {
            let title_at = if is_narrow { (left + 6.0, y + 14.0) } else { (0.0, y + 16.0) };
            canvas.text(title_at, &group.title, HPos::Left, Paint::Ink, 13.5)?;
            y += GROUP_TITLE;
        }
        for dot in &group.dots {
            draw_dot(canvas, &axis, dot, y, unit)?;
            y += row_height(canvas.width);
        }
    }
    Ok(())
}

fn draw_dot(canvas: &mut Canvas, axis: &Axis, dot: &Dot, top: f64, unit: &str) -> Result<(), ReportError> {
    let (low, value, high) = dot.interval;
    let written = number::quantity(value, unit);
    let places = (axis.at(low), axis.at(value), axis.at(high));
    if canvas.is_narrow() {
        canvas.text((14.0, top + 9.0), &dot.label, HPos::Left, Paint::Muted, 12.5)?;
        canvas.text((canvas.width - 16.0, top + 9.0), &written, HPos::Right, Paint::Ink, 12.5)?;
        return canvas.whisker(places, top + 28.0, dot.series, dot.is_green);
    }
    let middle = top + 14.0;
    canvas.text((0.0, middle), &dot.label, HPos::Left, Paint::Muted, 13.0)?;
    canvas.text((canvas.width, middle), &written, HPos::Right, Paint::Ink, 13.0)?;
    canvas.whisker(places, middle, dot.series, dot.is_green)
}

/// Rows of figures with their intervals, as a table.
pub(crate) fn table(rows: &[&MetricRow]) -> Table {
    let rows = rows.iter().map(|row| {
        vec![
            glossary::metric(&row.metric),
            row.system.clone(),
            number::quantity(row.value, &row.unit),
            number::quantity(row.low, &row.unit),
            number::quantity(row.high, &row.unit),
        ]
    });
    Table::new(&["Metric", "System", "Median", "95 % from", "95 % to"], rows.collect())
}
