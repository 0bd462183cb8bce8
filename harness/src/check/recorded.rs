//! Recorded histories for each checker: what it must pass and what it must fail, and what the matrix then allows.
//! Small and readable; laws over random histories are in `tests/clean_histories.rs`.

use super::samples::{QUEUE, Sample, run, timestamp_of};
use super::{CHECKERS, Checker, judge, judge_by};
use crate::artifact::VerdictKind;
use crate::guarantee::{Flush, Matrix};
use crate::history::{Call, Mark, OffsetQuery, Outcome, SeekTarget};

fn refused() -> Outcome {
    Outcome::Refused("record too large".to_owned())
}

#[test]
fn a_plain_round_trip_is_clean() {
    Sample::new().sent(0, 3, 0).sent(3, 2, 3).poll(0, &[(0, 5, 0)]).last(0, &[(0, 5, 0)]).expect_clean();
}

#[test]
fn a_send_of_unknown_outcome_may_appear_late_or_never() {
    let start = || Sample::new().unknown(0, 2).sent(2, 1, 0);
    start().poll(0, &[(2, 1, 0)]).last(0, &[(2, 1, 0)]).expect_clean();
    start().poll(0, &[(2, 1, 0), (0, 2, 1)]).last(0, &[(2, 1, 0), (0, 2, 1)]).expect_clean();
}

#[test]
fn a_record_that_reads_passed_and_never_saw_is_a_lost_write() {
    let lost = |sample: Sample| sample.sent(0, 1, 0).sent(1, 1, 1).sent(2, 1, 2).last(0, &[(0, 1, 0), (2, 1, 2)]);
    let both: &[_] = &[("lost-write", 1), ("poll-skip", 1), ("unseen", 1)];
    lost(Sample::new()).expect(both, &[]);
    lost(Sample::new()).fault("power-loss").expect(both, &[]);
}

#[test]
fn the_rest_of_a_batch_that_was_seen_in_part_took_effect_too() {
    let sample = Sample::new().unknown(0, 3).sent(3, 1, 3).poll(0, &[(0, 1, 0)]);
    sample.last(0, &[(0, 1, 0), (3, 1, 3)]).expect(&[("lost-write", 2)], &[]);
}

#[test]
fn a_poll_that_began_before_the_acknowledgement_proves_no_loss() {
    let sample = Sample::new().sent(0, 1, 0).sent(2, 1, 2).sent(1, 1, 1).poll(0, &[(0, 1, 0), (2, 1, 2)]).overlapping();
    // Without final reads the skip alone is known: the poll passed offset 1 when something already lay behind it.
    let verdict = judge(&sample.history, &sample.context);
    assert_eq!(verdict.violations().get("lost-write"), None, "{verdict:#?}");
}

#[test]
fn unsynced_records_may_go_with_the_power_and_not_otherwise() {
    let lost = |sample: Sample| sample.last(0, &[(0, 1, 0)]);
    let os = || Sample::new().flush(Flush::Os).sent(0, 1, 0).sent(1, 1, 1);
    lost(os().fault("power-loss")).expect(&[], &[("unseen", 1)]);
    lost(os().fault("kill")).expect(&[("unseen", 1)], &[]);
    lost(Sample::new().sent(0, 1, 0).sent(1, 1, 1).fault("power-loss")).expect(&[("unseen", 1)], &[]);
    // The power was lost before the record was sent.
    let before = Sample::new().flush(Flush::Os).sent(0, 1, 0).fault("power-loss").sent(1, 1, 1);
    lost(before).expect(&[("unseen", 1)], &[]);
}

