//! What a connection still has to send: small pieces gathered in one buffer, large ones shared and never copied.
//! Not here: what the bytes mean (`response`) and who sends them (`node::connection`).

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes in the order in which they are to be sent.
#[derive(Debug, Default)]
pub struct Output {
    parts: VecDeque<Bytes>,
    /// The newest bytes, behind all parts.
    tail: BytesMut,
    /// Bytes of the parts.
    parts_bytes: usize,
}

impl Output {
    /// How many bytes there are to send.
    pub fn len(&self) -> usize {
        self.parts_bytes + self.tail.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.tail.is_empty()
    }

    /// The buffer to append to.
    pub fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends bytes, copied where that is cheaper than to hold on to them.
    pub fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= COPIED_BYTES_MAX {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        self.close_tail();
        self.parts_bytes += bytes.len();
        self.parts.push_back(bytes);
    }

    /// Fills `slices` with what is to be sent next; gives how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.parts.iter().map(|part| &part[..]).chain(std::iter::once(&self.tail[..]));
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// Forgets the first `count` bytes, which have been sent.
    ///
    /// # Panics
    /// Where there are fewer.
    pub fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(first) = self.parts.front_mut() else { break };
            let here = count.min(first.len());
            first.advance(here);
            if first.is_empty() {
                self.parts.pop_front();
            }
            self.parts_bytes -= here;
            count -= here;
        }
        self.tail.advance(count);
        if self.tail.is_empty() && self.tail.capacity() > TAIL_BYTES_KEPT {
            self.tail = BytesMut::new();
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.parts_bytes += self.tail.len();
            self.parts.push_back(self.tail.split().freeze());
        }
    }
}

/// Pieces up to this many bytes are copied: that costs less than a piece of its own in a vectored write.
const COPIED_BYTES_MAX: usize = 1024;
/// An empty buffer larger than this is given back.
const TAIL_BYTES_KEPT: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(output: &Output) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = output.slices(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn bytes_leave_in_the_order_they_came_however_they_are_cut() {
        let large = Bytes::from(vec![7; COPIED_BYTES_MAX + 1]);
        let mut expected = Vec::new();
        let mut output = Output::default();
        for piece in [Bytes::from_static(b"ab"), large.clone(), large.clone(), Bytes::from_static(b"c"), large] {
            expected.extend_from_slice(&piece);
            output.push(piece);
        }
        output.tail().extend_from_slice(b"end");
        expected.extend_from_slice(b"end");
        for step in [1, 2, 1000, 25, 2000, 3] {
            assert_eq!((output.len(), all(&output)), (expected.len(), expected.clone()));
            output.advance(step);
            expected.drain(..step);
        }
        output.advance(expected.len());
        assert_eq!((output.is_empty(), output.len()), (true, 0));
    }

    #[test]
    fn large_pieces_are_shared() {
        let large = Bytes::from(vec![7; COPIED_BYTES_MAX + 1]);
        let mut output = Output::default();
        output.push(large.clone());
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(output.slices(&mut slices), 1);
        assert_eq!(slices[0].as_ptr(), large.as_ptr());
    }
}
