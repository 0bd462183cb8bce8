//! The way out of a connection: answers in the order of the requests, encoded when their turn comes, and the memory that
//! all of it holds. Not here: the socket (`connection`).

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::intake::Intake;
use crate::core::machine::Answer;
use crate::wire::output::Output;
use crate::wire::response::{self, Response};

/// The way out of a connection.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Answers from the first unanswered request on; those that came early wait for their turn.
    slots: VecDeque<Slot>,
    /// Sequence of the first slot.
    sequence_first: u64,
    output: Output,
    /// Bytes of the requests without an answer.
    requests_bytes: usize,
    /// Bytes of a request that has not come whole.
    partial_bytes: usize,
    /// What the budget knows.
    held: usize,
    is_closed: bool,
    waker: Option<Waker>,
    is_polled: bool,
    /// For how long reading was paused since an answer last said so.
    throttled: Duration,
    /// Whether the peer sent or read anything since the last look, and how many looks ago it last did.
    has_moved: bool,
    stalled_checks: u32,
    intake: Rc<Intake>,
}

#[derive(Debug)]
struct Slot {
    request_bytes: usize,
    answer: Option<Answer>,
}

impl Outgoing {
    pub(super) fn new(intake: Rc<Intake>) -> Outgoing {
        Outgoing {
            slots: VecDeque::new(),
            sequence_first: 0,
            output: Output::default(),
            requests_bytes: 0,
            partial_bytes: 0,
            held: 0,
            is_closed: false,
            waker: None,
            is_polled: false,
            throttled: Duration::ZERO,
            has_moved: false,
            stalled_checks: 0,
            intake,
        }
    }

    /// Takes an answer, and makes it and those that waited for it ready to be sent.
    pub(super) fn answer(&mut self, sequence: u64, answer: Answer) {
        if self.is_closed {
            return;
        }
        let place = sequence.checked_sub(self.sequence_first).expect("each request is answered once");
        self.slots[place as usize].answer = Some(answer);
        if place > 0 {
            return;
        }
        while let Some(Slot { request_bytes, answer: Some(_) }) = self.slots.front() {
            self.requests_bytes -= request_bytes;
            let Some(Slot { answer: Some(answer), .. }) = self.slots.pop_front() else { break };
            self.sequence_first += 1;
            match answer {
                Answer::Response(header, response) => {
                    let response = self.tell_throttle(*response);
                    if let Err(error) = response::encode(header, response, &mut self.output) {
                        tracing::error!(%error, "connection closed");
                        self.close();
                    }
                }
                Answer::Nothing => {}
                Answer::Close => self.close(),
            }
        }
        self.account();
        self.wake();
    }

    /// Answers come no more; what is in the output is still sent.
    pub(super) fn close(&mut self) {
        if !self.is_closed {
            self.is_closed = true;
            self.slots.clear();
            (self.requests_bytes, self.partial_bytes) = (0, 0);
            self.account();
        }
        self.wake();
    }

    /// Closes, and gives up what is unsent too.
    pub(super) fn abandon(&mut self) {
        self.output = Output::default();
        self.is_closed = false;
        self.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn is_sent(&self) -> bool {
        self.output.is_empty()
    }

    /// Whether nothing that was asked for is still owed.
    pub(super) fn is_drained(&self) -> bool {
        self.is_closed || self.output.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < REQUESTS_IN_FLIGHT_MAX
            && self.requests_bytes < REQUESTS_BYTES_MAX
            && self.output.len() < OUTPUT_BYTES_MAX
    }

    /// Makes a slot for the next request, of so many bytes, and gives its sequence.
    pub(super) fn expect_answer(&mut self, request_bytes: usize) -> u64 {
        self.requests_bytes += request_bytes;
        self.slots.push_back(Slot { request_bytes, answer: None });
        self.sequence_first + self.slots.len() as u64 - 1
    }

    /// Bytes have come; so many of them are not a whole request yet.
    pub(super) fn received(&mut self, partial_bytes: usize) {
        self.partial_bytes = partial_bytes;
        self.has_moved = true;
        self.account();
    }

    /// Fills `slices` with what is to be sent next; gives how many were filled.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.output.slices(slices)
    }

    /// So many bytes have been sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.output.advance(bytes);
        self.intake.sent_bytes.set(self.intake.sent_bytes.get() + bytes as u64);
        self.has_moved = true;
        self.account();
    }

    /// Reading was paused for so long.
    pub(super) fn throttled(&mut self, paused: Duration) {
        self.throttled += paused;
        self.intake.throttles.set(self.intake.throttles.get() + 1);
        self.intake.throttled.set(self.intake.throttled.get() + paused);
    }

    /// Bytes of memory that the connection holds.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// For how many looks the peer has neither read what is there for it nor gone on with the request that it began.
    pub(super) fn count_stall(&mut self) -> u32 {
        let is_peers_turn = !self.output.is_empty() || self.partial_bytes > 0;
        let is_stalled = is_peers_turn && !std::mem::take(&mut self.has_moved);
        self.stalled_checks = if is_stalled { self.stalled_checks + 1 } else { 0 };
        self.stalled_checks
    }

    pub(super) fn forget_stall(&mut self) {
        self.stalled_checks = 0;
    }

    /// The connection looks here anyway, and need not be woken until `end_poll`.
    pub(super) fn begin_poll(&mut self) {
        self.is_polled = true;
    }

    /// From now on `waker` is woken when there is something to send or to read.
    pub(super) fn end_poll(&mut self, waker: &Waker) {
        self.is_polled = false;
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    pub(super) fn wake(&mut self) {
        if !self.is_polled
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    fn account(&mut self) {
        let held = self.requests_bytes + self.partial_bytes + self.output.len();
        self.intake.budget.change(self.held, held);
        self.held = held;
    }

    /// Says in an answer that can say so for how long the connection was paused.
    fn tell_throttle(&mut self, mut response: Response) -> Response {
        if self.throttled.is_zero() {
            return response;
        }
        let milliseconds = self.throttled.min(THROTTLE_MAX).as_millis() as i32;
        match &mut response {
            Response::Produce(response) => response.throttle_time_ms = milliseconds,
            Response::Fetch(answer) => answer.response.throttle_time_ms = milliseconds,
            _ => return response,
        }
        self.throttled = Duration::ZERO;
        response
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.intake.budget.change(self.held, 0);
    }
}

/// The most requests of one connection without an answer; the next are left in the socket.
const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// The most bytes of requests without an answer with which a connection's next requests are taken.
const REQUESTS_BYTES_MAX: usize = 16 << 20;
/// The most bytes of unsent answers with which a connection's next requests are taken.
const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// The most that an answer says about a pause: a client waits as long before its next request.
const THROTTLE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_answer_wakes_the_connection_unless_it_is_being_polled() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut outgoing = Outgoing::new(Rc::new(Intake::new(1 << 20)));
        outgoing.end_poll(&waker);
        outgoing.begin_poll();
        let own = outgoing.expect_answer(100);
        outgoing.answer(own, Answer::Nothing);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "it looks there anyway");
        outgoing.end_poll(&waker);
        let later = outgoing.expect_answer(100);
        outgoing.answer(later, Answer::Nothing);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }
}
