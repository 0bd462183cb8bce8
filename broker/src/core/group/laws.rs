//! Laws of groups, put to the proof with random clients, lost answers, passing time, and crashes that keep any part of
//! what was not confirmed: no queue has two owners, what was committed stays, what is stale is refused, and in the end
//! every queue has its owner.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, GroupId, HeartbeatRequest, JoinGroupRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use uuid::Uuid;

use super::answer::GroupAnswer;
use super::coordinator::Call;
use super::requests::{beat_call, join_call};
use super::rig::{GROUP, Rig, commit, commit_error};
use crate::mutant::Mutant;
use crate::wire::api::Api;

const QUEUES: i32 = 6;

#[derive(Debug, Clone)]
enum Step {
    /// A client does what it does next; its answer may be lost.
    Act {
        client: usize,
        is_lost: bool,
    },
    Leave {
        client: usize,
    },
    Commit {
        client: usize,
        is_stale: bool,
    },
    Confirm,
    Pass {
        ms: u64,
    },
    Crash {
        more: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0usize..4, prop::bool::weighted(0.1)).prop_map(|(client, is_lost)| Step::Act { client, is_lost }),
        1 => (0usize..4).prop_map(|client| Step::Leave { client }),
        4 => (0usize..4, prop::bool::weighted(0.2)).prop_map(|(client, is_stale)| Step::Commit { client, is_stale }),
        6 => Just(Step::Confirm),
        4 => (1u64..400).prop_map(|ms| Step::Pass { ms }),
        1 => (0usize..4).prop_map(|more| Step::Crash { more }),
    ];
    proptest::collection::vec(step, 1..150)
}

