//! From blocks to figures: medians with intervals for each system, ratios over pairs of blocks. Pure.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use mqassay_harness::measure::percentile::{percentile, spectrum};
use mqassay_harness::measure::result::{METRICS, MetricRow, RatioRow, Spectrum, SweepPoint};
use mqassay_harness::measure::statistics::{median_interval, ratio_interval};

use crate::block::{Cost, RateBlock, ThroughputBlock};

/// The figures of one block, by metric.
pub(crate) type Sample = BTreeMap<&'static str, f64>;

/// The figures of an unthrottled block.
pub(crate) fn throughput_sample(block: &ThroughputBlock) -> Sample {
    let mut sample = Sample::from([("produce_records_per_second", block.produce_records_per_second)]);
    let mut put = |metric, value: Option<f64>| {
        if let Some(value) = value {
            sample.insert(metric, value);
        }
    };
    put("consume_records_per_second", block.consume_records_per_second);
    put("records_per_batch", block.records_per_batch);
    let cost = block.cost.filter(|_| block.verification.verified > 0 && block.acknowledged > 0);
    let produce = cost.map(|cost| cost.produce_cpu_ns / block.acknowledged as f64);
    let consume = cost.map(|cost| cost.consume_cpu_ns / block.verification.verified as f64);
    put("broker_cpu_produce_ns_per_message", produce);
    put("broker_cpu_ns_per_message", produce.zip(consume).map(|(produce, consume)| produce + consume));
    put("broker_resident_bytes", block.cost.map(|cost| cost.resident_bytes));
    let per_message = |total: fn(&Cost) -> f64| cost.map(|cost| total(&cost) / block.acknowledged as f64);
    put("broker_context_switches_per_message", per_message(|cost| cost.context_switches));
    put("broker_disk_bytes_per_message", per_message(|cost| cost.written_bytes));
    sample
}

/// The figures of an open-loop block.
pub(crate) fn rate_sample(block: &RateBlock) -> Sample {
    let mut sample = Sample::new();
    for (metric, at) in [("end_to_end_p50_ns", 50.0), ("end_to_end_p99_ns", 99.0), ("end_to_end_p999_ns", 99.9)] {
        if let Some(value) = percentile(&block.response, at) {
            sample.insert(metric, value as f64);
        }
    }
    if !block.response.is_empty() {
        sample.insert("end_to_end_max_ns", block.response.max() as f64);
        sample.insert("not_positive_samples", block.not_positive as f64);
    }
    if let Some(service) = percentile(&block.service, 99.0) {
        sample.insert("end_to_end_service_p99_ns", service as f64);
    }
    if let Some(lag) = percentile(&block.lag, 99.0) {
        sample.insert("schedule_lag_p99_ns", lag as f64);
    }
    if let Some(cost) = block.cost.filter(|_| block.verification.verified > 0) {
        sample.insert(
            "broker_cpu_at_rate_ns_per_message",
            (cost.produce_cpu_ns + cost.consume_cpu_ns) / block.verification.verified as f64,
        );
    }
    sample
}

/// The three spectra of open-loop blocks: response (from the intended send), service (from the actual send), and the lag
/// of the schedule between the two; those without samples are left out.
pub(crate) fn spectra(system: &str, histograms: &[Histogram<u64>; 3]) -> Vec<Spectrum> {
    let names = ["end to end", "end to end, service", "schedule lag"];
    let shown = names.iter().zip(histograms).filter(|(_, histogram)| !histogram.is_empty());
    shown.map(|(what, histogram)| spectrum(system, what, histogram)).collect()
}

/// One row per metric that a system's blocks have, in the order of `METRICS`.
pub(crate) fn rows(plan: &str, system: &str, samples: &[Sample]) -> Vec<MetricRow> {
    let row = |(index, (metric, unit, _)): (usize, &(&'static str, &'static str, bool))| {
        let values: Vec<f64> = samples.iter().filter_map(|sample| sample.get(metric).copied()).collect();
        let interval = median_interval(&values, index as u64)?;
        Some(MetricRow {
            plan: plan.to_owned(),
            system: system.to_owned(),
            metric: (*metric).to_owned(),
            unit: (*unit).to_owned(),
            value: interval.value,
            low: interval.low,
            high: interval.high,
        })
    };
    METRICS.iter().enumerate().filter_map(row).collect()
}

