//! The load plan: what is sent, how, for how long and how often, as a TOML file. The same plan drives every system.
//! Start at `LoadPlan`; the built-in plans are the files in `benches/plans`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::availability::Availability;
use crate::closed_form::ClosedForm;
use crate::drain::Drain;
use crate::ladder::Ladder;
use crate::over_time::OverTime;
use crate::payload::{BYTES_MINIMUM, STAMPED_BYTES_MINIMUM};
use crate::raw::bounds::Bounds;
use crate::raw::idle::Idle;
use crate::raw::plan::RawLoad;
use crate::raw::recovery::Recovery;
use crate::raw::scale::Scale;
use crate::raw::slowdown::Slowdown;
use crate::replay::Replay;
use crate::search::RateSearchLoad;
use crate::vary::Vary;

/// One load plan. Sections that are there are run, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadPlan {
    /// Name, as it stands in results and file names.
    pub name: String,
    /// What the plan does, in a sentence.
    pub title: String,
    /// The systems that it is meant for; the caller may choose others.
    pub systems: Vec<String>,
    /// Brokers of each system, 1 where nothing is said. Topics have as many copies, at most three.
    #[serde(default = "one")]
    pub nodes: u32,
    /// Bytes of a record's value.
    pub record_bytes: usize,
    /// Queues (Kafka: partitions) of the topic.
    pub queues: u32,
    /// Producers, each a client of its own.
    pub producers: u32,
    /// What a producer waits for.
    pub acks: Acks,
    /// Whether producers are idempotent; needs `acks = "all"`.
    pub idempotence: bool,
    /// When appended records are synced, as a setting of the topic.
    pub flush: Flush,
    /// Share of a record's filler that no compression makes smaller, percent.
    #[serde(default = "hundred")]
    pub entropy_percent: u32,
    /// How producers compress batches, where the system's protocol is Kafka's.
    #[serde(default)]
    pub compression: Compression,
    /// How unevenly records fall on queues, as keys make them: the exponent of Zipf's law. 0 is one queue after the other.
    #[serde(default)]
    pub skew: f64,
    /// How long a fetch may wait at a broker of Kafka's protocol for records, milliseconds: long polling. 0 is short polling.
    #[serde(default = "hundred")]
    pub fetch_wait_ms: u32,
    /// Consumers of an open-loop block, each of which reads everything.
    #[serde(default = "one")]
    pub subscribers: u32,
    /// How systems are warmed up before the first block.
    pub warm_up: Option<WarmUp>,
    /// Unthrottled blocks: produce, then read everything back.
    pub throughput: Option<Throughput>,
    /// Open-loop blocks at a fixed rate, with latency.
    pub rate: Option<Rate>,
    /// The highest rate under a latency bound.
    pub search: Option<RateSearchLoad>,
    /// Unthrottled blocks over a growing number of queues.
    pub sweep: Option<QueueSweep>,
    /// Blocks while one variable grows.
    pub vary: Option<Vary>,
    /// Blocks at each durability that a system can be told.
    pub ladder: Option<Ladder>,
    /// A backlog, and how it is worked off.
    pub drain: Option<Drain>,
    /// Reading again from points in time.
    pub replay: Option<Replay>,
    /// The instrument on a broker whose latency is known in closed form.
    pub closed_form: Option<ClosedForm>,
    /// Blocks of the raw driver, and the target that they are held against.
    pub raw: Option<RawLoad>,
    /// Both sweeps over queue counts with the raw driver.
    pub scale: Option<Scale>,
    /// What an idle queue costs.
    pub idle: Option<Idle>,
    /// From kill -9 to every queue answering.
    pub recovery: Option<Recovery>,
    /// Memory while clients misbehave.
    pub bounds: Option<Bounds>,
    /// Whether the instrument finds a slowdown.
    pub slowdown: Option<Slowdown>,
    /// A steady rate through a broker's crash.
    pub availability: Option<Availability>,
    /// A load on several topics and subscriptions, window by window.
    pub over_time: Option<OverTime>,
}

/// What a producer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acks {
    /// The leader's append.
    Leader,
    /// Every replica in sync.
    All,
}

