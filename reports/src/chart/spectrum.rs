//! Percentile spectrum: latency over percentile, the percentile axis counted in nines, so that the tail has room.
//! A solid line ends where fewer than ten samples lie beyond; the maximum stands alone behind that cut-off.

use mqassay_harness::measure::result::{BenchResult, Spectrum};

use super::canvas::{Canvas, Paint};
use super::lines::{self, Frame, Tick};
use super::scale::{Axis, Spread, log_ends};
use super::{Chart, Systems, Table, both_widths, data_uri, legend};
use crate::number;
use crate::page::ReportError;

/// One chart for each thing that was timed, in order of appearance.
pub(crate) fn charts(bench: &BenchResult, systems: &Systems) -> Result<Vec<Chart>, ReportError> {
    let mut charts = Vec::new();
    let mut done: Vec<&str> = Vec::new();
    for spectrum in &bench.spectra {
        if !done.contains(&spectrum.what.as_str()) {
            done.push(&spectrum.what);
            let same: Vec<&Spectrum> = bench.spectra.iter().filter(|other| other.what == spectrum.what).collect();
            charts.extend(chart(bench, &same, systems)?);
        }
    }
    Ok(charts)
}

fn chart(bench: &BenchResult, spectra: &[&Spectrum], systems: &Systems) -> Result<Option<Chart>, ReportError> {
    let curves: Vec<Curve> = spectra.iter().filter_map(|spectrum| Curve::of(spectrum, systems)).collect();
    let latencies = curves.iter().flat_map(|curve| curve.line.iter().chain(&curve.maximum).map(|point| point.1));
    let Some(ends) = log_ends(latencies) else { return Ok(None) };
    let title = title(spectra);
    let (wide, narrow) =
        both_widths(&title, |width| if width < 500.0 { 300.0 } else { 380.0 }, |canvas| draw(canvas, &curves, ends))?;
    let samples: Vec<String> = spectra
        .iter()
        .map(|spectrum| format!("{} {} samples", spectrum.system, number::count(spectrum.count)))
        .collect();
    let what = &spectra[0].what;
    Ok(Some(Chart {
        title,
        caption: format!(
            "{}, logarithmic, over percentile in nines. Lines end, and the shade begins, where fewer than ten samples \
             lie beyond; the single mark behind is the maximum. Plan {}; {}.",
            meaning(what),
            bench.plan,
            samples.join("; ")
        ),
        legend: legend(systems, spectra.iter().map(|spectrum| spectrum.system.as_str()))?,
        wide,
        narrow,
        table: table(spectra),
        data: data_uri(&spectra)?,
        data_name: format!("{}-{}.json", bench.plan, what.replace([' ', ','], "-")),
    }))
}

/// Where the clock of a latency starts, in words.
fn meaning(what: &str) -> String {
    if what.contains("lag") {
        "How late messages were handed to the client, against the schedule".to_owned()
    } else if what.contains("service") {
        "Latency from the actual send (the headline counts from the intended one)".to_owned()
    } else {
        "Latency from the intended send time".to_owned()
    }
}

/// Below this percentile nothing is drawn: the fastest samples would stretch the axis and tell nothing.
const PERCENTILE_MIN: f64 = 10.0;

/// A spectrum with its percentiles counted in nines.
struct Curve {
    series: usize,
    line: Vec<(f64, f64)>,
    maximum: Option<(f64, f64)>,
}

impl Curve {
    fn of(spectrum: &Spectrum, systems: &Systems) -> Option<Curve> {
        let is_drawn = |point: &&(f64, u64)| (PERCENTILE_MIN..100.0).contains(&point.0) && point.1 > 0;
        let line: Vec<(f64, f64)> = spectrum
            .points
            .iter()
            .filter(is_drawn)
            .map(|(percentile, nanoseconds)| (nines(*percentile), *nanoseconds as f64))
            .collect();
        let last = spectrum.points.iter().find(|point| point.0 >= 100.0 && point.1 > 0);
        // The largest of n samples has 1/n of them at or beyond it.
        let maximum = last.map(|point| ((spectrum.count.max(1) as f64).log10().max(0.3), point.1 as f64));
        if line.is_empty() && maximum.is_none() {
            return None;
        }
        Some(Curve { series: systems.index(&spectrum.system), line, maximum })
    }
}

/// 90 % is 1, 99 % is 2, 99.9 % is 3.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

fn title(spectra: &[&Spectrum]) -> String {
    let figures: Vec<String> = spectra
        .iter()
        .filter_map(|spectrum| {
            let p99 = spectrum.points.iter().rfind(|point| (point.0 - 99.0).abs() < 0.051)?;
            Some(format!("{} {}", spectrum.system, number::duration(p99.1 as f64)))
        })
        .collect();
    let what = spectra.first().map_or("latency", |spectrum| spectrum.what.as_str());
    let mut initial = what.chars();
    let what: String = initial.next().into_iter().flat_map(char::to_uppercase).chain(initial).collect();
    if figures.is_empty() {
        format!("{what}: latency by percentile")
    } else {
        format!("{what}, p99: {}", figures.join(", "))
    }
}

