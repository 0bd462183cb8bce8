//! `mqassay report`: a page of the results in a folder.

use std::path::{Path, PathBuf};

use mqassay_reports::ReportInput;

use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::{self, cannot};

/// Arguments of `mqassay report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder with results, as `assay`, `verify`, `mutants run` and `bench` leave them
    runs_dir: PathBuf,
    /// The page to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The page's title
    #[arg(long, default_value = "Results of mqassay")]
    title: String,
}

/// Writes the page; it exits with 0 whatever the results are, for they were told when they were made.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    write_page(&results::load(&arguments.runs_dir, &arguments.title)?, &arguments.output)?;
    tell(&format!("report: {}", arguments.output.display()));
    Ok(Exit::Valid)
}

/// Renders the page into a file.
pub(crate) fn write_page(input: &ReportInput, path: &Path) -> Result<(), Failure> {
    let page = mqassay_reports::render(input).map_err(Failure::undone)?;
    std::fs::write(path, page).map_err(|error| cannot("write", path, error))
}
