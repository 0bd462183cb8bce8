//! Laws of a log with three replicas: whatever fails, what was confirmed stays on every replica, and replicas that have
//! caught up are alike to the byte, with the same epochs, offsets and producers. The test plays the cluster: who leads,
//! and how far each has copied. All three are in sync all the time, so any of them may be elected.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::DIRECTORY;
use super::disk::MemoryDisk;
use super::rig::{Rig, batch, block_on, open};
use crate::core::log::frame::{FRAME_BYTES, FrameCheck, check_frame};
use crate::core::log::{CopyError, DiskEffect, DiskEvent, Flush, FramesFailure, FramesPlan, QueueDump, Replication};
use crate::core::types::{LeaderEpoch, Offset, Position, QueueId, Ticket};

const NODES: usize = 3;
const QUEUES: u64 = 3;

#[derive(Debug, Clone)]
enum Step {
    Append { queue: u64, records: usize, fill: u8 },
    Fetch { node: usize, bytes_max: usize },
    Settle { node: usize },
    SettleOne { node: usize },
    Lead { node: usize },
    Kill { node: usize },
    LosePower { node: usize, seed: u64 },
    Idle,
    Retain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..=QUEUES, 1..4usize, any::<u8>())
            .prop_map(|(queue, records, fill)| Step::Append { queue, records, fill }),
        12 => (0..NODES, 100..1500usize).prop_map(|(node, bytes_max)| Step::Fetch { node, bytes_max }),
        6 => (0..NODES).prop_map(|node| Step::Settle { node }),
        4 => (0..NODES).prop_map(|node| Step::SettleOne { node }),
        2 => (0..NODES).prop_map(|node| Step::Lead { node }),
        1 => (0..NODES).prop_map(|node| Step::Kill { node }),
        2 => (0..NODES, any::<u64>()).prop_map(|(node, seed)| Step::LosePower { node, seed }),
        1 => Just(Step::Idle),
        1 => Just(Step::Retain),
    ]
}

struct Cluster {
    flush: Flush,
    retention_bytes: Option<u64>,
    disks: Vec<MemoryDisk>,
    rigs: Vec<Option<Rig<MemoryDisk>>>,
    leader: usize,
    epoch: LeaderEpoch,
    /// What the leader has heard of each replica's counted position, in its own epoch.
    heard: [Position; NODES],
    confirmed: Position,
    truncations: u32,
    restarts: u32,
}

impl Cluster {
    async fn new(flush: Flush, retention_bytes: Option<u64>) -> Cluster {
        let disks = Vec::new();
        let mut cluster = Cluster {
            flush,
            retention_bytes,
            disks,
            rigs: Vec::new(),
            leader: 0,
            epoch: LeaderEpoch(0),
            heard: [Position(0); NODES],
            confirmed: Position(0),
            truncations: 0,
            restarts: 0,
        };
        for node in 0..NODES {
            cluster.disks.push(MemoryDisk::default());
            cluster.rigs.push(None);
            cluster.start(node).await;
        }
        cluster.lead(0);
        cluster
    }

    fn rig(&mut self, node: usize) -> &mut Rig<MemoryDisk> {
        self.rigs[node].as_mut().expect("the node runs")
    }

    async fn start(&mut self, node: usize) {
        let mut settings = super::rig::settings(self.flush);
        settings.retention_bytes = self.retention_bytes;
        let mut rig = Rig::open(self.disks[node].clone(), settings, None).await.expect("the folder opens");
        rig.log.unconfirm();
        rig.log.set_replication(Replication::Following, rig.now);
        self.rigs[node] = Some(rig);
    }

    fn lead(&mut self, node: usize) {
        if !self.rig(node).log.is_online() {
            return;
        }
        (self.leader, self.epoch) = (node, LeaderEpoch(self.epoch.0 + 1));
        self.heard = [Position(0); NODES];
        for other in 0..NODES {
            let role = if other == node { Replication::Leading } else { Replication::Following };
            let epoch = (other == node).then_some(self.epoch);
            let rig = self.rig(other);
            let now = rig.now;
            rig.log.set_leader_epoch(epoch);
            rig.log.set_replication(role, now);
        }
    }