fn group() -> GroupId {
    GroupId(StrBytes::from_static_str(GROUP))
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// What was committed and seen: none of it may go back.
struct Ledger {
    next: i64,
    least: Vec<i64>,
    under_way: Vec<(u64, i32, i64)>,
}

impl Ledger {
    fn new() -> Ledger {
        Ledger { next: 1, least: vec![-1; QUEUES as usize], under_way: Vec::new() }
    }

    fn commit(&mut self, rig: &mut Rig, member: &str, generation: i32, partition: i32) -> u64 {
        self.next += 1;
        let number = rig.send(Api::OffsetCommit, 9, commit(member, generation, partition, self.next));
        self.under_way.push((number, partition, self.next));
        number
    }

    fn check(&mut self, rig: &mut Rig) {
        let least = &mut self.least;
        self.under_way.retain(|(number, partition, offset)| match rig.take(*number) {
            Some(answer) => {
                if commit_error(&answer) == 0 {
                    let least = &mut least[*partition as usize];
                    *least = (*least).max(*offset);
                }
                false
            }
            None => true,
        });
        for (partition, least) in least.iter_mut().enumerate() {
            let seen = rig.committed(partition as i32);
            assert!(seen >= *least, "queue {partition}: {seen} is seen after {least}");
            *least = seen;
        }
    }
}

/// A client of the new protocol. It gives up at once what it is told to, and everything when its session ends.
#[derive(Debug, Clone, Default)]
struct Consumer {
    id: String,
    epoch: i32,
    owned: BTreeSet<i32>,
    waiting: Option<(u64, Duration, bool)>,
    /// Its session lasts until then, by what it was answered.
    lease: Duration,
    must_say_all: bool,
}

impl Consumer {
    fn named(number: usize) -> Consumer {
        Consumer { id: format!("member-{number}"), ..Consumer::default() }
    }

    fn act(&mut self, rig: &mut Rig, is_lost: bool) {
        if self.waiting.is_some() {
            return;
        }
        let id = rig.metadata.id_of(rig.metadata.topic("orders").expect("the rig made it"));
        let is_full = self.epoch == 0 || self.must_say_all;
        let topic = TopicPartitions::default()
            .with_topic_id(Uuid::from_u128(id))
            .with_partitions(self.owned.iter().copied().collect());
        let owned = if self.epoch == 0 { Vec::new() } else { vec![topic] };
        let names = vec![TopicName(text("orders"))];
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group())
            .with_member_id(text(&self.id))
            .with_member_epoch(self.epoch)
            // Long: a member that is too slow to give up is fenced while it may still process, as in Kafka.
            .with_rebalance_timeout_ms(if is_full { 600_000 } else { -1 })
            .with_subscribed_topic_names(is_full.then_some(names))
            .with_topic_partitions(Some(owned));
        let call = beat_call(1, "client", request).expect("it is well formed");
        let number = rig.send(Api::ConsumerGroupHeartbeat, 1, call);
        self.waiting = Some((number, rig.now.monotonic, is_lost));
        self.must_say_all = false;
        self.hear(rig);
    }

    fn hear(&mut self, rig: &mut Rig) {
        if rig.now.monotonic >= self.lease && !self.owned.is_empty() {
            self.owned.clear();
            self.must_say_all = true;
        }
        let Some((number, sent, is_lost)) = self.waiting else { return };
        let Some(answer) = rig.take(number) else { return };
        self.waiting = None;
        let GroupAnswer::Beat(answer) = answer else { panic!("{answer:?} answers no heartbeat") };
        if is_lost {
            self.must_say_all = true;
            return;
        }
        match answer.error_code {
            0 => {}
            14..=16 => {
                self.must_say_all = true;
                return;
            }
            _ => {
                self.epoch = 0;
                self.owned.clear();
                return;
            }
        }
        self.epoch = answer.member_epoch;
        self.lease = sent + rig.settings.consumer_session_timeout;
        if rig.now.monotonic >= self.lease {
            self.must_say_all = true;
        } else if let Some(assignment) = answer.assignment {
            let topics = assignment.topic_partitions.into_iter();
            self.owned = topics.flat_map(|topic| topic.partitions).collect();
        }
    }

    fn leave(&mut self, rig: &mut Rig) {
        if self.waiting.is_some() || self.epoch <= 0 {
            return;
        }
        self.owned.clear();
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group())
            .with_member_id(text(&self.id))
            .with_rebalance_timeout_ms(-1)
            .with_member_epoch(-1);
        let call = beat_call(1, "client", request).expect("it is well formed");
        rig.send(Api::ConsumerGroupHeartbeat, 1, call);
        self.epoch = 0;
    }
}

fn assert_one_owner(clients: &[Consumer]) {
    let mut owned = BTreeSet::new();
    for client in clients {
        for queue in &client.owned {
            assert!(owned.insert(*queue), "queue {queue} has two owners: {clients:?}");
        }
    }
}

fn run_consumers(steps: &[Step], mutant: Option<Mutant>) {
    let mut rig = Rig::new(QUEUES as u32);
    rig.mutant = mutant;
    let mut ledger = Ledger::new();
    let mut clients: Vec<Consumer> = (0..4).map(Consumer::named).collect();
    for step in steps {
        match *step {
            Step::Act { client, is_lost } => clients[client].act(&mut rig, is_lost),
            Step::Leave { client } => clients[client].leave(&mut rig),
            Step::Commit { client, is_stale: true } => {
                let Consumer { id, epoch, .. } = &clients[client];
                let number = rig.send(Api::OffsetCommit, 9, commit(id, epoch + 1000, 0, 1 << 40));
                rig.confirm_all();
                let error = commit_error(&rig.take(number).expect("a refusal waits for nothing"));
                assert!(error != 0, "a commit of an epoch that never was is refused");
            }
            Step::Commit { client, is_stale: false } => {
                let Consumer { id, epoch, owned, .. } = &clients[client];
                if let Some(queue) = owned.first().filter(|_| *epoch > 0) {
                    ledger.commit(&mut rig, id, *epoch, *queue);
                }
            }
            Step::Confirm => rig.confirm_one(),
            Step::Pass { ms } => rig.pass(Duration::from_millis(ms)),
            Step::Crash { more } => rig.crash(more.min(rig.unconfirmed())),
        }
        clients.iter_mut().for_each(|client| client.hear(&mut rig));
        assert_one_owner(&clients);
        ledger.check(&mut rig);
    }
    for _ in 0..40 {
        rig.confirm_all();
        rig.pass(Duration::from_millis(100));
        for client in &mut clients {
            client.hear(&mut rig);
            client.act(&mut rig, false);
            rig.confirm_all();
            client.hear(&mut rig);
        }
        assert_one_owner(&clients);
    }
    ledger.check(&mut rig);
    let owned: usize = clients.iter().map(|client| client.owned.len()).sum();
    assert_eq!(owned, QUEUES as usize, "every queue has its owner in the end: {clients:?}");
}

