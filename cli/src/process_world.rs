//! `mqassay verify --world process`: the same scenarios on real broker processes and loopback sockets, one run after the
//! other. Faults that only a simulation can make are left out and named. Not here: the run itself (the harness).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mqassay_broker::core::config::{KEYS, NodeConfig};
use mqassay_harness::artifact::folder::{self, KeptRun};
use mqassay_harness::artifact::{RunLine, RunRecord, SummaryLine, VerdictKind, recovery};
use mqassay_harness::check;
use mqassay_harness::plan::{Fault, FaultAction, Plan};
use mqassay_harness::process::ProcessOptions;
use mqassay_harness::process::disk::{self, ForgettingDisk, Metadata};
use mqassay_harness::process::signals::on_first_signal;
use mqassay_harness::process::world::namespaces::{self, Namespaces};
use mqassay_harness::process::world::{Disks, Node, OnForgettingDisk, Outage, ProcessWorld, Ran, ReferenceNode};
use mqassay_scenarios::campaign::{self, Keep, Options, fingerprint};

use crate::exit::{Exit, Failure};
use crate::junit;
use crate::kafka_world::{Kafka, Settings};
use crate::outages;
use crate::progress::{Progress, tell};
use crate::results::json_line;
use crate::verify;

/// Which world the scenarios run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WorldName {
    /// The simulated one: exact replay, power loss, disk faults
    Simulated,
    /// Real processes and loopback sockets: kill -9, SIGSTOP, links cut by forwarding proxies
    Process,
}

/// The system under test in the process world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SystemName {
    /// The reference broker
    Reference,
    /// Apache Kafka with its stock settings
    Kafka,
    /// Apache Kafka with its safest: a flush for every message, two in-sync replicas where there are three nodes
    KafkaSafest,
}

/// What the nodes' data lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DiskName {
    /// The machine's own disk: no power loss, no disk faults
    Own,
    /// A file system in user space that forgets what is unsynced when its power is lost; needs root and /dev/fuse
    Forgetting,
    /// The same, but for its names: committed in order and with any sync, as journals of ext4 and XFS do
    ForgettingJournal,
}

/// How the nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NetworkName {
    /// Over loopback, through forwarding proxies where the system can be told other addresses of its nodes
    Proxies,
    /// Each in a network namespace of its own, links cut with nftables; needs root, iproute2 and nftables, else proxies
    Namespaces,
}

impl From<DiskName> for Disks {
    fn from(name: DiskName) -> Disks {
        match name {
            DiskName::Own => Disks::Own,
            DiskName::Forgetting => Disks::Forgetting(Metadata::Posix),
            DiskName::ForgettingJournal => Disks::Forgetting(Metadata::Journal),
        }
    }
}

/// How the runs are told.
pub(crate) struct Telling<'a> {
    pub(crate) json: bool,
    pub(crate) junit: Option<&'a Path>,
}

