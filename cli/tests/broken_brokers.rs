//! Two broken brokers that no catalogue knows: the reference broker over a port that lies to it. The judge has to catch
//! each, and the page that explains the run has to name the cause. They live here alone: the broker has no switch for
//! them. With MQASSAY_KEEP_SCREENSHOTS the pages are left in the folder that it names.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mqassay_broker::node::Ports;
use mqassay_broker::ports::{Clock, Disk};
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::sample::sample;
use mqassay_scenarios::adapter::disk::NodeDisk;
use mqassay_scenarios::adapter::node::NodeClock;
use mqassay_scenarios::catalogue;
use mqassay_scenarios::explain::story_of;
use mqassay_scenarios::runner::{NodeRun, NodeStart, Record, Run, run_node, run_plan, run_plan_with};

/// Seeds tried at most until a broken broker shows.
const SEEDS: u64 = 30;
/// Of so many syncs one is answered and never done.
const SYNCS_PER_LIE: u32 = 3;
/// How much faster than time the broken clock goes.
const CLOCK_HASTE: u32 = 20;

/// A disk that swallows some syncs: it says that they are done.
#[derive(Clone)]
struct ForgetfulDisk {
    disk: NodeDisk,
    syncs: Rc<Cell<u32>>,
}

impl Disk for ForgetfulDisk {
    type File = <NodeDisk as Disk>::File;
    type Lock = <NodeDisk as Disk>::Lock;

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.disk.create_directory(directory)
    }

    fn lock_exclusive(&self, path: &str) -> io::Result<Self::Lock> {
        self.disk.lock_exclusive(path)
    }

    fn open(&self, path: &str, create: bool) -> io::Result<Self::File> {
        self.disk.open(path, create)
    }

    fn length(&self, file: &Self::File) -> io::Result<u64> {
        self.disk.length(file)
    }

    fn read_at(&self, file: &Self::File, offset: u64, length: usize) -> io::Result<Bytes> {
        self.disk.read_at(file, offset, length)
    }

    fn write_at(&self, file: &Self::File, offset: u64, parts: &[Bytes]) -> io::Result<()> {
        self.disk.write_at(file, offset, parts)
    }

    fn preallocate(&self, file: &Self::File, length: u64) -> io::Result<()> {
        self.disk.preallocate(file, length)
    }

    fn truncate(&self, file: &Self::File, length: u64) -> io::Result<()> {
        self.disk.truncate(file, length)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.disk.sync_directory(directory)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn sync_file(&self, file: &Self::File) -> impl Future<Output = io::Result<()>> + 'static {
        self.syncs.set(self.syncs.get() + 1);
        let is_lie = self.syncs.get().is_multiple_of(SYNCS_PER_LIE);
        let sync = self.disk.sync_file(file);
        async move { if is_lie { Ok(()) } else { sync.await } }
    }

    fn read_cold(
        &self,
        file: &Self::File,
        offset: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<Bytes>> + 'static {
        self.disk.read_cold(file, offset, length)
    }
}

/// A clock whose wall time hurries ahead, so that records look older than they are.
#[derive(Clone)]
struct HastyClock(NodeClock);

impl Clock for HastyClock {
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn wall_ms(&self) -> i64 {
        let passed_ms = self.0.monotonic().as_millis() as i64;
        self.0.wall_ms() + passed_ms * i64::from(CLOCK_HASTE - 1)
    }

    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()> + 'static {
        self.0.sleep_until(deadline)
    }
}

fn forgetful(start: NodeStart) -> NodeRun {
    Box::pin(run_node(start, |Ports { disk, net, clock, rand, observer }| Ports {
        disk: ForgetfulDisk { disk, syncs: Rc::default() },
        net,
        clock,
        rand,
        observer,
    }))
}

fn hasty(start: NodeStart) -> NodeRun {
    Box::pin(run_node(start, |Ports { disk, net, clock, rand, observer }| Ports {
        disk,
        net,
        clock: HastyClock(clock),
        rand,
        observer,
    }))
}

/// The first plan of the scenario whose run with the software shows the anomaly; the same plan with the reference broker
/// shows nothing.
fn caught(scenario: &str, prepare: fn(&mut Plan), software: fn(NodeStart) -> NodeRun, anomaly: &str) -> (Plan, Run) {
    let scenario = catalogue::find(scenario).unwrap();
    for seed in 1..=SEEDS {
        let mut plan = sample(&scenario, seed, None);
        prepare(&mut plan);
        let run = run_plan_with(&plan, Record::WhiteBox, software).unwrap();
        if run.line.anomalies.contains_key(anomaly) {
            let clean = run_plan(&plan, Record::HashOnly).unwrap();
            assert_eq!(clean.line.anomalies, std::collections::BTreeMap::new(), "seed {seed} of the reference broker");
            return (plan, run);
        }
    }
    panic!("no seed up to {SEEDS} of {} shows {anomaly}", scenario.name);
}

fn page(name: &str, plan: &Plan, run: Run) -> String {
    let page = mqassay_reports::render_story(&story_of(plan, run)).unwrap();
    if let Some(folder) = std::env::var_os("MQASSAY_KEEP_SCREENSHOTS") {
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.html")), &page).unwrap();
    }
    page
}

#[test]
fn a_disk_that_swallows_syncs_is_caught_and_its_page_says_what_was_not_durable() {
    let only_ack = |plan: &mut Plan| {
        plan.settings.insert("flush".to_owned(), "ack".to_owned());
    };
    let (plan, run) = caught("no-loss", only_ack, forgetful, "unseen");
    let page = page("forgetful-disk", &plan, run);
    assert!(page.contains("power loss of node 0"), "the page names the fault");
    assert!(
        page.contains("for durable") && page.contains("that were not durable"),
        "the page names the swallowed sync"
    );
}

#[test]
fn a_clock_that_hurries_is_caught_and_its_page_says_what_was_deleted_too_young() {
    let aged = |plan: &mut Plan| {
        for topic in &mut plan.topics {
            topic.config.insert("retention.ms".to_owned(), "20000".to_owned());
            topic.config.remove("retention.bytes");
        }
    };
    let (plan, run) = caught("retention", aged, hasty, "premature-deletion");
    let page = page("hasty-clock", &plan, run);
    assert!(page.contains("moved the log start of"), "the page names the deletion");
    assert!(page.contains("retention.ms is 20,000"), "the page says what would have justified it");
}
