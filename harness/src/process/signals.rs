//! What a process does when it is asked to end: one listener for Ctrl-C and SIGTERM, in a thread of its own. Not here: what
//! has to be ended then, which each caller knows.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Calls `then` once, from a thread of its own, with the number of the first SIGTERM or SIGINT (Ctrl-C) that arrives. From
/// this call on, neither ends the process by itself.
///
/// # Errors
///
/// What the system said when it refused the handlers or the thread.
pub fn on_first_signal(then: impl FnOnce(i32) + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    drop(entered);
    let wait = move || {
        let kind = runtime.block_on(async {
            tokio::select! {
                biased;
                _ = terminated.recv() => SignalKind::terminate(),
                _ = interrupted.recv() => SignalKind::interrupt(),
            }
        });
        then(kind.as_raw_value());
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    Ok(())
}
