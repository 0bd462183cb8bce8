//! The ports' real arms: what a broker process runs on. The simulated ones are in the scenarios crate.

pub mod disk;
