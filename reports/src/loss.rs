//! The page of the loss matrix on real systems: a table for each system, a row for each setting, a column for each kind of
//! fault, and in each cell what the runs showed beside what is promised. Not here: the runs.

use minijinja::value::Serde;
use serde::{Deserialize, Serialize};

use crate::number;
use crate::page::{ReportError, environment};

/// What the runs of one cell showed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossCell {
    /// The system.
    pub system: String,
    /// Its version.
    pub version: String,
    /// Its settings.
    pub row: String,
    /// What its documentation says of them, in our words.
    pub documented: String,
    /// The kind of fault.
    pub faults: String,
    /// Why it was not tried, where it was not; all below is zero or empty then.
    pub not_tested: Option<String>,
    /// Runs.
    pub runs: u64,
    /// Of them, those that lost an acknowledged record.
    pub lost_in: u64,
    /// Whether the guarantee matrix allows a loss.
    pub allowed: bool,
    /// Runs with a finding that nothing allows.
    pub invalid: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Acknowledged records lost.
    pub lost: u64,
    /// Records that are there twice.
    pub repeated: u64,
    /// Records out of their producer's order.
    pub reordered: u64,
    /// Bytes that power losses took from the disks.
    pub bytes_lost_by_disks: u64,
    /// Time from a fault to the next acknowledged send: median and maximum in milliseconds.
    pub recovery_ms: Option<(u64, u64)>,
    /// Plan files; history and verdict of each run lie beside.
    pub plans: Vec<String>,
}

impl LossCell {
    /// Whether the runs agree with the guarantee matrix.
    pub fn agrees(&self) -> bool {
        self.invalid == 0 && (self.lost_in == 0 || self.allowed)
    }
}

#[derive(Serialize)]
struct Page<'a> {
    title: String,
    systems: Vec<System<'a>>,
    runs: String,
    untested: usize,
}

#[derive(Serialize)]
struct System<'a> {
    title: String,
    columns: Vec<&'a str>,
    rows: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    documented: &'a str,
    cells: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    faults: &'a str,
    /// The class that colours it: kept, lost, broken or untried.
    kind: &'static str,
    verdict: String,
    count: String,
    more: String,
    plans: &'a [String],
}

fn shown<'a>(faults: &'a str, cell: Option<&'a LossCell>) -> Shown<'a> {
    let untried = |verdict: String| {
        let (count, more) = (String::new(), String::new());
        Shown { faults, kind: "untried", verdict, count, more, plans: &[] }
    };
    let Some(cell) = cell else { return untried("not run".to_owned()) };
    if let Some(why) = &cell.not_tested {
        return untried(format!("not tested here: {why}"));
    }
    let runs = number::counted(cell.runs, "run", "runs");
    let records = number::count(cell.acknowledged);
    let (kind, verdict) = match (cell.agrees(), cell.lost_in) {
        (false, 0) => ("broken", format!("BROKEN in {} of {runs}", number::count(cell.invalid))),
        (false, lost_in) => ("broken", format!("BROKEN: lost in {lost_in} of {runs}")),
        (true, 0) if cell.acknowledged == 0 => ("untried", "nothing was acknowledged".to_owned()),
        (true, 0) => ("kept", "nothing lost".to_owned()),
        (true, lost_in) => ("lost", format!("lost in {lost_in} of {runs}")),
    };
    let count = match cell.lost {
        0 => format!("{records} records, {runs}"),
        lost => format!("{} of {records} records", number::count(lost)),
    };
    let promise = if cell.allowed { "These settings may lose" } else { "These settings must not lose" };
    let (repeated, reordered) = (number::count(cell.repeated), number::count(cell.reordered));
    let recovery = cell.recovery_ms.map_or_else(String::new, |(median, worst)| {
        let took = |ms: u64| number::duration(ms as f64 * 1e6);
        format!(" Next acknowledged send after {}, at worst {}.", took(median), took(worst))
    });
    let more = format!("{promise}. Repeated: {repeated}, reordered: {reordered}.{recovery} Plans:");
    Shown { faults, kind, verdict, count, more, plans: &cell.plans }
}

