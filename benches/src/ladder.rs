//! The durability ladder: the same blocks at each durability that a system can be told, and what a rung costs. Page cache
//! and fsync before ack on one node, the same replicated where the plan has several; a broker in memory that keeps nothing is
//! the null sink beside them. Classes never stand in one figure: each rung is a system of its own in the result.
//! Start at `Session::ladder`.

use serde::{Deserialize, Serialize};

use crate::assemble::{self, Sample};
use crate::calibrate::NULL_SINK;
use crate::plan::{Flush, LoadPlan, Rate, Throughput, is_duration};
use crate::session::Session;
use crate::{BenchError, Protocol};

/// Blocks at each durability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ladder {
    /// Blocks of each kind per system and rung.
    pub pairs: u32,
    /// Length of a block, seconds.
    pub block_seconds: f64,
    /// Offered rate of the open-loop blocks, of all producers together.
    pub records_per_second: u64,
    /// The beginning of an open-loop block whose latencies are not counted, seconds.
    pub lead_in_seconds: f64,
    /// How long a producer waits for a batch to fill, milliseconds.
    pub linger_ms: u32,
    /// Largest batch, bytes.
    pub batch_bytes: u32,
    /// An unthrottled block ends early at this many records.
    pub records_maximum: u64,
}

impl Ladder {
    /// The first value out of its bounds.
    pub(crate) fn first_fault(&self) -> Option<&'static str> {
        let checks = [
            ((1..=1_000).contains(&self.pairs), "ladder.pairs is not in 1..=1000"),
            (is_duration(self.block_seconds), "ladder.block_seconds is not in 0.1..=600"),
            ((1..=10_000_000).contains(&self.records_per_second), "ladder.records_per_second is not in 1..=10000000"),
            ((0.0..self.block_seconds).contains(&self.lead_in_seconds), "ladder.lead_in_seconds is too long"),
            (self.records_maximum > 0, "ladder.records_maximum is 0"),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason)
    }

    /// Blocks of one system.
    pub(crate) fn blocks(&self) -> u32 {
        self.pairs * 2 * RUNGS.len() as u32
    }

    fn throughput(&self) -> Throughput {
        let Ladder { pairs, block_seconds, linger_ms, batch_bytes, records_maximum, .. } = *self;
        Throughput { block_seconds, pairs, linger_ms, batch_bytes, records_maximum }
    }

    fn rate(&self) -> Rate {
        let Ladder { pairs, block_seconds, records_per_second, lead_in_seconds, linger_ms, batch_bytes, .. } = *self;
        Rate { records_per_second, block_seconds, lead_in_seconds, pairs, linger_ms, batch_bytes }
    }
}

impl Session<'_> {
    /// Both kinds of blocks on every rung, systems and rungs side by side.
    pub(crate) fn ladder(&mut self, load: &Ladder) -> Result<(), BenchError> {
        let rungs: Vec<(usize, Flush)> = (0..self.systems.len())
            .flat_map(|index| RUNGS.map(|flush| (index, flush)))
            .filter(|&(index, flush)| self.has_rung(index, flush))
            .collect();
        let at = |flush: Flush| LoadPlan { flush, ladder: None, ..self.plan.clone() };
        let plans: Vec<[LoadPlan; 2]> = rungs
            .iter()
            .map(|&(_, flush)| {
                let unthrottled = LoadPlan { throughput: Some(load.throughput()), ..at(flush) };
                [unthrottled, LoadPlan { rate: Some(load.rate()), ..at(flush) }]
            })
            .collect();
        let mut samples: Vec<[Vec<Sample>; 2]> = vec![Default::default(); rungs.len()];
        for pair in 0..load.pairs {
            for rung in assemble::order(pair, rungs.len()) {
                for (kind, plan) in plans[rung].iter().enumerate() {
                    let what = format!("ladder, {}", plan.durability());
                    samples[rung][kind].extend(self.planned_block(rungs[rung].0, plan, &what));
                }
            }
        }
        for ((&(index, _), plans), samples) in rungs.iter().zip(&plans).zip(&samples) {
            let shown = format!("{}, {}", self.systems[index].name, plans[0].durability());
            for samples in samples {
                let rows = assemble::rows(&self.plan.name, &shown, samples);
                self.result.rows.extend(rows);
            }
        }
        let sink = self.null_sink(self.plan, self.unthrottled_load(self.plan, load.throughput()))?;
        let text = format!("{:.0} records/s", sink.produce_records_per_second);
        self.result.manifest.insert(format!("{NULL_SINK}, memory: produce"), text);
        Ok(())
    }

    /// Whether a topic of the system can be made so durable. Where durability is the broker's own setting, there is the one
    /// rung that it was started with.
    fn has_rung(&self, index: usize, flush: Flush) -> bool {
        let target = &self.systems[index];
        match target.protocol {
            Protocol::Kafka => true,
            Protocol::Amqp { .. } | Protocol::Rocketmq { .. } => target.durability == flush.durability(),
        }
    }
}

const RUNGS: [Flush; 2] = [Flush::Os, Flush::Ack];
