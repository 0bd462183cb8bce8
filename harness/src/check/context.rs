//! What the checkers must know beyond the history: settings that decide what is promised. Built from a plan, or by hand
//! for a run that has none (a measured one). Not here: which faults struck; the history's marks say that.

use std::collections::BTreeMap;

use crate::guarantee::Flush;
use crate::history::ClientId;
use crate::plan::keys::is_compacted;
use crate::plan::{ClientAction, CommitWhen, GroupProtocol, Plan, Role};

/// Bytes that a record may take beyond its value at most: key, headers, and a batch and a frame of its own.
const RECORD_OVERHEAD_BYTES_MAXIMUM: u64 = 1_024;
/// Kafka's default of `delete.retention.ms`.
const DELETE_RETENTION_MS: u64 = 24 * 3_600_000;

/// Settings under which a history is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Topics, in the order of the history's header. Topics beyond the list have `TopicContext::default()`.
    pub topics: Vec<TopicContext>,
    /// Requests in flight at most, by producing client. Others count as having several.
    pub in_flight: BTreeMap<ClientId, u32>,
    /// Consumer groups by number; what is not named is a classic group that commits after processing.
    pub groups: BTreeMap<u32, GroupContext>,
    /// Copies of each record, at least 1; a topic may have more.
    pub replication: u32,
    /// Bytes that any record takes in the log at most; bounds what retention by size may remove.
    pub record_bytes_maximum: u64,
    /// The brokers' wall clock when the run began, in milliseconds since the Unix epoch; none where it is not known,
    /// and then any retention by time justifies a deletion.
    pub wall_start_ms: Option<i64>,
    /// Whether the run has a liveness phase, without whose end the verdict is unknown.
    pub has_liveness_phase: bool,
}

/// What is known of a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupContext {
    /// How members take part.
    pub protocol: GroupProtocol,
    /// When they commit.
    pub commit: CommitWhen,
}

/// Settings of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicContext {
    /// When appends are synced.
    pub flush: Flush,
    /// Under `Flush::Interval`, milliseconds that an acknowledged record may stay unsynced; none where it is not known. Only
    /// who knows the disk can set it: the interval says when a sync begins, not how long it takes for all files written.
    pub unsynced_ms_maximum: Option<u64>,
    /// Age in milliseconds past which records may be deleted.
    pub retention_ms: Option<i64>,
    /// Size in bytes past which the oldest records may be deleted.
    pub retention_bytes: Option<u64>,
    /// Whether queues share one log, so that retention by size counts them together.
    pub is_log_shared: bool,
    /// Where the topic is compacted: milliseconds for which a record without value stays at least.
    pub compaction: Option<u64>,
    /// Whether records have the producer's timestamps (not the time of append).
    pub has_create_time: bool,
    /// Copies of each record, at least 1; `Context::replication` counts where it is larger.
    pub replication: u32,
    /// Copies that must be in sync for acks=all.
    pub min_insync_replicas: u32,
    /// Whether a replica that is not in sync may be elected.
    pub unclean_election: bool,
    /// Whether a dead leader is replaced.
    pub failover: bool,
}

impl Default for TopicContext {
    fn default() -> TopicContext {
        TopicContext {
            flush: Flush::Ack,
            unsynced_ms_maximum: None,
            retention_ms: None,
            retention_bytes: None,
            is_log_shared: false,
            compaction: None,
            has_create_time: true,
            replication: 1,
            min_insync_replicas: 1,
            unclean_election: false,
            failover: true,
        }
    }
}

impl Context {
    /// One copy, no retention, records of at most `record_bytes_maximum` bytes, no liveness phase.
    pub fn of_topics(topics: Vec<TopicContext>, record_bytes_maximum: u64) -> Context {
        Context {
            topics,
            in_flight: BTreeMap::new(),
            groups: BTreeMap::new(),
            replication: 1,
            record_bytes_maximum,
            wall_start_ms: None,
            has_liveness_phase: false,
        }
    }

    /// What a plan says.
    pub fn of_plan(plan: &Plan) -> Context {
        let topics = plan.topics.iter().map(|topic| TopicContext {
            replication: topic.replication,
            ..TopicContext::of_settings(&plan.settings, &topic.config)
        });
        let topics: Vec<TopicContext> = topics.collect();
        let replication = topics.iter().map(|topic| topic.replication).min().unwrap_or(1);
        let mut context = Context::of_topics(topics, largest_record(plan));
        context.has_liveness_phase = true;
        context.replication = replication;
        for (index, client) in plan.clients.iter().enumerate() {
            match &client.role {
                Role::Producer { in_flight, .. } => {
                    context.in_flight.insert(ClientId(index as u32), *in_flight);
                }
                Role::Member { group, protocol, commit, .. } => {
                    context.groups.insert(*group, GroupContext { protocol: *protocol, commit: *commit });
                }
                Role::Consumer { .. } => {}
            }
        }
        context
    }

