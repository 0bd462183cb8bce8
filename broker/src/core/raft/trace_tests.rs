//! Scripted traces: each file under `traces` holds commands (`> …`) and what the nodes did about them, as etcd's raft has
//! them. The test plays the commands again and compares. To record anew, set MQASSAY_RECORD_TRACES and read the
//! difference. Messages wait until they are delivered, records until they are synced.

use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;

use super::*;

const TIMEOUT: Duration = Duration::from_millis(100);

struct Node {
    raft: Option<Raft>,
    disk: Durable,
    pending: VecDeque<Persist>,
    confirmed: u64,
}

struct Player {
    nodes: Vec<Node>,
    voters: Vec<Peer>,
    now: Duration,
    network: VecDeque<(NodeId, NodeId, RaftMessage)>,
    output: String,
}

#[test]
fn the_nodes_do_what_the_traces_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core/raft/traces");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 7, "the traces are there");
    for file in files {
        let recorded = std::fs::read_to_string(&file).unwrap();
        let mut player = Player::new();
        for line in recorded.lines() {
            if line.starts_with('#') {
                writeln!(player.output, "{line}").unwrap();
            } else if let Some(command) = line.strip_prefix("> ") {
                writeln!(player.output, "\n{line}").unwrap();
                player.play(&command.split_whitespace().collect::<Vec<_>>());
            }
        }
        if std::env::var_os("MQASSAY_RECORD_TRACES").is_some() {
            std::fs::write(&file, &player.output).unwrap();
        } else {
            assert_eq!(player.output, recorded, "{}", file.display());
        }
    }
}

fn peer(id: i32) -> Peer {
    Peer { id: NodeId(id), host: format!("node-{id}"), port: 9092 }
}

impl Player {
    fn new() -> Player {
        let node = || Node { raft: None, disk: Durable::default(), pending: VecDeque::new(), confirmed: 0 };
        Player {
            nodes: (0..6).map(|_| node()).collect(),
            voters: Vec::new(),
            now: Duration::from_secs(1),
            network: VecDeque::new(),
            output: String::new(),
        }
    }

    fn play(&mut self, words: &[&str]) {
        let number = |text: &&str| text.parse::<i32>().unwrap();
        match words {
            ["voters", ids @ ..] => {
                self.voters = ids.iter().map(|id| peer(number(id))).collect();
                ids.iter().for_each(|id| self.start(number(id), true));
            }
            ["start", id] => self.start(number(id), !self.nodes[number(id) as usize].disk.entries.is_empty()),
            ["crash", id] => {
                let node = &mut self.nodes[number(id) as usize];
                (node.raft, node.confirmed) = (None, 0);
                node.pending.clear();
            }
            ["stand", id] => {
                // Later than any election time-out of this node.
                self.now += TIMEOUT * 3;
                self.act(number(id), Raft::on_deadline);
            }
            ["time", ms] => self.now += Duration::from_millis(ms.parse().unwrap()),
            ["tick", id] => drop(self.act(number(id), Raft::on_deadline)),
            ["sync", ids @ ..] => ids.iter().for_each(|id| self.sync(number(id))),
            ["deliver", from, to] => self.deliver(|a, b| (a, b) == (number(from), number(to))),
            ["drop", from, to] => self.network.retain(|(a, b, _)| (a.0, b.0) != (number(from), number(to))),
            ["drop-all"] => self.network.clear(),
            ["settle", ids @ ..] => {
                // Among these nodes everything arrives and is synced, until nothing is left to do.
                let ids: Vec<i32> = ids.iter().map(number).collect();
                for _ in 0..20 {
                    ids.iter().for_each(|id| self.sync(*id));
                    self.deliver(|a, b| ids.contains(&a) && ids.contains(&b));
                }
            }
            ["propose", id, text] => {
                let record = Bytes::copy_from_slice(text.as_bytes());
                let result = self.act(number(id), |raft, now, output| raft.propose(record, now, output));
                writeln!(self.output, "{id}: proposed {result:?}").unwrap();
            }
            ["change", id, ids @ ..] => {
                let voters = ids.iter().map(|id| peer(number(id))).collect();
                let result = self.act(number(id), |raft, now, output| raft.change_voters(voters, now, output));
                writeln!(self.output, "{id}: changed {result:?}").unwrap();
            }
            ["compact", id] => self.compact(number(id)),
            ["show", ids @ ..] => ids.iter().for_each(|id| self.show(number(id))),
            _ => panic!("{words:?} is no command"),
        }
    }

    fn start(&mut self, id: i32, is_voter: bool) {
        let settings = RaftSettings { id: NodeId(id), election_timeout: TIMEOUT, draw: id as u64, hasty_voters: false };
        let node = &mut self.nodes[id as usize];
        let voters = if is_voter { self.voters.clone() } else { Vec::new() };
        node.raft = Some(Raft::new(settings, node.disk.clone(), voters, self.now));
    }

    fn act<T>(&mut self, id: i32, act: impl FnOnce(&mut Raft, Duration, &mut RaftOutput) -> T) -> Option<T> {
        let now = self.now;
        let raft = self.nodes[id as usize].raft.as_mut()?;
        let mut output = RaftOutput::default();
        let result = act(raft, now, &mut output);
        self.take(id, output);
        Some(result)
    }

