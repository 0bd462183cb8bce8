//! What a message and a queue cost in the two storage layouts: bytes on disk and in memory, files, sync targets a turn, and
//! the price of a cold catch-up read of one queue, its pages dropped from memory before. Prints a table, for which each
//! line runs in a process of its own: `cargo bench -p mqassay-benches --bench footprint`.
//! Not here: the broker around the log, and idle queues by the million (`benches/plans/m4.toml`).

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mqassay_broker::core::batch::Batch;
use mqassay_broker::core::log::{DiskEffect, DiskEvent, Flush, Log, LogSettings, ReadPiece};
use mqassay_broker::core::types::{LeaderEpoch, LogId, Now, Offset, QueueId, Ticket};
use mqassay_broker::real::disk::RealDisk;
use mqassay_broker::real::observer::CountingObserver;
use mqassay_broker::store::{Store, StoreSettings};
use rustix::fs::{Advice, fadvise};
use tokio::runtime::Runtime;

const NOW: Now = Now { monotonic: Duration::from_secs(1), wall_ms: 1_700_000_000_000 };
const MESSAGES: u64 = 400_000;
const SEGMENT_BYTES: u64 = 1 << 20;
/// A consumer's fetch.
const READ_BYTES: usize = 1 << 20;
/// Says to the process which line it is.
const CHILD: &str = "--footprint-of";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == CHILD) {
        let queues = arguments[at + 2].parse().expect("the parent gives a number");
        println!("{}", line(arguments[at + 1] == "shared", queues));
        return;
    }
    println!(
        "{MESSAGES} messages of 100 bytes, one a batch, segments of {SEGMENT_BYTES} bytes, round robin over the queues."
    );
    println!(
        "Disk: bytes a message in segments, in indexes, files. Memory: resident bytes a queue, a message (cache off)."
    );
    println!("Catch-up: one queue from its first message to its last, pages dropped before.\n");
    println!("layout       queues  log B/msg  index B/msg   files  mem B/queue  mem B/msg  synced files  catch-up");
    let this = std::env::current_exe().expect("a process knows its own program");
    for queues in ["16", "256", "4096"] {
        for layout in ["shared", "partitioned"] {
            let child = Command::new(&this).args([CHILD, layout, queues]).output().expect("the program is there");
            print!("{}", String::from_utf8_lossy(&child.stdout));
            assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        }
    }
}

struct Rig {
    runtime: Runtime,
    store: Store<RealDisk, CountingObserver>,
    logs: Vec<Log>,
}

fn settings() -> LogSettings {
    LogSettings {
        flush: Flush::Os,
        segment_bytes: SEGMENT_BYTES,
        retention_ms: None,
        retention_bytes: None,
        compaction: None,
        producer_expiry: Duration::from_secs(86_400),
        tail_cache_bytes: 0,
    }
}

impl Rig {
    fn perform(&mut self, log: usize, mut effects: Vec<DiskEffect>) {
        while !effects.is_empty() {
            let mut events = self.store.perform(&mut effects);
            for effect in effects.drain(..) {
                events.push(self.runtime.block_on(self.store.start(effect)));
            }
            for event in events {
                self.logs[log].on_disk_event(event, NOW, &mut effects);
            }
        }
    }

    fn append(&mut self, queue: u64, batch: &Batch) {
        let log = queue as usize % self.logs.len();
        let mut effects = Vec::new();
        let appended = self.logs[log].append(QueueId(queue), batch.clone(), LeaderEpoch(0), NOW, &mut effects);
        appended.expect("an online log takes a sound batch");
        self.perform(log, effects);
    }

    /// Files that one sync of everything touches.
    fn sync(&mut self) -> usize {
        let mut files = 0;
        for log in 0..self.logs.len() {
            let mut effects = Vec::new();
            self.logs[log].request_sync(&mut effects);
            files += effects
                .iter()
                .map(|e| if let DiskEffect::Sync { segments, .. } = e { segments.len() } else { 0 })
                .sum::<usize>();
            self.perform(log, effects);
        }
        files
    }

