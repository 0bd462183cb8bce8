//! Laws by property tests: what was confirmed survives any power loss, what is read is what was appended, a cut at any
//! byte leaves a prefix, and no flipped bit goes unnoticed.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::DIRECTORY;
use super::disk::MemoryDisk;
use super::rig::{Rig, batch, block_on, open};
use crate::core::batch::BatchHeader;
use crate::core::log::Flush;
use crate::core::types::{Offset, QueueId};

#[derive(Debug, Clone)]
enum Step {
    Append { queue: u64, records: usize, fill: u8 },
    Settle,
    SettleOne,
    FullDisk { queue: u64 },
    FailedSync,
    Kill,
    LosePower { seed: u64 },
    Read { queue: u64, bytes_max: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..4u64, 1..4usize, any::<u8>()).prop_map(|(queue, records, fill)| Step::Append { queue, records, fill }),
        3 => Just(Step::Settle),
        3 => Just(Step::SettleOne),
        1 => (1..4u64).prop_map(|queue| Step::FullDisk { queue }),
        1 => Just(Step::FailedSync),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(|seed| Step::LosePower { seed }),
        1 => (1..4u64, 1..2000usize).prop_map(|(queue, bytes_max)| Step::Read { queue, bytes_max }),
    ]
}

/// What the test knows of a queue: its batches as sent, behind their 21 bytes, and how far they were confirmed.
#[derive(Default)]
struct Model {
    batches: Vec<(Offset, Bytes)>,
    next: Offset,
    confirmed: Offset,
}

pub(super) fn draws(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    }
}

/// Compares all that a queue gives with what was sent; what is gone must not have been confirmed.
async fn compare(rig: &mut Rig<MemoryDisk>, model: &mut BTreeMap<u64, Model>, bytes_max: usize, restarted: bool) {
    for (queue, known) in model {
        let end = rig.log.high_watermark(QueueId(*queue));
        assert!(end >= known.confirmed, "queue {queue} lost confirmed records: {end} < {}", known.confirmed);
        if restarted {
            assert_eq!(end, rig.log.log_end_offset(QueueId(*queue)), "all that was recovered counts");
            known.batches.retain(|(base, _)| *base < end);
            known.next = end;
        }
        known.confirmed = end;
        let mut stored = rig.read_all(*queue, Offset(0), bytes_max).await.expect("nothing is corrupt");
        for (base, sent) in known.batches.iter().filter(|(base, _)| *base < end) {
            let header = BatchHeader::decode(&stored).expect("a batch is there");
            assert_eq!(header.base_offset, *base);
            let found = stored.split_to(header.batch_bytes());
            assert_eq!(found.slice(21..), sent, "queue {queue} offset {base}");
        }
        assert!(stored.is_empty(), "queue {queue} gives more than was sent");
    }
}

async fn run(steps: Vec<Step>, flush: Flush) {
    let disk = MemoryDisk::default();
    let mut rig = open(&disk, flush, None).await;
    let mut model = BTreeMap::<u64, Model>::new();
    for step in steps {
        match step {
            Step::Append { queue, records, fill } => {
                let known = model.entry(queue).or_default();
                let sent = batch(known.next.0 as i32, &vec![1; records], fill);
                let appended = rig.append(queue, sent.clone()).expect("in sequence");
                assert_eq!(appended.base_offset, known.next);
                known.batches.push((known.next, sent.bytes.slice(21..)));
                known.next = known.next.plus(records as i64);
            }
            Step::Settle => rig.settle().await,
            Step::SettleOne => rig.settle_one().await,
            Step::FullDisk { queue } => {
                rig.settle().await;
                let known = model.entry(queue).or_default();
                disk.set_full(true);
                rig.append(queue, batch(known.next.0 as i32, &[1, 1], 200)).expect("the error comes with the write");
                disk.set_full(false);
                assert!(!rig.log.is_online());
                for _ in 0..2 {
                    // Twice, as a sync under way defers the reopening.
                    rig.pass_time(std::time::Duration::from_secs(1));
                    rig.settle().await;
                }
                assert!(rig.log.is_online());
                compare(&mut rig, &mut model, 300, true).await;
            }
            Step::FailedSync => {
                disk.set_sync_fails(true);
                rig.settle().await;
                for (queue, known) in &mut model {
                    known.confirmed = rig.log.high_watermark(QueueId(*queue));
                }
                drop(rig);
                disk.set_sync_fails(false);
                rig = open(&disk, flush, None).await;
                compare(&mut rig, &mut model, 900, true).await;
            }
            Step::Read { queue, bytes_max } => {
                if model.contains_key(&queue) {
                    compare(&mut rig, &mut model, bytes_max, false).await;
                }
            }
            Step::Kill | Step::LosePower { .. } => {
                for (queue, known) in &mut model {
                    known.confirmed = rig.log.high_watermark(QueueId(*queue));
                }
                drop(rig);
                if let (Step::LosePower { seed }, Flush::Ack) = (step, flush) {
                    disk.lose_power(draws(seed));
                }
                rig = open(&disk, flush, None).await;
                compare(&mut rig, &mut model, 700, true).await;
            }
        }
    }
    rig.settle().await;
    compare(&mut rig, &mut model, 500, false).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// `flush=ack`: kills and power losses, which tear unsynced sectors, never cost what was confirmed.
    #[test]
    fn confirmed_records_survive_power_loss(steps in prop::collection::vec(step(), 1..60)) {
        block_on(run(steps, Flush::Ack));
    }

    /// `flush=os`: process kills never cost what was confirmed.
    #[test]
    fn written_records_survive_a_kill(steps in prop::collection::vec(step(), 1..60)) {
        block_on(run(steps, Flush::Os));
    }
}

