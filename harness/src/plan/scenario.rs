//! The schema of a scenario file (TOML): what is fixed, what is drawn per seed, and from which range.
//! The built-in catalogue is made of the same files that people bring by path. Sampling is in `sample`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CommitWhen, DiskOperation, GroupProtocol};

/// A scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name: lower-case words joined by hyphens.
    pub name: String,
    /// What it puts to the proof, in one sentence.
    pub title: String,
    /// Claims of the ledger that it tests.
    #[serde(default)]
    pub claims: Vec<String>,
    /// The simulated world.
    #[serde(default)]
    pub world: WorldRanges,
    /// Broker settings as the command line names them; one choice of each is drawn per seed.
    #[serde(default)]
    pub settings: BTreeMap<String, Vec<String>>,
    /// Topics.
    #[serde(default)]
    pub topics: TopicRanges,
    /// Clients and their operations.
    pub workload: WorkloadRanges,
    /// Consumer groups.
    #[serde(default)]
    pub groups: GroupRanges,
    /// Faults.
    #[serde(default)]
    pub faults: FaultRanges,
}

/// Hosts of a simulated world at most, so that a run stays fast.
const HOSTS_MAXIMUM: i64 = 32;
/// Nodes among them at most.
const NODES_MAXIMUM: i64 = 8;

/// A number, or a pair of lowest and highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Span {
    /// Always this.
    Fixed(i64),
    /// Lowest and highest, both included.
    Between([i64; 2]),
}

impl Span {
    /// Lowest and highest.
    pub fn bounds(self) -> (i64, i64) {
        match self {
            Span::Fixed(value) => (value, value),
            Span::Between([low, high]) => (low, high),
        }
    }
}

/// Ranges of the world's knobs; see `plan::World` for their meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldRanges {
    /// Broker nodes that are the cluster at the beginning.
    pub nodes: Span,
    /// Nodes beside them that faults can add.
    pub joining: Span,
    /// Step in milliseconds.
    pub tick_ms: Span,
    /// Fixed one-way latency in milliseconds.
    pub latency_ms: Span,
    /// Largest jitter in milliseconds.
    pub jitter_ms: Span,
    /// Duration of a sync in microseconds.
    pub sync_us: Span,
    /// End of the safety phase in milliseconds.
    pub safety_ms: Span,
    /// Bound of the liveness phase in milliseconds.
    pub liveness_ms: Span,
    /// Disk size in bytes.
    pub disk_bytes: Span,
    /// Share of runs in which a random sufficient core of the nodes is healed for the liveness phase, not all of them.
    pub core_alone: f64,
    /// Nodes down at once at most; a number below 0 sets no bound.
    pub down_at_once: i64,
    /// Nodes without power at once at most; a number below 0 sets no bound.
    pub powerless_at_once: i64,
}

impl Default for WorldRanges {
    fn default() -> WorldRanges {
        WorldRanges {
            nodes: Span::Fixed(1),
            joining: Span::Fixed(0),
            tick_ms: Span::Fixed(10),
            latency_ms: Span::Between([0, 10]),
            jitter_ms: Span::Between([0, 30]),
            sync_us: Span::Between([500, 20_000]),
            safety_ms: Span::Between([6_000, 12_000]),
            liveness_ms: Span::Fixed(60_000),
            disk_bytes: Span::Fixed(1 << 30),
            core_alone: 0.0,
            down_at_once: -1,
            powerless_at_once: -1,
        }
    }
}

/// Topics of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopicRanges {
    /// How many.
    pub count: Span,
    /// Partitions of each.
    pub queues: Span,
    /// Copies of each partition; never more than there are nodes.
    pub replication: Span,
    /// Share of runs in which topics are auto-created by the first Metadata request, 0 to 1.
    pub auto_created: f64,
    /// Settings given at creation; one choice of each is drawn per topic, an empty one leaves it out.
    pub config: BTreeMap<String, Vec<String>>,
}

impl Default for TopicRanges {
    fn default() -> TopicRanges {
        TopicRanges {
            count: Span::Between([1, 2]),
            queues: Span::Between([1, 4]),
            replication: Span::Fixed(1),
            auto_created: 0.1,
            config: BTreeMap::new(),
        }
    }
}

