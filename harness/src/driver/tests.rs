//! The driver against the scripted broker: retries, sequence numbers, outcomes, time-outs, reading.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::cluster::{Cluster, ClusterOptions};
use super::consumer::{Consumer, ConsumerOptions};
use super::producer::{Batch, Delivery, Producer, ProducerOptions};
use super::records::{BatchFault, Record};
use super::scripted::{Fate, PausedTimer, Scripted, TOPIC, run};
use super::*;
use crate::history::Outcome;
use crate::plan::draws::Draws;

const OPTIONS: ProducerOptions = ProducerOptions {
    acks: -1,
    idempotent: true,
    attempts: 4,
    request_timeout: Duration::from_millis(500),
    in_flight: 5,
};
const PLAIN: ProducerOptions = ProducerOptions { idempotent: false, ..OPTIONS };

type Told = Rc<RefCell<Vec<&'static str>>>;

fn cluster(broker: &Scripted) -> (Cluster<Scripted, PausedTimer>, Told) {
    cluster_over(broker.clone(), PausedTimer::start(), "127.0.0.1:1".to_string())
}

fn cluster_over<D: Dial, T: Timer>(dial: D, timer: T, address: String) -> (Cluster<D, T>, Told) {
    let told = Told::default();
    let heard = told.clone();
    let events: Events = Rc::new(move |event| heard.borrow_mut().push(event));
    let options = ClusterOptions {
        auto_create: true,
        restamps: false,
        bootstrap: vec![address],
        client_id: "test".to_string(),
        entity: 0,
        request_timeout: OPTIONS.request_timeout,
        backoff_minimum: Duration::from_millis(20),
        backoff_maximum: Duration::from_millis(640),
    };
    (Cluster::new(dial, timer, Draws::new(1), events, options), told)
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC.to_string(), partition }
}

fn batch(name: &str, records: usize) -> Batch {
    let records = (0..records).map(|index| Record {
        timestamp_ms: 1_000 + index as i64,
        key: None,
        value: Some(Bytes::from(format!("{name}{index}"))),
        headers: Vec::new(),
    });
    Batch { partition: at(0), records: records.collect() }
}

async fn send(broker: &Scripted, options: ProducerOptions, names: &str) -> (Vec<Delivery>, Vec<&'static str>) {
    send_over(cluster(broker), options, names).await
}

/// Submits one-record batches named a, b, c, … at once and waits for all.
async fn send_over<D: Dial, T: Timer>(
    (cluster, told): (Cluster<D, T>, Told),
    options: ProducerOptions,
    names: &str,
) -> (Vec<Delivery>, Vec<&'static str>) {
    let producer = Producer::start(cluster, options);
    let sent: Vec<_> = names.chars().map(|name| producer.send(batch(&name.to_string(), 1))).collect();
    let mut deliveries = Vec::new();
    for delivery in sent {
        deliveries.push(delivery.await.expect("every batch ends"));
    }
    let told = told.borrow().clone();
    (deliveries, told)
}

fn stored(broker: &Scripted) -> String {
    let values = broker.values(0);
    values.iter().map(|value| value[0] as char).collect()
}

fn offsets(deliveries: &[Delivery]) -> Vec<Option<i64>> {
    deliveries.iter().map(|delivery| delivery.first_offset).collect()
}

#[test]
fn a_retry_keeps_sequence_numbers_and_order() {
    run(async {
        for fate in [Fate::LoseRequest, Fate::LoseAnswer, Fate::Refuse(6), Fate::Refuse(19), Fate::Forget] {
            let broker = Scripted::new(&[Fate::Answer, fate]);
            let (deliveries, told) = send(&broker, OPTIONS, "abcde").await;
            assert_eq!(stored(&broker), "abcde", "{fate:?}");
            assert_eq!(offsets(&deliveries), (0..5).map(Some).collect::<Vec<_>>(), "{fate:?}");
            let produced = broker.model.borrow().produced.clone();
            let retried: Vec<_> = produced.iter().filter(|sent| **sent == (0, 1001, 0, 1)).collect();
            assert_eq!(retried.len(), 2, "{fate:?}: {produced:?}");
            assert!(told.contains(&RETRY), "{fate:?}");
            assert!(produced.iter().all(|sent| (sent.1, sent.2) == (1001, 0)), "{fate:?}: {produced:?}");
        }
    });
}

