//! How much of a figure is the client's own: the same client and load against a broker in memory that does nothing.
//! Start at `Session::headroom` (unthrottled blocks) and `Session::rate_headroom` (open-loop blocks).

use mqassay_harness::measure::percentile::percentile;
use mqassay_harness::measure::result::{MetricRow, Sweep};

use crate::block::{self, OpenLoop, RateBlock, ThroughputBlock, Unthrottled};
use crate::driver;
use crate::fake::FakeBroker;
use crate::plan::{LoadPlan, Rate};
use crate::session::Session;
use crate::{BenchError, SystemTarget};

impl Session<'_> {
    /// Rows of the null sink's rate over each measured rate, for producing and for consuming.
    pub(crate) fn headroom(&mut self, load: Unthrottled) -> Result<(), BenchError> {
        let sink = self.null_sink(self.plan, load)?;
        let ceilings = [
            ("produce_records_per_second", "client_headroom", "produce", Some(sink.produce_records_per_second)),
            ("consume_records_per_second", "client_headroom_consume", "consume", sink.consume_records_per_second),
        ];
        for (metric, headroom_metric, what, ceiling) in ceilings {
            let Some(ceiling) = ceiling else { continue };
            let measured: Vec<MetricRow> =
                self.result.rows.iter().filter(|row| row.metric == metric).cloned().collect();
            for row in measured {
                let headroom = |rate: f64| ceiling / rate.max(1.0);
                let ratio = headroom(row.value);
                if ratio < HEADROOM_MINIMUM {
                    let system = &row.system;
                    let text = format!("below 1.5, so that its {what} throughput is bound by the client");
                    let text = format!("the client's {what} headroom is {ratio:.2}, {text}; compare CPU per message");
                    self.result.remarks.push(format!("{system}: {text}."));
                }
                let (low, high) = (headroom(row.high), headroom(row.low));
                let (metric, unit) = (headroom_metric.to_owned(), "ratio".to_owned());
                self.result.rows.push(MetricRow { metric, unit, value: ratio, low, high, ..row });
            }
        }
        Ok(())
    }

    /// Whether the client alone sends and receives 1.5 times the rate, and how late at that.
    pub(crate) fn rate_headroom(&mut self, load: Rate) -> Result<(), BenchError> {
        let tried = (load.records_per_second as f64 * HEADROOM_MINIMUM) as u64;
        let block = self.open_loop_on_sink(OpenLoop { records_per_second: tried, ..load.into() })?;
        if block.achieved_share < ACHIEVED_SHARE_MINIMUM {
            let percent = 100.0 * block.achieved_share;
            let text = format!("it achieves {percent:.0} % of {tried} records/s, 1.5 times the plan's rate");
            self.remark(format!("The open-loop figures are bound by the client: against a null sink {text}."));
        }
        // What the client and the machine add to every system's tail.
        let shown =
            |at| percentile(&block.response, at).map_or("too few samples".to_owned(), |value| format!("{value} ns"));
        let text = format!("p50 {}, p99 {}, p99.9 {}", shown(50.0), shown(99.0), shown(99.9));
        self.result.manifest.insert(format!("null sink end to end at {tried}/s"), text);
        Ok(())
    }

    /// One unthrottled block of a plan on the null sink.
    pub(crate) fn null_sink(&mut self, plan: &LoadPlan, load: Unthrottled) -> Result<ThroughputBlock, BenchError> {
        let (sink, target) = start_sink()?;
        self.step("null sink", &target.name);
        let driver = driver::connect(&target)?;
        let topic = self.topic_on(&target, load.queues);
        let measure = || block::throughput(&target, plan, driver.as_ref(), &topic, load);
        let block = block::on_topic(plan, driver.as_ref(), &topic, measure)?;
        drop(sink);
        self.blocks_done += 1;
        Ok(block)
    }

    /// One open-loop block on the null sink.
    pub(crate) fn open_loop_on_sink(&mut self, load: OpenLoop) -> Result<RateBlock, BenchError> {
        let (sink, target) = start_sink()?;
        self.step(&format!("null sink {}/s", load.records_per_second), &target.name);
        let driver = driver::connect(&target)?;
        let topic = self.topic_on(&target, self.plan.queues);
        let measure = || block::rate(&target, self.plan, driver.as_ref(), &topic, load);
        let block = block::on_topic(self.plan, driver.as_ref(), &topic, measure)?;
        drop(sink);
        self.blocks_done += 1;
        Ok(block)
    }

    /// Says at which points of a sweep the client, and not the broker, sets the pace.
    pub(crate) fn remark_client_bound(&mut self, produce: &[Sweep], sink: &Sweep) {
        let Some(ceiling) = sink.points.last().copied() else { return };
        for sweep in produce {
            let Some(last) = sweep.points.last().filter(|last| last.x == ceiling.x) else { continue };
            let headroom = ceiling.value / last.value.max(1.0);
            if headroom < HEADROOM_MINIMUM {
                let (system, queues) = (&sweep.system, last.x);
                let text = format!("the client's headroom is {headroom:.2}, below 1.5: compare CPU per message");
                self.result.remarks.push(format!("{system} at {queues} queues: {text}."));
            }
        }
    }
}

fn start_sink() -> Result<(FakeBroker, SystemTarget), BenchError> {
    let sink = FakeBroker::start().map_err(|source| BenchError::Io { action: "start the null sink", source })?;
    let target = sink.target();
    Ok((sink, target))
}

/// The null sink's name in results.
pub(crate) const NULL_SINK: &str = "null-sink";
/// A headroom below this marks a figure as bound by the client.
pub(crate) const HEADROOM_MINIMUM: f64 = 1.5;
/// An open-loop block that achieved less of its offered rate is remarked on.
pub(crate) const ACHIEVED_SHARE_MINIMUM: f64 = 0.99;
