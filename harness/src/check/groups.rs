//! What the history says of consumer groups, as the group checkers need it: leases (who owned a queue from when to when,
//! and until when the coordinator surely agreed), commits and what OffsetFetch answered. Not here: any anomaly.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Call, GroupStep, History, Outcome, Queue};

/// A member's ownership of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) client: u32,
    pub(super) queue: Queue,
    pub(super) generation: i32,
    /// The operation that gave it.
    pub(super) operation: u32,
    /// From the completion of that operation on.
    pub(super) since_us: u64,
    /// It processed nothing of the queue from then on; the largest number where the history does not say.
    pub(super) until_us: u64,
    /// The latest operation by which the coordinator confirmed it, and when that was called.
    pub(super) confirmed: Option<(u64, u32)>,
}

/// A commit of one queue that took effect, or may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) client: u32,
    pub(super) generation: i32,
    pub(super) offset: i64,
    pub(super) operation: u32,
    pub(super) invoked_us: u64,
    /// None where its outcome is unknown: it may take effect at any later time.
    pub(super) completed_us: Option<u64>,
}

/// What OffsetFetch answered for one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) offset: i64,
    pub(super) operation: u32,
    pub(super) invoked_us: u64,
    pub(super) completed_us: u64,
}

/// One group.
#[derive(Debug, Default)]
pub(super) struct GroupView {
    /// Its members' clients.
    pub(super) clients: BTreeSet<u32>,
    /// In the order in which they were given.
    pub(super) leases: Vec<Lease>,
    pub(super) commits: BTreeMap<Queue, Vec<Commit>>,
    pub(super) fetched: BTreeMap<Queue, Vec<Fetched>>,
    /// Generations with the time at which a member was surely told of each, in that order.
    pub(super) generations: Vec<(u64, i32)>,
    open: BTreeMap<(u32, Queue), usize>,
}

/// The history's groups by number.
pub(super) fn groups(history: &History) -> BTreeMap<u32, GroupView> {
    let mut groups: BTreeMap<u32, GroupView> = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let Call::Group { group, generation, step, .. } = &operation.call else { continue };
        let view = groups.entry(*group).or_default();
        let (index, client) = (index as u32, operation.client.0);
        let (invoked_us, completed_us) = (operation.invoked_us, operation.completed_us);
        view.clients.insert(client);
        let is_done = operation.outcome == Outcome::Done;
        match step {
            GroupStep::Own { queues } if is_done => {
                view.generations.push((completed_us, *generation));
                view.own(client, *generation, queues, (index, invoked_us, completed_us));
            }
            GroupStep::Release { queues } => queues.iter().for_each(|queue| view.release(client, *queue, invoked_us)),
            GroupStep::Commit { offsets } if !matches!(operation.outcome, Outcome::Refused(_)) => {
                for position in offsets {
                    if is_done {
                        view.confirm(client, position.queue, invoked_us, index);
                    }
                    view.commits.entry(position.queue).or_default().push(Commit {
                        client,
                        generation: *generation,
                        offset: position.offset,
                        operation: index,
                        invoked_us,
                        completed_us: is_done.then_some(completed_us),
                    });
                }
            }
            GroupStep::FetchOffsets { offsets } if is_done => {
                for position in offsets {
                    let fetched = Fetched { offset: position.offset, operation: index, invoked_us, completed_us };
                    view.fetched.entry(position.queue).or_default().push(fetched);
                }
            }
            GroupStep::Own { .. } | GroupStep::Commit { .. } | GroupStep::FetchOffsets { .. } => {}
        }
    }
    groups
}

impl GroupView {
    fn own(
        &mut self,
        client: u32,
        generation: i32,
        queues: &[Queue],
        (operation, invoked_us, since_us): (u32, u64, u64),
    ) {
        let held: Vec<Queue> =
            self.open.keys().filter(|(owner, _)| *owner == client).map(|(_, queue)| *queue).collect();
        for queue in held {
            let lease = self.open.get(&(client, queue)).and_then(|index| self.leases.get(*index));
            let goes_on = queues.contains(&queue) && lease.is_some_and(|lease| lease.generation == generation);
            match goes_on {
                true => self.confirm(client, queue, invoked_us, operation),
                false => self.release(client, queue, invoked_us),
            }
        }
        for queue in queues {
            if self.open.contains_key(&(client, *queue)) {
                continue;
            }
            self.open.insert((client, *queue), self.leases.len());
            let (until_us, confirmed) = (u64::MAX, None);
            self.leases.push(Lease { client, queue: *queue, generation, operation, since_us, until_us, confirmed });
        }
    }

    fn release(&mut self, client: u32, queue: Queue, at_us: u64) {
        if let Some(index) = self.open.remove(&(client, queue)) {
            self.leases[index].until_us = at_us;
        }
    }

    fn confirm(&mut self, client: u32, queue: Queue, at_us: u64, operation: u32) {
        if let Some(index) = self.open.get(&(client, queue)) {
            self.leases[*index].confirmed = Some((at_us, operation));
        }
    }
}
