//! The raw driver: one thread, one epoll, requests encoded beforehand and patched. Closed-loop, or open-loop by a schedule
//! that is fixed before; every record is read back and checked. Start at `measure`.
//! Not here: which blocks are run (`session`), what a request looks like (`template`, `fetch`).

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use mqassay_harness::measure::percentile::latency_histogram;
use mqassay_harness::measure::schedule::Schedule;
use mqassay_harness::process::accounting::Usage;
use rustix::fs::Timespec;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::connection::Connection;
use super::fetch::{self, Limits};
use super::idle::Holdings;
use super::lanes::{Check, Lanes};
use super::plan::{Linger, RawShape};
use super::template::{RequestShape, Slot, Template};
use super::wire::{self, ProducerIdentity, Walked};
use crate::driver::RunClock;
use crate::verify::Verification;

/// One block's load on one broker.
#[derive(Debug, Clone)]
pub(super) struct Load<'a> {
    pub(super) bootstrap: &'a str,
    /// The broker's process, for its cost.
    pub(super) pid: Option<u32>,
    /// Whether the other side is the relay and not a broker.
    pub(super) is_relay: bool,
    pub(super) lanes: Lanes,
    pub(super) shape: &'a RawShape,
    pub(super) run: u64,
    pub(super) record_bytes: usize,
    pub(super) acks: i16,
    pub(super) is_idempotent: bool,
    pub(super) seconds: f64,
    /// The beginning whose latencies are not counted, seconds.
    pub(super) lead_in_seconds: f64,
    /// Without an answer or a record for so long, nanoseconds, it is given up.
    pub(super) stall_ns: u64,
}

/// What a block found.
#[derive(Debug)]
pub(super) struct RawBlock {
    /// Records acknowledged while the clock ran.
    pub(super) records: u64,
    pub(super) requests: u64,
    pub(super) batches: u64,
    /// From the start to the last acknowledgement.
    pub(super) produce_ns: u64,
    /// From the start to the last record read, where consumers follow the producers.
    pub(super) end_to_end_ns: Option<u64>,
    /// From a request's sending to its answer.
    pub(super) acknowledge: Histogram<u64>,
    pub(super) response: Histogram<u64>,
    pub(super) service: Histogram<u64>,
    pub(super) lag: Histogram<u64>,
    /// Records read no later than they were sent; one clock stamps both, so there should be none.
    pub(super) not_positive: u64,
    /// The broker's processor time while producing, and while reading back.
    pub(super) cpu_ns: Option<(f64, f64)>,
    pub(super) resident_bytes: Option<f64>,
    /// Files that the broker's process holds open.
    pub(super) files: Option<u64>,
    /// Share of the block's time that the driver's thread was busy: near 1, the driver sets the pace.
    pub(super) client_busy: f64,
    /// Share of the offered rate that was achieved; 1 in a closed loop.
    pub(super) achieved_share: f64,
    pub(super) unsettled: u64,
    pub(super) first_error: Option<String>,
    pub(super) verification: Verification,
}

