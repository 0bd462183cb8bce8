//! Brokers and their controller: registration, signs of life, fencing.
//! Start at `Core::register`.

use super::machine::{Core, Effects};
use super::metadata::MetadataRecord;
use super::placement::DataFound;
use super::types::{NodeId, Now};

impl Core {
    /// The broker epoch of this process; none before its registration was applied.
    pub fn broker_epoch(&self) -> Option<i64> {
        let broker = self.metadata.broker(NodeId(self.config.node_id))?;
        (broker.incarnation == self.incarnation).then_some(broker.epoch)
    }

    /// Whether clients are welcome: a node alone waits for its own registration, others tell them who leads.
    pub fn is_serving(&self) -> bool {
        let is_active = || self.metadata.broker(NodeId(self.config.node_id)).is_some_and(|broker| !broker.fenced);
        self.config.cluster.len() > 1 || (self.broker_epoch().is_some() && is_active())
    }

    pub(super) fn register(&mut self, found: DataFound, now: Now, effects: &mut Effects) {
        let record = MetadataRecord::BrokerRegistered {
            id: self.config.node_id,
            incarnation: self.incarnation,
            host: self.advertised.host.clone(),
            port: self.advertised.port,
            found,
        };
        let submitted = self.submit(record, None, now, effects);
        assert!(submitted.is_ok(), "a log that was just recovered is online");
    }

    pub(super) fn on_brokers_changed(&mut self, now: Now, effects: &mut Effects) {
        let id = self.config.node_id;
        let Some(broker) = self.metadata.broker(NodeId(id)) else { return };
        if broker.incarnation == self.incarnation && broker.fenced {
            let record = MetadataRecord::BrokerUnfenced { id, epoch: broker.epoch };
            let _ = self.submit(record, None, now, effects);
        }
    }
}
