//! The case before the checkers: history, context, version order and matrix together, with the questions that several
//! checkers ask: what struck when, how far the final reads went, what a loss or its consequences are allowed by.
//! Not here: the search for any anomaly.

use std::collections::BTreeSet;
use std::ops::Range;

use super::context::{Context, TopicContext};
use super::order::{Fate, Malformed, PollOfQueue, QueueOrder, Send, VersionOrder};
use crate::guarantee::{Allowance, Anomaly, Facts, Flush, Matrix};
use crate::history::{Call, History, Mark, Operation, Queue, Value};

/// Everything that a checker may look at.
pub(super) struct Case<'a> {
    pub(super) history: &'a History,
    pub(super) context: &'a Context,
    pub(super) matrix: &'a Matrix,
    pub(super) order: VersionOrder,
    strikes: Vec<(u64, &'a str)>,
    has_final_polls: bool,
    reached: Option<bool>,
}

impl<'a> Case<'a> {
    /// Builds the version order and reads the marks.
    pub(super) fn of(history: &'a History, context: &'a Context, matrix: &'a Matrix) -> Result<Case<'a>, Malformed> {
        let order = VersionOrder::of(history)?;
        let mut strikes = Vec::new();
        let mut reached = None;
        for mark in &history.marks {
            match mark {
                Mark::Fault { at_us, class, .. } => strikes.push((*at_us, class.as_str())),
                Mark::LivenessEnded { reached: whether, .. } => reached = Some(*whether),
                Mark::NodeExit { .. } | Mark::LivenessBegan { .. } => {}
            }
        }
        let has_final_polls = order.has_final_polls;
        Ok(Case { history, context, matrix, order, strikes, has_final_polls, reached })
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
        let classes: BTreeSet<&str> =
            self.strikes.iter().filter(|(at, _)| (from_us..=to_us).contains(at)).map(|(_, class)| *class).collect();
        classes.into_iter().collect()
    }

    /// When a fault of the class struck for the first time at or after the time.
    pub(super) fn first_strike(&self, class: &str, from_us: u64) -> Option<u64> {
        self.strikes.iter().filter(|(at, struck)| *struck == class && *at >= from_us).map(|(at, _)| *at).min()
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
        let flush = self.topic(queue).flush;
        let facts = Facts {
            flush: Some(flush),
            acks: Some(send.acks),
            idempotent: Some(send.idempotent),
            retried: Some(send.attempts > 1),
            faults: self.struck(send.invoked_us, u64::MAX),
            replication: self.context.replication,
            newest: Some(self.is_newest(flush, order, send)),
            ..Facts::default()
        };
        self.matrix.allowance(anomaly, &facts)
    }

    /// Facts about what may follow from losses in the queue, with the faults of the given time.
    pub(super) fn consequence_facts(&self, queue: Queue, order: &QueueOrder, from_us: u64, to_us: u64) -> Facts<'a> {
        Facts {
            flush: Some(self.topic(queue).flush),
            faults: self.struck(from_us, to_us),
            replication: self.context.replication,
            after_permitted_loss: Some(self.has_permitted_loss(queue, order)),
            ..Facts::default()
        }
    }

    /// Whether a bit flip struck while nothing proved that the send's records were synced.
    fn is_newest(&self, flush: Flush, order: &QueueOrder, send: &Send) -> bool {
        let mut flips = self.strikes.iter().filter(|(at, class)| *class == "bit-flip" && *at >= send.invoked_us);
        if flush != Flush::Ack || flips.clone().next().is_none() {
            return flips.next().is_some();
        }
        let Some((_, placed_us)) = send.placed() else { return flips.next().is_some() };
        // The copy that was lost may have been seen long before the answer, which then is that of another attempt.
        let since_us = send.seen.map_or(placed_us, |(_, seen_us)| placed_us.min(seen_us));
        let later = order.sends.iter().filter(|later| later.fate == Fate::Acknowledged && later.invoked_us > since_us);
        let proved_us = later.map(|later| later.completed_us).min().unwrap_or(u64::MAX);
        flips.any(|(at, _)| *at <= proved_us)
    }

    /// Whether a rotten tail may have been cut from the queue. Only bit flips ask: other losses are told by the settings.
    fn has_permitted_loss(&self, queue: Queue, order: &QueueOrder) -> bool {
        if !self.strikes.iter().any(|(_, class)| *class == "bit-flip") {
            return false;
        }
        *order.has_permitted_loss.get_or_init(|| {
            if self.final_extent(order) != u64::MAX {
                return true;
            }
            order.sends.iter().filter(|send| send.placed().is_some()).any(|send| {
                !order.final_values.covers(send.first_value..send.end_value())
                    && self.loss_allowance(Anomaly::Ghost, queue, order, send).is_some()
            })
        })
    }
}
