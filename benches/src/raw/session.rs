//! The blocks of the raw driver, interleaved over systems and shapes, and the parts of the target that they are held
//! against. Start at `Session::raw`. Not here: one block (`driver`).

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use hdrhistogram::Histogram;
use mqassay_harness::measure::percentile::{latency_histogram, percentile};
use mqassay_harness::measure::result::{METRICS, MetricRow, RatioRow, TargetPart};
use mqassay_harness::measure::statistics::{median, median_interval, ratio_interval};

use super::admin::TopicAdmin;
use super::driver::{self, Load, RawBlock};
use super::lanes::Lanes;
use super::plan::{DiskSync, RELAY, RawLoad, RawShape, is_named};
use crate::assemble::{self, Sample};
use crate::plan::{Acks, Flush, WarmUp};
use crate::session::Session;
use crate::warm_up::{Window, is_steady};
use crate::{BenchError, SystemTarget};

impl Session<'_> {
    /// Warm-up, the blocks in rounds forth and back, then the figures.
    pub(crate) fn raw(&mut self, raw: &RawLoad) -> Result<(), BenchError> {
        if let Some(warm_up) = self.plan.warm_up {
            for index in 0..self.systems.len() {
                self.raw_warm_up(raw, warm_up, index)?;
            }
        }
        let turns: Vec<(usize, usize)> = (0..raw.shapes.len())
            .flat_map(|shape| (0..self.systems.len()).map(move |system| (shape, system)))
            .filter(|&(shape, system)| raw.takes(&raw.shapes[shape], &self.systems[system].name))
            .collect();
        let mut samples: BTreeMap<(usize, usize), Vec<Sample>> = BTreeMap::new();
        let mut merged: BTreeMap<(usize, usize), [Histogram<u64>; 3]> = BTreeMap::new();
        for pair in 0..raw.pairs {
            for at in assemble::order(pair, turns.len()) {
                let (shape, system) = turns[at];
                if raw.shapes[shape].rounds_maximum.is_some_and(|rounds| pair >= rounds) {
                    continue;
                }
                let block = self.raw_block(&raw.shapes[shape], system, raw.block_seconds, raw.lead_in_seconds)?;
                samples.entry((shape, system)).or_default().push(sample(&raw.shapes[shape], &block));
                let sums =
                    merged.entry((shape, system)).or_insert_with(|| std::array::from_fn(|_| latency_histogram()));
                for (sum, part) in sums.iter_mut().zip([&block.response, &block.service, &block.lag]) {
                    sum.add(part).expect("histograms of one range can be added");
                }
            }
        }
        self.raw_rows(raw, &samples);
        for ((shape, system), histograms) in &merged {
            let spectra = assemble::spectra(&self.raw_name(raw, *shape, *system), histograms);
            self.result.spectra.extend(spectra);
        }
        let sync = if raw.parts.iter().any(|part| part.when.is_some()) { Some(self.disk_sync()?) } else { None };
        self.raw_parts(raw, &samples, sync);
        Ok(())
    }

    fn raw_warm_up(&mut self, raw: &RawLoad, warm_up: WarmUp, index: usize) -> Result<(), BenchError> {
        let name = self.systems[index].name.clone();
        let Some(shape) = raw.shapes.iter().find(|shape| raw.takes(shape, &name)).filter(|_| name != RELAY) else {
            return Ok(());
        };
        let mut windows: Vec<Window> = Vec::new();
        while windows.len() < warm_up.windows_maximum as usize && !is_steady(&windows, warm_up) {
            let block = self.raw_block(shape, index, warm_up.window_seconds, 0.0)?;
            let records = block.records.max(1) as f64;
            let cpu_ns = block.cpu_ns.map(|(produce_ns, _)| produce_ns / records);
            windows.push(Window { cpu_ns, records_per_second: records * 1e9 / block.produce_ns as f64 });
        }
        self.note_warm_up(index, warm_up, &windows);
        Ok(())
    }

    /// One block on fresh topics, judged and counted.
    pub(super) fn raw_block(
        &mut self,
        shape: &RawShape,
        index: usize,
        seconds: f64,
        lead_in_seconds: f64,
    ) -> Result<RawBlock, BenchError> {
        let block = self.raw_block_on(shape, &self.systems[index], seconds, lead_in_seconds)?;
        self.note(index, &block.verification, block.unsettled, block.first_error.as_deref());
        let name = self.systems[index].name.clone();
        if block.client_busy > CLIENT_BUSY_MAXIMUM && shape.records_per_second.is_none() {
            let shape = &shape.name;
            self.remark(format!("{name}, {shape}: the driver was busy all the time; compare CPU, not throughput."));
        }
        self.remark_not_positive(&name, block.not_positive);
        if block.achieved_share < 0.99 {
            self.remark(format!("{name}, {}: a block achieved less than 99 % of its rate.", shape.name));
        }
        Ok(block)
    }

    /// One block on fresh topics of any broker, judged and counted for nobody yet.
    pub(super) fn raw_block_on(
        &self,
        shape: &RawShape,
        target: &SystemTarget,
        seconds: f64,
        lead_in_seconds: f64,
    ) -> Result<RawBlock, BenchError> {
        self.step(&shape.name, &target.name);
        let run = self.run_number();
        let lanes = Lanes {
            prefix: format!("mqassay-{}-{run:016x}", self.plan.name),
            queues: shape.queues(self.plan),
            connections: shape.connections,
        };
        let load = Load {
            bootstrap: &target.bootstrap,
            pid: target.pid,
            is_relay: target.name == RELAY,
            lanes: lanes.clone(),
            shape,
            run,
            record_bytes: shape.record_bytes.unwrap_or(self.plan.record_bytes),
            acks: match self.plan.acks {
                Acks::Leader => 1,
                Acks::All => -1,
            },
            is_idempotent: self.plan.idempotence,
            seconds,
            lead_in_seconds,
            stall_ns: driver::STALL_NS,
        };
        let failed = |action: &'static str| {
            let system = target.name.clone();
            move |source| BenchError::Raw { system, action, source }
        };
        if load.is_relay {
            driver::measure(&load).map_err(failed("put load on it"))
        } else {
            let mut admin = TopicAdmin::connect(&target.bootstrap).map_err(failed("connect"))?;
            let settings = topic_settings(target, shape.flush.unwrap_or(self.plan.flush));
            admin.create(&lanes, &settings).map_err(failed("create topics"))?;
            let measured = driver::measure(&load).map_err(failed("put load on it"));
            let deleted = admin.delete(&lanes).map_err(failed("delete topics"));
            // The first thing that went wrong is the one to tell.
            measured.and_then(|block| deleted.map(|()| block))
        }
    }

    /// A system's name in results: with the shape's where there are several.
    fn raw_name(&self, raw: &RawLoad, shape: usize, system: usize) -> String {
        let name = &self.systems[system].name;
        if raw.shapes.len() == 1 { name.clone() } else { format!("{name}, {}", raw.shapes[shape].name) }
    }

    fn raw_rows(&mut self, raw: &RawLoad, samples: &BTreeMap<(usize, usize), Vec<Sample>>) {
        for (&(shape, system), samples) in samples {
            let shown = self.raw_name(raw, shape, system);
            let rows = assemble::rows(&self.plan.name, &shown, samples);
            self.result.rows.extend(rows);
        }
    }

    /// How long a sync of a small append takes on the disk under the data, as a median of many.
    fn disk_sync(&mut self) -> Result<DiskSync, BenchError> {
        let io = |source| BenchError::Io { action: "time syncs beside the data", source };
        let folder = self.systems.iter().find_map(|system| system.data_dir.clone()).unwrap_or_else(std::env::temp_dir);
        let mut file = tempfile::tempfile_in(folder).map_err(io)?;
        let mut seconds = Vec::new();
        for _ in 0..SYNCS {
            file.write_all(&[7; SYNC_BYTES]).map_err(io)?;
            let started = Instant::now();
            file.sync_data().map_err(io)?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        let median_ms = 1e3 * median(&seconds).expect("there are samples");
        self.result.manifest.insert("fdatasync median".to_owned(), format!("{median_ms:.3} ms"));
        Ok(if median_ms > SYNC_MS_LIMIT { DiskSync::Slow } else { DiskSync::Fast })
    }

    fn raw_parts(&mut self, raw: &RawLoad, samples: &BTreeMap<(usize, usize), Vec<Sample>>, sync: Option<DiskSync>) {
        let of = |system: &str, shape: &str| {
            let shape = raw.shapes.iter().position(|one| one.name == shape)?;
            let system = self.systems.iter().position(|one| is_named(system, &one.name))?;
            samples.get(&(shape, system))
        };
        let mut parts = Vec::new();
        let mut remarks = Vec::new();
        let mut ratios = Vec::new();
        for (number, part) in raw.parts.iter().enumerate() {
            if part.when.is_some() && part.when != sync {
                remarks.push(format!("{}, {}: does not apply, by the disk's sync time.", raw.target, part.part));
                continue;
            }
            let (Some(first), Some(second)) = (of(&part.of, &part.shape), of(&part.over, part.shape_over())) else {
                remarks.push(format!("{}, {}: not measured, as a system of it is not there.", raw.target, part.part));
                continue;
            };
            let value = |sample: &Sample| sample.get(part.metric.as_str()).copied();
            let pairs: Vec<(f64, f64)> = first
                .iter()
                .zip(second)
                .filter_map(|(a, b)| Some((value(a)? * part.allowance, value(b)?)))
                .filter(assemble::is_positive)
                .collect();
            let Some(ratio) = ratio_interval(&pairs, number as u64) else {
                remarks.push(format!("{}, {}: no block has {}.", raw.target, part.part, part.metric));
                continue;
            };
            ratios.push(RatioRow {
                plan: self.plan.name.clone(),
                metric: part.metric.clone(),
                ratio_of: match &part.over_shape {
                    None => [part.of.clone(), part.over.clone()],
                    Some(over) => [format!("{}, {}", part.of, part.shape), format!("{}, {over}", part.over)],
                },
                ratio: ratio.value / part.allowance,
                low: ratio.low / part.allowance,
                high: ratio.high / part.allowance,
                pairs: pairs.len() as u32,
            });
            parts.push(TargetPart {
                target: raw.target.clone(),
                part: part.part.clone(),
                ratio: ratio.value,
                low: ratio.low,
                high: ratio.high,
                needs: part.needs,
                at_most: None,
                met: ratio.low >= part.needs,
            });
        }
        self.result.targets.extend(parts);
        self.result.ratios.extend(ratios);
        remarks.into_iter().for_each(|remark| self.remark(remark));
    }
}

