//! A broker in memory, with an answer that is known beforehand: the null sink that the client is calibrated against, and
//! the broker on which the instrument itself is tested (known delays, known defects). It keeps batches as they came,
//! forgets them when dropped, and answers the few calls that librdkafka makes, in versions without tagged fields.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::SystemTarget;

mod answers;
mod law;

pub use law::Law;

/// What the broker does wrong or late, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Behaviour {
    /// How long produce requests are held before they are appended and answered.
    pub law: Law,
    /// Every so many batches one has this defect.
    pub defect: Option<(Defect, u32)>,
}

/// A deliberate fault, to show that the check sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A batch is acknowledged and not kept.
    Lose,
    /// A batch is kept twice.
    Duplicate,
    /// The last byte of a batch is changed.
    Corrupt,
}

/// A running broker; dropping it ends its threads and closes its connections.
#[derive(Debug)]
pub struct FakeBroker {
    shared: Arc<Shared>,
}

impl FakeBroker {
    /// A null sink on a free loopback port: no delay, no defect.
    pub fn start() -> std::io::Result<FakeBroker> {
        FakeBroker::start_with(Behaviour::default())
    }

    /// A broker that behaves as told.
    pub fn start_with(behaviour: Behaviour) -> std::io::Result<FakeBroker> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let shared = Arc::new(Shared {
            address: listener.local_addr()?,
            behaviour,
            started: Instant::now(),
            producing: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            state: Mutex::new(State::default()),
            appended: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::Builder::new().name("fake-broker".to_owned()).spawn(move || accept(&listener, &accepting))?;
        Ok(FakeBroker { shared })
    }

    /// This broker as a system to measure.
    pub fn target(&self) -> SystemTarget {
        SystemTarget {
            name: "null-sink".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            bootstrap: self.shared.address.to_string(),
            protocol: crate::Protocol::Kafka,
            pid: None,
            more_pids: Vec::new(),
            client_settings: BTreeMap::new(),
            durability: "memory".to_owned(),
            topic_settings: BTreeMap::new(),
            data_dir: None,
            restart: None,
            settings: BTreeMap::new(),
        }
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        for connection in self.shared.state().connections.drain(..) {
            // It fails where the client closed first.
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.shared.appended.notify_all();
        // Wakes the accepting thread, so that it sees the flag; it may be gone already.
        let _ = TcpStream::connect(self.shared.address);
    }
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    behaviour: Behaviour,
    started: Instant,
    /// Connections that have produced so far.
    producing: AtomicU32,
    stopped: AtomicBool,
    state: Mutex<State>,
    appended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<String, Vec<Queue>>,
    connections: Vec<TcpStream>,
    batches: u32,
    producer_ids: i64,
}

/// Batches in order of their offsets, each with its base offset and the one past its last.
#[derive(Debug, Clone, Default)]
struct Queue {
    end: i64,
    batches: Vec<(i64, i64, Bytes)>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

impl Queue {
    /// Appends a record set (batches one after the other) and gives the first's base offset.
    fn append(&mut self, mut records: &[u8], mut defect: impl FnMut() -> Option<Defect>) -> Option<i64> {
        let base = self.end;
        while !records.is_empty() {
            let length = usize::try_from(i32::from_be_bytes(records.get(8..12)?.try_into().ok()?)).ok()?;
            let batch = records.get(..12 + length).filter(|batch| batch.len() > BATCH_HEADER_BYTES)?;
            let last_delta = i32::from_be_bytes(batch[23..27].try_into().ok()?);
            match defect() {
                None => self.keep(batch, last_delta),
                Some(Defect::Lose) => self.end += i64::from(last_delta) + 1,
                Some(Defect::Duplicate) => {
                    self.keep(batch, last_delta);
                    self.keep(batch, last_delta);
                }
                Some(Defect::Corrupt) => {
                    let mut changed = batch.to_vec();
                    // The last byte is the last record's count of headers; the one before ends its value.
                    let end = changed.len();
                    changed[end - 2] ^= 1;
                    self.keep(&changed, last_delta);
                }
            }
            records = &records[12 + length..];
        }
        Some(base)
    }

    fn keep(&mut self, batch: &[u8], last_delta: i32) {
        let base = self.end;
        let mut kept = BytesMut::from(batch);
        // The base offset lies outside the batch's checksum.
        kept[..8].copy_from_slice(&base.to_be_bytes());
        self.end = base + i64::from(last_delta) + 1;
        self.batches.push((base, self.end, kept.freeze()));
    }

    /// Whole batches from the one that holds `offset`, or the first after it, at least one and about `bytes_maximum`.
    fn read(&self, offset: i64, bytes_maximum: usize) -> Bytes {
        let first = self.batches.partition_point(|(_, end, _)| *end <= offset);
        let mut read = BytesMut::new();
        for (_, _, batch) in &self.batches[first..] {
            if !read.is_empty() && read.len() + batch.len() > bytes_maximum {
                break;
            }
            read.extend_from_slice(batch);
        }
        read.freeze()
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().map_while(Result::ok) {
        if shared.is_stopped() {
            return;
        }
        let Ok(handle) = stream.try_clone() else { continue };
        shared.state().connections.push(handle);
        let serving = Arc::clone(shared);
        let serve = move || serve(stream, &serving);
        if std::thread::Builder::new().name("fake-connection".to_owned()).spawn(serve).is_err() {
            return;
        }
    }
}

/// Answers one connection's requests in order until it closes or sends what is not understood.
fn serve(mut stream: TcpStream, shared: &Shared) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    if shared.behaviour.law == Law::None {
        while let Some(frame) = read_frame(&mut stream) {
            if !reply(frame, &mut stream, shared) {
                break;
            }
        }
    } else {
        serve_late(&mut stream, shared);
    }
    // It fails where the client closed first.
    let _ = stream.shutdown(Shutdown::Both);
}

/// The same with produce requests held until the law lets them go. Another thread reads meanwhile, so that a request's
/// arrival is known and not when its predecessor was let go.
fn serve_late(stream: &mut TcpStream, shared: &Shared) {
    let Ok(mut reading) = stream.try_clone() else { return };
    let (sender, receiver) = sync_channel(PENDING_MAXIMUM);
    let read = move || {
        while let Some(frame) = read_frame(&mut reading) {
            if sender.send((Instant::now(), frame)).is_err() {
                return;
            }
        }
    };
    if std::thread::Builder::new().name("fake-reader".to_owned()).spawn(read).is_err() {
        return;
    }
    let mut number = None;
    for (arrived, frame) in receiver {
        if frame.starts_with(&(ApiKey::Produce as i16).to_be_bytes()) {
            let number = *number.get_or_insert_with(|| shared.producing.fetch_add(1, Ordering::Relaxed));
            let released = shared.started + shared.behaviour.law.release(number, arrived - shared.started);
            std::thread::sleep(released.saturating_duration_since(Instant::now()));
        }
        if !reply(frame, stream, shared) {
            return;
        }
    }
}

/// Answers one request; whether the connection goes on.
fn reply(frame: Bytes, stream: &mut TcpStream, shared: &Shared) -> bool {
    let Some(answer) = answer(frame, shared) else { return false };
    !shared.is_stopped() && stream.write_all(&answer).is_ok()
}

fn read_frame(stream: &mut TcpStream) -> Option<Bytes> {
    let mut size = [0; 4];
    stream.read_exact(&mut size).ok()?;
    let size = usize::try_from(i32::from_be_bytes(size)).ok().filter(|size| *size <= FRAME_BYTES_MAXIMUM)?;
    let mut frame = vec![0; size];
    stream.read_exact(&mut frame).ok()?;
    Some(frame.into())
}

/// The answer's frame; empty where none is due (acks=0), none where the connection is to be closed.
fn answer(mut frame: Bytes, shared: &Shared) -> Option<BytesMut> {
    let key = ApiKey::try_from(i16::from_be_bytes(frame.get(..2)?.try_into().ok()?)).ok()?;
    let version = i16::from_be_bytes(frame.get(2..4)?.try_into().ok()?);
    let header = RequestHeader::decode(&mut frame, key.request_header_version(version)).ok()?;
    let mut out = BytesMut::zeroed(4);
    ResponseHeader::default().with_correlation_id(header.correlation_id).encode(&mut out, 0).ok()?;
    if !answers::encode(key, version, &mut frame, shared, &mut out)? {
        return Some(BytesMut::new());
    }
    let size = i32::try_from(out.len() - 4).ok()?;
    out[..4].copy_from_slice(&size.to_be_bytes());
    Some(out)
}

/// Waits until something is appended or the time is over.
fn wait_for_append<'a>(shared: &'a Shared, state: MutexGuard<'a, State>, deadline: Instant) -> MutexGuard<'a, State> {
    let left = deadline.saturating_duration_since(Instant::now());
    shared.appended.wait_timeout(state, left).map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
}

const BATCH_HEADER_BYTES: usize = 61;
/// Requests of a connection that are held at once.
const PENDING_MAXIMUM: usize = 65_536;
const FRAME_BYTES_MAXIMUM: usize = 100 << 20;

#[cfg(test)]
mod tests;
