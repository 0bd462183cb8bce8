//! Memory that is short: who holds it is paused, everybody else is served.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ProduceRequest;
use mqassay_broker::core::settings::{FlushMode, Layout};

use super::client::Client;
use super::{batch, config, create, fetch_request, plain, produce, produce_request, read_all, start};

/// A batch of one record of so many bytes.
fn large(bytes: usize) -> Bytes {
    let value: &'static str = Box::leak("x".repeat(bytes).into_boxed_str());
    batch(plain(), &[(1, value)])
}

#[test]
fn requests_that_came_before_the_end_of_a_connection_are_performed_and_answered() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let broker = start(&config(Layout::Shared, FlushMode::Os), data.path());
    let mut client = Client::dial(&broker);
    assert_eq!(create(&mut client, "t", 1, &[]), 0);
    client.send(9, &produce_request("t", 0, batch(plain(), &[(1, "a")]), -1));
    client.end_sending();
    assert_eq!(client.receive::<ProduceRequest>(9).responses[0].partition_responses[0].error_code, 0);
    assert!(client.frame().is_none(), "the broker ends the connection too");
    assert_eq!(read_all(&mut Client::dial(&broker), "t", 0, 0).len(), 1);
}

#[test]
fn peers_that_never_read_do_not_keep_others_from_being_served() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let mut config = config(Layout::Shared, FlushMode::Os);
    config.topic.class.segment_bytes = 64 << 20;
    config.topic.max_message_bytes = 1 << 20;
    config.tail_cache_bytes = 8 << 20;
    config.inflight_bytes_max = 256 << 10;
    let broker = start(&config, data.path());
    let mut client = Client::dial(&broker);
    assert_eq!(create(&mut client, "t", 1, &[]), 0);
    for _ in 0..8 {
        assert_eq!(produce(&mut client, "t", 0, large(900_000)).error_code, 0);
    }
    // Each asks for far more than sockets hold, and reads nothing.
    let greedy: Vec<Client> = (0..4)
        .map(|_| {
            let mut greedy = Client::dial(&broker);
            for _ in 0..200 {
                greedy.send(11, &fetch_request("t", 0, 0, 0));
            }
            greedy
        })
        .collect();
    for n in 0..20 {
        assert_eq!(produce(&mut client, "t", 0, batch(plain(), &[(1, "a")])).base_offset, 8 + n);
    }
    assert_eq!(read_all(&mut client, "t", 0, 8).len(), 20);
    drop(greedy);
}

#[test]
fn a_flood_that_is_paused_is_answered_in_full_and_in_order() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let mut config = config(Layout::Shared, FlushMode::Ack);
    config.topic.class.segment_bytes = 64 << 20;
    config.inflight_bytes_max = 64 << 10;
    let broker = start(&config, data.path());
    let mut client = Client::dial(&broker);
    assert_eq!(create(&mut client, "t", 1, &[]), 0);
    let records = large(7000);
    let mut flood = client.duplicate();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..500 {
                flood.send(9, &produce_request("t", 0, records.clone(), -1));
            }
        });
        let mut throttled = 0;
        for n in 0..500 {
            let response = client.receive::<ProduceRequest>(9);
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!((answer.error_code, answer.base_offset), (0, n));
            throttled += usize::from(response.throttle_time_ms > 0);
        }
        assert!(throttled < 500, "a pause is told once");
    });
}

#[test]
fn a_length_that_never_comes_true_holds_next_to_nothing() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let broker = start(&config(Layout::Shared, FlushMode::Os), data.path());
    let mut claims = Vec::new();
    for _ in 0..32 {
        let mut claim = Client::dial(&broker);
        let mut head = BytesMut::new();
        head.put_i32(1 << 20);
        claim.raw(&head);
        claims.push(claim);
    }
    let mut client = Client::dial(&broker);
    assert_eq!(create(&mut client, "t", 1, &[]), 0);
    assert_eq!(produce(&mut client, "t", 0, batch(plain(), &[(1, "a")])).error_code, 0);
}
