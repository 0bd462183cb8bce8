//! Whole clients of a plan against the scripted broker: what their history says, and that every operation ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::client::run_client;
use super::final_reads::{FinalReads, final_reads};
use super::phase::PhaseSwitch;
use super::topics::create_topics;
use super::*;
use crate::driver::scripted::{Fate, PARTITIONS, PausedTimer, Scripted, TOPIC, run};
use crate::history::{Call, OffsetQuery, Operation, Outcome, SeekTarget};
use crate::plan::{Client, ClientAction, PlannedOperation, Role};

const QUEUE: Queue = Queue { topic: 0, partition: 0 };
const LIMITS: FinalReads =
    FinalReads { bound: Duration::from_secs(5), request_timeout: Duration::from_millis(500), fetch_max_bytes: 1 << 20 };

struct World {
    broker: Scripted,
    timer: PausedTimer,
    recorder: Recorder,
    switch: PhaseSwitch,
    traced: Rc<RefCell<usize>>,
}

impl World {
    fn new(fates: &[Fate]) -> World {
        let traced = Rc::new(RefCell::new(0));
        let count = traced.clone();
        let recorder = Recorder::new(Box::new(move |_: &Operation| *count.borrow_mut() += 1));
        let (broker, timer, switch) = (Scripted::new(fates), PausedTimer::start(), PhaseSwitch::new());
        World { broker, timer, recorder, switch, traced }
    }

    fn context(&self, client: u32) -> Context<Scripted, PausedTimer> {
        let queues = PARTITIONS as u32;
        let topic =
            Topic { name: TOPIC.to_string(), queues, replication: 1, config: BTreeMap::new(), auto_created: false };
        Context {
            client: ClientId(client),
            dial: self.broker.clone(),
            timer: self.timer,
            began: self.timer.monotonic(),
            began_wall_ms: self.timer.wall_ms(),
            bootstrap: vec!["127.0.0.1:1".to_string()],
            topics: Rc::new(vec![topic]),
            draws: Draws::new(5),
            recorder: self.recorder.clone(),
            phase: self.switch.phase(),
            events: Rc::new(|_| {}),
            client_mutant: None,
        }
    }

    fn history(&self) -> Vec<Operation> {
        assert_eq!(self.recorder.open(), vec![]);
        let operations = self.recorder.take_operations();
        assert_eq!(operations.len(), *self.traced.borrow());
        *self.traced.borrow_mut() = 0;
        operations
    }
}

fn producer(batches: u64) -> Client {
    let role = Role::Producer { acks: -1, idempotent: true, in_flight: 5, attempts: 4, request_timeout_ms: 500 };
    let produce = |index: u64| {
        let queue = Queue { partition: (index % 2) as u32, ..QUEUE };
        let action =
            ClientAction::Produce { queue, records: 3, value_bytes: 40, timestamp_shift_ms: -5, timestamp_step_ms: 2 };
        PlannedOperation { at_ms: index * 10, action }
    };
    Client { role, operations: (0..batches).map(produce).collect() }
}

fn consumer(operations: Vec<ClientAction>) -> Client {
    let queues = vec![QUEUE, Queue { partition: 1, ..QUEUE }];
    let role = Role::Consumer { queues, request_timeout_ms: 500, fetch_max_bytes: 1 << 20 };
    let operations = operations.into_iter().map(|action| PlannedOperation { at_ms: 0, action });
    Client { role, operations: operations.collect() }
}

const POLL: ClientAction = ClientAction::Poll { max_wait_ms: 10, min_bytes: 1 };

