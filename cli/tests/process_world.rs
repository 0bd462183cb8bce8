//! The process world on the reference broker: real kills, pauses and cut links leave a valid history, and a broker that
//! forgets what it acknowledged when it is killed is seen to. The second shows that the first can fail.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::check::{self, Verdict};
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::sample::sample;
use mqassay_harness::plan::scenario::Scenario;
use mqassay_harness::process::ProcessOptions;
use mqassay_harness::process::world::{Node, NodeError, ProcessWorld, Ran, ReferenceNode};

const SCENARIO: &str = r#"
name = "processes"
title = "Real processes are killed, stopped, restarted and cut off."
[world]
safety_ms = 4000
[settings]
flush = ["ack"]
[topics]
count = 1
queues = 2
auto_created = 0.0
[workload]
producers = 2
consumers = 1
batches = 300
polls = 60
acks = [-1]
idempotent = [true]
attempts = [60]
request_timeout_ms = 1000
[faults]
kill = 3
restart = 1
pause = 1
link-cut = 1
link-hold = 1
"#;

fn plan() -> Plan {
    sample(&Scenario::parse("processes", SCENARIO).unwrap(), 1, None)
}

fn run(plan: &Plan, node: impl FnOnce(ReferenceNode, PathBuf) -> Box<dyn Node>) -> (Ran, Verdict) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let address: SocketAddr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let world = ProcessWorld::prepare(plan, vec![address]).unwrap();
    let mut arguments: Vec<OsString> = ["broker", "--flush", "ack", "--data"].iter().map(OsString::from).collect();
    arguments.push(data.clone().into());
    let program = env!("CARGO_BIN_EXE_mqassay").into();
    let options = ProcessOptions { program, arguments, ready_timeout: Duration::from_secs(30) };
    let mut node = node(ReferenceNode::new(options, address), data);
    node.start().unwrap();
    let (ran, nodes) = world.run(vec![node]).unwrap();
    for mut node in nodes {
        node.stop(Duration::from_secs(20)).unwrap();
    }
    let verdict = check::judge(&ran.history, &ran.judge);
    (ran, verdict)
}

#[test]
fn real_faults_break_nothing() {
    let plan = plan();
    let (ran, verdict) = run(&plan, |node, _| Box::new(node));
    assert_eq!(verdict.kind, VerdictKind::Valid, "{verdict:#?}");
    assert_eq!(ran.plan.faults.len(), plan.faults.len(), "this world offers every class of the scenario");
    // How many find their node up depends on how fast it starts.
    assert!(ran.struck >= 2, "only {} faults struck", ran.struck);
    assert!(ran.events["connection-lost"] > 0, "{:?}", ran.events);
}

/// A broker whose disk is wiped by each kill.
struct Forgetful {
    node: ReferenceNode,
    data: PathBuf,
}

impl Forgetful {
    fn wipe(data: &Path) {
        std::fs::remove_dir_all(data).unwrap();
    }
}

impl Node for Forgetful {
    fn address(&self) -> SocketAddr {
        self.node.address()
    }

    fn start(&mut self) -> Result<(), NodeError> {
        self.node.start()
    }

    fn kill(&mut self) -> Result<(), NodeError> {
        self.node.kill()?;
        Forgetful::wipe(&self.data);
        Ok(())
    }

    fn ask_to_end(&mut self) -> Result<(), NodeError> {
        self.node.ask_to_end()
    }

    fn has_ended(&mut self) -> Result<bool, NodeError> {
        self.node.has_ended()
    }

    fn last_words(&self) -> String {
        self.node.last_words()
    }

    fn pause(&mut self) -> Result<(), NodeError> {
        self.node.pause()
    }

    fn resume(&mut self) -> Result<(), NodeError> {
        self.node.resume()
    }

    fn exited(&mut self) -> Result<Option<String>, NodeError> {
        self.node.exited()
    }
}

#[test]
fn a_broker_that_forgets_when_killed_is_seen() {
    let mut plan = plan();
    // The topic comes back, empty, with the first request that asks for it.
    plan.topics.iter_mut().for_each(|topic| topic.auto_created = true);
    let (_, verdict) = run(&plan, |node, data| Box::new(Forgetful { node, data }));
    assert_eq!(verdict.kind, VerdictKind::Invalid, "{verdict:#?}");
    let seen = verdict.violations();
    assert!(seen.contains_key("lost-write") || seen.contains_key("unseen"), "{seen:?}");
}

/// On a slow machine nobody may lead yet when the first kill strikes, or lead again before the load ends: then a longer
/// load must show an outage and its end. That nothing is lost holds each time.
#[test]
fn three_processes_under_load_lose_nothing_when_the_leader_is_killed() {
    let has_seen_an_outage = |seconds: &str| {
        let runs = tempfile::tempdir().unwrap();
        let arguments = ["verify", "soak", "--world", "process", "--duration", seconds, "--seeds", "1..1", "--json"];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mqassay"));
        let output = command.args(arguments).arg("--runs-dir").arg(runs.path()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let run = lines.iter().find(|line| line["scenario"] == "soak").unwrap();
        assert_eq!(run["verdict"], "valid", "{text}");
        let outage = lines.iter().find(|line| line["outages"] == "kill");
        let is_seen = outage.is_some_and(|outage| {
            outage["count"].as_u64() > Some(0) && outage["unended"] == 0 && outage["worst_ms"].is_number()
        });
        is_seen && run["faults"].as_u64() > Some(0)
    };
    assert!(["8", "16", "32"].iter().any(|seconds| has_seen_an_outage(seconds)), "no outage, or none that ended");
}
