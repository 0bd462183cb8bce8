//! TCP through tokio, without delay for small packets.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use crate::ports::{Listener, Net};

/// The system's TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

/// A bound TCP listener.
#[derive(Debug)]
pub struct BoundListener(TcpListener);

impl Net for TcpNet {
    type Stream = TcpStream;
    type Listener = BoundListener;

    async fn listen(&self, address: SocketAddr) -> io::Result<BoundListener> {
        TcpListener::bind(address).await.map(BoundListener)
    }

    async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Listener for BoundListener {
    type Stream = TcpStream;

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, peer))
    }
}