#[test]
fn one_power_loss_takes_unsynced_copies_only_where_all_copies_ended_uncleanly_with_it() {
    let lost = |strikes: &[(&str, &[u32])], pause_us: u64| {
        let mut sample = Sample::new().flush(Flush::Os);
        (sample.context.topics[0].replication, sample.context.topics[0].min_insync_replicas) = (3, 2);
        sample = sample.sent(0, 1, 0).sent(1, 1, 1);
        for (class, nodes) in strikes {
            sample = sample.strike(class, nodes).after_us(pause_us);
        }
        sample.last(0, &[(0, 1, 0)])
    };
    let (kept, gone): (&[_], &[_]) = (&[("unseen", 1)], &[]);
    lost(&[("power-loss", &[2]), ("kill", &[0, 1, 2])], 0).expect(gone, kept);
    lost(&[("power-loss", &[2]), ("power-loss", &[1])], 9_000_000).expect(gone, kept);
    lost(&[("power-loss", &[2])], 0).expect(kept, gone);
    lost(&[("power-loss", &[2]), ("kill", &[1])], 0).expect(kept, gone);
    // Who lost its power was back in sync long before the others were killed.
    lost(&[("power-loss", &[2]), ("kill", &[0, 1, 2])], 9_000_000).expect(kept, gone);
    lost(&[("kill", &[0, 1, 2])], 0).expect(kept, gone);
}

#[test]
fn a_permitted_loss_has_the_age_that_the_flush_interval_bounds() {
    let lost = |bound_ms, struck: &[&str]| {
        let mut sample = Sample::new().flush(Flush::Interval).sent(0, 1, 0).sent(1, 1, 1);
        sample.context.topics[0].unsynced_ms_maximum = bound_ms;
        // Each send and each fault takes its own millisecond: the second record is acknowledged after 2.5 ms.
        for class in struck {
            sample = sample.fault(class);
        }
        sample.last(0, &[(0, 1, 0)])
    };
    let old: &[_] = &["kill", "kill", "kill", "power-loss"];
    lost(Some(3), old).expect(&[("permitted-loss-exceeded", 1)], &[("unseen", 1)]);
    lost(Some(4), old).expect(&[], &[("unseen", 1)]);
    lost(None, old).expect(&[], &[("unseen", 1)]);
    lost(Some(3), &["power-loss", "kill", "kill", "power-loss"]).expect(&[], &[("unseen", 1)]);
    for excuse in ["pause", "disk-slow", "sync-error"] {
        lost(Some(3), &["kill", excuse, "kill", "power-loss"]).expect(&[], &[("unseen", 1)]);
    }
    // Not lost by the power: no setting permits that, and it is told once.
    lost(Some(3), &["kill", "kill", "kill", "kill"]).expect(&[("unseen", 1)], &[]);
}

#[test]
fn an_idempotent_duplicate_is_legal_where_the_first_copy_was_cut_as_torn_after_rot() {
    let retried = || Sample::new().sent(0, 2, 0).idempotent(2);
    let last = |sample: Sample| sample.last(0, &[(0, 2, 0), (3, 1, 2), (2, 1, 3)]);
    let read = || retried().unknown(2, 1).poll(0, &[(0, 3, 0)]);
    let allowed = &[("duplicate", 1), ("inconsistent-offsets", 1)];
    last(read().fault("bit-flip").sent(3, 1, 2)).expect(&[], allowed);
    // An append acknowledged after the first copy was read, before the bit flipped, proves that it was synced.
    let proved = retried().unknown(2, 1).poll(0, &[(0, 3, 0)]).sent(4, 1, 3).fault("bit-flip").sent(3, 1, 2);
    let verdict = judge(&last(proved).history, &Sample::new().context);
    assert_eq!(verdict.violations().get("duplicate"), Some(&1), "{verdict:#?}");
}

#[test]
fn a_consumer_may_read_again_what_rot_cut_and_a_retry_wrote_to_the_same_offsets() {
    let twice = |attempts, fault: &str| {
        let sample = Sample::new().sent(0, 2, 0).idempotent(attempts).sent(2, 1, 2).poll(0, &[(0, 3, 0)]);
        sample.fault(fault).poll(2, &[(2, 1, 2)]).last(0, &[(0, 3, 0)])
    };
    twice(2, "bit-flip").expect(&[], &[("nonmonotonic-poll", 1)]);
    twice(1, "bit-flip").expect(&[("nonmonotonic-poll", 1)], &[]);
    twice(2, "kill").expect(&[("nonmonotonic-poll", 1)], &[]);
}