/// The durability class that the topics are created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    /// A sync before every acknowledgement.
    Ack,
    /// Left to the operating system's page cache.
    Os,
}

impl Flush {
    /// The durability class that this setting means on one node.
    pub fn durability(self) -> &'static str {
        match self {
            Flush::Ack => "fsync before ack",
            Flush::Os => "page cache",
        }
    }

    /// The word that plans and the reference broker use.
    pub fn word(self) -> &'static str {
        match self {
            Flush::Ack => "ack",
            Flush::Os => "os",
        }
    }
}

/// What makes batches smaller on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Nothing.
    #[default]
    None,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Gzip.
    Gzip,
}

impl Compression {
    /// The word that plans and client libraries use.
    pub fn word(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Gzip => "gzip",
        }
    }
}

/// Windows of unthrottled load until the cost per message no longer moves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// Length of a window, seconds.
    pub window_seconds: f64,
    /// Windows at most.
    pub windows_maximum: u32,
    /// A change below this fraction, twice in a row, is steady.
    pub change_maximum: f64,
}

/// Unthrottled blocks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throughput {
    /// For how long a block produces, seconds.
    pub block_seconds: f64,
    /// Blocks per system.
    pub pairs: u32,
    /// How long a producer waits for a batch to fill, milliseconds.
    pub linger_ms: u32,
    /// Largest batch, bytes.
    pub batch_bytes: u32,
    /// A block ends early at this many records, so that disk use is bounded.
    pub records_maximum: u64,
}

/// Open-loop blocks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Offered rate of all producers together.
    pub records_per_second: u64,
    /// Length of a block, seconds, its lead-in included.
    pub block_seconds: f64,
    /// The beginning of a block whose latencies are not counted (connections are being made), seconds.
    pub lead_in_seconds: f64,
    /// Blocks per system.
    pub pairs: u32,
    /// How long a producer waits for a batch to fill, milliseconds.
    pub linger_ms: u32,
    /// Largest batch, bytes.
    pub batch_bytes: u32,
}

/// Unthrottled blocks at a fixed number of records per batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSweep {
    /// The numbers of queues, growing.
    pub queues: Vec<u32>,
    /// Records of every batch.
    pub records_per_batch: u32,
    /// For how long a block produces, seconds.
    pub block_seconds: f64,
    /// Blocks per system and point.
    pub pairs: u32,
    /// How long a producer waits for a batch to fill, milliseconds; only the last batches should ever wait.
    pub linger_ms: u32,
    /// A block ends early at this many records.
    pub records_maximum: u64,
}

