//! Which process a pid names: the pid and when it started, so that another that was given the pid later is told apart;
//! and which processes bear a system's mark in their environment, so that one without a record is found too.
//! What a process has used is not here but in `process::accounting`.

use std::path::Path;

/// The variable that every process of a system has in its environment: the system's folder. Children inherit it.
pub(super) const MARK: &str = "MQASSAY_SYSTEM_FOLDER";

/// When process `pid` started, in clock ticks after boot; none where no such process is.
pub(crate) fn started_ticks(pid: u32) -> Option<u64> {
    stat_of(pid).map(|stat| stat.started_ticks)
}

/// Whether a process of this pid runs and started at `started_ticks`; a zombie does not run.
pub(super) fn is_running(pid: u32, started_ticks: u64) -> bool {
    stat_of(pid).is_some_and(|stat| stat.started_ticks == started_ticks && !matches!(stat.state, 'Z' | 'X'))
}

/// Processes of ours, pid and start, whose environment bears the mark of this folder; in order of the pid.
pub(super) fn marked(folder: &Path) -> Vec<(u32, u64)> {
    let wanted = [MARK.as_bytes(), b"=", folder.as_os_str().as_encoded_bytes()].concat();
    let bears_mark = |pid: &u32| {
        // The environment of another user's process cannot be read; such a process is none of ours.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let running = |pid: u32| started_ticks(pid).filter(|ticks| is_running(pid, *ticks)).map(|ticks| (pid, ticks));
    pids.into_iter().filter(bears_mark).filter_map(running).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    started_ticks: u64,
}

fn stat_of(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields of proc(5) `stat`; the second, the command's name in parentheses, may itself hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let after_name = &text[text.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is field 3, the start is field 22.
    let started_ticks = fields.nth(22 - 4)?.parse().ok()?;
    Some(Stat { state, started_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "77 (a ) b) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20 0 1 0 9001 1 2";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', started_ticks: 9001 }));
        assert_eq!(parse_stat("77 (a"), None);
    }

    #[test]
    fn this_process_is_running_under_its_own_start_only() {
        let pid = std::process::id();
        let started = started_ticks(pid).unwrap();
        assert!(is_running(pid, started));
        assert!(!is_running(pid, started + 1));
    }
}
