//! The space-time diagram: time runs down, each client and node has a lane. Operations are bars by outcome, messages
//! are arrows, faults cross the picture. Only the time around the evidence is drawn in full. Start at `draw`.

use std::collections::BTreeMap;

use mqassay_harness::history::{Mark, Operation};
use mqassay_harness::plan::Endpoint;
use mqassay_harness::story::{Message, NodeStart, Story};

use super::cause::{Cause, words};
use super::evidence::{Focus, client_name, operation_text, outcome_text, seconds};
use super::scale::TimeScale;
use super::svg::Svg;

/// Time that is drawn around each moment.
const MARGIN_US: u64 = 60_000;
/// Moments at most, so that a long evidence does not draw the whole run.
const MOMENTS_MAX: usize = 14;
/// Arrows at most; beyond, those of clients without evidence are left out first.
const MESSAGES_MAX: usize = 220;
const TOP: f64 = 56.0;

/// Draws the diagram at a width; gives the picture and how many messages were left out.
pub(super) fn draw(story: &Story, focus: &Focus<'_>, cause: &Cause<'_>, width: f64) -> (String, usize) {
    let lanes = Lanes::of(story, focus, width);
    let scale = TimeScale::around(&moments(story, focus, cause), MARGIN_US, TOP);
    let mut drawing = Drawing { story, focus, lanes, scale, svg: Svg::new(width), width, badges: Vec::new() };
    drawing.time_axis();
    drawing.heads();
    drawing.nodes();
    let hidden = drawing.messages();
    drawing.operations();
    drawing.folds();
    drawing.marks();
    drawing.badges();
    let height = drawing.scale.bottom() + 28.0;
    let label = "Space-time diagram of the moments around the evidence; time runs down, clients and nodes are lanes.";
    (drawing.svg.finish(height, label), hidden)
}

/// Begin and end of each proof, the fault, and the node's states around it.
fn moments(story: &Story, focus: &Focus<'_>, cause: &Cause<'_>) -> Vec<u64> {
    let mut moments: Vec<u64> = cause.fault.iter().map(|(at_us, _, _)| *at_us).collect();
    if let Some(state) = cause.after {
        let is_start = |start: &&NodeStart| (start.node, start.incarnation) == (state.node, state.incarnation);
        let start = story.starts.iter().find(is_start);
        moments.extend(start.map(|start| start.at_us).filter(|_| cause.is_restart()));
        moments.push(state.at_us);
    }
    for proof in &focus.proofs {
        moments.extend([proof.operation.invoked_us, proof.operation.completed_us]);
    }
    if moments.is_empty() {
        moments.extend(story.history.marks.iter().map(at_us));
    }
    moments.truncate(MOMENTS_MAX);
    moments
}

/// The lanes from left to right: producers, nodes, then consumers and the final reader.
struct Lanes {
    places: BTreeMap<Endpoint, f64>,
    gap: f64,
}

impl Lanes {
    fn of(story: &Story, focus: &Focus<'_>, width: f64) -> Lanes {
        let proving: Vec<u32> = focus.proofs.iter().map(|proof| proof.operation.client.0).collect();
        let all: Vec<u32> = (0..=story.plan.clients.len() as u32).collect();
        let is_crowded = all.len() + story.plan.world.nodes as usize > if width < 500.0 { 5 } else { 9 };
        let shown = all.into_iter().filter(|client| !is_crowded || proving.contains(client));
        let is_producer = |client: &u32| client_name(story, *client).starts_with("producer");
        let (left, right): (Vec<u32>, Vec<u32>) = shown.partition(is_producer);
        let nodes = (0..story.plan.world.nodes).map(Endpoint::Node);
        let order: Vec<Endpoint> = left
            .into_iter()
            .map(Endpoint::Client)
            .chain(nodes)
            .chain(right.into_iter().map(Endpoint::Client))
            .collect();
        let begin = if width < 500.0 { 52.0 } else { 74.0 };
        let gap = (width - begin - 8.0) / order.len().max(1) as f64;
        let place = |(index, end): (usize, Endpoint)| (end, begin + gap * (index as f64 + 0.5));
        Lanes { places: order.into_iter().enumerate().map(place).collect(), gap }
    }

    fn at(&self, end: Endpoint) -> Option<f64> {
        self.places.get(&end).copied()
    }
}

struct Drawing<'a> {
    story: &'a Story,
    focus: &'a Focus<'a>,
    lanes: Lanes,
    scale: TimeScale,
    svg: Svg,
    width: f64,
    /// Where the numbers of proofs go; they lie over everything.
    badges: Vec<((f64, f64), usize)>,
}

