//! How the command ends: by verdict, or with one line that says what is wrong and what to do.

use std::process::ExitCode;

use mqassay_harness::artifact::VerdictKind;

/// The exit codes, for the help text.
pub(crate) const MEANING: &str =
    "Exit codes: 0 valid, 1 a violation, 2 unknown (also when something could not be done), 64 wrong usage.";

const VIOLATION: u8 = 1;
/// Also the code of a process whose output nobody reads any more.
pub(crate) const UNKNOWN: u8 = 2;
const USAGE: u8 = 64;

/// An end with a verdict; a graver one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// All came out as it should.
    Valid,
    /// Something could not be judged.
    Unknown,
    /// A guarantee was broken.
    Violation,
}

impl From<VerdictKind> for Exit {
    fn from(kind: VerdictKind) -> Exit {
        match kind {
            VerdictKind::Valid => Exit::Valid,
            VerdictKind::Unknown => Exit::Unknown,
            VerdictKind::Invalid => Exit::Violation,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        match exit {
            Exit::Valid => ExitCode::SUCCESS,
            Exit::Violation => ExitCode::from(VIOLATION),
            Exit::Unknown => ExitCode::from(UNKNOWN),
        }
    }
}

/// An end without a verdict.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for cannot be: bad arguments, files or plans.
    Usage(String),
    /// What was asked for could not be done here and now.
    Undone(anyhow::Error),
}

impl Failure {
    /// A usage error whose message is the error's own.
    pub(crate) fn usage(error: impl std::fmt::Display) -> Failure {
        Failure::Usage(error.to_string())
    }

    /// A failure to do what was asked for.
    pub(crate) fn undone(error: impl Into<anyhow::Error>) -> Failure {
        Failure::Undone(error.into())
    }

    /// Prints the one line, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Failure::Usage(message) => {
                eprintln!("mqassay: {}", one_line(&message));
                ExitCode::from(USAGE)
            }
            Failure::Undone(error) => {
                eprintln!("mqassay: {}", one_line(&format!("{error:#}")));
                Exit::Unknown.into()
            }
        }
    }
}

/// Help and version as clap prints them; any other of its errors as one line.
pub(crate) fn of_clap(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    let message = error.to_string();
    let told: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(|line| line.trim_start_matches("error: "))
        .collect();
    eprintln!("mqassay: {} (see mqassay --help)", one_line(&told.join("; ")));
    ExitCode::from(USAGE)
}

/// A message of several lines, such as a parser's with the place in the file, on one line.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_graver_than_what_could_not_be_judged() {
        assert!(Exit::Violation > Exit::Unknown && Exit::Unknown > Exit::Valid);
        assert_eq!(Exit::from(VerdictKind::Invalid), Exit::Violation);
    }

    #[test]
    fn a_message_of_several_lines_becomes_one() {
        assert_eq!(one_line("bad\n  |\n1 | x\n"), "bad | 1 | x");
    }
}
