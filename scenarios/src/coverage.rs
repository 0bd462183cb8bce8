//! Coverage of point × fault: how often each class of fault struck at each named point of the broker.
//! `missing` is what a campaign did not reach, `table` what people read.

use std::collections::BTreeMap;

use mqassay_broker::points::POINTS;
use mqassay_harness::artifact::PointFaults;

/// Classes of fault that can be placed at a point, in the order of the table's columns.
pub const CLASSES: [&str; 3] = ["kill", "power-loss", "pause"];

/// Every cell, at zero.
pub fn empty() -> PointFaults {
    let row = || CLASSES.iter().map(|class| ((*class).to_owned(), 0)).collect::<BTreeMap<_, _>>();
    POINTS.iter().map(|point| ((*point).to_owned(), row())).collect()
}

/// How often a class struck at a point.
pub fn count(coverage: &PointFaults, point: &str, class: &str) -> u64 {
    coverage.get(point).and_then(|classes| classes.get(class)).copied().unwrap_or(0)
}

/// Cells that were never hit, in the order of the table.
pub fn missing(coverage: &PointFaults) -> Vec<(&'static str, &'static str)> {
    let cells = POINTS.iter().flat_map(|point| CLASSES.iter().map(move |class| (*point, *class)));
    cells.filter(|(point, class)| count(coverage, point, class) == 0).collect()
}

/// Cells in all.
pub fn cells() -> usize {
    POINTS.len() * CLASSES.len()
}

/// The table as lines of text, its sum last.
pub fn table(coverage: &PointFaults) -> Vec<String> {
    let width = POINTS.iter().map(|point| point.len()).max().unwrap_or(0);
    let mut lines = vec![format!("{:width$}  {:>10}  {:>10}  {:>10}", "point", CLASSES[0], CLASSES[1], CLASSES[2])];
    for point in POINTS {
        let [kill, power_loss, pause] = CLASSES.map(|class| count(coverage, point, class));
        lines.push(format!("{point:width$}  {kill:>10}  {power_loss:>10}  {pause:>10}"));
    }
    let (missing, cells) = (missing(coverage), cells());
    let hit = cells - missing.len();
    let share = 100.0 * hit as f64 / cells as f64;
    let names: Vec<String> = missing.iter().map(|(point, class)| format!("{class} at {point}")).collect();
    let lacking = if names.is_empty() { String::new() } else { format!("; never: {}", names.join(", ")) };
    lines.push(format!("{hit} of {cells} pairs of point and fault hit ({share:.0} %){lacking}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_hit_is_named() {
        let mut coverage = empty();
        assert_eq!(missing(&coverage).len(), cells());
        coverage.values_mut().flat_map(BTreeMap::values_mut).for_each(|count| *count = 3);
        assert!(table(&coverage).last().unwrap().starts_with("60 of 60"), "{:?}", table(&coverage));
        coverage.get_mut("sync-started").unwrap().remove("pause");
        let lines = table(&coverage);
        assert_eq!(missing(&coverage), [("sync-started", "pause")]);
        assert!(lines.last().unwrap().contains("59 of 60") && lines.last().unwrap().contains("pause at sync-started"));
        assert_eq!(lines.len(), POINTS.len() + 2);
    }
}
