//! What sampling adds for clusters and groups: partitions, crashes of several nodes, the core that is healed for the
//! liveness phase, and the members of consumer groups. Draws are named as in `sample`, which is where to start.

use std::collections::BTreeMap;

use super::sample::{Sampler, share};
use super::{
    Client, ClientAction, DirectedLink, Endpoint, Fault, FaultAction, PlannedOperation, Role, Shape, Topic, Trigger,
    World,
};

/// Time between the starts of nodes that crashed together, in milliseconds at most.
const STAGGER_MS_MAXIMUM: u64 = 1_500;

impl Sampler<'_> {
    /// The nodes in an order of their own, drawn for the entity.
    fn shuffled(&self, label: &'static str, entity: u64, nodes: u32) -> Vec<u32> {
        let mut left: Vec<u32> = (0..nodes).collect();
        let mut shuffled = Vec::new();
        while !left.is_empty() {
            let index = self.draws.range(label, entity, 0, left.len() as u64 - 1) as usize;
            shuffled.push(left.remove(index));
        }
        shuffled
    }

    /// A partition of the nodes; none where there are too few of them.
    pub(super) fn partition(&self, class: &str, entity: u64, world: &World, duration_ms: u64) -> Option<FaultAction> {
        let nodes = world.nodes;
        let order = self.shuffled("partition-order", entity, nodes);
        let with_clients = self.draws.chance("partition-clients", entity, 0.3);
        let reset_after_ms = self.draws.range("reset-after", entity, 0, 600);
        let half = order.len() / 2;
        let (shape, mut cut) = match class {
            _ if nodes < 2 => return None,
            "isolate" => (Shape::Isolate, both_ways(&order[..1], &order[1..])),
            "halves" if world.joining > 0 && self.draws.chance("newcomers-apart", entity, 0.5) => {
                let (one, other) = newcomers_apart(&order, world.founders());
                (Shape::Halves, both_ways(&one, &other))
            }
            "halves" => (Shape::Halves, both_ways(&order[..half], &order[half..])),
            "bridge" if nodes >= 3 => {
                let others = &order[1..];
                (Shape::Bridge, both_ways(&others[..others.len() / 2], &others[others.len() / 2..]))
            }
            "majority-ring" if nodes >= 3 => (Shape::MajorityRing, ring(&order)),
            "one-way" => {
                let toward = self.draws.chance("one-way-toward", entity, 0.5);
                let links = order[1..].iter().map(|other| if toward { (*other, order[0]) } else { (order[0], *other) });
                (Shape::OneWay, links.map(|(from, to)| between(from, to)).collect())
            }
            _ => return None,
        };
        if with_clients && shape == Shape::Isolate {
            let node = Endpoint::Node(order[0]);
            cut.push(DirectedLink { from: node, to: Endpoint::AnyClient });
            cut.push(DirectedLink { from: Endpoint::AnyClient, to: node });
        }
        Some(FaultAction::Partition { shape, cut, reset_after_ms, duration_ms })
    }

    /// When a partition begins.
    pub(super) fn split_trigger(&self, entity: u64, world: &World, at_ms: u64) -> Trigger {
        let ranges = &self.scenario.faults;
        if !self.draws.chance("split-at-point", entity, ranges.split_at_point) {
            return Trigger::At { at_ms };
        }
        Trigger::Point {
            name: self.draws.pick("split-point", entity, &ranges.split_points).clone(),
            node: self.draws.range("split-node", entity, 0, u64::from(world.founders()) - 1) as u32,
            occurrence: self.draws.range("split-occurrence", entity, 1, 2) as u32,
            armed_ms: 0,
        }
    }

    /// A node that comes or goes. Those that come do so early, so that the cluster has to live with them.
    pub(super) fn membership(&self, class: &str, entity: u64, world: &World) -> Vec<Fault> {
        let index = entity as u32;
        let first = entity - u64::from(index);
        let (from_ms, to_ms) = (world.safety_ms / 20, world.safety_ms / 2);
        let (at_ms, action) = if class == "add-node" {
            let are_together = self.draws.chance("added-together", first, 0.5);
            let of = if are_together { first } else { entity };
            let at_ms = self.draws.range("fault-time", of, from_ms, to_ms);
            (at_ms, FaultAction::AddNode { node: world.founders() + index })
        } else {
            let node = self.draws.range("removed-node", entity, 0, u64::from(world.nodes) - 1) as u32;
            (self.draws.range("fault-time", entity, from_ms, to_ms * 3 / 2), FaultAction::RemoveNode { node })
        };
        if action.nodes().iter().any(|node| *node >= world.nodes) {
            return Vec::new();
        }
        let salt = self.draws.draw("fault-salt", entity) >> 1;
        vec![Fault { trigger: Trigger::At { at_ms }, action, salt }]
    }

    /// A crash of several nodes at once, `first` among them.
    pub(super) fn crash_of_set(
        &self,
        class: &str,
        entity: u64,
        first: u32,
        nodes: u32,
        restart_after_ms: u64,
    ) -> FaultAction {
        let mut set = self.shuffled("crash-order", entity, nodes);
        set.retain(|node| *node != first);
        set.insert(0, first);
        if class.ends_with("minority") {
            let most = u64::from(nodes.saturating_sub(1) / 2).max(1);
            set.truncate(self.draws.range("crash-count", entity, 1, most) as usize);
        }
        let stagger_ms = self.draws.range("crash-stagger", entity, 0, STAGGER_MS_MAXIMUM);
        match class.starts_with("power-loss") {
            true => FaultAction::PowerLossSet { nodes: set, restart_after_ms, stagger_ms },
            false => FaultAction::KillSet { nodes: set, restart_after_ms, stagger_ms },
        }
    }

    /// Clean restarts of all nodes, one after the other.
    pub(super) fn roll(&self, entity: u64, world: &World, at_ms: u64, restart_after_ms: u64) -> Vec<Fault> {
        let gap_ms = restart_after_ms + self.draws.range("roll-gap", entity, 200, 1_500);
        let order = self.shuffled("roll-order", entity, world.nodes);
        let restarts = order.into_iter().enumerate().map(|(index, node)| Fault {
            trigger: Trigger::At { at_ms: at_ms + gap_ms * index as u64 },
            action: FaultAction::Restart { node, restart_after_ms },
            salt: self.draws.draw("fault-salt", entity) >> 1,
        });
        restarts.collect()
    }

    /// The nodes that are healed for the liveness phase; empty for all of them. A core suffices if, whatever the faults
    /// did, it has a majority, enough replicas of each topic for acks=all, and one that holds all that was acknowledged.
    pub(super) fn core(
        &self,
        world: &World,
        topics: &[Topic],
        settings: &BTreeMap<String, String>,
        faults: &[Fault],
    ) -> Vec<u32> {
        if world.nodes < 3 || !self.draws.chance("core-alone", 0, self.scenario.world.core_alone) {
            return Vec::new();
        }
        let takes_from_core = |action: &FaultAction| {
            matches!(action, FaultAction::BitFlip { .. } | FaultAction::AddNode { .. } | FaultAction::RemoveNode { .. })
        };
        let spare = topics.iter().map(|topic| spare_replicas(topic, settings)).min().unwrap_or(0);
        let minority = (world.nodes - 1) / 2;
        let most = spare.min(minority);
        if most == 0 || faults.iter().any(|fault| takes_from_core(&fault.action)) {
            return Vec::new();
        }
        let left_out = self.draws.range("left-out", 0, 1, u64::from(most)) as usize;
        let mut core = self.shuffled("core-order", 0, world.nodes).split_off(left_out);
        core.sort_unstable();
        core
    }

    /// The members of the scenario's groups; their numbers begin behind the other clients'.
    pub(super) fn members(&self, first_id: u64, topics: &[Topic], world: &World) -> Vec<Client> {
        let ranges = &self.scenario.groups;
        let groups = self.count("groups", 0, ranges.count);
        let sizes: Vec<u64> = (0..groups).map(|group| self.count("group-members", group, ranges.members)).collect();
        let total: u64 = sizes.iter().sum();
        let crashes = self.count("member-crashes", 0, ranges.crashes);
        let leaves = self.count("member-leaves", 0, ranges.leaves);
        let mut members = Vec::new();
        for (group, size) in sizes.iter().enumerate() {
            let group = group as u64;
            let protocol = *self.draws.pick("group-protocol", group, &ranges.protocol);
            let commit = *self.draws.pick("group-commit", group, &ranges.commit);
            for _ in 0..*size {
                let number = members.len() as u64;
                let id = first_id + number;
                let load = &self.scenario.workload;
                let role = Role::Member {
                    group: group as u32,
                    protocol,
                    topics: (0..topics.len() as u32).collect(),
                    is_static: self.draws.chance("static-member", id, ranges.is_static),
                    commit,
                    session_timeout_ms: self.count("session-timeout", id, ranges.session_timeout_ms),
                    request_timeout_ms: self.count("request-timeout", id, load.request_timeout_ms),
                    fetch_max_bytes: self.count("fetch-max-bytes", id, load.fetch_max_bytes) as u32,
                };
                let kinds = [
                    ("member-polls", self.count("member-polls", id, ranges.polls)),
                    ("member-crashes", share(crashes, total, number)),
                    ("member-leaves", share(leaves, total, number)),
                ];
                members.push(Client { role, operations: self.member_operations(id, kinds, world) });
            }
        }
        members
    }

    fn member_operations(&self, id: u64, kinds: [(&'static str, u64); 3], world: &World) -> Vec<PlannedOperation> {
        let mut operations = Vec::new();
        for (kind, (label, count)) in kinds.into_iter().enumerate() {
            for index in 0..count {
                let entity = id << 32 | 1 << 31 | (kind as u64) << 28 | index;
                let action = match label {
                    "member-polls" => ClientAction::Poll {
                        max_wait_ms: self.draws.range("max-wait", entity, 0, 200) as u32,
                        min_bytes: 1,
                    },
                    "member-crashes" => ClientAction::Crash {
                        in_poll: self.draws.chance("crash-in-poll", entity, 0.7),
                        down_ms: self.draws.range("member-down", entity, 50, 2_500),
                    },
                    _ => ClientAction::Leave,
                };
                operations.push(PlannedOperation { at_ms: self.time(entity, world), action });
            }
        }
        operations.sort_by_key(|operation| operation.at_ms);
        operations
    }
}

/// How many nodes a topic can do without: enough replicas are left for acks=all, and one of those that are in sync or
/// eligible, of which there are never fewer than the least in-sync replicas.
fn spare_replicas(topic: &Topic, settings: &BTreeMap<String, String>) -> u32 {
    let setting = |of_topic: &str, of_node: &str| topic.config.get(of_topic).or_else(|| settings.get(of_node));
    let number = |value: Option<&String>| value.and_then(|value| value.parse::<u32>().ok());
    let isr_min = number(setting("min.insync.replicas", "min-insync-replicas")).unwrap_or(1).min(topic.replication);
    let is_durable = setting("mqassay.flush", "flush").is_none_or(|flush| flush == "ack");
    let has_failover = setting("mqassay.failover", "failover").is_none_or(|failover| failover != "false");
    if !is_durable || !has_failover || topic.auto_created {
        return 0;
    }
    topic.replication.saturating_sub(isr_min).min(isr_min.saturating_sub(1))
}

/// Nodes that may be added are apart with one of those that were there at first: a rack that one link connects.
fn newcomers_apart(order: &[u32], founders: u32) -> (Vec<u32>, Vec<u32>) {
    let first = order.iter().find(|node| **node < founders).copied();
    order.iter().partition(|node| **node >= founders || Some(**node) == first)
}

fn between(from: u32, to: u32) -> DirectedLink {
    DirectedLink { from: Endpoint::Node(from), to: Endpoint::Node(to) }
}

fn both_ways(one: &[u32], other: &[u32]) -> Vec<DirectedLink> {
    let pairs = one.iter().flat_map(|from| other.iter().map(move |to| (*from, *to)));
    pairs.flat_map(|(from, to)| [between(from, to), between(to, from)]).collect()
}

/// Each node keeps its neighbours in a ring, as many as make a majority with itself; with three nodes, where both
/// neighbours are everybody, one link alone is cut.
fn ring(order: &[u32]) -> Vec<DirectedLink> {
    let count = order.len();
    if count == 3 {
        return both_ways(&order[..1], &order[1..2]);
    }
    let reach = (count / 2).div_ceil(2);
    let mut cut = Vec::new();
    for (one, from) in order.iter().enumerate() {
        for (other, to) in order.iter().enumerate() {
            let apart = one.abs_diff(other).min(count - one.abs_diff(other));
            if apart > reach {
                cut.push(between(*from, *to));
            }
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::sample::sample;
    use super::super::scenario::{Scenario, Span};
    use super::*;

    fn scenario(extra: &str) -> Scenario {
        let text = format!(
            "name = \"c\"\ntitle = \"t\"\n[world]\nnodes = 5\ncore_alone = 1.0\ndown_at_once = 2\n[topics]\nreplication = 3\nauto_created = 0.0\n\
             [topics.config]\n\"min.insync.replicas\" = [\"2\"]\n[workload]\nproducers = 1\n{extra}"
        );
        Scenario::parse("c.toml", &text).unwrap()
    }

    #[test]
    fn a_partition_cuts_what_its_shape_says() {
        let text = "[faults]\nisolate = 1\nhalves = 1\nmajority-ring = 1\nbridge = 1\none-way = 1\n";
        let plan = sample(&scenario(text), 3, None);
        let cuts: BTreeMap<&str, usize> = plan
            .faults
            .iter()
            .map(|fault| match &fault.action {
                FaultAction::Partition { shape, cut, .. } => {
                    let nodes = cut
                        .iter()
                        .filter(|link| matches!((link.from, link.to), (Endpoint::Node(_), Endpoint::Node(_))));
                    (shape.class(), nodes.count())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [("bridge", 8), ("halves", 12), ("isolate", 8), ("majority-ring", 10), ("one-way", 4)];
        assert_eq!(cuts, expected.into());
    }

    #[test]
    fn in_a_majority_ring_each_node_sees_another_majority() {
        for nodes in [5, 7] {
            let order: Vec<u32> = (0..nodes).collect();
            let cut = ring(&order);
            let seen: BTreeSet<Vec<u32>> = order
                .iter()
                .map(|node| order.iter().copied().filter(|other| !cut.contains(&between(*node, *other))).collect())
                .collect();
            assert_eq!(seen.len(), nodes as usize);
            assert!(seen.iter().all(|majority| majority.len() as u32 > nodes / 2 && (majority.len() as u32) < nodes));
        }
    }

    #[test]
    fn a_core_has_a_majority_and_leaves_out_no_more_than_each_topic_can_spare() {
        let plan = sample(&scenario(""), 1, None);
        assert_eq!(plan.world.core.len(), 4, "three replicas, two of them in sync, can do without one");
        let mut least = scenario("");
        least.topics.config.insert("min.insync.replicas".to_owned(), vec!["1".to_owned()]);
        assert!(sample(&least, 1, None).world.core.is_empty(), "the one in sync may be the one left out");
    }

    #[test]
    fn nodes_come_once_each_and_topics_have_their_replicas_on_those_that_were_there() {
        let text =
            "[faults]\nadd-node = [1, 4]\nremove-node = 1\nhalves = 2\nsplit-at-point = 1.0\nsplit-points = [\"p\"]\n";
        let text = text.to_owned() + "kill = 1\n";
        let mut scenario = scenario(&text);
        (scenario.world.nodes, scenario.world.joining) = (Span::Fixed(2), Span::Between([1, 3]));
        for seed in 1..20 {
            let plan = sample(&scenario, seed, None);
            assert_eq!(plan.world.founders(), 2);
            assert_eq!(plan.topics[0].replication, 2);
            let added = plan.faults.iter().filter(|fault| matches!(fault.action, FaultAction::AddNode { .. }));
            let mut added: Vec<u32> = added.flat_map(|fault| fault.action.nodes()).collect();
            added.sort_unstable();
            assert_eq!(added, (2..2 + added.len() as u32).collect::<Vec<u32>>(), "in order, each once");
            assert!((1..=plan.world.joining as usize).contains(&added.len()));
            let is_founder = |fault: &Fault| matches!(fault.trigger, Trigger::Point { node, .. } if node < 2);
            let mut splits = plan.faults.iter().filter(|fault| fault.action.class() == "halves");
            assert!(splits.all(is_founder));
            assert!(plan.world.core.is_empty(), "who is there at the end is not known beforehand");
        }
    }

    #[test]
    fn members_of_a_group_agree_on_protocol_and_commit() {
        let text = "[groups]\ncount = 2\nmembers = 3\nprotocol = [\"classic\", \"consumer\"]\ncommit = [\"before\", \"after\", \"automatic\"]\ncrashes = [2, 4]\nleaves = 2\n";
        for seed in 1..20 {
            let plan = sample(&scenario(text), seed, None);
            let mut of_groups = BTreeMap::new();
            for client in &plan.clients {
                let Role::Member { group, protocol, commit, .. } = &client.role else { continue };
                let settings = format!("{protocol:?} {commit:?}");
                assert_eq!(of_groups.entry(*group).or_insert(settings.clone()), &settings);
            }
            assert_eq!(of_groups.len(), 2);
            let operations = plan.clients.iter().flat_map(|client| &client.operations);
            let crashes = operations.filter(|operation| matches!(operation.action, ClientAction::Crash { .. })).count();
            assert!((2..=4).contains(&crashes), "{crashes} crashes");
        }
    }
}
