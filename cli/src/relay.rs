//! `mqassay relay`, hidden: the bare program without a protocol that brokers' costs are held against.

use std::io::Write;
use std::path::PathBuf;

use mqassay_benches::raw::relay::{self, Sync};

use crate::exit::{Exit, Failure};

/// Arguments of `mqassay relay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder for its file
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// When what arrived is synced: ack or os
    #[arg(long, default_value = "os", value_parser = ["ack", "os"])]
    flush: String,
}

/// Serves until it is ended.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let sync = if arguments.flush == "ack" { Sync::BeforeAnswers } else { Sync::Never };
    relay::serve(&arguments.data, sync, &|address| {
        // Whoever started it may not want to hear of it.
        let _ = writeln!(std::io::stdout().lock(), "listening on {address}");
    })
    .map_err(Failure::undone)?;
    Ok(Exit::Valid)
}
