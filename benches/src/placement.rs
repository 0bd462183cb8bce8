//! Where a broker's messages lie on its disk, seen from outside: messages are sent one after the other, round robin over the
//! queues of one topic, and then found again in the broker's own files by the marks that they bear. So it shows how many
//! files hold messages, whether one message follows the other, how many copies there are, and what all the other files cost.
//! Not here: the cost of a message inside the storage engine (`cargo bench --bench footprint`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use mqassay_harness::process::accounting::Usage;
use rustix::fs::{SeekFrom, seek};

use crate::block::{self, on_topic};
use crate::driver::{self, Batching, client_error};
use crate::payload::{self, PayloadWriter, Stamp};
use crate::plan::LoadPlan;
use crate::{BenchError, SystemTarget};

/// What lies where, and what it takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placement {
    /// Messages sent, each acknowledged before the next.
    pub messages: u64,
    /// Places in the broker's files at which a whole message was found.
    pub found: u64,
    /// Files that hold messages.
    pub files: u64,
    /// Messages that lie in another file than the one sent before them, or before it in the same.
    pub elsewhere: u64,
    /// Bytes from one message to the next in the files that hold them; none where no file holds two.
    pub log_bytes_per_message: Option<f64>,
    /// Bytes that the files without messages grew by on the disk while messages were sent.
    pub index_bytes: u64,
    /// Bytes that all files grew by while the topic was made.
    pub topic_disk_bytes: u64,
    /// Bytes by which the broker's resident memory grew while the topic was made.
    pub topic_resident_bytes: u64,
    /// Bytes by which the broker's resident memory grew while messages were sent.
    pub resident_bytes: u64,
}

/// Makes a topic of so many queues, sends, and looks. The broker runs on this machine.
pub fn run(target: &SystemTarget, queues: u32) -> Result<Placement, BenchError> {
    let library = target.name.clone();
    let unseen =
        BenchError::Unsupported { library, what: "a look at its process and its files, which are not on this machine" };
    let (Some(folder), Some(pid)) = (&target.data_dir, target.pid) else { return Err(unseen) };
    let resident = || {
        let usage = Usage::of_process(pid);
        let failed = |source| BenchError::Accounting { system: target.name.clone(), source };
        usage.map(|usage| usage.resident_bytes).map_err(failed)
    };
    let plan = LoadPlan { name: "placement".to_owned(), record_bytes: RECORD_BYTES, ..LoadPlan::empty() };
    let driver = driver::connect(target)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let topic = block::new_run(&plan, target, 0, now.as_nanos() as u64, queues);
    let (resident_first, disk_first) = (resident()?, allocated(folder)?);
    on_topic(&plan, driver.as_ref(), &topic, || {
        let (resident_made, disk_made) = (resident()?, allocated(folder)?);
        let batching = Batching { linger_ms: 0, batch_bytes: 65_536, batch_records: 1, is_open_loop: true };
        let mut producer = driver.producer(&plan, &topic, batching, 0)?;
        let mut writer = PayloadWriter::new(topic.run, RECORD_BYTES);
        let send = || {
            for message in 0..MESSAGES {
                let queue = (message % u64::from(queues)) as u32;
                let sequence = producer.next_sequence(queue);
                // The time of the intention bears the message's number over all queues.
                let stamp = Stamp { client: 0, queue, sequence, intended_ns: message, sent_ns: 0 };
                producer.send(queue, sequence, writer.write(stamp))?;
                producer.settle()?;
            }
            producer.finish()
        };
        let delivered = send().map_err(client_error(target, "produce"))?;
        let sent = delivered.ledger.acknowledged();
        // Until the broker knows of the last message in each queue, which some learn behind their log.
        driver.end_offsets(&topic, &[delivered])?;
        let resident_full = resident()?;
        let disk_full = allocated(folder)?;
        let found = find(folder, topic.run)?;
        let index_bytes = disk_full
            .iter()
            .filter(|(path, _)| !found.contains_key(*path))
            .map(|(path, bytes)| bytes.saturating_sub(disk_made.get(path).copied().unwrap_or(0)))
            .sum();
        Ok(Placement {
            messages: sent,
            index_bytes,
            topic_disk_bytes: disk_made.values().sum::<u64>().saturating_sub(disk_first.values().sum()),
            topic_resident_bytes: resident_made.saturating_sub(resident_first),
            resident_bytes: resident_full.saturating_sub(resident_made),
            ..order_of(&found)
        })
    })
}

/// A message in a file: its place, and its number.
type Places = BTreeMap<PathBuf, Vec<(u64, u64)>>;

/// What the places of messages say. Pure.
fn order_of(found: &Places) -> Placement {
    let mut by_message: BTreeMap<u64, (usize, u64)> = BTreeMap::new();
    let (mut spanned, mut steps, mut count) = (0, 0, 0);
    for (file, places) in found.values().enumerate() {
        count += places.len() as u64;
        if let (Some((first, _)), Some((last, _))) = (places.first(), places.last()) {
            spanned += last - first;
            steps += places.len() as u64 - 1;
        }
        for (at, message) in places {
            by_message.entry(*message).or_insert((file, *at));
        }
    }
    let places: Vec<&(usize, u64)> = by_message.values().collect();
    let elsewhere = places.windows(2).filter(|pair| pair[0].0 != pair[1].0 || pair[1].1 < pair[0].1).count() as u64;
    Placement {
        found: count,
        files: found.len() as u64,
        elsewhere,
        log_bytes_per_message: (steps > 0).then(|| spanned as f64 / steps as f64),
        ..Placement::default()
    }
}

