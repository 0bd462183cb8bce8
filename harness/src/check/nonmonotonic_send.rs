//! nonmonotonic-send: two sends of one producer to a queue lie in reverse order.
//! The one that lies too late must be acknowledged: a send of unknown outcome may take effect at any later time.
//! A send's place is the lowest offset that anybody saw of it; further copies are the business of `duplicate`.

use super::case::Case;
use super::order::{Fate, QueueOrder, Send};
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};
use crate::history::{Queue, Value};

/// Requests in flight of a client whose settings are not known.
const IN_FLIGHT_ASSUMED: u32 = 5;

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        // Sends are sorted by value, so each producer's are together; from its last to its first, the lowest place so far.
        let mut lowest: Option<(u64, &Send)> = None;
        for send in order.sends.iter().rev() {
            let Some(place) = send.lowest_offset else { continue };
            let same_producer =
                lowest.filter(|(_, later)| Value(later.first_value).client() == Value(send.first_value).client());
            match same_producer {
                Some((later_place, later)) if later_place < place => {
                    if send.fate == Fate::Acknowledged {
                        found.push(occurrence(case, *queue, order, (send, place), (later, later_place)));
                    }
                }
                Some(_) | None => lowest = Some((place, send)),
            }
        }
    }
    Ok(found)
}

fn occurrence(
    case: &Case<'_>,
    queue: Queue,
    order: &QueueOrder,
    (earlier, earlier_place): (&Send, u64),
    (later, later_place): (&Send, u64),
) -> Occurrence {
    let client = Value(earlier.first_value).client();
    let facts = Facts {
        acks: Some(earlier.acks),
        idempotent: Some(earlier.idempotent),
        in_flight: Some(case.context.in_flight.get(&client).copied().unwrap_or(IN_FLIGHT_ASSUMED)),
        retried: Some(earlier.attempts > 1 || later.attempts > 1),
        ..case.consequence_facts(queue, order, earlier.invoked_us.min(later.invoked_us), u64::MAX)
    };
    let (record, successor) = (case.record(earlier.first_value), case.record(later.first_value));
    let name = case.name(queue);
    Occurrence {
        anomaly: Anomaly::NonmonotonicSend,
        count: 1,
        allowed: case.matrix.allowance(Anomaly::NonmonotonicSend, &facts),
        explanation: format!(
            "{record} was sent to {name} before {successor}, yet lies behind it: offsets {earlier_place} and {later_place}."
        ),
        evidence: vec![
            Evidence::operation(earlier.operation, format!("sent first, lies at offset {earlier_place}")),
            Evidence::operation(later.operation, format!("sent later, lies at offset {later_place}")),
        ],
    }
}
