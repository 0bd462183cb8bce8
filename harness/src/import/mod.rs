//! Histories from the output of other people's tools, so that the judge serves runs that it did not make.
//! Today: the JSON lines of Kafka's VerifiableProducer and VerifiableConsumer (`verifiable`).
//! Whatever a tool does not tell is filled in so that a clean broker is never blamed; each file says what that costs.

mod lines;
pub mod verifiable;
