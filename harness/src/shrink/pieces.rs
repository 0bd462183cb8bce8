//! What can be left out of a plan: faults, clients, operations, in chunks that halve; then nodes, topics and queues
//! that nothing needs. Client slots stay where they are; only empty ones at the end go.

use std::ops::Range;

use super::search::Search;
use crate::history::Queue;
use crate::plan::{Client, ClientAction, Endpoint, FaultAction, Plan, Role};

/// Nodes that a plan can have at most.
const NODES_MAXIMUM: usize = 8;

/// Leaves out what can be left out.
pub(super) fn drop_pieces(search: &mut Search<'_>) {
    drop_chunks(search, "faults", |plan| plan.faults.len(), drop_faults);
    drop_chunks(search, "clients", |plan| plan.clients.len(), clear_clients);
    drop_chunks(search, "operations", Plan::operation_count, drop_operations);
    search.round("empty clients", 1, &|plan, _| without_trailing_clients(plan));
    search.round("nodes", NODES_MAXIMUM, &with_nodes);
    merge_queues(search);
}

/// Tries every chunk, from all there is down to single pieces; where one can go, the search goes on at its place.
fn drop_chunks(
    search: &mut Search<'_>,
    now: &'static str,
    length: fn(&Plan) -> usize,
    without: fn(&mut Plan, Range<usize>),
) {
    let mut size = length(search.plan());
    while size > 0 {
        let mut start = 0;
        loop {
            let before = length(search.plan());
            let count = before.saturating_sub(start).div_ceil(size);
            let chunk = |plan: &Plan, number: usize| {
                let from = start + number * size;
                let mut smaller = plan.clone();
                without(&mut smaller, from..before.min(from + size));
                smaller
            };
            let Some(number) = search.round(now, count, &chunk) else { break };
            start += number * size;
            if length(search.plan()) == before {
                // The chunk was emptied and its slots stay, so the next one lies behind them.
                start += size;
            }
        }
        size /= 2;
    }
}

fn drop_faults(plan: &mut Plan, range: Range<usize>) {
    plan.faults.drain(range);
}

fn clear_clients(plan: &mut Plan, range: Range<usize>) {
    plan.clients[range].iter_mut().for_each(|client| client.operations.clear());
}

/// Operations are numbered through all clients.
pub(super) fn drop_operations(plan: &mut Plan, range: Range<usize>) {
    let mut number = 0;
    for client in &mut plan.clients {
        client.operations.retain(|_| {
            number += 1;
            !range.contains(&(number - 1))
        });
    }
}

fn without_trailing_clients(plan: &Plan) -> Plan {
    let mut smaller = plan.clone();
    while smaller.clients.len() > 1 && smaller.clients.last().is_some_and(|client| client.operations.is_empty()) {
        let last = smaller.clients.len() as u32 - 1;
        if smaller.faults.iter().any(|fault| names_client(&fault.action, last)) {
            break;
        }
        smaller.clients.pop();
    }
    smaller
}

fn names_client(action: &FaultAction, client: u32) -> bool {
    match action {
        FaultAction::Link { from, to, .. } => [*from, *to].contains(&Endpoint::Client(client)),
        FaultAction::Partition { cut, .. } => {
            cut.iter().any(|link| [link.from, link.to].contains(&Endpoint::Client(client)))
        }
        FaultAction::Kill { .. }
        | FaultAction::KillSet { .. }
        | FaultAction::PowerLoss { .. }
        | FaultAction::PowerLossSet { .. }
        | FaultAction::ClockSkew { .. }
        | FaultAction::Restart { .. }
        | FaultAction::Pause { .. }
        | FaultAction::DiskError { .. }
        | FaultAction::DiskFull { .. }
        | FaultAction::DiskSlow { .. }
        | FaultAction::AddNode { .. }
        | FaultAction::RemoveNode { .. }
        | FaultAction::BitFlip { .. } => false,
    }
}

/// One node more than the number; a fault on a node that is gone makes the candidate one that cannot be run.
fn with_nodes(plan: &Plan, number: usize) -> Plan {
    let mut smaller = plan.clone();
    smaller.world.nodes = smaller.world.nodes.min(number as u32 + 1);
    smaller.world.joining = smaller.world.nodes.saturating_sub(plan.world.founders());
    for topic in &mut smaller.topics {
        topic.replication = topic.replication.min(smaller.world.founders());
    }
    smaller
}

