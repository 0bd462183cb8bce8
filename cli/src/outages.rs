//! Outages of a campaign in the process world, summed by class of fault: how long queues whose leader went away took
//! no send. Not here: finding them (the harness), and the histogram over all faults (the summary's own).

use std::collections::BTreeMap;
use std::fmt;

use mqassay_harness::process::world::Outage;
use serde::Serialize;

/// The outages that one class of fault began; times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct OutageLine {
    /// The class of fault.
    outages: &'static str,
    /// Queues that lost their leader, each time counted.
    count: usize,
    /// After which nothing was sent and acknowledged any more.
    unended: usize,
    /// None where none has ended.
    median_ms: Option<f64>,
    p90_ms: Option<f64>,
    worst_ms: Option<f64>,
}

/// One line for each class.
pub(crate) fn summed(outages: &[Outage]) -> Vec<OutageLine> {
    let mut classes: BTreeMap<&'static str, Vec<&Outage>> = BTreeMap::new();
    for outage in outages {
        classes.entry(outage.class).or_default().push(outage);
    }
    let line = |(class, outages): (&'static str, Vec<&Outage>)| {
        let mut lasted: Vec<u64> = outages.iter().filter_map(|outage| outage.lasted_us).collect();
        lasted.sort_unstable();
        // The least that so large a share of them does not exceed.
        let share = |percent: usize| {
            let at = (lasted.len() * percent).div_ceil(100).saturating_sub(1);
            lasted.get(at).map(|us| *us as f64 / 1_000.0)
        };
        OutageLine {
            outages: class,
            count: outages.len(),
            unended: outages.len() - lasted.len(),
            median_ms: share(50),
            p90_ms: share(90),
            worst_ms: share(100),
        }
    };
    classes.into_iter().map(line).collect()
}

impl fmt::Display for OutageLine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutageLine { outages, count, unended, median_ms, p90_ms, worst_ms } = self;
        write!(out, "{outages}: {count} times a queue lost its leader")?;
        if let (Some(median), Some(p90), Some(worst)) = (median_ms, p90_ms, worst_ms) {
            write!(out, "; without acknowledged sends: median {median:.0} ms, p90 {p90:.0} ms, worst {worst:.0} ms")?;
        }
        match unended {
            0 => Ok(()),
            _ => write!(out, "; {unended} after which nothing was sent any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use mqassay_harness::history::Queue;

    use super::*;

    #[test]
    fn lines_name_median_and_worst_and_what_did_not_end() {
        let outage = |class, lasted_us| {
            let queue = Queue { topic: 0, partition: 0 };
            Outage { at_us: 0, class, node: 1, queue, lasted_us }
        };
        let mut outages: Vec<Outage> = (1..=10).map(|ms| outage("kill", Some(ms * 1_000))).collect();
        outages.push(outage("kill", None));
        outages.push(outage("pause", None));
        let lines = summed(&outages);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].count, lines[0].unended), (11, 1));
        assert_eq!((lines[0].median_ms, lines[0].p90_ms, lines[0].worst_ms), (Some(5.0), Some(9.0), Some(10.0)));
        assert_eq!((lines[1].count, lines[1].worst_ms), (1, None));
        assert!(lines[0].to_string().contains("median 5 ms") && lines[0].to_string().ends_with("sent any more"));
    }
}
