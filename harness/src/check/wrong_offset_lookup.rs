//! wrong-offset-lookup: a lookup by timestamp T must give the earliest record whose timestamp is at or past T, to the
//! millisecond. What must be considered are records that certainly existed when the lookup was invoked and that no
//! deletion had removed when it completed; what may be answered is any record at or past T.

use super::case::Case;
use super::order::{QueueOrder, Send};
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::Anomaly;
use crate::history::{Call, OffsetQuery, Outcome, Queue, SeekTarget};

/// A lookup and its answer.
struct Lookup {
    operation: u32,
    queue: Queue,
    sought_ms: i64,
    /// The offset found; none where the broker said that there is none.
    found: Option<u64>,
    found_ms: Option<i64>,
    /// Whether the answer is a record's offset for certain: a seek that finds none goes to the end.
    is_exact: bool,
    invoked_us: u64,
    completed_us: u64,
}

/// A batch that is in the log at the end and surely existed from a time on.
struct Piece<'a> {
    send: &'a Send,
    offset: u64,
    since_us: u64,
    timestamps_ms: &'a [i64],
}

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut lookups: Vec<Lookup> = lookups(case);
    lookups.sort_by_key(|lookup| (lookup.queue, lookup.invoked_us));
    let mut found = Vec::new();
    for of_queue in lookups.chunk_by(|one, other| one.queue == other.queue) {
        let queue = of_queue[0].queue;
        // A compacted topic gives the earliest record that is left, and that changes with every pass.
        if !case.topic(queue).has_create_time || case.topic(queue).compaction.is_some() {
            continue;
        }
        if let Some(order) = case.order.queues.get(&queue) {
            found.extend(check_queue(case, queue, order, of_queue));
        }
    }
    Ok(found)
}

fn lookups(case: &Case<'_>) -> Vec<Lookup> {
    let mut lookups = Vec::new();
    for index in &case.order.lookups {
        let operation = case.operation(*index);
        if operation.outcome != Outcome::Done {
            continue;
        }
        let (queue, sought_ms, offset, found_ms, is_exact) = match &operation.call {
            Call::ListOffset { queue, query: OffsetQuery::Timestamp(sought), offset: Some(offset), timestamp_ms } => {
                (*queue, *sought, *offset, *timestamp_ms, true)
            }
            Call::Seek { queue, to: SeekTarget::Timestamp(sought), offset: Some(offset) } => {
                (*queue, *sought, *offset, None, false)
            }
            Call::ListOffset { .. }
            | Call::Seek { .. }
            | Call::Produce { .. }
            | Call::Poll { .. }
            | Call::DeleteRecords { .. }
            | Call::Group { .. }
            | Call::CreateTopic { .. } => continue,
        };
        lookups.push(Lookup {
            operation: *index,
            queue,
            sought_ms,
            found: u64::try_from(offset).ok(),
            found_ms: found_ms.filter(|found_ms| *found_ms >= 0),
            is_exact,
            invoked_us: operation.invoked_us,
            completed_us: operation.completed_us,
        });
    }
    lookups
}

fn check_queue(case: &Case<'_>, queue: Queue, order: &QueueOrder, lookups: &[Lookup]) -> Vec<Occurrence> {
    let pieces = pieces(case, order);
    let mut by_time: Vec<usize> = (0..pieces.len()).collect();
    by_time.sort_by_key(|index| pieces[*index].since_us);
    let mut by_time = by_time.into_iter().peekable();
    let mut greatest = Greatest::of(pieces.len());
    let mut found = Vec::new();
    for lookup in lookups {
        while let Some(index) = by_time.next_if(|index| pieces[*index].since_us < lookup.invoked_us) {
            greatest.set(index, pieces[index].timestamps_ms.iter().copied().max().unwrap_or(i64::MIN));
        }
        if let Some(occurrence) = answered_too_early(case, queue, order, lookup) {
            found.push(occurrence);
            continue;
        }
        let ceiling = case.start_ceiling(queue, order, lookup.completed_us);
        let end = lookup.found.unwrap_or(u64::MAX);
        // The ceiling may lie within a batch: the one before the first that starts at or past it counts too.
        let mut from = pieces.partition_point(|piece| piece.offset < ceiling).saturating_sub(1);
        while let Some(index) = greatest.first_at_least(from, lookup.sought_ms) {
            let piece = &pieces[index];
            if piece.offset >= end {
                break;
            }
            if let Some(offset) = piece.first_at_least(lookup.sought_ms, ceiling).filter(|offset| *offset < end) {
                found.push(overlooked(case, queue, order, lookup, piece, offset));
                break;
            }
            from = index + 1;
        }
    }
    found
}

/// Batches whose place is certain and final, by offset.
fn pieces<'a>(case: &Case<'a>, order: &'a QueueOrder) -> Vec<Piece<'a>> {
    let has_finals = order.polls.iter().any(|poll| poll.is_final);
    let is_undisturbed = case.struck(0, u64::MAX).is_empty();
    let mut pieces = Vec::new();
    for send in &order.sends {
        let Some((offset, since_us)) = send.placed() else { continue };
        let end = offset + u64::from(send.count) - 1;
        let stays = order.is_final_at(send.end_value() - 1, end);
        if !stays && (has_finals || !is_undisturbed) {
            continue;
        }
        match &case.operation(send.operation).call {
            Call::Produce { timestamps_ms, .. } => pieces.push(Piece { send, offset, since_us, timestamps_ms }),
            Call::Poll { .. }
            | Call::Seek { .. }
            | Call::ListOffset { .. }
            | Call::DeleteRecords { .. }
            | Call::Group { .. }
            | Call::CreateTopic { .. } => {}
        }
    }
    pieces.sort_by_key(|piece| piece.offset);
    pieces
}