impl LoadPlan {
    /// Names of the built-in plans.
    pub fn built_in_names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The built-in plan of this name, or the plan in the file at this path.
    pub fn named(name_or_path: &str) -> Result<LoadPlan, PlanError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return LoadPlan::parse(text, name);
        }
        let path = Path::new(name_or_path);
        let text = std::fs::read_to_string(path).map_err(|source| PlanError::Read {
            path: path.to_path_buf(),
            known: LoadPlan::built_in_names().collect::<Vec<_>>().join(", "),
            source,
        })?;
        LoadPlan::parse(&text, name_or_path)
    }

    /// Parses and checks a plan; `origin` is named in errors.
    pub fn parse(text: &str, origin: &str) -> Result<LoadPlan, PlanError> {
        let plan: LoadPlan = toml::from_str(text)
            .map_err(|error| PlanError::Form { origin: origin.to_owned(), reason: error.to_string() })?;
        plan.check(origin).map(|()| plan)
    }

    /// Whether every value is within its bounds; `origin` is named where one is not.
    pub(crate) fn check(&self, origin: &str) -> Result<(), PlanError> {
        match self.first_fault() {
            Some(reason) => Err(PlanError::Value { origin: origin.to_owned(), reason }),
            None => Ok(()),
        }
    }

    /// A plan without any section, for whoever fills one in; its settings are those that a file need not name.
    pub(crate) fn empty() -> LoadPlan {
        let text = "name = \"\"\ntitle = \"\"\nsystems = []\nrecord_bytes = 0\nqueues = 1\nproducers = 1\nacks = \"all\"\n\
                    idempotence = true\nflush = \"os\"\n";
        toml::from_str(text).expect("a plan without sections parses, as a test shows")
    }

    /// Whether blocks of librdkafka are asked for.
    pub(crate) fn has_library_sections(&self) -> bool {
        let has_blocks = self.throughput.is_some() || self.rate.is_some() || self.sweep.is_some();
        let has_series = self.vary.is_some() || self.ladder.is_some() || self.drain.is_some() || self.replay.is_some();
        has_blocks || has_series || self.search.is_some() || self.over_time.is_some()
    }

    /// Whether blocks of the raw driver are asked for.
    pub(crate) fn has_raw_sections(&self) -> bool {
        let others = self.idle.is_some() || self.recovery.is_some() || self.bounds.is_some() || self.slowdown.is_some();
        self.raw.is_some() || self.scale.is_some() || others
    }

    /// Whether sections need the times that records bear.
    fn has_latencies(&self) -> bool {
        let open_loop = self.rate.is_some() || self.search.is_some() || self.drain.is_some() || self.ladder.is_some();
        let varied = self.vary.as_ref().is_some_and(|vary| vary.records_per_second.is_some());
        open_loop || varied || self.has_raw_sections() || self.has_own_sections()
    }

    /// Copies of each queue.
    pub(crate) fn replication(&self) -> u32 {
        self.nodes.min(3)
    }

    /// The durability class that the settings mean.
    pub(crate) fn durability(&self) -> String {
        let class = self.flush.durability();
        if self.nodes > 1 { format!("replicated, {class}") } else { class.to_owned() }
    }

    /// Whether there are sections that connect for themselves.
    fn has_own_sections(&self) -> bool {
        self.closed_form.is_some() || self.availability.is_some()
    }

    pub(crate) fn first_fault(&self) -> Option<String> {
        let mut checks = vec![
            (
                !self.name.is_empty() && !self.name.contains(|letter: char| !is_name(letter)),
                "name is not of a-z, 0-9, -",
            ),
            ((BYTES_MINIMUM..=900_000).contains(&self.record_bytes), "record_bytes is not in 10..=900000"),
            (
                self.record_bytes >= STAMPED_BYTES_MINIMUM || !self.has_latencies(),
                "record_bytes is below 64: such records bear no times, and go with [throughput], [sweep], [vary] without a rate",
            ),
            (self.entropy_percent <= 100, "entropy_percent is not in 0..=100"),
            ((0.0..=10.0).contains(&self.skew), "skew is not in 0..=10"),
            (self.fetch_wait_ms <= 10_000, "fetch_wait_ms is not in 0..=10000"),
            ((1..=64).contains(&self.subscribers), "subscribers is not in 1..=64"),
            ((1..=9).contains(&self.nodes), "nodes is not in 1..=9"),
            (self.nodes == 1 || !self.has_raw_sections(), "the raw driver's sections go with nodes = 1 only"),
            ((1..=20_000).contains(&self.queues), "queues is not in 1..=20000"),
            ((1..=64).contains(&self.producers), "producers is not in 1..=64"),
            (!self.idempotence || self.acks == Acks::All, "idempotence needs acks = \"all\""),
            (
                self.has_library_sections() || self.has_raw_sections() || self.has_own_sections(),
                "there is none of [throughput], [rate], [search], [sweep], [vary], [ladder], [drain], [replay], [closed_form], [raw], [scale], [idle], [recovery], [bounds], [slowdown], [availability], [over_time]",
            ),
        ];
        if let Some(warm_up) = &self.warm_up {
            checks.push((is_duration(warm_up.window_seconds), "warm_up.window_seconds is not in 0.1..=600"));
            checks.push(((1..=1_000).contains(&warm_up.windows_maximum), "warm_up.windows_maximum is not in 1..=1000"));
            checks
                .push(((0.001..=1.0).contains(&warm_up.change_maximum), "warm_up.change_maximum is not in 0.001..=1"));
        }
        if let Some(block) = &self.throughput {
            checks.push((is_duration(block.block_seconds), "throughput.block_seconds is not in 0.1..=600"));
            checks.push(((1..=1_000).contains(&block.pairs), "throughput.pairs is not in 1..=1000"));
            checks.push((block.records_maximum > 0, "throughput.records_maximum is 0"));
        }
        if let Some(block) = &self.rate {
            checks.push((is_duration(block.block_seconds), "rate.block_seconds is not in 0.1..=600"));
            let lead_in = (0.0..block.block_seconds).contains(&block.lead_in_seconds);
            checks.push((lead_in, "rate.lead_in_seconds is not below rate.block_seconds"));
            checks.push((
                (1..=10_000_000).contains(&block.records_per_second),
                "rate.records_per_second is not in 1..=10000000",
            ));
            checks.push(((1..=1_000).contains(&block.pairs), "rate.pairs is not in 1..=1000"));
        }
        if let Some(sweep) = &self.sweep {
            checks.push((is_duration(sweep.block_seconds), "sweep.block_seconds is not in 0.1..=600"));
            checks.push(((1..=1_000).contains(&sweep.pairs), "sweep.pairs is not in 1..=1000"));
            checks.push((
                sweep.queues.is_sorted_by(|a, b| a < b) && !sweep.queues.is_empty(),
                "sweep.queues do not grow",
            ));
            checks.push((
                sweep.queues.iter().all(|count| (1..=20_000).contains(count)),
                "sweep.queues are not in 1..=20000",
            ));
            checks.push((
                (1..=100_000).contains(&sweep.records_per_batch),
                "sweep.records_per_batch is not in 1..=100000",
            ));
        }
        let own = checks.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason.to_owned());
        own.or_else(|| self.sections_fault())
    }

    /// The first fault of a section that checks itself.
    fn sections_fault(&self) -> Option<String> {
        let own = self.closed_form.as_ref().and_then(|form| form.first_fault(self)).map(str::to_owned);
        let own = own.or_else(|| self.search.as_ref().and_then(RateSearchLoad::first_fault).map(str::to_owned));
        let own = own.or_else(|| self.availability.as_ref().and_then(Availability::first_fault).map(str::to_owned));
        let own = own.or_else(|| self.over_time.as_ref().and_then(|load| load.first_fault(self)).map(str::to_owned));
        let own = own.or_else(|| self.scale.as_ref().and_then(Scale::first_fault).map(str::to_owned));
        let own = own.or_else(|| self.vary.as_ref().and_then(|vary| vary.first_fault(self)));
        let own = own.or_else(|| self.ladder.as_ref().and_then(Ladder::first_fault).map(str::to_owned));
        let own = own.or_else(|| self.drain.as_ref().and_then(Drain::first_fault).map(str::to_owned));
        let own = own.or_else(|| self.replay.as_ref().and_then(|replay| replay.first_fault(self)).map(str::to_owned));
        let own = own.or_else(|| self.slowdown.as_ref().and_then(|slowdown| slowdown.first_fault(self)));
        own.or_else(|| self.raw.as_ref().and_then(|raw| raw.first_fault(self)))
    }
}

