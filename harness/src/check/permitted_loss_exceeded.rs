//! permitted-loss-exceeded: an acknowledged value whose loss the flush setting permits, but that was older, when the power
//! failed, than the setting lets anything stay unsynced. Weighs only losses for which `flush=interval` is the excuse: it
//! alone gives a bound. A disk or a process that stood still may exceed any bound, so that then nothing is said.
//! Not here: the search for what is gone (`unseen`).

use super::case::Case;
use super::final_reads::FinalReads;
use super::order::{Fate, Send};
use super::unseen;
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Flush};

/// Faults beside which no bound on the time until a sync holds, or after which another excuse than the flush may apply.
const EXCUSES: [&str; 7] =
    ["pause", "disk-slow", "disk-full", "disk-write-error", "disk-read-error", "sync-error", "bit-flip"];

pub(super) fn check(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    let mut found = Vec::new();
    for (queue, order) in &case.order.queues {
        let topic = case.topic(*queue);
        let (Flush::Interval, Some(bound_ms)) = (topic.flush, topic.unsynced_ms_maximum) else { continue };
        let finals = FinalReads::of(case, *queue, order);
        for send in order.sends.iter().filter(|send| send.fate == Fate::Acknowledged) {
            let Some((lost_us, age_us)) = age_at_loss(case, send).filter(|(_, age_us)| *age_us > bound_ms * 1_000)
            else {
                continue;
            };
            let Some((count, (value, _))) = unseen::missing(case, *queue, order, &finals, send) else { continue };
            // What no setting excuses is a violation already.
            if case.loss_allowance(Anomaly::Unseen, *queue, order, send).is_none() {
                continue;
            }
            let (record, name) = (case.record(value), case.name(*queue));
            let text = format!("{name} acknowledged {record} {} ms before the power failed", age_us / 1_000);
            found.push(Occurrence {
                anomaly: Anomaly::PermittedLossExceeded,
                count,
                allowed: None,
                explanation: format!(
                    "{text}, and it is lost, though flush=interval leaves nothing unsynced for more than {bound_ms} ms."
                ),
                evidence: vec![
                    Evidence::operation(send.operation, text),
                    Evidence::mark(format!("power failed after {} ms, the first time since", lost_us / 1_000)),
                ],
            });
        }
    }
    Ok(found)
}

/// When the power failed for the first time since the acknowledgement, and how long that was after it. Later losses only
/// find the records older. Nothing where a fault may have kept the node from its syncs.
fn age_at_loss(case: &Case<'_>, send: &Send) -> Option<(u64, u64)> {
    let lost_us = case.first_strike("power-loss", send.invoked_us)?;
    let excused = case.struck(0, lost_us).iter().any(|class| EXCUSES.contains(class));
    // The loss may also be a later one's, with an excuse of its own.
    let is_told_apart = !case.struck(lost_us, u64::MAX).contains(&"bit-flip");
    (!excused && is_told_apart).then(|| (lost_us, lost_us.saturating_sub(send.completed_us)))
}
