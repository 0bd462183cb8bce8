//! The `[raw]` section of a load plan: shapes of load, and the parts of a target that their figures are held against.

use serde::{Deserialize, Serialize};

use mqassay_harness::measure::result::METRICS;

use crate::plan::{Flush, LoadPlan, is_duration};

/// Blocks of the raw driver, interleaved over the systems, shape by shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawLoad {
    /// The target's name, for example `M1`.
    pub target: String,
    /// Blocks per system and shape.
    pub pairs: u32,
    /// For how long a block produces, seconds.
    pub block_seconds: f64,
    /// The beginning of a block whose latencies are not counted, seconds.
    #[serde(default)]
    pub lead_in_seconds: f64,
    /// The shapes of load.
    pub shapes: Vec<RawShape>,
    /// What is held against them.
    pub parts: Vec<RawPart>,
}

/// One shape of load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawShape {
    /// Its name, for the parts.
    pub name: String,
    /// Connections, each a producer of its own with its own share of the queues.
    pub connections: u32,
    /// Requests of a connection without an answer, at most.
    pub in_flight: u32,
    /// Records of every batch.
    pub records_per_batch: u32,
    /// Batches of every request, each to a queue of its own.
    #[serde(default = "one_batch")]
    pub batches_per_request: u32,
    /// Queues in place of the plan's; above 1,024 they are spread over topics of 1,024.
    pub queues: Option<u32>,
    /// Durability in place of the plan's.
    pub flush: Option<Flush>,
    /// Bytes of a record's value in place of the plan's.
    pub record_bytes: Option<usize>,
    /// Offered rate of all connections together, open-loop; a closed loop where there is none.
    pub records_per_second: Option<u64>,
    /// When an open-loop batch is sent.
    #[serde(default)]
    pub linger: Linger,
    /// Connections that fetch while others produce; 0 reads everything back afterwards.
    #[serde(default)]
    pub consumers: u32,
    /// Values are sent as the template has them and only counted when they are read: what a client costs that verifies
    /// nothing, to hold the verification against. Such a block proves nothing about the messages.
    #[serde(default, rename = "bare")]
    pub is_bare: bool,
    /// The shape takes part in the first rounds only, where its blocks are long.
    pub rounds_maximum: Option<u32>,
    /// A block ends early at this many records.
    pub records_maximum: u64,
}

/// When a batch of an open-loop block is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Linger {
    /// When its last record is due; latency counts from then.
    #[default]
    Full,
    /// As soon as one record is due and a request may be sent, with all that are due; latency counts from the first.
    None,
}

/// How fast the disk is at a sync in this run: the limit is a median of 0.3 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskSync {
    /// At most the limit.
    #[serde(rename = "fast sync")]
    Fast,
    /// Above the limit.
    #[serde(rename = "slow sync")]
    Slow,
}

/// One part of a target: a ratio of two systems, or of two shapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPart {
    /// What it says.
    pub part: String,
    /// The shape's name.
    pub shape: String,
    /// The denominator's shape, where it is another.
    pub over_shape: Option<String>,
    /// The metric, from the table of metrics.
    pub metric: String,
    /// The numerator's system; `relay` is the bare program, started where a part names it.
    pub of: String,
    /// The denominator's system.
    pub over: String,
    /// What the ratio is multiplied with: where the target says *at most 1.5 times*, 1.5.
    #[serde(default = "one")]
    pub allowance: f64,
    /// The part holds only where the disk syncs so; it holds always where there is none.
    pub when: Option<DiskSync>,
    /// The least ratio that meets the target; more is better.
    pub needs: f64,
}

impl RawPart {
    /// The denominator's shape.
    pub(crate) fn shape_over(&self) -> &str {
        self.over_shape.as_deref().unwrap_or(&self.shape)
    }
}

impl RawLoad {
    /// Whether a part is held against the relay.
    pub fn needs_relay(&self) -> bool {
        self.parts.iter().any(|part| part.of == RELAY || part.over == RELAY)
    }

    /// Whether a system has a part in a shape.
    pub(crate) fn takes(&self, shape: &RawShape, system: &str) -> bool {
        self.parts.iter().any(|part| {
            (part.shape == shape.name && is_named(&part.of, system))
                || (part.shape_over() == shape.name && is_named(&part.over, system))
        })
    }

