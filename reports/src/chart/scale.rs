//! Axes: from a value to a place between two ends, and where the ticks go.
//! Not here: drawing; `lines` and `dots` place what this computes.

/// How values spread along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Equal steps.
    Linear,
    /// Equal factors; values are above zero.
    Logarithmic,
}

/// One axis: values between two ends, which lie at two places in CSS pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    spread: Spread,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis over `low..high`; `from` is where `low` lies, `to` where `high` does.
    pub(crate) fn new(spread: Spread, (low, high): (f64, f64), (from, to): (f64, f64)) -> Axis {
        assert!(low < high, "an axis needs two ends: {low} and {high}");
        assert!(spread == Spread::Linear || low > 0.0, "a logarithmic axis cannot begin at {low}");
        Axis { spread, low, high, from, to }
    }

    /// Where a value lies, in CSS pixels; values beyond an end lie on it.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let share = match self.spread {
            Spread::Linear => (value - self.low) / (self.high - self.low),
            Spread::Logarithmic if value <= 0.0 => 0.0,
            Spread::Logarithmic => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }

    /// Round values for ticks, at least `gap` CSS pixels apart.
    pub(crate) fn ticks(&self, gap: f64) -> Vec<f64> {
        let candidates = match self.spread {
            Spread::Linear => return self.linear_ticks(gap),
            Spread::Logarithmic => {
                [self.log_ticks(&[1.0, 2.0, 5.0]), self.log_ticks(&[1.0, 3.0]), self.log_ticks(&[1.0])]
            }
        };
        let fits = |ticks: &Vec<f64>| ticks.windows(2).all(|pair| (self.at(pair[1]) - self.at(pair[0])).abs() >= gap);
        if let Some(ticks) = candidates.iter().find(|ticks| fits(ticks)) {
            // Within a decade three ticks or fewer leave too much to guess.
            let finer = self.log_ticks(&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]);
            return if ticks.len() <= 3 && fits(&finer) { finer } else { ticks.clone() };
        }
        self.thin(&candidates[2], gap)
    }

    /// The given values, every n-th of them, n as small as the gap permits.
    pub(crate) fn thin(&self, values: &[f64], gap: f64) -> Vec<f64> {
        for stride in 1..=values.len().max(1) {
            let kept: Vec<f64> = values.iter().copied().step_by(stride).collect();
            if kept.windows(2).all(|pair| (self.at(pair[1]) - self.at(pair[0])).abs() >= gap) {
                return kept;
            }
        }
        Vec::new()
    }

    fn linear_ticks(&self, gap: f64) -> Vec<f64> {
        let room = ((self.to - self.from).abs() / gap).max(1.0);
        let rough = (self.high - self.low) / room;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].iter().map(|factor| factor * decade).find(|step| *step >= rough * 0.999);
        let step = step.unwrap_or(decade * 10.0);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|index| index as f64 * step).collect()
    }

    fn log_ticks(&self, factors: &[f64]) -> Vec<f64> {
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let mut ticks = Vec::new();
        for power in first..=last {
            for factor in factors {
                let tick = factor * 10f64.powi(power);
                if tick >= self.low * 0.9999 && tick <= self.high * 1.0001 {
                    ticks.push(tick);
                }
            }
        }
        ticks
    }
}

/// Ends around values that are above zero, with some air, for a logarithmic axis; `None` without such values.
pub(crate) fn log_ends(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let positive = values.into_iter().filter(|value| value.is_finite() && *value > 0.0);
    let (low, high) = positive.fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    if high == 0.0 {
        return None;
    }
    // At least a factor of four in all, so that noise is not blown up to the height of the picture.
    let air = (4.0 / (high / low)).max(1.0).sqrt() * 1.15;
    Some((low / air, high * air))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_inside_the_ends_and_apart() {
        let cases = [
            (Spread::Linear, (0.0, 1_950_000.0), 400.0, vec![0.0, 500_000.0, 1_000_000.0, 1_500_000.0]),
            (Spread::Logarithmic, (0.5, 12.0), 400.0, vec![0.5, 1.0, 2.0, 5.0, 10.0]),
            (Spread::Logarithmic, (800.0, 2e8), 300.0, vec![1e3, 1e4, 1e5, 1e6, 1e7, 1e8]),
        ];
        for (spread, ends, length, expected) in cases {
            let axis = Axis::new(spread, ends, (0.0, length));
            let ticks = axis.ticks(52.0);
            assert_eq!(ticks.len(), expected.len(), "{ticks:?}");
            for (tick, wanted) in ticks.iter().zip(&expected) {
                assert!((tick / wanted - 1.0).abs() < 1e-9 || tick == wanted, "{ticks:?}");
            }
        }
    }

    #[test]
    fn a_value_beyond_an_end_lies_on_it() {
        let axis = Axis::new(Spread::Logarithmic, (1.0, 100.0), (200.0, 0.0));
        for (value, place) in [(1.0, 200.0), (10.0, 100.0), (100.0, 0.0), (0.0, 200.0), (1e9, 0.0)] {
            assert!((axis.at(value) - place).abs() < 1e-9, "{value} lies at {}", axis.at(value));
        }
    }

    #[test]
    fn equal_values_still_give_an_axis() {
        let (low, high) = log_ends([5.0, 5.0]).expect("there is a value");
        assert!(low < 5.0 && high > 5.0 && high / low >= 4.0);
        assert_eq!(log_ends([0.0, f64::NAN]), None);
    }
}
