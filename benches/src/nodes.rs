//! Several reference brokers as one system: a process each, on loopback ports that were free a moment ago.
//! Start at `start`. Not here: one broker (`prepare`), and clusters of other systems, which `systems up` starts.

use std::net::TcpListener;
use std::path::Path;

use crate::plan::LoadPlan;
use crate::prepare::ReferenceBroker;
use crate::{BenchError, SystemTarget};

/// Starts as many brokers as the plan asks for. They find each other by themselves; the first topic waits for that.
pub(crate) fn start(
    plan: &LoadPlan,
    executable: &Path,
    layout: &str,
    data_parent: &Path,
) -> Result<Vec<ReferenceBroker>, BenchError> {
    let ports = free_ports(plan.nodes)
        .map_err(|source| BenchError::Io { action: "find free loopback ports for the brokers", source })?;
    let nodes = (1..).zip(&ports).map(|(id, port)| format!("{id}=127.0.0.1:{port}"));
    let cluster = nodes.collect::<Vec<String>>().join(",");
    let start_one = |id: u32| {
        let id = id.to_string();
        let identity = ["broker", "--node", id.as_str(), "--cluster", cluster.as_str()];
        let settings = ["--layout", layout, "--flush", plan.flush.word()];
        let arguments: Vec<String> = identity.iter().chain(&settings).map(|word| (*word).to_owned()).collect();
        ReferenceBroker::start_as(executable, &arguments, layout, data_parent)
    };
    (1..=plan.nodes).map(start_one).collect()
}

/// The brokers as one system to measure, under `name`. It cannot be started again as one.
pub(crate) fn target(brokers: &[ReferenceBroker], name: &str, plan: &LoadPlan) -> Option<SystemTarget> {
    let mut targets = brokers.iter().map(|broker| broker.target(name, plan.flush));
    let mut first = targets.next()?;
    for other in targets {
        first.bootstrap = format!("{},{}", first.bootstrap, other.bootstrap);
        first.more_pids.extend(other.pid);
    }
    first.durability = plan.durability();
    first.settings.insert("nodes".to_owned(), brokers.len().to_string());
    first.restart = None;
    Some(first)
}

fn free_ports(count: u32) -> std::io::Result<Vec<u16>> {
    // All are held until all are known, so that none is given twice.
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn each_broker_is_told_of_all_and_their_use_counts_together() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        // It says as its address what it was told of its node and of the cluster.
        let script =
            "#!/bin/sh\necho listening on \"$3/$(echo \"$5\" | tr ',' '\\n' | grep -c 127.0.0.1)\"\nexec sleep 600\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let plan = LoadPlan::named("cluster").unwrap();
        let brokers = start(&plan, &program, "shared", folder.path()).unwrap();
        let target = target(&brokers, "reference", &plan).unwrap();
        assert_eq!(target.bootstrap, "1/3,2/3,3/3");
        assert_eq!((target.more_pids.len(), target.durability.as_str()), (2, "replicated, page cache"));
        assert!(target.pid.is_some_and(|pid| !target.more_pids.contains(&pid)));
    }
}
