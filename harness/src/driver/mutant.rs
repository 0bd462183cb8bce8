//! Deliberate bugs of the harness' own client, from the history of real clients. They prove that the judge sees what a
//! client does wrong; a plan names one (`Plan::client_mutant`), and nothing else can.

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientMutant {
    /// P4 (librdkafka #4953): when a producer's epoch is bumped, a batch that may have been appended is stamped anew and
    /// sent again, so that no broker can know it for a copy.
    RestampsAppended,
    /// G4 (librdkafka #2782): an error of OffsetFetch that another attempt would mend counts as "nothing is committed",
    /// and the member begins at the log start.
    OffsetErrorResets,
}

impl ClientMutant {
    /// All of them.
    pub const ALL: [ClientMutant; 2] = [ClientMutant::RestampsAppended, ClientMutant::OffsetErrorResets];

    /// Its public name.
    pub fn name(self) -> &'static str {
        match self {
            ClientMutant::RestampsAppended => "P4",
            ClientMutant::OffsetErrorResets => "G4",
        }
    }

    /// The mutant with a public name.
    pub fn named(name: &str) -> Option<ClientMutant> {
        ClientMutant::ALL.into_iter().find(|mutant| mutant.name().eq_ignore_ascii_case(name))
    }
}