impl Drawing<'_> {
    fn time_axis(&mut self) {
        let left = if self.width < 500.0 { 44.0 } else { 62.0 };
        for (range, began, height) in self.scale.stretches() {
            let step_us = step_for(range.end - range.start, *height);
            let mut at_us = range.start.div_ceil(step_us) * step_us;
            while at_us <= range.end {
                let y = self.scale.place(at_us);
                self.svg.line("k-grid", (left, y), (self.width, y));
                // On a telephone there is no room for the unit, which the caption has too.
                let unit = if self.width < 500.0 { "" } else { " s" };
                let text = format!("{}.{:02}{unit}", at_us / 1_000_000, at_us / 10_000 % 100);
                // A label at an end would lie under the fold.
                if y >= began + 6.0 && y <= began + height - 6.0 {
                    self.svg.text("f-muted small", (left - 6.0, y + 4.0), "end", &text);
                }
                at_us += step_us;
            }
        }
    }

    /// Folds lie over everything that runs through them.
    fn folds(&mut self) {
        for (y, hidden_us) in self.scale.folds() {
            self.svg.rect("f-shade", (0.0, y - 9.0), (self.width, 18.0), "");
            let text = format!("{} not shown", seconds(hidden_us));
            self.svg.text("f-muted small", (self.width / 2.0, y + 4.0), "middle", &text);
        }
    }

    fn heads(&mut self) {
        let bottom = self.scale.bottom();
        for (end, x) in &self.lanes.places {
            let name = match end {
                Endpoint::Client(client) => client_name(self.story, *client),
                Endpoint::Node(node) => format!("node {node}"),
                Endpoint::AnyClient | Endpoint::AnyNode => continue,
            };
            let (first, second) = name.split_once(' ').unwrap_or((&name, ""));
            self.svg.text("f-ink small", (*x, 18.0), "middle", first);
            self.svg.text("f-ink small", (*x, 33.0), "middle", second);
            self.svg.line("k-axis thin", (*x, TOP - 14.0), (*x, bottom + 8.0));
        }
    }

    /// Nodes are wide while a process runs.
    fn nodes(&mut self) {
        for (end, x) in self.lanes.places.clone() {
            let Endpoint::Node(node) = end else { continue };
            let starts: Vec<_> = self.story.starts.iter().filter(|start| start.node == node).collect();
            for (index, start) in starts.iter().enumerate() {
                let next_us = starts.get(index + 1).map_or(u64::MAX, |next| next.at_us);
                let end_us = self.end_of_process(node, start.at_us, next_us);
                if !self.scale.touches(start.at_us, end_us) {
                    continue;
                }
                let (from, to) = (self.scale.place(start.at_us), self.scale.place(end_us));
                let title = format!("process {} of node {node}, from {}", start.incarnation, seconds(start.at_us));
                self.svg.rect("f-process k-axis", (x - 7.0, from), (14.0, to - from), &title);
                if self.scale.shows(start.at_us) && start.incarnation > 1 {
                    self.svg.text("f-ink small", (x + 12.0, from + 4.0), "start", "started again");
                }
            }
        }
    }

    /// When a process that began at a time ended: at the first fault or exit that ends one, if that was before `next_us`.
    fn end_of_process(&self, node: u32, began_us: u64, next_us: u64) -> u64 {
        let ends = self.story.history.marks.iter().filter(|mark| match mark {
            Mark::Fault { class, fault, .. } => {
                matches!(class.as_str(), "kill" | "power-loss" | "restart")
                    && super::cause::node_of(self.story, *fault) == Some(node)
            }
            Mark::NodeExit { node: exited, .. } => *exited == node,
            Mark::LivenessBegan { .. } | Mark::LivenessEnded { .. } => false,
        });
        ends.map(at_us).find(|at_us| (began_us..next_us).contains(at_us)).unwrap_or(next_us)
    }

    /// Draws arrows; gives how many were left out.
    fn messages(&mut self) -> usize {
        let visible = |message: &&Message| {
            let is_shown =
                self.scale.shows(message.sent_us) && message.received_us.is_none_or(|at| self.scale.shows(at));
            is_shown && self.lanes.at(message.from).is_some() && self.lanes.at(message.to).is_some()
        };
        let mut shown: Vec<&Message> = self.story.messages.iter().filter(visible).collect();
        let all = shown.len();
        shown.sort_by_key(|message| (!self.is_of_evidence(message), message.sent_us));
        shown.truncate(MESSAGES_MAX);
        for message in &shown {
            let (Some(from), Some(to)) = (self.lanes.at(message.from), self.lanes.at(message.to)) else { continue };
            let class = if self.is_of_evidence(message) { "k-ink message" } else { "k-axis message faint" };
            let begin = (from, self.scale.place(message.sent_us));
            let Some(received_us) = message.received_us else {
                let stop = (from + (to - from) * 0.4, begin.1 + 4.0);
                self.svg.line(class, begin, stop);
                self.svg.line("k-bad", (stop.0 - 3.0, stop.1 - 3.0), (stop.0 + 3.0, stop.1 + 3.0));
                self.svg.line("k-bad", (stop.0 - 3.0, stop.1 + 3.0), (stop.0 + 3.0, stop.1 - 3.0));
                continue;
            };
            let tip = (to, self.scale.place(received_us));
            self.svg.line(class, begin, tip);
            let back = if to > from { -6.0 } else { 6.0 };
            let head = if self.is_of_evidence(message) { "f-ink" } else { "f-axis faint" };
            self.svg.shape(head, &[tip, (tip.0 + back, tip.1 - 2.6), (tip.0 + back, tip.1 + 2.6)]);
        }
        all - shown.len()
    }

    /// Whether a message was under way during a proof, to or from its client.
    fn is_of_evidence(&self, message: &Message) -> bool {
        self.focus.proofs.iter().any(|proof| {
            let end = Endpoint::Client(proof.operation.client.0);
            let during = proof.operation.invoked_us..=proof.operation.completed_us;
            (message.from == end || message.to == end) && during.contains(&message.sent_us)
        })
    }

    fn operations(&mut self) {
        let mut busy: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        let mut shown: Vec<(u64, &Operation)> = (0..).zip(&self.story.history.operations).collect();
        shown.retain(|(_, operation)| self.scale.touches(operation.invoked_us, operation.completed_us));
        shown.sort_by_key(|(index, operation)| (operation.invoked_us, *index));
        let widest = ((self.lanes.gap / 2.0 - 8.0) / 9.0).clamp(1.0, 5.0) as u32;
        for (index, operation) in shown {
            let client = operation.client.0;
            let Some(x) = self.lanes.at(Endpoint::Client(client)) else { continue };
            let free = |column: &u32| busy.get(&(client, *column)).is_none_or(|until| *until <= operation.invoked_us);
            let column = (0..widest).find(free).unwrap_or(widest - 1);
            busy.insert((client, column), operation.completed_us);
            let (from, to) = (self.scale.place(operation.invoked_us), self.scale.place(operation.completed_us));
            let (outcome, class) = outcome_text(&operation.outcome);
            let number = self.focus.number_of(index);
            let proof = if number.is_some() { " proof" } else { "" };
            let left = x - 3.5 + f64::from(column) * 9.0;
            let title = format!("{}; {outcome}", operation_text(self.story, operation));
            self.svg.rect(&format!("bar {class}{proof}"), (left, from), (7.0, (to - from).max(3.0)), &title);
            if let Some(number) = number {
                self.badges.push(((left - 10.0, from + 5.0), number));
            }
        }
    }

    fn badges(&mut self) {
        for ((x, y), number) in std::mem::take(&mut self.badges) {
            self.svg.rect("badge", (x - 8.0, y - 8.0), (16.0, 16.0), "");
            self.svg.text("badge-text", (x, y + 4.5), "middle", &number.to_string());
        }
    }

    fn marks(&mut self) {
        let mut last = f64::MIN;
        for mark in &self.story.history.marks {
            let at_us = at_us(mark);
            if !self.scale.shows(at_us) {
                continue;
            }
            let text = match mark {
                Mark::Fault { class, fault, .. } => format!("{} (fault {fault})", words(class)),
                Mark::NodeExit { node, .. } => format!("node {node} ended by itself"),
                Mark::LivenessBegan { .. } => "faults stop".to_owned(),
                Mark::LivenessEnded { .. } => "end of the run".to_owned(),
            };
            let y = self.scale.place(at_us);
            let class = if matches!(mark, Mark::Fault { .. } | Mark::NodeExit { .. }) { "fault" } else { "phase" };
            let left = if self.width < 500.0 { 44.0 } else { 62.0 };
            self.svg.line(&format!("mark-{class}"), (left, y), (self.width, y));
            let baseline = if y - 4.0 < last + 14.0 { last + 14.0 } else { y - 4.0 };
            let name = format!("{text}, {}", seconds(at_us));
            let (x, anchor) = if class == "fault" { (self.width - 2.0, "end") } else { (left + 2.0, "start") };
            self.svg.text(&format!("mark-{class}-text"), (x, baseline), anchor, &name);
            last = baseline;
        }
    }
}

/// A step of the time axis that leaves room for its labels.
fn step_for(span_us: u64, height: f64) -> u64 {
    const STEPS_US: [u64; 8] = [10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000];
    let room = (height / 22.0).max(1.0) as u64;
    STEPS_US.into_iter().find(|step| span_us / step <= room).unwrap_or(5_000_000)
}

fn at_us(mark: &Mark) -> u64 {
    match mark {
        Mark::Fault { at_us, .. }
        | Mark::NodeExit { at_us, .. }
        | Mark::LivenessBegan { at_us }
        | Mark::LivenessEnded { at_us, .. } => *at_us,
    }
}