/// Puts the load on and reads everything back.
pub(super) fn measure(load: &Load<'_>) -> io::Result<RawBlock> {
    let check = Check::new(load.lanes.clone(), load.run, load.record_bytes);
    let mut driver = Driver::connect(load, check, load.shape.connections)?;
    driver.touch()?;
    let touched = driver.check.acknowledged;
    let before = driver.usage()?;
    if load.shape.consumers > 0 {
        driver.connect_consumers(load.shape.consumers, FOLLOW)?;
    }
    let busy_before = thread_cpu_ns();
    driver.start();
    let follows = load.shape.consumers > 0;
    let stalled = driver
        .pump(&|driver| driver.is_settled() && (!follows || driver.check.is_all_read()))
        .err()
        .map(|error| error.to_string());
    let end_ns = driver.clock.now_ns();
    let busy_ns = thread_cpu_ns().saturating_sub(busy_before);
    let between = driver.usage()?;
    let files = load.pid.and_then(|pid| Holdings::of_process(pid).ok()).map(|holdings| holdings.files);
    let unread = match (stalled, follows) {
        (Some(reason), _) => Some(reason),
        (None, true) => None,
        (None, false) => driver.drain().err().map(|error| error.to_string()),
    };
    let after = driver.usage()?;
    let elapsed_ns = (end_ns - driver.start_ns).max(1);
    let offered_ns = (load.seconds * 1e9) as u64;
    let produce_ns = driver.answered_ns.saturating_sub(driver.start_ns).max(1);
    let cpu = |from: Option<Usage>, to: Option<Usage>| Some(to?.since(&from?).cpu.as_nanos() as f64);
    let resident = |usage: Option<Usage>| usage.map(|usage| usage.resident_bytes as f64);
    Ok(RawBlock {
        records: driver.check.acknowledged - touched,
        requests: driver.requests,
        batches: driver.requests * u64::from(load.shape.batches_per_request),
        produce_ns,
        end_to_end_ns: follows.then(|| driver.read_ns.saturating_sub(driver.start_ns).max(1)),
        acknowledge: driver.acknowledge,
        response: driver.response,
        service: driver.service,
        lag: driver.lag,
        not_positive: driver.not_positive,
        cpu_ns: cpu(before, between).zip(cpu(between, after)),
        resident_bytes: resident(between).map(|bytes| bytes.max(resident(after).unwrap_or(0.0))),
        files,
        client_busy: busy_ns as f64 / elapsed_ns as f64,
        achieved_share: match load.shape.records_per_second {
            Some(_) => (offered_ns as f64 / produce_ns as f64).min(1.0),
            None => 1.0,
        },
        unsettled: driver.check.unsettled,
        first_error: driver.first_error,
        verification: if load.shape.is_bare { Verification::of_nothing(unread) } else { driver.check.judge(unread) },
    })
}

/// Sends to every queue and then until the shape's bounds, and reads nothing back.
pub(super) fn fill(load: &Load<'_>, check: Check) -> io::Result<Check> {
    let mut driver = Driver::connect(load, check, load.shape.connections)?;
    driver.touch()?;
    driver.start();
    driver.pump(&|driver| driver.is_settled())?;
    Ok(driver.check)
}

/// Reads back what was acknowledged, and judges it.
pub(super) fn read_back(load: &Load<'_>, check: Check) -> io::Result<Verification> {
    let mut driver = Driver::connect(load, check, 0)?;
    let unread = driver.drain().err().map(|error| error.to_string());
    Ok(driver.check.judge(unread))
}

struct Driver<'a> {
    load: &'a Load<'a>,
    poll: Poll,
    timer: OwnedFd,
    clock: RunClock,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    check: Check,
    topics: Vec<String>,
    scratch: Vec<u8>,
    /// None before the clock starts.
    is_started: bool,
    start_ns: u64,
    deadline_ns: u64,
    counted_from_ns: u64,
    records_left: u64,
    requests: u64,
    answered_ns: u64,
    read_ns: u64,
    acknowledge: Histogram<u64>,
    response: Histogram<u64>,
    service: Histogram<u64>,
    lag: Histogram<u64>,
    not_positive: u64,
    first_error: Option<String>,
}

struct Producer {
    connection: Connection,
    template: Template,
    lanes: std::ops::Range<u32>,
    cursor: u32,
    pending: VecDeque<Pending>,
    correlation: i32,
    /// Requests that visit every lane once, before the clock starts.
    touches_left: u32,
    schedule: Option<Schedule>,
    /// Records of the schedule that are to be sent, and those that were.
    scheduled: u64,
    sent: u64,
    is_stopped: bool,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    lane: u32,
    records: u32,
    sent_ns: u64,
}

struct Consumer {
    connection: Connection,
    queues: std::ops::Range<u32>,
    cursor: u32,
    limits: Limits,
    is_waiting: bool,
}

