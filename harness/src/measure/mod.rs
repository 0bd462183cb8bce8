//! Measuring: results as data, statistics with intervals, open-loop schedules, process accounting.
//! Drivers with native libraries are not here but in the benches crate; charts are in reports.

pub mod result;
