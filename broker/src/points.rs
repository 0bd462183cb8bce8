//! Names of the points at which a plan can place a fault, and of the events that coverage counts.

/// Every point.
pub const POINTS: &[&str] = &[];
/// Every event.
pub const EVENTS: &[&str] = &[];
