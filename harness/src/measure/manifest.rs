//! The manifest that every result carries: the machine, its kernel and file system, stolen time, and the command line.
//! What only the caller knows (client version, brokers' versions, settings) is added by the caller.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What the machine says of itself now; `data` is the folder whose file system matters.
pub fn machine(data: &Path) -> BTreeMap<String, String> {
    let mut manifest = BTreeMap::new();
    let mut put = |name: &str, value: Option<String>| {
        manifest.insert(name.to_owned(), value.unwrap_or_else(|| "unknown".to_owned()));
    };
    put("kernel", read_line("/proc/sys/kernel/osrelease"));
    put("cpu", cpu_model(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()));
    put("cores", std::thread::available_parallelism().ok().map(|cores| cores.to_string()));
    put("memory", field_of("/proc/meminfo", "MemTotal:"));
    put("load average at start", read_line("/proc/loadavg"));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folder = data.canonicalize().unwrap_or_else(|_| data.to_path_buf());
    put("file system", mount_of(&mounts, &folder));
    put("commit", commit());
    put("mqassay", Some(env!("CARGO_PKG_VERSION").to_owned()));
    put("command line", Some(std::env::args().collect::<Vec<String>>().join(" ")));
    manifest
}

/// Time of all processors so far: (stolen, all), in ticks. Two readings give the share stolen between them.
pub fn stolen_and_total_ticks() -> Option<(u64, u64)> {
    parse_processor_times(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The share of processor time stolen between two readings, as text in percent.
pub fn stolen_share(before: Option<(u64, u64)>, after: Option<(u64, u64)>) -> String {
    let (Some(before), Some(after)) = (before, after) else { return "unknown".to_owned() };
    let total = after.1.saturating_sub(before.1);
    if total == 0 {
        return "unknown".to_owned();
    }
    format!("{:.2} %", 100.0 * after.0.saturating_sub(before.0) as f64 / total as f64)
}

/// The commit that this code was built from, where its checkout is still there; `+changes` marks an unclean tree.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let is_clean = git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if is_clean { commit } else { format!("{commit}+changes") })
}

fn read_line(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn field_of(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name") || line.starts_with("CPU part"))?;
    line.split_once(':').map(|(_, model)| model.trim().to_owned())
}

/// The mount that holds `folder`, by the longest mount point that is a prefix of it: kind, options, mount point.
fn mount_of(mountinfo: &str, folder: &Path) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let (Some(point), Some(options)) = (left.get(4), left.get(5)) else { continue };
        let Some(kind) = right.split(' ').next() else { continue };
        let is_longer = best.as_ref().is_none_or(|(length, _)| point.len() >= *length);
        if folder.starts_with(point) && is_longer {
            best = Some((point.len(), format!("{kind} ({options}) on {point}")));
        }
    }
    best.map(|(_, text)| text)
}

/// The first line of proc(5) `stat`: user nice system idle iowait irq softirq steal; guest time is within user's.
fn parse_processor_times(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    (ticks.len() == 8).then(|| (ticks[7], ticks.iter().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_wins_and_a_sibling_with_the_same_prefix_does_not() {
        let mounts = "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/a rw\n\
                      21 20 0:5 / /data rw,noatime - xfs /dev/b rw\n\
                      22 20 0:6 / /data2 rw - tmpfs tmpfs rw\n";
        assert_eq!(mount_of(mounts, Path::new("/data/x")).unwrap(), "xfs (rw,noatime) on /data");
        assert_eq!(mount_of(mounts, Path::new("/database")).unwrap(), "ext4 (rw,relatime) on /");
    }

    #[test]
    fn stolen_time_is_a_share_of_the_time_between() {
        let before = parse_processor_times("cpu  100 0 0 800 0 0 0 100 50 0\ncpu0 1\n");
        let after = parse_processor_times("cpu  150 0 0 840 0 0 0 110 50 0\n");
        assert_eq!(before, Some((100, 1_000)));
        assert_eq!(stolen_share(before, after), "10.00 %");
        assert_eq!(stolen_share(None, after), "unknown");
    }

    #[test]
    fn the_machine_tells_its_kernel_and_cores() {
        let manifest = machine(Path::new("/"));
        assert_ne!(manifest["kernel"], "unknown");
        assert!(manifest["cores"].parse::<usize>().unwrap() > 0);
        assert!(manifest.contains_key("file system"));
    }
}
