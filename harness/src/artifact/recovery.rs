//! Recovery times: how long after a fault no send that was called later was acknowledged, as a histogram by class of fault.
//! A figure, not an anomaly; in simulated time, so it compares faults and settings, never machines.

use std::collections::BTreeMap;

use crate::history::{Call, History, Mark, Outcome};

/// Class of fault → upper bound of the bucket in milliseconds → faults.
pub type RecoveryTimes = BTreeMap<String, BTreeMap<u64, u64>>;

/// Upper bound of the first bucket in milliseconds; each further one is twice as large.
const FIRST_BUCKET_MS: u64 = 50;

/// The recovery times of one run. A fault after which nothing was sent and acknowledged any more is left out.
pub fn of_history(history: &History) -> RecoveryTimes {
    let mut sends: Vec<(u64, u64)> = history
        .operations
        .iter()
        .filter(|operation| matches!(operation.call, Call::Produce { .. }) && operation.outcome == Outcome::Done)
        .map(|operation| (operation.invoked_us, operation.completed_us))
        .collect();
    sends.sort_unstable();
    // From each send on, the earliest acknowledgement among it and those called later.
    let mut earliest = u64::MAX;
    for (_, completed_us) in sends.iter_mut().rev() {
        earliest = earliest.min(*completed_us);
        *completed_us = earliest;
    }
    let mut times = RecoveryTimes::new();
    for mark in &history.marks {
        let Mark::Fault { at_us, class, .. } = mark else { continue };
        let next = sends.partition_point(|(invoked_us, _)| invoked_us < at_us);
        let Some((_, acknowledged_us)) = sends.get(next) else { continue };
        let bucket = bucket_of(acknowledged_us.saturating_sub(*at_us) / 1_000);
        *times.entry(class.clone()).or_default().entry(bucket).or_insert(0) += 1;
    }
    times
}

/// Adds other times.
pub fn add(times: &mut RecoveryTimes, more: &RecoveryTimes) {
    for (class, buckets) in more {
        let sum = times.entry(class.clone()).or_default();
        for (bucket, count) in buckets {
            *sum.entry(*bucket).or_insert(0) += count;
        }
    }
}

/// Upper bounds in milliseconds of the median and of the worst, over all classes; none without faults.
pub fn median_and_worst(times: &RecoveryTimes) -> Option<(u64, u64)> {
    let mut all: BTreeMap<u64, u64> = BTreeMap::new();
    for (bucket, count) in times.values().flatten() {
        *all.entry(*bucket).or_insert(0) += count;
    }
    Some((median(&all), *all.keys().next_back()?))
}

fn median(buckets: &BTreeMap<u64, u64>) -> u64 {
    let total: u64 = buckets.values().sum();
    let mut seen = 0;
    let median = buckets.iter().find(|(_, count)| {
        seen += **count;
        2 * seen >= total
    });
    median.map_or(0, |(bound, _)| *bound)
}

/// The histogram as lines of text: class, number, median and worst bucket, then all buckets.
pub fn table(times: &RecoveryTimes) -> Vec<String> {
    times
        .iter()
        .map(|(class, buckets)| {
            let total: u64 = buckets.values().sum();
            let median = median(buckets);
            let worst = buckets.keys().next_back().copied().unwrap_or(0);
            let parts: Vec<String> = buckets.iter().map(|(bound, count)| format!("≤ {bound} ms: {count}")).collect();
            format!("{class:14} {total:6} faults, median ≤ {median} ms, worst ≤ {worst} ms  ({})", parts.join(", "))
        })
        .collect()
}

fn bucket_of(ms: u64) -> u64 {
    let mut bound = FIRST_BUCKET_MS;
    while bound < ms {
        bound *= 2;
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{ClientId, Header, Operation, Queue, SCHEMA_VERSION, Value};

    fn send(invoked_ms: u64, completed_ms: u64, outcome: Outcome) -> Operation {
        let call = Call::Produce {
            queue: Queue { topic: 0, partition: 0 },
            first_value: Value(invoked_ms),
            count: 1,
            timestamps_ms: vec![0],
            first_offset: None,
            attempts: 1,
            acks: -1,
            idempotent: true,
        };
        let (invoked_us, completed_us) = (invoked_ms * 1_000, completed_ms * 1_000);
        Operation { client: ClientId(0), invoked_us, completed_us, outcome, call }
    }

    #[test]
    fn the_time_goes_to_the_first_acknowledgement_of_a_later_send() {
        let fault =
            |at_ms: u64| Mark::Fault { at_us: at_ms * 1_000, class: "kill".to_owned(), fault: 0, nodes: vec![] };
        let unknown = Outcome::Unknown("time-out".to_owned());
        let history = History {
            header: Header { schema: SCHEMA_VERSION, topics: Vec::new(), title: String::new() },
            operations: vec![
                send(90, 130, Outcome::Done),
                send(110, 900, unknown),
                send(150, 380, Outcome::Done),
                send(160, 270, Outcome::Done),
            ],
            marks: vec![fault(100), fault(155), fault(500)],
        };
        let mut times = of_history(&history);
        assert_eq!(times["kill"], BTreeMap::from([(200, 2)]));
        let once = times.clone();
        add(&mut times, &once);
        assert_eq!(times["kill"][&200], 4);
        assert!(table(&times)[0].contains("median ≤ 200 ms"), "{:?}", table(&times));
    }
}
