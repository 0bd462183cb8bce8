//! Which fault the anomaly followed, and what the node's memory and drive say about it. Start at `Cause::of`.
//! A cause is told only as far as the recorded states show it; else the last fault is named as no more than that.

use mqassay_harness::guarantee::Anomaly;
use mqassay_harness::history::{Mark, Queue};
use mqassay_harness::plan::FaultAction;
use mqassay_harness::sim::disk::{FileLoss, LossKind};
use mqassay_harness::story::{BatchState, NodeState, ProducerMemory, QueueState, Story};

use super::evidence::{Focus, queue_name, seconds};
use crate::number;

/// What the recorded states show.
pub(super) struct Cause<'a> {
    /// The fault it followed: when, its class, and its index in the plan.
    pub(super) fault: Option<(u64, &'a str, u32)>,
    /// The node's last state before its process ended, where the process' end explains it.
    pub(super) before: Option<&'a NodeState>,
    /// The first state of the next process.
    pub(super) after: Option<&'a NodeState>,
    /// The third sentence.
    pub(super) sentence: String,
}

impl<'a> Cause<'a> {
    pub(super) fn of(story: &'a Story, focus: &Focus<'a>) -> Cause<'a> {
        let Some(queue) = focus.queue else { return last_fault(story, focus) };
        if let Some(cause) = deleted(story, focus, queue) {
            return cause;
        }
        let crash = lost_in_crash(story, focus, queue);
        let found = crash.or_else(|| flipped(story, focus, queue)).or_else(|| forgotten(story, focus, queue));
        found.unwrap_or_else(|| last_fault(story, focus))
    }

    /// Whether a process ended between the two states.
    pub(super) fn is_restart(&self) -> bool {
        matches!((self.before, self.after), (Some(before), Some(after)) if after.incarnation > before.incarnation)
    }
}

/// A state's view of a queue.
pub(super) fn queue_in(state: &NodeState, queue: Queue) -> Option<&QueueState> {
    state.queues.iter().find(|found| found.queue == queue)
}

/// The batch that holds an offset.
pub(super) fn batch_at(state: &QueueState, offset: i64) -> Option<&BatchState> {
    let covers =
        |batch: &&BatchState| (batch.first_offset..batch.first_offset + i64::from(batch.count)).contains(&offset);
    state.batches.iter().find(covers)
}

/// Each end of a process with what its node knew before and what the next process found.
fn crashes(story: &Story) -> Vec<(&NodeState, &NodeState)> {
    let again = story.starts.iter().filter(|start| start.incarnation > 1);
    let pairs = again.filter_map(|start| {
        let mut earlier = story.states.iter().rev();
        let before = earlier.find(|state| state.node == start.node && state.incarnation + 1 == start.incarnation)?;
        let mut later = story.states.iter();
        let after = later.find(|state| state.node == start.node && state.incarnation == start.incarnation)?;
        Some((before, after))
    });
    pairs.collect()
}

/// An offset that the evidence names was in the log before a process ended, and the next process did not find it.
fn lost_in_crash<'a>(story: &'a Story, focus: &Focus<'a>, queue: Queue) -> Option<Cause<'a>> {
    let until_us = focus.span_us().map_or(u64::MAX, |(_, last)| last);
    for (before, after) in crashes(story) {
        let found = queue_in(before, queue);
        let Some(had) = found else { continue };
        let has = queue_in(after, queue);
        let is_gone = |offset: &&i64| {
            has.is_none_or(|has| **offset >= has.next_offset || batch_at(has, **offset).is_none())
                && has.is_none_or(|has| **offset >= has.log_start)
        };
        let lost = focus.offsets.iter().filter(is_gone).find_map(|offset| Some((*offset, batch_at(had, *offset)?)));
        let Some((offset, batch)) = lost.filter(|_| before.at_us <= until_us) else { continue };
        let fault = fault_between(story, before.at_us, after.at_us, before.node);
        let kept = has.map_or(0, |has| has.next_offset);
        let sentence = sentence_of_loss(story, had, (offset, batch), kept, fault, (before, after));
        return Some(Cause { fault, before: Some(before), after: Some(after), sentence });
    }
    None
}