    async fn crash(&mut self, node: usize, seed: Option<u64>) {
        self.rigs[node] = None;
        if let Some(seed) = seed {
            self.disks[node].lose_power(super::laws::draws(seed));
        }
        self.start(node).await;
        if self.leader == node {
            // A leader that restarts has a new epoch, also where it is elected again.
            let wanted = seed.unwrap_or(1) as usize % NODES;
            let elected = if self.rig(wanted).log.is_online() { wanted } else { node };
            self.lead(elected);
        } else {
            self.heard[node] = Position(0);
        }
    }

    fn append(&mut self, queue: u64, records: usize, fill: u8) {
        let epoch = self.epoch;
        let rig = self.rigs[self.leader].as_mut().expect("the node runs");
        let sequence = rig.log.log_end_offset(QueueId(queue)).0 as i32;
        let mut effects = Vec::new();
        let sent = batch(sequence, &vec![1; records], fill);
        rig.log.append(QueueId(queue), sent, epoch, rig.now, &mut effects).expect("in sequence");
        if rig.log.settings().flush == Flush::Ack {
            rig.log.request_sync(&mut effects);
        }
        rig.take(effects);
    }

    /// One round of a follower: what is divergent is cut, or frames are copied.
    async fn fetch(&mut self, node: usize, bytes_max: usize) {
        self.confirm();
        if node == self.leader || !self.rig(node).log.is_online() {
            return;
        }
        let log = &self.rig(node).log;
        let (newest, from, counted) = (log.epochs().newest(), log.end_position(), log.counted_position());
        let leader = self.rigs[self.leader].as_mut().expect("the node runs");
        if from < leader.log.start_position() {
            let carrier = leader.log.carrier();
            self.restarts += 1;
            return self.change(node, |log, effects| log.restart(carrier, effects)).await;
        }
        if newest >= LeaderEpoch(0) {
            let carrier = leader.log.carrier();
            let parting = leader.log.end_of_epoch(newest);
            if parting.is_none_or(|(epoch, end)| epoch < newest || end < from) {
                let log = &self.rig(node).log;
                let own = parting.and_then(|(epoch, end)| Some(log.end_of_epoch(epoch)?.1.min(end)));
                let Some(to) = own.filter(|to| *to >= log.start_position()) else {
                    self.restarts += 1;
                    return self.change(node, |log, effects| log.restart(carrier, effects)).await;
                };
                self.truncations += 1;
                return self.change(node, |log, effects| log.truncate(to, effects)).await;
            }
        }
        let leader = self.rigs[self.leader].as_mut().expect("the node runs");
        let start = leader.log.start_position();
        let frames = read_frames(leader, from, bytes_max).await;
        self.heard[node] = counted;
        let confirmed = self.confirmed;
        let rig = self.rig(node);
        let mut effects = Vec::new();
        rig.log.append_frames(&frames, rig.now, &mut effects).expect("the leader's frames are intact");
        if rig.log.settings().flush == Flush::Ack {
            rig.log.request_sync(&mut effects);
        }
        rig.take(effects);
        rig.log.raise_high_watermark(confirmed, rig.now);
        let mut effects = Vec::new();
        rig.log.free_below(start, &mut effects);
        rig.take(effects);
    }

    /// Changes a follower's files, in the middle of which power may be lost as well as anywhere.
    async fn change(&mut self, node: usize, change: impl FnOnce(&mut crate::core::log::Log, &mut Vec<DiskEffect>)) {
        let rig = self.rig(node);
        let mut effects = Vec::new();
        change(&mut rig.log, &mut effects);
        rig.take(effects);
        self.heard[node] = Position(0);
    }

