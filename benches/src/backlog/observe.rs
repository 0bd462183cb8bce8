//! Looks at a consumer group of any live cluster from outside, through Kafka's protocol: end offsets, committed offsets,
//! members and what they own, and how the log grew over time. It joins no group and commits nothing. Not here: what it
//! means (`judge`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kafka_protocol::messages::ConsumerProtocolAssignment;
use kafka_protocol::protocol::Decodable;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::backlog::judge::{QueueWindow, Window};
use crate::consumers::{ConsumerError, kafka, kafka_error};

/// What to look at.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster.
    pub bootstrap: String,
    /// The group.
    pub group: String,
    /// Its topics; none leaves that to the members, who say what they own.
    pub topics: Vec<String>,
    /// For how long. Longer than the group's commits are apart and than any record takes.
    pub window: Duration,
    /// What usually arrives a second, in place of what the log says.
    pub usual_rate: Option<f64>,
    /// Further settings of the client library, for clusters that want credentials.
    pub client: BTreeMap<String, String>,
}

const ASK: Duration = Duration::from_secs(20);
/// Looks in a window.
const LOOKS: u32 = 20;
/// The log's past is cut into slots of this part of the window …
const SLOTS_PER_WINDOW: f64 = 4.0;
/// … and this many are looked at.
const SLOTS: i64 = 40;
/// From fewer slots nothing usual can be told.
const SLOTS_MINIMUM: usize = 3;

type Queue = (String, i32);
type Owners = BTreeMap<Queue, String>;
type Members = BTreeSet<String>;

/// One look.
#[derive(Debug, Clone)]
struct Look {
    at: Instant,
    /// End and committed offset.
    offsets: BTreeMap<Queue, (i64, i64)>,
    owners: Owners,
    members: Option<Members>,
}

/// Looks at the group for the whole window.
pub fn observe(options: &Options) -> Result<Window, ConsumerError> {
    let mut config = kafka::config(&options.bootstrap);
    config.set("group.id", &options.group).set("enable.auto.commit", "false");
    for (name, value) in &options.client {
        config.set(name, value);
    }
    let onlooker = Onlooker { consumer: config.create().map_err(kafka_error("create a client"))?, options };
    let topics = onlooker.topics()?;
    let queues = onlooker.queues(&topics)?;
    let start = Instant::now();
    let mut looks = vec![onlooker.look(&queues)?];
    for number in 1..=LOOKS {
        let due = start + options.window * number / LOOKS;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        looks.push(onlooker.look(&queues)?);
    }
    let mut window = window(&looks);
    window.usual_rate = match options.usual_rate {
        Some(rate) => Some(rate),
        None => onlooker.usual_rate(&queues, &window)?,
    };
    Ok(window)
}

/// What the looks add up to.
fn window(looks: &[Look]) -> Window {
    let (first, last) = (&looks[0], &looks[looks.len() - 1]);
    let queue = |(queue, (end, committed)): (&Queue, &(i64, i64))| {
        let before = last.offsets.get(queue).copied().unwrap_or((*end, *committed));
        let step = |pair: &[Look]| {
            let of = |look: &Look| look.offsets.get(queue).map_or(0, |offsets| offsets.1);
            (of(&pair[1]) - of(&pair[0])).abs()
        };
        QueueWindow {
            topic: queue.0.clone(),
            queue: queue.1,
            ends: [*end, before.0],
            committed: [*committed, before.1],
            largest_step: looks.windows(2).map(step).max().unwrap_or(0),
            owner: last.owners.get(queue).cloned(),
        }
    };
    let changed = |pair: &[Look]| match (&pair[0].members, &pair[1].members) {
        (Some(before), Some(after)) => before.symmetric_difference(after).count() as u32,
        _ => 0,
    };
    Window {
        seconds: (last.at - first.at).as_secs_f64(),
        queues: first.offsets.iter().map(queue).collect(),
        members: last.members.as_ref().map(|members| members.len() as u32),
        member_changes: looks.windows(2).map(changed).sum(),
        usual_rate: None,
    }
}

struct Onlooker<'a> {
    consumer: BaseConsumer,
    options: &'a Options,
}

