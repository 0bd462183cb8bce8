//! One connection to one broker: requests in flight matched to answers by correlation id, in the order of `start`.
//! A request that is not answered in time closes the connection, as Kafka's own clients do, so that no answer can be
//! taken for that of another request. Not here: reconnecting and finding the right node (`cluster`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::errors::CallError;
use super::{CONNECTION_LOST, Events, TIME_OUT, Timer, before};

/// An open connection; clones share it, and it is closed when the last one is gone.
#[derive(Clone)]
pub struct Connection<T: Timer> {
    shared: Rc<Shared>,
    timer: T,
}

/// A request that was handed to the connection.
pub struct Started<R: Request, T: Timer> {
    connection: Connection<T>,
    answer: oneshot::Receiver<Bytes>,
    version: i16,
    deadline: Duration,
    request: PhantomData<R>,
}

/// A request without an answer that was handed to the connection.
pub struct Unanswered<T: Timer> {
    connection: Connection<T>,
    written: oneshot::Receiver<()>,
    deadline: Duration,
}

struct Shared {
    address: String,
    client_id: StrBytes,
    events: Events,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    next_correlation: i32,
    /// Answers awaited; empty once closed.
    pending: BTreeMap<i32, oneshot::Sender<Bytes>>,
    /// Why it is closed, where it is.
    closed: Option<String>,
    tasks: Vec<AbortHandle>,
    /// Versions that the broker offers, by API key; empty until the handshake.
    offered: BTreeMap<i16, (i16, i16)>,
}

struct Outgoing {
    frame: Bytes,
    written: Option<oneshot::Sender<()>>,
}