/// Runs the campaign and exits by its verdict.
pub(crate) fn run(
    options: &Options,
    system: SystemName,
    (disk, network): (DiskName, NetworkName),
    telling: &Telling<'_>,
) -> Result<Exit, Failure> {
    if options.mutant.is_some() {
        let why = "a server has no way to be given a deliberate bug; mutants live in the simulated world";
        return Err(Failure::Usage(format!("--mutant does not go with --world process: {why}")));
    }
    let mut stand = Stand::prepare(disk.into(), network)?;
    let mut summary = SummaryLine { summary: true, ..SummaryLine::default() };
    let mut lines = Vec::new();
    let mut progress = Progress::new("verify", campaign::total(options));
    let mut left_out: Vec<&'static str> = Vec::new();
    let mut outages: Vec<Outage> = Vec::new();
    let mut is_half_cut = false;
    for plan in campaign::plans(options) {
        let began = Instant::now();
        let ran = stand.run(&plan, system)?;
        left_out.extend(&ran.left_out);
        is_half_cut |=
            system != SystemName::Reference && !stand.has_real_links() && ran.plan.faults.iter().any(is_partition);
        outages.extend(ran.outages.iter().cloned());
        let record = judged(options, &ran, began)?;
        if telling.json {
            progress.say(json_line(&record.line)?.trim_end());
        } else if record.line.verdict != VerdictKind::Valid {
            progress.say(&told(&record.line));
        }
        progress.step(&record.line.scenario);
        summary.add(&record);
        lines.push(record.line);
    }
    progress.finish();
    if let Some(path) = telling.junit {
        junit::write(path, &lines)?;
    }
    left_out.sort_unstable();
    left_out.dedup();
    if !left_out.is_empty() {
        eprintln!(
            "mqassay: not made here, for want of a disk that forgets or a simulated clock: {}",
            left_out.join(", ")
        );
    }
    if is_half_cut {
        eprintln!("mqassay: partitions cut clients' links only: {HALF_CUT}");
    }
    let outages = outages::summed(&outages);
    if telling.json {
        outages.iter().try_for_each(|line| json_line(line).map(|text| tell(text.trim_end())))?;
        tell(&json_line(&summary)?);
    } else {
        verify::print_summary(&summary);
        outages.iter().for_each(|line| tell(&line.to_string()));
    }
    Ok(verify::exit(&summary))
}

fn is_partition(fault: &Fault) -> bool {
    matches!(fault.action, FaultAction::Partition { .. })
}

/// Where runs take place, one after the other.
pub(crate) struct Stand {
    ground: Ground,
    kafka: Kafka,
}

impl Stand {
    /// Nothing runs yet.
    pub(crate) fn prepare(disks: Disks, network: NetworkName) -> Result<Stand, Failure> {
        let ground = Ground::prepare(disks, network)?;
        Ok(Stand { kafka: Kafka::new(ground.clone()), ground })
    }

    /// From now on a sync of the reference broker's disks takes as long as the plan says.
    pub(crate) fn plan_syncs(&mut self) {
        self.ground.has_planned_syncs = true;
    }

    /// What the runs stand on.
    pub(crate) fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The version of the Kafka that runs, empty where none does.
    pub(crate) fn kafka_version(&self) -> &str {
        self.kafka.version()
    }

    /// Whether every link among nodes can be cut, whatever the system.
    pub(crate) fn has_real_links(&self) -> bool {
        self.ground.network == NetworkName::Namespaces
    }

    /// Runs a plan.
    pub(crate) fn run(&mut self, plan: &Plan, system: SystemName) -> Result<Ran, Failure> {
        match system {
            SystemName::Reference => {
                let scratch = tempfile::tempdir().map_err(Failure::undone)?;
                on_reference(plan, scratch.path(), &self.ground)
            }
            SystemName::Kafka => self.kafka.run(plan, Settings::Stock),
            SystemName::KafkaSafest => self.kafka.run(plan, Settings::Safest),
        }
    }
}

/// What runs stand on: the nodes' disks, and the flag that ends a run early.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) disks: Disks,
    network: NetworkName,
    /// Whether a sync takes as long as the plan says.
    has_planned_syncs: bool,
    pub(crate) program: PathBuf,
    pub(crate) interrupted: Arc<AtomicBool>,
}

impl Ground {
    /// Cleans up what a crash left, and sees to it that Ctrl-C and SIGTERM end a run as any other.
    pub(crate) fn prepare(disks: Disks, mut network: NetworkName) -> Result<Ground, Failure> {
        let program = std::env::current_exe().map_err(Failure::undone)?;
        let interrupted = Arc::<AtomicBool>::default();
        if disks.can_forget() {
            if let Some(what) = disk::missing() {
                return Err(Failure::Undone(anyhow::anyhow!("a disk that forgets cannot be mounted here: {what}")));
            }
            for folder in disk::unmount_stale() {
                eprintln!("mqassay: unmounted {}, which an earlier run left", folder.display());
            }
        }
        if let Some(what) = namespaces::missing().filter(|_| network == NetworkName::Namespaces) {
            eprintln!("mqassay: no network namespaces here ({what}); links are cut by forwarding proxies");
            network = NetworkName::Proxies;
        }
        let flag = interrupted.clone();
        on_first_signal(move |_| flag.store(true, Ordering::SeqCst)).map_err(Failure::undone)?;
        Ok(Ground { disks, network, has_planned_syncs: false, program, interrupted })
    }