#[test]
fn a_value_that_was_read_and_never_acknowledged_must_stay_too() {
    let vanished = |sample: Sample| {
        sample.sent(0, 1, 0).unknown(1, 1).poll(0, &[(0, 2, 0)]).fault("power-loss").last(0, &[(0, 1, 0)])
    };
    vanished(Sample::new()).expect(&[("ghost", 1)], &[]);
    vanished(Sample::new().flush(Flush::Os)).expect(&[], &[("ghost", 1)]);
}

#[test]
fn a_duplicate_is_legal_for_a_plain_producer_that_sent_again() {
    let twice = |sample: Sample| sample.sent(0, 1, 0).poll(0, &[(0, 1, 0), (0, 1, 1)]).last(0, &[(0, 1, 0), (0, 1, 1)]);
    twice(Sample::new().plain(2)).expect(&[], &[("duplicate", 1)]);
    twice(Sample::new().plain(1)).expect(&[("duplicate", 1)], &[]);
    twice(Sample::new().idempotent(3)).expect(&[("duplicate", 1)], &[]);
}

#[test]
fn an_idempotent_duplicate_is_legal_only_where_the_first_copy_went_with_the_power() {
    let retried = || Sample::new().flush(Flush::Os).sent(0, 2, 0).idempotent(2);
    let moved = retried().unknown(2, 1).poll(0, &[(0, 3, 0)]).fault("power-loss").sent(3, 1, 2);
    let allowed = &[("duplicate", 1), ("inconsistent-offsets", 1)];
    moved.last(0, &[(0, 2, 0), (3, 1, 2), (2, 1, 3)]).expect(&[], allowed);
    let kept = retried().unknown(2, 1).fault("power-loss").last(0, &[(0, 3, 0), (2, 1, 3)]);
    kept.expect(&[("duplicate", 1)], &[]);
}

#[test]
fn an_offset_with_two_values_is_legal_only_after_a_permitted_loss() {
    let rewritten = |sample: Sample| {
        let sample = sample.sent(0, 1, 0).sent(1, 1, 1).poll(0, &[(0, 2, 0)]).fault("power-loss").sent(2, 1, 1);
        sample.last(0, &[(0, 1, 0), (2, 1, 1)])
    };
    rewritten(Sample::new()).expect(&[("inconsistent-offsets", 1), ("unseen", 1)], &[]);
    rewritten(Sample::new().flush(Flush::Os)).expect(&[], &[("inconsistent-offsets", 1), ("unseen", 1)]);
}

#[test]
fn sends_in_reverse_need_a_plain_producer_pipelining_and_a_retry() {
    let reversed = |sample: Sample| sample.sent(0, 1, 1).sent(1, 1, 0).last(0, &[(1, 1, 0), (0, 1, 1)]);
    reversed(Sample::new().plain(2)).expect(&[], &[("nonmonotonic-send", 1)]);
    reversed(Sample::new().plain(1)).expect(&[("nonmonotonic-send", 1)], &[]);
    reversed(Sample::new().idempotent(2)).expect(&[("nonmonotonic-send", 1)], &[]);
    let mut one_in_flight = reversed(Sample::new().plain(2));
    one_in_flight.context.in_flight.insert(crate::history::ClientId(0), 1);
    one_in_flight.expect(&[("nonmonotonic-send", 1)], &[]);
}

#[test]
fn a_consumer_that_goes_back_or_jumps_must_have_sought() {
    let start = || Sample::new().sent(0, 6, 0).poll(0, &[(0, 4, 0)]);
    let last = |sample: Sample| sample.last(0, &[(0, 6, 0)]);
    last(start().poll(4, &[(2, 4, 2)])).expect(&[("nonmonotonic-poll", 1)], &[]);
    last(start().seek(SeekTarget::Offset(2), 2).poll(2, &[(2, 4, 2)])).expect_clean();
    last(start().poll(4, &[(5, 1, 5)])).expect(&[("poll-skip", 1)], &[]);
    last(start().seek(SeekTarget::Offset(5), 5).poll(5, &[(5, 1, 5)])).expect_clean();
    let within = Sample::new().sent(0, 6, 0).poll(0, &[(0, 2, 0), (3, 1, 3), (2, 1, 2)]);
    last(within).expect(&[("nonmonotonic-poll", 1), ("poll-skip", 1)], &[]);
}

