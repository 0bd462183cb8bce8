//! Medians and ratios with 95 % intervals. Pure: the bootstrap's draws come from a seed that the caller names.
//! Not here: latency percentiles, which come from histograms (`percentile`).

/// A figure and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The median.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// The smallest change, as a fraction, that an interval of this width would show to differ from the median.
    pub fn smallest_detectable_effect(&self) -> f64 {
        if self.value <= 0.0 || self.low <= 0.0 {
            return f64::INFINITY;
        }
        (self.high / self.value).max(self.value / self.low) - 1.0
    }

    /// Whether the interval of a ratio holds 1, that is, whether no difference was shown.
    pub fn holds_one(&self) -> bool {
        self.low <= 1.0 && 1.0 <= self.high
    }
}

/// The median; none of nothing. Values must be comparable: a NaN is our bug.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sort(&mut sorted);
    median_of_sorted(&sorted)
}

/// The median with its bootstrap interval (percentile method, `RESAMPLES` resamples drawn from `seed`).
/// Below `VALUES_MINIMUM` values no 95 % interval of the median exists, so the range of the values is given instead.
pub fn median_interval(values: &[f64], seed: u64) -> Option<Interval> {
    let mut sorted = values.to_vec();
    sort(&mut sorted);
    let value = median_of_sorted(&sorted)?;
    if sorted.len() < VALUES_MINIMUM {
        return Some(Interval { value, low: sorted[0], high: sorted[sorted.len() - 1] });
    }
    let mut state = seed;
    let mut medians = Vec::with_capacity(RESAMPLES);
    let mut resample = vec![0.0; sorted.len()];
    for _ in 0..RESAMPLES {
        for slot in &mut resample {
            *slot = sorted[draw_below(&mut state, sorted.len() as u64) as usize];
        }
        sort(&mut resample);
        medians.extend(median_of_sorted(&resample));
    }
    sort(&mut medians);
    Some(Interval { value, low: quantile(&medians, 0.025), high: quantile(&medians, 0.975) })
}

/// The median ratio of pairs measured side by side: one log-ratio per pair, so that drift common to a pair cancels.
/// Pairs with a value that is not positive carry no ratio and are left out.
pub fn ratio_interval(pairs: &[(f64, f64)], seed: u64) -> Option<Interval> {
    let logs: Vec<f64> =
        pairs.iter().filter(|(first, second)| *first > 0.0 && *second > 0.0).map(|(a, b)| (a / b).ln()).collect();
    let interval = median_interval(&logs, seed)?;
    Some(Interval { value: interval.value.exp(), low: interval.low.exp(), high: interval.high.exp() })
}

/// The slope of points (x, y) by the method of Theil and Sen: the median of the slopes between all pairs, so that a stall
/// in a few points does not tilt it. None where no two points differ in x.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::new();
    for (index, first) in points.iter().enumerate() {
        slopes.extend(
            points[index + 1..]
                .iter()
                .filter(|second| second.0 != first.0)
                .map(|second| (second.1 - first.1) / (second.0 - first.0)),
        );
    }
    median(&slopes)
}

/// How likely values that lie symmetrically about zero are to look as positive as these, or more: Wilcoxon's signed-rank
/// test, one-sided. Under symmetry every value's sign is a fair coin, so the signs are flipped `FLIPS` times from `seed`;
/// the least that it can give is one in `FLIPS + 1`. Ranks keep a few wild values from deciding. 1 of nothing.
pub fn signed_rank_probability(values: &[f64], seed: u64) -> f64 {
    let mut ordered = values.to_vec();
    assert!(ordered.iter().all(|value| !value.is_nan()), "a measured value is not a number");
    ordered.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let ranked = || (1..).zip(&ordered).map(|(rank, value): (u64, &f64)| (rank, *value));
    let observed: u64 = ranked().filter(|(_, value)| *value > 0.0).map(|(rank, _)| rank).sum();
    let mut state = seed;
    let mut as_positive = 0_usize;
    for _ in 0..FLIPS {
        let flipped: u64 = (1..=ordered.len() as u64).filter(|_| draw_below(&mut state, 2) == 1).sum();
        as_positive += usize::from(flipped >= observed);
    }
    (as_positive + 1) as f64 / (FLIPS + 1) as f64
}

/// Flips of the signed-rank test.
pub const FLIPS: usize = 20_000;
/// Below this many values the range stands in for the interval: 1 − 2·2⁻⁵ is less than 0.95.
pub const VALUES_MINIMUM: usize = 6;
/// Resamples of the bootstrap.
pub const RESAMPLES: usize = 2_000;

