//! Forest plot of two runs: each figure of the later run over the same of the earlier, turned so that right of the line at 1
//! is better. Not here: what counts as a difference, which `harness::measure::comparison` says.

use mqassay_harness::measure::comparison::{Change, Comparison, Outcome};

use super::forest::{self, Tree};
use super::scale::log_ends;
use super::{Chart, Table, data_uri};
use crate::page::ReportError;
use crate::{glossary, number};

/// The plot, or nothing where no figure can be divided. `names` are those of the earlier and the later run.
pub(crate) fn chart(comparison: &Comparison, names: &[String; 2]) -> Result<Option<Chart>, ReportError> {
    let mut changes: Vec<&Change> = comparison.changes.iter().filter(|change| change.gain.is_some()).collect();
    changes.sort_by_key(|change| change.outcome);
    let hidden = changes.len().saturating_sub(TREES_MAX);
    changes.truncate(TREES_MAX);
    let trees: Vec<Tree> = changes.iter().filter_map(|change| tree(change, names)).collect();
    let Some(ends) = log_ends(trees.iter().flat_map(|tree| [tree.low, tree.high, 1.0])) else { return Ok(None) };
    if trees.is_empty() {
        return Ok(None);
    }
    let plan = &comparison.plan;
    let title = format!("Plan {plan}: {}", forest::standing(&trees));
    let (wide, narrow) = forest::pictures(&trees, ends, &title)?;
    let more = if hidden > 0 { format!(" {hidden} more stand in the table.") } else { String::new() };
    Ok(Some(Chart {
        title,
        caption: format!(
            "{} over {}, logarithmic, more is better; mark: ratio of the medians; whisker: the widest ratio that both 95 % \
             intervals allow, as two runs share no blocks; hollow: no difference shown. Plan {plan}; {}.{more}",
            names[1],
            names[0],
            number::counted(comparison.changes.len() as u64, "figure compared", "figures compared"),
        ),
        legend: Vec::new(),
        wide,
        narrow,
        table: table(&comparison.changes, names),
        data: data_uri(comparison)?,
        data_name: format!("{plan}-comparison.json"),
    }))
}

fn tree(change: &Change, names: &[String; 2]) -> Option<Tree> {
    let [low, ratio, high] = change.gain?;
    Some(Tree {
        metric: glossary::metric(&change.metric),
        division: change.of.clone(),
        better_left: names[0].clone(),
        better_right: names[1].clone(),
        series: usize::from(ratio >= 1.0),
        low,
        ratio,
        high,
        has_interval: change.outcome != Outcome::NoSpread,
    })
}

/// Every change with both figures, what got worse first.
pub(crate) fn table(changes: &[Change], names: &[String; 2]) -> Table {
    let mut sorted: Vec<&Change> = changes.iter().collect();
    sorted.sort_by_key(|change| change.outcome);
    let figure = |[low, value, high]: [f64; 3], unit: &str| {
        let value = number::quantity(value, unit);
        if low == high {
            value
        } else {
            format!("{value} ({}–{})", number::quantity(low, unit), number::quantity(high, unit))
        }
    };
    let row = |change: &&Change| {
        vec![
            glossary::metric(&change.metric),
            change.of.clone(),
            figure(change.before, &change.unit),
            figure(change.after, &change.unit),
            change.gain.map_or("–".to_owned(), |[low, ratio, high]| {
                format!("{} ({}–{})", number::significant(ratio), number::significant(low), number::significant(high))
            }),
            word(change.outcome).to_owned(),
        ]
    };
    let head = ["Figure", "Of", names[0].as_str(), names[1].as_str(), "Ratio, more is better", "Outcome"];
    Table::new(&head, sorted.iter().map(row).collect())
}

/// An outcome in words.
pub(crate) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Worse => "worse",
        Outcome::Better => "better",
        Outcome::NoDifference => "no difference shown",
        Outcome::NoSpread => "one value each: not decided",
    }
}

/// As many trees are drawn at most; a picture of more is not looked at.
const TREES_MAX: usize = 40;
