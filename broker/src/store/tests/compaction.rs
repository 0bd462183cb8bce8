//! Laws of compaction over a disk that loses power and a process that is killed between any two changes of the disk:
//! the newest record of each key stays, what goes was superseded or is a tombstone past its time, nothing comes back,
//! offsets stay, and idempotence windows survive.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::DIRECTORY;
use super::disk::MemoryDisk;
use super::laws::draws;
use super::rig::{Rig, block_on, heard, settings};
use crate::core::batch::{Batch, BatchProducer, RecordAt, read_records};
use crate::core::log::{AppendError, CompactionSettings, Flush, LogSettings};
use crate::core::types::{Offset, ProducerEpoch, ProducerId, QueueId};
use crate::mutant::Mutant;
use crate::points;

#[derive(Debug, Clone)]
enum Step {
    /// Keys, and whether each record deletes its key.
    Append(Vec<(u8, bool)>),
    Settle,
    SettleOne,
    Compact,
    PassTime {
        ms: u16,
    },
    DeleteBelow {
        share: u8,
    },
    Retry,
    Kill,
    LosePower {
        seed: u64,
    },
    /// Compacts, and is killed after so many changes of the disk, perhaps with the power.
    CompactAndKill {
        changes: usize,
        power: Option<u64>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let records = prop::collection::vec((0..6u8, prop::bool::weighted(0.25)), 1..5);
    prop_oneof![
        10 => records.prop_map(Step::Append),
        4 => Just(Step::Settle),
        2 => Just(Step::SettleOne),
        4 => Just(Step::Compact),
        2 => (0..3000u16).prop_map(|ms| Step::PassTime { ms }),
        1 => any::<u8>().prop_map(|share| Step::DeleteBelow { share }),
        1 => Just(Step::Retry),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::LosePower { seed }),
        3 => (0..24usize, prop::option::of(any::<u64>())).prop_map(|(changes, power)| Step::CompactAndKill { changes, power }),
    ]
}

const DELETE_RETENTION_MS: i64 = 1000;

fn compacted(delete_retention_ms: i64) -> LogSettings {
    let compaction = Some(CompactionSettings { delete_retention_ms, dirty_millionths: 0 });
    LogSettings { segment_bytes: 1024, compaction, ..settings(Flush::Ack) }
}

async fn opened(disk: &MemoryDisk, mutant: Option<Mutant>) -> Rig<MemoryDisk> {
    Rig::open(disk.clone(), compacted(DELETE_RETENTION_MS), mutant).await.expect("the folder opens")
}

/// The same bytes for the same sequence, so that a retry is one.
fn keyed(sequence: usize, records: &[(u8, bool)]) -> Batch {
    let producer = BatchProducer { id: ProducerId(5), epoch: ProducerEpoch(0), base_sequence: sequence as i32 };
    let parts: Vec<(Bytes, Option<Bytes>)> = records
        .iter()
        .enumerate()
        .map(|(n, (key, deletes))| {
            let value = (!deletes).then(|| Bytes::from(format!("{:0>24}", sequence + n)));
            (Bytes::from(vec![b'k', *key]), value)
        })
        .collect();
    Batch::encode(producer, parts.iter().map(|(key, value)| (7, Some(key), value.as_ref())))
}

#[derive(Default)]
struct Model {
    /// By offset: key, and the value, none where it was a tombstone.
    sent: Vec<(Bytes, Option<Bytes>)>,
    /// Where batches begin, and what was in them.
    batches: Vec<(usize, Vec<(u8, bool)>)>,
    confirmed: usize,
    log_start: usize,
    /// Offsets that a read did not show any more: none comes back.
    gone: std::collections::BTreeSet<usize>,
    /// When each offset was confirmed at the latest, in milliseconds of wall time.
    since_ms: BTreeMap<usize, i64>,
}

