//! Three cores over disks in memory, connected by a queue of messages that delays, reorders between pairs, and loses.
//! Nothing but the cores and their disks: no sockets, no simulated world. A seed decides everything.
//! Checked: nothing acknowledged under acks=all is lost or doubled (leader completeness), replicas are alike up to the
//! watermark (log matching), and everything comes to rest once faults stop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{CreateTopicsRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::super::batch::{Batch, BatchHeader, BatchProducer};
use super::super::config::{Advertised, NodeConfig};
use super::super::log::{DiskEffect, DiskEvent, ReadPiece};
use super::super::machine::{Answer, Core, Effects, Event, RequestId, Start};
use super::super::peer::PeerMessage;
use super::super::types::{LogId, NodeId, Now, Offset, ProducerEpoch, ProducerId, QueueId, Ticket};
use crate::mutant::Mutant;
use crate::store::tests::disk::{Heard, MemoryDisk};
use crate::store::{Store, StoreSettings};
use crate::wire::api::Api;
use crate::wire::request::{Request, RequestHeader};
use crate::wire::response::Response;

const NODES: usize = 3;
const TICK: Duration = Duration::from_millis(5);

struct Node {
    core: Core,
    store: Store<MemoryDisk, Heard>,
    started: VecDeque<DiskEffect>,
}

/// One producer and its queue: batches are sent one at a time, again and again until they are acknowledged.
#[derive(Default)]
struct Producer {
    next: i32,
    waits: Option<(usize, RequestId, Duration)>,
    /// Offsets by sequence, as acknowledged.
    acknowledged: BTreeMap<i32, i64>,
}

struct Rig {
    seed: u64,
    mutant: Option<Mutant>,
    now: Now,
    disks: Vec<MemoryDisk>,
    nodes: Vec<Option<Node>>,
    incarnations: u64,
    /// By sender and receiver, each with the time of its delivery.
    links: BTreeMap<(usize, usize), VecDeque<(Duration, PeerMessage)>>,
    cut: BTreeSet<(usize, usize)>,
    request_next: u64,
    producers: Vec<Producer>,
    is_created: bool,
    created: Option<(usize, RequestId, Duration)>,
    truncations: u64,
    leaderships: u64,
}

impl Rig {
    fn new(seed: u64, mutant: Option<Mutant>) -> Rig {
        let mut rig = Rig {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            mutant,
            now: Now { monotonic: Duration::from_secs(1), wall_ms: 1_000_000 },
            disks: (0..NODES).map(|_| MemoryDisk::default()).collect(),
            nodes: (0..NODES).map(|_| None).collect(),
            incarnations: 0,
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            request_next: 0,
            producers: (0..2).map(|_| Producer::default()).collect(),
            is_created: false,
            created: None,
            truncations: 0,
            leaderships: 0,
        };
        for node in 0..NODES {
            rig.start(node);
        }
        rig
    }

