//! Raft against its promises under loss, delay, reordering, crashes that forget what was not durable, compaction and
//! changes of voters: one leader a term, logs that match, nothing committed is ever lost or differs.
//! The defect (voters changed hastily) must break them, or the test proves nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;

const NODES: i32 = 5;
const TIMEOUT: Duration = Duration::from_millis(100);

struct Node {
    raft: Option<Raft>,
    disk: Durable,
    /// Handed out, not durable yet.
    pending: VecDeque<Persist>,
    confirmed: u64,
    /// What was applied by this process, behind its snapshot.
    applied: u64,
}

struct Model {
    nodes: Vec<Node>,
    hasty: bool,
    now: Duration,
    network: Vec<(NodeId, NodeId, RaftMessage)>,
    leaders: BTreeMap<u64, NodeId>,
    committed: BTreeMap<u64, Entry>,
    proposals: u64,
    draws: u64,
    /// What was found broken.
    broken: Option<String>,
    snapshots: u64,
}

fn peer(id: i32) -> Peer {
    Peer { id: NodeId(id), host: format!("node-{id}"), port: 9092 }
}

impl Model {
    fn new(voters: i32, hasty: bool) -> Model {
        let node = || Node { raft: None, disk: Durable::default(), pending: VecDeque::new(), confirmed: 0, applied: 0 };
        let mut model = Model {
            nodes: (0..NODES).map(|_| node()).collect(),
            hasty,
            now: Duration::from_secs(1),
            network: Vec::new(),
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            proposals: 0,
            draws: 0,
            broken: None,
            snapshots: 0,
        };
        for id in 0..voters {
            model.nodes[id as usize].disk.voters = (0..voters).map(peer).collect();
            model.start(id);
        }
        model
    }

    fn start(&mut self, id: i32) {
        self.draws += 1;
        let settings =
            RaftSettings { id: NodeId(id), election_timeout: TIMEOUT, draw: self.draws, hasty_voters: self.hasty };
        let node = &mut self.nodes[id as usize];
        let disk = node.disk.clone();
        node.applied = disk.base.map_or(0, |base| base.index + 1);
        let voters = disk.voters.clone();
        node.raft = Some(Raft::new(settings, disk, voters, self.now));
        node.confirmed = 0;
    }

    fn crash(&mut self, id: i32) {
        let node = &mut self.nodes[id as usize];
        node.raft = None;
        node.pending.clear();
    }

    fn act(&mut self, id: i32, act: impl FnOnce(&mut Raft, Duration, &mut RaftOutput)) {
        let now = self.now;
        let Some(raft) = &mut self.nodes[id as usize].raft else { return };
        let mut output = RaftOutput::default();
        act(raft, now, &mut output);
        self.take(id, output);
    }

    fn take(&mut self, id: i32, output: RaftOutput) {
        let now = self.now;
        let node = &mut self.nodes[id as usize];
        node.pending.extend(output.persist);
        self.network.extend(output.messages.into_iter().map(|(to, message)| (NodeId(id), to, message)));
        assert!(self.network.len() < 5_000, "messages must not multiply");
        let Some(raft) = &mut node.raft else { return };
        if let Some((last, bytes)) = output.install {
            let voters: Vec<Peer> = postcard::from_bytes(&bytes).expect("it was encoded below");
            let keeps = raft.holds(last);
            node.disk.entries.retain(|entry| keeps && entry.id.index > last.index);
            (node.disk.base, node.disk.voters) = (Some(last), voters.clone());
            assert!(node.pending.iter().all(|record| matches!(record, Persist::State { .. })));
            let mut output = RaftOutput::default();
            raft.installed(last, voters, &mut output);
            node.applied = last.index + 1;
            self.snapshots += 1;
            return self.take(id, output);
        }
        if output.is_snapshot_wanted
            && let Some((last, voters)) = raft.applied()
        {
            let bytes = Bytes::from(postcard::to_stdvec(&voters).expect("texts and numbers"));
            let mut output = RaftOutput::default();
            raft.offer_snapshot(last, bytes, now, &mut output);
            return self.take(id, output);
        }
        self.check(id);
    }

    fn check(&mut self, id: i32) {
        let node = &mut self.nodes[id as usize];
        let Some(raft) = &mut node.raft else { return };
        if raft.is_leader() {
            let leader = *self.leaders.entry(raft.term()).or_insert(NodeId(id));
            if leader != NodeId(id) {
                self.broken.get_or_insert(format!("term {} has leaders {leader} and {id}", raft.term()));
            }
        }
        while let Some(entry) = raft.take_committed() {
            assert_eq!(entry.id.index, node.applied, "entries are applied in order");
            node.applied += 1;
            let known = self.committed.entry(entry.id.index).or_insert_with(|| entry.clone());
            if *known != entry {
                self.broken.get_or_insert(format!("index {} was committed as two entries", entry.id.index));
            }
        }
    }

