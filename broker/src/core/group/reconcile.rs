//! The way of one member of the new protocol from what it owns to its target: it gives up first, and gets what is free.
//! Pure; the states are those of KIP-848.

use super::consumer::{ConsumerGroup, Member};
use super::record::{Assignment, CurrentValue, MemberState, TopicId};

impl ConsumerGroup {
    /// What a member owns from now on, given what it says that it owns (nothing is: as before).
    pub(super) fn reconcile(&self, member: &Member, owned: Option<&Assignment>) -> CurrentValue {
        let current = &member.current;
        match current.state {
            MemberState::Stable if current.epoch == self.target_epoch => current.clone(),
            MemberState::UnrevokedPartitions if owns_any(owned, &current.revoking) => current.clone(),
            MemberState::Stable | MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {
                self.next_step(member, owned)
            }
        }
    }

    fn next_step(&self, member: &Member, owned: Option<&Assignment>) -> CurrentValue {
        let current = &member.current;
        let mut kept = Assignment::new();
        let mut revoking = Assignment::new();
        for (topic, partition) in each(&current.assigned) {
            let is_wanted = member.target.get(&topic).is_some_and(|wanted| wanted.contains(&partition));
            let place = if is_wanted { &mut kept } else { &mut revoking };
            place.entry(topic).or_default().insert(partition);
        }
        if !revoking.is_empty() && owns_any(owned, &revoking) {
            return CurrentValue {
                epoch: current.epoch,
                previous_epoch: current.epoch,
                state: MemberState::UnrevokedPartitions,
                assigned: kept,
                revoking,
            };
        }
        let mut is_waiting = false;
        let mut assigned = kept.clone();
        for (topic, partition) in each(&member.target) {
            if kept.get(&topic).is_some_and(|kept| kept.contains(&partition)) {
                continue;
            }
            // A queue that the member itself gives up with this step counts as free from the next one on.
            match self.owner(topic, partition) {
                None => {
                    assigned.entry(topic).or_default().insert(partition);
                }
                Some(_) => is_waiting = true,
            }
        }
        let state = if is_waiting { MemberState::UnreleasedPartitions } else { MemberState::Stable };
        let epoch = self.target_epoch;
        let previous_epoch = if epoch == current.epoch { current.previous_epoch } else { current.epoch };
        CurrentValue { epoch, previous_epoch, state, assigned, revoking: Assignment::new() }
    }
}

/// Whether the member says, or does not deny, that it owns any of these.
fn owns_any(owned: Option<&Assignment>, these: &Assignment) -> bool {
    let Some(owned) = owned else { return !these.is_empty() };
    each(these).any(|(topic, partition)| owned.get(&topic).is_some_and(|owned| owned.contains(&partition)))
}

fn each(assignment: &Assignment) -> impl Iterator<Item = (TopicId, i32)> + '_ {
    assignment.iter().flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
}
