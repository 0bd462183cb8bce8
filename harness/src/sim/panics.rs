//! Catches a node's panic, in its main future or in any task that it spawned, with the message and the place.
//! Not for our own bugs: a panic outside of a node is left alone.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

thread_local! {
    /// The first panic's text since the innermost guarded poll began; `None` outside of guarded polls.
    static CAUGHT: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs a future; a panic within one of its polls becomes its text.
pub(crate) async fn guarded<F: Future>(future: F) -> Result<F::Output, String> {
    install_hook();
    Guarded { future: Box::pin(future) }.await
}

struct Guarded<F> {
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        CAUGHT.set(Some(Vec::new()));
        let polled = catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(context)));
        let texts = CAUGHT.take().unwrap_or_default();
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            // A task's own panic comes first; what follows is its executor giving up.
            Err(payload) => Poll::Ready(Err(texts.into_iter().next().unwrap_or_else(|| text_of(payload.as_ref())))),
        }
    }
}

/// Adds to the process' hook: inside a guarded poll the text is kept and nothing is printed.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !keep(info) {
                before(info);
            }
        }));
    });
}

fn keep(info: &PanicHookInfo<'_>) -> bool {
    CAUGHT.with_borrow_mut(|caught| {
        let Some(texts) = caught else { return false };
        let place = info.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
        texts.push(format!("{}{place}", text_of(info.payload())));
        true
    })
}

fn text_of(payload: &dyn Any) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return text.to_string();
    }
    match payload.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => "a panic without a text".to_string(),
    }
}
