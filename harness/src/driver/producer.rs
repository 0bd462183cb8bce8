//! The producer: a local task that owns the batches of one client, sends them to the leaders of their partitions with
//! several requests in flight, retries, and keeps the order where it is idempotent. `pending` holds the rules of one
//! partition. Here: who sends when, producer ids, and what an answer says. Departures from Kafka's client: batches are
//! never split or merged, and the first batch of an idempotent producer on a partition goes alone (`pending`).

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse, ProducerId};
use tokio::sync::{mpsc, oneshot};

use super::admin::{answered, missing};
use super::cluster::{Cluster, topic_name};
use super::errors::CallError;
pub use super::pending::Delivery;
use super::pending::{Identity, PartitionQueue, Settled, Step};
use super::records::Record;
use super::{DUPLICATE_ACKNOWLEDGED, Dial, PRODUCER_RESET, RETRY, Timer, TopicPartition};

/// How a producer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerOptions {
    /// -1 all, 1 leader, 0 none.
    pub acks: i8,
    /// Whether sequence numbers are sent; needs `acks` -1.
    pub idempotent: bool,
    /// Sends of one batch at most, at least 1.
    pub attempts: u32,
    /// Time-out of one attempt. No attempt starts later than `attempts` time-outs after the submission.
    pub request_timeout: Duration,
    /// Requests in flight at most, 1 to 5.
    pub in_flight: u32,
}

/// A batch to be sent.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Where to.
    pub partition: TopicPartition,
    /// At least one record.
    pub records: Vec<Record>,
}

/// A handle of the producer's task, which ends when the handle is gone and everything is settled.
pub struct Producer {
    commands: mpsc::UnboundedSender<Submission>,
}

struct Submission {
    batch: Batch,
    reply: oneshot::Sender<Delivery>,
}

impl Producer {
    /// Starts the producer's task on the current local set.
    pub fn start<D: Dial, T: Timer>(cluster: Cluster<D, T>, options: ProducerOptions) -> Producer {
        assert!((1..=5).contains(&options.in_flight), "{} requests in flight is not within 1 to 5", options.in_flight);
        assert!(options.attempts >= 1, "a producer attempts at least once");
        assert!(!options.idempotent || options.acks == -1, "an idempotent producer needs acks=all");
        let (commands, submissions) = mpsc::unbounded_channel();
        let (answers, answered) = mpsc::unbounded_channel();
        let task = Task {
            cluster,
            options,
            answers,
            queues: BTreeMap::new(),
            identity: None,
            submitted: 0,
            connect_failures: 0,
        };
        tokio::task::spawn_local(task.run(submissions, answered));
        Producer { commands }
    }

    /// Hands a batch over, in the order of the calls; the receiver gets how it ended, after a bounded time.
    pub fn send(&self, batch: Batch) -> oneshot::Receiver<Delivery> {
        let (reply, delivery) = oneshot::channel();
        let sent = self.commands.send(Submission { batch, reply });
        assert!(sent.is_ok(), "the producer's task lives as long as its handle");
        delivery
    }
}

struct Task<D: Dial, T: Timer> {
    cluster: Cluster<D, T>,
    options: ProducerOptions,
    answers: mpsc::UnboundedSender<Answer>,
    queues: BTreeMap<TopicPartition, PartitionQueue>,
    /// The id that InitProducerId gave, with the epoch that partitions begin with.
    identity: Option<Identity>,
    submitted: u64,
    connect_failures: u32,
}

struct Answer {
    partition: TopicPartition,
    id: u64,
    result: Result<Acknowledgement, CallError>,
}

enum Acknowledgement {
    /// The broker appended the batch, and may have told where.
    Appended(Option<i64>),
    /// The broker does not answer; the batch was written to the connection.
    Silent,
}

