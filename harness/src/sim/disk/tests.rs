//! Every rule of the simulated drive: a model against it, and one test for each fault.
//! The model keeps whole images, the durable and the volatile, where the drive keeps only differing sectors.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Drive, DriveOptions, PowerLossSummary, SECTOR_BYTES, SimDisk, SimFile};
use crate::plan::DiskOperation;
use crate::plan::draws::Draws;
use crate::sim::clock::SimTime;
use crate::sim::counters::Counters;
use crate::sim::trace::Trace;

fn drive_of(capacity_bytes: u64) -> (Drive, Counters) {
    let counters = Counters::default();
    let drive = Drive::new(DriveOptions {
        node: 0,
        capacity_bytes,
        sync_us: 1000,
        trace: Trace::new(false),
        counters: counters.clone(),
        draws: Draws::new(1),
        time: SimTime::default(),
    });
    (drive, counters)
}

/// Runs in tokio's paused time.
fn paused<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

fn write(disk: &SimDisk, file: &SimFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
    disk.write_at(file, offset, &[Bytes::copy_from_slice(bytes)])
}

fn content(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path, false).unwrap();
    disk.read_at(&file, 0, 1 << 20).unwrap().to_vec()
}

/// A file whose name and first bytes are durable.
fn durable_file(disk: &SimDisk, path: &str, bytes: &[u8]) -> SimFile {
    let file = disk.open(path, true).unwrap();
    write(disk, &file, 0, bytes).unwrap();
    paused(disk.sync_file(&file)).unwrap();
    disk.sync_directory("").unwrap();
    file
}

#[derive(Debug, Clone)]
enum Step {
    Write {
        offset: usize,
        length: usize,
        fill: u8,
    },
    Truncate {
        length: usize,
    },
    /// A sync is called now and ends after so many further steps.
    Sync {
        ends_after: usize,
    },
    PowerLoss {
        salt: u64,
    },
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0usize..3000, 1usize..1500, 1u8..=255).prop_map(|(offset, length, fill)| Step::Write { offset, length, fill }),
        1 => (0usize..4000).prop_map(|length| Step::Truncate { length }),
        3 => (0usize..4).prop_map(|ends_after| Step::Sync { ends_after }),
        1 => any::<u64>().prop_map(|salt| Step::PowerLoss { salt }),
        1 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 1..40)
}

fn sector_of(image: &[u8], index: usize, cut: usize) -> Vec<u8> {
    let mut sector = vec![0; SECTOR_BYTES];
    let start = (index * SECTOR_BYTES).min(image.len());
    let bytes = &image[start..image.len().min(start + SECTOR_BYTES)];
    sector[..bytes.len()].copy_from_slice(bytes);
    sector.truncate(cut);
    sector
}

