//! A connection as both its ends share it: per direction the chunks that were written and when each may be read.
//! Bytes themselves travel through turmoil's socket; this only says how many of them may pass by now.
//! Not here: the rules (`link`), and reading and writing (`stream`).

use std::collections::VecDeque;
use std::task::Waker;

use super::frames::{Frames, Head};
use super::link::Rules;
use crate::plan::Endpoint;

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialer,
    Listener,
}

impl Side {
    pub(super) fn other(self) -> Side {
        match self {
            Side::Dialer => Side::Listener,
            Side::Listener => Side::Dialer,
        }
    }
}

/// Why nothing passes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Alive,
    /// One end lost its power: nothing arrives, not even an end. Writes seem to work until the other end is back.
    Severed {
        was_written: bool,
    },
    /// Reads and writes fail.
    Reset,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) dialer: Endpoint,
    pub(super) listener: Endpoint,
    pub(super) fate: Fate,
    /// The directions, by the side that writes: dialer, listener.
    outward: [Direction; 2],
    /// Requests not answered yet: correlation id and API key.
    requests: VecDeque<(i32, i16)>,
    /// Ends that still exist.
    pub(super) ends: u32,
}

#[derive(Debug, Default)]
pub(super) struct Direction {
    frames: Frames,
    /// Rules that hold the frame that is being written.
    frame_holding: Vec<u64>,
    chunks: VecDeque<Chunk>,
    written: u64,
    passed: u64,
    /// Since when a cut has held bytes.
    cut_since_us: Option<u64>,
    /// Who waits to read.
    pub(super) reader: Option<Waker>,
    /// Who waits to write.
    pub(super) writer: Option<Waker>,
}

#[derive(Debug)]
struct Chunk {
    end: u64,
    due_us: u64,
    holding: Vec<u64>,
}

/// What may be read from a direction now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// So many bytes, at least one.
    Bytes(u64),
    /// Nothing before this time.
    At(u64),
    /// Nothing until a rule ends.
    Held,
    /// All that was written has been read.
    Drained,
}

/// Answers that can be outstanding before the oldest is forgotten: requests without an answer stay here.
const REQUESTS_MAX: usize = 4096;

impl Connection {
    pub(super) fn new(number: u64, dialer: Endpoint, listener: Endpoint) -> Connection {
        let outward = [Direction::default(), Direction::default()];
        Connection { number, dialer, listener, fate: Fate::Alive, outward, requests: VecDeque::new(), ends: 2 }
    }

    pub(super) fn endpoint(&self, side: Side) -> Endpoint {
        match side {
            Side::Dialer => self.dialer,
            Side::Listener => self.listener,
        }
    }

    pub(super) fn touches(&self, endpoint: Endpoint) -> bool {
        self.dialer == endpoint || self.listener == endpoint
    }

    pub(super) fn from(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Dialer => &mut self.outward[0],
            Side::Listener => &mut self.outward[1],
        }
    }

    /// Bytes were written by a side; `due_us` is when they may be read unless a rule says later.
    /// Returns how many rules for one request struck.
    pub(super) fn wrote(&mut self, side: Side, bytes: &[u8], due_us: u64, rules: &mut Rules) -> u64 {
        let (from, to) = (self.endpoint(side), self.endpoint(side.other()));
        let due_us = due_us + rules.delay_us(from, to);
        let (mut left, mut struck) = (bytes, 0);
        while !left.is_empty() {
            let stretch = self.from(side).frames.next(left);
            left = &left[stretch.length..];
            let mut delay_us = 0;
            if let Some(api_key) = stretch.head.and_then(|head| self.api_key(side, head)) {
                let frame = rules.frame_sent(from, to, api_key);
                delay_us = frame.delay_us;
                struck += frame.struck;
                self.from(side).frame_holding = frame.holding;
            }
            let direction = self.from(side);
            direction.push(stretch.length as u64, due_us + delay_us);
            if stretch.is_last {
                direction.frame_holding.clear();
            }
        }
        struck
    }

    /// What the reader of a side's bytes may read now.
    pub(super) fn passage(&mut self, side: Side, now_us: u64, rules: &Rules) -> Passage {
        let (from, to) = (self.endpoint(side), self.endpoint(side.other()));
        let is_held = rules.holds(from, to);
        let direction = self.from(side);
        let mut end = direction.passed;
        for chunk in &direction.chunks {
            let is_frame_held = chunk.holding.iter().any(|number| rules.is_active(*number));
            if is_held || is_frame_held {
                return if end > direction.passed { Passage::Bytes(end - direction.passed) } else { Passage::Held };
            }
            if chunk.due_us > now_us {
                let is_some = end > direction.passed;
                return if is_some { Passage::Bytes(end - direction.passed) } else { Passage::At(chunk.due_us) };
            }
            end = chunk.end;
        }
        match (end > direction.passed, is_held) {
            (true, _) => Passage::Bytes(end - direction.passed),
            (false, true) => Passage::Held,
            (false, false) => Passage::Drained,
        }
    }

    /// Whether a cut has held bytes of either direction for so long that the connection is to be reset.
    pub(super) fn is_cut_over(&mut self, now_us: u64, rules: &Rules) -> bool {
        [Side::Dialer, Side::Listener].into_iter().any(|side| {
            let (from, to) = (self.endpoint(side), self.endpoint(side.other()));
            let direction = self.from(side);
            let reset_after_us = direction.chunks.front().and_then(|chunk| {
                let is_due = chunk.due_us <= now_us;
                if is_due { rules.reset_after_us(from, to, &chunk.holding) } else { None }
            });
            let Some(reset_after_us) = reset_after_us else {
                direction.cut_since_us = None;
                return false;
            };
            let since_us = *direction.cut_since_us.get_or_insert(now_us);
            now_us >= since_us + reset_after_us
        })
    }

    /// Wakes whoever waits at either end, to look again.
    pub(super) fn wake(&mut self) {
        for direction in &mut self.outward {
            for waker in [direction.reader.take(), direction.writer.take()].into_iter().flatten() {
                waker.wake();
            }
        }
    }

    /// The API key of a frame that a side sends: a request's own, or that of the request which it answers.
    fn api_key(&mut self, side: Side, head: Head) -> Option<i16> {
        match side {
            Side::Dialer => {
                if self.requests.len() == REQUESTS_MAX {
                    self.requests.pop_front();
                }
                self.requests.push_back((head.request_correlation, head.api_key));
                Some(head.api_key)
            }
            Side::Listener => {
                let correlation = head.answer_correlation;
                let at = self.requests.iter().position(|(request, _)| *request == correlation)?;
                self.requests.remove(at).map(|(_, api_key)| api_key)
            }
        }
    }
}

impl Direction {
    /// So many bytes have been read.
    pub(super) fn pass(&mut self, bytes: u64) {
        self.passed += bytes;
        assert!(self.passed <= self.written, "read {} of {} bytes", self.passed, self.written);
        while self.chunks.front().is_some_and(|chunk| chunk.end <= self.passed) {
            self.chunks.pop_front();
        }
    }

    /// Position of the next byte to be read.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Position of the next byte to be written.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes stay in order: `passage` looks at no chunk before those written earlier have passed.
    fn push(&mut self, length: u64, due_us: u64) {
        self.written += length;
        let holding = self.frame_holding.clone();
        self.chunks.push_back(Chunk { end: self.written, due_us, holding });
    }
}
