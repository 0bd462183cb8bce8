//! A flag that is raised once and can be waited for: the stop signal of a node, and the run's phase.
//! Not a channel: it carries nothing but that it happened.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// A flag that is raised once. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Flag {
    inner: Rc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    raised: Cell<bool>,
    changed: Notify,
}

impl Flag {
    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.inner.raised.get()
    }

    /// Raises it and wakes all who wait; a second call does nothing.
    pub fn raise(&self) {
        if !self.inner.raised.replace(true) {
            self.inner.changed.notify_waiters();
        }
    }

    /// Ends when it is raised, at once where it was. Safe to drop at any time.
    pub async fn wait(&self) {
        // The waiter is registered before the look, so that no raise falls in between.
        let changed = self.inner.changed.notified();
        if self.is_raised() {
            return;
        }
        changed.await;
    }
}

/// The run's phase as clients see it: safety (faults) first, then liveness (no faults, everything must end).
#[derive(Debug, Clone, Default)]
pub struct Phase {
    liveness: Flag,
}

impl Phase {
    /// Whether the liveness phase has begun.
    pub fn is_liveness(&self) -> bool {
        self.liveness.is_raised()
    }

    /// Ends when the liveness phase begins, at once where it has.
    pub async fn liveness(&self) {
        self.liveness.wait().await;
    }

    pub(crate) fn begin_liveness(&self) {
        self.liveness.raise();
    }
}
