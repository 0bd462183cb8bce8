//! Replication of the metadata log: a small Raft (Ongaro's dissertation) with pre-vote, check quorum, voters changed one
//! at a time, and snapshots for laggards. Pure: time and messages come in, messages and records to persist go out.
//! Whatever must follow durability (votes, acknowledgements, a leader's own match) waits in `promises` until
//! `Raft::durable` confirms it. Start at `Raft::step` and `Raft::on_deadline`; `replication` has the leader's and
//! follower's side of entries. Not here: the bytes on disk (`metadata_log`) and what entries mean (`metadata`).

mod entries;
pub mod message;
#[cfg(test)]
mod model_tests;
mod replication;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a variable asks it to record its traces anew")]
mod trace_tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::types::NodeId;
use entries::Entries;
use message::{Entry, EntryId, Payload, Peer, RaftBody, RaftMessage};
use replication::{Leadership, Receiving};

/// What a voter is made of.
#[derive(Debug, Clone)]
pub struct RaftSettings {
    /// The node.
    pub id: NodeId,
    /// A follower that hears of no leader for this long, plus a draw below it, stands for election.
    pub election_timeout: Duration,
    /// Draws of election time-outs are a hash of it and the term.
    pub draw: u64,
    /// A deliberate bug: voters are changed without waiting for the change before (nats-server #7545).
    pub hasty_voters: bool,
}

/// A record that must become durable, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Persist {
    /// The term, and whom the node voted for in it.
    State {
        /// The term.
        term: u64,
        /// The vote.
        vote: Option<NodeId>,
        /// Everything below this index was known to be committed.
        commit: u64,
    },
    /// An entry. It takes the place of one with its index, and of all behind that.
    Entry {
        /// The entry.
        entry: Entry,
        /// Everything below this index was known to be committed.
        commit: u64,
    },
}

/// What the durable records of a node add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durable {
    /// The term.
    pub term: u64,
    /// The vote in it.
    pub vote: Option<NodeId>,
    /// Everything below this index is committed.
    pub commit: u64,
    /// The last entry of the snapshot.
    pub base: Option<EntryId>,
    /// Who voted there.
    pub voters: Vec<Peer>,
    /// The entries behind the snapshot.
    pub entries: Vec<Entry>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RaftOutput {
    /// To be made durable, in order; `Raft::durable` hears of it.
    pub persist: Vec<Persist>,
    /// To be sent.
    pub messages: Vec<(NodeId, RaftMessage)>,
    /// A laggard needs a snapshot: `Raft::offer_snapshot`.
    pub is_snapshot_wanted: bool,
    /// A snapshot came: to be made durable in place of everything before its entry, then `Raft::installed`.
    pub install: Option<(EntryId, bytes::Bytes)>,
    /// The node leads now, or does no more.
    pub has_role_changed: bool,
}

/// A voter, or an observer that follows without voting.
#[derive(Debug)]
pub struct Raft {
    settings: RaftSettings,
    term: u64,
    vote: Option<NodeId>,
    role: Role,
    leader: Option<NodeId>,
    entries: Entries,
    /// Everything below is committed.
    commit: u64,
    /// Everything below was taken by `take_committed`; never above `commit`.
    applied: u64,
    /// How many records were handed out to persist, and how many of them are durable.
    handed: u64,
    durable: u64,
    promises: VecDeque<(u64, Promise)>,
    /// When to stand for election.
    election_at: Duration,
    /// Until then the node believes in its leader, and votes for nobody.
    lease_until: Duration,
    /// Elections stood for in this term, so that each has a draw of its own.
    attempts: u64,
    receiving: Option<Receiving>,
}

#[derive(Debug)]
enum Role {
    Follower,
    /// Asks whether it would be elected.
    PreCandidate(BTreeSet<NodeId>),
    Candidate(BTreeSet<NodeId>),
    Leader(Leadership),
}

/// What waits for durability. A promise of an earlier term is void.
#[derive(Debug)]
enum Promise {
    Send(NodeId, RaftMessage),
    OwnVote(u64),
    OwnMatch { term: u64, end: u64 },
}

impl Durable {
    /// Adds the next record.
    pub fn add(&mut self, record: Persist) {
        match record {
            Persist::State { term, vote, commit } => {
                (self.term, self.vote) = (term, vote);
                self.commit = self.commit.max(commit);
            }
            Persist::Entry { entry, commit } => {
                let start = self.base.map_or(0, |id| id.index + 1);
                self.commit = self.commit.max(commit);
                self.entries.truncate(entry.id.index.saturating_sub(start) as usize);
                if entry.id.index >= start {
                    self.entries.push(entry);
                }
            }
        }
    }
}