#[test]
fn a_duplicate_is_acknowledged_with_the_original_offset() {
    run(async {
        let broker = Scripted::new(&[Fate::Answer, Fate::LoseAnswer]);
        let (deliveries, told) = send(&broker, ProducerOptions { in_flight: 1, ..OPTIONS }, "ab").await;
        assert_eq!(deliveries[1], Delivery { outcome: Outcome::Done, first_offset: Some(1), attempts: 2 });
        assert_eq!(stored(&broker), "ab");
        for event in [CONNECTION_LOST, RECONNECT, RETRY, DUPLICATE_ACKNOWLEDGED] {
            assert!(told.contains(&event), "{event} is missing from {told:?}");
        }
    });
}

#[test]
fn without_idempotence_a_lost_answer_leads_to_a_duplicate() {
    run(async {
        let broker = Scripted::new(&[Fate::LoseAnswer]);
        let (deliveries, _) = send(&broker, PLAIN, "a").await;
        assert_eq!((stored(&broker).as_str(), deliveries[0].first_offset), ("aa", Some(1)));
    });
}

#[test]
fn without_idempotence_a_retry_is_overtaken() {
    run(async {
        let broker = Scripted::new(&[Fate::Refuse(6)]);
        let (deliveries, _) = send(&broker, PLAIN, "abc").await;
        assert_eq!(stored(&broker), "bca");
        assert!(deliveries.iter().all(|delivery| delivery.outcome == Outcome::Done));
    });
}

#[test]
fn refused_means_that_every_attempt_was() {
    run(async {
        let refuse = Fate::Refuse(19);
        for options in [OPTIONS, PLAIN] {
            let (deliveries, _) = send(&Scripted::new(&[refuse; 4]), options, "a").await;
            assert!(matches!(deliveries[0].outcome, Outcome::Refused(_)), "{deliveries:?}");
            assert_eq!(deliveries[0].attempts, 4);
            for unknown in [Fate::LoseRequest, Fate::LoseAnswer, Fate::Forget, Fate::Refuse(20), Fate::Refuse(56)] {
                let broker = Scripted::new(&[refuse, unknown, refuse, refuse]);
                let (deliveries, _) = send(&broker, options, "a").await;
                assert!(matches!(deliveries[0].outcome, Outcome::Unknown(_)), "{unknown:?}: {deliveries:?}");
            }
            let (deliveries, _) = send(&Scripted::new(&[Fate::Refuse(10)]), options, "a").await;
            assert!(matches!(deliveries[0].outcome, Outcome::Refused(_)), "{deliveries:?}");
            assert_eq!(deliveries[0].attempts, 1);
        }
    });
}

#[test]
fn five_requests_are_in_flight_and_never_more_than_allowed() {
    run(async {
        // The first batch of a producer goes alone; five go together behind it.
        let fates = [Fate::Answer, Fate::PutOff, Fate::PutOff, Fate::PutOff, Fate::PutOff, Fate::Answer];
        let (deliveries, told) = send(&Scripted::new(&fates), OPTIONS, "abcdef").await;
        assert!(deliveries.iter().all(|delivery| delivery.attempts == 1 && delivery.outcome == Outcome::Done));
        assert_eq!(told, Vec::<&str>::new());
        // With four in flight the fifth never comes to release the others.
        let four = ProducerOptions { in_flight: 4, ..OPTIONS };
        let (_, told) = send(&Scripted::new(&fates), four, "abcdef").await;
        assert!(told.contains(&TIME_OUT));
    });
}

#[test]
fn a_time_out_closes_the_connection_and_is_retried() {
    run(async {
        let broker = Scripted::new(&[Fate::Forget]);
        let began = tokio::time::Instant::now();
        let (deliveries, told) = send(&broker, PLAIN, "a").await;
        assert_eq!(deliveries[0].outcome, Outcome::Done);
        assert!(told.contains(&TIME_OUT) && told.contains(&RECONNECT) && !told.contains(&CONNECTION_LOST));
        let waited = began.elapsed();
        assert!(waited >= OPTIONS.request_timeout && waited < OPTIONS.request_timeout * 2, "{waited:?}");
    });
}

