//! Who sends to which queue, and the streaming check of a raw run. A lane is one connection's share of one queue; the
//! driver never sends twice, so that a lane's records must come back in order, whole, at the offsets acknowledged.
//! Two dozen bytes a queue, so that a million of them can be checked. The anomalies' names are the judge's.

use std::collections::BTreeMap;
use std::ops::Range;

use mqassay_harness::artifact::VerdictKind;

use crate::payload;
use crate::verify::{Verification, fingerprint};

/// How queues lie in topics and belong to connections.
#[derive(Debug, Clone)]
pub(super) struct Lanes {
    pub(super) prefix: String,
    pub(super) queues: u32,
    pub(super) connections: u32,
}

impl Lanes {
    /// Topics of at most `TOPIC_QUEUES` queues.
    pub(super) fn topics(&self) -> u32 {
        self.queues.div_ceil(TOPIC_QUEUES)
    }

    /// A topic's name; all of a run have one length.
    pub(super) fn topic(&self, number: u32) -> String {
        format!("{}-{number:04}", self.prefix)
    }

    /// Queues of a topic.
    pub(super) fn queues_of(&self, topic: u32) -> u32 {
        (self.queues - topic * TOPIC_QUEUES).min(TOPIC_QUEUES)
    }

    /// The topic's number and the partition in it.
    pub(super) fn place(queue: u32) -> (u32, u32) {
        (queue / TOPIC_QUEUES, queue % TOPIC_QUEUES)
    }

    /// How many lanes there are.
    pub(super) fn count(&self) -> u32 {
        self.queues.max(self.connections)
    }

    /// The lanes of a connection.
    pub(super) fn of(&self, connection: u32) -> Range<u32> {
        let border = |at: u32| (u64::from(at) * u64::from(self.count()) / u64::from(self.connections)) as u32;
        border(connection)..border(connection + 1)
    }

    /// The queue of a lane.
    pub(super) fn queue(&self, lane: u32) -> u32 {
        lane % self.queues
    }

    /// The lane of a record's stamp; none where no connection sends so.
    fn lane(&self, client: u32, queue: u32) -> Option<u32> {
        let lane = if self.queues >= self.connections { queue } else { client };
        let is_own = client < self.connections && self.of(client).contains(&lane) && self.queue(lane) == queue;
        is_own.then_some(lane)
    }
}

#[derive(Debug, Clone, Default)]
struct Lane {
    sent: u32,
    answered: u32,
    read_next: u32,
    /// Fingerprints of records acknowledged minus those of records read.
    digest: u64,
}

#[derive(Debug, Clone, Copy)]
struct Queue {
    offset_next: i64,
    /// One past the last offset acknowledged.
    end: i64,
    high_watermark: i64,
}

/// What was sent, acknowledged and read.
#[derive(Debug)]
pub(super) struct Check {
    lanes_map: Lanes,
    run: u64,
    record_bytes: usize,
    lanes: Vec<Lane>,
    queues: Vec<Queue>,
    /// Records without an acknowledgement: first to one past the last, by lane.
    refused: BTreeMap<u32, Vec<(u32, u32)>>,
    gaps: Vec<(u32, u32, u32)>,
    anomalies: BTreeMap<&'static str, u64>,
    pub(super) acknowledged: u64,
    pub(super) unsettled: u64,
    pub(super) consumed: u64,
}

impl Check {
    pub(super) fn new(lanes_map: Lanes, run: u64, record_bytes: usize) -> Check {
        Check {
            run,
            record_bytes,
            lanes: vec![Lane::default(); lanes_map.count() as usize],
            queues: vec![Queue { offset_next: 0, end: 0, high_watermark: -1 }; lanes_map.queues as usize],
            refused: BTreeMap::new(),
            gaps: Vec::new(),
            anomalies: BTreeMap::new(),
            acknowledged: 0,
            unsettled: 0,
            consumed: 0,
            lanes_map,
        }
    }

