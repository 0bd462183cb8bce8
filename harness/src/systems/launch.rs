//! Starting the processes of a system: commands in process groups of their own, output to a log file, each written to
//! the record before the next is started, so that a crash of ours leaves nothing that `down` would not find.
//! Not here: what the commands are (`kafka`, `rocketmq`, `rabbitmq`, `reference`).

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::identity::{MARK, started_ticks};
use super::{Running, SystemError, SystemProcess, io, record, tail_of};

/// A process to be started.
pub(super) struct Launch {
    /// What it is within the system, for example `broker-1`; also the name of its log.
    pub(super) role: String,
    /// Whether it stores and delivers messages, so that its cost is the system's.
    pub(super) is_broker: bool,
    /// Where it listens, host and port.
    pub(super) address: String,
    /// Program and arguments.
    pub(super) command: Vec<String>,
    /// Variables of its environment beside ours.
    pub(super) environment: BTreeMap<String, String>,
    /// What to install where the program is missing.
    pub(super) install: &'static str,
}

/// Starts the process and adds it to the record on disk.
pub(super) fn start(folder: &Path, running: &mut Running, launch: Launch) -> Result<(), SystemError> {
    let log = folder.join(format!("{}.log", launch.role));
    // A log of an earlier run would be taken for this one's.
    std::fs::write(&log, "").map_err(io("begin", &log))?;
    let mut process = SystemProcess {
        role: launch.role,
        is_broker: launch.is_broker,
        address: launch.address,
        pid: 0,
        started_ticks: 0,
        log,
        command: launch.command,
        environment: launch.environment,
    };
    spawn(folder, &mut process, launch.install)?;
    running.processes.push(process);
    record::store(folder, running)
}

/// Starts the process as its record says; its pid and start become part of it.
pub(super) fn spawn(folder: &Path, process: &mut SystemProcess, install: &'static str) -> Result<(), SystemError> {
    let log = &process.log;
    let output = OpenOptions::new().create(true).append(true).open(log).map_err(io("open", log))?;
    let errors = output.try_clone().map_err(io("share", log))?;
    let (program, arguments) = process.command.split_first().expect("every launch names its program");
    let mut command = Command::new(program);
    command.args(arguments).envs(&process.environment).env(MARK, folder).current_dir(folder);
    // A process group of its own, so that an interrupt typed at the terminal does not reach it.
    command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    let child = command.spawn().map_err(|source| SystemError::Missing {
        program: program.clone(),
        purpose: "to run the system",
        install,
        source,
    })?;
    process.pid = child.id();
    // The child outlives this value on purpose: `down`, perhaps in another process, ends it.
    // Even one that has ended by now is there as a zombie, as nobody has waited for it.
    process.started_ticks = started_ticks(process.pid).ok_or_else(|| SystemError::Failed {
        program: process.command[0].clone(),
        purpose: "at its start",
        tail: format!("process {} is not in /proc", process.pid),
    })?;
    Ok(())
}

/// Runs a program to its end and gives its standard output.
pub(super) fn run(mut command: Command, purpose: &'static str, install: &'static str) -> Result<String, SystemError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output =
        output.map_err(|source| SystemError::Missing { program: program.clone(), purpose, install, source })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let tail = tail_of(&(text + &String::from_utf8_lossy(&output.stderr)));
    Err(SystemError::Failed { program, purpose, tail })
}

/// Jars of a pom, through Maven, in `folder`; the pom itself is the marker of a whole folder, so that a changed pom
/// fetches anew and a cut download does too.
pub(super) fn fetch_jars(folder: &Path, version: &str, pom_text: &str) -> Result<PathBuf, SystemError> {
    let jars = folder.join(format!("jars-{version}"));
    let marker = jars.join("complete");
    if std::fs::read_to_string(&marker).is_ok_and(|text| text == pom_text) {
        return Ok(jars);
    }
    if jars.exists() {
        std::fs::remove_dir_all(&jars).map_err(io("remove", &jars))?;
    }
    std::fs::create_dir_all(&jars).map_err(io("create", &jars))?;
    let pom = folder.join("pom.xml");
    std::fs::write(&pom, pom_text).map_err(io("write", &pom))?;
    let mut command = Command::new("mvn");
    command.args(["-B", "-q", "dependency:copy-dependencies", "-DincludeScope=runtime"]);
    command.arg(format!("-DoutputDirectory={}", jars.display())).arg("-f").arg(&pom);
    run(command, "to fetch the jars", "Maven (Debian: apt install maven)")?;
    std::fs::write(&marker, pom_text).map_err(io("write", &marker))?;
    Ok(jars)
}

/// What a pom pins under this property.
pub(super) fn pinned(pom: &str, property: &str) -> String {
    let after = pom.split(&format!("<{property}>")).nth(1).expect("the pom that is built in names its version");
    after.split('<').next().expect("a split has a first part").to_owned()
}

/// Fills `@NAME@`s of a template of `name=value` lines; a setting replaces the line of its name, or is added.
pub(super) fn fill(template: &str, values: &[(&str, String)], settings: &BTreeMap<String, String>) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("@{name}@"), value);
    }
    let name_of = |line: &str| line.split_once('=').map(|(name, _)| name.trim().to_owned());
    let is_kept = |line: &&str| !name_of(line).is_some_and(|name| settings.contains_key(&name));
    let mut lines: Vec<String> = text.lines().filter(is_kept).map(str::to_owned).collect();
    lines.extend(settings.iter().map(|(name, value)| format!("{name}={value}")));
    lines.join("\n") + "\n"
}

/// Ports of 127.0.0.1 that were free a moment ago; these systems must be told theirs before they start.
pub(super) fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    // All are held until all are known, so that none is given twice.
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}

/// A path as a program's argument.
pub(super) fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// What to say where there is no Java.
pub(super) const JAVA_INSTALL: &str =
    "a Java runtime, version 17 or newer (Debian: apt install openjdk-17-jre-headless)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_replaces_the_line_of_its_name_and_another_is_added() {
        let settings = BTreeMap::from([("a.b".to_owned(), "3".to_owned()), ("new".to_owned(), "x=y".to_owned())]);
        let text = fill("# head\na.b = 1\nport=@PORT@\n", &[("PORT", "17".to_owned())], &settings);
        assert_eq!(text, "# head\nport=17\na.b=3\nnew=x=y\n");
    }

    #[test]
    fn ports_differ() {
        let mut ports = free_ports(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
