//! The settings of a topic: names as Kafka has them, values checked, and a table that DescribeConfigs prints.
//! A topic's settings are resolved when it is created, defaults included, and recorded; a broker that is started
//! with other defaults changes new topics only. Not here: the settings of a node; see `config`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many queues share a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// The queues of every topic of a log class share one log.
    Shared,
    /// Each queue has a log of its own.
    Partitioned,
}

/// When an append is confirmed and made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlushMode {
    /// Confirmed when durable.
    Ack,
    /// Confirmed when written, durable within the node's flush interval.
    Interval,
    /// Confirmed when written, durable when the operating system likes.
    Os,
}

/// What the queues of a topic must agree on to share a log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogClass {
    /// When an append is confirmed.
    pub flush: FlushMode,
    /// A segment is sealed at this size, in bytes.
    pub segment_bytes: u64,
    /// Age at which sealed segments are removed, in milliseconds.
    pub retention_ms: Option<i64>,
    /// Size above which sealed segments are removed, in bytes; of the log, which in the shared layout holds many queues.
    pub retention_bytes: Option<u64>,
    /// The fewest in-sync replicas with which acks=all is accepted and the high watermark advances.
    pub min_insync_replicas: u32,
    /// Whether a replica that may lack confirmed records may lead when no other can.
    pub unclean_election: bool,
    /// Whether another replica takes over from a dead leader.
    pub failover: bool,
    /// What happens to old records.
    #[serde(default, skip_serializing_if = "Cleanup::is_default")]
    pub cleanup: Cleanup,
}

/// What happens to old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cleanup {
    /// Whether segments past the retention limits are removed.
    pub delete: bool,
    /// Whether records are removed that a later one with the same key supersedes.
    pub compact: bool,
    /// How long a record without a value, which deletes its key, stays once everything before it with that key is gone,
    /// in milliseconds.
    pub delete_retention_ms: i64,
    /// The least share of bytes that were never compacted at which a log is, in millionths.
    pub dirty_millionths: u32,
}

impl Default for Cleanup {
    fn default() -> Cleanup {
        Cleanup { delete: true, compact: false, delete_retention_ms: 24 * 3_600_000, dirty_millionths: 500_000 }
    }
}

impl Cleanup {
    /// Whether nothing was chosen; records leave it out then.
    fn is_default(&self) -> bool {
        *self == Cleanup::default()
    }

    /// The policy as `cleanup.policy` has it.
    fn policy(self) -> &'static str {
        match (self.compact, self.delete) {
            (false, true) => "delete",
            (true, false) => "compact",
            (true, true) => "compact,delete",
            (false, false) => "",
        }
    }

    /// The policy from a list of `delete` and `compact`; none where the list holds anything else, or nothing.
    fn with_policy(self, value: &str) -> Option<Cleanup> {
        let mut cleanup = Cleanup { delete: false, compact: false, ..self };
        for word in value.split(',').map(str::trim) {
            match word {
                "delete" => cleanup.delete = true,
                "compact" => cleanup.compact = true,
                _ => return None,
            }
        }
        Some(cleanup)
    }
}

/// A topic's settings, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSettings {
    /// How many queues share a log.
    pub layout: Layout,
    /// What its queues share a log by.
    pub class: LogClass,
    /// The largest batch accepted, in bytes.
    pub max_message_bytes: u32,
    /// Whether records carry the time of their append, and not the one that their producer gave them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub append_time: bool,
}

/// Why a topic's setting is refused: INVALID_CONFIG with this message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Nobody knows the setting.
    #[error("unknown topic config `{name}`; known are {known}", known = TopicSetting::names())]
    Unknown {
        /// The name given.
        name: String,
    },
    /// The value is not of the setting's form.
    #[error("topic config {name} cannot be `{value}`: {wanted} is wanted")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is accepted.
        wanted: &'static str,
    },
    /// Compaction was asked of a topic whose queues share a log.
    #[error("cleanup.policy=compact needs mqassay.layout=partitioned: a log that many queues share is not compacted")]
    SharedCompaction,
}

/// A topic's setting by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "`name` and `documentation` say what each is")]
pub enum TopicSetting {
    CleanupPolicy,
    DeleteRetentionMs,
    MaxMessageBytes,
    MinCleanableDirtyRatio,
    MessageTimestampType,
    MinInsyncReplicas,
    Failover,
    Flush,
    Layout,
    RetentionBytes,
    RetentionMs,
    SegmentBytes,
    UncleanLeaderElection,
}

