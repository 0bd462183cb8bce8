//! One run of a plan: warm-up, then the interleaved blocks of each section, then the result. Start at `run`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::measure::hiccup::HiccupMeter;
use mqassay_harness::measure::manifest;
use mqassay_harness::measure::percentile::{latency_histogram, percentile};
use mqassay_harness::measure::result::{BenchResult, LeftOut, Sweep, SystemVerdict};
use mqassay_harness::measure::statistics::Interval;

use crate::assemble::{self, Sample};
use crate::block::{self, BATCH_RECORDS_MAXIMUM, OpenLoop, RateBlock, ThroughputBlock, Unthrottled};
use crate::calibrate::{ACHIEVED_SHARE_MINIMUM, NULL_SINK};
use crate::closed_form::ClosedForm;
use crate::driver::{self, Batching, Driver, NewRun};
use crate::plan::{LoadPlan, QueueSweep, Rate, Throughput, WarmUp};
use crate::raw::slowdown::Slowdown;
use crate::vary::Vary;
use crate::verify::Verification;
use crate::{BenchError, Progress, SystemTarget};

pub(crate) fn run(
    plan: &LoadPlan,
    systems: &[SystemTarget],
    progress: &dyn Fn(Progress),
) -> Result<BenchResult, BenchError> {
    if systems.is_empty() {
        return Err(BenchError::NoSystems);
    }
    let stolen_before = manifest::stolen_and_total_ticks();
    let meter = HiccupMeter::start(Duration::from_millis(1));
    let meter = meter.map_err(|source| BenchError::Io { action: "start the hiccup meter", source })?;
    let mut session = Session::new(plan, systems, progress)?;
    if let Some(warm_up) = plan.warm_up.filter(|_| plan.has_library_sections()) {
        session.warm_up(warm_up);
    }
    if let Some(load) = plan.throughput {
        session.throughput(load)?;
    }
    if let Some(load) = plan.rate {
        session.rate(load)?;
    }
    if let Some(search) = &plan.search {
        session.search(search)?;
    }
    if let Some(sweep) = &plan.sweep {
        session.sweep(sweep)?;
    }
    if let Some(vary) = &plan.vary {
        session.vary(vary)?;
    }
    if let Some(ladder) = &plan.ladder {
        session.ladder(ladder)?;
    }
    if let Some(drain) = &plan.drain {
        session.drain(drain);
    }
    if let Some(replay) = &plan.replay {
        session.replay(replay);
    }
    if let Some(form) = &plan.closed_form {
        session.closed_form(form)?;
    }
    if let Some(raw) = &plan.raw {
        session.raw(raw)?;
    }
    if let Some(scale) = &plan.scale {
        session.scale(scale);
    }
    if let Some(idle) = &plan.idle {
        session.idle(idle)?;
    }
    if let Some(recovery) = &plan.recovery {
        session.recovery(recovery)?;
    }
    if let Some(bounds) = &plan.bounds {
        session.bounds(bounds)?;
    }
    if let Some(slowdown) = &plan.slowdown {
        session.slowdown(slowdown)?;
    }
    if let Some(availability) = &plan.availability {
        session.availability(availability);
    }
    if let Some(load) = &plan.over_time {
        session.over_time(load);
    }
    let stolen = manifest::stolen_share(stolen_before, manifest::stolen_and_total_ticks());
    Ok(session.finish(&stolen, meter.stop()))
}

pub(crate) struct Session<'a> {
    pub(crate) plan: &'a LoadPlan,
    pub(crate) systems: &'a [SystemTarget],
    drivers: Vec<Option<Box<dyn Driver>>>,
    /// Why a system was left out from some block on.
    dropped: Vec<Option<String>>,
    progress: &'a dyn Fn(Progress),
    salt: u64,
    pub(crate) blocks_done: u32,
    pub(crate) blocks_total: u32,
    verdicts: Vec<Tally>,
    pub(crate) result: BenchResult,
}

/// The verdicts of one system's blocks added up.
#[derive(Clone)]
struct Tally {
    verdict: VerdictKind,
    verified: u64,
    anomalies: BTreeMap<String, u64>,
}

