//! A node's configuration: two presets and an override by the names of the command line.
//! Values are checked once, here; inner code never re-checks. Not here: settings of one topic; see `settings`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::group::settings::GroupSettings;
pub use super::raft::message::Peer;
use super::settings::{Cleanup, FlushMode, Layout, LogClass, SEGMENT_BYTES, TopicSettings, parse_or_never};
use super::types::NodeId;

/// Where clients are told to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A node's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// The broker's id.
    pub node_id: i32,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where clients are told to connect; none is the address that was bound.
    pub advertised: Option<Advertised>,
    /// The settings of topics that do not say otherwise.
    pub topic: TopicSettings,
    /// The longest time that confirmed bytes stay unsynced under `flush=interval`.
    pub flush_interval: Duration,
    /// How often retention is looked at; that by size also at each sealed segment.
    pub retention_check: Duration,
    /// A producer's state is forgotten after this long without a batch.
    pub producer_expiry: Duration,
    /// Bytes of recent batches kept in memory; the logs of the partitioned layout divide it.
    pub tail_cache_bytes: usize,
    /// Queues of a topic that does not say how many.
    pub default_partitions: u32,
    /// Replicas of a topic that does not say how many.
    pub default_replication_factor: u32,
    /// The nodes that vote in a new cluster, this one included; empty is this one alone.
    pub cluster: Vec<Peer>,
    /// Whether the node joins a cluster that exists, whose nodes `cluster` lists, rather than begin a new one.
    pub joins: bool,
    /// A follower of the metadata log that hears of no leader for this long, at least, stands for election.
    pub election_timeout: Duration,
    /// How often a broker tells the controller that it is alive.
    pub heartbeat_interval: Duration,
    /// A broker that the controller does not hear of for this long is fenced.
    pub session_timeout: Duration,
    /// A change of the metadata that is not applied within this long is answered with REQUEST_TIMED_OUT.
    pub proposal_timeout: Duration,
    /// A replica that has not had everything for this long is no longer in sync.
    pub replica_lag_max: Duration,
    /// The longest time that a leader holds a follower's fetch for which there is nothing yet.
    pub replica_fetch_wait: Duration,
    /// About the most bytes of frames that a leader answers a follower with.
    pub replica_fetch_bytes_max: usize,
    /// Whether a Metadata request may create the topics that it names.
    pub auto_create_topics: bool,
    /// A snapshot of the metadata is written after this many records.
    pub snapshot_records: u64,
    /// A segment of the metadata log is sealed at this size. The longest record, a topic with all of its queues, has to fit.
    pub metadata_segment_bytes: u64,
    /// How groups behave.
    pub group: GroupSettings,
    /// The longest request, in bytes.
    pub frame_bytes_max: usize,
    /// The most connections at a time.
    pub connections_max: usize,
    /// The most bytes that requests without an answer and answers that are not sent may hold, all connections together.
    pub inflight_bytes_max: usize,
    /// The most segment files that are kept open; a process keeps fewer where its limit on open files asks for it.
    pub open_files_max: usize,
    /// The most bytes that are reserved on disk ahead of a segment's end; 0 reserves nothing.
    pub preallocate_bytes: u64,
    /// Where metrics are served over HTTP; none is nowhere. A simulated node serves none.
    pub metrics: Option<SocketAddr>,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nobody knows the setting.
    #[error("unknown setting `{name}`; known are {known}", known = KEYS.join(", "))]
    Unknown {
        /// The name given.
        name: String,
    },
    /// The value is not of the setting's form.
    #[error("setting {name} cannot be `{value}`: {wanted} is wanted")]
    Invalid {
        /// The setting.
        name: String,
        /// The value given.
        value: String,
        /// What is accepted.
        wanted: &'static str,
    },
}

