//! Facts and laws of storage: a log on a store, over a disk in memory that loses power, and over a real one.

mod compaction;
pub(crate) mod disk;
mod laws;
mod replicas;
mod rig;

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::{OpenError, Store, StoreSettings};
use crate::core::batch::{Batch, earliest_record_at_or_past};
use crate::core::log::{
    AppendError, DiskEffect, DiskEvent, Flush, Halt, LogSettings, ReadError, ReadFailure, ReadPiece, TimestampLookup,
};
use crate::core::types::{LeaderEpoch, LogId, Offset, QueueId};
use crate::mutant::Mutant;
use crate::points;
use crate::ports::Disk;
use crate::real::disk::RealDisk;
use disk::{Heard, MemoryDisk};
use rig::{ReadBack, Rig, batch, block_on, heard, open, settings};

const DIRECTORY: &str = "logs/1/";

/// Appends `count` batches of two records to queue 1, settling each; gives them as stored.
async fn fill(rig: &mut Rig<MemoryDisk>, from: i32, count: i32) {
    for n in from..from + count {
        rig.append(1, batch(n * 2, &[1, 2], n as u8)).expect("in sequence");
        rig.settle().await;
    }
}

#[test]
fn under_flush_ack_nothing_counts_before_its_sync_and_one_sync_serves_all_that_wait() {
    block_on(async {
        let mut rig = open(&MemoryDisk::default(), Flush::Ack, None).await;
        let first = rig.append(1, batch(0, &[1, 2], 1)).expect("accepted");
        let second = rig.append(2, batch(0, &[1], 1)).expect("accepted");
        let third = rig.append(1, batch(2, &[1], 1)).expect("accepted");
        assert_eq!(rig.held.len(), 1, "one sync is under way, the others wait for it");
        assert!(rig.log.counted_position() < first.end);
        assert_eq!(rig.log.high_watermark(QueueId(1)), Offset(0));
        let effect = rig.held.remove(0);
        let event = rig.store.start(effect).await;
        let progress = rig.log.on_disk_event(event, rig.now, &mut rig.held);
        assert_eq!((progress.counted, progress.advanced), (first.end, vec![QueueId(1)]));
        assert_eq!(rig.held.len(), 1, "the second sync serves both that waited");
        assert!(second.end < third.end);
        rig.settle().await;
        assert_eq!(rig.log.counted_position(), third.end);
        assert_eq!((rig.log.high_watermark(QueueId(1)), rig.log.high_watermark(QueueId(2))), (Offset(3), Offset(1)));
        assert_eq!(heard(&rig, points::SYNC), 2);
    });
}

#[test]
fn the_mutant_that_acks_before_sync_loses_what_it_confirmed() {
    for (mutant, kept) in [(None, true), (Some(Mutant::AckBeforeSync), false)] {
        block_on(async {
            let disk = MemoryDisk::default();
            let mut rig = open(&disk, Flush::Ack, mutant).await;
            fill(&mut rig, 0, 1).await;
            let appended = rig.append(1, batch(2, &[1, 2], 9)).expect("accepted");
            let confirmed = rig.log.counted_position() >= appended.end;
            drop(rig);
            disk.lose_power(|_| 0);
            let rig = open(&disk, Flush::Ack, mutant).await;
            assert_eq!(!confirmed || rig.log.log_end_offset(QueueId(1)) == Offset(4), kept, "{mutant:?}");
        });
    }
}

#[test]
fn the_mutant_that_forgets_the_directory_loses_what_follows_a_roll() {
    for (mutant, kept) in [(None, true), (Some(Mutant::DirectoryNotSynced), false)] {
        block_on(async {
            let disk = MemoryDisk::default();
            let mut rig = open(&disk, Flush::Ack, mutant).await;
            fill(&mut rig, 0, 40).await;
            assert!(heard(&rig, points::SEGMENT_ROLL) > 1);
            assert_eq!(rig.log.high_watermark(QueueId(1)), Offset(80));
            drop(rig);
            disk.lose_power(|_| 0);
            let rig = open(&disk, Flush::Ack, mutant).await;
            assert_eq!(rig.log.log_end_offset(QueueId(1)) == Offset(80), kept, "{mutant:?}");
        });
    }
}

