//! The judge: plans, histories, the simulated world, the checkers, measuring, and process supervision.
//! Start at `plan` for what a run is made from, `history` for what it leaves, `check` for how it is judged.
//! Not here: any code of the reference broker, and any native library.

pub mod artifact;
pub mod check;
pub mod driver;
pub mod external;
pub mod guarantee;
pub mod history;
pub mod import;
#[allow(clippy::disallowed_methods, reason = "scripts against real brokers wait in real time")]
pub mod known_bugs;
pub mod measure;
pub mod plan;
pub mod process;
pub mod shrink;
pub mod sim;
pub mod story;
#[allow(
    clippy::disallowed_methods,
    reason = "it provisions real systems: patience and installation folders are of the machine"
)]
pub mod systems;
pub mod workload;