fn sort(values: &mut [f64]) {
    assert!(values.iter().all(|value| !value.is_nan()), "a measured value is not a number");
    values.sort_by(f64::total_cmp);
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = (share * (sorted.len() - 1) as f64).round() as usize;
    sorted[position.min(sorted.len() - 1)]
}

/// Steele, Lea and Flood's SplitMix64, reduced by Lemire's multiplication; the bias is below 2⁻⁵⁰ here.
fn draw_below(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^= mixed >> 31;
    ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_and_none_of_nothing() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_slope_is_the_trend_whatever_a_few_points_do() {
        assert_eq!(slope(&[]), None);
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 9.0)]), None);
        let mut points: Vec<(f64, f64)> = (0..20).map(|at| (f64::from(at), 3.0 * f64::from(at) + 7.0)).collect();
        assert!((slope(&points).unwrap() - 3.0).abs() < 1e-9);
        points[18].1 = 10_000.0;
        points[19].1 = 10_000.0;
        assert!((slope(&points).unwrap() - 3.0).abs() < 1e-9);
    }

    /// Goal: the test's level is what it says, and it sees a shift. Method: 100 samples of 20 draws from a symmetric
    /// distribution with heavy tails, as they are and shifted by half a width.
    #[test]
    fn a_shift_is_seen_and_none_is_seen_as_often_as_the_level_says() {
        assert!(signed_rank_probability(&[], 1) >= 1.0);
        let mut state = 9;
        let mut draw = || {
            let share = draw_below(&mut state, 1 << 40) as f64 / (1_u64 << 40) as f64 - 0.5;
            share / (0.52 - share.abs())
        };
        let (mut false_alarms, mut seen) = (0, 0);
        for seed in 0..100 {
            let values: Vec<f64> = (0..20).map(|_| draw()).collect();
            let shifted: Vec<f64> = values.iter().map(|value| value + 1.0).collect();
            false_alarms += u32::from(signed_rank_probability(&values, seed) <= 0.1);
            seen += u32::from(signed_rank_probability(&shifted, seed) <= 0.1);
        }
        assert!((3..=19).contains(&false_alarms), "{false_alarms} of 100 at a level of 10 %");
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn few_values_give_their_range() {
        let interval = median_interval(&[5.0, 1.0, 3.0], 1).unwrap();
        assert_eq!(interval, Interval { value: 3.0, low: 1.0, high: 5.0 });
    }

    #[test]
    fn same_seed_gives_the_same_interval_inside_the_range() {
        let values: Vec<f64> = (0..40).map(|index| f64::from((index * 7919) % 101)).collect();
        let first = median_interval(&values, 42).unwrap();
        assert_eq!(first, median_interval(&values, 42).unwrap());
        assert!(first.low < first.value && first.value < first.high, "{first:?}");
        assert!(first.low > 0.0 && first.high < 100.0, "{first:?}");
    }

    /// Goal: the interval means what it says. Method: 400 samples of 15 uniform draws, whose true median is 0.5; the
    /// share of intervals that hold it must be near 95 % (the percentile bootstrap of a median is a little wide).
    #[test]
    fn interval_covers_the_true_median_about_as_often_as_it_says() {
        let mut state = 7;
        let covered = (0..400_u64)
            .filter(|trial| {
                let sample: Vec<f64> =
                    (0..15).map(|_| draw_below(&mut state, 1 << 32) as f64 / f64::from(u32::MAX)).collect();
                let interval = median_interval(&sample, *trial).unwrap();
                interval.low <= 0.5 && 0.5 <= interval.high
            })
            .count();
        assert!((364..=396).contains(&covered), "{covered} of 400");
    }

    #[test]
    fn drift_common_to_a_pair_cancels_in_the_ratio() {
        let pairs: Vec<(f64, f64)> = (1..=20).map(|drift| (2.0 * f64::from(drift), f64::from(drift))).collect();
        let ratio = ratio_interval(&pairs, 3).unwrap();
        for figure in [ratio.value, ratio.low, ratio.high] {
            assert!((figure - 2.0).abs() < 1e-9, "{ratio:?}");
        }
        assert!(!ratio.holds_one());
        assert!(ratio.smallest_detectable_effect() < 1e-9);
        assert_eq!(ratio_interval(&[(1.0, 0.0)], 3), None);
    }
}