#[test]
fn retries_are_recognised_across_a_restart_also_of_sealed_batches() {
    for (mutant, recognised) in [(None, true), (Some(Mutant::WindowNotRecovered), false)] {
        block_on(async {
            let disk = MemoryDisk::default();
            let mut rig = open(&disk, Flush::Ack, mutant).await;
            fill(&mut rig, 0, 20).await;
            drop(rig);
            let mut rig = open(&disk, Flush::Ack, mutant).await;
            for n in 15..20 {
                let retried = rig.append(1, batch(n * 2, &[1, 2], n as u8));
                let duplicate = matches!(retried, Err(AppendError::Duplicate { base_offset, .. })
                    if base_offset == Offset(i64::from(n) * 2));
                assert_eq!(duplicate, recognised, "{mutant:?} {n} {retried:?}");
            }
        });
    }
}

#[test]
fn the_mutant_that_forgets_idle_producers_takes_a_retry_for_new() {
    for (mutant, appended_twice) in [(None, false), (Some(Mutant::ProducerExpiresEarly), true)] {
        block_on(async {
            let mut rig = open(&MemoryDisk::default(), Flush::Ack, mutant).await;
            fill(&mut rig, 0, 1).await;
            rig.pass_time(Duration::from_millis(300));
            assert_eq!(rig.append(1, batch(0, &[1, 2], 0)).is_ok(), appended_twice, "{mutant:?}");
        });
    }
}

#[test]
fn rolled_segments_are_sealed_and_recovered_without_scanning_them() {
    block_on(async {
        let disk = MemoryDisk::default();
        let mut rig = open(&disk, Flush::Os, None).await;
        rig.append(7, batch(0, &[50], 3)).expect("accepted");
        fill(&mut rig, 0, 20).await;
        let stored = rig.read_all(1, Offset(0), 300).await.expect("readable");
        let segments = disk.paths(DIRECTORY, ".log").len();
        assert_eq!(disk.paths(DIRECTORY, ".index").len(), segments - 1);
        let end = rig.log.end_position();
        drop(rig);
        let (_store, node) =
            Store::open(disk.clone(), Heard::default(), None, StoreSettings::default()).await.expect("opens");
        let recovered = &node.logs[&LogId(1)];
        assert_eq!((recovered.segments.len(), recovered.end), (segments, end));
        assert!(recovered.report.scanned_bytes <= 2048, "only the active segment is scanned");
        drop((_store, node));
        let mut rig = open(&disk, Flush::Os, None).await;
        assert_eq!(rig.read_all(1, Offset(0), 10_000).await, Ok(stored));
        assert_eq!(rig.log.log_end_offset(QueueId(7)), Offset(1));
        for path in disk.paths(DIRECTORY, ".index") {
            let mut bytes = disk.contents(&path);
            bytes[30] ^= 1;
            disk.set_contents(&path, &bytes);
        }
        drop(rig);
        let mut rig = open(&disk, Flush::Os, None).await;
        assert_eq!(rig.read_all(1, Offset(0), 10_000).await.map(|b| b.len() > 2048), Ok(true), "an index is rebuilt");
        assert_eq!(rig.log.log_end_offset(QueueId(1)), Offset(40));
    });
}