    fn take(&mut self, id: i32, output: RaftOutput) {
        let RaftOutput { persist, messages, is_snapshot_wanted, install, has_role_changed } = output;
        let node = &mut self.nodes[id as usize];
        for record in persist {
            match &record {
                Persist::State { term, vote, .. } => {
                    let vote = vote.map_or("nobody".to_owned(), |vote| vote.to_string());
                    writeln!(self.output, "{id}: persist term {term} vote {vote}").unwrap();
                }
                Persist::Entry { entry, .. } => writeln!(self.output, "{id}: persist {}", entry_text(entry)).unwrap(),
            }
            node.pending.push_back(record);
        }
        for (to, message) in messages {
            let is_sign_of_life = matches!(&message.body, RaftBody::Append { entries, .. } if entries.is_empty());
            if !is_sign_of_life && !matches!(message.body, RaftBody::AppendReply { matched: Some(_), .. }) {
                writeln!(self.output, "{id} to {to}: term {} {}", message.term, body_text(&message.body)).unwrap();
            }
            self.network.push_back((NodeId(id), to, message));
        }
        let Some(raft) = &mut node.raft else { return };
        if has_role_changed && raft.is_leader() {
            writeln!(self.output, "{id}: leads in term {}", raft.term()).unwrap();
        }
        if let Some((last, bytes)) = install {
            writeln!(self.output, "{id}: installs a snapshot up to {}.{}", last.term, last.index).unwrap();
            let voters: Vec<Peer> = postcard::from_bytes(&bytes).unwrap();
            let keeps = raft.holds(last);
            node.disk.entries.retain(|entry| keeps && entry.id.index > last.index);
            (node.disk.base, node.disk.voters) = (Some(last), voters.clone());
            self.act(id, |raft, _, output| raft.installed(last, voters, output));
        }
        if is_snapshot_wanted
            && let Some((last, voters)) = self.nodes[id as usize].raft.as_ref().and_then(Raft::applied)
        {
            let bytes = Bytes::from(postcard::to_stdvec(&voters).unwrap());
            self.act(id, |raft, now, output| raft.offer_snapshot(last, bytes, now, output));
        }
        self.apply(id);
    }

    fn apply(&mut self, id: i32) {
        let Some(raft) = &mut self.nodes[id as usize].raft else { return };
        while let Some(entry) = raft.take_committed() {
            writeln!(self.output, "{id}: apply {}", entry_text(&entry)).unwrap();
        }
    }

    fn sync(&mut self, id: i32) {
        let node = &mut self.nodes[id as usize];
        if node.pending.is_empty() {
            return;
        }
        node.confirmed += node.pending.len() as u64;
        node.pending.drain(..).for_each(|record| node.disk.add(record));
        let confirmed = node.confirmed;
        self.act(id, |raft, now, output| raft.durable(confirmed, now, output));
    }

    fn deliver(&mut self, is_meant: impl Fn(i32, i32) -> bool) {
        let (now, later) = std::mem::take(&mut self.network).into_iter().partition(|(a, b, _)| is_meant(a.0, b.0));
        self.network = later;
        let now: VecDeque<(NodeId, NodeId, RaftMessage)> = now;
        for (from, to, message) in now {
            self.act(to.0, |raft, now, output| raft.step(from, message, now, output));
        }
    }

    fn compact(&mut self, id: i32) {
        let node = &mut self.nodes[id as usize];
        let Some(raft) = &mut node.raft else { return };
        let Some((last, voters)) = raft.applied() else { return };
        node.disk.entries.retain(|entry| entry.id.index > last.index);
        (node.disk.base, node.disk.voters) = (Some(last), voters);
        raft.compact(last.index + 1);
    }

    fn show(&mut self, id: i32) {
        let Some(raft) = &self.nodes[id as usize].raft else { return };
        let log: Vec<String> = raft.entries.range(0).map(entry_text).collect();
        let leader = raft.leader().map_or("nobody".to_owned(), |leader| leader.to_string());
        let line = format!("term {} leader {leader} commit {} log [{}]", raft.term(), raft.commit(), log.join(", "));
        writeln!(self.output, "{id}: {line}").unwrap();
    }
}

fn entry_text(entry: &Entry) -> String {
    let EntryId { term, index } = entry.id;
    let content = match &entry.payload {
        Payload::Began => "began".to_owned(),
        Payload::Record(record) => String::from_utf8_lossy(record).into_owned(),
        Payload::Voters(voters) => {
            format!("voters {}", voters.iter().map(|peer| peer.id.to_string()).collect::<Vec<_>>().join("+"))
        }
    };
    format!("{term}.{index} {content}")
}

fn body_text(body: &RaftBody) -> String {
    let place = |last: &Option<EntryId>| last.map_or("nothing".to_owned(), |id| format!("{}.{}", id.term, id.index));
    match body {
        RaftBody::PreVote { last } => format!("would you vote, with {}", place(last)),
        RaftBody::PreVoteReply { granted } => format!("would vote: {granted}"),
        RaftBody::Vote { last } => format!("vote, with {}", place(last)),
        RaftBody::VoteReply { granted } => format!("voted: {granted}"),
        RaftBody::Append { previous, entries, .. } => {
            let entries: Vec<String> = entries.iter().map(entry_text).collect();
            format!("append after {}: {}", place(previous), entries.join(", "))
        }
        RaftBody::AppendReply { matched: Some(end), .. } => format!("matches below {end}"),
        RaftBody::AppendReply { matched: None, retry, .. } => format!("does not fit, try {retry}"),
        RaftBody::Snapshot { last, at, .. } => format!("snapshot up to {}.{} from byte {at}", last.term, last.index),
        RaftBody::SnapshotReply { last, .. } => format!("has the snapshot up to {}.{}", last.term, last.index),
    }
}
