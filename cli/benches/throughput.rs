//! A short throughput report of the reference broker, as part of `cargo bench`; side by side with every external system
//! that is up (`mqassay systems up`).
//! It runs `mqassay bench quick`: the figures, their intervals and the verdict are that command's.

use std::process::{Command, ExitCode, Stdio};

use mqassay_harness::systems::KNOWN;

fn main() -> ExitCode {
    // Criterion's flags come to every bench and mean nothing here; without `--bench` this is a test run.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let program = env!("CARGO_BIN_EXE_mqassay");
    let mut systems = "reference".to_owned();
    for name in KNOWN.iter().filter(|name| **name != "reference") {
        let mut status = Command::new(program);
        status.args(["systems", "status", name]).stdout(Stdio::null()).stderr(Stdio::null());
        if status.status().is_ok_and(|status| status.success()) {
            systems = format!("{systems},{name}");
        }
    }
    match Command::new(program).args(["bench", "quick", "--systems", &systems]).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("mqassay bench quick ended with {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot run {program}: {error}");
            ExitCode::FAILURE
        }
    }
}