impl<T: Timer> Connection<T> {
    /// Takes an open stream and learns the broker's versions. Errors are always `NotConnected`: nothing was asked yet.
    pub async fn open<S>(
        stream: S,
        address: &str,
        client_id: &str,
        timer: T,
        events: Events,
        deadline: Duration,
    ) -> Result<Connection<T>, CallError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (outgoing, frames) = mpsc::unbounded_channel();
        let shared = Rc::new(Shared {
            address: address.to_string(),
            client_id: StrBytes::from_string(client_id.to_string()),
            events,
            outgoing,
            state: RefCell::default(),
        });
        let (input, output) = tokio::io::split(stream);
        let reader = tokio::task::spawn_local(read_answers(input, Rc::downgrade(&shared)));
        let writer = tokio::task::spawn_local(write_frames(output, frames, Rc::downgrade(&shared)));
        shared.state.borrow_mut().tasks = vec![reader.abort_handle(), writer.abort_handle()];
        let connection = Connection { shared, timer };
        match connection.learn_versions(deadline).await {
            Ok(()) => Ok(connection),
            Err(error) => {
                connection.close("the handshake failed");
                Err(CallError::NotConnected { address: address.to_string(), reason: error.to_string() })
            }
        }
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.shared.state.borrow().closed.is_some()
    }

    /// Ends the connection; what is in flight is lost.
    pub fn close(&self, reason: &str) {
        self.shared.close(reason);
    }

    /// Hands a request over for sending, in the order of the calls; `deadline` (monotonic) bounds the wait for its answer.
    pub fn start<R: Request>(&self, request: &R, deadline: Duration) -> Result<Started<R, T>, CallError> {
        let (version, correlation, frame) = self.encode(request)?;
        let (sender, answer) = oneshot::channel();
        self.shared.state.borrow_mut().pending.insert(correlation, sender);
        self.hand_over(Outgoing { frame, written: None })?;
        Ok(Started { connection: self.clone(), answer, version, deadline, request: PhantomData })
    }

    /// As `start`, for a request that the broker will not answer (`acks=0`).
    pub fn start_unanswered<R: Request>(&self, request: &R, deadline: Duration) -> Result<Unanswered<T>, CallError> {
        let (_, _, frame) = self.encode(request)?;
        let (sender, written) = oneshot::channel();
        self.hand_over(Outgoing { frame, written: Some(sender) })?;
        Ok(Unanswered { connection: self.clone(), written, deadline })
    }

    /// Sends a request and waits for its answer.
    pub async fn call<R: Request>(&self, request: &R, deadline: Duration) -> Result<R::Response, CallError> {
        self.start(request, deadline)?.answer().await
    }

    async fn learn_versions(&self, deadline: Duration) -> Result<(), CallError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("mqassay"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let answer = self.call(&request, deadline).await?;
        if answer.error_code != 0 {
            return Err(CallError::Answered { api: "ApiVersions".to_string(), code: answer.error_code });
        }
        let offered = answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version)));
        self.shared.state.borrow_mut().offered = offered.collect();
        Ok(())
    }

    /// The newest version of a call that both sides speak.
    fn version<R: Request>(&self) -> Result<i16, CallError> {
        let ours = (R::VERSIONS.min, R::VERSIONS.max.min(ceiling(R::KEY)));
        if R::KEY == ApiKey::ApiVersions as i16 {
            return Ok(ours.1);
        }
        let theirs = self.shared.state.borrow().offered.get(&R::KEY).copied();
        let newest = theirs.map(|(lowest, highest)| (ours.0.max(lowest), ours.1.min(highest)));
        match newest {
            Some((lowest, highest)) if lowest <= highest => Ok(highest),
            Some(_) | None => Err(CallError::Unsendable {
                address: self.shared.address.clone(),
                api: api_name(R::KEY),
                reason: format!("the broker offers {theirs:?} and this client speaks {ours:?}"),
            }),
        }
    }

    fn encode<R: Request>(&self, request: &R) -> Result<(i16, i32, Bytes), CallError> {
        if let Some(reason) = &self.shared.state.borrow().closed {
            return Err(CallError::NotConnected { address: self.shared.address.clone(), reason: reason.clone() });
        }
        let version = self.version::<R>()?;
        let correlation = {
            let mut state = self.shared.state.borrow_mut();
            let correlation = state.next_correlation;
            state.next_correlation = correlation.wrapping_add(1).max(0);
            correlation
        };
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation)
            .with_client_id(Some(self.shared.client_id.clone()));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let encoded =
            header.encode(&mut frame, R::header_version(version)).and_then(|()| request.encode(&mut frame, version));
        if let Err(error) = encoded {
            return Err(CallError::Unsendable {
                address: self.shared.address.clone(),
                api: api_name(R::KEY),
                reason: error.to_string(),
            });
        }
        let length = i32::try_from(frame.len() - 4).expect("requests of this client are far below 2 GiB");
        frame[0..4].copy_from_slice(&length.to_be_bytes());
        Ok((version, correlation, frame.freeze()))
    }

    fn hand_over(&self, outgoing: Outgoing) -> Result<(), CallError> {
        if self.shared.outgoing.send(outgoing).is_ok() {
            return Ok(());
        }
        // The writing task has ended, so not a byte of this request left.
        self.shared.close("its writer has ended");
        Err(CallError::NotConnected {
            address: self.shared.address.clone(),
            reason: "the connection was just closed".to_string(),
        })
    }

    fn lost(&self) -> CallError {
        let reason = self.shared.state.borrow().closed.clone();
        CallError::Lost { address: self.shared.address.clone(), reason: reason.unwrap_or_default() }
    }
}

impl<R: Request, T: Timer> Started<R, T> {
    /// Waits for the answer, at most until the deadline; then the connection is closed.
    pub async fn answer(self) -> Result<R::Response, CallError> {
        let Started { connection, answer, version, deadline, .. } = self;
        let address = connection.shared.address.clone();
        match before(&connection.timer, deadline, answer).await {
            None => {
                (connection.shared.events)(TIME_OUT);
                connection.close("a request was not answered in time");
                Err(CallError::TimedOut { address, api: api_name(R::KEY) })
            }
            Some(Err(_)) => Err(connection.lost()),
            Some(Ok(mut frame)) => decode_answer::<R>(&mut frame, version).map_err(|error| {
                connection.close("an answer could not be decoded");
                CallError::Undecodable { address, api: api_name(R::KEY), reason: error.to_string() }
            }),
        }
    }
}

impl<T: Timer> Unanswered<T> {
    /// Waits until the request was handed to the operating system, at most until the deadline.
    pub async fn written(self) -> Result<(), CallError> {
        match before(&self.connection.timer, self.deadline, self.written).await {
            None => {
                (self.connection.shared.events)(TIME_OUT);
                self.connection.close("a request could not be written in time");
                let address = self.connection.shared.address.clone();
                Err(CallError::TimedOut { address, api: "a request without answer".to_string() })
            }
            Some(Err(_)) => Err(self.connection.lost()),
            Some(Ok(())) => Ok(()),
        }
    }
}

