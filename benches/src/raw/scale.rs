//! Both sweeps over queue counts with the raw driver: records per batch fixed, and total rate fixed. Every system goes as
//! far as it can; where it stops, the reason is kept. Start at `Session::scale`.

use std::time::Instant;

use mqassay_harness::measure::result::{METRICS, Sweep};
use serde::{Deserialize, Serialize};

use super::plan::{Linger, RawShape};
use super::session::sample;
use crate::assemble::{self, Sample};
use crate::session::Session;

/// Blocks of the raw driver over a growing number of queues.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The numbers of queues, growing.
    pub queues: Vec<u32>,
    /// For how long a block produces, seconds.
    pub block_seconds: f64,
    /// Blocks per system and point.
    pub pairs: u32,
    /// Records of a batch in the first sweep.
    pub records_per_batch: u32,
    /// Offered rate of the second sweep.
    pub records_per_second: u64,
    /// How long the second sweep's client waits for a batch to fill, milliseconds.
    pub linger_ms: u32,
    /// A block ends early at this many records.
    pub records_maximum: u64,
    /// A system that needed longer than this for a point does not take the next.
    pub seconds_maximum: f64,
}

impl Scale {
    /// The first value out of its bounds.
    pub(crate) fn first_fault(&self) -> Option<&'static str> {
        let checks = [
            (crate::plan::is_duration(self.block_seconds), "scale.block_seconds is not in 0.1..=600"),
            ((1..=100).contains(&self.pairs), "scale.pairs is not in 1..=100"),
            (self.queues.is_sorted_by(|a, b| a < b) && !self.queues.is_empty(), "scale.queues do not grow"),
            (self.queues.iter().all(|count| (1..=2_000_000).contains(count)), "scale.queues are not in 1..=2000000"),
            ((1..=1_000).contains(&self.records_per_batch), "scale.records_per_batch is not in 1..=1000"),
            ((1..=10_000_000).contains(&self.records_per_second), "scale.records_per_second is not in 1..=10000000"),
            ((1..=1_000).contains(&self.linger_ms), "scale.linger_ms is not in 1..=1000"),
            ((1..=1_000_000_000).contains(&self.records_maximum), "scale.records_maximum is not in 1..=1000000000"),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason)
    }

    /// The load on so many queues: closed-loop with full batches, or open-loop with what 10 ms of the rate bring to a queue.
    fn shape(&self, queues: u32, sweep: Kind) -> RawShape {
        let connections = queues.min(CONNECTIONS_MAXIMUM);
        let own = queues / connections;
        let is_even = queues.is_multiple_of(connections);
        let batches_per_request = (1..=BATCHES_MAXIMUM.min(own))
            .rev()
            .find(|batches| is_even && own.is_multiple_of(*batches) && 1_024_u32.is_multiple_of(*batches));
        let filled = self.records_per_second * u64::from(self.linger_ms) / 1_000 / u64::from(queues);
        let (records_per_batch, records_per_second) = match sweep {
            Kind::FixedBatch => (self.records_per_batch, None),
            Kind::FixedRate => (filled.clamp(1, 500) as u32, Some(self.records_per_second)),
        };
        RawShape {
            name: format!("{queues} queues, {}", sweep.variable()),
            connections,
            in_flight: 5,
            records_per_batch,
            batches_per_request: batches_per_request.unwrap_or(1),
            queues: Some(queues),
            flush: None,
            record_bytes: None,
            records_per_second,
            linger: Linger::Full,
            consumers: 0,
            is_bare: false,
            rounds_maximum: None,
            records_maximum: self.records_maximum,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    FixedBatch,
    FixedRate,
}

impl Kind {
    fn variable(self) -> &'static str {
        match self {
            Kind::FixedBatch => "queues",
            Kind::FixedRate => "queues at a fixed rate",
        }
    }

    /// What is drawn over the number of queues.
    fn metrics(self) -> &'static [&'static str] {
        match self {
            Kind::FixedBatch => &[
                "produce_records_per_second",
                "broker_cpu_produce_ns_per_message",
                "broker_resident_bytes",
                "broker_files",
                "acknowledge_p99_ns",
                "requests_per_second",
            ],
            Kind::FixedRate => &[
                "broker_cpu_produce_ns_per_message",
                "acknowledge_p99_ns",
                "requests_per_second",
                "produce_records_per_second",
            ],
        }
    }
}