    fn confirm(&mut self) {
        let leader = self.leader;
        self.heard[leader] = self.rig(leader).log.counted_position();
        let least = *self.heard.iter().min().expect("there are nodes");
        self.confirmed = self.confirmed.max(least);
        let confirmed = self.confirmed;
        let rig = self.rig(leader);
        let now = rig.now;
        rig.log.raise_high_watermark(confirmed, now);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append { queue, records, fill } => self.append(queue, records, fill),
            Step::Fetch { node, bytes_max } => self.fetch(node, bytes_max).await,
            Step::Settle { node } => self.rig(node).settle().await,
            Step::SettleOne { node } => self.rig(node).settle_one().await,
            Step::Lead { node } => self.lead(node),
            Step::Kill { node } => self.crash(node, None).await,
            Step::LosePower { node, seed } if self.flush == Flush::Ack => self.crash(node, Some(seed)).await,
            Step::LosePower { node, .. } => self.crash(node, None).await,
            Step::Idle => {
                self.confirm();
                for node in 0..NODES {
                    self.rig(node).pass_time(std::time::Duration::from_secs(1));
                }
            }
            Step::Retain => {
                let leader = self.leader;
                let rig = self.rig(leader);
                let mut effects = Vec::new();
                rig.log.retain(rig.now, &mut effects);
                rig.take(effects);
            }
        }
        for node in 0..NODES {
            let confirmed = self.confirmed;
            let log = &self.rig(node).log;
            // A log that is being recovered shows what it had; a restarted one has nothing until it has copied.
            let lost = log.is_online() && log.end_position() < confirmed;
            assert!(!lost, "node {node} lost what was confirmed");
        }
    }

    async fn run(mut self, steps: Vec<Step>) -> Cluster {
        for step in steps {
            self.step(step).await;
        }
        self.catch_up().await;
        self.compare().await;
        self
    }

    /// Followers fetch until nothing moves any more.
    async fn catch_up(&mut self) {
        for _ in 0..200 {
            for node in 0..NODES {
                self.rig(node).settle().await;
            }
            for node in 0..NODES {
                self.fetch(node, 4000).await;
            }
        }
        self.confirm();
        let end = self.rigs[self.leader].as_ref().expect("the node runs").log.end_position();
        assert_eq!(self.confirmed, end, "what is copied everywhere is confirmed");
    }

    async fn compare(&mut self) {
        let leader = self.leader;
        let begin = (0..NODES).map(|node| self.rig(node).log.start_position()).max().expect("there are nodes");
        let expected = bytes_of(self.rig(leader), begin).await;
        for node in 0..NODES {
            let found = bytes_of(self.rig(node), begin).await;
            assert!(found == expected, "node {node} has other bytes than its leader");
            let (log, model) = (self.rig(node).log.dump(), self.rigs[leader].as_ref().expect("runs").log.dump());
            assert_eq!((log.end, log.watermark), (model.end, model.watermark), "node {node}");
            assert_eq!(log.epochs.last(), model.epochs.last());
            // A queue whose every batch was cut is as good as one that never was.
            let used = |queues: &[QueueDump]| queues.iter().filter(|q| q.next_offset > 0).cloned().collect::<Vec<_>>();
            let (own, other) = (used(&log.queues), used(&model.queues));
            assert_eq!(own.len(), other.len());
            for (own, other) in own.iter().zip(&other) {
                assert_eq!((own.queue, own.next_offset), (other.queue, other.next_offset));
                assert_eq!(own.high_watermark, other.high_watermark);
                if let (Some(own), Some(other)) = (own.batches.last(), other.batches.last()) {
                    assert_eq!(own, other);
                }
                // A replica that began later may remember fewer of the last five batches, never other ones.
                let newest = |queue: &QueueDump| queue.producers.iter().map(|p| p.last_sequence).collect::<Vec<_>>();
                assert_eq!(newest(own), newest(other), "node {node} queue {}", own.queue);
            }
        }
    }
}

