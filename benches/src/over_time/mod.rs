//! A load on several topics over time, each topic with several producers and several subscriptions that all get every
//! message, told window by window: fan-out, a backlog that is built and drained, or a plain steady load. Start at `OverTime`
//! for what is asked for and at `Session::over_time` for what is made of it. Systems have their turn one after the other, as
//! each keeps its load for long; a ratio of two is therefore not given. Not here: the clients' threads (`clients`).

mod clients;
pub(crate) mod windows;

use std::path::PathBuf;

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::measure::percentile::spectrum;
use mqassay_harness::measure::result::{Phase, Series, Sweep, SweepPoint};
use serde::{Deserialize, Serialize};

use crate::assemble::{self, Sample};
use crate::block::Cost;
use crate::driver::NewRun;
use crate::payload::STAMPED_BYTES_MINIMUM;
use crate::plan::LoadPlan;
use crate::session::Session;
use clients::{Loading, OverTimeBlock, Times};
use windows::Windows;

/// A load over topics and subscriptions. The plan's queues and producers are those of each topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverTime {
    /// Topics.
    pub topics: u32,
    /// Subscriptions of each topic: consumers that each get every message of it.
    pub subscriptions: u32,
    /// Offered rate of all producers of all topics together; 0 sends as fast as the client takes it.
    pub records_per_second: u64,
    /// Load before anything is counted, seconds.
    pub warm_up_seconds: f64,
    /// Load that is counted, seconds; it begins when the backlog, if one is asked for, has been built.
    pub seconds: f64,
    /// Width of a window, seconds.
    pub window_seconds: f64,
    /// Consumers pause after the warm-up until so many bytes wait for them, all subscriptions together; 0 for no backlog.
    #[serde(default)]
    pub backlog_bytes: u64,
    /// How long a producer waits for a batch to fill, milliseconds.
    pub linger_ms: u32,
    /// Largest batch, bytes.
    pub batch_bytes: u32,
    /// The filler's bytes in place of random ones.
    pub payload_file: Option<PathBuf>,
    /// Sending ends early when all topics together hold this many bytes of records.
    #[serde(default = "bytes_maximum")]
    pub bytes_maximum: u64,
}

impl OverTime {
    /// How long it takes to build the backlog at the offered rate, seconds; 0 without one.
    pub fn build_seconds(&self, record_bytes: usize) -> f64 {
        let per_second = self.records_per_second as f64 * record_bytes as f64 * f64::from(self.subscriptions);
        if self.backlog_bytes == 0 { 0.0 } else { self.backlog_bytes as f64 / per_second }
    }

    /// The first value out of its bounds.
    pub(crate) fn first_fault(&self, plan: &LoadPlan) -> Option<&'static str> {
        let threads = u64::from(self.topics) * (u64::from(plan.producers) + u64::from(self.subscriptions));
        let has_rate = (1..=10_000_000).contains(&self.records_per_second);
        let builds = self.build_seconds(plan.record_bytes);
        let checks = [
            (self.topics >= 1 && self.subscriptions >= 1, "over_time needs a topic and a subscription"),
            (threads <= CLIENTS_MAXIMUM, "over_time: more than 256 producers and consumers over all topics"),
            (has_rate || self.records_per_second == 0, "over_time.records_per_second is not in 0..=10000000"),
            ((0.0..=3_600.0).contains(&self.warm_up_seconds), "over_time.warm_up_seconds is not in 0..=3600"),
            ((0.1..=3_600.0).contains(&self.seconds), "over_time.seconds is not in 0.1..=3600"),
            ((0.05..=60.0).contains(&self.window_seconds), "over_time.window_seconds is not in 0.05..=60"),
            (has_rate || self.backlog_bytes == 0, "over_time: a backlog needs a rate"),
            (builds <= 3_600.0, "over_time: at this rate the backlog takes more than an hour"),
            (
                plan.record_bytes >= STAMPED_BYTES_MINIMUM,
                "over_time needs records of at least 64 bytes, which bear times",
            ),
            (
                self.backlog_bytes <= self.bytes_maximum.saturating_mul(u64::from(self.subscriptions)),
                "over_time: the backlog does not fit into bytes_maximum",
            ),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason)
    }

    fn times(&self, record_bytes: usize) -> Times {
        let resume_seconds = self.warm_up_seconds + self.build_seconds(record_bytes);
        Times { pause_seconds: self.warm_up_seconds, resume_seconds, end_seconds: resume_seconds + self.seconds }
    }
}

