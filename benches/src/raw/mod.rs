//! The raw driver and what is measured with it: requests encoded beforehand, one thread, so that a broker and not its
//! client sets the pace. Start at `plan` for what can be asked for, `session` for how blocks follow each other, `driver`
//! for one block. Not here: librdkafka's blocks (`crate::block`); both kinds are judged on every record.

mod admin;
pub mod bounds;
mod connection;
mod driver;
mod fetch;
pub mod idle;
mod lanes;
pub mod plan;
pub mod recovery;
pub mod relay;
pub mod scale;
pub(crate) mod session;
pub mod slowdown;
mod template;
mod wire;
