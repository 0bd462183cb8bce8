//! The names that verdicts and measurements use, explained to a reader of the page.
//! A name that is not listed is shown as it is, so a new anomaly or metric needs no change here to appear.

/// What an anomaly is, and when settings and faults permit it; `None` for a name that is not known.
pub(crate) fn anomaly(name: &str) -> Option<(&'static str, &'static str)> {
    ANOMALIES.iter().find(|(known, _, _)| *known == name).map(|(_, meaning, legal)| (*meaning, *legal))
}

/// A metric's name as a chart's row shows it.
pub(crate) fn metric(name: &str) -> String {
    match METRIC_TITLES.iter().find(|(known, _)| *known == name) {
        Some((_, title)) => (*title).to_owned(),
        None => name.replace('_', " "),
    }
}

const ANOMALIES: &[(&str, &str, &str)] = &[
    (
        "lost-write",
        "A value whose send took effect lies at or below the highest position that anyone read, and nobody ever read it.",
        "Permitted where the setting gives no promise against the fault: acks=0; no flush before the acknowledgement \
         and a power loss of every copy.",
    ),
    (
        "unseen",
        "An acknowledged value that no final read finds, though the final reads reach the end.",
        "Permitted where lost-write is.",
    ),
    (
        "duplicate",
        "One value stands at two offsets or more.",
        "Permitted where the producer is not idempotent and retried.",
    ),
    (
        "inconsistent-offsets",
        "One offset of a queue was seen with two different values.",
        "Permitted only after a loss that is itself permitted, followed by new sends.",
    ),
    (
        "nonmonotonic-send",
        "Two sends of one producer to one queue lie in reverse order.",
        "Permitted where the producer is not idempotent, has more than one request in flight, and retried.",
    ),
    (
        "nonmonotonic-poll",
        "Successive polls of one consumer on one queue go back.",
        "Permitted only across a seek or a rebalance.",
    ),
    (
        "poll-skip",
        "Successive polls of one consumer jump over a value that is known to exist.",
        "Permitted only across a seek or a rebalance.",
    ),
    ("corrupt-payload", "Key, value, headers or timestamp differ from what was sent.", "Never permitted."),
    ("premature-deletion", "A value below the log start that no retention or deletion justifies.", "Never permitted."),
    ("ghost", "A value was consumed and is later nowhere.", "Permitted where lost-write is."),
    ("resurrected", "A deleted or truncated value returned.", "Never permitted."),
    ("self-crash", "A node ended by itself, other than as declared for a disk that fails.", "Never permitted."),
    (
        "unavailable-by-corruption",
        "A queue does not answer after corruption was found.",
        "Permitted where the only copy rotted: refusing is right, serving or hiding the damage is not.",
    ),
    ("no-progress", "After the faults stopped, an operation did not end within the bound.", "Never permitted."),
    (
        "permitted-loss-exceeded",
        "A loss that the setting permits goes beyond the bound that the setting implies.",
        "Never permitted.",
    ),
    (
        "regression",
        "An end, stable offset, log start or epoch went back.",
        "Permitted for the end alone, after an unclean election.",
    ),
];

const METRIC_TITLES: &[(&str, &str)] = &[
    ("produce_records_per_second", "Produce throughput"),
    ("consume_records_per_second", "Consume throughput"),
    ("broker_cpu_ns_per_message", "Broker CPU per message"),
    ("broker_cpu_produce_ns_per_message", "Broker CPU, produce alone"),
    ("broker_cpu_at_rate_ns_per_message", "Broker CPU at fixed rate"),
    ("records_per_batch", "Records per batch"),
    ("broker_resident_bytes", "Broker resident memory"),
    ("end_to_end_p50_ns", "End-to-end latency, p50"),
    ("end_to_end_p99_ns", "End-to-end latency, p99"),
    ("end_to_end_p999_ns", "End-to-end latency, p99.9"),
    ("end_to_end_max_ns", "End-to-end latency, maximum"),
    ("schedule_lag_p99_ns", "Lag behind the schedule, p99"),
    ("client_headroom", "Client headroom"),
];

#[cfg(test)]
mod tests {
    use mqassay_harness::measure::result::METRICS;

    use super::*;

    #[test]
    fn every_stable_metric_has_a_title() {
        for (name, _, _) in METRICS {
            assert!(METRIC_TITLES.iter().any(|(known, _)| known == name), "{name} has no title");
        }
    }
}
