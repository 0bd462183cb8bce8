//! Reports: artifacts in, one self-contained HTML page out. The page needs neither network nor script.
//! Start at `input` for what a report is made from, at `page` for how it is put together, and at `chart` for the
//! pictures. Not here: anything that measures or judges; figures arrive finished and are only shown.

mod chart;
mod claims;
mod comparison;
mod explain;
mod glossary;
mod input;
mod loss;
mod number;
mod page;
mod tables;

pub use claims::{ClaimFigure, ClaimRow, render_claims};
pub use comparison::{ComparisonInput, render_comparison};
pub use explain::render_story;
pub use glossary::{figure as written_figure, metric as metric_title};
pub use input::{CaughtMutant, ReportInput};
pub use loss::{LossCell, render_losses};
pub use page::{ReportError, render};
