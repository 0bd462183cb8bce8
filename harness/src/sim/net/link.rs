//! The rules on links: which are active, and which of them concern a direction or one request on it.
//! Rules are independent of each other: each ends by itself, and bytes pass when no active rule holds them.

use std::collections::BTreeMap;

use crate::plan::{Endpoint, LinkRule, OnlyRequest};

/// An active rule.
#[derive(Debug)]
pub(super) struct ActiveRule {
    from: Endpoint,
    to: Endpoint,
    pub(super) rule: LinkRule,
    only: Option<OnlyRequest>,
    /// Requests (or answers to them) with the key of `only` that were sent since the rule became active.
    seen: u32,
}

/// The active rules by number.
#[derive(Debug, Default)]
pub(super) struct Rules {
    active: BTreeMap<u64, ActiveRule>,
    numbers: u64,
}

/// What the rules say of a frame that is being sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FrameRules {
    /// Extra delay in microseconds.
    pub(super) delay_us: u64,
    /// Rules that hold just this frame.
    pub(super) holding: Vec<u64>,
    /// Rules that struck with this frame.
    pub(super) struck: u64,
}

impl Rules {
    pub(super) fn add(&mut self, from: Endpoint, to: Endpoint, rule: LinkRule, only: Option<OnlyRequest>) -> u64 {
        self.numbers += 1;
        self.active.insert(self.numbers, ActiveRule { from, to, rule, only, seen: 0 });
        self.numbers
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.active.remove(&number);
    }

    pub(super) fn clear(&mut self) {
        self.active.clear();
    }

    pub(super) fn is_active(&self, number: u64) -> bool {
        self.active.contains_key(&number)
    }

    /// Whether a rule for everything holds the direction.
    pub(super) fn holds(&self, from: Endpoint, to: Endpoint) -> bool {
        self.whole(from, to).any(|active| match active.rule {
            LinkRule::Hold | LinkRule::Cut { .. } => true,
            LinkRule::Delay { .. } => false,
        })
    }

    /// Delay of everything sent now in the direction, in microseconds: what active rules add up to.
    pub(super) fn delay_us(&self, from: Endpoint, to: Endpoint) -> u64 {
        let delays = self.whole(from, to).map(|active| match active.rule {
            LinkRule::Delay { delay_ms } => delay_ms * 1000,
            LinkRule::Hold | LinkRule::Cut { .. } => 0,
        });
        delays.sum()
    }

    /// The shortest time to a reset among the cuts that hold the direction (or the frame), in microseconds.
    pub(super) fn reset_after_us(&self, from: Endpoint, to: Endpoint, frame_rules: &[u64]) -> Option<u64> {
        let of_frame = frame_rules.iter().filter_map(|number| self.active.get(number));
        let resets = self.whole(from, to).chain(of_frame).filter_map(|active| match active.rule {
            LinkRule::Cut { reset_after_ms } => Some(reset_after_ms * 1000),
            LinkRule::Hold | LinkRule::Delay { .. } => None,
        });
        resets.min()
    }

    /// Counts a frame (a request with this key, or the answer to one) and says what the rules for one request do to it.
    pub(super) fn frame_sent(&mut self, from: Endpoint, to: Endpoint, api_key: i16) -> FrameRules {
        let mut frame = FrameRules::default();
        for (number, active) in &mut self.active {
            let Some(only) = active.only else { continue };
            if only.api_key != api_key || !matches(active.from, from) || !matches(active.to, to) {
                continue;
            }
            active.seen += 1;
            if active.seen != only.nth {
                continue;
            }
            frame.struck += 1;
            match active.rule {
                LinkRule::Delay { delay_ms } => frame.delay_us += delay_ms * 1000,
                LinkRule::Hold | LinkRule::Cut { .. } => frame.holding.push(*number),
            }
        }
        frame
    }

    /// Rules for everything in the direction.
    fn whole(&self, from: Endpoint, to: Endpoint) -> impl Iterator<Item = &ActiveRule> {
        let active = self.active.values();
        active.filter(move |active| active.only.is_none() && matches(active.from, from) && matches(active.to, to))
    }
}

/// Whether a rule's end covers a host.
fn matches(rule: Endpoint, host: Endpoint) -> bool {
    match rule {
        Endpoint::AnyNode => matches!(host, Endpoint::Node(_)),
        Endpoint::AnyClient => matches!(host, Endpoint::Client(_)),
        Endpoint::Node(_) | Endpoint::Client(_) => rule == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Endpoint = Endpoint::Client(2);
    const NODE: Endpoint = Endpoint::Node(0);

    #[test]
    fn overlapping_rules_end_each_by_itself() {
        let mut rules = Rules::default();
        let one = rules.add(CLIENT, NODE, LinkRule::Hold, None);
        let other = rules.add(Endpoint::AnyClient, Endpoint::AnyNode, LinkRule::Hold, None);
        rules.remove(one);
        assert!(rules.holds(CLIENT, NODE), "the other rule still holds");
        assert!(!rules.holds(NODE, CLIENT), "one direction only");
        rules.remove(other);
        assert!(!rules.holds(CLIENT, NODE));
    }

    #[test]
    fn one_request_is_the_nth_since_the_rule_began() {
        let mut rules = Rules::default();
        rules.frame_sent(CLIENT, NODE, 0);
        let only = Some(OnlyRequest { api_key: 0, nth: 2 });
        rules.add(CLIENT, NODE, LinkRule::Delay { delay_ms: 5 }, only);
        let sent: Vec<_> = [0, 1, 0, 0].map(|key| rules.frame_sent(CLIENT, NODE, key).delay_us).into();
        assert_eq!(sent, vec![0, 0, 5000, 0]);
        assert_eq!(rules.delay_us(CLIENT, NODE), 0, "other bytes are not delayed");
    }
}
