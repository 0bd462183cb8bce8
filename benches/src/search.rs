//! The highest rate that each system holds under a latency bound: the search of `harness::measure::search`, tried with
//! open-loop blocks, the systems in turn. A rate is held where the records came at the pace offered, no backlog grew, the
//! bound was kept, nothing failed and the verdict is green. Start at `Session::search`.

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::measure::percentile::percentile;
use mqassay_harness::measure::result::{MetricRow, RateSearch, RatioRow, SearchPoint};
use mqassay_harness::measure::search::{Search, SearchBounds, Step};
use serde::{Deserialize, Serialize};

use crate::BenchError;
use crate::assemble;
use crate::block::{BATCH_RECORDS_MAXIMUM, OpenLoop, RateBlock};
use crate::calibrate::{ACHIEVED_SHARE_MINIMUM, HEADROOM_MINIMUM};
use crate::driver::Batching;
use crate::plan::is_duration;
use crate::session::Session;

/// A search for the highest rate under a latency bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSearchLoad {
    /// Whose end-to-end latency is bounded, 0 to 100, exclusive.
    pub percentile: f64,
    /// The bound, milliseconds from the intended send.
    pub bound_ms: f64,
    /// The first rate tried, of all producers together.
    pub records_per_second: u64,
    /// No rate above it is tried.
    pub records_per_second_maximum: u64,
    /// Bisection ends where the lowest rate that failed is at most this fraction above the highest that held.
    pub resolution: f64,
    /// Length of a probe, seconds, its lead-in included.
    pub probe_seconds: f64,
    /// Fresh runs that must all hold the rate found.
    pub confirm_runs: u32,
    /// Length of each, seconds, its lead-in included.
    pub confirm_seconds: f64,
    /// The beginning of each whose latencies are not counted, seconds.
    pub lead_in_seconds: f64,
    /// How long a producer waits for a batch to fill, milliseconds.
    pub linger_ms: u32,
    /// Largest batch, bytes.
    pub batch_bytes: u32,
}

impl RateSearchLoad {
    /// The first value out of its bounds.
    pub(crate) fn first_fault(&self) -> Option<&'static str> {
        let lead_in = |seconds: f64| (0.0..seconds).contains(&self.lead_in_seconds);
        let checks = [
            ((0.0..100.0).contains(&self.percentile), "search.percentile is not below 100"),
            ((0.01..=600_000.0).contains(&self.bound_ms), "search.bound_ms is not in 0.01..=600000"),
            (
                (1..=self.records_per_second_maximum).contains(&self.records_per_second),
                "search.records_per_second is not in 1..=search.records_per_second_maximum",
            ),
            (self.records_per_second_maximum <= 10_000_000, "search.records_per_second_maximum is above 10000000"),
            ((0.001..=1.0).contains(&self.resolution), "search.resolution is not in 0.001..=1"),
            (is_duration(self.probe_seconds), "search.probe_seconds is not in 0.1..=600"),
            (is_duration(self.confirm_seconds), "search.confirm_seconds is not in 0.1..=600"),
            (
                lead_in(self.probe_seconds) && lead_in(self.confirm_seconds),
                "search.lead_in_seconds is not below search.probe_seconds and search.confirm_seconds",
            ),
            ((1..=100).contains(&self.confirm_runs), "search.confirm_runs is not in 1..=100"),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason)
    }

    /// About how many blocks a search takes of one system; progress needs no more.
    pub(crate) fn blocks_expected(&self) -> u32 {
        BLOCKS_EXPECTED + self.confirm_runs
    }

    fn bound_ns(&self) -> u64 {
        (self.bound_ms * 1e6) as u64
    }

    fn open_loop(&self, records_per_second: u64, seconds: f64) -> OpenLoop {
        let (linger_ms, batch_bytes) = (self.linger_ms, self.batch_bytes);
        OpenLoop {
            records_per_second,
            seconds,
            lead_in_seconds: self.lead_in_seconds,
            batching: Batching { linger_ms, batch_bytes, batch_records: BATCH_RECORDS_MAXIMUM, is_open_loop: true },
            lag_ns_maximum: self.bound_ns().saturating_mul(2).max(LAG_NS_MINIMUM),
        }
    }

    fn point(&self, rate: u64, is_confirming: bool, block: &RateBlock) -> SearchPoint {
        SearchPoint {
            offered_records_per_second: rate as f64,
            achieved_records_per_second: rate as f64 * block.achieved_share,
            backlog_slope: block.backlog_slope,
            latency_p50_ns: percentile(&block.response, 50.0),
            latency_ns: percentile(&block.response, self.percentile),
            latency_max_ns: (!block.response.is_empty()).then(|| block.response.max()),
            is_confirming,
            failed: failure(self.percentile, self.bound_ns(), block),
        }
    }
}