    /// The first value out of its bounds.
    pub(crate) fn first_fault(&self, plan: &LoadPlan) -> Option<String> {
        let mut checks = vec![
            (is_duration(self.block_seconds), "raw.block_seconds is not in 0.1..=600".to_owned()),
            ((0.0..self.block_seconds).contains(&self.lead_in_seconds), "raw.lead_in_seconds is too long".to_owned()),
            ((1..=1_000).contains(&self.pairs), "raw.pairs is not in 1..=1000".to_owned()),
            (!self.shapes.is_empty(), "raw.shapes has none".to_owned()),
        ];
        for shape in &self.shapes {
            let relayed = self.takes(shape, RELAY);
            checks.extend(shape.checks(plan, relayed).map(|(holds, text)| (holds, format!("{}: {text}", shape.name))));
        }
        for part in &self.parts {
            let has_shape = |name: &str| self.shapes.iter().any(|shape| shape.name == name);
            let has_metric = METRICS.iter().any(|(metric, _, _)| *metric == part.metric);
            let is_positive = part.needs > 0.0 && part.allowance > 0.0;
            let named = |text: &str| format!("{}: {text}", part.part);
            checks.push((has_shape(&part.shape) && has_shape(part.shape_over()), named("there is no such shape")));
            checks.push((has_metric, named("there is no such metric")));
            checks.push((is_positive, named("needs or allowance is not above 0")));
        }
        checks.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason)
    }
}

impl RawShape {
    /// The number of queues.
    pub(crate) fn queues(&self, plan: &LoadPlan) -> u32 {
        self.queues.unwrap_or(plan.queues)
    }

    /// The first value out of its bounds, for a broker.
    pub(super) fn first_fault(&self, plan: &LoadPlan) -> Option<&'static str> {
        self.checks(plan, false).find(|(holds, _)| !holds).map(|(_, reason)| reason)
    }

    fn checks(&self, plan: &LoadPlan, is_relayed: bool) -> impl Iterator<Item = (bool, &'static str)> {
        let (queues, batches) = (self.queues(plan), self.batches_per_request);
        let record_bytes = self.record_bytes.unwrap_or(plan.record_bytes);
        let batch_bytes = u64::from(self.records_per_batch) * (record_bytes as u64 + RECORD_OVERHEAD_BYTES);
        let is_shared_out = batches == 1
            || (queues >= self.connections
                && queues.is_multiple_of(self.connections)
                && (queues / self.connections).is_multiple_of(batches)
                && 1_024_u32.is_multiple_of(batches));
        [
            ((1..=1_000).contains(&self.connections), "connections is not in 1..=1000"),
            ((1..=5).contains(&self.in_flight), "in_flight is not in 1..=5"),
            (self.records_per_batch > 0, "records_per_batch is 0"),
            (record_bytes >= crate::payload::BYTES_MINIMUM, "record_bytes is below 64"),
            (batch_bytes <= BATCH_BYTES_MAXIMUM, "a batch is above a million bytes"),
            ((1..=64).contains(&batches), "batches_per_request is not in 1..=64"),
            (is_shared_out, "queues are not connections times batches_per_request times a whole number"),
            (!is_relayed || batches == 1, "the relay takes one batch a request"),
            ((1..=2_000_000).contains(&queues), "queues is not in 1..=2000000"),
            (self.consumers <= queues && self.consumers <= 64, "consumers is above the queues, or above 64"),
            ((1..=1_000_000_000).contains(&self.records_maximum), "records_maximum is not in 1..=1000000000"),
            (self.records_per_second != Some(0), "records_per_second is 0"),
            (
                !self.is_bare || (!is_relayed && queues >= self.connections),
                "bare needs a broker and a queue a connection",
            ),
            (self.linger == Linger::Full || batches == 1, "linger = \"none\" needs one batch a request"),
        ]
        .into_iter()
    }
}

/// Whether a plan's name for a system means this one: `reference` is the reference broker in whatever layout.
pub(crate) fn is_named(name: &str, system: &str) -> bool {
    name == system || (name == "reference" && system.starts_with("reference"))
}

fn one() -> f64 {
    1.0
}

fn one_batch() -> u32 {
    1
}

/// The bare program's name among the systems.
pub const RELAY: &str = "relay";
/// What a record adds to its value, at most.
const RECORD_OVERHEAD_BYTES: u64 = 32;
/// Below the largest batch that systems take by default.
const BATCH_BYTES_MAXIMUM: u64 = 1_000_000;
