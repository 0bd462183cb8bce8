//! A plan is data: cluster, settings, client operations and faults of one run, written before the run.
//! A run is a function of (commit, plan). Scenarios (`scenario`) plus a seed sample plans (`sample`);
//! replaying and shrinking edit plans, never seeds.

pub mod draws;
pub mod keys;
mod lasting;
pub mod readable;
pub mod sample;
mod sample_cluster;
pub mod scenario;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::history::{OffsetQuery, Queue, SeekTarget};

/// The version of the schema that this code writes.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything that decides a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// `SCHEMA_VERSION` of the writer.
    pub schema: u32,
    /// Name of the scenario that it was sampled from.
    pub scenario: String,
    /// The seed that it was sampled with.
    pub seed: u64,
    /// Salt of every draw made while the plan runs (`draws::Draws`); below 2^63, so that TOML can hold it.
    pub salt: u64,
    /// Name of the deliberate bug that the nodes get, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
    /// Name of the deliberate bug that the clients get, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_mutant: Option<String>,
    /// The simulated world's knobs.
    pub world: World,
    /// Settings of every broker node, as its command line names them (`flush`, `layout`, `segment-bytes`, …).
    pub settings: BTreeMap<String, String>,
    /// Topics, created before the clients start unless `auto_created`.
    pub topics: Vec<Topic>,
    /// Clients with their operations.
    pub clients: Vec<Client>,
    /// Faults, in no particular order.
    pub faults: Vec<Fault>,
    /// The trace hash of a recorded run of this plan, where there is one (32 hexadecimal digits).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_trace: Option<String>,
}

/// Knobs of the simulated world. A replay never changes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// Broker nodes, 1 to 8.
    pub nodes: u32,
    /// How many of them, the last ones, are in the cluster only when an `AddNode` has brought them in; fewer than `nodes`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub joining: u32,
    /// Simulation step in whole milliseconds.
    pub tick_ms: u64,
    /// Fixed one-way latency between hosts, in milliseconds.
    pub latency_ms: u64,
    /// Largest extra latency drawn per written chunk, in milliseconds.
    pub jitter_ms: u64,
    /// Time that a sync of a file takes, in microseconds, before jitter.
    pub sync_us: u64,
    /// End of the safety phase at the latest, in milliseconds since the run began; at most 30,000.
    pub safety_ms: u64,
    /// Bound of the liveness phase, in milliseconds.
    pub liveness_ms: u64,
    /// Size of each node's disk in bytes.
    pub disk_bytes: u64,
    /// Nodes that are healed when the liveness phase begins, where not all are; the others are stopped then and stay down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub core: Vec<u32>,
    /// How much of the cluster faults may take away at once.
    #[serde(default, skip_serializing_if = "Budget::is_unlimited")]
    pub budget: Budget,
}

/// The declared fault budget. A fault that would exceed it does not strike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Nodes down at once at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<u32>,
    /// Nodes without power at once at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub powerless: Option<u32>,
}

impl World {
    /// Nodes that are the cluster at the beginning, from 0 on.
    pub fn founders(&self) -> u32 {
        self.nodes.saturating_sub(self.joining)
    }
}

