//! `mqassay slowed-broker`, hidden: the reference broker with a calibrated spin beside it, for trials of the instrument.
//! A command of its own, so that nothing that a broker takes can slow it down.

use mqassay_benches::spin;

use crate::broker;
use crate::exit::{Exit, Failure};

/// Arguments of `mqassay slowed-broker`: those of `mqassay broker`, and the slowdown.
#[derive(Debug, clap::Args)]
#[group(skip)] // Its group would bear the same name as the broker's.
pub(crate) struct Arguments {
    /// Processor time to waste, in percent of what the broker uses
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    percent: u32,
    #[command(flatten)]
    broker: broker::Arguments,
}

/// Serves until it is ended.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    spin::start(f64::from(arguments.percent) / 100.0).map_err(Failure::undone)?;
    broker::run(&arguments.broker)
}
