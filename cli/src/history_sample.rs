//! `mqassay history-sample`, hidden: a clean history of any length in a file, to measure `mqassay check` with.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use mqassay_harness::history::binary::BinaryWriter;
use mqassay_harness::history::sample::{Sample, header};

use crate::exit::{Exit, Failure};

/// Arguments of `mqassay history-sample`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Operations, at least 2,000
    #[arg(value_name = "N")]
    operations: u64,
    /// The file to write, in the binary encoding
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Writes the file.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let path = arguments.file.display();
    let file = File::create(&arguments.file)
        .map_err(|error| Failure::Usage(format!("cannot write {path}: {error}; name another file")))?;
    let mut writer = BinaryWriter::start(BufWriter::new(file), &header()).map_err(Failure::undone)?;
    for operation in Sample::new(arguments.operations, 1) {
        writer.operation(&operation).map_err(Failure::undone)?;
    }
    writer.finish().map_err(Failure::undone)?;
    Ok(Exit::Valid)
}
