//! commit-ahead: a committed offset lies beyond what the group's members were given: records below it reached nobody.
//! Who commits before processing accepts that a crash between the two does so.

use super::case::Case;
use super::groups::GroupView;
use super::order::QueueOrder;
use super::ranges::Ranges;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};
use crate::history::Queue;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (group, view) in case.groups() {
        for (queue, order) in &case.order.queues {
            found.extend(check_queue(case, *group, view, *queue, order));
        }
    }
    Ok(found)
}

fn check_queue(case: &Case<'_>, group: u32, view: &GroupView, queue: Queue, order: &QueueOrder) -> Option<Occurrence> {
    let commits = view.commits.get(&queue)?.iter().filter(|commit| commit.completed_us.is_some());
    let highest = commits.max_by_key(|commit| commit.offset)?;
    let of_group = order.polls.iter().filter(|poll| view.clients.contains(&poll.client));
    let given = of_group.flat_map(|poll| order.reads_of(poll)).map(|read| {
        let strand = read.strand();
        strand.first_offset..strand.end()
    });
    let given = Ranges::of(given.collect());
    let first = case.justified_ceiling(queue, order);
    let below = first.min(highest.offset.unsigned_abs())..highest.offset.unsigned_abs();
    // Only what somebody read is known to exist: an offset without a record reaches nobody.
    let existing = Ranges::of(order.strands.iter().map(|strand| strand.first_offset..strand.end()).collect());
    let missed: Vec<_> = existing.within(below).into_iter().flat_map(|part| given.missing_from(part)).collect();
    let start = missed.first()?.start;
    let count = missed.iter().map(|part| part.end - part.start).sum();
    let name = case.name(queue);
    let facts = Facts {
        commits_before: Some(case.context.commits_before(group)),
        ..case.consequence_facts(queue, order, 0, u64::MAX)
    };
    Some(Occurrence {
        anomaly: Anomaly::CommitAhead,
        count,
        allowed: case.matrix.allowance(Anomaly::CommitAhead, &facts),
        explanation: format!(
            "Group {group} committed offset {} of {name}, and none of its members was given the record at offset {start}.",
            highest.offset
        ),
        evidence: vec![Evidence::operation(
            highest.operation,
            format!("offset {} of {name} is committed; offset {start} reached nobody of the group", highest.offset),
        )],
    })
}
