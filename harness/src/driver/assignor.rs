//! What members of a classic group send each other through the coordinator: subscriptions and assignments in Kafka's
//! consumer protocol (version 0), and the range assignor: <https://kafka.apache.org/protocol>. Pure functions.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::TopicPartition;

/// The type of protocol under which consumers join.
pub(super) const PROTOCOL_TYPE: &str = "consumer";
/// The assignor's name.
pub(super) const RANGE: &str = "range";

/// A subscription.
pub(super) fn subscription(topics: &[String]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(topics.len() as i32);
    topics.iter().for_each(|topic| put_text(&mut bytes, topic));
    bytes.put_i32(-1);
    bytes.freeze()
}

/// The topics of a subscription; none where it does not decode.
pub(super) fn read_subscription(bytes: &Bytes) -> Vec<String> {
    let mut bytes = bytes.clone();
    let read = || {
        let _version = bytes.try_get_i16().ok()?;
        let count = bytes.try_get_i32().ok()?;
        (0..count).map(|_| get_text(&mut bytes)).collect()
    };
    Some(read).and_then(|mut read| read()).unwrap_or_default()
}

/// An assignment.
pub(super) fn assignment(owned: &[TopicPartition]) -> Bytes {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for queue in owned {
        by_topic.entry(&queue.topic).or_default().push(queue.partition);
    }
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(by_topic.len() as i32);
    for (topic, partitions) in by_topic {
        put_text(&mut bytes, topic);
        bytes.put_i32(partitions.len() as i32);
        partitions.iter().for_each(|partition| bytes.put_i32(*partition));
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

/// The queues of an assignment, sorted; an empty text is an empty assignment.
pub(super) fn read_assignment(bytes: &Bytes) -> Option<Vec<TopicPartition>> {
    let mut bytes = bytes.clone();
    let mut owned = Vec::new();
    if bytes.is_empty() {
        return Some(owned);
    }
    let _version = bytes.try_get_i16().ok()?;
    for _ in 0..bytes.try_get_i32().ok()? {
        let topic = get_text(&mut bytes)?;
        for _ in 0..bytes.try_get_i32().ok()? {
            owned.push(TopicPartition { topic: topic.clone(), partition: bytes.try_get_i32().ok()? });
        }
    }
    owned.sort();
    Some(owned)
}

/// Each topic's partitions in contiguous ranges over the members that subscribe to it, in the order of their ids.
pub(super) fn by_range(
    members: &[(String, Vec<String>)],
    partitions: &BTreeMap<String, i32>,
) -> BTreeMap<String, Vec<TopicPartition>> {
    let mut assigned: BTreeMap<String, Vec<TopicPartition>> =
        members.iter().map(|(member, _)| (member.clone(), Vec::new())).collect();
    for (topic, count) in partitions {
        let mut subscribers: Vec<&String> =
            members.iter().filter(|(_, topics)| topics.contains(topic)).map(|(member, _)| member).collect();
        subscribers.sort();
        let (share, more) = match subscribers.len() as i32 {
            0 => continue,
            members => (count / members, count % members),
        };
        let mut next = 0;
        for (index, member) in subscribers.into_iter().enumerate() {
            let end = next + share + i32::from((index as i32) < more);
            let range = (next..end).map(|partition| TopicPartition { topic: topic.clone(), partition });
            assigned.entry(member.clone()).or_default().extend(range);
            next = end;
        }
    }
    assigned
}

fn put_text(bytes: &mut BytesMut, text: &str) {
    bytes.put_i16(text.len() as i16);
    bytes.put_slice(text.as_bytes());
}

fn get_text(bytes: &mut Bytes) -> Option<String> {
    let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
    if length > bytes.len() {
        return None;
    }
    String::from_utf8(bytes.split_to(length).to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_and_assignments_survive_the_way() {
        let topics = vec!["one".to_string(), "two".to_string()];
        assert_eq!(read_subscription(&subscription(&topics)), topics);
        let queue = |topic: &str, partition| TopicPartition { topic: topic.to_string(), partition };
        let owned = vec![queue("one", 0), queue("one", 2), queue("two", 1)];
        assert_eq!(read_assignment(&assignment(&owned)), Some(owned));
        assert_eq!(read_assignment(&Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 9])), None);
        assert_eq!(read_assignment(&Bytes::new()), Some(Vec::new()));
    }

    #[test]
    fn ranges_give_each_partition_to_one_subscriber() {
        let member = |name: &str, topics: &[&str]| {
            (name.to_string(), topics.iter().map(|topic| (*topic).to_string()).collect::<Vec<_>>())
        };
        let members = [member("b", &["t"]), member("a", &["t", "u"]), member("c", &[])];
        let assigned = by_range(&members, &[("t".to_string(), 5), ("u".to_string(), 1)].into());
        let names = |member: &str| assigned[member].iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names("a"), ["t-0", "t-1", "t-2", "u-0"]);
        assert_eq!(names("b"), ["t-3", "t-4"]);
        assert!(names("c").is_empty());
    }
}