/// Why a block did not hold its rate; none where it did.
fn failure(at: f64, bound_ns: u64, block: &RateBlock) -> Option<String> {
    if block.verification.verdict != VerdictKind::Valid {
        return Some(format!("the verdict is {:?}", block.verification.verdict).to_lowercase());
    }
    if block.unsettled > 0 {
        let (count, error) = (block.unsettled, block.first_error.as_deref().unwrap_or("no reason given"));
        return Some(format!("{count} records were not acknowledged: {error}"));
    }
    if block.achieved_share < ACHIEVED_SHARE_MINIMUM {
        return Some(format!("achieved {:.1} % of the offered rate", 100.0 * block.achieved_share));
    }
    if block.backlog_slope > SLOPE_MAXIMUM {
        return Some(format!("the backlog grew by {:.1} % of the offered rate", 100.0 * block.backlog_slope));
    }
    match percentile(&block.response, at) {
        None => Some(format!("too few samples for p{at}")),
        Some(latency_ns) if latency_ns > bound_ns => {
            Some(format!("p{at} is {:.1} ms, above the bound", latency_ns as f64 / 1e6))
        }
        Some(_) => None,
    }
}

impl Session<'_> {
    /// One search for each system, a try of each in turn, forth and back; then the client's headroom at what was found.
    pub(crate) fn search(&mut self, load: &RateSearchLoad) -> Result<(), BenchError> {
        let bounds = SearchBounds {
            start: load.records_per_second,
            maximum: load.records_per_second_maximum,
            resolution: load.resolution,
            confirm_runs: load.confirm_runs,
        };
        let mut searches = vec![Search::new(bounds); self.systems.len()];
        let mut points: Vec<Vec<SearchPoint>> = vec![Vec::new(); self.systems.len()];
        for round in 0.. {
            let mut is_over = true;
            for index in assemble::order(round, self.systems.len()) {
                let (rate, is_confirming) = match searches[index].step() {
                    Step::Probe(rate) => (rate, false),
                    Step::Confirm(rate) => (rate, true),
                    Step::Done => continue,
                };
                let (what, seconds) = match is_confirming {
                    true => ("confirm", load.confirm_seconds),
                    false => ("probe", load.probe_seconds),
                };
                let what = format!("{what} {rate}/s");
                let Some(block) = self.open_loop_block(index, load.open_loop(rate, seconds), &what) else { continue };
                is_over = false;
                let point = load.point(rate, is_confirming, &block);
                searches[index].note(point.failed.is_none());
                points[index].push(point);
            }
            if is_over {
                break;
            }
        }
        for (index, (search, points)) in searches.iter().zip(points).enumerate() {
            self.search_result(load, index, search, points)?;
        }
        self.search_ratios();
        Ok(())
    }

    fn search_result(
        &mut self,
        load: &RateSearchLoad,
        index: usize,
        search: &Search,
        points: Vec<SearchPoint>,
    ) -> Result<(), BenchError> {
        let system = self.systems[index].name.clone();
        let mut client_headroom = None;
        match search.confirmed() {
            Some(rate) => {
                client_headroom = Some(self.search_headroom(load, &system, rate)?);
                self.result.rows.push(MetricRow {
                    plan: self.plan.name.clone(),
                    system: system.clone(),
                    metric: RATE_METRIC.to_owned(),
                    unit: "records/s".to_owned(),
                    value: rate as f64,
                    low: rate as f64,
                    high: search.failed().unwrap_or(rate) as f64,
                });
                let text = "its row's ends are the rate confirmed and the lowest that failed, no 95 % interval";
                self.remark(format!("{system}: {rate} records/s is the highest rate confirmed; {text}."));
            }
            None => {
                let last = points.last().and_then(|point| point.failed.clone());
                let reason = last.map_or_else(String::new, |reason| format!(": {reason}"));
                self.remark(format!("{system}: no rate was confirmed under the latency bound{reason}."));
            }
        }
        self.result.searches.push(RateSearch {
            system,
            percentile: load.percentile,
            bound_ns: load.bound_ns(),
            points,
            confirmed_records_per_second: search.confirmed().map(|rate| rate as f64),
            failed_records_per_second: search.failed().map(|rate| rate as f64),
            client_headroom,
        });
        Ok(())
    }

    /// Whether the client alone would hold 1.5 times the rate: against a broker that does nothing.
    fn search_headroom(&mut self, load: &RateSearchLoad, system: &str, rate: u64) -> Result<f64, BenchError> {
        let tried = (rate as f64 * HEADROOM_MINIMUM) as u64;
        let block = self.open_loop_on_sink(load.open_loop(tried, load.probe_seconds))?;
        if let Some(reason) = failure(load.percentile, load.bound_ns(), &block) {
            let text =
                format!("against a broker that does nothing the client does not hold {tried} records/s ({reason})");
            self.remark(format!("{system}: the rate found may be bound by the client: {text}."));
        }
        Ok(HEADROOM_MINIMUM * block.achieved_share.min(1.0))
    }

    /// The first system's rate over each other's; one ratio each, without an interval.
    fn search_ratios(&mut self) {
        let rate = |search: &RateSearch| search.confirmed_records_per_second;
        let Some((first, others)) = self.result.searches.split_first() else { return };
        let Some(numerator) = rate(first) else { return };
        let ratio = |other: &RateSearch| {
            let ratio = numerator / rate(other)?;
            Some(RatioRow {
                plan: self.plan.name.clone(),
                metric: RATE_METRIC.to_owned(),
                ratio_of: [first.system.clone(), other.system.clone()],
                ratio,
                low: ratio,
                high: ratio,
                pairs: 1,
            })
        };
        let ratios: Vec<RatioRow> = others.iter().filter_map(ratio).collect();
        self.result.ratios.extend(ratios);
    }
}