impl Raft {
    /// A node with what it made durable before. `voters` vote where no entry says otherwise.
    pub fn new(settings: RaftSettings, durable: Durable, voters: Vec<Peer>, now: Duration) -> Raft {
        let Durable { term, vote, commit, base, voters: known, entries } = durable;
        let mut log = Entries::new(base, if base.is_some() { known } else { voters });
        entries.into_iter().for_each(|entry| log.push(entry));
        let commit = commit.max(log.start()).min(log.end());
        let applied = log.start();
        let mut raft = Raft {
            settings,
            term,
            vote,
            role: Role::Follower,
            leader: None,
            entries: log,
            commit,
            applied,
            handed: 0,
            durable: 0,
            promises: VecDeque::new(),
            election_at: now,
            lease_until: now,
            attempts: 0,
            receiving: None,
        };
        if !raft.is_alone() {
            raft.arm_election(now);
        }
        raft
    }

    /// The term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Who leads, as far as the node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Whether the node leads.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Whether the node leads, and has committed an entry of its own: it knows of everything committed before it.
    pub fn is_settled_leader(&self) -> bool {
        matches!(&self.role, Role::Leader(leadership) if self.commit > leadership.began)
    }

    /// Who votes.
    pub fn voters(&self) -> &[Peer] {
        self.entries.voters()
    }

    /// Everything below this index is committed.
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// The next committed entry that was not taken yet.
    pub fn take_committed(&mut self) -> Option<Entry> {
        if self.applied >= self.commit {
            return None;
        }
        let entry = self.entries.get(self.applied)?.clone();
        self.applied += 1;
        Some(entry)
    }

    /// The entry that was taken last, and who voted there: for a snapshot of what the entries add up to.
    pub fn applied(&self) -> Option<(EntryId, Vec<Peer>)> {
        let last = self.entries.before(self.applied)??;
        Some((last, self.entries.voters_below(self.applied).to_vec()))
    }

    /// The entries below an index are in a durable snapshot; those below `keep` are not wanted any more.
    pub fn compact(&mut self, keep: u64) {
        self.entries.drop_below(keep.min(self.applied));
    }

    /// Index of the first entry that is held in memory.
    pub fn start(&self) -> u64 {
        self.entries.start()
    }

    /// Whether an entry is here, or was the last that was dropped.
    pub fn holds(&self, id: EntryId) -> bool {
        self.entries.id(id.index) == Some(id)
    }

    /// The record that holds term, vote and commit as they are now.
    pub fn state(&self) -> Persist {
        Persist::State { term: self.term, vote: self.vote, commit: self.commit }
    }

