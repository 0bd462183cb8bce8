//! The result as OpenMessaging Benchmark writes it, so that its own charts can be drawn from ours: lists with an entry for
//! each window of ten seconds, and the same over the whole run. Its units: messages a second, milliseconds, and
//! microseconds for the delay of a send behind its schedule. Not kept there, and therefore only in our own result:
//! verdicts, intervals, broker's cost, manifest.

use std::collections::BTreeMap;

use mqassay_harness::measure::result::{BenchResult, Latencies, Series, SeriesPoint, Spectrum};
use serde_json::{Map, Value, json};

/// The result of one system; `record_bytes` are those of the plan.
pub fn of(bench: &BenchResult, series: &Series, driver: &str, record_bytes: usize) -> Value {
    let measured = series.phases.iter().find(|phase| phase.name == "measured").map_or(0.0, |phase| phase.from_seconds);
    let points: Vec<&SeriesPoint> = series.points.iter().filter(|point| point.seconds >= measured - 1e-6).collect();
    let list = |value: &dyn Fn(&SeriesPoint) -> Value| Value::Array(points.iter().map(|point| value(point)).collect());
    let mut result = Map::new();
    let mut put = |name: String, value: Value| result.insert(name, value);
    put("workload".to_owned(), json!(bench.title));
    put("driver".to_owned(), json!(driver));
    put("messageSize".to_owned(), json!(record_bytes));
    put("topics".to_owned(), json!(series.topics));
    put("partitions".to_owned(), json!(series.queues));
    put("producersPerTopic".to_owned(), json!(series.producers));
    put("consumersPerTopic".to_owned(), json!(1));
    put("publishRate".to_owned(), list(&|point| json!(point.acknowledged_per_second)));
    put("publishErrorRate".to_owned(), list(&|point| json!(point.failed_per_second)));
    put("consumeRate".to_owned(), list(&|point| json!(point.consumed_per_second)));
    put("backlog".to_owned(), list(&|point| json!(point.waiting)));
    for clock in CLOCKS {
        for (index, suffix) in SUFFIXES.iter().enumerate() {
            let value = |point: &SeriesPoint| clock.figure((clock.of)(point).as_ref(), index);
            put(format!("{}{suffix}", clock.name), list(&value));
        }
        let spectrum = bench.spectra.iter().find(|one| one.system == series.system && one.what == clock.spectrum);
        let whole = whole(&points, clock, spectrum);
        for (index, suffix) in SUFFIXES.iter().enumerate() {
            put(format!("aggregated{}{suffix}", capital(clock.name)), clock.figure(whole.as_ref(), index));
        }
        put(format!("aggregated{}Quantiles", capital(clock.name)), clock.quantiles(spectrum));
    }
    Value::Object(result)
}

/// One of the three latencies.
struct Clock {
    name: &'static str,
    /// Our name of it.
    spectrum: &'static str,
    of: fn(&SeriesPoint) -> Option<Latencies>,
    ns_per_unit: f64,
    /// Whether OMB keeps whole numbers.
    is_whole: bool,
}

impl Clock {
    /// Mean, a percentile or the maximum; 0 where there was no message. Where too few samples lie beyond a percentile to
    /// state it, the maximum stands in its place, which is what OMB's own histogram then gives or nearly so.
    fn figure(&self, latencies: Option<&Latencies>, index: usize) -> Value {
        let Some(latencies) = latencies else { return self.number(0.0, index == 0) };
        let last = SUFFIXES.len() - 1;
        let ns = match index {
            0 => latencies.mean_ns,
            _ if index == last => latencies.max_ns as f64,
            _ => latencies.percentiles_ns[index - 1].unwrap_or(latencies.max_ns) as f64,
        };
        self.number(ns, index == 0)
    }

    fn number(&self, ns: f64, is_mean: bool) -> Value {
        let value = ns / self.ns_per_unit;
        if self.is_whole && !is_mean { json!(value.round() as u64) } else { json!(value) }
    }

    /// Percentile to value, as Java writes a number as a key.
    fn quantiles(&self, spectrum: Option<&Spectrum>) -> Value {
        let points = spectrum.map(|spectrum| spectrum.points.as_slice()).unwrap_or_default();
        let entries = points.iter().map(|(at, ns)| (format!("{at:?}"), self.number(*ns as f64, false)));
        Value::Object(entries.collect::<BTreeMap<String, Value>>().into_iter().collect())
    }
}

