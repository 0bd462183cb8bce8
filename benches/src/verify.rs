//! The streaming check of a measured run: every acknowledged record is read exactly once, whole, in its producer's order,
//! at the offset that was acknowledged. Memory grows with queues and with what is wrong, not with the records.
//! `Ledger` is the producers' side, `Reader` the consumer's, `judge` compares them. The anomalies' names are the judge's.

use std::collections::{BTreeMap, BTreeSet};

use mqassay_harness::artifact::VerdictKind;

use crate::over_time::windows::AckTimes;
use crate::payload::{self, Stamp};

/// What one producer was told about its records.
#[derive(Debug)]
pub struct Ledger {
    client: u32,
    queues: Vec<Tally>,
    /// How long acknowledgements take, where that is asked for.
    pub(crate) times: Option<AckTimes>,
}

#[derive(Debug, Clone, Default)]
struct Tally {
    sent: u64,
    acknowledged: u64,
    /// Sent, and not acknowledged: refused or of unknown outcome.
    unsettled: BTreeSet<u64>,
    digest: u64,
    offset_is_missing: bool,
}

impl Ledger {
    /// An empty ledger of producer `client` over `queues` queues.
    pub fn new(client: u32, queues: u32) -> Ledger {
        Ledger { client, queues: vec![Tally::default(); queues as usize], times: None }
    }

    /// Notes a record handed to the client library, and gives its sequence number in its queue.
    pub fn send(&mut self, queue: u32) -> u64 {
        let tally = &mut self.queues[queue as usize];
        tally.sent += 1;
        let sequence = tally.sent - 1;
        if let Some(times) = &mut self.times {
            times.sent(queue, sequence);
        }
        sequence
    }

    /// Takes back the last `send` to this queue: the client library did not take the record.
    pub fn take_back(&mut self, queue: u32) {
        self.queues[queue as usize].sent -= 1;
        if let Some(times) = &mut self.times {
            times.take_back(queue);
        }
    }

    /// Notes an acknowledgement; a negative offset means that the client was not told it.
    pub fn acknowledge(&mut self, queue: u32, sequence: u64, offset: i64) {
        if let Some(times) = &mut self.times {
            times.acknowledged(queue, sequence);
        }
        let tally = &mut self.queues[queue as usize];
        tally.acknowledged += 1;
        match u64::try_from(offset) {
            Ok(offset) => tally.digest = tally.digest.wrapping_add(fingerprint(self.client, sequence, offset)),
            Err(_) => tally.offset_is_missing = true,
        }
    }

    /// Notes that a record was not acknowledged.
    pub fn fail(&mut self, queue: u32, sequence: u64) {
        self.queues[queue as usize].unsettled.insert(sequence);
        if let Some(times) = &mut self.times {
            times.failed(queue, sequence);
        }
    }

    /// Records acknowledged in one queue.
    pub fn acknowledged_in(&self, queue: u32) -> u64 {
        self.queues[queue as usize].acknowledged
    }

    /// Records acknowledged in all queues.
    pub fn acknowledged(&self) -> u64 {
        self.queues.iter().map(|tally| tally.acknowledged).sum()
    }

    /// Records not acknowledged in all queues.
    pub fn unsettled(&self) -> u64 {
        self.queues.iter().map(|tally| tally.unsettled.len() as u64).sum()
    }
}

/// What the consumer saw.
#[derive(Debug)]
pub struct Reader {
    run: u64,
    record_bytes: usize,
    queues: Vec<QueueRead>,
    anomalies: BTreeMap<&'static str, u64>,
    consumed: u64,
}

#[derive(Debug, Clone)]
struct QueueRead {
    offset_next: i64,
    clients: Vec<ClientRead>,
    digest: u64,
}

#[derive(Debug, Clone, Default)]
struct ClientRead {
    sequence_next: u64,
    /// Sequence numbers jumped over: first to one past the last.
    gaps: BTreeMap<u64, u64>,
}

impl Reader {
    /// A reader of a fresh topic.
    pub fn new(run: u64, record_bytes: usize, queues: u32, producers: u32) -> Reader {
        let queue = QueueRead { offset_next: 0, clients: vec![ClientRead::default(); producers as usize], digest: 0 };
        Reader { run, record_bytes, queues: vec![queue; queues as usize], anomalies: BTreeMap::new(), consumed: 0 }
    }

