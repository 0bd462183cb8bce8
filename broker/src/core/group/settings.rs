//! The settings of groups, by the names of the command line; defaults are Kafka's.

use std::time::Duration;

/// How groups behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    /// Partitions of the internal topic, when it is created.
    pub offsets_partitions: u32,
    /// A committed offset of a group without members is forgotten after this long.
    pub offsets_retention: Duration,
    /// How often expired offsets are looked for.
    pub offsets_retention_check: Duration,
    /// The longest metadata of a committed offset, in bytes.
    pub offset_metadata_bytes_max: usize,
    /// The shortest session time-out that a member of the classic protocol may ask for.
    pub session_timeout_min: Duration,
    /// The longest.
    pub session_timeout_max: Duration,
    /// How long the first rebalance of an empty group waits for more members.
    pub initial_rebalance_delay: Duration,
    /// The most members of a group.
    pub members_max: usize,
    /// Session time-out of members of the new protocol.
    pub consumer_session_timeout: Duration,
    /// How often members of the new protocol are to be heard of.
    pub consumer_heartbeat_interval: Duration,
}

impl GroupSettings {
    /// Kafka's defaults.
    pub fn production() -> GroupSettings {
        GroupSettings {
            offsets_partitions: 50,
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            offsets_retention_check: Duration::from_secs(600),
            offset_metadata_bytes_max: 4096,
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(1800),
            initial_rebalance_delay: Duration::from_secs(3),
            members_max: i32::MAX as usize,
            consumer_session_timeout: Duration::from_secs(45),
            consumer_heartbeat_interval: Duration::from_secs(5),
        }
    }

    /// For simulations and tests: few partitions and short times.
    pub fn tiny() -> GroupSettings {
        GroupSettings {
            offsets_partitions: 3,
            offsets_retention: Duration::from_secs(3600),
            offsets_retention_check: Duration::from_secs(1),
            session_timeout_min: Duration::from_millis(50),
            initial_rebalance_delay: Duration::from_millis(50),
            consumer_session_timeout: Duration::from_millis(1000),
            consumer_heartbeat_interval: Duration::from_millis(100),
            ..GroupSettings::production()
        }
    }

    /// A setting's value by name; none where nobody knows the name.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        Some(match name {
            "offsets-partitions" => self.offsets_partitions.to_string(),
            "offsets-retention-ms" => self.offsets_retention.as_millis().to_string(),
            "offsets-retention-check-ms" => self.offsets_retention_check.as_millis().to_string(),
            "offset-metadata-bytes-max" => self.offset_metadata_bytes_max.to_string(),
            "group-session-timeout-min-ms" => self.session_timeout_min.as_millis().to_string(),
            "group-session-timeout-max-ms" => self.session_timeout_max.as_millis().to_string(),
            "group-initial-rebalance-delay-ms" => self.initial_rebalance_delay.as_millis().to_string(),
            "group-members-max" => self.members_max.to_string(),
            "group-consumer-session-timeout-ms" => self.consumer_session_timeout.as_millis().to_string(),
            "group-consumer-heartbeat-interval-ms" => self.consumer_heartbeat_interval.as_millis().to_string(),
            _ => return None,
        })
    }

    /// Sets a value by name. Outer none: nobody knows the name; inner error: what is wanted instead.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Option<Result<(), &'static str>> {
        let number = value.parse::<u64>().ok();
        let milliseconds = |target: &mut Duration, least: u64| {
            let parsed = number.filter(|ms| (least..=MILLISECONDS_MAX).contains(ms));
            *target = Duration::from_millis(parsed.ok_or(if least == 0 { FROM_0 } else { FROM_1 })?);
            Ok(())
        };
        Some(match name {
            "offsets-partitions" => number
                .filter(|count| (1..=1000).contains(count))
                .map(|count| self.offsets_partitions = count as u32)
                .ok_or("a count from 1 to 1000"),
            "offsets-retention-ms" => milliseconds(&mut self.offsets_retention, 1),
            "offsets-retention-check-ms" => milliseconds(&mut self.offsets_retention_check, 1),
            "offset-metadata-bytes-max" => number
                .filter(|bytes| *bytes <= 1 << 15)
                .map(|bytes| self.offset_metadata_bytes_max = bytes as usize)
                .ok_or("bytes up to 32768"),
            "group-session-timeout-min-ms" => milliseconds(&mut self.session_timeout_min, 1),
            "group-session-timeout-max-ms" => milliseconds(&mut self.session_timeout_max, 1),
            "group-initial-rebalance-delay-ms" => milliseconds(&mut self.initial_rebalance_delay, 0),
            "group-members-max" => number
                .filter(|count| (1..=i32::MAX as u64).contains(count))
                .map(|count| self.members_max = count as usize)
                .ok_or("a count from 1 below 2^31"),
            "group-consumer-session-timeout-ms" => milliseconds(&mut self.consumer_session_timeout, 1),
            "group-consumer-heartbeat-interval-ms" => milliseconds(&mut self.consumer_heartbeat_interval, 1),
            _ => return None,
        })
    }
}

/// Times are sent in 32 bits.
const MILLISECONDS_MAX: u64 = i32::MAX as u64;
const FROM_0: &str = "milliseconds from 0 below 2^31";
const FROM_1: &str = "milliseconds from 1 below 2^31";
