//! What a measurement leaves: rows, ratios, spectra, sweeps and the manifest. Reports read it, benches write it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::statistics::{Interval, VALUES_MINIMUM};

/// Everything that one bench run found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BenchResult {
    /// The plan's name.
    pub plan: String,
    /// What the plan does, in a sentence.
    pub title: String,
    /// Machine, versions, settings, command line: name to value, in order of the name.
    pub manifest: BTreeMap<String, String>,
    /// One value per system and metric.
    pub rows: Vec<MetricRow>,
    /// Ratios of two systems from interleaved blocks.
    pub ratios: Vec<RatioRow>,
    /// Latency spectra.
    pub spectra: Vec<Spectrum>,
    /// Sweeps over a variable.
    pub sweeps: Vec<Sweep>,
    /// Parts of a target, each a ratio and what it needs.
    #[serde(default)]
    pub targets: Vec<TargetPart>,
    /// Runs through a broker's crash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timelines: Vec<Timeline>,
    /// Searches for the highest rate under a latency bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<RateSearch>,
    /// Trials in which a slowdown was to be found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<SlowdownTrial>,
    /// Loads over time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Series>,
    /// The verdict on each system's messages of this run.
    pub verdicts: Vec<SystemVerdict>,
    /// Systems that were not measured, or not to the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Things a reader must know: classes that differ, client-bound figures, what was not measured and why.
    pub remarks: Vec<String>,
}

/// One value of one system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    /// The plan's name.
    pub plan: String,
    /// The system's name.
    pub system: String,
    /// The metric, from `METRICS`.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// The value: the median over blocks.
    pub value: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
}

/// A ratio of two systems, each block pair giving one; oriented as named: first over second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RatioRow {
    /// The plan's name.
    pub plan: String,
    /// The metric, from `METRICS`.
    pub metric: String,
    /// Numerator and denominator.
    pub ratio_of: [String; 2],
    /// Median ratio.
    pub ratio: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// Block pairs that gave a ratio; 0 where an older result does not say.
    #[serde(default)]
    pub pairs: u32,
}

impl RatioRow {
    /// Whether there are enough pairs for a 95 % interval. Without, no difference may be told from it.
    pub fn has_interval(&self) -> bool {
        self.pairs as usize >= VALUES_MINIMUM
    }

    /// The smallest change, as a fraction, that the pairs would show; none where there is no interval.
    pub fn smallest_detectable_effect(&self) -> Option<f64> {
        let interval = Interval { value: self.ratio, low: self.low, high: self.high };
        self.has_interval().then(|| interval.smallest_detectable_effect()).filter(|effect| effect.is_finite())
    }
}

/// One part of a target: a ratio, oriented so that more is better, and the least that meets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetPart {
    /// The target's name, for example `M1`.
    pub target: String,
    /// What the part says.
    pub part: String,
    /// Median ratio.
    pub ratio: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// The least ratio that meets it.
    pub needs: f64,
    /// The greatest ratio that meets it, where more is not better for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Whether the whole interval meets it, with a green verdict.
    pub met: bool,
}

impl TargetPart {
    /// A part whose ratio is one figure without an interval, for example a count.
    pub fn exact(target: String, part: String, ratio: f64, needs: f64) -> TargetPart {
        let met = TargetPart::is_met_by(ratio, ratio, needs, None);
        TargetPart { target, part, ratio, low: ratio, high: ratio, needs, at_most: None, met }
    }

    /// Whether an interval lies within what is needed.
    pub fn is_met_by(low: f64, high: f64, needs: f64, at_most: Option<f64>) -> bool {
        low >= needs && at_most.is_none_or(|at_most| high <= at_most)
    }

    /// How far it is above what it needs, as a ratio; below 1 it falls short.
    fn margin(&self) -> f64 {
        let above = self.ratio / self.needs;
        self.at_most.map_or(above, |at_most| above.min(at_most / self.ratio))
    }
}

/// The part that is furthest from what it needs; none of nothing.
pub fn least_part(parts: &[TargetPart]) -> Option<&TargetPart> {
    parts.iter().min_by(|a, b| a.margin().total_cmp(&b.margin()))
}

/// A latency spectrum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// The system's name.
    pub system: String,
    /// What was timed, for example `end to end`.
    pub what: String,
    /// (percentile 0–100, nanoseconds), only percentiles with at least ten samples beyond them, then the maximum at 100.
    pub points: Vec<(f64, u64)>,
    /// Samples.
    pub count: u64,
}

/// A sweep of one system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// The system's name, with its layout where it has several.
    pub system: String,
    /// The variable, for example `queues`.
    pub variable: String,
    /// The metric, from `METRICS`.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// Points in order of `x`.
    pub points: Vec<SweepPoint>,
    /// Why it stopped, where it stopped before the plan's last point.
    pub stopped: Option<String>,
}

/// A point of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// The variable's value.
    pub x: f64,
    /// Median.
    pub value: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// Records per batch that the broker saw on average; none where nobody counted batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_per_batch: Option<f64>,
}