impl Model {
    /// What the log has now is what the model allows.
    async fn compare(&mut self, rig: &mut Rig<MemoryDisk>, is_restarted: bool) {
        let queue = QueueId(1);
        let end = rig.log.high_watermark(queue).0 as usize;
        assert!(end >= self.confirmed, "confirmed records are lost: {end} < {}", self.confirmed);
        if is_restarted {
            self.sent.truncate(end);
            self.batches.retain(|(base, _)| *base < end);
            self.gone.retain(|offset| *offset < end);
        }
        self.confirm(rig);
        let start = rig.log.log_start_offset(queue);
        assert!(start.0 as usize <= self.log_start, "compaction moves no log start: {start} > {}", self.log_start);
        let read = read_records(rig.read_all(1, start, 700).await.expect("nothing is corrupt")).expect("readable");
        let found: BTreeMap<usize, RecordAt> = read.iter().map(|r| (r.offset.0 as usize, r.clone())).collect();
        assert_eq!(found.len(), read.len(), "no offset is there twice");
        assert!(read.is_sorted_by_key(|record| record.offset), "offsets rise");
        for (offset, record) in &found {
            let (key, value) = &self.sent[*offset];
            assert_eq!((record.key.as_ref(), &record.value), (Some(key), value), "offset {offset}");
            assert!(!self.gone.contains(offset), "offset {offset} came back");
        }
        for offset in self.log_start..end {
            if found.contains_key(&offset) {
                continue;
            }
            let (key, value) = &self.sent[offset];
            let is_superseded = self.sent[offset + 1..end].iter().any(|(later, _)| later == key);
            let kept_ms = rig.now.wall_ms - self.since_ms[&offset];
            let may_go = is_superseded || (value.is_none() && kept_ms > DELETE_RETENTION_MS);
            assert!(may_go, "offset {offset} of {key:?} is gone after {kept_ms} ms");
            let older = found.range(..offset).find(|(_, record)| record.key.as_ref() == Some(key));
            assert!(is_superseded || older.is_none(), "{key:?} is back at {older:?} after its tombstone went");
            self.gone.insert(offset);
        }
    }

    fn confirm(&mut self, rig: &Rig<MemoryDisk>) {
        let end = rig.log.high_watermark(QueueId(1)).0 as usize;
        for offset in self.confirmed..end {
            self.since_ms.insert(offset, rig.now.wall_ms);
        }
        self.confirmed = self.confirmed.max(end);
    }

    fn append(&mut self, rig: &mut Rig<MemoryDisk>, records: Vec<(u8, bool)>) {
        let base = self.sent.len();
        let batch = keyed(base, &records);
        for record in read_records(batch.bytes.clone()).expect("readable") {
            self.sent.push((record.key.expect("a key"), record.value));
        }
        assert_eq!(rig.append(1, batch).expect("in sequence").base_offset, Offset(base as i64));
        self.batches.push((base, records));
    }
}

fn begin_compaction(rig: &mut Rig<MemoryDisk>) -> bool {
    let is_due = rig.log.compaction_due().is_some();
    if is_due {
        let mut effects = Vec::new();
        rig.log.compact(rig.now, &mut effects);
        rig.take(effects);
    }
    is_due
}

async fn run(steps: Vec<Step>) {
    let disk = MemoryDisk::default();
    let mut rig = opened(&disk, None).await;
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Append(records) => model.append(&mut rig, records),
            Step::Settle => rig.settle().await,
            Step::SettleOne => rig.settle_one().await,
            Step::Compact => drop(begin_compaction(&mut rig)),
            Step::PassTime { ms } => rig.pass_time(Duration::from_millis(u64::from(ms))),
            Step::DeleteBelow { share } => {
                let end = rig.log.high_watermark(QueueId(1)).0;
                let before = end * i64::from(share) / 512;
                if before as usize > model.log_start {
                    rig.log.apply_log_start(QueueId(1), Offset(before));
                    model.log_start = before as usize;
                }
            }
            Step::Retry => {
                if let Some((base, records)) = model.batches.last().cloned() {
                    let retried = rig.append(1, keyed(base, &records));
                    let known = matches!(retried, Err(AppendError::Duplicate { base_offset, .. })
                        if base_offset == Offset(base as i64));
                    assert!(known, "a retry of offset {base}: {retried:?}");
                }
            }
            Step::Kill | Step::LosePower { .. } | Step::CompactAndKill { .. } => {
                let mut power = None;
                match step {
                    Step::CompactAndKill { changes, power: lost } => {
                        rig.settle().await;
                        power = lost;
                        begin_compaction(&mut rig);
                        disk.set_changes_left(Some(changes));
                        rig.settle().await;
                    }
                    Step::LosePower { seed } => power = Some(seed),
                    _ => {}
                }
                let now = rig.now;
                model.confirm(&rig);
                drop(rig);
                disk.set_changes_left(None);
                if let Some(seed) = power {
                    disk.lose_power(draws(seed));
                }
                rig = opened(&disk, None).await;
                rig.now = now;
                // The metadata log remembers it, and says it anew at a start.
                rig.log.apply_log_start(QueueId(1), Offset(model.log_start as i64));
                model.compare(&mut rig, true).await;
            }
        }
        model.compare(&mut rig, false).await;
    }
    rig.settle().await;
    model.compare(&mut rig, false).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_compaction_must_keep_survives_kills_and_power_losses(steps in prop::collection::vec(step(), 1..90)) {
        block_on(run(steps));
    }
}

