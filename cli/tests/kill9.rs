//! A real broker process under load with `flush=ack` is killed twenty times and restarted: nothing acknowledged is lost,
//! altered, or there twice with idempotence, and order holds. The same workload, driver and judge as in the simulation.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::check::{self, Context as JudgeContext};
use mqassay_harness::driver::Timer;
use mqassay_harness::driver::real::{SystemTimer, TcpDial};
use mqassay_harness::history::{Call, ClientId, Header, History, Mark, Outcome, SCHEMA_VERSION};
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::draws::Draws;
use mqassay_harness::plan::sample::sample;
use mqassay_harness::plan::scenario::Scenario;
use mqassay_harness::process::{BrokerProcess, ProcessOptions};
use mqassay_harness::workload::Context;
use mqassay_harness::workload::client::run_client;
use mqassay_harness::workload::final_reads::{FinalReads, final_reads};
use mqassay_harness::workload::phase::PhaseSwitch;
use mqassay_harness::workload::recorder::Recorder;
use mqassay_harness::workload::topics::create_topics;

const KILLS: usize = 20;
/// Operations that must end between two kills, so that each strikes under load.
const OPERATIONS_BETWEEN: usize = 60;

const SCENARIO: &str = r#"
name = "kill-9"
title = "A real process is killed under load."
[world]
safety_ms = 2000
[settings]
flush = ["ack"]
[topics]
count = 2
queues = 3
auto_created = 0.0
[workload]
producers = 4
consumers = 2
batches = 1600
polls = 200
records = [1, 20]
acks = [-1]
idempotent = [true]
in_flight = [5]
attempts = [60]
request_timeout_ms = 2000
"#;

fn broker(data: &Path, listen: &str, layout: &str) -> BrokerProcess {
    let text =
        ["broker", "--listen", listen, "--layout", layout, "--flush", "ack", "--set", "segment-bytes=65536", "--data"];
    let mut arguments: Vec<OsString> = text.iter().map(OsString::from).collect();
    arguments.push(data.into());
    let program = env!("CARGO_BIN_EXE_mqassay").into();
    BrokerProcess::start(&ProcessOptions { program, arguments, ready_timeout: Duration::from_secs(30) }).unwrap()
}

/// Kills and restarts the broker on its address each time that enough operations have ended; gives it back.
fn nemesis(
    mut process: BrokerProcess,
    data: &Path,
    layout: &str,
    ended: &AtomicUsize,
    over: &AtomicBool,
) -> (BrokerProcess, usize) {
    let address = process.address().to_owned();
    for kill in 0..KILLS {
        let enough = ended.load(Ordering::SeqCst) + OPERATIONS_BETWEEN;
        while ended.load(Ordering::SeqCst) < enough {
            if over.load(Ordering::SeqCst) {
                return (process, kill);
            }
            std::thread::yield_now();
        }
        process.kill().unwrap();
        process = broker(data, &address, layout);
    }
    (process, KILLS)
}

fn context(
    plan: &Plan,
    client: u32,
    address: &str,
    timer: SystemTimer,
    recorder: &Recorder,
    switch: &PhaseSwitch,
) -> Context<TcpDial, SystemTimer> {
    Context {
        client: ClientId(client),
        dial: TcpDial,
        timer,
        began: Duration::ZERO,
        began_wall_ms: timer.wall_ms(),
        bootstrap: vec![address.to_owned()],
        topics: Rc::new(plan.topics.clone()),
        draws: Draws::new(plan.salt),
        recorder: recorder.clone(),
        phase: switch.phase(),
        events: Rc::new(|_| {}),
        client_mutant: None,
    }
}

/// Runs the plan's clients, then the final reads; gives what they saw.
fn load(plan: &Plan, address: &str, ended: &Arc<AtomicUsize>) -> (History, Result<(), Vec<String>>) {
    let timer = SystemTimer::start();
    let count = ended.clone();
    let recorder = Recorder::new(Box::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let switch = PhaseSwitch::new();
    let reader = plan.clients.len() as u32;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let missing = tokio::task::LocalSet::new().block_on(&runtime, async {
        let admin = context(plan, reader, address, timer, &recorder, &switch);
        create_topics(&admin, Duration::from_secs(20), Duration::from_secs(5)).await.unwrap();
        let clients = plan.clients.iter().enumerate().map(|(index, planned)| {
            let context = context(plan, index as u32, address, timer, &recorder, &switch);
            let planned = planned.clone();
            tokio::task::spawn_local(async move { run_client(&context, &planned).await.unwrap() })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        let limits = FinalReads {
            bound: Duration::from_secs(30),
            request_timeout: Duration::from_secs(5),
            fetch_max_bytes: 1 << 20,
        };
        final_reads(&admin, limits).await
    });
    let header = Header {
        schema: SCHEMA_VERSION,
        topics: plan.topics.iter().map(|topic| topic.name.clone()).collect(),
        title: "kill -9".to_owned(),
    };
    (History { header, operations: recorder.take_operations(), marks: Vec::new() }, missing)
}

fn survives(layout: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let plan = sample(&Scenario::parse("kill-9", SCENARIO).unwrap(), 1, None);
    let process = broker(&data, "127.0.0.1:0", layout);
    let address = process.address().to_owned();
    let (ended, over) = (Arc::new(AtomicUsize::new(0)), AtomicBool::new(false));
    let (mut history, missing, kills) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| nemesis(process, &data, layout, &ended, &over));
        let (history, missing) = load(&plan, &address, &ended);
        over.store(true, Ordering::SeqCst);
        let (mut process, kills) = killer.join().unwrap();
        assert!(process.terminate(Duration::from_secs(20)).unwrap().success(), "SIGTERM must end it cleanly");
        (history, missing, kills)
    });
    assert_eq!(kills, KILLS, "the load ended too early");
    let kill = |fault| Mark::Fault { at_us: 0, class: "kill".to_owned(), fault, nodes: vec![0] };
    history.marks.extend((0..KILLS as u32).map(kill));
    let at_us = history.operations.last().unwrap().completed_us;
    let (reached, missing) = (missing.is_ok(), missing.err().unwrap_or_default());
    history.marks.push(Mark::LivenessEnded { at_us, reached, missing });

    let verdict = check::judge(&history, &JudgeContext::of_plan(&plan));
    assert_eq!(verdict.kind, VerdictKind::Valid, "{verdict:#?}");
    assert!(verdict.findings.is_empty(), "nothing needs an allowance here: {verdict:#?}");
    let is_acknowledged = |call: &Call| matches!(call, Call::Produce { first_offset: Some(_), .. });
    let done = history.operations.iter().filter(|o| o.outcome == Outcome::Done && is_acknowledged(&o.call)).count();
    assert!(done >= 1_500, "only {done} of 1,600 batches were acknowledged");
}

#[test]
fn twenty_kills_lose_nothing_acknowledged_in_the_shared_layout() {
    survives("shared");
}

#[test]
fn twenty_kills_lose_nothing_acknowledged_in_the_partitioned_layout() {
    survives("partitioned");
}