impl Budget {
    /// Whether it forbids nothing.
    pub fn is_unlimited(&self) -> bool {
        *self == Budget::default()
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub queues: u32,
    /// Copies of each partition; 1 leaves it to the nodes' `default-replication-factor`, which is 1 itself.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub replication: u32,
    /// Settings given at its creation (`retention.ms`, …).
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Whether nobody creates it beforehand, so that the first Metadata request does.
    #[serde(default)]
    pub auto_created: bool,
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A client: a host of its own in the simulated world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// What kind of client it is.
    pub role: Role,
    /// What it does, in order; an operation starts at its time or when the ones before it allow, whichever is later.
    pub operations: Vec<PlannedOperation>,
}

/// What kind of client it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "is")]
pub enum Role {
    /// Sends batches.
    Producer {
        /// -1 all, 1 leader, 0 none.
        acks: i8,
        /// Whether it uses the idempotent producer's sequence numbers.
        idempotent: bool,
        /// Requests in flight at most, 1 to 5.
        in_flight: u32,
        /// Sends of one batch at most before its outcome is unknown (or refused, if all were refused).
        attempts: u32,
        /// Time-out of one attempt in milliseconds.
        request_timeout_ms: u64,
    },
    /// Reads queues that it was assigned, from the beginning, in order.
    Consumer {
        /// Its queues.
        queues: Vec<Queue>,
        /// Time-out of one request in milliseconds.
        request_timeout_ms: u64,
        /// Upper bound of one fetch's answer, in bytes.
        fetch_max_bytes: u32,
    },
    /// A member of a consumer group: reads the queues that the group gives it, from what is committed, and commits.
    Member {
        /// The group's number; its members have the same.
        group: u32,
        /// How it takes part in the group.
        protocol: GroupProtocol,
        /// Topics that it subscribes to, as indices of the plan's.
        topics: Vec<u32>,
        /// Whether it is a static member, which keeps its place when it comes back within the session time-out.
        is_static: bool,
        /// When it commits what it polled.
        commit: CommitWhen,
        /// The group forgets a member that was silent for so long, in milliseconds.
        session_timeout_ms: u64,
        /// Time-out of one request in milliseconds.
        request_timeout_ms: u64,
        /// Upper bound of one fetch's answer, in bytes.
        fetch_max_bytes: u32,
    },
}

/// How members and coordinator agree on who owns what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupProtocol {
    /// JoinGroup and SyncGroup: one member assigns for all.
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848): the coordinator assigns.
    Consumer,
}

/// When a member commits the offsets behind what it polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommitWhen {
    /// Before it processes: after a crash records may stay unprocessed, and none is processed twice.
    Before,
    /// After it processed: after a crash records may be processed twice, and none is left out.
    After,
    /// At the first poll after an interval, what polls before it delivered.
    Automatic,
}

/// An operation and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedOperation {
    /// Earliest start, in milliseconds since the run began.
    pub at_ms: u64,
    /// What to do.
    #[serde(rename = "do")]
    pub action: ClientAction,
}

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "call")]
pub enum ClientAction {
    /// Send one batch; its values are the producer's next on the queue.
    Produce {
        /// The queue.
        queue: Queue,
        /// Number of records.
        records: u32,
        /// Length of each record's value in bytes, at least 24.
        value_bytes: u32,
        /// Timestamp of the first record relative to the run's wall clock at its send, in milliseconds; may be negative.
        timestamp_shift_ms: i64,
        /// Step between the records' timestamps in milliseconds; may be negative.
        timestamp_step_ms: i64,
    },
    /// Poll once.
    Poll {
        /// Longest wait in milliseconds.
        max_wait_ms: u32,
        /// Bytes that the broker waits for.
        min_bytes: u32,
    },
    /// Set the position.
    Seek {
        /// The queue.
        queue: Queue,
        /// Where to.
        to: SeekTarget,
    },
    /// Ask for an offset. A timestamp here is relative to the run's start, in milliseconds.
    ListOffset {
        /// The queue.
        queue: Queue,
        /// What to ask.
        query: OffsetQuery,
    },
    /// A member of a group ends without a word, and starts anew later.
    Crash {
        /// Whether it happens in a poll, between its two halves: processing and committing in the member's order.
        in_poll: bool,
        /// Time until it starts again, in milliseconds.
        down_ms: u64,
    },
    /// A member of a group leaves it, and joins again at its next poll.
    Leave,
    /// Delete records up to the middle between the log start and the high watermark that the client knows.
    DeleteRecords {
        /// The queue.
        queue: Queue,
    },
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When it strikes.
    pub trigger: Trigger,
    /// What it does.
    pub action: FaultAction,
    /// Its own salt: which sectors tear, which byte flips.
    pub salt: u64,
}

/// When a fault strikes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "when")]
pub enum Trigger {
    /// At a time.
    At {
        /// Milliseconds since the run began.
        at_ms: u64,
    },
    /// When a node stands at a named point for the n-th time since the trigger was armed.
    Point {
        /// The point's name, as the broker tells it to its observer.
        name: String,
        /// The node.
        node: u32,
        /// The occurrence, from 1, counted from `armed_ms` on.
        occurrence: u32,
        /// Milliseconds since the run began.
        armed_ms: u64,
    },
}

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    /// A broker node, from 0.
    Node(u32),
    /// A client of the plan, from 0.
    Client(u32),
    /// Every client.
    AnyClient,
    /// Every node.
    AnyNode,
}

