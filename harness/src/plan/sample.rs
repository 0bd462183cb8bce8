//! From a scenario and a seed to a plan. Every value is a named draw, so two scenarios that differ in one range
//! give plans that differ in what that range decides. Nothing here reads a clock or the system's randomness.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::draws::Draws;
use super::scenario::{Scenario, Span, disk_operation};
use super::{
    Budget, Client, ClientAction, Endpoint, Fault, FaultAction, LinkRule, OnlyRequest, Plan, PlannedOperation, Role,
    SCHEMA_VERSION, Topic, Trigger, World,
};
use crate::history::{OffsetQuery, Queue, SeekTarget};

/// Kafka's API key of Produce.
const PRODUCE_API_KEY: i16 = 0;

/// The plan that a scenario gives under a seed.
pub fn sample(scenario: &Scenario, seed: u64, mutant: Option<&str>) -> Plan {
    let salt = xxh3_64_with_seed(scenario.name.as_bytes(), seed) >> 1;
    let sampler = Sampler { scenario, draws: Draws::new(salt) };
    let mut world = sampler.world();
    let topics = sampler.topics(world.founders());
    let clients = sampler.clients(&topics, &world);
    let faults = sampler.faults(&world, &clients);
    let settings: BTreeMap<String, String> = scenario
        .settings
        .iter()
        .enumerate()
        .map(|(index, (key, choices))| (key.clone(), sampler.draws.pick("setting", index as u64, choices).clone()))
        .collect();
    world.core = sampler.core(&world, &topics, &settings, &faults);
    Plan {
        schema: SCHEMA_VERSION,
        scenario: scenario.name.clone(),
        seed,
        salt,
        mutant: mutant.map(str::to_owned),
        client_mutant: None,
        world,
        settings,
        topics,
        clients,
        faults,
        recorded_trace: None,
    }
}

/// What samples a plan; the parts that concern clusters and groups are in `sample_cluster`.
pub(super) struct Sampler<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) draws: Draws,
}

