//! Forest plot: each ratio of two systems with its interval on a logarithmic axis, the line at 1 being no difference.
//! Every ratio is turned so that right of the line favours the numerator's system; costs are therefore inverted,
//! and the label says so. The data beside the chart is as it was measured.

use mqassay_harness::measure::result::{BenchResult, METRICS, RatioRow};
use mqassay_harness::measure::statistics::VALUES_MINIMUM;
use plotters::style::text_anchor::HPos;

use super::canvas::{Canvas, Paint};
use super::scale::{Axis, Spread, log_ends};
use super::{Chart, Systems, Table, both_widths, data_uri, sample};
use crate::page::ReportError;
use crate::{glossary, number};

/// The forest plot, or nothing where no ratio was measured.
pub(crate) fn chart(bench: &BenchResult, systems: &Systems) -> Result<Option<Chart>, ReportError> {
    let usable = |row: &&RatioRow| row.ratio > 0.0 && row.low > 0.0 && row.high.is_finite();
    let trees: Vec<Tree> = bench.ratios.iter().filter(usable).map(|row| Tree::of(row, systems)).collect();
    let Some(ends) = log_ends(trees.iter().flat_map(|tree| [tree.low, tree.high, 1.0])) else { return Ok(None) };
    if trees.is_empty() {
        return Ok(None);
    }
    let title = format!("Ratios: {}", standing(&trees));
    let (wide, narrow) = pictures(&trees, ends, &title)?;
    Ok(Some(Chart {
        title,
        caption: format!(
            "Ratio of two systems from pairs of interleaved blocks, logarithmic, more is better; mark: median; whisker: \
             95 % bootstrap interval, of fewer than {VALUES_MINIMUM} pairs their range; hollow: no difference shown, as the \
             whisker crosses 1 or the pairs are too few. Plan {}; {}.",
            bench.plan,
            sample(bench)
        ),
        legend: Vec::new(),
        wide,
        narrow,
        table: table(&bench.ratios),
        data: data_uri(&bench.ratios)?,
        data_name: format!("{}-ratios.json", bench.plan),
    }))
}

/// Draws the trees in both widths, below each other on one axis.
pub(super) fn pictures(trees: &[Tree], ends: (f64, f64), title: &str) -> Result<(String, String), ReportError> {
    both_widths(title, |width| height(trees.len(), width), |canvas| draw(canvas, trees, ends))
}

/// One ratio, turned so that more is better for `better_right`.
pub(super) struct Tree {
    /// What is compared, the first line of its label.
    pub(super) metric: String,
    /// What is divided by what, the second line.
    pub(super) division: String,
    /// Whom the left side favours.
    pub(super) better_left: String,
    /// Whom the right side favours.
    pub(super) better_right: String,
    /// Colour and mark.
    pub(super) series: usize,
    /// Lower end of the interval.
    pub(super) low: f64,
    /// The ratio.
    pub(super) ratio: f64,
    /// Upper end of the interval.
    pub(super) high: f64,
    /// Whether what is drawn as an interval is one.
    pub(super) has_interval: bool,
}

impl Tree {
    fn of(row: &RatioRow, systems: &Systems) -> Tree {
        let [first, second] = &row.ratio_of;
        let is_cost = METRICS.iter().any(|(name, _, more_is_better)| *name == row.metric && !more_is_better);
        let (low, ratio, high) =
            if is_cost { (1.0 / row.high, 1.0 / row.ratio, 1.0 / row.low) } else { (row.low, row.ratio, row.high) };
        let favoured = if ratio >= 1.0 { first } else { second };
        Tree {
            metric: glossary::metric(&row.metric),
            division: if is_cost { format!("{second} ÷ {first}") } else { format!("{first} ÷ {second}") },
            better_left: second.clone(),
            better_right: first.clone(),
            series: systems.index(favoured),
            low,
            ratio,
            high,
            has_interval: row.has_interval(),
        }
    }

    fn is_clear_of_one(&self) -> bool {
        self.has_interval && (self.low > 1.0 || self.high < 1.0)
    }

    fn written(&self) -> String {
        format!(
            "{} ({}–{})",
            number::quantity(self.ratio, "ratio"),
            number::significant(self.low),
            number::significant(self.high)
        )
    }
}

/// Who is ahead in how many of the trees, as the rest of a sentence.
pub(super) fn standing(trees: &[Tree]) -> String {
    let first = &trees[0];
    let is_one_pair =
        trees.iter().all(|tree| tree.better_right == first.better_right && tree.better_left == first.better_left);
    let clear = trees.iter().filter(|tree| tree.is_clear_of_one());
    let (right, left): (Vec<&Tree>, Vec<&Tree>) = clear.partition(|tree| tree.low > 1.0);
    let open = trees.len() - right.len() - left.len();
    if is_one_pair {
        format!(
            "{} is ahead of {} in {} of {}, behind in {}, no difference shown in {open}",
            first.better_right,
            first.better_left,
            right.len(),
            trees.len(),
            left.len()
        )
    } else {
        format!("{} of {} differ clearly from 1", right.len() + left.len(), trees.len())
    }
}

/// Room for the longest name of a metric.
const LABELS: f64 = 280.0;
const HEAD: f64 = 30.0;
const FOOT: f64 = 32.0;