impl TopicSetting {
    /// Every setting, by name.
    pub const ALL: [TopicSetting; 13] = [
        TopicSetting::CleanupPolicy,
        TopicSetting::DeleteRetentionMs,
        TopicSetting::MaxMessageBytes,
        TopicSetting::MessageTimestampType,
        TopicSetting::MinCleanableDirtyRatio,
        TopicSetting::MinInsyncReplicas,
        TopicSetting::Failover,
        TopicSetting::Flush,
        TopicSetting::Layout,
        TopicSetting::RetentionBytes,
        TopicSetting::RetentionMs,
        TopicSetting::SegmentBytes,
        TopicSetting::UncleanLeaderElection,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            TopicSetting::CleanupPolicy => "cleanup.policy",
            TopicSetting::DeleteRetentionMs => "delete.retention.ms",
            TopicSetting::MaxMessageBytes => "max.message.bytes",
            TopicSetting::MessageTimestampType => "message.timestamp.type",
            TopicSetting::MinCleanableDirtyRatio => "min.cleanable.dirty.ratio",
            TopicSetting::MinInsyncReplicas => "min.insync.replicas",
            TopicSetting::Failover => "mqassay.failover",
            TopicSetting::Flush => "mqassay.flush",
            TopicSetting::Layout => "mqassay.layout",
            TopicSetting::RetentionBytes => "retention.bytes",
            TopicSetting::RetentionMs => "retention.ms",
            TopicSetting::SegmentBytes => "segment.bytes",
            TopicSetting::UncleanLeaderElection => "unclean.leader.election.enable",
        }
    }

    /// One sentence about it.
    pub fn documentation(self) -> &'static str {
        match self {
            TopicSetting::CleanupPolicy => "What happens to old records: `delete`, `compact`, or both.",
            TopicSetting::DeleteRetentionMs => {
                "How long compaction keeps a record that deletes its key, in milliseconds."
            }
            TopicSetting::MaxMessageBytes => "The largest record batch accepted, in bytes.",
            TopicSetting::MessageTimestampType => "Whose time a record carries: `CreateTime` or `LogAppendTime`.",
            TopicSetting::MinCleanableDirtyRatio => "The least share of a log never compacted at which it is.",
            TopicSetting::MinInsyncReplicas => "The fewest in-sync replicas with which acks=all is accepted.",
            TopicSetting::Failover => "Whether another replica takes over from a dead leader.",
            TopicSetting::Flush => "When an append is confirmed and durable: `ack`, `interval` or `os`.",
            TopicSetting::Layout => "How many queues share a log: `shared` or `partitioned`; fixed at creation.",
            TopicSetting::RetentionBytes => "Size of a log above which sealed segments are removed; -1 is never.",
            TopicSetting::RetentionMs => "Age in milliseconds at which sealed segments are removed; -1 is never.",
            TopicSetting::SegmentBytes => "A segment is sealed at this size, in bytes.",
            TopicSetting::UncleanLeaderElection => "Whether a replica that is not in sync may lead when no other can.",
        }
    }

    /// Kafka's number of the value's type: 1 boolean, 2 string, 3 int, 5 long, 6 double, 7 list.
    pub fn type_number(self) -> i8 {
        match self {
            TopicSetting::Failover | TopicSetting::UncleanLeaderElection => 1,
            TopicSetting::CleanupPolicy => 7,
            TopicSetting::MaxMessageBytes | TopicSetting::MinInsyncReplicas | TopicSetting::SegmentBytes => 3,
            TopicSetting::MessageTimestampType | TopicSetting::Flush | TopicSetting::Layout => 2,
            TopicSetting::DeleteRetentionMs | TopicSetting::RetentionBytes | TopicSetting::RetentionMs => 5,
            TopicSetting::MinCleanableDirtyRatio => 6,
        }
    }

    /// The setting with a name on the wire.
    pub fn from_name(name: &str) -> Option<TopicSetting> {
        TopicSetting::ALL.into_iter().find(|setting| setting.name() == name)
    }

    fn names() -> String {
        TopicSetting::ALL.map(TopicSetting::name).join(", ")
    }
}

impl TopicSettings {
    /// These settings with overrides by name; a null value leaves the default.
    pub fn with_overrides(&self, overrides: &BTreeMap<String, String>) -> Result<TopicSettings, SettingError> {
        let mut settings = self.clone();
        for (name, value) in overrides {
            let setting = TopicSetting::from_name(name).ok_or_else(|| SettingError::Unknown { name: name.clone() })?;
            settings.set(setting, value)?;
        }
        if settings.class.cleanup.compact && settings.layout == Layout::Shared {
            if overrides.contains_key(TopicSetting::Layout.name()) {
                return Err(SettingError::SharedCompaction);
            }
            // Nobody chose: a topic that is compacted has logs of its own.
            settings.layout = Layout::Partitioned;
        }
        Ok(settings)
    }

