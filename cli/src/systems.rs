//! `mqassay systems`: external systems up, looked at, and down.

use std::path::PathBuf;

use clap::Subcommand;
use mqassay_harness::systems::{self, Options, Running, SystemError};

use crate::arguments::{setting, settings};
use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::json_line;

/// Arguments of `mqassay systems`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Provision and start a system
    Up(One),
    /// Say whether a system runs and answers
    Status(One),
    /// End the process that `up` started, and remove its data
    Down(One),
}

#[derive(Debug, clap::Args)]
struct One {
    /// The system, for example kafka
    name: String,
    /// A setting of the system's own configuration; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Folder of all systems [default: MQASSAY_HOME, else mqassay in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Keep the data folder when it goes down
    #[arg(long)]
    keep_data: bool,
    /// JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Performs the action; the system's state is told in one line.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    type Act = fn(&str, &Options) -> Result<Running, SystemError>;
    let (one, act, done): (&One, Act, &str) = match &arguments.action {
        Action::Up(one) => (one, systems::up, "is up"),
        Action::Status(one) => (one, systems::status, "is up"),
        Action::Down(one) => (one, systems::down, "is down"),
    };
    let mut options = Options::from_environment().map_err(Failure::usage)?;
    options.settings = settings(&one.set);
    options.keep_data = one.keep_data;
    if let Some(home) = &one.home {
        options.home.clone_from(home);
    }
    let running = act(&one.name, &options).map_err(|error| match error {
        SystemError::Unknown { .. } => Failure::usage(error),
        error => Failure::undone(error),
    })?;
    if one.json {
        tell(&json_line(&running)?);
    } else {
        tell(&format!(
            "{} {} {done}: {}, process {}, data {}",
            running.name,
            running.version,
            running.bootstrap,
            running.pid,
            running.data_dir.display()
        ));
    }
    Ok(Exit::Valid)
}
