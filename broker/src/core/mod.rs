//! To be filled.
pub mod log;
