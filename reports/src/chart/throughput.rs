//! Throughput by system, with intervals: every metric of a bench that is a rate.

use mqassay_harness::measure::result::{BenchResult, MetricRow};

use super::dots::{self, DotChart};
use super::{Chart, Systems};
use crate::page::ReportError;
use crate::{glossary, number};

/// The throughput chart, or nothing where no rate was measured.
pub(crate) fn chart(bench: &BenchResult, systems: &Systems) -> Result<Option<Chart>, ReportError> {
    let rows: Vec<&MetricRow> = bench.rows.iter().filter(|row| row.unit == "records/s").collect();
    let title = title(&rows);
    dots::chart(bench, &rows, systems, &DotChart { title, axis: "Records per second", file: "throughput" })
}

/// The first metric's figures, in the order of the rows.
fn title(rows: &[&MetricRow]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let same_metric = rows.iter().filter(|row| row.metric == first.metric);
    let figures: Vec<String> =
        same_metric.map(|row| format!("{} {}", row.system, number::quantity(row.value, &row.unit))).collect();
    format!("{}: {}", glossary::metric(&first.metric), figures.join(", "))
}