    /// Namespaces for so many nodes, where the nodes have them.
    pub(crate) fn namespaces(&self, nodes: u32) -> Result<Option<Arc<Namespaces>>, Failure> {
        match self.network {
            NetworkName::Namespaces if nodes > 1 => {
                Ok(Some(Arc::new(Namespaces::make(nodes).map_err(Failure::undone)?)))
            }
            NetworkName::Namespaces | NetworkName::Proxies => Ok(None),
        }
    }

    /// A disk mounted on the folder, where runs have disks that forget.
    pub(crate) fn mount(&self, folder: &Path) -> Result<Option<ForgettingDisk>, Failure> {
        match self.disks {
            Disks::Own => Ok(None),
            Disks::Forgetting(metadata) => {
                ForgettingDisk::mount(&self.program, folder, DISK_BYTES, metadata).map(Some).map_err(Failure::undone)
            }
        }
    }
}

/// A node on its disk, if it has one of its own.
pub(crate) fn on_disk(node: Box<dyn Node>, disk: Option<ForgettingDisk>) -> Box<dyn Node> {
    match disk {
        Some(disk) => Box::new(OnForgettingDisk::new(node, disk)),
        None => node,
    }
}

/// A run that is not valid, with the line that runs it again; real time makes no promise that it ends alike.
fn told(line: &RunLine) -> String {
    let first = verify::told(&RunLine { plan: String::new(), ..line.clone() });
    let kept =
        if line.plan.is_empty() { String::new() } else { format!("; plan, history and verdict beside {}", line.plan) };
    format!("{first} --world process{kept}")
}

/// Nodes of the reference broker, each a process of its own with its data below `scratch`.
fn on_reference(plan: &Plan, scratch: &Path, ground: &Ground) -> Result<Ran, Failure> {
    let namespaces = ground.namespaces(plan.world.nodes)?;
    let addresses = match &namespaces {
        // Nothing else listens at such an address.
        Some(namespaces) => {
            let at = |node| SocketAddr::from((namespaces.address(node), NAMESPACE_PORT));
            (0..plan.world.nodes).map(at).collect()
        }
        None => free_addresses(plan.world.nodes).map_err(Failure::undone)?,
    };
    let world = ProcessWorld::prepare_on(plan, addresses.clone(), ground.disks, namespaces.clone());
    let world = world.map_err(Failure::undone)?;
    let world = world.interrupted_by(ground.interrupted.clone());
    let world = if ground.has_planned_syncs { world.with_planned_syncs() } else { world };
    let config = NodeConfig::tiny().with_settings(&plan.settings).map_err(Failure::usage)?;
    let mut nodes: Vec<Box<dyn Node>> = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let mut arguments: Vec<OsString> = vec!["broker".into(), "--data".into()];
        let folder = scratch.join(format!("node-{index}"));
        let disk = ground.mount(&folder)?;
        arguments.push(folder.join("data").into());
        if addresses.len() > 1 {
            // Each node reaches every other through a link of its own.
            let peers = world.peers_of(index as u32).map_err(Failure::undone)?;
            let peers: Vec<String> = peers.iter().enumerate().map(|(id, at)| format!("{id}={at}")).collect();
            arguments.extend(["--node".into(), index.to_string().into(), "--cluster".into(), peers.join(",").into()]);
            arguments.extend(["--set".into(), format!("advertised={address}").into()]);
        }
        // Only a build with the feature `mutants` knows the word; `real_replay` sees to it that this is one.
        if let Some(mutant) = &plan.mutant {
            arguments.extend(["--mutant".into(), mutant.into()]);
        }
        for (name, value) in settings_of(&config) {
            arguments.push("--set".into());
            arguments.push(format!("{name}={value}").into());
        }
        let mut program = ground.program.clone();
        if let Some(namespaces) = &namespaces {
            let mut words = namespaces.enter(index as u32).into_iter().map(OsString::from);
            let entering = words.next().map(PathBuf::from).unwrap_or_default();
            arguments = words.chain([program.into_os_string()]).chain(arguments).collect();
            program = entering;
        }
        let options = ProcessOptions { program, arguments, ready_timeout: READY };
        let mut node = on_disk(Box::new(ReferenceNode::new(options, *address)), disk);
        node.start().map_err(Failure::undone)?;
        nodes.push(node);
    }
    let (ran, nodes) = world.run(nodes).map_err(Failure::undone)?;
    for mut node in nodes {
        node.stop(ENDING).map_err(Failure::undone)?;
    }
    Ok(ran)
}

