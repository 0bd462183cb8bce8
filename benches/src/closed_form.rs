//! The instrument tested: open-loop blocks against the fake broker, whose latency is known in closed form, each reported
//! percentile held against the computed one. Start at `Session::closed_form`; the laws are in `fake`.

use std::time::Duration;

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::measure::percentile::{latency_histogram, percentile, spectrum};
use mqassay_harness::measure::result::TargetPart;
use mqassay_harness::measure::statistics::ratio_interval;
use serde::{Deserialize, Serialize};

use crate::block::{self, RateBlock};
use crate::driver;
use crate::fake::{Behaviour, FakeBroker, Law};
use crate::plan::{LoadPlan, Rate, is_duration};
use crate::session::Session;
use crate::{BenchError, SystemTarget};

/// Blocks against laws of latency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClosedForm {
    /// The target's name, for example `M9`.
    pub target: String,
    /// Offered rate of all producers together.
    pub records_per_second: u64,
    /// Blocks of each law.
    pub blocks: u32,
    /// Length of a block, seconds, its lead-in included; without it, whole periods of every freeze.
    pub block_seconds: f64,
    /// The beginning of a block whose latencies are not counted, seconds.
    pub lead_in_seconds: f64,
    /// The percentiles to compare, 0–100; those about which a law says nothing are left out.
    pub percentiles: Vec<f64>,
    /// The least ratio of a reported over its computed percentile.
    pub needs: f64,
    /// The greatest.
    pub at_most: f64,
    /// The laws.
    pub laws: Vec<LawOf>,
}

/// A law with its name and times, as a plan writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "law")]
pub enum LawOf {
    /// Every request is held as long.
    Constant {
        /// How long, milliseconds.
        delay_ms: u64,
    },
    /// One producer in so many is served more slowly.
    TwoValued {
        /// Most producers' delay, milliseconds.
        usual_ms: u64,
        /// The slow ones', milliseconds.
        slow_ms: u64,
        /// Producers of which one is slow.
        one_in: u32,
    },
    /// The broker stands still every so often.
    Freeze {
        /// From one freeze's beginning to the next, milliseconds.
        every_ms: u64,
        /// How long one lasts, milliseconds.
        length_ms: u64,
    },
}

impl LawOf {
    fn name(&self) -> &'static str {
        match self {
            LawOf::Constant { .. } => "constant",
            LawOf::TwoValued { .. } => "two-valued",
            LawOf::Freeze { .. } => "freeze",
        }
    }

    fn law(&self) -> Law {
        let ms = Duration::from_millis;
        match *self {
            LawOf::Constant { delay_ms } => Law::Constant(ms(delay_ms)),
            LawOf::TwoValued { usual_ms, slow_ms, one_in } => {
                Law::TwoValued { usual: ms(usual_ms), slow: ms(slow_ms), one_in }
            }
            LawOf::Freeze { every_ms, length_ms } => Law::Freeze { every: ms(every_ms), length: ms(length_ms) },
        }
    }

    fn fault(&self, form: &ClosedForm, producers: u32) -> Option<&'static str> {
        match *self {
            LawOf::Constant { delay_ms } => (delay_ms == 0).then_some("closed_form: delay_ms is 0"),
            LawOf::TwoValued { usual_ms, slow_ms, one_in } => {
                let is_sound = (1..slow_ms).contains(&usual_ms) && one_in > 1 && producers.is_multiple_of(one_in);
                (!is_sound)
                    .then_some("closed_form: two-valued needs 0 < usual_ms < slow_ms, producers a multiple of one_in")
            }
            LawOf::Freeze { every_ms, length_ms } => {
                let counted_ms = (1e3 * (form.block_seconds - form.lead_in_seconds)).round() as u64;
                let is_sound = (1..every_ms).contains(&length_ms) && counted_ms.is_multiple_of(every_ms);
                (!is_sound).then_some("closed_form: freeze needs length_ms < every_ms, and blocks of whole periods")
            }
        }
    }
}

impl ClosedForm {
    /// Blocks in all.
    pub(crate) fn blocks(&self) -> u32 {
        self.blocks * self.laws.len() as u32
    }

