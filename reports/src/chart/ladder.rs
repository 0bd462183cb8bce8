//! The durability ladder: what each system's throughput is in each durability class, from all plans with a ladder. A rung is a
//! system of its own in a result, named after system and class. Logarithmic, as a sync before every answer costs factors and
//! not shares.

use mqassay_harness::measure::result::{BenchResult, MetricRow};
use plotters::style::text_anchor::HPos;

use super::canvas::{Canvas, Paint};
use super::scale::{Axis, Spread, log_ends};
use super::{Chart, Table, both_widths, data_uri};
use crate::number;
use crate::page::ReportError;

/// The ladder of all benches, or nothing where no system was measured in two classes.
pub(crate) fn chart(benches: &[BenchResult]) -> Result<Option<Chart>, ReportError> {
    let ladder: Vec<&BenchResult> = benches.iter().filter(|bench| bench.plan.starts_with(PREFIX)).collect();
    let rungs: Vec<Rung> = ladder.iter().flat_map(|bench| rungs(bench)).collect();
    let mut names: Vec<&str> = Vec::new();
    for rung in &rungs {
        if !names.contains(&rung.system) {
            names.push(rung.system);
        }
    }
    let of = |system: &str| rungs.iter().filter(|rung| rung.system == system).collect::<Vec<_>>();
    let groups: Vec<Vec<&Rung>> = names.into_iter().map(of).filter(|group| group.len() > 1).collect();
    let Some(ends) = log_ends(groups.iter().flatten().flat_map(|rung| [rung.row.low, rung.row.high])) else {
        return Ok(None);
    };
    let title = title(&groups);
    let (wide, narrow) = both_widths(&title, |width| height(&groups, width), |canvas| draw(canvas, &groups, ends))?;
    let messages: u64 = ladder.iter().flat_map(|bench| &bench.verdicts).map(|verdict| verdict.verified_messages).sum();
    let plans: Vec<&str> = ladder.iter().map(|bench| bench.plan.as_str()).collect();
    let rows: Vec<&MetricRow> = groups.iter().flatten().map(|rung| rung.row).collect();
    Ok(Some(Chart {
        title,
        caption: format!(
            "Records a second that were acknowledged, by durability class, logarithmic; mark: median over blocks, whisker: \
             95 % interval. One load on every rung. Plan {}; {} messages verified.",
            plans.join(", "),
            number::count(messages)
        ),
        legend: Vec::new(),
        wide,
        narrow,
        table: table(&groups),
        data: data_uri(&rows)?,
        data_name: "durability-ladder.json".to_owned(),
    }))
}

/// One system in one class.
struct Rung<'a> {
    system: &'a str,
    class: &'a str,
    row: &'a MetricRow,
}

fn rungs(bench: &BenchResult) -> Vec<Rung<'_>> {
    let mut rungs = Vec::new();
    for row in bench.rows.iter().filter(|row| row.metric == METRIC) {
        if let Some((system, class)) = row.system.split_once(", ") {
            rungs.push(Rung { system, class, row });
        }
    }
    rungs
}

fn title(groups: &[Vec<&Rung>]) -> String {
    let said = |group: &Vec<&Rung>| {
        let rungs: Vec<String> =
            group.iter().map(|rung| format!("{} {}", number::si(rung.row.value), short(rung.class))).collect();
        format!("{}: {}", group[0].system, rungs.join(", "))
    };
    format!("What durability costs, records/s: {}", groups.iter().map(said).collect::<Vec<_>>().join("; "))
}

/// A class without the note on how it is known, which the table has.
fn short(class: &str) -> &str {
    class.split([';', '(']).next().unwrap_or(class).trim()
}

const GROUP_HEAD: f64 = 28.0;
const FOOT: f64 = 34.0;

fn row_height(width: f64) -> f64 {
    if width < 500.0 { 42.0 } else { 28.0 }
}

fn height(groups: &[Vec<&Rung>], width: f64) -> f64 {
    groups.iter().map(|group| GROUP_HEAD + group.len() as f64 * row_height(width)).sum::<f64>() + FOOT
}

fn draw(canvas: &mut Canvas, groups: &[Vec<&Rung>], ends: (f64, f64)) -> Result<(), ReportError> {
    let is_narrow = canvas.is_narrow();
    let (left, right) = if is_narrow { (8.0, canvas.width - 8.0) } else { (230.0, canvas.width - 110.0) };
    let axis = Axis::new(Spread::Logarithmic, ends, (left, right));
    let bottom = canvas.height - FOOT;
    for tick in axis.ticks(54.0) {
        let x = axis.at(tick);
        canvas.line((x, 4.0), (x, bottom), Paint::Grid, 1.0)?;
        canvas.text((x, bottom + 14.0), &number::si(tick), HPos::Center, Paint::Muted, 11.5)?;
    }
    canvas.text(((left + right) / 2.0, bottom + 28.0), "records/s", HPos::Center, Paint::Muted, 11.5)?;
    let mut y = 0.0;
    for (index, group) in groups.iter().enumerate() {
        canvas.text((0.0, y + GROUP_HEAD / 2.0), group[0].system, HPos::Left, Paint::Ink, 13.0)?;
        y += GROUP_HEAD;
        for rung in group {
            let row = rung.row;
            let places = (axis.at(row.low), axis.at(row.value), axis.at(row.high));
            let written = number::si(row.value);
            if is_narrow {
                canvas.text((8.0, y + 10.0), short(rung.class), HPos::Left, Paint::Muted, 11.5)?;
                canvas.text((canvas.width - 8.0, y + 10.0), &written, HPos::Right, Paint::Ink, 11.5)?;
                canvas.whisker(places, y + 28.0, index, true)?;
            } else {
                let middle = y + row_height(canvas.width) / 2.0;
                canvas.text((16.0, middle), short(rung.class), HPos::Left, Paint::Muted, 12.0)?;
                canvas.text((canvas.width, middle), &written, HPos::Right, Paint::Ink, 12.0)?;
                canvas.whisker(places, middle, index, true)?;
            }
            y += row_height(canvas.width);
        }
    }
    Ok(())
}

fn table(groups: &[Vec<&Rung>]) -> Table {
    let row = |rung: &&Rung| {
        let figures =
            [rung.row.value, rung.row.low, rung.row.high].map(|value| number::quantity(value, &rung.row.unit));
        let mut cells = vec![rung.system.to_owned(), rung.class.to_owned(), rung.row.plan.clone()];
        cells.extend(figures);
        cells
    };
    Table::new(
        &["System", "Durability", "Plan", "Median", "95 % from", "95 % to"],
        groups.iter().flatten().map(row).collect(),
    )
}

const PREFIX: &str = "ladder";
const METRIC: &str = "produce_records_per_second";
