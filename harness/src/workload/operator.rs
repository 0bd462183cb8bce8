//! What the operator of a cluster does to take a node out of it: moves its replicas to other nodes, stops it for good once
//! it holds none, and unregisters it. Start at `remove_node`. Not here: the machines (`sim::node::Operator`), and when.

use std::time::Duration;

use super::Context;
use crate::driver::cluster::Cluster;
use crate::driver::errors::CallError;
use crate::driver::membership::{Held, Survey};
use crate::driver::{Dial, Timer};

/// Time between two looks at how far a removal is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How a removal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The node is out.
    Done,
    /// There was no other node to move a replica to, so the node stays.
    NoPlace,
}

/// What is left to do before a node can go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Left {
    /// Partitions are to move, or are moving.
    Moves(Vec<Held>),
    /// Nobody is there to take some of them.
    NoPlace,
    /// It holds nothing.
    Nothing,
}

/// Takes a node out. In the safety phase it tries until it succeeds; once the liveness phase has begun, for `bound` at
/// most, and a node whose replicas have no place to go to stays. `retire` stops the node for good.
pub async fn remove_node<D: Dial, T: Timer>(
    context: &Context<D, T>,
    node: i32,
    retire: impl Fn(),
    bound: Duration,
    request_timeout: Duration,
) -> Result<Removal, String> {
    let cluster = context.cluster(request_timeout);
    let (mut is_retired, mut deadline) = (false, None);
    loop {
        let is_liveness = context.phase.is_live();
        if is_liveness && deadline.is_none() {
            deadline = Some(cluster.after(bound));
        }
        let told = match look(&cluster, node, is_retired).await {
            Ok(Left::Nothing) if is_retired => return Ok(Removal::Done),
            Ok(Left::Nothing) => {
                retire();
                is_retired = true;
                "it was stopped and is still registered".to_owned()
            }
            Ok(Left::NoPlace) if is_liveness && !is_retired => return Ok(Removal::NoPlace),
            Ok(Left::NoPlace) => "no other node can take its replicas".to_owned(),
            Ok(Left::Moves(_)) => "its replicas have not moved away".to_owned(),
            Err(error) => error.to_string(),
        };
        let next = cluster.after(LOOK_EVERY);
        if deadline.is_some_and(|deadline| next >= deadline) {
            return Err(format!("node {node} could not be removed: {told}"));
        }
        cluster.timer().sleep_until(next).await;
    }
}

/// Looks how far a removal is and does what is next; a retired node that holds nothing is unregistered.
async fn look<D: Dial, T: Timer>(cluster: &Cluster<D, T>, node: i32, is_retired: bool) -> Result<Left, CallError> {
    let deadline = cluster.after(cluster.options().request_timeout * 4);
    let connection = cluster.in_step(deadline).await?;
    let left = left(&cluster.survey(&connection, deadline).await?, node);
    match &left {
        Left::Moves(moves) if !moves.is_empty() => cluster.reassign(&connection, moves, deadline).await?,
        Left::Nothing if is_retired => cluster.unregister(&connection, node, deadline).await?,
        Left::Moves(_) | Left::NoPlace | Left::Nothing => {}
    }
    Ok(left)
}

/// What a survey says is left to do. Queues of one log have the same replicas, and so the same place to go to.
fn left(survey: &Survey, node: i32) -> Left {
    let mut moves = Vec::new();
    let mut held = survey.partitions.iter().filter(|held| held.replicas.contains(&node)).peekable();
    if held.peek().is_none() {
        return Left::Nothing;
    }
    for Held { partition, replicas } in held {
        if survey.moving.contains(partition) {
            continue;
        }
        let is_free = |other: &i32| *other != node && !replicas.contains(other);
        let free: Vec<i32> = survey.nodes.iter().copied().filter(is_free).collect();
        if free.is_empty() {
            return Left::NoPlace;
        }
        let place = free[replicas.iter().sum::<i32>().unsigned_abs() as usize % free.len()];
        let replicas = replicas.iter().map(|id| if *id == node { place } else { *id }).collect();
        moves.push(Held { partition: partition.clone(), replicas });
    }
    Left::Moves(moves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::TopicPartition;

    fn held(partition: i32, replicas: &[i32]) -> Held {
        let partition = TopicPartition { topic: "t".to_owned(), partition };
        Held { partition, replicas: replicas.to_vec() }
    }

    #[test]
    fn replicas_move_to_a_node_that_has_none_and_keep_their_place_in_the_order() {
        let partitions = vec![held(0, &[2, 0, 1]), held(1, &[0, 1, 3]), held(2, &[3, 2, 0])];
        let mut survey = Survey { nodes: vec![0, 1, 2, 3], partitions, moving: Vec::new() };
        assert_eq!(left(&survey, 2), Left::Moves(vec![held(0, &[3, 0, 1]), held(2, &[3, 1, 0])]));
        survey.moving = vec![held(0, &[]).partition, held(2, &[]).partition];
        assert_eq!(left(&survey, 2), Left::Moves(Vec::new()), "what moves already is left alone");
        assert_eq!(left(&survey, 4), Left::Nothing);
        survey.nodes = vec![0, 1, 2];
        survey.moving.clear();
        assert_eq!(left(&survey, 2), Left::NoPlace);
    }
}
