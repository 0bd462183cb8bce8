//! Percentiles from histograms, under one rule: a percentile with fewer than ten samples beyond it is not printed.
//! The maximum and the count always are.

use hdrhistogram::Histogram;

use super::result::{LATENCY_PERCENTILES, Latencies, Spectrum};

/// Samples that must lie beyond a percentile for it to be printed.
pub const SAMPLES_BEYOND_MINIMUM: u64 = 10;

/// A latency histogram as every measurement uses it: nanoseconds, three significant digits, up to an hour.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("1 ns to 1 h with three digits is a valid range")
}

/// The value at `percentile` (0–100, exclusive), or none where too few samples lie beyond it.
pub fn percentile(histogram: &Histogram<u64>, percentile: f64) -> Option<u64> {
    assert!((0.0..100.0).contains(&percentile), "a percentile is from 0 up to, not including, 100");
    // The small term undoes the rounding of 100 − 99.9.
    let beyond = histogram.len() as f64 * (100.0 - percentile) / 100.0 + 1e-6;
    (beyond >= SAMPLES_BEYOND_MINIMUM as f64).then(|| histogram.value_at_quantile(percentile / 100.0))
}

/// The spectrum of a histogram: every printable percentile, then the maximum at 100.
pub fn spectrum(system: &str, what: &str, histogram: &Histogram<u64>) -> Spectrum {
    let mut points: Vec<(f64, u64)> =
        PERCENTILES.iter().filter_map(|&at| percentile(histogram, at).map(|value| (at, value))).collect();
    if !histogram.is_empty() {
        points.push((100.0, histogram.max()));
    }
    Spectrum { system: system.to_owned(), what: what.to_owned(), points, count: histogram.len() }
}

/// What a histogram says in short; none of nothing.
pub fn latencies(histogram: &Histogram<u64>) -> Option<Latencies> {
    (!histogram.is_empty()).then(|| Latencies {
        count: histogram.len(),
        mean_ns: histogram.mean(),
        percentiles_ns: LATENCY_PERCENTILES.map(|at| percentile(histogram, at)),
        max_ns: histogram.max(),
    })
}

/// Where a spectrum is read: about three points for each nine.
const PERCENTILES: &[f64] = &[
    0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 99.995, 99.998, 99.999,
    99.9995, 99.9998, 99.9999,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: u64) -> Histogram<u64> {
        let mut histogram = latency_histogram();
        for value in 1..=count {
            histogram.record(value * 1_000).unwrap();
        }
        histogram
    }

    #[test]
    fn a_percentile_needs_ten_samples_beyond_it() {
        assert_eq!(percentile(&of(999), 99.0), None);
        let shown = percentile(&of(1_000), 99.0).unwrap();
        assert!((989_000..=991_000).contains(&shown), "{shown}");
        assert!(percentile(&of(10_000), 99.9).is_some());
        assert_eq!(percentile(&of(9_999), 99.9), None);
    }

    #[test]
    fn a_spectrum_stops_where_samples_do_and_ends_with_the_maximum() {
        let spectrum = spectrum("fake", "end to end", &of(1_000));
        let shown: Vec<f64> = spectrum.points.iter().map(|point| point.0).collect();
        assert_eq!(shown, [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 100.0]);
        assert!((999_000..=1_001_000).contains(&spectrum.points[9].1));
        assert_eq!(spectrum.count, 1_000);
        assert!(super::spectrum("fake", "nothing", &latency_histogram()).points.is_empty());
    }
}