impl Session<'_> {
    /// The two sweeps, one after the other, systems side by side at each point.
    pub(crate) fn scale(&mut self, scale: &Scale) {
        for kind in [Kind::FixedBatch, Kind::FixedRate] {
            let mut stopped: Vec<Option<String>> = vec![None; self.systems.len()];
            let mut found: Vec<Vec<(u32, Vec<Sample>)>> = vec![Vec::new(); self.systems.len()];
            for &queues in &scale.queues {
                let shape = scale.shape(queues, kind);
                for found in &mut found {
                    found.push((queues, Vec::new()));
                }
                for pair in 0..scale.pairs {
                    for index in assemble::order(pair, self.systems.len()) {
                        if stopped[index].is_some() {
                            continue;
                        }
                        let started = Instant::now();
                        match self.raw_block(&shape, index, scale.block_seconds, 0.0) {
                            Ok(block) => {
                                let mut sample = sample(&shape, &block);
                                sample.extend(block.files.map(|files| ("broker_files", files as f64)));
                                found[index].last_mut().expect("pushed above").1.push(sample);
                            }
                            Err(error) => stopped[index] = Some(format!("at {queues} queues: {error}")),
                        }
                        let seconds = started.elapsed().as_secs_f64();
                        if seconds > scale.seconds_maximum && stopped[index].is_none() {
                            let text =
                                format!("after {queues} queues, whose block took {seconds:.0} s with its topics");
                            stopped[index] = Some(text);
                        }
                    }
                }
            }
            for (index, (found, stopped)) in found.iter().zip(stopped).enumerate() {
                let last = scale.queues.last().copied();
                let is_short = found.iter().rfind(|point| !point.1.is_empty()).map(|point| point.0) != last;
                self.add_sweeps(kind, index, found, stopped.filter(|_| is_short));
            }
        }
    }

    fn add_sweeps(&mut self, kind: Kind, index: usize, found: &[(u32, Vec<Sample>)], stopped: Option<String>) {
        for &metric in kind.metrics() {
            let unit = METRICS.iter().find(|known| known.0 == metric).map_or("", |known| known.1);
            let sweep = Sweep {
                system: self.systems[index].name.clone(),
                variable: kind.variable().to_owned(),
                metric: metric.to_owned(),
                unit: unit.to_owned(),
                points: found
                    .iter()
                    .filter_map(|(queues, samples)| assemble::point(f64::from(*queues), samples, metric))
                    .collect(),
                stopped: stopped.clone(),
            };
            if !sweep.points.is_empty() || sweep.stopped.is_some() {
                self.result.sweeps.push(sweep);
            }
        }
    }
}

const CONNECTIONS_MAXIMUM: u32 = 16;
const BATCHES_MAXIMUM: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_at_a_fixed_rate_and_stay_in_the_other_sweep() {
        let plan = crate::plan::LoadPlan::parse(include_str!("../../plans/scale.toml"), "scale").unwrap();
        let scale = plan.scale.unwrap();
        let mut records = u32::MAX;
        for &queues in &scale.queues {
            assert_eq!(scale.shape(queues, Kind::FixedBatch).records_per_batch, scale.records_per_batch);
            let shape = scale.shape(queues, Kind::FixedRate);
            assert!(shape.records_per_batch <= records, "{queues}");
            records = shape.records_per_batch;
            assert!((queues / shape.connections).is_multiple_of(shape.batches_per_request), "{queues}");
        }
        assert_eq!(records, 1);
    }
}