/// What a client saw of a broker's crash under a steady rate; times are seconds after the load's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// The system's name.
    pub system: String,
    /// How careful clients and topics were: `default` or `safest`.
    pub setting: String,
    /// The durability class that this means.
    pub durability: String,
    /// Width of a point, seconds.
    pub window_seconds: f64,
    /// When the broker was killed.
    pub killed_seconds: f64,
    /// When it was started again.
    pub restarted_seconds: f64,
    /// When the first message came through that was sent after the kill; none where none did.
    pub recovered_seconds: Option<f64>,
    /// The longest time between two messages.
    pub gap_seconds: f64,
    /// Messages acknowledged and never read.
    pub lost: u64,
    /// Messages read more than once, counted once for each time too many.
    pub repeated: u64,
    /// Messages sent whose acknowledgement never came, stored or not.
    pub unacknowledged: u64,
    /// What was read, window by window.
    pub points: Vec<TimelinePoint>,
}

/// One window of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimelinePoint {
    /// Where the window begins, seconds after the load's start.
    pub seconds: f64,
    /// Messages read in it, per second.
    pub records_per_second: f64,
    /// Median time from intended send to reading, of what was read in it.
    pub latency_p50_ns: Option<u64>,
    /// The longest.
    pub latency_max_ns: Option<u64>,
}

/// The search for the highest rate that one system holds under a latency bound. It is a curve: latency over offered rate,
/// with the bound as a line and the knee where the points leave it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateSearch {
    /// The system's name.
    pub system: String,
    /// Whose latency is bounded, 0 to 100, exclusive.
    pub percentile: f64,
    /// The bound on it, nanoseconds from the intended send.
    pub bound_ns: u64,
    /// Every rate that was tried, in the order in which it was.
    pub points: Vec<SearchPoint>,
    /// The highest rate that all confirming runs held, records a second; none where no rate was.
    pub confirmed_records_per_second: Option<f64>,
    /// The lowest rate above it that was not held, records a second; none where the search met none.
    pub failed_records_per_second: Option<f64>,
    /// How often the confirmed rate the same client reaches against a broker that does nothing, as far as was tried; below
    /// 1.5 the client may be what ended the search. None where it was not tried.
    pub client_headroom: Option<f64>,
}

/// One rate that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchPoint {
    /// Offered rate, records a second.
    pub offered_records_per_second: f64,
    /// Rate at which records were consumed, records a second.
    pub achieved_records_per_second: f64,
    /// By how much the backlog (records that are due and not consumed) grew a second, as a share of the offered rate.
    pub backlog_slope: f64,
    /// Median latency from the intended send; none where too few samples lie beyond it.
    pub latency_p50_ns: Option<u64>,
    /// Latency at the search's percentile; none where too few samples lie beyond it.
    pub latency_ns: Option<u64>,
    /// The longest latency; none without samples.
    pub latency_max_ns: Option<u64>,
    /// Whether it was a confirming run and no probe.
    pub is_confirming: bool,
    /// Why the rate was not held; none where it was.
    pub failed: Option<String>,
}

/// One trial of the instrument: a broker against a second one that may have been slowed down on purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlowdownTrial {
    /// By which fraction the second was slowed down; 0 where it was not.
    pub injected: f64,
    /// By which fraction it was, by its own threads' times.
    pub realised: f64,
    /// Median of the rounds' ratios of CPU per message, second over first.
    pub ratio: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of its 95 % interval.
    pub high: f64,
    /// How likely the rounds are to look so where nothing was slowed down.
    pub probability: f64,
    /// Whether a slowdown was told.
    pub is_found: bool,
    /// How long it took, seconds.
    pub seconds: f64,
    /// CPU per message of each pair of blocks, nanoseconds, first and second broker, by round: brokers are started anew for
    /// each.
    pub rounds: Vec<Vec<[f64; 2]>>,
}

/// A system that was not measured, or not to the end. As a line of `--json` its two fields tell it from every other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The system's name.
    pub left_out: String,
    /// Why.
    pub reason: String,
}

/// A load on one system over time, window by window; times are seconds after the load's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The system's name.
    pub system: String,
    /// Width of a window, seconds.
    pub window_seconds: f64,
    /// Topics, each with so many queues, producers and subscriptions.
    pub topics: u32,
    /// Queues of a topic.
    pub queues: u32,
    /// Producers of a topic.
    pub producers: u32,
    /// Subscriptions of a topic: consumers that each get every message.
    pub subscriptions: u32,
    /// What was done when, in order; `measured` is what figures are taken from.
    pub phases: Vec<Phase>,
    /// The windows, in order.
    pub points: Vec<SeriesPoint>,
}

/// A named stretch of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Where it begins, seconds after the load's start.
    pub from_seconds: f64,
    /// Where it ends.
    pub to_seconds: f64,
}