impl Session<'_> {
    /// Loads one system after the other. A system that fails is left out.
    pub(crate) fn over_time(&mut self, load: &OverTime) {
        for index in 0..self.systems.len() {
            let times = load.times(self.plan.record_bytes);
            let window_seconds = load.window_seconds;
            let topics: Vec<NewRun> = (0..load.topics).map(|topic| self.topic_of(index, topic, load)).collect();
            let windows = Windows::new(topics[0].clock, times.pause_seconds, times.end_seconds, window_seconds);
            let topics: Vec<NewRun> = topics
                .into_iter()
                .map(|topic| NewRun { clock: windows.clock(), windows: Some(windows.clone()), ..topic })
                .collect();
            let block = self.guarded(index, "over time", |target, plan, driver| {
                let (topics, windows) = (topics.as_slice(), &windows);
                clients::run(Loading { target, plan, driver, load, times, topics, windows })
            });
            if let Some(block) = block {
                self.tell_over_time(index, load, times, &windows, &block);
            }
        }
        if self.systems.len() > 1 {
            self.remark(
                "The systems were loaded one after the other: where the machine drifted, they differ by that too."
                    .to_owned(),
            );
        }
    }

    fn topic_of(&self, index: usize, number: u32, load: &OverTime) -> NewRun {
        let topic = self.topic_on(&self.systems[index], self.plan.queues);
        let run = topic.run.wrapping_add(u64::from(number).wrapping_mul(0xA076_1D64_78BD_642F));
        NewRun { name: format!("{}-{number}", topic.name), run, subscriptions: load.subscriptions, ..topic }
    }

    fn tell_over_time(
        &mut self,
        index: usize,
        load: &OverTime,
        times: Times,
        windows: &Windows,
        block: &OverTimeBlock,
    ) {
        let name = self.systems[index].name.clone();
        self.note(index, &block.verification, block.unsettled, block.first_error.as_deref());
        if block.verification.verdict != VerdictKind::Valid {
            return;
        }
        if let Some(seconds) = block.ended_early_seconds {
            let gib = load.bytes_maximum >> 30;
            self.remark(format!("{name}: sending ended after {seconds:.0} s, as {gib} GiB of records had been sent."));
        }
        let mut series = Series {
            system: name.clone(),
            window_seconds: load.window_seconds,
            topics: load.topics,
            queues: self.plan.queues,
            producers: self.plan.producers,
            subscriptions: load.subscriptions,
            phases: phases(load, times),
            points: windows.points(load.subscriptions),
        };
        series.points.retain(|point| point.seconds < block.ended_early_seconds.unwrap_or(f64::INFINITY));
        let measured_from = times.resume_seconds - 1e-6;
        let mut samples: Vec<Sample> =
            series.points.iter().filter(|point| point.seconds >= measured_from).map(windows::sample).collect();
        if let (Some(first), Some(cost)) = (samples.first_mut(), block.cost) {
            first.extend(costs(&cost, block.acknowledged, load.subscriptions));
        }
        self.result.rows.extend(assemble::rows(&self.plan.name, &name, &samples));
        for (what, histogram) in windows.totals() {
            if !histogram.is_empty() {
                self.result.spectra.push(spectrum(&name, what, &histogram));
            }
        }
        if load.backlog_bytes > 0 {
            self.result.sweeps.push(drain(&name, &series, times));
            let drained = series
                .points
                .iter()
                .find(|point| point.seconds >= times.resume_seconds && point.waiting <= DRAINED_RECORDS);
            match drained {
                Some(point) => {
                    let seconds = point.seconds + load.window_seconds - times.resume_seconds;
                    let sample = [Sample::from([("drain_seconds", seconds)])];
                    self.result.rows.extend(assemble::rows(&self.plan.name, &name, &sample));
                }
                None => self.remark(format!("{name}: the backlog was not drained while the load went on.")),
            }
        }
        self.result.series.push(series);
    }
}

/// What the broker used over the whole load, by message that it acknowledged.
fn costs(cost: &Cost, acknowledged: u64, subscriptions: u32) -> Sample {
    if acknowledged == 0 {
        return Sample::new();
    }
    let per_message = |total: f64| total / acknowledged as f64;
    let written = per_message(cost.written_bytes);
    Sample::from([
        ("broker_cpu_at_rate_ns_per_message", per_message(cost.produce_cpu_ns + cost.consume_cpu_ns)),
        ("broker_disk_bytes_per_message", written),
        ("broker_disk_bytes_per_message_and_subscription", written / f64::from(subscriptions)),
        ("broker_resident_bytes", cost.resident_bytes),
    ])
}

fn phases(load: &OverTime, times: Times) -> Vec<Phase> {
    let phase = |name: &str, from_seconds, to_seconds| Phase { name: name.to_owned(), from_seconds, to_seconds };
    let mut phases = Vec::new();
    if load.warm_up_seconds > 0.0 {
        phases.push(phase("warm-up", 0.0, times.pause_seconds));
    }
    if load.backlog_bytes > 0 {
        phases.push(phase("consumers paused", times.pause_seconds, times.resume_seconds));
    }
    phases.push(phase("measured", times.resume_seconds, times.end_seconds));
    phases
}

/// What waits, over the seconds since the consumers came back.
fn drain(system: &str, series: &Series, times: Times) -> Sweep {
    let since = |seconds: f64| seconds + series.window_seconds - times.resume_seconds;
    let point = |x: f64, waiting: u64| {
        let value = waiting as f64;
        SweepPoint { x, value, low: value, high: value, records_per_batch: None }
    };
    let points = series.points.iter().map(|one| (since(one.seconds), one.waiting));
    Sweep {
        system: system.to_owned(),
        variable: "seconds".to_owned(),
        metric: "records_waiting".to_owned(),
        unit: "records".to_owned(),
        points: points.filter(|(seconds, _)| *seconds >= 0.0).map(|(x, waiting)| point(x, waiting)).collect(),
        stopped: None,
    }
}

/// 8 GiB: what a small machine's disk can spare.
fn bytes_maximum() -> u64 {
    8 << 30
}

const CLIENTS_MAXIMUM: u64 = 256;
/// As few waiting records are those in flight at any time, and no backlog.
const DRAINED_RECORDS: u64 = 1_000;
