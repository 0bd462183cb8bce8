//! The broker's Clock, Rand and Observer ports over the simulated world, and a node's five ports together.
//! Nothing is decided here.

use std::future::Future;
use std::time::Duration;

use mqassay_broker::core::dump::CoreDump;
use mqassay_broker::node::Ports;
use mqassay_broker::ports::{Clock, Observer, Rand};
use mqassay_harness::plan::draws::Draws;
use mqassay_harness::sim::clock::SimClock;
use mqassay_harness::sim::gate::Gate;
use mqassay_harness::sim::node::SimNode;

use super::disk::NodeDisk;
use super::net::NodeNet;
use super::probe::{Probe, Sightings};

/// A simulated node's clock.
#[derive(Clone)]
pub struct NodeClock(pub SimClock);

impl Clock for NodeClock {
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn wall_ms(&self) -> i64 {
        self.0.wall_ms()
    }

    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()> + 'static {
        self.0.sleep_until(deadline)
    }
}

/// A simulated node's draws.
#[derive(Clone)]
pub struct NodeRand(pub Draws);

impl Rand for NodeRand {
    fn draw(&self, label: &'static str, entity: u64) -> u64 {
        self.0.draw(label, entity)
    }
}

/// Tells a simulated node's points and events to its gate, and its state to a probe, where there is one.
#[derive(Clone)]
pub struct NodeObserver {
    gate: Gate,
    probe: Option<Probe>,
}

impl Observer for NodeObserver {
    fn point(&self, name: &'static str) {
        self.gate.point(name);
    }

    fn event(&self, name: &'static str, count: u64) {
        self.gate.event(name, count);
    }

    fn turn_ended(&self, state: &dyn Fn() -> CoreDump) {
        if let Some(probe) = &self.probe
            && self.gate.is_open()
        {
            probe.see(state());
        }
    }
}

/// The five ports of a simulated node, whose state a probe may see.
pub fn ports(
    node: &SimNode,
    sightings: Option<&Sightings>,
) -> Ports<NodeDisk, NodeNet, NodeClock, NodeRand, NodeObserver> {
    let probe = sightings.map(|sightings| Probe {
        sightings: sightings.clone(),
        clock: node.clock.clone(),
        node: node.node,
        incarnation: node.incarnation,
    });
    Ports {
        disk: NodeDisk(node.disk.clone()),
        net: NodeNet(node.net.clone()),
        clock: NodeClock(node.clock.clone()),
        rand: NodeRand(node.draws.clone()),
        observer: NodeObserver { gate: node.gate.clone(), probe },
    }
}