impl<'a> Driver<'a> {
    fn connect(load: &'a Load<'a>, check: Check, connections: u32) -> io::Result<Driver<'a>> {
        let poll = Poll::new()?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let topics: Vec<String> = (0..load.lanes.topics()).map(|number| load.lanes.topic(number)).collect();
        let mut producers = Vec::new();
        for client in 0..connections {
            let mut stream = open(load.bootstrap)?;
            let producer = if load.is_idempotent && !load.is_relay {
                wire::init_producer(&mut stream)?
            } else {
                ProducerIdentity::NONE
            };
            let connection = Connection::register(stream, poll.registry(), Token(client as usize))?;
            producers.push(Producer::new(load, client, connection, producer, &topics[0]));
        }
        let [acknowledge, response, service, lag] = std::array::from_fn(|_| latency_histogram());
        Ok(Driver {
            load,
            poll,
            timer,
            clock: RunClock::start(),
            producers,
            consumers: Vec::new(),
            check,
            topics,
            scratch: vec![0; SCRATCH_BYTES],
            is_started: false,
            start_ns: 0,
            deadline_ns: u64::MAX,
            counted_from_ns: u64::MAX,
            records_left: load.shape.records_maximum,
            requests: 0,
            answered_ns: 0,
            read_ns: 0,
            acknowledge,
            response,
            service,
            lag,
            not_positive: 0,
            first_error: None,
        })
    }

    fn connect_consumers(&mut self, count: u32, limits: Limits) -> io::Result<()> {
        let count = if self.load.is_relay { 1 } else { count };
        for number in 0..count {
            let stream = open(self.load.bootstrap)?;
            let token = Token(self.producers.len() + self.consumers.len());
            let mut connection = Connection::register(stream, self.poll.registry(), token)?;
            if self.load.is_relay {
                // An empty message asks the relay for all that it has been sent.
                connection.queue(&[0; 4]);
                connection.flush()?;
            }
            let border = |at: u32| (u64::from(at) * u64::from(self.load.lanes.queues) / u64::from(count)) as u32;
            let queues = border(number)..border(number + 1);
            self.consumers.push(Consumer { connection, cursor: queues.start, queues, limits, is_waiting: false });
        }
        Ok(())
    }

    /// Sends one request to every lane, and waits for the answers: a queue's first batch makes its files and its state.
    fn touch(&mut self) -> io::Result<()> {
        self.pump(&|driver| driver.producers.iter().all(|one| one.touches_left == 0 && one.pending.is_empty()))
    }

    fn start(&mut self) {
        self.is_started = true;
        self.requests = 0;
        self.start_ns = self.clock.now_ns();
        self.answered_ns = self.start_ns;
        self.read_ns = self.start_ns;
        self.deadline_ns = self.start_ns + (self.load.seconds * 1e9) as u64;
        // What is read back afterwards was waiting on purpose, and has no latency.
        let follows = self.load.shape.consumers > 0;
        self.counted_from_ns =
            if follows { self.start_ns + (self.load.lead_in_seconds * 1e9) as u64 } else { u64::MAX };
        self.acknowledge.reset();
    }

    /// Reads back what was acknowledged, over connections of its own.
    fn drain(&mut self) -> io::Result<()> {
        self.connect_consumers(DRAIN_CONNECTIONS.min(self.load.lanes.queues), DRAIN)?;
        self.pump(&|driver| driver.check.is_all_read())
    }

    fn is_settled(&self) -> bool {
        self.producers.iter().all(|producer| producer.is_stopped && producer.pending.is_empty())
    }

    fn usage(&self) -> io::Result<Option<Usage>> {
        self.load.pid.map(Usage::of_process).transpose().map_err(io::Error::other)
    }

    /// Sends, receives and waits until `is_done`; fails where nothing arrives for `STALL`.
    fn pump(&mut self, is_done: &dyn Fn(&Driver<'_>) -> bool) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        let mut heard_ns = self.clock.now_ns();
        loop {
            self.send_all()?;
            if is_done(self) {
                return Ok(());
            }
            self.poll.poll(&mut events, Some(POLL_MAXIMUM))?;
            let now_ns = self.clock.now_ns();
            for event in &events {
                match event.token() {
                    TIMER => {
                        // What is read is how often the timer has fired, which does not matter.
                        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
                    }
                    Token(index) if event.is_readable() => {
                        let known = (self.check.acknowledged + self.check.unsettled, self.check.consumed);
                        match index.checked_sub(self.producers.len()) {
                            None => self.take_answers(index)?,
                            Some(consumer) => self.take_records(consumer)?,
                        }
                        // An answer without a record is no progress: a lost record would be asked for for ever.
                        if known != (self.check.acknowledged + self.check.unsettled, self.check.consumed) {
                            heard_ns = now_ns;
                        }
                    }
                    Token(_) => {}
                }
            }
            if now_ns.saturating_sub(heard_ns) > self.load.stall_ns && !self.is_idle_by_schedule(now_ns) {
                return Err(io::Error::other(format!("nothing new for {} s", self.load.stall_ns / NS_PER_S)));
            }
        }
    }

    /// Whether nothing is to be expected yet: no request without an answer.
    fn is_idle_by_schedule(&self, now_ns: u64) -> bool {
        self.is_started
            && now_ns < self.deadline_ns
            && self.producers.iter().all(|producer| producer.pending.is_empty())
    }

    fn send_all(&mut self) -> io::Result<()> {
        let mut due_ns = u64::MAX;
        for index in 0..self.producers.len() {
            due_ns = due_ns.min(self.fill(index));
            self.producers[index].connection.flush()?;
        }
        for index in 0..self.consumers.len() {
            self.ask(index);
            self.consumers[index].connection.flush()?;
        }
        if due_ns == u64::MAX {
            return Ok(());
        }
        let wait_ns = due_ns.saturating_sub(self.clock.now_ns()).max(1);
        let at = Timespec { tv_sec: (wait_ns / NS_PER_S) as i64, tv_nsec: (wait_ns % NS_PER_S) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Queues the requests of a connection that may be sent now; gives when the next may be, where the schedule says.
    fn fill(&mut self, index: usize) -> u64 {
        let shape = self.load.shape;
        loop {
            let producer = &mut self.producers[index];
            let is_full = producer.pending.len() >= shape.in_flight as usize;
            if is_full || producer.is_stopped || producer.connection.unsent_bytes() > UNSENT_BYTES_MAXIMUM {
                return u64::MAX;
            }
            let now_ns = self.clock.now_ns();
            if !self.is_started {
                if producer.touches_left == 0 {
                    return u64::MAX;
                }
                producer.touches_left -= 1;
                self.send(index, shape.records_per_batch, now_ns, now_ns);
                continue;
            }
            let whole = shape.records_per_batch * shape.batches_per_request;
            let Some(schedule) = producer.schedule else {
                if now_ns >= self.deadline_ns || self.records_left < u64::from(whole) {
                    producer.is_stopped = true;
                    return u64::MAX;
                }
                self.records_left -= u64::from(whole);
                self.send(index, shape.records_per_batch, now_ns, now_ns);
                continue;
            };
            let left = producer.scheduled - producer.sent;
            let needed = match shape.linger {
                Linger::Full => u64::from(whole),
                Linger::None => 1,
            };
            if left < needed {
                producer.is_stopped = true;
                return u64::MAX;
            }
            let due_ns = self.start_ns + schedule.intended_ns(producer.sent + needed - 1);
            if now_ns < due_ns {
                return due_ns;
            }
            let records = match shape.linger {
                Linger::Full => shape.records_per_batch,
                Linger::None => {
                    let due = schedule.count_before_ns(now_ns - self.start_ns + 1).min(producer.scheduled);
                    (due.saturating_sub(producer.sent)).clamp(1, u64::from(shape.records_per_batch)) as u32
                }
            };
            producer.sent += u64::from(records * shape.batches_per_request);
            self.send(index, records, due_ns, now_ns);
        }
    }

    fn send(&mut self, index: usize, records: u32, intended_ns: u64, now_ns: u64) {
        let producer = &mut self.producers[index];
        let first = producer.cursor;
        let mut slots = [Slot { partition: 0, queue: 0, sequence_first: 0 }; BATCHES_MAXIMUM];
        let slots = &mut slots[..self.load.shape.batches_per_request as usize];
        for (lane, slot) in (first..).zip(slots.iter_mut()) {
            let queue = self.load.lanes.queue(lane);
            let sequence_first = self.check.send(lane, records);
            *slot = Slot { partition: Lanes::place(queue).1, queue, sequence_first };
        }
        producer.cursor += slots.len() as u32;
        if producer.cursor >= producer.lanes.end {
            producer.cursor = producer.lanes.start;
        }
        let topic = &self.topics[Lanes::place(slots[0].queue).0 as usize];
        producer.correlation = producer.correlation.wrapping_add(1);
        let frame = producer.template.patch(producer.correlation, topic, slots, records, (intended_ns, now_ns));
        producer.connection.queue(frame);
        producer.pending.push_back(Pending { lane: first, records, sent_ns: now_ns });
        self.requests += 1;
    }

    fn take_answers(&mut self, index: usize) -> io::Result<()> {
        let Producer { connection, pending, .. } = &mut self.producers[index];
        let (check, load, first_error) = (&mut self.check, self.load, &mut self.first_error);
        let now_ns = self.clock.now_ns();
        let histogram = &mut self.acknowledge;
        let is_started = self.is_started;
        connection.receive(&mut self.scratch, &mut |frame| {
            let asked = pending.pop_front().ok_or_else(|| malformed("an answer without a request"))?;
            if is_started {
                histogram.saturating_record(now_ns.saturating_sub(asked.sent_ns).max(1));
            }
            if load.is_relay {
                (0..load.shape.batches_per_request)
                    .for_each(|offset| check.acknowledge(asked.lane + offset, asked.records, None));
                return Ok(());
            }
            let mut lane = asked.lane;
            let parsed = wire::produce_answer(&frame[4..], &mut |error, base| {
                if lane >= asked.lane + load.shape.batches_per_request {
                    return;
                }
                if error == 0 {
                    check.acknowledge(lane, asked.records, Some(base).filter(|_| !load.shape.is_bare));
                } else {
                    check.refuse(lane, asked.records);
                    first_error.get_or_insert_with(|| format!("error {error} to a produce request"));
                }
                lane += 1;
            });
            match parsed {
                Some(()) if lane == asked.lane + load.shape.batches_per_request => Ok(()),
                _ => Err(malformed("a produce answer that does not name every batch")),
            }
        })?;
        self.answered_ns = now_ns;
        Ok(())
    }

    /// Asks for what a consumer has not read, where it is not waiting for an answer.
    fn ask(&mut self, index: usize) {
        let consumer = &mut self.consumers[index];
        if consumer.is_waiting || self.load.is_relay {
            return;
        }
        let follows = self.load.shape.consumers > 0;
        let mut wanted: Vec<(u32, i64)> = Vec::new();
        for _ in 0..consumer.queues.len() {
            let queue = consumer.cursor;
            consumer.cursor += 1;
            if consumer.cursor >= consumer.queues.end {
                consumer.cursor = consumer.queues.start;
            }
            if follows || !self.check.is_read(queue) {
                wanted.push((queue, self.check.offset_next(queue)));
            }
            if wanted.len() >= FETCH_QUEUES_MAXIMUM {
                break;
            }
        }
        if wanted.is_empty() {
            return;
        }
        wanted.sort_unstable();
        consumer.connection.queue(&fetch::request(0, &self.load.lanes, &wanted, consumer.limits));
        consumer.is_waiting = true;
    }

    fn take_records(&mut self, index: usize) -> io::Result<()> {
        let batch_at = self.producers.first().map_or(0, |one| one.template.batch_at() - wire::LENGTH_BYTES);
        let Consumer { connection, is_waiting, .. } = &mut self.consumers[index];
        let (check, load, clock) = (&mut self.check, self.load, self.clock);
        let consumed = check.consumed;
        let (response, service, lag) = (&mut self.response, &mut self.service, &mut self.lag);
        let not_positive = &mut self.not_positive;
        let counted_from_ns = self.counted_from_ns;
        let mut note = |times: Option<(u64, u64)>, now_ns: u64| {
            let Some((intended_ns, sent_ns)) = times.filter(|times| times.0 >= counted_from_ns) else { return };
            *not_positive += u64::from(now_ns <= sent_ns);
            response.saturating_record(now_ns.saturating_sub(intended_ns).max(1));
            service.saturating_record(now_ns.saturating_sub(sent_ns).max(1));
            lag.saturating_record(sent_ns.saturating_sub(intended_ns).max(1));
        };
        connection.receive(&mut self.scratch, &mut |frame| {
            let now_ns = clock.now_ns();
            if load.is_relay {
                return take_relayed(frame.get(batch_at..).unwrap_or(&[]), check, &mut |times| note(times, now_ns));
            }
            *is_waiting = false;
            let mut fault = None;
            let answered = fetch::answer(&frame[4..], &mut |part| {
                let queue = part.topic * super::lanes::TOPIC_QUEUES + part.partition;
                if part.error != 0 || queue >= load.lanes.queues {
                    fault = Some(format!("error {} to a fetch of queue {queue}", part.error));
                    return;
                }
                check.note_high_watermark(queue, part.high_watermark);
                if load.shape.is_bare {
                    wire::walk_heads(part.records, &mut |base, count| check.count(queue, base, count));
                    return;
                }
                let walked = wire::walk_batches(part.records, &mut |offset, value| {
                    note(check.read(queue, Some(offset), value), now_ns);
                });
                if walked == Walked::Malformed {
                    fault = Some(format!("queue {queue} has a batch that was not sent"));
                }
            });
            match (answered, fault) {
                (Some(Ok(())), None) => Ok(()),
                (Some(Ok(())), Some(fault)) => Err(malformed(&fault)),
                (Some(Err(code)), _) => Err(malformed(&format!("error {code} to a fetch"))),
                (None, _) => Err(malformed("a fetch answer that is cut")),
            }
        })?;
        if self.check.consumed > consumed {
            self.read_ns = self.clock.now_ns();
        }
        Ok(())
    }
}

/// Reads a relayed message, whose batches are as the driver sent them.
fn take_relayed(batches: &[u8], check: &mut Check, note: &mut dyn FnMut(Option<(u64, u64)>)) -> io::Result<()> {
    let walked = wire::walk_batches(batches, &mut |_, value| {
        // The relay begins its file anew only when nobody is connected: an earlier block's messages may still be in it.
        if value.is_some_and(|value| !check.is_of_run(value)) {
            return;
        }
        let queue = value.and_then(|value| check.queue_of(value)).unwrap_or(0);
        note(check.read(queue, None, value));
    });
    match walked {
        Walked::Whole { .. } => Ok(()),
        Walked::Malformed => Err(malformed("a relayed batch that was not sent")),
    }
}

impl Producer {
    fn new(load: &Load<'_>, client: u32, connection: Connection, producer: ProducerIdentity, topic: &str) -> Producer {
        let shape = load.shape;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let template = Template::new(RequestShape {
            topic: topic.to_owned(),
            client,
            run: load.run,
            record_bytes: load.record_bytes,
            records: shape.records_per_batch,
            batches: shape.batches_per_request,
            acks: load.acks,
            producer,
            is_bare: shape.is_bare,
            timestamp_ms: i64::try_from(now.as_millis()).unwrap_or(0),
        });
        let lanes = load.lanes.of(client);
        let schedule =
            shape.records_per_second.map(|rate| Schedule::new(rate, u64::from(client), u64::from(shape.connections)));
        let scheduled = schedule.map_or(0, |schedule| schedule.count_before_ns((load.seconds * 1e9) as u64));
        Producer {
            connection,
            template,
            cursor: lanes.start,
            pending: VecDeque::new(),
            correlation: 0,
            touches_left: lanes.len() as u32 / shape.batches_per_request,
            lanes,
            schedule,
            scheduled,
            sent: 0,
            is_stopped: false,
        }
    }
}

fn open(bootstrap: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(bootstrap)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Processor time of this thread; 0 where the system does not tell.
fn thread_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

const TIMER: Token = Token(usize::MAX);
/// Batches of a request at most.
pub(super) const BATCHES_MAXIMUM: usize = 64;
const SCRATCH_BYTES: usize = 256 << 10;
const UNSENT_BYTES_MAXIMUM: usize = 8 << 20;
const FETCH_QUEUES_MAXIMUM: usize = 512;
const DRAIN_CONNECTIONS: u32 = 2;
const FOLLOW: Limits = Limits { wait_ms: 500, queue_bytes: 1 << 20 };
const DRAIN: Limits = Limits { wait_ms: 100, queue_bytes: 1 << 20 };
const POLL_MAXIMUM: Duration = Duration::from_secs(1);
/// Without progress for so long a block is given up.
pub(super) const STALL_NS: u64 = 30_000_000_000;
const NS_PER_S: u64 = 1_000_000_000;

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