const RATE_METRIC: &str = "rate_within_bound_records_per_second";
/// A backlog that grows by less than this share of the offered rate is about constant.
const SLOPE_MAXIMUM: f64 = 0.01;
/// A probe goes on at least so long behind its schedule.
const LAG_NS_MINIMUM: u64 = 500_000_000;
const BLOCKS_EXPECTED: u32 = 18;

#[cfg(test)]
mod tests {
    use mqassay_harness::measure::percentile::latency_histogram;

    use super::*;
    use crate::verify::Verification;

    fn block(latency_ms: u64, achieved_share: f64, backlog_slope: f64, verdict: VerdictKind) -> RateBlock {
        let [mut response, service, lag] = std::array::from_fn(|_| latency_histogram());
        response.record_n(latency_ms * 1_000_000, 2_000).unwrap();
        let verification = Verification { verdict, verified: 2_000, anomalies: [].into(), unknown: None };
        RateBlock {
            response,
            service,
            lag,
            not_positive: 0,
            achieved_share,
            backlog_slope,
            cost: None,
            unsettled: 0,
            first_error: None,
            verification,
        }
    }

    #[test]
    fn a_rate_is_held_only_where_everything_is_as_it_should_be() {
        let valid = VerdictKind::Valid;
        let held = |block: &RateBlock| failure(99.0, 10_000_000, block);
        assert_eq!(held(&block(9, 0.995, 0.005, valid)), None);
        let named = |block: &RateBlock, word: &str| {
            let reason = held(block).unwrap_or_default();
            assert!(reason.contains(word), "{word}: {reason}");
        };
        named(&block(9, 0.98, 0.0, valid), "98.0 % of the offered rate");
        named(&block(9, 1.0, 0.02, valid), "backlog");
        named(&block(11, 1.0, 0.0, valid), "above the bound");
        named(&block(9, 1.0, 0.0, VerdictKind::Unknown), "verdict");
        named(&RateBlock { unsettled: 3, ..block(9, 1.0, 0.0, valid) }, "3 records");
        assert!(failure(99.9, 10_000_000, &block(9, 1.0, 0.0, valid)).unwrap().contains("too few"));
    }
}
