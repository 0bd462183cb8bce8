//! Blocks while one variable grows and everything else stays: message size, batching, skew of keys, entropy, polling,
//! subscribers, queues. Unthrottled, or open-loop where a rate is given. Start at `Session::vary`. Not here: the sweep over
//! queues that holds records per batch (`session`), and the raw driver's (`raw::scale`).

use mqassay_harness::measure::result::{METRICS, Sweep, SweepPoint};
use mqassay_harness::measure::statistics::median;
use serde::{Deserialize, Serialize};

use crate::BenchError;
use crate::assemble::{self, Sample};
use crate::block;
use crate::calibrate::{HEADROOM_MINIMUM, NULL_SINK};
use crate::plan::{LoadPlan, Rate, Throughput};
use crate::session::Session;

/// One variable and its values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vary {
    /// What grows.
    pub variable: Variable,
    /// Its values, growing.
    pub values: Vec<f64>,
    /// Blocks per system and value.
    pub pairs: u32,
    /// Length of a block, seconds.
    pub block_seconds: f64,
    /// Offered rate of all producers together, open-loop; unthrottled where there is none.
    pub records_per_second: Option<u64>,
    /// The beginning of an open-loop block whose latencies are not counted, seconds.
    #[serde(default)]
    pub lead_in_seconds: f64,
    /// How long a producer waits for a batch to fill, milliseconds.
    pub linger_ms: u32,
    /// Largest batch, bytes.
    pub batch_bytes: u32,
    /// An unthrottled block ends early at this many bytes of values.
    #[serde(default = "bytes_maximum")]
    pub bytes_maximum: u64,
}

/// What can grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variable {
    /// Bytes of a record's value.
    RecordBytes,
    /// How long a producer waits for a batch to fill, milliseconds.
    LingerMs,
    /// Largest batch, bytes.
    BatchBytes,
    /// Producers.
    Producers,
    /// The exponent of Zipf's law by which records fall on queues.
    Skew,
    /// Share of a record's filler that no compression makes smaller, percent.
    EntropyPercent,
    /// How long a fetch may wait at the broker for records, milliseconds.
    FetchWaitMs,
    /// Consumers that each read everything.
    Subscribers,
    /// Queues, over which the same rate spreads.
    Queues,
}

impl Variable {
    /// Its name on axes.
    pub fn name(self) -> &'static str {
        match self {
            Variable::RecordBytes => "bytes a record",
            Variable::LingerMs => "ms of linger",
            Variable::BatchBytes => "bytes a batch at most",
            Variable::Producers => "producers",
            Variable::Skew => "skew (Zipf's exponent)",
            Variable::EntropyPercent => "% of a record incompressible",
            Variable::FetchWaitMs => "ms that a fetch may wait",
            Variable::Subscribers => "subscribers",
            Variable::Queues => "queues",
        }
    }

    fn set(self, value: f64, plan: &mut LoadPlan, load: &mut Vary) {
        // Values are small and whole where they count something; the plan's own checks refuse the rest.
        let whole = value as u32;
        match self {
            Variable::RecordBytes => plan.record_bytes = value as usize,
            Variable::LingerMs => load.linger_ms = whole,
            Variable::BatchBytes => load.batch_bytes = whole,
            Variable::Producers => plan.producers = whole,
            Variable::Skew => plan.skew = value,
            Variable::EntropyPercent => plan.entropy_percent = whole,
            Variable::FetchWaitMs => plan.fetch_wait_ms = whole,
            Variable::Subscribers => plan.subscribers = whole,
            Variable::Queues => plan.queues = whole,
        }
    }
}

impl Vary {
    /// The plan at one value: the same with one section of blocks.
    fn at(&self, plan: &LoadPlan, value: f64) -> LoadPlan {
        let (mut plan, mut load) = (plan.clone(), self.clone());
        plan.vary = None;
        self.variable.set(value, &mut plan, &mut load);
        let Vary { pairs, block_seconds, lead_in_seconds, linger_ms, batch_bytes, .. } = load;
        match load.records_per_second {
            Some(records_per_second) => {
                plan.rate =
                    Some(Rate { records_per_second, block_seconds, lead_in_seconds, pairs, linger_ms, batch_bytes });
            }
            None => {
                let records_maximum = (load.bytes_maximum / plan.record_bytes.max(1) as u64).max(1);
                plan.throughput = Some(Throughput { block_seconds, pairs, linger_ms, batch_bytes, records_maximum });
            }
        }
        plan
    }