fn draw(canvas: &mut Canvas, curves: &[Curve], ends: (f64, f64)) -> Result<(), ReportError> {
    let is_narrow = canvas.is_narrow();
    let frame = Frame {
        left: 58.0,
        right: canvas.width - if is_narrow { 12.0 } else { 24.0 },
        top: 30.0,
        bottom: canvas.height - 44.0,
    };
    let all = || curves.iter().flat_map(|curve| curve.line.iter().chain(&curve.maximum));
    let longest = all().map(|point| point.0).fold(1.0, f64::max);
    let x = Axis::new(Spread::Linear, (0.0, longest * 1.03), (frame.left, frame.right));
    let y = Axis::new(Spread::Logarithmic, ends, (frame.bottom, frame.top));
    let cut_off = curves.iter().filter_map(|curve| curve.line.last()).map(|point| point.0).fold(0.0, f64::max);
    if cut_off > 0.0 && cut_off < longest {
        canvas.area((x.at(cut_off), frame.top), (frame.right, frame.bottom), Paint::Shade)?;
    }
    let y_ticks: Vec<Tick> = y.ticks(30.0).into_iter().map(|tick| (tick, number::duration(tick))).collect();
    lines::grid(canvas, frame, (&x, &percentile_ticks(&x, longest), "percentile"), (&y, &y_ticks, "latency"))?;
    for curve in curves {
        let points: Vec<(f64, f64)> = curve.line.iter().map(|point| (x.at(point.0), y.at(point.1))).collect();
        canvas.path(&points, Paint::Series(curve.series), 2.0)?;
        if let Some(maximum) = curve.maximum {
            let at = (x.at(maximum.0), y.at(maximum.1));
            if let Some(last) = points.last() {
                canvas.line(*last, at, Paint::Dashed(curve.series), 1.5)?;
            }
            canvas.mark(at, curve.series, false)?;
        }
        for wanted in [nines(50.0), 1.0, 2.0, 3.0, 4.0, 5.0, 6.0] {
            let nearest = curve.line.iter().find(|point| (point.0 - wanted).abs() < 0.03);
            if let Some(point) = nearest {
                canvas.mark((x.at(point.0), y.at(point.1)), curve.series, true)?;
            }
        }
    }
    Ok(())
}

fn percentile_ticks(x: &Axis, longest: f64) -> Vec<Tick> {
    let mut values = vec![nines(50.0)];
    values.extend((1..=9).map(f64::from).take_while(|nine| *nine <= longest));
    let label = |nine: f64| number::percentile(((1.0 - 10f64.powf(-nine)) * 100.0 * 1e7).round() / 1e7);
    let mut ticks: Vec<Tick> = Vec::new();
    for value in values {
        let is_apart = ticks.last().is_none_or(|last| x.at(value) - x.at(last.0) >= 50.0);
        if is_apart || value == 1.0 {
            if !is_apart {
                ticks.pop();
            }
            ticks.push((value, label(value)));
        }
    }
    ticks
}

fn table(spectra: &[&Spectrum]) -> Table {
    let mut rows = Vec::new();
    for spectrum in spectra {
        let wanted = [50.0, 90.0, 95.0, 99.0, 99.9, 99.99, 99.999, 99.9999, 100.0];
        for (percentile, nanoseconds) in &spectrum.points {
            if wanted.iter().any(|value: &f64| (value - percentile).abs() < 1e-6) {
                let name = if *percentile >= 100.0 { "maximum".to_owned() } else { number::percentile(*percentile) };
                rows.push(vec![
                    spectrum.system.clone(),
                    spectrum.what.clone(),
                    name,
                    number::duration(*nanoseconds as f64),
                    number::count(spectrum.count),
                ]);
            }
        }
    }
    Table::new(&["System", "What", "Percentile", "Latency", "Samples"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_lies_behind_the_cut_off() {
        let spectrum = Spectrum {
            system: "reference".to_owned(),
            what: "end to end".to_owned(),
            points: vec![(50.0, 100), (99.0, 1_000), (99.99, 9_000), (100.0, 50_000)],
            count: 100_000,
        };
        let curve = Curve::of(&spectrum, &Systems::default()).expect("it has points");
        assert_eq!(curve.line.len(), 3);
        let maximum = curve.maximum.expect("it has a maximum");
        assert!((maximum.0 - 5.0).abs() < 1e-9 && maximum.0 > curve.line[2].0);
        assert_eq!(title(&[&spectrum]), "End to end, p99: reference 1\u{a0}µs");
    }
}