    /// A setting's value as DescribeConfigs prints it.
    pub fn value(&self, setting: TopicSetting) -> String {
        match setting {
            TopicSetting::CleanupPolicy => self.class.cleanup.policy().to_owned(),
            TopicSetting::DeleteRetentionMs => self.class.cleanup.delete_retention_ms.to_string(),
            TopicSetting::MinCleanableDirtyRatio => {
                (f64::from(self.class.cleanup.dirty_millionths) / MILLION).to_string()
            }
            TopicSetting::MaxMessageBytes => self.max_message_bytes.to_string(),
            TopicSetting::MessageTimestampType if self.append_time => APPEND_TIME.to_owned(),
            TopicSetting::MessageTimestampType => CREATE_TIME.to_owned(),
            TopicSetting::MinInsyncReplicas => self.class.min_insync_replicas.to_string(),
            TopicSetting::Failover => self.class.failover.to_string(),
            TopicSetting::UncleanLeaderElection => self.class.unclean_election.to_string(),
            TopicSetting::Flush => self.class.flush.name().to_owned(),
            TopicSetting::Layout => self.layout.name().to_owned(),
            TopicSetting::RetentionBytes => {
                self.class.retention_bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string())
            }
            TopicSetting::RetentionMs => self.class.retention_ms.map_or_else(|| "-1".to_owned(), |ms| ms.to_string()),
            TopicSetting::SegmentBytes => self.class.segment_bytes.to_string(),
        }
    }

    fn set(&mut self, setting: TopicSetting, value: &str) -> Result<(), SettingError> {
        let refused = |wanted| SettingError::Invalid { name: setting.name(), value: value.to_owned(), wanted };
        match setting {
            TopicSetting::CleanupPolicy => {
                let cleanup = self.class.cleanup.with_policy(value);
                self.class.cleanup = cleanup.ok_or_else(|| refused("`delete`, `compact` or `compact,delete`"))?;
            }
            TopicSetting::DeleteRetentionMs => {
                let parsed = value.parse().ok().filter(|ms| *ms >= 0);
                self.class.cleanup.delete_retention_ms = parsed.ok_or_else(|| refused("milliseconds from 0 up"))?;
            }
            TopicSetting::MinCleanableDirtyRatio => {
                let parsed = value.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
                let ratio = parsed.ok_or_else(|| refused("a share from 0 to 1"))?;
                self.class.cleanup.dirty_millionths = (ratio * MILLION).round() as u32;
            }
            TopicSetting::MaxMessageBytes => {
                let parsed = value.parse().ok().filter(|bytes| *bytes <= i32::MAX as u32);
                self.max_message_bytes = parsed.ok_or_else(|| refused("a size in bytes below 2^31"))?;
            }
            TopicSetting::MessageTimestampType => {
                self.append_time = match value {
                    CREATE_TIME => false,
                    APPEND_TIME => true,
                    _ => return Err(refused("`CreateTime` or `LogAppendTime`")),
                };
            }
            TopicSetting::MinInsyncReplicas => {
                let parsed = value.parse().ok().filter(|count| (1..=i32::MAX as u32).contains(count));
                self.class.min_insync_replicas = parsed.ok_or_else(|| refused("a count from 1 up"))?;
            }
            TopicSetting::Failover => {
                self.class.failover = value.parse().map_err(|_| refused("`true` or `false`"))?;
            }
            TopicSetting::UncleanLeaderElection => {
                self.class.unclean_election = value.parse().map_err(|_| refused("`true` or `false`"))?;
            }
            TopicSetting::Flush => {
                self.class.flush = FlushMode::from_name(value).ok_or_else(|| refused("`ack`, `interval` or `os`"))?;
            }
            TopicSetting::Layout => {
                self.layout = Layout::from_name(value).ok_or_else(|| refused("`shared` or `partitioned`"))?;
            }
            TopicSetting::RetentionBytes => {
                let bytes = parse_or_never(value).ok_or_else(|| refused("a size in bytes, or -1"))?;
                self.class.retention_bytes = bytes.map(i64::unsigned_abs);
            }
            TopicSetting::RetentionMs => {
                self.class.retention_ms = parse_or_never(value).ok_or_else(|| refused("milliseconds, or -1"))?;
            }
            TopicSetting::SegmentBytes => {
                let parsed = value.parse().ok().filter(|bytes| SEGMENT_BYTES.contains(bytes));
                self.class.segment_bytes = parsed.ok_or_else(|| refused("a size in bytes from 1024 below 2^31"))?;
            }
        }
        Ok(())
    }
}

impl Layout {
    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Shared => "shared",
            Layout::Partitioned => "partitioned",
        }
    }

    /// The layout of a name in settings.
    pub fn from_name(name: &str) -> Option<Layout> {
        [Layout::Shared, Layout::Partitioned].into_iter().find(|layout| layout.name() == name)
    }
}

impl FlushMode {
    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            FlushMode::Ack => "ack",
            FlushMode::Interval => "interval",
            FlushMode::Os => "os",
        }
    }

    /// The flush mode of a name in settings.
    pub fn from_name(name: &str) -> Option<FlushMode> {
        [FlushMode::Ack, FlushMode::Interval, FlushMode::Os].into_iter().find(|mode| mode.name() == name)
    }
}

/// Outer none: not of the form. Inner none: -1, never.
pub(crate) fn parse_or_never(value: &str) -> Option<Option<i64>> {
    match value.parse::<i64>().ok()? {
        -1 => Some(None),
        number if number >= 0 => Some(Some(number)),
        _ => None,
    }
}

const CREATE_TIME: &str = "CreateTime";
const APPEND_TIME: &str = "LogAppendTime";
const MILLION: f64 = 1_000_000.0;

/// Sizes that a segment may have, in bytes.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 1024..=(1 << 31) - 1;
