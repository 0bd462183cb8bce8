//! Finds the frames in a direction's byte stream: Kafka's 4-byte length, then a request's API key and correlation id,
//! or an answer's correlation id. Only cuts and names; whether a link rule cares is decided in `link`.
//! Not a decoder: nothing behind the first twelve bytes is looked at.

/// A stretch of a write that belongs to one frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Its length in bytes.
    pub(super) length: usize,
    /// The frame's head, where it became known within this stretch.
    pub(super) head: Option<Head>,
    /// Whether the frame ends with it.
    pub(super) is_last: bool,
}

/// What the head of a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// As a request: the API key.
    pub(super) api_key: i16,
    /// As a request: the correlation id.
    pub(super) request_correlation: i32,
    /// As an answer: the correlation id.
    pub(super) answer_correlation: i32,
}

/// Position within the frames of a stream.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The frame's first bytes, up to twelve.
    head: Vec<u8>,
    /// Bytes of the frame seen so far, its length prefix included.
    seen: usize,
}

const HEAD_BYTES: usize = 12;
const PREFIX_BYTES: usize = 4;

impl Frames {
    /// The next stretch of the bytes; they are not empty.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Stretch {
        let mut taken = 0;
        let mut head = None;
        while self.head.len() < HEAD_BYTES.min(self.total()) && taken < bytes.len() {
            self.head.push(bytes[taken]);
            taken += 1;
            self.seen += 1;
            if self.head.len() == HEAD_BYTES.min(self.total()) {
                head = self.parse();
            }
        }
        let rest = (self.total() - self.seen).min(bytes.len() - taken);
        taken += rest;
        self.seen += rest;
        let is_last = self.head.len() >= PREFIX_BYTES && self.seen == self.total();
        if is_last {
            *self = Frames::default();
        }
        Stretch { length: taken, head, is_last }
    }

    /// Length of the frame with its prefix; at least the prefix, and as long as a head while that is unknown.
    fn total(&self) -> usize {
        match self.number(0) {
            // A negative length is no frame of Kafka's; each such prefix counts as a frame of its own.
            Some(length) => PREFIX_BYTES + usize::try_from(length).unwrap_or(0),
            None => HEAD_BYTES,
        }
    }

    fn parse(&self) -> Option<Head> {
        let api_key = self.head.get(4..6).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]));
        let answer_correlation = self.number(4)?;
        let request_correlation = self.number(8).unwrap_or(0);
        Some(Head { api_key: api_key?, request_correlation, answer_correlation })
    }

    fn number(&self, at: usize) -> Option<i32> {
        let bytes = self.head.get(at..at + 4)?;
        Some(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(api_key: i16, correlation: i32, body: usize) -> Vec<u8> {
        let mut bytes = (8 + body as i32).to_be_bytes().to_vec();
        bytes.extend(api_key.to_be_bytes());
        bytes.extend(3i16.to_be_bytes());
        bytes.extend(correlation.to_be_bytes());
        bytes.extend(vec![7; body]);
        bytes
    }

    /// Frames are found the same whatever the cuts between the writes.
    #[test]
    fn heads_and_ends_do_not_depend_on_the_cuts() {
        let mut stream = frame(1, 10, 5);
        stream.extend(frame(0, 11, 0));
        stream.extend(2i32.to_be_bytes());
        stream.extend([9, 9]);
        stream.extend(frame(3, 12, 300));
        for cut in 1..stream.len() {
            let mut frames = Frames::default();
            let (mut at, mut keys, mut ends) = (0, Vec::new(), Vec::new());
            for piece in [&stream[..cut], &stream[cut..]] {
                let mut piece = piece;
                while !piece.is_empty() {
                    let stretch = frames.next(piece);
                    assert!(stretch.length > 0);
                    at += stretch.length;
                    keys.extend(stretch.head.map(|head| (head.api_key, head.request_correlation)));
                    if stretch.is_last {
                        ends.push(at);
                    }
                    piece = &piece[stretch.length..];
                }
            }
            assert_eq!(keys, vec![(1, 10), (0, 11), (3, 12)], "cut at {cut}");
            assert_eq!(ends, vec![17, 29, 35, stream.len()], "cut at {cut}");
        }
    }
}
