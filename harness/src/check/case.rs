//! The case before the checkers: history, context, version order and matrix together, with the questions that several
//! checkers ask: what struck when, how far the final reads went, what a loss or its consequences are allowed by.
//! Not here: the search for any anomaly.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};

use super::compacted;
use super::context::{Context, TopicContext};
use super::groups::{self, GroupView};
use super::order::{Fate, Malformed, PollOfQueue, QueueOrder, Send, VersionOrder};
use crate::guarantee::{Allowance, Anomaly, Facts, Flush, Matrix};
use crate::history::{Call, History, Mark, Operation, Queue, Value};

/// A fault that struck.
struct Strike<'a> {
    at_us: u64,
    class: &'a str,
    nodes: &'a [u32],
}

/// Nodes that were struck; a strike that names none counts as one of its own.
fn nodes_struck<'a>(strikes: impl Iterator<Item = &'a Strike<'a>>) -> usize {
    let (mut nodes, mut unnamed) = (BTreeSet::<u32>::new(), 0);
    for strike in strikes {
        nodes.extend(strike.nodes);
        unnamed += usize::from(strike.nodes.is_empty());
    }
    nodes.len() + unnamed
}

/// After so long without a fault a node that came back is in sync again.
const CALM_US: u64 = 5_000_000;

/// Everything that a checker may look at.
pub(super) struct Case<'a> {
    pub(super) history: &'a History,
    pub(super) context: &'a Context,
    pub(super) matrix: &'a Matrix,
    pub(super) order: VersionOrder,
    strikes: Vec<Strike<'a>>,
    has_final_polls: bool,
    reached: Option<bool>,
    groups: BTreeMap<u32, GroupView>,
}

impl<'a> Case<'a> {
    /// Builds the version order and reads the marks.
    pub(super) fn of(history: &'a History, context: &'a Context, matrix: &'a Matrix) -> Result<Case<'a>, Malformed> {
        let mut order = VersionOrder::of(history)?;
        for (queue, of_queue) in &mut order.queues {
            let topic = context.topics.get(queue.topic as usize);
            compacted::excuse(history, *queue, of_queue, topic.and_then(|topic| topic.compaction));
        }
        let mut strikes = Vec::new();
        let mut reached = None;
        for mark in &history.marks {
            match mark {
                Mark::Fault { at_us, class, nodes, .. } => strikes.push(Strike { at_us: *at_us, class, nodes }),
                Mark::LivenessEnded { reached: whether, .. } => reached = Some(*whether),
                Mark::NodeExit { .. } | Mark::LivenessBegan { .. } => {}
            }
        }
        let has_final_polls = order.has_final_polls;
        let groups = groups::groups(history);
        Ok(Case { history, context, matrix, order, strikes, has_final_polls, reached, groups })
    }

    /// The consumer groups by number.
    pub(super) fn groups(&self) -> &BTreeMap<u32, GroupView> {
        &self.groups
    }

    /// Whether the liveness phase reached its end; none where the history does not say.
    pub(super) fn reached(&self) -> Option<bool> {
        self.reached
    }

    /// The operation with the index.
    pub(super) fn operation(&self, index: u32) -> &'a Operation {
        &self.history.operations[index as usize]
    }

    /// Settings of the queue's topic.
    pub(super) fn topic(&self, queue: Queue) -> TopicContext {
        self.context.topics.get(queue.topic as usize).cloned().unwrap_or_default()
    }

    /// The queue in words.
    pub(super) fn name(&self, queue: Queue) -> String {
        match self.history.header.topics.get(queue.topic as usize) {
            Some(topic) => format!("{topic}/{}", queue.partition),
            None => format!("topic {}/{}", queue.topic, queue.partition),
        }
    }

    /// The value in words.
    pub(super) fn record(&self, value: u64) -> String {
        format!("record {} of client {}", Value(value).sequence(), Value(value).client().0)
    }