/// After a power loss: the length is between both, and each sector is wholly the old or wholly the new.
fn check_loss(durable: &[u8], volatile: &[u8], left: &[u8]) -> Result<(), TestCaseError> {
    let (low, high) = (durable.len().min(volatile.len()), durable.len().max(volatile.len()));
    prop_assert!((low..=high).contains(&left.len()), "length {} of {low}..={high}", left.len());
    for (index, sector) in left.chunks(SECTOR_BYTES).enumerate() {
        let is_old = sector == sector_of(durable, index, sector.len());
        let is_new = sector == sector_of(volatile, index, sector.len());
        prop_assert!(is_old || is_new, "sector {index} is neither");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Reads show the volatile image always; a power loss mixes durable and volatile by whole sectors; a sync that
    /// is under way covers what was written before its call, and with several the one called last counts.
    #[test]
    fn contents_follow_the_model(steps in steps()) {
        let (drive, _) = drive_of(1 << 30);
        let mut disk = drive.attach();
        durable_file(&disk, "f", b"");
        let mut file = disk.open("f", false).unwrap();
        let (mut durable, mut volatile) = (Vec::new(), Vec::new());
        let mut syncs = Vec::new();
        let mut newest = 0;
        for (now, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write { offset, length, fill } => {
                    let bytes: Vec<u8> = (0..length).map(|index| fill.wrapping_add((index / 64) as u8)).collect();
                    write(&disk, &file, offset as u64, &bytes).unwrap();
                    volatile.resize(volatile.len().max(offset + length), 0);
                    volatile[offset..offset + length].copy_from_slice(&bytes);
                }
                Step::Truncate { length } => {
                    disk.truncate(&file, length as u64).unwrap();
                    volatile.resize(length, 0);
                }
                Step::Sync { ends_after } => {
                    syncs.push((now + ends_after, now + 1, Box::pin(disk.sync_file(&file)), volatile.clone()));
                }
                Step::PowerLoss { salt } => {
                    drive.power_loss(salt);
                    syncs.clear();
                    disk = drive.attach();
                    file = disk.open("f", false).unwrap();
                    let left = content(&disk, "f");
                    check_loss(&durable, &volatile, &left)?;
                    (durable, volatile) = (left.clone(), left);
                }
                Step::Kill => {
                    drive.detach();
                    syncs.clear();
                    disk = drive.attach();
                    file = disk.open("f", false).unwrap();
                }
            }
            let (ended, left): (Vec<_>, Vec<_>) = syncs.into_iter().partition(|(end, ..)| *end <= now);
            syncs = left;
            for (_, called, sync, image) in ended {
                paused(sync).unwrap();
                if called > newest {
                    (newest, durable) = (called, image);
                }
            }
            prop_assert_eq!(content(&disk, "f"), volatile.clone());
        }
    }

    /// The same salt loses the same, from the same state.
    #[test]
    fn a_power_loss_is_a_function_of_its_salt(salt in any::<u64>()) {
        let lose = || {
            let (drive, _) = drive_of(1 << 30);
            let disk = drive.attach();
            let file = durable_file(&disk, "f", &[1; 5000]);
            write(&disk, &file, 700, &[2; 9000]).unwrap();
            disk.open("g", true).unwrap();
            let summary = drive.power_loss(salt);
            let disk = drive.attach();
            (summary, content(&disk, "f"), disk.list("").unwrap())
        };
        prop_assert_eq!(lose(), lose());
    }
}

#[test]
fn a_sync_does_not_cover_what_is_written_while_it_runs() {
    for salt in 0..40 {
        let (drive, _) = drive_of(1 << 30);
        let disk = drive.attach();
        let file = durable_file(&disk, "f", &[1; 512]);
        write(&disk, &file, 0, &[2; 512]).unwrap();
        let sync = disk.sync_file(&file);
        write(&disk, &file, 0, &[3; 512]).unwrap();
        paused(sync).unwrap();
        drive.power_loss(salt);
        let left = content(&drive.attach(), "f")[0];
        assert!(left == 2 || left == 3, "the synced content was lost for {left}");
    }
}

#[test]
fn a_sync_that_ends_late_does_not_undo_a_newer_one() {
    for salt in 0..40 {
        let (drive, _) = drive_of(1 << 30);
        let disk = drive.attach();
        let file = durable_file(&disk, "f", &[1; 512]);
        write(&disk, &file, 0, &[2; 512]).unwrap();
        let older = disk.sync_file(&file);
        write(&disk, &file, 0, &[3; 512]).unwrap();
        let newer = disk.sync_file(&file);
        write(&disk, &file, 0, &[4; 512]).unwrap();
        paused(newer).unwrap();
        paused(older).unwrap();
        drive.power_loss(salt);
        let left = content(&drive.attach(), "f")[0];
        assert!(left == 3 || left == 4, "the newer sync was undone: {left}");
    }
}

