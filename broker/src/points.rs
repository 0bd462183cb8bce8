//! Names of the points at which a plan can place a fault, and of the events that coverage counts.

/// A request was decoded and is about to be decided.
pub const REQUEST_RECEIVED: &str = "request-received";
/// A produced batch was written (not synced).
pub const PRODUCE_APPENDED: &str = "produce-appended";
/// A fetch waits for records.
pub const FETCH_PARKED: &str = "fetch-parked";
/// A metadata record was applied, its effects performed, and nothing answered yet.
pub const METADATA_APPLIED: &str = "metadata-applied";
/// An answer was put into a connection's output, not sent yet.
pub const REPLY_QUEUED: &str = "reply-queued";

/// A retry of a produced batch was recognised and not appended again.
pub const EVENT_DUPLICATE_REFUSED: &str = "duplicate-refused";
/// Retention was applied to all logs.
pub const EVENT_RETENTION_CHECK: &str = "retention-check";

/// Every point.
pub const POINTS: &[&str] = &[REQUEST_RECEIVED, PRODUCE_APPENDED, FETCH_PARKED, METADATA_APPLIED, REPLY_QUEUED];
/// Every event.
pub const EVENTS: &[&str] = &[EVENT_DUPLICATE_REFUSED, EVENT_RETENTION_CHECK];