/// What a rule does to the bytes of one direction while it is active. Bytes are queued and never vanish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum LinkRule {
    /// Nothing passes until the rule ends.
    Hold,
    /// Everything passes later by so much.
    Delay {
        /// Milliseconds.
        delay_ms: u64,
    },
    /// Nothing passes, and after a while the connection is reset.
    Cut {
        /// Milliseconds from the first byte held to the reset.
        reset_after_ms: u64,
    },
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "fault")]
pub enum FaultAction {
    /// `kill -9`: the page cache survives.
    Kill {
        /// The node.
        node: u32,
        /// Time until it is started again.
        restart_after_ms: u64,
    },
    /// `kill -9` of several nodes in one moment.
    KillSet {
        /// The nodes.
        nodes: Vec<u32>,
        /// Time until the first of them is started again.
        restart_after_ms: u64,
        /// Time from one start to the next.
        stagger_ms: u64,
    },
    /// Several nodes lose their power in one moment.
    PowerLossSet {
        /// The nodes.
        nodes: Vec<u32>,
        /// Time until the first of them is started again.
        restart_after_ms: u64,
        /// Time from one start to the next.
        stagger_ms: u64,
    },
    /// Unsynced bytes may be lost, sector by sector.
    PowerLoss {
        /// The node.
        node: u32,
        /// Time until it is started again.
        restart_after_ms: u64,
    },
    /// A clean stop (as by SIGTERM) and a start.
    Restart {
        /// The node.
        node: u32,
        /// Time until it is started again.
        restart_after_ms: u64,
    },
    /// The process stands still, as by SIGSTOP, and goes on afterwards: nothing is lost, but time has passed. Where it
    /// strikes in the middle of a turn, that turn is its last before the pause.
    Pause {
        /// The node.
        node: u32,
        /// How long.
        duration_ms: u64,
    },
    /// A rule on a link, one direction.
    Link {
        /// The sending end.
        from: Endpoint,
        /// The receiving end.
        to: Endpoint,
        /// The rule.
        rule: LinkRule,
        /// How long it stays active.
        duration_ms: u64,
        /// Only requests with this API key, or answers to them; then `nth` (from 1) says which of them, counted while active.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<OnlyRequest>,
    },
    /// Hosts are kept apart: nothing passes on the directed links, and their connections are reset after a while.
    Partition {
        /// Its shape, for people and for the class; `cut` says what it does.
        shape: Shape,
        /// The links, each one direction.
        cut: Vec<DirectedLink>,
        /// Milliseconds from the first byte held to the reset.
        reset_after_ms: u64,
        /// How long.
        duration_ms: u64,
    },
    /// The node's wall clock is wrong for a while; its monotonic one is not.
    ClockSkew {
        /// The node.
        node: u32,
        /// How far it is ahead, or, if negative, behind.
        skew_ms: i64,
        /// How long.
        duration_ms: u64,
    },
    /// Reads and writes of the node's disk fail with EIO.
    DiskError {
        /// The node.
        node: u32,
        /// How many operations fail.
        operations: u32,
        /// Which of them.
        on: DiskOperation,
    },
    /// No space left, until the duration is over.
    DiskFull {
        /// The node.
        node: u32,
        /// How long.
        duration_ms: u64,
    },
    /// Syncs take longer.
    DiskSlow {
        /// The node.
        node: u32,
        /// Added to each sync.
        delay_ms: u64,
        /// How long.
        duration_ms: u64,
    },
    /// One bit of a file's durable and volatile content flips.
    BitFlip {
        /// The node.
        node: u32,
        /// Only files whose path in the node's data folder contains this; empty for any file.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        within: String,
    },
    /// A node that waits outside is started, and joins the cluster.
    AddNode {
        /// The node, one of the last `World::joining`.
        node: u32,
    },
    /// An operator takes a node out of the cluster: moves its replicas to other nodes, stops it for good once it has none,
    /// and unregisters it. That takes its time, and goes on in the liveness phase where it has not ended before.
    RemoveNode {
        /// The node.
        node: u32,
    },
}

