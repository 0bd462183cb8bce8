//! The simulated world as a whole, with a small server as its node: determinism, links, gates, crashes and phases.
//! The server appends each request to a file, syncs, and echoes it; it knows nothing of Kafka but the framing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::net::SimStream;
use super::node::{NodeEnd, SimClient, SimNode};
use super::trace::first_difference;
use super::world::{Control, NODE_PORT, Outcome, World, WorldError};
use crate::history::Mark;
use crate::plan::{self, DiskOperation, Endpoint, Fault, FaultAction, LinkRule, OnlyRequest, Plan, Trigger};

const CLIENT: Endpoint = Endpoint::Client(0);
const NODE: Endpoint = Endpoint::Node(0);

fn plan(faults: Vec<Fault>) -> Plan {
    Plan {
        schema: plan::SCHEMA_VERSION,
        scenario: "test".to_string(),
        seed: 1,
        salt: 7,
        mutant: None,
        client_mutant: None,
        world: plan::World {
            nodes: 1,
            joining: 0,
            tick_ms: 10,
            latency_ms: 1,
            jitter_ms: 0,
            sync_us: 500,
            safety_ms: 10_000,
            liveness_ms: 5_000,
            disk_bytes: 1 << 30,
            core: Vec::new(),
            budget: plan::Budget::default(),
        },
        settings: BTreeMap::new(),
        topics: Vec::new(),
        clients: Vec::new(),
        faults,
        recorded_trace: None,
    }
}

fn at(at_ms: u64, action: FaultAction) -> Fault {
    Fault { trigger: Trigger::At { at_ms }, action, salt: at_ms }
}

fn at_point(name: &str, occurrence: u32, action: FaultAction) -> Fault {
    let trigger = Trigger::Point { name: name.to_string(), node: 0, occurrence, armed_ms: 0 };
    Fault { trigger, action, salt: 3 }
}

fn link(from: Endpoint, to: Endpoint, rule: LinkRule, duration_ms: u64) -> FaultAction {
    FaultAction::Link { from, to, rule, duration_ms, only: None }
}

fn frame(api_key: i16, correlation: i32) -> Vec<u8> {
    let mut bytes = 8i32.to_be_bytes().to_vec();
    bytes.extend(api_key.to_be_bytes());
    bytes.extend(0i16.to_be_bytes());
    bytes.extend(correlation.to_be_bytes());
    bytes
}

/// Reads one request of the test's framing: its correlation id.
async fn read_request(stream: &mut SimStream) -> io::Result<i32> {
    let mut bytes = [0; 12];
    stream.read_exact(&mut bytes).await?;
    Ok(i32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]))
}

async fn read_answer(stream: &mut SimStream) -> io::Result<i32> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).await?;
    Ok(i32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]))
}

fn failed(error: io::Error) -> NodeEnd {
    NodeEnd { reason: error.to_string(), declared: error.raw_os_error() == Some(5) }
}

/// The server: file `before` grows ahead of the point `appended`, file `after` behind it.
async fn serve(node: SimNode) -> Result<(), NodeEnd> {
    let _lock = node.disk.lock_exclusive("lock").map_err(failed)?;
    let mut listener = node.net.listen(([0, 0, 0, 0], NODE_PORT).into()).await.map_err(failed)?;
    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    loop {
        tokio::select! {
            biased;
            () = node.stop.wait() => return Ok(()),
            Some(end) = ended.recv() => return Err(end),
            accepted = listener.accept() => {
                let (mut stream, _) = accepted.map_err(failed)?;
                let (node, ends) = (node.clone(), ends.clone());
                spawn_local(async move {
                    while let Ok(correlation) = read_request(&mut stream).await {
                        if let Err(error) = answer(&node, &mut stream, correlation).await {
                            let _told = ends.send(failed(error));
                        }
                    }
                });
            }
        }
    }
}

async fn answer(node: &SimNode, stream: &mut SimStream, correlation: i32) -> io::Result<()> {
    append(node, "before", correlation)?;
    node.gate.point("appended");
    append(node, "after", correlation)?;
    let file = node.disk.open("before", false)?;
    node.disk.sync_file(&file).await?;
    node.disk.sync_directory("")?;
    node.gate.point("synced");
    let mut bytes = 4i32.to_be_bytes().to_vec();
    bytes.extend(correlation.to_be_bytes());
    stream.write_all(&bytes).await
}

