//! The drain curve: how many records wait, over the seconds since consumers or a cure came, both axes from zero, one line a
//! system. Not here: sweeps over a variable that is not time (`sweep`).

use mqassay_harness::measure::result::{BenchResult, Sweep};

use super::canvas::{Canvas, Paint};
use super::lines::{self, Frame, Tick};
use super::scale::{Axis, Spread};
use super::{Chart, Systems, Table, both_widths, data_uri, legend, sample};
use crate::number;
use crate::page::ReportError;

/// Whether a sweep is a drain: over time and not over a variable.
pub(crate) fn is_drain(sweep: &Sweep) -> bool {
    sweep.variable.starts_with("seconds") && sweep.metric == "records_waiting"
}

/// The drain curves of a bench, or nothing.
pub(crate) fn chart(bench: &BenchResult, systems: &Systems) -> Result<Option<Chart>, ReportError> {
    let drains: Vec<&Sweep> = bench.sweeps.iter().filter(|sweep| is_drain(sweep) && !sweep.points.is_empty()).collect();
    if drains.is_empty() {
        return Ok(None);
    }
    let title = title(&drains);
    let (wide, narrow) = both_widths(
        &title,
        |width| if width < 500.0 { 280.0 } else { 340.0 },
        |canvas| draw(canvas, &drains, systems),
    )?;
    Ok(Some(Chart {
        title,
        caption: format!(
            "Records acknowledged and not yet read, over seconds since the consumers or the cure came; both axes from zero. \
             Plan {}; {}.",
            bench.plan,
            sample(bench)
        ),
        legend: legend(systems, drains.iter().map(|sweep| sweep.system.as_str()))?,
        wide,
        narrow,
        table: table(&drains),
        data: data_uri(&drains)?,
        data_name: format!("{}-drain.json", bench.plan),
    }))
}

fn title(drains: &[&Sweep]) -> String {
    let said = |sweep: &&Sweep| {
        let most = sweep.points.iter().map(|point| point.value).fold(0.0, f64::max);
        let (share, name) = (most * DRAINED_SHARE, &sweep.system);
        let peak = sweep.points.iter().position(|point| point.value >= most).unwrap_or(0);
        match sweep.points[peak..].iter().find(|point| point.value <= share) {
            Some(point) => format!("{name} {} records gone in {} s", number::si(most), number::significant(point.x)),
            None => format!("{name} {} records, not drained", number::si(most)),
        }
    };
    format!("Drain of the backlog: {}", drains.iter().map(said).collect::<Vec<_>>().join("; "))
}

/// A backlog of which this share is left counts as gone.
const DRAINED_SHARE: f64 = 0.01;

fn draw(canvas: &mut Canvas, drains: &[&Sweep], systems: &Systems) -> Result<(), ReportError> {
    let right = canvas.width - if canvas.is_narrow() { 14.0 } else { 24.0 };
    let frame = Frame { left: 58.0, right, top: 30.0, bottom: canvas.height - 44.0 };
    let points = || drains.iter().flat_map(|sweep| &sweep.points);
    let ends = |values: f64| (0.0, if values > 0.0 { values * 1.05 } else { 1.0 });
    let x =
        Axis::new(Spread::Linear, ends(points().map(|point| point.x).fold(0.0, f64::max)), (frame.left, frame.right));
    let y = Axis::new(
        Spread::Linear,
        ends(points().map(|point| point.value).fold(0.0, f64::max)),
        (frame.bottom, frame.top),
    );
    let x_ticks: Vec<Tick> = x.ticks(44.0).into_iter().map(|tick| (tick, number::significant(tick))).collect();
    let y_ticks: Vec<Tick> = y.ticks(28.0).into_iter().map(|tick| (tick, number::si(tick))).collect();
    lines::grid(canvas, frame, (&x, &x_ticks, "seconds"), (&y, &y_ticks, "records waiting"))?;
    for sweep in drains {
        let series = systems.index(&sweep.system);
        let line: Vec<(f64, f64)> = sweep.points.iter().map(|point| (x.at(point.x), y.at(point.value))).collect();
        canvas.path(&line, Paint::Series(series), 2.0)?;
        // One mark tells the lines apart without colour; marks on each point would hide them.
        if let Some(peak) = line.iter().min_by(|a, b| a.1.total_cmp(&b.1)) {
            canvas.mark(*peak, series, true)?;
        }
    }
    Ok(())
}

fn table(drains: &[&Sweep]) -> Table {
    let mut rows = Vec::new();
    for sweep in drains {
        for point in &sweep.points {
            rows.push(vec![sweep.system.clone(), number::significant(point.x), number::count(point.value as u64)]);
        }
    }
    Table::new(&["System", "Seconds", "Records waiting"], rows)
}