/// A power loss under `flush=os` can leave an empty segment and, behind a gap, another one. The empty one must stay open:
/// sealed, it was followed by a segment of the same base, and retention removed the file of both.
#[test]
fn a_segment_that_was_cut_to_nothing_is_gone_on_with() {
    block_on(async {
        let disk = MemoryDisk::default();
        let mut settings = settings(Flush::Os);
        let mut rig = Rig::open(disk.clone(), settings.clone(), None).await.expect("opens");
        fill(&mut rig, 0, 20).await;
        drop(rig);
        let newest = disk.paths(DIRECTORY, ".log").pop().expect("there are segments");
        disk.set_contents(&newest, &[]);
        let base: u64 = newest[DIRECTORY.len()..].trim_end_matches(".log").parse().expect("a base");
        disk.open(&format!("{DIRECTORY}{:020}.log", base + 500), true).expect("created");
        settings.retention_bytes = Some(2048);
        let mut rig = Rig::open(disk.clone(), settings.clone(), None).await.expect("opens");
        assert_eq!(rig.log.end_position().0, base);
        let begin = rig.log.log_end_offset(QueueId(1)).0 as i32 / 2;
        fill(&mut rig, begin, 18).await;
        rig.pass_time(Duration::from_secs(120));
        rig.settle().await;
        assert!(heard(&rig, points::SEGMENT_REMOVED) > 0);
        let (start, end) = (rig.log.log_start_offset(QueueId(1)), rig.log.log_end_offset(QueueId(1)));
        drop(rig);
        let mut rig = Rig::open(disk.clone(), settings, None).await.expect("opens");
        assert_eq!((rig.log.log_start_offset(QueueId(1)), rig.log.log_end_offset(QueueId(1))), (start, end));
        assert!(rig.read_all(1, start, 10_000).await.is_ok());
    });
}

#[test]
fn retention_moves_log_starts_and_an_idle_queue_keeps_its_offsets() {
    block_on(async {
        let disk = MemoryDisk::default();
        let mut settings = settings(Flush::Ack);
        settings.retention_bytes = Some(2048);
        let mut rig = Rig::open(disk.clone(), settings.clone(), None).await.expect("opens");
        rig.append(7, batch(0, &[50, 60], 3)).expect("accepted");
        fill(&mut rig, 0, 40).await;
        rig.pass_time(Duration::from_secs(120));
        rig.settle().await;
        let start = rig.log.log_start_offset(QueueId(1));
        assert!(start > Offset(0) && start < Offset(80), "{start}");
        assert_eq!((rig.log.log_start_offset(QueueId(7)), rig.log.log_end_offset(QueueId(7))), (Offset(2), Offset(2)));
        let below = rig.log.read(QueueId(1), Offset(start.0 - 1), 100, true);
        assert!(matches!(below, Err(ReadError::OffsetOutOfRange { .. })), "{below:?}");
        assert!(heard(&rig, points::SEGMENT_REMOVED) > 0);
        drop(rig);
        disk.lose_power(|_| 0);
        let mut rig = Rig::open(disk.clone(), settings, None).await.expect("opens");
        assert_eq!((rig.log.log_start_offset(QueueId(7)), rig.log.log_end_offset(QueueId(7))), (Offset(2), Offset(2)));
        assert_eq!((rig.log.log_start_offset(QueueId(1)), rig.log.log_end_offset(QueueId(1))), (start, Offset(80)));
        let retried = rig.append(7, batch(0, &[50, 60], 3));
        assert!(matches!(retried, Err(AppendError::Duplicate { base_offset: Offset(0), .. })), "{retried:?}");
        assert!(!rig.log.is_fenced(QueueId(99)));
    });
}

