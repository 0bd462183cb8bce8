//! Brokers and their controller, which is the leader of the metadata log: registration, signs of life, fencing, and a
//! broker's controlled end. Start at `Core::on_heartbeat_due`, which does both sides' regular work.
//! Sessions are in the controller's memory, by its own monotonic clock; a new controller gives every broker a new one.
//! Not here: what fencing means for leaders (`placement`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::admin::ProposalOf;
use super::config::NODES_MAX;
use super::machine::{Core, DeadlineOf, Effects};
use super::metadata::{Metadata, MetadataRecord};
use super::peer::{ControlMessage, Hello, PeerMessage};
use super::placement::Broker;
use super::quorum::Envelope;
use super::raft::message::Peer;
use super::types::{NodeId, Now};

/// What a node knows as broker and, while it leads, as controller.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// When each broker was heard last; of the controller only.
    sessions: BTreeMap<NodeId, Duration>,
    /// A registration of this process is on its way until then.
    registering_until: Option<Duration>,
    heartbeat_at: Option<Duration>,
    /// Where nodes that introduced themselves listen: one that joins is in nobody's settings.
    met: BTreeMap<NodeId, (String, u16)>,
    /// Who leads, as others said last; one that joined later may lead, and is in nobody's settings.
    pointed_to: Option<NodeId>,
    wants_shutdown: bool,
    may_shut_down: bool,
    /// Where nobody takes over by then, the node ends all the same.
    shutdown_at: Option<Duration>,
}

impl Core {
    /// The broker epoch of this process; none before its registration was applied.
    pub fn broker_epoch(&self) -> Option<i64> {
        let broker = self.metadata.broker(NodeId(self.config.node_id))?;
        (broker.incarnation == self.incarnation).then_some(broker.epoch)
    }

    /// Whether clients are welcome: a node alone waits for its own registration, others tell them who leads.
    pub fn is_serving(&self) -> bool {
        self.is_in_cluster() || self.is_active()
    }

    /// Whether the node leads the metadata log.
    pub fn is_controller(&self) -> bool {
        self.quorum.raft.is_leader()
    }

    /// Who leads the metadata log, as far as the node knows.
    pub fn controller(&self) -> Option<NodeId> {
        self.quorum.raft.leader()
    }

    /// Where a node can be reached by others.
    pub fn address_of(&self, id: NodeId) -> Option<(String, u16)> {
        if let Some(peer) = self.config.cluster.iter().find(|peer| peer.id == id) {
            return Some((peer.host.clone(), peer.port));
        }
        let broker = self.metadata.broker(id).map(|broker| (broker.host.clone(), broker.port));
        let voter = || self.quorum.raft.voters().iter().find(|peer| peer.id == id);
        let met = || self.control.met.get(&id).cloned();
        broker.or_else(|| voter().map(|peer| (peer.host.clone(), peer.port))).or_else(met)
    }

    /// How the node introduces itself to others.
    pub fn hello(&self) -> Hello {
        Hello {
            cluster: self.metadata.cluster().unwrap_or(0),
            node: NodeId(self.config.node_id),
            incarnation: self.incarnation,
            host: self.advertised.host.clone(),
            port: self.advertised.port,
        }
    }

    /// Whether a node that introduces itself may belong to the same cluster.
    pub fn welcomes(&mut self, hello: &Hello) -> bool {
        let is_same = self.metadata.cluster().is_none_or(|own| hello.cluster == 0 || hello.cluster == own);
        let is_welcome = is_same && hello.node.0 != self.config.node_id;
        if is_welcome {
            self.meet(hello.node, hello.host.clone(), hello.port);
        }
        is_welcome
    }

    fn meet(&mut self, id: NodeId, host: String, port: u16) {
        if self.control.met.len() < NODES_MAX || self.control.met.contains_key(&id) {
            self.control.met.insert(id, (host, port));
        }
    }

