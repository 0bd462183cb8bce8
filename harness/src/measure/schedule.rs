//! The open-loop schedule: when each message is meant to be sent, fixed before the run. Latency counts from there, so a
//! client that stalls, or blocks in a send, makes the figures worse and never better.

/// A constant rate, for one of several producers that share it: producer k of n sends messages k, k + n, k + 2n, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    records_per_second: u64,
    producer: u64,
    producers: u64,
}

impl Schedule {
    /// A schedule of `records_per_second` in all; `producer` counts from 0.
    pub fn new(records_per_second: u64, producer: u64, producers: u64) -> Schedule {
        assert!(records_per_second > 0, "a schedule needs a rate");
        assert!(producer < producers, "producers count from 0");
        Schedule { records_per_second, producer, producers }
    }

    /// Nanoseconds after the start at which this producer's `index`-th message is meant to be sent.
    pub fn intended_ns(&self, index: u64) -> u64 {
        let overall = u128::from(index) * u128::from(self.producers) + u128::from(self.producer);
        let nanoseconds = overall * 1_000_000_000 / u128::from(self.records_per_second);
        u64::try_from(nanoseconds).expect("584 years hold every schedule")
    }

    /// How many of this producer's messages are meant to be sent before `end_ns` nanoseconds have passed.
    pub fn count_before_ns(&self, end_ns: u64) -> u64 {
        let overall = (u128::from(end_ns) * u128::from(self.records_per_second)).div_ceil(1_000_000_000);
        let mine = overall.saturating_sub(u128::from(self.producer)).div_ceil(u128::from(self.producers));
        u64::try_from(mine).expect("a schedule's length fits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_share_the_rate_without_gap_or_overlap() {
        let mut times: Vec<u64> = (0..3)
            .flat_map(|producer| {
                let schedule = Schedule::new(1_000, producer, 3);
                (0..schedule.count_before_ns(1_000_000_000)).map(move |index| schedule.intended_ns(index))
            })
            .collect();
        times.sort_unstable();
        assert_eq!(times, (0..1_000).map(|index| index * 1_000_000).collect::<Vec<u64>>());
    }

    #[test]
    fn the_count_agrees_with_the_times_for_rates_that_do_not_divide_a_second() {
        for rate in [1, 3, 7, 999, 1_000_003] {
            let schedule = Schedule::new(rate, 0, 1);
            for end in [1, 333_333_333, 1_000_000_000, 2_500_000_001] {
                let count = schedule.count_before_ns(end);
                assert!(count == 0 || schedule.intended_ns(count - 1) < end, "rate {rate}, end {end}");
                assert!(schedule.intended_ns(count) >= end, "rate {rate}, end {end}");
            }
        }
    }
}
