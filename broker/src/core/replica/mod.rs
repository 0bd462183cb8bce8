//! What a node does as leader or follower of a log.
//! Start at `Core::on_placement`, which hears of every change of a log's placement.

use super::machine::{Core, Effects};
use super::peer::LogMessage;
use super::types::{LeaderEpoch, LogId, NodeId, Now};

impl Core {
    /// The epoch in which this process leads a log; none where it does not.
    pub fn leader_epoch(&self, log: LogId) -> Option<LeaderEpoch> {
        let placement = self.metadata.placement(log)?;
        let is_here = placement.leader == Some(self.config.node_id) && self.broker_epoch().is_some();
        is_here.then_some(LeaderEpoch(placement.leader_epoch))
    }

    /// A log's placement changed, or the log is new.
    pub(super) fn on_placement(&mut self, _log: LogId, _now: Now, _effects: &mut Effects) {}

    /// A message about a log's replication came.
    pub(super) fn on_log_message(&mut self, _from: NodeId, _message: LogMessage, _now: Now, _effects: &mut Effects) {}
}