impl Sampler<'_> {
    fn span(&self, label: &'static str, entity: u64, span: Span) -> i64 {
        let (low, high) = span.bounds();
        low + self.draws.range(label, entity, 0, (high - low) as u64) as i64
    }

    pub(super) fn count(&self, label: &'static str, entity: u64, span: Span) -> u64 {
        u64::try_from(self.span(label, entity, span)).expect("spans of counts are validated as not negative")
    }

    fn world(&self) -> World {
        let ranges = &self.scenario.world;
        let joining = self.count("joining", 0, ranges.joining) as u32;
        World {
            nodes: self.count("nodes", 0, ranges.nodes) as u32 + joining,
            joining,
            tick_ms: self.count("tick", 0, ranges.tick_ms),
            latency_ms: self.count("latency", 0, ranges.latency_ms),
            jitter_ms: self.count("jitter", 0, ranges.jitter_ms),
            sync_us: self.count("sync", 0, ranges.sync_us),
            safety_ms: self.count("safety", 0, ranges.safety_ms),
            liveness_ms: self.count("liveness", 0, ranges.liveness_ms),
            disk_bytes: self.count("disk", 0, ranges.disk_bytes),
            core: Vec::new(),
            budget: Budget {
                down: u32::try_from(ranges.down_at_once).ok(),
                powerless: u32::try_from(ranges.powerless_at_once).ok(),
            },
        }
    }

    fn topics(&self, nodes: u32) -> Vec<Topic> {
        let ranges = &self.scenario.topics;
        let auto_created = self.draws.chance("auto-created", 0, ranges.auto_created);
        let count = self.count("topics", 0, ranges.count);
        (0..count)
            .map(|topic| {
                let mut config = BTreeMap::new();
                for (index, (key, choices)) in ranges.config.iter().enumerate() {
                    let choice = self.draws.pick("topic-setting", topic << 16 | index as u64, choices);
                    if !choice.is_empty() && !auto_created {
                        config.insert(key.clone(), choice.clone());
                    }
                }
                // Auto-created topics have the broker's default number of partitions, which the settings name.
                let queues = self.count("queues", topic, ranges.queues) as u32;
                let replication = (self.count("replication", topic, ranges.replication) as u32).min(nodes);
                Topic { name: format!("topic-{topic}"), queues, replication, config, auto_created }
            })
            .map(|topic| self.with_default_partitions(topic))
            .collect()
    }

    fn with_default_partitions(&self, mut topic: Topic) -> Topic {
        if topic.auto_created {
            let choices = self.scenario.settings.get("default-partitions");
            topic.queues = choices.and_then(|choices| choices.first()?.parse().ok()).unwrap_or(4);
            // Nobody names the copies of a topic that creates itself: a node's default does.
            let choices = self.scenario.settings.get("default-replication-factor");
            topic.replication = choices.and_then(|choices| choices.first()?.parse().ok()).unwrap_or(1);
        }
        topic
    }

    fn clients(&self, topics: &[Topic], world: &World) -> Vec<Client> {
        let load = &self.scenario.workload;
        let queues: Vec<Queue> = topics
            .iter()
            .enumerate()
            .flat_map(|(topic, plan)| (0..plan.queues).map(move |partition| Queue { topic: topic as u32, partition }))
            .collect();
        let producers = self.count("producers", 0, load.producers);
        let consumers = self.count("consumers", 0, load.consumers);
        let mut clients = Vec::new();
        for producer in 0..producers {
            let batches = share(self.count("batches", 0, load.batches), producers, producer);
            clients.push(Client {
                role: self.producer(producer),
                operations: self.batches(producer, batches, &queues, world),
            });
        }
        for consumer in 0..consumers {
            let id = producers + consumer;
            let assigned: Vec<Queue> = queues
                .iter()
                .enumerate()
                .filter(|(index, _)| *index as u64 % consumers == consumer)
                .map(|(_, queue)| *queue)
                .collect();
            let assigned = if assigned.is_empty() { queues.clone() } else { assigned };
            let operations = self.reads(id, consumer, consumers, &assigned, world);
            let role = Role::Consumer {
                queues: assigned,
                request_timeout_ms: self.count("request-timeout", id, load.request_timeout_ms),
                fetch_max_bytes: self.count("fetch-max-bytes", id, load.fetch_max_bytes) as u32,
            };
            clients.push(Client { role, operations });
        }
        clients.extend(self.members(clients.len() as u64, topics, world));
        clients
    }

    fn producer(&self, id: u64) -> Role {
        let load = &self.scenario.workload;
        let acks = *self.draws.pick("acks", id, &load.acks);
        let idempotent = *self.draws.pick("idempotent", id, &load.idempotent) && acks == -1;
        Role::Producer {
            acks,
            idempotent,
            in_flight: *self.draws.pick("in-flight", id, &load.in_flight),
            attempts: *self.draws.pick("attempts", id, &load.attempts),
            request_timeout_ms: self.count("request-timeout", id, load.request_timeout_ms),
        }
    }

    fn batches(&self, id: u64, count: u64, queues: &[Queue], world: &World) -> Vec<PlannedOperation> {
        let load = &self.scenario.workload;
        let mut operations: Vec<_> = (0..count)
            .map(|index| {
                let entity = id << 32 | index;
                let (shift, step) = match load.shuffled_timestamps {
                    true => (
                        self.draws.range("timestamp-shift", entity, 0, 4_000) as i64 - 2_000,
                        self.draws.range("timestamp-step", entity, 0, 40) as i64 - 20,
                    ),
                    false => (0, self.draws.range("timestamp-step", entity, 0, 1) as i64),
                };
                PlannedOperation {
                    at_ms: self.time(entity, world),
                    action: ClientAction::Produce {
                        queue: *self.draws.pick("batch-queue", entity, queues),
                        records: self.count("records", entity, load.records) as u32,
                        value_bytes: self.count("value-bytes", entity, load.value_bytes) as u32,
                        timestamp_shift_ms: shift,
                        timestamp_step_ms: step,
                    },
                }
            })
            .collect();
        operations.sort_by_key(|operation| operation.at_ms);
        operations
    }

    fn reads(&self, id: u64, consumer: u64, consumers: u64, queues: &[Queue], world: &World) -> Vec<PlannedOperation> {
        let load = &self.scenario.workload;
        let kinds = [
            ("polls", load.polls),
            ("seeks", load.seeks),
            ("list-offsets", load.list_offsets),
            ("delete-records", load.delete_records),
        ];
        let mut operations = Vec::new();
        for (kind, (label, span)) in kinds.into_iter().enumerate() {
            for index in 0..share(self.count(label, 0, span), consumers, consumer) {
                let entity = id << 32 | (kind as u64) << 28 | index;
                let queue = *self.draws.pick("read-queue", entity, queues);
                let action = match label {
                    "polls" => ClientAction::Poll {
                        max_wait_ms: self.draws.range("max-wait", entity, 0, 400) as u32,
                        min_bytes: *self.draws.pick("min-bytes", entity, &[1, 1, 1, 500, 5_000]),
                    },
                    "seeks" => ClientAction::Seek { queue, to: self.seek_target(entity, world) },
                    "list-offsets" => ClientAction::ListOffset { queue, query: self.offset_query(entity, world) },
                    _ => ClientAction::DeleteRecords { queue },
                };
                operations.push(PlannedOperation { at_ms: self.time(entity, world), action });
            }
        }
        operations.sort_by_key(|operation| operation.at_ms);
        operations
    }

    fn seek_target(&self, entity: u64, world: &World) -> SeekTarget {
        match self.draws.range("seek-to", entity, 0, 9) {
            0 => SeekTarget::Beginning,
            1 => SeekTarget::End,
            2..=4 => SeekTarget::Offset(self.draws.range("seek-offset", entity, 0, 200) as i64),
            _ => SeekTarget::Timestamp(self.draws.range("seek-time", entity, 0, world.safety_ms) as i64 - 500),
        }
    }

    fn offset_query(&self, entity: u64, world: &World) -> OffsetQuery {
        match self.draws.range("query", entity, 0, 9) {
            0 => OffsetQuery::Earliest,
            1 => OffsetQuery::Latest,
            _ => OffsetQuery::Timestamp(self.draws.range("query-time", entity, 0, world.safety_ms) as i64 - 500),
        }
    }

    pub(super) fn time(&self, entity: u64, world: &World) -> u64 {
        self.draws.range("operation-time", entity, 0, world.safety_ms * 9 / 10)
    }

    fn faults(&self, world: &World, clients: &[Client]) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (class_index, (class, span)) in self.scenario.faults.classes().into_iter().enumerate() {
            for index in 0..self.count("faults", class_index as u64, span) {
                let entity = (class_index as u64) << 32 | index;
                faults.extend(self.fault(class, entity, world, clients.len() as u64));
            }
        }
        faults
    }

    fn fault(&self, class: &'static str, entity: u64, world: &World, clients: u64) -> Vec<Fault> {
        let ranges = &self.scenario.faults;
        let node = self.draws.range("fault-node", entity, 0, u64::from(world.nodes) - 1) as u32;
        let at_ms = self.draws.range("fault-time", entity, world.safety_ms / 20, world.safety_ms * 17 / 20);
        let restart_after_ms = self.count("fault-down", entity, ranges.down_ms);
        let duration_ms = self.count("fault-lasts", entity, ranges.lasts_ms);
        let salt = self.draws.draw("fault-salt", entity) >> 1;
        let at = |at_ms| Trigger::At { at_ms };
        let crash_trigger = || {
            if !self.draws.chance("fault-at-point", entity, ranges.at_point) {
                return at(at_ms);
            }
            Trigger::Point {
                name: self.draws.pick("fault-point", entity, &ranges.points).clone(),
                node,
                occurrence: self.draws.range("fault-occurrence", entity, 1, 4) as u32,
                armed_ms: at_ms,
            }
        };
        let one = |trigger, action| vec![Fault { trigger, action, salt }];
        match class {
            "kill" => one(crash_trigger(), FaultAction::Kill { node, restart_after_ms }),
            "power-loss" => one(crash_trigger(), FaultAction::PowerLoss { node, restart_after_ms }),
            "pause" => one(crash_trigger(), FaultAction::Pause { node, duration_ms }),
            "isolate" | "halves" | "majority-ring" | "bridge" | "one-way" => {
                let cut = self.partition(class, entity, world, duration_ms);
                cut.map(|cut| one(self.split_trigger(entity, world, at_ms), cut)).unwrap_or_default()
            }
            "add-node" | "remove-node" => self.membership(class, entity, world),
            "kill-minority" | "kill-all" | "power-loss-minority" | "power-loss-all" => {
                let set = self.crash_of_set(class, entity, node, world.nodes, restart_after_ms);
                one(crash_trigger(), set)
            }
            "roll" => self.roll(entity, world, at_ms, restart_after_ms),
            "clock-skew" => {
                let skew_ms = self.draws.range("clock-skew", entity, 0, 20_000) as i64 - 10_000;
                one(at(at_ms), FaultAction::ClockSkew { node, skew_ms, duration_ms })
            }
            "restart" => one(at(at_ms), FaultAction::Restart { node, restart_after_ms }),
            "link-hold" | "link-delay" | "link-cut" | "one-request" => {
                one(at(at_ms), self.link_fault(class, entity, node, clients, duration_ms))
            }
            "disk-full" => one(at(at_ms), FaultAction::DiskFull { node, duration_ms }),
            "disk-slow" => {
                let delay_ms = self.draws.range("disk-slow", entity, 5, 400);
                one(at(at_ms), FaultAction::DiskSlow { node, delay_ms, duration_ms })
            }
            "bit-flip" => vec![
                Fault { trigger: at(at_ms), action: self.bit_flip(entity, node), salt },
                Fault { trigger: at(at_ms), action: FaultAction::Kill { node, restart_after_ms }, salt },
            ],
            _ => {
                let on = disk_operation(class).expect("every class of FaultRanges::classes is handled");
                let operations = self.draws.range("disk-errors", entity, 1, 3) as u32;
                one(at(at_ms), FaultAction::DiskError { node, operations, on })
            }
        }
    }

    fn bit_flip(&self, entity: u64, node: u32) -> FaultAction {
        let files = &self.scenario.faults.flip_in;
        let within = if files.is_empty() { String::new() } else { self.draws.pick("flip-in", entity, files).clone() };
        FaultAction::BitFlip { node, within }
    }

    fn link_fault(&self, class: &str, entity: u64, node: u32, clients: u64, duration_ms: u64) -> FaultAction {
        let client = match self.draws.range("fault-client", entity, 0, clients) {
            0 => Endpoint::AnyClient,
            number => Endpoint::Client(number as u32 - 1),
        };
        let toward_node = self.draws.chance("fault-direction", entity, 0.5);
        let (from, to) = if toward_node { (client, Endpoint::Node(node)) } else { (Endpoint::Node(node), client) };
        let reset_after_ms = self.draws.range("reset-after", entity, 0, 600);
        let (rule, only) = match class {
            "link-hold" => (LinkRule::Hold, None),
            "link-delay" => (LinkRule::Delay { delay_ms: self.draws.range("link-delay", entity, 10, 800) }, None),
            "link-cut" => (LinkRule::Cut { reset_after_ms }, None),
            _ => {
                let nth = self.draws.range("nth-request", entity, 1, 5) as u32;
                (LinkRule::Cut { reset_after_ms }, Some(OnlyRequest { api_key: PRODUCE_API_KEY, nth }))
            }
        };
        FaultAction::Link { from, to, rule, duration_ms, only }
    }
}

