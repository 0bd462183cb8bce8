//! What members of the new protocol subscribe to, against the topics that there are.
//! Patterns are those of the `regex` crate, which like Kafka's are RE2's; a pattern must match a whole name; internal
//! topics are matched too, as Kafka's broker does.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use regex::Regex;

use super::record::{MemberValue, TopicId};
use crate::core::metadata::Metadata;

/// A topic as groups see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopicSeen {
    pub(super) id: TopicId,
    pub(super) partitions: i32,
}

/// The topics by name.
pub(super) type Topics<'a> = BTreeMap<&'a str, TopicSeen>;

/// The topics that there are.
pub(super) fn topics(metadata: &Metadata) -> Topics<'_> {
    let seen = metadata.topics().map(|(name, topic)| {
        let id = TopicId(metadata.id_of(topic));
        (name, TopicSeen { id, partitions: topic.partitions.len() as i32 })
    });
    seen.collect()
}

/// The topics that a member wants and that exist.
pub(super) fn resolve<'a>(member: &MemberValue, topics: &Topics<'a>) -> Vec<(&'a str, TopicSeen)> {
    let pattern = member.regex.as_deref().and_then(|text| compile(text).ok());
    let wants =
        |name: &str| member.topics.contains(name) || pattern.as_ref().is_some_and(|pattern| pattern.is_match(name));
    if pattern.is_none() {
        let named = member.topics.iter().filter_map(|name| topics.get_key_value(name.as_str()));
        return named.map(|(name, topic)| (*name, *topic)).collect();
    }
    topics.iter().filter(|(name, _)| wants(name)).map(|(name, topic)| (*name, *topic)).collect()
}

/// A pattern that must match a whole name, or INVALID_REGULAR_EXPRESSION.
pub(super) fn compile(text: &str) -> Result<Regex, ResponseError> {
    Regex::new(&format!("^(?:{text})$")).map_err(|_| ResponseError::InvalidRegularExpression)
}

/// A number that changes when what members subscribe to comes, goes or grows (FNV-1a).
pub(super) fn hash<'m>(members: impl Iterator<Item = &'m MemberValue>, topics: &Topics<'_>) -> u64 {
    let mut seen: BTreeMap<&str, TopicSeen> = BTreeMap::new();
    members.for_each(|member| seen.extend(resolve(member, topics)));
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for (name, topic) in seen {
        add(name.as_bytes());
        add(&topic.id.0.to_be_bytes());
        add(&topic.partitions.to_be_bytes());
    }
    hash
}
