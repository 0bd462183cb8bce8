//! The payload of a measured record: who sent it, as which, when it was meant to be sent and when it was, checksummed.
//! Layout, big-endian: magic 4, run 8, client 4, queue 4, sequence 8, intended 8, sent 8, filler, CRC-32C of it all 4.
//! Below `STAMPED_BYTES_MINIMUM` bytes there is no room for that: client 1, queue 2, sequence 4, filler, and the low 24 bits
//! of the CRC-32C of the run and of what stands before them, 3. Such records bear no times, so that they have no latency.

use crc_fast::{CrcAlgorithm, checksum};

/// The smallest record: who sent it, as which, and a checksum.
pub const BYTES_MINIMUM: usize = 10;
/// The smallest record that bears the times of its sending.
pub const STAMPED_BYTES_MINIMUM: usize = 64;

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The producer, counted from 0.
    pub client: u32,
    /// The queue that it was sent to.
    pub queue: u32,
    /// How many this client sent to this queue before it.
    pub sequence: u64,
    /// When it was meant to be sent, nanoseconds of the run's clock; 0 in a record too small for it.
    pub intended_ns: u64,
    /// When it was handed to the client library, nanoseconds of the run's clock; 0 in a record too small for it.
    pub sent_ns: u64,
}

/// A template whose stamp is patched for every record; the filler is built once, before the clock starts.
#[derive(Debug)]
pub struct PayloadWriter {
    run: u64,
    buffer: Vec<u8>,
}

impl PayloadWriter {
    /// A template for records of `record_bytes` of one run; the filler is incompressible and a function of `run`.
    pub fn new(run: u64, record_bytes: usize) -> PayloadWriter {
        PayloadWriter::with_entropy(run, record_bytes, 100)
    }

    /// The same with filler of which `entropy_percent` is incompressible, and the rest zeros.
    pub fn with_entropy(run: u64, record_bytes: usize, entropy_percent: u32) -> PayloadWriter {
        assert!(record_bytes >= BYTES_MINIMUM && entropy_percent <= 100, "the plan was checked");
        let mut state = run | 1;
        let random = record_bytes * entropy_percent as usize / 100;
        let mut buffer: Vec<u8> = (0..record_bytes)
            .map(|at| {
                if at >= random {
                    return 0;
                }
                // Marsaglia's xorshift: speed and entropy are all that filler needs.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        if record_bytes >= STAMPED_BYTES_MINIMUM {
            buffer[..4].copy_from_slice(&MAGIC);
            buffer[4..12].copy_from_slice(&run.to_be_bytes());
        }
        PayloadWriter { run, buffer }
    }

    /// A template of at least `STAMPED_BYTES_MINIMUM` whose filler is these bytes, as far as they go, and zeros.
    pub fn filled_with(run: u64, record_bytes: usize, filler: &[u8]) -> PayloadWriter {
        assert!(record_bytes >= STAMPED_BYTES_MINIMUM, "the plan was checked");
        let mut buffer = vec![0; record_bytes];
        let length = filler.len().min(record_bytes);
        buffer[..length].copy_from_slice(&filler[..length]);
        buffer[..4].copy_from_slice(&MAGIC);
        buffer[4..12].copy_from_slice(&run.to_be_bytes());
        PayloadWriter { run, buffer }
    }

    /// The record with this stamp.
    pub fn write(&mut self, stamp: Stamp) -> &[u8] {
        if self.buffer.len() >= STAMPED_BYTES_MINIMUM {
            patch(&mut self.buffer, stamp);
        } else {
            patch_small(self.run, &mut self.buffer, stamp);
        }
        &self.buffer
    }
}

/// What every record of `run` of at least `STAMPED_BYTES_MINIMUM` begins with.
pub fn mark(run: u64) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..4].copy_from_slice(&MAGIC);
    mark[4..].copy_from_slice(&run.to_be_bytes());
    mark
}

/// Whether a record says that it is of `run`; nothing else of it is checked.
pub fn is_of_run(run: u64, bytes: &[u8]) -> bool {
    bytes.len() >= STAMPED_BYTES_MINIMUM && number(bytes, 4) == run
}

/// Gives a record of at least `STAMPED_BYTES_MINIMUM` that a `PayloadWriter` wrote another stamp, in place.
pub fn patch(record: &mut [u8], stamp: Stamp) {
    record[12..16].copy_from_slice(&stamp.client.to_be_bytes());
    record[16..20].copy_from_slice(&stamp.queue.to_be_bytes());
    record[20..28].copy_from_slice(&stamp.sequence.to_be_bytes());
    record[28..36].copy_from_slice(&stamp.intended_ns.to_be_bytes());
    record[36..44].copy_from_slice(&stamp.sent_ns.to_be_bytes());
    let end = record.len() - CHECKSUM_BYTES;
    let sum = checksum_of(&record[..end]);
    record[end..].copy_from_slice(&sum);
}