#[test]
fn deleted_records_may_be_jumped_over_and_left_unread() {
    let deleted = |sample: Sample| sample.poll(0, &[(3, 2, 3)]).last(3, &[(3, 2, 3)]);
    deleted(Sample::new().sent(0, 5, 0).delete(3)).expect_clean();
    deleted(Sample::new().sent(0, 5, 0).delete_unknown(3)).expect_clean();
    let too_much = Sample::new().sent(0, 5, 0).delete(2).last(3, &[(3, 2, 3)]);
    too_much.expect(&[("premature-deletion", 1)], &[]);
    let unasked = Sample::new().sent(0, 5, 0).last(3, &[(3, 2, 3)]);
    unasked.expect(&[("premature-deletion", 3)], &[]);
    let told = Sample::new().sent(0, 5, 0).list(OffsetQuery::Earliest, 4, -1).last(0, &[(0, 5, 0)]);
    told.expect(&[("premature-deletion", 4)], &[]);
}

#[test]
fn retention_by_size_justifies_no_more_than_its_bound() {
    let retained = |bytes| {
        let mut sample = Sample::new().sent(0, 5, 0).last(3, &[(3, 2, 3)]);
        sample.context.topics[0].retention_bytes = Some(bytes);
        sample
    };
    // Five records of at most 1,000 bytes each: 3,000 bytes may lie from offset 2 on.
    retained(3_000).expect_clean();
    retained(6_000).expect(&[("premature-deletion", 3)], &[]);
    retained(4_000).expect(&[("premature-deletion", 1)], &[]);
}

#[test]
fn retention_by_time_justifies_only_what_is_old_enough() {
    let retained = |wall_start_ms| {
        let mut sample = Sample::new().sent(0, 5, 0).last(3, &[(3, 2, 3)]);
        sample.context.topics[0].retention_ms = Some(500);
        sample.context.wall_start_ms = wall_start_ms;
        sample
    };
    retained(None).expect_clean();
    retained(Some(1_502)).expect_clean();
    // The final read ends 2.5 ms after the start; record 2 of time 1,002 expires at 1,502.
    retained(Some(1_498)).expect(&[("premature-deletion", 1)], &[]);
    retained(Some(1_000)).expect(&[("premature-deletion", 3)], &[]);
}

#[test]
fn a_deleted_record_that_returns_is_resurrected() {
    let sample = Sample::new().sent(0, 5, 0).delete(3).last(0, &[(0, 5, 0)]);
    sample.expect(&[("resurrected", 3)], &[]);
}

#[test]
fn altered_records_are_never_legal() {
    for class in ["bit-flip", "power-loss"] {
        let sample = Sample::new().flush(Flush::Os).sent(0, 2, 0).fault(class).corrupt(1).last(0, &[(0, 2, 0)]);
        sample.expect(&[("corrupt-payload", 1)], &[]);
    }
    let mut altered = Sample::new().sent(0, 2, 0).poll(0, &[(0, 2, 0)]).last(0, &[(0, 2, 0)]);
    let Call::Poll { runs, .. } = &mut altered.history.operations[1].call else { panic!("the second is a poll") };
    runs[0].first_timestamp_ms += 1;
    altered.expect(&[("corrupt-payload", 1)], &[]);
}

#[test]
fn a_refused_value_must_not_be_read() {
    let sample = Sample::new().send(0, 1, refused(), None).sent(1, 1, 0);
    sample.last(0, &[(1, 1, 0)]).expect_clean();
    let phantom = Sample::new().send(0, 1, refused(), None).sent(1, 1, 0).last(0, &[(1, 1, 0), (0, 1, 1)]);
    phantom.expect(&[("phantom-write", 1)], &[]);
    let never_sent = |reached| {
        let ended = Mark::LivenessEnded { at_us: 9_000, reached, missing: vec!["x".to_owned()] };
        Sample::new().sent(0, 1, 0).last(0, &[(0, 1, 0), (7, 1, 1)]).mark(ended)
    };
    never_sent(true).expect(&[("phantom-write", 1)], &[]);
    never_sent(false).expect(&[("no-progress", 1)], &[]);
}