#[test]
fn power_loss_both_tears_and_keeps_over_the_salts() {
    let mut outcomes = std::collections::BTreeSet::new();
    for salt in 0..200 {
        let (drive, _) = drive_of(1 << 30);
        let disk = drive.attach();
        let file = durable_file(&disk, "f", &[1; 1024]);
        write(&disk, &file, 0, &[2; 1024]).unwrap();
        let summary = drive.power_loss(salt);
        let left = content(&drive.attach(), "f");
        outcomes.insert((left[0], left[1023]));
        let old = left.iter().filter(|byte| **byte == 1).count() as u64;
        assert_eq!(summary, PowerLossSummary { bytes: old, files: u64::from(old > 0), entries: 0 });
    }
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), vec![(1, 1), (1, 2), (2, 1), (2, 2)]);
}

#[test]
fn a_kill_keeps_everything_and_frees_the_lock() {
    let (drive, _) = drive_of(1 << 30);
    let disk = drive.attach();
    let file = disk.open("f", true).unwrap();
    write(&disk, &file, 0, b"unsynced").unwrap();
    let lock = disk.lock_exclusive("lock").unwrap();
    assert_eq!(disk.lock_exclusive("lock").err().unwrap().kind(), io::ErrorKind::WouldBlock);
    drive.detach();
    assert!(write(&disk, &file, 0, b"ghost").is_err(), "a killed process cannot write");
    let next = drive.attach();
    assert_eq!(content(&next, "f"), b"unsynced");
    let held = next.lock_exclusive("lock").unwrap();
    drop(lock);
    assert!(next.lock_exclusive("lock").is_err(), "the dead process' lock does not free the new one");
    drop(held);
    next.lock_exclusive("lock").unwrap();
    assert!(disk.list("").is_err(), "the old view stays cut off");
}

#[test]
fn a_cut_off_process_never_hears_of_its_sync_and_it_has_no_effect() {
    let (drive, _) = drive_of(1 << 30);
    let disk = drive.attach();
    let file = durable_file(&disk, "f", &[1; 512]);
    write(&disk, &file, 0, &[2; 512]).unwrap();
    let mut sync = pin!(disk.sync_file(&file));
    paused(async {
        let mut context = Context::from_waker(Waker::noop());
        assert!(sync.as_mut().poll(&mut context).is_pending());
        drive.detach();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(sync.as_mut().poll(&mut context).is_pending());
    });
    let lost = (0..40).any(|salt| {
        let (drive, _) = drive_of(1 << 30);
        let disk = drive.attach();
        let file = durable_file(&disk, "f", &[1; 512]);
        write(&disk, &file, 0, &[2; 512]).unwrap();
        let _sync = disk.sync_file(&file);
        drive.power_loss(salt);
        content(&drive.attach(), "f")[0] == 1
    });
    assert!(lost, "a sync that was only called made nothing durable");
}

#[test]
fn names_need_their_directory_synced() {
    let (mut vanished, mut stayed) = (0, 0);
    for salt in 0..60 {
        let (drive, _) = drive_of(1 << 30);
        let disk = drive.attach();
        disk.create_directory("a/b").unwrap();
        disk.sync_directory("").unwrap();
        disk.sync_directory("a").unwrap();
        let file = disk.open("a/b/f", true).unwrap();
        write(&disk, &file, 0, b"x").unwrap();
        paused(disk.sync_file(&file)).unwrap();
        drive.power_loss(salt);
        let disk = drive.attach();
        match disk.list("a/b").unwrap().as_slice() {
            [] => vanished += 1,
            [name] => {
                assert_eq!((name.as_str(), content(&disk, "a/b/f")), ("f", b"x".to_vec()));
                stayed += 1;
            }
            names => panic!("unexpected names {names:?}"),
        }
    }
    assert!(vanished > 0 && stayed > 0, "vanished {vanished}, stayed {stayed}");
}