fn sentence_of_loss(
    story: &Story,
    had: &QueueState,
    (offset, batch): (i64, &BatchState),
    kept: i64,
    fault: Option<(u64, &str, u32)>,
    (before, after): (&NodeState, &NodeState),
) -> String {
    let node = before.node;
    let what = match fault {
        Some((at_us, class, _)) => format!("It followed the {} of node {node} at {}", words(class), seconds(at_us)),
        None => format!("It followed the end of node {node}'s process at {}", seconds(before.at_us)),
    };
    let queue = queue_name(story, had.queue);
    let back = format!("after the restart {queue} ended at offset {kept}");
    let (end, synced) = (number::count(batch.end), number::count(had.synced));
    if batch.end > had.synced {
        let promised = if had.high_watermark > offset {
            format!("had already confirmed it (high watermark {})", had.high_watermark)
        } else {
            format!("had not confirmed it (high watermark {})", had.high_watermark)
        };
        return format!(
            "{what}: offset {offset} lay in volatile memory only (its batch ends at position {end} of log {}, which \
             was synced up to {synced}), the node {promised}, and {back}.",
            had.log
        );
    }
    let belief = format!(
        "the node took offset {offset} for durable (its batch ends at position {end}, and log {} counted as synced \
         up to {synced})",
        had.log
    );
    let held = |loss: &&FileLoss| loss.node == node && segment_holds(loss, had.log, batch);
    let struck = story.losses.iter().filter(held);
    let now = struck.clone().find(|loss| (before.at_us..=after.at_us).contains(&loss.at_us));
    let drive = match now.map(|loss| (loss, loss.kind)) {
        Some((loss, LossKind::Vanished { .. })) => {
            format!("but {} vanished with the power, for its name was never made durable", loss.path)
        }
        Some((loss, LossKind::Bytes { bytes, .. })) => {
            format!("but {} lost {} that were not durable", loss.path, number::counted(bytes, "byte", "bytes"))
        }
        Some((loss, LossKind::BitFlip { offset })) => {
            format!("but a bit of byte {offset} of {} was flipped", loss.path)
        }
        None => {
            let log = had.log;
            let in_log = |loss: &&FileLoss| loss.node == node && loss.path.starts_with(&format!("logs/{log}/"));
            let earlier = story.losses.iter().filter(in_log).rfind(|loss| loss.at_us <= before.at_us);
            match earlier {
                Some(loss) => format!(
                    "the drive still held it, but recovery did not keep it: {} had been torn earlier, at {}",
                    loss.path,
                    seconds(loss.at_us)
                ),
                None => "the drive still held it, but recovery did not keep it".to_owned(),
            }
        }
    };
    format!("{what}: {belief}, {drive}; {back}.")
}

/// A flipped bit in the batch of an offset that the evidence names.
fn flipped<'a>(story: &'a Story, focus: &Focus<'a>, queue: Queue) -> Option<Cause<'a>> {
    for loss in story.losses.iter().filter(|loss| matches!(loss.kind, LossKind::BitFlip { .. })) {
        let mut earlier = story.states.iter().rev();
        let before = earlier.find(|state| state.node == loss.node && state.at_us <= loss.at_us);
        let Some((before, had)) = before.and_then(|state| Some((state, queue_in(state, queue)?))) else { continue };
        let hit = focus
            .offsets
            .iter()
            .find(|offset| batch_at(had, **offset).is_some_and(|batch| segment_holds(loss, had.log, batch)));
        let Some(offset) = hit else { continue };
        let after = story.states.iter().find(|state| state.node == loss.node && state.at_us > loss.at_us);
        let newest = story.states.iter().rev().find(|state| state.node == loss.node);
        let is_fenced = newest.and_then(|state| queue_in(state, queue)).is_some_and(|state| state.fenced);
        let noticed = if is_fenced { "took the queue for corrupt" } else { "never took the queue for corrupt" };
        let sentence = format!(
            "It followed the bit flip on node {}'s drive at {}: a bit of {} flipped, within the batch that holds \
             offset {offset} of {}, and the node {noticed}.",
            loss.node,
            seconds(loss.at_us),
            loss.path,
            queue_name(story, queue)
        );
        let fault = fault_between(story, loss.at_us, loss.at_us, loss.node);
        return Some(Cause { fault, before: Some(before), after, sentence });
    }
    None
}

