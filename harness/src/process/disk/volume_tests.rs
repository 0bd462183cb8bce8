//! The rules of a volume as a kernel meets them: what survives a power loss, names, open files without a name, faults.
//! The rules of sectors and names themselves are tested with the simulated drive.

use std::time::SystemTime;

use rustix::io::Errno;

use super::volume::{ROOT, Volume};
use crate::plan::DiskOperation;
use crate::sim::disk::Metadata;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn volume() -> Volume {
    Volume::new(1 << 20, Metadata::Posix, NOW)
}

fn file(volume: &mut Volume, name: &str, bytes: &[u8]) -> u64 {
    let number = volume.create_file(ROOT, name, 0o644).unwrap().number;
    volume.write(number, 0, bytes, NOW).unwrap();
    number
}

fn sync(volume: &mut Volume, number: u64) -> Result<(), Errno> {
    let sync = volume.begin_sync(number)?;
    volume.end_sync(sync)
}

fn content(volume: &mut Volume, name: &str) -> Option<Vec<u8>> {
    let number = volume.lookup(ROOT, name).ok()?.number;
    Some(volume.read(number, 0, 1 << 16).unwrap())
}

#[test]
fn what_is_synced_survives_and_what_is_not_may_vanish() {
    let (mut lost, mut kept) = (0, 0);
    for salt in 0..40 {
        let mut volume = volume();
        let synced = file(&mut volume, "synced", b"stays");
        sync(&mut volume, synced).unwrap();
        volume.sync_directory(ROOT).unwrap();
        file(&mut volume, "unsynced", b"may go");
        volume.power_loss(salt);
        assert_eq!(content(&mut volume, "synced"), Some(b"stays".to_vec()), "salt {salt}");
        match content(&mut volume, "unsynced") {
            Some(bytes) if bytes == b"may go" => kept += 1,
            _ => lost += 1,
        }
    }
    assert!(lost > 5 && kept > 0, "{lost} lost, {kept} kept");
}

#[test]
fn a_synced_file_without_a_synced_name_vanishes_at_times() {
    let vanishes = |salt| {
        let mut volume = volume();
        let number = file(&mut volume, "a", b"bytes");
        sync(&mut volume, number).unwrap();
        volume.power_loss(salt);
        content(&mut volume, "a").is_none()
    };
    assert!((0..40).any(vanishes) && !(0..40).all(vanishes));
}

/// Names that are left of `a`, `b` and `c`, where `b` was synced before `c` was made, and nothing else ever was.
fn names_left_by_a_journal(salt: u64) -> String {
    let mut volume = Volume::new(1 << 20, Metadata::Journal, NOW);
    file(&mut volume, "a", b"unsynced");
    let synced = file(&mut volume, "b", b"synced");
    sync(&mut volume, synced).unwrap();
    file(&mut volume, "c", b"unsynced");
    file(&mut volume, "d", b"unsynced");
    volume.power_loss(salt);
    volume.list(ROOT).unwrap().into_iter().map(|(_, _, name)| name).collect()
}

#[test]
fn a_journal_commits_names_in_order_and_with_the_sync_of_any_file() {
    let left: std::collections::BTreeSet<String> = (0..60).map(names_left_by_a_journal).collect();
    assert_eq!(left, ["ab", "abc", "abcd"].map(str::to_owned).into());
    let keeps_the_name_alone = |salt| {
        let mut volume = Volume::new(1 << 20, Metadata::Journal, NOW);
        file(&mut volume, "a", b"unsynced");
        volume.commit_interval_passed();
        volume.power_loss(salt);
        content(&mut volume, "a").is_some_and(|bytes| bytes != b"unsynced")
    };
    assert!((0..40).any(keeps_the_name_alone), "a name outlives its data");
}

#[test]
fn after_a_power_loss_earlier_mounts_are_cut_off() {
    let mut volume = volume();
    let before = volume.incarnation();
    assert!(volume.of(before).is_ok());
    volume.power_loss(1);
    assert!(matches!(volume.of(before), Err(Errno::IO)));
}

