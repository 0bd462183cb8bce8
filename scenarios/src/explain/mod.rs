//! The story of a plan: it is run once as a white box, and what was recorded becomes plain data for a page.
//! Start at `story`; `curve` runs the plan's variants. Not here: how a verdict comes about, and how a page looks.

pub mod curve;
mod messages;

use mqassay_broker::core::dump::CoreDump;
use mqassay_broker::core::log::{LogDump, QueueDump};
use mqassay_harness::history::Queue;
use mqassay_harness::plan::Plan;
use mqassay_harness::story::{BatchState, NodeState, ProducerMemory, QueueState, Story};

use crate::adapter::probe::StateSeen;
use crate::campaign;
use crate::runner::{self, Record, Run, RunError};

/// Runs the plan, and tells what happened. The curve is left to `curve::resample`.
pub fn story(plan: &Plan) -> Result<Story, RunError> {
    Ok(story_of(plan, runner::run_plan(plan, Record::WhiteBox)?))
}

/// The story of a run that was recorded as a white box.
pub fn story_of(plan: &Plan, run: Run) -> Story {
    let Run { line, verdict, history, trace_lines, losses, states, .. } = run;
    let seen = messages::read(&trace_lines);
    let replay = campaign::replay_line(&line);
    let states = states.iter().map(|seen| node_state(plan, seen)).collect();
    Story {
        plan: plan.clone(),
        line,
        verdict,
        history,
        messages: seen.messages,
        starts: seen.starts,
        points: seen.points,
        losses,
        states,
        curve: None,
        replay,
    }
}

/// A state with the queues as the plan names them; queues of no planned topic are left out.
fn node_state(plan: &Plan, seen: &StateSeen) -> NodeState {
    let StateSeen { at_us, node, incarnation, state } = seen;
    let mut queues = Vec::new();
    for (topic, planned) in (0..).zip(&plan.topics) {
        for place in state.partitions.iter().filter(|place| place.topic == planned.name) {
            let queue = Queue { topic, partition: place.partition };
            queues.extend(dumped(state, place.log, place.queue).map(|(log, dump)| queue_state(queue, log, dump)));
        }
    }
    queues.sort_by_key(|state| state.queue);
    NodeState { at_us: *at_us, node: *node, incarnation: *incarnation, queues }
}

fn dumped(state: &CoreDump, log: u64, queue: u64) -> Option<(&LogDump, &QueueDump)> {
    let log = state.logs.iter().find(|dump| dump.log == log)?;
    Some((log, log.queues.iter().find(|dump| dump.queue == queue)?))
}

fn queue_state(queue: Queue, log: &LogDump, dump: &QueueDump) -> QueueState {
    let batches = dump.batches.iter().map(|batch| BatchState {
        first_offset: batch.first_offset,
        count: batch.count,
        position: batch.position,
        end: batch.end,
    });
    let producers = dump.producers.iter().map(|producer| ProducerMemory {
        producer: producer.producer,
        last_sequence: producer.last_sequence,
        window: producer.window,
    });
    QueueState {
        queue,
        log: log.log,
        log_start: dump.log_start,
        high_watermark: dump.high_watermark,
        next_offset: dump.next_offset,
        fenced: dump.fenced,
        synced: log.synced,
        counted: log.counted,
        batches: batches.collect(),
        producers: producers.collect(),
    }
}
