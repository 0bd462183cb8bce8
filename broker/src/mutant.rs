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
}

impl Mutant {
    /// Every mutant, in the order of the published table.
    pub const ALL: [Mutant; 6] = [
        Mutant::AckBeforeSync,
        Mutant::DirectoryNotSynced,
        Mutant::ChecksumNotVerified,
        Mutant::ProducerExpiresEarly,
        Mutant::WindowNotRecovered,
        Mutant::TornTailKept,
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
        }
    }
}