/// Over all windows: percentiles from the whole run's histogram, never from the windows' own.
fn whole(points: &[&SeriesPoint], clock: &Clock, spectrum: Option<&Spectrum>) -> Option<Latencies> {
    let spectrum = spectrum?;
    let windows: Vec<Latencies> = points.iter().filter_map(|point| (clock.of)(point)).collect();
    let count: u64 = windows.iter().map(|one| one.count).sum();
    let mean_ns = windows.iter().map(|one| one.mean_ns * one.count as f64).sum::<f64>() / count.max(1) as f64;
    let at = |wanted: f64| spectrum.points.iter().find(|(at, _)| (at - wanted).abs() < 1e-9).map(|(_, ns)| *ns);
    let percentiles_ns = mqassay_harness::measure::result::LATENCY_PERCENTILES.map(at);
    Some(Latencies { count: spectrum.count, mean_ns, percentiles_ns, max_ns: at(100.0)? })
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

const CLOCKS: &[Clock] = &[
    Clock {
        name: "publishLatency",
        spectrum: "acknowledgement",
        of: |point| point.acknowledge,
        ns_per_unit: 1e6,
        is_whole: false,
    },
    Clock {
        name: "publishDelayLatency",
        spectrum: "schedule lag",
        of: |point| point.lag,
        ns_per_unit: 1e3,
        is_whole: true,
    },
    Clock {
        name: "endToEndLatency",
        spectrum: "end to end",
        of: |point| point.end_to_end,
        ns_per_unit: 1e6,
        is_whole: false,
    },
];

/// OMB's names of mean, percentiles and maximum.
const SUFFIXES: [&str; 8] = ["Avg", "50pct", "75pct", "95pct", "99pct", "999pct", "9999pct", "Max"];

#[cfg(test)]
mod tests {
    use mqassay_harness::measure::result::Phase;

    use super::*;

    #[test]
    fn every_field_that_omb_charts_read_is_there_in_its_units() {
        let latencies = Latencies {
            count: 100,
            mean_ns: 2e6,
            percentiles_ns: [Some(1_500_000), Some(2_000_000), Some(3_000_000), None, None, None],
            max_ns: 9_000_000,
        };
        let point = |seconds: f64| SeriesPoint {
            seconds,
            acknowledged_per_second: 1_000.0,
            failed_per_second: 0.0,
            consumed_per_second: 2_000.0,
            waiting: 3,
            acknowledge: Some(latencies),
            lag: Some(latencies),
            end_to_end: None,
        };
        let phase = |name: &str, from_seconds, to_seconds| Phase { name: name.to_owned(), from_seconds, to_seconds };
        let series = Series {
            system: "kafka".to_owned(),
            window_seconds: 10.0,
            topics: 2,
            queues: 4,
            producers: 1,
            subscriptions: 2,
            phases: vec![phase("warm-up", 0.0, 10.0), phase("measured", 10.0, 30.0)],
            points: vec![point(0.0), point(10.0), point(20.0)],
        };
        let spectrum = Spectrum {
            system: "kafka".to_owned(),
            what: "acknowledgement".to_owned(),
            points: vec![(50.0, 1_600_000), (99.0, 8_000_000), (100.0, 9_000_000)],
            count: 300,
        };
        let bench = BenchResult { title: "w".to_owned(), spectra: vec![spectrum], ..BenchResult::default() };
        let found = of(&bench, &series, "Kafka", 1_024);
        assert_eq!(
            (&found["workload"], &found["driver"], &found["messageSize"]),
            (&json!("w"), &json!("Kafka"), &json!(1_024))
        );
        // The two windows of the warm-up's end are left out.
        assert_eq!(found["publishRate"], json!([1_000.0, 1_000.0]));
        assert_eq!(found["publishLatency50pct"], json!([1.5, 1.5]));
        assert_eq!(found["publishLatency99pct"], json!([9.0, 9.0]), "too few samples: the maximum");
        assert_eq!(found["publishDelayLatency99pct"], json!([9_000, 9_000]));
        assert_eq!(found["endToEndLatency95pct"], json!([0.0, 0.0]));
        assert_eq!(found["aggregatedPublishLatency50pct"], json!(1.6));
        assert_eq!(found["aggregatedPublishLatencyQuantiles"], json!({"50.0": 1.6, "99.0": 8.0, "100.0": 9.0}));
        for name in ["publishErrorRate", "consumeRate", "endToEndLatencyAvg", "backlog"] {
            assert_eq!(found[name].as_array().map(Vec::len), Some(2), "{name}");
        }
        for name in [
            "aggregatedPublishDelayLatencyQuantiles",
            "aggregatedEndToEndLatencyQuantiles",
            "aggregatedEndToEndLatencyMax",
        ] {
            assert!(found.get(name).is_some(), "{name}");
        }
    }
}