/// What is set on a command line, all but the node's identity.
fn settings_of(config: &NodeConfig) -> Vec<(&'static str, String)> {
    let is_identity = |name: &str| matches!(name, "listen" | "advertised" | "node-id" | "cluster" | "join" | "metrics");
    let wanted = KEYS.iter().filter(|name| !is_identity(name));
    wanted.filter_map(|name| Some((*name, config.value(name)?))).collect()
}

/// Loopback addresses that were free a moment ago.
fn free_addresses(count: u32) -> std::io::Result<Vec<SocketAddr>> {
    let bound: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    bound.iter().map(TcpListener::local_addr).collect()
}

/// Judges a run and keeps what is to be kept of it.
pub(crate) fn judged(options: &Options, ran: &Ran, began: Instant) -> Result<RunRecord, Failure> {
    let plan = &ran.plan;
    let verdict = check::judge(&ran.history, &ran.judge);
    let mut line = RunLine {
        scenario: plan.scenario.clone(),
        seed: plan.seed,
        mutant: None,
        verdict: verdict.kind,
        anomalies: verdict.violations(),
        allowed: verdict.allowed(),
        operations: ran.history.operations.len() as u64,
        faults: ran.struck,
        trace_hash: String::new(),
        plan: String::new(),
        simulated_seconds: 0.0,
        wall_seconds: began.elapsed().as_secs_f64(),
    };
    let is_kept = match options.keep {
        Keep::All => true,
        Keep::Failures => verdict.kind != VerdictKind::Valid,
        Keep::None => false,
    };
    if is_kept {
        let kept_in = campaign::folder_of(&options.runs_dir.join("process"), plan);
        line.plan = folder::write_plan(&kept_in, plan).map_err(Failure::undone)?.display().to_string();
        let kept = KeptRun { line: line.clone(), verdict: verdict.clone() };
        folder::write_run(&kept_in, &kept, &ran.history, &[]).map_err(Failure::undone)?;
        if verdict.kind != VerdictKind::Valid {
            folder::keep_logs(&kept_in, &ran.logs).map_err(Failure::undone)?;
        }
    }
    Ok(RunRecord {
        situations: BTreeSet::new(),
        line,
        events: ran.events.clone().into_iter().filter(|(_, count)| *count > 0).collect(),
        coverage: Default::default(),
        recovery: recovery::of_history(&ran.history),
        fingerprint: fingerprint::of(&verdict, &ran.history),
        proof: None,
    })
}

/// Why the links among the nodes of an external system stay.
const HALF_CUT: &str = "its nodes advertise one address to all, so that no proxy can stand between two of them";
/// Where nodes listen that have an address of their own.
const NAMESPACE_PORT: u16 = 9_092;
/// Size of each node's disk, where it has one of its own.
const DISK_BYTES: u64 = 1 << 30;
/// How long a node may take until it listens.
const READY: Duration = Duration::from_secs(30);
/// How long a node may take to end at last.
const ENDING: Duration = Duration::from_secs(30);