    /// Notes records about to be sent; gives the first's sequence number.
    pub(super) fn send(&mut self, lane: u32, records: u32) -> u64 {
        let state = &mut self.lanes[lane as usize];
        state.sent += records;
        u64::from(state.sent - records)
    }

    /// Notes the answer to the lane's oldest batch without one; the offset is none where the protocol has none.
    pub(super) fn acknowledge(&mut self, lane: u32, records: u32, base_offset: Option<i64>) {
        let state = &mut self.lanes[lane as usize];
        let (client, first) = (lane, u64::from(state.answered));
        state.answered += records;
        self.acknowledged += u64::from(records);
        let queue = &mut self.queues[self.lanes_map.queue(lane) as usize];
        let base = base_offset.unwrap_or(queue.end);
        queue.end = queue.end.max(base + i64::from(records));
        if base_offset.is_some() {
            for index in 0..u64::from(records) {
                let mark = fingerprint(client, first + index, (base as u64).wrapping_add(index));
                state.digest = state.digest.wrapping_add(mark);
            }
        }
    }

    /// Notes that the lane's oldest batch without an answer was refused, or that its outcome is not known.
    pub(super) fn refuse(&mut self, lane: u32, records: u32) {
        let state = &mut self.lanes[lane as usize];
        self.refused.entry(lane).or_default().push((state.answered, state.answered + records));
        state.answered += records;
        self.unsettled += u64::from(records);
    }

    /// Takes a record as it was read; gives its stamp's times, none where it is corrupt. The offset is none where the
    /// protocol has none.
    pub(super) fn read(&mut self, queue: u32, offset: Option<i64>, value: Option<&[u8]>) -> Option<(u64, u64)> {
        let at = &mut self.queues[queue as usize];
        let position = offset.unwrap_or(at.offset_next);
        if offset.is_some() && position < at.offset_next {
            // A fetch answers with whole batches: what lies before the offset asked for was read already.
            return None;
        }
        self.consumed += 1;
        if position > at.offset_next {
            *self.anomalies.entry("poll-skip").or_default() += 1;
        }
        at.offset_next = position + 1;
        let stamp = value.and_then(|value| payload::read(self.run, self.record_bytes, value));
        let found = stamp.filter(|stamp| stamp.queue == queue && stamp.sequence <= u64::from(u32::MAX - 1));
        let found = found.and_then(|stamp| Some((self.lanes_map.lane(stamp.client, queue)?, stamp)));
        let Some((lane, stamp)) = found else {
            *self.anomalies.entry("corrupt-payload").or_default() += 1;
            return None;
        };
        let state = &mut self.lanes[lane as usize];
        let sequence = stamp.sequence as u32;
        if sequence < state.read_next {
            *self.anomalies.entry("duplicate").or_default() += 1;
            return None;
        }
        if sequence > state.read_next {
            self.gaps.push((lane, state.read_next, sequence));
        }
        state.read_next = sequence + 1;
        if offset.is_some() {
            state.digest = state.digest.wrapping_sub(fingerprint(lane, stamp.sequence, position as u64));
        }
        Some((stamp.intended_ns, stamp.sent_ns))
    }

    /// Notes a batch as read without looking into it.
    pub(super) fn count(&mut self, queue: u32, base: i64, records: u32) {
        let at = &mut self.queues[queue as usize];
        if base >= at.offset_next {
            self.consumed += u64::from(records);
            at.offset_next = base + i64::from(records);
        }
    }

    /// Whether a value says that it is of this run.
    pub(super) fn is_of_run(&self, value: &[u8]) -> bool {
        payload::is_of_run(self.run, value)
    }

    /// The queue of a stamped value, for protocols that do not name it.
    pub(super) fn queue_of(&self, value: &[u8]) -> Option<u32> {
        let stamp = payload::read(self.run, self.record_bytes, value)?;
        (stamp.queue < self.lanes_map.queues).then_some(stamp.queue)
    }