/// A record below a log start that was told: when the node moved the start over it, and what the topic lets be deleted.
fn deleted<'a>(story: &'a Story, focus: &Focus<'a>, queue: Queue) -> Option<Cause<'a>> {
    focus.finding.filter(|finding| finding.anomaly == Anomaly::PrematureDeletion)?;
    let offset = *focus.offsets.first()?;
    let of_queue = || story.states.iter().filter_map(|state| Some((state, queue_in(state, queue)?)));
    let (after, now) = of_queue().find(|(_, found)| found.log_start > offset)?;
    let earlier = |state: &NodeState| state.node == after.node && state.at_us < after.at_us;
    let (before, had) = of_queue().rfind(|(state, _)| earlier(state))?;
    let (appended, _) = of_queue().find(|(_, found)| batch_at(found, offset).is_some())?;
    let age_ms = (after.at_us - appended.at_us) / 1_000;
    let restarted = if before.incarnation == after.incarnation { "without a restart" } else { "across a restart" };
    let config = story.plan.topics.get(queue.topic as usize).map(|topic| &topic.config);
    let limits: Vec<String> = ["retention.ms", "retention.bytes"]
        .into_iter()
        .filter_map(|key| {
            let value = config?.get(key).filter(|value| !value.is_empty())?;
            Some(format!("{key} is {}", value.parse().map_or_else(|_| value.clone(), number::count)))
        })
        .collect();
    let limits = if limits.is_empty() { "the topic has no retention".to_owned() } else { limits.join(" and ") };
    let sentence = format!(
        "Node {} moved the log start of {} from {} to {} at {}, {restarted}: offset {offset} was in its log for {} ms by \
         then, while {limits}.",
        after.node,
        queue_name(story, queue),
        had.log_start,
        now.log_start,
        seconds(after.at_us),
        number::count(age_ms),
    );
    let fault = fault_before(story, appended.at_us, after.at_us);
    Some(Cause { fault, before: Some(before), after: Some(after), sentence })
}

/// A producer that had the same last sequence number after the later of two offsets as after the earlier one: the
/// second append was a retry that the node no longer recognised.
fn forgotten<'a>(story: &'a Story, focus: &Focus<'a>, queue: Queue) -> Option<Cause<'a>> {
    let (first, last) = (*focus.offsets.first()?, *focus.offsets.last()?);
    if first == last {
        return None;
    }
    let holding = |offset: i64| {
        let holds = move |state: &QueueState| batch_at(state, offset).is_some();
        story.states.iter().position(|state| queue_in(state, queue).is_some_and(holds))
    };
    let (first_at, last_at) = (holding(first)?, holding(last)?);
    let (early, late) = (&story.states[first_at], &story.states[last_at]);
    let before = story.states[..last_at].iter().rev().find(|state| queue_in(state, queue).is_some())?;
    let (remembered, afterwards) = (queue_in(early, queue)?, queue_in(late, queue)?);
    let repeated = remembered.producers.iter().find_map(|old| {
        let is_same = |new: &&ProducerMemory| (new.producer, new.last_sequence) == (old.producer, old.last_sequence);
        afterwards.producers.iter().find(is_same).map(|new| (old.producer, old.window, new.window))
    });
    let (producer, had, has) = repeated?;
    let idle_us = late.at_us - early.at_us;
    let between =
        if before.incarnation > early.incarnation { "the node was started again" } else { "no process ended" };
    let sentence = format!(
        "Node {} appended offset {first} at {} and offset {last} at {}, {} later: behind the first it remembered {} of \
         idempotent producer {producer}, behind the second {}; so it had forgotten the producer and took the retry for \
         new ({between} in that time).",
        late.node,
        seconds(early.at_us),
        seconds(late.at_us),
        number::duration(idle_us as f64 * 1000.0),
        number::counted(u64::from(had), "batch", "batches"),
        number::counted(u64::from(has), "batch", "batches"),
    );
    let fault = fault_before(story, early.at_us, late.at_us);
    Some(Cause { fault, before: Some(before), after: Some(late), sentence })
}

