//! One end of a connection: turmoil's socket, with what may be read held back by the link rules.
//! Not here: the rules and the shared state (`link`, `connection`).

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use xxhash_rust::xxh3::xxh3_64;

use super::connection::{Connection, Fate, Passage, Side};
use super::{Fabric, SimNet};

/// One end of a simulated connection.
pub struct SimStream {
    socket: turmoil::net::TcpStream,
    net: SimNet,
    connection: Rc<RefCell<Connection>>,
    side: Side,
    arrived: BytesMut,
    ended: Option<Ended>,
    timer: Option<(u64, Pin<Box<tokio::time::Sleep>>)>,
}

/// How the peer's bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Closed,
    Failed,
}

/// Bytes taken from the socket at most before they are read.
const ARRIVED_BYTES_MAX: usize = 1 << 20;

impl SimStream {
    pub(super) fn new(
        socket: turmoil::net::TcpStream,
        net: SimNet,
        connection: Rc<RefCell<Connection>>,
        side: Side,
    ) -> SimStream {
        SimStream { socket, net, connection, side, arrived: BytesMut::new(), ended: None, timer: None }
    }

    fn fabric(&self) -> &Fabric {
        &self.net.fabric
    }

    /// Takes what the socket has; afterwards it will wake the task, unless enough is here.
    fn fill(&mut self, context: &mut Context<'_>) {
        while self.ended.is_none() && self.arrived.len() < ARRIVED_BYTES_MAX {
            let mut room = self.net.fabric.read_room.borrow_mut();
            let mut buffer = ReadBuf::new(&mut room);
            let polled = Pin::new(&mut self.socket).poll_read(context, &mut buffer);
            self.arrived.extend_from_slice(buffer.filled());
            match polled {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.ended = Some(Ended::Closed),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.ended = Some(Ended::Failed),
            }
        }
    }

    /// Hands over at most `passing` bytes.
    fn hand_over(&mut self, passing: u64, buffer: &mut ReadBuf<'_>) {
        let length = buffer.remaining().min(self.arrived.len()).min(passing as usize);
        buffer.put_slice(&self.arrived[..length]);
        self.arrived.advance(length);
        let mut connection = self.connection.borrow_mut();
        let number = connection.number;
        let direction = connection.from(self.side.other());
        let offset = direction.passed();
        direction.pass(length as u64);
        let numbers = [("connection", number), ("offset", offset), ("length", length as u64)];
        self.fabric().trace(self.net.host, "net-read", &numbers);
    }

    /// Waits until a time; `Ready` when it has come.
    fn poll_until(&mut self, at_us: u64, context: &mut Context<'_>) -> Poll<()> {
        let now_us = self.fabric().options.time.now_us();
        if now_us >= at_us {
            return Poll::Ready(());
        }
        let is_set = self.timer.as_ref().is_some_and(|(set_us, _)| *set_us == at_us);
        if !is_set {
            let sleep = tokio::time::sleep(Duration::from_micros(at_us - now_us));
            self.timer = Some((at_us, Box::pin(sleep)));
        }
        let Some((_, sleep)) = &mut self.timer else { return Poll::Ready(()) };
        let polled = sleep.as_mut().poll(context);
        if polled.is_ready() {
            self.timer = None;
        }
        polled
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if stream.net.is_cut_off() {
            return Poll::Pending;
        }
        let peer = stream.side.other();
        loop {
            stream.connection.borrow_mut().from(peer).reader = Some(context.waker().clone());
            match stream.connection.borrow().fate {
                Fate::Alive => {}
                Fate::Severed { .. } => return Poll::Pending,
                Fate::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
            stream.fill(context);
            let now_us = stream.fabric().options.time.now_us();
            let passage = {
                let rules = stream.fabric().rules.borrow();
                stream.connection.borrow_mut().passage(peer, now_us, &rules)
            };
            match passage {
                Passage::Bytes(passing) if !stream.arrived.is_empty() => {
                    stream.hand_over(passing, buffer);
                    return Poll::Ready(Ok(()));
                }
                Passage::At(at_us) => {
                    if stream.poll_until(at_us, context).is_pending() {
                        return Poll::Pending;
                    }
                }
                Passage::Held => return Poll::Pending,
                Passage::Bytes(_) | Passage::Drained => {
                    return match stream.ended {
                        None => Poll::Pending,
                        Some(Ended::Closed) => Poll::Ready(Ok(())),
                        Some(Ended::Failed) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                    };
                }
            }
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        if stream.net.is_cut_off() {
            return Poll::Pending;
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut connection = stream.connection.borrow_mut();
        match connection.fate {
            Fate::Alive => {}
            Fate::Severed { .. } => {
                connection.fate = Fate::Severed { was_written: true };
                return Poll::Ready(Ok(bytes.len()));
            }
            Fate::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
        connection.from(stream.side).writer = Some(context.waker().clone());
        match Pin::new(&mut stream.socket).poll_write(context, bytes) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(length)) => {
                let offset = connection.from(stream.side).written();
                let due_us = stream.net.due_us();
                let mut rules = stream.net.fabric.rules.borrow_mut();
                let struck = connection.wrote(stream.side, &bytes[..length], due_us, &mut rules);
                stream.net.fabric.options.counters.add("one-request", struck);
                let numbers = [
                    ("connection", connection.number),
                    ("offset", offset),
                    ("length", length as u64),
                    ("hash", xxh3_64(&bytes[..length])),
                ];
                stream.net.fabric.trace(stream.net.host, "net-write", &numbers);
                if let Some(reader) = connection.from(stream.side).reader.take() {
                    reader.wake();
                }
                Poll::Ready(Ok(length))
            }
            Poll::Ready(Err(error)) => {
                // The peer's reset is held like any other bytes of its direction: until then writes seem to work.
                let (from, to) = (connection.endpoint(stream.side.other()), connection.endpoint(stream.side));
                if stream.net.fabric.rules.borrow().holds(from, to) {
                    return Poll::Ready(Ok(bytes.len()));
                }
                Poll::Ready(Err(error))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if stream.net.is_cut_off() {
            return Poll::Pending;
        }
        if stream.connection.borrow().fate != Fate::Alive {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut stream.socket).poll_shutdown(context)
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut connection = self.connection.borrow_mut();
        connection.ends -= 1;
        if connection.ends == 0 {
            self.net.fabric.connections.borrow_mut().remove(&connection.number);
        }
    }
}
