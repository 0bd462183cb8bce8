//! Backlogs: why messages pile up in front of a consumer group. `observe` looks at any live cluster through Kafka's
//! protocol, `judge` names the cause from what was seen, `causes` makes each cause for real and measures its cure.
//! Start at `judge::judge`. Not here: idempotence (`consumers`), a broker's cost under load (`session`).

pub mod causes;
pub mod judge;
pub mod load;
pub mod observe;
pub mod uses;