impl NodeConfig {
    /// For real use: Kafka's defaults where Kafka has the setting, segments of 256 MiB.
    pub fn production() -> NodeConfig {
        NodeConfig {
            node_id: 0,
            listen: SocketAddr::from(([127, 0, 0, 1], 9092)),
            advertised: None,
            topic: TopicSettings {
                layout: Layout::Shared,
                class: LogClass {
                    flush: FlushMode::Ack,
                    segment_bytes: 256 << 20,
                    retention_ms: Some(7 * 24 * 3_600_000),
                    retention_bytes: None,
                    min_insync_replicas: 1,
                    unclean_election: false,
                    failover: true,
                    cleanup: Cleanup::default(),
                },
                max_message_bytes: 1_048_588,
                append_time: false,
            },
            flush_interval: Duration::from_millis(1000),
            retention_check: Duration::from_secs(300),
            producer_expiry: Duration::from_secs(24 * 3600),
            tail_cache_bytes: 128 << 20,
            default_partitions: 4,
            default_replication_factor: 1,
            cluster: Vec::new(),
            joins: false,
            election_timeout: Duration::from_millis(1000),
            heartbeat_interval: Duration::from_millis(2000),
            session_timeout: Duration::from_millis(9000),
            proposal_timeout: Duration::from_secs(30),
            replica_lag_max: Duration::from_secs(30),
            replica_fetch_wait: Duration::from_millis(500),
            replica_fetch_bytes_max: 4 << 20,
            auto_create_topics: true,
            snapshot_records: 10_000,
            metadata_segment_bytes: 64 << 20,
            group: GroupSettings::production(),
            frame_bytes_max: 100 << 20,
            connections_max: 4096,
            inflight_bytes_max: 64 << 20,
            open_files_max: 4096,
            preallocate_bytes: 16 << 20,
            metrics: None,
        }
    }

    /// For simulations and tests: segments roll, caches evict and snapshots are written at once.
    pub fn tiny() -> NodeConfig {
        let mut config = NodeConfig::production();
        config.topic.class.segment_bytes = 16 << 10;
        config.topic.max_message_bytes = 8 << 10;
        config.flush_interval = Duration::from_millis(200);
        config.retention_check = Duration::from_secs(1);
        config.tail_cache_bytes = 4 << 10;
        config.snapshot_records = 8;
        config.metadata_segment_bytes = 64 << 10;
        config.election_timeout = Duration::from_millis(500);
        config.heartbeat_interval = Duration::from_millis(250);
        config.session_timeout = Duration::from_millis(1500);
        config.replica_lag_max = Duration::from_millis(3000);
        config.replica_fetch_wait = Duration::from_millis(200);
        config.replica_fetch_bytes_max = 8 << 10;
        config.proposal_timeout = Duration::from_secs(3);
        config.group = GroupSettings::tiny();
        config.frame_bytes_max = 1 << 20;
        config.connections_max = 64;
        config.inflight_bytes_max = 1 << 20;
        config.preallocate_bytes = 4 << 10;
        config
    }

    /// The production preset with settings by name.
    pub fn from_settings(settings: &BTreeMap<String, String>) -> Result<NodeConfig, ConfigError> {
        NodeConfig::production().with_settings(settings)
    }

    /// This configuration with settings by name.
    pub fn with_settings(mut self, settings: &BTreeMap<String, String>) -> Result<NodeConfig, ConfigError> {
        for (name, value) in settings {
            self.set(name, value)?;
        }
        Ok(self)
    }