    /// Makes the oldest pending records durable.
    fn sync(&mut self, id: i32, count: usize) {
        let node = &mut self.nodes[id as usize];
        let count = count.min(node.pending.len());
        for record in node.pending.drain(..count) {
            node.disk.add(record);
            node.confirmed += 1;
        }
        let confirmed = node.confirmed;
        self.act(id, |raft, now, output| raft.durable(confirmed, now, output));
    }

    fn deliver(&mut self, index: usize) {
        let (from, to, message) = self.network.swap_remove(index);
        self.act(to.0, |raft, now, output| raft.step(from, message, now, output));
    }

    fn leader(&self) -> Option<i32> {
        let leads = |node: &Node| node.raft.as_ref().is_some_and(Raft::is_leader);
        let term = |id: &i32| self.nodes[*id as usize].raft.as_ref().map(Raft::term);
        (0..NODES).filter(|id| leads(&self.nodes[*id as usize])).max_by_key(term)
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Deliver(which) if !self.network.is_empty() => self.deliver(which as usize % self.network.len()),
            Step::Lose(which) if !self.network.is_empty() => {
                self.network.swap_remove(which as usize % self.network.len());
            }
            Step::Deliver(_) | Step::Lose(_) => {}
            Step::Sync(id, count) => self.sync(i32::from(id) % NODES, count as usize),
            Step::Time(ms) => {
                self.now += Duration::from_millis(u64::from(ms));
                (0..NODES).for_each(|id| self.act(id, Raft::on_deadline));
            }
            Step::Crash(id) => self.crash(i32::from(id) % NODES),
            Step::Start(id) => {
                let id = i32::from(id) % NODES;
                if self.nodes[id as usize].raft.is_none() {
                    self.start(id);
                }
            }
            Step::Propose(id) => {
                self.proposals += 1;
                let record = Bytes::from(self.proposals.to_be_bytes().to_vec());
                self.act(i32::from(id) % NODES, |raft, now, output| {
                    let _ = raft.propose(record, now, output);
                });
            }
            Step::Voter(leader, id) => self.toggle_voter(i32::from(leader) % NODES, i32::from(id) % NODES),
            Step::Compact(id) => self.compact(i32::from(id) % NODES),
            Step::Quiet => self.settle(60),
        }
    }

    fn toggle_voter(&mut self, leader: i32, id: i32) {
        if self.nodes[id as usize].raft.is_none() {
            self.start(id);
        }
        self.act(leader, |raft, now, output| {
            raft.observe(NodeId(id), now);
            let mut voters = raft.voters().to_vec();
            match voters.iter().position(|peer| peer.id == NodeId(id)) {
                Some(index) => drop(voters.remove(index)),
                None => voters.push(peer(id)),
            }
            if !voters.is_empty() {
                let _ = raft.change_voters(voters, now, output);
            }
        });
    }

    fn compact(&mut self, id: i32) {
        let node = &mut self.nodes[id as usize];
        let Some(raft) = &mut node.raft else { return };
        let Some((last, voters)) = raft.applied() else { return };
        if node.disk.base.is_some_and(|base| base.index >= last.index)
            || !node.disk.entries.iter().any(|entry| entry.id == last)
        {
            return;
        }
        node.disk.entries.retain(|entry| entry.id.index > last.index);
        (node.disk.base, node.disk.voters) = (Some(last), voters);
        raft.compact(last.index + 1);
    }

    /// Time without faults: every message arrives, every sync succeeds.
    fn settle(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.now += Duration::from_millis(10);
            (0..NODES).for_each(|id| self.act(id, Raft::on_deadline));
            for _ in 0..6 {
                (0..NODES).for_each(|id| self.sync(id, usize::MAX));
                for (from, to, message) in std::mem::take(&mut self.network) {
                    self.act(to.0, |raft, now, output| raft.step(from, message, now, output));
                }
            }
        }
    }

    /// All logs agree wherever both have an entry with the same id: what comes before is the same.
    fn check_logs(&mut self) {
        let logs: Vec<Vec<Entry>> = self
            .nodes
            .iter()
            .filter_map(|node| node.raft.as_ref())
            .map(|r| r.entries.range(0).cloned().collect())
            .collect();
        for (a, one) in logs.iter().enumerate() {
            for other in &logs[..a] {
                let mut matched = false;
                for entry in one.iter().rev() {
                    let Some(same) = other.iter().find(|e| e.id.index == entry.id.index) else { continue };
                    matched |= same.id == entry.id;
                    if matched && same != entry {
                        self.broken.get_or_insert(format!("logs differ at {:?}", entry.id));
                    }
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Deliver(u16),
    Lose(u16),
    Sync(u8, u8),
    Time(u8),
    Crash(u8),
    Start(u8),
    Propose(u8),
    Voter(u8, u8),
    Compact(u8),
    Quiet,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => any::<u16>().prop_map(Step::Deliver),
        3 => any::<u16>().prop_map(Step::Lose),
        20 => (any::<u8>(), 1..4u8).prop_map(|(id, count)| Step::Sync(id, count)),
        10 => (1..60u8).prop_map(Step::Time),
        2 => any::<u8>().prop_map(Step::Crash),
        4 => any::<u8>().prop_map(Step::Start),
        8 => any::<u8>().prop_map(Step::Propose),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(leader, id)| Step::Voter(leader, id)),
        2 => any::<u8>().prop_map(Step::Compact),
        1 => Just(Step::Quiet),
    ]
}

fn run(voters: i32, hasty: bool, steps: Vec<Step>) -> Model {
    let mut model = Model::new(voters, hasty);
    model.settle(60);
    for step in steps {
        model.play(step);
        if model.broken.is_some() {
            return model;
        }
    }
    model.check_logs();
    model
}

#[test]
fn nothing_committed_is_lost_and_a_term_has_one_leader() {
    let strategy = (1..=3i32, prop::collection::vec(step(), 50..400));
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 1000, failure_persistence: None, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let (mut elections, mut commits, mut snapshots) = (0, 0, 0);
    let counts = std::cell::RefCell::new((&mut elections, &mut commits, &mut snapshots));
    runner
        .run(&strategy, |(voters, steps)| {
            let mut model = run(voters, false, steps);
            prop_assert_eq!(&model.broken, &None);
            // With all nodes back and the network whole, what is proposed is committed, everywhere.
            for id in 0..NODES {
                if model.nodes[id as usize].raft.is_none() {
                    model.start(id);
                }
            }
            model.settle(120);
            let leader = model.leader();
            prop_assert!(leader.is_some(), "somebody leads");
            let before = model.committed.len();
            model.play(Step::Propose(leader.unwrap_or_default() as u8));
            model.settle(30);
            model.check_logs();
            prop_assert_eq!(&model.broken, &None);
            prop_assert!(model.committed.len() > before, "what is proposed is committed");
            let mut counts = counts.borrow_mut();
            *counts.0 += model.leaders.len();
            *counts.1 += model.committed.len();
            *counts.2 += model.snapshots;
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(elections > 2_000 && commits > 6_000 && snapshots > 100, "{elections} {commits} {snapshots}");
}

#[test]
fn an_observer_forgets_a_leader_that_has_gone_silent() {
    let mut model = Model::new(3, false);
    model.settle(60);
    let leader = model.leader().expect("somebody leads");
    model.start(4);
    model.act(leader, |raft, now, _| raft.observe(NodeId(4), now));
    model.settle(20);
    let known = |model: &Model| model.nodes[4].raft.as_ref().and_then(Raft::leader);
    assert_eq!(known(&model), Some(NodeId(leader)));
    let term = model.nodes[4].raft.as_ref().map(Raft::term);
    model.crash(leader);
    model.settle(60);
    assert!(model.leader().is_some_and(|other| other != leader), "the voters have another");
    assert_eq!(known(&model), None, "and nobody has told the observer");
    assert_eq!(model.nodes[4].raft.as_ref().map(Raft::term), term, "which does not stand for election");
}

#[test]
fn voters_changed_hastily_lose_what_was_committed() {
    // nats-server #7545: one of three is cut off; two are added and the old ones removed before anything is committed.
    for hasty in [false, true] {
        let mut model = Model::new(3, hasty);
        model.settle(60);
        let leader = model.leader().expect("somebody leads");
        let other = (0..3).find(|id| *id != leader).expect("three vote");
        let cut = (0..3).find(|id| *id != leader && *id != other).expect("three vote");
        // The leader is cut off from the others; alone with the two new ones it takes the others out.
        for id in [3, 4] {
            model.start(id);
        }
        let keeps = |from: NodeId, to: NodeId| {
            let is_old = |id: NodeId| id.0 == other || id.0 == cut;
            is_old(from) == is_old(to)
        };
        let cut_off = |model: &mut Model, rounds: u32| {
            for _ in 0..rounds {
                model.now += Duration::from_millis(10);
                (0..NODES).for_each(|id| model.act(id, Raft::on_deadline));
                (0..NODES).for_each(|id| model.sync(id, usize::MAX));
                for (from, to, message) in std::mem::take(&mut model.network) {
                    if keeps(from, to) {
                        model.act(to.0, |raft, now, output| raft.step(from, message, now, output));
                    }
                }
            }
        };
        for id in [3, 4, other] {
            model.toggle_voter(leader, id);
            cut_off(&mut model, 3);
        }
        for _ in 0..20 {
            (0..3).for_each(|id| model.play(Step::Propose(id as u8)));
            cut_off(&mut model, 3);
        }
        model.settle(200);
        assert_eq!(model.broken.is_some(), hasty, "{:?}", model.broken);
    }
}