    /// Classes of the faults that struck within the time, each once.
    pub(super) fn struck(&self, from_us: u64, to_us: u64) -> Vec<&'a str> {
        let classes: BTreeSet<&str> = self.strikes_within(from_us, to_us).map(|strike| strike.class).collect();
        classes.into_iter().collect()
    }

    fn strikes_within(&self, from_us: u64, to_us: u64) -> impl Iterator<Item = &Strike<'a>> {
        self.strikes.iter().filter(move |strike| (from_us..=to_us).contains(&strike.at_us))
    }

    /// Whether every copy that had to be in sync may have lost what was not synced: as many nodes lost their power within
    /// the time, or one did and all copies ended uncleanly around then. A broker cannot tell a killed process from one
    /// whose power was lost: nobody of them is known to hold more, and who led last leads with what is left (KIP-966).
    fn has_lost_copies(&self, topic: &TopicContext, from_us: u64, to_us: u64) -> bool {
        let copies = self.replication(topic);
        let needed = topic.min_insync_replicas.min(copies).max(1);
        let is_loss = |strike: &&Strike| strike.class == "power-loss";
        let losses = || self.strikes_within(from_us, to_us).filter(is_loss);
        let has_all_ended = |loss: &Strike| {
            let stretch = self.stretch_around(loss.at_us);
            let ends = self.strikes.iter().filter(|strike| is_loss(strike) || strike.class == "kill");
            nodes_struck(ends.filter(|strike| stretch.contains(&strike.at_us))) >= copies as usize
        };
        nodes_struck(losses()) >= needed as usize || losses().any(has_all_ended)
    }

    /// The faults around a moment that follow each other without a calm in which whoever came back is in sync again.
    fn stretch_around(&self, at_us: u64) -> RangeInclusive<u64> {
        let mut times: Vec<u64> = self.strikes.iter().map(|strike| strike.at_us).collect();
        times.sort_unstable();
        let is_calm = |pair: &&[u64]| pair[1] - pair[0] > CALM_US;
        let first = times.windows(2).filter(is_calm).map(|pair| pair[1]).filter(|from| *from <= at_us).max();
        let last = times.windows(2).filter(is_calm).map(|pair| pair[0]).filter(|to| *to >= at_us).min();
        first.unwrap_or(0)..=last.unwrap_or(u64::MAX)
    }

    /// Copies of each record of the topic.
    pub(super) fn replication(&self, topic: &TopicContext) -> u32 {
        self.context.replication.max(topic.replication)
    }

    /// What the topic's settings and the faults within the time say, before anything about a send.
    pub(super) fn topic_facts(&self, queue: Queue, from_us: u64, to_us: u64) -> Facts<'a> {
        let topic = self.topic(queue);
        Facts {
            flush: Some(topic.flush),
            faults: self.struck(from_us, to_us),
            replication: self.replication(&topic),
            min_insync_replicas: Some(topic.min_insync_replicas),
            unclean_election: Some(topic.unclean_election),
            failover: Some(topic.failover),
            copies_lost: Some(self.has_lost_copies(&topic, from_us, to_us)),
            ..Facts::default()
        }
    }

    /// When a fault of the class struck for the first time at or after the time.
    pub(super) fn first_strike(&self, class: &str, from_us: u64) -> Option<u64> {
        self.strikes_within(from_us, u64::MAX).filter(|strike| strike.class == class).map(|strike| strike.at_us).min()
    }

    /// The timestamp that was sent with the value.
    pub(super) fn timestamp(&self, order: &QueueOrder, value: u64) -> Option<i64> {
        let send = order.send_of(value)?;
        match &self.operation(send.operation).call {
            Call::Produce { timestamps_ms, .. } => {
                timestamps_ms.get(usize::try_from(value - send.first_value).ok()?).copied()
            }
            Call::Poll { .. }
            | Call::Seek { .. }
            | Call::ListOffset { .. }
            | Call::DeleteRecords { .. }
            | Call::Group { .. }
            | Call::CreateTopic { .. } => None,
        }
    }

    /// First offset that the final reads did not pass: beyond everything where they reached the end.
    pub(super) fn final_extent(&self, order: &QueueOrder) -> u64 {
        let finals = order.polls.iter().filter(|poll| poll.is_final);
        let passed = finals.map(|poll| {
            let delivered = order.reads_of(poll).iter().map(|read| read.strand().end()).max();
            delivered.unwrap_or(0).max(poll.position.unwrap_or(0))
        });
        let started = order.final_start.map_or(0, |(start, _)| start);
        let passed = passed.max().unwrap_or(0).max(started);
        let is_complete = match (self.reached, order.final_end) {
            (Some(true), _) => true,
            // Other queues may have kept the run from its end; this one was read up to where its log ended.
            (Some(false), Some(end)) => order.final_start.is_some() && passed >= end,
            (Some(false), None) => false,
            (None, _) => !self.context.has_liveness_phase && self.has_final_polls,
        };
        if is_complete { u64::MAX } else { passed }
    }

    /// No log start may lawfully lie above this at any time.
    pub(super) fn justified_ceiling(&self, queue: Queue, order: &QueueOrder) -> u64 {
        if self.topic(queue).has_retention() {
            return u64::MAX;
        }
        order.justified
    }

    /// No log start lay above this at the given time: no deletion justifies it, or the final reads began below later.
    pub(super) fn start_ceiling(&self, queue: Queue, order: &QueueOrder, at_us: u64) -> u64 {
        let justified = self.justified_ceiling(queue, order);
        match order.final_start {
            Some((start, since_us)) if at_us <= since_us => justified.min(start),
            Some(_) | None => justified,
        }
    }

    /// Offsets that the poll surely passed: from its first record to its last, and from its position on where the log start
    /// cannot have moved over what lies between.
    pub(super) fn passed(&self, queue: Queue, order: &QueueOrder, poll: &PollOfQueue) -> Range<u64> {
        let reads = order.reads_of(poll);
        let first = reads.iter().map(|read| read.first_offset).min();
        let end = reads.iter().map(|read| read.strand().end()).max();
        match (first, end) {
            (Some(first), Some(end)) => {
                let ceiling = self.start_ceiling(queue, order, poll.completed_us);
                poll.position.unwrap_or(first).max(ceiling).min(first)..end
            }
            (None, _) | (_, None) => 0..0,
        }
    }

    /// Why the loss of records of the send is allowed, if it is.
    pub(super) fn loss_allowance(
        &self,
        anomaly: Anomaly,
        queue: Queue,
        order: &QueueOrder,
        send: &Send,
    ) -> Option<Allowance> {
        let topic = self.topic(queue);
        // In a cluster what struck before a send may still move leaders after it.
        let is_replicated = self.replication(&topic) > 1;
        let since_us = if is_replicated { 0 } else { send.invoked_us };
        let facts = Facts {
            acks: Some(send.acks),
            idempotent: Some(send.idempotent),
            retried: Some(send.attempts > 1),
            newest: Some(self.is_newest(topic.flush, order, send)),
            copies_lost: Some(self.has_lost_copies(&topic, send.invoked_us, u64::MAX)),
            ..self.topic_facts(queue, since_us, u64::MAX)
        };
        self.matrix.allowance(anomaly, &facts)
    }

    /// Facts about what may follow from losses in the queue, with the faults of the given time.
    pub(super) fn consequence_facts(&self, queue: Queue, order: &QueueOrder, from_us: u64, to_us: u64) -> Facts<'a> {
        let topic = self.topic(queue);
        // As for losses: in a cluster what struck before may still move leaders.
        let since_us = if self.replication(&topic) > 1 { 0 } else { from_us };
        Facts {
            after_permitted_loss: Some(self.has_permitted_loss(queue, order)),
            copies_lost: Some(self.has_lost_copies(&topic, from_us, to_us)),
            ..self.topic_facts(queue, since_us, to_us)
        }
    }

    /// Whether a bit flip struck while nothing proved that the send's records were synced.
    fn is_newest(&self, flush: Flush, order: &QueueOrder, send: &Send) -> bool {
        let flips: Vec<u64> = self
            .strikes_within(send.invoked_us, u64::MAX)
            .filter(|strike| strike.class == "bit-flip")
            .map(|strike| strike.at_us)
            .collect();
        if flush != Flush::Ack || flips.is_empty() {
            return !flips.is_empty();
        }
        let Some((_, placed_us)) = send.placed() else { return true };
        // The copy that was lost may have been seen long before the answer, which then is that of another attempt.
        let since_us = send.seen.map_or(placed_us, |(_, seen_us)| placed_us.min(seen_us));
        let later = order.sends.iter().filter(|later| later.fate == Fate::Acknowledged && later.invoked_us > since_us);
        let proved_us = later.map(|later| later.completed_us).min().unwrap_or(u64::MAX);
        flips.iter().any(|at_us| *at_us <= proved_us)
    }

    /// Whether records of the queue may lawfully have been lost: a rotten tail that was cut, what a leader alone had
    /// acknowledged. Other losses are told by the settings.
    fn has_permitted_loss(&self, queue: Queue, order: &QueueOrder) -> bool {
        let is_replicated = self.replication(&self.topic(queue)) > 1;
        if !is_replicated && !self.strikes.iter().any(|strike| strike.class == "bit-flip") {
            return false;
        }
        *order.has_permitted_loss.get_or_init(|| {
            if self.final_extent(order) != u64::MAX {
                return true;
            }
            order.sends.iter().filter(|send| send.placed().is_some()).any(|send| {
                let is_gone = !order.final_values.covers(send.first_value..send.end_value());
                // The only copy was read and cut, and the retry wrote the records again, perhaps to the same offsets.
                let is_rewritten = !is_replicated && send.attempts > 1 && send.seen.is_some();
                (is_gone || is_rewritten)
                    && (self.loss_allowance(Anomaly::Ghost, queue, order, send).is_some()
                        || self.loss_allowance(Anomaly::LostWrite, queue, order, send).is_some())
            })
        })
    }
}
