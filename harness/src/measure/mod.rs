//! Measuring: results as data, statistics with intervals, open-loop schedules, the manifest.
//! What a process used is in `process`. Drivers with native libraries are not here but in the benches crate; charts are in reports.
//! Start at `result` for what a measurement leaves, `statistics` for how a figure gets its interval.

pub mod comparison;
#[allow(clippy::disallowed_methods, reason = "it samples how late the real machine wakes a thread")]
pub mod hiccup;
pub mod manifest;
pub mod percentile;
pub mod result;
pub mod schedule;
pub mod search;
pub mod statistics;
pub mod steady;
