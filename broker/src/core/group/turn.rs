//! One event's passage through a coordinator: what it may look at, and where it puts what it decides.
//! Records decided on in a turn are appended as one batch; what must wait for them is held until that is confirmed.

use std::time::Duration;

use super::answer::GroupAnswer;
use super::offsets::Committed;
use super::record::GroupRecord;
use super::settings::GroupSettings;
use super::timers::{Timer, Timers};
use crate::core::machine::RequestId;
use crate::core::metadata::Metadata;
use crate::core::types::Now;
use crate::mutant::Mutant;
use crate::wire::request::RequestHeader;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) struct Caller {
    pub(in crate::core) id: RequestId,
    pub(in crate::core) header: RequestHeader,
}

/// What a coordinator looks at and does not own.
#[derive(Debug, Clone, Copy)]
pub(in crate::core) struct View<'a> {
    pub(in crate::core) now: Now,
    pub(in crate::core) metadata: &'a Metadata,
    pub(in crate::core) settings: &'a GroupSettings,
    pub(in crate::core) mutant: Option<Mutant>,
}

/// What an event brought about.
#[derive(Debug, Default)]
pub(in crate::core) struct Outcome {
    /// To be appended as one batch.
    pub(super) records: Vec<GroupRecord>,
    pub(super) replies: Vec<(Caller, GroupAnswer)>,
    /// Groups deleted for DeleteGroups: the request, and the place of the group in it.
    pub(super) deleted: Vec<(RequestId, usize)>,
    pub(super) events: Vec<(&'static str, u64)>,
    /// Whether the records have their append's number.
    pub(super) is_numbered: bool,
}

/// What waits for an append to be confirmed.
#[derive(Debug)]
pub(super) enum Held {
    Reply(Caller, GroupAnswer),
    /// A classic group's assignment of this generation is stored.
    Synced {
        group: String,
        generation: i32,
    },
    /// Offsets committed, or deleted where there is none.
    Offsets {
        group: String,
        changes: Vec<(String, i32, Option<Committed>)>,
    },
    /// A group is gone.
    Deleted {
        id: RequestId,
        slot: usize,
    },
}

/// Member ids that nobody was given before: a draw of the process, and a count.
#[derive(Debug, Clone)]
pub(super) struct MemberIds {
    pub(super) incarnation: u64,
    pub(super) next: u64,
}

impl MemberIds {
    pub(super) fn take(&mut self, prefix: &str) -> String {
        self.next += 1;
        let id = u128::from(self.incarnation) << 64 | u128::from(self.next);
        format!("{prefix}-{}", uuid::Uuid::from_u128(id))
    }
}

/// The turn of one event.
pub(super) struct Turn<'a> {
    pub(super) view: View<'a>,
    pub(super) out: &'a mut Outcome,
    pub(super) timers: &'a mut Timers,
    pub(super) holds: &'a mut Vec<Held>,
    pub(super) ids: &'a mut MemberIds,
}

impl Turn<'_> {
    pub(super) fn reply(&mut self, caller: Caller, answer: GroupAnswer) {
        self.out.replies.push((caller, answer));
    }

    /// Answers once everything that this turn and earlier ones appended is confirmed.
    pub(super) fn reply_when_stored(&mut self, caller: Caller, answer: GroupAnswer) {
        self.holds.push(Held::Reply(caller, answer));
    }

    pub(super) fn record(&mut self, record: GroupRecord) {
        self.out.records.push(record);
    }

    /// Sets a timer that much from now.
    pub(super) fn set_timer(&mut self, timer: Timer, after: Duration) {
        self.timers.set(timer, self.view.now.monotonic + after);
    }
}
