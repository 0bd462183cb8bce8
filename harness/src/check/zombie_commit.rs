//! zombie-commit: a member commits under a generation that the group had left behind when it was called. Only the classic
//! protocol has generations of the group; members of the consumer protocol have epochs of their own, and what a zombie
//! does there is told by `dual_ownership`.

use super::case::Case;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::Anomaly;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (group, view) in case.groups().iter().filter(|(group, _)| case.context.is_classic(**group)) {
        for (queue, commits) in &view.commits {
            for commit in commits.iter().filter(|commit| commit.completed_us.is_some()) {
                let known = view.generations.iter().filter(|(at_us, _)| *at_us < commit.invoked_us);
                let Some(newest) = known.map(|(_, generation)| *generation).max() else { continue };
                if commit.generation >= newest {
                    continue;
                }
                let name = case.name(*queue);
                let facts = case.topic_facts(*queue, 0, u64::MAX);
                found.push(Occurrence {
                    anomaly: Anomaly::ZombieCommit,
                    count: 1,
                    allowed: case.matrix.allowance(Anomaly::ZombieCommit, &facts),
                    explanation: format!(
                        "Client {} committed offset {} of {name} under generation {} of group {group}, which was at generation {newest}.",
                        commit.client, commit.offset, commit.generation
                    ),
                    evidence: vec![Evidence::operation(
                        commit.operation,
                        format!("accepted under generation {}, after generation {newest} had begun", commit.generation),
                    )],
                });
            }
        }
    }
    Ok(found)
}
