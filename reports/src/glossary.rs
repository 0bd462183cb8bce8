//! The names that verdicts and measurements use, explained to a reader of the page.
//! A name that is not listed is shown as it is, so a new anomaly or metric needs no change here to appear.

use mqassay_harness::guarantee::Matrix;

use crate::number;

/// What an anomaly is; `None` for a name that is not known.
pub(crate) fn anomaly(name: &str) -> Option<&'static str> {
    ANOMALIES.iter().find(|(known, _)| *known == name).map(|(_, meaning)| *meaning)
}

/// Every reason for which the guarantee matrix permits the anomaly under some settings and faults.
pub(crate) fn permissions(name: &str) -> Vec<String> {
    let rows = Matrix::standard().rows.iter();
    rows.filter(|row| row.allows.iter().any(|anomaly| anomaly.name() == name)).map(|row| row.reason.clone()).collect()
}

/// A metric's value as people write it: shares in percent, everything else in its unit.
pub fn figure(metric: &str, value: f64, unit: &str) -> String {
    match (metric.ends_with("_share"), unit) {
        (true, _) => format!("{}\u{a0}%", number::significant(value * 100.0)),
        // Yes or no.
        (false, "answer") => if value >= 1.0 { "yes" } else { "no" }.to_owned(),
        (false, unit) => number::quantity(value, unit),
    }
}

/// A metric's name as a chart's row shows it.
pub fn metric(name: &str) -> String {
    match METRIC_TITLES.iter().find(|(known, _)| *known == name) {
        Some((_, title)) => (*title).to_owned(),
        None => name.replace('_', " "),
    }
}

const ANOMALIES: &[(&str, &str)] = &[
    (
        "lost-write",
        "A value whose send took effect lies at or below the highest position that anyone read, and nobody ever read it.",
    ),
    ("unseen", "An acknowledged value that no final read finds, though the final reads reach the end."),
    ("ghost", "A value was consumed and is later nowhere."),
    ("duplicate", "One value stands at two offsets or more."),
    ("inconsistent-offsets", "One offset of a queue was seen with two different values."),
    ("nonmonotonic-send", "Two sends of one producer to one queue lie in reverse order."),
    ("nonmonotonic-poll", "Successive polls of one consumer on one queue go back."),
    ("poll-skip", "Successive polls of one consumer jump over a value that is known to exist."),
    ("corrupt-payload", "Key, value, headers or timestamp differ from what was sent."),
    ("phantom-write", "A value was read that was surely never written."),
    ("wrong-offset-lookup", "The answer to a timestamp is not the earliest record at or past it."),
    ("regression", "An end or a log start, as the broker reports it, went back."),
    ("resurrected", "A deleted or truncated value returned."),
    ("premature-deletion", "A value below the log start that no retention or deletion justifies."),
    ("permitted-loss-exceeded", "A loss that the flush setting permits, of records older than it lets stay unsynced."),
    ("dual-ownership", "Two members of a group own one queue at the same time."),
    ("commit-regression", "A committed offset went back."),
    ("commit-lost", "A committed offset is gone."),
    ("commit-ahead", "A committed offset lies beyond what the group was given."),
    ("zombie-commit", "The commit of a member of an older generation was accepted."),
    ("rebalance-livelock", "A group found no generation that lasts after the faults stopped."),
    ("self-crash", "A node ended by itself."),
    ("no-progress", "After the faults stopped, something did not end within the bound."),
];