#[test]
fn a_lookup_by_time_is_exact_to_the_millisecond() {
    let looked = |offset, timestamp_ms| {
        let query = OffsetQuery::Timestamp(timestamp_of(2));
        Sample::new().sent(0, 5, 0).list(query, offset, timestamp_ms).last(0, &[(0, 5, 0)])
    };
    looked(2, timestamp_of(2)).expect_clean();
    let wrong: &[_] = &[("wrong-offset-lookup", 1)];
    looked(1, timestamp_of(1)).expect(wrong, &[]);
    looked(3, timestamp_of(3)).expect(wrong, &[]);
    looked(-1, -1).expect(wrong, &[]);
    looked(2, timestamp_of(3)).expect(wrong, &[]);
    let past_all = Sample::new().sent(0, 5, 0).list(OffsetQuery::Timestamp(9_000), -1, -1).last(0, &[(0, 5, 0)]);
    past_all.expect_clean();
}

#[test]
fn a_lookup_may_overlook_what_came_meanwhile_or_was_deleted() {
    let query = OffsetQuery::Timestamp(timestamp_of(2));
    let meanwhile = Sample::new().sent(0, 2, 0).sent(2, 1, 2).list(query, -1, -1).overlapping();
    meanwhile.last(0, &[(0, 3, 0)]).expect_clean();
    let deleted = Sample::new().sent(0, 5, 0).delete(4).list(query, 4, timestamp_of(4));
    deleted.last(4, &[(4, 1, 4)]).expect_clean();
    let unknown = Sample::new().sent(0, 2, 0).unknown(2, 1).list(query, -1, -1).last(0, &[(0, 3, 0)]);
    unknown.expect_clean();
    let sought = Sample::new().sent(0, 5, 0).seek(SeekTarget::Timestamp(timestamp_of(2)), 4).last(0, &[(0, 5, 0)]);
    sought.expect(&[("wrong-offset-lookup", 1)], &[]);
    let to_the_end = Sample::new().sent(0, 2, 0).seek(SeekTarget::Timestamp(9_000), 2).sent(2, 1, 2);
    to_the_end.last(0, &[(0, 3, 0)]).expect_clean();
}

#[test]
fn ends_and_starts_do_not_go_back() {
    let end = |sample: Sample, offset| sample.list(OffsetQuery::Latest, offset, -1).last(0, &[(0, 3, 0)]);
    end(Sample::new().sent(0, 3, 0), 3).expect_clean();
    end(Sample::new().sent(0, 3, 0), 2).expect(&[("regression", 1)], &[]);
    let start = Sample::new().sent(0, 5, 0).delete(3).list(OffsetQuery::Earliest, 1, -1).last(3, &[(3, 2, 3)]);
    start.expect(&[("regression", 1)], &[]);
    let concurrent = Sample::new().sent(0, 3, 0).list(OffsetQuery::Latest, 0, -1).overlapping();
    concurrent.last(0, &[(0, 3, 0)]).expect_clean();
}

#[test]
fn a_node_may_only_end_by_itself_as_declared_and_when_its_disk_fails() {
    let exit = |declared| Mark::NodeExit { at_us: 5_000, node: 0, reason: "sync failed".to_owned(), declared };
    Sample::new().fault("sync-error").mark(exit(true)).expect(&[], &[("self-crash", 1)]);
    Sample::new().fault("sync-error").mark(exit(false)).expect(&[("self-crash", 1)], &[]);
    Sample::new().fault("kill").mark(exit(true)).expect(&[("self-crash", 1)], &[]);
}

#[test]
fn what_does_not_end_is_no_progress_unless_the_only_copy_rotted() {
    let stuck = Mark::LivenessEnded { at_us: 9_000, reached: false, missing: vec!["final reads".to_owned()] };
    Sample::new().fault("kill").mark(stuck.clone()).expect(&[("no-progress", 1)], &[]);
    Sample::new().fault("bit-flip").mark(stuck).expect(&[], &[("no-progress", 1)]);
}

#[test]
fn rot_excuses_the_newest_records_alone() {
    let newest = Sample::new().sent(0, 1, 0).sent(1, 1, 1).fault("bit-flip").last(0, &[(0, 1, 0)]);
    newest.expect(&[], &[("unseen", 1)]);
    let proved = Sample::new().sent(0, 1, 0).sent(1, 1, 1).sent(2, 1, 2).fault("bit-flip").last(0, &[(0, 1, 0)]);
    proved.expect(&[("unseen", 1)], &[("unseen", 1)]);
}