/// A plan cannot be used.
#[derive(Debug, Error)]
pub enum PlanError {
    /// Neither a built-in name nor a file.
    #[error("no plan {path}: {source}; the built-in plans are {known}, or give the path of a TOML file")]
    Read {
        /// The path.
        path: PathBuf,
        /// Built-in names.
        known: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML of the plan's schema.
    #[error("plan {origin}: {reason}")]
    Form {
        /// Where the text is from.
        origin: String,
        /// What is wrong, with its place.
        reason: String,
    },
    /// A value out of its bounds.
    #[error("plan {origin}: {reason}")]
    Value {
        /// Where the text is from.
        origin: String,
        /// What is wrong.
        reason: String,
    },
}

fn one() -> u32 {
    1
}

fn hundred() -> u32 {
    100
}

fn is_name(letter: char) -> bool {
    matches!(letter, 'a'..='z' | '0'..='9' | '-')
}

pub(crate) fn is_duration(seconds: f64) -> bool {
    (0.1..=600.0).contains(&seconds)
}

/// How long a fetch waits where a plan does not say, milliseconds.
pub(crate) const FETCH_WAIT_MS: u32 = 100;

const BUILT_IN: &[(&str, &str)] = &[
    ("quick", include_str!("../plans/quick.toml")),
    ("compare", include_str!("../plans/compare.toml")),
    ("queues", include_str!("../plans/queues.toml")),
    ("queues-quick", include_str!("../plans/queues-quick.toml")),
    ("search", include_str!("../plans/search.toml")),
    ("size", include_str!("../plans/size.toml")),
    ("linger", include_str!("../plans/linger.toml")),
    ("batch", include_str!("../plans/batch.toml")),
    ("keys", include_str!("../plans/keys.toml")),
    ("entropy", include_str!("../plans/entropy.toml")),
    ("polling", include_str!("../plans/polling.toml")),
    ("fan-out", include_str!("../plans/fan-out.toml")),
    ("ladder", include_str!("../plans/ladder.toml")),
    ("ladder-replicated", include_str!("../plans/ladder-replicated.toml")),
    ("drain", include_str!("../plans/drain.toml")),
    ("replay", include_str!("../plans/replay.toml")),
    ("cluster", include_str!("../plans/cluster.toml")),
    ("claim-one-consumer", include_str!("../plans/claim-one-consumer.toml")),
    ("claim-throughput", include_str!("../plans/claim-throughput.toml")),
    ("claim-batched", include_str!("../plans/claim-batched.toml")),
    ("claim-single", include_str!("../plans/claim-single.toml")),
    ("claim-queues", include_str!("../plans/claim-queues.toml")),
    ("claim-queues-rate", include_str!("../plans/claim-queues-rate.toml")),
    ("claim-latency", include_str!("../plans/claim-latency.toml")),
    ("claim-copies-1", include_str!("../plans/claim-copies-1.toml")),
    ("claim-copies-4", include_str!("../plans/claim-copies-4.toml")),
    ("m1", include_str!("../plans/m1.toml")),
    ("m2", include_str!("../plans/m2.toml")),
    ("m3", include_str!("../plans/m3.toml")),
    ("m4", include_str!("../plans/m4.toml")),
    ("m5", include_str!("../plans/m5.toml")),
    ("m6", include_str!("../plans/m6.toml")),
    ("m8", include_str!("../plans/m8.toml")),
    ("scale", include_str!("../plans/scale.toml")),
    ("bounds", include_str!("../plans/bounds.toml")),
    ("availability", include_str!("../plans/availability.toml")),
    ("m9", include_str!("../plans/m9.toml")),
    ("m10", include_str!("../plans/m10.toml")),
    ("m7", include_str!("../plans/m7.toml")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_without_sections_parses_and_is_not_accepted() {
        let empty = LoadPlan { name: "p".to_owned(), record_bytes: 100, ..LoadPlan::empty() };
        assert!(empty.first_fault().unwrap().contains("[over_time]"));
    }

    #[test]
    fn every_built_in_plan_is_valid_and_bears_its_name() {
        for name in LoadPlan::built_in_names() {
            assert_eq!(LoadPlan::named(name).unwrap().name, name);
        }
    }

    #[test]
    fn a_fault_is_named_with_what_is_wrong() {
        let good = BUILT_IN[0].1;
        let cases = [
            ("record_bytes = 100", "record_bytes = 10", "record_bytes"),
            ("queues = 4", "queues = 0", "queues"),
            ("queues = 4", "queue = 4", "queue"),
            ("acks = \"all\"", "acks = \"leader\"", "idempotence"),
            ("lead_in_seconds = 0.5", "lead_in_seconds = 2.0", "lead_in_seconds"),
            ("flush = \"os\"", "flush = \"never\"", "flush"),
        ];
        for (from, to, named) in cases {
            assert!(good.contains(from), "{from}");
            let message = LoadPlan::parse(&good.replace(from, to), "test").unwrap_err().to_string();
            assert!(message.contains(named), "{to}: {message}");
        }
        let message = LoadPlan::named("nothing").unwrap_err().to_string();
        assert!(message.contains("quick, compare, queues"), "{message}");
    }
}