#[test]
fn what_is_above_the_size_kept_goes_when_a_segment_is_sealed_and_not_only_at_the_next_look() {
    block_on(async {
        let mut settings = settings(Flush::Ack);
        settings.retention_bytes = Some(4096);
        let disk = MemoryDisk::default();
        let mut rig = Rig::open(disk.clone(), settings, None).await.expect("opens");
        for round in 0..40 {
            fill(&mut rig, round * 4, 4).await;
            let stored = rig.log.stored_bytes();
            assert!(stored <= 4096 + 2 * 2048 + 1024, "{stored} bytes are left in round {round}");
        }
        assert!(heard(&rig, points::SEGMENT_REMOVED) > 10);
        for sequence in 320..400 {
            rig.append(1, batch(sequence, &[1], 3)).expect("accepted");
        }
        disk.set_full(true);
        for _ in 0..100 {
            rig.settle_one().await;
        }
        assert_eq!(rig.held.len(), 0, "what cannot be sealed is not tried again and again");
    });
}

#[test]
fn a_log_whose_every_segment_expired_keeps_its_offsets() {
    block_on(async {
        let disk = MemoryDisk::default();
        let mut settings = settings(Flush::Ack);
        settings.retention_ms = Some(1000);
        let mut rig = Rig::open(disk.clone(), settings.clone(), None).await.expect("opens");
        fill(&mut rig, 0, 3).await;
        for _ in 0..3 {
            rig.pass_time(Duration::from_secs(60));
            rig.settle().await;
        }
        assert_eq!(disk.paths(DIRECTORY, ".log").len(), 0);
        drop(rig);
        let mut rig = Rig::open(disk.clone(), settings, None).await.expect("opens");
        assert_eq!((rig.log.log_start_offset(QueueId(1)), rig.log.log_end_offset(QueueId(1))), (Offset(6), Offset(6)));
        fill(&mut rig, 3, 1).await;
        assert_eq!(rig.log.high_watermark(QueueId(1)), Offset(8));
    });
}

#[test]
fn a_full_disk_takes_the_log_offline_and_recovery_brings_it_back_with_all_that_was_confirmed() {
    block_on(async {
        let disk = MemoryDisk::default();
        let mut rig = open(&disk, Flush::Ack, None).await;
        fill(&mut rig, 0, 3).await;
        disk.set_full(true);
        let unconfirmed = rig.append(1, batch(6, &[1, 2], 3)).expect("the error comes with the write");
        assert!(rig.progress.last().is_some_and(|p| p.went_offline && p.halt.is_none()));
        assert_eq!(rig.append(1, batch(8, &[1], 4)), Err(AppendError::Offline));
        rig.settle().await;
        assert!(rig.log.counted_position() < unconfirmed.end);
        disk.set_full(false);
        rig.pass_time(Duration::from_secs(1));
        rig.settle().await;
        assert!(rig.progress.last().is_some_and(|p| p.came_online));
        assert_eq!(rig.log.high_watermark(QueueId(1)), Offset(6));
        fill(&mut rig, 3, 1).await;
        assert_eq!(rig.log.high_watermark(QueueId(1)), Offset(8));
        assert_eq!(heard(&rig, points::DISK_FULL), 1);
        assert_eq!(rig.read_all(1, Offset(0), 100).await.map(|b| b.len() > 400), Ok(true));
    });
}

#[test]
fn after_a_failed_sync_the_node_halts_and_a_restart_makes_durable_what_it_serves() {
    block_on(async {
        let disk = MemoryDisk::default();
        let mut rig = open(&disk, Flush::Ack, None).await;
        fill(&mut rig, 0, 2).await;
        disk.set_sync_fails(true);
        let appended = rig.append(1, batch(4, &[1, 2], 2)).expect("accepted");
        rig.settle().await;
        let halt = rig.progress.last().and_then(|p| p.halt.clone());
        assert_eq!(halt, Some(Halt::SyncFailed { log: LogId(1), kind: io::ErrorKind::Other }));
        assert!(rig.log.counted_position() < appended.end);
        drop(rig);
        disk.set_sync_fails(false);
        let rig = open(&disk, Flush::Ack, None).await;
        assert_eq!(rig.log.high_watermark(QueueId(1)), Offset(6));
        drop(rig);
        disk.lose_power(|_| 0);
        let rig = open(&disk, Flush::Ack, None).await;
        assert_eq!(rig.log.high_watermark(QueueId(1)), Offset(6), "what was served survives");
    });
}