    /// A setting's value by name, as it is set; none where nothing was said or nobody knows the name.
    pub fn value(&self, name: &str) -> Option<String> {
        let class = &self.topic.class;
        let never = || "-1".to_owned();
        Some(match name {
            "layout" => self.topic.layout.name().to_owned(),
            "flush" => class.flush.name().to_owned(),
            "flush-interval-ms" => self.flush_interval.as_millis().to_string(),
            "segment-bytes" => class.segment_bytes.to_string(),
            "retention-ms" => class.retention_ms.map_or_else(never, |ms| ms.to_string()),
            "retention-bytes" => class.retention_bytes.map_or_else(never, |bytes| bytes.to_string()),
            "retention-check-ms" => self.retention_check.as_millis().to_string(),
            "max-message-bytes" => self.topic.max_message_bytes.to_string(),
            "producer-expiry-ms" => self.producer_expiry.as_millis().to_string(),
            "tail-cache-bytes" => self.tail_cache_bytes.to_string(),
            "default-partitions" => self.default_partitions.to_string(),
            "default-replication-factor" => self.default_replication_factor.to_string(),
            "cluster" => peers_text(&self.cluster),
            "join" => self.joins.to_string(),
            "election-timeout-ms" => self.election_timeout.as_millis().to_string(),
            "heartbeat-interval-ms" => self.heartbeat_interval.as_millis().to_string(),
            "session-timeout-ms" => self.session_timeout.as_millis().to_string(),
            "proposal-timeout-ms" => self.proposal_timeout.as_millis().to_string(),
            "replica-lag-max-ms" => self.replica_lag_max.as_millis().to_string(),
            "replica-fetch-wait-ms" => self.replica_fetch_wait.as_millis().to_string(),
            "replica-fetch-bytes-max" => self.replica_fetch_bytes_max.to_string(),
            "min-insync-replicas" => class.min_insync_replicas.to_string(),
            "unclean-election" => class.unclean_election.to_string(),
            "failover" => class.failover.to_string(),
            "auto-create-topics" => self.auto_create_topics.to_string(),
            "snapshot-records" => self.snapshot_records.to_string(),
            "metadata-segment-bytes" => self.metadata_segment_bytes.to_string(),
            "frame-bytes-max" => self.frame_bytes_max.to_string(),
            "connections-max" => self.connections_max.to_string(),
            "inflight-bytes-max" => self.inflight_bytes_max.to_string(),
            "open-files-max" => self.open_files_max.to_string(),
            "preallocate-bytes" => self.preallocate_bytes.to_string(),
            "metrics" => self.metrics.map_or_else(|| NOWHERE.to_owned(), |address| address.to_string()),
            "advertised" => self.advertised.as_ref().map(|at| format!("{}:{}", at.host, at.port))?,
            "listen" => self.listen.to_string(),
            "node-id" => self.node_id.to_string(),
            _ => return self.group.value(name),
        })
    }