    /// Takes one record as it was polled; gives its stamp, none where the record is corrupt.
    pub fn read(&mut self, queue: u32, offset: i64, bytes: &[u8]) -> Option<Stamp> {
        self.consumed += 1;
        let state = &mut self.queues[queue as usize];
        match offset.cmp(&state.offset_next) {
            std::cmp::Ordering::Less => count(&mut self.anomalies, "nonmonotonic-poll", 1),
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => count(&mut self.anomalies, "poll-skip", 1),
        }
        state.offset_next = state.offset_next.max(offset + 1);
        let stamp = payload::read(self.run, self.record_bytes, bytes)
            .filter(|stamp| stamp.queue == queue && (stamp.client as usize) < state.clients.len());
        let Some(stamp) = stamp else {
            count(&mut self.anomalies, "corrupt-payload", 1);
            return None;
        };
        if let Ok(offset) = u64::try_from(offset) {
            state.digest = state.digest.wrapping_add(fingerprint(stamp.client, stamp.sequence, offset));
        }
        if let Some(anomaly) = state.clients[stamp.client as usize].see(stamp.sequence) {
            count(&mut self.anomalies, anomaly, 1);
        }
        Some(stamp)
    }

    /// Records polled so far.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether every queue has been read up to these end offsets.
    pub fn has_reached(&self, ends: &[i64]) -> bool {
        self.queues.iter().zip(ends).all(|(queue, &end)| queue.offset_next >= end)
    }
}

impl ClientRead {
    fn see(&mut self, sequence: u64) -> Option<&'static str> {
        if sequence >= self.sequence_next {
            if sequence > self.sequence_next {
                self.gaps.insert(self.sequence_next, sequence);
            }
            self.sequence_next = sequence + 1;
            return None;
        }
        let gap = self.gaps.range(..=sequence).next_back().map(|(&first, &end)| (first, end));
        let Some((first, end)) = gap.filter(|(_, end)| sequence < *end) else { return Some("duplicate") };
        self.gaps.remove(&first);
        if first < sequence {
            self.gaps.insert(first, sequence);
        }
        if sequence + 1 < end {
            self.gaps.insert(sequence + 1, end);
        }
        Some("nonmonotonic-send")
    }
}

/// The verdict on one block's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// valid < unknown < invalid.
    pub verdict: VerdictKind,
    /// Records acknowledged and also consumed.
    pub verified: u64,
    /// Anomaly to count.
    pub anomalies: BTreeMap<&'static str, u64>,
    /// Why the verdict is unknown, where it is.
    pub unknown: Option<String>,
}

impl Verification {
    /// That of two consumers of the same records: the graver verdict, what both have verified, and every anomaly.
    pub(crate) fn and(mut self, other: Verification) -> Verification {
        self.verdict = self.verdict.max(other.verdict);
        self.verified = self.verified.min(other.verified);
        for (name, by) in other.anomalies {
            count(&mut self.anomalies, name, by);
        }
        self.unknown = self.unknown.or(other.unknown);
        self
    }

    /// Of a block whose messages were only counted: nothing is known against it unless reading stopped before the end.
    pub(crate) fn of_nothing(unread: Option<String>) -> Verification {
        let verdict = if unread.is_some() { VerdictKind::Unknown } else { VerdictKind::Valid };
        Verification { verdict, verified: 0, anomalies: BTreeMap::new(), unknown: unread }
    }
}

