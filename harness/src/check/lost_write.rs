//! lost-write: a value whose send took effect lies where reads passed after it did, and nobody ever read it.

use super::case::Case;
use super::order::{QueueOrder, Send};
use super::ranges::Ranges;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::Anomaly;
use crate::history::Queue;

/// A part of a batch that nobody read.
struct Candidate<'a> {
    send: &'a Send,
    first_value: u64,
    offset: u64,
    count: u64,
    since_us: u64,
}

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    Ok(case.order.queues.iter().flat_map(|(queue, order)| check_queue(case, *queue, order)).collect())
}

fn check_queue(case: &Case<'_>, queue: Queue, order: &QueueOrder) -> Vec<Occurrence> {
    let mut candidates = candidates(order);
    if candidates.is_empty() {
        return Vec::new();
    }
    // Later sends first, so that polls are added as the time goes back: those invoked after the send took effect.
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.since_us));
    let mut polls: Vec<_> = order.polls.iter().collect();
    polls.sort_by_key(|poll| poll.invoked_us);
    let mut passed = Ranges::default();
    let mut found = Vec::new();
    for candidate in candidates {
        while let Some(poll) = polls.pop_if(|poll| poll.invoked_us > candidate.since_us) {
            passed.insert(case.passed(queue, order, poll));
        }
        let places = candidate.offset..candidate.offset + candidate.count;
        for place in passed.within(places) {
            let lost: u64 =
                order.excused_offsets.missing_from(place.clone()).iter().map(|part| part.end - part.start).sum();
            if lost > 0 {
                found.push(occurrence(case, queue, order, &candidate, lost, place.start));
            }
        }
    }
    found
}

/// Parts of batches that surely took effect and were never read.
fn candidates(order: &QueueOrder) -> Vec<Candidate<'_>> {
    let mut candidates = Vec::new();
    for send in &order.sends {
        let Some((first_offset, since_us)) = send.placed() else { continue };
        for values in order.read_values.missing_from(send.first_value..send.end_value()) {
            let offset = first_offset + (values.start - send.first_value);
            let count = values.end - values.start;
            candidates.push(Candidate { send, first_value: values.start, offset, count, since_us });
        }
    }
    candidates
}

fn occurrence(
    case: &Case<'_>,
    queue: Queue,
    order: &QueueOrder,
    candidate: &Candidate<'_>,
    count: u64,
    place: u64,
) -> Occurrence {
    let value = candidate.first_value + (place - candidate.offset);
    let (record, name) = (case.record(value), case.name(queue));
    let passer = order
        .polls
        .iter()
        .find(|poll| poll.invoked_us > candidate.since_us && case.passed(queue, order, poll).contains(&place));
    let mut evidence =
        vec![Evidence::operation(candidate.send.operation, format!("{record} took offset {place} of {name}"))];
    if let Some(poll) = passer {
        let text = format!("this later poll passed offset {place} of {name} and did not deliver it");
        evidence.push(Evidence::operation(poll.operation, text));
    }
    Occurrence {
        anomaly: Anomaly::LostWrite,
        count,
        allowed: case.loss_allowance(Anomaly::LostWrite, queue, order, candidate.send),
        explanation: format!(
            "The send of {record} to {name} took effect at offset {place}. Reads passed that offset, and nobody ever read it."
        ),
        evidence,
    }
}
