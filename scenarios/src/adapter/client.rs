//! The driver's Dial and Timer over the simulated world. Nothing is decided here.

use std::future::Future;
use std::io;
use std::time::Duration;

use mqassay_harness::driver::{Dial, Timer};
use mqassay_harness::sim::clock::SimClock;
use mqassay_harness::sim::net::{SimNet, SimStream};

/// A simulated client's network.
#[derive(Clone)]
pub struct ClientDial(pub SimNet);

impl Dial for ClientDial {
    type Stream = SimStream;

    async fn dial(&self, address: &str) -> io::Result<SimStream> {
        self.0.dial(address).await
    }
}

/// A simulated client's clock.
#[derive(Clone)]
pub struct ClientTimer(pub SimClock);

impl Timer for ClientTimer {
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn wall_ms(&self) -> i64 {
        self.0.wall_ms()
    }

    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()> + 'static {
        self.0.sleep_until(deadline)
    }
}
