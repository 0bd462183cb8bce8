//! Charts: one file per picture, each from a bench result to a finished `Chart`, or to nothing where there is no data.
//! Start at `canvas` for how a picture is drawn and coloured and at `scale` for axes.
//! Every picture is drawn twice, wide and narrow, so that its text keeps its size on a telephone.

pub(crate) mod canvas;
pub(crate) mod cpu;
mod dots;
pub(crate) mod drain;
pub(crate) mod forest;
pub(crate) mod gains;
pub(crate) mod ladder;
mod lines;
mod scale;
pub(crate) mod search;
pub(crate) mod series;
pub(crate) mod spectrum;
pub(crate) mod sweep;
pub(crate) mod throughput;
pub(crate) mod timeline;

use std::collections::BTreeSet;

use mqassay_harness::measure::result::BenchResult;
use serde::Serialize;

use crate::page::ReportError;
use canvas::Canvas;
pub(crate) use dots::table as figures;

/// Width of a wide picture in CSS pixels, before it is scaled to its place.
pub(crate) const WIDE: f64 = 800.0;
/// Width of a narrow picture in CSS pixels, before it is scaled to its place.
pub(crate) const NARROW: f64 = 350.0;

/// A finished chart, as the template shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Chart {
    /// What the chart shows, as a sentence.
    pub(crate) title: String,
    /// Axes, units, plan and sample size.
    pub(crate) caption: String,
    /// Series and their marks, where colour or shape tells them apart.
    pub(crate) legend: Vec<LegendItem>,
    /// SVG for windows of at least 640 CSS pixels, and for print.
    pub(crate) wide: String,
    /// SVG for narrower windows.
    pub(crate) narrow: String,
    /// The numbers, for people.
    pub(crate) table: Table,
    /// The numbers, for programs: a data URI with JSON.
    pub(crate) data: String,
    /// File name that the data link offers.
    pub(crate) data_name: String,
}

/// One entry of a legend.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LegendItem {
    /// The series' name.
    pub(crate) label: String,
    /// Its mark, as SVG.
    pub(crate) mark: String,
}

/// A table of numbers.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Table {
    /// Column titles.
    pub(crate) head: Vec<String>,
    /// Rows, as many cells as there are titles.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str], rows: Vec<Vec<String>>) -> Table {
        Table { head: head.iter().map(|title| (*title).to_owned()).collect(), rows }
    }
}

/// Which colour and mark each system has, the same on every chart of the page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Systems {
    names: Vec<String>,
}

impl Systems {
    /// Systems in order of their first appearance.
    pub(crate) fn of(benches: &[BenchResult]) -> Systems {
        let mut seen = BTreeSet::new();
        let mut names = Vec::new();
        for bench in benches {
            let rows = bench.rows.iter().map(|row| &row.system);
            let ratios = bench.ratios.iter().flat_map(|row| row.ratio_of.iter());
            let spectra = bench.spectra.iter().map(|spectrum| &spectrum.system);
            let sweeps = bench.sweeps.iter().map(|sweep| &sweep.system);
            let timelines = bench.timelines.iter().map(|timeline| &timeline.system);
            let series = bench.series.iter().map(|series| &series.system);
            let searches = bench.searches.iter().map(|search| &search.system);
            let over_time = timelines.chain(series);
            for name in rows.chain(ratios).chain(spectra).chain(sweeps).chain(over_time).chain(searches) {
                if seen.insert(name.clone()) {
                    names.push(name.clone());
                }
            }
        }
        Systems { names }
    }

    /// The system's index, which decides its colour and mark.
    pub(crate) fn index(&self, system: &str) -> usize {
        self.names.iter().position(|name| name == system).unwrap_or(self.names.len())
    }
}

/// Draws one picture in both widths; `draw` is told the width and returns the height that it needs first.
pub(crate) fn both_widths(
    label: &str,
    height: impl Fn(f64) -> f64,
    draw: impl Fn(&mut Canvas) -> Result<(), ReportError>,
) -> Result<(String, String), ReportError> {
    let wide = canvas::picture(WIDE, height(WIDE), label, &draw)?;
    let narrow = canvas::picture(NARROW, height(NARROW), label, &draw)?;
    Ok((wide, narrow))
}

/// A legend of systems, each once.
pub(crate) fn legend<'a>(
    systems: &Systems,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<LegendItem>, ReportError> {
    let mut items: Vec<LegendItem> = Vec::new();
    for name in names {
        if items.iter().all(|item| item.label != name) {
            items.push(LegendItem { label: name.to_owned(), mark: canvas::legend_mark(systems.index(name))? });
        }
    }
    Ok(items)
}

/// A data URI that holds the value as JSON.
pub(crate) fn data_uri<T: Serialize>(value: &T) -> Result<String, ReportError> {
    let json = serde_json::to_vec(value)?;
    let mut uri = String::from("data:application/json;charset=utf-8,");
    for byte in json {
        if byte.is_ascii_alphanumeric() || b"-_.!~*()[]{}:,".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(uri)
}

/// How many messages stand behind a bench, as a caption's last words.
pub(crate) fn sample(bench: &BenchResult) -> String {
    let messages: u64 = bench.verdicts.iter().map(|verdict| verdict.verified_messages).sum();
    if messages == 0 {
        "no message of this run was verified".to_owned()
    } else {
        format!("{} messages verified", crate::number::count(messages))
    }
}
