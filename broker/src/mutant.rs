//! Deliberate bugs, each from the history of a real broker, given to a node's constructor as a value.
//! They prove that the judge sees. The server binary has no way to set one.

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// S1: acknowledges under `flush=ack` before the sync has completed (the append counts at once).
    AckBeforeSync,
    /// S2 (KAFKA-3968): a new segment is synced, its directory is not, so a power loss forgets the file.
    DirectoryNotSynced,
    /// S6: checksums of stored frames and batches are not verified, neither at recovery nor on read.
    ChecksumNotVerified,
    /// P3 (KAFKA-9144, 7298): an idle producer's state expires too early, and its next sequence, or a late retry, is accepted as new.
    ProducerExpiresEarly,
    /// The idempotence window is not rebuilt by recovery, so a retry across a restart is appended twice.
    WindowNotRecovered,
    /// Recovery keeps a torn tail: it stops at bad bytes but appends behind them, without cutting.
    TornTailKept,
    /// R4 (KIP-966): the last in-sync replica stays in sync, and leads again, after an unclean restart that cost it
    /// records which others still have.
    LastReplicaKeptInSync,
    /// R5: a replica that is not in sync is elected although the topic does not allow it.
    UncleanElection,
    /// R7 (KIP-841, KAFKA-13916): a fenced or shutting-down replica is taken back into the in-sync set, and elected.
    FencedReplicaRejoins,
    /// G2 (KAFKA-16147): when a member of a group is given another assignment, the ownership of queues that it keeps, or
    /// still has to give up, is lost, and the next member gets them while it has them.
    OwnershipLostOnReassignment,
    /// R1 (KIP-101, KAFKA-1211): a new follower truncates to its own watermark, which lags behind what was confirmed.
    TruncateToWatermark,
    /// R2 (KIP-279, KAFKA-6361): where an epoch ends is answered without saying which epoch was meant, so logs that part
    /// in an older epoch are taken for alike.
    EpochNotAnswered,
    /// R3 (KIP-320, KAFKA-6880): fetches are not fenced by epochs: a replica that follows another epoch, or whose log is
    /// another one, is served all the same, and its vote counts.
    FetchNotFenced,
    /// R13 (RocketMQ #1155): the watermark jumps to what a follower was sent, before the follower has it.
    AckJumpsAhead,
    /// R18 (KAFKA-15021): the watermark goes on waiting for a replica whose entry into the in-sync set was refused.
    WatermarkWaitsForIneligible,
    /// R10 (KAFKA-10706): epochs that were cut with the log's end are not forgotten, so the follower goes on naming an
    /// epoch that it has no frame of, hears that its log parts from its leader's, and never copies again.
    EpochsOutliveCut,
    /// R14 (Ra 2.15.2, rabbitmq-server #13326): what a follower rewrote is still served as it was before, because the
    /// copy in memory outlives the cut.
    CacheOutlivesCut,
    /// S4 (KAFKA-16541, 15046): epochs are kept apart from the log and not synced, so that a restart knows only those of
    /// sealed segments, and what leader and follower compare is not what they hold.
    EpochsNotSynced,
    /// S13 (RocketMQ #8239): consumers read up to the end of the log, not up to the high watermark.
    ReadsUnconfirmed,
    /// P1 (KAFKA-6003, AutoMQ #437): producers' windows do not follow a log to another replica.
    ProducersNotReplicated,
    /// R16 (nats-server #7545): voters are changed without waiting for the change before to be committed, so that
    /// majorities of old and new voters need not meet.
    HastyVoters,
    /// S9 (KAFKA-5435): a restart finds no producers in the indexes of sealed segments, so that it knows only those that
    /// have batches behind them, and a retry of an older one is appended twice.
    ProducerSnapshotsRemoved,
    /// S12 (KAFKA-4529): compaction drops a tombstone at once, so a reader on its way never learns that the key is gone.
    TombstoneDroppedEarly,
    /// S7 (nats-server #7556, #6888): a metadata snapshot that cannot be read is taken for none, and the logs that it
    /// listed for orphans, which are removed.
    UnreadableSnapshotIsNone,
}

impl Mutant {
    /// Every mutant, in the order of the published table.
    pub const ALL: [Mutant; 24] = [
        Mutant::AckBeforeSync,
        Mutant::DirectoryNotSynced,
        Mutant::EpochsNotSynced,
        Mutant::ChecksumNotVerified,
        Mutant::UnreadableSnapshotIsNone,
        Mutant::ReadsUnconfirmed,
        Mutant::WindowNotRecovered,
        Mutant::TornTailKept,
        Mutant::ProducerSnapshotsRemoved,
        Mutant::TombstoneDroppedEarly,
        Mutant::TruncateToWatermark,
        Mutant::EpochNotAnswered,
        Mutant::FetchNotFenced,
        Mutant::LastReplicaKeptInSync,
        Mutant::UncleanElection,
        Mutant::FencedReplicaRejoins,
        Mutant::EpochsOutliveCut,
        Mutant::AckJumpsAhead,
        Mutant::CacheOutlivesCut,
        Mutant::HastyVoters,
        Mutant::WatermarkWaitsForIneligible,
        Mutant::ProducersNotReplicated,
        Mutant::ProducerExpiresEarly,
        Mutant::OwnershipLostOnReassignment,
    ];

    /// The mutant's public name: the row of the published table, or its own words.
    pub fn name(self) -> &'static str {
        match self {
            Mutant::AckBeforeSync => "S1",
            Mutant::DirectoryNotSynced => "S2",
            Mutant::ChecksumNotVerified => "S6",
            Mutant::ProducerExpiresEarly => "P3",
            Mutant::WindowNotRecovered => "window-not-recovered",
            Mutant::TornTailKept => "torn-tail-kept",
            Mutant::LastReplicaKeptInSync => "R4",
            Mutant::UncleanElection => "R5",
            Mutant::FencedReplicaRejoins => "R7",
            Mutant::OwnershipLostOnReassignment => "G2",
            Mutant::TruncateToWatermark => "R1",
            Mutant::EpochNotAnswered => "R2",
            Mutant::FetchNotFenced => "R3",
            Mutant::AckJumpsAhead => "R13",
            Mutant::WatermarkWaitsForIneligible => "R18",
            Mutant::EpochsOutliveCut => "R10",
            Mutant::CacheOutlivesCut => "R14",
            Mutant::EpochsNotSynced => "S4",
            Mutant::ReadsUnconfirmed => "S13",
            Mutant::ProducersNotReplicated => "P1",
            Mutant::HastyVoters => "R16",
            Mutant::ProducerSnapshotsRemoved => "S9",
            Mutant::TombstoneDroppedEarly => "S12",
            Mutant::UnreadableSnapshotIsNone => "S7",
        }
    }
}
