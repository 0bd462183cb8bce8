//! What a plan's member of a consumer group does: joins, polls what it owns, commits before, after or automatically,
//! crashes, leaves and comes back. In the liveness phase it goes on until what it owns is read to the end, and leaves; so
//! the last member of a group has read everything. Each step toward the coordinator is an operation of the history.
//! Not here: the protocols (`driver::group`), and what a delivered record must be (`consuming`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::consuming::{complete, is_out_of_range, queue_of, seek};
use super::recorder::Invocation;
use super::{ClientMutant, Context};
use crate::driver::cluster::Cluster;
use crate::driver::consumer::{Consumer, ConsumerOptions, Polled};
use crate::driver::errors::{Attempts, CallError};
use crate::driver::group::{Group, GroupOptions, Tick};
use crate::driver::{Dial, Timer, TopicPartition};
use crate::history::{Call, GroupStep, Outcome, Position, Queue, SeekTarget};
use crate::plan::{ClientAction, CommitWhen, PlannedOperation, Role};

/// Time between automatic commits, as short as runs are.
const AUTOMATIC_COMMIT: Duration = Duration::from_millis(700);
/// Wait of the polls at the end.
const DRAIN_WAIT_MS: u32 = 50;
/// Polls without anything new after which what is owned counts as read to the end.
const QUIET_POLLS: u32 = 3;

/// Runs the operations, then drains what the member owns.
pub(crate) async fn run<D: Dial, T: Timer>(context: &Context<D, T>, role: &Role, operations: &[PlannedOperation]) {
    let Some(mut member) = Member::new(context, role) else { return };
    for operation in operations {
        member.wait_for_turn(operation.at_ms).await;
        match &operation.action {
            ClientAction::Poll { max_wait_ms, .. } => {
                member.poll(*max_wait_ms, Half::Both).await;
            }
            ClientAction::Crash { in_poll, down_ms } => member.crash(*in_poll, *down_ms).await,
            ClientAction::Leave => member.leave().await,
            ClientAction::Produce { .. }
            | ClientAction::Seek { .. }
            | ClientAction::ListOffset { .. }
            | ClientAction::DeleteRecords { .. } => {
                unreachable!("operations were checked against the role before they run")
            }
        }
    }
    member.drain().await;
}

/// How much of a poll takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Both,
    /// The member crashes between processing and committing, in whichever order it does them.
    First,
}

struct Member<'a, D: Dial, T: Timer> {
    context: &'a Context<D, T>,
    group_number: u32,
    commit: CommitWhen,
    timeout: Duration,
    cluster: Cluster<D, T>,
    group: Group<D, T>,
    consumer: Consumer<D, T>,
    owned: BTreeSet<TopicPartition>,
    /// Owned, and where to begin is not known yet.
    unplaced: BTreeSet<TopicPartition>,
    /// Processed and not committed: the next offset.
    uncommitted: BTreeMap<TopicPartition, i64>,
    committed_at: Duration,
}

