//! Takes away what a follower's log has and its leader's has not: the end of it, or all of it. Whatever a crash leaves
//! of the way is a log that recovery takes for whole, only longer than wanted. Not here: when a log is cut (`core::log`).

use std::io;

use bytes::Bytes;

use super::layout::{self, index_path, log_directory, log_parent, segment_path};
use super::{OpenError, at_path, recover, write_file};
use crate::core::log::Recovered;
use crate::core::log::index::decode_index;
use crate::core::types::{LogId, Position};
use crate::mutant::Mutant;
use crate::points;
use crate::ports::{Disk, Observer};

/// Removes everything from a position on, then recovers the log.
pub(super) async fn cut_log<D: Disk, O: Observer>(
    disk: &D,
    observer: &O,
    log: LogId,
    to: Position,
    mutant: Option<Mutant>,
) -> Result<Recovered, OpenError> {
    let directory = log_directory(log);
    for base in segment_bases(disk, &directory)?.into_iter().rev() {
        let keeps_some = base < to;
        // First the index, which names everything in the segment as durable: without it what is missing is no loss.
        if remove_if_there(disk, &index_path(log, base))? {
            disk.sync_directory(&directory).map_err(at_path("syncing", &directory))?;
        }
        let path = segment_path(log, base);
        if keeps_some {
            observer.point(points::LOG_CUT);
            let file = disk.open(&path, false).map_err(at_path("opening", &path))?;
            let length = disk.length(&file).map_err(at_path("measuring", &path))?;
            if length > to.0 - base.0 {
                disk.truncate(&file, to.0 - base.0).map_err(at_path("cutting", &path))?;
            }
            disk.sync_file(&file).await.map_err(at_path("syncing", &path))?;
            break;
        }
        remove_if_there(disk, &path)?;
        disk.sync_directory(&directory).map_err(at_path("syncing", &directory))?;
    }
    observer.event(points::TRUNCATION, 1);
    recover::recover_log(disk, observer, log, mutant).await
}

/// Removes everything and puts a carrier in its place, then recovers the log.
pub(super) async fn restart_log<D: Disk, O: Observer>(
    disk: &D,
    observer: &O,
    log: LogId,
    carrier: Bytes,
    mutant: Option<Mutant>,
) -> Result<Recovered, OpenError> {
    let directory = log_directory(log);
    let Some((head, _)) = decode_index(&carrier) else {
        return Err(at_path("reading", &directory)(io::ErrorKind::InvalidData.into()));
    };
    disk.create_directory(&directory).map_err(at_path("creating", &directory))?;
    disk.sync_directory(log_parent(log)).map_err(at_path("syncing", log_parent(log)))?;
    for base in segment_bases(disk, &directory)?.into_iter().rev() {
        remove_if_there(disk, &index_path(log, base))?;
        disk.sync_directory(&directory).map_err(at_path("syncing", &directory))?;
        observer.point(points::LOG_CUT);
        remove_if_there(disk, &segment_path(log, base))?;
        disk.sync_directory(&directory).map_err(at_path("syncing", &directory))?;
    }
    for name in disk.list(&directory).map_err(at_path("listing", &directory))? {
        if layout::index_base(&name).is_some() {
            remove_if_there(disk, &format!("{directory}/{name}"))?;
        }
    }
    disk.sync_directory(&directory).map_err(at_path("syncing", &directory))?;
    if head.end > Position(0) {
        write_file(disk, Some(&directory), &index_path(log, head.base), &[carrier]).await?;
    }
    observer.event(points::LOG_RESTARTED, 1);
    recover::recover_log(disk, observer, log, mutant).await
}

/// Base positions of a log's segments, oldest first.
fn segment_bases<D: Disk>(disk: &D, directory: &str) -> Result<Vec<Position>, OpenError> {
    let names = match disk.list(directory) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at_path("listing", directory)(error)),
    };
    let mut bases: Vec<Position> = names.iter().filter_map(|name| layout::segment_base(name)).collect();
    bases.sort_unstable();
    Ok(bases)
}

fn remove_if_there<D: Disk>(disk: &D, path: &str) -> Result<bool, OpenError> {
    match disk.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at_path("removing", path)(error)),
    }
}