#[test]
fn what_was_produced_under_loss_is_read_at_the_end() {
    run(async {
        let world = World::new(&[Fate::Answer, Fate::LoseAnswer, Fate::LoseRequest, Fate::Forget, Fate::Refuse(6)]);
        run_client(&world.context(0), &producer(10)).await.expect("the plan is well-formed");
        final_reads(&world.context(9), LIMITS).await.expect("everything is there");
        let history = world.history();
        let mut sent = BTreeMap::new();
        let mut read = BTreeMap::new();
        for operation in &history {
            assert_eq!(operation.outcome, Outcome::Done, "{operation:?}");
            match &operation.call {
                Call::Produce { queue, first_value, count, first_offset, timestamps_ms, .. } => {
                    assert_eq!(timestamps_ms.len(), 3);
                    for index in 0..u64::from(*count) {
                        sent.insert((*queue, first_offset.expect("told") + index as i64), first_value.0 + index);
                    }
                }
                Call::Poll { runs, corrupt, is_final, .. } => {
                    assert!(*is_final && corrupt.is_empty());
                    for run in runs {
                        for index in 0..u64::from(run.count) {
                            let place = (run.queue, run.first_offset + index as i64);
                            assert_eq!(read.insert(place, run.first_value.0 + index), None);
                        }
                    }
                }
                Call::ListOffset { .. } => {}
                other => panic!("nobody asked for {other:?}"),
            }
        }
        assert_eq!(sent.len(), 30);
        assert_eq!(sent, read);
        // Values count up along each queue: the idempotent producer kept its order.
        for queue in 0..2 {
            let on_queue = read.iter().filter(|((at, _), _)| at.partition == queue).map(|(_, value)| *value);
            assert!(on_queue.is_sorted());
        }
    });
}