    /// One sentence about a setting; none where nobody knows the name.
    pub fn documentation(name: &str) -> Option<&'static str> {
        Some(match name {
            "layout" => "Storage layout of new topics: shared or partitioned.",
            "flush" => "When appends of new topics are synced: ack, interval or os.",
            "flush-interval-ms" => "The longest time that confirmed bytes stay unsynced under flush=interval.",
            "segment-bytes" => "A segment is sealed at this size.",
            "retention-ms" => "Age at which sealed segments are removed; -1 is never.",
            "retention-bytes" => "Size of a log above which sealed segments are removed; -1 is never.",
            "retention-check-ms" => "How often retention is looked at; that by size also at each sealed segment.",
            "max-message-bytes" => "The largest record batch accepted.",
            "producer-expiry-ms" => "An idempotent producer is forgotten after this long without a batch.",
            "tail-cache-bytes" => "Memory for recent batches; the logs of the partitioned layout divide it.",
            "default-partitions" => "Queues of a topic that does not say how many.",
            "auto-create-topics" => "Whether a Metadata request may create the topics that it names.",
            "snapshot-records" => {
                "A snapshot of the metadata is written after this many records, or as many as topics."
            }
            "metadata-segment-bytes" => "A segment of the metadata log is sealed at this size.",
            "frame-bytes-max" => "The longest request.",
            "connections-max" => "The most connections at a time.",
            "inflight-bytes-max" => {
                "What requests without an answer and unsent answers may hold together; beyond it reading pauses, and a \
                 peer that does not go on for ten seconds is disconnected."
            }
            "open-files-max" => "The most segment files kept open, within the process's limit.",
            "preallocate-bytes" => "The most that is reserved on disk ahead of a segment's end; 0 reserves nothing.",
            "metrics" => "Where metrics are served over HTTP; off is nowhere.",
            "advertised" => "Host and port that clients are told to connect to.",
            "listen" => "Address and port to listen on; port 0 takes a free one.",
            "node-id" => "The broker's id.",
            name => return NodeConfig::cluster_documentation(name),
        })
    }

    fn cluster_documentation(name: &str) -> Option<&'static str> {
        Some(match name {
            "default-replication-factor" => "Replicas of a topic that does not say how many.",
            "cluster" => "Every node of the cluster, this one included, as in 1=host:9092,2=other:9092.",
            "join" => "Whether the node joins a cluster that exists rather than begin it with the others.",
            "election-timeout-ms" => {
                "Without a controller for this long, and up to twice as long, a node stands for election."
            }
            "heartbeat-interval-ms" => "How often a broker tells the controller that it lives.",
            "session-timeout-ms" => "A broker that is silent for this long is fenced.",
            "proposal-timeout-ms" => {
                "A change of the metadata that is not applied within this time is answered as timed out."
            }
            "replica-lag-max-ms" => "A follower that has not caught up for this long leaves the in-sync set.",
            "replica-fetch-wait-ms" => "The longest time that a follower's fetch waits for something new.",
            "replica-fetch-bytes-max" => "The most bytes of one answer to a follower.",
            "min-insync-replicas" => "Replicas that must be in sync for acks=all, for topics that do not say.",
            "unclean-election" => "Whether a replica that is not in sync may lead when no other can.",
            "failover" => "Whether a dead leader is replaced; without, sends fail and order stays.",
            "offsets-partitions" => "Queues of the internal topic that holds groups and their offsets.",
            "offsets-retention-ms" => "A committed offset is forgotten after this long without members.",
            "offsets-retention-check-ms" => "How often that is looked for.",
            "offset-metadata-bytes-max" => "The longest text that a commit may carry.",
            "group-session-timeout-min-ms" => "The shortest session time-out that a member may ask for.",
            "group-session-timeout-max-ms" => "The longest session time-out that a member may ask for.",
            "group-initial-rebalance-delay-ms" => "How long a new group waits for more members.",
            "group-members-max" => "The most members of a group.",
            "group-consumer-session-timeout-ms" => {
                "A member of the new protocol that is silent for this long is removed."
            }
            "group-consumer-heartbeat-interval-ms" => "How often members of the new protocol are to be heard.",
            _ => return None,
        })
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let refused = |wanted| ConfigError::Invalid { name: name.to_owned(), value: value.to_owned(), wanted };
        let milliseconds = || value.parse().ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        let class = &mut self.topic.class;
        match name {
            "layout" => {
                self.topic.layout = Layout::from_name(value).ok_or_else(|| refused("`shared` or `partitioned`"))?;
            }
            "flush" => class.flush = FlushMode::from_name(value).ok_or_else(|| refused("`ack`, `interval` or `os`"))?,
            "segment-bytes" => {
                let parsed = value.parse().ok().filter(|bytes| SEGMENT_BYTES.contains(bytes));
                class.segment_bytes = parsed.ok_or_else(|| refused("bytes from 1024 below 2^31"))?;
            }
            "retention-ms" => {
                class.retention_ms = parse_or_never(value).ok_or_else(|| refused("milliseconds, or -1"))?;
            }
            "retention-bytes" => {
                let parsed = parse_or_never(value).ok_or_else(|| refused("bytes, or -1"))?;
                class.retention_bytes = parsed.map(i64::unsigned_abs);
            }
            "flush-interval-ms" => self.flush_interval = milliseconds().ok_or_else(|| refused(MILLISECONDS))?,
            "retention-check-ms" => self.retention_check = milliseconds().ok_or_else(|| refused(MILLISECONDS))?,
            "producer-expiry-ms" => self.producer_expiry = milliseconds().ok_or_else(|| refused(MILLISECONDS))?,
            "min-insync-replicas" => {
                let parsed = value.parse().ok().filter(|count| (1..=i32::MAX as u32).contains(count));
                class.min_insync_replicas = parsed.ok_or_else(|| refused("a count from 1 up"))?;
            }
            "unclean-election" => class.unclean_election = value.parse().map_err(|_| refused("`true` or `false`"))?,
            "failover" => class.failover = value.parse().map_err(|_| refused("`true` or `false`"))?,
            "max-message-bytes" => {
                let parsed = value.parse().ok().filter(|bytes| (100..=i32::MAX as u32).contains(bytes));
                self.topic.max_message_bytes = parsed.ok_or_else(|| refused("bytes from 100 below 2^31"))?;
            }
            _ => self.set_node(name, value)?,
        }
        Ok(())
    }

    fn set_node(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let refused = |wanted| ConfigError::Invalid { name: name.to_owned(), value: value.to_owned(), wanted };
        let count =
            |minimum: u64, maximum: u64| value.parse::<u64>().ok().filter(|count| (minimum..=maximum).contains(count));
        match name {
            "node-id" => {
                let parsed = value.parse().ok().filter(|id| *id >= 0);
                self.node_id = parsed.ok_or_else(|| refused("a number from 0 below 2^31"))?;
            }
            "listen" => {
                self.listen = value.parse().map_err(|_| refused("an address and port, as in 127.0.0.1:9092"))?
            }
            "advertised" => {
                let parsed = value.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
                let (host, port) = parsed.ok_or_else(|| refused("a host and port, as in broker.example:9092"))?;
                self.advertised = Some(Advertised { host: host.to_owned(), port });
            }
            "tail-cache-bytes" => {
                self.tail_cache_bytes = count(0, 1 << 40).ok_or_else(|| refused("bytes up to 2^40"))? as usize;
            }
            "default-partitions" => {
                let partitions =
                    count(1, u64::from(PARTITIONS_MAX)).ok_or_else(|| refused("a count from 1 to 65536"))?;
                self.default_partitions = partitions as u32;
            }
            "auto-create-topics" => {
                self.auto_create_topics = value.parse().map_err(|_| refused("`true` or `false`"))?;
            }
            "snapshot-records" => {
                self.snapshot_records = count(1, 1 << 32).ok_or_else(|| refused("a count from 1"))?;
            }
            "metadata-segment-bytes" => {
                self.metadata_segment_bytes =
                    count(4 << 10, 1 << 32).ok_or_else(|| refused("bytes from 4096 up to 4 GiB"))?;
            }
            "frame-bytes-max" => {
                self.frame_bytes_max =
                    count(1024, (1 << 31) - 1).ok_or_else(|| refused("bytes from 1024 below 2^31"))? as usize;
            }
            "connections-max" => {
                self.connections_max = count(1, 1 << 20).ok_or_else(|| refused("a count from 1 to 2^20"))? as usize;
            }
            "inflight-bytes-max" => {
                self.inflight_bytes_max =
                    count(64 << 10, 1 << 40).ok_or_else(|| refused("bytes from 65536 to 2^40"))? as usize;
            }
            "open-files-max" => {
                self.open_files_max = count(16, 1 << 20).ok_or_else(|| refused("a count from 16 to 2^20"))? as usize;
            }
            "preallocate-bytes" => {
                self.preallocate_bytes = count(0, 1 << 31).ok_or_else(|| refused("bytes up to 2^31"))?;
            }
            "metrics" => {
                let wanted = "an address and port, as in 127.0.0.1:9644, or `off`";
                self.metrics = match value {
                    NOWHERE => None,
                    address => Some(address.parse().map_err(|_| refused(wanted))?),
                };
            }
            _ => self.set_cluster(name, value)?,
        }
        Ok(())
    }

    fn set_cluster(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let refused = |wanted| ConfigError::Invalid { name: name.to_owned(), value: value.to_owned(), wanted };
        let milliseconds = || value.parse().ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        match name {
            "default-replication-factor" => {
                let parsed = value.parse().ok().filter(|factor| (1..=NODES_MAX as u32).contains(factor));
                self.default_replication_factor = parsed.ok_or_else(|| refused("a count from 1 to 64"))?;
            }
            "cluster" => {
                self.cluster = parse_peers(value)
                    .ok_or_else(|| refused("node ids with where they listen, as in 1=host:9092,2=other:9092"))?;
            }
            "join" => self.joins = value.parse().map_err(|_| refused("`true` or `false`"))?,
            "election-timeout-ms" => self.election_timeout = milliseconds().ok_or_else(|| refused(MILLISECONDS))?,
            "heartbeat-interval-ms" => self.heartbeat_interval = milliseconds().ok_or_else(|| refused(MILLISECONDS))?,
            "session-timeout-ms" => self.session_timeout = milliseconds().ok_or_else(|| refused(MILLISECONDS))?,
            "proposal-timeout-ms" => self.proposal_timeout = milliseconds().ok_or_else(|| refused(MILLISECONDS))?,
            "replica-lag-max-ms" => self.replica_lag_max = milliseconds().ok_or_else(|| refused(MILLISECONDS))?,
            "replica-fetch-wait-ms" => self.replica_fetch_wait = milliseconds().ok_or_else(|| refused(MILLISECONDS))?,
            "replica-fetch-bytes-max" => {
                let parsed = value.parse().ok().filter(|bytes| (1024..=64 << 20).contains(bytes));
                self.replica_fetch_bytes_max = parsed.ok_or_else(|| refused("bytes from 1024 to 2^26"))?;
            }
            _ => match self.group.set(name, value) {
                Some(Ok(())) => {}
                Some(Err(wanted)) => return Err(refused(wanted)),
                None => return Err(ConfigError::Unknown { name: name.to_owned() }),
            },
        }
        Ok(())
    }
}