    /// Reads a queue to its end; gives messages, reads of the disk, and bytes that they asked for.
    fn catch_up(&mut self, queue: u64) -> (u64, u64, u64) {
        let log = queue as usize % self.logs.len();
        let (mut offset, mut reads, mut bytes_read) = (Offset(0), 0, 0);
        loop {
            let plan = self.logs[log].read(QueueId(queue), offset, READ_BYTES, true).expect("the queue is sound");
            for piece in plan.pieces {
                let ReadPiece::OnDisk(piece) = piece else { panic!("nothing is cached") };
                let read = DiskEffect::Read {
                    ticket: Ticket(1),
                    log: piece.log,
                    segment: piece.segment,
                    at: piece.at,
                    length: piece.length,
                };
                let event = self.runtime.block_on(self.store.start(read));
                let DiskEvent::Read { result: Ok(bytes), .. } = event else { panic!("not read: {event:?}") };
                (reads, bytes_read) = (reads + 1, bytes_read + bytes.len() as u64);
                self.logs[log].check_read(&piece, &bytes, bytes.len()).expect("the bytes are as written");
            }
            if plan.next_offset == offset {
                return (offset.0 as u64, reads, bytes_read);
            }
            offset = plan.next_offset;
        }
    }
}

fn line(is_shared: bool, queues: u64) -> String {
    let folder = tempfile::tempdir().expect("a folder for the data");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let disk = RealDisk::open(folder.path()).expect("a folder of our own");
    let opening = Store::open(disk, CountingObserver::default(), None, StoreSettings::default());
    let store = runtime.block_on(opening).expect("the folder is sound").0;
    let logs = if is_shared { 1 } else { queues };
    let batch = Batch::of_values(&[Bytes::from_static(&[7; 100])], NOW.wall_ms);
    let resident_before = resident_bytes();
    let logs = (0..logs).map(|id| Log::new(LogId(id + 1), settings(), None)).collect();
    let mut rig = Rig { runtime, store, logs };
    (0..queues).for_each(|queue| rig.append(queue, &batch));
    let synced_files = rig.sync();
    let resident_idle = resident_bytes();
    (queues..MESSAGES).for_each(|n| rig.append(n % queues, &batch));
    rig.sync();
    let resident_full = resident_bytes();
    let files = Files::of(folder.path());
    let indexed = rig.logs.iter().map(|log| log.stored_bytes() / SEGMENT_BYTES * SEGMENT_BYTES).sum::<u64>();
    let message_bytes = files.log as f64 / MESSAGES as f64;
    let per_index = if files.index == 0 {
        "none".to_owned()
    } else {
        format!("{:.1}", files.index as f64 / (indexed as f64 / message_bytes))
    };
    drop_pages(folder.path());
    let began = Instant::now();
    let (messages, reads, bytes) = rig.catch_up(queues / 2);
    let took = began.elapsed();
    let layout = if is_shared { "shared" } else { "partitioned" };
    format!(
        "{layout:<12} {queues:>6}  {message_bytes:>9.1}  {per_index:>11}  {:>6}  {:>11.0}  {:>9.1}  {synced_files:>12}  \
         {:.0} msg/ms, {reads} reads of {:.0} KiB",
        files.count,
        resident_idle.saturating_sub(resident_before) as f64 / queues as f64,
        resident_full.saturating_sub(resident_idle) as f64 / (MESSAGES - queues) as f64,
        messages as f64 / (took.as_secs_f64() * 1_000.0),
        bytes as f64 / 1024.0 / reads as f64,
    )
}

/// Bytes of segments and of indexes as the file system holds them, and how many files there are.
#[derive(Default)]
struct Files {
    log: u64,
    index: u64,
    count: u64,
}

impl Files {
    fn of(folder: &Path) -> Files {
        let mut files = Files::default();
        each_file(folder, &mut |path| {
            let blocks = fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("log") => files.log += blocks,
                Some("index") => files.index += blocks,
                Some(_) | None => return,
            }
            files.count += 1;
        });
        files
    }
}

fn each_file(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).expect("the folder is ours").flatten() {
        if entry.path().is_dir() { each_file(&entry.path(), visit) } else { visit(&entry.path()) }
    }
}

/// Pages that are synced leave the page cache; those that are not stay.
fn drop_pages(folder: &Path) {
    each_file(folder, &mut |path| {
        let file = File::open(path).expect("the file is ours");
        file.sync_all().expect("the disk is sound");
        fadvise(&file, 0, None, Advice::DontNeed).expect("a plain file takes advice");
    });
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells a process its size");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    resident.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("the size is in KiB") * 1024
}