async fn filled() -> (MemoryDisk, Vec<u8>, Vec<usize>) {
    let disk = MemoryDisk::default();
    let mut rig = open(&disk, Flush::Os, None).await;
    let mut ends = Vec::new();
    for n in 0..6 {
        let appended = rig.append(1, batch(n, &[1], n as u8)).expect("in sequence");
        ends.push(appended.end.0 as usize);
    }
    let path = disk.paths(DIRECTORY, ".log").remove(0);
    let bytes = disk.contents(&path);
    (disk, bytes, ends)
}

#[test]
fn a_file_cut_at_any_byte_keeps_the_batches_before_it() {
    block_on(async {
        let (disk, bytes, ends) = filled().await;
        let path = disk.paths(DIRECTORY, ".log").remove(0);
        for cut in 0..=bytes.len() {
            disk.set_contents(&path, &bytes[..cut]);
            let mut rig = open(&disk, Flush::Os, None).await;
            let kept = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(rig.log.log_end_offset(QueueId(1)), Offset(kept as i64), "cut at {cut}");
            let read = rig.read_all(1, Offset(0), 100_000).await.expect("readable");
            assert_eq!(read.len() + kept * 40, kept.checked_sub(1).map_or(0, |n| ends[n]));
            rig.append(1, batch(kept as i32, &[1], 77)).expect("the log goes on");
            assert_eq!(rig.log.log_end_offset(QueueId(1)), Offset(kept as i64 + 1));
        }
    });
}

/// Every batch is synced and a mark names that, so whatever bit flips: the queue is whole, or fenced, never shorter.
#[test]
fn no_flipped_bit_below_a_synced_position_shortens_a_queue() {
    block_on(async {
        let disk = MemoryDisk::default();
        let mut rig = open(&disk, Flush::Ack, None).await;
        for n in 0..3 {
            rig.append(1, batch(n, &[1], n as u8)).expect("in sequence");
            rig.append(2, batch(n, &[1], n as u8)).expect("in sequence");
            rig.settle().await;
        }
        rig.pass_time(std::time::Duration::from_secs(1));
        rig.settle().await;
        drop(rig);
        let path = disk.paths(DIRECTORY, ".log").remove(0);
        let bytes = disk.contents(&path);
        let mut served = 0;
        for at in 0..bytes.len() - 40 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            disk.set_contents(&path, &flipped);
            let rig = open(&disk, Flush::Ack, None).await;
            let state = [1, 2].map(|q| (rig.log.is_fenced(QueueId(q)), rig.log.log_end_offset(QueueId(q))));
            assert!(state[0].0 || state[1].0, "byte {at}: {state:?}");
            for (fenced, end) in state {
                assert!(fenced || end == Offset(3), "byte {at}: {state:?}");
                served += u32::from(!fenced);
            }
        }
        assert!(served > 100, "a bad batch fences its own queue only; served {served}");
    });
}
