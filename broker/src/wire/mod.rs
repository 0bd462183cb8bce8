//! Kafka's wire protocol: frames, versions, and the passage between bytes and message structs.
//! Every request is walked by a shape table before the codec decodes it, because counts on the wire drive its
//! allocations. Not here: what a request means (that is `core`) and sockets (that is `node`).
//! Start at `request::decode` for the way in and at `response::encode` for the way out.

pub mod api;
pub mod fetch;
pub mod frame;
mod group_shape;
#[cfg(test)]
mod group_tests;
pub mod output;
pub mod request;
pub mod response;
pub mod shape;
