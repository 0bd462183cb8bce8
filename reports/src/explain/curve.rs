//! The curve of how probable the anomaly is from each moment on, with its interval, and the faults that struck.

use mqassay_harness::history::Mark;
use mqassay_harness::story::{Curve, Story};

use super::cause::words;
use super::svg::Svg;

const HEIGHT: f64 = 250.0;
const TOP: f64 = 26.0;

/// Draws the curve at a width.
pub(super) fn draw(story: &Story, curve: &Curve, width: f64) -> String {
    let mut svg = Svg::new(width);
    let (left, right, bottom) = (44.0, width - 10.0, HEIGHT - 40.0);
    let last_ms = curve.points.iter().map(|point| point.cut_ms).max().unwrap_or(1).max(1);
    let x = |ms: u64| left + ms as f64 / last_ms as f64 * (right - left);
    let y = |share: f64| bottom - share * (bottom - TOP);
    for percent in [0, 25, 50, 75, 100] {
        let place = y(f64::from(percent) / 100.0);
        svg.line("k-grid", (left, place), (right, place));
        svg.text("f-muted small", (left - 6.0, place + 4.0), "end", &format!("{percent} %"));
    }
    let step_ms = [500, 1_000, 2_000, 5_000].into_iter().find(|step| last_ms / step <= 8).unwrap_or(10_000);
    for tick in (0..=last_ms / step_ms).map(|tick| tick * step_ms) {
        svg.text("f-muted small", (x(tick), bottom + 17.0), "middle", &format!("{}", tick as f64 / 1000.0));
    }
    svg.text("f-muted small", (right, bottom + 34.0), "end", "seconds of the plan that are kept");
    let mut last_text = f64::MIN;
    for mark in &story.history.marks {
        let Mark::Fault { at_us, class, .. } = mark else { continue };
        let place = x((at_us / 1000).min(last_ms));
        if at_us / 1000 > last_ms {
            continue;
        }
        svg.line("mark-fault", (place, TOP), (place, bottom));
        let text = words(class);
        let room = text.len() as f64 * 6.5;
        if place - room / 2.0 > last_text && place + room / 2.0 < width {
            svg.text("mark-fault-text", (place, TOP - 8.0), "middle", &text);
            last_text = place + room / 2.0 + 6.0;
        }
    }
    let band: Vec<(f64, f64)> = curve.points.iter().map(|point| (x(point.cut_ms), y(point.share().2))).collect();
    let lows = curve.points.iter().rev().map(|point| (x(point.cut_ms), y(point.share().0)));
    svg.shape("band", &band.into_iter().chain(lows).collect::<Vec<_>>());
    let middle: Vec<(f64, f64)> = curve.points.iter().map(|point| (x(point.cut_ms), y(point.share().1))).collect();
    svg.path("k-s0 curve", &middle);
    for (place, point) in middle.iter().zip(&curve.points) {
        let title = format!("{} of {} runs from {} ms on", point.with_anomaly, point.runs, point.cut_ms);
        svg.rect("f-s0", (place.0 - 3.0, place.1 - 3.0), (6.0, 6.0), &title);
    }
    svg.finish(HEIGHT, "How probable the anomaly is when the plan is kept up to a moment and drawn again behind it.")
}