    /// Notes the broker's own end of a queue.
    pub(super) fn note_high_watermark(&mut self, queue: u32, offset: i64) {
        self.queues[queue as usize].high_watermark = offset;
    }

    /// The offset to read next.
    pub(super) fn offset_next(&self, queue: u32) -> i64 {
        self.queues[queue as usize].offset_next
    }

    /// One past the last offset acknowledged in a queue.
    pub(super) fn end(&self, queue: u32) -> i64 {
        self.queues[queue as usize].end
    }

    /// Whether everything acknowledged in a queue has been read.
    pub(super) fn is_read(&self, queue: u32) -> bool {
        let queue = &self.queues[queue as usize];
        queue.offset_next >= queue.end
    }

    /// Whether everything acknowledged has been read.
    pub(super) fn is_all_read(&self) -> bool {
        self.consumed >= self.acknowledged && (0..self.lanes_map.queues).all(|queue| self.is_read(queue))
    }

    /// The verdict; `unread` says why reading stopped before the end, if it did.
    pub(super) fn judge(mut self, unread: Option<String>) -> Verification {
        let mut missing = 0;
        let mut lost = 0;
        let mut unseen = 0;
        for &(lane, first, end) in &self.gaps {
            lost += self.acknowledged_within(lane, first, end);
        }
        for (lane, state) in (0..).zip(&self.lanes) {
            unseen += self.acknowledged_within(lane, state.read_next, state.answered);
        }
        missing += lost + unseen;
        if unread.is_some() {
            unseen = 0;
        }
        for (name, count) in [("lost-write", lost), ("unseen", unseen)] {
            if count > 0 {
                *self.anomalies.entry(name).or_default() += count;
            }
        }
        let is_settled = unread.is_none() && self.unsettled == 0;
        if is_settled && self.anomalies.is_empty() {
            let differing = self.lanes.iter().filter(|lane| lane.digest != 0).count() as u64;
            if differing > 0 {
                self.anomalies.insert("inconsistent-offsets", differing);
            }
        }
        let is_off = |queue: &&Queue| queue.high_watermark >= 0 && queue.high_watermark != queue.end;
        let ends_off = if is_settled { self.queues.iter().filter(is_off).count() } else { 0 };
        let unknown = unread.or_else(|| {
            (ends_off > 0).then(|| format!("{ends_off} queues' high watermarks are not where the last record ended"))
        });
        let verdict = match (self.anomalies.is_empty(), &unknown) {
            (false, _) => VerdictKind::Invalid,
            (true, Some(_)) => VerdictKind::Unknown,
            (true, None) => VerdictKind::Valid,
        };
        let verified = self.acknowledged.saturating_sub(missing);
        Verification { verdict, verified, anomalies: self.anomalies, unknown }
    }

    fn acknowledged_within(&self, lane: u32, first: u32, end: u32) -> u64 {
        let end = end.min(self.lanes[lane as usize].answered);
        let refused = self.refused.get(&lane).map_or(&[][..], Vec::as_slice);
        let overlap = |&(from, to): &(u32, u32)| u64::from(to.min(end).saturating_sub(from.max(first)));
        u64::from(end.saturating_sub(first)).saturating_sub(refused.iter().map(overlap).sum())
    }
}

