//! Outages: for each queue whose leader was killed or stopped, how long no send that was called afterwards was
//! acknowledged. A watcher asks the nodes who leads, past all links; the nemesis looks at what it knows when it strikes.
//! A figure, not an anomaly. Not here: the histogram over all faults, whoever led (`artifact::recovery`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::driver::cluster::Cluster;
use crate::driver::{Dial, Timer};
use crate::history::{Call, History, Outcome, Queue};
use crate::plan::Topic;
use crate::workload::Context;

/// A queue whose leader went away by a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// When the fault struck, microseconds since the run's beginning.
    pub at_us: u64,
    /// The fault's class.
    pub class: &'static str,
    /// The node that led.
    pub node: u32,
    /// What it led.
    pub queue: Queue,
    /// Time until a send called after the fault was acknowledged, in microseconds; none where none was.
    pub lasted_us: Option<u64>,
}

/// Who leads which queue, as far as was heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaders(Arc<Mutex<BTreeMap<Queue, u32>>>);

impl Leaders {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Queue, u32>> {
        // A panic elsewhere is on its way; what is known is still what is known.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outages that begin when this node goes away now.
    pub(super) fn led_by(&self, node: u32, class: &'static str, at_us: u64) -> Vec<Outage> {
        let known = self.known();
        let led = known.iter().filter(|(_, leader)| **leader == node);
        led.map(|(queue, _)| Outage { at_us, class, node, queue: *queue, lasted_us: None }).collect()
    }

    /// Asks who leads, again and again; to be dropped when nobody wants to know any more.
    pub(super) async fn watch<D: Dial, T: Timer>(self, context: Context<D, T>, addresses: Vec<SocketAddr>) {
        let cluster = context.cluster(ASK_TIMEOUT);
        let names: Vec<String> = context.topics.iter().map(|topic: &Topic| topic.name.clone()).collect();
        loop {
            // A node that is down or slow is asked again in its turn.
            if cluster.refresh(&names, false, cluster.after(ASK_TIMEOUT)).await.is_ok() {
                self.note(&context, &cluster, &addresses);
            }
            context.timer.sleep_until(cluster.after(ASK_EVERY)).await;
        }
    }

    fn note<D: Dial, T: Timer>(&self, context: &Context<D, T>, cluster: &Cluster<D, T>, addresses: &[SocketAddr]) {
        let mut known = self.known();
        for queue in context.queues() {
            let address = cluster.known_leader(&context.topic_partition(queue));
            let node = address.and_then(|address| addresses.iter().position(|one| one.to_string() == address));
            match node {
                Some(node) => known.insert(queue, node as u32),
                None => known.remove(&queue),
            };
        }
    }
}

/// Says how long each outage lasted, by the history. A node that goes away again before a queue has another leader
/// begins an outage of its own.
pub(super) fn measure(outages: &mut [Outage], history: &History) {
    let mut sends: BTreeMap<Queue, Vec<(u64, u64)>> = BTreeMap::new();
    for operation in history.operations.iter().filter(|operation| operation.outcome == Outcome::Done) {
        if let Call::Produce { queue, acks, .. } = &operation.call
            && *acks != 0
        {
            sends.entry(*queue).or_default().push((operation.invoked_us, operation.completed_us));
        }
    }
    for outage in outages {
        let sends = sends.get(&outage.queue).map(Vec::as_slice).unwrap_or_default();
        let later = sends.iter().filter(|(invoked_us, _)| *invoked_us >= outage.at_us);
        outage.lasted_us = later.map(|(_, completed_us)| completed_us - outage.at_us).min();
    }
}

/// How often the nodes are asked who leads.
const ASK_EVERY: Duration = Duration::from_millis(50);
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{ClientId, Header, Operation, SCHEMA_VERSION, Value};

    const ONE: Queue = Queue { topic: 0, partition: 0 };
    const OTHER: Queue = Queue { topic: 0, partition: 1 };

    fn send(queue: Queue, invoked_us: u64, completed_us: u64, acks: i8, outcome: Outcome) -> Operation {
        let call = Call::Produce {
            queue,
            first_value: Value(invoked_us),
            count: 1,
            timestamps_ms: vec![0],
            first_offset: None,
            attempts: 1,
            acks,
            idempotent: true,
        };
        Operation { client: ClientId(0), invoked_us, completed_us, outcome, call }
    }

    #[test]
    fn an_outage_ends_with_the_first_acknowledgement_of_a_later_send_to_the_same_queue() {
        let leaders = Leaders::default();
        leaders.known().extend([(ONE, 1), (OTHER, 2)]);
        assert_eq!(leaders.led_by(0, "kill", 100), []);
        let mut outages = leaders.led_by(1, "kill", 100);
        outages.extend(leaders.led_by(2, "kill", 900));
        assert_eq!(outages.len(), 2);
        let operations = vec![
            send(ONE, 90, 130, -1, Outcome::Done),
            send(OTHER, 110, 140, -1, Outcome::Done),
            send(ONE, 120, 150, 0, Outcome::Done),
            send(ONE, 120, 200, -1, Outcome::Unknown("time-out".to_owned())),
            send(ONE, 130, 700, -1, Outcome::Done),
            send(ONE, 160, 450, -1, Outcome::Done),
        ];
        let header = Header { schema: SCHEMA_VERSION, topics: Vec::new(), title: String::new() };
        measure(&mut outages, &History { header, operations, marks: Vec::new() });
        assert_eq!((outages[0].queue, outages[0].lasted_us), (ONE, Some(350)));
        assert_eq!((outages[1].queue, outages[1].lasted_us), (OTHER, None), "nothing was sent to it any more");
    }
}
