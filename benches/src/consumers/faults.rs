//! What is done to a consumer in a trial, and what each sink promises under it. Not here: doing it (`trial`).

use crate::consumers::ConsumerError;
use crate::consumers::message::Sent;
use crate::consumers::sink::{SinkKind, Step};

/// What goes wrong in a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing.
    None,
    /// Everything is delivered a second time: the group is sent back to the first offsets.
    Redelivery,
    /// The producer has left some messages in the log twice.
    ProducerRepeat,
    /// The producer has left some messages in the log behind their account's next.
    Reorder,
    /// The consumer is killed at this step, several times.
    Kill(Step),
    /// A second consumer joins, then the first is killed.
    Rebalance,
    /// The consumer stands still until another has its queues and has done everything, and then goes on.
    Zombie,
    /// The broker that leads a queue is killed under load, and comes back.
    Failover,
}

impl Fault {
    /// All.
    pub const ALL: [Fault; 12] = [
        Fault::None,
        Fault::Redelivery,
        Fault::ProducerRepeat,
        Fault::Reorder,
        Fault::Kill(Step::Polled),
        Fault::Kill(Step::Marked),
        Fault::Kill(Step::Applied),
        Fault::Kill(Step::Stored),
        Fault::Kill(Step::Committed),
        Fault::Rebalance,
        Fault::Zombie,
        Fault::Failover,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Fault::None => "none",
            Fault::Redelivery => "redelivery",
            Fault::ProducerRepeat => "producer-repeat",
            Fault::Reorder => "reorder",
            Fault::Kill(Step::Polled) => "kill-polled",
            Fault::Kill(Step::Marked) => "kill-marked",
            Fault::Kill(Step::Applied) => "kill-applied",
            Fault::Kill(Step::Stored) => "kill-stored",
            Fault::Kill(Step::Committed) => "kill-committed",
            Fault::Rebalance => "rebalance",
            Fault::Zombie => "zombie",
            Fault::Failover => "failover",
        }
    }

    /// The fault of this name.
    pub fn named(name: &str) -> Result<Fault, ConsumerError> {
        let known = || Fault::ALL.map(Fault::name).join(", ");
        let found = Fault::ALL.into_iter().find(|fault| fault.name() == name);
        found.ok_or_else(|| ConsumerError::Unknown { what: "fault", name: name.to_owned(), known: known() })
    }

    /// How the messages stand in the log.
    pub fn sent(self) -> Sent {
        match self {
            Fault::ProducerRepeat => Sent::Repeated,
            Fault::Reorder => Sent::Overtaken,
            Fault::None | Fault::Redelivery | Fault::Kill(_) | Fault::Rebalance | Fault::Zombie | Fault::Failover => {
                Sent::Once
            }
        }
    }

    /// Nodes of the cluster that it needs.
    pub fn nodes(self) -> u32 {
        if self == Fault::Failover { 3 } else { 1 }
    }
}

/// What a sink's table cell must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// Every effect once.
    ExactlyOnce,
    /// The sink's mistake or limit: effects lost or doubled.
    Breaks,
    /// Either; the sink promises nothing here.
    Nothing,
}

/// What a sink promises under a fault, by how it works: written down before any trial.
pub fn promise(sink: SinkKind, fault: Fault) -> Promise {
    let breaks = match sink {
        SinkKind::UniqueIndex | SinkKind::VersionCheck | SinkKind::IdCache => return Promise::ExactlyOnce,
        // Offsets tell deliveries apart, not messages.
        SinkKind::OffsetsInTransaction if fault == Fault::ProducerRepeat => return Promise::Breaks,
        SinkKind::OffsetsInTransaction => return Promise::ExactlyOnce,
        SinkKind::Naive | SinkKind::ForgetfulCache => matches!(fault, Fault::Redelivery | Fault::ProducerRepeat),
        // The group is sent back while the consumer is down, so that a cache in its memory is gone.
        SinkKind::CacheInMemory => matches!(fault, Fault::Redelivery | Fault::Kill(Step::Applied | Step::Stored)),
        SinkKind::NewestVersionWins => fault == Fault::Reorder,
        SinkKind::MarkThenApply => fault == Fault::Kill(Step::Marked),
        SinkKind::ApplyThenMark => fault == Fault::Kill(Step::Applied),
    };
    match (breaks, fault) {
        (true, _) => Promise::Breaks,
        (false, Fault::None) => Promise::ExactlyOnce,
        (false, _) => Promise::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_has_a_fault_that_shows_it_and_no_sink_breaks_without_one() {
        for sink in SinkKind::ALL {
            let breaks = Fault::ALL.into_iter().filter(|fault| promise(sink, *fault) == Promise::Breaks).count();
            assert!(sink.is_idempotent() || breaks > 0, "{sink:?}");
            assert_eq!(promise(sink, Fault::None), Promise::ExactlyOnce);
        }
        assert!(Fault::ALL.into_iter().all(|fault| Fault::named(fault.name()).unwrap() == fault));
    }
}