    fn draw(&mut self, bound: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) % bound
    }

    fn start(&mut self, node: usize) {
        let settings = StoreSettings::default();
        let opened = block_on(Store::open(self.disks[node].clone(), Heard::default(), self.mutant, settings));
        let (store, recovered) = opened.expect("the folder opens");
        let peers: Vec<String> = (0..NODES).map(|id| format!("{id}=node-{id}:9092")).collect();
        let overrides = BTreeMap::from([
            ("node-id".to_owned(), node.to_string()),
            ("cluster".to_owned(), peers.join(",")),
            ("segment-bytes".to_owned(), "2048".to_owned()),
        ]);
        let config = NodeConfig::tiny().with_settings(&overrides).expect("these are settings");
        self.incarnations += 1;
        let start = Start {
            config,
            advertised: Advertised { host: format!("node-{node}"), port: 9092 },
            recovered,
            mutant: self.mutant,
            cluster_draw: 8,
            incarnation: self.incarnations * 0x1000_0000,
        };
        let mut effects = Effects::default();
        let core = Core::new(start, self.now, &mut effects).expect("the folder is whole");
        self.nodes[node] = Some(Node { core, store, started: VecDeque::new() });
        self.finish_turn(node, effects);
    }

    fn crash(&mut self, node: usize, loses_power: bool) {
        if let Some(gone) = self.nodes[node].take() {
            self.hear(&gone);
        }
        self.links.retain(|(from, to), _| *from != node && *to != node);
        for producer in &mut self.producers {
            producer.waits = producer.waits.take().filter(|(at, _, _)| *at != node);
        }
        if loses_power {
            let mut seed = self.seed;
            self.disks[node].lose_power(|bound| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                (seed % bound as u64) as usize
            });
        }
    }

    fn hear(&mut self, node: &Node) {
        let count = |name| node.store.observer().0.borrow().get(name).copied().unwrap_or(0);
        self.truncations += count(crate::points::TRUNCATION);
    }

    fn turn(&mut self, node: usize, event: Event) {
        let Some(running) = self.nodes[node].as_mut() else { return };
        let mut effects = Effects::default();
        running.core.step(self.now, event, &mut effects);
        self.finish_turn(node, effects);
    }

    fn finish_turn(&mut self, node: usize, mut effects: Effects) {
        let Some(running) = self.nodes[node].as_mut() else { return };
        loop {
            running.core.end_turn(self.now, &mut effects);
            let reported = running.store.perform(&mut effects.disk);
            assert!(effects.halt.is_none(), "no disk fails here");
            running.started.extend(effects.disk.drain(..));
            self.leaderships +=
                effects.events.drain(..).filter(|(name, _)| *name == crate::points::LEADERSHIP_TAKEN).count() as u64;
            effects.points.clear();
            if reported.is_empty() {
                break;
            }
            for event in reported {
                running.core.step(self.now, Event::Disk(event), &mut effects);
            }
        }
        for (to, message) in effects.peers {
            self.send(node, to, message);
        }
        for (id, answer) in effects.replies {
            self.answered(node, id, answer);
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: PeerMessage) {
        let to = to.0 as usize;
        let delay = Duration::from_millis(1 + self.draw(15));
        if self.cut.contains(&(from, to)) || self.draw(200) == 0 {
            return;
        }
        let (head, tail) = message.encode();
        let frame = Bytes::from([&head[4..], &tail[..]].concat());
        let message = PeerMessage::decode(frame).expect("what is encoded can be read");
        self.links.entry((from, to)).or_default().push_back((self.now.monotonic + delay, message));
    }

    /// Lets a moment pass: messages arrive, disks go on, clients send, deadlines come.
    fn step(&mut self, is_faulty: bool) {
        self.now.monotonic += TICK;
        self.now.wall_ms += TICK.as_millis() as i64;
        let pairs: Vec<(usize, usize)> = self.links.keys().copied().collect();
        for (from, to) in pairs {
            while let Some(link) = self.links.get_mut(&(from, to))
                && link.front().is_some_and(|(at, _)| *at <= self.now.monotonic)
            {
                let Some((_, message)) = link.pop_front() else { break };
                if self.nodes[to].is_some() {
                    self.turn(to, Event::Peer { from: NodeId(from as i32), message });
                }
            }
        }
        for node in 0..NODES {
            let due = self.nodes[node].as_ref().and_then(|n| n.core.next_deadline());
            if due.is_some_and(|at| at <= self.now.monotonic) {
                self.turn(node, Event::Deadline);
            }
            let how_many = if is_faulty { self.draw(4) } else { 50 };
            for _ in 0..how_many {
                self.settle_one(node);
            }
        }
        self.drive_clients();
    }

    fn settle_one(&mut self, node: usize) {
        let Some(running) = self.nodes[node].as_mut() else { return };
        let Some(effect) = running.started.pop_front() else { return };
        let event = block_on(running.store.start(effect));
        self.turn(node, Event::Disk(event));
    }

    fn drive_clients(&mut self) {
        if !self.is_created {
            if self.created.is_none_or(|(_, _, until)| until <= self.now.monotonic) {
                let node = self.draw(NODES as u64) as usize;
                let id = self.request(node, Api::CreateTopics, 7, Request::CreateTopics(create_topic()));
                self.created = Some((node, id, self.now.monotonic + Duration::from_secs(2)));
            }
            return;
        }
        for number in 0..self.producers.len() {
            let waits = self.producers[number].waits;
            if waits.is_some_and(|(_, _, until)| until > self.now.monotonic) || self.draw(3) > 0 {
                continue;
            }
            let leading: Vec<usize> = (0..NODES).filter(|node| self.leads(*node, number)).collect();
            if leading.is_empty() {
                continue;
            }
            let node = leading[self.draw(leading.len() as u64) as usize];
            let sequence = self.producers[number].next;
            let request = Request::Produce(produce(number, sequence));
            let id = RequestId { connection: 1, sequence: self.request_next };
            self.producers[number].waits = Some((node, id, self.now.monotonic + Duration::from_millis(400)));
            self.request(node, Api::Produce, 9, request);
        }
    }

    /// Whether a node believes that it leads a queue's log; more than one may.
    fn leads(&self, node: usize, partition: usize) -> bool {
        let Some(core) = self.nodes[node].as_ref().map(|running| &running.core) else { return false };
        self.place(core, partition).is_some_and(|(log, _)| core.leader_epoch(log).is_some())
    }

    fn place(&self, core: &Core, partition: usize) -> Option<(LogId, QueueId)> {
        let partition = core.metadata().topic("t")?.partitions.get(partition)?;
        Some((partition.log(), partition.queue()))
    }

    fn request(&mut self, node: usize, api: Api, version: i16, request: Request) -> RequestId {
        let id = RequestId { connection: 1, sequence: self.request_next };
        self.request_next += 1;
        let header = RequestHeader { api, version, correlation_id: 0 };
        self.turn(node, Event::Request { id, header, request: Box::new(request) });
        id
    }

    fn answered(&mut self, node: usize, id: RequestId, answer: Answer) {
        let Answer::Response(_, response) = answer else { return };
        match *response {
            Response::CreateTopics(response) => {
                let code = response.topics[0].error_code;
                self.is_created |= code == 0 || code == 36;
                self.created = None;
            }
            Response::Produce(response) => {
                let partition = &response.responses[0].partition_responses[0];
                let producer = &mut self.producers[partition.index as usize];
                if producer.waits.is_none_or(|(at, waited, _)| (at, waited) != (node, id)) {
                    return;
                }
                producer.waits = None;
                if partition.error_code == 0 {
                    producer.acknowledged.insert(producer.next, partition.base_offset);
                    producer.next += 1;
                }
            }
            _ => {}
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        for node in 0..NODES {
            if self.nodes[node].is_none() {
                self.start(node);
            }
        }
    }

    /// Faults for a while, then none until everything has come to rest.
    fn run(&mut self) -> Result<(), String> {
        for _ in 0..1500 {
            self.step(true);
            let node = self.draw(NODES as u64) as usize;
            match self.draw(160) {
                0 | 1 => self.crash(node, self.incarnations.is_multiple_of(2)),
                2..=5 if self.nodes[node].is_none() => self.start(node),
                6 => {
                    for other in (0..NODES).filter(|other| *other != node) {
                        self.cut.extend([(node, other), (other, node)]);
                    }
                }
                7 => drop(self.cut.insert((node, (node + 1) % NODES))),
                8..=11 => self.cut.clear(),
                _ => {}
            }
        }
        self.heal();
        let progress: Vec<i32> = self.producers.iter().map(|producer| producer.next).collect();
        for _ in 0..3000 {
            self.step(false);
        }
        for (number, before) in progress.iter().enumerate() {
            if self.producers[number].next <= *before {
                return Err(format!("queue {number} stalls"));
            }
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), String> {
        for number in 0..self.producers.len() {
            let Some(leader) = (0..NODES).find(|node| self.leads(*node, number)) else {
                return Err(format!("queue {number} has no leader"));
            };
            let core = &self.nodes[leader].as_ref().expect("a leader runs").core;
            let in_sync =
                self.place(core, number).and_then(|(log, _)| core.metadata().placement(log)).map(|p| p.isr.len());
            if in_sync != Some(NODES) {
                return Err(format!("queue {number}: {in_sync:?} replicas are in sync again"));
            }
            let mut copies = Vec::new();
            for node in 0..NODES {
                copies.push(self.sequences(node, number)?);
            }
            let led = &copies[leader];
            for (node, copy) in copies.iter().enumerate() {
                let common = copy.len().min(led.len());
                if copy[..common] != led[..common] {
                    return Err(format!("queue {number}: node {node} differs from its leader"));
                }
            }
            for (sequence, offset) in &self.producers[number].acknowledged {
                if led.get(*offset as usize) != Some(sequence) {
                    return Err(format!("queue {number}: {sequence} is not at offset {offset}"));
                }
            }
            let distinct: BTreeSet<i32> = led.iter().copied().collect();
            if distinct.len() != led.len() {
                return Err(format!("queue {number} holds a batch twice"));
            }
        }
        Ok(())
    }

    /// The sequences of a queue's confirmed records by offset, one a batch.
    fn sequences(&mut self, node: usize, partition: usize) -> Result<Vec<i32>, String> {
        let place = self.nodes[node].as_ref().and_then(|running| self.place(&running.core, partition));
        let (log, queue) = place.ok_or_else(|| format!("node {node} does not know the topic"))?;
        let Some(running) = self.nodes[node].as_mut() else { return Err(format!("node {node} is down")) };
        let mut found = Vec::new();
        let mut offset = Offset(0);
        loop {
            let log = running.core.logs.get_mut(&log).ok_or_else(|| format!("node {node} has no replica"))?;
            let plan = log.read(queue, offset, 1 << 20, true).map_err(|error| format!("node {node}: {error}"))?;
            if plan.next_offset == offset {
                return Ok(found);
            }
            offset = plan.next_offset;
            let mut bytes = Vec::new();
            for piece in plan.pieces {
                match piece {
                    ReadPiece::Cached(part) => bytes.extend_from_slice(&part),
                    ReadPiece::OnDisk(piece) => {
                        let read = DiskEffect::Read {
                            ticket: Ticket(u64::MAX),
                            log: piece.log,
                            segment: piece.segment,
                            at: piece.at,
                            length: piece.length,
                        };
                        let DiskEvent::Read { result, .. } = block_on(running.store.start(read)) else {
                            panic!("not a read")
                        };
                        let read = result.expect("the segment is there");
                        let batches = log.check_read(&piece, &read, read.len());
                        batches.expect("intact").iter().for_each(|batch| bytes.extend_from_slice(batch));
                    }
                }
            }
            let mut rest = &bytes[..];
            while let Some(header) = BatchHeader::decode(rest) {
                found.push(header.base_sequence);
                rest = &rest[header.batch_bytes()..];
            }
        }
    }
}

fn create_topic() -> CreateTopicsRequest {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let config = CreatableTopicConfig::default().with_name(text("min.insync.replicas")).with_value(Some(text("2")));
    let topic = CreatableTopic::default()
        .with_name(TopicName(text("t")))
        .with_num_partitions(2)
        .with_replication_factor(3)
        .with_configs(vec![config]);
    CreateTopicsRequest::default().with_timeout_ms(2000).with_topics(vec![topic])
}

fn produce(partition: usize, sequence: i32) -> ProduceRequest {
    let producer =
        BatchProducer { id: ProducerId(900 + partition as i64), epoch: ProducerEpoch(0), base_sequence: sequence };
    let value = Bytes::from(format!("value {sequence}"));
    let records = Batch::of_records(producer, [(1_000_000, &value)].into_iter()).bytes;
    let data = PartitionProduceData::default().with_index(partition as i32).with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string("t".to_owned())))
        .with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![topic])
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    runtime.block_on(future)
}

#[test]
fn nothing_acknowledged_is_lost_and_replicas_agree_whatever_fails() {
    let (mut truncations, mut leaderships, mut acknowledged) = (0, 0, 0);
    for seed in 1..=25 {
        let mut rig = Rig::new(seed, None);
        if let Err(error) = rig.run() {
            panic!("seed {seed}: {error}");
        }
        for node in 0..NODES {
            rig.crash(node, false);
        }
        (truncations, leaderships) = (truncations + rig.truncations, leaderships + rig.leaderships);
        acknowledged += rig.producers.iter().map(|producer| producer.acknowledged.len()).sum::<usize>();
    }
    assert!(truncations > 0 && leaderships > 50 && acknowledged > 1000, "{truncations} {leaderships} {acknowledged}");
}

/// The rig sees: defects of replication are found by it within a few seeds.
#[test]
fn defects_of_replication_are_found() {
    for mutant in [Mutant::AckJumpsAhead, Mutant::TruncateToWatermark, Mutant::ProducersNotReplicated] {
        let found = (1..=60).find(|seed| Rig::new(*seed, Some(mutant)).run().is_err());
        assert!(found.is_some(), "{mutant:?} is not found");
    }
}
