//! Criterion benches of the reference broker's storage on a real folder: appending batches to a log, and opening a
//! folder whose last segment must be scanned. Syncs are not in them: they are the disk's, and vary with the machine.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mqassay_broker::core::batch::Batch;
use mqassay_broker::core::log::{Flush, Log, LogSettings};
use mqassay_broker::core::types::{LeaderEpoch, LogId, Now, QueueId};
use mqassay_broker::real::disk::RealDisk;
use mqassay_broker::real::observer::CountingObserver;
use mqassay_broker::store::{Store, StoreSettings};
use tokio::runtime::Runtime;

type RealStore = Store<RealDisk, CountingObserver>;

const NOW: Now = Now { monotonic: Duration::from_secs(1), wall_ms: 1_700_000_000_000 };
const APPENDS: u64 = 500;
const RECOVERED_BATCHES: u64 = 6_000;

fn settings() -> LogSettings {
    LogSettings {
        flush: Flush::Os,
        segment_bytes: 1 << 30,
        retention_ms: None,
        retention_bytes: None,
        compaction: None,
        producer_expiry: Duration::from_secs(86_400),
        tail_cache_bytes: 1 << 20,
    }
}

/// 100 records of 100 bytes: about 10 KiB.
fn batch() -> Batch {
    Batch::of_values(&vec![Bytes::from_static(&[7; 100]); 100], NOW.wall_ms)
}

fn open(runtime: &Runtime, folder: &std::path::Path) -> RealStore {
    let disk = RealDisk::open(folder).expect("a folder of our own");
    let opening = Store::open(disk, CountingObserver::default(), None, StoreSettings::default());
    runtime.block_on(opening).expect("the folder is sound").0
}

fn append_all(store: &mut RealStore, log: &mut Log, batch: &Batch, queues: u64, count: u64) {
    let mut effects = Vec::new();
    for index in 0..count {
        let appended = log.append(QueueId(1 + index % queues), batch.clone(), LeaderEpoch(0), NOW, &mut effects);
        black_box(appended.expect("an online log takes a sound batch"));
        store.perform(&mut effects);
    }
}

fn append(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder for the data");
    let mut store = open(&runtime, folder.path());
    let batch = batch();
    let mut group = criterion.benchmark_group("storage-append");
    group.throughput(Throughput::Bytes(APPENDS * batch.bytes.len() as u64));
    let mut id = 0;
    for queues in [1, 1_000] {
        let fresh_log = |store: &mut RealStore, id: &mut u64| {
            // The last iteration's log goes, so that the folder stays small; its removal is not in the measured time.
            if *id > 0 {
                let mut effects = Vec::new();
                Log::new(LogId(*id), settings(), None).remove(&mut effects);
                store.perform(&mut effects);
            }
            *id += 1;
            Log::new(LogId(*id), settings(), None)
        };
        let store = std::cell::RefCell::new(&mut store);
        group.bench_function(format!("10 KiB batches, {queues} queues in one log"), |bencher| {
            bencher.iter_batched(
                || fresh_log(&mut store.borrow_mut(), &mut id),
                |mut log| {
                    append_all(&mut store.borrow_mut(), &mut log, &batch, queues, APPENDS);
                    log
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn recovery(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder for the data");
    let batch = batch();
    {
        let mut store = open(&runtime, folder.path());
        let mut log = Log::new(LogId(1), settings(), None);
        append_all(&mut store, &mut log, &batch, 100, RECOVERED_BATCHES);
    }
    let mut group = criterion.benchmark_group("storage-recovery");
    group.throughput(Throughput::Bytes(RECOVERED_BATCHES * batch.bytes.len() as u64)).sample_size(10);
    group.bench_function("60 MB in an unsealed segment, 100 queues", |bencher| {
        bencher.iter(|| black_box(open(&runtime, folder.path())));
    });
    group.finish();
}

criterion_group!(benches, append, recovery);
criterion_main!(benches);
