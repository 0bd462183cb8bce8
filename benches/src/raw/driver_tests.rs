//! Goal: what the driver says of a broker is true. Method: brokers in memory whose defects are known, and the relay.

use mqassay_harness::artifact::VerdictKind;

use super::*;
use crate::fake::{Behaviour, Defect, FakeBroker, Law};
use crate::raw::admin::TopicAdmin;
use crate::raw::relay;

fn shape(consumers: u32, records_per_second: Option<u64>, linger: Linger) -> RawShape {
    RawShape {
        name: "test".to_owned(),
        connections: 3,
        in_flight: 2,
        records_per_batch: 7,
        batches_per_request: 1,
        queues: None,
        flush: None,
        record_bytes: None,
        records_per_second,
        linger,
        consumers,
        is_bare: false,
        rounds_maximum: None,
        records_maximum: 2_100,
    }
}

fn load<'a>(bootstrap: &'a str, shape: &'a RawShape, is_relay: bool) -> Load<'a> {
    Load {
        bootstrap,
        pid: None,
        is_relay,
        lanes: Lanes { prefix: "raw".to_owned(), queues: 2, connections: shape.connections },
        shape,
        run: 99,
        record_bytes: 100,
        acks: -1,
        is_idempotent: true,
        seconds: 0.3,
        lead_in_seconds: 0.0,
        stall_ns: 2_000_000_000,
    }
}

fn on_broker(behaviour: Behaviour, shape: &RawShape) -> RawBlock {
    let broker = FakeBroker::start_with(behaviour).unwrap();
    let bootstrap = broker.target().bootstrap;
    let load = load(&bootstrap, shape, false);
    let mut admin = TopicAdmin::connect(&bootstrap).unwrap();
    admin.create(&load.lanes, &std::collections::BTreeMap::new()).unwrap();
    let block = measure(&load).unwrap();
    admin.delete(&load.lanes).unwrap();
    block
}

#[test]
fn a_sound_broker_is_valid_closed_loop_open_loop_and_followed() {
    let open = Some(3_000);
    for (consumers, rate, linger) in
        [(0, None, Linger::Full), (2, None, Linger::Full), (1, open, Linger::None), (0, open, Linger::Full)]
    {
        let block = on_broker(Behaviour::default(), &shape(consumers, rate, linger));
        assert_eq!(block.verification.verdict, VerdictKind::Valid, "{:?}", block.verification);
        assert!(block.records > 0 && block.verification.verified > block.records, "the first batches count as well");
        assert_eq!(block.unsettled, 0);
        assert_eq!(block.response.is_empty(), consumers == 0);
        if rate.is_some() {
            assert!(block.records <= 900, "{} of a schedule of 900", block.records);
        }
    }
}

#[test]
fn each_defect_of_a_broker_is_seen() {
    for (defect, anomaly) in
        [(Defect::Lose, "lost-write"), (Defect::Duplicate, "duplicate"), (Defect::Corrupt, "corrupt-payload")]
    {
        let behaviour = Behaviour { defect: Some((defect, 10)), ..Behaviour::default() };
        let found = on_broker(behaviour, &shape(0, None, Linger::Full)).verification;
        assert_eq!(found.verdict, VerdictKind::Invalid, "{defect:?}");
        assert!(found.anomalies.contains_key(anomaly), "{defect:?} gave {:?}", found.anomalies);
    }
}

#[test]
fn a_delay_is_in_the_latency() {
    let behaviour = Behaviour { law: Law::Constant(Duration::from_millis(5)), ..Behaviour::default() };
    let block = on_broker(behaviour, &shape(0, None, Linger::Full));
    assert!(block.acknowledge.min() >= 5_000_000, "{} ns", block.acknowledge.min());
}

#[test]
fn the_relay_gives_back_what_it_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let path = folder.path().to_path_buf();
    // It serves until this process ends.
    std::thread::spawn(move || {
        relay::serve(&path, relay::Sync::BeforeAnswers, &|address| sender.send(address.to_string()).unwrap())
    });
    let bootstrap = receiver.recv().unwrap();
    for consumers in [0, 1] {
        let shape = shape(consumers, None, Linger::Full);
        // The relay may still have the first block's messages, and tells nobody whose they are.
        let load = Load { run: 99 + u64::from(consumers), ..load(&bootstrap, &shape, true) };
        let block = measure(&load).unwrap();
        assert_eq!(block.verification.verdict, VerdictKind::Valid, "{:?}", block.verification);
        assert!(block.records > 0);
    }
}

#[test]
fn bare_load_is_read_to_its_end_and_proves_nothing() {
    for consumers in [0, 2] {
        // Two connections, so that each has a queue of its own.
        let bare = RawShape { is_bare: true, connections: 2, ..shape(consumers, None, Linger::Full) };
        let block = on_broker(Behaviour::default(), &bare);
        assert!(block.records > 0 && block.unsettled == 0, "{block:?}");
        assert_eq!((block.verification.verdict, block.verification.verified), (VerdictKind::Valid, 0));
    }
    // A batch that is acknowledged and not kept is missed also by those who only count.
    let behaviour = Behaviour { defect: Some((Defect::Lose, 10)), ..Behaviour::default() };
    let bare = RawShape { is_bare: true, connections: 2, ..shape(0, None, Linger::Full) };
    let verification = on_broker(behaviour, &bare).verification;
    assert_eq!(verification.verdict, VerdictKind::Unknown, "{verification:?}");
}