    /// Begins to end: other replicas are to take over first.
    pub fn begin_shutdown(&mut self, now: Now, effects: &mut Effects) {
        self.control.wants_shutdown = true;
        self.control.may_shut_down = !self.is_in_cluster() || self.broker_epoch().is_none();
        let at = now.monotonic + self.config.election_timeout * SHUTDOWN_ELECTIONS;
        self.control.shutdown_at = Some(at);
        self.set_deadline(at, DeadlineOf::Heartbeat);
        self.send_heartbeat(now, effects);
    }

    /// Whether a controlled end has nothing more to wait for.
    pub(super) fn may_shut_down(&self) -> bool {
        !self.control.wants_shutdown || self.control.may_shut_down
    }

    pub(super) fn is_in_cluster(&self) -> bool {
        self.config.joins || self.config.cluster.len() > 1 || self.quorum.raft.voters().len() > 1
    }

    fn is_active(&self) -> bool {
        let own = self.metadata.broker(NodeId(self.config.node_id));
        self.broker_epoch().is_some() && own.is_some_and(|broker| !broker.fenced)
    }

    /// Another node leads, or none; or this one does.
    pub(super) fn on_controller_changed(&mut self, now: Now, effects: &mut Effects) {
        self.control.sessions.clear();
        if self.is_controller() {
            effects.events.push((crate::points::CONTROLLER_ELECTED, 1));
            let brokers: Vec<NodeId> = self.metadata.brokers().map(|(id, _)| id).collect();
            self.control.sessions.extend(brokers.into_iter().map(|id| (id, now.monotonic)));
            if self.metadata.cluster().is_none() {
                let record = MetadataRecord::ClusterNamed { cluster: self.cluster };
                self.submit_own(record, now, effects);
            }
        }
        self.send_proposals(now, effects);
        self.on_heartbeat_due(now, effects);
    }

    /// The regular work of a broker and of a controller.
    pub(super) fn on_heartbeat_due(&mut self, now: Now, effects: &mut Effects) {
        if let Some(at) = self.control.heartbeat_at.take() {
            self.clear_deadline(at, DeadlineOf::Heartbeat);
        }
        self.control.may_shut_down |= self.control.shutdown_at.is_some_and(|at| at <= now.monotonic);
        if self.is_controller() {
            self.fence_silent(now, effects);
            self.change_voters(now, effects);
        }
        self.send_proposals(now, effects);
        if self.broker_epoch().is_none() {
            self.register(now, effects);
        } else {
            self.send_heartbeat(now, effects);
        }
        // A node alone has nobody to hear from.
        if self.is_in_cluster() || !self.is_active() {
            let at = now.monotonic + self.config.heartbeat_interval;
            self.control.heartbeat_at = Some(at);
            self.set_deadline(at, DeadlineOf::Heartbeat);
        }
    }

    fn register(&mut self, now: Now, effects: &mut Effects) {
        if self.controller().is_none() {
            // Whoever leads begins to send entries to those that it hears of.
            return self.send_to_everyone(&self.heartbeat(), effects);
        }
        if self.control.registering_until.is_some_and(|until| until > now.monotonic) {
            return;
        }
        if self.metadata.is_removed(NodeId(self.config.node_id), self.incarnation) {
            return;
        }
        self.control.registering_until = Some(now.monotonic + self.config.session_timeout);
        let record = MetadataRecord::BrokerRegistered {
            id: self.config.node_id,
            incarnation: self.incarnation,
            host: self.advertised.host.clone(),
            port: self.advertised.port,
            found: self.quorum.found,
        };
        self.submit_own(record, now, effects);
    }

    /// Proposes a record that nobody waits for; it is proposed again where it is lost.
    fn submit_own(&mut self, record: MetadataRecord, now: Now, effects: &mut Effects) {
        // Too many proposals wait already; the next heartbeat tries again.
        let _ = self.submit(record, None, now, effects);
    }

    fn heartbeat(&self) -> ControlMessage {
        ControlMessage::Heartbeat {
            incarnation: self.incarnation,
            broker_epoch: self.broker_epoch().unwrap_or(-1),
            applied: self.metadata.record_next().0,
            wants_shutdown: self.control.wants_shutdown,
        }
    }