#[test]
fn a_synced_name_stays_and_an_unsynced_parent_takes_all_with_it() {
    let mut gone = 0;
    for salt in 0..60 {
        let (drive, _) = drive_of(1 << 30);
        let disk = drive.attach();
        disk.create_directory("kept").unwrap();
        disk.sync_directory("").unwrap();
        disk.create_directory("loose").unwrap();
        for path in ["kept/f", "loose/f"] {
            let file = disk.open(path, true).unwrap();
            write(&disk, &file, 0, b"x").unwrap();
            paused(disk.sync_file(&file)).unwrap();
        }
        disk.sync_directory("kept").unwrap();
        disk.sync_directory("loose").unwrap();
        drive.power_loss(salt);
        let disk = drive.attach();
        assert_eq!(content(&disk, "kept/f"), b"x");
        gone += u32::from(disk.list("loose").is_err());
        assert_eq!(disk.list("loose").is_err(), disk.open("loose/f", false).is_err());
    }
    assert!(gone > 0, "the directory whose entry was never synced vanishes sometimes");
}

#[test]
fn a_rename_is_one_change() {
    let mut seen = std::collections::BTreeSet::new();
    for salt in 0..60 {
        let (drive, _) = drive_of(1 << 30);
        let disk = drive.attach();
        durable_file(&disk, "new", b"new");
        durable_file(&disk, "f", b"old");
        disk.rename("new", "f").unwrap();
        assert_eq!((disk.list("").unwrap(), content(&disk, "f")), (vec!["f".to_string()], b"new".to_vec()));
        drive.power_loss(salt);
        let disk = drive.attach();
        seen.insert((disk.list("").unwrap().join(" "), content(&disk, "f")));
    }
    let expected = [("f".to_string(), b"new".to_vec()), ("f new".to_string(), b"old".to_vec())];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_failed_sync_leaves_clean_pages_that_a_power_loss_takes() {
    for salt in 0..30 {
        let (drive, counters) = drive_of(1 << 30);
        let disk = drive.attach();
        let file = durable_file(&disk, "f", &[1; 1024]);
        write(&disk, &file, 0, &[2; 1024]).unwrap();
        drive.fail_operations(DiskOperation::Sync, 1, 5);
        assert_eq!(paused(disk.sync_file(&file)).unwrap_err().raw_os_error(), Some(5));
        assert_eq!(content(&disk, "f"), [2; 1024], "the new bytes show");
        write(&disk, &file, 512, &[3; 512]).unwrap();
        paused(disk.sync_file(&file)).unwrap();
        drive.power_loss(salt);
        let left = content(&drive.attach(), "f");
        assert_eq!((left[0], left[1023]), (1, 3), "a later sync covers only what was written again");
        assert_eq!(counters.count("sync-error"), 1);
    }
}

#[test]
fn errors_strike_so_many_operations_of_their_kind() {
    let (drive, counters) = drive_of(1 << 30);
    let disk = drive.attach();
    let file = durable_file(&disk, "f", &[1; 100]);
    drive.fail_operations(DiskOperation::Write, 2, 9);
    drive.fail_operations(DiskOperation::Read, 1, 9);
    for _ in 0..2 {
        assert_eq!(write(&disk, &file, 100, &[7; 50]).unwrap_err().raw_os_error(), Some(5));
    }
    assert_eq!(paused(disk.read_cold(&file, 0, 10)).unwrap_err().raw_os_error(), Some(5));
    write(&disk, &file, 100, &[8; 50]).unwrap();
    assert_eq!(content(&disk, "f")[100..], [8; 50]);
    assert_eq!((counters.count("disk-write-error"), counters.count("disk-read-error")), (2, 1));
    drive.fail_operations(DiskOperation::Read, 1, 9);
    drive.repair();
    assert_eq!(disk.read_at(&file, 0, 2).unwrap(), Bytes::from_static(&[1, 1]));
}

#[test]
fn a_full_disk_takes_a_prefix_and_what_was_reserved() {
    let (drive, counters) = drive_of(1000);
    let disk = drive.attach();
    let file = disk.open("f", true).unwrap();
    write(&disk, &file, 0, &[1; 900]).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 100);
    assert_eq!(write(&disk, &file, 900, &[2; 200]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.length(&file).unwrap(), 1000);
    disk.truncate(&file, 100).unwrap();
    disk.preallocate(&file, 600).unwrap();
    assert_eq!((disk.length(&file).unwrap(), disk.free_bytes().unwrap()), (100, 400));
    drive.set_full(0, true);
    drive.set_full(1, true);
    write(&disk, &file, 100, &[3; 500]).unwrap();
    assert!(write(&disk, &file, 600, &[3]).is_err());
    drive.set_full(0, false);
    assert!(write(&disk, &file, 600, &[3]).is_err(), "the other fault still holds");
    drive.set_full(1, false);
    write(&disk, &file, 600, &[3]).unwrap();
    disk.remove("f").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 1000);
    assert_eq!(counters.count("disk-full"), 3);
}