fn append(node: &SimNode, path: &str, correlation: i32) -> io::Result<()> {
    let file = node.disk.open(path, true)?;
    let end = node.disk.length(&file)?;
    node.disk.write_at(&file, end, &[Bytes::copy_from_slice(&correlation.to_be_bytes())])
}

/// What the test's client saw: per request its id, when it was sent, and when (and how) it ended, in milliseconds.
type Asked = (i32, u64, Result<u64, io::ErrorKind>);
type Seen = Rc<RefCell<Vec<Asked>>>;

/// Sends requests one after the other, 50 ms apart, each on a new connection where the last one failed.
async fn ask(client: SimClient, requests: i32, seen: Seen) -> Result<(), Vec<String>> {
    let mut stream = None;
    for correlation in 0..requests {
        let sent = client.clock.monotonic();
        let asked = timeout(Duration::from_millis(1500), async {
            if stream.is_none() {
                stream = Some(client.net.dial(&format!("node-0:{NODE_PORT}")).await?);
            }
            let stream = stream.as_mut().expect("it was made above");
            stream.write_all(&frame((correlation % 2) as i16, correlation)).await?;
            assert_eq!(read_answer(stream).await?, correlation);
            Ok(())
        });
        let result = asked.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let ended_ms = client.clock.monotonic().as_millis() as u64;
        if result.is_err() {
            stream = None;
        }
        client.trace.event("asked", &[("correlation", correlation as u64)]);
        let result = result.map(|()| ended_ms).map_err(|error: io::Error| error.kind());
        seen.borrow_mut().push((correlation, sent.as_millis() as u64, result));
        client.clock.sleep_until(sent + Duration::from_millis(50)).await;
    }
    client.operations_done.raise();
    Ok(())
}

/// One server and one client that sends so many requests.
fn run_requests(plan: &Plan, requests: i32) -> (Outcome, Vec<Asked>) {
    let seen = Seen::default();
    let mut world = World::new(plan).unwrap();
    world.add_node(0, serve).unwrap();
    let shared = seen.clone();
    world.add_client(0, move |client| ask(client, requests, shared)).unwrap();
    let outcome = world.run(Control { record_trace: true }).unwrap();
    let seen = seen.borrow().clone();
    (outcome, seen)
}

/// Requests that took longer than a few steps.
fn late(seen: &[Asked]) -> Vec<(i32, u64)> {
    let took = seen.iter().map(|(id, sent, result)| (*id, result.unwrap() - sent));
    took.filter(|(_, took)| *took > 60).collect()
}

fn exits(outcome: &Outcome) -> Vec<(String, bool)> {
    let marks = outcome.marks.iter().filter_map(|mark| match mark {
        Mark::NodeExit { reason, declared, .. } => Some((reason.clone(), *declared)),
        Mark::Fault { .. } | Mark::LivenessBegan { .. } | Mark::LivenessEnded { .. } => None,
    });
    marks.collect()
}

/// A plan with something of everything.
fn eventful() -> Plan {
    let mut plan = plan(vec![
        at(300, link(CLIENT, NODE, LinkRule::Delay { delay_ms: 30 }, 400)),
        at(900, FaultAction::Kill { node: 0, restart_after_ms: 200 }),
        at(1500, link(NODE, CLIENT, LinkRule::Hold, 300)),
        at(2500, FaultAction::PowerLoss { node: 0, restart_after_ms: 300 }),
        at(3500, FaultAction::DiskError { node: 0, operations: 1, on: DiskOperation::Sync }),
    ]);
    plan.world.jitter_ms = 5;
    plan
}

#[test]
fn the_same_plan_twice_gives_the_same_trace() {
    let (one, seen_one) = run_requests(&eventful(), 80);
    let (two, seen_two) = run_requests(&eventful(), 80);
    assert_eq!(first_difference(&one.trace_lines, &two.trace_lines), None);
    assert_eq!((&one.trace_hash, seen_one), (&two.trace_hash, seen_two));
    assert!(one.trace_events > 500, "only {} events", one.trace_events);
    assert_eq!(one.faults_struck, vec![0, 1, 2, 3, 4]);
    let other = Plan { salt: 8, ..eventful() };
    assert_ne!(one.trace_hash, run_requests(&other, 80).0.trace_hash, "another salt draws another jitter");
}

