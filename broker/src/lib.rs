//! The reference broker: a deterministic core that speaks Kafka's protocol, in a thin shell.
//! Start at `core` for what the broker decides and at `node` for how its effects are performed.
//! Not here: anything that judges a broker; that is the harness, which knows nothing of this crate.

pub mod core;
pub mod mutant;
pub mod node;
pub mod points;
pub mod ports;
#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the real arm of the ports: system clock and randomness"
)]
pub mod real;
pub mod store;
pub mod wire;
