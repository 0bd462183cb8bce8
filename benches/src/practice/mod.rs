//! What people are told to do with queues, tried on a running cluster: how members share a topic's queues (`members`), what
//! becomes of messages when a producer does not look at the answer (`answers`), what global order takes (`order`), where a
//! consumer lands that goes back to a time (`replay`), and how consumers of one queue compete (`compete`). Each leaves plain
//! figures; rules elsewhere say what they must be. Not here: load that measures brokers (`session`).

pub mod answers;
pub mod compete;
pub mod members;
pub mod order;
pub mod replay;