#[test]
fn a_flipped_bit_is_in_both_states_and_survives_a_repair() {
    for salt in 0..20 {
        let (drive, _) = drive_of(1 << 30);
        let disk = drive.attach();
        assert_eq!(drive.flip_bit(3, ""), None, "there is nothing to flip");
        disk.open("empty", true).unwrap();
        let file = durable_file(&disk, "f", &[0; 2000]);
        write(&disk, &file, 0, &[0; 2000]).unwrap();
        assert_eq!(drive.flip_bit(salt, "no such file"), None);
        let flip = drive.flip_bit(salt, "").unwrap();
        assert_eq!(flip.path, "f");
        drive.repair();
        drive.power_loss(salt);
        let left = content(&drive.attach(), "f");
        assert_eq!(left[flip.offset as usize], 1 << flip.bit);
        assert_eq!(left.iter().filter(|byte| **byte != 0).count(), 1);
    }
}

#[test]
fn slow_syncs_add_up_while_they_are_active() {
    let (drive, counters) = drive_of(1 << 30);
    let disk = drive.attach();
    let file = disk.open("f", true).unwrap();
    let took = || {
        paused(async {
            let began = tokio::time::Instant::now();
            disk.sync_file(&file).await.unwrap();
            began.elapsed().as_millis()
        })
    };
    assert!(took() <= 3);
    drive.set_slow(0, Some(Duration::from_millis(100)));
    drive.set_slow(1, Some(Duration::from_millis(50)));
    assert!((151..=153).contains(&took()));
    drive.set_slow(0, None);
    assert!((51..=53).contains(&took()));
    assert_eq!(counters.count("disk-slow"), 2);
}

#[test]
fn names_follow_the_ports_errors() {
    let (drive, _) = drive_of(1 << 30);
    let disk = drive.attach();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(disk.list("d").map(|_| ())), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.open("d/f", true).map(|_| ())), io::ErrorKind::NotFound);
    disk.create_directory("d/e").unwrap();
    disk.create_directory("d/e").unwrap();
    assert_eq!(kind(disk.open("d/f", false).map(|_| ())), io::ErrorKind::NotFound);
    disk.open("d/f", true).unwrap();
    assert_eq!(disk.list("d").unwrap(), vec!["e", "f"]);
    assert_eq!(kind(disk.remove("d")), io::ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(disk.open("d/e", true).map(|_| ())), io::ErrorKind::IsADirectory);
    assert_eq!(kind(disk.sync_directory("x")), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.rename("x", "y")), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.remove("x")), io::ErrorKind::NotFound);
    disk.remove("d/e").unwrap();
    disk.remove("d/f").unwrap();
    disk.remove("d").unwrap();
    assert_eq!(disk.list("").unwrap(), Vec::<String>::new());
}

/// Appending a megabyte in small unsynced writes stays as cheap at its end as at its beginning: what a write
/// remembers is its own sectors, counted here instead of timed.
#[test]
fn an_unsynced_append_remembers_its_own_sectors_alone() {
    let (drive, _) = drive_of(1 << 30);
    let disk = drive.attach();
    let file = disk.open("f", true).unwrap();
    for index in 0..8192u64 {
        write(&disk, &file, index * 128, &[index as u8; 128]).unwrap();
    }
    assert_eq!(file.inode.contents.borrow().dirty_sectors(), 2048);
    paused(disk.sync_file(&file)).unwrap();
    assert_eq!(file.inode.contents.borrow().dirty_sectors(), 0);
}
