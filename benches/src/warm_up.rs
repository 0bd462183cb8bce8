//! Warm-up until a steady state: windows of load on one system after the other, until its cost no longer moves. How long
//! that took, and what the first window, the cold one, cost are figures of their own.

use mqassay_harness::measure::steady;

use crate::assemble;
use crate::plan::WarmUp;
use crate::raw::session::one_row;
use crate::session::Session;

/// One window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// CPU of the broker per message, nanoseconds; none where it cannot be read.
    pub(crate) cpu_ns: Option<f64>,
    /// Records acknowledged a second.
    pub(crate) records_per_second: f64,
}

impl Window {
    /// What is watched: a system whose CPU cannot be read is steady when its rate is.
    fn cost(&self) -> f64 {
        self.cpu_ns.unwrap_or(1e9 / self.records_per_second.max(1.0))
    }
}

/// Whether the windows have come to a steady state.
pub(crate) fn is_steady(windows: &[Window], warm_up: WarmUp) -> bool {
    let costs: Vec<f64> = windows.iter().map(Window::cost).collect();
    steady::steady_from(&costs, warm_up.change_maximum).is_some()
}

impl Session<'_> {
    /// Warms up one system after the other with unthrottled load.
    pub(crate) fn warm_up(&mut self, warm_up: WarmUp) {
        let load = self.warm_up_load(warm_up);
        for index in 0..self.systems.len() {
            let mut windows: Vec<Window> = Vec::new();
            while windows.len() < warm_up.windows_maximum as usize && !is_steady(&windows, warm_up) {
                let Some(block) = self.unthrottled(index, load, "warm-up") else { break };
                let cpu_ns = assemble::throughput_sample(&block).get("broker_cpu_ns_per_message").copied();
                windows.push(Window { cpu_ns, records_per_second: block.produce_records_per_second });
            }
            self.blocks_total -= warm_up.windows_maximum.saturating_sub(windows.len() as u32);
            self.note_warm_up(index, warm_up, &windows);
        }
    }

    /// Rows of the warm-up's length and of its first window, and a line in the manifest.
    pub(crate) fn note_warm_up(&mut self, index: usize, warm_up: WarmUp, windows: &[Window]) {
        let (Some(first), Some(last)) = (windows.first(), windows.last()) else { return };
        let is_steady = is_steady(windows, warm_up);
        let outcome = if is_steady { "steady" } else { "not steady within the plan's windows" };
        let (count, seconds) = (windows.len(), warm_up.window_seconds);
        let (cold, warm) = (first.cost(), last.cost());
        let text = format!("{count} windows of {seconds} s, {cold:.0} then {warm:.0} ns a message, {outcome}");
        let name = self.systems[index].name.clone();
        if !is_steady {
            self.remark(format!("{name} was not shown to be warm before its first block ({text})."));
        }
        let length = Some(count as f64 * seconds);
        let rows = [
            ("warm_up_seconds", length),
            ("cold_produce_records_per_second", Some(first.records_per_second)),
            ("cold_broker_cpu_ns_per_message", first.cpu_ns),
        ];
        let rows = rows.into_iter().filter_map(|(metric, value)| Some(one_row(&self.plan.name, &name, metric, value?)));
        self.result.rows.extend(rows.collect::<Vec<_>>());
        self.result.manifest.insert(format!("{name} warm-up"), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_cpu_figures_is_steady_when_its_rate_is() {
        let warm_up = WarmUp { window_seconds: 1.0, windows_maximum: 9, change_maximum: 0.05 };
        let windows = |rates: &[f64], cpu_ns: Option<f64>| {
            rates.iter().map(|&records_per_second| Window { cpu_ns, records_per_second }).collect::<Vec<_>>()
        };
        assert!(!is_steady(&windows(&[100.0, 200.0, 300.0], None), warm_up));
        assert!(is_steady(&windows(&[100.0, 200.0, 300.0], Some(7.0)), warm_up));
        assert!(is_steady(&windows(&[100.0, 300.0, 301.0, 302.0], None), warm_up));
    }
}
