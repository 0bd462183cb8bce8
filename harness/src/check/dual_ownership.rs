//! dual-ownership: two members own one queue at once. In the classic protocol: in one generation. In the consumer protocol,
//! whose members have epochs of their own: the coordinator confirmed one after it had given the queue to the other.
//! A member that was cut off and does not know yet that it lost its queues is neither.

use super::case::Case;
use super::groups::{GroupView, Lease};
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::Anomaly;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (group, view) in case.groups() {
        for (index, one) in view.leases.iter().enumerate() {
            for other in &view.leases[index + 1..] {
                if one.client != other.client && one.queue == other.queue && are_both_owners(case, *group, one, other) {
                    found.push(occurrence(case, *group, view, one, other));
                }
            }
        }
    }
    Ok(found)
}

fn are_both_owners(case: &Case<'_>, group: u32, one: &Lease, other: &Lease) -> bool {
    let (first, second) = if one.since_us <= other.since_us { (one, other) } else { (other, one) };
    let overlap = second.since_us < first.until_us && first.since_us < second.until_us;
    let in_one_generation = one.generation == other.generation && case.context.is_classic(group);
    // The second is confirmed after the first got its lease, as it should be; not so the other way round.
    let is_first_confirmed = first.confirmed.is_some_and(|(at_us, _)| at_us > second.since_us);
    // An answer that was under way for long: an older generation was given before a newer one, whenever it arrives.
    let is_given_later = second.generation >= first.generation;
    overlap && (in_one_generation || (is_first_confirmed && is_given_later))
}

fn occurrence(case: &Case<'_>, group: u32, _view: &GroupView, one: &Lease, other: &Lease) -> Occurrence {
    let name = case.name(one.queue);
    let mut evidence: Vec<Evidence> = [one, other]
        .map(|lease| {
            let text = format!("client {} owns {name}, generation {}", lease.client, lease.generation);
            Evidence::operation(lease.operation, text)
        })
        .into();
    let confirmed = [one, other].into_iter().filter_map(|lease| lease.confirmed);
    evidence.extend(
        confirmed.map(|(_, operation)| {
            Evidence::operation(operation, format!("the coordinator confirms an owner of {name}"))
        }),
    );
    Occurrence {
        anomaly: Anomaly::DualOwnership,
        count: 1,
        allowed: case.matrix.allowance(Anomaly::DualOwnership, &case.topic_facts(one.queue, 0, u64::MAX)),
        explanation: format!(
            "In group {group}, clients {} and {} owned {name} at the same time, and the coordinator held both for its owner.",
            one.client, other.client
        ),
        evidence,
    }
}
