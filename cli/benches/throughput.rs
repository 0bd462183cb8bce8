//! A short throughput report of the reference broker, as part of `cargo bench`; with Kafka up, side by side with it.
//! It runs `mqassay bench quick`: the figures, their intervals and the verdict are that command's.

use std::process::{Command, ExitCode, Stdio};

fn main() -> ExitCode {
    // Criterion's flags come to every bench and mean nothing here; without `--bench` this is a test run.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let program = env!("CARGO_BIN_EXE_mqassay");
    let mut status = Command::new(program);
    status.args(["systems", "status", "kafka"]).stdout(Stdio::null()).stderr(Stdio::null());
    let kafka_is_up = status.status().is_ok_and(|status| status.success());
    let systems = if kafka_is_up { "reference,kafka" } else { "reference" };
    match Command::new(program).args(["bench", "quick", "--systems", systems]).status() {
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
