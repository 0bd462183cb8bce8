//! Laws by which the fake broker holds produce requests, each with the percentiles that an open-loop measurement must
//! report, in closed form. Pure. Not here: the holding itself (`fake`), and what is held against it (`closed_form`).

use std::time::Duration;

/// How long a produce request is held, counted from its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Law {
    /// Not at all.
    #[default]
    None,
    /// Always as long.
    Constant(Duration),
    /// Those of every `one_in`-th producing connection for longer than the others'.
    TwoValued {
        /// On most connections.
        usual: Duration,
        /// On one in `one_in`.
        slow: Duration,
        /// Connections of which one is slow.
        one_in: u32,
    },
    /// Whatever arrives while the broker is frozen, until it thaws; the rest not at all.
    Freeze {
        /// From one freeze's beginning to the next.
        every: Duration,
        /// How long one lasts.
        length: Duration,
    },
}

impl Law {
    /// When a request is let go that arrived at `arrived` on the producing connection of this number, both since the start.
    pub(super) fn release(self, number: u32, arrived: Duration) -> Duration {
        match self {
            Law::None => arrived,
            Law::Constant(delay) => arrived + delay,
            Law::TwoValued { usual, slow, one_in } => {
                arrived + if number.is_multiple_of(one_in) { slow } else { usual }
            }
            Law::Freeze { every, length } => {
                let phase = Duration::from_nanos((arrived.as_nanos() % every.as_nanos()) as u64);
                arrived + length.saturating_sub(phase)
            }
        }
    }

    /// The latency at a percentile (0–100) for messages that are due evenly in time and over connections, through whole
    /// periods. None where the law says nothing beyond the machine's own time, and near a jump of the distribution.
    pub fn percentile(self, percentile: f64) -> Option<Duration> {
        let at = percentile / 100.0;
        match self {
            Law::None => None,
            Law::Constant(delay) => Some(delay),
            Law::TwoValued { usual, slow, one_in } => {
                let border = 1.0 - 1.0 / f64::from(one_in);
                ((at - border).abs() > BORDER).then_some(if at < border { usual } else { slow })
            }
            Law::Freeze { every, length } => {
                let share = length.as_secs_f64() / every.as_secs_f64();
                // A message that is due during a freeze waits for what is left of it, from nothing to its whole length.
                let within = (at - (1.0 - share)) / share;
                (within > BORDER).then(|| length.mul_f64(within))
            }
        }
    }
}

/// So near to a jump, as a share of all messages, nothing is computed.
const BORDER: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(f64) -> Duration = Duration::from_secs_f64;

    /// Goal: the closed form agrees with counting. Messages due evenly are held by the law and sorted.
    #[test]
    fn the_closed_form_is_what_counting_gives() {
        let laws = [
            Law::Constant(S(0.1)),
            Law::TwoValued { usual: S(0.1), slow: S(0.3), one_in: 10 },
            Law::Freeze { every: S(4.0), length: S(1.0) },
        ];
        for law in laws {
            let held = |index: u64| {
                let due = Duration::from_millis(index) + S(0.7);
                law.release((index % 10) as u32, due) - due
            };
            let mut latencies: Vec<Duration> = (0..12_000).map(held).collect();
            latencies.sort_unstable();
            let mut compared = 0;
            for percentile in [50.0, 75.0, 90.0, 95.0, 99.0] {
                let Some(computed) = law.percentile(percentile) else { continue };
                let counted = latencies[(percentile * 120.0) as usize - 1];
                let ratio = counted.as_secs_f64() / computed.as_secs_f64();
                assert!((0.99..=1.01).contains(&ratio), "{law:?} at {percentile}: {counted:?} and {computed:?}");
                compared += 1;
            }
            assert!(compared >= 3, "{law:?}");
        }
        assert_eq!(Law::None.percentile(50.0), None);
    }
}