#[test]
fn corruption_under_a_read_fences_the_queue_and_only_that() {
    for (mutant, refused) in [(None, true), (Some(Mutant::ChecksumNotVerified), false)] {
        block_on(async {
            let disk = MemoryDisk::default();
            let mut rig = open(&disk, Flush::Ack, mutant).await;
            rig.append(7, batch(0, &[50], 3)).expect("accepted");
            fill(&mut rig, 0, 8).await;
            let path = &disk.paths(DIRECTORY, ".log")[0];
            let mut bytes = disk.contents(path);
            bytes[240] ^= 4;
            disk.set_contents(path, &bytes);
            let read = rig.read_all(1, Offset(0), 10_000).await;
            let corrupt = matches!(read, Err(ReadBack::Failed(ReadFailure::Corrupt { queue: QueueId(1), .. })));
            assert_eq!((corrupt, read.is_ok()), (refused, !refused), "{mutant:?}");
            assert_eq!(rig.log.is_fenced(QueueId(1)), refused);
            if refused {
                assert_eq!(rig.append(1, batch(16, &[1], 1)), Err(AppendError::QueueFenced));
                assert_eq!(rig.log.read(QueueId(1), Offset(0), 1, true), Err(ReadError::QueueFenced));
            }
            assert!(rig.read_all(7, Offset(0), 100).await.is_ok());
        });
    }
}

#[test]
fn a_queue_among_many_is_read_in_few_pieces_and_rot_in_between_does_not_concern_it() {
    block_on(async {
        let disk = MemoryDisk::default();
        let large = LogSettings { segment_bytes: 4 << 20, tail_cache_bytes: 0, ..settings(Flush::Os) };
        let mut rig = Rig::open(disk.clone(), large, None).await.expect("the folder opens");
        for number in 0..100 {
            for queue in 1..=3 {
                rig.append(queue, batch(number, &[i64::from(number)], 9)).expect("accepted");
            }
        }
        rig.settle().await;
        let plan = rig.log.read(QueueId(2), Offset(0), 1 << 20, true).expect("readable");
        assert_eq!((plan.pieces.len(), plan.next_offset, plan.is_cut), (1, Offset(100), false));
        let intact = rig.read_all(2, Offset(0), 1 << 20).await.expect("readable");
        assert_eq!(intact, rig.read_all(2, Offset(0), 1).await.expect("readable"), "as if read one by one");
        let path = &disk.paths(DIRECTORY, ".log")[0];
        let mut bytes = disk.contents(path);
        let frame = bytes.len() / 300;
        bytes[frame * 30 + frame / 2] ^= 1;
        disk.set_contents(path, &bytes);
        assert_eq!(rig.read_all(2, Offset(0), 1 << 20).await.expect("readable"), intact);
        assert!(!rig.log.is_fenced(QueueId(2)));
        assert!(rig.read_all(1, Offset(0), 1 << 20).await.is_err(), "the rotten frame was of queue 1");
        // More than is worth reading along ends the plan, and the next one goes on.
        for number in 100..180 {
            rig.append(2, batch(number, &[0], 9)).expect("accepted");
            for other in 0..200 {
                rig.append(3, batch(100 + (number - 100) * 200 + other, &[0], 9)).expect("accepted");
            }
        }
        rig.settle().await;
        let plan = rig.log.read(QueueId(2), Offset(100), 1 << 20, true).expect("readable");
        assert!(plan.is_cut && plan.next_offset > Offset(100) && plan.next_offset < Offset(180), "{plan:?}");
        assert!(rig.read_all(2, Offset(100), 1 << 20).await.is_ok());
    });
}

