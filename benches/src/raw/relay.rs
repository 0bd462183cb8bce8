//! The relay: a bare program that receives, writes to a file, reads and sends, and knows no protocol but a length before
//! each message. What it costs is what the machine asks for moving the same bytes; brokers are held against it.
//! One thread. A connection whose first message is empty is sent every byte of the file; others are answered with the
//! 4 bytes behind the length that Kafka keeps its correlation id in, once their message is written.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// When the file is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Never.
    Never,
    /// Once after all that arrived together, before any of it is answered.
    BeforeAnswers,
}

/// Serves until the process is ended; `listening` is told the address.
pub fn serve(folder: &Path, sync: Sync, listening: &dyn Fn(SocketAddr)) -> io::Result<()> {
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let file = File::options().read(true).write(true).create(true).truncate(true).open(folder.join("relay"))?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    listening(listener.local_addr()?);
    let mut relay = Relay { file, end: 0, peers: Vec::new(), scratch: vec![0; SCRATCH_BYTES] };
    let mut events = Events::with_capacity(1_024);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => relay.accept(&listener, &poll)?,
                Token(index) => relay.receive(index)?,
            }
        }
        if sync == Sync::BeforeAnswers && relay.peers.iter().flatten().any(|peer| !peer.output.is_empty()) {
            relay.file.sync_data()?;
        }
        relay.send()?;
    }
}

struct Relay {
    file: File,
    end: u64,
    peers: Vec<Option<Peer>>,
    scratch: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// How far the file has been sent, where this peer reads.
    read_at: Option<u64>,
    is_closed: bool,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let free = self.peers.iter().position(Option::is_none).unwrap_or(self.peers.len());
            if free == self.peers.len() {
                self.peers.push(None);
            }
            poll.registry().register(&mut stream, Token(free), Interest::READABLE | Interest::WRITABLE)?;
            let peer = Peer { stream, input: Vec::new(), output: Vec::new(), read_at: None, is_closed: false };
            self.peers[free] = Some(peer);
        }
    }

    /// Reads what is there, and writes its whole messages to the file.
    fn receive(&mut self, index: usize) -> io::Result<()> {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        loop {
            match peer.stream.read(&mut self.scratch) {
                Ok(0) => {
                    peer.is_closed = true;
                    return Ok(());
                }
                Ok(count) => {
                    // Most often whole messages come, and need not be copied before they are written.
                    if peer.input.is_empty() {
                        let used = peer.take(&self.scratch[..count], &self.file, &mut self.end)?;
                        peer.input.extend_from_slice(&self.scratch[used..count]);
                    } else {
                        peer.input.extend_from_slice(&self.scratch[..count]);
                        let input = std::mem::take(&mut peer.input);
                        let used = peer.take(&input, &self.file, &mut self.end)?;
                        peer.input = input;
                        peer.input.drain(..used);
                    }
                    if count < self.scratch.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => {
                    peer.is_closed = true;
                    return Ok(());
                }
            }
        }
    }

    /// Sends answers and the file's bytes as far as the peers take them; the file starts anew when all peers are gone.
    fn send(&mut self) -> io::Result<()> {
        for slot in &mut self.peers {
            let Some(peer) = slot else { continue };
            if !peer.is_closed {
                peer.is_closed = peer.send(&self.file, self.end, &mut self.scratch).is_err();
            }
            if peer.is_closed {
                *slot = None;
            }
        }
        if self.end > 0 && self.peers.iter().all(Option::is_none) {
            self.file.set_len(0)?;
            self.end = 0;
        }
        Ok(())
    }
}

impl Peer {
    /// Writes the whole messages at the beginning of `bytes` in one piece, and gives how many bytes they have.
    fn take(&mut self, bytes: &[u8], file: &File, end: &mut u64) -> io::Result<usize> {
        let mut used = 0;
        while let Some(head) = bytes.get(used..used + 4) {
            let length = u32::from_be_bytes(head.try_into().expect("four bytes were asked for")) as usize;
            if length == 0 {
                self.read_at = Some(0);
                return Ok(used + 4);
            }
            let Some(message) = bytes.get(used + 4..used + 4 + length).filter(|message| message.len() >= 8) else {
                break;
            };
            self.output.extend_from_slice(&4_u32.to_be_bytes());
            self.output.extend_from_slice(&message[4..8]);
            used += 4 + length;
        }
        file.write_all_at(&bytes[..used], *end)?;
        *end += used as u64;
        Ok(used)
    }

    fn send(&mut self, file: &File, end: u64, scratch: &mut [u8]) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        while let Some(at) = self.read_at.filter(|at| *at < end) {
            let wanted = scratch.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let count = file.read_at(&mut scratch[..wanted], at)?;
            match self.stream.write(&scratch[..count]) {
                Ok(sent) => self.read_at = Some(at + sent as u64),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

const LISTENER: Token = Token(usize::MAX);
const SCRATCH_BYTES: usize = 256 << 10;