/// Bytes on the disk of every file below, whatever its length says; what is not yet written is written first.
fn allocated(folder: &Path) -> Result<BTreeMap<PathBuf, u64>, BenchError> {
    let mut sizes = BTreeMap::new();
    each_file(folder, &mut |path, file| {
        file.sync_all()?;
        sizes.insert(path.to_path_buf(), file.metadata()?.blocks() * BLOCK_BYTES);
        Ok(())
    })?;
    Ok(sizes)
}

/// Every whole message of `run` below the folder, in order of its place.
fn find(folder: &Path, run: u64) -> Result<Places, BenchError> {
    let mut found = Places::new();
    each_file(folder, &mut |path, file| {
        let places = find_in(file, run)?;
        if !places.is_empty() {
            found.insert(path.to_path_buf(), places);
        }
        Ok(())
    })?;
    Ok(found)
}

fn find_in(file: &File, run: u64) -> std::io::Result<Vec<(u64, u64)>> {
    let length = file.metadata()?.len();
    let (mark, mut places, mut at) = (payload::mark(run), Vec::new(), 0);
    // Files that are reserved ahead are mostly holes, which are not read.
    while let Ok(data) = seek(file, SeekFrom::Data(at)) {
        let end = seek(file, SeekFrom::Hole(data)).unwrap_or(length).min(length);
        let mut chunk = vec![0; (end - data).min(CHUNK_BYTES) as usize];
        file.read_exact_at(&mut chunk, data)?;
        let whole = chunk.len() as u64 == end - data;
        let marks = chunk.windows(payload::MARK_BYTES).enumerate();
        for (offset, _) in marks.filter(|(_, window)| **window == mark) {
            let message =
                chunk.get(offset..offset + RECORD_BYTES).and_then(|bytes| payload::read(run, RECORD_BYTES, bytes));
            if let Some(stamp) = message {
                places.push((data + offset as u64, stamp.intended_ns));
            }
        }
        // The last of a chunk may be cut; its place is then in the next one too.
        at = if whole { end } else { data + chunk.len() as u64 - RECORD_BYTES as u64 };
    }
    places.dedup();
    Ok(places)
}

/// Files come and go under a running broker: one that is gone when it is opened is passed over.
fn each_file(folder: &Path, visit: &mut dyn FnMut(&Path, &File) -> std::io::Result<()>) -> Result<(), BenchError> {
    let failed = |source| BenchError::Io { action: "look through the broker's files", source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let metadata = fs::symlink_metadata(&path);
        if metadata.as_ref().is_ok_and(|metadata| metadata.is_dir()) {
            each_file(&path, visit)?;
        } else if metadata.is_ok_and(|metadata| metadata.is_file()) {
            match File::open(&path) {
                Ok(file) => visit(&path, &file).map_err(failed)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(())
}

/// Messages are this long, bytes.
pub const RECORD_BYTES: usize = 100;
/// Sent in one run; over 2 queues they fill whole pages of an index of 20 bytes each.
const MESSAGES: u64 = 8_192;
/// What `st_blocks` counts in.
const BLOCK_BYTES: u64 = 512;
const CHUNK_BYTES: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const RUN: u64 = 0x1122_3344_5566_7788;

    fn message(number: u64) -> Vec<u8> {
        let stamp = Stamp { client: 0, queue: 0, sequence: number, intended_ns: number, sent_ns: 0 };
        PayloadWriter::new(RUN, RECORD_BYTES).write(stamp).to_vec()
    }

    #[test]
    fn messages_are_found_where_they_lie_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        let mut log = File::create(folder.path().join("log/0")).unwrap();
        for number in [0, 2, 3] {
            log.write_all(&[9; 17]).unwrap();
            log.write_all(&message(number)).unwrap();
        }
        // A hole, a message behind it, and one that is cut off.
        log.set_len(1 << 20).unwrap();
        log.write_all_at(&message(4), 1 << 20).unwrap();
        log.write_all_at(&message(5)[..60], (1 << 20) + 100).unwrap();
        let mut other = File::create(folder.path().join("other")).unwrap();
        other.write_all(&message(1)).unwrap();
        fs::write(folder.path().join("index"), [7; 5_000]).unwrap();
        let found = find(folder.path(), RUN).unwrap();
        let numbers: Vec<Vec<u64>> = found.values().map(|places| places.iter().map(|one| one.1).collect()).collect();
        assert_eq!(numbers, [vec![0, 2, 3, 4], vec![1]]);
        let placement = order_of(&found);
        // From 0 to 1 and from 1 to 2 it is another file.
        assert_eq!((placement.found, placement.files, placement.elsewhere), (5, 2, 2));
        assert!(find(folder.path(), RUN + 1).unwrap().is_empty());
        assert!(allocated(folder.path()).unwrap().len() == 3);
    }

    #[test]
    fn one_log_is_sequential_and_its_step_is_what_a_message_takes() {
        let log: Vec<(u64, u64)> = (0..10).map(|number| (number * 120, number)).collect();
        let one = order_of(&Places::from([(PathBuf::from("log"), log.clone())]));
        assert_eq!((one.elsewhere, one.files, one.log_bytes_per_message), (0, 1, Some(120.0)));
        let mut backwards = log;
        backwards.iter_mut().for_each(|place| place.1 = 9 - place.1);
        assert_eq!(order_of(&Places::from([(PathBuf::from("log"), backwards)])).elsewhere, 9);
    }
}
