//! The trace of a run: a 128-bit hash over every event, and the events as lines where asked for.
//! An event is a time, who it happened to, a kind and numbers; never an address, a real duration or hash order.

use std::cell::RefCell;
use std::fmt;
use std::fmt::Write as _;
use std::rc::Rc;

use xxhash_rust::xxh3::Xxh3;

/// Whom an event happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// A broker node.
    Node(u32),
    /// A client.
    Client(u32),
    /// The nemesis.
    Nemesis,
}

impl fmt::Display for Actor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Node(node) => write!(formatter, "node-{node}"),
            Actor::Client(client) => write!(formatter, "client-{client}"),
            Actor::Nemesis => formatter.write_str("nemesis"),
        }
    }
}

/// A run's trace. Clones share it.
#[derive(Clone)]
pub struct Trace {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    hash: Xxh3,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty trace; `is_recording` keeps every event as a line.
    pub fn new(is_recording: bool) -> Trace {
        let lines = is_recording.then(Vec::new);
        Trace { inner: Rc::new(RefCell::new(Inner { hash: Xxh3::new(), events: 0, lines })) }
    }

    /// Keeps every event from now on as a line.
    pub(crate) fn record_lines(&self) {
        self.inner.borrow_mut().lines.get_or_insert_default();
    }

    /// Folds an event with numbers into the hash.
    pub fn event(&self, at_us: u64, actor: Actor, kind: &str, numbers: &[(&str, u64)]) {
        let mut inner = self.inner.borrow_mut();
        inner.begin(at_us, actor, kind);
        for (_, number) in numbers {
            inner.hash.update(&number.to_le_bytes());
        }
        let Some(lines) = &mut inner.lines else { return };
        let mut line = head_of_line(at_us, actor, kind);
        for (name, number) in numbers {
            write!(line, " {name}={number}").expect("writing to a string cannot fail");
        }
        lines.push(line);
    }

    /// Folds an event with a text into the hash.
    pub fn note(&self, at_us: u64, actor: Actor, kind: &str, text: &str) {
        let mut inner = self.inner.borrow_mut();
        inner.begin(at_us, actor, kind);
        inner.hash.update(&(text.len() as u64).to_le_bytes());
        inner.hash.update(text.as_bytes());
        let Some(lines) = &mut inner.lines else { return };
        lines.push(format!("{} {text}", head_of_line(at_us, actor, kind)));
    }

    /// The hash so far, as 32 hexadecimal digits.
    pub fn hash(&self) -> String {
        format!("{:032x}", self.inner.borrow().hash.digest128())
    }

    /// Number of events so far.
    pub fn events(&self) -> u64 {
        self.inner.borrow().events
    }

    /// Takes the recorded lines; empty where recording was not asked for.
    pub fn take_lines(&self) -> Vec<String> {
        self.inner.borrow_mut().lines.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl Inner {
    fn begin(&mut self, at_us: u64, actor: Actor, kind: &str) {
        let (class, number) = match actor {
            Actor::Node(node) => (0u8, node),
            Actor::Client(client) => (1, client),
            Actor::Nemesis => (2, 0),
        };
        self.events += 1;
        self.hash.update(&at_us.to_le_bytes());
        self.hash.update(&[class]);
        self.hash.update(&number.to_le_bytes());
        self.hash.update(&(kind.len() as u32).to_le_bytes());
        self.hash.update(kind.as_bytes());
    }
}

/// Index and both texts of the first line that differs between two recordings; `None` where they are equal.
pub fn first_difference<'a>(left: &'a [String], right: &'a [String]) -> Option<(usize, &'a str, &'a str)> {
    const ENDED: &str = "(ended)";
    for index in 0..left.len().max(right.len()) {
        let one = left.get(index).map_or(ENDED, String::as_str);
        let other = right.get(index).map_or(ENDED, String::as_str);
        if one != other {
            return Some((index, one, other));
        }
    }
    None
}

fn head_of_line(at_us: u64, actor: Actor, kind: &str) -> String {
    format!("{}.{:06} {actor} {kind}", at_us / 1_000_000, at_us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(events: &[(u64, Actor, &str, u64)]) -> (String, Vec<String>) {
        let trace = Trace::new(true);
        for (at_us, actor, kind, number) in events {
            trace.event(*at_us, *actor, kind, &[("n", *number)]);
        }
        (trace.hash(), trace.take_lines())
    }

    #[test]
    fn every_part_of_an_event_counts() {
        let base = traced(&[(5, Actor::Node(1), "a", 9)]);
        assert_eq!(base, traced(&[(5, Actor::Node(1), "a", 9)]));
        let others = [
            (6, Actor::Node(1), "a", 9),
            (5, Actor::Node(2), "a", 9),
            (5, Actor::Client(1), "a", 9),
            (5, Actor::Node(1), "b", 9),
            (5, Actor::Node(1), "a", 8),
        ];
        for other in others {
            assert_ne!(base.0, traced(&[other]).0, "{other:?}");
        }
    }

    #[test]
    fn the_first_difference_is_found_also_at_an_end() {
        let (_, left) = traced(&[(1, Actor::Nemesis, "x", 1), (2, Actor::Nemesis, "x", 2)]);
        let (_, right) = traced(&[(1, Actor::Nemesis, "x", 1)]);
        assert_eq!(first_difference(&left, &left), None);
        assert_eq!(first_difference(&left, &right), Some((1, "0.000002 nemesis x n=2", "(ended)")));
    }

    #[test]
    fn nothing_is_kept_unless_recording() {
        let trace = Trace::new(false);
        trace.note(1, Actor::Nemesis, "x", "text");
        assert_eq!((trace.events(), trace.take_lines().len()), (1, 0));
    }
}