#[test]
fn a_batch_that_is_given_up_is_followed_by_a_new_epoch() {
    run(async {
        let two = ProducerOptions { attempts: 2, ..OPTIONS };
        let broker = Scripted::new(&[Fate::LoseRequest, Fate::LoseRequest]);
        let (cluster, told) = cluster(&broker);
        let producer = Producer::start(cluster, two);
        let lost = producer.send(batch("a", 3)).await.expect("it ends");
        assert!(matches!(lost.outcome, Outcome::Unknown(_)), "{lost:?}");
        let next = producer.send(batch("b", 1)).await.expect("it ends");
        assert_eq!((next.outcome, next.first_offset), (Outcome::Done, Some(0)));
        assert_eq!(broker.model.borrow().produced, vec![(0, 1001, 0, 0), (0, 1001, 0, 0), (0, 1001, 1, 0)]);
        assert!(told.borrow().contains(&PRODUCER_RESET));
    });
}

#[test]
fn what_was_sent_behind_an_abandoned_batch_is_never_sent_anew_if_it_may_be_there() {
    run(async {
        let two = ProducerOptions { attempts: 2, ..OPTIONS };
        // The connection ends under b and those behind it, and once more under the retry of b.
        let broker = Scripted::new(&[Fate::Answer, Fate::Forget, Fate::LoseRequest, Fate::LoseRequest]);
        let (deliveries, _) = send(&broker, two, "abcde").await;
        for delivery in &deliveries[1..3] {
            assert!(matches!(delivery.outcome, Outcome::Unknown(_)), "{deliveries:?}");
        }
        let values = stored(&broker);
        assert!(values.starts_with('a'), "{values}");
        assert!(values.as_bytes().is_sorted_by(|one, other| one < other), "{values} is not once each and in order");
    });
}

#[test]
fn the_first_batch_of_a_producer_goes_alone() {
    run(async {
        // A broker that knows nothing of the producer takes b for its first, if b is there while a is refused.
        let broker = Scripted::new(&[Fate::Refuse(3)]);
        broker.model.borrow_mut().takes_any_first_sequence = true;
        let (deliveries, _) = send(&broker, OPTIONS, "abc").await;
        assert!(deliveries.iter().all(|delivery| delivery.outcome == Outcome::Done), "{deliveries:?}");
        assert_eq!(stored(&broker), "abc");
    });
}

#[test]
fn a_forgotten_producer_takes_a_new_id() {
    run(async {
        for code in [47, 59] {
            let broker = Scripted::new(&[Fate::Answer, Fate::Refuse(code)]);
            let (deliveries, told) = send(&broker, ProducerOptions { in_flight: 1, ..OPTIONS }, "abc").await;
            assert!(deliveries.iter().all(|delivery| delivery.outcome == Outcome::Done), "{deliveries:?}");
            assert_eq!(stored(&broker), "abc");
            assert_eq!(broker.model.borrow().producer_ids, 2);
            assert!(told.contains(&PRODUCER_RESET));
        }
    });
}

