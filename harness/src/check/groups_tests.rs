//! Histories of consumer groups that the group checkers pass, and histories that each of them fails.

use super::context::GroupContext;
use super::samples::{QUEUE, Sample};
use crate::history::{Call, GroupStep, Mark, Outcome, Position};
use crate::plan::{CommitWhen, GroupProtocol};

fn sample(protocol: GroupProtocol, commit: CommitWhen) -> Sample {
    let mut sample = Sample::new();
    sample.context.groups.insert(0, GroupContext { protocol, commit });
    sample
}

fn classic() -> Sample {
    sample(GroupProtocol::Classic, CommitWhen::After)
}

impl Sample {
    fn step(self, client: u32, generation: i32, outcome: Outcome, step: GroupStep) -> Sample {
        let call = Call::Group { group: 0, member: format!("member-{client}"), generation, step };
        self.push_for(client, outcome, call)
    }

    fn owns(self, client: u32, generation: i32) -> Sample {
        self.step(client, generation, Outcome::Done, GroupStep::Own { queues: vec![QUEUE] })
    }

    fn releases(self, client: u32, generation: i32) -> Sample {
        self.step(client, generation, Outcome::Done, GroupStep::Release { queues: vec![QUEUE] })
    }

    fn commits(self, client: u32, generation: i32, offset: i64, outcome: Outcome) -> Sample {
        let offsets = vec![Position { queue: QUEUE, offset }];
        self.step(client, generation, outcome, GroupStep::Commit { offsets })
    }

    fn committed(self, client: u32, generation: i32, offset: i64) -> Sample {
        self.commits(client, generation, offset, Outcome::Done)
    }

    fn fetches(self, client: u32, generation: i32, offset: i64) -> Sample {
        let offsets = vec![Position { queue: QUEUE, offset }];
        self.step(client, generation, Outcome::Done, GroupStep::FetchOffsets { offsets })
    }
}

fn unknown() -> Outcome {
    Outcome::Unknown("time-out".to_owned())
}

#[test]
fn a_handover_is_clean() {
    let one = classic().sent(0, 4, 0).owns(1, 1).fetches(1, 1, -1).polled_by(1, 0, &[(0, 2, 0)]).committed(1, 1, 2);
    let two = one.releases(1, 1).owns(2, 2).fetches(2, 2, 2).polled_by(2, 2, &[(2, 2, 2)]).committed(2, 2, 4);
    two.last(0, &[(0, 4, 0)]).expect_clean();
}

#[test]
fn two_owners_of_one_generation_are_found() {
    classic().owns(1, 3).owns(2, 3).expect(&[("dual-ownership", 1)], &[]);
    // The first was cut off and has not heard of the generation in which its queue went to the other.
    classic().owns(1, 3).owns(2, 4).releases(1, 3).expect_clean();
}

#[test]
fn in_the_consumer_protocol_two_confirmed_owners_are_found() {
    let members = || sample(GroupProtocol::Consumer, CommitWhen::After).sent(0, 4, 0).owns(1, 1);
    let read = |sample: Sample| sample.polled_by(1, 0, &[(0, 2, 0)]);
    read(members()).owns(2, 2).committed(1, 1, 2).last(0, &[(0, 4, 0)]).expect(&[("dual-ownership", 1)], &[]);
    read(members()).committed(1, 1, 2).owns(2, 2).last(0, &[(0, 4, 0)]).expect_clean();
}

#[test]
fn commits_that_vanish_or_go_back_are_found() {
    let begun = || classic().sent(0, 4, 0).owns(1, 1).polled_by(1, 0, &[(0, 4, 0)]).committed(1, 1, 2);
    let end = |sample: Sample| sample.last(0, &[(0, 4, 0)]);
    end(begun().fetches(1, 1, 2)).expect_clean();
    end(begun().fetches(1, 1, -1)).expect(&[("commit-lost", 1)], &[]);
    end(begun().committed(1, 1, 4).fetches(1, 1, 2)).expect(&[("commit-regression", 1)], &[]);
    end(begun().committed(1, 1, 4).committed(1, 1, 3)).expect(&[("commit-regression", 1)], &[]);
    // The second may have taken effect, or do so yet.
    end(begun().commits(1, 1, 4, unknown()).fetches(1, 1, 2).fetches(1, 1, 4)).expect_clean();
    end(begun().commits(1, 1, 4, Outcome::Refused("no".to_owned())).fetches(1, 1, 4))
        .expect(&[("commit-regression", 1)], &[]);
}

#[test]
fn a_commit_of_what_nobody_was_given_is_ahead_unless_it_comes_before() {
    let begun = |commit| {
        let begun = sample(GroupProtocol::Classic, commit).sent(0, 4, 0).owns(1, 1).polled_by(1, 0, &[(0, 2, 0)]);
        begun.committed(1, 1, 4).last(0, &[(0, 4, 0)])
    };
    begun(CommitWhen::After).expect(&[("commit-ahead", 2)], &[]);
    begun(CommitWhen::Before).expect(&[], &[("commit-ahead", 2)]);
}

#[test]
fn a_commit_under_an_older_generation_is_a_zombies() {
    let begun = || classic().sent(0, 4, 0).owns(1, 1).polled_by(1, 0, &[(0, 4, 0)]).owns(2, 2);
    let end = |sample: Sample| sample.last(0, &[(0, 4, 0)]);
    // The coordinator believes a zombie: that is dual ownership as well.
    end(begun().committed(1, 1, 4)).expect(&[("dual-ownership", 1), ("zombie-commit", 1)], &[]);
    end(begun().commits(1, 1, 4, Outcome::Refused("ILLEGAL_GENERATION".to_owned()))).expect_clean();
}

#[test]
fn a_group_without_a_stable_generation_is_found() {
    let ended = |missing: &[&str]| Mark::LivenessEnded {
        at_us: 90_000_000,
        reached: missing.is_empty(),
        missing: missing.iter().map(|what| (*what).to_owned()).collect(),
    };
    let begun = || {
        let refused = Outcome::Refused("REBALANCE_IN_PROGRESS".to_owned());
        let mut sample = classic().mark(Mark::LivenessBegan { at_us: 0 });
        sample.context.has_liveness_phase = true;
        sample.step(1, -1, refused, GroupStep::Own { queues: Vec::new() })
    };
    begun().mark(ended(&["client-1 has not ended"])).expect(&[("no-progress", 1), ("rebalance-livelock", 1)], &[]);
    begun().mark(ended(&["client-7 has not ended"])).expect(&[("no-progress", 1)], &[]);
    begun().owns(1, 2).mark(ended(&[])).expect_clean();
}

#[test]
fn an_assignment_that_arrives_late_is_no_second_owner() {
    let begun = || sample(GroupProtocol::Consumer, CommitWhen::After).sent(0, 4, 0).owns(1, 2);
    let late = begun().polled_by(1, 0, &[(0, 2, 0)]).owns(2, 1).committed(1, 2, 2);
    late.releases(2, 1).last(0, &[(0, 4, 0)]).expect_clean();
}