#[test]
fn a_segment_that_is_gone_although_its_index_proves_it_durable_fences_the_log() {
    block_on(async {
        let disk = MemoryDisk::default();
        let mut rig = open(&disk, Flush::Ack, None).await;
        fill(&mut rig, 0, 40).await;
        drop(rig);
        let paths = disk.paths(DIRECTORY, ".log");
        for gone in [1, 2] {
            // The active segment, whose loss nothing on disk can prove, then a sealed one.
            for path in &paths[paths.len() - gone..] {
                disk.forget(path);
            }
            let indexes = disk.paths(DIRECTORY, ".index").len();
            let rig = open(&disk, Flush::Ack, None).await;
            let lost_sealed = indexes > disk.paths(DIRECTORY, ".log").len();
            assert_eq!(rig.log.is_fenced(QueueId(1)), lost_sealed, "{gone} gone");
            assert_eq!(rig.log.is_fenced(QueueId(9)), lost_sealed, "a queue that may have been in it");
            drop(rig);
        }
    });
}

#[test]
fn the_mutant_that_keeps_a_torn_tail_loses_what_it_appends_behind() {
    for (mutant, kept) in [(None, true), (Some(Mutant::TornTailKept), false)] {
        block_on(async {
            let disk = MemoryDisk::default();
            let mut rig = open(&disk, Flush::Ack, mutant).await;
            fill(&mut rig, 0, 2).await;
            rig.append(1, batch(4, &[1, 2], 40)).expect("accepted");
            drop(rig);
            // A torn tail: the file has its new length, and zeros where the bytes should be.
            disk.lose_power(|bound| if bound == 2 { 0 } else { bound - 1 });
            let mut rig = open(&disk, Flush::Ack, mutant).await;
            assert_eq!(rig.log.high_watermark(QueueId(1)), Offset(4));
            fill(&mut rig, 2, 2).await;
            assert_eq!(rig.log.high_watermark(QueueId(1)), Offset(8));
            drop(rig);
            let rig = open(&disk, Flush::Ack, mutant).await;
            assert_eq!(rig.log.high_watermark(QueueId(1)) == Offset(8), kept, "{mutant:?}");
        });
    }
}

#[test]
fn lookup_by_timestamp_finds_the_earliest_record_also_where_time_runs_back() {
    block_on(async {
        let mut rig = open(&MemoryDisk::default(), Flush::Ack, None).await;
        let stamps: [&[i64]; 4] = [&[10, 30, 20], &[5, 6], &[40, 15], &[35, 50]];
        let mut sequence = 0;
        for batch_stamps in stamps {
            rig.append(1, batch(sequence, batch_stamps, 1)).expect("accepted");
            sequence += batch_stamps.len() as i32;
        }
        rig.settle().await;
        let all = stamps.concat();
        for deleted in [0, 1, 2, 4, 7] {
            rig.log.apply_log_start(QueueId(1), Offset(deleted));
            for wanted in 0..=51 {
                let from = rig.log.log_start_offset(QueueId(1));
                let found = match rig.log.offset_for_timestamp(QueueId(1), wanted, from).expect("not fenced") {
                    TimestampLookup::None => None,
                    TimestampLookup::InBatch { mut pieces, mut next_offset } => loop {
                        let mut bytes = Vec::new();
                        for piece in pieces {
                            match piece {
                                ReadPiece::Cached(part) => bytes.extend_from_slice(&part),
                                ReadPiece::OnDisk(_) => panic!("the tail cache holds it all"),
                            }
                        }
                        let found = earliest_record_at_or_past(bytes.into(), wanted, from).expect("readable");
                        if found.is_some() {
                            break found;
                        }
                        match rig.log.offset_for_timestamp(QueueId(1), wanted, next_offset).expect("not fenced") {
                            TimestampLookup::None => break None,
                            TimestampLookup::InBatch { pieces: p, next_offset: n } => (pieces, next_offset) = (p, n),
                        }
                    },
                };
                let expected = (deleted as usize..all.len()).find(|i| all[*i] >= wanted);
                assert_eq!(found, expected.map(|i| (Offset(i as i64), all[i])), "from {deleted}, at {wanted}");
            }
        }
    });
}

