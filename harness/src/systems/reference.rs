//! The reference broker as a provisioned system: this very program, as `mqassay broker`, on a free loopback port.
//! Not here: the brokers that a measurement starts for itself and ends with itself.

use std::collections::BTreeMap;
use std::path::Path;

use super::launch::{self, Launch, free_ports, word};
use super::{Options, Running, SystemError, io};

/// Starts it. Does not wait for it.
pub(super) fn start(folder: &Path, options: &Options, running: &mut Running) -> Result<(), SystemError> {
    let program = options.program.clone().ok_or(SystemError::NoProgram)?;
    running.version = env!("CARGO_PKG_VERSION").to_owned();
    let port = free_ports(1).map_err(io("find a free loopback port for", folder))?[0];
    running.bootstrap = format!("127.0.0.1:{port}");
    let mut command = vec![word(&program), "broker".to_owned(), "--listen".to_owned(), running.bootstrap.clone()];
    command.extend(["--data".to_owned(), word(&running.data_dir)]);
    for (name, value) in &options.settings {
        // The two settings that have a flag of their own are not among those of `--set`.
        match name.as_str() {
            "layout" | "flush" => command.extend([format!("--{name}"), value.clone()]),
            _ => command.extend(["--set".to_owned(), format!("{name}={value}")]),
        }
    }
    let launch = Launch {
        role: "broker-1".to_owned(),
        is_broker: true,
        address: running.bootstrap.clone(),
        command,
        environment: BTreeMap::new(),
        install: "mqassay anew: the running program's file is gone",
    };
    launch::start(folder, running, launch)
}