/// The proof that the hash would notice: a client that lets the real clock in.
#[test]
#[allow(clippy::disallowed_methods, reason = "reading the real clock is the point of this test")]
fn a_real_clock_that_leaks_in_changes_the_hash() {
    let run = |leaks: bool| {
        let mut world = World::new(&plan(Vec::new())).unwrap();
        world.add_node(0, serve).unwrap();
        let software = move |client: SimClient| async move {
            let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
            client.trace.event("waited", &[("ns", if leaks { real as u64 } else { 0 })]);
            client.operations_done.raise();
            Ok(())
        };
        world.add_client(0, software).unwrap();
        world.run(Control::default()).unwrap().trace_hash
    };
    assert_eq!(run(false), run(false));
    assert_ne!(run(true), run(true));
}

#[test]
fn one_delivery_that_moves_by_a_tick_changes_the_hash() {
    let only = Some(OnlyRequest { api_key: 1, nth: 3 });
    let rule = LinkRule::Delay { delay_ms: 10 };
    let fault = at(0, FaultAction::Link { from: CLIENT, to: NODE, rule, duration_ms: 5000, only });
    let none =
        FaultAction::Link { from: CLIENT, to: NODE, rule: LinkRule::Delay { delay_ms: 0 }, duration_ms: 5000, only };
    let (moved, _) = run_requests(&plan(vec![fault]), 20);
    let (unmoved, _) = run_requests(&plan(vec![at(0, none)]), 20);
    assert_ne!(moved.trace_hash, unmoved.trace_hash);
    let (_, one, other) = first_difference(&unmoved.trace_lines, &moved.trace_lines).unwrap();
    assert!(one.contains("net-read"), "first difference: {one} / {other}");
}

#[test]
fn overlapping_holds_end_each_by_itself() {
    let faults = vec![
        at(100, link(CLIENT, NODE, LinkRule::Hold, 300)),
        at(200, link(Endpoint::AnyClient, Endpoint::AnyNode, LinkRule::Hold, 700)),
    ];
    let (outcome, seen) = run_requests(&plan(faults), 10);
    let late = late(&seen);
    assert_eq!(late.len(), 1, "{seen:?}");
    let (id, _) = late[0];
    let ended = seen[id as usize].2.unwrap();
    assert!((900..=960).contains(&ended), "released at 900, ended at {ended}");
    assert_eq!(outcome.events["link-hold"], 2);
}

