//! Idempotent producers of one queue: epochs and the window of the last five batches.

/// The producers of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Producers {}