/// Reads a record of `run`; none where a byte of it is not as it was sent.
pub fn read(run: u64, record_bytes: usize, bytes: &[u8]) -> Option<Stamp> {
    if bytes.len() != record_bytes {
        return None;
    }
    if record_bytes < STAMPED_BYTES_MINIMUM {
        return read_small(run, bytes);
    }
    if bytes[..4] != MAGIC || number(bytes, 4) != run {
        return None;
    }
    let (content, sum) = bytes.split_at(record_bytes - CHECKSUM_BYTES);
    if checksum_of(content) != sum {
        return None;
    }
    let (client, queue) = (number(bytes, 12) >> 32, number(bytes, 16) >> 32);
    Some(Stamp {
        client: client as u32,
        queue: queue as u32,
        sequence: number(bytes, 20),
        intended_ns: number(bytes, 28),
        sent_ns: number(bytes, 36),
    })
}

fn patch_small(run: u64, record: &mut [u8], stamp: Stamp) {
    let (client, queue) = (u8::try_from(stamp.client), u16::try_from(stamp.queue));
    record[0] = client.expect("the plan bounds the producers");
    record[1..3].copy_from_slice(&queue.expect("the plan bounds the queues").to_be_bytes());
    let sequence = u32::try_from(stamp.sequence).expect("a block ends before four thousand million records a queue");
    record[3..7].copy_from_slice(&sequence.to_be_bytes());
    let end = record.len() - SMALL_CHECKSUM_BYTES;
    let sum = small_checksum_of(run, &record[..end]);
    record[end..].copy_from_slice(&sum);
}

fn read_small(run: u64, bytes: &[u8]) -> Option<Stamp> {
    let (content, sum) = bytes.split_at(bytes.len().checked_sub(SMALL_CHECKSUM_BYTES)?);
    if content.len() < SMALL_STAMP_BYTES || small_checksum_of(run, content) != sum {
        return None;
    }
    let queue = u16::from_be_bytes([content[1], content[2]]);
    let sequence = u32::from_be_bytes(content[3..7].try_into().ok()?);
    let (client, queue, sequence) = (content[0].into(), queue.into(), sequence.into());
    Some(Stamp { client, queue, sequence, intended_ns: 0, sent_ns: 0 })
}

/// The run is part of what is summed, so that a record of another run is none of this.
fn small_checksum_of(run: u64, bytes: &[u8]) -> [u8; SMALL_CHECKSUM_BYTES] {
    let mut summed = [0; 8 + STAMPED_BYTES_MINIMUM];
    summed[..8].copy_from_slice(&run.to_be_bytes());
    summed[8..8 + bytes.len()].copy_from_slice(bytes);
    let [_, sum @ ..] = checksum_of(&summed[..8 + bytes.len()]);
    sum
}

/// Length of what a record begins with.
pub const MARK_BYTES: usize = 12;
const MAGIC: [u8; 4] = *b"mqa1";
const CHECKSUM_BYTES: usize = 4;
const SMALL_CHECKSUM_BYTES: usize = 3;
const SMALL_STAMP_BYTES: usize = 7;

fn checksum_of(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let sum = checksum(CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(sum).expect("a CRC-32 has 32 bits").to_be_bytes()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes of a record of at least 64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { client: 3, queue: 4095, sequence: 1 << 40, intended_ns: 12, sent_ns: u64::MAX };

    #[test]
    fn a_record_reads_back_as_written() {
        let mut writer = PayloadWriter::new(7, 100);
        assert_eq!(read(7, 100, writer.write(STAMP)), Some(STAMP));
        let next = Stamp { sequence: 5, ..STAMP };
        assert_eq!(read(7, 100, writer.write(next)), Some(next));
        assert_eq!(read(8, 100, writer.write(next)), None);
        assert_eq!(read(7, 101, writer.write(next)), None);
    }

    #[test]
    fn a_small_record_reads_back_without_its_times() {
        let stamp = Stamp { client: 63, queue: 19_999, sequence: 4_000_000_000, intended_ns: 7, sent_ns: 8 };
        for bytes in [10, 11, 63] {
            let mut writer = PayloadWriter::new(7, bytes);
            let read_back = read(7, bytes, writer.write(stamp));
            assert_eq!(read_back, Some(Stamp { intended_ns: 0, sent_ns: 0, ..stamp }), "{bytes}");
            assert_eq!(read(8, bytes, writer.write(stamp)), None, "{bytes}");
            assert_eq!(read(7, bytes + 1, writer.write(stamp)), None, "{bytes}");
        }
    }

    #[test]
    fn filler_has_the_entropy_asked_for() {
        let zeros =
            |percent| PayloadWriter::with_entropy(7, 1_000, percent).buffer.iter().filter(|at| **at == 0).count();
        assert!(zeros(100) < 30 && (480..560).contains(&zeros(50)), "{} {}", zeros(100), zeros(50));
        assert!(zeros(0) > 950, "{}", zeros(0));
    }

    #[test]
    fn every_single_bit_counts() {
        let small = Stamp { client: 3, queue: 4095, sequence: 1 << 20, intended_ns: 0, sent_ns: 0 };
        for (bytes, stamp) in [(64, STAMP), (10, small), (63, small)] {
            let good = PayloadWriter::new(7, bytes).write(stamp).to_vec();
            for bit in 0..bytes * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(read(7, bytes, &bad), None, "bit {bit} of {bytes} bytes");
            }
        }
    }
}