impl Onlooker<'_> {
    /// The topics asked for, else those that the members own.
    fn topics(&self) -> Result<BTreeSet<String>, ConsumerError> {
        if !self.options.topics.is_empty() {
            return Ok(self.options.topics.iter().cloned().collect());
        }
        let mut owners = self.owners()?.0;
        let start = Instant::now();
        // A group that is being formed, or formed again, is about to own something.
        while owners.is_empty() && start.elapsed() < ASK {
            std::thread::sleep(self.options.window / LOOKS);
            owners = self.owners()?.0;
        }
        let topics: BTreeSet<String> = owners.into_keys().map(|(topic, _)| topic).collect();
        match topics.is_empty() {
            true => Err(ConsumerError::NoTopics { group: self.options.group.clone() }),
            false => Ok(topics),
        }
    }

    fn queues(&self, topics: &BTreeSet<String>) -> Result<Vec<Queue>, ConsumerError> {
        let mut queues = Vec::new();
        for topic in topics {
            let metadata = self.consumer.fetch_metadata(Some(topic), ASK).map_err(kafka_error("ask for queues"))?;
            let partitions = metadata.topics().first().map(|found| found.partitions()).unwrap_or_default();
            if partitions.is_empty() {
                return Err(ConsumerError::NoQueues { topic: topic.clone() });
            }
            queues.extend(partitions.iter().map(|partition| (topic.clone(), partition.id())));
        }
        Ok(queues)
    }

    fn look(&self, queues: &[Queue]) -> Result<Look, ConsumerError> {
        let mut asked = TopicPartitionList::new();
        for (topic, queue) in queues {
            asked.add_partition(topic, *queue);
        }
        let found = self.consumer.committed_offsets(asked, ASK).map_err(kafka_error("ask for commits"))?;
        let mut offsets = BTreeMap::new();
        for (topic, queue) in queues {
            let watermarks = self.consumer.fetch_watermarks(topic, *queue, ASK);
            let (low, high) = watermarks.map_err(kafka_error("ask for end offsets"))?;
            let committed = match found.find_partition(topic, *queue).map(|one| one.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => low,
            };
            offsets.insert((topic.clone(), *queue), (high, committed));
        }
        // Taken once the answers are there: on a busy machine the questions themselves take a while.
        let (owners, members) = self.owners()?;
        Ok(Look { at: Instant::now(), offsets, owners, members })
    }

    /// Who owns what, and who there is. A cluster that does not describe the group leaves both empty.
    fn owners(&self) -> Result<(Owners, Option<Members>), ConsumerError> {
        let groups = self.consumer.fetch_group_list(Some(&self.options.group), ASK);
        let groups = groups.map_err(kafka_error("describe the group"))?;
        let Some(group) = groups.groups().iter().find(|group| group.name() == self.options.group) else {
            return Ok((BTreeMap::new(), None));
        };
        // Groups of the newer protocol are dead in the classic description.
        if group.state() == "Dead" {
            return Ok((BTreeMap::new(), None));
        }
        let mut owners = BTreeMap::new();
        for member in group.members() {
            for queue in member.assignment().map(assigned).unwrap_or_default() {
                owners.insert(queue, member.id().to_owned());
            }
        }
        Ok((owners, Some(group.members().iter().map(|member| member.id().to_owned()).collect())))
    }

    /// The middle of what arrived in the log, slot by slot, before the backlog began.
    fn usual_rate(&self, queues: &[Queue], window: &Window) -> Result<Option<f64>, ConsumerError> {
        let sum = |of: &dyn Fn(&QueueWindow) -> i64| window.queues.iter().map(of).sum::<i64>() as f64;
        let lag = sum(&|one| one.ends[1] - one.committed[1]);
        let growth = sum(&|one| (one.ends[1] - one.committed[1]) - (one.ends[0] - one.committed[0])) / window.seconds;
        if growth <= 0.0 {
            return Ok(None);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        // A lag that grew as it grows now began then.
        let began = now - (lag / growth * 1e3) as i64;
        let slot = (window.seconds / SLOTS_PER_WINDOW * 1e3).max(1.0) as i64;
        let mut counts = Vec::new();
        let mut later = self.records_before(queues, began)?;
        for number in 1..=SLOTS {
            let earlier = self.records_before(queues, began - number * slot)?;
            counts.push((later - earlier) as f64);
            // Nothing is older.
            if earlier == self.log_start(queues)? {
                // The log began within this slot.
                counts.pop();
                break;
            }
            later = earlier;
        }
        if counts.len() < SLOTS_MINIMUM {
            return Ok(None);
        }
        counts.sort_by(f64::total_cmp);
        Ok(Some(counts[counts.len() / 2] * 1e3 / slot as f64))
    }

    /// The sum of the offsets at which the queues were at a time, milliseconds since 1970.
    fn records_before(&self, queues: &[Queue], time: i64) -> Result<i64, ConsumerError> {
        let mut asked = TopicPartitionList::new();
        for (topic, queue) in queues {
            let added = asked.add_partition_offset(topic, *queue, Offset::Offset(time));
            added.map_err(kafka_error("name the queues"))?;
        }
        let found = self.consumer.offsets_for_times(asked, ASK).map_err(kafka_error("ask for offsets by time"))?;
        let mut sum = 0;
        for (topic, queue) in queues {
            sum += match found.find_partition(topic, *queue).map(|one| one.offset()) {
                Some(Offset::Offset(offset)) => offset,
                // No record is as late as that.
                _ => {
                    let watermarks = self.consumer.fetch_watermarks(topic, *queue, ASK);
                    watermarks.map_err(kafka_error("ask for end offsets"))?.1
                }
            };
        }
        Ok(sum)
    }

    fn log_start(&self, queues: &[Queue]) -> Result<i64, ConsumerError> {
        let low = |(topic, queue): &Queue| {
            let watermarks = self.consumer.fetch_watermarks(topic, *queue, ASK);
            watermarks.map(|(low, _)| low).map_err(kafka_error("ask for the log's start"))
        };
        queues.iter().map(low).sum()
    }
}

