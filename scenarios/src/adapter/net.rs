//! The broker's Net port over the harness' SimNet. Nothing is decided here.

use std::io;
use std::net::SocketAddr;

use mqassay_broker::ports::{Listener, Net};
use mqassay_harness::sim::net::{SimListener, SimNet, SimStream};

/// A simulated node's network.
#[derive(Clone)]
pub struct NodeNet(pub SimNet);

/// A simulated node's listener.
pub struct NodeListener(SimListener);

impl Net for NodeNet {
    type Stream = SimStream;
    type Listener = NodeListener;

    async fn listen(&self, address: SocketAddr) -> io::Result<NodeListener> {
        self.0.listen(address).await.map(NodeListener)
    }

    async fn dial(&self, host: &str, port: u16) -> io::Result<SimStream> {
        self.0.dial(&format!("{host}:{port}")).await
    }
}

impl Listener for NodeListener {
    type Stream = SimStream;

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_address()
    }

    async fn accept(&mut self) -> io::Result<(SimStream, SocketAddr)> {
        self.0.accept().await
    }
}
