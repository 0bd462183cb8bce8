//! Snapshots of the metadata, beside the metadata log: a checksum before the bytes, the two newest kept.
//! A snapshot that is not intact is never taken for none at all: what it lists would look like orphans.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};

use super::layout::{METADATA, SNAPSHOT, snapshot_path};
use super::{OpenError, at_path, read_file, write_file};
use crate::core::batch::crc32c;
use crate::mutant::Mutant;
use crate::ports::Disk;

const MAGIC: [u8; 4] = *b"MQS1";
const HEAD_BYTES: usize = 8;
const SNAPSHOTS_KEPT: usize = 2;

/// The newest intact snapshot; an error where there are some and none is intact.
pub(super) fn newest_snapshot<D: Disk>(disk: &D, mutant: Option<Mutant>) -> Result<Option<(String, Bytes)>, OpenError> {
    let names = snapshot_names(disk)?;
    for name in names.iter().rev() {
        let bytes = read_file(disk, &snapshot_path(name))?;
        let intact = bytes.len() >= HEAD_BYTES
            && bytes[..4] == MAGIC
            && bytes[4..HEAD_BYTES] == crc32c(&[&bytes[HEAD_BYTES..]]).to_be_bytes();
        if intact {
            return Ok(Some((name.clone(), bytes.slice(HEAD_BYTES..))));
        }
        if mutant == Some(Mutant::UnreadableSnapshotIsNone) {
            return Ok(None);
        }
    }
    match names.last() {
        Some(newest) => Err(OpenError::SnapshotsUnreadable { newest: newest.clone() }),
        None => Ok(None),
    }
}

/// Writes a snapshot durably, then removes all but the two newest, or all that it supersedes.
pub(super) async fn write_snapshot<D: Disk>(
    disk: &D,
    name: &str,
    supersedes: bool,
    bytes: Bytes,
) -> Result<(), OpenError> {
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.put_slice(&MAGIC);
    head.put_u32(crc32c(&[&bytes]));
    write_file(disk, Some(METADATA), &snapshot_path(name), &[head.freeze(), bytes]).await?;
    let kept = if supersedes { 1 } else { SNAPSHOTS_KEPT };
    let names = snapshot_names(disk)?;
    for old in names.iter().rev().skip(kept) {
        let path = snapshot_path(old);
        disk.remove(&path).map_err(at_path("removing", &path))?;
    }
    Ok(())
}

/// Names without their ending, oldest first.
fn snapshot_names<D: Disk>(disk: &D) -> Result<Vec<String>, OpenError> {
    let names = match disk.list(METADATA) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at_path("listing", METADATA)(error)),
    };
    let mut names: Vec<String> = names.iter().filter_map(|n| n.strip_suffix(SNAPSHOT)).map(str::to_string).collect();
    names.sort_unstable();
    Ok(names)
}