/// Peers from `id=host:port`, separated by commas, each id once; none where it is not of that form.
fn parse_peers(value: &str) -> Option<Vec<Peer>> {
    let mut peers = Vec::new();
    for part in value.split(',').filter(|part| !part.is_empty()) {
        let (id, at) = part.split_once('=')?;
        let (host, port) = at.rsplit_once(':')?;
        let id = id.parse().ok().filter(|id| *id >= 0)?;
        peers.push(Peer { id: NodeId(id), host: host.to_owned(), port: port.parse().ok()? });
    }
    peers.sort();
    let is_sound = peers.len() <= NODES_MAX && peers.windows(2).all(|pair| pair[0].id != pair[1].id);
    is_sound.then_some(peers)
}

fn peers_text(peers: &[Peer]) -> String {
    let texts: Vec<String> = peers.iter().map(|peer| format!("{}={}:{}", peer.id, peer.host, peer.port)).collect();
    texts.join(",")
}

/// The settings' names, as the command line has them.
pub const KEYS: [&str; 46] = [
    "offsets-partitions",
    "offsets-retention-ms",
    "offsets-retention-check-ms",
    "offset-metadata-bytes-max",
    "group-session-timeout-min-ms",
    "group-session-timeout-max-ms",
    "group-initial-rebalance-delay-ms",
    "group-members-max",
    "group-consumer-session-timeout-ms",
    "group-consumer-heartbeat-interval-ms",
    "layout",
    "flush",
    "flush-interval-ms",
    "segment-bytes",
    "retention-ms",
    "retention-bytes",
    "retention-check-ms",
    "max-message-bytes",
    "producer-expiry-ms",
    "tail-cache-bytes",
    "default-partitions",
    "default-replication-factor",
    "cluster",
    "join",
    "election-timeout-ms",
    "heartbeat-interval-ms",
    "session-timeout-ms",
    "proposal-timeout-ms",
    "replica-lag-max-ms",
    "replica-fetch-wait-ms",
    "replica-fetch-bytes-max",
    "min-insync-replicas",
    "unclean-election",
    "failover",
    "auto-create-topics",
    "snapshot-records",
    "metadata-segment-bytes",
    "frame-bytes-max",
    "connections-max",
    "inflight-bytes-max",
    "open-files-max",
    "preallocate-bytes",
    "metrics",
    "advertised",
    "listen",
    "node-id",
];

