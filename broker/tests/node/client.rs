//! A tiny client made of the codec and a blocking socket, and a broker of the same process to talk to.
//! Not here: retries, metadata, batching; the tests say every request themselves.

#![allow(clippy::disallowed_methods, reason = "the broker runs beside the test, on a thread of its own")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request};
use mqassay_broker::core::config::NodeConfig;
use mqassay_broker::real::{BrokerExit, run_broker};

/// A broker on a thread of its own.
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), BrokerExit>>>,
}

impl Broker {
    /// Starts a broker and waits until it welcomes clients, or says why not.
    pub(crate) fn start(config: NodeConfig, data: &Path) -> Result<Broker, BrokerExit> {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let data = data.to_path_buf();
        let config = NodeConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..config };
        let thread = std::thread::spawn(move || {
            run_broker(config, &data, |address| ready.send(address).expect("the test waits"), async {
                stopped.await.ok();
            })
        });
        match is_ready.recv() {
            Ok(address) => Ok(Broker { address, stop: Some(stop), thread: Some(thread) }),
            Err(_) => Err(thread.join().expect("no panic").expect_err("it ended before it was ready")),
        }
    }

    /// Ends the broker cleanly.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            stop.send(()).ok();
            thread.join().expect("no panic").expect("a clean end");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    correlation: i32,
}

impl Client {
    pub(crate) fn dial(broker: &Broker) -> Client {
        let stream = TcpStream::connect(broker.address).expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a TCP socket");
        Client { stream, correlation: 0 }
    }

    /// Sends a request and waits for its response.
    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive::<R>(version)
    }

    /// Sends a request.
    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.correlation += 1;
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        frame.put_i16(R::KEY);
        frame.put_i16(version);
        frame.put_i32(self.correlation);
        frame.put_i16(4);
        frame.put_slice(b"test");
        if R::header_version(version) >= 2 {
            frame.put_u8(0);
        }
        request.encode(&mut frame, version).expect("the test fills what the version has");
        let length = i32::try_from(frame.len() - 4).expect("a short frame");
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.raw(&frame);
    }

    /// Receives the next response.
    pub(crate) fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let mut body = self.frame().expect("the connection is open");
        body.advance(4);
        if R::Response::header_version(version) >= 1 {
            assert_eq!(body.get_u8(), 0, "no tagged fields in the header");
        }
        let response = R::Response::decode(&mut body, version).expect("the broker encodes what the version has");
        assert!(body.is_empty(), "the response ends with its frame");
        response
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection is open");
    }

    /// Says that nothing more will be sent.
    pub(crate) fn end_sending(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("the connection is open");
    }

    /// The same connection, for another thread.
    pub(crate) fn duplicate(&self) -> Client {
        Client { stream: self.stream.try_clone().expect("a TCP socket"), correlation: self.correlation }
    }

    /// The next frame, or none where the broker closed the connection.
    pub(crate) fn frame(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        if self.stream.read_exact(&mut length).is_err() {
            return None;
        }
        let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).expect("a length")];
        self.stream.read_exact(&mut body).expect("a whole frame");
        Some(Bytes::from(body))
    }
}