/// Clients and operations of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkloadRanges {
    /// Producing clients.
    pub producers: Span,
    /// Consuming clients.
    pub consumers: Span,
    /// Batches in all.
    pub batches: Span,
    /// Polls in all.
    pub polls: Span,
    /// Records per batch.
    pub records: Span,
    /// Bytes of a record's value.
    pub value_bytes: Span,
    /// `acks` of a producer: choices.
    pub acks: Vec<i8>,
    /// Idempotence of a producer: choices.
    pub idempotent: Vec<bool>,
    /// Requests in flight: choices.
    pub in_flight: Vec<u32>,
    /// Attempts per batch: choices.
    pub attempts: Vec<u32>,
    /// Time-out of one attempt in milliseconds.
    pub request_timeout_ms: Span,
    /// Upper bound of a fetch's answer in bytes.
    pub fetch_max_bytes: Span,
    /// Seeks in all.
    pub seeks: Span,
    /// ListOffsets in all.
    pub list_offsets: Span,
    /// DeleteRecords in all.
    pub delete_records: Span,
    /// Whether timestamps jump back and forth.
    pub shuffled_timestamps: bool,
}

impl Default for WorkloadRanges {
    fn default() -> WorkloadRanges {
        WorkloadRanges {
            producers: Span::Between([1, 3]),
            consumers: Span::Between([1, 2]),
            batches: Span::Between([140, 220]),
            polls: Span::Between([80, 120]),
            records: Span::Between([1, 12]),
            value_bytes: Span::Between([24, 300]),
            acks: vec![-1],
            idempotent: vec![true, false],
            in_flight: vec![1, 5],
            attempts: vec![1, 4, 10],
            request_timeout_ms: Span::Between([300, 1_500]),
            fetch_max_bytes: Span::Between([2_000, 60_000]),
            seeks: Span::Fixed(0),
            list_offsets: Span::Fixed(0),
            delete_records: Span::Fixed(0),
            shuffled_timestamps: false,
        }
    }
}

/// Consumer groups of a scenario, beside its other clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupRanges {
    /// Groups; each reads every topic.
    pub count: Span,
    /// Members of each.
    pub members: Span,
    /// How members take part: choices, one for each group.
    pub protocol: Vec<GroupProtocol>,
    /// When members commit: choices, one for each group.
    pub commit: Vec<CommitWhen>,
    /// Share of members that are static, 0 to 1.
    pub is_static: f64,
    /// Polls of each member.
    pub polls: Span,
    /// Crashes of members in all.
    pub crashes: Span,
    /// Members that leave and come back, in all.
    pub leaves: Span,
    /// The session time-out in milliseconds.
    pub session_timeout_ms: Span,
}

impl Default for GroupRanges {
    fn default() -> GroupRanges {
        GroupRanges {
            count: Span::Fixed(0),
            members: Span::Between([1, 3]),
            protocol: vec![GroupProtocol::Classic],
            commit: vec![CommitWhen::After],
            is_static: 0.0,
            polls: Span::Between([40, 80]),
            crashes: Span::Fixed(0),
            leaves: Span::Fixed(0),
            session_timeout_ms: Span::Between([1_000, 3_000]),
        }
    }
}

