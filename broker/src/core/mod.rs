//! What the broker decides: pure, without I/O, clock or async.
pub mod batch;
pub mod log;
pub mod types;