/// What a member's assignment says that it owns; nothing where it is of another protocol.
fn assigned(bytes: &[u8]) -> Vec<Queue> {
    let Some((version, rest)) = bytes.split_first_chunk::<2>() else { return Vec::new() };
    let version = i16::from_be_bytes(*version).clamp(0, 3);
    let Ok(assignment) = ConsumerProtocolAssignment::decode(&mut Cursor::new(rest), version) else { return Vec::new() };
    let topics = assignment.assigned_partitions.into_iter();
    let queues = |topic: kafka_protocol::messages::consumer_protocol_assignment::TopicPartition| {
        let name = topic.topic.0.to_string();
        topic.partitions.into_iter().map(move |queue| (name.clone(), queue))
    };
    topics.flat_map(queues).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_as_it_is_on_the_wire() {
        // Version 0, one topic `ab` with queues 1 and 2, no user data.
        let bytes = [0, 0, 0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 255, 255, 255, 255];
        assert_eq!(assigned(&bytes), [("ab".to_owned(), 1), ("ab".to_owned(), 2)]);
        assert!(assigned(&bytes[..9]).is_empty() && assigned(&[]).is_empty());
    }

    #[test]
    fn looks_add_up_to_steps_changes_and_both_ends() {
        let start = Instant::now();
        let look = |seconds: u64, end: i64, committed: i64, members: &[&str]| Look {
            at: start + Duration::from_secs(seconds),
            offsets: [(("t".to_owned(), 0), (end, committed))].into(),
            owners: [(("t".to_owned(), 0), members[0].to_owned())].into(),
            members: Some(members.iter().map(|member| (*member).to_owned()).collect()),
        };
        let seen = window(&[look(0, 10, 5, &["a"]), look(1, 20, 5, &["b"]), look(3, 30, 12, &["b", "c"])]);
        assert_eq!((seen.seconds, seen.members, seen.member_changes), (3.0, Some(2), 3));
        let queue = &seen.queues[0];
        assert_eq!((queue.ends, queue.committed, queue.largest_step), ([10, 30], [5, 12], 7));
        assert_eq!(queue.owner.as_deref(), Some("b"));
    }
}