/// Faults of a scenario: how many of each class per run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct FaultRanges {
    /// Kills of the process.
    pub kill: Span,
    /// Power losses.
    pub power_loss: Span,
    /// Clean restarts.
    pub restart: Span,
    /// Links held.
    pub link_hold: Span,
    /// Links delayed.
    pub link_delay: Span,
    /// Links cut and connections reset.
    pub link_cut: Span,
    /// One produce request or its answer held and its connection reset.
    pub one_request: Span,
    /// Failing reads.
    pub disk_read_error: Span,
    /// Failing writes.
    pub disk_write_error: Span,
    /// Failing syncs.
    pub sync_error: Span,
    /// Full disk.
    pub disk_full: Span,
    /// Slow disk.
    pub disk_slow: Span,
    /// Flipped bits, each followed by a kill so that recovery meets it.
    pub bit_flip: Span,
    /// Parts of paths: a bit flips only in files that have one of them in theirs. Without any it may be any file.
    pub flip_in: Vec<String>,
    /// Pauses of the process.
    pub pause: Span,
    /// Partitions that isolate one node.
    pub isolate: Span,
    /// Partitions into two parts.
    pub halves: Span,
    /// Partitions in which each node sees another majority.
    pub majority_ring: Span,
    /// Partitions into two parts with one node between.
    pub bridge: Span,
    /// Cuts of one direction of a node's links.
    pub one_way: Span,
    /// Kills of a minority of the nodes at once.
    pub kill_minority: Span,
    /// Kills of all nodes at once.
    pub kill_all: Span,
    /// Power losses of a minority of the nodes at once.
    pub power_loss_minority: Span,
    /// Power losses of all nodes at once.
    pub power_loss_all: Span,
    /// Clean restarts of all nodes, one after the other.
    pub roll: Span,
    /// Wall clocks that are wrong.
    pub clock_skew: Span,
    /// Nodes that join the cluster, of those that wait outside; half of the plans add all of them at once.
    pub add_node: Span,
    /// Nodes that an operator takes out of the cluster.
    pub remove_node: Span,
    /// Share of kills, power losses and pauses that are placed at a named point instead of a time, 0 to 1.
    pub at_point: f64,
    /// The points to choose from.
    pub points: Vec<String>,
    /// Share of partitions that are placed at a named point of one of the first nodes instead of a time, 0 to 1.
    pub split_at_point: f64,
    /// The points to choose from for partitions.
    pub split_points: Vec<String>,
    /// Time that a killed node stays down, in milliseconds.
    pub down_ms: Span,
    /// Time that a pause, or a link or disk fault lasts, in milliseconds.
    pub lasts_ms: Span,
}

impl Default for FaultRanges {
    fn default() -> FaultRanges {
        let none = Span::Fixed(0);
        FaultRanges {
            kill: none,
            power_loss: none,
            restart: none,
            link_hold: none,
            link_delay: none,
            link_cut: none,
            one_request: none,
            disk_read_error: none,
            disk_write_error: none,
            sync_error: none,
            disk_full: none,
            disk_slow: none,
            bit_flip: none,
            flip_in: Vec::new(),
            pause: none,
            isolate: none,
            halves: none,
            majority_ring: none,
            bridge: none,
            one_way: none,
            kill_minority: none,
            kill_all: none,
            power_loss_minority: none,
            power_loss_all: none,
            roll: none,
            clock_skew: none,
            add_node: none,
            remove_node: none,
            at_point: 0.0,
            points: Vec::new(),
            split_at_point: 0.0,
            split_points: Vec::new(),
            down_ms: Span::Between([50, 1_000]),
            lasts_ms: Span::Between([100, 1_500]),
        }
    }
}

impl FaultRanges {
    /// Class name and range of every class.
    pub fn classes(&self) -> [(&'static str, Span); 27] {
        [
            ("kill", self.kill),
            ("power-loss", self.power_loss),
            ("restart", self.restart),
            ("link-hold", self.link_hold),
            ("link-delay", self.link_delay),
            ("link-cut", self.link_cut),
            ("one-request", self.one_request),
            ("disk-read-error", self.disk_read_error),
            ("disk-write-error", self.disk_write_error),
            ("sync-error", self.sync_error),
            ("disk-full", self.disk_full),
            ("disk-slow", self.disk_slow),
            ("bit-flip", self.bit_flip),
            ("pause", self.pause),
            ("isolate", self.isolate),
            ("halves", self.halves),
            ("majority-ring", self.majority_ring),
            ("bridge", self.bridge),
            ("one-way", self.one_way),
            ("kill-minority", self.kill_minority),
            ("kill-all", self.kill_all),
            ("power-loss-minority", self.power_loss_minority),
            ("power-loss-all", self.power_loss_all),
            ("roll", self.roll),
            ("clock-skew", self.clock_skew),
            ("add-node", self.add_node),
            ("remove-node", self.remove_node),
        ]
    }
}

/// The disk operation that a class of disk error strikes.
pub(crate) fn disk_operation(class: &str) -> Option<DiskOperation> {
    match class {
        "disk-read-error" => Some(DiskOperation::Read),
        "disk-write-error" => Some(DiskOperation::Write),
        "sync-error" => Some(DiskOperation::Sync),
        _ => None,
    }
}

/// Why a scenario file cannot be used.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// Not TOML, or not of this schema.
    #[error("{origin}: not a scenario: {source}")]
    Malformed {
        /// The file's name.
        origin: String,
        /// What the parser said.
        source: Box<toml::de::Error>,
    },
    /// A value that makes no sense.
    #[error("{origin}: {field} = {found}: {wanted}")]
    OutOfRange {
        /// The file's name.
        origin: String,
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// What it must be.
        wanted: String,
    },
}