    /// The first value out of its bounds.
    pub(crate) fn first_fault(&self, plan: &LoadPlan) -> Option<String> {
        let is_growing = self.values.is_sorted_by(|a, b| a < b) && !self.values.is_empty();
        if !is_growing {
            return Some("vary.values do not grow".to_owned());
        }
        if self.records_per_second.is_none() && self.variable == Variable::Subscribers {
            return Some("vary: subscribers read open-loop blocks only; give records_per_second".to_owned());
        }
        let faults = self.values.iter().filter_map(|value| {
            let fault = self.at(plan, *value).first_fault()?;
            Some(format!("vary, at {value} {}: {fault}", self.variable.name()))
        });
        faults.into_iter().next()
    }

    /// Blocks of the null sink.
    pub(crate) fn null_sinks(&self) -> u32 {
        if self.records_per_second.is_none() { self.values.len() as u32 } else { 0 }
    }

    fn metrics(&self) -> &'static [&'static str] {
        match self.records_per_second {
            Some(_) => &["end_to_end_p50_ns", "end_to_end_p99_ns", "broker_cpu_at_rate_ns_per_message"],
            None => &["produce_records_per_second", "consume_records_per_second", "broker_cpu_ns_per_message"],
        }
    }
}

impl Session<'_> {
    /// The blocks of every value, systems side by side, and a sweep of each metric; a system goes as far as it can.
    pub(crate) fn vary(&mut self, load: &Vary) -> Result<(), BenchError> {
        let mut sink: Vec<(f64, Vec<Sample>)> = Vec::new();
        let mut found: Vec<Vec<(f64, Vec<Sample>)>> = vec![Vec::new(); self.systems.len()];
        let mut stopped: Vec<Option<String>> = vec![None; self.systems.len()];
        for &value in &load.values {
            let plan = load.at(self.plan, value);
            let at = format!("at {value} {}", load.variable.name());
            for index in 0..self.systems.len() {
                found[index].push((value, Vec::new()));
                if let Some(what) = self.cannot(index, &plan) {
                    stopped[index]
                        .get_or_insert_with(|| format!("{at}: the system or its driver does not offer {what}"));
                }
            }
            for pair in 0..load.pairs {
                for index in assemble::order(pair, self.systems.len()) {
                    if stopped[index].is_some() {
                        continue;
                    }
                    match self.planned_block(index, &plan, &at) {
                        Some(sample) => found[index].last_mut().expect("pushed above").1.push(sample),
                        None => {
                            // How far a system goes is a result, and no fault of the run.
                            let reason = self.take_dropped(index);
                            stopped[index] = Some(format!("{at}: {reason}"));
                        }
                    }
                }
            }
            if let Some(throughput) = plan.throughput {
                let block = self.null_sink(&plan, self.unthrottled_load(&plan, throughput))?;
                sink.push((value, vec![assemble::throughput_sample(&block)]));
                let last = found.iter().map(|found| found.last().map(|point| point.1.as_slice()).unwrap_or_default());
                let bound = client_bound(&last.collect::<Vec<_>>(), &sink[sink.len() - 1].1);
                for (index, headroom) in bound {
                    let (name, text) = (self.systems[index].name.clone(), "below 1.5: compare CPU per message");
                    self.remark(format!("{name} {at}: the client's headroom is {headroom:.2}, {text}."));
                }
            }
        }
        self.add_vary_sweeps(load, NULL_SINK, &sink, None);
        for (index, (found, stopped)) in found.iter().zip(stopped).enumerate() {
            self.add_vary_sweeps(load, &self.systems[index].name.clone(), found, stopped);
        }
        Ok(())
    }

    fn add_vary_sweeps(&mut self, load: &Vary, system: &str, found: &[(f64, Vec<Sample>)], stopped: Option<String>) {
        for &metric in load.metrics() {
            let points: Vec<SweepPoint> =
                found.iter().filter_map(|(value, samples)| assemble::point(*value, samples, metric)).collect();
            if points.is_empty() && stopped.is_none() {
                continue;
            }
            let unit = METRICS.iter().find(|known| known.0 == metric).map_or("", |known| known.1);
            self.result.sweeps.push(Sweep {
                system: system.to_owned(),
                variable: load.variable.name().to_owned(),
                metric: metric.to_owned(),
                unit: unit.to_owned(),
                points,
                stopped: stopped.clone(),
            });
        }
    }

    /// One block of a plan that is this run's but for a setting, judged and counted; none where the system has failed.
    pub(crate) fn planned_block(&mut self, index: usize, plan: &LoadPlan, what: &str) -> Option<Sample> {
        let topic = self.topic_on(&self.systems[index], plan.queues);
        if let Some(load) = plan.rate {
            let block = self.guarded(index, what, |target, _, driver| {
                block::on_topic(plan, driver, &topic, || block::rate(target, plan, driver, &topic, load.into()))
            })?;
            self.note(index, &block.verification, block.unsettled, block.first_error.as_deref());
            return Some(assemble::rate_sample(&block));
        }
        let load = self.unthrottled_load(plan, plan.throughput?);
        let block = self.guarded(index, what, |target, _, driver| {
            block::on_topic(plan, driver, &topic, || block::throughput(target, plan, driver, &topic, load))
        })?;
        self.note(index, &block.verification, block.unsettled, block.first_error.as_deref());
        Some(assemble::throughput_sample(&block))
    }
}

