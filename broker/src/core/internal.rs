//! Appends that the node makes for itself to internal topics, and what is to happen once they are confirmed.
//! Not here: who makes them (`group`).

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::ResponseError;

use super::batch::Batch;
use super::log::AppendError;
use super::machine::{Core, Effects};
use super::types::{LogId, Now, Position, QueueId};

/// What waits for an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InternalWait {
    /// The coordinator of a partition, in its `load`-th life, waits for its append of this number.
    Group { partition: i32, load: u64, number: u64 },
}

/// Appends that are not confirmed yet, by log, in the log's order.
#[derive(Debug, Default)]
pub(super) struct InternalAppends {
    waits: BTreeMap<LogId, VecDeque<(Position, InternalWait)>>,
}

impl Core {
    /// Appends a batch to a queue that this node leads; `then` happens when it is confirmed, as acks=all is.
    pub(super) fn append_internal(
        &mut self,
        log: LogId,
        queue: QueueId,
        batch: Batch,
        then: InternalWait,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), ResponseError> {
        let epoch = self.leader_epoch(log).ok_or(ResponseError::NotCoordinator)?;
        let is_safe = match (self.metadata.placement(log), self.metadata.log_class(log)) {
            (Some(placement), Some(class)) => placement.isr.len() >= placement.isr_min(class),
            (None, _) | (_, None) => false,
        };
        if !is_safe {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        let target = self.logs.get_mut(&log).ok_or(ResponseError::NotCoordinator)?;
        let appended = target.append(queue, batch, epoch, now, &mut effects.disk).map_err(|error| match error {
            AppendError::TooLarge { .. } => ResponseError::InvalidCommitOffsetSize,
            AppendError::QueueFenced | AppendError::Offline => ResponseError::CoordinatorNotAvailable,
            AppendError::Duplicate { .. }
            | AppendError::OutOfOrderSequence { .. }
            | AppendError::InvalidProducerEpoch { .. } => unreachable!("a batch without producer has no sequence"),
        })?;
        self.mark_dirty(log);
        self.internal.waits.entry(log).or_default().push_back((appended.end, then));
        Ok(())
    }

    /// Does what waited for appends below a position.
    pub(super) fn confirm_internal(&mut self, log: LogId, confirmed: Position, now: Now, effects: &mut Effects) {
        while let Some(waits) = self.internal.waits.get_mut(&log)
            && waits.front().is_some_and(|(end, _)| *end <= confirmed)
        {
            let Some((_, then)) = waits.pop_front() else { break };
            match then {
                InternalWait::Group { partition, load, number } => {
                    self.on_group_confirmed(partition, load, number, now, effects);
                }
            }
        }
    }

    /// The log may have lost what is not confirmed.
    pub(super) fn refuse_internal(&mut self, log: LogId, error: ResponseError, now: Now, effects: &mut Effects) {
        self.forget_internal(log);
        if let Some(partition) = self.groups.partition_of_log(log) {
            self.reload_coordinator(partition, error, now, effects);
        }
    }

    pub(super) fn forget_internal(&mut self, log: LogId) {
        self.internal.waits.remove(&log);
    }
}
