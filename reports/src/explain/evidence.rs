//! What the page is about: the first violation, the operations that prove it, and the queue and offsets they concern.
//! Start at `Focus::of`. Not here: why it happened (`cause`).

use mqassay_harness::check::Finding;
use mqassay_harness::history::{Call, GroupStep, Operation, Outcome, Queue};
use mqassay_harness::plan::Role;
use mqassay_harness::story::Story;

use crate::number;

/// An operation that proves the anomaly.
pub(super) struct Proof<'a> {
    /// Its number on the page, from 1.
    pub(super) number: usize,
    pub(super) index: u64,
    pub(super) operation: &'a Operation,
    pub(super) texts: Vec<&'a str>,
}

/// What the page is about.
pub(super) struct Focus<'a> {
    pub(super) finding: Option<&'a Finding>,
    pub(super) proofs: Vec<Proof<'a>>,
    /// Evidence that is no operation.
    pub(super) others: Vec<&'a str>,
    pub(super) queue: Option<Queue>,
    /// Sorted, each once.
    pub(super) offsets: Vec<i64>,
}

impl<'a> Focus<'a> {
    pub(super) fn of(story: &'a Story) -> Focus<'a> {
        let finding = story.verdict.findings.iter().find(|finding| finding.allowed.is_none());
        let finding = finding.or(story.verdict.findings.first());
        let mut focus = Focus { finding, proofs: Vec::new(), others: Vec::new(), queue: None, offsets: Vec::new() };
        let Some(finding) = finding else { return focus };
        for evidence in &finding.evidence {
            let found =
                evidence.operation.and_then(|index| Some((index, story.history.operations.get(index as usize)?)));
            let Some((index, operation)) = found else {
                focus.others.push(&evidence.text);
                continue;
            };
            match focus.proofs.iter_mut().find(|proof| proof.index == index) {
                Some(proof) => proof.texts.push(&evidence.text),
                None => {
                    let texts = vec![evidence.text.as_str()];
                    focus.proofs.push(Proof { number: 0, index, operation, texts });
                }
            }
        }
        focus.proofs.sort_by_key(|proof| (proof.operation.invoked_us, proof.index));
        for (index, proof) in focus.proofs.iter_mut().enumerate() {
            proof.number = index + 1;
        }
        focus.queue = queue_named(story, &finding.explanation)
            .or_else(|| finding.evidence.iter().find_map(|evidence| queue_named(story, &evidence.text)))
            .or_else(|| focus.proofs.iter().find_map(|proof| queue_of(&proof.operation.call)));
        // The explanation speaks of one queue; pieces of evidence may be about others with the same anomaly.
        focus.offsets = offsets_in(&finding.explanation);
        focus.offsets.sort_unstable();
        focus.offsets.dedup();
        focus
    }

    /// When the first and the last of the proofs began and ended; none without a proof.
    pub(super) fn span_us(&self) -> Option<(u64, u64)> {
        let first = self.proofs.iter().map(|proof| proof.operation.invoked_us).min()?;
        let last = self.proofs.iter().map(|proof| proof.operation.completed_us).max()?;
        Some((first, last))
    }

    /// The number of an operation among the proofs.
    pub(super) fn number_of(&self, index: u64) -> Option<usize> {
        self.proofs.iter().find(|proof| proof.index == index).map(|proof| proof.number)
    }
}

/// A queue as the judge writes it: the topic's name, a slash, the partition's number.
pub(super) fn queue_name(story: &Story, queue: Queue) -> String {
    let topic = story.history.header.topics.get(queue.topic as usize);
    topic.map_or_else(|| format!("topic {}/{}", queue.topic, queue.partition), |t| format!("{t}/{}", queue.partition))
}

/// A client's name; the one behind the plan's last reads everything at the end.
pub(super) fn client_name(story: &Story, client: u32) -> String {
    match story.plan.clients.get(client as usize).map(|client| &client.role) {
        Some(Role::Producer { .. }) => format!("producer {client}"),
        Some(Role::Consumer { .. }) => format!("consumer {client}"),
        Some(Role::Member { group, .. }) => format!("member {client} of group {group}"),
        None => "final reader".to_owned(),
    }
}

/// An operation in a few words.
pub(super) fn operation_text(story: &Story, operation: &Operation) -> String {
    match &operation.call {
        Call::Produce { queue, first_value, count, first_offset, attempts, acks, .. } => {
            let place = first_offset.map_or_else(String::new, |offset| format!(" at offset {offset}"));
            let records = number::counted(u64::from(*count), "record", "records");
            let retried = if *attempts > 1 { format!(", {attempts} attempts") } else { String::new() };
            format!(
                "produce {records} from number {} to {}{place}, acks {acks}{retried}",
                first_value.sequence(),
                queue_name(story, *queue)
            )
        }
        Call::Poll { runs, is_final, .. } => {
            let records: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
            let kind = if *is_final { "final read" } else { "poll" };
            format!("{kind}: {}", number::counted(records, "record", "records"))
        }
        Call::Seek { queue, offset, .. } => format!("seek {}{}", queue_name(story, *queue), to(*offset)),
        Call::ListOffset { queue, query, offset, .. } => {
            format!("list offset {query:?} of {}{}", queue_name(story, *queue), to(*offset))
        }
        Call::DeleteRecords { queue, before, .. } => {
            format!("delete records of {} before {before}", queue_name(story, *queue))
        }
        Call::CreateTopic { topic } => format!("create topic {topic}"),
        Call::Group { group, generation, step, .. } => {
            let what = match step {
                GroupStep::Own { queues } => format!("owns {} queues", queues.len()),
                GroupStep::Release { queues } => format!("gives up {} queues", queues.len()),
                GroupStep::Commit { offsets } => format!("commits {} offsets", offsets.len()),
                GroupStep::FetchOffsets { offsets } => format!("asks for {} committed offsets", offsets.len()),
            };
            format!("{what} in group {group}, generation {generation}")
        }
    }
}

/// An outcome in a few words, and the class that draws it.
pub(super) fn outcome_text(outcome: &Outcome) -> (String, &'static str) {
    match outcome {
        Outcome::Done => ("done".to_owned(), "done"),
        Outcome::Refused(why) => (format!("refused: {why}"), "refused"),
        Outcome::Unknown(why) => (format!("unknown: {why}"), "unsure"),
    }
}

/// A moment in seconds.
pub(super) fn seconds(at_us: u64) -> String {
    format!("{}.{:03}\u{a0}s", at_us / 1_000_000, at_us / 1_000 % 1_000)
}

fn to(offset: Option<i64>) -> String {
    offset.map_or_else(String::new, |offset| format!(" → {offset}"))
}

fn queue_of(call: &Call) -> Option<Queue> {
    match call {
        Call::Produce { queue, .. }
        | Call::Seek { queue, .. }
        | Call::ListOffset { queue, .. }
        | Call::DeleteRecords { queue, .. } => Some(*queue),
        Call::Poll { runs, .. } => runs.first().map(|run| run.queue),
        Call::CreateTopic { .. } | Call::Group { .. } => None,
    }
}

/// The queue that a text of the judge names first.
fn queue_named(story: &Story, text: &str) -> Option<Queue> {
    let words = text.split([' ', ',', ';', ':', '(', ')']);
    words.map(|word| word.trim_end_matches('.')).find_map(|word| {
        let (topic, partition) = word.rsplit_once('/')?;
        let topic = story.history.header.topics.iter().position(|name| name == topic)?;
        Some(Queue { topic: topic as u32, partition: partition.parse().ok()? })
    })
}

/// The offsets that a text of the judge names: numbers behind `offset` or `offsets`, and then behind `at` and `and`.
fn offsets_in(text: &str) -> Vec<i64> {
    let mut found = Vec::new();
    let (mut is_offset, mut may_follow) = (false, false);
    for word in text.split(' ') {
        let bare = word.trim_end_matches(['.', ',', ';', ':']);
        match bare {
            "offset" | "offsets" => (is_offset, may_follow) = (true, true),
            "at" | "and" => may_follow = is_offset,
            _ => {
                if let (true, Ok(offset)) = (may_follow, bare.parse()) {
                    found.push(offset);
                }
                may_follow = false;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_from_what_the_judge_writes() {
        let cases: [(&str, &[i64]); 4] = [
            ("record 528 of client 0 lies at offsets 1001 and 1071 of topic-0/0.", &[1001, 1071]),
            ("The end of topic-0/0 was at offset 118 and later, as the broker told it, at 116.", &[118, 116]),
            ("The send of record 3 of client 1 to t/0 took effect at offset 7. Reads passed that offset.", &[7]),
            (
                "A consumer had to go on at offset 86, and got offset 88 next; record 116 of client 0 at offset 87.",
                &[86, 88, 87],
            ),
        ];
        for (text, offsets) in cases {
            assert_eq!(offsets_in(text), offsets, "{text}");
        }
    }
}
