//! Tests of fetch sessions as a table of their own; what a client sees of them is in `tests/node`.

use kafka_protocol::messages::fetch_request::{FetchTopic, ForgottenTopic};

use super::*;

fn topic(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn request(id: i32, epoch: i32, name: &str, partitions: std::ops::Range<i32>) -> FetchRequest {
    let partitions = partitions.map(|index| FetchPartition::default().with_partition(index));
    let topic = FetchTopic::default().with_topic(topic(name)).with_partitions(partitions.collect());
    FetchRequest::default().with_session_id(id).with_session_epoch(epoch).with_topics(vec![topic])
}

fn ready(sessions: &FetchSessions, id: i32) -> Vec<i32> {
    sessions.get(id).expect("it is open").ready().map(|(_, partition)| partition.wanted.partition).collect()
}

#[test]
fn only_partitions_in_which_something_happened_are_looked_at() {
    let mut sessions = FetchSessions::new(1);
    let id = sessions.open(&request(0, 0, "t", 0..3), false, Duration::ZERO).expect("there is room");
    assert_eq!(ready(&sessions, id), [0, 1, 2], "a new session is told everything");
    let slots: Vec<u64> = sessions.get(id).expect("it is open").ready().map(|(slot, _)| slot).collect();
    for (queue, slot) in slots.iter().enumerate() {
        sessions.watch(id, *slot, QueueId(queue as u64));
        sessions.get_mut(id).expect("it is open").rest(*slot);
    }
    assert_eq!(ready(&sessions, id), [0; 0]);
    let mut woken = BTreeSet::new();
    let waiting = RequestId { connection: 1, sequence: 1 };
    sessions.get_mut(id).expect("it is open").parked.insert(waiting);
    sessions.wake(QueueId(2), &mut woken);
    sessions.wake(QueueId(0), &mut woken);
    sessions.wake(QueueId(7), &mut woken);
    assert_eq!((ready(&sessions, id), woken), (vec![2, 0], BTreeSet::from([waiting])));
    sessions.get_mut(id).expect("it is open").tell(slots[2], Some((Offset(1), Offset(0))), true);
    assert_eq!(ready(&sessions, id), [0, 2], "who had records goes behind the others");
    assert_eq!(sessions.advance(&request(id, 1, "t", 1..2), false, Duration::ZERO), Ok(true));
    assert_eq!(ready(&sessions, id), [0, 2, 1], "what a request changes is looked at");
}

#[test]
fn epochs_ids_and_ways_of_naming_are_checked() {
    let mut sessions = FetchSessions::new(1);
    let id = sessions.open(&request(0, 0, "t", 0..1), false, Duration::ZERO).expect("there is room");
    let mut advance = |id, epoch, by_id| sessions.advance(&request(id, epoch, "t", 0..1), by_id, Duration::ZERO);
    assert_eq!(advance(id ^ 1, 1, false), Err(ResponseError::FetchSessionIdNotFound));
    assert_eq!(advance(id, 2, false), Err(ResponseError::InvalidFetchSessionEpoch));
    assert_eq!(advance(id, 1, true), Err(ResponseError::FetchSessionTopicIdError));
    assert_eq!(advance(id, 1, false), Ok(true));
    assert_eq!(advance(id, 1, false), Err(ResponseError::InvalidFetchSessionEpoch));
    sessions.get_mut(id).expect("it is open").epoch = i32::MAX;
    assert_eq!(sessions.advance(&request(id, i32::MAX, "t", 0..1), false, Duration::ZERO), Ok(true));
    assert_eq!(sessions.advance(&request(id, 1, "t", 0..1), false, Duration::ZERO), Ok(true), "epochs go round to 1");
}

#[test]
fn forgotten_partitions_go_and_with_the_last_the_session() {
    let mut sessions = FetchSessions::new(1);
    let id = sessions.open(&request(0, 0, "t", 0..2), false, Duration::ZERO).expect("there is room");
    let slot = sessions.get(id).expect("it is open").ready().next().expect("two are").0;
    sessions.watch(id, slot, QueueId(5));
    let forgetting = |epoch, partition| {
        let forgotten = ForgottenTopic::default().with_topic(topic("t")).with_partitions(vec![partition]);
        request(id, epoch, "t", 0..0).with_forgotten_topics_data(vec![forgotten])
    };
    assert_eq!(sessions.advance(&forgetting(1, 0), false, Duration::ZERO), Ok(true));
    assert_eq!((ready(&sessions, id), sessions.partitions), (vec![1], 1));
    assert!(sessions.watchers.is_empty());
    assert_eq!(sessions.advance(&forgetting(2, 1), false, Duration::ZERO), Ok(false));
    assert!(sessions.get(id).is_none() && sessions.by_use.is_empty() && sessions.partitions == 0);
}

#[test]
fn sessions_are_bounded_and_only_idle_ones_give_way() {
    let mut sessions = FetchSessions::new(1);
    let open = |sessions: &mut FetchSessions, now| sessions.open(&request(0, 0, "t", 0..1), false, now);
    let first = open(&mut sessions, Duration::ZERO).expect("there is room");
    for _ in 1..SESSIONS_MAX {
        assert!(open(&mut sessions, Duration::from_secs(1)).is_some());
    }
    assert_eq!(open(&mut sessions, Duration::from_secs(119)), None, "all are in use");
    assert!(open(&mut sessions, IDLE_MIN).is_some());
    assert!(sessions.get(first).is_none(), "the one that was idle longest gave way");
    let mut large = FetchSessions::new(2);
    assert!(large.open(&request(0, 0, "t", 0..PARTITIONS_MAX as i32), false, Duration::ZERO).is_some());
    assert_eq!(open(&mut large, Duration::from_secs(1)), None);
}

#[test]
fn ids_differ_from_process_to_process() {
    let ids = |seed| {
        let mut sessions = FetchSessions::new(seed);
        let ids: Vec<_> =
            (0..3).filter_map(|_| sessions.open(&request(0, 0, "t", 0..1), false, Duration::ZERO)).collect();
        ids
    };
    let (one, two) = (ids(100), ids(7));
    assert!(one.iter().all(|id| *id > 0 && !two.contains(id)) && one.len() == 3);
}
