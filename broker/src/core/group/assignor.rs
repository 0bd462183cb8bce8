//! The assignors that the broker offers to groups of the new protocol, by Kafka's names: `uniform` (the default) gives
//! everybody as many queues as it can and moves as few as it can; `range` gives each member neighbouring queues of
//! every topic, so that topics with as many queues go together. Pure, and alike for alike arguments.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Assignment, TopicId};

/// An assignor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Assignor {
    Uniform,
    Range,
}

/// A member as assignors see it.
#[derive(Debug, Clone)]
pub(super) struct Subscriber<'a> {
    pub(super) instance: Option<&'a str>,
    /// The topics that it wants and that exist.
    pub(super) topics: BTreeSet<TopicId>,
    /// What it was to own until now.
    pub(super) before: &'a Assignment,
}

impl Assignor {
    /// The assignor of a name.
    pub(super) fn from_name(name: &str) -> Option<Assignor> {
        [Assignor::Uniform, Assignor::Range].into_iter().find(|assignor| assignor.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// Divides the queues of the topics (by count) among the members.
    pub(super) fn assign(
        self,
        topics: &BTreeMap<TopicId, i32>,
        members: &BTreeMap<&str, Subscriber<'_>>,
    ) -> BTreeMap<String, Assignment> {
        match self {
            Assignor::Uniform => uniform(topics, members),
            Assignor::Range => range(topics, members),
        }
    }
}

fn range(topics: &BTreeMap<TopicId, i32>, members: &BTreeMap<&str, Subscriber<'_>>) -> BTreeMap<String, Assignment> {
    let mut assigned: BTreeMap<String, Assignment> =
        members.keys().map(|id| ((*id).to_owned(), Assignment::new())).collect();
    for (topic, count) in topics {
        let mut wanting: Vec<(&str, &str)> = members
            .iter()
            .filter(|(_, member)| member.topics.contains(topic))
            .map(|(id, member)| (member.instance.unwrap_or(id), *id))
            .collect();
        wanting.sort_unstable();
        let Some(each) = count.checked_div(wanting.len() as i32) else { continue };
        let mut first = 0;
        for (place, (_, id)) in wanting.iter().enumerate() {
            // The first ones take what cannot be divided.
            let share = each + i32::from((place as i32) < count % wanting.len() as i32);
            if share > 0
                && let Some(own) = assigned.get_mut(*id)
            {
                own.insert(*topic, (first..first + share).collect());
            }
            first += share;
        }
    }
    assigned
}

fn uniform(topics: &BTreeMap<TopicId, i32>, members: &BTreeMap<&str, Subscriber<'_>>) -> BTreeMap<String, Assignment> {
    let mut division = Division::new(members);
    let mut is_given: BTreeSet<(TopicId, i32)> = BTreeSet::new();
    let wanted = |topic: &TopicId| members.values().filter(|member| member.topics.contains(topic)).count();
    let total: usize = topics.iter().filter(|(topic, _)| wanted(topic) > 0).map(|(_, count)| *count as usize).sum();
    let fair = total.div_ceil(members.len().max(1));
    // What members had and may keep, up to a fair share, stays with them.
    for (id, member) in members {
        for (topic, partitions) in member.before {
            let count = topics.get(topic).copied().unwrap_or(0);
            for partition in partitions {
                let may_keep = *partition < count && member.topics.contains(topic);
                if may_keep && division.load(id) < fair && is_given.insert((*topic, *partition)) {
                    division.give(id, (*topic, *partition));
                }
            }
        }
    }
    // The rest goes to whoever has least, topics that few want first.
    let mut rest: Vec<(usize, TopicId, i32)> = Vec::new();
    for (topic, count) in topics {
        let wanting = wanted(topic);
        let left = (0..*count).filter(|partition| !is_given.contains(&(*topic, *partition)));
        rest.extend(left.map(|partition| (wanting, *topic, partition)));
    }
    rest.sort_unstable();
    for (_, topic, partition) in rest {
        if let Some(id) = division.least_loaded(&topic, members) {
            division.give(id, (topic, partition));
        }
    }
    division.level(members);
    division.into_assignments()
}

/// A division of queues that is being made.
struct Division<'a> {
    own: BTreeMap<&'a str, BTreeSet<(TopicId, i32)>>,
    by_load: BTreeSet<(usize, &'a str)>,
}

impl<'a> Division<'a> {
    fn new(members: &BTreeMap<&'a str, Subscriber<'_>>) -> Division<'a> {
        Division {
            own: members.keys().map(|id| (*id, BTreeSet::new())).collect(),
            by_load: members.keys().map(|id| (0, *id)).collect(),
        }
    }

    fn load(&self, id: &str) -> usize {
        self.own.get(id).map_or(0, BTreeSet::len)
    }

    fn give(&mut self, id: &'a str, queue: (TopicId, i32)) {
        let Some(own) = self.own.get_mut(id) else { return };
        self.by_load.remove(&(own.len(), id));
        own.insert(queue);
        self.by_load.insert((own.len(), id));
    }

    fn take(&mut self, id: &'a str, queue: (TopicId, i32)) {
        let Some(own) = self.own.get_mut(id) else { return };
        self.by_load.remove(&(own.len(), id));
        own.remove(&queue);
        self.by_load.insert((own.len(), id));
    }

    fn least_loaded(&self, topic: &TopicId, members: &BTreeMap<&'a str, Subscriber<'_>>) -> Option<&'a str> {
        let wants = |id: &&str| members.get(*id).is_some_and(|member| member.topics.contains(topic));
        self.by_load.iter().map(|(_, id)| *id).find(wants)
    }