/// What came of a system, as the title of its table.
fn system_title(name: &str, cells: &[&LossCell]) -> String {
    let tried = cells.iter().filter(|cell| cell.not_tested.is_none());
    let lost = tried.clone().filter(|cell| cell.lost_in > 0).count();
    let broken = tried.clone().filter(|cell| !cell.agrees()).count();
    let tried = tried.count();
    match broken {
        0 => format!("{name} keeps its promises: records were lost in {lost} of {tried} cells, each of which may lose"),
        broken => format!("{name} breaks its promise in {broken} of {tried} cells; records were lost in {lost}"),
    }
}

/// The page; it needs nothing beside itself.
pub fn render_losses(cells: &[LossCell]) -> Result<String, ReportError> {
    let mut systems: Vec<System<'_>> = Vec::new();
    for name in distinct(cells.iter().map(|cell| cell.system.as_str())) {
        let of_system: Vec<&LossCell> = cells.iter().filter(|cell| cell.system == name).collect();
        let columns = distinct(of_system.iter().map(|cell| cell.faults.as_str()));
        let rows = distinct(of_system.iter().map(|cell| cell.row.as_str())).into_iter().map(|row| {
            let of_row: Vec<&LossCell> = of_system.iter().copied().filter(|cell| cell.row == row).collect();
            let at = |column: &&str| of_row.iter().copied().find(|cell| cell.faults == *column);
            let cells = columns.iter().map(|column| shown(column, at(column))).collect();
            Row { name: row, documented: &of_row[0].documented, cells }
        });
        let version = of_system.iter().map(|cell| cell.version.as_str()).find(|version| !version.is_empty());
        let name = format!("{name} {}", version.unwrap_or_default());
        systems.push(System {
            title: system_title(name.trim(), &of_system),
            columns: columns.clone(),
            rows: rows.collect(),
        });
    }
    let title = match cells.iter().filter(|cell| !cell.agrees()).count() {
        0 => "No system lost what its settings promise to keep".to_owned(),
        broken => format!("Promises were broken in {}", number::counted(broken as u64, "cell", "cells")),
    };
    let page = Page {
        title,
        systems,
        runs: number::count(cells.iter().map(|cell| cell.runs).sum()),
        untested: cells.iter().filter(|cell| cell.not_tested.is_some()).count(),
    };
    Ok(environment()?.get_template("loss.html")?.render(Serde(page))?)
}

/// Each once, in the order of their first appearance.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct: Vec<&str> = Vec::new();
    names.for_each(|name| {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    });
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_shows_what_was_seen_and_what_was_not_tried() {
        let seen = LossCell {
            system: "kafka".to_owned(),
            version: "4.3.1".to_owned(),
            row: "acks=all flush=os".to_owned(),
            documented: "replication, not <fsync>".to_owned(),
            faults: "power loss of all".to_owned(),
            runs: 3,
            lost_in: 2,
            allowed: true,
            acknowledged: 5_000,
            lost: 17,
            recovery_ms: Some((900, 4_000)),
            plans: vec!["runs/kafka/plan.json".to_owned()],
            ..LossCell::default()
        };
        let untried = LossCell { faults: "pause".to_owned(), not_tested: Some("no time".to_owned()), ..seen.clone() };
        let broken = LossCell { system: "other".to_owned(), allowed: false, ..seen.clone() };
        assert!(seen.agrees() && !broken.agrees());
        let page = render_losses(&[seen, untried, broken]).unwrap();
        for text in
            ["kafka 4.3.1", "power loss of all", "17 of 5,000", "no time", "BROKEN", "&lt;fsync&gt;", "plan.json"]
        {
            assert!(page.contains(text), "{text}: {page}");
        }
    }
}
