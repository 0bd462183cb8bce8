//! The two arms of every port, for the conformance bodies: the real ones, and the simulated ones in a world of one node.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use mqassay_broker::node::Ports;
use mqassay_broker::real::clock::SystemClock;
use mqassay_broker::real::disk::RealDisk;
use mqassay_broker::real::net::TcpNet;
use mqassay_broker::real::rand::SystemRand;
use mqassay_harness::plan::sample::sample;
use mqassay_harness::plan::scenario::Scenario;
use mqassay_harness::sim::flag::Flag;
use mqassay_harness::sim::world::{Control, World};
use mqassay_scenarios::adapter::disk::NodeDisk;
use mqassay_scenarios::adapter::net::NodeNet;
use mqassay_scenarios::adapter::node::{NodeClock, NodeObserver, NodeRand, ports};

pub(crate) fn real_disk(folder: &Path) -> RealDisk {
    RealDisk::open(folder).unwrap()
}

pub(crate) fn real_net() -> TcpNet {
    TcpNet
}

pub(crate) fn real_clock() -> SystemClock {
    SystemClock::new()
}

pub(crate) fn real_rand() -> SystemRand {
    SystemRand::default()
}

/// An address that the simulated node can bind and dial.
pub(crate) fn simulated_address() -> SocketAddr {
    SocketAddr::from(([192, 168, 0, 1], 9092))
}

/// Runs the body as the only node of a world without faults; a panic in it fails the test.
pub(crate) fn in_the_simulated_world<Fut>(
    body: impl Fn(Ports<NodeDisk, NodeNet, NodeClock, NodeRand, NodeObserver>) -> Fut + 'static,
) where
    Fut: Future<Output = ()> + 'static,
{
    let text = "name = \"arms\"\ntitle = \"No fault at all.\"\n[world]\njitter_ms = 3\nlatency_ms = 1\n[workload]\n";
    let plan = sample(&Scenario::parse("arms", text).unwrap(), 1, None);
    let mut world = World::new(&plan).unwrap();
    let (body, done) = (Rc::new(body), Flag::default());
    let seen = done.clone();
    world
        .add_node(0, move |node| {
            let (body, done) = (body.clone(), done.clone());
            async move {
                body(ports(&node, None)).await;
                done.raise();
                node.stop.wait().await;
                Ok(())
            }
        })
        .unwrap();
    let reached = seen.clone();
    world
        .add_client(0, move |client| async move {
            reached.wait().await;
            client.operations_done.raise();
            Ok(())
        })
        .unwrap();
    let outcome = world.run(Control::default()).unwrap();
    assert!(seen.is_raised(), "the body did not end: {:?}", outcome.marks);
}
