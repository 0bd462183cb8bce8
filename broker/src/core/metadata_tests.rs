//! Tests of the metadata state machine: ids are never reused, layouts place queues, snapshots and records come back.

use super::*;
use crate::core::config::NodeConfig;

fn create(name: &str, partitions: u32, layout: Layout) -> MetadataRecord {
    let settings = TopicSettings { layout, ..NodeConfig::tiny().topic };
    let (overrides, assignments) = (BTreeMap::new(), Vec::new());
    MetadataRecord::TopicCreated { name: name.to_owned(), partitions, settings, overrides, replication: 1, assignments }
}

/// A state with one broker that may be given queues.
fn state_with_broker() -> Metadata {
    let mut state = Metadata::new();
    let (host, found) = ("node".to_owned(), DataFound::Nothing);
    state.apply(MetadataRecord::BrokerRegistered { id: 0, incarnation: 1, host, port: 9092, found });
    state.apply(MetadataRecord::BrokerUnfenced { id: 0, epoch: 0 });
    state
}

fn grow(name: &str, partitions: u32) -> MetadataRecord {
    MetadataRecord::PartitionsAdded { name: name.to_owned(), partitions, assignments: Vec::new() }
}

fn places(state: &Metadata, name: &str) -> Vec<(u64, u64)> {
    let topic = state.topic(name).expect("the topic was created");
    topic.partitions.iter().map(|partition| (partition.queue().0, partition.log().0)).collect()
}

#[test]
fn layouts_place_queues_and_ids_are_never_reused() {
    let mut state = state_with_broker();
    state.apply(MetadataRecord::ClusterNamed { cluster: 77 });
    state.apply(create("a", 2, Layout::Shared));
    state.apply(create("b", 2, Layout::Partitioned));
    state.apply(create("c", 1, Layout::Shared));
    assert_eq!(places(&state, "a"), [(1, 1), (2, 1)]);
    assert_eq!(places(&state, "b"), [(3, 2), (4, 3)]);
    assert_eq!(places(&state, "c"), [(5, 1)]);
    let id = state.id_of(state.topic("b").expect("it exists"));
    assert_eq!(state.name_of(id), Some("b"));

    let deleted = state.apply(MetadataRecord::TopicDeleted { name: "b".to_owned() });
    assert!(matches!(deleted, Applied::TopicDeleted { .. }));
    state.apply(create("b", 1, Layout::Partitioned));
    assert_eq!(places(&state, "b"), [(6, 4)]);
    assert_eq!(state.name_of(id), None);
    assert_ne!(state.id_of(state.topic("b").expect("it exists")), id);
}

#[test]
fn a_record_that_finds_the_state_changed_does_nothing() {
    let mut state = state_with_broker();
    state.apply(create("a", 2, Layout::Shared));
    let before = state.clone();
    assert_eq!(state.apply(create("a", 9, Layout::Shared)), Applied::Refused(Refusal::TopicExists));
    let grown = state.apply(grow("a", 2));
    assert_eq!(grown, Applied::Refused(Refusal::NotMorePartitions));
    let missing = state.apply(MetadataRecord::TopicDeleted { name: "z".to_owned() });
    assert_eq!(missing, Applied::Refused(Refusal::UnknownTopic));
    assert_eq!(state.record_next().0, before.record_next().0 + 3);
    assert_eq!(places(&state, "a"), places(&before, "a"));
    state.apply(grow("a", 3));
    assert_eq!(places(&state, "a"), [(1, 1), (2, 1), (3, 1)]);
}

#[test]
fn snapshots_and_records_survive_the_round_trip() {
    let mut state = state_with_broker();
    let records = [
        MetadataRecord::ClusterNamed { cluster: u64::MAX },
        create("a", 3, Layout::Shared),
        create("b", 3, Layout::Partitioned),
        MetadataRecord::LogStartMoved { queue: 2, offset: 17 },
        MetadataRecord::ProducerIdsTaken { count: 1000 },
        grow("b", 5),
        MetadataRecord::TopicDeleted { name: "a".to_owned() },
    ];
    for record in records {
        let read = MetadataRecord::decode(&record.encode()).expect("it was just encoded");
        assert_eq!(read, record);
        state.apply(read);
        let (name, snapshot) = state.encode_snapshot();
        assert_eq!(name, format!("{:020}", state.record_next().0));
        assert_eq!(Metadata::decode_snapshot(&snapshot).expect("it was just encoded"), state);
    }
    assert_eq!(state.log_starts().count(), 0);
}

#[test]
fn log_starts_move_forward_only() {
    let mut state = state_with_broker();
    let moved = |offset| MetadataRecord::LogStartMoved { queue: 2, offset };
    assert_eq!(state.apply(moved(17)), Applied::Refused(Refusal::UnknownTopic));
    state.apply(create("a", 2, Layout::Shared));
    state.apply(moved(17));
    let back = state.apply(moved(5));
    assert_eq!(back, Applied::LogStartMoved { log: LogId(1), queue: QueueId(2), offset: Offset(17) });
}