const METRIC_TITLES: &[(&str, &str)] = &[
    ("produce_records_per_second", "Produce throughput"),
    ("consume_records_per_second", "Consume throughput"),
    ("broker_cpu_ns_per_message", "Broker CPU per message"),
    ("broker_cpu_produce_ns_per_message", "Broker CPU, produce alone"),
    ("broker_cpu_at_rate_ns_per_message", "Broker CPU at fixed rate"),
    ("records_per_batch", "Records per batch"),
    ("broker_resident_bytes", "Broker resident memory"),
    ("broker_context_switches_per_message", "Broker context switches per message"),
    ("broker_disk_bytes_per_message", "Broker bytes to disk per message"),
    ("end_to_end_p50_ns", "End-to-end latency, p50"),
    ("end_to_end_p99_ns", "End-to-end latency, p99"),
    ("end_to_end_p999_ns", "End-to-end latency, p99.9"),
    ("end_to_end_max_ns", "End-to-end latency, maximum"),
    ("schedule_lag_p99_ns", "Lag behind the schedule, p99"),
    ("client_headroom", "Client headroom, produce"),
    ("client_headroom_consume", "Client headroom, consume"),
    ("rate_within_bound_records_per_second", "Highest rate within the latency bound"),
    ("cold_broker_cpu_ns_per_message", "Broker CPU per message, cold"),
    ("cold_produce_records_per_second", "Produce throughput, cold"),
    ("timestamp_lookup_ns", "Lookup of a point in time, per queue"),
    ("replay_records_per_second", "Reading again from a point in time"),
    ("warm_up_seconds", "Length of the warm-up"),
    ("not_positive_samples", "Latencies of zero or below"),
    ("client_busy_share", "Driver's busy share"),
    ("broker_resident_bytes_per_queue", "Resident memory per idle queue"),
    ("broker_disk_bytes_per_queue", "Disk per queue"),
    ("broker_files", "Files held open by the broker"),
    ("broker_disk_bytes_per_message_and_subscription", "Broker bytes to disk per message and subscription"),
    ("acknowledged_records_per_second", "Acknowledged"),
    ("requests_per_second", "Requests per second"),
    ("end_to_end_records_per_second", "Produced and fetched at once"),
    ("acknowledge_p50_ns", "Acknowledgement latency, p50"),
    ("acknowledge_p99_ns", "Acknowledgement latency, p99"),
    ("end_to_end_service_p99_ns", "End-to-end from the actual send, p99"),
    ("recovery_seconds", "From kill to service"),
    ("availability_gap_seconds", "Longest gap between messages"),
    ("lost_messages", "Acknowledged and lost"),
    ("repeated_messages", "Read again"),
    ("unacknowledged_messages", "Never acknowledged"),
    ("effects_lost", "Effects lost"),
    ("effects_doubled", "Effects doubled"),
    ("messages_lost", "Messages never processed"),
    ("messages_repeated", "Messages processed again"),
    ("records_missing", "Records that were never processed"),
    ("records_waiting", "Records that wait"),
    ("drain_seconds", "Time to drain the backlog"),
    ("diagnoses_right_share", "Diagnoses that name the cause"),
    ("burst_acknowledged_share", "Burst acknowledged in its time"),
    ("consume_rate_spread", "Highest over lowest rate of consumption"),
    ("broker_memory_growth_bytes", "Growth of the broker's memory"),
    ("consumers_busy", "Consumers with something to do"),
    ("consumers_idle", "Consumers with nothing to do"),
    ("topics_created_per_second", "Topics made"),
    ("messages_lost_untold", "Lost without the producer's knowledge"),
    ("messages_out_of_order", "Messages processed after a later one"),
    ("seeks_right_share", "Times that were found to the millisecond"),
    ("processed_records_per_second", "Processed by the group"),
    ("runs_that_lost_share", "Simulated runs that lost an acknowledged record"),
    ("runs_out_of_order_share", "Simulated runs that reversed a producer's order"),
    ("process_runs_that_lost_share", "Runs on real processes that lost an acknowledged record"),
    ("log_bytes_per_message", "From one message to the next in the log"),
    ("index_bytes_per_message", "Disk per message beside the log"),
    ("broker_resident_bytes_per_message", "Resident memory per message sent"),
    ("copies_per_message", "Copies of a message on the disk"),
    ("files_with_messages", "Files that hold messages"),
    ("writes_elsewhere_share", "Messages written away from the one before"),
    ("feature_works", "Feature works"),
];

#[cfg(test)]
mod tests {
    use mqassay_harness::guarantee::Anomaly;
    use mqassay_harness::measure::result::METRICS;

    use super::*;

    #[test]
    fn every_anomaly_of_the_judge_has_a_meaning() {
        for known in Anomaly::ALL {
            assert!(anomaly(known.name()).is_some(), "{known} has no meaning");
        }
        assert!(!permissions("duplicate").is_empty() && permissions("corrupt-payload").is_empty());
    }

    #[test]
    fn a_figure_is_written_as_its_metric_is_meant() {
        let cases = [
            (figure("runs_that_lost_share", 0.075, "ratio"), "7.5 %"),
            (figure("feature_works", 1.0, "answer"), "yes"),
            (figure("consumers_busy", 4.0, "consumers"), "4 consumers"),
        ];
        for (written, expected) in cases {
            assert_eq!(written.replace('\u{a0}', " "), expected);
        }
    }

    #[test]
    fn every_stable_metric_has_a_title() {
        for (name, _, _) in METRICS {
            assert!(METRIC_TITLES.iter().any(|(known, _)| known == name), "{name} has no title");
        }
    }
}