/// The most queues that one topic may have.
pub const PARTITIONS_MAX: u32 = 65_536;

/// The most nodes of a cluster.
pub const NODES_MAX: usize = 64;

/// The value of `metrics` that serves none.
const NOWHERE: &str = "off";
const MILLISECONDS: &str = "milliseconds from 1";

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_key_is_known_and_checks_its_value() {
        for key in KEYS {
            assert!(NodeConfig::documentation(key).is_some(), "{key}");
            let error = NodeConfig::from_settings(&settings(&[(key, "~")])).expect_err("`~` is nobody's value");
            assert!(matches!(error, ConfigError::Invalid { .. }), "{error}");
        }
        let error = NodeConfig::from_settings(&settings(&[("colour", "red")])).expect_err("nobody knows it");
        assert!(error.to_string().contains("retention-check-ms"), "{error}");
    }

    #[test]
    fn every_value_can_be_set_again() {
        let config =
            NodeConfig { advertised: Some(Advertised { host: "h".to_owned(), port: 1 }), ..NodeConfig::tiny() };
        let values = KEYS.map(|key| (key.to_owned(), config.value(key).expect("every key has a value")));
        assert_eq!(NodeConfig::production().with_settings(&values.into()).expect("they were valid"), config);
    }

    #[test]
    fn settings_override_the_preset() {
        let config = NodeConfig::from_settings(&settings(&[
            ("layout", "partitioned"),
            ("flush", "os"),
            ("retention-ms", "-1"),
            ("listen", "127.0.0.1:0"),
            ("advertised", "localhost:1234"),
        ]))
        .expect("all are valid");
        assert_eq!(config.topic.layout, Layout::Partitioned);
        assert_eq!(config.topic.class.flush, FlushMode::Os);
        assert_eq!(config.topic.class.retention_ms, None);
        assert_eq!(config.advertised, Some(Advertised { host: "localhost".to_owned(), port: 1234 }));
        assert_eq!(config.default_partitions, 4);
    }
}
