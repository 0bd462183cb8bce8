//! The story of one judged run: everything that a page about it shows, as plain data. Whoever ran the plan fills it in.
//! Not here: running, judging and drawing. Start at `Story`.

use serde::{Deserialize, Serialize};

use crate::artifact::RunLine;
use crate::check::Verdict;
use crate::history::{History, Queue};
use crate::plan::{Endpoint, Plan};
use crate::sim::disk::FileLoss;

/// A judged run with what its nodes, links and drives did.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// What was run.
    pub plan: Plan,
    /// The run's line.
    pub line: RunLine,
    /// The judgement.
    pub verdict: Verdict,
    /// What the clients saw.
    pub history: History,
    /// Writes to connections and when they arrived, in order of sending.
    pub messages: Vec<Message>,
    /// Starts of nodes' processes, in order of time.
    pub starts: Vec<NodeStart>,
    /// Named points at which nodes stood, in order of time.
    pub points: Vec<PointSeen>,
    /// What drives lost, by node and time.
    pub losses: Vec<FileLoss>,
    /// The nodes' states after each turn that changed one, in order of time.
    pub states: Vec<NodeState>,
    /// How probable the anomaly is when the plan's tail is drawn again, where that was tried.
    pub curve: Option<Curve>,
    /// The command that replays the run.
    pub replay: String,
}

/// One write to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sender.
    pub from: Endpoint,
    /// The receiver.
    pub to: Endpoint,
    /// Microseconds since the run began.
    pub sent_us: u64,
    /// When its last byte was read, in microseconds since the run began; none where it never was.
    pub received_us: Option<u64>,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A process of a node began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStart {
    /// Microseconds since the run began.
    pub at_us: u64,
    /// The node.
    pub node: u32,
    /// How many processes the node has had, this one included.
    pub incarnation: u64,
}

/// A node stood at a named point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointSeen {
    /// Microseconds since the run began.
    pub at_us: u64,
    /// The node.
    pub node: u32,
    /// The point.
    pub name: String,
}

/// What a node knew at the end of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Microseconds since the run began.
    pub at_us: u64,
    /// The node.
    pub node: u32,
    /// How many processes the node has had, this one included.
    pub incarnation: u64,
    /// Its queues.
    pub queues: Vec<QueueState>,
}

/// What a node knew of a queue. Positions are bytes since the beginning of the queue's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// The queue.
    pub queue: Queue,
    /// Number of its log; several queues may share one.
    pub log: u64,
    /// First offset.
    pub log_start: i64,
    /// Consumers read below it.
    pub high_watermark: i64,
    /// The offset that the next record gets.
    pub next_offset: i64,
    /// Whether the node takes the queue for corrupt.
    pub fenced: bool,
    /// Everything of the log below is durable, as far as the node knows.
    pub synced: u64,
    /// Everything of the log below is confirmed to clients.
    pub counted: u64,
    /// Batches by offset.
    pub batches: Vec<BatchState>,
    /// Idempotent producers that it remembers.
    pub producers: Vec<ProducerMemory>,
}

/// A batch of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchState {
    /// Offset of its first record.
    pub first_offset: i64,
    /// Number of its offsets.
    pub count: u32,
    /// Position of its first byte.
    pub position: u64,
    /// Position behind its last byte.
    pub end: u64,
}

/// What a queue remembers of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerMemory {
    /// The producer's id.
    pub producer: i64,
    /// Sequence number of the last record that is remembered.
    pub last_sequence: i32,
    /// Batches that are remembered.
    pub window: u32,
}

/// How probable an anomaly is from each moment of a plan on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The anomaly.
    pub anomaly: String,
    /// By time.
    pub points: Vec<CurvePoint>,
    /// Real seconds that it took.
    pub wall_seconds: f64,
}

/// The plan is kept before a moment and drawn again behind it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The moment, in milliseconds since the run began.
    pub cut_ms: u64,
    /// Runs tried.
    pub runs: u32,
    /// Of them with the anomaly, as a violation.
    pub with_anomaly: u32,
}

impl CurvePoint {
    /// Share of the runs with the anomaly, with Wilson's interval of 95 %: low, share, high; all of 0..=1.
    /// Without a run nothing is known: 0, 0.5, 1.
    pub fn share(&self) -> (f64, f64, f64) {
        const Z: f64 = 1.959_964;
        if self.runs == 0 {
            return (0.0, 0.5, 1.0);
        }
        let runs = f64::from(self.runs);
        let share = f64::from(self.with_anomaly) / runs;
        let scale = 1.0 + Z * Z / runs;
        let middle = (share + Z * Z / (2.0 * runs)) / scale;
        let half = Z / scale * (share * (1.0 - share) / runs + Z * Z / (4.0 * runs * runs)).sqrt();
        ((middle - half).max(0.0).min(share), share, (middle + half).min(1.0).max(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference values of Wilson's interval, to three decimals.
    #[test]
    fn shares_have_wilsons_interval() {
        let cases = [(10, 0, 0.0, 0.278), (10, 10, 0.722, 1.0), (20, 5, 0.112, 0.469), (100, 50, 0.404, 0.596)];
        for (runs, with_anomaly, low, high) in cases {
            let (found_low, share, found_high) = CurvePoint { cut_ms: 0, runs, with_anomaly }.share();
            assert_eq!(share, f64::from(with_anomaly) / f64::from(runs));
            assert!((found_low - low).abs() < 0.000_6, "{with_anomaly} of {runs}: {found_low}");
            assert!((found_high - high).abs() < 0.000_6, "{with_anomaly} of {runs}: {found_high}");
        }
        assert_eq!(CurvePoint { cut_ms: 0, runs: 0, with_anomaly: 0 }.share(), (0.0, 0.5, 1.0));
    }
}