#[test]
fn a_folder_in_use_newer_or_with_unreadable_metadata_is_refused() {
    block_on(async {
        let disk = MemoryDisk::default();
        let mut rig = open(&disk, Flush::Ack, None).await;
        let locked = Rig::open(disk.clone(), settings(Flush::Ack), None).await.err();
        assert!(matches!(locked, Some(OpenError::Locked)), "{locked:?}");
        write_snapshots(&mut rig, false).await;
        drop(rig);
        let reopen = || Store::open(disk.clone(), Heard::default(), None, StoreSettings::default());
        let paths = disk.paths("metadata/", ".snapshot");
        assert_eq!(paths.len(), 2, "{paths:?}");
        for (intact, expected) in [("00003", "snapshot 00003"), ("00002", "snapshot 00002")] {
            let (_, node) = reopen().await.expect("opens");
            let found = node.metadata_snapshot.expect("there is one");
            assert_eq!(found, (intact.to_string(), Bytes::from(expected)));
            disk.set_contents(&format!("metadata/{intact}.snapshot"), b"MQS1 and nothing that fits");
        }
        assert!(matches!(reopen().await.err(), Some(OpenError::SnapshotsUnreadable { newest }) if newest == "00003"));
        for newer in ["mqassay-broker 4\n".to_owned(), "mqassay-broker 4\n".repeat(3)] {
            disk.set_contents("format", newer.as_bytes());
            assert!(matches!(reopen().await.err(), Some(OpenError::NewerFormat { found: 4, supported: 3 })));
        }
        disk.set_contents("format", b"");
        assert!(matches!(reopen().await.err(), Some(OpenError::FormatUnreadable)));
    });
}

#[test]
fn a_snapshot_that_supersedes_leaves_none_to_fall_back_to() {
    block_on(async {
        let disk = MemoryDisk::default();
        let mut rig = open(&disk, Flush::Ack, None).await;
        write_snapshots(&mut rig, true).await;
        drop(rig);
        assert_eq!(disk.paths("metadata/", ".snapshot"), ["metadata/00003.snapshot"]);
        disk.set_contents("metadata/00003.snapshot", b"MQS1 and nothing that fits");
        let opened = Store::open(disk.clone(), Heard::default(), None, StoreSettings::default()).await;
        assert!(matches!(opened.err(), Some(OpenError::SnapshotsUnreadable { newest }) if newest == "00003"));
    });
}

/// Three snapshots; the last supersedes those before, or none does.
async fn write_snapshots(rig: &mut Rig<MemoryDisk>, last_supersedes: bool) {
    for name in ["00001", "00002", "00003"] {
        let bytes = Bytes::from(format!("snapshot {name}"));
        let supersedes = last_supersedes && name == "00003";
        let written = DiskEffect::WriteSnapshot { name: name.to_string(), supersedes, bytes };
        let event = rig.store.start(written).await;
        assert_eq!(event, DiskEvent::SnapshotWritten { name: name.to_string(), result: Ok(()) });
    }
}

#[test]
fn a_flipped_bit_does_not_cost_the_folder_its_format() {
    block_on(async {
        let disk = MemoryDisk::default();
        let reopen = || Store::open(disk.clone(), Heard::default(), None, StoreSettings::default());
        drop(reopen().await.expect("opens"));
        let intact = disk.contents("format");
        for bit in 0..intact.len() * 8 {
            let mut rotten = intact.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            disk.set_contents("format", &rotten);
            drop(reopen().await.unwrap_or_else(|error| panic!("bit {bit}: {error}")));
            assert_eq!(disk.contents("format"), intact, "bit {bit}");
        }
        // As it was written before there were copies.
        disk.set_contents("format", b"mqassay-broker 3\n");
        drop(reopen().await.expect("opens"));
        assert_eq!(disk.contents("format"), intact);
    });
}

