//! What a core holds, counted when it is asked for. Nothing in the core depends on it.

use super::machine::Core;

/// The size of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CoreCensus {
    /// Topics.
    pub topics: usize,
    /// Queues of all topics.
    pub queues: usize,
    /// Logs, the metadata log included.
    pub logs: usize,
    /// Bytes between the start and the end of all logs.
    pub log_bytes: u64,
    /// Batches appended since the start.
    pub appends: u64,
    /// Their bytes.
    pub append_bytes: u64,
    /// Fetch sessions that are open.
    pub fetch_sessions: usize,
}

impl Core {
    /// Counts what the core holds; takes time in proportion to the number of logs.
    pub fn census(&self) -> CoreCensus {
        let (topics, queues) = self.metadata.counts();
        let (appends, append_bytes) = self.produces.appended();
        CoreCensus {
            topics,
            queues,
            logs: self.logs.len(),
            log_bytes: self.logs.values().map(|log| log.stored_bytes()).sum(),
            appends,
            append_bytes,
            fetch_sessions: self.fetches.sessions(),
        }
    }
}