    /// When `on_deadline` wants to be called.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.role {
            Role::Leader(leadership) => leadership.deadline(),
            // It waits for its own vote to become durable.
            Role::Candidate(_) if self.is_alone() => None,
            // Who does not vote is not asked for its vote either, so silence is all that tells it of another leader.
            Role::Follower | Role::PreCandidate(_) | Role::Candidate(_) => {
                (self.may_stand() || self.leader.is_some()).then_some(self.election_at)
            }
        }
    }

    /// Does what is due.
    pub fn on_deadline(&mut self, now: Duration, output: &mut RaftOutput) {
        if self.deadline().is_none_or(|at| at > now) {
            return;
        }
        match self.role {
            Role::Leader(_) => self.on_heartbeat_due(now, output),
            Role::Follower | Role::PreCandidate(_) | Role::Candidate(_) => self.ask_for_election(now, output),
        }
    }

    /// Takes a message.
    pub fn step(&mut self, from: NodeId, message: RaftMessage, now: Duration, output: &mut RaftOutput) {
        let RaftMessage { term, body } = message;
        match body {
            RaftBody::PreVote { last } => return self.on_pre_vote(from, term, last, now, output),
            RaftBody::PreVoteReply { granted: true } => return self.on_pre_vote_granted(from, term, now, output),
            RaftBody::Vote { .. } if self.lease_until > now => return,
            _ => {}
        }
        if term > self.term {
            self.follow(term, None, now, output);
        }
        let is_current = term == self.term;
        match body {
            RaftBody::Vote { last } => self.on_vote(from, is_current, last, now, output),
            RaftBody::VoteReply { granted } if is_current && granted => self.on_vote_granted(from, now, output),
            RaftBody::Append { previous, entries, commit, sent } => {
                if is_current {
                    self.hear_leader(from, now, output);
                    self.on_append(from, previous, entries, commit, sent, output);
                } else {
                    self.refuse_append(from, sent, output);
                }
            }
            RaftBody::AppendReply { matched, retry, sent } if is_current => {
                self.on_append_reply(from, matched, retry, sent, now, output);
            }
            RaftBody::Snapshot { last, at, total, bytes, sent } => {
                if is_current {
                    self.hear_leader(from, now, output);
                    self.on_snapshot_part(from, last, at, total, &bytes, sent, output);
                } else {
                    self.refuse_append(from, sent, output);
                }
            }
            RaftBody::SnapshotReply { last, received, sent } if is_current => {
                self.on_snapshot_reply(from, last, received, sent, now, output);
            }
            // Replies of another term, and refusals, change nothing but the term.
            RaftBody::PreVote { .. }
            | RaftBody::PreVoteReply { .. }
            | RaftBody::VoteReply { .. }
            | RaftBody::AppendReply { .. }
            | RaftBody::SnapshotReply { .. } => {}
        }
    }

    /// The first `count` records ever handed out are durable.
    pub fn durable(&mut self, count: u64, now: Duration, output: &mut RaftOutput) {
        assert!(count <= self.handed, "only what was handed out becomes durable");
        self.durable = self.durable.max(count);
        while self.promises.front().is_some_and(|(wanted, _)| *wanted <= self.durable) {
            let Some((_, promise)) = self.promises.pop_front() else { break };
            self.keep_promise(promise, now, output);
        }
    }

    /// How many records were handed out to persist.
    pub fn handed(&self) -> u64 {
        self.handed
    }

    fn keep_promise(&mut self, promise: Promise, now: Duration, output: &mut RaftOutput) {
        match promise {
            Promise::Send(to, message) if message.term == self.term => output.messages.push((to, message)),
            Promise::OwnVote(term) if term == self.term => {
                let id = self.settings.id;
                self.on_vote_granted(id, now, output);
            }
            Promise::OwnMatch { term, end } if term == self.term => self.on_own_match(end, now, output),
            // Of an earlier term: who has voted or acknowledged since must not do so for the past.
            Promise::Send(..) | Promise::OwnVote(_) | Promise::OwnMatch { .. } => {}
        }
    }

    fn promise(&mut self, promise: Promise, now: Duration, output: &mut RaftOutput) {
        if self.durable == self.handed {
            self.keep_promise(promise, now, output);
        } else {
            self.promises.push_back((self.handed, promise));
        }
    }

    fn persist(&mut self, record: Persist, output: &mut RaftOutput) {
        self.handed += 1;
        output.persist.push(record);
    }

    fn is_voter(&self) -> bool {
        self.voters().iter().any(|peer| peer.id == self.settings.id)
    }

    /// Whether the node votes, or is needed until its removal is committed.
    fn may_stand(&self) -> bool {
        let committed = self.entries.voters_below(self.commit);
        self.is_voter() || committed.iter().any(|peer| peer.id == self.settings.id)
    }

    fn is_alone(&self) -> bool {
        self.is_voter() && self.voters().len() == 1
    }

    fn is_majority(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let voters = self.voters();
        let count = voters.iter().filter(|peer| nodes.contains(&peer.id)).count();
        count > voters.len() / 2
    }

    fn other_voters(&self) -> Vec<NodeId> {
        self.voters().iter().map(|peer| peer.id).filter(|id| *id != self.settings.id).collect()
    }

    fn arm_election(&mut self, now: Duration) {
        let timeout = self.settings.election_timeout;
        let draw = mix(self.settings.draw ^ mix(self.term) ^ mix(self.attempts << 32));
        let share = u32::try_from(draw % 1024).expect("a remainder of 1024");
        self.attempts += 1;
        self.election_at = now + timeout + timeout * share / 1024;
    }

    /// Follows in a term, which may be a new one.
    fn follow(&mut self, term: u64, leader: Option<NodeId>, now: Duration, output: &mut RaftOutput) {
        assert!(term >= self.term, "terms never go back");
        output.has_role_changed |= self.is_leader() || self.leader != leader;
        self.role = Role::Follower;
        self.leader = leader;
        if term > self.term {
            self.term = term;
            self.vote = None;
            self.attempts = 0;
            self.receiving.take_if(|receiving| !receiving.is_installing());
            self.persist(self.state(), output);
        }
        self.arm_election(now);
    }

    fn hear_leader(&mut self, from: NodeId, now: Duration, output: &mut RaftOutput) {
        assert!(!self.is_leader(), "a term has one leader");
        self.follow(self.term, Some(from), now, output);
        self.lease_until = now + self.settings.election_timeout;
    }

    fn ask_for_election(&mut self, now: Duration, output: &mut RaftOutput) {
        output.has_role_changed |= self.leader.take().is_some();
        if !self.may_stand() {
            return;
        }
        if self.is_alone() {
            return self.stand(now, output);
        }
        self.arm_election(now);
        self.role = Role::PreCandidate(BTreeSet::from([self.settings.id]));
        let message = RaftMessage { term: self.term + 1, body: RaftBody::PreVote { last: self.entries.last() } };
        let others = self.other_voters();
        output.messages.extend(others.into_iter().map(|id| (id, message.clone())));
    }

    fn on_pre_vote(&mut self, from: NodeId, term: u64, last: Option<EntryId>, now: Duration, output: &mut RaftOutput) {
        let is_content = self.is_leader() || self.lease_until > now;
        let granted = term > self.term && !is_content && last >= self.entries.last();
        let term = if granted { term } else { self.term };
        output.messages.push((from, RaftMessage { term, body: RaftBody::PreVoteReply { granted } }));
    }

    fn on_pre_vote_granted(&mut self, from: NodeId, term: u64, now: Duration, output: &mut RaftOutput) {
        let Role::PreCandidate(votes) = &mut self.role else { return };
        if term != self.term + 1 {
            return;
        }
        votes.insert(from);
        let votes = votes.clone();
        if self.is_majority(&votes) {
            self.stand(now, output);
        }
    }

    /// Begins a term as candidate. Nobody is asked before the own vote is durable: after a crash the node would not
    /// remember the term, and could use it twice.
    fn stand(&mut self, now: Duration, output: &mut RaftOutput) {
        self.term += 1;
        self.vote = Some(self.settings.id);
        self.attempts = 0;
        self.role = Role::Candidate(BTreeSet::new());
        self.arm_election(now);
        self.persist(self.state(), output);
        let message = RaftMessage { term: self.term, body: RaftBody::Vote { last: self.entries.last() } };
        for id in self.other_voters() {
            self.promise(Promise::Send(id, message.clone()), now, output);
        }
        self.promise(Promise::OwnVote(self.term), now, output);
    }

    fn on_vote(
        &mut self,
        from: NodeId,
        is_current: bool,
        last: Option<EntryId>,
        now: Duration,
        output: &mut RaftOutput,
    ) {
        let is_free = self.vote.is_none_or(|vote| vote == from);
        let granted = is_current && is_free && last >= self.entries.last();
        let reply = RaftMessage { term: self.term, body: RaftBody::VoteReply { granted } };
        if !granted {
            output.messages.push((from, reply));
            return;
        }
        if self.vote.is_none() {
            self.vote = Some(from);
            self.persist(self.state(), output);
        }
        self.arm_election(now);
        self.promise(Promise::Send(from, reply), now, output);
    }

    fn on_vote_granted(&mut self, from: NodeId, now: Duration, output: &mut RaftOutput) {
        let Role::Candidate(votes) = &mut self.role else { return };
        votes.insert(from);
        let votes = votes.clone();
        if self.is_majority(&votes) {
            self.lead(now, output);
        }
    }

    fn lead(&mut self, now: Duration, output: &mut RaftOutput) {
        let voters = self.voters().to_vec();
        let began = self.entries.end();
        self.role = Role::Leader(Leadership::new(began, now));
        self.leader = Some(self.settings.id);
        output.has_role_changed = true;
        self.add_progress(now);
        self.append(Payload::Began, now, output);
        if self.entries.voters_index().is_none() && self.entries.start() == 0 {
            // A new cluster writes down who votes in it, so that its nodes need not agree on their settings.
            self.append(Payload::Voters(voters), now, output);
        }
        self.on_heartbeat_due(now, output);
    }
}

/// A 64-bit mixer (the finaliser of SplitMix64).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Why an entry was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or none.
    #[error("this node does not lead the metadata log")]
    NotLeader,
    /// Voters are changed one at a time, each by a leader that has committed an entry of its own.
    #[error("a change of the voters is under way; try again")]
    ChangeUnderWay,
    /// More than one voter would change.
    #[error("voters are added and removed one at a time")]
    NotOne,
}