/// The systems whose produce throughput the client may have bound: with how far the null sink is above it.
fn client_bound(found: &[&[Sample]], sink: &[Sample]) -> Vec<(usize, f64)> {
    let rate = |samples: &[Sample]| {
        let values = samples.iter().filter_map(|sample| sample.get("produce_records_per_second").copied());
        median(&values.collect::<Vec<f64>>())
    };
    let Some(ceiling) = rate(sink) else { return Vec::new() };
    let headrooms = found.iter().enumerate().filter_map(|(index, samples)| Some((index, ceiling / rate(samples)?)));
    headrooms.filter(|(_, headroom)| *headroom < HEADROOM_MINIMUM).collect()
}

fn bytes_maximum() -> u64 {
    1 << 30
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_changes_what_it_names_and_nothing_else() {
        let plan = LoadPlan::named("size").unwrap();
        let vary = plan.vary.clone().unwrap();
        let small = vary.at(&plan, 10.0);
        assert_eq!((small.record_bytes, small.vary.clone(), small.queues), (10, None, plan.queues));
        assert!(small.throughput.is_some_and(|load| load.records_maximum == vary.bytes_maximum / 10));
        let open_loop = Vary { records_per_second: Some(7), variable: Variable::LingerMs, ..vary };
        let lingering = open_loop.at(&plan, 5.0);
        assert_eq!(lingering.record_bytes, plan.record_bytes);
        assert!(lingering.rate.is_some_and(|load| load.linger_ms == 5 && load.records_per_second == 7));
    }

    #[test]
    fn a_system_near_the_null_sink_is_bound_by_the_client() {
        let of = |rates: &[f64]| {
            rates.iter().map(|&rate| Sample::from([("produce_records_per_second", rate)])).collect::<Vec<_>>()
        };
        let (slow, fast, none) = (of(&[10.0, 11.0]), of(&[80.0]), of(&[]));
        assert_eq!(client_bound(&[&slow, &fast, &none], &of(&[100.0])), [(1, 1.25)]);
        assert!(client_bound(&[&slow], &none).is_empty());
    }

    #[test]
    fn a_value_that_no_block_can_take_is_named() {
        let plan = LoadPlan::named("size").unwrap();
        let vary = plan.vary.clone().unwrap();
        let fault = |vary: Vary| vary.first_fault(&plan).unwrap_or_default();
        assert_eq!(fault(vary.clone()), "");
        assert!(fault(Vary { values: vec![9.0, 10.0], ..vary.clone() }).contains("at 9 bytes a record"));
        assert!(fault(Vary { values: vec![100.0, 10.0], ..vary.clone() }).contains("grow"));
        // A record of ten bytes bears no times.
        assert!(fault(Vary { records_per_second: Some(100), ..vary.clone() }).contains("below 64"));
        assert!(fault(Vary { variable: Variable::Subscribers, values: vec![1.0], ..vary }).contains("open-loop"));
    }
}
