//! Broker CPU per message by system, with intervals: what the throughput cost the broker's own process.

use mqassay_harness::measure::result::{BenchResult, MetricRow};

use super::dots::{self, DotChart};
use super::{Chart, Systems};
use crate::number;
use crate::page::ReportError;

/// The CPU chart, or nothing where none was measured.
pub(crate) fn chart(bench: &BenchResult, systems: &Systems) -> Result<Option<Chart>, ReportError> {
    let rows: Vec<&MetricRow> = bench.rows.iter().filter(|row| SHOWN.contains(&row.metric.as_str())).collect();
    let figures: Vec<String> = rows
        .iter()
        .filter(|row| row.metric == rows[0].metric)
        .map(|row| format!("{} {}", row.system, number::quantity(row.value, &row.unit)))
        .collect();
    let title = format!("Broker CPU for each message: {}", figures.join(", "));
    let axis = "CPU time of the broker's process per message, less is better";
    dots::chart(bench, &rows, systems, &DotChart { title, axis, file: "cpu" })
}

/// Unthrottled costs; the cost at a low fixed rate is another magnitude, and stands in the table of figures.
const SHOWN: [&str; 2] = ["broker_cpu_ns_per_message", "broker_cpu_produce_ns_per_message"];
