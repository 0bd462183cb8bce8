//! A scenario made longer or shorter: the safety phase lasts as told, and operations and faults keep their density.
//! Start at `Scenario::lasting`. Not here: sampling, which knows nothing of it.

use super::scenario::{FaultRanges, Scenario, Span};

impl Scenario {
    /// The same scenario with a safety phase of `safety_ms` milliseconds, at least 1. What a range counts per run grows or
    /// shrinks with the phase, against the longest that the scenario has by itself; nothing that is there becomes nothing.
    pub fn lasting(&self, safety_ms: u64) -> Scenario {
        let mut scenario = self.clone();
        let to = i64::try_from(safety_ms).unwrap_or(i64::MAX).max(1);
        let scale = Scale { to, from: self.world.safety_ms.bounds().1.max(1) };
        scenario.world.safety_ms = Span::Fixed(to);
        let (load, groups) = (&mut scenario.workload, &mut scenario.groups);
        let counted = [&mut load.batches, &mut load.polls, &mut load.seeks, &mut load.list_offsets];
        counted.into_iter().for_each(|span| *span = scale.span(*span));
        let counted = [&mut load.delete_records, &mut groups.polls, &mut groups.crashes, &mut groups.leaves];
        counted.into_iter().for_each(|span| *span = scale.span(*span));
        scenario.faults = scale.faults(&self.faults);
        scenario
    }
}

struct Scale {
    to: i64,
    from: i64,
}

impl Scale {
    fn span(&self, span: Span) -> Span {
        match span {
            Span::Fixed(count) => Span::Fixed(self.count(count)),
            Span::Between([low, high]) => Span::Between([self.count(low), self.count(high)]),
        }
    }

    fn count(&self, count: i64) -> i64 {
        let scaled = i128::from(count) * i128::from(self.to) / i128::from(self.from);
        i64::try_from(scaled).unwrap_or(i64::MAX).max(count.min(1))
    }

    /// By way of the file's form, so that a class of fault that is added later is not forgotten here.
    fn faults(&self, faults: &FaultRanges) -> FaultRanges {
        let mut table = toml::Table::try_from(faults).expect("faults that were read from a file can be written again");
        let classes = faults.classes().map(|(class, _)| class);
        for (name, value) in table.iter_mut().filter(|(name, _)| classes.contains(&name.as_str())) {
            let span: Span = value.clone().try_into().expect("a class of fault has a number or a pair of them");
            *value = toml::Value::try_from(self.span(span)).unwrap_or_else(|_| unreachable!("{name} is a span"));
        }
        table.try_into().expect("only numbers of faults have changed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::sample;

    const TEXT: &str = "name = \"s\"\ntitle = \"t\"\n[world]\nsafety_ms = [5000, 10000]\n[workload]\nbatches = [100, 200]\n\
                        polls = 3\n[groups]\ncrashes = 2\n[faults]\nkill = [1, 4]\npause = 0\ndown-ms = [10, 20]\n";

    #[test]
    fn what_a_run_counts_grows_with_it_and_what_a_fault_lasts_does_not() {
        let scenario = Scenario::parse("s.toml", TEXT).unwrap();
        let longer = scenario.lasting(600_000);
        assert_eq!(longer.world.safety_ms, Span::Fixed(600_000));
        assert_eq!(longer.workload.batches, Span::Between([6_000, 12_000]));
        assert_eq!(longer.groups.crashes, Span::Fixed(120));
        assert_eq!((longer.faults.kill, longer.faults.pause), (Span::Between([60, 240]), Span::Fixed(0)));
        assert_eq!(longer.faults.down_ms, Span::Between([10, 20]));
        let plan = sample(&longer, 1, None);
        assert!(plan.faults.len() >= 60 && plan.world.safety_ms == 600_000);
    }

    #[test]
    fn a_short_run_keeps_one_of_everything() {
        let shorter = Scenario::parse("s.toml", TEXT).unwrap().lasting(100);
        assert_eq!(shorter.workload.polls, Span::Fixed(1));
        assert_eq!(shorter.faults.kill, Span::Between([1, 1]));
        assert_eq!(Scenario::parse("s.toml", TEXT).unwrap().lasting(10_000).faults.kill, Span::Between([1, 4]));
    }
}
