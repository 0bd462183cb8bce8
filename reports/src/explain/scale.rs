//! A time scale with folds: stretches around moments that matter are drawn in full, what lies between is folded into a
//! short break. Times are microseconds, places CSS pixels from the top.

use std::ops::Range;

/// Height of a fold.
const FOLD: f64 = 30.0;

/// Where each time lies.
pub(super) struct TimeScale {
    /// Stretches in order, none touching the next, with the place of their beginning and their height.
    stretches: Vec<(Range<u64>, f64, f64)>,
}

impl TimeScale {
    /// A scale that shows every moment with some time around it, from `top` on.
    pub(super) fn around(moments: &[u64], margin_us: u64, top: f64) -> TimeScale {
        let mut wanted: Vec<Range<u64>> =
            moments.iter().map(|at| at.saturating_sub(margin_us)..at.saturating_add(margin_us)).collect();
        wanted.sort_by_key(|range| (range.start, range.end));
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in wanted {
            match merged.last_mut() {
                // A break shorter than what it folds away would only confuse.
                Some(last) if range.start <= last.end.saturating_add(margin_us) => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        let mut place = top;
        let stretches = merged.into_iter().map(|range| {
            let milliseconds = (range.end - range.start) as f64 / 1000.0;
            let height = (milliseconds * 0.5).clamp(64.0, 280.0);
            let began = place;
            place += height + FOLD;
            (range, began, height)
        });
        TimeScale { stretches: stretches.collect() }
    }

    /// The place of a time; one in a fold, or outside, lies at the nearer end of it.
    pub(super) fn place(&self, at_us: u64) -> f64 {
        let mut place = self.stretches.first().map_or(0.0, |(_, began, _)| *began);
        for (range, began, height) in &self.stretches {
            if at_us < range.start {
                return if place < *began { place + FOLD / 2.0 } else { place };
            }
            let share = (at_us.min(range.end) - range.start) as f64 / (range.end - range.start).max(1) as f64;
            place = began + share * height;
        }
        place
    }

    /// Whether a time is drawn in full.
    pub(super) fn shows(&self, at_us: u64) -> bool {
        self.stretches.iter().any(|(range, _, _)| (range.start..=range.end).contains(&at_us))
    }

    /// Whether some of a time is drawn in full.
    pub(super) fn touches(&self, from_us: u64, to_us: u64) -> bool {
        self.stretches.iter().any(|(range, _, _)| from_us <= range.end && to_us >= range.start)
    }

    /// The stretches with their places and heights.
    pub(super) fn stretches(&self) -> &[(Range<u64>, f64, f64)] {
        &self.stretches
    }

    /// Folds: the middle of each, and the time that it hides.
    pub(super) fn folds(&self) -> Vec<(f64, u64)> {
        let pairs = self.stretches.windows(2);
        pairs.map(|two| (two[0].1 + two[0].2 + FOLD / 2.0, two[1].0.start - two[0].0.end)).collect()
    }

    /// The place behind the last stretch.
    pub(super) fn bottom(&self) -> f64 {
        self.stretches.last().map_or(0.0, |(_, began, height)| began + height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_order_and_far_ones_are_folded() {
        let scale = TimeScale::around(&[1_000_000, 1_050_000, 9_000_000], 100_000, 10.0);
        assert_eq!(scale.stretches().len(), 2);
        assert_eq!(scale.folds().len(), 1);
        assert!(scale.shows(1_040_000) && !scale.shows(4_000_000) && scale.touches(0, 5_000_000));
        let places: Vec<f64> = [0, 900_000, 1_000_000, 1_150_000, 4_000_000, 8_900_000, 9_100_000, 99_000_000]
            .map(|at| scale.place(at))
            .into();
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(scale.place(99_000_000), scale.bottom());
        assert_eq!(TimeScale::around(&[], 5, 0.0).bottom(), 0.0);
    }
}