impl<D: Dial, T: Timer> Task<D, T> {
    async fn run(
        mut self,
        mut submissions: mpsc::UnboundedReceiver<Submission>,
        mut answers: mpsc::UnboundedReceiver<Answer>,
    ) {
        let mut is_open = true;
        loop {
            let wake = self.dispatch().await;
            if !is_open && self.queues.values().all(|queue| queue.oldest().is_none()) {
                return;
            }
            let timer = self.cluster.timer().clone();
            tokio::select! {
                biased;
                Some(answer) = answers.recv() => self.take(answer),
                submission = submissions.recv(), if is_open => match submission {
                    Some(submission) => self.submit(submission),
                    None => is_open = false,
                },
                () = timer.sleep_until(wake.unwrap_or_default()), if wake.is_some() => {}
            }
        }
    }

    fn submit(&mut self, Submission { batch, reply }: Submission) {
        let ProducerOptions { idempotent, attempts, request_timeout, .. } = self.options;
        let expires = self.cluster.after(request_timeout.saturating_mul(attempts));
        let restamps = self.cluster.options().restamps;
        let queue =
            self.queues.entry(batch.partition).or_insert_with(|| PartitionQueue::new(idempotent, attempts, restamps));
        queue.submit(self.submitted, batch.records, expires, reply);
        self.submitted += 1;
    }

    /// Sends what may be sent; gives the monotonic time at which there may be more to do without any answer.
    async fn dispatch(&mut self) -> Option<Duration> {
        let mut by_age: Vec<(u64, TopicPartition)> = Vec::new();
        for (partition, queue) in &self.queues {
            if let Some(oldest) = queue.oldest() {
                by_age.push((oldest, partition.clone()));
            }
        }
        by_age.sort();
        for (_, partition) in by_age {
            self.dispatch_partition(&partition).await;
        }
        let is_full = self.sent_count() >= self.options.in_flight as usize;
        let wakes = self.queues.values().filter_map(|queue| queue.wake());
        if is_full { None } else { wakes.min() }
    }

    async fn dispatch_partition(&mut self, partition: &TopicPartition) {
        let mut index = 0;
        loop {
            let now = self.cluster.timer().monotonic();
            let is_full = self.sent_count() >= self.options.in_flight as usize;
            let Some(queue) = self.queues.get_mut(partition) else { return };
            if let Some(reset) = queue.settle() {
                self.cluster.tell(PRODUCER_RESET);
                if reset.forgotten.is_some() && reset.forgotten == self.identity.map(|identity| identity.producer_id) {
                    self.identity = None;
                }
                continue;
            }
            match queue.step(index, now) {
                None | Some(Step::Wait) => return,
                Some(Step::Removed) => {}
                Some(Step::Next) => index += 1,
                Some(Step::Send) if is_full => return,
                Some(Step::Send) => match self.send(partition, index).await {
                    Ok(()) => {
                        self.connect_failures = 0;
                        index += 1;
                    }
                    Err(error) => {
                        self.could_not_send(partition, index, &error);
                        return;
                    }
                },
            }
        }
    }

    fn could_not_send(&mut self, partition: &TopicPartition, index: usize, error: &CallError) {
        self.connect_failures += 1;
        if error.has_stale_metadata() {
            self.cluster.forget_leader(partition);
        }
        // Dialling has its own back-off; this one keeps failing look-ups from spinning.
        let not_before = self.cluster.after(self.cluster.backoff("retry-jitter", self.connect_failures));
        if let Some(queue) = self.queues.get_mut(partition) {
            queue.not_sent(index, error, not_before);
        }
    }