#[test]
fn a_flipped_bit_in_the_newest_batch_is_rot_and_no_torn_write() {
    block_on(async {
        let disk = MemoryDisk::default();
        let mut rig = open(&disk, Flush::Ack, None).await;
        rig.append(1, batch(0, &[50], 3)).expect("accepted");
        rig.settle().await;
        drop(rig);
        let path = disk.paths(DIRECTORY, ".log").remove(0);
        let intact = disk.contents(&path);
        // Below the frame's length and behind: a length that rots beyond the file's end looks torn.
        for byte in (0..4).chain(8..intact.len()) {
            let mut rotten = intact.clone();
            rotten[byte] ^= 1 << (byte % 8);
            disk.set_contents(&path, &rotten);
            let rig = open(&disk, Flush::Ack, None).await;
            assert!(rig.log.is_fenced(QueueId(1)), "byte {byte} of {}", intact.len());
            assert_eq!(disk.contents(&path), rotten, "nothing is cut");
        }
    });
}

#[test]
fn the_metadata_log_comes_back_batch_by_batch() {
    block_on(async {
        let disk = MemoryDisk::default();
        let reopen = || Store::open(disk.clone(), Heard::default(), None, StoreSettings::default());
        let (mut store, node) = reopen().await.expect("opens");
        let mut log = crate::core::log::Log::recovered(settings(Flush::Ack), None, node.metadata, Default::default());
        for n in 0..3u8 {
            let mut effects = Vec::new();
            let batch = Batch::of_values(&[Bytes::from(vec![n; 3])], 77);
            log.append(QueueId::METADATA, batch, LeaderEpoch(0), Default::default(), &mut effects).expect("accepted");
            log.request_sync(&mut effects);
            let mut events = store.perform(&mut effects);
            for effect in effects {
                events.push(store.start(effect).await);
            }
            for event in events {
                log.on_disk_event(event, Default::default(), &mut Vec::new());
            }
        }
        drop(store);
        disk.lose_power(|_| 0);
        let (_, node) = reopen().await.expect("opens");
        let values: Vec<_> = node
            .metadata_batches
            .into_iter()
            .flat_map(|b| {
                crate::core::batch::read_records(b).expect("intact").into_iter().map(|r| (r.offset.0, r.value))
            })
            .collect();
        let expected: Vec<_> = (0..3u8).map(|n| (i64::from(n), Some(Bytes::from(vec![n; 3])))).collect();
        assert_eq!(values, expected);
    });
}

#[test]
fn a_real_disk_keeps_what_was_confirmed_and_is_locked_while_open() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let disk = RealDisk::open(folder.path()).expect("opens");
        let mut rig = Rig::open(disk.clone(), settings(Flush::Ack), None).await.expect("opens");
        for n in 0..20 {
            rig.append(1, batch(n * 2, &[1, 2], n as u8)).expect("in sequence");
        }
        rig.settle().await;
        let stored = rig.read_all(1, Offset(0), 500).await.expect("readable");
        let locked = Rig::open(RealDisk::open(folder.path()).expect("opens"), settings(Flush::Ack), None).await.err();
        assert!(matches!(locked, Some(OpenError::Locked)), "{locked:?}");
        drop(rig);
        let mut rig = Rig::open(disk, settings(Flush::Ack), None).await.expect("opens");
        assert_eq!(rig.log.high_watermark(QueueId(1)), Offset(40));
        assert_eq!(rig.read_all(1, Offset(0), 100_000).await, Ok(stored));
        let mut effects = Vec::new();
        let Rig { mut store, log, .. } = rig;
        log.remove(&mut effects);
        assert_eq!(store.perform(&mut effects), Vec::new());
        assert!(!folder.path().join("logs/1").exists());
    });
}