#[test]
fn acknowledgements_that_nobody_sends_leave_the_outcome_unknown() {
    run(async {
        let broker = Scripted::new(&[]);
        let none = ProducerOptions { acks: 0, ..PLAIN };
        let (deliveries, _) = send(&broker, none, "ab").await;
        for delivery in deliveries {
            assert!(matches!(delivery.outcome, Outcome::Unknown(_)));
            assert_eq!((delivery.first_offset, delivery.attempts), (None, 1));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(stored(&broker), "ab");
    });
}

#[test]
fn a_broker_that_is_away_costs_no_attempt_and_no_eternity() {
    run(async {
        for options in [OPTIONS, PLAIN] {
            let broker = Scripted::new(&[]);
            broker.model.borrow_mut().refused_dials = 4;
            let (deliveries, _) = send(&broker, options, "abc").await;
            assert!(deliveries.iter().all(|delivery| delivery.attempts == 1), "{deliveries:?}");
            assert_eq!(stored(&broker), "abc");
            let broker = Scripted::new(&[]);
            broker.model.borrow_mut().refused_dials = u32::MAX;
            let began = tokio::time::Instant::now();
            let (deliveries, _) = send(&broker, options, "abc").await;
            for delivery in deliveries {
                assert!(matches!(delivery.outcome, Outcome::Refused(_)), "{delivery:?}");
                assert_eq!(delivery.attempts, 0);
            }
            assert!(began.elapsed() <= Duration::from_secs(4), "{:?}", began.elapsed());
            assert!(broker.model.borrow().dials < 40, "back-off keeps the dialling rare");
        }
    });
}

#[test]
fn the_same_script_gives_the_same_run() {
    let once = || {
        run(async {
            let fates = [Fate::Refuse(6), Fate::LoseAnswer, Fate::Forget, Fate::Answer, Fate::LoseRequest];
            let broker = Scripted::new(&fates);
            let began = tokio::time::Instant::now();
            let (deliveries, told) = send(&broker, OPTIONS, "abcdefgh").await;
            let produced = broker.model.borrow().produced.clone();
            (deliveries, told, produced, began.elapsed())
        })
    };
    assert_eq!(once(), once());
}

#[test]
fn a_consumer_reads_what_is_there_and_tells_damage() {
    run(async {
        let broker = Scripted::new(&[]);
        send(&broker, OPTIONS, "abc").await;
        let (cluster, _) = cluster(&broker);
        let options = ConsumerOptions { request_timeout: OPTIONS.request_timeout, fetch_max_bytes: 1 << 20 };
        let mut consumer = Consumer::assign(cluster.clone(), options, vec![at(0), at(1)]);
        let mut read = Vec::new();
        for _ in 0..3 {
            let polled = consumer.poll(Duration::ZERO, 1).await;
            assert!(polled.failed.is_empty(), "{:?}", polled.failed);
            let records = polled.read.iter().flat_map(|read| &read.records);
            read.extend(records.map(|placed| (placed.offset, placed.record.value.clone())));
        }
        let expected = ["a0", "b0", "c0"].iter().map(|value| Some(Bytes::from_static(value.as_bytes())));
        assert_eq!(read, (0..).zip(expected).collect::<Vec<_>>());
        assert_eq!(consumer.position(&at(0)), Some(3));
        broker.model.borrow_mut().flips_bits = true;
        consumer.seek(&at(0), 1);
        broker.model.borrow_mut().logs.entry(0).or_default().truncate(3);
        let long = Batch { partition: at(0), records: batch("a rather long value ", 3).records };
        let producer = Producer::start(cluster, OPTIONS);
        producer.send(long).await.expect("it ends");
        consumer.seek(&at(0), 3);
        let polled = consumer.poll(Duration::ZERO, 1).await;
        let damaged: Vec<_> = polled.read.iter().flat_map(|read| &read.damage).collect();
        assert_eq!(damaged.len(), 1);
        assert!(matches!(damaged[0].what, BatchFault::Checksum { .. }));
        assert_eq!(consumer.position(&at(0)), Some(6));
    });
}

/// What both arms of `Dial` and `Timer` must do alike: a lost request and a lost answer are retried in order.
async fn conforms<D: Dial, T: Timer>(broker: &Scripted, connected: (Cluster<D, T>, Told)) {
    let (cluster, timer) = (connected.0.clone(), connected.0.timer().clone());
    let (deliveries, told) = send_over(connected, OPTIONS, "abcdefgh").await;
    assert!(deliveries.iter().all(|delivery| delivery.outcome == Outcome::Done), "{deliveries:?}");
    assert_eq!(stored(broker), "abcdefgh");
    assert!(told.contains(&CONNECTION_LOST) && told.contains(&RECONNECT), "{told:?}");
    let options = ConsumerOptions { request_timeout: OPTIONS.request_timeout, fetch_max_bytes: 1 << 20 };
    let mut consumer = Consumer::assign(cluster, options, vec![at(0)]);
    let polled = consumer.poll(Duration::ZERO, 1).await;
    assert_eq!(polled.read[0].records.len(), 1, "{:?}", polled.failed);
    let soon = timer.monotonic() + Duration::from_millis(3);
    timer.sleep_until(soon).await;
    assert!(timer.monotonic() >= soon);
    assert!(timer.wall_ms() > 1_600_000_000_000);
}

const LOSSES: [Fate; 4] = [Fate::Answer, Fate::LoseRequest, Fate::Answer, Fate::LoseAnswer];

#[test]
fn the_simulated_arm_conforms() {
    run(async {
        let broker = Scripted::new(&LOSSES);
        conforms(&broker, cluster(&broker)).await;
    });
}

#[test]
fn the_real_arm_conforms() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("the system has a poller");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let broker = Scripted::new(&LOSSES);
        let address = broker.listen().await;
        let over = cluster_over(real::TcpDial, real::SystemTimer::start(), address);
        conforms(&broker, over).await;
    });
}