async fn filled(rig: &mut Rig<MemoryDisk>, model: &mut Model) {
    for n in 0..120u8 {
        model.append(rig, vec![(n % 5, false), (n % 3, n % 7 == 0)]);
        rig.settle().await;
    }
}

#[test]
fn a_pass_frees_room_and_a_second_one_finds_nothing() {
    block_on(async {
        let disk = MemoryDisk::default();
        let (mut rig, mut model) = (opened(&disk, None).await, Model::default());
        filled(&mut rig, &mut model).await;
        let before = rig.log.stored_bytes();
        assert!(begin_compaction(&mut rig));
        rig.settle().await;
        model.compare(&mut rig, false).await;
        assert!(rig.log.stored_bytes() * 5 < before, "{} of {before}", rig.log.stored_bytes());
        assert_eq!(rig.log.compaction_due(), None);
        filled(&mut rig, &mut model).await;
        let segments = disk.paths(DIRECTORY, ".log").len();
        assert!(begin_compaction(&mut rig));
        rig.settle().await;
        model.compare(&mut rig, false).await;
        assert!(disk.paths(DIRECTORY, ".log").len() < segments * 2 / 3, "small segments are joined");
        for point in [points::COMPACTION_WRITTEN, points::COMPACTION_INDEXED, points::COMPACTION_SWAPPED] {
            assert!(heard(&rig, point) > 0, "{point}");
        }
        assert!(heard(&rig, points::COMPACTION_REMOVED) > 0);
    });
}

/// The index of a compacted segment is lost, and with it only what nothing else tells.
#[test]
fn a_compacted_segment_without_index_is_read_all_the_same() {
    block_on(async {
        let disk = MemoryDisk::default();
        let (mut rig, mut model) = (opened(&disk, None).await, Model::default());
        filled(&mut rig, &mut model).await;
        assert!(begin_compaction(&mut rig));
        rig.settle().await;
        drop(rig);
        disk.paths(DIRECTORY, ".index").iter().for_each(|path| disk.forget(path));
        let mut rig = opened(&disk, None).await;
        assert!(!rig.log.is_fenced(QueueId(1)));
        model.log_start = rig.log.log_start_offset(QueueId(1)).0 as usize;
        model.compare(&mut rig, true).await;
    });
}

#[test]
fn the_mutant_that_takes_tombstones_for_old_drops_them_at_once() {
    for (mutant, is_kept) in [(None, true), (Some(Mutant::TombstoneDroppedEarly), false)] {
        block_on(async {
            let disk = MemoryDisk::default();
            let (mut rig, mut model) = (opened(&disk, mutant).await, Model::default());
            model.append(&mut rig, vec![(9, false), (9, true)]);
            filled(&mut rig, &mut model).await;
            assert!(begin_compaction(&mut rig));
            rig.settle().await;
            let read = read_records(rig.read_all(1, Offset(0), 700).await.expect("sound")).expect("readable");
            assert_eq!(read[0].offset == Offset(1), is_kept, "{mutant:?}");
        });
    }
}