    fn send_heartbeat(&mut self, now: Now, effects: &mut Effects) {
        let heartbeat = self.heartbeat();
        match self.controller() {
            Some(id) if id.0 == self.config.node_id => self.on_control_message(id, heartbeat, now, effects),
            Some(id) => effects.peers.push((id, PeerMessage::Control(heartbeat))),
            None => self.send_to_everyone(&heartbeat, effects),
        }
    }

    fn send_to_everyone(&self, message: &ControlMessage, effects: &mut Effects) {
        // Whoever joined later, or is all that is left, is in nobody's settings.
        let known = self.config.cluster.iter().chain(self.quorum.raft.voters()).map(|peer| peer.id);
        let brokers = self.metadata.brokers().map(|(id, _)| id);
        let others: BTreeSet<NodeId> = known.chain(brokers).chain(self.control.pointed_to).collect();
        let others = others.into_iter().filter(|id| id.0 != self.config.node_id);
        effects.peers.extend(others.map(|id| (id, PeerMessage::Control(message.clone()))));
    }

    /// A message came; the controller's messages to itself come here too.
    pub(super) fn on_control_message(
        &mut self,
        from: NodeId,
        message: ControlMessage,
        now: Now,
        effects: &mut Effects,
    ) {
        match message {
            ControlMessage::Propose { tag, record } => {
                let is_sound = Envelope::decode(&record).is_some();
                let proposed = is_sound
                    && self.with_raft(now, effects, |raft, output| raft.propose(record, now.monotonic, output)).is_ok();
                if !proposed {
                    let refusal = ControlMessage::ProposalRefused { tag, leader: self.controller() };
                    self.answer(from, refusal, now, effects);
                }
            }
            ControlMessage::ProposalRefused { tag, leader: _ } => self.on_proposal_refused(tag),
            ControlMessage::Heartbeat { incarnation, broker_epoch, applied, wants_shutdown } => {
                if self.is_controller() {
                    self.with_raft(now, effects, |raft, _| raft.observe(from, now.monotonic));
                    let alive = Alive { id: from, incarnation, broker_epoch, applied, wants_shutdown };
                    self.on_heartbeat(alive, now, effects);
                } else {
                    self.point_to_controller(from, effects);
                }
            }
            ControlMessage::HeartbeatReply { broker_epoch, may_shut_down } => {
                if Some(broker_epoch) == self.broker_epoch() {
                    self.control.may_shut_down |= may_shut_down;
                }
            }
            // Told at the next heartbeat, and only where nobody leads: two that point to each other cannot keep it going.
            ControlMessage::NotController { leader, host, port } => {
                self.meet(leader, host, port);
                self.control.pointed_to = Some(leader);
            }
        }
    }

    /// Tells a node without a vote who leads; those that vote hear from the leader itself.
    fn point_to_controller(&self, to: NodeId, effects: &mut Effects) {
        let Some(leader) = self.controller() else { return };
        let votes = self.quorum.raft.voters().iter().any(|peer| peer.id == to);
        if !votes
            && leader != to
            && let Some((host, port)) = self.address_of(leader)
        {
            effects.peers.push((to, PeerMessage::Control(ControlMessage::NotController { leader, host, port })));
        }
    }

    fn answer(&mut self, to: NodeId, message: ControlMessage, now: Now, effects: &mut Effects) {
        if to.0 == self.config.node_id {
            self.on_control_message(to, message, now, effects);
        } else {
            effects.peers.push((to, PeerMessage::Control(message)));
        }
    }

    fn on_heartbeat(&mut self, alive: Alive, now: Now, effects: &mut Effects) {
        let Alive { id, incarnation, broker_epoch, applied, wants_shutdown } = alive;
        let Some(broker) = self.metadata.broker(id) else { return };
        if broker.incarnation != incarnation || broker.epoch != broker_epoch {
            return;
        }
        self.control.sessions.insert(id, now.monotonic);
        let (epoch, is_fenced, is_leaving) = (broker.epoch, broker.fenced, broker.shutting_down);
        if wants_shutdown && !is_leaving {
            self.submit_own(MetadataRecord::BrokerShuttingDown { id: id.0, epoch }, now, effects);
        } else if is_fenced && !is_leaving && applied > epoch {
            self.submit_own(MetadataRecord::BrokerUnfenced { id: id.0, epoch }, now, effects);
        }
        let may_shut_down = is_leaving && !leads(&self.metadata, id);
        let reply = ControlMessage::HeartbeatReply { broker_epoch: epoch, may_shut_down };
        self.answer(id, reply, now, effects);
    }