/// Settings of a block's topics: durability is a topic's own on both kinds of broker.
pub(super) fn topic_settings(target: &SystemTarget, flush: Flush) -> BTreeMap<String, String> {
    let mut settings = target.topic_settings.clone();
    if target.is_reference() {
        settings.insert("mqassay.flush".to_owned(), flush.word().to_owned());
    } else if flush == Flush::Ack {
        settings.insert("flush.messages".to_owned(), "1".to_owned());
    }
    settings
}

/// The figures of one block, by metric.
pub(super) fn sample(shape: &RawShape, block: &RawBlock) -> Sample {
    let seconds = block.produce_ns as f64 / 1e9;
    let records = block.records.max(1) as f64;
    let mut sample = Sample::from([
        ("produce_records_per_second", block.records as f64 / seconds),
        ("requests_per_second", block.requests as f64 / seconds),
        ("records_per_batch", block.records as f64 / block.batches.max(1) as f64),
        ("client_busy_share", block.client_busy),
    ]);
    let mut put = |metric, value: Option<f64>| {
        if let Some(value) = value {
            sample.insert(metric, value);
        }
    };
    let at = |histogram, at| percentile(histogram, at).map(|value| value as f64);
    put("acknowledge_p50_ns", at(&block.acknowledge, 50.0));
    put("acknowledge_p99_ns", at(&block.acknowledge, 99.0));
    put("broker_resident_bytes", block.resident_bytes);
    if shape.consumers > 0 {
        let read_ns = block.end_to_end_ns.unwrap_or(block.produce_ns) as f64;
        put("end_to_end_records_per_second", Some(block.records as f64 * 1e9 / read_ns));
        put("broker_cpu_at_rate_ns_per_message", block.cpu_ns.map(|(both, _)| both / records));
        put("end_to_end_p50_ns", at(&block.response, 50.0));
        put("end_to_end_p99_ns", at(&block.response, 99.0));
        put("end_to_end_p999_ns", at(&block.response, 99.9));
        put("end_to_end_service_p99_ns", at(&block.service, 99.0));
        put("end_to_end_max_ns", (!block.response.is_empty()).then(|| block.response.max() as f64));
        put("not_positive_samples", (!block.response.is_empty()).then_some(block.not_positive as f64));
        put("schedule_lag_p99_ns", at(&block.lag, 99.0).filter(|_| shape.records_per_second.is_some()));
    } else {
        put("broker_cpu_produce_ns_per_message", block.cpu_ns.map(|(produce, _)| produce / records));
        put("broker_cpu_ns_per_message", block.cpu_ns.map(|(produce, consume)| (produce + consume) / records));
    }
    sample
}

/// One row of the median of `values` with its interval; none of nothing.
pub(crate) fn rows_of(plan: &str, system: &str, metric: &str, values: &[f64]) -> Option<MetricRow> {
    let interval = median_interval(values, 0)?;
    let unit = METRICS.iter().find(|known| known.0 == metric).map_or("", |known| known.1);
    Some(MetricRow {
        plan: plan.to_owned(),
        system: system.to_owned(),
        metric: metric.to_owned(),
        unit: unit.to_owned(),
        value: interval.value,
        low: interval.low,
        high: interval.high,
    })
}

/// A row of one reading.
pub(crate) fn one_row(plan: &str, system: &str, metric: &str, value: f64) -> MetricRow {
    rows_of(plan, system, metric, &[value]).expect("one value has a median")
}

const SYNCS: u32 = 101;
const SYNC_BYTES: usize = 16 << 10;
const SYNC_MS_LIMIT: f64 = 0.3;
/// A driver busier than this sets the pace itself.
const CLIENT_BUSY_MAXIMUM: f64 = 0.9;
