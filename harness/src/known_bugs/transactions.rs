//! Requests of a transactional producer that were delayed on their way.

use std::time::{Duration, Instant};

use super::wire::{Produced, Wire, done};
use super::{BugError, Shown, Stand};

/// A Produce that was on its way when the transaction was aborted, as after the producer's time-out, arrives now.
pub(super) fn late_produce(stand: &mut Stand) -> Result<Shown, BugError> {
    let (topic, id) = ("late-produce", "late-produce-producer");
    let mut wire = Wire::open(stand.address())?;
    wire.create_topic(topic)?;
    let who = wire.init_producer(id, TRANSACTION_TIMEOUT_MS)?;
    wire.add_partition(id, who, topic)?;
    let record =
        |value, sequence| Produced { topic, value, transactional_id: Some(id), sequence: Some((who, sequence)) };
    wire.append(&record("in time", 0), OLD_PRODUCE)?;
    done("EndTxn", wire.end(id, who, false, OLD_END)?.0)?;
    wait_until_ended(&mut wire, topic)?;
    let code = wire.produce(&record("late", 1), OLD_PRODUCE)?;
    let mut steps = vec![
        format!("producer {} epoch {}: one record in a transaction, which is aborted", who.id, who.epoch),
        format!("its second Produce, delayed until now: {}", answered(code)),
    ];
    let plain = Produced { topic, value: "of another producer", transactional_id: None, sequence: None };
    wire.append(&plain, OLD_PRODUCE)?;
    // Long past the time-out after which the coordinator would have ended any transaction that it knows.
    std::thread::sleep(Duration::from_millis(3 * TRANSACTION_TIMEOUT_MS as u64));
    let (end, committed) = wire.ends(topic)?;
    steps.push(format!(
        "{} s later, the transaction's time-out being {} s: the queue ends at {end}, and readers of committed records see it end at {committed}",
        3 * TRANSACTION_TIMEOUT_MS / 1000,
        TRANSACTION_TIMEOUT_MS / 1000
    ));
    Ok(Shown { is_there: code == 0 && committed < end, steps })
}

/// An EndTxn that was sent twice, because its answer was late: the first of the two arrives when the next transaction of the
/// producer is open. The requests have the versions of the newest client that the broker serves.
pub(super) fn late_end(stand: &mut Stand) -> Result<Shown, BugError> {
    let (topic, id) = ("late-end", "late-end-producer");
    let is_old = stand.running.version.starts_with("3.");
    let (produce, end) = if is_old { (OLD_PRODUCE, OLD_END) } else { (NEW_PRODUCE, NEW_END) };
    let (mut wire, mut delayed) = (Wire::open(stand.address())?, Wire::open(stand.address())?);
    wire.create_topic(topic)?;
    let first = wire.init_producer(id, 60_000)?;
    if is_old {
        wire.add_partition(id, first, topic)?;
    }
    let record = |value, sequence| Produced { topic, value, transactional_id: Some(id), sequence: Some(sequence) };
    wire.append(&record("first", (first, 0)), produce)?;
    let (code, second) = wire.end(id, first, true, end)?;
    done("EndTxn", code)?;
    wait_until_ended(&mut wire, topic)?;
    if is_old {
        wire.add_partition(id, second, topic)?;
    }
    let sequence = if second == first { 1 } else { 0 };
    wire.append(&record("second", (second, sequence)), produce)?;
    let before = wire.ends(topic)?;
    let (late, _) = delayed.end(id, first, true, end)?;
    std::thread::sleep(SETTLED);
    let (ends, committed) = wire.ends(topic)?;
    let (aborted, _) = wire.end(id, second, false, end)?;
    let steps = vec![
        format!("producer {} epoch {}: a first transaction, committed by EndTxn version {end}", first.id, first.epoch),
        format!(
            "a second one, epoch {}: one record, not ended; the queue ends at {}, for readers of committed records at {}",
            second.epoch, before.0, before.1
        ),
        format!("the first transaction's EndTxn, which was sent twice, arrives once more: {}", answered(late)),
        format!("the queue ends at {ends}, for readers of committed records at {committed}"),
        format!("the producer aborts its second transaction: {}", answered(aborted)),
    ];
    // Committed by nobody's wish: readers of committed records see what its producer aborts.
    Ok(Shown { is_there: late == 0 && committed > before.1 && committed >= ends, steps })
}

/// The markers are written after EndTxn is answered.
fn wait_until_ended(wire: &mut Wire, topic: &str) -> std::io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (end, committed) = wire.ends(topic)?;
        if end == committed {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(std::io::Error::other("the transaction's marker is not written"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn answered(code: i16) -> String {
    let name = match code {
        0 => "done",
        47 => "INVALID_PRODUCER_EPOCH",
        48 => "INVALID_TXN_STATE",
        90 => "PRODUCER_FENCED",
        120 => "TRANSACTION_ABORTABLE",
        _ => "an error",
    };
    format!("{name} ({code})")
}

/// Versions of clients before KIP-890.
const OLD_PRODUCE: i16 = 9;
const OLD_END: i16 = 3;
/// Versions of clients since its second part.
const NEW_PRODUCE: i16 = 12;
const NEW_END: i16 = 5;
const TRANSACTION_TIMEOUT_MS: i32 = 5_000;
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Markers that are going to be written are written by then.
const SETTLED: Duration = Duration::from_secs(2);