#[test]
fn a_removed_file_is_there_for_who_has_it_open() {
    let mut volume = volume();
    let number = file(&mut volume, "a", b"bytes");
    volume.sync_directory(ROOT).unwrap();
    volume.open(number).unwrap();
    volume.remove(ROOT, "a", false).unwrap();
    volume.sync_directory(ROOT).unwrap();
    assert_eq!(volume.read(number, 0, 9).unwrap(), b"bytes");
    assert_eq!(volume.lookup(ROOT, "a"), Err(Errno::NOENT));
    volume.release(number);
    assert_eq!(volume.read(number, 0, 9), Err(Errno::NOENT));
}

#[test]
fn a_renamed_directory_keeps_what_is_in_it() {
    let mut volume = volume();
    let old = volume.create_directory(ROOT, "old").unwrap().number;
    let inner = volume.create_directory(old, "inner").unwrap().number;
    let number = volume.create_file(inner, "a", 0o600).unwrap().number;
    volume.write(number, 0, b"bytes", NOW).unwrap();
    sync(&mut volume, number).unwrap();
    volume.rename((ROOT, "old"), (ROOT, "new"), false).unwrap();
    volume.power_loss(3);
    let new = volume.lookup(ROOT, "new").unwrap().number;
    let inner = volume.lookup(new, "inner").unwrap().number;
    assert_eq!(volume.lookup(inner, "a").unwrap().length, 5);
    assert_eq!(volume.lookup(ROOT, "old"), Err(Errno::NOENT));
    assert_eq!(volume.remove(ROOT, "new", true), Err(Errno::NOTEMPTY));
}

#[test]
fn a_failed_sync_makes_nothing_durable_ever() {
    let mut volume = volume();
    let number = file(&mut volume, "a", b"old");
    sync(&mut volume, number).unwrap();
    volume.sync_directory(ROOT).unwrap();
    volume.write(number, 0, b"new", NOW).unwrap();
    volume.faults().fail_operations(DiskOperation::Sync, 1, 5);
    assert_eq!(sync(&mut volume, number), Err(Errno::IO));
    sync(&mut volume, number).unwrap();
    assert_eq!(content(&mut volume, "a"), Some(b"new".to_vec()), "the kernel's page shows what was written");
    volume.power_loss(1);
    assert_eq!(content(&mut volume, "a"), Some(b"old".to_vec()));
}

#[test]
fn a_full_disk_takes_no_more_and_holes_take_no_room() {
    let mut volume = volume();
    let number = file(&mut volume, "a", b"bytes");
    volume.set_length(number, 1 << 30).unwrap();
    assert!(volume.free_bytes() > 900_000);
    volume.faults().set_full(0, true);
    assert_eq!(volume.create_file(ROOT, "b", 0o644).map(drop), Err(Errno::NOSPC));
    volume.faults().set_full(0, false);
    assert_eq!(volume.write(number, 0, &vec![1; 2 << 20], NOW), Err(Errno::NOSPC));
}

#[test]
fn everything_settled_survives() {
    for salt in 0..20 {
        let mut volume = volume();
        file(&mut volume, "a", b"bytes");
        volume.settle();
        volume.power_loss(salt);
        assert_eq!(content(&mut volume, "a"), Some(b"bytes".to_vec()));
    }
}

#[test]
fn a_journal_keeps_or_drops_a_length_that_was_set_as_a_whole() {
    let lengths = |metadata, syncs_other: bool| -> std::collections::BTreeSet<u64> {
        let after = |salt| {
            let mut volume = Volume::new(1 << 20, metadata, NOW);
            let number = file(&mut volume, "mapped", b"");
            volume.settle();
            volume.set_length(number, 60_000).unwrap();
            if syncs_other {
                let other = file(&mut volume, "other", b"bytes");
                sync(&mut volume, other).unwrap();
            }
            volume.power_loss(salt);
            volume.lookup(ROOT, "mapped").unwrap().length
        };
        (0..60).map(after).collect()
    };
    assert_eq!(lengths(Metadata::Journal, false), [0, 60_000].into());
    assert_eq!(lengths(Metadata::Journal, true), [60_000].into(), "any sync commits the journal");
    assert!(lengths(Metadata::Posix, true).len() > 10, "nothing promises more");
}
