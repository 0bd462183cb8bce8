//! A nonblocking connection of the raw driver: bytes in, bytes out, whole frames taken where they lie.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

impl Connection {
    /// Takes over a stream whose blocking exchanges are done.
    pub(super) fn register(stream: std::net::TcpStream, registry: &Registry, token: Token) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection { stream, input: Vec::new(), output: Vec::new(), written: 0 })
    }

    /// Reads all that is there, and hands over each whole frame without its length prefix.
    pub(super) fn receive(
        &mut self,
        scratch: &mut [u8],
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the broker closed the connection")),
                Ok(count) => {
                    if self.input.is_empty() {
                        let used = frames(&scratch[..count], each)?;
                        self.input.extend_from_slice(&scratch[used..count]);
                    } else {
                        self.input.extend_from_slice(&scratch[..count]);
                        let used = frames(&self.input, each)?;
                        self.input.drain(..used);
                    }
                    if let Some(wanted) = frame_length(&self.input)? {
                        self.input.reserve(wanted.saturating_sub(self.input.len()));
                    }
                    if count < scratch.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Adds a frame to what is to be sent.
    pub(super) fn queue(&mut self, frame: &[u8]) {
        self.output.extend_from_slice(frame);
    }

    /// Bytes that the socket has not taken.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.output.len() - self.written
    }

    /// Sends as much as the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }
}

/// Hands over each whole frame, and gives how many bytes they had.
fn frames(bytes: &[u8], each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<usize> {
    let mut used = 0;
    while let Some(length) = frame_length(&bytes[used..])? {
        let Some(frame) = bytes.get(used + super::wire::LENGTH_BYTES..used + length) else { break };
        each(frame)?;
        used += length;
    }
    Ok(used)
}

/// Bytes of the first frame with its prefix; none where the prefix is not whole.
fn frame_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if !(4..=super::wire::FRAME_BYTES_MAXIMUM).contains(&length) {
        return Err(io::Error::other(format!("a frame of {length} bytes is out of its bounds")));
    }
    Ok(Some(super::wire::LENGTH_BYTES + length))
}
