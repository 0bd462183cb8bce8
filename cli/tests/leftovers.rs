//! A run on real processes that is interrupted in the middle leaves no mount, namespace, link, rule or process behind.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mqassay_harness::process::disk;
use mqassay_harness::process::world::namespaces;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mqassay");

/// Processes whose command line contains the text.
fn processes_with(text: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(text)).collect()
}

fn mounts_below(folder: &str) -> usize {
    fs::read_to_string("/proc/self/mounts").unwrap().lines().filter(|line| line.contains(folder)).count()
}

#[test]
fn an_interrupt_in_the_middle_leaves_nothing_behind() {
    if let Some(what) = disk::missing().or_else(namespaces::missing) {
        println!("not tested here: {what}");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().to_str().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["verify", "cluster-no-loss", "--seeds", "1..50", "--world", "process", "--keep", "none"]);
    command.args(["--disk", "forgetting", "--network", "namespaces"]).env("TMPDIR", folder);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let own = format!("mqassay-{}-", child.id());
    let is_own = |name: &String| name.starts_with(&own);
    let deadline = Instant::now() + Duration::from_secs(120);
    // The middle: every node has its namespace and its disk, and the brokers run.
    while mounts_below(folder) < 3 || processes_with(folder).len() < 6 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
        assert!(Instant::now() < deadline, "{} mounts", mounts_below(folder));
        std::thread::yield_now();
    }
    assert!(namespaces::names().iter().filter(|name| is_own(name)).count() >= 4);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert!(!child.wait().unwrap().success());
    assert_eq!(namespaces::names().into_iter().filter(is_own).collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(mounts_below(folder), 0);
    assert_eq!(processes_with(folder), Vec::<String>::new());
}
