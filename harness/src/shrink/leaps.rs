//! Big steps first. A plan whose anomaly hangs on a race fails in a share of its runs only, and each piece that is left
//! out rolls the dice anew: taken singly, nearly every piece seems needed. So the end is brought forward first, which
//! leaves all that went before as it was, and then much is left out at once, again and again under other draws: a half,
//! then a quarter, then an eighth. One success is worth hundreds of small steps, and makes each later run shorter.
//! Start at `leap`.

use super::salts::salted;
use super::search::Search;
use crate::history::Queue;
use crate::plan::draws::draw_at;
use crate::plan::{ClientAction, Plan, Trigger};

/// Attempts to leave out a share before a smaller share is tried.
const ATTEMPTS: usize = 64;
/// One of so many parts is left out.
const PARTS: [u64; 3] = [2, 4, 8];
/// Plans with fewer operations and faults are left to the small steps.
const PIECES_MINIMUM: usize = 12;
/// The end is looked for at so many places at once.
const ENDS: usize = 8;
/// Times closer to each other than this need no search for the end, in milliseconds.
const END_STEP_MS: u64 = 100;

/// What an attempt leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Operations, each by a draw of its own.
    Any,
    /// The operations of a stretch of time.
    Stretch,
    /// Whole clients.
    Clients,
    /// What concerns some queues.
    Queues,
    /// Only faults.
    Faults,
}

const KINDS: [Kind; 5] = [Kind::Any, Kind::Stretch, Kind::Clients, Kind::Queues, Kind::Faults];

/// Brings the end forward, then leaves out large parts at once.
pub(super) fn leap(search: &mut Search<'_>) {
    bring_end_forward(search);
    for parts in PARTS {
        while search.plan().operation_count() + search.plan().faults.len() >= PIECES_MINIMUM {
            let attempt = |plan: &Plan, number: usize| without_part(plan, parts, number);
            if search.round("large parts, other draws", ATTEMPTS, &attempt).is_none() {
                break;
            }
            bring_end_forward(search);
        }
    }
}

/// What is planned for after the anomaly is not needed for it. The early ends are tried first.
fn bring_end_forward(search: &mut Search<'_>) {
    loop {
        let last = times(search.plan()).max().unwrap_or(0);
        let first = times(search.plan()).min().unwrap_or(0);
        if last - first < END_STEP_MS {
            return;
        }
        let cut = |plan: &Plan, number: usize| {
            let end = first + (last - first) * (number as u64 + 1) / (ENDS as u64 + 1);
            without_end(plan, end)
        };
        if search.round("the end", ENDS, &cut).is_none() {
            return;
        }
    }
}

fn without_end(plan: &Plan, end_ms: u64) -> Plan {
    let mut smaller = plan.clone();
    smaller.faults.retain(|fault| strikes_ms(&fault.trigger) <= end_ms);
    for client in &mut smaller.clients {
        client.operations.retain(|operation| operation.at_ms <= end_ms);
    }
    smaller
}

fn strikes_ms(trigger: &Trigger) -> u64 {
    match trigger {
        Trigger::At { at_ms } => *at_ms,
        Trigger::Point { armed_ms, .. } => *armed_ms,
    }
}

fn times(plan: &Plan) -> impl Iterator<Item = u64> + '_ {
    let operations = plan.clients.iter().flat_map(|client| &client.operations).map(|operation| operation.at_ms);
    operations.chain(plan.faults.iter().map(|fault| strikes_ms(&fault.trigger)))
}

/// About one of so many parts is left out, under other draws, which say what goes.
fn without_part(plan: &Plan, parts: u64, number: usize) -> Plan {
    let mut smaller = salted(plan, number);
    let salt = smaller.salt;
    let goes = |what: &str, entity: u64| draw_at(salt, what, entity, parts).is_multiple_of(parts);
    let (first, last) = (times(plan).min().unwrap_or(0), times(plan).max().unwrap_or(0));
    let width = (last - first) / parts + 1;
    let from = first + draw_at(salt, "leap-time", 0, parts) % (last - first + 2 - width);
    let kind = KINDS[number % KINDS.len()];
    let mut entity = 0;
    for (index, client) in smaller.clients.iter_mut().enumerate() {
        client.operations.retain(|operation| {
            entity += 1;
            !match kind {
                Kind::Any => goes("leap-operation", entity),
                Kind::Stretch => (from..from + width).contains(&operation.at_ms),
                Kind::Clients => goes("leap-client", index as u64),
                Kind::Queues => queue_of(&operation.action)
                    .is_some_and(|queue| goes("leap-queue", u64::from(queue.topic) << 32 | u64::from(queue.partition))),
                Kind::Faults => false,
            }
        });
    }
    // Every other attempt at operations leaves the faults as they are.
    if kind == Kind::Faults || (number / KINDS.len()).is_multiple_of(2) {
        let mut entity = 0;
        smaller.faults.retain(|_| {
            entity += 1;
            !goes("leap-fault", entity)
        });
    }
    smaller
}

fn queue_of(action: &ClientAction) -> Option<Queue> {
    match action {
        ClientAction::Produce { queue, .. }
        | ClientAction::Seek { queue, .. }
        | ClientAction::ListOffset { queue, .. }
        | ClientAction::DeleteRecords { queue } => Some(*queue),
        ClientAction::Poll { .. } | ClientAction::Crash { .. } | ClientAction::Leave => None,
    }
}