#[test]
fn rot_excuses_no_second_value_where_the_first_was_proved_synced() {
    let stuck = || Mark::LivenessEnded { at_us: 90_000, reached: false, missing: vec!["events-0".to_owned()] };
    // Record 3 is acknowledged after record 2, so its frame says that record 2 was synced.
    let rewritten = |sample: Sample| sample.fault("bit-flip").sent(4, 1, 2).last(0, &[(0, 2, 0)]).mark(stuck());
    let proved = Sample::new().sent(0, 2, 0).sent(2, 1, 2).sent(3, 1, 3);
    // Record 3 itself was the newest, so its loss, and with it the order, is excused; the second value of offset 2 is not.
    rewritten(proved).expect(&[("inconsistent-offsets", 1)], &[("no-progress", 1), ("nonmonotonic-send", 1)]);
    let newest = Sample::new().sent(0, 2, 0).sent(2, 1, 2);
    rewritten(newest).expect(&[], &[("inconsistent-offsets", 1), ("no-progress", 1)]);
}

#[test]
fn final_reads_that_ended_early_leave_the_rest_unjudged() {
    let early = |runs: &[(u64, u32, i64)]| {
        let stuck = Mark::LivenessEnded { at_us: 9_000, reached: false, missing: vec!["events/0".to_owned()] };
        Sample::new().sent(0, 5, 0).last(0, runs).mark(stuck)
    };
    early(&[(0, 2, 0)]).expect(&[("no-progress", 1)], &[]);
    early(&[(0, 1, 0), (2, 1, 2)])
        .expect(&[("lost-write", 1), ("no-progress", 1), ("poll-skip", 1), ("unseen", 1)], &[]);
}

#[test]
fn a_run_that_was_cut_off_is_unknown() {
    let mut sample = Sample::new().sent(0, 1, 0).last(0, &[(0, 1, 0)]);
    sample.context.has_liveness_phase = true;
    let verdict = judge(&sample.history, &sample.context);
    assert_eq!(verdict.kind, VerdictKind::Unknown);
    assert_eq!(verdict.unjudged[0].checker, "no-progress");
}

#[test]
fn a_checker_that_panics_gives_unknown_and_hides_no_violation() {
    let broken = || Checker { name: "broken", check: |_| panic!("planted") };
    let sample = Sample::new().sent(0, 1, 0).last(0, &[(0, 1, 0)]);
    let verdict = judge_by(&sample.history, &sample.context, Matrix::standard(), &[broken()]);
    assert_eq!(verdict.kind, VerdictKind::Unknown);
    assert!(verdict.unjudged[0].reason.contains("planted"), "{verdict:?}");
    let lost = Sample::new().sent(0, 1, 0).mark(Mark::LivenessEnded { at_us: 9, reached: true, missing: Vec::new() });
    let unseen = Checker { name: "unseen", check: super::unseen::check };
    let verdict = judge_by(&lost.history, &lost.context, Matrix::standard(), &[broken(), unseen]);
    assert_eq!(verdict.kind, VerdictKind::Invalid);
}

#[test]
fn a_history_that_no_recorder_writes_is_unknown() {
    let twice = Sample::new().sent(0, 2, 0).sent(1, 2, 2);
    let verdict = judge(&twice.history, &twice.context);
    assert_eq!(verdict.kind, VerdictKind::Unknown, "{verdict:?}");
    assert!(verdict.unjudged[0].reason.contains("the same value"), "{verdict:?}");
}

#[test]
fn every_checker_has_its_anomalys_name() {
    let names: Vec<&str> = CHECKERS.iter().map(|checker| checker.name).collect();
    let anomalies: Vec<&str> = crate::guarantee::Anomaly::ALL.iter().map(|anomaly| anomaly.name()).collect();
    for anomaly in anomalies {
        assert!(names.contains(&anomaly), "{anomaly} has no checker");
    }
    assert_eq!(run(0, 1, 0).queue, QUEUE);
}