    /// Whether the group has generations of its own, and not its members.
    pub(super) fn is_classic(&self, group: u32) -> bool {
        self.groups.get(&group).is_none_or(|group| group.protocol == GroupProtocol::Classic)
    }

    /// Whether the group's members commit before they process.
    pub(super) fn commits_before(&self, group: u32) -> bool {
        self.groups.get(&group).is_some_and(|group| group.commit == CommitWhen::Before)
    }

    /// The same with the wall clock of the brokers at the run's begin.
    pub fn with_wall_start_ms(mut self, wall_start_ms: i64) -> Context {
        self.wall_start_ms = Some(wall_start_ms);
        self
    }
}

impl TopicContext {
    /// From the nodes' settings and the topic's own, which go first.
    pub fn of_settings(settings: &BTreeMap<String, String>, config: &BTreeMap<String, String>) -> TopicContext {
        let pick = |topic_key: &str, node_key: &str| config.get(topic_key).or_else(|| settings.get(node_key));
        // -1 is Kafka's word for no limit; a value that is no number cannot have been accepted by a broker.
        let limit = |value: Option<&String>| value.and_then(|value| value.parse::<i64>().ok()).filter(|n| *n >= 0);
        let flush = match pick("mqassay.flush", "flush").map(String::as_str) {
            Some("os") => Flush::Os,
            Some("interval") => Flush::Interval,
            Some(_) | None => Flush::Ack,
        };
        TopicContext {
            flush,
            unsynced_ms_maximum: None,
            retention_ms: limit(pick("retention.ms", "retention-ms")),
            retention_bytes: limit(pick("retention.bytes", "retention-bytes")).map(i64::unsigned_abs),
            is_log_shared: pick("mqassay.layout", "layout").is_none_or(|layout| layout != "partitioned"),
            compaction: is_compacted(config).then(|| {
                let given = config.get("delete.retention.ms").and_then(|ms| ms.parse().ok());
                given.unwrap_or(DELETE_RETENTION_MS)
            }),
            replication: 1,
            min_insync_replicas: pick("min.insync.replicas", "min-insync-replicas")
                .and_then(|least| least.parse().ok())
                .unwrap_or(1),
            unclean_election: pick("unclean.leader.election.enable", "unclean-election").is_some_and(|on| on == "true"),
            failover: pick("mqassay.failover", "failover").is_none_or(|on| on != "false"),
            has_create_time: config.get("message.timestamp.type").is_none_or(|kind| kind != "LogAppendTime"),
        }
    }

    /// Whether retention may ever move the log start.
    pub(super) fn has_retention(&self) -> bool {
        self.retention_ms.is_some() || self.retention_bytes.is_some()
    }
}

fn largest_record(plan: &Plan) -> u64 {
    let values = plan.clients.iter().flat_map(|client| &client.operations).map(|operation| match operation.action {
        ClientAction::Produce { value_bytes, .. } => u64::from(value_bytes),
        ClientAction::Poll { .. }
        | ClientAction::Seek { .. }
        | ClientAction::ListOffset { .. }
        | ClientAction::Crash { .. }
        | ClientAction::Leave
        | ClientAction::DeleteRecords { .. } => 0,
    });
    values.max().unwrap_or(0) + RECORD_OVERHEAD_BYTES_MAXIMUM
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_topics_own_settings_go_before_the_nodes() {
        let settings = map(&[("flush", "os"), ("retention-ms", "1000"), ("layout", "partitioned")]);
        let plain = TopicContext::of_settings(&settings, &map(&[]));
        assert_eq!((plain.flush, plain.retention_ms, plain.is_log_shared), (Flush::Os, Some(1000), false));
        let own = map(&[("mqassay.flush", "ack"), ("retention.ms", "-1"), ("retention.bytes", "77")]);
        let topic = TopicContext::of_settings(&settings, &own);
        assert_eq!((topic.flush, topic.retention_ms, topic.retention_bytes), (Flush::Ack, None, Some(77)));
    }
}