    /// The first value out of its bounds.
    pub(crate) fn first_fault(&self, plan: &LoadPlan) -> Option<&'static str> {
        let has_lead_in = (0.0..self.block_seconds).contains(&self.lead_in_seconds);
        let checks = [
            (is_duration(self.block_seconds) && has_lead_in, "closed_form: block_seconds or lead_in_seconds"),
            ((1..=1_000).contains(&self.blocks), "closed_form.blocks is not in 1..=1000"),
            ((1..=100_000).contains(&self.records_per_second), "closed_form.records_per_second is not in 1..=100000"),
            (self.percentiles.iter().all(|at| (0.0..100.0).contains(at)), "closed_form.percentiles are not below 100"),
            (0.0 < self.needs && self.needs < self.at_most, "closed_form.needs is not below closed_form.at_most"),
            // With idempotence the library has five requests in flight, and holds back what is due.
            (!plan.idempotence, "closed_form needs idempotence = false"),
        ];
        let own = checks.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason);
        own.or_else(|| self.laws.iter().find_map(|law| law.fault(self, plan.producers)))
    }
}

impl Session<'_> {
    /// The blocks of every law, and a part of the target for each percentile that is known.
    pub(crate) fn closed_form(&mut self, form: &ClosedForm) -> Result<(), BenchError> {
        for law in &form.laws {
            let name = format!("fake-broker-{}", law.name());
            let mut histograms = Vec::new();
            let mut is_sound = true;
            for _ in 0..form.blocks {
                let block = self.closed_form_block(form, law, &name)?;
                if block.verification.verdict != VerdictKind::Valid || block.unsettled > 0 {
                    is_sound = false;
                    self.remark(format!("{name}: a block's messages were not valid; its percentiles prove nothing."));
                }
                histograms.push(block.response);
            }
            let mut merged = latency_histogram();
            for histogram in &histograms {
                merged.add(histogram).expect("histograms of one range can be added");
            }
            self.result.spectra.push(spectrum(&name, "end to end", &merged));
            for &at in &form.percentiles {
                let Some(computed) = law.law().percentile(at) else { continue };
                let reported = histograms.iter().filter_map(|histogram| percentile(histogram, at));
                let pairs: Vec<(f64, f64)> = reported.map(|value| (value as f64, computed.as_nanos() as f64)).collect();
                let Some(ratio) = ratio_interval(&pairs, at.to_bits()) else {
                    self.remark(format!("{name}: too few samples for the percentile {at}."));
                    continue;
                };
                let is_within = TargetPart::is_met_by(ratio.low, ratio.high, form.needs, Some(form.at_most));
                self.result.targets.push(TargetPart {
                    target: form.target.clone(),
                    part: format!("{}: reported over computed p{at} of {} ms", law.name(), computed.as_millis()),
                    ratio: ratio.value,
                    low: ratio.low,
                    high: ratio.high,
                    needs: form.needs,
                    at_most: Some(form.at_most),
                    met: is_within && is_sound,
                });
            }
        }
        Ok(())
    }

    /// One block on a broker of its own.
    fn closed_form_block(&mut self, form: &ClosedForm, law: &LawOf, name: &str) -> Result<RateBlock, BenchError> {
        let behaviour = Behaviour { law: law.law(), defect: None };
        let broker = FakeBroker::start_with(behaviour)
            .map_err(|source| BenchError::Io { action: "start the fake broker", source })?;
        let target = SystemTarget { name: name.to_owned(), ..broker.target() };
        self.step("closed form", name);
        let driver = driver::connect(&target)?;
        let topic = self.topic_on(&target, self.plan.queues);
        let load = Rate {
            records_per_second: form.records_per_second,
            block_seconds: form.block_seconds,
            lead_in_seconds: form.lead_in_seconds,
            pairs: form.blocks,
            linger_ms: 0,
            batch_bytes: BATCH_BYTES,
        };
        let plan = self.plan;
        let measure = || block::rate(&target, plan, driver.as_ref(), &topic, load.into());
        let block = block::on_topic(plan, driver.as_ref(), &topic, measure)?;
        self.blocks_done += 1;
        Ok(block)
    }
}

const BATCH_BYTES: u32 = 65_536;