#[test]
fn what_was_held_arrives_whole_and_in_order() {
    let plan = plan(vec![at(50, link(CLIENT, NODE, LinkRule::Hold, 500))]);
    let got = Rc::new(RefCell::new((Vec::new(), 0)));
    let mut world = World::new(&plan).unwrap();
    let shared = got.clone();
    let sink = move |node: SimNode| {
        let got = shared.clone();
        async move {
            let mut listener = node.net.listen(([0, 0, 0, 0], NODE_PORT).into()).await.map_err(failed)?;
            let (mut stream, _) = listener.accept().await.map_err(failed)?;
            loop {
                let mut bytes = vec![0; 700];
                let read = stream.read(&mut bytes).await.map_err(failed)?;
                if read == 0 {
                    break;
                }
                got.borrow_mut().0.extend_from_slice(&bytes[..read]);
            }
            got.borrow_mut().1 = node.clock.monotonic().as_millis() as u64;
            std::future::pending().await
        }
    };
    world.add_node(0, sink).unwrap();
    let sent: Vec<u8> = (0..200_000u32).map(|index| (index % 251) as u8).collect();
    let expected = sent.clone();
    let pour = move |client: SimClient| async move {
        let mut stream = client.net.dial("node-0:9092").await.expect("nothing holds the dial yet");
        for piece in sent.chunks(1000) {
            stream.write_all(piece).await.expect("a held link takes bytes");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(stream);
        client.operations_done.raise();
        client.phase.liveness().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(())
    };
    world.add_client(0, pour).unwrap();
    world.run(Control::default()).unwrap();
    let got = got.borrow();
    assert_eq!(got.0, expected);
    assert!((550..=580).contains(&got.1), "the end of the stream is held too: {}", got.1);
}

#[test]
fn the_end_of_a_stream_is_held_like_its_bytes() {
    let mut world = World::new(&plan(vec![at(200, link(NODE, CLIENT, LinkRule::Hold, 500))])).unwrap();
    let software = |node: SimNode| async move {
        let mut listener = node.net.listen(([0, 0, 0, 0], NODE_PORT).into()).await.map_err(failed)?;
        let accepted = listener.accept().await.map_err(failed)?;
        tokio::time::sleep(Duration::from_millis(250)).await;
        drop(accepted);
        std::future::pending().await
    };
    world.add_node(0, software).unwrap();
    let ended = Rc::new(RefCell::new(0));
    let shared = ended.clone();
    let software = move |client: SimClient| async move {
        let mut stream = client.net.dial("node-0:9092").await.expect("nothing holds the dial");
        assert_eq!(stream.read(&mut [0; 10]).await.expect("it was closed cleanly"), 0);
        *shared.borrow_mut() = client.clock.monotonic().as_millis() as u64;
        Ok(())
    };
    world.add_client(0, software).unwrap();
    world.run(Control::default()).unwrap();
    let ended = *ended.borrow();
    assert!((700..=720).contains(&ended), "{ended}");
}

#[test]
fn one_request_or_its_answer_is_delayed_alone() {
    for (from, to) in [(CLIENT, NODE), (NODE, CLIENT)] {
        let only = Some(OnlyRequest { api_key: 1, nth: 3 });
        let rule = LinkRule::Delay { delay_ms: 300 };
        let action = FaultAction::Link { from, to, rule, duration_ms: 5000, only };
        let (outcome, seen) = run_requests(&plan(vec![at(0, action)]), 12);
        // Odd requests have key 1: the third of them is request 5.
        let late = late(&seen);
        assert_eq!(late.iter().map(|(id, _)| *id).collect::<Vec<_>>(), vec![5], "{from:?}: {seen:?}");
        assert!((300..=350).contains(&late[0].1), "{late:?}");
        assert_eq!(outcome.events["one-request"], 1);
    }
}

#[test]
fn a_held_request_waits_for_its_rule_and_no_other_does() {
    let only = Some(OnlyRequest { api_key: 0, nth: 2 });
    let action = FaultAction::Link { from: CLIENT, to: NODE, rule: LinkRule::Hold, duration_ms: 800, only };
    let (_, seen) = run_requests(&plan(vec![at(0, action)]), 8);
    assert_eq!(late(&seen).iter().map(|(id, _)| *id).collect::<Vec<_>>(), vec![2], "{seen:?}");
    assert!((800..=850).contains(&seen[2].2.unwrap()), "{seen:?}");
}

#[test]
fn a_cut_resets_the_connection_after_its_time() {
    let (outcome, seen) =
        run_requests(&plan(vec![at(100, link(NODE, CLIENT, LinkRule::Cut { reset_after_ms: 200 }, 1000))]), 10);
    let failed: Vec<_> = seen.iter().filter(|(.., result)| result.is_err()).collect();
    assert_eq!(failed[0].2, Err(io::ErrorKind::ConnectionReset), "{seen:?}");
    assert!(seen.last().unwrap().2.is_ok(), "{seen:?}");
    assert!(outcome.events["connection-reset"] >= 1);
}

#[test]
fn a_kill_at_a_point_cuts_the_turn_right_there() {
    for occurrence in [1, 3, 4] {
        let kill = FaultAction::Kill { node: 0, restart_after_ms: 100 };
        let plan = plan(vec![at_point("appended", occurrence, kill)]);
        let lengths = Rc::new(RefCell::new(Vec::new()));
        let mut world = World::new(&plan).unwrap();
        let shared = lengths.clone();
        let software = move |node: SimNode| {
            let lengths = shared.clone();
            async move {
                let length = |path| node.disk.open(path, true).and_then(|file| node.disk.length(&file));
                lengths.borrow_mut().push((length("before").map_err(failed)?, length("after").map_err(failed)?));
                serve(node).await
            }
        };
        world.add_node(0, software).unwrap();
        world.add_client(0, |client| ask(client, 8, Seen::default())).unwrap();
        let outcome = world.run(Control::default()).unwrap();
        let occurrence = u64::from(occurrence);
        assert_eq!(*lengths.borrow(), vec![(0, 0), (4 * occurrence, 4 * (occurrence - 1))]);
        assert_eq!((outcome.events["fault-at-point"], outcome.events["kill"]), (1, 1));
        assert_eq!(exits(&outcome), vec![], "what the turn did behind its end is no exit");
    }
}

#[test]
fn a_disk_error_at_a_point_strikes_the_very_next_call() {
    let error = FaultAction::DiskError { node: 0, operations: 1, on: DiskOperation::Write };
    let (outcome, seen) = run_requests(&plan(vec![at_point("appended", 3, error)]), 20);
    assert_eq!(exits(&outcome).len(), 1, "the append behind the point failed");
    assert!(exits(&outcome)[0].1, "and the node declared it");
    assert_eq!(seen.iter().position(|(.., result)| result.is_err()), Some(2));
    assert!(seen.last().unwrap().2.is_ok(), "it was started again: {seen:?}");
    assert_eq!((outcome.events["disk-write-error"], outcome.events["fault-at-point"]), (1, 1));
}

#[test]
fn a_killed_process_is_seen_at_once_and_a_lost_machine_is_not() {
    let (_, killed) = run_requests(&plan(vec![at(120, FaultAction::Kill { node: 0, restart_after_ms: 400 })]), 12);
    let refused = killed.iter().filter(|(.., result)| *result == Err(io::ErrorKind::ConnectionRefused)).count();
    assert!(refused >= 4, "{killed:?}");
    let lost = plan(vec![at_point("appended", 3, FaultAction::PowerLoss { node: 0, restart_after_ms: 4000 })]);
    let (outcome, lost) = run_requests(&lost, 8);
    assert_eq!(lost[2].2, Err(io::ErrorKind::TimedOut), "no end of the stream is seen: {lost:?}");
    assert_eq!(lost[3].2, Err(io::ErrorKind::TimedOut), "nobody answers a dial: {lost:?}");
    assert!(lost.last().unwrap().2.is_ok(), "{lost:?}");
    assert_eq!(outcome.events["power-loss"], 1);
}

#[test]
fn a_write_to_a_machine_that_came_back_is_reset() {
    let seen = Rc::new(RefCell::new(None));
    let plan = plan(vec![at(200, FaultAction::PowerLoss { node: 0, restart_after_ms: 300 })]);
    let mut world = World::new(&plan).unwrap();
    world.add_node(0, serve).unwrap();
    let shared = seen.clone();
    let software = move |client: SimClient| async move {
        let mut stream = client.net.dial("node-0:9092").await.expect("the node is up");
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.write_all(&frame(0, 1)).await.expect("the loss is not seen yet");
        let kind = read_answer(&mut stream).await.unwrap_err().kind();
        *shared.borrow_mut() = Some((kind, client.clock.monotonic().as_millis() as u64));
        client.operations_done.raise();
        Ok(())
    };
    world.add_client(0, software).unwrap();
    world.run(Control::default()).unwrap();
    let (kind, when) = seen.borrow().unwrap();
    assert_eq!(kind, io::ErrorKind::ConnectionReset);
    assert!((500..=540).contains(&when), "{when}");
}

#[test]
fn a_panic_in_any_task_of_a_node_is_its_exit() {
    for in_task in [false, true] {
        let mut world = World::new(&plan(Vec::new())).unwrap();
        let software = move |node: SimNode| async move {
            if node.incarnation == 1 {
                tokio::time::sleep(Duration::from_millis(40)).await;
                let fail = async { panic!("the planted bug") };
                if in_task { spawn_local(fail).await.expect("unreachable: it panics") } else { fail.await }
            }
            serve(node).await
        };
        world.add_node(0, software).unwrap();
        let software = |client: SimClient| async move {
            client.operations_done.raise();
            client.phase.liveness().await;
            ask(client, 5, Seen::default()).await
        };
        world.add_client(0, software).unwrap();
        let outcome = world.run(Control::default()).unwrap();
        let exits = exits(&outcome);
        assert_eq!(exits.len(), 1);
        assert!(exits[0].0.contains("the planted bug at harness/src/sim/world_tests.rs"), "{exits:?}");
        assert!(!exits[0].1);
    }
}

#[test]
fn a_clean_restart_stops_the_node_and_one_that_hangs_is_killed() {
    let faults = vec![at(200, FaultAction::Restart { node: 0, restart_after_ms: 100 })];
    let (outcome, seen) = run_requests(&plan(faults.clone()), 12);
    assert_eq!((exits(&outcome), outcome.events["restart"]), (vec![], 1));
    assert!(seen.last().unwrap().2.is_ok() && seen.iter().any(|(.., result)| result.is_err()), "{seen:?}");
    // Long enough a phase to see the end of the bound.
    let stopped_by = |stop_takes: Duration| {
        let mut plan = plan(faults.clone());
        plan.world.liveness_ms = 60_000;
        let mut world = World::new(&plan).unwrap();
        let software = move |node: SimNode| async move {
            node.stop.wait().await;
            tokio::time::sleep(stop_takes).await;
            Ok(())
        };
        world.add_node(0, software).unwrap();
        let wait = async |client: SimClient| {
            client.operations_done.raise();
            client.phase.liveness().await;
            tokio::time::sleep(Duration::from_secs(40)).await;
            Ok(())
        };
        world.add_client(0, wait).unwrap();
        exits(&world.run(Control::default()).unwrap())
    };
    // A stop that syncs much on a slow disk takes its time, and nobody is to blame for that.
    assert_eq!(stopped_by(Duration::from_secs(12)), vec![]);
    let hangs = stopped_by(Duration::from_secs(3_600));
    assert_eq!(hangs, vec![("did not stop within 30 s of being told to".to_string(), false)]);
}

#[test]
fn the_liveness_phase_ends_faults_and_is_bounded() {
    let mut plan = plan(vec![
        at(100, link(CLIENT, NODE, LinkRule::Hold, 60_000)),
        at(150, FaultAction::Kill { node: 0, restart_after_ms: 60_000 }),
        at(180, FaultAction::DiskFull { node: 0, duration_ms: 60_000 }),
    ]);
    plan.world.safety_ms = 1000;
    let (outcome, seen) = run_requests(&plan, 8);
    assert!(seen.last().unwrap().2.is_ok(), "{seen:?}");
    let Some(Mark::LivenessEnded { reached: true, .. }) = outcome.marks.last() else {
        panic!("{:?}", outcome.marks);
    };
    assert!(outcome.simulated < Duration::from_secs(4));
    let mut world = World::new(&plan).unwrap();
    world.add_node(0, serve).unwrap();
    world.add_client(0, |_| std::future::pending()).unwrap();
    world.add_client(1, |_| async { Err(vec!["offset 5 of queue 0".to_string()]) }).unwrap();
    let outcome = world.run(Control::default()).unwrap();
    let missing = vec!["client-0 has not ended".to_string(), "client-1: offset 5 of queue 0".to_string()];
    assert_eq!(outcome.marks.last(), Some(&Mark::LivenessEnded { at_us: 6_000_000, reached: false, missing }));
}

#[test]
fn a_plan_out_of_bounds_is_refused_with_its_field() {
    let mut many = plan(Vec::new());
    many.world.nodes = 9;
    assert!(matches!(World::new(&many), Err(WorldError::OutOfBounds { field: "world.nodes", value: 9, .. })));
    let stranger = plan(vec![at(1, FaultAction::BitFlip { node: 1, within: String::new() })]);
    assert!(matches!(World::new(&stranger), Err(WorldError::OutOfBounds { field: "fault.node", .. })));
    let member = plan(vec![at(1, FaultAction::AddNode { node: 0 })]);
    assert!(matches!(World::new(&member), Err(WorldError::OutOfBounds { field: "fault.node", .. })));
    let mut world = World::new(&plan(Vec::new())).unwrap();
    assert!(matches!(world.add_node(1, serve), Err(WorldError::NoSuchHost { .. })));
}

/// How often each of four nodes was started in the run; those that are there at first were before.
fn starts(outcome: &Outcome) -> [usize; 4] {
    [0, 1, 2, 3].map(|node| {
        let is_start = |line: &&String| line.contains(&format!("node-{node} start"));
        outcome.trace_lines.iter().filter(is_start).count()
    })
}

#[test]
fn a_node_joins_when_it_is_added_and_one_that_is_taken_out_never_runs_again() {
    let kill = |at_ms, node| at(at_ms, FaultAction::Kill { node, restart_after_ms: 50 });
    let lose_power = |at_ms, node| at(at_ms, FaultAction::PowerLoss { node, restart_after_ms: 50 });
    let mut plan = plan(vec![
        kill(100, 3),
        lose_power(150, 3),
        at(300, FaultAction::AddNode { node: 3 }),
        at(400, FaultAction::AddNode { node: 3 }),
        at(500, FaultAction::RemoveNode { node: 1 }),
        at(600, FaultAction::RemoveNode { node: 2 }),
        kill(1500, 3),
        kill(1500, 1),
        lose_power(1600, 1),
    ]);
    (plan.world.nodes, plan.world.joining) = (4, 1);
    let mut world = World::new(&plan).unwrap();
    (0..4).for_each(|node| world.add_node(node, serve).unwrap());
    world.add_client(0, |client| ask(client, 40, Seen::default())).unwrap();
    let operator = |client: SimClient| async move {
        client.operations_done.raise();
        assert_eq!(client.operator.next_removal().await, 1);
        client.clock.sleep_until(Duration::from_millis(1_000)).await;
        client.operator.retire();
        client.operator.removed();
        Ok(())
    };
    world.add_client(1, operator).unwrap();
    let outcome = world.run(Control { record_trace: true }).unwrap();
    assert_eq!(outcome.faults_struck, vec![2, 4, 6], "what is outside or gone cannot be struck, and a majority stays");
    assert_eq!(starts(&outcome), [0, 0, 0, 2], "added, and started again after its kill");
    assert_eq!(outcome.events["node-removed"], 1);
    assert_eq!(exits(&outcome), Vec::new(), "it was told to stop");
    let marked = outcome.marks.iter().filter(|mark| matches!(mark, Mark::Fault { fault: 4, .. })).count();
    assert_eq!(marked, 2, "when it was asked for, and when the node was stopped");
}

#[test]
fn a_pause_holds_everything_of_the_process_and_loses_nothing() {
    let at_start = at(2_000, FaultAction::Pause { node: 0, duration_ms: 300 });
    let while_paused = at(2_100, FaultAction::Restart { node: 0, restart_after_ms: 10 });
    let paused = at_point("appended", 3, FaultAction::Pause { node: 0, duration_ms: 500 });
    let (outcome, seen) = run_requests(&plan(vec![at_start, while_paused, paused]), 60);
    let late = late(&seen);
    assert_eq!(late.len(), 2, "{seen:?}");
    assert_eq!(late[0].0, 2, "the third request is the one that stood at the point");
    assert!((500..=560).contains(&late[0].1) && (240..=360).contains(&late[1].1), "{late:?}");
    assert_eq!(outcome.faults_struck, vec![0, 2], "a process that stands still cannot be told to stop");
    assert_eq!(outcome.point_faults, BTreeMap::from([(("appended".to_string(), "pause".to_string()), 1)]));
    let started_again = outcome.trace_lines.iter().any(|line| line.contains("node-0 start"));
    assert!(!started_again && exits(&outcome).is_empty());
    assert_eq!(outcome.events["pause"], 2);
}

#[test]
fn a_process_can_be_killed_in_its_pause_and_the_next_one_does_not_stand_still() {
    let faults = vec![
        at(300, FaultAction::Pause { node: 0, duration_ms: 5_000 }),
        at(500, FaultAction::Kill { node: 0, restart_after_ms: 100 }),
    ];
    let (outcome, seen) = run_requests(&plan(faults), 40);
    assert_eq!(outcome.faults_struck, vec![0, 1]);
    let failed: Vec<_> = seen.iter().filter(|(_, _, result)| result.is_err()).collect();
    assert!((1..=4).contains(&failed.len()), "only while it was down: {failed:?}");
    assert!(seen.last().unwrap().2.is_ok_and(|ended_ms| ended_ms < 4_000), "{seen:?}");
}
