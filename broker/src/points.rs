//! Names of the points at which a plan can place a fault, and of the events that coverage counts.
//! A name never changes its meaning: plans and artifacts store it.

/// A write into a segment has been performed, not synced.
pub const APPEND_WRITTEN: &str = "append-written";
/// A sync of a log begins; the writes that it covers are done.
pub const SYNC_STARTED: &str = "sync-started";
/// A sync of a log has succeeded; nobody has been told yet.
pub const SYNC_COMPLETED: &str = "sync-completed";
/// A segment's file was created; its directory is not synced.
pub const SEGMENT_CREATED: &str = "segment-created";
/// A segment's index file is in place and durable.
pub const SEGMENT_SEALED: &str = "segment-sealed";
/// A directory of the data folder was synced.
pub const DIRECTORY_SYNCED: &str = "directory-synced";
/// A log was scanned at recovery, and nothing was changed yet.
pub const RECOVERY_SCANNED: &str = "recovery-scanned";
/// Segments of a follower's log were removed from its end on; the last one is not cut yet.
pub const LOG_CUT: &str = "log-cut";
/// A segment was removed, its directory is not synced.
pub const SEGMENT_UNLINKED: &str = "segment-unlinked";
/// What compaction kept is written and synced under a name that recovery throws away.
pub const COMPACTION_WRITTEN: &str = "compaction-written";
/// The index of a compacted segment is in place, its segment is not.
pub const COMPACTION_INDEXED: &str = "compaction-indexed";
/// A compacted segment is in place, not yet durably; those that it stands for are still there.
pub const COMPACTION_SWAPPED: &str = "compaction-swapped";
/// The segments for which a compacted one stands were removed, not yet durably.
pub const COMPACTION_REMOVED: &str = "compaction-removed";
/// A snapshot of the metadata is durable.
pub const SNAPSHOT_WRITTEN: &str = "snapshot-written";
/// A request was decoded and is about to be decided.
pub const REQUEST_RECEIVED: &str = "request-received";
/// A produced batch was written (not synced).
pub const PRODUCE_APPENDED: &str = "produce-appended";
/// A fetch waits for records.
pub const FETCH_PARKED: &str = "fetch-parked";
/// A metadata record was applied, its effects performed, and nothing answered yet.
pub const METADATA_APPLIED: &str = "metadata-applied";
/// The leader of the metadata log has appended another set of voters, and nobody has been sent it.
pub const VOTERS_PROPOSED: &str = "voters-proposed";
/// An answer is about to be put into its connection's output.
pub const REPLY_QUEUED: &str = "reply-queued";

/// A log rolled from one segment to the next.
pub const SEGMENT_ROLL: &str = "segment-roll";
/// A follower cut what its leader does not have.
pub const TRUNCATION: &str = "truncation";
/// A follower's log parts from its leader's before its own newest epoch began.
pub const EPOCHS_CUT: &str = "epochs-cut";
/// A follower began its log anew where its leader's begins.
pub const LOG_RESTARTED: &str = "log-restarted";
/// A process began to lead a log in a new epoch.
pub const LEADERSHIP_TAKEN: &str = "leadership-taken";
/// The in-sync set of a log that is led from here changed.
pub const ISR_CHANGED: &str = "isr-changed";
/// A follower refused its leader's frames.
pub const COPY_REFUSED: &str = "copy-refused";
/// A replica cut its log before corruption, to copy it anew.
pub const CORRUPTION_SHED: &str = "corruption-shed";
/// Recovery cut a torn tail.
pub const TORN_TAIL_CUT: &str = "torn-tail-cut";
/// Recovery found corrupt bytes below a synced position.
pub const CORRUPTION_FOUND: &str = "corruption-found";
/// A log was synced.
pub const SYNC: &str = "sync";
/// A sync failed.
pub const SYNC_FAILED: &str = "sync-failed";
/// A log with segments was recovered.
pub const RECOVERY: &str = "recovery";
/// A pass of compaction over a log has ended.
pub const COMPACTION: &str = "compaction";
/// A segment was removed.
pub const SEGMENT_REMOVED: &str = "segment-removed";
/// A write found the disk full.
pub const DISK_FULL: &str = "disk-full";
/// Bytes were read from disk rather than from the tail cache.
pub const COLD_READ: &str = "cold-read";
/// Windows of idempotent producers were rebuilt; the count is that of producers.
pub const PRODUCERS_RECOVERED: &str = "producers-recovered";
/// A retry of a produced batch was recognised and not appended again.
pub const DUPLICATE_REFUSED: &str = "duplicate-refused";
/// Retention was applied to all logs.
pub const RETENTION_CHECK: &str = "retention-check";
/// A node became the leader of the metadata log.
pub const CONTROLLER_ELECTED: &str = "controller-elected";
/// The controller began to change who votes on the metadata log.
pub const VOTERS_CHANGE: &str = "voters-change";
/// The controller wants a silent broker fenced.
pub const BROKER_FENCED: &str = "broker-fenced";
/// A snapshot of the metadata came from the leader.
pub const SNAPSHOT_INSTALLED: &str = "snapshot-installed";

/// A group of consumers began a new generation.
pub const GROUP_REBALANCED: &str = "group-rebalanced";
/// A coordinator of groups began to be loaded from its log.
pub const COORDINATOR_LOADED: &str = "coordinator-loaded";
/// Committed offsets expired; the count is that of offsets.
pub const OFFSETS_EXPIRED: &str = "offsets-expired";

/// Every point.
pub const POINTS: &[&str] = &[
    APPEND_WRITTEN,
    SYNC_STARTED,
    SYNC_COMPLETED,
    SEGMENT_CREATED,
    SEGMENT_SEALED,
    DIRECTORY_SYNCED,
    RECOVERY_SCANNED,
    LOG_CUT,
    SEGMENT_UNLINKED,
    COMPACTION_WRITTEN,
    COMPACTION_INDEXED,
    COMPACTION_SWAPPED,
    COMPACTION_REMOVED,
    SNAPSHOT_WRITTEN,
    REQUEST_RECEIVED,
    PRODUCE_APPENDED,
    FETCH_PARKED,
    METADATA_APPLIED,
    VOTERS_PROPOSED,
    REPLY_QUEUED,
];

/// Every event.
pub const EVENTS: &[&str] = &[
    SEGMENT_ROLL,
    TRUNCATION,
    EPOCHS_CUT,
    LOG_RESTARTED,
    LEADERSHIP_TAKEN,
    ISR_CHANGED,
    COPY_REFUSED,
    CORRUPTION_SHED,
    TORN_TAIL_CUT,
    CORRUPTION_FOUND,
    SYNC,
    SYNC_FAILED,
    RECOVERY,
    SEGMENT_REMOVED,
    COMPACTION,
    DISK_FULL,
    COLD_READ,
    PRODUCERS_RECOVERED,
    DUPLICATE_REFUSED,
    RETENTION_CHECK,
    GROUP_REBALANCED,
    COORDINATOR_LOADED,
    OFFSETS_EXPIRED,
    CONTROLLER_ELECTED,
    VOTERS_CHANGE,
    BROKER_FENCED,
    SNAPSHOT_INSTALLED,
];