/// Compares what was acknowledged with what was read. `unread` says why reading stopped before the end, if it did;
/// `ends` are the end offsets that the broker reported after the last acknowledgement.
pub fn judge(ledgers: &[Ledger], reader: &Reader, ends: &[i64], unread: Option<String>) -> Verification {
    let mut anomalies = reader.anomalies.clone();
    let mut missing_acknowledged = 0;
    let mut acknowledged = 0;
    for ledger in ledgers {
        acknowledged += ledger.acknowledged();
        for (tally, queue) in ledger.queues.iter().zip(&reader.queues) {
            let read = &queue.clients[ledger.client as usize];
            let lost: u64 = read.gaps.iter().map(|(&first, &end)| tally.acknowledged_within(first, end)).sum();
            let unseen = tally.acknowledged_within(read.sequence_next, tally.sent);
            count(&mut anomalies, "lost-write", lost);
            // Records never sent that were read all the same: bytes that pass every check, and still are not ours.
            count(&mut anomalies, "corrupt-payload", read.sequence_next.saturating_sub(tally.sent));
            if unread.is_none() {
                count(&mut anomalies, "unseen", unseen);
            }
            missing_acknowledged += lost + unseen;
        }
    }
    let differing_queues = queues_with_other_offsets(ledgers, reader, &anomalies);
    count(&mut anomalies, "inconsistent-offsets", differing_queues);
    let unknown = unread.or_else(|| end_offsets_disagree(ledgers, reader, ends, &anomalies));
    let verdict = match (anomalies.is_empty(), &unknown) {
        (false, _) => VerdictKind::Invalid,
        (true, Some(_)) => VerdictKind::Unknown,
        (true, None) => VerdictKind::Valid,
    };
    Verification { verdict, verified: acknowledged.saturating_sub(missing_acknowledged), anomalies, unknown }
}

impl Tally {
    fn acknowledged_within(&self, first: u64, end: u64) -> u64 {
        let end = end.min(self.sent);
        if end <= first {
            return 0;
        }
        end - first - self.unsettled.range(first..end).count() as u64
    }
}

/// Queues in which the acknowledged offsets are not those at which the records were read. A sum of fingerprints over
/// both sides tells, where every record has been acknowledged with its offset and nothing else is wrong.
fn queues_with_other_offsets(ledgers: &[Ledger], reader: &Reader, anomalies: &BTreeMap<&'static str, u64>) -> u64 {
    if !anomalies.is_empty() {
        return 0;
    }
    let differs = |index: &usize| {
        let tallies: Vec<&Tally> = ledgers.iter().map(|ledger| &ledger.queues[*index]).collect();
        let read: u64 = reader.queues[*index].clients.iter().map(|client| client.sequence_next).sum();
        let acknowledged: u64 = tallies.iter().map(|tally| tally.acknowledged).sum();
        let is_comparable =
            read == acknowledged && tallies.iter().all(|tally| tally.unsettled.is_empty() && !tally.offset_is_missing);
        let digest = tallies.iter().fold(0_u64, |sum, tally| sum.wrapping_add(tally.digest));
        is_comparable && digest != reader.queues[*index].digest
    };
    (0..reader.queues.len()).filter(differs).count() as u64
}

/// The broker's own end offsets must count what was acknowledged; a mismatch that nothing explains is unknown.
fn end_offsets_disagree(
    ledgers: &[Ledger],
    reader: &Reader,
    ends: &[i64],
    anomalies: &BTreeMap<&'static str, u64>,
) -> Option<String> {
    let is_settled = ledgers.iter().all(|ledger| ledger.unsettled() == 0);
    if !anomalies.is_empty() || !is_settled {
        return None;
    }
    let acknowledged: u64 = ledgers.iter().map(Ledger::acknowledged).sum();
    let end_sum: i64 = ends.iter().sum();
    if u64::try_from(end_sum) == Ok(acknowledged) && reader.consumed == acknowledged {
        return None;
    }
    let consumed = reader.consumed;
    Some(format!("{acknowledged} records were acknowledged, {consumed} read, and the end offsets add up to {end_sum}"))
}

fn count(anomalies: &mut BTreeMap<&'static str, u64>, name: &'static str, by: u64) {
    if by > 0 {
        *anomalies.entry(name).or_default() += by;
    }
}

/// A value whose sum over a set of records tells sets apart; the mixing is MurmurHash3's finaliser.
pub(crate) fn fingerprint(client: u32, sequence: u64, offset: u64) -> u64 {
    let mut mixed = sequence.rotate_left(32) ^ offset ^ (u64::from(client) << 56);
    for multiplier in [0xFF51_AFD7_ED55_8CCD_u64, 0xC4CE_B9FE_1A85_EC53] {
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(multiplier);
    }
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