/// First each topic down to its first queue, then all topics into the first, then what nobody names goes.
fn merge_queues(search: &mut Search<'_>) {
    search.round("queues", 1, &|plan, _| redirected(plan, |_| Queue { topic: 0, partition: 0 }));
    let mut topic = 0;
    while topic < search.plan().topics.len() {
        search.round("queues", 1, &|plan, _| {
            let first = |queue: Queue| if queue.topic as usize == topic { 0 } else { queue.partition };
            redirected(plan, |queue| Queue { topic: queue.topic, partition: first(queue) })
        });
        topic += 1;
    }
    search.round("queues", 1, &|plan, _| with_needed_assignments(plan));
    search.round("queues", 1, &|plan, _| with_needed_queues(plan));
}

fn redirected(plan: &Plan, to: impl Fn(Queue) -> Queue) -> Plan {
    let mut smaller = plan.clone();
    for client in &mut smaller.clients {
        if let Role::Consumer { queues, .. } = &mut client.role {
            queues.iter_mut().for_each(|queue| *queue = to(*queue));
            queues.sort_unstable();
            queues.dedup();
        }
        for operation in &mut client.operations {
            match &mut operation.action {
                ClientAction::Produce { queue, .. }
                | ClientAction::Seek { queue, .. }
                | ClientAction::ListOffset { queue, .. }
                | ClientAction::DeleteRecords { queue } => *queue = to(*queue),
                ClientAction::Poll { .. } | ClientAction::Crash { .. } | ClientAction::Leave => {}
            }
        }
    }
    smaller
}

/// Consumers read only queues that an operation names, and none where they have nothing to do.
fn with_needed_assignments(plan: &Plan) -> Plan {
    let mut smaller = plan.clone();
    let named: Vec<Queue> = plan.clients.iter().flat_map(named_queues).collect();
    for Client { role, operations } in &mut smaller.clients {
        if let Role::Consumer { queues, .. } = role {
            queues.retain(|queue| !operations.is_empty() && named.contains(queue));
        }
    }
    smaller
}

/// The queues that a client's operations name.
fn named_queues(client: &Client) -> impl Iterator<Item = Queue> + '_ {
    client.operations.iter().filter_map(|operation| match &operation.action {
        ClientAction::Produce { queue, .. }
        | ClientAction::Seek { queue, .. }
        | ClientAction::ListOffset { queue, .. }
        | ClientAction::DeleteRecords { queue } => Some(*queue),
        ClientAction::Poll { .. } | ClientAction::Crash { .. } | ClientAction::Leave => None,
    })
}

/// Queues behind the last that is named go, and so do topics; one queue always stays.
fn with_needed_queues(plan: &Plan) -> Plan {
    let mut smaller = plan.clone();
    let assigned = plan.clients.iter().flat_map(|client| match &client.role {
        Role::Consumer { queues, .. } => queues.clone(),
        // A member is given every queue of its topics.
        Role::Member { topics, .. } if !client.operations.is_empty() => {
            let topics = topics.iter().filter_map(|topic| Some((*topic, plan.topics.get(*topic as usize)?)));
            topics.flat_map(|(topic, of)| (0..of.queues).map(move |partition| Queue { topic, partition })).collect()
        }
        Role::Producer { .. } | Role::Member { .. } => Vec::new(),
    });
    let named: Vec<Queue> = plan.clients.iter().flat_map(named_queues).chain(assigned).collect();
    let topics = named.iter().map(|queue| queue.topic as usize + 1).max().unwrap_or(1);
    smaller.topics.truncate(topics.max(1));
    for (index, topic) in smaller.topics.iter_mut().enumerate() {
        let of_topic = named.iter().filter(|queue| queue.topic as usize == index);
        let needed = of_topic.map(|queue| queue.partition + 1).max().unwrap_or(1);
        // An auto-created topic has as many as the broker's settings say.
        if !topic.auto_created {
            topic.queues = topic.queues.min(needed);
        }
    }
    smaller
}