fn row_height(width: f64) -> f64 {
    if width < 500.0 { 60.0 } else { 38.0 }
}

fn height(rows: usize, width: f64) -> f64 {
    HEAD + rows as f64 * row_height(width) + FOOT
}

fn draw(canvas: &mut Canvas, trees: &[Tree], ends: (f64, f64)) -> Result<(), ReportError> {
    let is_narrow = canvas.is_narrow();
    let (left, right) = if is_narrow { (4.0, canvas.width - 4.0) } else { (LABELS, canvas.width - 150.0) };
    let axis = Axis::new(Spread::Logarithmic, ends, (left, right));
    let bottom = canvas.height - FOOT;
    for tick in axis.ticks(38.0) {
        let x = axis.at(tick);
        canvas.line((x, HEAD - 4.0), (x, bottom), Paint::Grid, 1.0)?;
        canvas.text((x, bottom + 15.0), &number::significant(tick), HPos::Center, Paint::Muted, 11.5)?;
    }
    let one = axis.at(1.0);
    canvas.line((one, HEAD - 10.0), (one, bottom), Paint::Axis, 1.5)?;
    draw_sides(canvas, trees, one, (left, right))?;
    for (index, tree) in trees.iter().enumerate() {
        draw_tree(canvas, &axis, tree, HEAD + index as f64 * row_height(canvas.width))?;
    }
    Ok(())
}

/// Says above the line at 1 which side favours whom, as far as there is room.
fn draw_sides(canvas: &mut Canvas, trees: &[Tree], one: f64, (left, right): (f64, f64)) -> Result<(), ReportError> {
    let first = &trees[0];
    if trees.iter().any(|tree| tree.better_right != first.better_right || tree.better_left != first.better_left) {
        return Ok(());
    }
    let needed = |text: &str| text.chars().count() as f64 * 6.6 + 10.0;
    let to_right = format!("{} better →", first.better_right);
    if right - one >= needed(&to_right) {
        canvas.text((one + 8.0, 12.0), &to_right, HPos::Left, Paint::Muted, 11.5)?;
    }
    let to_left = format!("← {} better", first.better_left);
    let room = if canvas.is_narrow() { one - left } else { one };
    if room >= needed(&to_left) {
        canvas.text((one - 8.0, 12.0), &to_left, HPos::Right, Paint::Muted, 11.5)?;
    }
    Ok(())
}

fn draw_tree(canvas: &mut Canvas, axis: &Axis, tree: &Tree, top: f64) -> Result<(), ReportError> {
    let places = (axis.at(tree.low), axis.at(tree.ratio), axis.at(tree.high));
    if canvas.is_narrow() {
        canvas.text((4.0, top + 12.0), &tree.metric, HPos::Left, Paint::Ink, 12.5)?;
        canvas.text((4.0, top + 27.0), &tree.division, HPos::Left, Paint::Muted, 11.0)?;
        canvas.text((canvas.width - 4.0, top + 27.0), &tree.written(), HPos::Right, Paint::Ink, 11.5)?;
        return canvas.whisker(places, top + 44.0, tree.series, tree.is_clear_of_one());
    }
    canvas.text((0.0, top + 11.0), &tree.metric, HPos::Left, Paint::Ink, 13.0)?;
    canvas.text((0.0, top + 27.0), &tree.division, HPos::Left, Paint::Muted, 11.0)?;
    canvas.text((canvas.width, top + 19.0), &tree.written(), HPos::Right, Paint::Ink, 12.5)?;
    canvas.whisker(places, top + 19.0, tree.series, tree.is_clear_of_one())
}

fn table(ratios: &[RatioRow]) -> Table {
    let rows = ratios.iter().map(|row| {
        vec![
            glossary::metric(&row.metric),
            row.ratio_of.join(" ÷ "),
            number::significant(row.ratio),
            number::significant(row.low),
            number::significant(row.high),
        ]
    });
    Table::new(&["Metric", "Ratio of, as measured", "Median", "95 % from", "95 % to"], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_turned_so_that_more_is_better() {
        let row = |metric: &str, low, ratio, high| RatioRow {
            plan: "p".to_owned(),
            metric: metric.to_owned(),
            ratio_of: ["reference".to_owned(), "kafka".to_owned()],
            pairs: 6,
            ratio,
            low,
            high,
        };
        let cheap = Tree::of(&row("broker_cpu_ns_per_message", 0.2, 0.25, 0.5), &Systems::default());
        assert_eq!((cheap.low, cheap.ratio, cheap.high), (2.0, 4.0, 5.0));
        assert_eq!(cheap.division, "kafka ÷ reference");
        assert!(cheap.is_clear_of_one());
        let few = RatioRow { pairs: 5, ..row("broker_cpu_ns_per_message", 0.2, 0.25, 0.5) };
        assert!(!Tree::of(&few, &Systems::default()).is_clear_of_one());
        let fast = Tree::of(&row("produce_records_per_second", 0.9, 1.5, 2.0), &Systems::default());
        assert_eq!((fast.low, fast.ratio, fast.high), (0.9, 1.5, 2.0));
        assert!(!fast.is_clear_of_one());
        assert_eq!(
            standing(&[cheap, fast]),
            "reference is ahead of kafka in 1 of 2, behind in 0, no difference shown in 1"
        );
    }
}