/// One ratio per metric that both systems have, from the pairs of blocks that stood side by side.
pub(crate) fn ratios(plan: &str, first: (&str, &[Sample]), second: (&str, &[Sample])) -> Vec<RatioRow> {
    let ratio = |(index, (metric, _, _)): (usize, &(&'static str, &'static str, bool))| {
        let pairs: Vec<(f64, f64)> = first
            .1
            .iter()
            .zip(second.1)
            .filter_map(|(a, b)| Some((*a.get(metric)?, *b.get(metric)?)))
            .filter(is_positive)
            .collect();
        let interval = ratio_interval(&pairs, index as u64)?;
        Some(RatioRow {
            plan: plan.to_owned(),
            metric: (*metric).to_owned(),
            ratio_of: [first.0.to_owned(), second.0.to_owned()],
            ratio: interval.value,
            low: interval.low,
            high: interval.high,
            pairs: pairs.len() as u32,
        })
    };
    METRICS.iter().enumerate().filter(|(_, metric)| !OF_THE_CLIENT.contains(&metric.0)).filter_map(ratio).collect()
}

/// What was measured warm comes first, and so gives charts their titles.
pub(crate) fn warm_first(rows: &mut [MetricRow]) {
    rows.sort_by_key(|row| row.metric.starts_with("cold_"));
}

/// What these say is about the client, and a ratio of them would compare nothing.
const OF_THE_CLIENT: &[&str] = &["records_per_batch", "schedule_lag_p99_ns", "client_headroom", "not_positive_samples"];

/// A point of a sweep: the metric's median and interval, and the median of the records per batch where those were counted.
pub(crate) fn point(x: f64, samples: &[Sample], metric: &str) -> Option<SweepPoint> {
    let values = |name: &str| samples.iter().filter_map(|sample| sample.get(name).copied()).collect::<Vec<f64>>();
    let interval = median_interval(&values(metric), x.to_bits())?;
    let records_per_batch = median_interval(&values("records_per_batch"), 0).map(|interval| interval.value);
    Some(SweepPoint { x, value: interval.value, low: interval.low, high: interval.high, records_per_batch })
}

/// Whether a pair carries a ratio.
pub(crate) fn is_positive(pair: &(f64, f64)) -> bool {
    pair.0 > 0.0 && pair.1 > 0.0
}

/// The order of `systems` in the `pair`-th round: A B, then B A, so that a steady drift favours neither.
pub(crate) fn order(pair: u32, systems: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..systems).collect();
    if pair % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Vec<Sample> {
        values.iter().map(|&value| Sample::from([("produce_records_per_second", value)])).collect()
    }

    #[test]
    fn rows_carry_median_unit_and_interval_and_skip_what_was_not_measured() {
        let found = rows("p", "s", &samples(&[3.0, 1.0, 2.0]));
        assert_eq!(found.len(), 1);
        let row = &found[0];
        assert_eq!((row.metric.as_str(), row.unit.as_str()), ("produce_records_per_second", "records/s"));
        assert_eq!((row.value, row.low, row.high), (2.0, 1.0, 3.0));
    }

    #[test]
    fn ratios_pair_blocks_that_stood_side_by_side() {
        // The machine slows down threefold in the middle; the ratio does not notice.
        let found = ratios("p", ("a", &samples(&[90.0, 30.0, 32.0])), ("b", &samples(&[30.0, 10.0, 10.0])));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].ratio_of.clone(), found[0].pairs), (["a".to_owned(), "b".to_owned()], 3));
        assert!(!found[0].has_interval());
        assert!((found[0].ratio - 3.0).abs() < 1e-9 && (found[0].high - 3.2).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn rounds_go_forth_and_back() {
        assert_eq!([order(0, 3), order(1, 3), order(2, 3)], [vec![0, 1, 2], vec![2, 1, 0], vec![0, 1, 2]]);
    }

    #[test]
    fn every_metric_that_a_block_can_have_is_in_the_table() {
        let known: Vec<&str> = METRICS.iter().map(|metric| metric.0).collect();
        for metric in ["broker_cpu_produce_ns_per_message", "broker_cpu_at_rate_ns_per_message", "records_per_batch"] {
            assert!(known.contains(&metric), "{metric}");
        }
    }
}