impl Shared {
    fn close(&self, reason: &str) {
        let mut state = self.state.borrow_mut();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(reason.to_string());
        state.pending.clear();
        for task in state.tasks.drain(..) {
            task.abort();
        }
    }

    /// Ends the connection because the other side or the network did.
    fn lose(&self, reason: &str) {
        if self.state.borrow().closed.is_none() {
            (self.events)(CONNECTION_LOST);
            self.close(reason);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for task in self.state.borrow_mut().tasks.drain(..) {
            task.abort();
        }
    }
}

/// An ApiVersions answer of another version starts with its error code all the same.
fn decode_answer<R: Request>(frame: &mut Bytes, version: i16) -> Result<R::Response, DecodeError> {
    ResponseHeader::decode(frame, R::Response::header_version(version))
        .map_err(|error| DecodeError(error.to_string()))?;
    if R::KEY == ApiKey::ApiVersions as i16 && frame.len() >= 2 {
        let code = (&frame[0..2]).get_i16();
        if code == UNSUPPORTED_VERSION {
            return Err(DecodeError("the broker does not speak version 3 of ApiVersions; it is too old".to_string()));
        }
    }
    let body = R::Response::decode(frame, version).map_err(|error| DecodeError(error.to_string()))?;
    if !frame.is_empty() {
        return Err(DecodeError(format!("{} bytes are left over", frame.len())));
    }
    Ok(body)
}

async fn read_answers<S: AsyncRead + Unpin>(mut input: S, shared: Weak<Shared>) {
    loop {
        let frame = read_frame(&mut input).await;
        let Some(shared) = shared.upgrade() else { return };
        match frame {
            Ok(frame) => {
                let correlation = (&frame[0..4]).get_i32();
                let waiting = shared.state.borrow_mut().pending.remove(&correlation);
                match waiting {
                    // Nobody may be waiting any more; then the answer is of no use.
                    Some(sender) => drop(sender.send(frame)),
                    None => return shared.lose("it answered what was not asked"),
                }
            }
            Err(error) => return shared.lose(&error.to_string()),
        }
    }
}

async fn read_frame<S: AsyncRead + Unpin>(input: &mut S) -> io::Result<Bytes> {
    let length = input.read_i32().await?;
    if !(4..=ANSWER_BYTES_MAXIMUM).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an answer claims a length of {length} bytes")));
    }
    let mut frame = BytesMut::zeroed(length as usize);
    input.read_exact(&mut frame).await?;
    Ok(frame.freeze())
}

async fn write_frames<S: AsyncWrite + Unpin>(
    mut output: S,
    mut frames: mpsc::UnboundedReceiver<Outgoing>,
    shared: Weak<Shared>,
) {
    while let Some(Outgoing { frame, written }) = frames.recv().await {
        let result = async {
            output.write_all(&frame).await?;
            output.flush().await
        };
        match result.await {
            // Whoever waited for the writing may have given up.
            Ok(()) => drop(written.map(|written| written.send(()))),
            Err(error) => {
                if let Some(shared) = shared.upgrade() {
                    shared.lose(&error.to_string());
                }
                return;
            }
        }
    }
}

fn api_name(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|()| format!("call {key}"), |api| format!("{api:?}"))
}

/// The newest version that this client writes: topics by name, not by id, and no field that it could not fill.
fn ceiling(key: i16) -> i16 {
    match ApiKey::try_from(key) {
        Ok(ApiKey::Produce | ApiKey::Fetch | ApiKey::Metadata) => 12,
        Ok(ApiKey::ListOffsets) => 9,
        Ok(ApiKey::ApiVersions) => 3,
        Ok(ApiKey::OffsetCommit | ApiKey::OffsetFetch) => 9,
        Ok(_) | Err(()) => i16::MAX,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct DecodeError(String);

const ANSWER_BYTES_MAXIMUM: i32 = 64 << 20;
const UNSUPPORTED_VERSION: i16 = 35;
