//! Metrics as Prometheus scrapes them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use mqassay_broker::core::settings::{FlushMode, Layout};

use super::client::Client;
use super::{batch, config, create, plain, produce, read_all, start};

/// Head and body of what a request is answered.
fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the broker listens");
    stream.write_all(request.as_bytes()).expect("the connection is open");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the broker ends the connection");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

#[test]
fn metrics_tell_what_clients_did() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    let mut config = config(Layout::Shared, FlushMode::Ack);
    config.metrics = Some(free);
    let broker = start(&config, data.path());
    let mut client = Client::dial(&broker);
    assert_eq!(create(&mut client, "t", 3, &[]), 0);
    for _ in 0..2 {
        assert_eq!(produce(&mut client, "t", 0, batch(plain(), &[(1, "a")])).error_code, 0);
    }
    assert_eq!(read_all(&mut client, "t", 0, 0).len(), 2);
    let (head, body) = ask(free, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("openmetrics-text"), "{head}");
    for line in [
        "mqassay_requests_total{api=\"Produce\"} 2",
        "mqassay_requests_total{api=\"CreateTopics\"} 1",
        "mqassay_requests_total{api=\"ListOffsets\"} 0",
        "mqassay_appends_total 2",
        "mqassay_queues 3",
        "mqassay_topics 1",
        "mqassay_connections 1",
        "mqassay_inflight_bytes 0",
        "mqassay_throttles_total 0",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in\n{body}");
    }
    let value = |name: &str| -> f64 {
        let line = body.lines().find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in\n{body}"));
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    };
    // Each produce was confirmed by a sync, and so was the topic.
    assert!(value("mqassay_sync_seconds_count") >= 3.0);
    let synced = value("mqassay_sync_seconds_bucket{le=\"+Inf\"}");
    assert!((synced - value("mqassay_sync_seconds_count")).abs() < 0.5);
    assert!(value("mqassay_log_bytes") > value("mqassay_appended_bytes_total"));
    assert!(value("mqassay_received_bytes_total") > 0.0 && value("mqassay_sent_bytes_total") > 0.0);
    assert!(body.contains("mqassay_events_total{event=\"sync\"}"), "{body}");
    let (head, _) = ask(free, "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
}
