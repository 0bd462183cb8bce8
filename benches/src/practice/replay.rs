//! Where a consumer lands that goes back to a time: records with times of their own are produced, many times are asked for,
//! and the answer must be the first record at or after each, to the millisecond.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::consumers::cluster::Cluster;
use crate::consumers::kafka::{self, Admin, fresh};
use crate::consumers::{ConsumerError, kafka_error};

/// How the answers were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Landed {
    /// Times asked for.
    pub asked: u64,
    /// Answers that were the first record at or after the time.
    pub right: u64,
    /// The furthest that a wrong answer was off, records.
    pub worst: u64,
}

/// Produces, asks and compares.
pub fn run(cluster: &Cluster) -> Result<Landed, ConsumerError> {
    let topic = fresh("replay");
    Admin::connect(cluster.bootstrap())?.create(&topic, 1, 1)?;
    let times = times();
    let mut config = kafka::config(cluster.bootstrap());
    config.set("enable.idempotence", "true").set("linger.ms", "20").set("batch.num.messages", "37");
    let producer: BaseProducer = config.create().map_err(kafka_error("create a producer"))?;
    for (number, time) in times.iter().enumerate() {
        let value = number.to_string();
        let record: BaseRecord<'_, (), str> =
            BaseRecord::to(&topic).partition(0).payload(value.as_str()).timestamp(*time);
        producer.send(record).map_err(|(source, _)| kafka_error("send")(source))?;
        producer.poll(Duration::ZERO);
    }
    producer.flush(kafka::PATIENCE).map_err(kafka_error("send"))?;
    let mut config = kafka::config(cluster.bootstrap());
    config.set("group.id", &topic).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().map_err(kafka_error("create a consumer"))?;
    let (first, last) = (times[0], times[times.len() - 1]);
    let mut landed = Landed::default();
    let mut state = SEED;
    for _ in 0..ASKED {
        let time = first - 5 + (draw(&mut state) % (last - first + 10) as u64) as i64;
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset(&topic, 0, Offset::Offset(time)).map_err(kafka_error("name a time"))?;
        let found = consumer.offsets_for_times(wanted, kafka::PATIENCE).map_err(kafka_error("ask for a time"))?;
        let answer = match found.find_partition(&topic, 0).map(|one| one.offset()) {
            Some(Offset::Offset(offset)) => offset as u64,
            // Nothing at or after the time: the end.
            _ => times.len() as u64,
        };
        let right = times.partition_point(|known| *known < time) as u64;
        landed.asked += 1;
        landed.right += u64::from(answer == right);
        landed.worst = landed.worst.max(answer.abs_diff(right));
    }
    Ok(landed)
}

/// Growing times, one to ten milliseconds apart, now and then two records at the same.
fn times() -> Vec<i64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    let (mut state, mut time) = (SEED + 1, now - 20_000);
    (0..RECORDS)
        .map(|_| {
            time += (draw(&mut state) % 11) as i64;
            time
        })
        .collect()
}

/// Steele, Lea and Flood's SplitMix64.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

const RECORDS: usize = 2_000;
const ASKED: u64 = 300;
const SEED: u64 = 21;