fn three_nodes(leader: (i32, i32), fates: &[Fate]) -> Scripted {
    let broker = Scripted::new(fates);
    {
        let mut model = broker.model.borrow_mut();
        model.nodes = 3;
        model.leaders.insert(0, leader);
    }
    broker
}

#[test]
fn an_idempotent_producer_goes_on_at_the_new_leader_with_the_same_sequence_numbers() {
    run(async {
        let broker = three_nodes((1, 4), &[Fate::Answer, Fate::Answer, Fate::LoseAnswer]);
        let (cluster, _) = cluster(&broker);
        let producer = Producer::start(cluster, OPTIONS);
        let mut sent = Vec::new();
        for (index, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            if index == 3 {
                broker.model.borrow_mut().leaders.insert(0, (2, 5));
            }
            sent.push(producer.send(batch(name, 1)));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for delivery in sent {
            assert_eq!(delivery.await.expect("every batch ends").outcome, Outcome::Done);
        }
        assert_eq!(stored(&broker), "abcde");
        let model = broker.model.borrow();
        assert!(model.produced.iter().all(|sent| (sent.1, sent.2) == (1001, 0)), "{:?}", model.produced);
        assert_eq!((model.reached.first(), model.reached.last()), (Some(&1), Some(&2)));
    });
}

#[test]
fn metadata_of_an_older_leader_epoch_is_not_believed() {
    run(async {
        let broker = three_nodes((1, 4), &[]);
        let (cluster, _) = cluster(&broker);
        let deadline = cluster.after(Duration::from_secs(2));
        assert_eq!(cluster.leader(&at(0), deadline).await.unwrap(), "127.0.0.1:2");
        // Node 0 was cut off before the leader changed once more, and still names the one before that.
        broker.model.borrow_mut().believed.insert(0, BTreeMap::from([(0, (0, 3))]));
        for _ in 0..3 {
            cluster.refresh(&[TOPIC.to_string()], false, deadline).await.unwrap();
            assert_eq!(cluster.leader(&at(0), deadline).await.unwrap(), "127.0.0.1:2");
        }
        assert_eq!(cluster.leader_epoch(&at(0)), 4);
    });
}

#[test]
fn a_consumer_goes_back_to_where_a_new_leaders_log_parts_from_what_it_read() {
    run(async {
        let broker = three_nodes((0, 1), &[]);
        let (deliveries, _) = send(&broker, OPTIONS, "abcde").await;
        assert_eq!(deliveries.len(), 5);
        let (cluster, _) = cluster(&broker);
        let options = ConsumerOptions { request_timeout: OPTIONS.request_timeout, fetch_max_bytes: 10_000 };
        let mut consumer = Consumer::assign(cluster.clone(), options, vec![at(0)]);
        for _ in 0..5 {
            consumer.poll(Duration::ZERO, 1).await;
        }
        assert_eq!(consumer.position(&at(0)), Some(5));
        {
            let mut model = broker.model.borrow_mut();
            model.leaders.insert(0, (2, 2));
            model.epoch_ends.insert(1, 3);
        }
        let mut read_from = Vec::new();
        while read_from.is_empty() {
            let polled = consumer.poll(Duration::ZERO, 1).await;
            read_from.extend(polled.read.iter().map(|read| read.from));
        }
        assert_eq!(read_from, [3]);
        assert_eq!(broker.model.borrow().reached.last(), Some(&2));
    });
}