/// The part of `total` that falls to one of `parts`, the first ones taking what is left over.
pub(super) fn share(total: u64, parts: u64, index: u64) -> u64 {
    total / parts + u64::from(index < total % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(extra: &str) -> Scenario {
        let text = format!(
            "name = \"s\"\ntitle = \"t\"\n[workload]\n[settings]\nflush = [\"ack\", \"os\"]\n[faults]\nkill = [1, 3]\nlink-cut = 2\n{extra}"
        );
        Scenario::parse("s.toml", &text).unwrap()
    }

    #[test]
    fn a_seed_gives_the_same_plan_twice_and_another_seed_another() {
        let scenario = scenario("");
        assert_eq!(sample(&scenario, 3, None), sample(&scenario, 3, None));
        assert_ne!(sample(&scenario, 3, None).clients, sample(&scenario, 4, None).clients);
    }

    #[test]
    fn one_more_class_of_fault_leaves_every_other_draw_as_it_was() {
        let plain = sample(&scenario(""), 9, None);
        let mut more = sample(&scenario("disk-full = 2\n"), 9, None);
        assert_eq!(more.faults.len(), plain.faults.len() + 2);
        more.faults.retain(|fault| fault.action.class() != "disk-full");
        assert_eq!(more, plain);
    }

    #[test]
    fn a_plan_survives_json_and_toml() {
        let plan = sample(&scenario("one-request = 3\nbit-flip = 1\nsync-error = 1\n"), 5, Some("S1"));
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
        assert_eq!(toml::from_str::<Plan>(&toml::to_string(&plan).unwrap()).unwrap(), plan);
    }

    #[test]
    fn operations_are_in_order_of_time_within_the_safety_phase() {
        let plan = sample(&scenario(""), 11, None);
        for client in &plan.clients {
            assert!(client.operations.is_sorted_by_key(|operation| operation.at_ms));
            assert!(client.operations.iter().all(|operation| operation.at_ms <= plan.world.safety_ms));
        }
    }
}