async fn read_frames(rig: &mut Rig<MemoryDisk>, from: Position, bytes_max: usize) -> Bytes {
    let piece = match rig.log.read_frames(from, bytes_max) {
        FramesPlan::Cached(parts) => {
            let mut joined = BytesMut::new();
            parts.iter().for_each(|part| joined.extend_from_slice(part));
            return joined.freeze();
        }
        FramesPlan::OnDisk(piece) => piece,
    };
    let mut length = piece.length;
    for _ in 0..4 {
        let read = DiskEffect::Read { ticket: Ticket(1), log: piece.log, segment: piece.segment, at: piece.at, length };
        let DiskEvent::Read { result, .. } = rig.store.start(read).await else { panic!("not a read") };
        match rig.log.check_frames(&piece, &result.expect("the segment is there")) {
            Ok(frames) => return frames,
            Err(FramesFailure::Longer { bytes }) => length = bytes,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a frame says how long it is")
}

/// A log's bytes from a position on, without what is each replica's own.
async fn bytes_of(rig: &mut Rig<MemoryDisk>, begin: Position) -> Vec<u8> {
    let (mut all, mut at) = (Vec::new(), begin);
    while at < rig.log.end_position() {
        let frames = read_frames(rig, at, 900).await;
        let mut offset = 0;
        while offset < frames.len() {
            let total = match check_frame(&frames[offset..], at.plus(offset as u64), true) {
                FrameCheck::Batch(frame, _) | FrameCheck::Mark(frame) => frame.total_bytes() as usize,
                other => panic!("{other:?}"),
            };
            let mut frame = frames[offset..offset + total].to_vec();
            frame[24..32].fill(0);
            frame[36..FRAME_BYTES].fill(0);
            all.extend(frame);
            offset += total;
        }
        at = at.plus(frames.len() as u64);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// `flush=ack`: any number of power losses, kills and elections.
    #[test]
    fn replicas_agree_and_keep_what_was_confirmed(steps in prop::collection::vec(step(), 1..120)) {
        block_on(async { Cluster::new(Flush::Ack, None).await.run(steps).await; });
    }

    /// `flush=os`: kills and elections.
    #[test]
    fn replicas_of_an_unsynced_log_agree_over_kills(steps in prop::collection::vec(step(), 1..120)) {
        block_on(async { Cluster::new(Flush::Os, None).await.run(steps).await; });
    }

    /// Segments are freed meanwhile, so that a replica that was away has to begin in the middle of the log.
    #[test]
    fn replicas_agree_over_what_the_leader_has_freed(steps in prop::collection::vec(step(), 1..120)) {
        block_on(async { Cluster::new(Flush::Ack, Some(2048)).await.run(steps).await; });
    }
}

/// A leader that dies with batches that nobody copied, twice in a row: its epochs tell where it departs from the others.
#[test]
fn a_deposed_leader_cuts_what_nobody_copied_and_copies_what_came_instead() {
    block_on(async {
        let mut cluster = Cluster::new(Flush::Ack, None).await;
        cluster.append(1, 2, 1);
        cluster.catch_up().await;
        for deposed in [0, 1] {
            cluster.append(1, 3, 2);
            cluster.append(2, 1, 3);
            cluster.rig(deposed).settle().await;
            cluster.lead(deposed + 1);
            cluster.append(1, 1, 4);
        }
        let cluster = cluster.run(Vec::new()).await;
        assert_eq!(cluster.truncations, 2);
        let rig = cluster.rigs[0].as_ref().expect("runs");
        assert_eq!((rig.log.log_end_offset(QueueId(1)), rig.log.log_end_offset(QueueId(2))), (Offset(3), Offset(0)));
        let path = cluster.disks[0].paths(DIRECTORY, ".log").remove(0);
        assert_eq!(cluster.disks[0].contents(&path).len() as u64, rig.log.end_position().0, "the file is cut");
    });
}

/// A leader that has appended nothing yet and is idle writes a mark where another replica has a batch of the epoch before.
/// The epochs must tell the two apart, or both replicas pass for alike.
#[test]
fn a_mark_of_a_new_leader_is_told_from_a_batch_of_the_leader_before() {
    block_on(async {
        let mut cluster = Cluster::new(Flush::Ack, None).await;
        cluster.append(1, 1, 0);
        cluster.catch_up().await;
        cluster.append(1, 1, 0);
        cluster.rig(0).settle().await;
        cluster.lead(1);
        let (end, epoch) = (cluster.rig(1).log.end_position(), cluster.epoch);
        cluster.step(Step::Idle).await;
        let log = &cluster.rig(1).log;
        assert_eq!(log.end_position(), end.plus(FRAME_BYTES as u64), "the new leader has written a mark");
        assert_eq!(log.epochs().newest(), epoch, "it stands in the epoch of who wrote it");
        // The one deposed leads again, and a follower has to part with the mark.
        cluster.lead(0);
        cluster.append(1, 1, 0);
        let cluster = cluster.run(Vec::new()).await;
        assert_eq!(cluster.truncations, 1);
    });
}

/// A leader frees all that is confirmed, and is deposed before anyone has copied what it appended behind that. Nothing
/// that it still has is the next leader's, and yet it must not forget how far it had come: it may be elected again.
#[test]
fn a_deposed_leader_that_freed_what_was_confirmed_is_cut_to_its_start() {
    block_on(async {
        let mut cluster = Cluster::new(Flush::Ack, Some(2048)).await;
        cluster.append(1, 3, 174);
        cluster.append(1, 3, 174);
        cluster.catch_up().await;
        let confirmed = cluster.confirmed;
        cluster.lead(2);
        for _ in 0..3 {
            cluster.append(1, 3, 230);
        }
        cluster.rig(2).settle().await;
        cluster.confirm();
        cluster.step(Step::Retain).await;
        assert_eq!(cluster.rig(2).log.start_position(), confirmed, "all that is confirmed is freed");
        cluster.lead(0);
        cluster.step(Step::Fetch { node: 2, bytes_max: 4000 }).await;
        cluster.step(Step::Settle { node: 2 }).await;
        let log = &cluster.rig(2).log;
        assert_eq!((log.start_position(), log.end_position()), (confirmed, confirmed));
        assert_eq!(log.log_end_offset(QueueId(1)), Offset(6), "its offsets go on");
        let cluster = cluster.run(Vec::new()).await;
        assert_eq!((cluster.restarts, cluster.truncations), (0, 1));
    });
}

/// A batch that was cut may be sent again; one that was kept may not, wherever its producer finds the next leader.
#[test]
fn windows_of_producers_follow_truncation_and_restart() {
    block_on(async {
        let mut cluster = Cluster::new(Flush::Ack, Some(2048)).await;
        for _ in 0..40 {
            cluster.append(1, 2, 60);
            cluster.fetch(1, 4000).await;
            cluster.rig(0).settle().await;
            cluster.rig(1).settle().await;
        }
        cluster.rig(2).now.monotonic += std::time::Duration::from_secs(1);
        // The third replica was away; what it needs is freed once the others agree that it is gone.
        let end = cluster.rig(0).log.end_position();
        cluster.rig(0).log.raise_high_watermark(end, crate::core::types::Now::default());
        cluster.step(Step::Retain).await;
        assert!(cluster.rig(0).log.start_position() > Position(0));
        cluster.catch_up().await;
        cluster.compare().await;
        assert_eq!(cluster.restarts, 1);
        cluster.crash(2, Some(7)).await;
        let retried = {
            let rig = cluster.rig(2);
            let mut effects = Vec::new();
            let newest = rig.log.epochs().newest();
            rig.log.append(QueueId(1), batch(78, &[1, 1], 60), newest, rig.now, &mut effects)
        };
        assert!(
            matches!(retried, Err(crate::core::log::AppendError::Duplicate { base_offset: Offset(78), .. })),
            "{retried:?}"
        );
    });
}

#[test]
fn a_follower_takes_no_frame_that_is_not_intact_or_not_its_next() {
    block_on(async {
        let mut leader = open(&MemoryDisk::default(), Flush::Os, None).await;
        for n in 0..3 {
            leader.append(1, batch(n, &[1], 9)).expect("in sequence");
        }
        let frames = read_frames(&mut leader, Position(0), 100_000).await;
        let first = match check_frame(&frames, Position(0), true) {
            FrameCheck::Batch(frame, _) => frame.total_bytes() as usize,
            other => panic!("{other:?}"),
        };
        for at in 0..first {
            let mut follower = open(&MemoryDisk::default(), Flush::Os, None).await;
            let mut flipped = BytesMut::from(&frames[..]);
            flipped[at] ^= 4;
            let mut effects = Vec::new();
            let refused = follower.log.append_frames(&flipped.freeze(), follower.now, &mut effects);
            assert_eq!(refused, Err(CopyError::Corrupt { position: Position(0) }), "byte {at}");
            assert!(effects.is_empty());
        }
        let mut follower = open(&MemoryDisk::default(), Flush::Os, None).await;
        let mut effects = Vec::new();
        let skipped = follower.log.append_frames(&frames.slice(first..), follower.now, &mut effects);
        assert_eq!(skipped, Err(CopyError::Corrupt { position: Position(0) }), "a gap is no continuation");
    });
}
