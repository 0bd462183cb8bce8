//! The payload of a measured record: who sent it, as which, when it was meant to be sent and when it was, checksummed.
//! Layout, big-endian: magic 4, run 8, client 4, queue 4, sequence 8, intended 8, sent 8, filler, CRC-32C of it all 4.

use crc_fast::{CrcAlgorithm, checksum};

/// The smallest record: header and checksum, with a little filler.
pub const BYTES_MINIMUM: usize = 64;

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The producer, counted from 0.
    pub client: u32,
    /// The queue that it was sent to.
    pub queue: u32,
    /// How many this client sent to this queue before it.
    pub sequence: u64,
    /// When it was meant to be sent, nanoseconds of the run's clock.
    pub intended_ns: u64,
    /// When it was handed to the client library, nanoseconds of the run's clock.
    pub sent_ns: u64,
}

/// A template whose stamp is patched for every record; the filler is built once, before the clock starts.
#[derive(Debug)]
pub struct PayloadWriter {
    buffer: Vec<u8>,
}

impl PayloadWriter {
    /// A template for records of `record_bytes` of one run; the filler is incompressible and a function of `run`.
    pub fn new(run: u64, record_bytes: usize) -> PayloadWriter {
        assert!(record_bytes >= BYTES_MINIMUM, "the plan was checked");
        let mut state = run | 1;
        let mut buffer: Vec<u8> = (0..record_bytes)
            .map(|_| {
                // Marsaglia's xorshift: speed and entropy are all that filler needs.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        buffer[..4].copy_from_slice(&MAGIC);
        buffer[4..12].copy_from_slice(&run.to_be_bytes());
        PayloadWriter { buffer }
    }

    /// The record with this stamp.
    pub fn write(&mut self, stamp: Stamp) -> &[u8] {
        patch(&mut self.buffer, stamp);
        &self.buffer
    }
}

/// Whether a record says that it is of `run`; nothing else of it is checked.
pub fn is_of_run(run: u64, bytes: &[u8]) -> bool {
    bytes.len() >= BYTES_MINIMUM && number(bytes, 4) == run
}

/// Gives a record that a `PayloadWriter` wrote another stamp, in place.
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
    if bytes.len() != record_bytes || bytes[..4] != MAGIC || number(bytes, 4) != run {
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

const MAGIC: [u8; 4] = *b"mqa1";
const CHECKSUM_BYTES: usize = 4;

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
    fn every_single_bit_counts() {
        let good = PayloadWriter::new(7, 64).write(STAMP).to_vec();
        for bit in 0..64 * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(7, 64, &bad), None, "bit {bit}");
        }
    }
}
