//! A pause of a process: its future is not polled while it lasts, so none of its tasks runs and its clock goes on,
//! as under SIGSTOP. Not here: when a pause begins and ends (`nemesis`).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Whether a process stands still. Clones are of the same process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pause {
    inner: Rc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    is_on: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Pause {
    pub(crate) fn is_on(&self) -> bool {
        self.inner.is_on.get()
    }

    /// From the next poll on the process stands still.
    pub(crate) fn begin(&self) {
        self.inner.is_on.set(true);
    }

    /// The process goes on; without a pause this does nothing.
    pub(crate) fn end(&self) {
        self.inner.is_on.set(false);
        if let Some(waker) = self.inner.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Runs a future that is not polled while the pause lasts. A wake-up that arrives meanwhile is not lost: the end of the
/// pause wakes whenever one did.
pub(crate) async fn pausable<F: Future>(pause: Pause, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        if pause.is_on() {
            *pause.inner.waiting.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        future.as_mut().poll(context)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn nothing_is_polled_in_a_pause_and_a_wake_up_meanwhile_is_not_lost() {
        let (pause, polls, wakes) = (Pause::default(), Cell::new(0), Arc::new(Wakes::default()));
        let waker = Waker::from(wakes.clone());
        let mut context = Context::from_waker(&waker);
        let counting = poll_fn(|_| {
            polls.set(polls.get() + 1);
            Poll::<()>::Pending
        });
        let mut paused = pin!(pausable(pause.clone(), counting));
        assert!(paused.as_mut().poll(&mut context).is_pending());
        pause.begin();
        assert!(paused.as_mut().poll(&mut context).is_pending());
        assert_eq!(polls.get(), 1, "a paused future is not polled");
        pause.end();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "the end of a pause wakes who was woken in it");
        assert!(paused.as_mut().poll(&mut context).is_pending());
        assert_eq!(polls.get(), 2);
    }
}