fn last_fault<'a>(story: &'a Story, focus: &Focus<'a>) -> Cause<'a> {
    let (first_us, seen_us) = focus.span_us().unwrap_or((0, u64::MAX));
    // What nobody read is missed at the end only, long after the operations that prove it.
    let is_missed = focus.finding.is_some_and(|finding| finding.anomaly == Anomaly::Unseen);
    let last_us = if is_missed { u64::MAX } else { seen_us };
    let fault = fault_before(story, first_us, last_us).or_else(|| fault_before(story, 0, last_us));
    let sentence = match fault {
        Some((at_us, class, _)) => format!(
            "The last fault before it was seen was the {} at {}; the recorded states do not show how that led to it.",
            words(class),
            seconds(at_us)
        ),
        None => "No fault had struck before it was seen.".to_owned(),
    };
    let mut exits = story.history.marks.iter().filter_map(|mark| match mark {
        Mark::NodeExit { at_us, node, reason, .. } if *at_us <= last_us => Some((*at_us, *node, reason)),
        Mark::NodeExit { .. } | Mark::Fault { .. } | Mark::LivenessBegan { .. } | Mark::LivenessEnded { .. } => None,
    });
    let sentence = match exits.next_back() {
        Some((at_us, node, reason)) => {
            let at = seconds(at_us);
            format!("{sentence} Node {node} had ended by itself at {at}, saying: {}.", reason.trim_end_matches('.'))
        }
        None => sentence,
    };
    Cause { fault, before: None, after: None, sentence }
}

/// A fault's class in words.
pub(super) fn words(class: &str) -> String {
    class.replace('-', " ")
}

/// Whether the file is the log's and holds a part of the batch, as far as names tell: a segment's file is named by the
/// position at which it begins.
fn segment_holds(loss: &FileLoss, log: u64, batch: &BatchState) -> bool {
    let name = loss.path.strip_prefix(&format!("logs/{log}/")).and_then(|name| name.strip_suffix(".log"));
    let Some(base) = name.and_then(|digits| digits.parse::<u64>().ok()) else { return false };
    match loss.kind {
        LossKind::Vanished { length } | LossKind::Bytes { length, .. } => {
            base < batch.end && batch.position < base + length
        }
        LossKind::BitFlip { offset } => (batch.position..batch.end).contains(&(base + offset)),
    }
}

/// The fault that struck a node's process or drive within a time.
fn fault_between(story: &Story, from_us: u64, to_us: u64, node: u32) -> Option<(u64, &str, u32)> {
    let struck = struck(story).filter(|(at_us, _, _)| (from_us..=to_us).contains(at_us));
    struck.filter(|(_, _, fault)| node_of(story, *fault) == Some(node)).max_by_key(|(_, class, _)| gravity(class))
}

/// The last fault within a time.
fn fault_before(story: &Story, from_us: u64, to_us: u64) -> Option<(u64, &str, u32)> {
    struck(story).filter(|(at_us, _, _)| (from_us..=to_us).contains(at_us)).last()
}

fn struck(story: &Story) -> impl Iterator<Item = (u64, &str, u32)> {
    story.history.marks.iter().filter_map(|mark| match mark {
        Mark::Fault { at_us, class, fault, .. } => Some((*at_us, class.as_str(), *fault)),
        Mark::NodeExit { .. } | Mark::LivenessBegan { .. } | Mark::LivenessEnded { .. } => None,
    })
}

/// What takes more from a node counts more.
fn gravity(class: &str) -> u8 {
    match class {
        "power-loss" => 3,
        "kill" => 2,
        "bit-flip" | "restart" => 1,
        _ => 0,
    }
}

/// The node that a fault strikes; none where it strikes a link.
pub(super) fn node_of(story: &Story, fault: u32) -> Option<u32> {
    match &story.plan.faults.get(fault as usize)?.action {
        FaultAction::Kill { node, .. }
        | FaultAction::PowerLoss { node, .. }
        | FaultAction::Restart { node, .. }
        | FaultAction::Pause { node, .. }
        | FaultAction::DiskError { node, .. }
        | FaultAction::DiskFull { node, .. }
        | FaultAction::DiskSlow { node, .. }
        | FaultAction::ClockSkew { node, .. }
        | FaultAction::AddNode { node }
        | FaultAction::RemoveNode { node }
        | FaultAction::BitFlip { node, .. } => Some(*node),
        FaultAction::KillSet { nodes, .. } | FaultAction::PowerLossSet { nodes, .. } => nodes.first().copied(),
        FaultAction::Link { .. } | FaultAction::Partition { .. } => None,
    }
}
