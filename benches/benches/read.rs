//! Criterion benches of reading: what a fetch costs when its records are in the tail cache and when they are on disk (in
//! the page cache, so that the disk itself is not in it), alone and among other queues, and what looking up a place in the
//! index costs. Not here: a disk that is cold (`footprint`).

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mqassay_broker::core::batch::Batch;
use mqassay_broker::core::log::{DiskEffect, DiskEvent, Flush, Log, LogSettings, ReadPiece};
use mqassay_broker::core::types::{LeaderEpoch, LogId, Now, Offset, QueueId, Ticket};
use mqassay_broker::real::disk::RealDisk;
use mqassay_broker::real::observer::CountingObserver;
use mqassay_broker::store::{Store, StoreSettings};
use tokio::runtime::Runtime;

const NOW: Now = Now { monotonic: Duration::from_secs(1), wall_ms: 1_700_000_000_000 };
const BATCHES: u64 = 100_000;
const RECORDS: u64 = 10;
const FETCH_BYTES: usize = 64 << 10;
const QUEUE: QueueId = QueueId(1);

/// A log with its store, filled with batches of ten 100-byte records, in turn over so many queues.
struct Filled {
    runtime: Runtime,
    store: Store<RealDisk, CountingObserver>,
    log: Log,
    _folder: tempfile::TempDir,
}

impl Filled {
    fn new(queues: u64, tail_cache_bytes: usize) -> Filled {
        let folder = tempfile::tempdir().expect("a folder for the data");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let disk = RealDisk::open(folder.path()).expect("a folder of our own");
        let opening = Store::open(disk, CountingObserver::default(), None, StoreSettings::default());
        let mut store = runtime.block_on(opening).expect("the folder is sound").0;
        let settings = LogSettings {
            flush: Flush::Os,
            segment_bytes: 1 << 30,
            retention_ms: None,
            retention_bytes: None,
            compaction: None,
            producer_expiry: Duration::from_secs(86_400),
            tail_cache_bytes,
        };
        let mut log = Log::new(LogId(1), settings, None);
        let batch = Batch::of_values(&vec![Bytes::from_static(&[7; 100]); RECORDS as usize], NOW.wall_ms);
        let mut effects = Vec::new();
        for number in 0..BATCHES {
            let queue = QueueId(1 + number % queues);
            let appended = log.append(queue, batch.clone(), LeaderEpoch(0), NOW, &mut effects);
            appended.expect("an online log takes a sound batch");
            for event in store.perform(&mut effects) {
                log.on_disk_event(event, NOW, &mut effects);
            }
        }
        Filled { runtime, store, log, _folder: folder }
    }

    /// Plans a fetch, reads what is on disk, and checks it.
    fn fetch(&mut self, from: Offset) -> usize {
        let plan = self.log.read(QUEUE, from, FETCH_BYTES, true).expect("the queue is sound");
        let mut bytes = 0;
        for piece in plan.pieces {
            match piece {
                ReadPiece::Cached(part) => bytes += part.len(),
                ReadPiece::OnDisk(piece) => {
                    let (log, segment, at, length) = (piece.log, piece.segment, piece.at, piece.length);
                    let read = DiskEffect::Read { ticket: Ticket(1), log, segment, at, length };
                    let event = self.runtime.block_on(self.store.start(read));
                    let DiskEvent::Read { result: Ok(read), .. } = event else { panic!("not read: {event:?}") };
                    let batches = self.log.check_read(&piece, &read, read.len()).expect("the bytes are as written");
                    bytes += batches.iter().map(Bytes::len).sum::<usize>();
                }
            }
        }
        bytes
    }
}

fn fetch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fetch-64KiB");
    for (name, queues, cache) in
        [("from the tail cache", 1, 256 << 20), ("from disk", 1, 0), ("from disk, among 16 queues of one log", 16, 0)]
    {
        let mut filled = Filled::new(queues, cache);
        let middle = Offset((BATCHES / queues * RECORDS / 2) as i64);
        group.throughput(Throughput::Bytes(filled.fetch(middle) as u64));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(filled.fetch(middle))));
    }
    group.finish();
}

fn index(criterion: &mut Criterion) {
    let filled = Filled::new(1, 0);
    let mut group = criterion.benchmark_group("index");
    group.bench_function(format!("one of {BATCHES} batches by offset"), |bencher| {
        let mut offset = 0;
        bencher.iter(|| {
            offset = (offset + 7_919 * RECORDS) % (BATCHES * RECORDS);
            black_box(filled.log.read(QUEUE, Offset(offset as i64), 1, true))
        });
    });
    group.finish();
}

criterion_group!(benches, fetch, index);
criterion_main!(benches);
