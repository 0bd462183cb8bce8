//! Results as one flat table for spreadsheets and scripts: `results.csv`, a line for each figure, ratio, point and verdict.
//! Not here: what stands in the JSON beside it, which is complete; manifests and remarks are only there.

use std::path::Path;

use mqassay_harness::measure::result::{BenchResult, SeriesPoint, Timeline};

use crate::exit::Failure;

/// Writes the table of these results.
pub(crate) fn write(results: &[BenchResult], path: &Path) -> Result<(), Failure> {
    let write = || -> Result<(), csv::Error> {
        let mut writer = csv::Writer::from_path(path)?;
        writer.write_record(HEAD)?;
        for row in results.iter().flat_map(rows) {
            writer.write_record(row)?;
        }
        writer.flush()?;
        Ok(())
    };
    write().map_err(|error| Failure::Undone(anyhow::anyhow!("cannot write {}: {error}", path.display())))
}

const HEAD: [&str; 11] = ["kind", "plan", "system", "metric", "unit", "variable", "at", "value", "low", "high", "note"];

type Row = [String; 11];

/// The rows of one result, as they are gathered.
struct Sheet<'a> {
    plan: &'a str,
    rows: Vec<Row>,
}

impl Sheet<'_> {
    fn put(
        &mut self,
        [kind, system, metric, unit]: [&str; 4],
        [variable, at]: [&str; 2],
        [value, low, high]: [String; 3],
        note: String,
    ) {
        let texts = [kind, self.plan, system, metric, unit, variable, at].map(str::to_owned);
        let [kind, plan, system, metric, unit, variable, at] = texts;
        self.rows.push([kind, plan, system, metric, unit, variable, at, value, low, high, note]);
    }
}

fn rows(result: &BenchResult) -> Vec<Row> {
    let mut sheet = Sheet { plan: &result.plan, rows: Vec::new() };
    put_figures(result, &mut sheet);
    put_times(result, &mut sheet);
    put_outcomes(result, &mut sheet);
    sheet.rows
}

/// Figures, ratios, and what was found at each point of a sweep or a spectrum.
fn put_figures(result: &BenchResult, sheet: &mut Sheet<'_>) {
    for row in &result.rows {
        let figures = texts([row.value, row.low, row.high]);
        sheet.put(["figure", &row.system, &row.metric, &row.unit], ["", ""], figures, String::new());
    }
    for row in &result.ratios {
        let of = row.ratio_of.join(" / ");
        let figures = texts([row.ratio, row.low, row.high]);
        sheet.put(["ratio", &of, &row.metric, "ratio"], ["", ""], figures, format!("{} pairs", row.pairs));
    }
    for sweep in &result.sweeps {
        for point in &sweep.points {
            let note =
                point.records_per_batch.map_or_else(String::new, |records| format!("{records} records per batch"));
            let figures = texts([point.value, point.low, point.high]);
            let at = point.x.to_string();
            sheet.put(["sweep", &sweep.system, &sweep.metric, &sweep.unit], [&sweep.variable, &at], figures, note);
        }
    }
    for spectrum in &result.spectra {
        for (percentile, value) in &spectrum.points {
            let note = format!("{} samples", spectrum.count);
            let (at, figures) = (percentile.to_string(), [value.to_string(), String::new(), String::new()]);
            sheet.put(["spectrum", &spectrum.system, &spectrum.what, "ns"], ["percentile", &at], figures, note);
        }
    }
}

/// What was seen over time.
fn put_times(result: &BenchResult, sheet: &mut Sheet<'_>) {
    for timeline in &result.timelines {
        for (metric, unit, at, value) in windows(timeline) {
            let (figures, note) = ([value, String::new(), String::new()], format!("{} settings", timeline.setting));
            sheet.put(["timeline", &timeline.system, metric, unit], ["seconds", &at], figures, note);
        }
    }
    for series in &result.series {
        for point in &series.points {
            let at = point.seconds.to_string();
            for (metric, unit, value) in window(point) {
                let figures = [value, String::new(), String::new()];
                sheet.put(["series", &series.system, metric, unit], ["seconds", &at], figures, String::new());
            }
        }
    }
}

