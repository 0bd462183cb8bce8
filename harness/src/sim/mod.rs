//! The simulated world: broker nodes and clients as turmoil hosts, under our own disk, links, clock and gates.
//! Start at `world` (how a run is stepped), then `nemesis` (how faults strike). `disk` and `net` are what a node
//! touches; `gate` is where it tells of its points; `trace` proves that a run is a function of its plan.
//! Not here: any broker code, and anything that reads the real clock, the environment or hash order.

pub mod clock;
pub mod counters;
pub mod disk;
pub mod flag;
pub mod gate;
pub mod net;
pub mod node;
pub mod trace;
pub mod world;

mod nemesis;
mod panics;
mod pause;

#[cfg(test)]
mod world_tests;

/// The names of all events that the world counts.
pub const EVENTS: &[&str] = &[
    "kill",
    "power-loss",
    "power-loss-that-dropped-bytes",
    "restart",
    "pause",
    "link-hold",
    "link-delay",
    "link-cut",
    "connection-reset",
    "one-request",
    "disk-read-error",
    "disk-write-error",
    "sync-error",
    "disk-full",
    "disk-slow",
    "bit-flip",
    "fault-at-point",
    "isolate",
    "halves",
    "majority-ring",
    "bridge",
    "one-way",
    "clock-skew",
    "add-node",
    "remove-node",
    "node-removed",
];
