//! What a log knows, as plain data for people and pictures: a white box, read by nobody who decides or judges.

use serde::Serialize;

use super::{Log, Queue};
use crate::core::types::QueueId;

/// A log's state at one moment. Positions are bytes since the log's beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogDump {
    /// The log's number; 0 is the metadata log.
    pub log: u64,
    /// The leader epoch of its newest frame; -1 without frames.
    pub epoch: i32,
    /// Its epochs, oldest first, each with the position where it starts.
    pub epochs: Vec<(i32, u64)>,
    /// Where it begins: below, everything was freed.
    pub start: u64,
    /// Where the next frame goes.
    pub end: u64,
    /// Everything below has been written.
    pub written: u64,
    /// Everything below has been synced, as far as the node knows.
    pub synced: u64,
    /// Everything below counts on this replica.
    pub counted: u64,
    /// Everything below is confirmed to clients, as far as this replica knows.
    pub watermark: u64,
    /// Its queues that ever held a batch, by number.
    pub queues: Vec<QueueDump>,
}

/// A queue's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueDump {
    /// The queue's number.
    pub queue: u64,
    /// First offset.
    pub log_start: i64,
    /// Consumers read below it.
    pub high_watermark: i64,
    /// The offset that the next record gets.
    pub next_offset: i64,
    /// Whether corruption was found in it.
    pub fenced: bool,
    /// Its batches, by offset.
    pub batches: Vec<BatchDump>,
    /// Idempotent producers that it remembers, by id.
    pub producers: Vec<ProducerDump>,
}

/// A batch's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BatchDump {
    /// Offset of its first record.
    pub first_offset: i64,
    /// Number of its offsets.
    pub count: u32,
    /// Position of its frame in the log.
    pub position: u64,
    /// Position behind its last byte.
    pub end: u64,
}

/// What a queue remembers of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ProducerDump {
    /// The producer's id.
    pub producer: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence number of the last record of the newest batch that is remembered.
    pub last_sequence: i32,
    /// Batches that are remembered.
    pub window: u32,
}

impl Log {
    /// The log's state as plain data.
    pub fn dump(&self) -> LogDump {
        LogDump {
            log: self.id.0,
            epoch: self.epochs.newest().0,
            epochs: self.epochs.iter().map(|known| (known.epoch.0, known.start.0)).collect(),
            start: self.start.0,
            end: self.end.0,
            written: self.written.0,
            synced: self.synced.0,
            counted: self.counted_position().0,
            watermark: self.watermark.0,
            queues: self.queues.iter().map(|(id, queue)| queue.dump(id)).collect(),
        }
    }
}

impl Queue {
    fn dump(&self, id: QueueId) -> QueueDump {
        let batches = self.entries.iter().map(|entry| BatchDump {
            first_offset: entry.base_offset.0,
            count: entry.last_offset_delta + 1,
            position: entry.position.0,
            end: entry.position.plus(super::frame::FRAME_BYTES as u64 + u64::from(entry.size)).0,
        });
        let producers = self.producers.iter().map(|state| ProducerDump {
            producer: state.id.0,
            epoch: state.epoch.0,
            last_sequence: state.window.as_slice().last().map_or(-1, |batch| batch.last_sequence),
            window: state.window.as_slice().len() as u32,
        });
        QueueDump {
            queue: id.0,
            log_start: self.log_start.0,
            high_watermark: self.high_watermark.0,
            next_offset: self.next_offset.0,
            fenced: self.fenced,
            batches: batches.collect(),
            producers: producers.collect(),
        }
    }
}