impl Piece<'_> {
    /// Offset, at or past the ceiling, of the first record whose timestamp is at or past the time.
    fn first_at_least(&self, sought_ms: i64, ceiling: u64) -> Option<u64> {
        let offsets = self.offset..;
        let mut records = offsets.zip(self.timestamps_ms);
        records.find(|(offset, timestamp)| *offset >= ceiling && **timestamp >= sought_ms).map(|(offset, _)| offset)
    }
}

/// The answer names a record that is known, and is from before the time sought or has another timestamp than answered.
fn answered_too_early(case: &Case<'_>, queue: Queue, order: &QueueOrder, lookup: &Lookup) -> Option<Occurrence> {
    let offset = lookup.found.filter(|_| lookup.is_exact)?;
    let strand = order.final_strands.at(offset..offset + 1).next()?;
    let value = strand.value_at(offset);
    let timestamp_ms = case.timestamp(order, value)?;
    let is_right = timestamp_ms >= lookup.sought_ms && lookup.found_ms.is_none_or(|found| found == timestamp_ms);
    if is_right {
        return None;
    }
    let text = format!(
        "asked for {} ms, answered offset {offset}{}",
        lookup.sought_ms,
        lookup.found_ms.map_or(String::new(), |found| format!(" of {found} ms"))
    );
    let record = format!("{} at offset {offset} was sent with {timestamp_ms} ms", case.record(value));
    let send = order.send_of(value)?;
    Some(occurrence(case, queue, order, lookup, &text, (send.operation, record)))
}

/// The answer lies behind a record that was there.
fn overlooked(
    case: &Case<'_>,
    queue: Queue,
    order: &QueueOrder,
    lookup: &Lookup,
    piece: &Piece<'_>,
    offset: u64,
) -> Occurrence {
    let index = (offset - piece.offset) as usize;
    let answer = lookup.found.map_or("that there is none".to_owned(), |found| format!("offset {found}"));
    let text = format!("asked for {} ms, answered {answer}", lookup.sought_ms);
    let record = case.record(piece.send.first_value + index as u64);
    let record = format!("{record} at offset {offset} has {} ms and was there before", piece.timestamps_ms[index]);
    occurrence(case, queue, order, lookup, &text, (piece.send.operation, record))
}

fn occurrence(
    case: &Case<'_>,
    queue: Queue,
    order: &QueueOrder,
    lookup: &Lookup,
    text: &str,
    (sender, record): (u32, String),
) -> Occurrence {
    // Also a loss after the lookup counts: new records may have taken the offset that was answered.
    let facts = case.consequence_facts(queue, order, 0, u64::MAX);
    Occurrence {
        anomaly: Anomaly::WrongOffsetLookup,
        count: 1,
        allowed: case.matrix.allowance(Anomaly::WrongOffsetLookup, &facts),
        explanation: format!("A lookup by time in {} {text}; {record}.", case.name(queue)),
        evidence: vec![Evidence::operation(lookup.operation, text.to_owned()), Evidence::operation(sender, record)],
    }
}

/// Numbers by index, and the first index from a given one on whose number is large enough: a segment tree of maxima.
struct Greatest {
    leaves: usize,
    tree: Vec<i64>,
}

impl Greatest {
    /// All numbers at the minimum.
    fn of(count: usize) -> Greatest {
        let leaves = count.next_power_of_two();
        Greatest { leaves, tree: vec![i64::MIN; leaves * 2] }
    }

    fn set(&mut self, index: usize, number: i64) {
        let mut node = self.leaves + index;
        while node > 0 {
            self.tree[node] = self.tree[node].max(number);
            node /= 2;
        }
    }

    fn first_at_least(&self, from: usize, bound: i64) -> Option<usize> {
        if from >= self.leaves || bound == i64::MIN {
            return None;
        }
        let mut node = self.leaves + from;
        while self.tree[node] < bound {
            // Up while it is a right child, then to the right neighbour; past the last one there is none.
            while node % 2 == 1 {
                node /= 2;
            }
            if node == 0 {
                return None;
            }
            node += 1;
        }
        while node < self.leaves {
            node = if self.tree[node * 2] >= bound { node * 2 } else { node * 2 + 1 };
        }
        Some(node - self.leaves)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Greatest;

    proptest! {
        #[test]
        fn the_tree_agrees_with_a_plain_search(
            numbers in prop::collection::vec(-20i64..20, 1..40),
            from in 0usize..45,
            bound in -22i64..22,
        ) {
            let mut greatest = Greatest::of(numbers.len());
            numbers.iter().enumerate().for_each(|(index, number)| greatest.set(index, *number));
            let plain = (from..numbers.len()).find(|index| numbers[*index] >= bound);
            prop_assert_eq!(greatest.first_at_least(from, bound), plain);
        }
    }
}
