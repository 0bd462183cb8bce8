//! The real arm of the driver's two traits: TCP sockets and the system's clocks.
//! The only file of the driver that may touch them.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;

use super::{Dial, Timer};

/// Dials TCP, without Nagle's delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    type Stream = TcpStream;

    async fn dial(&self, address: &str) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// The system's clocks; monotonic time counts from the timer's creation.
#[derive(Debug, Clone, Copy)]
pub struct SystemTimer {
    origin: Instant,
}

impl SystemTimer {
    /// A timer whose monotonic time is now zero.
    #[allow(clippy::disallowed_methods, reason = "this is the arm that real clocks come through")]
    pub fn start() -> SystemTimer {
        SystemTimer { origin: Instant::now() }
    }
}

impl Timer for SystemTimer {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "this is the arm that real clocks come through")]
    fn wall_ms(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
    }

    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()> + 'static {
        tokio::time::sleep_until((self.origin + deadline).into())
    }
}
