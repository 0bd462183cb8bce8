//! Clean histories of any length from a small model: producers append batches to queues, some without hearing of it,
//! consumers follow, and a last reader reads everything. A function of length and seed, made for measuring the judge.
//! Not here: faults and anomalies (the checkers' own tests plant those).

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Call, ClientId, Header, History, Operation, Outcome, Position, Queue, Run, SCHEMA_VERSION, Value};

/// Fewest operations of a sample.
pub const OPERATIONS_MINIMUM: u64 = 2_000;

const PRODUCERS: u64 = 8;
const CONSUMERS: u64 = 8;
const QUEUES: u64 = 16;
const RECORDS_PER_BATCH_MAXIMUM: u64 = 10;
/// Batches that a poll delivers at most.
const RUNS_PER_POLL_MAXIMUM: usize = 4;
/// One batch in so many has an unknown outcome; every other of those took effect.
const UNKNOWN_ONE_IN: u64 = 100;
const STEP_US: u64 = 10;
const EPOCH_MS: i64 = 1_700_000_000_000;

/// The operations of a sample, one after the other, with little memory beside the batches appended.
#[derive(Debug)]
pub struct Sample {
    seed: u64,
    next: u64,
    total: u64,
    /// Operations before the final reads.
    safety: u64,
    logs: Vec<Vec<Run>>,
    /// Next offset, by queue.
    ends: Vec<i64>,
    /// Values used, by producer and queue.
    values: Vec<u64>,
    /// Batches read, by consumer's queue.
    read: Vec<usize>,
    final_read: Vec<usize>,
}

/// The header of samples.
pub fn header() -> Header {
    Header { schema: SCHEMA_VERSION, topics: vec!["sample".to_owned()], title: "a clean sample".to_owned() }
}

/// A whole sample in memory.
pub fn sample(operations: u64, seed: u64) -> History {
    History { header: header(), operations: Sample::new(operations, seed).collect(), marks: Vec::new() }
}

impl Sample {
    /// A sample of so many operations, at least `OPERATIONS_MINIMUM`.
    pub fn new(operations: u64, seed: u64) -> Sample {
        let total = operations.max(OPERATIONS_MINIMUM);
        Sample {
            seed,
            next: 0,
            total,
            safety: total - (total / 100 / QUEUES + 1) * QUEUES,
            logs: vec![Vec::new(); QUEUES as usize],
            ends: vec![0; QUEUES as usize],
            values: vec![0; (PRODUCERS * QUEUES) as usize],
            read: vec![0; QUEUES as usize],
            final_read: vec![0; QUEUES as usize],
        }
    }

    /// A number below the bound, drawn for the operation at hand.
    fn draw(&self, what: u64, bound: u64) -> u64 {
        xxh3_64_with_seed(&self.next.to_le_bytes(), self.seed ^ (what << 56)) % bound
    }

    fn produce(&mut self) -> (ClientId, Outcome, Call) {
        let (producer, partition) = (self.draw(1, PRODUCERS), self.draw(2, QUEUES));
        let count = self.draw(3, RECORDS_PER_BATCH_MAXIMUM) + 1;
        let fate = self.draw(4, UNKNOWN_ONE_IN * 2);
        let queue = Queue { topic: 0, partition: partition as u32 };
        let client = ClientId(producer as u32);
        let used = &mut self.values[(producer * QUEUES + partition) as usize];
        let first_value = Value::new(client, *used);
        *used += count;
        let first_timestamp_ms = EPOCH_MS + (self.next * STEP_US / 1_000) as i64;
        let end = &mut self.ends[partition as usize];
        let run = Run { queue, first_value, count: count as u32, first_offset: *end, first_timestamp_ms };
        if fate != 1 {
            *end += count as i64;
            self.logs[partition as usize].push(run);
        }
        let (outcome, first_offset) = match fate {
            0 | 1 => (Outcome::Unknown("time-out".to_owned()), None),
            _ => (Outcome::Done, Some(run.first_offset)),
        };
        let timestamps_ms = (0..count as i64).map(|record| first_timestamp_ms + record).collect();
        let (count, attempts, acks, idempotent) = (run.count, 1, -1, true);
        let call = Call::Produce { queue, first_value, count, timestamps_ms, first_offset, attempts, acks, idempotent };
        (client, outcome, call)
    }

    /// A consumer has two queues and reads one of them at a time.
    fn poll(&mut self) -> (ClientId, Outcome, Call) {
        let consumer = self.draw(1, CONSUMERS);
        let own = [consumer, consumer + CONSUMERS];
        let positions = own.map(|partition| self.position_of(partition, self.read[partition as usize])).to_vec();
        let partition = own[self.draw(2, 2) as usize] as usize;
        let from = self.read[partition];
        let to = self.logs[partition].len().min(from + RUNS_PER_POLL_MAXIMUM);
        self.read[partition] = to;
        let runs = self.logs[partition][from..to].to_vec();
        let call = Call::Poll { runs, corrupt: Vec::new(), positions, is_final: false };
        (ClientId((PRODUCERS + consumer) as u32), Outcome::Done, call)
    }

    fn final_poll(&mut self) -> (ClientId, Outcome, Call) {
        let polls_per_queue = (self.total - self.safety) / QUEUES;
        let partition = ((self.next - self.safety) / polls_per_queue) as usize;
        let from = self.final_read[partition];
        let share = self.logs[partition].len().div_ceil(polls_per_queue as usize);
        let to = self.logs[partition].len().min(from + share);
        self.final_read[partition] = to;
        let positions = vec![self.position_of(partition as u64, from)];
        let runs = self.logs[partition][from..to].to_vec();
        let call = Call::Poll { runs, corrupt: Vec::new(), positions, is_final: true };
        (ClientId((PRODUCERS + CONSUMERS) as u32), Outcome::Done, call)
    }

    fn position_of(&self, partition: u64, read: usize) -> Position {
        let last = read.checked_sub(1).map(|index| &self.logs[partition as usize][index]);
        let offset = last.map_or(0, |run| run.first_offset + i64::from(run.count));
        Position { queue: Queue { topic: 0, partition: partition as u32 }, offset }
    }
}

impl Iterator for Sample {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        if self.next >= self.total {
            return None;
        }
        let (client, outcome, call) = match (self.next < self.safety, self.next.is_multiple_of(2)) {
            (true, true) => self.produce(),
            (true, false) => self.poll(),
            (false, _) => self.final_poll(),
        };
        let invoked_us = self.next * STEP_US;
        self.next += 1;
        Some(Operation { client, invoked_us, completed_us: invoked_us + STEP_US - 1, outcome, call })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_length_asked_for_and_its_last_reader_reads_everything() {
        for total in [OPERATIONS_MINIMUM, 12_345] {
            let mut sample = Sample::new(total, 3);
            assert_eq!(sample.by_ref().count() as u64, total);
            assert!(sample.logs.iter().zip(&sample.final_read).all(|(log, read)| log.len() == *read));
        }
    }
}