impl Scenario {
    /// Parses and validates a scenario file; `origin` names it in errors.
    pub fn parse(origin: &str, text: &str) -> Result<Scenario, ScenarioError> {
        let scenario: Scenario = toml::from_str(text)
            .map_err(|source| ScenarioError::Malformed { origin: origin.to_owned(), source: Box::new(source) })?;
        scenario.validate(origin)?;
        Ok(scenario)
    }

    fn validate(&self, origin: &str) -> Result<(), ScenarioError> {
        let bad = |field: &str, found: String, wanted: &str| {
            Err(ScenarioError::OutOfRange {
                origin: origin.to_owned(),
                field: field.to_owned(),
                found,
                wanted: wanted.to_owned(),
            })
        };
        let is_name = !self.name.is_empty()
            && self.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_name {
            return bad("name", format!("{:?}", self.name), "use lower-case letters, digits and hyphens");
        }
        for (field, span, lowest, highest) in self.spans() {
            let (low, high) = span.bounds();
            if low > high || low < lowest || high > highest {
                return bad(&field, format!("{low}..={high}"), &format!("must lie within {lowest}..={highest}"));
            }
        }
        for (field, share) in [
            ("topics.auto_created", self.topics.auto_created),
            ("faults.at-point", self.faults.at_point),
            ("faults.split-at-point", self.faults.split_at_point),
            ("world.core_alone", self.world.core_alone),
            ("groups.is_static", self.groups.is_static),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return bad(field, share.to_string(), "must lie within 0..=1");
            }
        }
        if self.faults.at_point > 0.0 && self.faults.points.is_empty() {
            return bad("faults.points", "[]".to_owned(), "name at least one point, or set at-point = 0");
        }
        if self.faults.split_at_point > 0.0 && self.faults.split_points.is_empty() {
            return bad("faults.split-points", "[]".to_owned(), "name at least one point, or set split-at-point = 0");
        }
        if let Some((key, _)) = self.settings.iter().find(|(_, choices)| choices.is_empty()) {
            return bad(&format!("settings.{key}"), "[]".to_owned(), "give at least one choice");
        }
        let load = &self.workload;
        if load.acks.is_empty() || load.acks.iter().any(|acks| !(-1..=1).contains(acks)) {
            return bad("workload.acks", format!("{:?}", load.acks), "choose from -1, 0 and 1");
        }
        if load.in_flight.is_empty() || load.in_flight.iter().any(|count| !(1..=5).contains(count)) {
            return bad("workload.in_flight", format!("{:?}", load.in_flight), "choose from 1 to 5");
        }
        if load.attempts.is_empty() || load.attempts.iter().any(|count| !(1..=1_000).contains(count)) {
            return bad("workload.attempts", format!("{:?}", load.attempts), "choose from 1 to 1000");
        }
        if load.idempotent.is_empty() {
            return bad("workload.idempotent", "[]".to_owned(), "choose from true and false");
        }
        let groups = &self.groups;
        if groups.protocol.is_empty() || groups.commit.is_empty() {
            return bad("groups.protocol and groups.commit", "[]".to_owned(), "give at least one choice");
        }
        let most = |span: Span| span.bounds().1;
        let nodes = most(self.world.nodes) + most(self.world.joining);
        if nodes > NODES_MAXIMUM {
            return bad("world.nodes and world.joining", nodes.to_string(), "at most 8 nodes in all");
        }
        let hosts = nodes + most(load.producers) + most(load.consumers) + 1;
        let hosts = hosts + most(groups.count) * most(groups.members);
        if hosts > HOSTS_MAXIMUM {
            return bad("nodes and clients", hosts.to_string(), "at most 32 hosts, the final reader's included");
        }
        Ok(())
    }

    /// Every span with its name and its outermost bounds.
    fn spans(&self) -> Vec<(String, Span, i64, i64)> {
        let (world, load) = (&self.world, &self.workload);
        let mut spans: Vec<(String, Span, i64, i64)> = [
            ("world.nodes", world.nodes, 1, NODES_MAXIMUM),
            ("world.joining", world.joining, 0, NODES_MAXIMUM - 1),
            ("world.tick_ms", world.tick_ms, 1, 100),
            ("world.latency_ms", world.latency_ms, 0, 10_000),
            ("world.jitter_ms", world.jitter_ms, 0, 10_000),
            ("world.sync_us", world.sync_us, 0, 10_000_000),
            ("world.safety_ms", world.safety_ms, 100, 30_000),
            ("world.liveness_ms", world.liveness_ms, 1_000, 600_000),
            ("world.disk_bytes", world.disk_bytes, 1 << 16, 1 << 40),
            ("topics.count", self.topics.count, 1, 100),
            ("topics.queues", self.topics.queues, 1, 10_000),
            ("topics.replication", self.topics.replication, 1, 8),
            ("groups.count", self.groups.count, 0, 10),
            ("groups.members", self.groups.members, 1, 100),
            ("groups.polls", self.groups.polls, 0, 1_000_000),
            ("groups.crashes", self.groups.crashes, 0, 1_000),
            ("groups.leaves", self.groups.leaves, 0, 1_000),
            ("groups.session_timeout_ms", self.groups.session_timeout_ms, 100, 60_000),
            ("workload.producers", load.producers, 1, 100),
            ("workload.consumers", load.consumers, 0, 100),
            ("workload.batches", load.batches, 1, 1_000_000),
            ("workload.polls", load.polls, 0, 1_000_000),
            ("workload.records", load.records, 1, 10_000),
            ("workload.value_bytes", load.value_bytes, 24, 1 << 20),
            ("workload.request_timeout_ms", load.request_timeout_ms, 10, 60_000),
            ("workload.fetch_max_bytes", load.fetch_max_bytes, 1, 1 << 30),
            ("workload.seeks", load.seeks, 0, 1_000_000),
            ("workload.list_offsets", load.list_offsets, 0, 1_000_000),
            ("workload.delete_records", load.delete_records, 0, 1_000_000),
            ("faults.down-ms", self.faults.down_ms, 0, 30_000),
            ("faults.lasts-ms", self.faults.lasts_ms, 0, 30_000),
        ]
        .map(|(name, span, low, high)| (name.to_owned(), span, low, high))
        .into();
        for (class, span) in self.faults.classes() {
            spans.push((format!("faults.{class}"), span, 0, 1_000));
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "name = \"least\"\ntitle = \"The least that is a scenario.\"\n[workload]\n";

    #[test]
    fn the_least_scenario_parses() {
        let scenario = Scenario::parse("least.toml", LEAST).unwrap();
        assert_eq!(scenario.world.nodes, Span::Fixed(1));
    }

    #[test]
    fn bad_files_are_refused_with_the_field_and_what_it_must_be() {
        let cases = [
            (LEAST.replace("least\"", "Least Of All\""), "name"),
            (format!("{LEAST}records = [5, 2]\n"), "workload.records"),
            (format!("{LEAST}acks = [2]\n"), "workload.acks"),
            (format!("{LEAST}[world]\nsafety_ms = 31000\n"), "world.safety_ms"),
            (format!("{LEAST}[faults]\nkil = 1\n"), "kil"),
            (format!("{LEAST}[faults]\nat-point = 0.5\n"), "faults.points"),
        ];
        for (text, field) in cases {
            let error = Scenario::parse("bad.toml", &text).unwrap_err().to_string();
            assert!(error.starts_with("bad.toml: ") && error.contains(field), "{error}");
        }
    }
}