impl<'a> Session<'a> {
    fn new(
        plan: &'a LoadPlan,
        systems: &'a [SystemTarget],
        progress: &'a dyn Fn(Progress),
    ) -> Result<Session<'a>, BenchError> {
        let mut drivers = Vec::new();
        let mut dropped = Vec::new();
        for system in systems {
            // Only the library's sections connect here; the raw driver connects block by block.
            if !plan.has_library_sections() {
                drivers.push(None);
                dropped.push(None);
                continue;
            }
            // A system that does not answer is left out; the comparison goes on with the others.
            let (driver, reason) = match driver::connect(system) {
                Ok(driver) => (Some(driver), None),
                Err(error) => (None, Some(error.to_string())),
            };
            drivers.push(driver);
            dropped.push(reason);
        }
        // Topic names must not meet those of an earlier run on the same broker; nothing measured depends on them.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let data_dir = systems.iter().find_map(|system| system.data_dir.clone()).unwrap_or_else(std::env::temp_dir);
        let result = BenchResult {
            plan: plan.name.clone(),
            title: plan.title.clone(),
            manifest: manifest::machine(&data_dir),
            ..BenchResult::default()
        };
        let count = systems.len() as u32;
        let blocks = plan.warm_up.map_or(0, |warm_up| warm_up.windows_maximum)
            + plan.throughput.map_or(0, |load| load.pairs)
            + plan.rate.map_or(0, |load| load.pairs)
            + plan.sweep.as_ref().map_or(0, |sweep| sweep.pairs * sweep.queues.len() as u32)
            + plan.search.map_or(0, |search| search.blocks_expected())
            + plan.vary.as_ref().map_or(0, |vary| vary.pairs * vary.values.len() as u32)
            + plan.ladder.map_or(0, |ladder| ladder.blocks())
            + plan.drain.map_or(0, |drain| drain.pairs)
            + plan.replay.map_or(0, |replay| replay.pairs)
            + plan.raw.as_ref().map_or(0, |raw| raw.pairs * raw.shapes.len() as u32)
            + plan.slowdown.as_ref().map_or(0, Slowdown::blocks_expected)
            + plan.availability.as_ref().map_or(0, |load| load.settings.len() as u32)
            + u32::from(plan.over_time.is_some());
        let null_sinks = plan.closed_form.as_ref().map_or(0, ClosedForm::blocks)
            + u32::from(plan.throughput.is_some())
            + u32::from(plan.rate.is_some())
            + plan.sweep.as_ref().map_or(0, |sweep| sweep.queues.len() as u32)
            + plan.vary.as_ref().map_or(0, Vary::null_sinks)
            + u32::from(plan.ladder.is_some());
        let tally = Tally { verdict: VerdictKind::Valid, verified: 0, anomalies: BTreeMap::new() };
        Ok(Session {
            plan,
            systems,
            drivers,
            dropped,
            progress,
            salt: now.as_nanos() as u64,
            blocks_done: 0,
            blocks_total: blocks * count + null_sinks,
            verdicts: vec![tally; systems.len()],
            result,
        })
    }

    fn throughput(&mut self, load: Throughput) -> Result<(), BenchError> {
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); self.systems.len()];
        let unthrottled = self.throughput_load(load);
        for pair in 0..load.pairs {
            for index in assemble::order(pair, self.systems.len()) {
                let block = self.unthrottled(index, unthrottled, "throughput");
                samples[index].push(block.as_ref().map(assemble::throughput_sample).unwrap_or_default());
            }
        }
        self.report(&samples, load.pairs);
        self.headroom(unthrottled)
    }

    fn rate(&mut self, load: Rate) -> Result<(), BenchError> {
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); self.systems.len()];
        let mut merged: Vec<[Histogram<u64>; 3]> =
            self.systems.iter().map(|_| std::array::from_fn(|_| latency_histogram())).collect();
        for pair in 0..load.pairs {
            for index in assemble::order(pair, self.systems.len()) {
                let Some(block) = self.open_loop(index, load) else {
                    samples[index].push(Sample::new());
                    continue;
                };
                for (sum, part) in merged[index].iter_mut().zip([&block.response, &block.service, &block.lag]) {
                    sum.add(part).expect("histograms of one range can be added");
                }
                samples[index].push(assemble::rate_sample(&block));
            }
        }
        self.report(&samples, load.pairs);
        for (target, histograms) in self.systems.iter().zip(&merged) {
            self.result.spectra.extend(assemble::spectra(&target.name, histograms));
        }
        self.rate_headroom(load)
    }

    /// One open-loop block on one system, and what a reader must know of it.
    fn open_loop(&mut self, index: usize, load: Rate) -> Option<RateBlock> {
        let block = self.open_loop_block(index, load.into(), "open loop")?;
        let name = self.systems[index].name.clone();
        if block.achieved_share < ACHIEVED_SHARE_MINIMUM {
            let percent = 100.0 * block.achieved_share;
            self.remark(format!("{name} achieved {percent:.1} % of the offered rate in an open-loop block."));
        }
        self.remark_not_positive(&name, block.not_positive);
        Some(block)
    }

    /// One open-loop block on one system, judged and counted; none where the system has been left out.
    pub(crate) fn open_loop_block(&mut self, index: usize, load: OpenLoop, what: &str) -> Option<RateBlock> {
        let block = self.tried_twice(index, |session| {
            let topic = session.topic(index, session.plan.queues);
            session.guarded(index, what, |target, plan, driver| {
                block::on_topic(plan, driver, &topic, || block::rate(target, plan, driver, &topic, load))
            })
        })?;
        self.note(index, &block.verification, block.unsettled, block.first_error.as_deref());
        Some(block)
    }

    fn sweep(&mut self, sweep: &QueueSweep) -> Result<(), BenchError> {
        let mut produce: Vec<Sweep> = Vec::new();
        let mut cost: Vec<Sweep> = Vec::new();
        for target in self.systems {
            produce.push(empty_sweep(&target.name, "produce_records_per_second", "records/s"));
            cost.push(empty_sweep(&target.name, "broker_cpu_produce_ns_per_message", "ns"));
        }
        let mut sink = empty_sweep(NULL_SINK, "produce_records_per_second", "records/s");
        for &queues in &sweep.queues {
            let samples = self.sweep_point(sweep, queues, &mut produce);
            for (index, samples) in samples.iter().enumerate() {
                produce[index].points.extend(assemble::point(f64::from(queues), samples, "produce_records_per_second"));
                cost[index].points.extend(assemble::point(
                    f64::from(queues),
                    samples,
                    "broker_cpu_produce_ns_per_message",
                ));
            }
            let block = self.null_sink(self.plan, self.sweep_load(sweep, queues))?;
            sink.points.extend(assemble::point(
                f64::from(queues),
                &[assemble::throughput_sample(&block)],
                "produce_records_per_second",
            ));
            self.remark_client_bound(&produce, &sink);
        }
        for (produce, cost) in produce.iter().zip(&mut cost) {
            cost.stopped.clone_from(&produce.stopped);
        }
        let sweeps = produce.into_iter().chain([sink]).chain(cost);
        self.result.sweeps.extend(sweeps.filter(|sweep| !sweep.points.is_empty() || sweep.stopped.is_some()));
        Ok(())
    }

    /// The blocks of one point of a sweep, by system; a system that cannot go on is marked with the reason.
    fn sweep_point(&mut self, sweep: &QueueSweep, queues: u32, produce: &mut [Sweep]) -> Vec<Vec<Sample>> {
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); self.systems.len()];
        for pair in 0..sweep.pairs {
            for index in assemble::order(pair, self.systems.len()) {
                if produce[index].stopped.is_some() {
                    continue;
                }
                match self.unthrottled(index, self.sweep_load(sweep, queues), &format!("{queues} queues")) {
                    Some(block) => samples[index].push(assemble::throughput_sample(&block)),
                    None => {
                        // A sweep goes as far as each system does: where it stopped is a result, and no fault of the run.
                        let reason = self.dropped[index].take().unwrap_or_default();
                        produce[index].stopped = Some(format!("at {queues} queues: {reason}"));
                    }
                }
            }
        }
        samples
    }

    /// One unthrottled block on one system, judged and counted; none where the system has been left out.
    pub(crate) fn unthrottled(&mut self, index: usize, load: Unthrottled, what: &str) -> Option<ThroughputBlock> {
        let block = self.tried_twice(index, |session| {
            let topic = session.topic(index, load.queues);
            session.guarded(index, what, |target, plan, driver| {
                block::on_topic(plan, driver, &topic, || block::throughput(target, plan, driver, &topic, load))
            })
        })?;
        self.note(index, &block.verification, block.unsettled, block.first_error.as_deref());
        Some(block)
    }

    /// Makes a block once more where it failed: a cluster on few cores may lose a node's heartbeat under full load, and be
    /// whole again a moment later. That it failed is told.
    fn tried_twice<Block>(
        &mut self,
        index: usize,
        mut attempt: impl FnMut(&mut Self) -> Option<Block>,
    ) -> Option<Block> {
        if self.dropped[index].is_some() {
            return attempt(self);
        }
        if let Some(block) = attempt(self) {
            return Some(block);
        }
        let (name, reason) = (self.systems[index].name.clone(), self.take_dropped(index));
        self.remark(format!("{name}: a block failed and was made again: {reason}."));
        attempt(self)
    }

    /// Runs a block on a system that is still in; one that fails leaves the system out from then on.
    pub(crate) fn guarded<Block>(
        &mut self,
        index: usize,
        what: &str,
        measure: impl FnOnce(&SystemTarget, &LoadPlan, &dyn Driver) -> Result<Block, BenchError>,
    ) -> Option<Block> {
        let target = &self.systems[index];
        let driver = self.drivers[index].as_deref().filter(|_| self.dropped[index].is_none());
        let measured = driver.map(|driver| {
            self.step(what, &target.name);
            measure(target, self.plan, driver)
        });
        match measured {
            Some(Ok(block)) => Some(block),
            Some(Err(error)) => {
                self.blocks_done += 1;
                self.dropped[index] = Some(error.to_string());
                None
            }
            None => {
                self.blocks_done += 1;
                None
            }
        }
    }

    /// What of a plan a system cannot do; none where it can do all, and where it has been left out already.
    pub(crate) fn cannot(&self, index: usize, plan: &LoadPlan) -> Option<&'static str> {
        self.drivers[index].as_deref().and_then(|driver| driver.cannot(plan))
    }

    /// Why a system was left out, which it no longer is: for sections that say themselves how far it went.
    pub(crate) fn take_dropped(&mut self, index: usize) -> String {
        self.dropped[index].take().unwrap_or_default()
    }

    /// A number that no other block has, for topics' names and for what marks their records.
    pub(crate) fn run_number(&self) -> u64 {
        block::run_number(u64::from(self.blocks_done), self.salt)
    }

    fn topic(&self, index: usize, queues: u32) -> NewRun {
        self.topic_on(&self.systems[index], queues)
    }

    /// A topic for the next block.
    pub(crate) fn topic_on(&self, target: &SystemTarget, queues: u32) -> NewRun {
        block::new_run(self.plan, target, u64::from(self.blocks_done), self.salt, queues)
    }

    pub(crate) fn note(&mut self, index: usize, found: &Verification, unsettled: u64, first_error: Option<&str>) {
        self.blocks_done += 1;
        let tally = &mut self.verdicts[index];
        tally.verdict = tally.verdict.max(found.verdict);
        tally.verified += found.verified;
        for (anomaly, count) in &found.anomalies {
            *tally.anomalies.entry((*anomaly).to_owned()).or_default() += count;
        }
        let name = &self.systems[index].name;
        if let Some(reason) = &found.unknown {
            self.remark(format!("{name}: a block could not be judged: {reason}."));
        }
        if unsettled > 0 {
            let error = first_error.unwrap_or("no reason given");
            self.remark(format!("{name}: {unsettled} records of a block were not acknowledged: {error}."));
        }
    }

    fn report(&mut self, samples: &[Vec<Sample>], pairs: u32) {
        for (target, samples) in self.systems.iter().zip(samples) {
            self.result.rows.extend(assemble::rows(&self.plan.name, &target.name, samples));
        }
        for index in 1..self.systems.len() {
            let first = (self.systems[0].name.as_str(), samples[0].as_slice());
            let second = (self.systems[index].name.as_str(), samples[index].as_slice());
            for ratio in assemble::ratios(&self.plan.name, first, second) {
                let interval = Interval { value: ratio.ratio, low: ratio.low, high: ratio.high };
                if interval.holds_one() {
                    let (metric, other) = (&ratio.metric, &second.0);
                    let effect = 100.0 * interval.smallest_detectable_effect();
                    let text = format!("{metric}: no difference shown between {} and {other}", first.0);
                    self.result.remarks.push(format!("{text}; a change below {effect:.0} % would not show."));
                }
                self.result.ratios.push(ratio);
            }
        }
        if (pairs as usize) < mqassay_harness::measure::statistics::VALUES_MINIMUM {
            self.remark(format!("With {pairs} blocks per system the intervals are the range of the blocks' values; they show no difference."));
        }
    }

    /// Leaves a system out from here on, for this reason.
    pub(crate) fn leave_out(&mut self, index: usize, reason: String) {
        self.blocks_done += 1;
        self.dropped[index] = Some(reason);
    }

    /// Says that latencies came out zero or negative, where any did.
    pub(crate) fn remark_not_positive(&mut self, system: &str, count: u64) {
        if count > 0 {
            self.remark(format!("{system}: {count} latencies were zero or negative; they count as 1 ns."));
        }
    }

    pub(crate) fn remark(&mut self, text: String) {
        if !self.result.remarks.contains(&text) {
            self.result.remarks.push(text);
        }
    }

    pub(crate) fn step(&self, what: &str, system: &str) {
        let text = format!("{}: {what}, {system}", self.plan.name);
        (self.progress)(Progress { done: self.blocks_done, total: self.blocks_total, text });
    }

    /// Completes the manifest, the remarks and the verdicts.
    fn finish(mut self, stolen: &str, hiccups: Option<Histogram<u64>>) -> BenchResult {
        let mut put = |name: String, value: String| self.result.manifest.insert(name, value);
        put("stolen time".to_owned(), stolen.to_owned());
        put("seed".to_owned(), format!("{:#018x}, in topics' names and what marks records", self.salt));
        for (target, driver) in self.systems.iter().zip(&self.drivers) {
            let none = if self.plan.has_library_sections() { "none: it did not answer" } else { "the raw driver" };
            let library = driver.as_ref().map_or(none.to_owned(), |driver| driver.library());
            put(format!("{} client", target.name), library);
        }
        put("plan".to_owned(), serde_json::to_string(self.plan).unwrap_or_else(|error| error.to_string()));
        let (entropy, compression) = (self.plan.entropy_percent, self.plan.compression.word());
        let payload =
            format!("{entropy} % of the filler incompressible, compression {compression}, every record verified");
        put("payload".to_owned(), payload);
        let is_optimised = !cfg!(debug_assertions);
        put("build".to_owned(), if is_optimised { "release" } else { "debug" }.to_owned());
        if let Some(hiccups) = hiccups {
            let p999 = percentile(&hiccups, 99.9).map_or("too few samples".to_owned(), |value| format!("{value} ns"));
            put("hiccup p99.9".to_owned(), p999);
            put("hiccup maximum".to_owned(), format!("{} ns", hiccups.max()));
        }
        for target in self.systems {
            put(format!("{} version", target.name), target.version.clone());
            for (name, value) in &target.settings {
                put(format!("{} {name}", target.name), value.clone());
            }
        }
        let durabilities: Vec<&str> = self.systems.iter().map(|target| target.durability.as_str()).collect();
        if durabilities.iter().any(|durability| *durability != durabilities[0]) {
            self.remark("The systems' durability classes differ: their figures are not comparable.".to_owned());
        }
        if !is_optimised {
            self.remark(
                "This is a debug build: its figures, and those of a reference broker from it, mean little.".into(),
            );
        }
        assemble::warm_first(&mut self.result.rows);
        for (index, target) in self.systems.iter().enumerate() {
            let Some(reason) = self.dropped[index].clone() else { continue };
            self.result.left_out.push(LeftOut { left_out: target.name.clone(), reason: reason.clone() });
            self.verdicts[index].verdict = self.verdicts[index].verdict.max(VerdictKind::Unknown);
            self.remark(format!("{} was left out from the first failure on: {reason}.", target.name));
        }
        self.give_verdicts();
        (self.progress)(Progress { done: self.blocks_total, total: self.blocks_total, text: "done".to_owned() });
        self.result
    }

    /// The verdicts; figures without a green one are taken back.
    fn give_verdicts(&mut self) {
        // What a crash lost or repeated is just what such a plan is to show.
        let is_crash = self.plan.availability.is_some();
        for (target, tally) in self.systems.iter().zip(self.verdicts.clone()) {
            if tally.verdict != VerdictKind::Valid {
                let name = &target.name;
                let counts = |of: &str| of != name && (is_crash || !is_shape_of(of, name));
                self.result.rows.retain(|row| counts(&row.system));
                self.result.ratios.retain(|ratio| ratio.ratio_of.iter().all(|of| counts(of)));
                self.result.spectra.retain(|spectrum| counts(&spectrum.system));
                self.result.sweeps.retain(|sweep| sweep.system != *name);
                self.result.searches.retain(|search| search.system != *name);
                self.result.series.retain(|series| series.system != *name);
                self.result.targets.iter_mut().for_each(|part| part.met = false);
                self.result.remarks.push(format!("{name}: no figure counts, as its verdict is not valid."));
            }
            self.result.verdicts.push(SystemVerdict {
                system: target.name.clone(),
                verdict: format!("{:?}", tally.verdict).to_lowercase(),
                verified_messages: tally.verified,
                anomalies: tally.anomalies,
                // No block cuts the power: the class is what was configured.
                durability: format!("{} (asserted, not probed)", target.durability),
            });
        }
    }

    fn throughput_load(&self, load: Throughput) -> Unthrottled {
        self.unthrottled_load(self.plan, load)
    }

    /// How unthrottled blocks of a plan produce.
    pub(crate) fn unthrottled_load(&self, plan: &LoadPlan, load: Throughput) -> Unthrottled {
        let (linger_ms, batch_bytes) = (load.linger_ms, load.batch_bytes);
        let batching = Batching { linger_ms, batch_bytes, batch_records: BATCH_RECORDS_MAXIMUM, is_open_loop: false };
        // Runs of a full batch to each queue, so that batches fill whatever the number of queues.
        let run_length = (load.batch_bytes / plan.record_bytes as u32).max(1);
        let (queues, records_maximum) = (plan.queues, load.records_maximum);
        Unthrottled { queues, seconds: load.block_seconds, records_maximum, run_length, batching }
    }

    pub(crate) fn warm_up_load(&self, warm_up: WarmUp) -> Unthrottled {
        let (batch_bytes, linger_ms) =
            self.plan.throughput.map_or((65_536, 5), |load| (load.batch_bytes, load.linger_ms));
        let (pairs, records_maximum) = (1, u64::MAX);
        let block_seconds = warm_up.window_seconds;
        let load = Throughput { block_seconds, pairs, linger_ms, batch_bytes, records_maximum };
        let bound = self.plan.throughput.map_or(WARM_UP_RECORDS_MAXIMUM, |load| load.records_maximum);
        Unthrottled { records_maximum: bound, ..self.throughput_load(load) }
    }

    fn sweep_load(&self, sweep: &QueueSweep, queues: u32) -> Unthrottled {
        // Twice what the records need, so that their number and not their size ends a batch.
        let needed = (self.plan.record_bytes as u32 + RECORD_OVERHEAD_BYTES) * sweep.records_per_batch;
        let batching = Batching {
            linger_ms: sweep.linger_ms,
            batch_bytes: (needed * 2).max(16_384),
            batch_records: sweep.records_per_batch,
            is_open_loop: false,
        };
        let (seconds, records_maximum) = (sweep.block_seconds, sweep.records_maximum);
        Unthrottled { queues, seconds, records_maximum, run_length: sweep.records_per_batch, batching }
    }
}

fn empty_sweep(system: &str, metric: &str, unit: &str) -> Sweep {
    Sweep {
        system: system.to_owned(),
        variable: "queues".to_owned(),
        metric: metric.to_owned(),
        unit: unit.to_owned(),
        points: Vec::new(),
        stopped: None,
    }
}

const WARM_UP_RECORDS_MAXIMUM: u64 = 2_000_000;
/// What a record without key and headers adds to its value in a batch, at most.
const RECORD_OVERHEAD_BYTES: u32 = 32;

/// Whether a figure's name is that of one shape of a system's load, as in `kafka, 64 queues`.
fn is_shape_of(figure: &str, system: &str) -> bool {
    figure.strip_prefix(system).is_some_and(|rest| rest.starts_with(", "))
}

#[cfg(test)]
mod tests {
    use super::is_shape_of;

    #[test]
    fn a_shape_belongs_to_the_system_with_the_whole_name() {
        assert!(is_shape_of("kafka, 64 queues", "kafka"));
        assert!(!is_shape_of("kafka", "kafka") && !is_shape_of("rabbitmq-quorum, 64 queues", "rabbitmq"));
    }
}