/// One direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectedLink {
    /// The sending end.
    pub from: Endpoint,
    /// The receiving end.
    pub to: Endpoint,
}

/// The shape of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// One node sees no other node.
    Isolate,
    /// Two parts that do not see each other.
    Halves,
    /// Each node sees a majority, and no two see the same one.
    MajorityRing,
    /// Two parts that see each other only through one node, which sees all.
    Bridge,
    /// One node is heard by nobody, or hears nobody.
    OneWay,
}

impl Shape {
    /// Its class of fault.
    pub fn class(self) -> &'static str {
        match self {
            Shape::Isolate => "isolate",
            Shape::Halves => "halves",
            Shape::MajorityRing => "majority-ring",
            Shape::Bridge => "bridge",
            Shape::OneWay => "one-way",
        }
    }
}

/// A single request of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlyRequest {
    /// Kafka's API key.
    pub api_key: i16,
    /// Which of them, from 1, counted while the rule is active.
    pub nth: u32,
}

/// A disk operation that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskOperation {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Syncs of a file; a failed sync leaves the pages clean and showing the new bytes.
    Sync,
}

impl FaultAction {
    /// The fault's class, as scenarios and the guarantee matrix name it.
    pub fn class(&self) -> &'static str {
        match self {
            FaultAction::Kill { .. } | FaultAction::KillSet { .. } => "kill",
            FaultAction::PowerLoss { .. } | FaultAction::PowerLossSet { .. } => "power-loss",
            FaultAction::Partition { shape, .. } => shape.class(),
            FaultAction::ClockSkew { .. } => "clock-skew",
            FaultAction::Restart { .. } => "restart",
            FaultAction::Pause { .. } => "pause",
            FaultAction::Link { only: Some(_), .. } => "one-request",
            FaultAction::Link { rule, .. } => match rule {
                LinkRule::Hold => "link-hold",
                LinkRule::Delay { .. } => "link-delay",
                LinkRule::Cut { .. } => "link-cut",
            },
            FaultAction::DiskError { on, .. } => match on {
                DiskOperation::Read => "disk-read-error",
                DiskOperation::Write => "disk-write-error",
                DiskOperation::Sync => "sync-error",
            },
            FaultAction::DiskFull { .. } => "disk-full",
            FaultAction::DiskSlow { .. } => "disk-slow",
            FaultAction::BitFlip { .. } => "bit-flip",
            FaultAction::AddNode { .. } => "add-node",
            FaultAction::RemoveNode { .. } => "remove-node",
        }
    }
}

impl FaultAction {
    /// The nodes that it strikes; none for links.
    pub fn nodes(&self) -> Vec<u32> {
        match self {
            FaultAction::KillSet { nodes, .. } | FaultAction::PowerLossSet { nodes, .. } => nodes.clone(),
            FaultAction::Kill { node, .. }
            | FaultAction::PowerLoss { node, .. }
            | FaultAction::Restart { node, .. }
            | FaultAction::Pause { node, .. }
            | FaultAction::ClockSkew { node, .. }
            | FaultAction::DiskError { node, .. }
            | FaultAction::DiskFull { node, .. }
            | FaultAction::DiskSlow { node, .. }
            | FaultAction::AddNode { node }
            | FaultAction::RemoveNode { node }
            | FaultAction::BitFlip { node, .. } => vec![*node],
            FaultAction::Link { .. } | FaultAction::Partition { .. } => Vec::new(),
        }
    }
}

impl Plan {
    /// The name of the deliberate bug that nodes or clients get, if any.
    pub fn culprit(&self) -> Option<&str> {
        self.mutant.as_deref().or(self.client_mutant.as_deref())
    }

    /// Client operations in all.
    pub fn operation_count(&self) -> usize {
        self.clients.iter().map(|client| client.operations.len()).sum()
    }

    /// Classes of fault that the plan contains, sorted, each once.
    pub fn fault_classes(&self) -> Vec<&'static str> {
        let mut classes: Vec<_> = self.faults.iter().map(|fault| fault.action.class()).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }
}
