//! A consumer's walk through a queue, step by step: from where it had to go on to what it got next. Shared by
//! `nonmonotonic_poll` (steps back) and `poll_skip` (steps over something). Seeks and the final reads begin anew.

use std::collections::BTreeMap;

use super::case::Case;
use super::order::QueueOrder;

/// One run delivered where another position was due.
#[derive(Debug)]
pub(super) struct Misstep {
    /// Index of the poll that delivered it.
    pub(super) operation: u32,
    /// When that poll completed, in microseconds since the run began.
    pub(super) completed_us: u64,
    /// The operation that left off at the position, where it was another.
    pub(super) previous: Option<u32>,
    /// Offset that was due.
    pub(super) due: u64,
    /// Offset that came.
    pub(super) came: u64,
}

/// Every run of the queue that did not begin where its consumer had left off.
pub(super) fn missteps<'a>(case: &Case<'_>, order: &'a QueueOrder) -> &'a [Misstep] {
    order.missteps.get_or_init(|| find(case, order))
}

fn find(case: &Case<'_>, order: &QueueOrder) -> Vec<Misstep> {
    // By client and whether the read is final: the offset due next, and the operation that left off there.
    let mut walks: BTreeMap<(u32, bool), (u64, u32)> = BTreeMap::new();
    let mut seeks = order.seeks.iter().peekable();
    let mut found = Vec::new();
    for poll in &order.polls {
        while let Some(seek) = seeks.next_if(|seek| **seek < poll.operation) {
            walks.remove(&(case.operation(*seek).client.0, false));
        }
        let walk = (poll.client, poll.is_final);
        let (mut due, mut previous) = match walks.get(&walk) {
            Some((due, operation)) => (Some(*due), Some(*operation)),
            None => (poll.position, None),
        };
        for read in order.reads_of(poll) {
            if let Some(due) = due.filter(|due| *due != read.first_offset) {
                let (operation, completed_us) = (poll.operation, poll.completed_us);
                found.push(Misstep { operation, completed_us, previous, due, came: read.first_offset });
            }
            due = Some(read.strand().end());
            previous = Some(poll.operation);
        }
        if let (Some(due), Some(previous)) = (due, previous) {
            walks.insert(walk, (due, previous));
        }
    }
    found
}
