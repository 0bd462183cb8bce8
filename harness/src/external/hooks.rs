//! Faults by the user's own commands: a plan's kills, power losses and restarts become `kill` and `restart` commands, at
//! the plan's times. Other faults are left out: a driver's cluster has no hand for them.

use std::process::Stdio;
use std::rc::Rc;

use tokio::process::Command;

use super::ExternalError;
use super::clients::Stage;
use crate::history::Mark;
use crate::plan::{FaultAction, Trigger};

/// Commands for `sh -c`; `{node}` stands for the node's number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Kills a node at once.
    pub kill: Option<String>,
    /// Starts a node again.
    pub restart: Option<String>,
}

/// A command, when it is due, and the fault that it is.
struct Due {
    at_ms: u64,
    command: String,
    /// The fault and the node.
    struck: Option<(u32, u32)>,
}

/// Runs the commands at their times. Without both hooks nothing strikes; one that fails is an error, since a fault that
/// did not strike proves nothing.
pub(super) async fn strike(stage: Rc<Stage>, hooks: Hooks) -> Result<(), ExternalError> {
    let (Some(kill), Some(restart)) = (hooks.kill, hooks.restart) else { return Ok(()) };
    let mut due = Vec::new();
    for (index, fault) in stage.plan.faults.iter().enumerate() {
        let at_ms = match fault.trigger {
            Trigger::At { at_ms } => at_ms,
            Trigger::Point { armed_ms, .. } => armed_ms,
        };
        let (nodes, after_ms, stagger_ms) = match &fault.action {
            FaultAction::Kill { node, restart_after_ms }
            | FaultAction::PowerLoss { node, restart_after_ms }
            | FaultAction::Restart { node, restart_after_ms } => (vec![*node], *restart_after_ms, 0),
            FaultAction::KillSet { nodes, restart_after_ms, stagger_ms }
            | FaultAction::PowerLossSet { nodes, restart_after_ms, stagger_ms } => {
                (nodes.clone(), *restart_after_ms, *stagger_ms)
            }
            FaultAction::Pause { .. }
            | FaultAction::Link { .. }
            | FaultAction::Partition { .. }
            | FaultAction::ClockSkew { .. }
            | FaultAction::DiskError { .. }
            | FaultAction::DiskFull { .. }
            | FaultAction::DiskSlow { .. }
            | FaultAction::AddNode { .. }
            | FaultAction::RemoveNode { .. }
            | FaultAction::BitFlip { .. } => continue,
        };
        for (place, node) in (0u64..).zip(nodes) {
            let command = |hook: &str| hook.replace("{node}", &node.to_string());
            let restart_ms = at_ms + after_ms + stagger_ms * place;
            due.push(Due { at_ms, command: command(&kill), struck: Some((index as u32, node)) });
            due.push(Due { at_ms: restart_ms, command: command(&restart), struck: None });
        }
    }
    due.sort_by_key(|due| due.at_ms);
    for Due { at_ms, command, struck } in due {
        stage.until_ms(at_ms).await;
        let ended =
            Command::new("sh").arg("-c").arg(&command).stdout(Stdio::null()).stdin(Stdio::null()).status().await;
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(ExternalError::Hook { what: format!("ended with {status}"), command }),
            Err(error) => return Err(ExternalError::Hook { what: format!("cannot be run: {error}"), command }),
        }
        // After the command, which may take a while to reach the node: what was sent until now may have met the fault.
        if let Some((fault, node)) = struck {
            stage.mark(|at_us| Mark::Fault { at_us, class: "kill".to_owned(), fault, nodes: vec![node] });
        }
    }
    Ok(())
}
