//! The run's phase, as clients see it: in the liveness phase the faults have stopped, and what has not been started is
//! started at once. One `PhaseSwitch` belongs to the world; each client has a `Phase`.

use tokio::sync::watch;

/// Begins the liveness phase.
#[derive(Debug)]
pub struct PhaseSwitch {
    is_live: watch::Sender<bool>,
}

/// Tells a client when the liveness phase begins; clones see the same switch.
#[derive(Debug, Clone)]
pub struct Phase {
    is_live: watch::Receiver<bool>,
}

impl PhaseSwitch {
    /// A run in its safety phase.
    pub fn new() -> PhaseSwitch {
        PhaseSwitch { is_live: watch::Sender::new(false) }
    }

    /// What a client gets.
    pub fn phase(&self) -> Phase {
        Phase { is_live: self.is_live.subscribe() }
    }

    /// Begins the liveness phase; a second call changes nothing.
    pub fn begin_liveness(&self) {
        self.is_live.send_replace(true);
    }
}

impl Default for PhaseSwitch {
    fn default() -> Self {
        PhaseSwitch::new()
    }
}

impl Phase {
    /// Whether the liveness phase has begun.
    pub fn is_live(&self) -> bool {
        *self.is_live.borrow()
    }

    /// Ends when the liveness phase begins; never, where the switch is gone before.
    pub async fn liveness(&self) {
        let mut is_live = self.is_live.clone();
        if is_live.wait_for(|is_live| *is_live).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