/// One window of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesPoint {
    /// Where the window begins, seconds after the load's start.
    pub seconds: f64,
    /// Messages acknowledged in it, per second.
    pub acknowledged_per_second: f64,
    /// Messages refused or given up in it, per second.
    pub failed_per_second: f64,
    /// Messages read in it by all subscriptions together, per second.
    pub consumed_per_second: f64,
    /// Messages acknowledged and not yet read at its end, over all subscriptions.
    pub waiting: u64,
    /// From handing a message to the client to its acknowledgement.
    pub acknowledge: Option<Latencies>,
    /// From the intended send to handing it over.
    pub lag: Option<Latencies>,
    /// From the intended send to reading.
    pub end_to_end: Option<Latencies>,
}

/// What a histogram says, in nanoseconds; a percentile with fewer than ten samples beyond it is none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Samples.
    pub count: u64,
    /// Mean.
    pub mean_ns: f64,
    /// Percentiles 50, 75, 95, 99, 99.9 and 99.99.
    pub percentiles_ns: [Option<u64>; 6],
    /// The longest.
    pub max_ns: u64,
}

/// The percentiles of `Latencies`, in their order.
pub const LATENCY_PERCENTILES: [f64; 6] = [50.0, 75.0, 95.0, 99.0, 99.9, 99.99];

/// The verdict on one system's messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemVerdict {
    /// The system's name.
    pub system: String,
    /// valid, unknown or invalid.
    pub verdict: String,
    /// Messages acknowledged and also consumed.
    pub verified_messages: u64,
    /// Anomaly to count.
    pub anomalies: BTreeMap<String, u64>,
    /// Durability class (memory, page cache, fsync before ack, replicated), and whether that was asserted or probed.
    pub durability: String,
}

/// Metric, unit, and whether more is better. Names are stable.
pub const METRICS: &[(&str, &str, bool)] = &[
    ("produce_records_per_second", "records/s", true),
    ("consume_records_per_second", "records/s", true),
    ("broker_cpu_ns_per_message", "ns", false),
    ("broker_cpu_produce_ns_per_message", "ns", false),
    ("broker_cpu_at_rate_ns_per_message", "ns", false),
    ("broker_resident_bytes", "bytes", false),
    ("broker_context_switches_per_message", "switches", false),
    ("broker_disk_bytes_per_message", "bytes", false),
    ("broker_resident_bytes_per_queue", "bytes", false),
    ("broker_disk_bytes_per_queue", "bytes", false),
    ("broker_files", "files", false),
    ("broker_disk_bytes_per_message_and_subscription", "bytes", false),
    ("acknowledged_records_per_second", "records/s", true),
    ("requests_per_second", "requests/s", true),
    ("end_to_end_records_per_second", "records/s", true),
    ("acknowledge_p50_ns", "ns", false),
    ("acknowledge_p99_ns", "ns", false),
    ("client_busy_share", "ratio", false),
    ("recovery_seconds", "s", false),
    ("availability_gap_seconds", "s", false),
    ("lost_messages", "messages", false),
    ("repeated_messages", "messages", false),
    ("unacknowledged_messages", "messages", false),
    ("records_per_batch", "records", true),
    ("end_to_end_p50_ns", "ns", false),
    ("end_to_end_p99_ns", "ns", false),
    ("end_to_end_p999_ns", "ns", false),
    ("end_to_end_service_p99_ns", "ns", false),
    ("end_to_end_max_ns", "ns", false),
    ("schedule_lag_p99_ns", "ns", false),
    ("client_headroom", "ratio", true),
    ("client_headroom_consume", "ratio", true),
    ("rate_within_bound_records_per_second", "records/s", true),
    ("cold_broker_cpu_ns_per_message", "ns", false),
    ("cold_produce_records_per_second", "records/s", true),
    ("warm_up_seconds", "s", false),
    ("timestamp_lookup_ns", "ns", false),
    ("replay_records_per_second", "records/s", true),
    ("not_positive_samples", "samples", false),
    ("effects_lost", "effects", false),
    ("effects_doubled", "effects", false),
    ("messages_lost", "messages", false),
    ("messages_repeated", "messages", false),
    ("records_missing", "records", false),
    ("records_waiting", "records", false),
    ("drain_seconds", "s", false),
    ("diagnoses_right_share", "ratio", true),
    ("burst_acknowledged_share", "ratio", true),
    ("consume_rate_spread", "ratio", false),
    ("broker_memory_growth_bytes", "bytes", false),
    ("consumers_busy", "consumers", true),
    ("consumers_idle", "consumers", false),
    ("topics_created_per_second", "topics/s", true),
    ("messages_lost_untold", "messages", false),
    ("messages_out_of_order", "messages", false),
    ("seeks_right_share", "ratio", true),
    ("processed_records_per_second", "processed/s", true),
    ("runs_that_lost_share", "ratio", false),
    ("runs_out_of_order_share", "ratio", false),
    ("process_runs_that_lost_share", "ratio", false),
    ("log_bytes_per_message", "bytes", false),
    ("index_bytes_per_message", "bytes", false),
    ("broker_resident_bytes_per_message", "bytes", false),
    ("copies_per_message", "copies", false),
    ("files_with_messages", "files", false),
    ("writes_elsewhere_share", "ratio", false),
    ("feature_works", "answer", true),
];