/// Targets and verdicts.
fn put_outcomes(result: &BenchResult, sheet: &mut Sheet<'_>) {
    for part in &result.targets {
        let note = format!("needs {}, {}", part.needs, if part.met { "met" } else { "missed" });
        let figures = texts([part.ratio, part.low, part.high]);
        sheet.put(["target", &part.target, &part.part, "ratio"], ["", ""], figures, note);
    }
    for verdict in &result.verdicts {
        let anomalies: Vec<String> =
            verdict.anomalies.iter().map(|(name, count)| format!(", {name} {count}")).collect();
        let note = format!("{}, {}{}", verdict.verdict, verdict.durability, anomalies.concat());
        let figures = [verdict.verified_messages.to_string(), String::new(), String::new()];
        sheet.put(["verdict", &verdict.system, "verified_messages", "messages"], ["", ""], figures, note);
    }
}

/// Metric, unit, second and value of every window.
fn windows(timeline: &Timeline) -> Vec<(&'static str, &'static str, String, String)> {
    let mut found = Vec::new();
    for point in &timeline.points {
        let at = point.seconds.to_string();
        found.push(("records_per_second", "records/s", at.clone(), point.records_per_second.to_string()));
        for (metric, value) in [("latency_p50_ns", point.latency_p50_ns), ("latency_max_ns", point.latency_max_ns)] {
            found.extend(value.map(|value| (metric, "ns", at.clone(), value.to_string())));
        }
    }
    found
}

/// Metric, unit and value of everything in one window of a series.
fn window(point: &SeriesPoint) -> Vec<(&'static str, &'static str, String)> {
    let mut found = vec![
        ("acknowledged_per_second", "records/s", point.acknowledged_per_second.to_string()),
        ("failed_per_second", "records/s", point.failed_per_second.to_string()),
        ("consumed_per_second", "records/s", point.consumed_per_second.to_string()),
        ("waiting", "records", point.waiting.to_string()),
    ];
    let clocks = [
        ("acknowledge_p50_ns", "acknowledge_p99_ns", "acknowledge_max_ns", &point.acknowledge),
        ("lag_p50_ns", "lag_p99_ns", "lag_max_ns", &point.lag),
        ("end_to_end_p50_ns", "end_to_end_p99_ns", "end_to_end_max_ns", &point.end_to_end),
    ];
    for (p50, p99, maximum, latencies) in clocks {
        let Some(latencies) = latencies else { continue };
        let [median, _, _, tail, ..] = latencies.percentiles_ns;
        for (metric, value) in [(p50, median), (p99, tail), (maximum, Some(latencies.max_ns))] {
            found.extend(value.map(|value| (metric, "ns", value.to_string())));
        }
    }
    found
}

fn texts(figures: [f64; 3]) -> [String; 3] {
    figures.map(|figure| figure.to_string())
}

#[cfg(test)]
mod tests {
    use mqassay_harness::measure::result::{MetricRow, Spectrum, Sweep, SweepPoint};

    use super::*;

    #[test]
    fn each_figure_is_a_line_and_commas_in_names_are_quoted() {
        let (plan, metric, unit) = ("p".to_owned(), "broker_files".to_owned(), "files".to_owned());
        let system = "reference, shared".to_owned();
        let row = MetricRow { plan: plan.clone(), system, metric, unit, value: 2.5, low: 2.0, high: 3.0 };
        let point = SweepPoint { x: 64.0, value: 9.0, low: 8.0, high: 10.0, records_per_batch: Some(100.0) };
        let sweep = Sweep {
            system: "kafka".to_owned(),
            variable: "queues".to_owned(),
            metric: "produce_records_per_second".to_owned(),
            unit: "records/s".to_owned(),
            points: vec![point],
            stopped: None,
        };
        let spectrum = Spectrum {
            system: "kafka".to_owned(),
            what: "end to end".to_owned(),
            points: vec![(99.9, 1_000)],
            count: 20_000,
        };
        let result = BenchResult {
            plan,
            rows: vec![row],
            sweeps: vec![sweep],
            spectra: vec![spectrum],
            ..BenchResult::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.csv");
        write(&[result], &path).unwrap();
        let expected = "kind,plan,system,metric,unit,variable,at,value,low,high,note\n\
            figure,p,\"reference, shared\",broker_files,files,,,2.5,2,3,\n\
            sweep,p,kafka,produce_records_per_second,records/s,queues,64,9,8,10,100 records per batch\n\
            spectrum,p,kafka,end to end,ns,percentile,99.9,1000,,,20000 samples\n";
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
    }
}