/// A client of the classic protocol. It gives up everything before it joins again.
#[derive(Debug, Clone, Default)]
struct Classic {
    id: String,
    generation: i32,
    owned: BTreeSet<i32>,
    phase: Phase,
    waiting: Option<(u64, bool)>,
    /// Members to assign to, where it leads.
    led: Vec<String>,
    lease: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Joining,
    Syncing,
    Stable,
}

const SESSION: Duration = Duration::from_millis(1000);

impl Classic {
    fn act(&mut self, rig: &mut Rig, is_lost: bool) {
        if self.waiting.is_some() {
            return;
        }
        let number = match self.phase {
            Phase::Joining => {
                self.owned.clear();
                let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
                let request = JoinGroupRequest::default()
                    .with_group_id(group())
                    .with_member_id(text(&self.id))
                    .with_session_timeout_ms(SESSION.as_millis() as i32)
                    .with_rebalance_timeout_ms(SESSION.as_millis() as i32)
                    .with_protocol_type(text("consumer"))
                    .with_protocols(vec![protocol]);
                let call = join_call(9, "client", request, &rig.settings).expect("it is well formed");
                rig.send(Api::JoinGroup, 9, call)
            }
            Phase::Syncing => {
                let parts = self.led.iter().enumerate().map(|(place, member)| {
                    let share = (0..QUEUES as u8).filter(|queue| *queue as usize % self.led.len() == place);
                    let assignment = Bytes::from(share.collect::<Vec<u8>>());
                    SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(assignment)
                });
                let request = SyncGroupRequest::default()
                    .with_group_id(group())
                    .with_member_id(text(&self.id))
                    .with_generation_id(self.generation)
                    .with_assignments(parts.collect());
                rig.send(Api::SyncGroup, 5, Call::Sync(request))
            }
            Phase::Stable => {
                let request = HeartbeatRequest::default()
                    .with_group_id(group())
                    .with_member_id(text(&self.id))
                    .with_generation_id(self.generation);
                rig.send(Api::Heartbeat, 4, Call::Heartbeat(request))
            }
        };
        self.waiting = Some((number, is_lost));
        self.hear(rig);
    }

    fn hear(&mut self, rig: &mut Rig) {
        if rig.now.monotonic >= self.lease && !self.owned.is_empty() {
            self.owned.clear();
            self.phase = Phase::Joining;
        }
        let Some((number, is_lost)) = self.waiting else { return };
        let Some(answer) = rig.take(number) else { return };
        self.waiting = None;
        if is_lost {
            return;
        }
        let error = match answer {
            GroupAnswer::Join(answer) => {
                if answer.error_code == 79 || answer.error_code == 0 {
                    self.id = answer.member_id.to_string();
                }
                if answer.error_code == 0 {
                    self.generation = answer.generation_id;
                    self.led = answer.members.iter().map(|member| member.member_id.to_string()).collect();
                    self.phase = Phase::Syncing;
                    self.lease = rig.now.monotonic + SESSION;
                    return;
                }
                answer.error_code
            }
            GroupAnswer::Sync(answer) => {
                if answer.error_code == 0 {
                    self.phase = Phase::Stable;
                    self.lease = rig.now.monotonic + SESSION;
                    self.owned = answer.assignment.iter().map(|queue| i32::from(*queue)).collect();
                    return;
                }
                answer.error_code
            }
            GroupAnswer::Heartbeat(answer) => {
                if answer.error_code == 0 {
                    self.lease = rig.now.monotonic + SESSION;
                    return;
                }
                answer.error_code
            }
            other => panic!("{other:?} was not asked for"),
        };
        match error {
            14..=16 => {}
            25 => {
                self.id.clear();
                self.phase = Phase::Joining;
            }
            _ => self.phase = Phase::Joining,
        }
    }
}

