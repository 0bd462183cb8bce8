//! An experiment of the ledger on real processes whose disks forget what was not synced: what a system's synchronous and its
//! asynchronous setting lose when its nodes lose their power. Not here: the settings and the runs (`system_matrix`).

use crate::exit::{Exit, Failure};
use crate::system_matrix::{self, MatrixSystem};

use super::experiments::Gathered;

/// The settings of a system that a claim is about: what the rule calls them, and what their row's name contains.
fn settings(name: &str) -> Option<(MatrixSystem, [(&'static str, &'static str); 2])> {
    match name {
        "rocketmq" => Some((
            MatrixSystem::Rocketmq,
            [("synchronous", "SYNC_FLUSH SYNC_MASTER"), ("asynchronous", "ASYNC_FLUSH ASYNC_MASTER")],
        )),
        "kafka" => Some((
            MatrixSystem::Kafka,
            [
                ("synchronous", "acks=all min.insync.replicas=2 flush.messages=1 election=clean"),
                ("asynchronous", "acks=all min.insync.replicas=2 flush as it comes election=clean"),
            ],
        )),
        _ => None,
    }
}

pub(super) fn losses_on(name: &str, gathered: &mut Gathered) -> Result<(), Failure> {
    let Some((system, settings)) = settings(name) else {
        return Err(Failure::Undone(anyhow::anyhow!("{name} has no pair of settings here; try rocketmq or kafka")));
    };
    let folder = tempfile::tempdir().map_err(Failure::undone)?;
    for (setting, row) in settings {
        for cell in system_matrix::cells(system, row, &FAULTS, RUNS, folder.path().to_path_buf())? {
            let plan = format!("powerless/{setting}/{}", cell.faults.replace(' ', "-"));
            if let Some(why) = cell.not_tested {
                gathered.result(&plan).remarks.push(format!("{name}: not tested here: {why}"));
                continue;
            }
            gathered.manifest.insert(format!("{name} version"), cell.version.clone());
            let share = cell.lost_in as f64 / cell.runs.max(1) as f64;
            gathered.count(&plan, name, "process_runs_that_lost_share", share);
            gathered.count(&plan, name, "messages_lost", cell.lost as f64);
            let exit = if cell.agrees() { Exit::Valid } else { Exit::Violation };
            gathered.verdict(&plan, name, exit, cell.acknowledged);
            let remark = format!(
                "{name}, {}: lost in {} of {} runs, {} of {} acknowledged records; power losses took {} bytes",
                cell.row, cell.lost_in, cell.runs, cell.lost, cell.acknowledged, cell.bytes_lost_by_disks
            );
            gathered.result(&plan).remarks.push(remark);
        }
    }
    Ok(())
}

const FAULTS: [&str; 1] = ["power loss of all"];
/// Runs of each setting: each starts and ends the system several times.
const RUNS: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_one_row_of_the_matrix() {
        for name in ["rocketmq", "kafka"] {
            let (system, settings) = settings(name).unwrap();
            for (_, row) in settings {
                assert_eq!(system_matrix::rows_named(system, row), 1, "{name}: {row}");
            }
        }
    }
}