#[test]
fn the_liveness_phase_starts_what_waits() {
    run(async {
        let world = World::new(&[]);
        let mut client = producer(4);
        for operation in &mut client.operations {
            operation.at_ms = 1_000_000;
        }
        let context = world.context(0);
        let running = run_client(&context, &client);
        tokio::pin!(running);
        tokio::select! {
            biased;
            _ = &mut running => panic!("it cannot have ended"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        world.switch.begin_liveness();
        let began = tokio::time::Instant::now();
        running.await.expect("the plan is well-formed");
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_eq!(world.history().len(), 4);
    });
}

#[test]
fn a_consumer_polls_seeks_and_looks_up() {
    run(async {
        let world = World::new(&[]);
        let context = world.context(0);
        run_client(&context, &producer(4)).await.expect("the plan is well-formed");
        world.history();
        let start = ClientAction::Seek { queue: QUEUE, to: SeekTarget::Offset(4) };
        // The second batch of the queue was sent 20 ms into the run, with timestamps from 15 ms on, every 2 ms.
        let by_time = ClientAction::Seek { queue: QUEUE, to: SeekTarget::Timestamp(16) };
        let lookup = |query| ClientAction::ListOffset { queue: QUEUE, query };
        let operations = vec![
            POLL,
            start,
            POLL,
            by_time,
            lookup(OffsetQuery::Latest),
            lookup(OffsetQuery::Timestamp(17)),
            ClientAction::DeleteRecords { queue: QUEUE },
            lookup(OffsetQuery::Earliest),
            ClientAction::Seek { queue: QUEUE, to: SeekTarget::Offset(0) },
            POLL,
        ];
        let mut later = world.context(1);
        later.began = context.began;
        later.began_wall_ms = context.began_wall_ms;
        run_client(&later, &consumer(operations)).await.expect("the plan is well-formed");
        let history = world.history();
        let seen: Vec<_> = history
            .iter()
            .map(|operation| match &operation.call {
                Call::Poll { runs, positions, .. } => {
                    let on_queue = runs.iter().filter(|run| run.queue == QUEUE);
                    let offsets: Vec<_> = on_queue.map(|run| (run.first_offset, run.count)).collect();
                    format!("poll of {} {offsets:?}", positions.len())
                }
                Call::Seek { to: SeekTarget::Timestamp(_), offset, .. } => format!("seek by time {offset:?}"),
                Call::Seek { to, offset, .. } => format!("seek {to:?} {offset:?}"),
                Call::ListOffset { query: OffsetQuery::Timestamp(_), offset, timestamp_ms, .. } => {
                    let since = timestamp_ms.map(|at| at - context.began_wall_ms);
                    format!("time {offset:?} {since:?}")
                }
                Call::ListOffset { query, offset, .. } => format!("{query:?} {offset:?}"),
                Call::DeleteRecords { before, low_watermark, .. } => format!("delete {before} {low_watermark:?}"),
                other => panic!("nobody asked for {other:?}"),
            })
            .collect();
        assert_eq!(
            seen,
            vec![
                "poll of 2 [(0, 3)]",
                "seek Offset(4) Some(4)",
                "poll of 2 [(4, 2)]",
                "seek by time Some(4)",
                "Latest Some(6)",
                "time Some(4) Some(17)",
                "delete 3 Some(3)",
                "Earliest Some(3)",
                "seek Offset(0) Some(0)",
                // The position lay below the log start: the queue was not read, and the consumer went to the beginning.
                "poll of 1 []",
                "seek Beginning Some(3)",
            ]
        );
    });
}

#[test]
fn changed_bytes_become_corrupt_records() {
    run(async {
        let world = World::new(&[]);
        run_client(&world.context(0), &producer(2)).await.expect("the plan is well-formed");
        world.broker.model.borrow_mut().flips_bits = true;
        run_client(&world.context(1), &consumer(vec![POLL])).await.expect("the plan is well-formed");
        let history = world.history();
        let Call::Poll { runs, corrupt, .. } = &history[2].call else { panic!("{:?}", history[2]) };
        assert_eq!((runs.len(), corrupt.len()), (0, 2));
    });
}

#[test]
fn final_reads_of_a_broker_that_is_away_end_at_their_bound() {
    run(async {
        let world = World::new(&[]);
        world.broker.model.borrow_mut().refused_dials = u32::MAX;
        let began = tokio::time::Instant::now();
        let missing = final_reads(&world.context(9), LIMITS).await.expect_err("nothing can be read");
        assert_eq!(missing.len(), PARTITIONS as usize);
        assert!(began.elapsed() <= LIMITS.bound + LIMITS.request_timeout);
        assert!(world.history().iter().all(|operation| matches!(operation.outcome, Outcome::Refused(_))));
    });
}

#[test]
fn a_queue_read_to_its_end_may_fail_while_the_others_are_still_read() {
    run(async {
        let world = World::new(&[]);
        run_client(&world.context(0), &producer(5)).await.expect("the plan is well-formed");
        world.broker.model.borrow_mut().fences_at_end = true;
        final_reads(&world.context(9), LIMITS).await.expect("everything is there");
        let polls = world.history().into_iter().filter(|operation| matches!(operation.call, Call::Poll { .. })).count();
        assert_eq!(polls, 3, "the queue with less was asked again, behind its end");
    });
}

#[test]
fn topics_are_created_once_and_found_again() {
    run(async {
        let world = World::new(&[]);
        world.broker.model.borrow_mut().topic_exists = false;
        let timeout = Duration::from_millis(500);
        create_topics(&world.context(9), timeout * 4, timeout).await.expect("the broker creates it");
        create_topics(&world.context(9), timeout * 4, timeout).await.expect("it is there");
        let outcomes: Vec<_> = world.history().into_iter().map(|operation| operation.outcome).collect();
        assert_eq!(outcomes[0], Outcome::Done);
        assert!(matches!(outcomes[1], Outcome::Refused(_)));
        world.broker.model.borrow_mut().refused_dials = u32::MAX;
        let mut away = world.context(9);
        away.client = ClientId(8);
        let error = create_topics(&away, timeout, timeout).await.expect_err("nobody is there");
        assert!(matches!(error, WorkloadError::TopicNotReady { .. }));
    });
}

#[test]
fn a_plan_that_asks_for_the_impossible_is_refused_before_it_runs() {
    run(async {
        let world = World::new(&[]);
        let mut client = producer(1);
        client.operations.push(PlannedOperation { at_ms: 0, action: POLL });
        let error = run_client(&world.context(0), &client).await.expect_err("producers do not poll");
        assert_eq!(error, WorkloadError::WrongRole { client: 0, index: 1, role: "a producer" });
        let nowhere = Queue { topic: 0, partition: 7 };
        let seek = ClientAction::Seek { queue: nowhere, to: SeekTarget::Beginning };
        let error = run_client(&world.context(1), &consumer(vec![seek])).await.expect_err("there is no such queue");
        assert_eq!(error, WorkloadError::NoSuchQueue { client: 1, index: 0, topic: 0, partition: 7 });
        let mut client = producer(1);
        client.role = Role::Producer { acks: 1, idempotent: true, in_flight: 5, attempts: 4, request_timeout_ms: 500 };
        let error = run_client(&world.context(0), &client).await.expect_err("idempotence needs acks=all");
        assert!(matches!(error, WorkloadError::Producer { .. }));
        assert_eq!(world.history().len(), 0);
    });
}