    /// Fences the brokers that were silent for a session's time.
    fn fence_silent(&mut self, now: Now, effects: &mut Effects) {
        if !self.quorum.raft.is_settled_leader() {
            return;
        }
        let mut silent = Vec::new();
        for (id, broker) in self.metadata.brokers() {
            let heard = *self.control.sessions.entry(id).or_insert(now.monotonic);
            if !broker.fenced && id.0 != self.config.node_id && now.monotonic >= heard + self.config.session_timeout {
                silent.push(MetadataRecord::BrokerFenced { id: id.0, epoch: broker.epoch });
            }
        }
        for record in silent {
            effects.events.push((crate::points::BROKER_FENCED, 1));
            self.submit_own(record, now, effects);
        }
    }

    /// Brokers were registered, fenced or unfenced.
    pub(super) fn on_brokers_changed(&mut self, now: Now, effects: &mut Effects) {
        let own = self.metadata.broker(NodeId(self.config.node_id));
        let is_leaving = own.is_some_and(|broker| broker.incarnation == self.incarnation && broker.shutting_down);
        self.control.may_shut_down |= is_leaving && !leads(&self.metadata, NodeId(self.config.node_id));
        let is_new = own.is_some_and(|broker| broker.incarnation == self.incarnation && broker.fenced);
        if is_new && !self.control.wants_shutdown {
            self.control.registering_until = None;
            self.send_heartbeat(now, effects);
        }
    }

    /// Every broker of the cluster votes: one that has caught up gets its vote, one that was unregistered loses it.
    /// One change at a time; the next follows with the regular work.
    fn change_voters(&mut self, now: Now, effects: &mut Effects) {
        let raft = &self.quorum.raft;
        if !raft.is_settled_leader() {
            return;
        }
        let mut voters = raft.voters().to_vec();
        let is_voter = |id: NodeId| voters.iter().any(|peer| peer.id == id);
        let is_added =
            |(id, broker): &(NodeId, &Broker)| broker.is_active() && !is_voter(*id) && raft.has_caught_up(*id);
        if let Some(gone) = voters.iter().position(|peer| self.metadata.is_unregistered(peer.id)) {
            voters.remove(gone);
        } else if let Some((id, broker)) = self.metadata.brokers().find(is_added) {
            voters.push(Peer { id, host: broker.host.clone(), port: broker.port });
            voters.sort();
        } else {
            return;
        }
        // Refused while another change is under way.
        if self.with_raft(now, effects, |raft, output| raft.change_voters(voters, now.monotonic, output)).is_ok() {
            effects.points.push(crate::points::VOTERS_PROPOSED);
            effects.events.push((crate::points::VOTERS_CHANGE, 1));
        }
    }

    /// A proposal that nobody waits for was lost; the regular work proposes it again.
    pub(super) fn on_own_proposal_lost(&mut self, of: &ProposalOf, now: Now, effects: &mut Effects) {
        match of {
            ProposalOf::ProducerIds => self.refuse_init_producer_ids(effects),
            ProposalOf::Replicas(log) => self.on_placement(*log, now, effects),
            ProposalOf::Other => {}
        }
    }
}

/// A broker's sign of life.
struct Alive {
    id: NodeId,
    incarnation: u64,
    broker_epoch: i64,
    applied: i64,
    wants_shutdown: bool,
}

fn leads(metadata: &Metadata, id: NodeId) -> bool {
    // Where nobody else may lead, waiting longer changes nothing: applying the record took the leadership away.
    metadata.placements().any(|(_, placement)| placement.leader == Some(id.0))
}

/// A node that ends waits for at most this many election time-outs for others to take over.
const SHUTDOWN_ELECTIONS: u32 = 3;