/// Queues of a topic at most; larger numbers are spread over several topics.
pub(super) const TOPIC_QUEUES: u32 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{PayloadWriter, Stamp};

    fn lanes(queues: u32, connections: u32) -> Lanes {
        Lanes { prefix: "t".to_owned(), queues, connections }
    }

    #[test]
    fn every_lane_has_one_connection_and_every_queue_a_lane() {
        for (queues, connections) in [(1, 1), (1, 64), (64, 16), (5, 3), (1_000_000, 16), (2_000, 7)] {
            let map = lanes(queues, connections);
            let mut lane_next = 0;
            for connection in 0..connections {
                let own = map.of(connection);
                assert_eq!(own.start, lane_next);
                assert!(!own.is_empty(), "{queues} {connections}");
                lane_next = own.end;
                assert_eq!(map.lane(connection, map.queue(own.start)), Some(own.start));
            }
            assert_eq!(lane_next, map.count());
            assert_eq!((0..map.topics()).map(|topic| map.queues_of(topic)).sum::<u32>(), queues);
        }
    }

    /// Offsets and sequence numbers that were read.
    type Read<'a> = &'a [(i64, u64)];

    /// What a broker does with ten records of one lane, as offsets and sequence numbers read, and the anomaly.
    #[test]
    fn each_defect_is_named_and_none_is_none() {
        let clean: Vec<(i64, u64)> = (0..10).map(|index| (index, index as u64)).collect();
        let lost: Vec<(i64, u64)> = clean.iter().copied().filter(|(_, sequence)| *sequence != 4).collect();
        let lost_closed: Vec<(i64, u64)> = (0..).zip((0..10).filter(|sequence| *sequence != 4)).collect();
        let twice: Vec<(i64, u64)> = (0..).zip([0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]).collect();
        let shifted: Vec<(i64, u64)> = clean.iter().map(|(offset, sequence)| (offset + 1, *sequence)).collect();
        let cut = clean[..9].to_vec();
        let cases: [(Read<'_>, &[&str]); 6] = [
            (&clean, &[]),
            (&lost, &["lost-write", "poll-skip"]),
            (&lost_closed, &["lost-write"]),
            (&twice, &["duplicate"]),
            (&shifted, &["poll-skip"]),
            (&cut, &["unseen"]),
        ];
        for (read, expected) in cases {
            let mut check = Check::new(lanes(1, 1), 7, 100);
            let mut writer = PayloadWriter::new(7, 100);
            assert_eq!(check.send(0, 10), 0);
            check.acknowledge(0, 10, Some(0));
            for &(offset, sequence) in read {
                let stamp = Stamp { client: 0, queue: 0, sequence, intended_ns: 1, sent_ns: 2 };
                check.read(0, Some(offset), Some(writer.write(stamp)));
            }
            let found = check.judge(None);
            assert_eq!(found.anomalies.keys().copied().collect::<Vec<_>>(), expected, "{read:?}");
        }
    }

    #[test]
    fn an_offset_other_than_acknowledged_and_a_wrong_end_are_seen() {
        let run = |base: i64, end: i64| {
            let mut check = Check::new(lanes(1, 1), 7, 100);
            let mut writer = PayloadWriter::new(7, 100);
            check.send(0, 1);
            check.acknowledge(0, 1, Some(base));
            let stamp = Stamp { client: 0, queue: 0, sequence: 0, intended_ns: 1, sent_ns: 2 };
            assert_eq!(check.read(0, Some(0), Some(writer.write(stamp))), Some((1, 2)));
            check.note_high_watermark(0, end);
            check.judge(None)
        };
        assert_eq!(run(0, 1).verdict, VerdictKind::Valid);
        assert_eq!(run(0, 2).verdict, VerdictKind::Unknown);
        assert_eq!(run(1, 1).anomalies.keys().copied().collect::<Vec<_>>(), ["inconsistent-offsets"]);
    }

    #[test]
    fn refused_records_are_not_missed_and_corrupt_ones_are_named() {
        let mut check = Check::new(lanes(1, 1), 7, 100);
        check.send(0, 3);
        check.refuse(0, 3);
        assert!(check.is_all_read());
        assert_eq!(check.judge(None).verdict, VerdictKind::Valid);
        let mut check = Check::new(lanes(1, 1), 7, 100);
        check.send(0, 1);
        check.acknowledge(0, 1, Some(0));
        check.read(0, Some(0), None);
        assert!(check.judge(None).anomalies.contains_key("corrupt-payload"));
    }
}
