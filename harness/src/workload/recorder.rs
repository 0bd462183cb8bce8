//! The recorder: the only writer of a history's operations. It keeps them in the order of their completion, tells each
//! to the world's trace, and knows which have been called and have not ended.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::history::{Call, ClientId, Operation, Outcome};

/// Shared by all clients of a run that live on one thread.
#[derive(Clone)]
pub struct Recorder {
    inner: Rc<RefCell<Inner>>,
}

/// Hears of each operation at its completion.
pub type TraceOperation = Box<dyn FnMut(&Operation)>;

struct Inner {
    operations: Vec<Operation>,
    open: BTreeMap<u64, Open>,
    invoked: u64,
    trace: TraceOperation,
}

/// An operation that has been called and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The client that called.
    pub client: ClientId,
    /// When it called, in microseconds since the run began.
    pub invoked_us: u64,
    /// What it called, for people.
    pub what: String,
}

/// Proof that an operation was called; it is to be completed once.
#[derive(Debug)]
#[must_use = "an operation that is never completed is missing from the history"]
pub struct Invocation {
    id: u64,
}

impl Recorder {
    /// An empty history; `trace` hears of each operation at its completion.
    pub fn new(trace: TraceOperation) -> Recorder {
        let inner = Inner { operations: Vec::new(), open: BTreeMap::new(), invoked: 0, trace };
        Recorder { inner: Rc::new(RefCell::new(inner)) }
    }

    /// A client calls.
    pub fn invoke(&self, client: ClientId, invoked_us: u64, what: String) -> Invocation {
        let mut inner = self.inner.borrow_mut();
        let id = inner.invoked;
        inner.invoked += 1;
        inner.open.insert(id, Open { client, invoked_us, what });
        Invocation { id }
    }

    /// The call has ended.
    pub fn complete(&self, invocation: Invocation, completed_us: u64, outcome: Outcome, call: Call) {
        let inner = &mut *self.inner.borrow_mut();
        let open = inner.open.remove(&invocation.id).expect("an invocation belongs to one recorder and ends once");
        assert!(open.invoked_us <= completed_us, "{} ended before it was called", open.what);
        let operation = Operation { client: open.client, invoked_us: open.invoked_us, completed_us, outcome, call };
        (inner.trace)(&operation);
        inner.operations.push(operation);
    }

    /// The call turned out to be none: nothing was asked, or nothing worth telling was answered.
    pub fn withdraw(&self, invocation: Invocation) {
        let open = self.inner.borrow_mut().open.remove(&invocation.id);
        open.expect("an invocation belongs to one recorder and ends once");
    }

    /// Ends what is still open as unknown in the eyes of the run: gives what it was, in the order of the calls.
    /// Such an operation leaves no line in the history unless it is completed later.
    pub fn open(&self) -> Vec<Open> {
        self.inner.borrow().open.values().cloned().collect()
    }

    /// Operations that ended so far.
    pub fn completed_count(&self) -> usize {
        self.inner.borrow().operations.len()
    }

    /// Takes the operations that ended so far, in the order of their completion.
    pub fn take_operations(&self) -> Vec<Operation> {
        std::mem::take(&mut self.inner.borrow_mut().operations)
    }
}
