//! Reads a recorded trace back: which write of a connection was read when, where processes began, and which points were
//! passed. A line that is none of these is left out; the trace's own text is described in the harness' `sim::trace`.

use std::collections::BTreeMap;

use mqassay_broker::points::POINTS;
use mqassay_harness::plan::Endpoint;
use mqassay_harness::story::{Message, NodeStart, PointSeen};

/// What a trace tells.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) messages: Vec<Message>,
    pub(super) starts: Vec<NodeStart>,
    pub(super) points: Vec<PointSeen>,
}

/// A write, until it has been read.
struct Written {
    from: Endpoint,
    sent_us: u64,
    end: u64,
    bytes: u64,
    received: Option<(Endpoint, u64)>,
}

/// Reads the lines of a recorded trace.
pub(super) fn read(lines: &[String]) -> Seen {
    let mut seen = Seen::default();
    let mut ends: BTreeMap<u64, Vec<Endpoint>> = BTreeMap::new();
    let mut writes: Vec<Written> = Vec::new();
    // Writes by connection, as indices; a direction is told by who writes.
    let mut open: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let mut connections: Vec<u64> = Vec::new();
    for line in lines {
        let Some(event) = Event::parse(line) else { continue };
        let number = |name| event.number(name);
        match (event.kind, event.actor) {
            ("net-dial" | "net-accept", actor) => {
                let ends = ends.entry(number("connection")).or_default();
                if !ends.contains(&actor) {
                    ends.push(actor);
                }
            }
            ("net-write", from) => {
                let bytes = number("length");
                open.entry(number("connection")).or_default().push(writes.len());
                connections.push(number("connection"));
                let end = number("offset") + bytes;
                writes.push(Written { from, sent_us: event.at_us, end, bytes, received: None });
            }
            ("net-read", to) => {
                let end = number("offset") + number("length");
                let Some(open) = open.get_mut(&number("connection")) else { continue };
                open.retain(|index| {
                    let written = &mut writes[*index];
                    let is_read = written.from != to && written.end <= end;
                    if is_read {
                        written.received = Some((to, event.at_us));
                    }
                    !is_read
                });
            }
            ("start", Endpoint::Node(node)) => {
                seen.starts.push(NodeStart { at_us: event.at_us, node, incarnation: number("incarnation") });
            }
            (kind, Endpoint::Node(node)) if POINTS.contains(&kind) => {
                seen.points.push(PointSeen { at_us: event.at_us, node, name: kind.to_owned() });
            }
            _ => {}
        }
    }
    for (written, connection) in writes.into_iter().zip(connections) {
        let others = ends.get(&connection).map_or(&[][..], Vec::as_slice);
        let other = others.iter().copied().find(|end| *end != written.from);
        let Some(to) = written.received.map(|(to, _)| to).or(other) else { continue };
        let received_us = written.received.map(|(_, at_us)| at_us);
        seen.messages.push(Message {
            from: written.from,
            to,
            sent_us: written.sent_us,
            received_us,
            bytes: written.bytes,
        });
    }
    seen
}

struct Event<'a> {
    at_us: u64,
    actor: Endpoint,
    kind: &'a str,
    rest: &'a str,
}

impl Event<'_> {
    fn parse(line: &str) -> Option<Event<'_>> {
        let mut parts = line.splitn(4, ' ');
        let (seconds, micros) = parts.next()?.split_once('.')?;
        let at_us = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
        let (kind_of_actor, number) = parts.next()?.split_once('-')?;
        let number: u32 = number.parse().ok()?;
        let actor = match kind_of_actor {
            "node" => Endpoint::Node(number),
            "client" => Endpoint::Client(number),
            _ => return None,
        };
        Some(Event { at_us, actor, kind: parts.next()?, rest: parts.next().unwrap_or_default() })
    }

    /// The number with the name; 0 where the event has none.
    fn number(&self, name: &str) -> u64 {
        let mut pairs = self.rest.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_arrives_when_its_last_byte_is_read_by_the_other_end() {
        let lines = [
            "0.000001 node-0 start incarnation=1",
            "0.000005 node-0 net-accept connection=7",
            "0.000006 client-1 net-dial connection=7",
            "0.000010 client-1 net-write connection=7 offset=0 length=10 hash=1",
            "0.000011 node-0 net-write connection=7 offset=0 length=4 hash=1",
            "0.000012 node-0 net-read connection=7 offset=0 length=6",
            "0.000020 node-0 net-read connection=7 offset=6 length=4",
            "0.000021 node-0 request-received",
            "0.000022 nemesis kill fault=1",
        ];
        let seen = read(&lines.map(str::to_owned));
        let (client, node) = (Endpoint::Client(1), Endpoint::Node(0));
        assert_eq!(
            seen.messages,
            [
                Message { from: client, to: node, sent_us: 10, received_us: Some(20), bytes: 10 },
                Message { from: node, to: client, sent_us: 11, received_us: None, bytes: 4 },
            ]
        );
        assert_eq!(seen.starts, [NodeStart { at_us: 1, node: 0, incarnation: 1 }]);
        assert_eq!(seen.points, [PointSeen { at_us: 21, node: 0, name: "request-received".to_owned() }]);
    }
}
