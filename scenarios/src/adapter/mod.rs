//! The adapters: the broker's ports over the harness' simulated world, and the driver's over the same network and clock.
//! Nothing is decided here; what the simulated arms do is the harness', what they are for is the broker's.

pub mod client;
pub mod disk;
pub mod net;
pub mod node;
pub mod probe;
