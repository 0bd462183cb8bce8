//! Situations: what led to what in a run, as short chains of faults and of events by which replication, leadership or
//! recovery takes another course, each with whom it concerned. Guidance takes them for coverage: two runs with the same
//! faults and the same counts of events can have gone through very different ones. Start at `of`; a pure function.

use std::collections::BTreeSet;

use mqassay_broker::points;
use mqassay_harness::history::Mark;
use mqassay_harness::sim::node::NodeEvent;

/// Longest chain.
const CHAIN: usize = 3;

/// Events that are links of chains. The others happen all the time.
const TURNS: [&str; 13] = [
    points::LEADERSHIP_TAKEN,
    points::ISR_CHANGED,
    points::TRUNCATION,
    points::EPOCHS_CUT,
    points::LOG_RESTARTED,
    points::CORRUPTION_FOUND,
    points::TORN_TAIL_CUT,
    points::CONTROLLER_ELECTED,
    points::VOTERS_CHANGE,
    points::SNAPSHOT_INSTALLED,
    points::GROUP_REBALANCED,
    points::COORDINATOR_LOADED,
    points::DUPLICATE_REFUSED,
];

/// A link of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    what: String,
    nodes: Vec<u32>,
}

/// The chains of one to three links in which a run's faults and events followed each other.
pub fn of(happened: &[NodeEvent], marks: &[Mark]) -> BTreeSet<String> {
    let links = links(happened, marks);
    let mut situations = BTreeSet::new();
    for start in 0..links.len() {
        let mut chain = String::new();
        let mut before: Option<&Link> = None;
        for link in links.iter().skip(start).take(CHAIN) {
            if let Some(before) = before {
                let is_same = before.nodes.iter().any(|node| link.nodes.contains(node));
                chain.push_str(if is_same { ", there " } else { ", elsewhere " });
            }
            chain.push_str(&link.what);
            situations.insert(chain.clone());
            before = Some(link);
        }
    }
    situations
}

/// Faults with the role of whom they struck, and turns, in order of time; the same again is no new link.
fn links(happened: &[NodeEvent], marks: &[Mark]) -> Vec<Link> {
    let mut faults = marks.iter().filter_map(|mark| {
        let Mark::Fault { at_us, class, nodes, .. } = mark else { return None };
        Some((*at_us, class.as_str(), nodes.as_slice()))
    });
    let mut fault = faults.next();
    let (mut links, mut leader): (Vec<Link>, Option<u32>) = (Vec::new(), None);
    let mut join = |link: Link| {
        if links.last() != Some(&link) {
            links.push(link);
        }
    };
    for event in happened.iter().filter(|event| TURNS.contains(&event.name)) {
        while let Some((_, class, nodes)) = fault.filter(|(at_us, ..)| *at_us <= event.at_us) {
            join(struck(class, nodes, leader));
            fault = faults.next();
        }
        if event.name == points::LEADERSHIP_TAKEN {
            leader = Some(event.node);
        }
        join(Link { what: event.name.to_owned(), nodes: vec![event.node] });
    }
    while let Some((_, class, nodes)) = fault {
        join(struck(class, nodes, leader));
        fault = faults.next();
    }
    links
}

fn struck(class: &str, nodes: &[u32], leader: Option<u32>) -> Link {
    let role = if leader.is_some_and(|leader| nodes.contains(&leader)) { " of the leader" } else { "" };
    Link { what: format!("{class}{role}"), nodes: nodes.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_us: u64, node: u32, name: &'static str) -> NodeEvent {
        NodeEvent { at_us, node, name }
    }

    fn fault(at_us: u64, class: &str, node: u32) -> Mark {
        Mark::Fault { at_us, class: class.to_owned(), fault: 0, nodes: vec![node] }
    }

    #[test]
    fn chains_say_what_led_to_what_where_and_whom_a_fault_struck() {
        let happened = [
            event(10, 1, points::LEADERSHIP_TAKEN),
            event(15, 1, points::SYNC),
            event(30, 2, points::LEADERSHIP_TAKEN),
            event(40, 1, points::TRUNCATION),
            event(50, 1, points::TRUNCATION),
        ];
        let situations = of(&happened, &[fault(20, "kill", 1), fault(60, "pause", 1)]);
        for wanted in [
            "leadership-taken, there kill of the leader, elsewhere leadership-taken",
            "leadership-taken, elsewhere truncation, there pause",
            "kill of the leader",
            "pause",
        ] {
            assert!(situations.contains(wanted), "{wanted} is not in {situations:#?}");
        }
        assert!(
            !situations.iter().any(|chain| chain.contains("sync") || chain.contains("truncation, there truncation"))
        );
        assert_eq!(of(&[], &[]), BTreeSet::new());
    }
}