    async fn send(&mut self, partition: &TopicPartition, index: usize) -> Result<(), CallError> {
        let expires = self.queues.get(partition).map(|queue| queue.expires(index)).unwrap_or_default();
        let deadline = expires.min(self.cluster.after(self.options.request_timeout));
        let address = self.cluster.leader(partition, deadline).await.map_err(nothing_sent)?;
        let identity = self.identity_for(partition, &address, deadline).await.map_err(nothing_sent)?;
        let connection = self.cluster.connect(&address, deadline).await?;
        let queue = self.queues.get_mut(partition).expect("a partition stays once it was sent to");
        if let (Some(identity), None) = (identity, queue.identity()) {
            queue.adopt(identity);
        }
        let data =
            PartitionProduceData::default().with_index(partition.partition).with_records(Some(queue.encoded(index)));
        let topic = TopicProduceData::default().with_name(topic_name(&partition.topic)).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(i16::from(self.options.acks))
            .with_timeout_ms(self.options.request_timeout.as_millis() as i32)
            .with_topic_data(vec![topic]);
        let deadline = self.cluster.after(self.options.request_timeout);
        let answers = self.answers.clone();
        if self.options.acks == 0 {
            let unanswered = connection.start_unanswered(&request, deadline)?;
            let (id, partition) = self.sent(partition, index);
            tokio::task::spawn_local(async move {
                let result = unanswered.written().await.map(|()| Acknowledgement::Silent);
                // The producer's task may have ended with its run.
                drop(answers.send(Answer { partition, id, result }));
            });
            return Ok(());
        }
        let started = connection.start(&request, deadline)?;
        let (id, partition) = self.sent(partition, index);
        tokio::task::spawn_local(async move {
            let result = started.answer().await.and_then(|answer| read_answer(&partition, &answer));
            // The producer's task may have ended with its run.
            drop(answers.send(Answer { partition, id, result }));
        });
        Ok(())
    }

    fn sent(&mut self, partition: &TopicPartition, index: usize) -> (u64, TopicPartition) {
        let queue = self.queues.get_mut(partition).expect("a partition stays once it was sent to");
        let (id, attempts) = queue.mark_sent(index);
        if attempts > 1 {
            self.cluster.tell(RETRY);
        }
        (id, partition.clone())
    }

    fn take(&mut self, Answer { partition, id, result }: Answer) {
        if let Err(error) = &result
            && error.has_stale_metadata()
        {
            self.cluster.forget_leader(&partition);
        }
        let queue = self.queues.get_mut(&partition).expect("a partition stays once it was sent to");
        let not_before = self.cluster.after(self.cluster.backoff("retry-jitter", queue.attempts_of(id)));
        let settled = match result {
            Ok(Acknowledgement::Silent) => return queue.abandon_unanswered(id, "acks=0 is never answered"),
            Err(error) if self.options.acks == 0 => return queue.abandon_unanswered(id, &error.to_string()),
            Ok(Acknowledgement::Appended(offset)) => queue.answered(id, Ok(offset), not_before),
            Err(error) => queue.answered(id, Err(error), not_before),
        };
        if settled == Settled::AcknowledgedAgain && self.options.idempotent {
            self.cluster.tell(DUPLICATE_ACKNOWLEDGED);
        }
    }

    fn sent_count(&self) -> usize {
        self.queues.values().map(PartitionQueue::sent_count).sum()
    }

    /// The identity that a partition without one begins with; none where it has one or needs none.
    async fn identity_for(
        &mut self,
        partition: &TopicPartition,
        address: &str,
        deadline: Duration,
    ) -> Result<Option<Identity>, CallError> {
        let has_one = self.queues.get(partition).is_some_and(|queue| queue.identity().is_some());
        if !self.options.idempotent || has_one {
            return Ok(None);
        }
        if self.identity.is_none() {
            // The crate's default is an empty transactional id, not none.
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(60_000)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1);
            let connection = self.cluster.connect(address, deadline).await?;
            let answer = connection.call(&request, deadline).await?;
            answered("InitProducerId", answer.error_code)?;
            self.identity = Some(Identity { producer_id: answer.producer_id.0, producer_epoch: answer.producer_epoch });
        }
        Ok(self.identity)
    }
}

/// A call that had to come before the batch failed: whatever became of it, nothing of the batch was sent.
fn nothing_sent(error: CallError) -> CallError {
    CallError::NothingSent { reason: error.to_string(), is_retriable: error.is_retriable() }
}

fn read_answer(partition: &TopicPartition, answer: &ProduceResponse) -> Result<Acknowledgement, CallError> {
    let topics = answer.responses.iter().filter(|topic| topic.name.as_str() == partition.topic);
    let mut partitions = topics.flat_map(|topic| &topic.partition_responses);
    let found = partitions.find(|found| found.index == partition.partition);
    let found = found.ok_or_else(|| missing("Produce", partition))?;
    answered("Produce", found.error_code)?;
    Ok(Acknowledgement::Appended((found.base_offset >= 0).then_some(found.base_offset)))
}
