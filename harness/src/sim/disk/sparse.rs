//! Bytes of a file as a map of chunks: what was never written, or only zeros, takes no room, so that preallocated and
//! memory-mapped files of a gigabyte cost what is in them. Not here: what is durable (`contents`).

use std::collections::BTreeMap;

/// Size of a chunk in bytes; a multiple of a sector's.
const CHUNK_BYTES: usize = 4096;

/// The bytes; those that no chunk holds are zeros.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    length: u64,
    /// By number; none begins behind the end, and behind the end the last is zeros.
    chunks: BTreeMap<u64, Box<[u8; CHUNK_BYTES]>>,
}

impl Sparse {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of the chunks that there are, at most the length.
    pub(super) fn held_bytes(&self) -> u64 {
        (self.chunks.len() as u64 * CHUNK_BYTES as u64).min(self.length)
    }

    /// Fills the buffer from `offset`; behind the end with zeros.
    pub(super) fn read_into(&self, offset: u64, buffer: &mut [u8]) {
        buffer.fill(0);
        for (chunk, within, part) in pieces(offset, buffer.len()) {
            if let Some(bytes) = self.chunks.get(&chunk) {
                let length = part.len();
                buffer[part].copy_from_slice(&bytes[within..within + length]);
            }
        }
    }

    /// Writes, and grows where need be.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.length = self.length.max(offset + bytes.len() as u64);
        for (chunk, within, part) in pieces(offset, bytes.len()) {
            let bytes = &bytes[part];
            if !self.chunks.contains_key(&chunk) && bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let there = self.chunks.entry(chunk).or_insert_with(|| Box::new([0; CHUNK_BYTES]));
            there[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Cuts off, or grows by zeros.
    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            drop(self.chunks.split_off(&length.div_ceil(CHUNK_BYTES as u64)));
            let within = (length % CHUNK_BYTES as u64) as usize;
            if let Some(last) = self.chunks.get_mut(&(length / CHUNK_BYTES as u64)) {
                last[within..].fill(0);
            }
        }
        self.length = length;
    }
}

/// The chunks that a range touches: number, where in the chunk it begins, and which part of the range lies there.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % CHUNK_BYTES as u64) as usize;
        let part = (CHUNK_BYTES - within).min(length - done);
        let piece = (part > 0).then_some((at / CHUNK_BYTES as u64, within, done..done + part));
        done += part;
        piece
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Law: it reads as one vector of bytes would.
        #[test]
        fn it_reads_like_a_vector(steps in prop::collection::vec((0..3_u8, 0..20_000_u64, 0..9_000_usize), 1..20)) {
            let (mut sparse, mut vector) = (Sparse::default(), Vec::new());
            for (number, (kind, offset, length)) in steps.into_iter().enumerate() {
                let end = offset as usize + length;
                match kind {
                    0 => {
                        sparse.set_length(offset);
                        vector.resize(offset as usize, 0);
                    }
                    _ => {
                        // Zeros are a case of their own.
                        let bytes = vec![number as u8 % 3; length];
                        sparse.write(offset, &bytes);
                        vector.resize(vector.len().max(end), 0);
                        vector[offset as usize..end].copy_from_slice(&bytes);
                    }
                }
                let mut whole = vec![9; vector.len() + 7];
                sparse.read_into(0, &mut whole);
                prop_assert_eq!(sparse.length(), vector.len() as u64);
                prop_assert_eq!(&whole[..vector.len()], &vector[..]);
                prop_assert_eq!(&whole[vector.len()..], &[0; 7][..]);
            }
        }
    }

    #[test]
    fn zeros_take_no_room() {
        let mut sparse = Sparse::default();
        sparse.set_length(1 << 30);
        sparse.write(5_000, &[0; 10_000]);
        sparse.write(100_000, &[1]);
        assert_eq!(sparse.chunks.len(), 1);
    }
}
