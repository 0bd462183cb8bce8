//! What a power loss takes from a tree of files, and where a bit flips: the rules that the simulated drive and the disk
//! under real brokers share. Not here: who is cut off from it, and when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tree::{Metadata, Tree};
use crate::plan::draws::draw_at;

/// How a file lost what reads showed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Its name was not durable, so it vanished with all of its bytes.
    Vanished {
        /// Its length before.
        length: u64,
    },
    /// Bytes that were not synced are gone, or older.
    Bytes {
        /// Its length before.
        length: u64,
        /// The length that was durable.
        durable_length: u64,
        /// Its length afterwards.
        length_after: u64,
        /// Bytes that differ or are gone.
        bytes: u64,
    },
    /// A bit was flipped.
    BitFlip {
        /// Offset of the byte.
        offset: u64,
    },
}

/// What a power loss dropped from a drive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerLossSummary {
    /// Bytes that reads showed before and that are gone or older now.
    pub bytes: u64,
    /// Files with such bytes, files that vanished included.
    pub files: u64,
    /// Unsynced creations, renames and removals that did not survive.
    pub entries: u64,
}

/// Where a bit was flipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BitFlip {
    /// Path of the file.
    pub path: String,
    /// Offset of the byte.
    pub offset: u64,
    /// The bit, 0 for the least significant.
    pub bit: u8,
}

/// The power is lost: unsynced sectors, lengths and names survive or not by the salt. What each file lost, by path,
/// those that vanished first.
pub(crate) fn lose_power(tree: &mut Tree, salt: u64) -> (PowerLossSummary, Vec<(String, LossKind)>) {
    let paths: BTreeMap<u64, String> = tree.files().into_iter().map(|(path, inode)| (inode.id, path)).collect();
    let lost = tree.power_loss(salt);
    let jumps_are_whole = tree.metadata() == Metadata::Journal;
    let mut summary = PowerLossSummary { entries: lost.changes, ..PowerLossSummary::default() };
    let mut losses = Vec::new();
    for inode in lost.vanished {
        let length = inode.contents.borrow().length();
        summary.bytes += length;
        summary.files += u64::from(length > 0);
        losses.push((paths.get(&inode.id).cloned().unwrap_or_default(), LossKind::Vanished { length }));
    }
    for (path, inode) in tree.files() {
        let mut contents = inode.contents.borrow_mut();
        let (length, durable_length) = (contents.length(), contents.durable_length());
        let bytes = contents.power_loss(salt, inode.id, jumps_are_whole);
        if bytes > 0 {
            losses.push((path, LossKind::Bytes { length, durable_length, length_after: contents.length(), bytes }));
        }
        inode.reserved.set(0);
        summary.bytes += bytes;
        summary.files += u64::from(bytes > 0);
    }
    (summary, losses)
}

/// Flips one bit of one file that is not empty and whose path contains `within`, and names the file's number; `None` where
/// there is no such file.
pub(crate) fn flip_bit(tree: &Tree, salt: u64, within: &str) -> Option<(BitFlip, u64)> {
    let mut files = tree.files();
    files.retain(|(path, inode)| path.contains(within) && inode.contents.borrow().length() > 0);
    if files.is_empty() {
        return None;
    }
    let (path, inode) = files.swap_remove((draw_at(salt, "flip-file", 0, 0) % files.len() as u64) as usize);
    let mut contents = inode.contents.borrow_mut();
    let offset = draw_at(salt, "flip-offset", 0, 0) % contents.length();
    let bit = (draw_at(salt, "flip-bit", 0, 0) % 8) as u8;
    contents.flip(offset, bit);
    Some((BitFlip { path, offset, bit }, inode.id))
}