fn assert_one_owner_a_generation(clients: &[Classic]) {
    let mut owned = BTreeSet::new();
    for client in clients {
        for queue in &client.owned {
            let is_new = owned.insert((client.generation, *queue));
            assert!(is_new, "queue {queue} has two owners in a generation: {clients:?}");
        }
    }
}

fn run_classic(steps: &[Step]) {
    let mut rig = Rig::new(QUEUES as u32);
    let mut ledger = Ledger::new();
    let mut clients = vec![Classic::default(); 4];
    for step in steps {
        match *step {
            Step::Act { client, is_lost } => clients[client].act(&mut rig, is_lost),
            Step::Leave { client } => {
                // It vanishes without a word, and comes back as another.
                clients[client] = Classic::default();
            }
            Step::Commit { client, is_stale } => {
                let Classic { id, generation, owned, .. } = &clients[client];
                if is_stale && rig.generation() > 0 {
                    let older = rig.generation() - 1;
                    let number = rig.send(Api::OffsetCommit, 9, commit(id, older, 0, 1 << 40));
                    rig.confirm_all();
                    let error = commit_error(&rig.take(number).expect("a refusal waits for nothing"));
                    assert!(error != 0, "a commit of an older generation is refused");
                } else if let Some(queue) = owned.first() {
                    ledger.commit(&mut rig, id, *generation, *queue);
                }
            }
            Step::Confirm => rig.confirm_one(),
            Step::Pass { ms } => rig.pass(Duration::from_millis(ms)),
            Step::Crash { more } => rig.crash(more.min(rig.unconfirmed())),
        }
        clients.iter_mut().for_each(|client| client.hear(&mut rig));
        assert_one_owner_a_generation(&clients);
        ledger.check(&mut rig);
    }
    for _ in 0..60 {
        rig.confirm_all();
        rig.pass(Duration::from_millis(100));
        for client in &mut clients {
            client.hear(&mut rig);
            client.act(&mut rig, false);
            rig.confirm_all();
            client.hear(&mut rig);
        }
        assert_one_owner_a_generation(&clients);
    }
    ledger.check(&mut rig);
    let owned: BTreeSet<i32> = clients.iter().flat_map(|client| client.owned.iter().copied()).collect();
    assert_eq!(owned.len(), QUEUES as usize, "every queue has its owner in the end: {clients:?}");
    assert!(clients.iter().all(|client| client.generation == clients[0].generation), "one generation: {clients:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn queues_of_a_consumer_group_have_one_owner_and_commits_stay(steps in steps()) {
        run_consumers(&steps, None);
    }

    #[test]
    fn queues_of_a_classic_group_have_one_owner_and_commits_stay(steps in steps()) {
        run_classic(&steps);
    }
}

/// The laws see the mutant that gives one queue to two members.
#[test]
fn a_lost_ownership_is_seen() {
    let mut runner = TestRunner::deterministic();
    let is_seen = (0..500).any(|_| {
        let steps = steps().new_tree(&mut runner).expect("steps can always be drawn").current();
        let run = || run_consumers(&steps, Some(Mutant::OwnershipLostOnReassignment));
        std::panic::catch_unwind(run).is_err()
    });
    assert!(is_seen, "the mutant gives a queue to two members");
}