impl<'a, D: Dial, T: Timer> Member<'a, D, T> {
    fn new(context: &'a Context<D, T>, role: &Role) -> Option<Member<'a, D, T>> {
        let Role::Member {
            group,
            protocol,
            topics,
            is_static,
            commit,
            session_timeout_ms,
            request_timeout_ms,
            fetch_max_bytes,
        } = role
        else {
            return None;
        };
        let timeout = Duration::from_millis(*request_timeout_ms);
        let cluster = context.cluster(timeout);
        let named = topics.iter().filter_map(|topic| context.topics.get(*topic as usize));
        let options = GroupOptions {
            group: format!("group-{group}"),
            protocol: *protocol,
            topics: named.map(|topic| topic.name.clone()).collect(),
            instance: is_static.then(|| format!("instance-{}", context.client.0)),
            session_timeout: Duration::from_millis(*session_timeout_ms),
            request_timeout: timeout,
        };
        let consumer_options = ConsumerOptions { request_timeout: timeout, fetch_max_bytes: *fetch_max_bytes };
        Some(Member {
            context,
            group_number: *group,
            commit: *commit,
            timeout,
            group: Group::new(cluster.clone(), options),
            consumer: Consumer::assign(cluster.clone(), consumer_options, Vec::new()),
            cluster,
            owned: BTreeSet::new(),
            unplaced: BTreeSet::new(),
            uncommitted: BTreeMap::new(),
            committed_at: Duration::ZERO,
        })
    }

    /// Waits for an operation's turn, and keeps the membership alive meanwhile.
    async fn wait_for_turn(&mut self, at_ms: u64) {
        let turn = self.context.began + Duration::from_millis(at_ms);
        loop {
            let now = self.context.timer.monotonic();
            if now >= turn || self.context.phase.is_live() {
                return;
            }
            let next = (now + self.group.heartbeat_interval()).min(turn);
            tokio::select! {
                biased;
                () = self.context.phase.liveness() => return,
                () = self.context.timer.sleep_until(next) => {}
            }
            if next < turn && self.group.is_member() {
                self.advance().await;
            }
        }
    }

    /// Does what the group asks for; whether the member may read.
    async fn advance(&mut self) -> bool {
        loop {
            let is_joining = self.group.will_join();
            // Called before the coordinator can have decided anything, so that the judge may trust the time.
            let invocation = self.invoke("a heartbeat or joining");
            let tick = self.group.tick().await;
            let generation = self.group.generation();
            match tick {
                // A member without queues heard that nothing is for it yet.
                Tick::Stable if is_joining => {
                    self.own(Vec::new(), invocation, generation);
                    return false;
                }
                Tick::Stable => {
                    self.context.recorder.withdraw(invocation);
                    return !self.owned.is_empty();
                }
                Tick::Release(queues) => {
                    self.context.recorder.withdraw(invocation);
                    self.release(queues);
                }
                Tick::Owns(queues) => {
                    self.own(queues, invocation, generation);
                    return !self.owned.is_empty();
                }
                Tick::NotYet(error) => {
                    let step = GroupStep::Own { queues: Vec::new() };
                    self.complete(invocation, outcome_of(&error), generation, step);
                    return false;
                }
            }
        }
    }

    fn own(&mut self, queues: Vec<TopicPartition>, invocation: Invocation, generation: i32) {
        let owned: BTreeSet<TopicPartition> = queues.into_iter().collect();
        self.unplaced.extend(owned.difference(&self.owned).cloned());
        self.owned = owned;
        let step = GroupStep::Own { queues: self.queues(self.owned.iter()) };
        self.complete(invocation, Outcome::Done, generation, step);
    }

    /// Stops reading queues, and tells the history.
    fn release(&mut self, queues: Vec<TopicPartition>) {
        let invocation = self.invoke("a release");
        for queue in &queues {
            self.owned.remove(queue);
            self.unplaced.remove(queue);
            self.uncommitted.remove(queue);
            self.consumer.unassign(queue);
        }
        let step = GroupStep::Release { queues: self.queues(queues.iter()) };
        self.complete(invocation, Outcome::Done, self.group.generation(), step);
    }

    /// Asks where to begin with what is new. Without a committed offset that is the log start.
    async fn place(&mut self) {
        if self.unplaced.is_empty() {
            return;
        }
        let unplaced: Vec<TopicPartition> = self.unplaced.iter().cloned().collect();
        let invocation = self.invoke("OffsetFetch");
        let generation = self.group.generation();
        let result = self.group.committed(&unplaced).await;
        let (outcome, committed) = match result {
            Ok(committed) => (Outcome::Done, committed),
            Err(error) => (outcome_of(&error), self.taken_for_none(&unplaced, &error)),
        };
        let offsets = committed.iter().map(|(queue, offset)| self.position(queue, *offset)).collect();
        self.complete(invocation, outcome, generation, GroupStep::FetchOffsets { offsets });
        for (partition, offset) in committed {
            let to = if offset >= 0 { SeekTarget::Offset(offset) } else { SeekTarget::Beginning };
            let queue = queue_of(self.context, &partition);
            let found = seek(self.context, &self.cluster, &mut self.consumer, queue, to, self.timeout).await;
            if found.is_some() {
                self.unplaced.remove(&partition);
            }
        }
    }

    /// What a failed OffsetFetch is taken for: nothing that could be used.
    fn taken_for_none(&self, unplaced: &[TopicPartition], error: &CallError) -> Vec<(TopicPartition, i64)> {
        // The defect (client mutant G4): an error that another attempt would mend counts as "nothing is committed".
        match self.context.client_mutant {
            Some(ClientMutant::OffsetErrorResets) if error.is_retriable() => {
                unplaced.iter().map(|queue| (queue.clone(), -1)).collect()
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// One poll of what the member owns, processed and committed as it does it. Gives what was new.
    async fn poll(&mut self, max_wait_ms: u32, half: Half) -> Option<Polled> {
        let wait = Duration::from_millis(u64::from(max_wait_ms));
        if !self.advance().await {
            self.context.timer.sleep_until(self.cluster.after(wait)).await;
            return None;
        }
        self.place().await;
        let due = self.committed_at + AUTOMATIC_COMMIT;
        if self.commit == CommitWhen::Automatic && self.context.timer.monotonic() >= due {
            self.commit_processed().await;
        }
        let invocation = self.context.recorder.invoke(self.context.client, self.context.now_us(), "Fetch".to_string());
        let mut polled = self.consumer.poll(wait, 1).await;
        let next: BTreeMap<TopicPartition, i64> = polled
            .read
            .iter()
            .filter(|read| read.next > read.from)
            .map(|read| (read.partition.clone(), read.next))
            .collect();
        match self.commit {
            CommitWhen::Before => {
                let is_committed = next.is_empty() || self.commit_offsets(&next).await;
                if !is_committed || (half == Half::First && !next.is_empty()) {
                    // Nothing is processed that was not committed, nor by who crashes before.
                    polled.read.iter().for_each(|read| self.consumer.seek(&read.partition, read.from));
                    polled.read.clear();
                }
                complete(self.context, invocation, &mut polled, false);
            }
            CommitWhen::After | CommitWhen::Automatic => {
                complete(self.context, invocation, &mut polled, false);
                self.uncommitted.extend(next);
                if self.commit == CommitWhen::After && half == Half::Both {
                    self.commit_processed().await;
                }
            }
        }
        let lost: Vec<TopicPartition> =
            polled.failed.iter().filter(|(_, error)| is_out_of_range(error)).map(|(queue, _)| queue.clone()).collect();
        for partition in lost {
            let queue = queue_of(self.context, &partition);
            let beginning = SeekTarget::Beginning;
            seek(self.context, &self.cluster, &mut self.consumer, queue, beginning, self.timeout).await;
        }
        Some(polled)
    }

    async fn commit_processed(&mut self) {
        let offsets = self.uncommitted.clone();
        if offsets.is_empty() {
            self.committed_at = self.context.timer.monotonic();
        } else if self.commit_offsets(&offsets).await {
            self.uncommitted.clear();
            self.committed_at = self.context.timer.monotonic();
        }
    }

    /// One OffsetCommit; whether it is done. Who has lost its membership sends none: without a generation it would be that
    /// of a consumer which manages its queues itself, and a coordinator accepts it while the group is empty.
    async fn commit_offsets(&mut self, offsets: &BTreeMap<TopicPartition, i64>) -> bool {
        if !self.group.is_member() {
            return false;
        }
        let invocation = self.invoke("OffsetCommit");
        let generation = self.group.generation();
        let asked: Vec<(TopicPartition, i64)> =
            offsets.iter().map(|(queue, offset)| (queue.clone(), *offset)).collect();
        let result = self.group.commit(&asked).await;
        let positions = asked.iter().map(|(queue, offset)| self.position(queue, *offset)).collect();
        let outcome = result.as_ref().map_or_else(outcome_of, |()| Outcome::Done);
        self.complete(invocation, outcome, generation, GroupStep::Commit { offsets: positions });
        result.is_ok()
    }

    /// Ends without a word, and starts anew after a while.
    async fn crash(&mut self, in_poll: bool, down_ms: u64) {
        if in_poll {
            self.poll(0, Half::First).await;
        }
        self.release(self.owned.iter().cloned().collect());
        self.group.forget();
        let up = self.cluster.after(Duration::from_millis(down_ms));
        tokio::select! {
            biased;
            () = self.context.phase.liveness() => {}
            () = self.context.timer.sleep_until(up) => {}
        }
    }

    /// Commits what it processed, and leaves.
    async fn leave(&mut self) {
        if !self.owned.is_empty() && self.commit != CommitWhen::Before {
            self.commit_processed().await;
        }
        self.release(self.owned.iter().cloned().collect());
        // Whether it is heard or not: a member that went silent is forgotten all the same.
        drop(self.group.leave().await);
    }

    /// Once the faults have stopped: reads what it owns to the end, and leaves.
    async fn drain(&mut self) {
        self.wait_for_turn(u64::MAX / 1_000_000).await;
        let mut quiet = 0;
        while quiet < QUIET_POLLS {
            let polled = self.poll(DRAIN_WAIT_MS, Half::Both).await;
            let is_quiet = match polled {
                Some(polled) => {
                    let at_end = |read: &crate::driver::consumer::PartitionRead| read.next >= read.high_watermark;
                    polled.failed.is_empty()
                        && polled.read.len() == self.owned.len()
                        && polled.read.iter().all(|read| read.next == read.from && at_end(read))
                }
                None => self.group.is_member() && self.owned.is_empty(),
            };
            let is_settled = self.unplaced.is_empty() && (self.uncommitted.is_empty() || self.try_commit().await);
            quiet = if is_quiet && is_settled { quiet + 1 } else { 0 };
        }
        self.leave().await;
    }

    async fn try_commit(&mut self) -> bool {
        self.commit_processed().await;
        self.uncommitted.is_empty()
    }

    fn invoke(&self, what: &str) -> Invocation {
        let what = format!("{what} in group {}", self.group_number);
        self.context.recorder.invoke(self.context.client, self.context.now_us(), what)
    }

    fn complete(&self, invocation: Invocation, outcome: Outcome, generation: i32, step: GroupStep) {
        let member = self.group.member().to_string();
        let call = Call::Group { group: self.group_number, member, generation, step };
        self.context.recorder.complete(invocation, self.context.now_us(), outcome, call);
    }

    fn queues<'q>(&self, queues: impl Iterator<Item = &'q TopicPartition>) -> Vec<Queue> {
        queues.map(|queue| queue_of(self.context, queue)).collect()
    }

    fn position(&self, queue: &TopicPartition, offset: i64) -> Position {
        Position { queue: queue_of(self.context, queue), offset }
    }
}

fn outcome_of(error: &CallError) -> Outcome {
    let mut attempts = Attempts::default();
    attempts.add(error);
    attempts.outcome()
}
