//! Incremental fetch sessions as a client sees them.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use mqassay_broker::core::settings::{FlushMode, Layout};

use super::client::Client;
use super::{batch, config, create, plain, produce, start, topic_name};

fn request(id: i32, epoch: i32, wanted: &[(i32, i64)]) -> FetchRequest {
    let partitions = wanted.iter().map(|(index, offset)| {
        FetchPartition::default().with_partition(*index).with_fetch_offset(*offset).with_partition_max_bytes(1 << 20)
    });
    let topic = FetchTopic::default().with_topic(topic_name("t")).with_partitions(partitions.collect());
    let topics = if wanted.is_empty() { Vec::new() } else { vec![topic] };
    FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_id(id)
        .with_session_epoch(epoch)
        .with_topics(topics)
}

/// Partition, high watermark and bytes of records of everything that was answered.
fn told(response: &FetchResponse) -> Vec<(i32, i64, usize)> {
    let bytes = |records: &Option<Bytes>| records.as_ref().map_or(0, Bytes::len);
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|found| (found.partition_index, found.high_watermark, bytes(&found.records))).collect()
}

#[test]
fn a_session_is_answered_only_what_changed() {
    for layout in [Layout::Shared, Layout::Partitioned] {
        let data = tempfile::tempdir().expect("a temporary folder");
        let broker = start(&config(layout, FlushMode::Ack), data.path());
        let mut client = Client::dial(&broker);
        assert_eq!(create(&mut client, "t", 3, &[]), 0);
        let opened = client.call(11, &request(0, 0, &[(0, 0), (1, 0), (2, 0)]));
        assert_eq!((opened.error_code, told(&opened)), (0, vec![(0, 0, 0), (1, 0, 0), (2, 0, 0)]));
        let id = opened.session_id;
        assert!(id != 0);
        assert_eq!(told(&client.call(11, &request(id, 1, &[]))), []);
        let one = batch(plain(), &[(1, "a")]);
        assert_eq!(produce(&mut client, "t", 1, one.clone()).error_code, 0);
        let found = client.call(11, &request(id, 2, &[]));
        assert_eq!((found.session_id, told(&found)), (id, vec![(1, 1, one.len())]));
        // Not fetched further, so it is answered again; then it is, and there is nothing.
        assert_eq!(told(&client.call(11, &request(id, 3, &[]))), [(1, 1, one.len())]);
        assert_eq!(told(&client.call(11, &request(id, 4, &[(1, 1)]))), []);
        // A fetch that waits is woken by the append.
        client.send(11, &request(id, 5, &[]).with_max_wait_ms(60_000));
        let mut other = Client::dial(&broker);
        assert_eq!(produce(&mut other, "t", 2, one.clone()).error_code, 0);
        assert_eq!(told(&client.receive::<FetchRequest>(11)), [(2, 1, one.len())]);
    }
}

#[test]
fn sessions_are_forgotten_refused_and_closed_as_kafka_does() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let broker = start(&config(Layout::Shared, FlushMode::Ack), data.path());
    let mut client = Client::dial(&broker);
    assert_eq!(create(&mut client, "t", 2, &[]), 0);
    assert_eq!(client.call(11, &request(77, 1, &[])).error_code, 70, "nobody opened it");
    let id = client.call(11, &request(0, 0, &[(0, 0), (1, 0)])).session_id;
    assert_eq!(client.call(11, &request(id, 2, &[])).error_code, 71, "the next epoch is 1");
    let forgotten = ForgottenTopic::default().with_topic(topic_name("t")).with_partitions(vec![0]);
    let response = client.call(11, &request(id, 1, &[]).with_forgotten_topics_data(vec![forgotten]));
    assert_eq!((response.error_code, response.session_id), (0, id));
    let one = batch(plain(), &[(1, "a")]);
    for partition in [0, 1] {
        assert_eq!(produce(&mut client, "t", partition, one.clone()).error_code, 0);
    }
    assert_eq!(told(&client.call(11, &request(id, 2, &[]))), [(1, 1, one.len())]);
    // Epoch -1 closes the session and is a full fetch of its own.
    let last = client.call(11, &request(id, -1, &[(0, 0)]));
    assert_eq!((last.error_code, last.session_id, told(&last)), (0, 0, vec![(0, 1, one.len())]));
    assert_eq!(client.call(11, &request(id, 3, &[])).error_code, 70);
}

#[test]
fn a_topic_that_is_deleted_and_created_again_is_another() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let broker = start(&config(Layout::Shared, FlushMode::Ack), data.path());
    let mut client = Client::dial(&broker);
    assert_eq!(create(&mut client, "t", 1, &[]), 0);
    let id = client.call(11, &request(0, 0, &[(0, 0)])).session_id;
    let delete = kafka_protocol::messages::DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")]);
    assert_eq!(client.call(3, &delete).responses[0].error_code, 0);
    let errors = |response: &FetchResponse| response.responses[0].partitions[0].error_code;
    assert_eq!(errors(&client.call(11, &request(id, 1, &[]))), 3);
    assert_eq!(errors(&client.call(11, &request(id, 2, &[]))), 3, "an error is told each time");
    assert_eq!(create(&mut client, "t", 1, &[]), 0);
    assert_eq!(told(&client.call(11, &request(id, 3, &[]))), [(0, 0, 0)]);
    let one = batch(plain(), &[(1, "a")]);
    assert_eq!(produce(&mut client, "t", 0, one.clone()).error_code, 0);
    assert_eq!(told(&client.call(11, &request(id, 4, &[]))), [(0, 1, one.len())]);
}