    /// Moves queues from those who have most to those who have two fewer at least, while there are such.
    fn level(&mut self, members: &BTreeMap<&'a str, Subscriber<'_>>) {
        loop {
            let found = self.by_load.iter().rev().find_map(|(load, from)| {
                let own = self.own.get(from)?;
                own.iter().rev().find_map(|queue| {
                    let to = self.least_loaded(&queue.0, members)?;
                    (self.load(to) + 2 <= *load).then_some((*from, to, *queue))
                })
            });
            // Each move lowers the sum of the squares of the loads, so this ends.
            let Some((from, to, queue)) = found else { return };
            self.take(from, queue);
            self.give(to, queue);
        }
    }

    fn into_assignments(self) -> BTreeMap<String, Assignment> {
        let assignments = self.own.into_iter().map(|(id, queues)| {
            let mut assignment = Assignment::new();
            for (topic, partition) in queues {
                assignment.entry(topic).or_default().insert(partition);
            }
            (id.to_owned(), assignment)
        });
        assignments.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topic(number: u128) -> TopicId {
        TopicId(number)
    }

    fn loads(assigned: &BTreeMap<String, Assignment>) -> Vec<usize> {
        assigned.values().map(|own| own.values().map(BTreeSet::len).sum()).collect()
    }

    #[test]
    fn range_gives_neighbours_and_the_rest_to_the_first() {
        let none = Assignment::new();
        let topics = BTreeMap::from([(topic(1), 5), (topic(2), 2)]);
        let both = BTreeSet::from([topic(1), topic(2)]);
        let member = |topics: &BTreeSet<TopicId>| Subscriber { instance: None, topics: topics.clone(), before: &none };
        let members = BTreeMap::from([("a", member(&both)), ("b", member(&both)), ("c", member(&both))]);
        let assigned = Assignor::Range.assign(&topics, &members);
        assert_eq!(assigned["a"], Assignment::from([(topic(1), [0, 1].into()), (topic(2), [0].into())]));
        assert_eq!(assigned["b"], Assignment::from([(topic(1), [2, 3].into()), (topic(2), [1].into())]));
        assert_eq!(assigned["c"], Assignment::from([(topic(1), [4].into())]));
    }

    #[test]
    fn uniform_moves_only_what_a_newcomer_needs() {
        let none = Assignment::new();
        let topics = BTreeMap::from([(topic(1), 6)]);
        let wanted = BTreeSet::from([topic(1)]);
        let before = Assignment::from([(topic(1), (0..6).collect())]);
        let old = Subscriber { instance: None, topics: wanted.clone(), before: &before };
        let new = Subscriber { instance: None, topics: wanted, before: &none };
        let assigned = Assignor::Uniform.assign(&topics, &BTreeMap::from([("old", old), ("new", new)]));
        assert_eq!(loads(&assigned), [3, 3]);
        assert!(assigned["old"][&topic(1)].is_subset(&before[&topic(1)]));
    }

    proptest! {
        #[test]
        fn every_queue_that_somebody_wants_has_one_owner_who_wants_it(
            counts in proptest::collection::vec(0i32..7, 1..5),
            wishes in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 5), 1..7),
            kept in proptest::collection::vec((0usize..7, 0usize..5, 0i32..8), 0..30),
            is_range in any::<bool>(),
        ) {
            let topics: BTreeMap<TopicId, i32> =
                counts.iter().enumerate().map(|(number, count)| (topic(number as u128), *count)).collect();
            let names: Vec<String> = (0..wishes.len()).map(|number| format!("m{number}")).collect();
            let mut before = vec![Assignment::new(); names.len()];
            for (member, number, partition) in kept {
                if let Some(own) = before.get_mut(member) {
                    own.entry(topic(number as u128)).or_default().insert(partition);
                }
            }
            let mut members = BTreeMap::new();
            for (place, name) in names.iter().enumerate() {
                let topics = topics.keys().filter(|id| wishes[place][id.0 as usize]).copied().collect();
                members.insert(name.as_str(), Subscriber { instance: None, topics, before: &before[place] });
            }
            let assignor = if is_range { Assignor::Range } else { Assignor::Uniform };
            let assigned = assignor.assign(&topics, &members);
            let mut owners: BTreeMap<(TopicId, i32), &str> = BTreeMap::new();
            for (member, own) in &assigned {
                for (id, partitions) in own {
                    prop_assert!(members[member.as_str()].topics.contains(id) && !partitions.is_empty());
                    for partition in partitions {
                        prop_assert_eq!(owners.insert((*id, *partition), member), None);
                    }
                }
            }
            for (id, count) in &topics {
                let is_wanted = members.values().any(|member| member.topics.contains(id));
                let owned = owners.keys().filter(|(owned, _)| owned == id).count();
                prop_assert_eq!(owned, if is_wanted { *count as usize } else { 0 });
            }
            let alike = members.values().all(|member| member.topics.len() == topics.len());
            if alike && !is_range {
                let loads = loads(&assigned);
                prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{:?}", loads);
            }
        }
    }
}
